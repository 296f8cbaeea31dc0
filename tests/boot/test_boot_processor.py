# SPDX-License-Identifier: GPL-2.0-or-later
"""The first of two emulated processors is its own, whatever the second one's floating point unit does."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.qbuild import QemuBuild
from harness.run import run
from tests.boot.test_direct_store import BARE, CPU, FREESTANDING, boot_bare

pytestmark = pytest.mark.boot


def test_pins_and_nested_page_tables_are_the_boot_processors_own(qemu_build: QemuBuild, tmp_path: Path) -> None:
    """A second processor that loaded floating point state wrote the first one's flags as well, without a lock.

    IGNNE# then went out under the first one, and of 100,000 entries into a virtual machine thousands went wrong:
    without nested page tables inside, or with them outside.
    """
    kernel = tmp_path / "boot-processor.elf"
    run(["gcc", *FREESTANDING, f"-Wl,-T,{BARE / 'kernel.ld'}", "-o", kernel, BARE / "boot_processor.c"])
    lines = boot_bare(qemu_build, kernel, "-smp", "2", "-accel", "tcg,thread=multi", "-cpu", CPU)
    said = {what: int(number) for what, _, number in (line.rpartition(" ") for line in lines)}
    assert said.pop("loops of the other") > 100_000  # side by side indeed
    assert said == {
        "raised": 1, "ignored": 1, "raised again": 1,
        "ignored by order of the other": 1, "raised while the other clears its own": 0,
        "entered": 100_000, "wrong inside": 0, "wrong outside": 0,
    }  # fmt: skip
