# SPDX-License-Identifier: GPL-2.0-or-later
"""What the records of an experiment say: numbers where there are results, reasons where there are none."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.experiment.spec import Spec, Workload, inequality, workloads
from harness.experiment.store import RunRecord
from harness.report import paper, statistics
from harness.report.statistics import Estimate
from harness.systems import System, systems

PAGE = 4096
"""Bytes of a page that KSM merges."""

CellName = tuple[str, str, int]
"""system, workload, seed."""

Status = Literal["result", "not built yet", "failed", "missing"]


@dataclass(frozen=True)
class Selection:
    """The records of one experiment: what a report is made of."""

    spec: Spec
    profile: str
    preset: str
    seeds: int
    records: Mapping[CellName, RunRecord | None]
    absent: Mapping[str, str]
    """Systems and workloads that did not exist where this was planned, by id, each with the reason."""
    scale: str = ""
    """One line for people: how the profile compares with the paper's fleet."""

    def reason(self, system: str, workload: str) -> str:
        """Why there is nothing to run; empty if there is."""
        return self.absent.get(system) or self.absent.get(workload) or ""

    def of(self, system: str, workload: str) -> list[RunRecord | None]:
        """The records of all seeds, in the order of the seeds."""
        return [self.records.get((system, workload, seed)) for seed in range(1, self.seeds + 1)]

    def any_record(self) -> RunRecord | None:
        """One that has a result, or None."""
        return next((record for record in self.records.values() if record and record.outcome == "ok"), None)


@dataclass(frozen=True)
class Bar:
    """One system under one workload."""

    system: System
    workload: Workload
    status: Status
    reason: str = ""
    degradation: Estimate | None = None
    utilisation: Estimate | None = None
    """ksmd's share of the co-run, 0..1."""
    bound: float | None = None
    """Least degradation that this utilisation explains, 1/(1-u)."""
    seconds: Estimate | None = None
    """Execution time of VM 1 in (virtual) seconds."""
    saved_mib: Estimate | None = None


@dataclass(frozen=True)
class Degradation:
    """Figure 12 and its share of Table 2."""

    selection: Selection
    bars: tuple[Bar, ...]
    geomeans: Mapping[str, Estimate | None] = field(default_factory=dict)
    """By system; None unless every workload has a number."""
    stamps: tuple[str, ...] = ()

    def bar(self, system: str, workload: str) -> Bar:
        """The bar of a system under a workload."""
        return next(bar for bar in self.bars if (bar.system.id, bar.workload.id) == (system, workload))


@dataclass(frozen=True)
class Curve:
    """Saving over time of one system; times in (virtual) seconds from the start of the window, savings in MiB."""

    system: System
    status: Status
    reason: str = ""
    times: tuple[float, ...] = ()
    middle: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    ceiling_mib: float | None = None
    """What the content allows KSM to save at most."""


@dataclass(frozen=True)
class Saving:
    """Figure 13."""

    selection: Selection
    workload: Workload
    curves: tuple[Curve, ...]
    stamps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """What one system saves for ksmd's time under one workload."""

    system: System
    workload: Workload
    status: Status
    reason: str = ""
    ratio: Estimate | None = None
    """Efficiency over the baseline's."""
    bytes_per_us: Estimate | None = None
    """Bytes saved for a microsecond of ksmd; where an instruction is a cycle is a nanosecond, for 1000 cycles."""
    saved_mib: Estimate | None = None
    ksmd_seconds: Estimate | None = None


@dataclass(frozen=True)
class Efficiency:
    """Figure 14."""

    selection: Selection
    marks: tuple[Mark, ...]
    geomeans: Mapping[str, Estimate | None] = field(default_factory=dict)
    """By system; None unless every workload has a number."""
    stamps: tuple[str, ...] = ()

    def mark(self, system: str, workload: str) -> Mark:
        """That of a system under a workload."""
        return next(mark for mark in self.marks if (mark.system.id, mark.workload.id) == (system, workload))


def degradation(selection: Selection) -> Degradation:
    """Compute Figure 12: D = T_system / T_baseline of VM 1, paired by seed."""
    spec = selection.spec
    bars = tuple(
        _bar(selection, systems()[system], workloads()[workload])
        for workload in spec.axes.workload
        for system in spec.axes.system
    )
    result = Degradation(selection, bars)
    means = {system: _overall(result, system) for system in spec.axes.system if system != spec.baseline}
    return Degradation(selection, bars, means, stamps(selection))


