# SPDX-License-Identifier: GPL-2.0-or-later
"""The direct store instructions of the emulated CPU, by programs that run on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import PROJECT
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec
from harness.qbuild import QemuBuild
from harness.run import run

pytestmark = pytest.mark.boot

USER_TEST = PROJECT / "patches" / "qemu" / "src" / "tests" / "tcg" / "x86_64" / "direct-store.c"
CPU = "max,-erms,-fsrm"


@pytest.mark.parametrize(("cpu", "enqcmd"), [(CPU, "absent"), (f"{CPU},enqcmd=on", "present")])
def test_user_mode(
    cpu: str,
    enqcmd: str,
    qemu_build: QemuBuild,
    kernel_build: KernelBuild,
    functional_image: Image,
    tmp_path: Path,
) -> None:
    """QEMU's own test program, as a process of a guest with two processors."""
    program = tmp_path / "direct-store"
    run(["gcc", "-O2", "-static", "-pthread", "-o", program, USER_TEST])
    output = bytearray()
    spec = MachineSpec(qemu_build, kernel_build, functional_image, "functional", 512, cpus=2, cpu=cpu)
    with Machine(spec, tmp_path / "run") as machine:
        machine.start(timeout=120)
        status = machine.execute(
            "cat > /tmp/direct-store && chmod +x /tmp/direct-store && /tmp/direct-store",
            stdin=program.read_bytes(),
            on_stdout=output.extend,
            timeout=120,
        )
    text = output.decode()
    assert status == 0, text
    assert text.startswith("ok: ") and text.endswith(f" 0 failed, enqcmd {enqcmd}\n")
