# SPDX-License-Identifier: GPL-2.0-or-later
"""Latencies of several seeds as one set: a tail of few samples a seed is surer of them all.

A 99th percentile of 150 updates is nearly their maximum; that of five seeds together has seven samples above it. How
sure it is tells a bootstrap that draws whole seeds, the same for both systems, because samples of one seed share the
plan and the memory of one fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from harness import fleet
from harness.experiment.store import RunRecord
from harness.latency import Kind, Latencies, Start, highest
from harness.report import statistics
from harness.report.statistics import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray


def of(record: RunRecord, operation: str, start: Start = "sent") -> Latencies:
    """All samples of an operation in a finished run, from what the guest program wrote."""
    return fleet.parse((record.path / "results.raw").read_bytes()).latencies[cast("Kind", operation), start]


def pooled_ratio(ours: Sequence[Latencies], theirs: Sequence[Latencies]) -> Estimate:
    """The 99th percentile of one system's samples over that of another's, all seeds pooled, paired by seed.

    Raises:
        ValueError: no seeds, or unequal numbers of them.

    """
    import numpy

    if not ours or len(ours) != len(theirs):
        raise ValueError("pairs of seeds are needed")
    seeds = len(ours)
    whole = numpy.ones((1, seeds), dtype=int)
    value = float((p99(ours, whole) / p99(theirs, whole))[0])
    if seeds == 1:
        return Estimate(value, None, None, 1)
    drawn = numpy.random.default_rng(statistics.SEED).integers(seeds, size=(statistics.RESAMPLES, seeds))
    times = (drawn[:, :, None] == numpy.arange(seeds)).sum(axis=1)
    ratios = numpy.log(p99(ours, times) / p99(theirs, times))
    tail = (1 - statistics.LEVEL) / 2
    low, high = numpy.exp(numpy.quantile(ratios, [tail, 1 - tail]))
    return Estimate(value, float(low), float(high), seeds)


def p99(parts: Sequence[Latencies], times: NDArray[Any]) -> NDArray[Any]:
    """For each row of ``times`` the 99th percentile (ns) of the parts pooled, each taken so many times.

    By the rule of :meth:`harness.latency.Latencies.tail`, for thousands of rows at once.
    """
    import numpy

    buckets = sorted({bucket for part in parts for bucket in part.counts})
    counts = numpy.array([[part.counts.get(bucket, 0) for bucket in buckets] for part in parts])
    piled = (times @ counts).cumsum(axis=1)
    rank = numpy.maximum(1, (99.0 * piled[:, -1] / 100 + 0.5).astype(int))
    values = numpy.array([highest(bucket) for bucket in buckets], dtype=float)
    return cast("NDArray[Any]", values[(piled >= rank[:, None]).argmax(axis=1)])
