# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures over batch sizes, Table 2 and Figure 3's timeline: formulas by hand, plans, specs, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.experiment import plan, spec
from harness.experiment.store import RunRecord
from harness.report import batches, means, paper, shares
from harness.report.analysis import Selection
from harness.report.build import build
from harness.systems import systems
from tests.fake_fleet import ARTEFACTS
from tests.unit.test_report import record, selection

CAPABLE = replace(ARTEFACTS, capabilities=frozenset({"ksm-para-c", "ksm-dsa", "ksm-para-t", "dsa-device"}))
SYSTEM = "para-ksmc-device"
SIZES = (16, 32, 64, 128, 256, 512, 1024)


def run_of(root: Path, size: int, seed: int) -> RunRecord:
    """A run that saves ``size`` KiB for each of the seed's 10 ms of ksmd; its batches are filled by 16 descriptors."""
    found = record(root / str(size), SYSTEM, seed,
                   planned_saved_bytes=size << 10, planned_ksmd_ns=seed * 10_000_000)  # fmt: skip
    lines = ["t_ns,pages_sharing,offload_slots_used,offload_rounds"]
    lines += [f"{step * 10**8},{step * size},{1000 + 16 * step},{50 + step}" for step in range(11)]
    (found.path / "samples.csv").write_text("\n".join(lines) + "\n")
    return found


def chosen(root: Path, name: str, seeds: int = 1) -> Selection:
    """All cells of a spec over batch sizes, done, beside Liblinear."""
    made = plan.make(spec.load(name), CAPABLE, profile="unit", seeds=seeds)
    parts = {
        size: {(SYSTEM, "liblinear", seed): run_of(root, size, seed) for seed in range(1, seeds + 1)}
        for size in made.spec.axes.batch
    }
    return Selection(made.spec, "unit", "paper", seeds, {}, made.absent, "reduced", parts)


def test_a_step_is_over_the_size_before_and_efficiency_over_the_least(tmp_path: Path) -> None:
    found = batches.batches(chosen(tmp_path, "fig16"))
    assert [size.batch for size in found.sizes] == list(SIZES)
    assert found.sizes[0].step is None
    for size in found.sizes[1:]:
        assert size.step is not None and size.step.value == pytest.approx(2)
    at_256 = found.sizes[4]
    assert at_256.efficiency is not None and at_256.bytes_per_us is not None
    assert at_256.efficiency.value == pytest.approx(16)
    assert at_256.bytes_per_us.value == pytest.approx(256 * 1024 / 10_000)


def test_descriptor_utilisation_counts_the_window_alone(tmp_path: Path) -> None:
    assert batches.descriptor_utilisation(run_of(tmp_path, 16, 1), 16) == pytest.approx(1)
    assert batches.descriptor_utilisation(run_of(tmp_path, 64, 1), 64) == pytest.approx(0.25)


def test_a_kernel_that_does_not_count_descriptors_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="offload_slots_used"):
        batches.descriptor_utilisation(record(tmp_path, SYSTEM, 1), 16)


def test_no_batch_in_the_window_is_no_number(tmp_path: Path) -> None:
    run = run_of(tmp_path, 16, 1)
    (run.path / "samples.csv").write_text("t_ns,offload_slots_used,offload_rounds\n0,5,9\n9,5,9\n")
    assert batches.descriptor_utilisation(run, 16) is None


def test_a_size_without_a_run_has_no_number_and_says_so(tmp_path: Path) -> None:
    whole = chosen(tmp_path, "fig15")
    parts = {size: part for size, part in whole.batches.items() if size != 32}
    found = batches.batches(replace(whole, batches=parts))
    assert (found.sizes[1].status, found.sizes[1].saved_mib) == ("missing", None)
    assert found.sizes[2].step is None
    assert found.sizes[2].efficiency is not None


def test_what_was_all_saved_is_told_and_how_fast_half_of_it_was(tmp_path: Path) -> None:
    """Each run saves as many KiB as its batch has pages; the content allows 256."""
    whole = chosen(tmp_path, "fig15")
    for records in whole.batches.values():
        for run in records.values():
            assert run is not None
            run.metrics["possible_bytes"] = 256 << 10  # type: ignore[index]
    found = {size.batch: size for size in batches.batches(whole).sizes}
    assert [batch for batch, size in found.items() if size.exhausted] == [256, 512, 1024]
    # pages_sharing grows by the size every 0.1 s: half of the content is 32 pages
    halves = {batch: size.half_s.value for batch, size in found.items() if size.half_s}
    assert halves == pytest.approx({16: 0.2, 32: 0.1, 64: 0.1, 128: 0.1, 256: 0.1, 512: 0.1, 1024: 0.1})
    assert any("batches of 256, 512, 1024" in stamp for stamp in batches.batches(whole).stamps)
    rows = {row[0]: row for row in batches.table(batches.batches(whole)).rows}
    assert rows["256"][2].endswith("(all)") and not rows["128"][2].endswith("(all)")


