# SPDX-License-Identifier: GPL-2.0-or-later
"""What the records of an experiment say: numbers where there are results, reasons where there are none."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeVar

from harness.experiment.spec import Spec, Workload, inequality, workloads
from harness.experiment.store import RunRecord
from harness.latency import Start
from harness.report import means, paper, statistics, tails
from harness.report.means import MeanSet
from harness.report.statistics import Estimate
from harness.systems import System, systems

PAGE = 4096
"""Bytes of a page that KSM merges."""

ENOUGH = 500
"""Samples below which a 99th percentile is that of a handful: five lie above it."""

CellName = tuple[str, str, int]
"""system, workload, seed."""

Status = Literal["result", "not built yet", "needs real VMs", "failed", "missing"]

ABSENCES: tuple[Status, ...] = ("not built yet", "needs real VMs")
"""Why there is nothing to run, in three words; the whole reason is in :attr:`Selection.absent`."""


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
    batches: Mapping[int, Mapping[CellName, RunRecord | None]] = field(default_factory=dict)
    """The records of each batch size, where the spec has that axis; ``records`` is then empty."""

    def with_batch(self, size: int) -> Selection:
        """The same with the records of one batch size."""
        return replace(self, records=self.batches.get(size, {}), batches={})

    def runs(self) -> Iterator[tuple[CellName, int | None, RunRecord | None]]:
        """Every cell, with its batch size if it has one."""
        for name, record in self.records.items():
            yield name, None, record
        for size, records in self.batches.items():
            for name, record in records.items():
                yield name, size, record

    def reason(self, system: str, workload: str) -> str:
        """Why there is nothing to run; empty if there is."""
        return self.absent.get(system) or self.absent.get(workload) or ""

    def absence(self, system: str, workload: str) -> Status:
        """What stands where that reason keeps a number away."""
        there = system not in self.absent and workloads()[workload].available
        return "needs real VMs" if there else "not built yet"

    def of(self, system: str, workload: str) -> list[RunRecord | None]:
        """The records of all seeds, in the order of the seeds."""
        return [self.records.get((system, workload, seed)) for seed in range(1, self.seeds + 1)]

    def any_record(self) -> RunRecord | None:
        """One that has a result, or None."""
        return next((record for _, _, record in self.runs() if record and record.outcome == "ok"), None)


@dataclass(frozen=True)
class Compared:
    """One system under one workload, compared with the baseline under the same."""

    system: System
    workload: Workload
    status: Status
    reason: str = ""
    ratio: Estimate | None = None
    """What is compared, over the baseline's."""
    saved_mib: Estimate | None = None


@dataclass(frozen=True)
class Bar(Compared):
    """Compared is ``workload.metric``: VM 1's execution time, or the 99th percentile of an operation's latency."""

    utilisation: Estimate | None = None
    """ksmd's share of the co-run, 0..1."""
    bound: float | None = None
    """Least degradation that this utilisation explains, 1/(1-u)."""
    seconds: Estimate | None = None
    """What is compared, in (virtual) seconds."""
    samples: int | None = None
    """Latencies that a percentile is of, all clients and seeds together."""
    intended: Estimate | None = None
    """As ``ratio``, with latencies from when operations should have been sent."""
    pooled: Estimate | None = None
    """As ``ratio``, of the latencies of all seeds together; None where there is one seed, or no latencies."""


@dataclass(frozen=True)
class Mark(Compared):
    """Compared is what is saved for ksmd's time."""

    bytes_per_us: Estimate | None = None
    """Bytes saved for a microsecond of ksmd; where an instruction is a cycle is a nanosecond, for 1000 cycles."""
    ksmd_seconds: Estimate | None = None


Item = TypeVar("Item", bound=Compared, covariant=True)


@dataclass(frozen=True)
class Comparison(Generic[Item]):
    """Every system under every workload, and the means over these."""

    selection: Selection
    items: tuple[Item, ...]
    geomeans: Mapping[str, Estimate | None]
    """By system, over the set that the paper's mean is of; None unless every part of it has a number."""
    over: MeanSet
    stamps: tuple[str, ...]

    def at(self, system: str, workload: str) -> Item:
        """That of a system under a workload."""
        return next(item for item in self.items if (item.system.id, item.workload.id) == (system, workload))


class Degradation(Comparison[Bar]):
    """Figure 12 and its share of Table 2."""


class Efficiency(Comparison[Mark]):
    """Figure 14."""


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


def degradation(selection: Selection) -> Degradation:
    """Compute Figure 12: D = T_system / T_baseline of VM 1, paired by seed."""
    items, geomeans, over = _compared(selection, _bar, means.FIGURE_12)
    return Degradation(selection, items, geomeans, over, (*stamps(selection), *few_samples(items)))


def efficiency(selection: Selection) -> Efficiency:
    """Compute Figure 14: what is saved from the start to the planned end of the window, over ksmd's time in it."""
    return Efficiency(selection, *_compared(selection, _mark, means.SIX), stamps(selection))


