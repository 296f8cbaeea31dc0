# SPDX-License-Identifier: GPL-2.0-or-later
"""A loaded fleet that is saved by its own guest: the same bytes when it is saved again, and when it goes on again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness import checkpoint, fleet
from harness.config import PROJECT, paths
from harness.experiment import artefacts, plan, spec
from harness.experiment.executors import Sealed as Executor
from harness.experiment.plan import PLAN_FILE, REST_FILE, REST_PATH, Cell
from harness.machine import Machine, MachineSpec, Outcome, Saved
from harness.workbench import Workbench
from tests.boot.sealed import Sealed

pytestmark = pytest.mark.boot

SYSTEMS = ("no-ksm", "para-ksmc")


def cells(bench: Workbench) -> dict[str, Cell]:
    """The unit profile's cells of Figure 12, by system."""
    made = plan.make(spec.load("fig12"), artefacts.of_workbench(bench), profile="unit")
    return {cell.system: cell for cell in made.cells}


def folder(cell: Cell) -> Path:
    """Where the checkpoint of a cell is."""
    return paths().checkpoints / cell.checkpoint.key[:16]


def machine_of(bench: Workbench, cell: Cell, work: Path) -> MachineSpec:
    """The machine that loads a cell's fleet, before it is said where it is saved."""
    parts = {PLAN_FILE: work / "loaded.txt", REST_FILE: work / "rest.txt"}
    parts[PLAN_FILE].write_text(cell.fleet.render_loaded(REST_PATH))
    parts[REST_FILE].write_text(cell.fleet.render_rest())
    return MachineSpec(
        bench.qemu, bench.kernel, bench.image, "measured", cell.memory_mib,
        seed=cell.seed, fw_cfg=parts, dsa=cell.devices,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What two systems give that go on from one checkpoint, which was made for the first of them."""
    mine, executor = cells(bench), Executor(bench, deadline=120)
    shutil.rmtree(folder(mine["no-ksm"]), ignore_errors=True)
    out = {}
    for system in SYSTEMS:
        work = tmp_path_factory.mktemp(system)
        out[system] = executor.execute(mine[system], work)
        assert not {"loaded.txt", "rest.txt"} & {path.name for path in work.iterdir()}
    return out


def test_two_systems_go_on_from_one_saved_fleet_and_leave_it_alone(
    bench: Workbench, results: dict[str, bytes], sealed: Sealed, tmp_path: Path
) -> None:
    """Whoever does without a checkpoint trains the same model on the same memory."""
    mine = cells(bench)
    assert len({cell.checkpoint.key for cell in mine.values()}) == 1
    here = folder(mine["no-ksm"])
    record = json.loads((here / "checkpoint.json").read_text())
    assert checkpoint.digest(here / "memory") == record["files"]["memory"]["sha256"]
    found = {system: fleet.parse(raw) for system, raw in results.items()}
    for system, result in found.items():
        fleet.check(mine[system].fleet, result)
    direct = fleet.parse(sealed.raw(mine["para-ksmc"].fleet, tmp_path / "direct", devices=mine["para-ksmc"].devices))
    fleet.check(mine["para-ksmc"].fleet, direct)
    assert {result.model for result in found.values()} == {direct.model}


def test_made_again_by_a_busy_main_loop_it_is_the_same_and_goes_on_as_the_same(
    bench: Workbench, results: dict[str, bytes], tmp_path: Path
) -> None:
    """The files may go as soon as a machine has been loaded from them."""
    cell = cells(bench)["para-ksmc"]
    parts = machine_of(bench, cell, tmp_path)
    saved = Saved(tmp_path / "memory", tmp_path / "state")
    with Machine(replace(parts, saving=saved), tmp_path / "saving") as machine:
        machine.start()
        asked = 0
        while machine.command("query-status") == {"status": "running", "running": True}:
            asked += 1
        assert asked > 100
        machine.save(60)
    assert checkpoint.digest(saved.memory) == checkpoint.digest(folder(cell) / "memory")
    with Machine(replace(parts, incoming=saved), tmp_path / "loaded") as machine:
        machine.start()
        for file in (saved.memory, saved.state):
            file.unlink()
        assert machine.wait(120) is Outcome.CLEAN
    assert (tmp_path / "loaded" / "results.bin").read_bytes() == results["para-ksmc"]


def test_interrupted_while_a_fleet_is_loaded_nothing_is_left(bench: Workbench, tmp_path: Path) -> None:
    cell = cells(bench)["no-ksm"]
    shutil.rmtree(folder(cell), ignore_errors=True)
    child = subprocess.Popen(
        [sys.executable, "-m", "harness", "experiment", "fig12", "--profile", "unit"],
        cwd=PROJECT, env={**os.environ, "PARAKSM_RESULTS": str(tmp_path / "results")}, start_new_session=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    unfinished: list[Path] = []
    deadline = time.monotonic() + 60
    while not unfinished and time.monotonic() < deadline:
        assert child.poll() is None, child.communicate()
        unfinished = list(paths().checkpoints.glob(f".{folder(cell).name}.*/memory"))
        time.sleep(0.02)
    assert unfinished
    os.kill(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "the same command goes on where this one stopped" in said
    assert not list(paths().checkpoints.glob(f".{folder(cell).name}.*/memory"))
    assert not folder(cell).exists()
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in lines if str(unfinished[0]).encode() in line]
