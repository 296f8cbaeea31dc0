# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes: streams, deadlines, groups, death of the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from harness.config import lock
from harness.errors import EnvironmentProblem, HarnessError, Interrupted
from harness.run import CommandFailed, Crew, Deadline, run, spawn, stop


def test_streams_and_status_are_kept_apart() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_failure_shows_the_last_lines() -> None:
    with pytest.raises(CommandFailed, match="exit status 4") as caught:
        run(["sh", "-c", "echo the cause >&2; exit 4"])
    assert "the cause" in caught.value.message


def test_input_reaches_the_command_and_stdin_is_empty_without_it() -> None:
    assert run(["cat"], input="hello").stdout == "hello"
    assert run(["cat"]).stdout == ""


def test_missing_program_is_an_environment_problem() -> None:
    with pytest.raises(EnvironmentProblem, match="no-such-program"):
        run(["no-such-program"])


def test_lines_go_to_log_and_callback_while_the_command_runs(tmp_path: Path) -> None:
    seen: list[str] = []
    log = tmp_path / "log"
    done = run(["sh", "-c", "echo one; echo two >&2"], log=log, on_line=seen.append)
    assert seen == ["one", "two"]
    assert log.read_text() == "one\ntwo\n"
    assert done.stdout == "one\ntwo"


@pytest.mark.parametrize("streaming", [False, True])
def test_deadline_ends_the_whole_group(tmp_path: Path, streaming: bool) -> None:
    marker = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {marker}; wait"
    start = time.monotonic()
    with pytest.raises(CommandFailed, match=r"no end after 0\.5 s"):
        run(["sh", "-c", script], timeout=0.5, log=tmp_path / "log" if streaming else None)
    assert time.monotonic() - start < 10
    assert _gone(int(marker.read_text()))


def test_stop_escalates_to_kill() -> None:
    child = spawn(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert stop(child, grace=0.2) == -signal.SIGKILL


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    code = (
        "import time\nfrom pathlib import Path\nfrom harness.run import spawn\n"
        f"c = spawn(['sleep', '60'])\nPath({str(marker)!r}).write_text(str(c.pid))\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 20
    while not (marker.exists() and marker.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert _gone(int(marker.read_text()))


def test_deadline_counts_down_to_zero() -> None:
    deadline = Deadline(0.05)
    assert 0 < deadline.remaining() <= 0.05
    time.sleep(0.06)
    assert deadline.expired()


def _gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_crew_called_off_ends_its_processes_and_no_others(tmp_path: Path) -> None:
    """Also those that do not listen to TERM; afterwards nothing starts in it, while the rest of us goes on."""
    crew = Crew()
    script = 'trap "" TERM; echo $$ > pid; while :; do sleep 0.05; done'
    caught: list[BaseException] = []

    def work() -> None:
        with crew.joined():
            for command in (["sh", "-c", script], ["true"]):
                try:
                    run(command, cwd=tmp_path, log=tmp_path / "log")
                except HarnessError as error:
                    caught.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    deadline = Deadline(30)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert not deadline.expired()
        time.sleep(0.02)
    crew.stop()
    worker.join(30)
    assert [type(error) for error in caught] == [Interrupted, Interrupted]
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert run(["echo", "on"]).stdout == "on\n"


def test_waiting_for_a_lock_ends_when_the_crew_is_called_off(tmp_path: Path) -> None:
    crew = Crew()
    caught: list[BaseException] = []

    def work() -> None:
        with crew.joined():
            try:
                with lock(tmp_path / "lock", what="it", wait=600):
                    pass
            except HarnessError as error:
                caught.append(error)

    with lock(tmp_path / "lock", what="it"):
        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(0.1)
        crew.stop()
        worker.join(10)
        assert not worker.is_alive()
    assert [type(error) for error in caught] == [Interrupted]
