# SPDX-License-Identifier: GPL-2.0-or-later
"""Claims judged on numbers by hand: the paper's own columns, edges of bands, what is lacking, what never counts."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.experiment import spec
from harness.report import means, statistics, verdicts
from harness.report.means import BARS, FIGURE_12, SIX, TABLE_3
from harness.report.statistics import Estimate
from harness.report.verdicts import Band, Reading, Readings, Test, book, judge, judge_all, measure, one
from harness.systems import systems
from tests.unit.test_statistics import COLUMNS, TABLE_2_COLUMNS, TABLE_3_COLUMNS

IDS = {"no-ksm": "no-ksm", "CPU-ksm": "cpu-ksm", "DSA-ksm": "dsa-ksm", "STYX": "styx", "Para-ksmC": "para-ksmc"}


def seeds(*values: float) -> Estimate:
    """An estimate as the runs of several seeds give it."""
    return statistics.median(list(values))


def flat(points: Mapping[str, float], over: means.MeanSet = FIGURE_12) -> Reading:
    """Every part of a mean alike."""
    return Reading({point: dict.fromkeys(over.parts, seeds(value)) for point, value in points.items()}, over)


def papers() -> dict[tuple[str, int], Reading]:
    """What the paper states, as if we had measured it."""
    degradation = flat({"no-ksm": 1.0, "dsa-ksm": 1.3, "styx": 1.4, "para-ksmc": 2.1, "cpu-ksm": 3.3})
    table_2 = {
        IDS[name]: dict(
            zip(("liblinear", "graph500", *means.MIXES), map(seeds, (*row[:2], *[row[2]] * 4)), strict=True)
        )
        for name, row in TABLE_2_COLUMNS.items()
    }
    shares = {
        name: {part: Estimate(v.value / 100, None, None, 1, (v.value / 100,)) for part, v in row.items()}
        for name, row in table_2.items()
    }
    table_3 = {IDS[name]: dict(zip(COLUMNS, map(seeds, row[:3]), strict=True)) for name, row in TABLE_3_COLUMNS.items()}
    saving = {
        "dsa-ksm@10%": 12.0, "cpu-ksm@10%": 100.0, "para-ksmc@10%": 80.0, "para-ksmc@50%": 80.0,
        "cpu-ksm@50%": 100.0, "para-ksmc@100%": 99.5, "cpu-ksm@100%": 100.0,
    }  # fmt: skip
    steps = {"16": 1.0, "32": 3.0, "64": 6.6, "128": 25.74, "256": 54.054, "512": 59.46, "1024": 59.46}
    return {
        ("degradation", 0): degradation,
        ("utilisation", 0): Reading(shares, SIX),
        ("llc_miss_rate", 0): Reading(table_3, TABLE_3),
        ("saving", 0): one({point: seeds(value) for point, value in saving.items()}),
        ("efficiency", 0): flat({"cpu-ksm": 1.0, "dsa-ksm": 0.35, "para-ksmc": 1.4}, SIX),
        ("saving_by_batch", 0): one({size: seeds(value) for size, value in steps.items()}),
        ("efficiency_by_batch", 0): one(
            {size: seeds(value) for size, value in zip(steps, (1, 1.2, 1.5, 1.9, 2.2, 2.1, 2.1), strict=True)}
        ),
        ("descriptors_used", 0): one(
            {size: seeds(value) for size, value in
             {"8": .95, "16": .9, "32": .85, "64": .8, "128": .75, "256": .68, "512": .58, "1024": .5}.items()}
        ),
        ("latency", 0): one(
            {f"{name}@{at}": seeds(value) for name, cut, alone in (("memcmp", .19, 2.6), ("xxhash", .17, 2.7))
             for at, value in (("cpu", 1.0), ("1", alone), ("8", alone * cut))}
        ),
        ("cycles", 0): one(
            {f"{name}@{at}": seeds(value) for name, less in (("memcmp", 6.6), ("xxhash", 6.0))
             for at, value in (("cpu-t", 1.0), ("dsa-a", 1 / less), ("dsa-s", 1.0), ("cpu-nt", 2.0))}
        ),
        ("function_share", 0): one({"memcmp": seeds(0.21), "xxhash": seeds(0.17)}),
    }  # fmt: skip


# --- the file -------------------------------------------------------------------------------------------


def test_all_twelve_claims_are_there_each_with_a_place_in_the_paper() -> None:
    assert [verdict.id for verdict in book().verdict] == [f"V{number}" for number in range(1, 13)]
    assert {verdict.id for verdict in book().verdict if verdict.kind != "evidence"} == {"V10", "V11"}
    for verdict in book().verdict:
        assert verdict.claim and verdict.paper
        assert "section" in verdict.where or "Table" in verdict.where


def test_points_are_systems_of_the_experiment_that_is_named() -> None:
    for verdict in book().verdict:
        points = {point for test in verdict.test for point in (*test.points, *([test.to] if test.to else []))}
        named = {point.partition("@")[0] for point in points} & set(systems())
        if verdict.experiment in spec.names() and named:
            assert named <= set(spec.load(verdict.experiment).axes.system), verdict.id


@pytest.mark.parametrize(
    ("profile", "column"), [("unit", "ci"), ("ci", "ci"), ("small", "ci"), ("laptop", "scaled"), ("scaled", "scaled")]
)
def test_small_fleets_are_judged_by_what_they_can_show(profile: str, column: str) -> None:
    assert book().column(profile) == column


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("low = 2.0, high = 5.0", "lower = 2.0", "lower"),
        ('form = "each"', 'form = "most"', "form"),
        ('among = ["128", "256", "512"]', 'among = ["2048"]', "none of its points"),
        ('to = "no-ksm"\n', "", "a ratio is to a point"),
        ("scaled = { low = 0.888 }", "", "no band"),
    ],
)
def test_a_mistake_in_the_bands_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = verdicts.BANDS.read_text()
    assert old in text
    path = tmp_path / "bands.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=said):
        book(path)


# --- the paper's numbers --------------------------------------------------------------------------------


def test_the_papers_own_numbers_reproduce_the_paper() -> None:
    """Every band holds what it is a band of; if not, it is misplaced."""
    found = judge_all(papers(), "scaled")
    assert {item.verdict.id: item.result for item in found.items} == {f"V{n}": "reproduced" for n in range(1, 13)}
    assert found.counts() == {"reproduced": 10}
    assert "2 calibrated inputs are shown and not counted" in found.summary


def test_at_ci_what_has_no_band_is_not_judged_and_not_counted_as_anything_else() -> None:
    found = judge_all(papers(), "ci")
    results = {item.verdict.id: item.result for item in found.items}
    assert {name for name, result in results.items() if result == "not judged"} == {"V2", "V4"}
    assert results["V5"] == "reproduced"
    assert found.counts() == {"reproduced": 8, "not judged": 2}


def test_table_2s_mean_is_judged_over_six_workloads() -> None:
    value = measure(Test(what="x", quantity="u", form="value", points=("cpu-ksm",), scaled=Band(low=0)),
                    papers()["utilisation", 0])  # fmt: skip
    assert value.value == pytest.approx((0.445 * 0.392 * 0.517**4) ** (1 / 6))
    assert f"{value.value:.3f}" == "0.482"  # as the paper says
    ratio = measure(Test(what="x", quantity="u", form="ratio", points=("dsa-ksm",), to="cpu-ksm", scaled=Band(low=0)),
                    papers()["utilisation", 0])  # fmt: skip
    assert ratio.value == pytest.approx(7.35 / 48.15, rel=2e-3)


def test_table_3s_mean_is_judged_over_three_columns() -> None:
    def value(system: str) -> float | None:
        test = Test(what="x", quantity="l", form="value", points=(system,), scaled=Band(low=0))
        return measure(test, papers()["llc_miss_rate", 0]).value

    for system, stated in (("no-ksm", 21.31), ("cpu-ksm", 30.55), ("dsa-ksm", 22.08), ("para-ksmc", 24.97)):
        assert value(system) == pytest.approx(stated, abs=0.011)


# --- forms, by hand -------------------------------------------------------------------------------------


def form(name: str, points: tuple[str, ...], reading: Reading, to: str | None = None) -> verdicts.Measured:
    """Apply a form."""
    band = Band(among=points) if name == "peak" else Band(low=0)
    return measure(Test.model_validate({"what": "x", "quantity": "q", "form": name, "points": points, "to": to,
                                        "scaled": band}), reading)  # fmt: skip


def test_an_order_is_as_good_as_its_least_step() -> None:
    reading = one({"a": seeds(1.0), "b": seeds(4.0), "c": seeds(5.0)})
    assert form("order", ("a", "b", "c"), reading).value == pytest.approx(1.25)
    assert form("order", ("c", "b", "a"), reading).value == pytest.approx(0.25)
    assert form("rise", ("a", "b", "c"), reading).value == pytest.approx(5)
    assert form("peak", ("a", "b", "c"), reading).point == "c"
    assert form("sum", ("a", "b", "c"), reading).value == pytest.approx(10)


def test_bars_are_counted_each() -> None:
    parts = {"b": [2.0] * 9, "a": [1.0] * 8 + [3.0]}
    reading = Reading({p: dict(zip(BARS, map(seeds, values), strict=True)) for p, values in parts.items()}, FIGURE_12)
    assert form("each", ("a", "b"), reading).value == pytest.approx(8 / 9)
    v1 = next(test for test in book().verdict[0].test if test.form == "each")
    assert v1.scaled is not None
    assert v1.scaled.holds(8 / 9) and not v1.scaled.holds(7 / 9)


def test_a_ratio_is_paired_by_seed() -> None:
    reading = one({"a": seeds(3, 60, 0.3), "b": seeds(1, 20, 0.1)})
    found = form("ratio", ("a",), reading, "b")
    assert (found.value, found.low, found.high) == pytest.approx((3, 3, 3))


def test_nothing_saved_is_a_ratio_of_nothing() -> None:
    reading = one({"a": seeds(0.0), "b": seeds(5.0), "c": seeds(0.0)})
    assert form("ratio", ("a",), reading, "b").value == 0.0
    assert form("ratio", ("b",), reading, "a").value == math.inf
    assert not Band(low=0).holds(float(form("ratio", ("a",), reading, "c").value or math.nan))


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=7))
def test_an_order_holds_exactly_where_numbers_rise(values: list[float]) -> None:
    names = tuple(f"p{number}" for number in range(len(values)))
    reading = one({name: seeds(value) for name, value in zip(names, values, strict=True)})
    step = form("order", names, reading).value
    assert step is not None
    rising = all(after / before > 1 for before, after in pairwise(values))
    assert Band(above=1.0).holds(step) == rising or min(
        abs(after / before - 1) for before, after in pairwise(values)
    ) == pytest.approx(0, abs=1e-9)
    assert form("rise", names, reading).value == pytest.approx(max(values) / values[0])


@given(st.floats(0.1, 10), st.lists(st.floats(0.1, 10), min_size=9, max_size=9))
def test_a_ratio_of_means_does_not_care_for_the_unit(scale: float, values: list[float]) -> None:
    base = [1.0 + 0.1 * number for number in range(9)]
    reading = Reading(
        {"a": dict(zip(BARS, map(seeds, values), strict=True)), "b": dict(zip(BARS, map(seeds, base), strict=True))},
        FIGURE_12,
    )
    scaled = Reading(
        {point: {part: seeds(scale * found.value) for part, found in row.items()}
         for point, row in reading.points.items()}, FIGURE_12,
    )  # fmt: skip
    one_, two = (form("ratio", ("a",), item, "b").value for item in (reading, scaled))
    assert one_ == pytest.approx(two)
    assert one_ == pytest.approx(means.mean(FIGURE_12, dict(zip(BARS, values, strict=True)))
                                 / means.mean(FIGURE_12, dict(zip(BARS, base, strict=True))))  # fmt: skip


# --- bands ----------------------------------------------------------------------------------------------


def test_edges_belong_to_low_and_high_and_not_to_above_and_below() -> None:
    assert Band(low=1, high=2).holds(1) and Band(low=1, high=2).holds(2)
    assert not Band(above=1).holds(1) and not Band(below=2).holds(2)
    assert not Band(low=1).holds(math.nan)
    assert Band(low=1, high=2).text == "1 to 2"
    assert Band(above=1.05).text == "above 1.05"


def test_an_interval_that_leaves_the_band_is_said() -> None:
    v6 = next(verdict for verdict in book().verdict if verdict.id == "V6")
    parts = dict.fromkeys(SIX.parts, Estimate(0.7, 0.5, 0.9, 5))
    good = dict.fromkeys(SIX.parts, Estimate(1.4, 1.3, 1.5, 5))
    only = means.MeanSet("one", {"liblinear": 1}, "")
    found = judge(v6, {("efficiency", 0): Reading({"dsa-ksm": parts, "para-ksmc": good}, only)}, "scaled")
    assert found.result == "reproduced"
    assert [finding.remark for finding in found.findings] == ["its interval leaves the band", ""]


# --- outcomes -------------------------------------------------------------------------------------------


def outcome(name: str, readings: Readings, profile: str = "scaled") -> verdicts.Judgement:
    """That of one claim."""
    return next(item for item in judge_all(readings, profile).items if item.verdict.id == name)


def test_three_outcomes() -> None:
    def two(cpu: float, dsa: float) -> str:
        readings = {("degradation", 0): flat({"no-ksm": 1, "dsa-ksm": dsa, "para-ksmc": 0.6 * cpu, "cpu-ksm": cpu})}
        return outcome("V2", readings).result

    assert two(3.0, 1.2) == "reproduced"
    assert two(3.0, 1.9) == "partly"
    bad = {("degradation", 0): flat({"no-ksm": 1, "dsa-ksm": 3, "para-ksmc": 9, "cpu-ksm": 9})}
    assert outcome("V2", bad).result == "not reproduced"


def test_a_mean_that_lacks_a_bar_is_partly_at_best_and_says_so() -> None:
    readings = papers()
    whole = readings["degradation", 0]
    readings["degradation", 0] = Reading(
        {point: {part: v for part, v in row.items() if part == "liblinear"} for point, row in whole.points.items()},
        FIGURE_12,
    )
    found = outcome("V2", readings)
    assert found.result == "partly"
    assert "lacks graph500, ycsb-a-read" in found.reason
    assert all(finding.holds for finding in found.findings)


def test_a_system_that_failed_is_named_and_nothing_is_judged_without_it() -> None:
    readings = papers()
    whole = readings["degradation", 0]
    points = {point: row for point, row in whole.points.items() if point != "dsa-ksm"}
    readings["degradation", 0] = Reading(points, FIGURE_12, {"dsa-ksm, liblinear": "VM 3 lost"})
    found = outcome("V1", readings)
    assert found.result == "not measured"
    assert found.reason == "dsa-ksm, liblinear: VM 3 lost"
    assert outcome("V2", readings).result == "partly"  # CPU-ksm and the ratio are there


def test_what_was_not_run_names_the_command() -> None:
    found = judge_all({}, "scaled")
    assert {item.result for item in found.items} == {"not measured"}
    assert outcome("V9", {}).reason == "harness experiment fig9"


def test_calibrated_inputs_are_never_counted_whatever_they_show() -> None:
    for value in (1.0, 100.0):
        readings = {key: item for key, item in papers().items() if key[0] in ("latency", "cycles")}
        readings["latency", 0] = one({point: seeds(value) for point in readings["latency", 0].points})
        found = judge_all(readings, "scaled")
        assert found.counts() == {"not measured": 10}
        table = verdicts.table(found, "x")
        assert sum("calibrated input, no evidence" in row[1] for row in table.rows) == 2


def test_levels_that_disagree_are_printed() -> None:
    readings = papers()
    flipped = {"no-ksm": 1.0, "dsa-ksm": 3.0, "para-ksmc": 2.0, "cpu-ksm": 0.5}
    readings["degradation", 1] = flat(flipped)
    found = judge_all(readings, "scaled")
    v1, v2 = found.disagreements()
    assert v1.startswith(
        "V1: reproduced by instructions alone, not reproduced with modelled miss penalties (least step"
    )
    assert v2.endswith("(CPU-ksm, DSA-ksm, Para-ksmC over CPU-ksm)")
    assert found.counts() == {"reproduced": 10}  # level 0 counts, once
    assert "V1: reproduced by instructions alone" in verdicts.table(found, "x").notes[1]


def test_a_level_that_knows_less_does_not_disagree_for_that() -> None:
    readings = papers()
    whole = readings["degradation", 0]
    few = {point: {"liblinear": row["liblinear"]} for point, row in whole.points.items()}
    readings["degradation", 1] = Reading(few, FIGURE_12)
    found = judge_all(readings, "scaled")
    assert {item.result for item in found.items if item.verdict.id == "V2"} == {"reproduced", "partly"}
    assert found.disagreements() == []


def test_streaming_loads_are_judged_only_where_misses_cost() -> None:
    readings = papers()
    assert len(outcome("V11", readings).findings) == 4
    readings["cycles", 1] = readings["cycles", 0]
    by_level = {item.level: item for item in judge_all(readings, "scaled").items if item.verdict.id == "V11"}
    assert (len(by_level[0].findings), len(by_level[1].findings)) == (4, 6)


def test_every_row_prints_measured_value_band_and_paper() -> None:
    table = verdicts.table(judge_all(papers(), "scaled"), "x")
    tests = [row for row in table.rows if not row[0]]
    assert all(row[2] and row[3] for row in tests)
    assert all(row[4] for row in table.rows if row[0])
    assert ("", "- CPU-ksm", "3.3 (holds)", "2 to 5", "") in table.rows
    assert ("", "- size with the greatest", "256 (holds)", "one of 128, 256, 512", "") in table.rows
    line = next(line for line in verdicts.lines(judge_all(papers(), "scaled")) if line.startswith("V9"))
    assert "at 512 0.58 (band: below 0.75)" in line and "paper: above 90%" in line


def test_the_same_numbers_in_any_order_give_the_same_judgement() -> None:
    readings = papers()
    whole = readings["degradation", 0]
    names = list(whole.points)
    random.shuffle(names)
    readings["degradation", 0] = Reading({name: whole.points[name] for name in names}, FIGURE_12)
    assert judge_all(readings, "scaled") == judge_all(papers(), "scaled")
