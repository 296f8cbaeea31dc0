# SPDX-License-Identifier: GPL-2.0-or-later
"""A loaded fleet that is saved by its own guest: the same bytes when it is saved again, and when it goes on again."""

from __future__ import annotations

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
from harness.machine import Machine, MachineSpec, Saved
from harness.workbench import Workbench
from tests.boot.sealed import Sealed

pytestmark = pytest.mark.boot


def cells(bench: Workbench, seed: int = 1) -> dict[str, Cell]:
    """The unit profile's cells of Figure 12, by system."""
    made = plan.make(spec.load("fig12"), artefacts.of_workbench(bench), profile="unit", seeds=seed)
    return {cell.system: cell for cell in made.cells if cell.seed == seed}


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


@pytest.fixture
def executor(bench: Workbench) -> Executor:
    return Executor(bench, deadline=120)


def test_two_systems_go_on_from_one_saved_fleet_each_always_the_same(
    bench: Workbench, executor: Executor, sealed: Sealed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second time after the checkpoint was damaged, and made again: in other files, of the same bytes."""
    mine = cells(bench)
    assert len({cell.checkpoint.key for cell in mine.values()}) == 1
    shutil.rmtree(folder(mine["no-ksm"]), ignore_errors=True)
    results: list[dict[str, bytes]] = []
    memories: list[str] = []
    for time_ in ("first", "second"):
        results.append({})
        for system in ("no-ksm", "para-ksmc"):
            work = tmp_path / f"{time_}-{system}"
            work.mkdir()
            raw = results[-1][system] = executor.execute(mine[system], work)
            fleet.check(mine[system].fleet, fleet.parse(raw))
            assert not {"loaded.txt", "rest.txt"} & {path.name for path in work.iterdir()}
        memories.append(checkpoint.digest(folder(mine["no-ksm"]) / "memory"))
        os.truncate(folder(mine["no-ksm"]) / "memory", 12345)
    assert results[0] == results[1]
    assert memories[0] == memories[1]
    said = capsys.readouterr().err
    assert said.count("loading a fleet") == 2
    assert said.count("memory is truncated, or has grown: it is made again") == 1
    shutil.rmtree(folder(mine["no-ksm"]))
    # whoever does without a checkpoint trains the same model on the same memory
    devices = mine["no-ksm"].devices
    direct = fleet.parse(sealed.raw(mine["para-ksmc"].fleet, tmp_path / "direct", devices=devices))
    fleet.check(mine["para-ksmc"].fleet, direct)
    assert {fleet.parse(raw).model for raw in results[0].values()} == {direct.model}


def test_a_busy_main_loop_does_not_move_the_instruction_at_which_it_is_saved(bench: Workbench, tmp_path: Path) -> None:
    cell = cells(bench, seed=2)["no-ksm"]
    parts = machine_of(bench, cell, tmp_path)
    digests = set()
    for number in range(2):
        saved = Saved(tmp_path / f"memory{number}", tmp_path / f"state{number}")
        with Machine(replace(parts, saving=saved), tmp_path / f"run{number}") as machine:
            machine.start()
            asked = 0
            while number and machine.command("query-status") == {"status": "running", "running": True}:
                asked += 1
            assert not number or asked > 100
            machine.save(60)
        digests.add(checkpoint.digest(saved.memory))
    assert len(digests) == 1


def test_loaded_machines_share_the_files_and_leave_them_alone(bench: Workbench, tmp_path: Path) -> None:
    """The files may go as soon as a machine runs; what it writes does not reach them."""
    mine = cells(bench, seed=3)
    executor = Executor(bench, deadline=120)
    (tmp_path / "one").mkdir()
    first = executor.execute(mine["cpu-ksm"], tmp_path / "one")
    here = folder(mine["cpu-ksm"])
    before = checkpoint.digest(here / "memory")
    saved = Saved(tmp_path / "memory", tmp_path / "state")
    for name in ("memory", "state"):
        subprocess.run(["cp", "--sparse=always", here / name, tmp_path / name], check=True)
        (tmp_path / name).chmod(0o444)
    (tmp_path / "two").mkdir()
    parts = machine_of(bench, mine["cpu-ksm"], tmp_path)
    with Machine(replace(parts, incoming=saved), tmp_path / "two") as machine:
        machine.start()
        for file in (saved.memory, saved.state):
            file.unlink()
        machine.wait(120)
    assert (tmp_path / "two" / "results.bin").read_bytes() == first
    assert checkpoint.digest(here / "memory") == before
    shutil.rmtree(here)


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