def _compared(
    selection: Selection, compare: Callable[[Selection, System, Workload], Item], papers: MeanSet
) -> tuple[tuple[Item, ...], Mapping[str, Estimate | None], MeanSet]:
    """Every system under every workload, the systems' means, and what these are over.

    A spec with the paper's workloads has the paper's mean, and none where that lacks a part; one with others has the
    mean of its own.
    """
    axes = selection.spec.axes
    items = tuple(
        compare(selection, systems()[system], workloads()[workload])
        for workload in axes.workload
        for system in axes.system
    )
    own = MeanSet(f"the workloads of {selection.spec.id}", dict.fromkeys(axes.workload, 1), selection.spec.id)
    over = papers if set(axes.workload) == set(papers.parts) else own
    geomeans: dict[str, Estimate | None] = {}
    for system in axes.system:
        if system != selection.spec.baseline:
            known = {item.workload.id: item.ratio for item in items if item.system.id == system and item.ratio}
            found, lacking = means.estimate(over, known)
            geomeans[system] = None if lacking else found
    return items, geomeans, over


def standing(selection: Selection, system: System, workload: Workload) -> tuple[list[RunRecord], Status, str]:
    """The records of all seeds if each has a result; if not, the status to show in their place, and why."""
    if absent := selection.reason(system.id, workload.id):
        return [], selection.absence(system.id, workload.id), absent
    records = selection.of(system.id, workload.id)
    there = [record for record in records if record is not None]
    if not there or len(there) < len(records):
        return (
            [],
            "missing",
            f"{len(records) - len(there)} of {len(records)} seeds not run" if records[1:] else "not run",
        )
    for record in there:
        if record.outcome != "ok":
            return [], "failed", record.reason
    return there, "result", ""


def _against(selection: Selection, ratio: Estimate | None) -> tuple[Status, str]:
    """The status of what has a result, by whether the baseline has one."""
    return ("result", "") if ratio else ("missing", f"{selection.spec.baseline} has no result to compare with")


def _bar(selection: Selection, system: System, workload: Workload) -> Bar:
    records, status, reason = standing(selection, system, workload)
    if status != "result":
        return Bar(system, workload, status, reason)
    ours = [record.metrics for record in records]
    if not all(_occurred(workload, record) for record in records):
        return Bar(system, workload, "failed", f"no {workload.operation} occurred")
    times = _times(workload, records)
    base, _, _ = standing(selection, systems()[str(selection.spec.baseline)], workload)
    ratio = intended = pooled = None
    if base and all(_occurred(workload, record) for record in base):
        other = [seed for seed, (a, b) in enumerate(zip(records, base, strict=True), 1) if _model(a) != _model(b)]
        if other and not (workload.operation and _loads_differ(selection, system)):
            return Bar(system, workload, "failed", f"seed {other[0]}: not the same work as {selection.spec.baseline}")
        ratio = statistics.paired_ratio(times, _times(workload, base))
        if workload.operation:
            intended = statistics.paired_ratio(*(_times(workload, part, "intended") for part in (records, base)))
            if selection.seeds > 1:
                both = ([tails.of(record, workload.operation) for record in part] for part in (records, base))
                pooled = tails.pooled_ratio(*both)
    share = statistics.median([item["ksmd_ns"] / item["corun_ns"] for item in ours])
    return Bar(
        system,
        workload,
        *_against(selection, ratio),
        ratio,
        saved_mib=statistics.median([item["saved_bytes"] / 2**20 for item in ours]),
        utilisation=share,
        bound=statistics.time_share_bound(share.value) if share.value < 1 else None,
        seconds=statistics.median([time / 1e9 for time in times]),
        samples=sum(_tail(workload, record)["n"] for record in records) if workload.operation else None,
        intended=intended,
        pooled=pooled,
    )


def _tail(workload: Workload, record: RunRecord, start: Start = "sent") -> Mapping[str, int]:
    """Percentiles of the workload's operation, or nothing if it did not occur."""
    found: Mapping[str, int] = (record.metrics.get("latencies") or {}).get(workload.operation, {}).get(start, {})
    return found


def _occurred(workload: Workload, record: RunRecord) -> bool:
    return not workload.operation or bool(_tail(workload, record))


def _times(workload: Workload, records: list[RunRecord], start: Start = "sent") -> list[float]:
    """What is compared (ns), by seed."""
    if workload.operation:
        return [float(_tail(workload, record, start)["p99_ns"]) for record in records]
    return [float(record.metrics["application_ns"]) for record in records]


def _loads_differ(selection: Selection, system: System) -> bool:
    """Other loads are other work: the figure's stamp says that they are unequal."""
    knobs = selection.spec.knobs(selection.preset)
    return knobs[system.id].offered_load != knobs[str(selection.spec.baseline)].offered_load


