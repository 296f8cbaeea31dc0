# SPDX-License-Identifier: GPL-2.0-or-later
"""One system over its batch sizes: what it saves, for how much of ksmd's time, and how full its batches are."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.experiment.spec import Workload, workloads
from harness.experiment.store import RunRecord
from harness.report import analysis, paper, statistics, tables
from harness.report.analysis import Curve, Selection, Status
from harness.report.paper import PaperValue
from harness.report.statistics import Estimate
from harness.report.tables import Table
from harness.systems import System, systems

LESS = {
    "batch-saving": "saving_step",
    "batch-efficiency": "efficiency_over_least",
    "batch-use": "descriptor_utilisation",
}
"""Metric of the paper's numbers, by kind."""


@dataclass(frozen=True)
class Size:
    """One batch size. What has no result has no numbers."""

    batch: int
    status: Status
    reason: str = ""
    curve: Curve | None = None
    saved_mib: Estimate | None = None
    """From the start to the planned end of the window."""
    step: Estimate | None = None
    """That, over the saving of the next smaller size."""
    half_s: Estimate | None = None
    """(Virtual) seconds until half of what the content allows was saved: of use where all of it is before the end."""
    exhausted: bool = False
    """Nothing was left to save at the planned end, so that a step over the size before says nothing."""
    bytes_per_us: Estimate | None = None
    """Saved for a microsecond of ksmd."""
    efficiency: Estimate | None = None
    """That, over the smallest size's."""
    use: Estimate | None = None
    """Descriptors in batches, over the batch size times their number, 0 to 1."""


@dataclass(frozen=True)
class Batches:
    """Figures 9, 15 and 16."""

    selection: Selection
    system: System
    workload: Workload
    sizes: tuple[Size, ...]
    stamps: tuple[str, ...]


def batches(selection: Selection) -> Batches:
    """Compute all that the runs of each batch size tell."""
    axes = selection.spec.axes
    system, workload = systems()[axes.system[0]], workloads()[axes.workload[0]]
    runs = {size: analysis.standing(selection.with_batch(size), system, workload) for size in axes.batch}
    least = runs[axes.batch[0]][0]
    sizes = []
    for place, size in enumerate(axes.batch):
        records, status, reason = runs[size]
        if status != "result":
            sizes.append(Size(size, status, reason))
            continue
        before = runs[axes.batch[place - 1]][0] if place else []
        sizes.append(
            Size(
                size, status, "",
                analysis.curve(selection.with_batch(size), system, workload),
                statistics.median([value / 2**20 for value in _saved(records)]),
                _over(_saved(records), _saved(before)),
                _half(records),
                all(_exhausted(record) for record in records),
                statistics.median(analysis.yields(records)),
                _over(analysis.yields(records), analysis.yields(least)),
                _use(records, size),
            )
        )  # fmt: skip
    ended = [str(size.batch) for size in sizes if size.exhausted]
    stamps = (system.label, *analysis.stamps(selection))
    if ended:
        stamps += (f"all was saved before the end of the window with batches of {', '.join(ended)}",)
    return Batches(selection, system, workload, tuple(sizes), stamps)


def _saved(records: list[RunRecord]) -> list[float]:
    return [float(record.metrics["planned_saved_bytes"]) for record in records]


EXHAUSTED = 0.97
"""Of what the content allows: the rest are pages that are being rewritten, or alone by then."""


def _exhausted(record: RunRecord) -> bool:
    possible = float(record.metrics.get("possible_bytes") or 0)
    return possible > 0 and record.metrics["planned_saved_bytes"] >= EXHAUSTED * possible


def _half(records: list[RunRecord]) -> Estimate | None:
    """Median of the seeds; none where one did not get there, or nobody knows what the content allows."""
    found = []
    for record in records:
        possible = record.metrics.get("possible_bytes")
        times, saved = analysis.saving_over_time(record)
        reached = [time for time, value in zip(times, saved, strict=True) if possible and 2 * value * 2**20 >= possible]
        if not reached:
            return None
        found.append(reached[0])
    return statistics.median(found)


