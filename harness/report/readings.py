# SPDX-License-Identifier: GPL-2.0-or-later
"""What an experiment measured, in the words of the verdicts: quantities of points, each with the parts of its mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from harness.experiment.spec import workloads
from harness.experiment.store import RunRecord
from harness.report import analysis, batches, functions, misses, operations, statistics
from harness.report.analysis import Compared, Comparison, Selection
from harness.report.means import FIGURE_12, SIX, TABLE_3, MeanSet
from harness.report.statistics import Estimate
from harness.report.verdicts import Reading, Readings, book, one
from harness.systems import systems

TENTHS = (1, 5, 10)
"""Where in the window savings are compared, in tenths of it: the paper speaks of 20, 100 and 200 seconds of 200."""


def read(selections: Iterable[Selection]) -> dict[tuple[str, int], Reading]:
    """All that reports of one size, preset and target tell, of the experiments that verdicts name and of no variant."""
    named = {verdict.experiment for verdict in book().verdict}
    out: dict[tuple[str, int], Reading] = {}
    for selection in selections:
        if selection.spec.id in named:
            out |= READERS[selection.spec.kind](selection)
    return out


def _compared(result: Comparison[Compared]) -> Reading:
    """Ratios to the baseline by system and workload."""
    points: dict[str, dict[str, Estimate]] = {}
    lacking: dict[str, str] = {}
    for item in result.items:
        if item.ratio is not None:
            points.setdefault(item.system.id, {})[item.workload.id] = item.ratio
        else:
            lacking[f"{item.system.id}, {item.workload.id}"] = item.reason or item.status
    return Reading(points, result.over, lacking)


def _degradation(selection: Selection) -> Readings:
    return {("degradation", 0): _compared(analysis.degradation(selection))}


def _efficiency(selection: Selection) -> Readings:
    return {("efficiency", 0): _compared(analysis.efficiency(selection))}


def _utilisation(selection: Selection) -> Readings:
    def share(record: RunRecord) -> float:
        return float(record.metrics["ksmd_ns"] / record.metrics["corun_ns"])

    return {("utilisation", 0): _of_records(selection, share, SIX)}


def _of_records(selection: Selection, number: Callable[[RunRecord], float], over: MeanSet) -> Reading:
    """A number of each record, by system and workload."""
    points: dict[str, dict[str, Estimate]] = {}
    lacking: dict[str, str] = {}
    for system in selection.spec.axes.system:
        for workload in selection.spec.axes.workload:
            records, _, reason = analysis.standing(selection, systems()[system], workloads()[workload])
            if records:
                points.setdefault(system, {})[workload] = statistics.median([number(record) for record in records])
            else:
                lacking[f"{system}, {workload}"] = reason
    return Reading(points, over, lacking)


def _saving(selection: Selection) -> Readings:
    """Savings at tenths of the planned window: the same for all systems, however long the application takes."""
    import numpy

    workload = workloads()[selection.spec.axes.workload[0]]
    points: dict[str, Estimate] = {}
    lacking: dict[str, str] = {}
    for system in selection.spec.axes.system:
        records, _, reason = analysis.standing(selection, systems()[system], workload)
        for tenth in TENTHS:
            point = f"{system}@{10 * tenth}%"
            if not records:
                lacking[point] = reason
                continue
            values = []
            for record in records:
                times, saved = analysis.saving_over_time(record)
                end = _planned_window(record) or times[-1]
                values.append(float(numpy.interp(tenth / 10 * end, times, saved)))
            points[point] = statistics.median(values)
    return {("saving", 0): one(points, lacking)}


def _planned_window(record: RunRecord) -> float | None:
    """Seconds, as its plan says."""
    for line in str(record.inputs.get("plan", "")).splitlines():
        name, _, value = line.partition(" ")
        if name == "window_ms":
            return int(value) / 1e3
    return None


def _by_batch(quantity: str, number: Callable[[batches.Size], Estimate | None]) -> Callable[[Selection], Readings]:
    def reader(selection: Selection) -> Readings:
        points: dict[str, Estimate] = {}
        lacking: dict[str, str] = {}
        for size in batches.batches(selection).sizes:
            found = number(size)
            if found is not None:
                points[str(size.batch)] = found
            else:
                lacking[str(size.batch)] = size.reason or size.status
        return {(quantity, 0): one(points, lacking)}

    return reader


def _cycles(selection: Selection) -> Readings:
    """Of the processor, by operation and way: ``memcmp@dsa-a``."""
    points = {
        f"{item.name}@{way.lower()}": _plain(cycles)
        for item in operations.operations(selection).operations
        for way, cycles in item.cycles.items()
    }
    return {("cycles", 0): one(points)} if points else {}


def _latency(selection: Selection) -> Readings:
    """Of a page in batches of a size, and of the processor: ``memcmp@8``, ``memcmp@cpu``."""
    points: dict[str, Estimate] = {}
    for item in operations.operations(selection).operations:
        points[f"{item.name}@cpu"] = _plain(item.processor)
        points |= {f"{item.name}@{batch.size}": _plain(batch.total) for batch in item.batches}
    return {("latency", 0): one(points)} if points else {}


def _plain(value: float) -> Estimate:
    """A number that no chance goes into."""
    return Estimate(value, None, None, 1, (value,))


def _misses(selection: Selection) -> Readings:
    """Rates of the shared cache, and what the same runs say where misses cost something (level 1)."""
    result = misses.misses(selection)
    points: dict[str, dict[str, Estimate]] = {}
    lacking: dict[str, str] = {}
    for entry in result.entries:
        if entry.column not in TABLE_3.parts:
            continue
        if entry.share is not None:
            points.setdefault(entry.system.id, {})[entry.column] = entry.share
        else:
            lacking[f"{entry.system.id}, {entry.column}"] = entry.reason or entry.status
    levels: dict[tuple[str, int], Reading] = {}
    for quantity, over in (("degradation", FIGURE_12), ("utilisation", SIX), ("efficiency", SIX)):
        found: dict[str, dict[str, Estimate]] = {}
        for item in result.levels:
            if (value := getattr(item, quantity).get(1)) is not None:
                found.setdefault(item.system.id, {})[item.workload.id] = value
        if found:
            levels[quantity, 1] = Reading(found, over)
    return {("llc_miss_rate", 0): Reading(points, TABLE_3, lacking), **levels}


def _functions(selection: Selection) -> Readings:
    """Shares of ksmd's instructions under the system of the timeline."""
    axes = selection.spec.axes
    system = systems()[axes.system[0]]
    records, _, _ = analysis.standing(selection, system, workloads()[axes.workload[0]])
    parts = functions.breakdown(system, records).parts
    return {("function_share", 0): one(parts)} if parts else {}


READERS: Mapping[str, Callable[[Selection], Readings]] = {
    "degradation": _degradation,
    "utilisation": _utilisation,
    "saving": _saving,
    "efficiency": _efficiency,
    "batch-saving": _by_batch("saving_by_batch", lambda size: size.saved_mib),
    "batch-efficiency": _by_batch("efficiency_by_batch", lambda size: size.bytes_per_us),
    "misses": _misses,
    "timeline": _functions,
    "operation-cycles": _cycles,
    "operation-latency": _latency,
    "batch-use": _by_batch("descriptors_used", lambda size: size.use),
}
"""By kind of experiment."""
