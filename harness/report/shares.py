# SPDX-License-Identifier: GPL-2.0-or-later
"""Shares of the processor: ksmd's while an application runs (Table 2), and both over time (Figure 3)."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.experiment.spec import Workload, workloads
from harness.experiment.store import RunRecord
from harness.report import analysis, functions, means, paper, statistics, tables
from harness.report.analysis import Selection, Status
from harness.report.functions import Breakdown, breakdown
from harness.report.statistics import Estimate
from harness.report.tables import Table
from harness.systems import System, systems

COLUMNS = ("Liblinear", "Graph500", "YCSB")
MEAN = "GeoMean"
MOST_BINS = 60
"""Of the timeline: more lines than that hide each other."""
_STEPS_MS = tuple(digit * 10**power for power in range(1, 6) for digit in (1, 2, 5))


@dataclass(frozen=True)
class Entry:
    """One system in one column of Table 2."""

    system: System
    column: str
    status: Status
    reason: str = ""
    share: Estimate | None = None
    """ksmd's, 0 to 1."""


@dataclass(frozen=True)
class Utilisation:
    """Table 2."""

    selection: Selection
    entries: tuple[Entry, ...]
    stamps: tuple[str, ...]

    def at(self, system: str, column: str) -> Entry:
        """That of a system in a column."""
        return next(entry for entry in self.entries if (entry.system.id, entry.column) == (system, column))


def utilisation(selection: Selection) -> Utilisation:
    """Compute Table 2: ksmd's time over the time of its processor, from the start to the end of the application."""
    entries: list[Entry] = []
    for name in selection.spec.axes.system:
        system = systems()[name]
        row = [_column(selection, system, column) for column in COLUMNS]
        entries += [*row, _last(system, row)]
    return Utilisation(selection, tuple(entries), analysis.stamps(selection))


def _column(selection: Selection, system: System, column: str) -> Entry:
    """A column: of several workloads the geometric mean, seed by seed in the same order."""
    of_family = family(selection, column)
    if not of_family:
        return Entry(system, column, "missing", "the spec has no such workload")
    parts = []
    for workload in of_family:
        share, status, reason = _share(selection, system, workload)
        if share is None:
            return Entry(system, column, status, reason)
        parts.append(share)
    return Entry(system, column, "result", "", mean_of(parts))


def family(selection: Selection, column: str) -> list[Workload]:
    """The spec's workloads that a column of the paper's tables is of."""
    return [item for name in selection.spec.axes.workload if (item := workloads()[name]).family == column]


def mean_of(parts: Sequence[Estimate]) -> Estimate | None:
    """A column's number out of those of its workloads; None where one is 0: there is no geometric mean."""
    if len(parts) == 1:
        return parts[0]
    return statistics.geomean_of(parts) if all(part.value > 0 for part in parts) else None


def _share(selection: Selection, system: System, workload: Workload) -> tuple[Estimate | None, Status, str]:
    records, status, reason = analysis.standing(selection, system, workload)
    if status != "result":
        return None, status, reason
    return statistics.median([item.metrics["ksmd_ns"] / item.metrics["corun_ns"] for item in records]), "result", ""


def _last(system: System, row: Sequence[Entry]) -> Entry:
    """The paper's mean: over six workloads, so the column of the four mixes counts four times."""
    for entry in row:
        if entry.share is None or entry.share.value <= 0:
            return Entry(system, MEAN, "missing" if entry.status == "result" else entry.status, f"needs {entry.column}")
    found, _ = means.estimate(means.TABLE_2, {entry.column: entry.share for entry in row if entry.share})
    return Entry(system, MEAN, "result", "", found)


def table_2(result: Utilisation) -> Table:
    """Table 2 in the paper's layout: a row a system, the paper's number in brackets behind ours."""
    spec = result.selection.spec
    rows = []
    for name in spec.axes.system:
        cells = []
        for column in (*COLUMNS, MEAN):
            entry, there = result.at(name, column), paper.find("ksmd_utilisation", name, column)
            ours = tables.number(entry.share, "{:.1%}") or ("needs every workload" if column == MEAN else entry.status)
            if entry.status == "failed":
                ours += f": {entry.reason}"
            cells += [ours, there.text if there else ""]
        rows.append((systems()[name].label, *cells))
    head = ["system"]
    for column in (*COLUMNS, MEAN):
        head += [column, "paper"]
    notes = [*result.stamps, "GeoMean: over six workloads, YCSB's column four times"]
    return Table(f"{spec.title} ({spec.paper})", tuple(head), tuple(rows), tuple(notes))


def values_2(result: Utilisation) -> dict[str, Any]:
    """The numbers for ``--json``."""
    return {
        "entries": [
            {
                "system": entry.system.id,
                "column": entry.column,
                "status": entry.status,
                "reason": entry.reason,
                "ksmd_utilisation": dataclasses.asdict(entry.share) if entry.share else None,
            }
            for entry in result.entries
        ]
    }


