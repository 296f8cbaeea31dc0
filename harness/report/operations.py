# SPDX-License-Identifier: GPL-2.0-or-later
"""Single operations: what a page compared or checksummed takes of the processor (Figure 5) and of time (Figure 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.experiment import trial
from harness.experiment.spec import workloads
from harness.report import analysis, paper
from harness.report.analysis import Selection, Status
from harness.report.paper import PaperValue
from harness.report.tables import Table
from harness.systems import systems

NAMES = {"compare": "memcmp", "checksum": "xxhash"}
"""The paper's names."""

CALIBRATED = (
    "CALIBRATED INPUT, no evidence: the device's times and the sleeping client's margin were put in (docs/dsa.md)"
)

WAYS = ("CPU-t", "CPU-nt", "DSA-s", "DSA-a")
"""Figure 5: plain loads, streaming loads, a client that polls, one that sleeps."""

ON_HARDWARE = {"compare": 1.06, "checksum": 1.19}
"""CPU-nt over CPU-t on an Intel Xeon, pages in no cache: medians of ``dsa-time --processor 1024``."""


@dataclass(frozen=True)
class Batch:
    """One page of a batch of this size, by the client that sleeps: virtual nanoseconds, in three parts."""

    size: int
    submit: float
    wait: float
    read: float

    @property
    def total(self) -> float:
        """From the first byte of the descriptor to the answer read."""
        return self.submit + self.wait + self.read


@dataclass(frozen=True)
class Operation:
    """An operation on one page."""

    id: str
    cycles: Mapping[str, float]
    """Of the processor, by the ways of Figure 5; an instruction is a cycle."""
    asleep: float
    """What going to sleep and waking up takes on top of DSA-a: the paper counts it elsewhere."""
    batches: tuple[Batch, ...]

    @property
    def name(self) -> str:
        """The paper's."""
        return NAMES[self.id]

    @property
    def processor(self) -> float:
        """The processor's own time, in virtual nanoseconds."""
        return self.cycles["CPU-t"]


@dataclass(frozen=True)
class Operations:
    """Figures 5 and 7."""

    selection: Selection
    status: Status
    reason: str
    operations: tuple[Operation, ...]
    stamps: tuple[str, ...]


def operations(selection: Selection) -> Operations:
    """Compute both figures from the one run there is."""
    axes = selection.spec.axes
    records, status, reason = analysis.standing(selection, systems()[axes.system[0]], workloads()[axes.workload[0]])
    if status != "result":
        return Operations(selection, status, reason, (), (CALIBRATED,))
    told = records[0].metrics["operations"]
    version = str(records[0].inputs.get("kernel", {}).get("version", "?"))
    stamps = (CALIBRATED, f"kernel {version}", analysis.time_base(records[0]), "a program in user mode, no fleet")
    return Operations(selection, status, "", tuple(_operation(name, told[name]) for name in trial.OPERATIONS), stamps)


def _operation(name: str, told: Mapping[str, Any]) -> Operation:
    single = told["batches"][0]
    handled = single["slept"]["submit_ns"] + single["slept"]["read_ns"]
    cycles = {
        "CPU-t": told["processor_ns"],
        "CPU-nt": told["streaming_ns"],
        "DSA-s": single["polled"]["processor_ns"],
        "DSA-a": handled,
    }
    rows = []
    for row in told["batches"]:
        slept, size = row["slept"], row["batch"]
        rows.append(Batch(size, slept["submit_ns"] / size, slept["wait_ns"] / size, slept["read_ns"] / size))
    return Operation(name, cycles, single["slept"]["processor_ns"] - handled, tuple(rows))


def papers_cycles(way: str, operation: str) -> PaperValue | None:
    """The paper's number: of CPU-nt over CPU-t, of DSA-a what CPU-t is over it."""
    if way == "CPU-nt":
        return paper.find("streaming_over_plain", "cpu-ksm", operation)
    return paper.find("plain_over_asleep", "dsa-ksm", operation) if way == "DSA-a" else None


