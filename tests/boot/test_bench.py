# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel series costs ksmd, in instructions, against the kernel without it."""

from __future__ import annotations

import pytest

from harness import bench

pytestmark = pytest.mark.boot


def test_the_counters_cost_ksmd_less_than_a_hundredth() -> None:
    figures = bench.counters(1)
    assert len(figures) == 4
    # the second two are of the whole series, whose cost in mode cpu `harness bench counters` prints and judges
    for figure in figures[:2]:
        assert figure.limit == 1.0
        assert figure.holds, f"{figure.name}: {figure.value:.3f}%, {figure.note}"
        assert figure.value > -1.0, f"{figure.name}: {figure.value:.3f}%: not the same work"
    counting = figures[0]
    assert counting.value != 0.0, "the kernels with and without counters are the same"