def _overall(result: Degradation, system: str) -> Estimate | None:
    """Geometric mean over all workloads of the spec; there is none while one of them has no number."""
    workloads = result.selection.spec.axes.workload
    return _geomean([result.bar(system, name).degradation for name in workloads], result.selection.seeds)


def _geomean(parts: list[Estimate | None], seeds: int) -> Estimate | None:
    if any(part is None for part in parts):
        return None
    return Estimate(statistics.geomean([part.value for part in parts if part is not None]), None, None, seeds)


def _status(records: list[RunRecord | None]) -> tuple[Status, str]:
    if not records or any(record is None for record in records):
        absent = sum(record is None for record in records)
        return "missing", f"{absent} of {len(records)} seeds not run" if len(records) > 1 else "not run"
    for record in records:
        if record is not None and record.outcome != "ok":
            return "failed", record.reason
    return "result", ""


def _bar(selection: Selection, system: System, workload: Workload) -> Bar:
    if absent := selection.reason(system.id, workload.id):
        return Bar(system, workload, "not built yet", absent)
    records = selection.of(system.id, workload.id)
    status, reason = _status(records)
    if status != "result":
        return Bar(system, workload, status, reason)
    ours = [record.metrics for record in records if record is not None]
    times = [float(item["application_ns"]) for item in ours]
    shares = [item["ksmd_ns"] / item["corun_ns"] for item in ours]
    base = selection.of(str(selection.spec.baseline), workload.id)
    ratio = None
    if _status(base)[0] == "result":
        other = [seed for seed, (a, b) in enumerate(zip(records, base, strict=True), 1) if _model(a) != _model(b)]
        if other:
            return Bar(system, workload, "failed", f"seed {other[0]}: not the same work as {selection.spec.baseline}")
        ratio = statistics.paired_ratio(times, [float(r.metrics["application_ns"]) for r in base if r is not None])
    share = statistics.median(shares)
    return Bar(
        system,
        workload,
        "result" if ratio else "missing",
        "" if ratio else f"{selection.spec.baseline} has no result to compare with",
        ratio,
        share,
        statistics.time_share_bound(share.value) if share.value < 1 else None,
        statistics.median([time / 1e9 for time in times]),
        statistics.median([item["saved_bytes"] / 2**20 for item in ours]),
    )


def _model(record: RunRecord | None) -> object:
    """What the application computed: the same work gives the same."""
    return record.metrics.get("model") if record is not None else None


def saving(selection: Selection) -> Saving:
    """Compute Figure 13: 4 KiB times what pages_sharing grew by since the start of the window."""
    workload = workloads()[selection.spec.axes.workload[0]]
    curves = tuple(_curve(selection, systems()[system], workload) for system in selection.spec.axes.system)
    return Saving(selection, workload, curves, stamps(selection))


def _curve(selection: Selection, system: System, workload: Workload) -> Curve:
    import numpy

    if absent := selection.reason(system.id, workload.id):
        return Curve(system, "not built yet", absent)
    records = selection.of(system.id, workload.id)
    status, reason = _status(records)
    if status != "result":
        return Curve(system, status, reason)
    series = [saving_over_time(record) for record in records if record is not None]
    length = min(len(times) for times, _ in series)
    if length == 0:
        return Curve(system, "failed", "no samples in the window")
    grid = series[0][0][:length]
    table = numpy.array([numpy.interp(grid, times, values) for times, values in series])
    ceilings = [record.metrics.get("possible_bytes") for record in records if record is not None]
    known = [value for value in ceilings if value is not None]
    return Curve(
        system,
        "result",
        "",
        tuple(grid),
        tuple(map(float, numpy.median(table, axis=0))),
        tuple(map(float, table.min(axis=0))),
        tuple(map(float, table.max(axis=0))),
        sum(known) / len(known) / 2**20 if known else None,
    )


