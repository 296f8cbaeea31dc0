# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells on workers in other processes: the same results as here, whoever is lost, killed or cut off on the way."""

from __future__ import annotations

import builtins
import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.config import PROJECT, is_whole, paths
from harness.errors import EnvironmentProblem, HarnessError, HostError, Interrupted, UsageError
from harness.experiment import cells, conduct, plan, scheduler, spec, worker
from harness.experiment.cells import Capacity, Failure
from harness.experiment.executors import Sealed, Several
from harness.experiment.store import Store
from harness.experiment.worker import Parcel
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.qbuild import QemuBuild
from harness.workbench import Workbench
from tests import errands
from tests.errands import Errand
from tests.fake_fleet import ARTEFACTS
from tests.unit.test_host import Server

PYTHON = sys.executable
LONG = 90.0
"""Seconds for what takes two on an idle machine."""

Hire = Callable[..., "subprocess.Popen[bytes]"]


def rows(seeds: int = 2) -> list[plan.Row]:
    """Two systems in the smallest profile."""
    made = plan.make(spec.load("fig12"), ARTEFACTS, profile="unit", seeds=seeds)
    return plan.rows(made, conduct.store(), 1.0)


def run(errand: Errand, *words: str, seeds: int = 2, where: str = "there", room: int | None = None) -> list[Failure]:
    """Run them, into a store of their own."""
    store = Store(paths().results / where)
    return scheduler.runner(words or ("dask:2",))("try", rows(seeds), store, errand, Capacity(2, room))


