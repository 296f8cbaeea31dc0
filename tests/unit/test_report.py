# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics against known answers; tables, figures and page from made-up records of the real form."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.experiment import spec
from harness.experiment.store import RunRecord
from harness.latency import Latencies
from harness.report import analysis, means, paper, readings, statistics, tables, tails, verdicts
from harness.report.analysis import Selection
from harness.report.build import build
from harness.systems import systems


def record(root: Path, system: str, seed: int, **metrics: Any) -> RunRecord:
    """A run of 1 s (no-ksm) or 2 s with ksmd taking 40% of it and saving 8 MiB."""
    directory = root / f"{system}-{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    rows = [f"{10**9 + step * 10**8},{50 + step * 100}" for step in range(11)]
    (directory / "samples.csv").write_text("t_ns,pages_sharing\n" + "\n".join(rows) + "\n")
    ksm = system != "no-ksm"
    numbers = {
        "application_ns": (2_000_000_000 + seed * 1000) if ksm else 1_000_000_000,
        "corun_ns": 2_000_000_000,
        "ksmd_ns": 800_000_000 if ksm else 0,
        "saved_bytes": 8 << 20 if ksm else 0,
        "possible_bytes": 10 << 20,
        "planned_saved_bytes": 6 << 20 if ksm else 0,
        "planned_ksmd_ns": 600_000_000 if ksm else 0,
    }
    cell = {
        "system": system, "workload": "liblinear", "seed": seed, "profile": "unit", "backend": "process",
        "mode": "measured", "target": "emulated",
    }  # fmt: skip
    inputs = {"kernel": {"version": "6.1.192"}, "plan": "<b>&"}
    return RunRecord(f"{seed:064x}", cell, inputs, "ok", "", numbers | metrics, directory)


def selection(root: Path, name: str = "fig12", seeds: int = 1, preset: str = "paper", **change: Any) -> Selection:
    """All cells of a spec, done."""
    records: dict[analysis.CellName, RunRecord | None] = {
        (system, "liblinear", seed): record(root, system, seed)
        for system in ("no-ksm", "cpu-ksm")
        for seed in range(1, seeds + 1)
    }
    absent = {name: "needs a patch" for name in systems() if name not in ("no-ksm", "cpu-ksm")}
    absent |= {item.id: why for item in spec.workloads().values() if (why := item.lacking("process"))}
    return Selection(
        spec.load(name),
        "unit",
        preset,
        seeds,
        records | change.get("records", {}),
        change.get("absent", absent),
        "reduced",
    )


# --- statistics ---------------------------------------------------------------------------------------


def test_the_papers_own_check_of_its_geomean() -> None:
    assert statistics.geomean([2.1] * 2 + [3.7] * 7) == pytest.approx(3.26, abs=0.005)
    assert statistics.geomean([44.5, 39.2, *[51.7] * 4]) == pytest.approx(48.15, abs=0.01)


def test_the_papers_time_share_bounds() -> None:
    for utilisation, bound in ((0.445, 1.80), (0.392, 1.64), (0.517, 2.07)):
        assert statistics.time_share_bound(utilisation) == pytest.approx(bound, abs=0.005)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=8))
def test_a_geomean_lies_between_its_extremes_and_scales(values: list[float]) -> None:
    mean = statistics.geomean(values)
    assert min(values) * 0.999999 <= mean <= max(values) * 1.000001
    assert statistics.geomean([3 * value for value in values]) == pytest.approx(3 * mean)