def efficiency(selection: Selection) -> Efficiency:
    """Compute Figure 14: what is saved from the start to the planned end of the window, over ksmd's time in it."""
    spec = selection.spec
    marks = tuple(
        _mark(selection, systems()[system], workloads()[workload])
        for workload in spec.axes.workload
        for system in spec.axes.system
    )
    result = Efficiency(selection, marks)
    means = {
        system: _geomean([result.mark(system, name).ratio for name in spec.axes.workload], selection.seeds)
        for system in spec.axes.system
        if system != spec.baseline
    }
    return Efficiency(selection, marks, means, stamps(selection))


def _mark(selection: Selection, system: System, workload: Workload) -> Mark:
    if absent := selection.reason(system.id, workload.id):
        return Mark(system, workload, "not built yet", absent)
    records = selection.of(system.id, workload.id)
    status, reason = _status(records)
    if status != "result":
        return Mark(system, workload, status, reason)
    ours = _yields(records)
    if any(value <= 0 for value in ours):
        return Mark(system, workload, "failed", "nothing was saved, or ksmd did not work, in the window")
    base = selection.of(str(selection.spec.baseline), workload.id)
    theirs = _yields(base) if _status(base)[0] == "result" else []
    ratio = statistics.paired_ratio(ours, theirs) if theirs and all(value > 0 for value in theirs) else None
    metrics = [record.metrics for record in records if record is not None]
    return Mark(
        system,
        workload,
        "result" if ratio else "missing",
        "" if ratio else f"{selection.spec.baseline} has no result to compare with",
        ratio,
        statistics.median(ours),
        statistics.median([item["planned_saved_bytes"] / 2**20 for item in metrics]),
        statistics.median([item["planned_ksmd_ns"] / 1e9 for item in metrics]),
    )


def _yields(records: list[RunRecord | None]) -> list[float]:
    """Bytes saved for each microsecond of ksmd, by seed; 0 where it did not work."""
    metrics = [record.metrics for record in records if record is not None]
    return [
        1000 * item["planned_saved_bytes"] / item["planned_ksmd_ns"] if item["planned_ksmd_ns"] else 0.0
        for item in metrics
    ]


def saving_over_time(record: RunRecord) -> tuple[list[float], list[float]]:
    """Times (seconds since the first sample of the window) and savings (MiB) of a run, from its samples.csv."""
    times: list[float] = []
    values: list[float] = []
    with (record.path / "samples.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        times.append((int(row["t_ns"]) - int(rows[0]["t_ns"])) / 1e9)
        values.append(PAGE * (int(row["pages_sharing"]) - int(rows[0]["pages_sharing"])) / 2**20)
    return times, values


def stamps(selection: Selection) -> tuple[str, ...]:
    """What must stand on the face of a figure so that nobody takes it for more than it is."""
    record = selection.any_record()
    lines: list[str] = []
    if record is not None:
        cell, kernel = record.cell, record.inputs.get("kernel", {})
        lines.append(f"backend: {cell['backend']} (not virtual machines)")
        version = str(kernel.get("version", "?"))
        lines.append(f"kernel {version}" + ("" if version.startswith("6.2") else ", not the paper's 6.2"))
        lines.append(_time_base(str(cell["mode"]), str(cell["target"])))
        lines.append(_training_data(record.inputs.get("dataset")))
    lines.append(f"profile: {selection.profile}" + (f" ({selection.scale})" if selection.scale else ""))
    lines.append(f"preset: {selection.preset}")
    lines.append("1 seed" if selection.seeds == 1 else f"{selection.seeds} seeds: median and 95% bootstrap interval")
    differing = inequality(
        {name: knobs for name, knobs in selection.spec.knobs(selection.preset).items() if name not in selection.absent}
    )
    if differing:
        lines.append(f"UNEQUAL between systems: {', '.join(differing)}")
    return tuple(lines)


def _training_data(dataset: object) -> str:
    if not isinstance(dataset, Mapping):
        return "training data: generated"
    return f"training data: first {dataset['rows']} rows of a file (sha256 {str(dataset['sha256'])[:12]})"


def _time_base(mode: str, target: str) -> str:
    if mode == "measured":
        return "1 emulated instruction = 1 cycle = 1 ns virtual"
    return f"wall-clock time of {target}"


def notes(system: str, metric: str, scope: str) -> str:
    """The paper's number with its unit and place, or an empty string."""
    found = paper.find(metric, system, scope)
    return f"{found.text} ({found.where})" if found else ""
