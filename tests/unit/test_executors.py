# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet on a host: programs and plan go there, the result comes back, KSM is as it was. Real ssh on the loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import counters, detached
from harness.errors import FleetError, HostError, Interrupted
from harness.experiment import artefacts, cells, executors, plan, spec
from harness.experiment.executors import Remote
from harness.experiment.store import Store
from harness.run import Deadline
from tests.fake_fleet import ARTEFACTS, result
from tests.unit.test_host import Server

KNOBS = {
    "run": "1", "max_page_sharing": "300", "merge_across_nodes": "1", "use_zero_pages": "0", "pages_to_scan": "77",
    "sleep_millisecs": "9",
}  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


@pytest.fixture
def ksm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the host's KSM, with knobs of the owner's."""
    folder = tmp_path / "ksm"
    folder.mkdir()
    for name, value in KNOBS.items():
        (folder / name).write_text(f"{value}\n")
    monkeypatch.setattr(executors, "_KSM", str(folder))
    monkeypatch.setattr(executors, "_KSMD", ":")
    monkeypatch.setattr(executors, "_STATE", str(tmp_path / "state"))
    return folder


def knobs(folder: Path) -> dict[str, str]:
    """What they are now."""
    return {name: (folder / name).read_text().strip() for name in KNOBS}


def cell() -> plan.Cell:
    """CPU-ksm, in the time of a host."""
    return plan.make(spec.load("fig13"), ARTEFACTS, profile="unit", virtual=False).cells[0]


def program(folder: Path, *lines: str) -> dict[str, Path]:
    """A fleet program made of shell."""
    path = folder / "program"
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    return {"fleet": path}


def test_a_fleet_runs_there_and_its_result_is_here(server: Server, ksm: Path, tmp_path: Path) -> None:
    chosen = cell()
    (tmp_path / "answer").write_bytes(result(chosen.fleet))
    there = tmp_path / "there"
    programs = program(
        tmp_path,
        f'cp "$2" {there}; echo 4096 > {ksm}/pages_to_scan; echo 0 > {ksm}/run; echo hello >&2',
        f"cat {tmp_path}/answer",
    )
    work = tmp_path / "work"
    work.mkdir()
    before = set(Path("/tmp").glob("paraksm.*"))
    with server.login() as host:
        raw = Remote(host, programs, deadline=30).execute(chosen, work)
    assert raw == result(chosen.fleet)
    assert cells.measure(chosen, raw, work)["application_ns"] > 0
    assert there.read_text() == chosen.text
    assert (work / "console.log").read_text() == "hello\n"
    assert knobs(ksm) == KNOBS
    assert set(Path("/tmp").glob("paraksm.*")) == before


def test_a_mode_of_the_owners_is_left_for_the_run_and_comes_back(server: Server, ksm: Path, tmp_path: Path) -> None:
    chosen = cell()
    (tmp_path / "answer").write_bytes(result(chosen.fleet))
    mode, size = ksm / "offload_mode", ksm / "offload_batch_size"
    mode.write_text("cpu dsa [para_c]\n")
    size.write_text("64\n")
    programs = program(
        tmp_path, f"cat {mode} > {tmp_path}/seen; echo dsa > {mode}; echo 7 > {size}; cat {tmp_path}/answer"
    )
    with server.login() as host:
        Remote(host, programs, deadline=30).execute(chosen, tmp_path)
    assert (tmp_path / "seen").read_text() == "cpu\n"
    assert (mode.read_text(), size.read_text()) == ("para_c\n", "64\n")


def test_a_failing_fleet_says_why_and_the_knobs_come_back(server: Server, ksm: Path, tmp_path: Path) -> None:
    programs = program(tmp_path, f"echo 1 > {ksm}/sleep_millisecs", "echo VM 3 died >&2", "exit 1")
    with server.login() as host, pytest.raises(FleetError, match=r"(?s)status 1.*VM 3 died"):
        Remote(host, programs, deadline=30).execute(cell(), tmp_path)
    assert knobs(ksm) == KNOBS


@pytest.mark.parametrize("pmu", [True, False])
def test_what_perf_counts_comes_along_and_a_host_without_counters_goes_on_without(
    server: Server, ksm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pmu: bool
) -> None:
    chosen = cell()
    (tmp_path / "answer").write_bytes(result(chosen.fleet))
    monkeypatch.setattr(counters, "PROBE", "" if pmu else "echo no counters here")
    monkeypatch.setattr(counters, "SCRIPT", f'echo "$1" > {tmp_path}/began; mkdir "$1/counters"; cd "$1/counters"\n'
                        'echo yes > opened; echo gone > vm1.none; echo "12;;cycles;1;100.00;;" > ksmd.csv\n'
                        "echo 0 > ksmd.status; : > done\n")  # fmt: skip
    with server.login() as host:
        Remote(host, program(tmp_path, f"cat {tmp_path}/answer"), deadline=30).execute(chosen, tmp_path)
    found = cells.counted(tmp_path)
    assert (tmp_path / "began").exists() == pmu
    assert found.get("cycles_ksmd") == (12 if pmu else None)
    notes = found["counters"]["notes"]
    assert ("vm1: not counted: gone" in notes) if pmu else (notes == ["no counters here"])


MARK = str(300 + os.getpid())
"""Seconds that a program of this test run sleeps: nobody else's sleeps as many."""


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A program that does not end: sleep, static or not, in place of the fleet, given numbers as its words."""
    monkeypatch.setattr(executors, "_RUN", executors._RUN.replace("run", MARK).replace('"$1/plan"', "1"))
    return {"fleet": Path("/bin/sleep")}


def test_a_fleet_that_is_late_is_a_failed_cell_and_is_ended_there(
    server: Server, ksm: Path, tmp_path: Path, endless: dict[str, Path]
) -> None:
    with server.login() as host, pytest.raises(FleetError, match="no end after 1 s"):
        Remote(host, endless, deadline=1).execute(cell(), tmp_path)
    assert _sleepers() == []
    assert knobs(ksm) == KNOBS


def test_cancelling_ends_the_fleet_there(server: Server, ksm: Path, tmp_path: Path, endless: dict[str, Path]) -> None:
    chosen = cell()
    failures: list[BaseException] = []
    with server.login() as host:
        remote = Remote(host, endless, deadline=60)

        def execute() -> None:
            try:
                remote.execute(chosen, tmp_path)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=execute)
        thread.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not _sleepers():
            time.sleep(0.1)
        assert _sleepers()
        remote.cancel()
        thread.join(60)
        assert not thread.is_alive()
    assert _sleepers() == []
    assert isinstance(failures[0], FleetError)
    assert knobs(ksm) == KNOBS


def _sleepers() -> list[str]:
    """Programs that run out of a job's directory of this test run; others may test at the same time."""
    out = []
    for link in Path("/proc").glob("[0-9]*/exe"):
        try:
            target = str(link.readlink())
            words = link.with_name("cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if "/state/jobs/" in target and target.endswith("/fleet") and MARK.encode() in words:
            out.append(target)
    return out


def test_a_cut_connection_costs_nothing(server: Server, ksm: Path, tmp_path: Path) -> None:
    chosen = cell()
    (tmp_path / "answer").write_bytes(result(chosen.fleet))
    programs = program(
        tmp_path, f"echo x >> {tmp_path}/began; until [ -e {tmp_path}/go ]; do sleep 0.1; done; cat {tmp_path}/answer"
    )

    def cut() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.05)
        for _ in range(2):
            server.cut()
            time.sleep(1)
        (tmp_path / "go").write_text("")

    thread = threading.Thread(target=cut)
    thread.start()
    with server.login() as host:
        raw = Remote(host, programs, deadline=120).execute(chosen, tmp_path)
        thread.join()
        assert raw == result(chosen.fleet)
        assert host.run(["echo", "alive"]).stdout == "alive\n"
    assert (tmp_path / "began").read_text() == "x\n"
    assert knobs(ksm) == KNOBS
    assert list((tmp_path / "state/jobs").iterdir()) == []


