# SPDX-License-Identifier: GPL-2.0-or-later
"""Ratios, their medians and how sure they are. Ratios are averaged as logarithms, never arithmetically."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 20_250_707
"""A fixed seed of the resampling: the same samples give the same interval."""


@dataclass(frozen=True)
class Estimate:
    """A median over ``n`` seeds; ``low`` and ``high`` bound it at 95% when n > 1, else they are None."""

    value: float
    low: float | None
    high: float | None
    n: int
    samples: tuple[float, ...] = ()
    """What each seed gave, in the order of the seeds: means over workloads resample them together."""


def geomean(values: Sequence[float]) -> float:
    """The geometric mean.

    Raises:
        ValueError: no values, or one that is not positive.

    """
    if not values or any(value <= 0 for value in values):
        raise ValueError("a geometric mean needs positive values")
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Median of a/b over pairs (one a seed) with a bootstrap interval of the log-ratio.

    Raises:
        ValueError: no pairs, unequal lengths, or a number that is not positive.

    """
    if len(numerators) != len(denominators) or not numerators:
        raise ValueError("pairs are needed")
    if any(value <= 0 for value in (*numerators, *denominators)):
        raise ValueError("a ratio needs positive numbers")
    return exponential(median([math.log(a / b) for a, b in zip(numerators, denominators, strict=True)]))


def median(values: Sequence[float]) -> Estimate:
    """Median of samples with a 95% interval: BCa bootstrap, percentile where BCa has no answer.

    Raises:
        ValueError: no values.

    """
    return _mean_of_medians([values])


def geomean_of(parts: Sequence[Estimate]) -> Estimate:
    """Geometric mean over workloads of what :func:`paired_ratio` or :func:`median` said of each.

    Its interval comes from resampling seeds, the same ones for all workloads: a seed that was slow in one of them
    is drawn with what it gave in the others.

    Raises:
        ValueError: no parts, one that is not positive, or parts of different seeds.

    """
    if not parts or any(sample <= 0 for part in parts for sample in (part.value, *part.samples)):
        raise ValueError("a geometric mean needs positive values")
    if len({(part.n, len(part.samples)) for part in parts}) > 1:
        raise ValueError("a mean over workloads needs the same seeds in each")
    if not parts[0].samples:
        return Estimate(geomean([part.value for part in parts]), None, None, parts[0].n)
    mean = exponential(_mean_of_medians([[math.log(sample) for sample in part.samples] for part in parts]))
    # of one seed (or one workload) it is exactly the mean of what stands in the table
    return replace(mean, value=geomean([part.value for part in parts]))


def _mean_of_medians(rows: Sequence[Sequence[float]]) -> Estimate:
    """Mean over rows (workloads) of the median over columns (seeds), with an interval over the seeds.

    Raises:
        ValueError: no values.

    """
    import numpy

    data = numpy.asarray(rows, dtype=float)
    if data.size == 0:
        raise ValueError("no values")
    seeds = int(data.shape[1])
    middle, samples = float(numpy.median(data, axis=1).mean()), tuple(map(float, data.mean(axis=0)))
    if seeds == 1:
        return Estimate(middle, None, None, 1, samples)
    if float(numpy.ptp(data, axis=1).max()) == 0.0:
        return Estimate(middle, middle, middle, seeds, samples)
    low, high = _bootstrap(data, "BCa")
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = _bootstrap(data, "percentile")
    return Estimate(middle, low, high, seeds, samples)


def exponential(estimate: Estimate) -> Estimate:
    """An estimate of a logarithm as one of the number itself."""
    return Estimate(
        math.exp(estimate.value),
        None if estimate.low is None else math.exp(estimate.low),
        None if estimate.high is None else math.exp(estimate.high),
        estimate.n,
        tuple(math.exp(sample) for sample in estimate.samples),
    )


def _bootstrap(data: Any, method: str) -> tuple[float, float]:
    import warnings

    import numpy
    from scipy import stats

    def statistic(*rows: Any, axis: int) -> Any:
        return sum(numpy.median(row, axis=axis) for row in rows) / len(rows)

    with warnings.catch_warnings():  # a degenerate BCa warns and answers NaN, which the caller handles
        warnings.simplefilter("ignore")
        interval = stats.bootstrap(
            tuple(data),
            statistic,
            paired=True,  # one draw of seeds for all rows
            vectorized=True,
            confidence_level=LEVEL,
            n_resamples=RESAMPLES,
            method=method,
            rng=numpy.random.default_rng(SEED),
        ).confidence_interval
    return float(interval.low), float(interval.high)


def time_share_bound(utilisation: float) -> float:
    """The least degradation of a CPU-bound application that shares its core with a ksmd taking this share.

    ``1 / (1 - u)``; what is measured above it is caches and copy-on-write.

    Raises:
        ValueError: a share outside [0, 1).

    """
    if not 0 <= utilisation < 1:
        raise ValueError(f"{utilisation} is no share of a core")
    return 1 / (1 - utilisation)