def _over(ours: list[float], theirs: list[float]) -> Estimate | None:
    """Ratios paired by seed; none where one side has no runs or saved nothing."""
    if not ours or not theirs or any(value <= 0 for value in (*ours, *theirs)):
        return None
    return statistics.paired_ratio(ours, theirs)


def _use(records: list[RunRecord], size: int) -> Estimate | None:
    """Median of the seeds' utilisation; none where nothing was compared."""
    shares = [descriptor_utilisation(record, size) for record in records]
    there = [share for share in shares if share is not None]
    return statistics.median(there) if there and len(there) == len(shares) else None


def descriptor_utilisation(record: RunRecord, size: int) -> float | None:
    """Comparisons of the window, over how often some were asked for together times the batch size set.

    The paper's ratio: of the number of work descriptors in a list to the *preset* batch size. So a batch that began
    with fewer candidates counts as badly filled, too; what the kernel had room for (``offload_slots_total``) leaves
    that out.

    Raises:
        UsageError: the kernel of this run has no such counters.

    """
    with (record.path / "samples.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    try:
        used, rounds = (int(rows[-1][name]) - int(rows[0][name]) for name in ("offload_slots_used", "offload_rounds"))
    except KeyError as error:
        raise UsageError(f"{record.path}: its kernel does not count {error}", hint="run it on this series") from error
    return used / (rounds * size) if rounds else None


def papers(result: Batches, size: int) -> PaperValue | None:
    """The paper's number for a size; it knows one Para-ksmC."""
    return paper.find(LESS[result.selection.spec.kind], "para-ksmc", str(size))


def paper_value(result: Batches, size: int) -> str:
    """The number, or bound, that the paper gives for a size."""
    found = papers(result, size)
    return found.text if found else ""


def table(result: Batches) -> Table:
    """A row a batch size."""
    spec = result.selection.spec
    least = spec.axes.batch[0]
    rows = []
    for size in result.sizes:
        said = "" if size.status == "result" else ": ".join(filter(None, (size.status, size.reason)))
        rows.append(
            (
                str(size.batch), said,
                tables.number(size.saved_mib, "{:.2f}") + (" (all)" if size.exhausted else ""),
                tables.number(size.step, "{:.2f}x"), tables.number(size.half_s, "{:.3f}"),
                tables.number(size.bytes_per_us, "{:.1f}"), tables.number(size.efficiency, "{:.3f}x"),
                tables.number(size.use, "{:.1%}"), paper_value(result, size.batch),
            )
        )  # fmt: skip
    head = (
        "batch", "", "saved [MiB]", "over the size before", "half saved after [s]",
        "saved / ksmd [B/us]", f"over {least}",
        "descriptors used", f"paper ({_QUANTITY[spec.kind]})",
    )  # fmt: skip
    return Table(f"{spec.title} ({spec.paper})", head, tuple(rows), result.stamps)


_QUANTITY = {
    "batch-saving": "over the size before",
    "batch-efficiency": "over the least",
    "batch-use": "descriptors used",
}


def values(result: Batches) -> dict[str, Any]:
    """The numbers for ``--json``."""

    def number(estimate: Estimate | None) -> Mapping[str, Any] | None:
        return dataclasses.asdict(estimate) if estimate else None

    return {
        "system": result.system.id,
        "workload": result.workload.id,
        "sizes": [
            {
                "batch": size.batch,
                "status": size.status,
                "reason": size.reason,
                "saved_mib": number(size.saved_mib),
                "step": number(size.step),
                "half_s": number(size.half_s),
                "exhausted": size.exhausted,
                "bytes_per_us": number(size.bytes_per_us),
                "efficiency": number(size.efficiency),
                "descriptor_utilisation": number(size.use),
                "seconds": list(size.curve.times) if size.curve else [],
                "saving_mib": list(size.curve.middle) if size.curve else [],
            }
            for size in result.sizes
        ],
    }
