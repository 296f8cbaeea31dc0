# SPDX-License-Identifier: GPL-2.0-or-later
"""What the profiler's blocks add up to. The plugin itself is tested on a machine, in tests/boot."""

from __future__ import annotations

from harness.console import Symbols
from harness.profiler import Function, read

SYMBOLS = Symbols((0x1000, 0x2000, 0x3000), ("first", "second", "third"))


def test_blocks_are_added_up_by_function_and_entries_are_counted_at_its_beginning() -> None:
    blocks = ["1000 5 10", "1010 3 100", "1000 2 7", "2ff0 1 1000", "2000 4 3"]
    assert read(map(str.split, blocks), SYMBOLS) == [Function("second", 1012, 3), Function("first", 364, 17)]


def test_who_executed_nothing_is_not_listed() -> None:
    assert read([], SYMBOLS) == []
