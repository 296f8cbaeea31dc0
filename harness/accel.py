# SPDX-License-Identifier: GPL-2.0-or-later
"""Which accelerator a functional machine gets: KVM only where a probe has run a vCPU on it."""

from __future__ import annotations

from pathlib import Path

from harness.config import atomic_write, paths
from harness.doctor import check_accelerator
from harness.errors import UsageError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def accelerator(wanted: str, *, measured: bool = False) -> str:
    """Decide between ``tcg`` and ``kvm`` for what the user wants: one of them, or ``auto``.

    Measured machines count instructions, which only TCG does.

    Raises:
        UsageError: no such accelerator, or it cannot do what is asked.

    """
    if wanted not in ("auto", "tcg", "kvm"):
        raise UsageError(f"there is no accelerator {wanted!r}", hint="--accel auto, tcg or kvm")
    if wanted == "kvm" and measured:
        raise UsageError("a measured machine counts instructions, which KVM cannot", hint="leave out --accel")
    if wanted == "tcg" or measured:
        return "tcg"
    evidence = _evidence()
    if evidence.startswith("KVM"):
        return "kvm"
    if wanted == "kvm":
        raise UsageError(f"KVM cannot be used here; {evidence}", hint="--accel tcg")
    return "tcg"


def _evidence() -> str:
    """What the probe found, remembered until the next boot of this machine: it takes about a second."""
    file = paths().tmp / f"accelerator-{_BOOT_ID.read_text().strip()}"
    if not file.exists():
        atomic_write(file, check_accelerator()[0].evidence)
    return file.read_text()
