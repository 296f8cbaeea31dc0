# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells on sealed machines, each going on from the checkpoint of its fleet; a stand-in for QEMU."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.config import paths
from harness.errors import FleetError, Interrupted, MachineError
from harness.experiment import plan, spec
from harness.experiment.executors import Sealed
from harness.images import Image
from harness.machine import Machine
from tests.fake_fleet import ARTEFACTS

FAKE = Path(__file__).parent.parent / "fakes" / "qemu.py"


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    """Parts that only the stand-in takes."""
    (tmp_path / "i.cpio").write_bytes(b"image")
    qemu = SimpleNamespace(binary=FAKE, firmware=tmp_path / "qboot.rom", data_dir=tmp_path, digest="q")
    kernel = SimpleNamespace(bzimage=tmp_path / "bzImage", vmlinux=tmp_path / "vmlinux", digest="k")
    return cast("Any", SimpleNamespace(qemu=qemu, kernel=kernel, image=Image("measured", tmp_path / "i.cpio", "i")))


@pytest.fixture(autouse=True)
def good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a test says otherwise, fleets load, run and end well."""
    monkeypatch.setenv("FAKE_QEMU", "fake.job=good")


def cells() -> dict[str, plan.Cell]:
    """Two systems."""
    made = plan.make(spec.load("fig12"), ARTEFACTS, profile="unit")
    return {cell.system: cell for cell in made.cells}


def kept() -> set[str]:
    """Names of checkpoints and of what is left of some."""
    return {path.name for path in paths().checkpoints.iterdir() if path.is_dir()}


def work(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_a_fleet_is_loaded_once_for_all_systems(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    executor = Sealed(bench, deadline=20)
    for system, cell in cells().items():
        here = work(tmp_path, system)
        assert executor.execute(cell, here) == b"results\0\xff"
        assert "-incoming defer" in (here / "qemu.argv").read_text()
        assert {path.name for path in here.iterdir()} == {"console.log", "qemu.argv", "qemu.log", "results.bin"}
        assert kept() == {cell.checkpoint.key[:16]}
    assert capsys.readouterr().err.count("loading a fleet") == 1


def test_a_fleet_that_does_not_load_says_why_and_leaves_its_console(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "fake.save=bad")
    here = work(tmp_path, "cell")
    with pytest.raises(FleetError, match=r"(?s)ended with status 1.*as it is wanted: bad"):
        Sealed(bench, deadline=20).execute(cells()["no-ksm"], here)
    assert "as it is wanted: bad" in (here / "console.log").read_text()
    assert kept() == set()


def test_a_machine_that_dies_while_it_loads_is_an_error_with_its_verdict(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "fake.save=panic")
    here = work(tmp_path, "cell")
    with pytest.raises(MachineError, match="panic"):
        Sealed(bench, deadline=20).execute(cells()["no-ksm"], here)
    assert "Kernel panic" in (here / "console.log").read_text()
    assert kept() == set()


def test_a_restored_fleet_that_fails_says_why(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QEMU", "fake.job=bad")
    with pytest.raises(FleetError, match=r"(?s)ended with status 1.*as it is wanted: bad"):
        Sealed(bench, deadline=20).execute(cells()["no-ksm"], work(tmp_path, "cell"))
    assert len(kept()) == 1, "its checkpoint is whole"


def _hangs(cell: Path | None) -> bool:
    """Whether the machine of a cell, or the one that loads its fleet, has begun its program."""
    folders = [cell] if cell else [path for path in paths().checkpoints.iterdir() if path.is_dir()]
    consoles = [folder / "console.log" for folder in folders]
    return any("paraksm: started" in console.read_text() for console in consoles if console.exists())


@pytest.mark.parametrize("words", ["fake.save=hang", "fake.job=hang"])
def test_cancelled_while_it_loads_or_runs_it_leaves_no_process_and_no_half_of_a_checkpoint(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setenv("FAKE_QEMU", words)
    executor, here = Sealed(bench, deadline=60), work(tmp_path, "cell")
    ended: list[BaseException] = []

    def execute() -> None:
        try:
            executor.execute(cells()["no-ksm"], here)
        except (MachineError, Interrupted) as error:
            ended.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    deadline = time.monotonic() + 60
    while not _hangs(here if words == "fake.job=hang" else None) and time.monotonic() < deadline:
        time.sleep(0.01)
    (machine,) = executor._machines
    executor.cancel()
    thread.join(20)
    assert len(ended) == 1
    assert not machine.alive()
    assert not [name for name in kept() if name.startswith(".")]
    assert len(kept()) == (words == "fake.job=hang")


@pytest.mark.parametrize("which", [1, 2], ids=["loads", "goes on"])
def test_cancelled_just_before_a_machine_starts_nothing_waits_for_it(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """There is no process yet that could be ended."""
    monkeypatch.setenv("FAKE_QEMU", "fake.save=hang" if which == 1 else "fake.job=hang")
    executor, launch, begun = Sealed(bench, deadline=600), Machine._launch, 0
    began = time.monotonic()

    def late(machine: Machine) -> None:
        nonlocal begun
        begun += 1
        if begun == which:
            executor.cancel()
        launch(machine)

    monkeypatch.setattr(Machine, "_launch", late)
    with pytest.raises(Interrupted):
        executor.execute(cells()["no-ksm"], work(tmp_path, "cell"))
    assert begun == which
    assert time.monotonic() - began < 300
