# SPDX-License-Identifier: GPL-2.0-or-later
"""The page over all reports: self-contained, traced to runs, and plain about what it is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main as cli
from harness.config import paths
from harness.errors import UsageError
from harness.experiment import conduct
from harness.report import overview
from tests.fake_fleet import ARTEFACTS, CAPABLE, FakeExecutor

OTHER = replace(CAPABLE, inputs={**CAPABLE.inputs, "kernel": {"version": "6.1.192", "digest": "edited"}})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two figures of one kernel, one of them under another preset too, and one of that kernel edited."""
    root = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARAKSM_RESULTS", str(root))
        for name, more in (("fig12", {}), ("fig14", {}), ("fig14", {"preset": "artifact-class"})):
            conduct.conduct(conduct.Request(name, profile="unit", **more), FakeExecutor(), CAPABLE)  # type: ignore[arg-type]
        edited = conduct.Request("fig14", profile="unit", source="/my/linux")
        conduct.conduct(edited, FakeExecutor(change={"bad_pages": 1}), OTHER)
    yield root


@pytest.fixture
def page(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The page as the command writes it."""
    monkeypatch.setenv("PARAKSM_RESULTS", str(results))
    monkeypatch.setattr("sys.argv", ["harness", "report"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert str(results / "report" / "report.html") in said
    assert "Verdicts: profile unit, preset paper" in said
    return (results / "report" / "report.html").read_text()


def test_the_page_needs_nothing_else(page: str, results: Path) -> None:
    assert page.count('src="data:image/svg+xml;base64,') == 4
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "<script" not in page
    for link in re.findall(r'href="(\.\./[^"]+)"', page):
        assert (results / "report" / link).is_file(), link
    for link in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{link}"' in page


def test_every_bar_leads_to_its_run_and_its_digests(page: str, results: Path) -> None:
    runs = {path.name for path in (results / "runs").iterdir()}
    assert runs == set(re.findall(r'href="\.\./runs/([0-9a-f]{16})/manifest\.json"', page))
    for run in runs:
        assert f"key {run[:12]}" in page
    assert "Liblinear, Para-ksmC, seed 1" in page


def test_kernels_of_one_version_and_presets_are_judged_apart(page: str) -> None:
    titles = re.findall(r'<h2 id="group\d">([^<]+)</h2>', page)
    assert len(titles) == 3
    assert sum("build" in title for title in titles) == 2
    assert "preset artifact-class" in titles[-1]


def test_what_failed_is_no_number_and_is_said(page: str) -> None:
    assert "3 runs failed and have no number." in page
    assert "bad_pages_merged" in page


def test_the_limits_are_those_of_these_runs(page: str) -> None:
    for words in (
        "Time is instructions",
        "constants that were set from the paper",
        "instead of 40 x 6 GiB",
        "processes with the memory of VMs, not virtual machines",
        "6.1.192, not the paper&#39;s 6.2",
        "One seed",
        "STYX is not there: needs a SmartNIC",
        "UNEQUAL between systems: scheduling: systems are not compared on equal terms",
    ):
        assert words in page, words


def test_presets_stand_side_by_side_with_what_they_change(page: str, results: Path) -> None:
    assert "Figure 14 under each preset (profile unit, Linux 6.1.192, emulated)" in page
    assert "ksmd at real-time priority 99" in page
    text = (results / "report" / "report.md").read_text()
    (head,) = re.findall(r"\| workload \| system \| (.+) \|\n\|---", text.split("# Presets side by side")[1])
    assert head == "paper | artifact-class"


def test_the_same_runs_give_the_same_bytes(page: str, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAKSM_RESULTS", str(results))
    before = {path: path.read_bytes() for path in (results / "report").iterdir()}
    conduct.overview()
    assert {path: path.read_bytes() for path in (results / "report").iterdir()} == before


def test_markdown_has_the_pictures_and_the_verdicts(page: str, results: Path) -> None:
    text = (results / "report" / "report.md").read_text()
    for link in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text):
        assert (results / "report" / link).is_file()
    assert text.count("![") == 4
    assert "| V6 |" in text


def test_there_is_no_page_without_a_report() -> None:
    with pytest.raises(UsageError, match="neither a report nor"):
        conduct.overview()


def test_a_damaged_report_is_named_and_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("fig12", "fig13", "fig14"):
        conduct.conduct(conduct.Request(name, profile="unit"), FakeExecutor(), CAPABLE)
    root = paths().results
    (root / "fig13-unit" / "experiment.json").write_text("{")
    other = root / "fig14-unit" / "experiment.json"
    other.write_text(other.read_text().replace('"preset": "paper",\n "profile"', '"preset": "gone",\n "profile"'))
    whole = conduct.overview()
    said = capsys.readouterr().err
    assert "fig13-unit" in said and "damaged" in said
    assert "fig14-unit: left out: preset 'gone'" in said
    assert whole.values["groups"][0]["reports"] == ["fig12-unit"]


def test_presets_are_all_explained() -> None:
    from harness.experiment.spec import compared

    assert {name for name, _ in overview.meanings()} == set(compared())


def test_a_report_in_the_list_of_before_is_still_drawn(tmp_path: Path) -> None:
    outcome = conduct.conduct(conduct.Request("fig13", profile="unit"), FakeExecutor(), ARTEFACTS)
    path = outcome.report.files[0].parent / "experiment.json"
    path.write_text(path.read_text().replace('"spec": {', '"spec": {"verdict": [{"id": "V6"}],', 1))
    before = [file.read_bytes() for file in outcome.report.files]
    assert [file.read_bytes() for file in conduct.redraw(path.parent).files] == before
    assert paths().results.is_dir()