def papers_latency(metric: Literal["latency_over_cpu", "latency_cut"], operation: str, batch: int) -> PaperValue | None:
    """The paper's number for a batch: its time over the CPU's, or the share by which it is below that of one page."""
    return paper.find(metric, "dsa-ksm", f"{operation}, {batch}")


def _text(found: PaperValue | None) -> str:
    return found.text if found else ""


def table(result: Operations) -> Table:
    """The figure as a table."""
    spec = result.selection.spec
    title = f"{spec.title} ({spec.paper})"
    cycles = spec.kind == "operation-cycles"
    head, rows = (_CYCLES, _cycles(result)) if cycles else (_LATENCY, _latency(result))
    if result.status != "result":
        rows = [(result.status, result.reason, *[""] * (len(head) - 2))]
    notes = (*result.stamps, *(_CYCLE_NOTES if cycles else _LATENCY_NOTES))
    return Table(title, head, tuple(rows), notes)


_CYCLES = ("operation", "way", "cycles", "over CPU-t", "CPU-t over it", "paper")
_CYCLE_NOTES = (
    "DSA-s polls. DSA-a sleeps; as in the paper its descriptor's preparation and submission and the look at its "
    "answer are counted, and 'with its sleep' what the scheduler charged in all",
    "CPU-nt: MOVNTDQA between XSAVE and XRSTOR of all vector state, each of them one instruction here. On an Intel "
    f"Xeon, pages in no cache, it took {ON_HARDWARE['compare']:.2f}x (memcmp) and {ON_HARDWARE['checksum']:.2f}x "
    "(xxhash) of CPU-t",
)


def _cycles(result: Operations) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for item in result.operations:
        values = [*item.cycles.items(), ("DSA-a with its sleep", item.cycles["DSA-a"] + item.asleep)]
        for way, value in values:
            there = papers_cycles(way, item.name)
            over = value / item.processor
            rows.append((item.name, way, f"{value:.0f}", f"{over:.2f}x", f"{1 / over:.2f}x", _text(there)))
    return rows


_LATENCY = (
    "operation", "batch", "submission [us]", "waiting [us]", "CPU part [us]", "of a page [us]", "over the CPU", "paper",
    "below one page", "paper",
)  # fmt: skip
_LATENCY_NOTES = (
    "by a client that sleeps as long as the device takes and 5.6 us more; times of a batch, divided by its pages",
    "submission: descriptors written and handed over; waiting: until the last answer is there; CPU part: reading them",
)


def _latency(result: Operations) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for item in result.operations:
        alone, single = f"{item.processor / 1000:.2f}", item.batches[0].total
        rows.append((item.name, "CPU", "", "", alone, alone, *[""] * 4))
        for batch in item.batches:
            parts = (batch.submit, batch.wait, batch.read, batch.total)
            over = papers_latency("latency_over_cpu", item.name, batch.size)
            cut = papers_latency("latency_cut", item.name, batch.size)
            rows.append(
                (
                    item.name, str(batch.size), *(f"{part / 1000:.2f}" for part in parts),
                    f"{batch.total / item.processor:.2f}x", _text(over), f"{1 - batch.total / single:.0%}", _text(cut),
                )
            )  # fmt: skip
    return rows


def values(result: Operations) -> dict[str, Any]:
    """The numbers for ``--json``."""
    return {
        "status": result.status,
        "reason": result.reason,
        "calibrated": True,
        "operations": [
            {
                "operation": item.name,
                "cycles": dict(item.cycles),
                "asleep_cycles": item.asleep,
                "batches": [
                    {
                        "batch": batch.size,
                        "submit_ns": batch.submit,
                        "wait_ns": batch.wait,
                        "read_ns": batch.read,
                        "over_processor": batch.total / item.processor,
                        "below_single": 1 - batch.total / item.batches[0].total,
                    }
                    for batch in item.batches
                ],
            }
            for item in result.operations
        ],
    }