def test_what_a_killed_harness_left_running_is_waited_for(server: Server, ksm: Path, tmp_path: Path) -> None:
    """A harness that begins a fleet and is killed without a word; the next one has its result, and KSM as it was."""
    chosen = cell()
    (tmp_path / "answer").write_bytes(result(chosen.fleet))
    programs = program(
        tmp_path,
        f"echo 4096 > {ksm}/pages_to_scan; echo x >> {tmp_path}/began",
        f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; cat {tmp_path}/answer",
    )
    killed = os.fork()
    if killed == 0:
        try:
            with server.login() as host:
                Remote(host, programs, deadline=120).execute(chosen, tmp_path)
        finally:
            os._exit(0)
    while not (tmp_path / "began").exists():
        time.sleep(0.05)
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    assert knobs(ksm)["pages_to_scan"] == "4096"
    threading.Timer(1, lambda: (tmp_path / "go").write_text("")).start()
    with server.login() as host:
        assert Remote(host, programs, deadline=120).execute(chosen, tmp_path) == result(chosen.fleet)
    assert (tmp_path / "began").read_text() == "x\n"
    assert knobs(ksm) == KNOBS


def test_programs_go_there_once(server: Server, ksm: Path, tmp_path: Path) -> None:
    chosen = cell()
    (tmp_path / "answer").write_bytes(result(chosen.fleet))
    programs = program(tmp_path, f"cat {tmp_path}/answer")
    with server.login() as host:
        Remote(host, programs, deadline=30).execute(chosen, tmp_path)
        (kept,) = (tmp_path / "state/files").iterdir()
        first = kept.stat().st_ino
        Remote(host, programs, deadline=30).execute(chosen, tmp_path)
        assert kept.stat().st_ino == first
        kept.write_text("altered")
        assert Remote(host, programs, deadline=30).execute(chosen, tmp_path) == result(chosen.fleet)


