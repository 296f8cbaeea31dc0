# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache model against a twin that shares no idea with it, and what its counts become."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from pathlib import Path

import pytest

from harness import llc
from harness.config import PROJECT
from harness.errors import BuildError, MachineError
from harness.profiler import parsed
from harness.run import run
from tests.ksm_core import SANITIZERS

Access = tuple[int, int, int, int]
"""Processor, class, kind, line."""
MASKS = ((0x7FFF, 0x7FFF, 0x7FFF), (0x7FFE, 0x1, 0x7FFE), (0x1, 0x1, 0x7FFE), (0x00F0, 0x0FF0, 0x7000))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in a program, with sanitizers."""
    out = tmp_path_factory.mktemp("llc") / "stream"
    source = PROJECT / "tests" / "llc" / "stream.c"
    flags = ("-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *SANITIZERS, f"-I{llc.MODEL.parent}")
    run(["gcc", *flags, "-o", out, source])
    return out


def _model(program: Path, sizes: tuple[int, ...], masks: tuple[int, ...], stream: list[Access]) -> list[list[int]]:
    text = "".join(f"{cpu} {owner} {kind} {line}\n" for cpu, owner, kind, line in stream)
    done = run([program, *map(str, sizes), *map(hex, masks)], input=text)
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def _twin(sizes: tuple[int, ...], masks: tuple[int, ...], stream: list[Access]) -> list[list[int]]:
    """Sets as ordered dictionaries, the least recently used first; a way is a number that a line carries."""
    private_sets, private_ways, sets, ways, processors = sizes
    near: list[list[OrderedDict[int, None]]] = [[OrderedDict() for _ in range(private_sets)] for _ in range(processors)]
    far: list[OrderedDict[int, int]] = [OrderedDict() for _ in range(sets)]
    recent = {(cpu, owner): deque[int](maxlen=16) for cpu in range(processors) for owner in range(3)}
    counts = [[0, 0, 0, 0] for _ in range(9)]
    for cpu, owner, kind, line in stream:
        if kind == 2:
            for other in range(processors):
                if other != cpu:
                    near[other][line % private_sets].pop(line, None)
        row, own, shared = counts[owner * 3 + kind], near[cpu][line % private_sets], far[line % sets]
        if line in own:
            own.move_to_end(line)
            row[0] += 1
            continue
        own[line] = None
        if len(own) > private_ways:
            own.popitem(last=False)
        if line in shared:
            shared.move_to_end(line)
            row[1] += 1
            continue
        allowed = [way for way in range(ways) if masks[owner] >> way & 1]
        free = [way for way in allowed if way not in shared.values()]
        if not free:
            oldest = next(old for old, way in shared.items() if way in allowed)
            free = [shared.pop(oldest)]
        shared[line] = free[0]
        history = recent[cpu, owner]
        stream_of_lines = any(old != line and old >> 6 == line >> 6 and abs(old - line) < 3 for old in history)
        history.append(line)
        row[2 if stream_of_lines else 3] += 1
    return counts


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 15, 1), (4, 2, 16, 15, 1), (8, 8, 32, 15, 3), (64, 8, 128, 15, 2)])
def test_counts_are_those_of_the_twin(program: Path, sizes: tuple[int, ...], masks: tuple[int, ...]) -> None:
    dice = random.Random(repr((sizes, masks)))
    room = sizes[2] * sizes[3]
    stream: list[Access] = []
    while len(stream) < 12000:
        cpu, owner, kind = dice.randrange(sizes[4]), dice.randrange(3), dice.randrange(3)
        start, length = dice.randrange(2 * room), dice.choice((1, 1, 1, 5, 80))
        stream += [(cpu, owner, kind, start + step) for step in range(length)]
    found = _model(program, sizes, masks, stream)
    assert found == _twin(sizes, masks, stream)
    assert sum(map(sum, found)) == len(stream)
    assert all(
        sum(row[column] for row in found) for column in range(4)
    )  # a stream that leaves out a case shows nothing


def test_streaming_twice_over_more_than_fits_misses_every_time_and_less_only_once(program: Path) -> None:
    sizes, masks = (4, 2, 16, 15, 1), MASKS[0]
    room = 16 * 15
    for lines, misses in ((2 * room, 4 * room), (room, room)):
        stream = [(0, 1, 1, line) for line in range(lines)] * 2
        load = _model(program, sizes, masks, stream)[4]
        assert load[2] + load[3] == misses
        assert load[1] == len(stream) - misses
        # of each page of lines only the first is far from all before it
        assert load[3] == misses * -(-lines // 64) // lines


def test_a_class_evicts_nothing_from_ways_that_are_not_its_own(program: Path) -> None:
    sizes = (1, 1, 16, 15, 1)
    own = [(0, 1, 1, line) for line in range(16)]
    flood = [(0, 0, 1, line) for line in range(1000, 6000)]
    assert _model(program, sizes, (0x7FFE, 0x1, 0x7FFE), own + flood + own)[4][1] == len(own)
    assert _model(program, sizes, (0x7FFF, 0x1, 0x7FFE), own + flood + own)[4][1] == 0
    # looked for in all ways: what another class brought is found
    assert _model(program, sizes, (0x7FFE, 0x1, 0x7FFE), [(0, 0, 1, 7), (0, 0, 1, 8), (0, 1, 1, 7)])[4][1] == 1


@pytest.mark.parametrize(
    ("sizes", "masks", "why"),
    [
        ((3, 8, 16, 15, 1), MASKS[0], "power of two"),
        ((4, 8, 0, 15, 1), MASKS[0], "power of two"),
        ((4, 8, 16, 33, 1), MASKS[0], "ways are 1 to 32"),
        ((4, 8, 16, 15, 0), MASKS[0], "no processor"),
        ((4, 8, 16, 15, 1), (0x8000, 1, 1), "mask"),
        ((4, 8, 16, 15, 1), (1, 0, 1), "mask"),
    ],
)
def test_sizes_that_cannot_be_are_refused(
    program: Path, sizes: tuple[int, ...], masks: tuple[int, ...], why: str
) -> None:
    done = run([program, *map(str, sizes), *map(hex, masks)], input="", check=False)
    assert done.returncode == 1
    assert why in done.stderr


# --- what the counts become ---------------------------------------------------------------------------

_TEXT = """llc 1
windows 1
switches 7
lost 0
instructions ksmd 1000
ksmd fetch 5 1 0 0
ksmd load 10 10 20 10
ksmd store 10 5 3 2
instructions vm1 2000
vm1 fetch 9 0 1 0
vm1 load 100 60 10 10
vm1 store 50 15 2 3
instructions other 10
other fetch 0 0 0 0
other load 0 0 0 0
other store 0 0 0 0
end
"""


def test_rates_and_cycles_by_hand() -> None:
    missed = llc.read(parsed(_TEXT, "llc"))
    assert missed.miss_rate("vm1") == 25 / 100
    assert missed.miss_rate("ksmd") == 35 / 50
    assert missed.miss_rate("vm1", "ksmd") == 60 / 150
    assert missed.miss_rate("other") == 0
    assert missed.cycles("vm1") == 0.4 * 2000 + 30 * 13 + 200 * 13
    assert missed.cycles_per_instruction("ksmd") == (0.4 * 1000 + 30 * 23 + 200 * 12) / 1000
    assert llc.metrics(missed)["llc_core"] == 0.4


@pytest.mark.parametrize(
    ("old", "new"),
    [("end\n", ""), ("windows 1", "windows 2"), ("switches 7", "switches 0"), ("lost 0", "lost 3"),
     ("vm1 load 100 60 10 10\n", ""), ("instructions other 10\n", "")],
)  # fmt: skip
def test_counts_that_are_not_whole_are_refused(old: str, new: str) -> None:
    assert old in _TEXT
    with pytest.raises(MachineError):
        llc.read(parsed(_TEXT.replace(old, new), "llc"))


def test_caches_are_to_the_fleet_as_the_papers_are_to_its_fleet() -> None:
    masks = dict.fromkeys(("ksmd", "vm1", "other"), 0x7FFF)
    full = llc.caches_for(40, 6144, masks)
    assert (full.sets, full.private_size) == (1 << 17, 2 << 20)  # 114,688 sets of 960 bytes, 2 MiB
    for vms, memory, size, private in ((40, 128, 1920, 32), (8, 48, 120, 16), (40, 10, 240, 4), (4, 0.5, 0.9375, 1)):
        found = llc.caches_for(vms, memory, masks)
        assert (found.size / 1024, found.private_size / 1024) == (size, private)


def test_the_argument_names_what_the_plugin_follows(tmp_path: Path) -> None:
    table = tmp_path / "System.map"
    table.write_text(
        "ffffffff81013ad0 T __switch_to\nffffffff811511a0 T __set_task_comm\nffffffff81a11600 D init_task\n"
    )
    caches = llc.Caches(128, 16, {"ksmd": 0x7FFE, "vm1": 1, "other": 0x7FFE})
    words = llc.argument(Path("/x/llc.so"), table, 640, caches, Path("/y/out")).split(",")
    assert words[0] == "/x/llc.so"
    assert {"switch=0xffffffff81013ad0", "name=0xffffffff811511a0", "first=0xffffffff81a11600"} < set(words)
    assert {f"hole={640 << 20}", "sets=128", "ways=15", "private-sets=16", "vm1=0x1", "other=0x7ffe"} < set(words)
    assert llc.below_devices(4096) == 2 << 30
    table.write_text("ffffffff81013ad0 T __switch_to\n")
    with pytest.raises(BuildError, match="__set_task_comm, init_task"):
        llc.argument(Path("/x/llc.so"), table, 640, caches, Path("/y/out"))
