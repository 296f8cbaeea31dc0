# SPDX-License-Identifier: GPL-2.0-or-later
"""KSM's knobs, counters and the arithmetic of stable nodes."""

from __future__ import annotations

import pytest

from harness import ksm
from harness.errors import FleetError, UsageError
from harness.ksm import KsmKnobs, Nodes


@pytest.mark.parametrize(
    ("mappings", "wanted"),
    [
        (0, Nodes(0, 0, 0, 0, 0)),
        (1, Nodes(0, 0, 1, 0, 0)),  # nobody to share with
        (2, Nodes(1, 1, 0, 0, 0)),
        (256, Nodes(1, 255, 0, 0, 0)),  # a full node
        (257, Nodes(1, 255, 1, 0, 0)),  # the last one waits for a partner for ever
        (258, Nodes(2, 256, 0, 1, 2)),  # a second node, hence a chain
        (512, Nodes(2, 510, 0, 1, 2)),
        (800, Nodes(4, 796, 0, 1, 4)),
    ],
)
def test_nodes_of_one_content(mappings: int, wanted: Nodes) -> None:
    found = ksm.nodes(mappings, 256)
    assert found == wanted
    assert found.shared + found.sharing + found.unshared == mappings


def test_nodes_add_up() -> None:
    two = Nodes(1, 1, 0, 0, 0)
    assert two.times(3) + Nodes(0, 0, 5, 1, 2) == Nodes(3, 3, 5, 1, 2)


@pytest.mark.parametrize(
    "wrong", [{"pages_to_scan": 0}, {"pages_to_scan": 2**32}, {"sleep_millisecs": -1}, {"max_page_sharing": 1}]
)
def test_knobs_that_the_kernel_refuses(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        KsmKnobs(**wrong)  # type: ignore[arg-type]


def test_absent_counters_may_be_absent_and_others_not() -> None:
    plain = [column.name for column in ksm.COLUMNS if column.always]
    ksm.check_columns(plain)
    ksm.check_columns([*plain, "pages_scanned"])
    with pytest.raises(FleetError, match="pages_shared"):
        ksm.check_columns([name for name in plain if name != "pages_shared"])
    with pytest.raises(FleetError, match="dsa_descriptors"):
        ksm.check_columns([*plain, "dsa_descriptors"])


def _row(**values: int) -> dict[str, int]:
    return {column.name: 0 for column in ksm.COLUMNS} | values


@pytest.mark.parametrize("name", [column.name for column in ksm.COLUMNS if column.monotone])
def test_a_counter_that_falls_is_reported_by_name(name: str) -> None:
    rows = [_row(t_ns=1, pages_scanned=9), _row(t_ns=2, pages_scanned=9)]
    assert ksm.check_samples(rows) == []
    rows[0][name], rows[1][name] = 8, 7
    assert any(name in fault and "fell from 8 to 7" in fault for fault in ksm.check_samples(rows))


def test_counters_that_may_fall() -> None:
    assert ksm.check_samples([_row(pages_sharing=5, pages_shared=2), _row(t_ns=1)]) == []


def test_no_more_checksums_than_candidates() -> None:
    assert ksm.check_samples([_row(page_checksums=4, pages_scanned=3)]) == [
        "more checksums than candidates at t = 0 ns"
    ]
    without = _row(page_checksums=4)
    del without["pages_scanned"]
    assert ksm.check_samples([without]) == []
