# SPDX-License-Identifier: GPL-2.0-or-later
"""Golden consoles: recorded from live guests or written after what the kernel prints."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.console import Outcome, Reader, Symbols, judge, registers

FOLDER = Path(__file__).parent.parent / "data" / "consoles"
EXPECTED: dict[str, dict[str, Any]] = tomllib.loads((FOLDER / "expected.toml").read_text())


def test_every_console_has_an_expectation() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_golden(name: str) -> None:
    expected = EXPECTED[name]
    verdict = judge((FOLDER / f"{name}.txt").read_bytes())
    assert verdict.outcome == expected["outcome"]
    assert expected.get("headline", "") in verdict.headline
    assert any(expected.get("tail", "") in line for line in [*verdict.tail, ""])
    assert verdict.done == expected.get("done")
    if "count" in expected:
        assert len(verdict.findings) == expected["count"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 30000), max_size=20))
def test_pieces_do_not_matter(name: str, cuts: list[int]) -> None:
    data = (FOLDER / f"{name}.txt").read_bytes()
    reader = Reader()
    edges = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        reader.feed(data[start:end])
    whole = judge(data)
    assert (reader.verdict().outcome, reader.verdict().headline) == (whole.outcome, whole.headline)
    assert reader.verdict().tail == whole.tail


@given(st.binary(max_size=2000))
def test_any_bytes_are_judged(data: bytes) -> None:
    judge(data).explain()


def test_every_outcome_has_its_own_status() -> None:
    statuses = [outcome.status for outcome in Outcome]
    assert len(set(statuses)) == len(statuses)
    assert [outcome for outcome in Outcome if outcome.status == 0] == [Outcome.CLEAN]


def test_windows_line_ends_and_colours() -> None:
    text = "\x1b[31m[    1.000000] Kernel panic - not syncing: VFS: Unable to mount root fs\x1b[0m\r\n"
    assert judge(text).headline == "Kernel panic - not syncing: VFS: Unable to mount root fs"


def test_raw_addresses_are_named(tmp_path: Path) -> None:
    table = tmp_path / "System.map"
    table.write_text(
        "ffffffff81000000 T _text\nffffffff81001000 t ksm_do_scan\nffffffff81001800 T kfree\n"
        "ffffffff82000000 D data_is_no_text\n"
    )
    symbols = Symbols.read(table)
    text = "[    1.000000] Kernel panic - not syncing: x\n[    1.000001]  [<ffffffff81001010>] 0xffffffff81001801\n"
    tail = "\n".join(judge(text, symbols).tail)
    assert "ffffffff81001010 (ksm_do_scan+0x10)" in tail
    assert "0xffffffff81001801 (kfree+0x1)" in tail
    assert symbols.name(0x1000) is None
    assert symbols.name(0xFFFFFFFF90000000) is None


def test_registers_of_a_silent_machine(tmp_path: Path) -> None:
    table = tmp_path / "System.map"
    table.write_text("ffffffff81001000 t native_halt\n")
    dump = "CPU#0\nRAX=0 RBX=0\nRIP=ffffffff81001002 RFL=00000246\nCPU#1\nEIP=0000fff0 EFL=00000002\n"
    assert list(registers(dump, Symbols.read(table))) == [
        "cpu 0: at 0xffffffff81001002 (native_halt+0x2)",
        "cpu 1: at 0xfff0",
    ]


def test_a_later_warning_does_not_hide_an_oops() -> None:
    oops = (FOLDER / "oops-null.txt").read_text()
    warning = (FOLDER / "warning.txt").read_text()
    verdict = judge(warning + oops)
    assert verdict.outcome is Outcome.OOPS
    assert "also: warning: WARNING: CPU: 0" in verdict.explain()
