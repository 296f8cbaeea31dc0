# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugins on sealed machines: accesses whose misses are known beforehand, tasks of saved fleets and of real VMs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import fleet, images, llc, profiler
from harness.config import PROJECT
from harness.experiment import artefacts, cells, plan, spec
from harness.experiment.executors import Sealed as Executor
from harness.experiment.plan import Cell
from harness.fleet import FleetResult
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec, Outcome
from harness.qbuild import QemuBuild
from harness.run import run
from harness.workbench import Workbench, workbench
from tests.boot.sealed import Sealed

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


def spent(result: FleetResult) -> tuple[int, int]:
    """What the scheduler gave ksmd and VM 1 in the window."""
    first, last = result.samples[0], result.samples[-1]
    return last["ksmd_ns"] - first["ksmd_ns"], last["app_ns"] - first["app_ns"]


def test_a_saved_fleet_that_is_watched_is_the_same_and_its_tasks_are_known(bench: Workbench, tmp_path: Path) -> None:
    """Instructions by task are what the scheduler says, and the accelerator's reading is nobody's miss."""
    parts = artefacts.of_workbench(bench)
    executor = Executor(bench, deadline=120)
    found: dict[tuple[str, str], tuple[Cell, bytes, dict[str, Any]]] = {}
    for name, systems in (("fig12", ("cpu-ksm",)), ("table3", ("cpu-ksm", "para-ksmc")), ("fig3", ("cpu-ksm",))):
        for cell in plan.make(spec.load(name), parts, profile="unit").cells:
            if cell.system in systems:
                work = tmp_path / f"{name}-{cell.system}"
                work.mkdir()
                raw = executor.execute(cell, work)
                found[name, cell.system] = (cell, raw, cells.watched(cell, work))
    assert len({cell.checkpoint.key for cell, _, _ in found.values()}) == 1
    assert found["fig12", "cpu-ksm"][1] == found["table3", "cpu-ksm"][1] == found["fig3", "cpu-ksm"][1]
    for system in ("cpu-ksm", "para-ksmc"):
        _, raw, counted = found["table3", system]
        ksmd, vm1 = spent(fleet.parse(raw))
        assert counted["llc_instructions_ksmd"] == pytest.approx(ksmd, rel=0.01)
        assert counted["llc_instructions_vm1"] == pytest.approx(vm1, rel=0.01)
    ksmd, _ = spent(fleet.parse(found["fig3", "cpu-ksm"][1]))
    assert sum(found["fig3", "cpu-ksm"][2]["functions"].values()) == pytest.approx(ksmd, rel=0.01)
    cpu, para = (found["table3", system][2]["llc_misses_ksmd"] for system in ("cpu-ksm", "para-ksmc"))
    assert para < 0.7 * cpu


def test_what_runs_in_a_real_vm_belongs_to_it_and_its_memory_is_the_machines(tmp_path: Path) -> None:
    nest = workbench(image="nested")
    nested = Sealed(nest.qemu, nest.kernel, nest.image)
    what = fleet.plan_from(
        {
            "backend": "nested", "workload": "graph500", "graph_scale": 10, "graph_roots": 16, "vms": 2,
            "vm_memory_mib": 40, "window_ms": 200, "vm_sample_ms": 50, "pages_to_scan": 512, "system": "cpu-ksm",
        }
    )  # fmt: skip
    out, library = tmp_path / llc.FILE, llc.plugin(nest.qemu)
    caches = llc.caches_for(what.vms, what.vm_memory_mib, dict.fromkeys(("ksmd", "vm1", "other"), 0x7FFF))
    raw = nested.raw(
        what, tmp_path / "watched",
        plugin=lambda memory: llc.argument(library, nest.kernel.system_map, memory, caches, out),
    )  # fmt: skip
    result = fleet.parse(raw)
    fleet.check(what, result)
    missed = llc.read(profiler.lines_of(out, llc.SOURCE.stem))  # no access was lost: each has an address of the machine
    ksmd, vm1 = spent(result)
    assert missed.instructions["ksmd"] == pytest.approx(ksmd, rel=0.01)
    assert missed.instructions["vm1"] == pytest.approx(vm1, rel=0.01)
    assert all(0 < missed.miss_rate(owner) < 1 for owner in ("vm1", "ksmd", "other"))