@pytest.mark.parametrize("bad", [[], [1.0, 0.0], [1.0, -2.0]])
def test_what_has_no_geomean(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        statistics.geomean(bad)


def test_one_seed_has_no_interval() -> None:
    estimate = statistics.paired_ratio([3.0], [2.0])
    assert estimate.value == pytest.approx(1.5)
    assert (estimate.low, estimate.high, estimate.n) == (None, None, 1)


def test_pairs_are_kept_together() -> None:
    # each seed is three times slower than its own baseline, whatever the baselines are
    estimate = statistics.paired_ratio([3, 6, 30, 0.3], [1, 2, 10, 0.1])
    assert estimate.value == pytest.approx(3)
    assert estimate.low == pytest.approx(3)
    assert estimate.high == pytest.approx(3)


def test_an_interval_holds_the_median_and_is_the_same_every_time() -> None:
    numerators, denominators = [2.0, 2.1, 2.2, 2.05, 1.9], [1.0, 1.0, 1.02, 1.0, 1.0]
    one, two = (statistics.paired_ratio(numerators, denominators) for _ in range(2))
    assert one == two
    assert one.low is not None and one.high is not None
    assert 1.9 <= one.low < one.value < one.high <= 2.2


def test_the_inverse_ratio_has_the_inverse_interval() -> None:
    a, b = [2.0, 2.5, 3.0, 2.2, 2.8], [1.0, 1.1, 1.2, 1.0, 1.05]
    there, back = statistics.paired_ratio(a, b), statistics.paired_ratio(b, a)
    assert there.low is not None and there.high is not None and back.low is not None
    assert there.value == pytest.approx(1 / back.value)
    assert math.log(there.high) == pytest.approx(-math.log(back.low), abs=0.05)


def test_unpaired_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs"):
        statistics.paired_ratio([1, 2], [1])


# --- the paper ----------------------------------------------------------------------------------------


def test_paper_values_name_known_systems_and_their_place() -> None:
    for value in paper.values():
        assert value.system in systems()
        assert re.search(r"section \d|Table \d", value.where)


def test_a_value_shown_only_in_a_picture_is_absent() -> None:
    for workload in spec.workloads().values():
        assert paper.find("degradation", "cpu-ksm", workload.id) is None
    geomean = paper.find("degradation", "cpu-ksm", "GeoMean")
    assert geomean is not None
    assert geomean.value == 3.3


# --- analysis -----------------------------------------------------------------------------------------


def test_degradation_utilisation_and_bound(tmp_path: Path) -> None:
    bar = analysis.degradation(selection(tmp_path)).at("cpu-ksm", "liblinear")
    assert bar.status == "result"
    assert bar.ratio is not None and bar.utilisation is not None
    assert bar.ratio.value == pytest.approx(2.000001)
    assert bar.utilisation.value == pytest.approx(0.4)
    assert bar.bound == pytest.approx(1 / 0.6)


def _tail(n: int, p99_ns: int) -> dict[str, int]:
    return {"n": n, "p50_ns": 1000, "p99_ns": p99_ns, "max_ns": 2 * p99_ns}


def _asked(root: Path, preset: str = "paper", n: int = 800, **change: Any) -> Selection:
    """Mix b measured in both systems; reads take 3 times as long with ksmd, 5 times from the intended start."""
    records: dict[analysis.CellName, RunRecord | None] = {}
    for system, ksm in (("no-ksm", False), ("cpu-ksm", True)):
        seen = {
            "read": {"sent": _tail(n, 600 if ksm else 200), "intended": _tail(n, 1500 if ksm else 300)},
            "update": {"sent": _tail(40, 500), "intended": _tail(40, 500)},
        }
        metrics = {"latencies": seen, "model": "aa"} | (change if ksm else {})
        found = record(root, system, 1, **metrics)
        records |= {(system, f"ycsb-b-{kind}", 1): found for kind in ("read", "update")}
    absent = {name: "needs a patch" for name in systems() if name not in ("no-ksm", "cpu-ksm")}
    return selection(root, preset=preset, records=records, absent=absent)


def test_a_bar_of_a_mix_is_the_ratio_of_percentiles(tmp_path: Path) -> None:
    result = analysis.degradation(_asked(tmp_path))
    read, update = (result.at("cpu-ksm", f"ycsb-b-{kind}") for kind in ("read", "update"))
    assert read.ratio and read.intended and read.seconds and update.ratio
    assert [read.ratio.value, read.intended.value, update.ratio.value] == pytest.approx([3, 5, 1])
    assert read.seconds.value == pytest.approx(600e-9)
    assert (read.samples, update.samples) == (800, 40)
    assert result.stamps[-1] == "p99 of fewer than 500 samples, near the maximum: YCSB-b update n=40"
    (row,) = (row for row in tables.of_degradation(result).rows if row[:2] == ("YCSB-b read", "CPU-ksm"))
    assert row[-4:] == ("p99 latency", "800", "5.000x", "")
    (line,) = (row for row in tables.of_degradation(result).rows if row[:2] == ("Liblinear", "CPU-ksm"))
    assert line[-4:] == ("execution time", "", "", "")
    shown = tables.values(result)["bars"]
    (bar,) = (bar for bar in shown if (bar["system"], bar["workload"]) == ("cpu-ksm", "ycsb-b-read"))
    assert (bar["metric"], bar["samples"]) == ("p99 latency", 800)
    assert bar["degradation_from_intended_start"]["value"] == pytest.approx(5)
    assert bar["degradation_of_pooled_seeds"] is None  # of one seed it is the same


def test_samples_of_several_seeds_are_pooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed whose one slow read is its 99th percentile does not decide what that of all reads is."""
    records: dict[analysis.CellName, RunRecord | None] = {}
    found: dict[Path, Latencies] = {}
    for system in ("no-ksm", "cpu-ksm"):
        for seed in (1, 2, 3):
            found[tmp_path / f"{system}-{seed}"] = Latencies(
                {100: 50, 300: 0 if system == "no-ksm" else (seed == 1) * 3}, 1
            )
            tail = {"sent": _tail(50, 300 if system == "cpu-ksm" and seed == 1 else 100), "intended": _tail(50, 100)}
            records[system, "ycsb-c-read", seed] = record(tmp_path, system, seed, latencies={"read": tail}, model=seed)
    monkeypatch.setattr(tails, "of", lambda record, operation: found[record.path] if operation == "read" else None)
    absent = {name: "needs a patch" for name in systems() if name not in ("no-ksm", "cpu-ksm")}
    result = analysis.degradation(selection(tmp_path, seeds=3, records=records, absent=absent))
    bar = result.at("cpu-ksm", "ycsb-c-read")
    assert bar.ratio and bar.pooled
    assert (bar.ratio.value, bar.samples) == (1, 150)  # a median of three
    assert bar.pooled.value == 3  # 3 of 153
    assert (bar.pooled.low, bar.pooled.high) == pytest.approx((1, 3))
    (row,) = (row for row in tables.of_degradation(result).rows if row[:2] == ("YCSB-c read", "CPU-ksm"))
    assert row[-1] == "3.000x [1.000x, 3.000x]"


def test_other_operations_are_no_comparison_unless_other_loads_are_offered(tmp_path: Path) -> None:
    bar = analysis.degradation(_asked(tmp_path, model="bb")).at("cpu-ksm", "ycsb-b-read")
    assert (bar.status, bar.ratio) == ("failed", None)
    unequal = analysis.degradation(_asked(tmp_path, preset="artifact", model="bb"))
    assert unequal.at("cpu-ksm", "ycsb-b-read").ratio is not None
    assert any("offered load" in line for line in unequal.stamps)


def test_an_operation_that_never_occurred_has_no_percentile(tmp_path: Path) -> None:
    seen = {"read": {"sent": _tail(9, 9), "intended": _tail(9, 9)}}
    bar = analysis.degradation(_asked(tmp_path, latencies=seen)).at("cpu-ksm", "ycsb-b-update")
    assert (bar.status, bar.reason, bar.ratio) == ("failed", "no update occurred", None)


def test_what_is_not_built_has_no_number_anywhere(tmp_path: Path) -> None:
    result = analysis.degradation(selection(tmp_path))
    for bar in result.items:
        if result.selection.reason(bar.system.id, bar.workload.id):
            assert bar.status == ("needs real VMs" if bar.system.id not in result.selection.absent else "not built yet")
            assert (bar.ratio, bar.utilisation, bar.bound, bar.seconds, bar.saved_mib) == (None,) * 5
    assert set(result.geomeans.values()) == {None}
    for row in tables.of_degradation(result).rows:
        if row[1] in ("DSA-ksm", "STYX", "Para-ksmC", "Para-ksmT"):
            assert row[3] == "not built yet"
            assert (row[2], row[5], row[6], row[8]) == ("", "", "", "")


def test_a_failed_and_a_missing_cell_are_said_and_not_computed_around(tmp_path: Path) -> None:
    good = record(tmp_path, "cpu-ksm", 1)
    bad = RunRecord(good.key, good.cell, good.inputs, "failed", "VM 3 lost", {}, good.path)
    result = analysis.degradation(selection(tmp_path, records={("cpu-ksm", "liblinear", 1): bad}))
    bar = result.at("cpu-ksm", "liblinear")
    assert (bar.status, bar.reason, bar.ratio) == ("failed", "VM 3 lost", None)
    result = analysis.degradation(selection(tmp_path, records={("no-ksm", "liblinear", 1): None}))
    assert result.at("cpu-ksm", "liblinear").status == "missing"
    assert result.at("cpu-ksm", "liblinear").ratio is None


def test_another_model_means_other_work(tmp_path: Path) -> None:
    cheat = record(tmp_path, "cpu-ksm", 1, model="00ff")
    bar = analysis.degradation(selection(tmp_path, records={("cpu-ksm", "liblinear", 1): cheat})).at(
        "cpu-ksm", "liblinear"
    )
    assert (bar.status, bar.ratio) == ("failed", None)
    assert "not the same work" in bar.reason


def test_saving_starts_at_zero_and_counts_pages_of_4_kib(tmp_path: Path) -> None:
    curve = analysis.saving(selection(tmp_path, "fig13")).curves[0]
    assert curve.times[0] == 0.0
    assert curve.middle[0] == 0.0
    assert curve.times[-1] == pytest.approx(1.0)
    assert curve.middle[-1] == pytest.approx(1000 * 4096 / 2**20)


def test_the_stamps_say_what_the_figure_is(tmp_path: Path) -> None:
    text = " ".join(analysis.degradation(selection(tmp_path)).stamps)
    for words in ("backend: process", "6.1.192, not the paper's 6.2", "1 emulated instruction = 1 cycle", "1 seed"):
        assert words in text
    assert "UNEQUAL" not in text
    many = " ".join(analysis.degradation(selection(tmp_path, seeds=3)).stamps)
    assert "3 seeds: median and 95%" in many


def test_unequal_load_stamps_the_figure(tmp_path: Path) -> None:
    stamps = analysis.degradation(selection(tmp_path, preset="artifact")).stamps
    assert "UNEQUAL between systems: offered load" in stamps


def test_a_hosts_time_is_called_real(tmp_path: Path) -> None:
    chosen = selection(tmp_path, "fig13")
    for item in chosen.records.values():
        assert item is not None
        dict.update(item.cell, mode="functional", target="ssh://root@h:22")
    text = " ".join(analysis.saving(chosen).stamps)
    assert "wall-clock time of ssh://root@h:22" in text
    assert "1 cycle" not in text


# --- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fig12", "fig13", "fig14"])
def test_a_report_is_four_files_and_the_same_bytes_twice(tmp_path: Path, name: str) -> None:
    chosen = selection(tmp_path / "runs", name, seeds=2)
    one, two = build(chosen, tmp_path / "one"), build(chosen, tmp_path / "two")
    assert [path.suffix for path in one.files] == [".md", ".png", ".svg", ".html"]
    for first, second in zip(one.files, two.files, strict=True):
        assert first.read_bytes() == second.read_bytes()
        assert len(first.read_bytes()) > 500


def test_the_drawing_is_a_picture_of_the_numbers(tmp_path: Path) -> None:
    one = build(selection(tmp_path / "runs"), tmp_path / "one")
    slower = record(tmp_path / "runs", "cpu-ksm", 1, application_ns=3_000_000_000)
    two = build(selection(tmp_path / "runs", records={("cpu-ksm", "liblinear", 1): slower}), tmp_path / "two")
    assert one.files[2].read_bytes() != two.files[2].read_bytes()


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(tmp_path: Path) -> None:
    text = build(selection(tmp_path / "runs"), tmp_path / "out").files[3].read_text()
    assert text.count("<svg") == 1
    assert not re.search(r'(src|href)="(https?:)?//', text)
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text
    assert "runs/0000000000000000" in text


def test_markdown_and_plain_text_hold_the_same_cells(tmp_path: Path) -> None:
    table = tables.of_degradation(analysis.degradation(selection(tmp_path)))
    for text in (tables.markdown(table), tables.plain(table)):
        for row in table.rows:
            for cell in row:
                assert cell in text
        assert "needs real VMs: Graph500" in text


# --- means ----------------------------------------------------------------------------------------------


def _all_nine(root: Path, factors: dict[str, float], seeds: int = 1, spread: float = 0.0) -> Selection:
    """Figure 12 with every bar of CPU-ksm: times are no-ksm's times a factor, a little more with every seed."""
    records: dict[analysis.CellName, RunRecord | None] = {}
    for workload, factor in factors.items():
        kind = spec.workloads()[workload].operation
        for system in ("no-ksm", "cpu-ksm"):
            for seed in range(1, seeds + 1):
                times = (factor if system == "cpu-ksm" else 1.0) * (1 + spread * (seed - 1) * (system == "cpu-ksm"))
                tail = {kind: {start: _tail(900, round(10_000_000 * times)) for start in ("sent", "intended")}}
                records[system, workload, seed] = record(
                    root / workload, system, seed, application_ns=round(10**9 * times), latencies=tail if kind else {}
                )
    absent = {name: "needs a patch" for name in systems() if name not in ("no-ksm", "cpu-ksm")}
    return selection(root, seeds=seeds, records=records, absent=absent)


def test_figure_12s_mean_is_the_papers_over_nine_bars(tmp_path: Path) -> None:
    factors = {name: 2.1 if name in ("liblinear", "graph500") else 3.7 for name in means.BARS}
    result = analysis.degradation(_all_nine(tmp_path, factors))
    mean = result.geomeans["cpu-ksm"]
    assert result.over is means.FIGURE_12
    assert mean is not None
    assert mean.value == pytest.approx((2.1**2 * 3.7**7) ** (1 / 9), rel=1e-6)  # the paper: 3.3
    assert ("GeoMean", "CPU-ksm", "", "3.262x", "3.3x") in [row[:5] for row in tables.of_degradation(result).rows]
    read = readings.read([result.selection])["degradation", 0]
    v2 = next(
        item for item in verdicts.judge_all({("degradation", 0): read}, "scaled").items if item.verdict.id == "V2"
    )
    assert [(f.test.what, f.holds) for f in v2.findings if f.holds is not None] == [("CPU-ksm", True)]
    assert v2.result == "partly"


def _two(chosen: Selection) -> Selection:
    """Of Figure 12 only the bars of execution times."""
    axes = chosen.spec.axes.model_copy(update={"workload": ("liblinear", "graph500")})
    return replace(chosen, spec=chosen.spec.model_copy(update={"axes": axes}))


def test_its_interval_draws_seeds_for_all_bars_at_once(tmp_path: Path) -> None:
    whole = _all_nine(tmp_path, dict.fromkeys(means.BARS, 2.0), seeds=5, spread=0.1)
    result = analysis.degradation(_two(whole))
    mean, bar = result.geomeans["cpu-ksm"], result.at("cpu-ksm", "liblinear").ratio
    assert mean is not None and bar is not None
    assert mean.low is not None and mean.high is not None and bar.low is not None and bar.high is not None
    # both bars move together, so the two of them are no surer than one
    assert (mean.value, mean.low, mean.high) == pytest.approx((bar.value, bar.low, bar.high), rel=1e-6)
    assert mean.value == pytest.approx(2.4)


def test_a_spec_of_other_workloads_has_a_mean_of_its_own(tmp_path: Path) -> None:
    result = analysis.degradation(_two(_all_nine(tmp_path, dict.fromkeys(means.BARS, 2.0))))
    mean = result.geomeans["cpu-ksm"]
    assert mean is not None and mean.value == pytest.approx(2.0)
    assert result.over.size == 2


# --- readings -------------------------------------------------------------------------------------------


def test_saving_is_read_at_tenths_of_the_planned_window(tmp_path: Path) -> None:
    chosen = selection(tmp_path, "fig13", seeds=2)
    for found in chosen.records.values():
        assert found is not None
        dict.update(found.inputs, plan="vms 4\nwindow_ms 500\n")
    read = readings.read([chosen])["saving", 0]
    # 100 pages a sample of 100 ms, and the samples go on behind the planned end
    assert {point: round(row[""].value / 4096 * 2**20) for point, row in read.points.items()} == {
        "cpu-ksm@10%": 50, "cpu-ksm@50%": 250, "cpu-ksm@100%": 500,
    }  # fmt: skip
    assert read.lacking["dsa-ksm@10%"] == "needs a patch"


def test_utilisation_and_efficiency_are_read_by_workload(tmp_path: Path) -> None:
    read = readings.read([selection(tmp_path, name) for name in ("table2", "fig14")])
    assert read["utilisation", 0].points["cpu-ksm"]["liblinear"].value == pytest.approx(0.4)
    assert read["efficiency", 0].points["cpu-ksm"]["liblinear"].value == 1.0
    assert "dsa-ksm, liblinear" in read["efficiency", 0].lacking


def test_a_report_ends_with_the_verdicts_that_it_can_give(tmp_path: Path) -> None:
    chosen = _all_nine(tmp_path / "runs", dict.fromkeys(means.BARS, 3.0))
    report = build(replace(chosen, profile="laptop"), tmp_path / "out")
    (line,) = (note for note in report.table.notes if note.startswith("V2"))
    assert line.startswith("V2: partly")
    assert "CPU-ksm 3 (band: 2 to 5)" in line and "paper: CPU-ksm 3.3x" in line
    assert [item["id"] for item in report.values["verdicts"]] == ["V1", "V2"]
    assert line in report.files[0].read_text()