@dataclass(frozen=True)
class Timeline:
    """Figure 3, left: shares of the processor in bins of the window, 0 to 1, of the first seed."""

    selection: Selection
    system: System
    workload: Workload
    status: Status
    reason: str
    times: tuple[float, ...]
    """Ends of the bins in (virtual) seconds since the window opened."""
    ksmd: tuple[float, ...]
    application: tuple[float, ...]
    total: tuple[float, ...]
    """Of the two together."""
    stamps: tuple[str, ...]
    functions: Breakdown
    """Figure 3, right: of all seeds."""
    bin_ns: int


def timeline(selection: Selection) -> Timeline:
    """Compute the left of Figure 3 from the samples of the first seed."""
    axes = selection.spec.axes
    system, workload = systems()[axes.system[0]], workloads()[axes.workload[0]]
    records, status, reason = analysis.standing(selection, system, workload)
    marks = analysis.stamps(selection)
    if status != "result":
        return Timeline(selection, system, workload, status, reason, (), (), (), (), marks, breakdown(system, []), 0)
    samples = _samples(records[0])
    width = bin_width(samples[-1]["t_ns"] - samples[0]["t_ns"])
    times, ksmd, application = bins(samples, width)
    total = tuple(a + b for a, b in zip(ksmd, application, strict=True))
    return Timeline(
        selection,
        system,
        workload,
        status,
        "",
        times,
        ksmd,
        application,
        total,
        marks,
        breakdown(system, records),
        width,
    )


def table_3(result: Timeline, points: int = 10) -> Table:
    """Figure 3: the mean shares in ``points`` parts of the window, and over all of it; below it ksmd's functions."""
    import numpy

    spec = result.selection.spec
    rows: list[tuple[str, ...]] = []
    if result.status == "result" and result.times:
        series = [numpy.array(values) for values in (result.ksmd, result.application, result.total)]
        parts = numpy.array_split(numpy.arange(len(result.times)), min(points, len(result.times)))
        rows = [
            (f"{result.times[part[-1]]:.3f}", *(f"{float(values[part].mean()):.1%}" for values in series))
            for part in parts
        ]
        rows.append(("mean of bins", *(f"{float(values.mean()):.1%}" for values in series)))
        rows.append(("highest bin", *(f"{float(values.max()):.1%}" for values in series)))
    else:
        rows.append((result.status, result.reason, "", ""))
    there = paper.find("ksmd_utilisation_range", result.system.id, "ycsb-d")
    notes = [*result.stamps]
    notes += [f"bins of {result.bin_ns // 1_000_000} ms, which end at samples; seed 1"] if result.bin_ns else []
    notes += [f"paper, {result.system.label} beside YCSB-d: {there.text} ({there.where})"] if there else []
    head = ("until [s]", "ksmd", f"VM 1 ({result.workload.label})", "both")
    right = functions.table(
        result.functions, f"What {result.system.label}'s instructions are spent on (Figure 3, right)"
    )
    return Table(f"{spec.title} ({spec.paper})", head, tuple(rows), tuple(notes), (right,))


def values_3(result: Timeline) -> dict[str, Any]:
    """The numbers for ``--json``."""
    return {
        "system": result.system.id,
        "workload": result.workload.id,
        "status": result.status,
        "reason": result.reason,
        "seconds": list(result.times),
        "ksmd": list(result.ksmd),
        "application": list(result.application),
        "total": list(result.total),
        "functions": {name: dataclasses.asdict(part) for name, part in result.functions.parts.items()},
    }


def _samples(record: RunRecord) -> list[Mapping[str, int]]:
    with (record.path / "samples.csv").open(newline="", encoding="utf-8") as stream:
        return [{name: int(row[name]) for name in ("t_ns", "ksmd_ns", "app_ns")} for row in csv.DictReader(stream)]


def bin_width(span_ns: int) -> int:
    """Nanoseconds: the shortest of 10, 20, 50, 100, ... ms that makes at most :data:`MOST_BINS` bins of a span."""
    return next((step for ms in _STEPS_MS if (step := ms * 1_000_000) * MOST_BINS >= span_ns), span_ns)


def bins(
    samples: Sequence[Mapping[str, int]], width: int
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Ends of bins in seconds, and the shares of ksmd and the application in each.

    Bins end at samples: at the first one that is at least half a bin behind the end of the last. So nothing is counted
    twice, and a sampler that was late makes a bin wider, not fuller.
    """
    times, ksmd, application = [], [], []
    begin = samples[0]
    for row in samples[1:]:
        span = row["t_ns"] - begin["t_ns"]
        if 2 * span < width:
            continue
        times.append((row["t_ns"] - samples[0]["t_ns"]) / 1e9)
        ksmd.append((row["ksmd_ns"] - begin["ksmd_ns"]) / span)
        application.append((row["app_ns"] - begin["app_ns"]) / span)
        begin = row
    return tuple(times), tuple(ksmd), tuple(application)
