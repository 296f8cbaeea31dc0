# SPDX-License-Identifier: GPL-2.0-or-later
"""Latencies of several seeds pooled: as one histogram says it, and no surer than its seeds."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import fleet
from harness.experiment.store import RunRecord
from harness.latency import Latencies
from harness.report import tails
from tests.fake_fleet import result

counts = st.dictionaries(st.integers(0, 30_000), st.integers(1, 300), min_size=1, max_size=20)


@given(st.lists(counts, min_size=1, max_size=4), st.data())
def test_the_percentile_is_that_of_one_histogram(found: list[dict[int, int]], data: st.DataObject) -> None:
    parts = [Latencies(each, 1) for each in found]
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(parts), max_size=len(parts)).filter(any))
    taken = [part for part, often in zip(parts, times, strict=True) for _ in range(often)]
    assert tails.p99(parts, numpy.array([times])).tolist() == [Latencies.pooled(taken).tail().p99_ns]


def _seeds(number: int, slow: float) -> list[Latencies]:
    """Seeds of 200 samples each, of which every fiftieth takes ``slow`` times as long."""
    chance = random.Random(number)
    return [
        Latencies({chance.randrange(100, 120): 196, int(chance.randrange(200, 240) * slow): 4}, 1)
        for _ in range(number)
    ]


def test_the_interval_holds_the_ratio_and_is_the_same_every_time() -> None:
    first, again = (tails.pooled_ratio(_seeds(5, 2), _seeds(5, 1)) for _ in range(2))
    assert first == again
    assert first.low is not None and first.high is not None
    assert 1.5 < first.low <= first.value <= first.high < 2.6
    assert first.n == 5


def test_seeds_are_drawn_for_both_systems_together() -> None:
    """Each seed is as slow under one system as under the other, so that seeds differ says nothing of the ratio."""
    both = [Latencies({100 * seed: 90, 200 * seed: 10}, 1) for seed in range(1, 6)]
    found = tails.pooled_ratio(both, both)
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_one_seed_has_no_interval() -> None:
    found = tails.pooled_ratio(_seeds(1, 3), _seeds(1, 1))
    assert (found.low, found.high, found.n) == (None, None, 1)


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (2, 1)])
def test_seeds_without_a_partner_are_refused(ours: int, theirs: int) -> None:
    with pytest.raises(ValueError, match="pairs of seeds"):
        tails.pooled_ratio(_seeds(ours, 1), _seeds(theirs, 1))


def test_the_samples_of_a_run_are_read_from_what_its_guest_wrote(tmp_path: Path) -> None:
    """Two clients, three reads each, of which one took 9 ns."""
    client = "done workload=c operations=3 span_ns=4 behind_ns=0 checksum=ab read_n=3" + "".join(
        f" read{start}_p50_ns=7 read{start}_p99_ns=9 read{start}_max_ns=9 read{start}_hist=5,2,2"
        for start in ("", "_intended")
    )
    body, _, _ = result(fleet.profile("unit")).rpartition(b"end ")
    body += f"[clients]\n2 {client}\n3 {client}\n".encode()
    (tmp_path / "results.raw").write_bytes(body + f"end {zlib.crc32(body):08x} {len(body)}\n".encode())
    found = tails.of(RunRecord("a", {}, {}, "ok", "", {}, tmp_path), "read")
    assert found.counts == {5: 2, 7: 2, 9: 2}
