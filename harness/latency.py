# SPDX-License-Identifier: GPL-2.0-or-later
"""Latencies of a load generator's clients: read from their answers, pooled, and their percentiles.

``vm-images/src/ycsb`` counts in the buckets of HdrHistogram (1 ns to an hour, three significant digits), so pooling
the counts of clients and seeds loses nothing. A 99th percentile is that of few samples where a profile is small:
every :class:`Tail` carries how many there were.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from hdrh.histogram import HdrHistogram

from harness.errors import FleetError

Kind = Literal["read", "update", "insert"]
"""What an operation is."""

Start = Literal["sent", "intended"]
"""From when a latency counts: from the actual sending, or from when the operation should have been sent."""

_LONGEST = 3_600_000_000_000  # ns
_DIGITS = 3
_STEP = re.compile(r"(\d+)(?:x(\d+))?")
_PREFIX: Mapping[Start, str] = {"sent": "", "intended": "_intended"}


@dataclass(frozen=True)
class Tail:
    """How many samples there were, and how long the slowest took (ns)."""

    n: int
    p50_ns: int
    p99_ns: int
    max_ns: int


@dataclass(frozen=True)
class Latencies:
    """Samples by bucket, and the longest of them exactly."""

    counts: Mapping[int, int]
    max_ns: int

    @classmethod
    def parse(cls, text: str, max_ns: int) -> Latencies:
        """Read ``BUCKET[xCOUNT],STEP[xCOUNT],...`` as ``histogram.c`` writes it.

        Raises:
            FleetError: it is no such text.

        """
        buckets = _empty().counts_len
        counts: dict[int, int] = {}
        bucket = 0
        for word in text.split(","):
            match = _STEP.fullmatch(word)
            count = int(match[2] or 1) if match else 0
            bucket += int(match[1]) if match else 0
            if not count or bucket in counts or bucket >= buckets:
                raise FleetError(f"a client's histogram is damaged at {word[:40]!r}")
            counts[bucket] = count
        return cls(counts, max_ns)

    @classmethod
    def pooled(cls, parts: Iterable[Latencies]) -> Latencies:
        """All samples of several clients, rounds or seeds together."""
        counts: Counter[int] = Counter()
        longest = 0
        for part in parts:
            counts.update(part.counts)
            longest = max(longest, part.max_ns)
        return cls(dict(sorted(counts.items())), longest)

    def tail(self) -> Tail:
        """Their percentiles, by HdrHistogram's rule: the highest value of the bucket that holds the rank."""
        histogram = _empty()
        for bucket, count in self.counts.items():
            histogram.record_value(histogram.get_value_from_index(bucket), count)
        at: dict[float, int] = histogram.get_percentile_to_value_dict([50, 99]) if self.counts else {}
        return Tail(histogram.get_total_count(), at.get(50, 0), at.get(99, 0), self.max_ns)


@dataclass(frozen=True)
class ClientRun:
    """What one client answered to ``go``.

    Attributes:
        workload: a to d.
        operations: how many it performed.
        span_ns: from when the first should have begun to when the last was answered.
        behind_ns: the most that an operation was sent too late; far above a few intervals the server was saturated.
        checksum: of the operations; the same for equal seeds and as many operations.
        latencies: by kind and start; kinds that did not occur are absent.

    """

    workload: str
    operations: int
    span_ns: int
    behind_ns: int
    checksum: str
    latencies: Mapping[tuple[Kind, Start], Latencies]


def parse(line: str) -> ClientRun:
    """Read a client's ``done`` line.

    Raises:
        FleetError: it is something else, or contradicts itself.

    """
    word, *pairs = line.split()
    said = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if word != "done":
        raise FleetError(f"a client answered {line.strip()[:200]!r} instead of what it measured")
    try:
        latencies = {(kind, start): _latencies(said, kind, start) for kind in _kinds(said) for start in get_args(Start)}
        run = ClientRun(
            said["workload"],
            int(said["operations"]),
            int(said["span_ns"]),
            int(said["behind_ns"]),
            said["checksum"],
            latencies,
        )
    except (KeyError, ValueError) as error:
        raise FleetError(f"a client's answer lacks {error}, or it is no number") from error
    counted = sum(sum(part.counts.values()) for (_kind, start), part in latencies.items() if start == "sent")
    if counted != run.operations:
        raise FleetError(f"a client performed {run.operations} operations and counted {counted}")
    return run


def _kinds(said: Mapping[str, str]) -> list[Kind]:
    return [kind for kind in get_args(Kind) if f"{kind}_n" in said]


def _latencies(said: Mapping[str, str], kind: Kind, start: Start) -> Latencies:
    name = f"{kind}{_PREFIX[start]}"
    found = Latencies.parse(said[f"{name}_hist"], int(said[f"{name}_max_ns"]))
    told = Tail(
        int(said[f"{kind}_n"]), int(said[f"{name}_p50_ns"]), int(said[f"{name}_p99_ns"]), int(said[f"{name}_max_ns"])
    )
    if found.tail() != told:
        raise FleetError(f"a client's {name} says {told}, its histogram {found.tail()}")
    return found


def pool(runs: Iterable[ClientRun]) -> dict[tuple[Kind, Start], Latencies]:
    """All samples of several clients or seeds, by kind and start."""
    parts: dict[tuple[Kind, Start], list[Latencies]] = {}
    for run in runs:
        for key, found in run.latencies.items():
            parts.setdefault(key, []).append(found)
    return {key: Latencies.pooled(found) for key, found in parts.items()}


def highest(bucket: int) -> int:
    """The highest latency (ns) that a bucket holds: what a percentile in it is."""
    histogram = _unfilled()
    return int(histogram.get_highest_equivalent_value(histogram.get_value_from_index(bucket)))


@cache
def _unfilled() -> HdrHistogram:
    """For its buckets alone."""
    return _empty()


def _empty() -> HdrHistogram:
    return HdrHistogram(1, _LONGEST, _DIGITS)
