# SPDX-License-Identifier: GPL-2.0-or-later
"""Benches print their figures beside their limits and fail when one is passed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import bench
from harness.bench import Figure
from harness.cli.main import app
from harness.errors import UsageError


def test_a_limit_holds_or_not() -> None:
    assert Figure("x", 4.0, "s", 4.0).holds
    assert not Figure("x", 4.01, "s", 4.0).holds
    assert Figure("x", 1e9, "s").holds


@pytest.mark.parametrize(("seconds", "status", "mark"), [(3.0, 0, "holds"), (5.0, 1, "PASSED")])
def test_figures_and_exit_status(monkeypatch: pytest.MonkeyPatch, seconds: float, status: int, mark: str) -> None:
    asked: list[int] = []

    def fake(terms: bench.Terms) -> list[Figure]:
        asked.append(terms.rounds)
        return [Figure("to compare with", 1.0, "s"), Figure("the promise", seconds, "s", 4.0)]

    monkeypatch.setitem(bench.BENCHES, "boot", fake)
    done = CliRunner().invoke(app, ["bench", "boot", "-n", "2"])
    assert (done.exit_code, asked) == (status, [2])
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["s", mark]
    done = CliRunner().invoke(app, ["bench", "boot", "--json"])
    assert [row["holds"] for row in json.loads(done.stdout)] == [True, status == 0]


def test_another_kernel_is_for_benches_of_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bench.Terms] = []

    def fake(terms: bench.Terms) -> list[Figure]:
        asked.append(terms)
        return [Figure("a page saved", 1.0, "")]

    for name in ("boot", "systems"):
        monkeypatch.setitem(bench.BENCHES, name, fake)
    assert CliRunner().invoke(app, ["bench", "systems", "--source", "/some/tree"]).exit_code == 0
    assert asked == [bench.Terms(source="/some/tree")]
    done = CliRunner().invoke(app, ["bench", "systems", "boot", "--kernel", "6.2"])
    assert isinstance(done.exception, UsageError)
    assert "boot: not a figure of a kernel" in done.exception.message
    assert len(asked) == 1


def test_the_help_tells_of_every_bench_there_is() -> None:
    said = CliRunner().invoke(app, ["bench", "--help"]).stdout
    assert [name for name in bench.BENCHES if f"{name}: " not in said] == []


def test_an_edit_is_taken_back_whatever_happens(tmp_path: Path) -> None:
    file = tmp_path / "ksm.c"
    file.write_bytes(b"int x;\n")
    with pytest.raises(RuntimeError), bench._edited(file, "/* more */\n"):
        assert file.read_bytes() == b"int x;\n/* more */\n"
        raise RuntimeError
    assert file.read_bytes() == b"int x;\n"
