# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a user meets it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pexpect
import pytest

from harness.cli.main import COMMANDS


def _harness(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_help_lists_every_command() -> None:
    done = _harness("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    done = _harness(name, "--help")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 8


def test_unknown_command_is_a_usage_error() -> None:
    done = _harness("bot")
    assert done.returncode == 2
    assert "bot" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_kernel_is_refused_by_name_without_traceback() -> None:
    done = _harness("build", "kernel", "--kernel", "9.99")
    assert done.returncode in (2, 4)
    assert "9.99" in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_colour_codes_in_a_pipe_and_colour_on_a_terminal() -> None:
    assert "\x1b[" not in _harness("--help").stdout
    child = pexpect.spawn(
        sys.executable,
        ["-m", "harness", "--help"],
        encoding="utf-8",
        env={"TERM": "xterm-256color", "PATH": "/usr/bin:/bin"},
    )
    child.expect(pexpect.EOF)
    assert "\x1b[" in (child.before or "")


def test_help_imports_no_heavy_library() -> None:
    heavy = ("numpy", "matplotlib", "pydantic", "fabric", "jinja2", "pooch", "scipy")
    code = f"import sys, harness.cli.main; print(*[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_help_costs_little_more_than_python_with_typer() -> None:
    """A ratio against the same interpreter and library in the same run, not a stopwatch."""

    def median(argv: list[str]) -> float:
        times = []
        for _ in range(5):
            start = time.monotonic()
            subprocess.run(argv, capture_output=True, check=True)
            times.append(time.monotonic() - start)
        return statistics.median(times)

    floor = median([sys.executable, "-c", "import typer, typer.main, rich.console, rich.table, rich.markdown"])
    ours = median([sys.executable, "-m", "harness", "--help"])
    assert ours < 2.5 * floor