def contents(where: str) -> dict[str, bytes]:
    """Everything in a store that must be the same wherever cells ran."""
    root = paths().results / where
    names = ("manifest.json", "plan.txt", "results.raw", "samples.csv", "vm_samples.csv", "console.log", "index.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.name in names}


@pytest.fixture
def errand(tmp_path: Path) -> Errand:
    """One that does its work, and whose marks are in a folder of its own."""
    (tmp_path / "marks").mkdir()
    return Errand(tmp_path / "marks")


@pytest.fixture
def home(errand: Errand, tmp_path: Path) -> dict[str, bytes]:
    """What a run in this process leaves."""
    (tmp_path / "home").mkdir()
    assert cells.run("try", rows(), Store(paths().results / "home"), Errand(tmp_path / "home"), Capacity(2)) == []
    return contents("home")


def until(true: Callable[[], Any]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler with one worker that has places for three cells and memory for two; its address."""
    folder = tmp_path_factory.mktemp("crew")
    memory = 2 * cells.memory_mib(plan.make(spec.load("fig12"), ARTEFACTS, profile="unit").cells[0])
    words = ("--jobs", "3", "--memory", str(memory))
    with errands.head() as child:
        assert child.stdout is not None
        address = child.stdout.readline().strip()
        with errands.hired(folder / "worker.log", address, *words, XDG_CACHE_HOME=str(folder / "cache")):
            yield address


# --- what is left behind is the same ------------------------------------------------------------------


def test_workers_leave_what_a_local_run_leaves(errand: Errand, home: dict[str, bytes]) -> None:
    assert run(errand) == []
    assert contents("there") == home
    assert len(home) == 4 * 6 + 1
    assert {int(row.split()[1]) for row in errand.ran()}.isdisjoint({os.getpid()})
    argv = next((paths().results / "there" / "runs").glob("*/qemu.argv"))
    assert f"{argv.parent}/results.bin" in argv.read_text()
    assert run(errand) == []
    assert len(errand.ran()) == 4  # nothing is run twice
    assert all(address.startswith("tls://127.0.0.1:") for address in errand.noted("addresses"))


def test_a_killed_workers_cell_runs_again_elsewhere(
    errand: Errand, home: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    errand.deeds = {"cpu-ksm-1": "hang"}

    def kill() -> None:
        until(lambda: any(row.startswith("cpu-ksm-1 ") for row in errand.ran()))
        victim = next(row for row in errand.ran() if row.startswith("cpu-ksm-1 "))
        os.kill(int(victim.split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert run(errand) == []
    finally:
        killer.join()
    assert contents("there") == home
    tries = [row.split()[1] for row in errand.ran() if row.startswith("cpu-ksm-1 ")]
    assert len(tries) == 2
    assert len(set(tries)) == 2
    assert "its worker was lost; runs again" in capsys.readouterr().err


def test_a_cell_that_kills_its_workers_fails_alone(errand: Errand) -> None:
    errand.deeds = {"cpu-ksm-1": "die"}
    failures = run(errand)
    assert [failure.cell.label for failure in failures] == ["CPU-ksm, Liblinear, seed 1"]
    assert "workers were lost" in failures[0].reason
    assert sum(row.startswith("cpu-ksm-1 ") for row in errand.ran()) == 4
    assert len(Store(paths().results / "there").records()) == 3


def test_a_failed_cell_is_recorded_with_its_console(errand: Errand, crew: str) -> None:
    errand.deeds = {"cpu-ksm-2": "fail"}
    failures = run(errand, crew)
    assert [failure.reason for failure in failures] == ["the machine panicked"]
    records = Store(paths().results / "there").records()
    assert sorted(record.outcome for record in records) == ["failed", "ok", "ok", "ok"]
    failed = next(record for record in records if record.outcome == "failed")
    assert (failed.path / "console.log").read_text() == "booting\n"


def test_what_a_worker_lacks_ends_the_run_and_keeps_what_is_done(errand: Errand) -> None:
    errand.deeds = {"cpu-ksm-2": "lack"}
    with pytest.raises(EnvironmentProblem, match="no space left") as caught:
        run(errand, "dask:1")
    assert caught.value.hint == "make room"
    assert len(Store(paths().results / "there").records()) == 3


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(
    errand: Errand, home: dict[str, bytes], crew: str
) -> None:
    errand.deeds = {"cpu-ksm-2": "hang"}

    def press() -> None:
        until(lambda: len(errand.ran()) == 4)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    try:
        with pytest.raises(Interrupted):
            run(errand, "dask:1")
    finally:
        presser.join()
    assert len(Store(paths().results / "there").records()) == 3
    victim = int(next(row for row in errand.ran() if row.startswith("cpu-ksm-2 ")).split()[1])
    until(lambda: not Path(f"/proc/{victim}").exists())
    assert run(errand, crew) == []
    assert contents("there") == home


def test_nothing_is_left_of_a_command_that_was_killed(errand: Errand) -> None:
    child = subprocess.Popen([sys.executable, "-c", _KILLED, str(errand.folder)], cwd=PROJECT)
    try:
        until(errand.ran)
    finally:
        child.kill()
        child.wait()
    worker_process = int(errand.ran()[0].split()[1])
    assert worker_process != child.pid
    until(lambda: not Path(f"/proc/{worker_process}").exists())


_KILLED = """
import sys
from pathlib import Path
from tests.unit import test_scheduler
if __name__ == "__main__":
    test_scheduler.run(test_scheduler.Errand(Path(sys.argv[1]), {"no-ksm-1": "hang"}), "dask:1")
"""


def test_several_experiments_at_once_go_the_same_way(errand: Errand, crew: str) -> None:
    request = conduct.Request("presets", profile="unit", scheduler=(crew,))
    _, failures = conduct.conduct_all(request, errand, ARTEFACTS)
    assert failures == []
    assert len(errand.ran()) == len(conduct.store().records()) == 4
    assert str(os.getpid()) not in {row.split()[1] for row in errand.ran()}


# --- who may run what ---------------------------------------------------------------------------------


def test_cells_that_memory_cannot_hold_together_run_one_after_another(errand: Errand) -> None:
    errand.seconds = 0.5
    need = cells.memory_mib(rows()[0].cell)
    run(errand, "dask", room=2 * need - 1)
    assert errand.most() == 1


def test_as_many_as_fit_run_together(errand: Errand) -> None:
    errand.deeds = {"no-ksm-1": "hang"}  # until somebody else has begun
    errand.seconds = 0.0
    need = cells.memory_mib(rows()[0].cell)

    def free() -> None:
        until(lambda: len(errand.ran()) >= 2)
        os.kill(int(next(row for row in errand.ran() if row.startswith("no-ksm-1 ")).split()[1]), signal.SIGKILL)

    freer = threading.Thread(target=free)
    freer.start()
    try:
        assert run(errand, "dask", room=2 * need) == []
    finally:
        freer.join()


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A scheduler with nobody working for it, in a process of its own, which says its address."""
    monkeypatch.setattr(scheduler, "_PATIENCE", 2 * LONG)
    with errands.head() as child:
        yield child


@pytest.fixture
def cluster(head: subprocess.Popen[str]) -> str:
    """Its address."""
    assert head.stdout is not None
    return head.stdout.readline().strip()


@pytest.fixture
def hire(tmp_path: Path) -> Iterator[Hire]:
    """Start ``harness worker`` in processes of their own."""
    with contextlib.ExitStack() as stack:
        yield lambda address, *words, **env: stack.enter_context(
            errands.hired(tmp_path / "worker.log", address, *words, **env)
        )


def test_an_existing_cluster_runs_them(errand: Errand, home: dict[str, bytes], crew: str, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_text("engine")
    errand.parts = {"engine": part}
    assert run(errand, crew) == []
    assert contents("there") == home
    assert set(errand.noted("found")) == {str(part)}  # it sees our disk


def test_a_worker_runs_together_what_its_memory_holds(errand: Errand, crew: str) -> None:
    errand.seconds = 1.0
    run(errand, crew)
    assert errand.most() == 2


def test_an_exclusive_cell_has_a_worker_to_itself(errand: Errand, crew: str) -> None:
    errand.seconds, errand.parallel = 0.3, False
    run(errand, crew)
    assert errand.most() == 1


def test_a_worker_stops_its_machines_when_nobody_waits_for_them(errand: Errand, crew: str) -> None:
    errand.deeds = {"no-ksm-1": "hang"}

    def press() -> None:
        until(errand.ran)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    try:
        with pytest.raises(Interrupted):
            run(errand, crew)
    finally:
        presser.join()
    until(lambda: errand.noted("cancelled"))
    assert run(errand, crew) == []  # the worker is as good as before


def test_a_cell_too_large_for_every_worker_is_named_at_once(errand: Errand, cluster: str, hire: Hire) -> None:
    hire(cluster, "--memory", "100")
    with pytest.raises(EnvironmentProblem, match="largest worker offers 100"):
        run(errand, cluster)
    assert errand.ran() == []


def test_nobody_at_work_is_told_with_the_command(errand: Errand, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_PATIENCE", 1.0)
    with pytest.raises(EnvironmentProblem, match="no worker of this harness") as caught:
        run(errand, cluster)
    assert caught.value.hint == f"on each machine: harness worker {cluster}"


def test_a_scheduler_that_is_lost_is_told_and_what_is_done_is_kept(
    errand: Errand, home: dict[str, bytes], head: subprocess.Popen[str], cluster: str, hire: Hire, crew: str
) -> None:
    errand.deeds = {"cpu-ksm-2": "hang"}
    hired = hire(cluster, "--jobs", "1", "--memory", "100000")

    def kill() -> None:
        until(lambda: len(errand.ran()) == 4 and len(Store(paths().results / "there").records()) == 3)
        head.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(EnvironmentProblem, match="scheduler was lost"):
            run(errand, cluster)
    finally:
        killer.join()
    assert len(Store(paths().results / "there").records()) == 3
    until(lambda: errand.noted("cancelled"))
    hired.wait(LONG)
    assert run(errand, crew) == []
    assert contents("there") == home


def test_no_scheduler_is_told(errand: Errand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_PATIENCE", 2.0)
    with pytest.raises(EnvironmentProblem, match="no scheduler there"):
        run(errand, "tcp://127.0.0.1:1")


# --- workers over ssh ---------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A host whose harness is this one."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setattr(scheduler, "_PATIENCE", 2 * LONG)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "harness").write_text(f'#!/bin/sh\nexec {PYTHON} -m harness "$@"\n')
    (folder / "harness").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    made = Server(tmp_path)
    yield made
    made.close()


def over_ssh(errand: Errand, server: Server) -> list[Failure]:
    """Run them on that host."""
    runner = scheduler.runner([server.url], server.identity, server.known)
    return runner("try", rows(), Store(paths().results / "there"), errand, Capacity(1))


def test_workers_are_started_over_ssh_and_end_with_the_run(
    errand: Errand, home: dict[str, bytes], server: Server
) -> None:
    assert over_ssh(errand, server) == []
    assert contents("there") == home
    worker_process = int(errand.ran()[0].split()[1])
    assert worker_process != os.getpid()
    until(lambda: not Path(f"/proc/{worker_process}").exists())
    assert not list(Path("/tmp").glob("paraksm.*/key.pem"))


def test_a_host_without_harness_is_named(errand: Errand, server: Server, tmp_path: Path) -> None:
    (tmp_path / "bin" / "harness").unlink()
    with pytest.raises(EnvironmentProblem, match=r"(?s)127.0.0.1.*status 127.*harness"):
        over_ssh(errand, server)


def test_a_host_that_is_not_there_is_named(errand: Errand) -> None:
    with pytest.raises(HostError, match="cannot be reached"):
        run(errand, "ssh://root@127.0.0.1:1")


# --- files --------------------------------------------------------------------------------------------


@pytest.fixture
def parcel(tmp_path: Path) -> Parcel:
    """Two files from another machine."""
    (tmp_path / "theirs").mkdir()
    for name in ("qemu", "rom"):
        (tmp_path / "theirs" / name).write_text(name)
    (tmp_path / "theirs" / "qemu").chmod(0o755)
    made = Parcel({"qemu": tmp_path / "theirs" / "qemu", "data/rom": tmp_path / "theirs" / "rom"}, local=False)
    (tmp_path / "theirs" / "rom").write_text("another")
    return made


def test_files_that_are_not_here_are_unpacked_once(parcel: Parcel) -> None:
    root = parcel.root()
    assert root is not None
    assert (root / "qemu").read_text() == "qemu"
    assert os.access(root / "qemu", os.X_OK)
    assert (root / "data" / "rom").read_text() == "rom"
    before = (root / "qemu").stat().st_ino
    assert parcel.root() == root
    assert (root / "qemu").stat().st_ino == before


def test_a_damaged_file_is_unpacked_again(parcel: Parcel) -> None:
    root = parcel.root()
    assert root is not None
    (root / "data" / "rom").write_text("damaged")
    parcel.root()
    assert (root / "data" / "rom").read_text() == "rom"


@pytest.mark.parametrize("kind", ["", "nested/"])
def test_what_was_built_elsewhere_is_where_it_would_be_if_built_here(tmp_path: Path, kind: str) -> None:
    plugin = tmp_path / "plugin.so"
    plugin.write_text("plugin")
    parcel = Parcel({f"{kind}builds/profiler-12/plugin.so": plugin}, local=False)
    plugin.unlink()
    parcel.root()
    built = paths().builds / "profiler-12" / "plugin.so"
    assert built.read_text() == "plugin"
    assert is_whole(built)
    built.write_text("damaged")
    parcel.root()
    assert built.read_text() == "plugin"


def test_a_sealed_machines_parts_travel_by_name(tmp_path: Path) -> None:
    parts = {"qemu": "qemu-system-x86_64", "bzImage": "bzImage", "System.map": "System.map", "measured.cpio": "a.cpio"}
    parts |= {"data/bios.bin": "data/bios.bin", "data/pvh.bin": "data/pvh.bin", "firmware": "qboot.rom"}
    (tmp_path / "data").mkdir()
    for name in parts.values():
        (tmp_path / name).write_text(name)
    any_: Any = None
    bench = Workbench(
        QemuBuild("10", tmp_path / "qemu-system-x86_64", tmp_path / "qboot.rom", tmp_path / "data", "d", any_),
        KernelBuild("6", "6", tmp_path / "bzImage", tmp_path / "vmlinux", tmp_path / "c", tmp_path, "d", any_),
        Image("measured", tmp_path / "a.cpio", "d"),
    )
    first = pickle.loads(pickle.dumps(Sealed(bench, deadline=5)))
    assert first.files([]) == {name: tmp_path / path for name, path in parts.items()}
    assert first._deadline == 5
    there = tmp_path / "there"
    for name, path in first.files([]).items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there / name)
    assert first.moved(there).files([]) == {name: there / name for name in parts}
    both = Several(nested=first, process=first)
    assert set(both.files([])) == {f"{kind}/{name}" for kind in ("nested", "process") for name in parts}
    (there / "data").rename(tmp_path / "moved")
    assert both.moved(there)._process._bench.qemu.binary == there / "process" / "qemu"  # type: ignore[attr-defined]
    with pytest.raises(FileNotFoundError):
        first.moved(there).files([])


def test_files_that_are_here_are_used_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("qemu")
    assert Parcel({"qemu": tmp_path / "qemu"}, local=True).root() is None


def test_a_local_file_that_changed_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("qemu")
    made = Parcel({"qemu": tmp_path / "qemu"}, local=True)
    (tmp_path / "qemu").write_text("newer")
    with pytest.raises(EnvironmentProblem, match="is another file"):
        made.root()


def test_another_version_of_the_harness_is_refused(parcel: Parcel) -> None:
    parcel.version = "0" * 64
    with pytest.raises(EnvironmentProblem, match="another version of the harness"):
        parcel.root()


def test_a_worker_elsewhere_gets_the_files(errand: Errand, cluster: str, hire: Hire, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_text("engine")
    errand.parts = {"engine": part}
    hire(cluster, "--memory", "100000", XDG_CACHE_HOME=str(tmp_path / "far"))
    sent = threading.Event()
    read = Path.read_bytes

    def then_gone(path: Path) -> bytes:
        data = read(path)
        if path == part and not sent.is_set():
            sent.set()
            path.unlink()
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", then_gone)
        assert run(errand, cluster) == []
    assert {str(Path(found).parent.parent) for found in errand.noted("found")} == {f"{tmp_path}/far/paraksm/parcels"}


# --- what the user says -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ([], None),
        (["local"], None),
        (["dask"], scheduler.Place()),
        (["dask:3"], scheduler.Place(processes=3)),
        (["tls://head:8786"], scheduler.Place(address="tls://head:8786")),
        (["ssh://a", "ssh://root@b:23"], scheduler.Place(hosts=("ssh://a", "ssh://root@b:23"))),
    ],
)
def test_a_scheduler_is_understood(words: list[str], place: scheduler.Place | None) -> None:
    assert scheduler.parse(words) == place


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["slurm"], "no scheduler 'slurm'"),
        (["dask:0"], "no scheduler"),
        (["tcp://head"], "no scheduler"),
        (["dask", "ssh://a"], "must all be ssh hosts"),
        (["ssh://a", "ssh://root@a:22"], "named twice"),
        (["ssh://a/x"], "nothing may follow"),
    ],
)
def test_a_scheduler_that_is_none_is_told_before_anything_is_built(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        conduct.conduct(conduct.Request("fig12", scheduler=tuple(words)))
    assert not paths().cache.joinpath("builds").exists()


def test_a_target_and_a_scheduler_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="driven from here"):
        conduct.conduct(conduct.Request("fig12", target="ssh://root@h", scheduler=("dask",)))


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **words: Any) -> Any:
        if name.partition(".")[0] == "distributed":
            raise ModuleNotFoundError("No module named 'distributed'")
        return real(name, *rest, **words)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(EnvironmentProblem, match="needs Dask") as caught:
        conduct.conduct(conduct.Request("fig12", scheduler=("dask",)))
    assert "[dask]" in str(caught.value.hint)
    assert cells.run is scheduler.runner([])


def test_conduct_sends_cells_where_the_request_says(errand: Errand, crew: str) -> None:
    outcome = conduct.conduct(conduct.Request("fig12", profile="unit", scheduler=(crew,)), errand, ARTEFACTS)
    assert outcome.failures == ()
    assert len(errand.ran()) == 2
    assert str(os.getpid()) not in {row.split()[1] for row in errand.ran()}


def test_the_worker_command_says_when_nobody_listens() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "worker", "http://somewhere"], cwd=PROJECT, capture_output=True, text=True,
        timeout=LONG, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "tcp://" in done.stderr


def test_a_worker_without_a_scheduler_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_PATIENCE", 1.0)
    with pytest.raises(EnvironmentProblem, match="no scheduler there") as caught:
        worker.serve("tcp://127.0.0.1:1", 1, 100, None)
    assert "dask scheduler" in str(caught.value.hint)


def test_the_version_is_that_of_every_file() -> None:
    assert len(worker.version()) == 64
    assert issubclass(worker.Broken(UsageError, "", None).kind, HarnessError)
