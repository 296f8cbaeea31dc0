# SPDX-License-Identifier: GPL-2.0-or-later
"""Misses of modelled caches (Table 3), and what other results become when misses cost something.

Level 0 is what is measured: an instruction is a cycle. Level 1 is reckoned afterwards from the same runs: instructions
and penalties of modelled misses (:mod:`harness.llc`). It does not change who runs when: a miss delays nobody in the
machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import llc
from harness.experiment.spec import Workload, workloads
from harness.experiment.store import RunRecord
from harness.report import analysis, means, paper, statistics, tables
from harness.report.analysis import Selection, Status
from harness.report.shares import COLUMNS, MEAN, family, mean_of
from harness.report.statistics import Estimate
from harness.report.tables import Table
from harness.systems import System, systems

LEVELS = (0, 1)


@dataclass(frozen=True)
class Entry:
    """One system in one column of Table 3."""

    system: System
    column: str
    status: Status
    reason: str = ""
    share: Estimate | None = None
    """Misses of VM 1, over its loads and stores that reach the shared cache, 0 to 1."""
    core: Estimate | None = None
    """The same of VM 1 and ksmd together: of their processor."""


@dataclass(frozen=True)
class Leveled:
    """One system under one workload at both levels."""

    system: System
    workload: Workload
    cycles: Mapping[str, Estimate]
    """Cycles an instruction at level 1, of vm1 and ksmd."""
    degradation: Mapping[int, Estimate]
    """By level; empty where an operation's latency is what counts, which no sum of cycles gives."""
    utilisation: Mapping[int, Estimate]
    efficiency: Mapping[int, Estimate]
    """Saving for ksmd's time, over CPU-ksm's."""


@dataclass(frozen=True)
class Misses:
    """Table 3, and the two levels."""

    selection: Selection
    entries: tuple[Entry, ...]
    levels: tuple[Leveled, ...]
    stamps: tuple[str, ...]

    def at(self, system: str, column: str) -> Entry:
        """That of a system in a column."""
        return next(entry for entry in self.entries if (entry.system.id, entry.column) == (system, column))


def misses(selection: Selection) -> Misses:
    """Compute Table 3, and what the same runs say at both levels."""
    entries: list[Entry] = []
    levels: list[Leveled] = []
    for name in selection.spec.axes.system:
        system = systems()[name]
        row = [_column(selection, system, column) for column in COLUMNS]
        entries += [*row, _last(system, row)]
    for workload in map(workloads().__getitem__, selection.spec.axes.workload):
        for name in selection.spec.axes.system:
            if (found := _leveled(selection, systems()[name], workload)) is not None:
                levels.append(found)
    return Misses(selection, tuple(entries), tuple(levels), (*analysis.stamps(selection), *_caches(selection)))


def _caches(selection: Selection) -> tuple[str, ...]:
    """What was modelled, for the face of the figure."""
    record = selection.any_record()
    if record is None:
        return ()
    sizes = record.inputs["watch"]["misses"]
    shared, private = (sizes[f"{kind}sets"] * sizes[f"{kind}ways"] * llc.LINE / 1024 for kind in ("", "private_"))
    times = selection.spec.cache_times
    return (
        f"modelled, not measured: {shared:g} KiB shared in {sizes['ways']} ways, {private:g} KiB private",
        *((f"the shared cache is {times:g} times as large as goes with the fleet's memory",) if times != 1 else ()),
    )


def _column(selection: Selection, system: System, column: str) -> Entry:
    """A column: of several workloads the geometric mean, seed by seed in the same order."""
    of_family = family(selection, column)
    if not of_family:
        return Entry(system, column, "missing", "the spec has no such workload")
    parts: dict[str, list[Estimate]] = {"llc_vm1": [], "llc_core": []}
    for workload in of_family:
        records, status, reason = analysis.standing(selection, system, workload)
        if status != "result":
            return Entry(system, column, status, reason)
        for name, found in parts.items():
            found.append(statistics.median([record.metrics[name] for record in records]))
    return Entry(system, column, "result", "", mean_of(parts["llc_vm1"]), mean_of(parts["llc_core"]))