def test_a_job_that_is_killed_is_gone_and_says_so(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    with server.login() as host:
        detached.begin(host, str(folder), "exec sleep 300")
        assert detached.begun(host, str(folder))
        os.killpg(int((folder / "minder").read_text()), signal.SIGKILL)
        with pytest.raises(HostError, match="gone and left no status"):
            detached.wait(host, str(folder), Deadline(30))
        assert not detached.begun(host, str(folder))


def _sleep_in(folder: Path) -> list[str]:
    """What calls a program a fleet that sleeps for long, by its shell."""
    shutil.copy("/bin/sleep", folder / "fleet")
    return ["sh", "-c", executors._RUN.replace('run "$1/plan"', MARK), "fleet", str(folder)]


def test_a_fleet_that_was_ended_before_it_began_does_not_begin(tmp_path: Path) -> None:
    run = _sleep_in(tmp_path)
    subprocess.run(["sh", "-c", executors._END, "end", str(tmp_path)], check=True)
    assert subprocess.run(run, check=False, timeout=60).returncode == 1


def test_a_fleet_is_ended_whose_shell_is_just_about_to_become_it(tmp_path: Path) -> None:
    run = _sleep_in(tmp_path)
    run[2] = run[2].replace("exec", "sleep 0.5 && exec")
    child = subprocess.Popen(run)
    while not (tmp_path / "pid").exists():
        time.sleep(0.01)
    subprocess.run(["sh", "-c", executors._END, "end", str(tmp_path)], check=True)
    assert child.wait(60) in (1, -signal.SIGTERM)


def test_a_cancelled_cell_is_not_recorded_as_failed(tmp_path: Path) -> None:
    chosen = cell()
    stop = threading.Event()

    class Stopped:
        parallel = True

        def execute(self, cell: plan.Cell, work: Path) -> bytes:
            stop.set()
            raise FleetError("terminated")

        def cancel(self) -> None:
            pass

    with pytest.raises(Interrupted):
        cells.one(chosen, Store(tmp_path), Stopped(), stop)
    assert Store(tmp_path).records() == []


def test_what_a_host_is_goes_into_the_key(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "fleet"
    path.write_text("x")
    with server.login() as host:
        if host.run(["test", "-w", "/sys/kernel/mm/ksm/run"], check=False).returncode != 0:
            with pytest.raises(HostError, match=r"no KSM|not root"):
                artefacts.of_host(host, {"fleet": path})
            return
        made = artefacts.of_host(host, {"fleet": path})
    assert made.target == server.url
    assert made.mode == "functional"
    assert made.inputs["kernel"]["release"] == os.uname().release
    assert made.inputs["host"]["key"] == host.key
