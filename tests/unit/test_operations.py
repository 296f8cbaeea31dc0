# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures 5 and 7: one sealed run of a program that times single operations, from its output to the files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import images
from harness.config import paths
from harness.errors import MachineError, UsageError
from harness.experiment import conduct, plan, spec, trial
from harness.experiment.plan import Cell
from harness.report import operations, readings, verdicts
from tests.fake_fleet import ARTEFACTS

CAPABLE = replace(ARTEFACTS, capabilities=frozenset({"ksm-dsa", "dsa-device"}))


def spent(submit: int, wait: int, read: int, processor: int) -> dict[str, int]:
    """Where the time of a batch went."""
    return {"submit_ns": submit, "wait_ns": wait, "read_ns": read, "processor_ns": processor}


def told() -> dict[str, Any]:
    """A processor of 4000 ns a page; a batch takes 800 ns, 10,000 more asleep, and 200 a page."""
    rows = []
    for size in trial.BATCHES:
        polled, slept = spent(100 * size, 800 + 60 * size, 40 * size, 1000 * size), None
        slept = spent(100 * size, 10_800 + 60 * size, 40 * size, 400 + 140 * size)
        rows.append(
            {
                "batch": size, "polled_ns": 800 + 200 * size, "slept_ns": 10_800 + 200 * size,
                "polled": polled, "slept": slept,
            }
        )  # fmt: skip
    one = {"processor_ns": 4000, "streaming_ns": 5000, "batches": rows}
    return {"state": "xsave", "compare": one, "checksum": one | {"processor_ns": 5000}}


class FakeExecutor:
    """Says what the program would; counts how often."""

    parallel = True

    def __init__(self) -> None:
        self.ran = 0

    def execute(self, cell: Cell, work: Path) -> bytes:
        """Pretend."""
        assert cell.text == trial.SCRIPT
        self.ran += 1
        return json.dumps(told()).encode()

    def cancel(self) -> None:
        """Nothing runs."""


def report(name: str, executor: FakeExecutor | None = None, **more: Any) -> Any:
    """The whole way from the spec to the files."""
    return conduct.conduct(conduct.Request(name, **more), executor or FakeExecutor(), CAPABLE).report


def drop(path: str) -> Callable[[dict[str, Any]], None]:
    """Remove something from the program's output."""

    def change(what: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            what = what[name]
        del what[last]

    return change


def shorten(what: dict[str, Any]) -> None:
    """Lose the last batch."""
    what["compare"]["batches"].pop()


def disagree(what: dict[str, Any]) -> None:
    """Parts that are not the whole."""
    what["compare"]["batches"][3]["slept"]["wait_ns"] += 1


def nothing(what: dict[str, Any]) -> None:
    """A loop that took no time."""
    what["compare"]["streaming_ns"] = 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("checksum"), "lacks 'checksum'"),
        (drop("compare.processor_ns"), "lacks 'processor_ns'"),
        (shorten, "must be"),
        (disagree, "compare, batches of 8, slept: the parts are not the whole"),
        (nothing, "compare.streaming_ns: 0 is no time"),
    ],
)
def test_output_that_is_not_whole_is_no_result(change: Callable[[dict[str, Any]], None], said: str) -> None:
    what = json.loads(json.dumps(told()))
    assert set(trial.parse(json.dumps(what).encode())) == {"compare", "checksum"}
    change(what)
    with pytest.raises(MachineError, match="no result") as found:
        trial.parse(json.dumps(what).encode())
    assert said in found.value.message


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff"])
def test_noise_is_no_result(raw: bytes) -> None:
    with pytest.raises(MachineError, match="no result"):
        trial.parse(raw)


def test_one_cell_for_both_figures_and_any_profile_preset_and_seeds() -> None:
    made = [
        plan.make(spec.load(name), CAPABLE, profile=profile, preset=preset, seeds=seeds)
        for name in ("fig5", "fig7")
        for profile in ("unit", "small")
        for preset in ("paper", "artifact")
        for seeds in (1, 3)
    ]
    assert len({cell.key for one in made for cell in one.cells}) == 1
    assert all(len(one.cells) == one.seeds == 1 for one in made)
    (cell,) = made[0].cells
    assert not cell.resumes
    assert "checkpoint" not in cell.inputs
    assert any("SCRIPT" in word for word in cell.machine["argv"])
    assert not any("PLAN" in word or "MEMORY" in word for word in cell.machine["argv"])


def test_a_machine_without_a_device_has_no_cell_and_says_why() -> None:
    made = plan.make(spec.load("fig7"), ARTEFACTS, profile="unit")
    assert made.cells == ()
    assert "a DSA in the machine" in made.absent["dsa-ksm"]
    done = conduct.conduct(conduct.Request("fig7"), FakeExecutor(), ARTEFACTS).report
    assert done.values["status"] == "not built yet"
    assert done.values["operations"] == []