def few_samples(items: Iterable[Bar]) -> tuple[str, ...]:
    """A warning about percentiles of few samples; nothing where all have enough."""
    least: dict[str, int] = {}
    for bar in items:
        if bar.samples is not None:
            least[bar.workload.label] = min(bar.samples, least.get(bar.workload.label, bar.samples))
    short = [f"{label} n={n}" for label, n in least.items() if n < ENOUGH]
    return (f"p99 of fewer than {ENOUGH} samples, near the maximum: {', '.join(short)}",) if short else ()


def _model(record: RunRecord) -> object:
    """What the application computed: the same work gives the same."""
    return record.metrics.get("model")


def saving(selection: Selection) -> Saving:
    """Compute Figure 13: 4 KiB times what pages_sharing grew by since the start of the window."""
    workload = workloads()[selection.spec.axes.workload[0]]
    curves = tuple(curve(selection, systems()[system], workload) for system in selection.spec.axes.system)
    return Saving(selection, workload, curves, stamps(selection))


def curve(selection: Selection, system: System, workload: Workload) -> Curve:
    """Saving over time of one system: the median over seeds, and their range."""
    import numpy

    records, status, reason = standing(selection, system, workload)
    if status != "result":
        return Curve(system, status, reason)
    series = [saving_over_time(record) for record in records]
    length = min(len(times) for times, _ in series)
    if length == 0:
        return Curve(system, "failed", "no samples in the window")
    grid = series[0][0][:length]
    table = numpy.array([numpy.interp(grid, times, values) for times, values in series])
    ceilings = [record.metrics.get("possible_bytes") for record in records]
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


def _mark(selection: Selection, system: System, workload: Workload) -> Mark:
    records, status, reason = standing(selection, system, workload)
    if status != "result":
        return Mark(system, workload, status, reason)
    ours = yields(records)
    if any(value <= 0 for value in ours):
        return Mark(system, workload, "failed", "nothing was saved, or ksmd did not work, in the window")
    base, _, _ = standing(selection, systems()[str(selection.spec.baseline)], workload)
    theirs = yields(base)
    ratio = statistics.paired_ratio(ours, theirs) if theirs and all(value > 0 for value in theirs) else None
    return Mark(
        system,
        workload,
        *_against(selection, ratio),
        ratio,
        saved_mib=statistics.median([record.metrics["planned_saved_bytes"] / 2**20 for record in records]),
        bytes_per_us=statistics.median(ours),
        ksmd_seconds=statistics.median([record.metrics["planned_ksmd_ns"] / 1e9 for record in records]),
    )


def yields(records: list[RunRecord]) -> list[float]:
    """Bytes saved for each microsecond of ksmd, by seed; 0 where it did not work."""
    return [
        1000 * item["planned_saved_bytes"] / item["planned_ksmd_ns"] if item["planned_ksmd_ns"] else 0.0
        for item in (record.metrics for record in records)
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


_BACKENDS = {"process": "not virtual machines", "nested": "Linux guests under KVM in the emulated machine"}


def stamps(selection: Selection) -> tuple[str, ...]:
    """What must stand on the face of a figure so that nobody takes it for more than it is."""
    record = selection.any_record()
    lines: list[str] = []
    if record is not None:
        cell, kernel = record.cell, record.inputs.get("kernel", {})
        lines.append(f"backend: {cell['backend']} ({_BACKENDS[cell['backend']]})")
        version = str(kernel.get("version", "?"))
        lines.append(f"kernel {version}" + ("" if version.startswith("6.2") else ", not the paper's 6.2"))
        lines.append(time_base(record))
        lines.append(_training_data(record.inputs.get("dataset")))
    lines.append(f"profile: {selection.profile}" + (f" ({selection.scale})" if selection.scale else ""))
    lines.append(f"preset: {selection.preset}")
    lines.append("1 seed" if selection.seeds == 1 else f"{selection.seeds} seeds: median and 95% bootstrap interval")
    differing = inequality(
        {name: knobs for name, knobs in selection.spec.knobs(selection.preset).items() if name not in selection.absent}
    )
    if selection.spec.axes.stands_for:
        ours, paper_s = selection.spec.axes.workload[0], selection.spec.axes.stands_for
        lines.append(f"beside {workloads()[ours].label}, not the paper's {workloads()[paper_s].label}")
    if differing:
        lines.append(f"UNEQUAL between systems: {', '.join(differing)}")
    return tuple(lines)


def _training_data(dataset: object) -> str:
    if not isinstance(dataset, Mapping):
        return "training data: generated"
    return f"training data: first {dataset['rows']} rows of a file (sha256 {str(dataset['sha256'])[:12]})"


def time_base(record: RunRecord) -> str:
    """What a second is in a run."""
    if record.cell["mode"] == "measured":
        return "1 emulated instruction = 1 cycle = 1 ns virtual"
    return f"wall-clock time of {record.cell['target']}"


def notes(system: str, metric: str, scope: str) -> str:
    """The paper's number with its unit and place, or an empty string."""
    found = paper.find(metric, system, scope)
    return f"{found.text} ({found.where})" if found else ""
