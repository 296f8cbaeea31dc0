# SPDX-License-Identifier: GPL-2.0-or-later
"""Two result sets against each other: ratios by hand, what went in differently, what has no partner."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from harness.cli import main as cli
from harness.config import paths
from harness.errors import UsageError
from harness.experiment import conduct
from harness.experiment.store import RunRecord
from harness.report import analysis, compare, tables
from harness.report.analysis import CellName, Selection
from tests.fake_fleet import ARTEFACTS, FakeExecutor
from tests.unit.test_report import record, selection

OTHER = dataclasses.replace(ARTEFACTS, inputs={**ARTEFACTS.inputs, "kernel": {"version": "6.2.1", "digest": "cc"}})


def sets(root: Path, factors: dict[int, float], seeds: int = 3) -> tuple[Selection, Selection]:
    """In B ksmd takes each seed's factor of its time in A; all else is equal."""
    records: dict[CellName, RunRecord | None] = {
        ("cpu-ksm", "liblinear", seed): record(root / "b", "cpu-ksm", seed, ksmd_ns=int(800_000_000 * factor))
        for seed, factor in factors.items()
    }
    return selection(root / "a", seeds=seeds), selection(root / "b", seeds=seeds, records=records)


def one(a: Selection, b: Selection) -> compare.Experiment:
    """What is said of a pair of reports."""
    (found,) = compare.compare({"x": a}, {"x": b}).experiments
    return found


def test_ratios_are_paired_by_seed_and_their_median_is_of_logarithms(tmp_path: Path) -> None:
    found = one(*sets(tmp_path, {1: 0.5, 2: 2.0, 3: 0.25}))
    ratios = {pair.seed: pair.ratios() for pair in found.pairs if pair.subject.system == "cpu-ksm"}
    assert {seed: item["ksmd_ns"] for seed, item in ratios.items()} == {1: 0.5, 2: 2.0, 3: 0.25}
    assert {item["application_ns"] for item in ratios.values()} == {1.0}
    assert {item["ksmd_share"] for item in ratios.values()} == {0.5, 2.0, 0.25}
    mean = found.means["cpu-ksm"]["ksmd_ns"]
    assert mean.value == pytest.approx(0.5)
    assert mean.low is not None and mean.high is not None
    assert 0.25 <= mean.low <= 0.5 <= mean.high <= 2
    # over all systems: half the exponent for a system that is as before, but ksmd is not at work in no-ksm
    assert found.means[compare.ALL]["application_ns"].value == 1.0
    assert "ksmd_ns" not in found.means["no-ksm"]
    assert found.means[compare.ALL]["ksmd_ns"].value == pytest.approx(0.5)


def test_the_mean_over_workloads_is_geometric(tmp_path: Path) -> None:
    def runs(root: Path, read: int, update: int) -> dict[CellName, RunRecord | None]:
        out: dict[CellName, RunRecord | None] = {}
        for workload, p99 in (("ycsb-a-read", read), ("ycsb-b-update", update)):
            tail = {"read": {"sent": {"n": 10, "p99_ns": p99}}}
            out["cpu-ksm", workload, 1] = record(root / workload, "cpu-ksm", 1, latencies=tail)
        return out

    a, b = (selection(tmp_path / name, records=runs(tmp_path / name, *p99), absent={})
            for name, p99 in (("a", (100, 100)), ("b", (200, 800))))  # fmt: skip
    found = one(a, b)
    mean = found.means["cpu-ksm"]["latencies.read.sent.p99_ns"]
    assert mean.value == pytest.approx(math.sqrt(2 * 8))  # over the two mixes that have reads, not over Liblinear
    assert (mean.low, mean.high, mean.n) == (None, None, 1)


def test_bars_of_one_mix_are_one_cell(tmp_path: Path) -> None:
    run = record(tmp_path, "cpu-ksm", 1)
    both: dict[CellName, RunRecord | None] = {("cpu-ksm", f"ycsb-a-{kind}", 1): run for kind in ("read", "update")}
    chosen = selection(tmp_path, records=both)
    found = one(chosen, chosen)
    assert [pair.subject.workload for pair in found.pairs if pair.subject.system == "cpu-ksm"] == [
        "liblinear",
        "ycsb-a",
    ]
    assert all(pair.same for pair in found.pairs)


def test_what_has_no_partner_is_said_with_the_reason(tmp_path: Path) -> None:
    good = record(tmp_path, "cpu-ksm", 1)
    bad = dataclasses.replace(good, outcome="failed", reason="VM 3 lost")
    a = selection(tmp_path, records={("cpu-ksm", "liblinear", 1): bad})
    b = selection(tmp_path, records={("no-ksm", "liblinear", 1): None})
    found = one(a, b)
    assert found.pairs == ()
    assert dict(found.only) == {
        "CPU-ksm, Liblinear, seed 1": "A: failed: VM 3 lost",
        "no-ksm, Liblinear, seed 1": "B: no run",
    }
    (_, table) = [*compare.tables_of(compare.compare({"x": a}, {"x": b, "y": b}))]
    assert table.rows == (("y", "B"),)


