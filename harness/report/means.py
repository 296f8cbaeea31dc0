# SPDX-License-Identifier: GPL-2.0-or-later
"""What the paper's geometric means are taken over: those sets, and no others, give its own numbers back.

Figure 12 averages over its nine bars, two of execution times and seven of latencies. Table 2 has three columns and
averages over six workloads: its YCSB column is itself the mean of the four mixes, so it counts four times. Table 3 has
the same three columns and averages over three. Figure 14 speaks of six workloads, as Table 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.report import statistics
from harness.report.statistics import Estimate


@dataclass(frozen=True)
class MeanSet:
    """The parts of a mean, by name, and how often each counts."""

    id: str
    parts: Mapping[str, int]
    where: str

    @property
    def size(self) -> int:
        """How many values the mean is of."""
        return sum(self.parts.values())


MIXES = ("ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d")
BARS = (
    "liblinear", "graph500", "ycsb-a-read", "ycsb-a-update", "ycsb-b-read", "ycsb-b-update", "ycsb-c-read",
    "ycsb-d-read", "ycsb-d-insert",
)  # fmt: skip

FIGURE_12 = MeanSet("nine bars", dict.fromkeys(BARS, 1), "Figure 12")
SIX = MeanSet("six workloads", dict.fromkeys(("liblinear", "graph500", *MIXES), 1), "Table 2, Figure 14")
TABLE_2 = MeanSet("six workloads, from three columns", {"Liblinear": 1, "Graph500": 1, "YCSB": 4}, "Table 2")
TABLE_3 = MeanSet("three columns", {"Liblinear": 1, "Graph500": 1, "YCSB": 1}, "Table 3")


def mean(over: MeanSet, values: Mapping[str, float]) -> float:
    """Geometric mean of plain numbers over a set.

    Raises:
        ValueError: a part of the set has no value, or one that is not positive.

    """
    if lacking := [name for name in over.parts if name not in values]:
        raise ValueError(f"the mean over {over.id} lacks {', '.join(lacking)}")
    return statistics.geomean([values[name] for name, times in over.parts.items() for _ in range(times)])


def estimate(over: MeanSet, values: Mapping[str, Estimate]) -> tuple[Estimate | None, Sequence[str]]:
    """The mean over those parts that have a value, and the names of those that have none."""
    lacking = [name for name in over.parts if name not in values]
    there = [values[name] for name, times in over.parts.items() if name in values for _ in range(times)]
    return (statistics.geomean_of(there) if there else None), lacking