def _last(system: System, row: Sequence[Entry]) -> Entry:
    """The paper's mean over its three columns."""
    for entry in row:
        if entry.share is None or entry.core is None or entry.share.value <= 0:
            return Entry(system, MEAN, "missing" if entry.status == "result" else entry.status, f"needs {entry.column}")
    vm1, _ = means.estimate(means.TABLE_3, {entry.column: entry.share for entry in row if entry.share})
    core, _ = means.estimate(means.TABLE_3, {entry.column: entry.core for entry in row if entry.core})
    return Entry(system, MEAN, "result", "", vm1, core)


# --- both levels ----------------------------------------------------------------------------------------


def corun(record: RunRecord, level: int) -> float:
    """Cycles of the processor from the start to the end of VM 1's application."""
    found = record.metrics
    whole = float(found["corun_ns"])
    if not level:
        return whole
    vm1 = min(whole, float(found["llc_instructions_vm1"]))
    ksmd = float(found["ksmd_ns"])
    rest = max(0.0, whole - vm1 - ksmd)
    return float(found["cpi_vm1"] * vm1 + found["cpi_ksmd"] * ksmd + (found["cpi_other"] or 1.0) * rest)


def ksmd_cycles(record: RunRecord, name: str, level: int) -> float:
    """Cycles of ksmd in what a metric of its time covers."""
    return float(record.metrics[name]) * (record.metrics["cpi_ksmd"] if level else 1.0)


def _utilisation(record: RunRecord, level: int) -> float:
    return ksmd_cycles(record, "ksmd_ns", level) / corun(record, level)


def _yield(record: RunRecord, level: int) -> float:
    spent = ksmd_cycles(record, "planned_ksmd_ns", level)
    return float(record.metrics["planned_saved_bytes"]) / spent if spent else 0.0


def _against(
    records: Sequence[RunRecord], base: Sequence[RunRecord], number: Callable[[RunRecord, int], float]
) -> dict[int, Estimate]:
    """The ratio of a number to the baseline's at both levels; nothing where it is 0."""
    pairs = {level: [[number(record, level) for record in part] for part in (records, base)] for level in LEVELS}
    if not all(value > 0 for pair in pairs.values() for part in pair for value in part):
        return {}
    return {level: statistics.paired_ratio(*pair) for level, pair in pairs.items()}


def _leveled(selection: Selection, system: System, workload: Workload) -> Leveled | None:
    records, status, _ = analysis.standing(selection, system, workload)
    if status != "result":
        return None
    cycles = {
        owner: statistics.median([record.metrics[f"cpi_{owner}"] for record in records])
        for owner in (("vm1", "ksmd") if system.ksmd else ("vm1",))
    }
    timed = not workload.fleet.startswith("ycsb")
    degradation: dict[int, Estimate] = {}
    efficiency: dict[int, Estimate] = {}
    base, found, _ = analysis.standing(selection, systems()[str(selection.spec.baseline)], workload)
    if found == "result" and timed:
        degradation = _against(records, base, corun)
    base, found, _ = analysis.standing(selection, systems()["cpu-ksm"], workload)
    if found == "result" and system.ksmd:
        efficiency = _against(records, base, _yield)
    shares = {
        level: statistics.median([_utilisation(record, level) for record in records])
        for level in LEVELS
        if system.ksmd and timed
    }
    return Leveled(system, workload, cycles, degradation, shares, efficiency)


# --- as text --------------------------------------------------------------------------------------------