def test_inputs_that_differ_are_told_once_and_texts_by_their_lines(tmp_path: Path) -> None:
    a, b = sets(tmp_path, {})
    for found in b.records.values():
        assert found is not None
        changed = {"kernel": {"version": "6.2.1"}, "plan": "one\nnap 20\nthree\n", "machine": {"argv": ["-m", "64"]}}
        dict.update(found.inputs, changed)
    for found in a.records.values():
        assert found is not None
        dict.update(found.inputs, plan="one\nnap 40\nthree\n", machine={"argv": ["-m", "32"]})
    assert [dataclasses.astuple(item) for item in one(a, b).differences] == [
        ("kernel.version", "6.1.192", "6.2.1", 6, 1),
        ("plan", "nap 40", "nap 20", 6, 1),
        ("machine.argv", "32", "64", 6, 1),
    ]


def test_a_digest_is_shown_by_its_beginning() -> None:
    assert compare._short("sha256:" + "ab" * 32) == "sha256:abababababab"
    assert compare._short("ab" * 32) == "ab" * 6
    assert compare._short("nap 40") == "nap 40"


# --- as typed -------------------------------------------------------------------------------------------


def measured(root: Path, monkeypatch: pytest.MonkeyPatch, parts: object = ARTEFACTS, **change: int) -> Path:
    """A results directory of its own."""
    monkeypatch.setenv("PARAKSM_RESULTS", str(root))
    for name in ("fig12", "fig13"):
        conduct.conduct(conduct.Request(name, profile="unit", seeds=2), FakeExecutor(change=change), parts)  # type: ignore[arg-type]
    return root


def test_two_result_sets_of_two_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a = measured(tmp_path / "a", monkeypatch)
    b = measured(tmp_path / "b", monkeypatch, OTHER, app_ns=3_000_000_000)
    monkeypatch.setattr("sys.argv", ["harness", "report", "--compare", str(a), str(b), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    data = json.loads(capsys.readouterr().out)
    assert [item["experiment"] for item in data["experiments"]] == ["fig12-unit", "fig13-unit"]
    first = data["experiments"][0]
    assert {item["path"] for item in first["differences"]} == {"kernel.version", "kernel.digest", "checkpoint"}
    assert first["ratios"]["cpu-ksm"]["application_ns"]["value"] == pytest.approx(1.5, rel=1e-6)
    assert first["ratios"]["no-ksm"]["application_ns"]["value"] == pytest.approx(3.0, rel=1e-6)
    assert len(first["cells"]) == 4
    monkeypatch.setattr("sys.argv", ["harness", "report", "--compare", str(a), str(b)])
    with pytest.raises(SystemExit):
        cli.main()
    text = capsys.readouterr().out
    assert "kernel.version" in text and "6.2.1" in text and "1.5000x" in text


def test_two_reports_of_any_name_are_a_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = measured(tmp_path / "a", monkeypatch)
    found = conduct.compare(root / "fig12-unit", Path("fig13-unit"))
    (item,) = found.experiments
    assert [pair.same for pair in item.pairs] == [True, True]
    assert compare.tables_of(found)[0].rows == ()
    assert tables.plain(compare.tables_of(found)[0]).count("the very same run") == 1


def test_what_cannot_be_compared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = measured(tmp_path / "a", monkeypatch)
    with pytest.raises(UsageError, match="neither a report nor a directory of reports"):
        conduct.compare(root, tmp_path)
    with pytest.raises(UsageError, match="no report in common"):
        conduct.compare(root, root / "fig12-unit")


def test_runs_beside_a_report_are_its_own_and_else_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = measured(tmp_path / "a", monkeypatch)
    monkeypatch.setenv("PARAKSM_RESULTS", str(tmp_path / "elsewhere"))
    assert not paths().results.exists()
    (chosen,) = conduct.result_set(root / "fig12-unit").values()
    assert all(chosen.records.values())
    assert isinstance(chosen, analysis.Selection)


def test_metrics_that_one_set_has_alone_are_named(tmp_path: Path) -> None:
    a, b = sets(tmp_path, {1: 0.5, 2: 0.5, 3: 0.5})
    assert not [note for table in tables_of(a, b) for note in table.notes if note.startswith("only ")]
    found = one(a, b)
    pairs = tuple(
        dataclasses.replace(pair, b=dataclasses.replace(pair.b, metrics={**pair.b.metrics, "cycles_vm1": 5}))
        for pair in found.pairs
    )
    told = compare.tables_of(compare.Comparison((dataclasses.replace(found, pairs=pairs),), {}))
    assert "only B has: cycles_vm1" in [note for table in told for note in table.notes]


def tables_of(a: Selection, b: Selection) -> list[tables.Table]:
    """What is told of a pair of reports."""
    return compare.tables_of(compare.compare({"x": a}, {"x": b}))
