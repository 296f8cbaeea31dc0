# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel series costs ksmd and what it saves, in instructions, which repeat exactly."""

from __future__ import annotations

import pytest

from harness import bench, passes
from harness.workbench import workbench

pytestmark = pytest.mark.boot


def test_the_series_costs_ksmd_less_than_a_hundredth_until_it_is_asked_for() -> None:
    figures = bench.counters(bench.Terms())
    assert len(figures) == 4
    for figure in figures:
        assert figure.limit == 1.0
        assert figure.holds, f"{figure.name}: {figure.value:.3f}%, {figure.note}"
        assert figure.value > -1.0, f"{figure.name}: {figure.value:.3f}%: not the same work"
    assert all(figure.value != 0.0 for figure in figures), "the kernels with and without the series are the same"


def test_para_ksmc_spends_what_it_promises() -> None:
    """The fleets and limits of ``harness bench systems``, without the systems that only that prints."""
    wanted = (passes.BASELINE, passes.PARA_C, passes.TRANSLATED, passes.DSA_HYBRID, passes.PARA_T_HYBRID)
    rows = passes.measure(workbench(image="measured"), wanted)
    figures = bench.against(rows)
    assert [figure.name for figure in figures if not figure.holds] == []
    assert len(figures) == 2 * 6
    assert {spent.merged_pass for spent in rows.values()} == {2}
    assert len({spent.saved for spent in rows.values()}) == 1


def test_the_profiler_counts_what_the_scheduler_counts() -> None:
    spent, functions = passes.profile(workbench(image="measured"), passes.BASELINE, "mixed")
    assert abs(sum(each.instructions for each in functions) / spent.whole - 1) < 0.01
    of = {each.name: each for each in functions}
    assert of["memcmp"].entries > spent.saved
    assert of["xxh64"].entries > spent.scanned // len(spent.passes)
