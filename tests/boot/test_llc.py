# SPDX-License-Identifier: GPL-2.0-or-later
"""Modelled caches on a sealed machine: accesses whose misses are known beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import images, llc, profiler
from harness.config import PROJECT
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec, Outcome
from harness.qbuild import QemuBuild
from harness.run import run

pytestmark = pytest.mark.boot

PAGE_LINES = 64
ROUNDS = 1000


def test_misses_are_those_that_the_program_must_have(
    qemu_build: QemuBuild, kernel_build: KernelBuild, measured_image: Image, tmp_path: Path
) -> None:
    """A page has one line in each of 64 sets, wherever it lies, so what fits and what does not is exact."""
    run(["gcc", "-O2", "-static", "-Wall", "-Werror", "-o", tmp_path / "known", PROJECT / "tests" / "llc" / "known.c"])
    (tmp_path / "command").write_text("cp /known /tmp/known && chmod +x /tmp/known && exec /tmp/known\n")
    out = tmp_path / llc.FILE
    caches = llc.Caches(sets=64, private_sets=64, private_ways=8, masks=dict.fromkeys(("ksmd", "vm1", "other"), 0x7FFF))
    spec = MachineSpec(
        qemu_build, kernel_build, images.extended(measured_image, {"known": tmp_path / "known"}), "measured", 128,
        fw_cfg={"command": tmp_path / "command"},
        plugin=llc.argument(llc.plugin(qemu_build), kernel_build.system_map, 128, caches, out),
    )  # fmt: skip
    with Machine(spec, tmp_path / "run") as machine:
        machine.start()
        assert machine.wait(120) is Outcome.CLEAN
    assert (tmp_path / "run" / "results.bin").read_bytes() == b"rounds %d\n" % ROUNDS
    missed = llc.read(profiler.lines_of(out, llc.SOURCE.stem))
    loads = {owner: missed.counts[owner, "load"] for owner in ("vm1", "ksmd", "other")}
    walked = {owner: pages * PAGE_LINES * ROUNDS for owner, pages in (("vm1", 4), ("ksmd", 12), ("other", 40))}
    # what comes on top: processes begin and end, and the rest of the machine
    assert 1 <= loads["vm1"].private_hits / walked["vm1"] < 1.1
    assert loads["vm1"].accesses < 0.05 * walked["vm1"]
    # twelve pages fit the cache behind, by whichever address they are asked for
    assert 0.99 < loads["ksmd"].hits / walked["ksmd"] < 1.01
    assert loads["ksmd"].misses < 0.01 * walked["ksmd"]
    # forty fit nothing, and of each page all lines but the first are next to the last miss
    assert 0.999 < loads["other"].misses / walked["other"] < 1.005
    assert 1 / PAGE_LINES < loads["other"].scattered / walked["other"] < 1.2 / PAGE_LINES
