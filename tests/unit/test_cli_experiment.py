# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness experiment`` and ``harness report`` as a user types them."""

from __future__ import annotations

import json
import sys

import pytest

from harness.cli import main as cli
from harness.config import paths
from harness.experiment import conduct
from tests.fake_fleet import ARTEFACTS, FakeExecutor

Capture = pytest.CaptureFixture[str]


def harness(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Type a command; its exit code."""
    monkeypatch.setattr(sys, "argv", ["harness", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
    """The command runs this in place of machines."""
    executor, real = FakeExecutor(), conduct.perform

    def perform(request: conduct.Request) -> object:
        return real(request, executor, ARTEFACTS)

    monkeypatch.setattr(conduct, "perform", lambda request, *_: perform(request))
    return executor


def test_a_plan_for_people_and_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert harness(monkeypatch, "experiment", "fig12", "--plan", "--seeds", "2") == 0
    text = capsys.readouterr().out
    assert text.count("pending") >= 4
    assert "no cells: STYX (" in text
    assert harness(monkeypatch, "experiment", "fig12", "--plan", "--seeds", "2", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert [cell["state"] for cell in data["cells"]] == ["pending"] * 10
    assert not paths().results.exists()


def test_a_table_on_standard_output_and_the_way_to_the_files(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, fake: FakeExecutor
) -> None:
    assert harness(monkeypatch, "experiment", "fig12", "--profile", "unit") == 0
    out = capsys.readouterr().out
    assert "2.000x" in out
    for suffix in ("md", "png", "svg", "html"):
        assert str(paths().results / "fig12-unit" / f"fig12.{suffix}") in out
    assert harness(monkeypatch, "report", "fig12-unit") == 0
    assert capsys.readouterr().out == out
    assert len(fake.ran) == 2


def test_numbers_as_json_alone_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, fake: FakeExecutor
) -> None:
    assert harness(monkeypatch, "experiment", "fig13", "--profile", "unit", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["failed"] == []
    assert {curve["status"] for curve in data["curves"]} == {"result", "not built yet"}


def test_failed_cells_end_in_the_fleets_exit_code_after_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, fake: FakeExecutor
) -> None:
    fake.change = {"bad_pages": 1}
    assert harness(monkeypatch, "experiment", "fig12", "--profile", "unit") == 8
    done = capsys.readouterr()
    assert "failed" in done.out
    assert "the same command tries it again" in done.err
    fake.change = {}
    assert harness(monkeypatch, "experiment", "fig12", "--profile", "unit") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["experiment", "fig99"], "fig12"),
        (["experiment", "fig12", "--profile", "huge"], "laptop"),
        (["experiment", "fig12", "--preset", "mine"], "artifact"),
        (["experiment", "fig13", "--target", "http://h"], "ssh://root@host:22"),
        (["experiment", "fig13", "--target", "ssh://h", "--kernel", "6.2"], "--kernel"),
        (["report", "nothing"], "harness experiment fig12"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: list[str], said: str
) -> None:
    monkeypatch.setattr("harness.experiment.artefacts.programs", dict)
    assert harness(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err


def test_the_index_is_rebuilt_on_request(monkeypatch: pytest.MonkeyPatch, capsys: Capture, fake: FakeExecutor) -> None:
    harness(monkeypatch, "experiment", "fig12", "--profile", "unit")
    path = paths().results / "index.json"
    before = path.read_bytes()
    path.unlink()
    assert harness(monkeypatch, "report", "--rebuild-index") == 0
    assert path.read_bytes() == before
