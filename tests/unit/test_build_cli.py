# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness build`` on a whole project in miniature: side by side, one failing, stopped, killed, and measured."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.project import Project

_MEET = """: > "$BEHAVE/here-{me}"
n=0
while [ ! -f "$BEHAVE/here-{other}" ]; do
    n=$((n + 1)); [ $n -gt 600 ] && {{ echo "error: {other} never started"; exit 1; }}
    sleep 0.05
done
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "fake")
    yield made
    made.close()


def _until(condition: Path) -> None:
    end = time.monotonic() + 60
    while not condition.exists():
        assert time.monotonic() < end, f"{condition.name} did not come"
        time.sleep(0.02)


def test_kernel_and_qemu_are_built_side_by_side(project: Project) -> None:
    """Each compiler waits until it has seen the other at work."""
    (project.behave / "ksm").write_text(_MEET.format(me="ksm", other="ninja"))
    (project.behave / "ninja").write_text(_MEET.format(me="ninja", other="ksm"))
    done = project.harness("build", "--json")
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert set(built) == {"kernel", "qemu", "image measured", "image functional"}
    assert Path(built["kernel"]["bzimage"]).is_file()
    assert Path(built["qemu"]["binary"]).read_text() == "one\n"
    assert all((project.cache / "paraksm" / "logs" / f"{name}.log").is_file() for name in _builds(project))
    again = project.harness("-q", "build", "--json")
    assert (again.stdout, again.stderr) == (done.stdout, "")


def _builds(project: Project) -> list[str]:
    found = [path.name for path in (project.cache / "paraksm" / "builds").iterdir() if not path.name.startswith(".")]
    assert len(found) == 2
    return found


def test_when_one_fails_the_other_is_stopped_and_goes_on_next_time(project: Project) -> None:
    (project.behave / "ninja").write_text(': > "$BEHAVE/here-ninja"; sleep 300\n')
    (project.behave / "ksm").write_text(
        'while [ ! -f "$BEHAVE/here-ninja" ]; do sleep 0.05; done; echo "mm/ksm.c:1: error: no"; exit 1\n'
    )
    started = time.monotonic()
    done = project.harness("build")
    assert time.monotonic() - started < 60
    assert done.returncode == 6
    assert "mm/ksm.c:1: error: no" in done.stderr
    assert "QEMU was stopped because kernel failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert project.processes() == []
    for script in ("ninja", "ksm"):
        (project.behave / script).unlink()
    assert project.harness("build").returncode == 0


def test_what_fails_after_the_first_is_told_too(project: Project) -> None:
    (project.behave / "ksm").write_text(
        'trap "" TERM; : > "$BEHAVE/here-ksm"; while [ -f "$BEHAVE/ninja" ]; do sleep 0.02; done; exit 1\n'
    )
    (project.behave / "ninja").write_text(
        'while [ ! -f "$BEHAVE/here-ksm" ]; do sleep 0.02; done; echo "hw/core.c:1: error: first"; exit 1\n'
    )
    done = project.harness("build")
    assert done.returncode == 6
    assert "hw/core.c:1: error: first" in done.stderr
    assert "kernel was stopped because QEMU failed" in done.stderr
    assert project.processes() == []  # not even the one that does not listen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_and_killed_builds_leave_nothing_and_go_on(project: Project, number: signal.Signals) -> None:
    for name in ("ksm", "ninja"):
        (project.behave / name).write_text(f': > "$BEHAVE/here-{name}"; sleep 300\n')
    child = project.start("build")
    for name in ("ksm", "ninja"):
        _until(project.behave / f"here-{name}")
    assert len(project.processes()) > 2
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    if number == signal.SIGINT:
        assert child.returncode == 130
        assert "the same command resumes" in err
        assert "Traceback" not in err
        assert project.processes() == []
    for name in ("ksm", "ninja"):
        (project.behave / name).unlink()
    done = project.harness("build", "--json")  # ends what a killed harness left
    assert done.returncode == 0, done.stderr
    assert project.processes() == []


def test_two_builds_at_once_are_one_build(project: Project) -> None:
    """The second waits for the first, says so, and takes what it made."""
    wait = ': >> "$BEHAVE/here-ksm"; while [ ! -f "$BEHAVE/go" ]; do sleep 0.05; done\n'
    (project.behave / "ksm").write_text(wait)
    first = project.start("build", "--json")
    _until(project.behave / "here-ksm")
    second = project.start("build", "--json")
    assert second.stderr is not None
    said = ""
    while "waiting for it" not in said:
        line = second.stderr.readline()
        assert line, said
        said += line
    assert f"(pid {first.pid})" in said
    (project.behave / "go").touch()
    out = [json.loads(child.communicate(timeout=60)[0]) for child in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert out[0] == out[1]
    log = next((project.cache / "paraksm" / "logs").glob("linux-*-host-*.log"))
    assert log.read_text().count("  CC ") == 2  # ksm and slub, once


def test_cold_build_is_measured_from_an_empty_cache(project: Project) -> None:
    assert project.harness("-q", "build").returncode == 0
    done = project.harness("bench", "build", "--json")
    assert done.returncode == 0, done.stderr
    (figure,) = json.loads(done.stdout)
    assert (figure["name"], figure["limit"], figure["unit"]) == ("cold build of everything", 1200.0, "s")
    assert 0.2 < figure["value"] < 60
    assert "[2/2] Linking" not in done.stdout
    assert list((project.cache / "paraksm" / "tmp").glob("bench-*")) == []


def test_a_cold_build_that_fails_is_no_figure(project: Project) -> None:
    (project.behave / "ksm").write_text('echo "mm/ksm.c:1: error: no"; exit 1\n')
    done = project.harness("bench", "build")
    assert done.returncode != 0
    assert "mm/ksm.c:1: error: no" in done.stderr
    assert "cold build" not in done.stdout