def table(result: Misses) -> Table:
    """Table 3 in the paper's layout, and the two levels below it."""
    spec = result.selection.spec
    rows = []
    for name in spec.axes.system:
        cells = []
        for column in (*COLUMNS, MEAN):
            entry, there = result.at(name, column), paper.find("llc_miss_rate", name, column)
            ours = tables.number(entry.share, "{:.2%}") or ("needs every workload" if column == MEAN else entry.status)
            if entry.core is not None:
                ours += f" ({entry.core.value:.2%})"
            if entry.status == "failed":
                ours += f": {entry.reason}"
            cells += [ours, there.text if there else ""]
        rows.append((systems()[name].label, *cells))
    head = ["system"]
    for column in (*COLUMNS, MEAN):
        head += [column, "paper"]
    notes = [
        *result.stamps,
        "VM 1's loads and stores that miss, over those that reach the shared cache; in brackets VM 1 and ksmd together",
        "GeoMean: over the three columns, YCSB being the mean of its mixes",
    ]
    return Table(f"{spec.title} ({spec.paper})", tuple(head), tuple(rows), tuple(notes), (_levels(result),))


def _levels(result: Misses) -> Table:
    rows = []
    for item in result.levels:
        cells = [tables.number(item.cycles.get(owner), "{:.2f}") for owner in ("vm1", "ksmd")]
        for found, form in (
            (item.degradation, "{:.3f}x"), (item.utilisation, "{:.1%}"), (item.efficiency, "{:.3f}x"),
        ):  # fmt: skip
            cells += [tables.number(found.get(level), form) for level in LEVELS]
        rows.append((item.workload.label, item.system.label, *cells))
    head = ["workload", "system", "cycles/insn VM 1", "ksmd"]
    for name in ("degradation", "ksmd's share", "efficiency"):
        head += [f"{name}, level 0", "level 1"]
    notes = (
        f"level 1: {llc.CYCLES_INSTRUCTION:g} cycles an instruction, {llc.CYCLES_SEQUENTIAL:g} a miss next to a recent "
        f"one, {llc.CYCLES_SCATTERED:g} any other miss; reckoned afterwards, constants are assumed",
        *_orders(result),
    )
    return Table("Instructions alone, and with modelled penalties of misses", tuple(head), tuple(rows), notes)


def _orders(result: Misses) -> list[str]:
    """Whether the systems stand in the same order at both levels."""
    out = []
    for name in ("degradation", "utilisation", "efficiency"):
        for workload in dict.fromkeys(item.workload.id for item in result.levels):
            items = [item for item in result.levels if item.workload.id == workload and getattr(item, name)]
            orders = [
                [item.system.label for item in sorted(items, key=lambda item: getattr(item, name)[level].value)]
                for level in LEVELS
            ]
            if orders[0] != orders[1]:
                where = workloads()[workload].label
                out.append(f"{where}: {name} in the order {', '.join(orders[0])}; at level 1 {', '.join(orders[1])}")
    if not out and len({item.system.id for item in result.levels}) > 1:
        out.append("at both levels the systems stand in the same order, under every workload")
    return out


def values(result: Misses) -> dict[str, Any]:
    """The numbers for ``--json``."""

    def plain(found: Mapping[Any, Estimate]) -> dict[str, Any]:
        return {str(key): dataclasses.asdict(estimate) for key, estimate in found.items()}

    return {
        "entries": [
            {
                "system": entry.system.id,
                "column": entry.column,
                "status": entry.status,
                "reason": entry.reason,
                "llc_miss_rate": dataclasses.asdict(entry.share) if entry.share else None,
                "llc_miss_rate_core": dataclasses.asdict(entry.core) if entry.core else None,
            }
            for entry in result.entries
        ],
        "levels": [
            {
                "system": item.system.id,
                "workload": item.workload.id,
                "cycles_per_instruction": plain(item.cycles),
                "degradation": plain(item.degradation),
                "ksmd_utilisation": plain(item.utilisation),
                "efficiency": plain(item.efficiency),
            }
            for item in result.levels
        ],
    }
