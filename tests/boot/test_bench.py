# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel series costs ksmd, in instructions, against the kernel without it."""

from __future__ import annotations

import pytest

from harness import bench

pytestmark = pytest.mark.boot


def test_the_series_costs_ksmd_less_than_a_hundredth() -> None:
    figures = bench.counters(1)
    assert len(figures) == 4
    for figure in figures:
        assert figure.limit == 1.0
        assert figure.holds, f"{figure.name}: {figure.value:.3f}%, {figure.note}"
        assert figure.value > -1.0, f"{figure.name}: {figure.value:.3f}%: not the same work"
    counting = figures[0]
    assert counting.value != 0.0, "the kernels with and without counters are the same"