def test_a_host_is_refused() -> None:
    with pytest.raises(UsageError, match="no --target"):
        plan.make(spec.load("fig5"), CAPABLE, virtual=False)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "operation-latency"', 'kind = "saving"'),
        ('workload = ["operations"]', 'workload = ["liblinear"]'),
        ('workload = ["operations"]', 'workload = ["operations", "liblinear"]'),
        ('system = ["dsa-ksm"]', 'system = ["cpu-ksm"]'),
        ('system = ["dsa-ksm"]', 'system = ["dsa-ksm", "para-ksmc"]'),
    ],
)
def test_a_spec_that_cannot_be_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = (spec.SPECS / "fig7.toml").read_text()
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new))
    with pytest.raises(UsageError, match="operations"):
        spec.load(str(tmp_path / "mine.toml"))


def test_figure_7_is_the_time_of_a_batch_over_its_pages() -> None:
    found = {item["operation"]: item for item in report("fig7").values["operations"]}
    rows = {row["batch"]: row for row in found["memcmp"]["batches"]}
    assert tuple(rows) == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    assert (rows[1]["submit_ns"], rows[1]["wait_ns"], rows[1]["read_ns"]) == (100, 10_860, 40)
    assert rows[1]["over_processor"] == pytest.approx(11_000 / 4000)
    assert rows[8]["wait_ns"] == pytest.approx(10_800 / 8 + 60)
    assert rows[8]["below_single"] == pytest.approx(1 - (10_800 / 8 + 200) / 11_000)
    assert {row["batch"]: row for row in found["xxhash"]["batches"]}[1]["over_processor"] == pytest.approx(11 / 5)


def test_figure_5_counts_what_the_paper_counts_and_the_sleep_beside_it() -> None:
    found = report("fig5").values["operations"][0]
    assert found["cycles"] == {"CPU-t": 4000, "CPU-nt": 5000, "DSA-s": 1000, "DSA-a": 140}
    assert found["asleep_cycles"] == 400


def test_the_papers_numbers_stand_beside_and_calibrated_input_is_labelled() -> None:
    five, seven = report("fig5"), report("fig7")
    rows = {row[:2]: row for row in seven.table.rows}
    assert (rows["memcmp", "1"][7], rows["xxhash", "1"][7]) == ("2.6x", "2.7x")
    assert (rows["memcmp", "8"][9], rows["xxhash", "8"][9]) == ("81%", "83%")
    ways = {row[:2]: row[-1] for row in five.table.rows}
    assert (ways["memcmp", "DSA-a"], ways["xxhash", "DSA-a"]) == ("6.6x fewer", "6x fewer")
    assert ways["memcmp", "CPU-nt"] == "1.1 to 3.2x of CPU-t"
    for done in (five, seven):
        assert done.table.notes[0] == operations.CALIBRATED
        page = next(path for path in done.files if path.suffix == ".html").read_text()
        assert operations.CALIBRATED in page


def test_what_is_there_is_not_run_again_and_draws_the_same_bytes(tmp_path: Path) -> None:
    executor = FakeExecutor()
    for name in ("fig5", "fig7", "fig5"):
        report(name, executor, out=tmp_path / "one" / name)
    again = report("fig7", executor, out=tmp_path / "two" / "fig7", profile="ci")
    assert executor.ran == 1
    for path in again.files:
        assert path.read_bytes() == (tmp_path / "one" / "fig7" / path.name).read_bytes()


def test_the_loops_agree_on_this_processor() -> None:
    """Streaming loads give the plain loops' answers: the program looks before it measures."""
    program = images.program("dsa-time")
    done = subprocess.run([program, "--processor", "8"], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["state"] == ("xsave" if " xsave " in Path("/proc/cpuinfo").read_text() else "fxsave")
    for name in trial.OPERATIONS:
        assert min(found[name].values()) > 0
    wrong = subprocess.run([program, "--processor", "7"], check=False, capture_output=True, text=True)
    assert wrong.returncode == 2


def test_verdicts_read_both_figures_and_count_neither() -> None:
    for name in ("fig5", "fig7"):
        report(name)
    found = readings.read(conduct.result_set(paths().results).values())
    judged = verdicts.judge_all(found, "ci")
    by_id = {item.verdict.id: item for item in judged.items}
    # 11,000 ns alone and 1,550 in batches of 8, against the processor's 4,000
    measured = {finding.test.what: finding.measured.value for finding in by_id["V10"].findings}
    assert measured["memcmp, 8 over 1"] == pytest.approx((10_800 / 8 + 200) / 11_000)
    assert measured["memcmp, 1 over the processor"] == pytest.approx(11_000 / 4000)
    measured = {finding.test.what: finding.measured.value for finding in by_id["V11"].findings}
    assert measured["xxhash, CPU-t over DSA-a"] == pytest.approx(5000 / 140)
    assert (by_id["V10"].result, by_id["V11"].result) == ("reproduced", "reproduced")
    assert set(judged.counts()) <= {"not measured", "not judged"}
