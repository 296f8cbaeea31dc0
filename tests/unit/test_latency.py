# SPDX-License-Identifier: GPL-2.0-or-later
"""Histograms of latencies: C and Python agree on every value, pooling loses nothing, nonsense is refused."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram

from harness.config import PROJECT
from harness.errors import FleetError
from harness.latency import Latencies, parse
from harness.run import run
from tests.ksm_core import SANITIZERS

DRIVER = r"""
#include <inttypes.h>
#include "ycsb.h"

int main(void)
{
	static struct histogram histogram;
	static char text[1 << 22];
	uint64_t value;

	for (uint64_t earlier = 1; earlier < 1ULL << 60; earlier *= 3)
		histogram_add(&histogram, earlier);
	histogram_clear(&histogram);
	while (scanf("%" SCNu64, &value) == 1)
		histogram_add(&histogram, value);
	if (!histogram_text(&histogram, text, sizeof(text)))
		return 1;
	printf("%" PRIu64 " %" PRIu64, histogram_percentile(&histogram, 50), histogram_percentile(&histogram, 99));
	printf(" %" PRIu64 " %s\n", histogram.max, text);
	return histogram_text(&histogram, text, 3) ? 2 : 0;
}
"""


@pytest.fixture(scope="module")
def histogram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program around histogram.c, with sanitizers."""
    folder = tmp_path_factory.mktemp("histogram")
    (folder / "driver.c").write_text(DRIVER)
    sources = PROJECT / "vm-images" / "src" / "ycsb"
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", *SANITIZERS, f"-I{sources}"]
    run(["gcc", *flags, "-o", folder / "driver", folder / "driver.c", sources / "histogram.c"])
    return folder / "driver"


def _counted(program: Path, values: list[int]) -> tuple[int, int, Latencies]:
    said = subprocess.run([program], input=" ".join(map(str, values)), capture_output=True, text=True, check=True)
    p50, p99, longest, text = said.stdout.split()
    return int(p50), int(p99), Latencies.parse(text, int(longest))


def _reference(values: list[int]) -> HdrHistogram:
    reference = HdrHistogram(1, 3_600_000_000_000, 3)
    for value in values:
        assert reference.record_value(value)
    return reference


@pytest.mark.parametrize("spread", [11, 12, 20, 30, 41])
@pytest.mark.parametrize("count", [3, 49, 50, 99, 100, 101, 1000])
def test_c_counts_as_hdrhistogram_does(histogram: Path, spread: int, count: int) -> None:
    chance = random.Random(spread * 1000 + count)
    values = [min(3_600_000_000_000, int(2 ** (chance.random() * spread))) for _ in range(count)]
    values += [(1 << bit) + step for bit in range(10, spread) for step in (-1, 0, 1)]
    p50, p99, found = _counted(histogram, values)
    reference = _reference(values)
    assert found.counts == {at: reference.counts[at] for at in range(reference.counts_len) if reference.counts[at]}
    assert p50 == reference.get_value_at_percentile(50)
    assert p99 == reference.get_value_at_percentile(99)
    tail = found.tail()
    assert (tail.n, tail.p50_ns, tail.p99_ns, tail.max_ns) == (len(values), p50, p99, max(values))


def test_three_significant_digits_are_kept(histogram: Path) -> None:
    for value in (1, 2047, 2048, 123_456, 987_654_321, 3_600_000_000_000):
        p50, _p99, found = _counted(histogram, [value, value, value])
        assert value <= p50 <= value * 1.001
        assert list(found.counts.values()) == [3]


def test_what_is_longer_than_an_hour_counts_in_the_last_bucket(histogram: Path) -> None:
    _p50, _p99, found = _counted(histogram, [2**42, 2**63])
    assert found.counts == {_reference([]).counts_len - 1: 2}
    assert found.max_ns == 2**63


def test_pooled_is_what_one_histogram_of_all_samples_were(histogram: Path) -> None:
    chance = random.Random(1)
    parts = [[int(chance.lognormvariate(10 + part, 2)) for _ in range(500)] for part in range(3)]
    pooled = Latencies.pooled(_counted(histogram, part)[2] for part in parts)
    assert pooled == _counted(histogram, [value for part in parts for value in part])[2]
    assert pooled.tail().n == 1500
    assert Latencies.pooled([]).tail().n == 0


@pytest.mark.parametrize("text", ["", "x3", "1,", "5x0", "5,0", "-3", "1;2", "33792", "99999999999", "3x", "1 2"])
def test_a_damaged_histogram_is_refused(text: str) -> None:
    with pytest.raises(FleetError, match="histogram is damaged"):
        Latencies.parse(text, 1)


LINE = (
    "done ns=5 checksum=00000000000000ab workload=c operations=3 span_ns=4 behind_ns=0 read_n=3"
    " read_p50_ns=7 read_p99_ns=9 read_max_ns=9 read_hist=5,2,2"
    " read_intended_p50_ns=7 read_intended_p99_ns=9 read_intended_max_ns=9 read_intended_hist=5,2,2\n"
)


def test_an_answer_is_read() -> None:
    run = parse(LINE)
    assert (run.workload, run.operations, run.span_ns, run.behind_ns, run.checksum) == (
        "c",
        3,
        4,
        0,
        "00000000000000ab",
    )
    assert set(run.latencies) == {("read", "sent"), ("read", "intended")}
    assert run.latencies["read", "sent"].counts == {5: 1, 7: 1, 9: 1}


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("done", "failed", "instead of what it measured"),
        ("operations=3", "operations=4", "performed 4 operations and counted 3"),
        ("operations=3 ", "", "lacks 'operations'"),
        ("operations=3", "operations=three", "it is no number"),
        ("read_p99_ns=9", "read_p99_ns=10", "its histogram"),
        ("read_n=3", "read_n=2", "its histogram"),
        ("read_intended_hist=5,2,2", "read_intended_hist=5,2,3", "its histogram"),
        (" read_intended_hist=5,2,2", "", "lacks 'read_intended_hist'"),
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(old: str, new: str, cause: str) -> None:
    assert LINE.count(old) >= 1
    with pytest.raises(FleetError, match=cause):
        parse(LINE.replace(old, new, 1))