def test_half_of_the_content_never_saved_is_no_number(tmp_path: Path) -> None:
    found = batches.batches(chosen(tmp_path, "fig15"))
    assert {size.batch for size in found.sizes if size.half_s} == {128, 256, 512, 1024}  # 10 MiB are allowed
    assert not any(size.exhausted for size in found.sizes)


def test_the_papers_steps_are_those_of_its_text() -> None:
    said = [paper.find("saving_step", "para-ksmc", str(size)) for size in SIZES]
    assert [value.value if value else None for value in said] == [None, 3.0, 2.2, 3.9, 2.1, 1.1, 1.0]


@pytest.mark.parametrize("name", ["fig9", "fig15", "fig16"])
def test_a_plan_has_a_cell_a_size_and_only_the_size_differs(name: str) -> None:
    made, again = (plan.make(spec.load(name), CAPABLE, profile="unit") for _ in range(2))
    assert made == again
    assert tuple(cell.batch for cell in made.cells) == made.spec.axes.batch
    assert len({cell.key for cell in made.cells}) == len(made.cells)
    assert len({cell.checkpoint.key for cell in made.cells}) == 1
    for cell in made.cells:
        assert f"sysfs {systems()[SYSTEM].batch_file} {cell.batch}\n" in cell.text


@pytest.mark.parametrize("profile", ["unit", "small"])
def test_the_same_run_serves_every_figure(profile: str) -> None:
    made = {
        name: plan.make(spec.load(name), CAPABLE, profile=profile).cells
        for name in ("fig3", "fig9", "fig12", "fig14", "fig15", "fig16", "table2")
    }
    keys = {name: {cell.key for cell in cells} for name, cells in made.items()}
    assert keys["fig15"] == keys["fig16"] < keys["fig9"]
    assert keys["fig9"].isdisjoint(keys["fig12"])  # another system, and another preset
    assert keys["table2"] == keys["fig14"] < keys["fig12"]
    # somebody looks at figure 3's; but for that it is one of figure 12's
    assert all(cell.watch for cell in made["fig3"])
    assert {replace(cell, watch=None).key for cell in made["fig3"]} < keys["fig12"]


def test_a_presets_wait_for_the_accelerator_holds_at_every_batch_size() -> None:
    made = plan.make(spec.load("fig15"), CAPABLE, profile="unit", preset="artifact")
    assert len(made.cells) == len(SIZES)
    for cell in made.cells:
        assert "sysfs /sys/kernel/mm/ksm/offload_wait_mode fixed\n" in cell.text
        assert f"sysfs {systems()[SYSTEM].batch_file} {cell.batch}\n" in cell.text


def test_in_real_vms_figure_3_is_beside_ycsb_d_and_in_others_beside_liblinear() -> None:
    real = plan.make(spec.load("fig3"), CAPABLE, profile="small")
    others = plan.make(spec.load("fig3"), CAPABLE, profile="unit")
    assert [cell.workload for cell in real.cells] == ["ycsb-d"]
    assert (real.spec.axes.stands_for, others.spec.axes.stands_for) == (None, "ycsb-d")
    assert [cell.workload for cell in others.cells] == ["liblinear"]


def test_the_papers_workload_where_it_runs_and_another_where_it_does_not() -> None:
    nested = plan.make(spec.load("fig15"), CAPABLE, profile="small").spec.axes
    process = plan.make(spec.load("fig15"), CAPABLE, profile="unit").spec.axes
    assert (nested.workload, nested.stands_for) == (("graph500",), None)
    assert (process.workload, process.stands_for) == (("liblinear",), "graph500")


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("fig15", "batch = [16, 32", "batch = [32, 16", "ascending"),
        ("fig15", "16, 32, 64, 128, 256, 512, 1024", "", "batch sizes are needed"),
        ("fig15", "512, 1024", "512, 2048", "axes.batch"),
        ("fig15", f'"{SYSTEM}"', '"cpu-ksm"', "one system with batches"),
        ("fig12", "seeds = 1", "seeds = 1\nbatch = [16]", "nothing over batch sizes"),
        ("fig3", '"cpu-ksm"', '"cpu-ksm", "dsa-ksm"', "one system and one workload"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(tmp_path: Path, name: str, old: str, new: str, said: str) -> None:
    text = (spec.SPECS / f"{name}.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=said):
        spec.load(str(path))


# --- Table 2 ------------------------------------------------------------------------------------------


def with_all(root: Path) -> Selection:
    """Table 2 as if every workload ran: ksmd takes what the paper's CPU-ksm does."""
    part = {"liblinear": 445, "graph500": 392, **dict.fromkeys(means.MIXES, 517)}
    records = {
        ("cpu-ksm", name, 1): record(root / name, "cpu-ksm", 1, ksmd_ns=share, corun_ns=1000)
        for name, share in part.items()
    }
    absent = {name: "needs a patch" for name in systems() if name != "cpu-ksm"}
    return replace(selection(root, "table2"), records=records, absent=absent)


def test_table_2_gives_the_papers_mean_from_its_columns(tmp_path: Path) -> None:
    found = shares.utilisation(with_all(tmp_path))
    mean, mixes = found.at("cpu-ksm", shares.MEAN).share, found.at("cpu-ksm", "YCSB").share
    assert mean is not None and mixes is not None
    assert mixes.value == pytest.approx(0.517)
    assert round(100 * mean.value, 1) == 48.2


def test_every_mean_of_the_papers_table_2_is_that_of_its_columns() -> None:
    for system in ("cpu-ksm", "dsa-ksm", "styx", "para-ksmc"):
        columns = {}
        for column in shares.COLUMNS:
            value = paper.find("ksmd_utilisation", system, column)
            assert value is not None
            columns[column] = value.value
        printed = paper.find("ksmd_utilisation", system, shares.MEAN)
        assert printed is not None
        # the columns are rounded, and so is the mean
        assert means.mean(means.TABLE_2, columns) == pytest.approx(printed.value, abs=0.1)


def test_in_real_vms_table_2_has_all_its_columns() -> None:
    made = plan.make(spec.load("table2"), CAPABLE, profile="small")
    assert {cell.workload for cell in made.cells} == {"liblinear", "graph500", *means.MIXES}
    assert not set(made.absent) & set(made.spec.axes.workload)


def test_table_2_has_no_mean_without_every_workload(tmp_path: Path) -> None:
    found = shares.utilisation(selection(tmp_path, "table2"))
    share = found.at("cpu-ksm", "Liblinear").share
    assert share is not None and share.value == pytest.approx(0.4)
    assert found.at("cpu-ksm", "YCSB").status == "needs real VMs"
    assert found.at("cpu-ksm", shares.MEAN).share is None
    rows = {row[0]: row for row in shares.table_2(found).rows}
    assert rows["CPU-ksm"] == (
        "CPU-ksm", "40.0%", "44.5%", "needs real VMs", "39.2%", "needs real VMs", "51.7%",
        "needs every workload", "48.2%",
    )  # fmt: skip
    assert rows["STYX"][1] == "not built yet"


# --- Figure 3 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span_ms", "width_ms"), [(1, 10), (600, 10), (601, 20), (3000, 50), (5000, 100), (200_000, 5000), (10**9, 10**9)]
)
def test_a_longer_window_has_wider_bins_not_more(span_ms: int, width_ms: int) -> None:
    assert shares.bin_width(span_ms * 1_000_000) == width_ms * 1_000_000


def test_bins_count_everything_once_and_a_late_sample_widens_its_bin() -> None:
    samples = [
        {"t_ns": t, "ksmd_ns": k, "app_ns": a}
        for t, k, a in ((0, 100, 0), (6, 100, 6), (10, 103, 7), (25, 108, 17), (34, 117, 17))
    ]
    times, ksmd, application = shares.bins(samples, 10)
    assert times == pytest.approx((6e-9, 25e-9, 34e-9))
    assert ksmd == pytest.approx((0, 8 / 19, 1))
    assert application == pytest.approx((1, 11 / 19, 0))


def test_the_timeline_is_of_the_samples(tmp_path: Path) -> None:
    run = record(tmp_path, "cpu-ksm", 1)
    lines = [f"{step * 10**7},{step * 4 * 10**6},{step * 5 * 10**6}" for step in range(5)]
    (run.path / "samples.csv").write_text("t_ns,ksmd_ns,app_ns\n" + "\n".join(lines) + "\n")
    made = plan.make(spec.load("fig3"), CAPABLE, profile="unit")
    whole = Selection(made.spec, "unit", "paper", 1, {("cpu-ksm", "liblinear", 1): run}, made.absent, "reduced")
    found = shares.timeline(whole)
    assert found.ksmd == pytest.approx((0.4,) * 4)
    assert found.total == pytest.approx((0.9,) * 4)
    assert any("not the paper's YCSB-d" in stamp for stamp in found.stamps)
    one, two = build(whole, tmp_path / "one"), build(whole, tmp_path / "two")
    for first, second in zip(one.files, two.files, strict=True):
        assert first.read_bytes() == second.read_bytes()


# --- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fig9", "fig15", "fig16", "table2"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_report_is_the_same_bytes_twice(tmp_path: Path, name: str, seeds: int) -> None:
    whole = selection(tmp_path, name, seeds) if name == "table2" else chosen(tmp_path, name, seeds)
    one, two = build(whole, tmp_path / "one"), build(whole, tmp_path / "two")
    assert [path.suffix for path in one.files] == [".md", ".png", ".svg", ".html"]
    for first, second in zip(one.files, two.files, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert one.values["experiment"] == name
    page = one.files[3].read_text()
    assert ("batches of 64" in page) == (name != "table2")
    assert set(one.values) > {"stamps", "entries" if name == "table2" else "sizes"}
