# SPDX-License-Identifier: GPL-2.0-or-later
"""Where ksmd's instructions go: every function's, counted by a QEMU plugin on a sealed machine, not sampled.

What all plugins of ours have in common is here, too: how they are compiled, and how they follow a guest's tasks.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config import PROJECT, atomic_dir, is_whole, paths, seal, sha256_file, sha256_json
from harness.console import Symbols
from harness.errors import BuildError, MachineError
from harness.run import CommandFailed, run

if TYPE_CHECKING:
    from harness.qbuild import QemuBuild

SOURCE = PROJECT / "kernel" / "profiler" / "thread.c"
WINDOW = SOURCE.with_name("window.h")
"""What every plugin includes."""
FILE = "functions.txt"
"""What the plugin writes, in the directory of a cell."""

_FOLLOWED = {"switch": "__switch_to", "name": "__set_task_comm", "first": "init_task"}
_KSMD = "ksmd"


@dataclass(frozen=True)
class Function:
    """A function of the kernel and what ksmd executed in it, without what it calls."""

    name: str
    instructions: int
    entries: int
    """How often it was entered at its beginning."""


def plugin(qemu: QemuBuild) -> Path:
    """Compile the plugin for a QEMU, or return the one that was compiled for it before.

    Raises:
        BuildError: it does not compile.

    """
    return compiled(qemu, SOURCE)


def compiled(qemu: QemuBuild, source: Path, included: Iterable[Path] = ()) -> Path:
    """Compile a plugin for a QEMU, or return the one that was compiled for it before.

    Args:
        qemu: whose plugin interface.
        source: the plugin; its library is named after it.
        included: files of ours beside it that it includes.

    Raises:
        BuildError: it does not compile.

    """
    header = qemu.applied.tree.path / "include" / "qemu"
    marks = [*digests(source, *included), qemu.digest]
    final = paths().builds / f"profiler-{sha256_json(marks)[:12]}" / f"{source.stem}.so"
    if is_whole(final):
        return final
    try:
        flags = shlex.split(run(["pkg-config", "--cflags", "--libs", "glib-2.0"]).stdout)
        with atomic_dir(final.parent) as work:
            run(["gcc", "-O2", "-shared", "-fPIC", "-o", work / final.name, source, f"-I{header}", *flags])
            seal(work / final.name)
    except CommandFailed as error:
        raise BuildError(f"{source.name} does not compile:\n{error.completed.stderr[-2000:]}") from error
    return final


def digests(*files: Path) -> list[str]:
    """What a plugin is made of."""
    return [sha256_file(file) for file in (*files, WINDOW)]


def words(library: Path, system_map: Path, out: Path, more: Mapping[str, object]) -> str:
    """The ``-plugin`` argument of a plugin of ours; it writes to ``out`` when the guest's window closes.

    Raises:
        BuildError: the kernel lacks a symbol that tasks are followed by.

    """
    rows = (line.split() for line in system_map.read_text().splitlines())
    where = {row[2]: f"0x{row[0]}" for row in rows if len(row) == 3}
    if absent := [name for name in _FOLLOWED.values() if name not in where]:
        raise BuildError(f"{system_map}: no {', '.join(absent)}", hint="the plugin follows tasks by these")
    pairs = {"out": str(out).replace(",", ",,"), **{key: where[name] for key, name in _FOLLOWED.items()}, **more}
    return ",".join([str(library).replace(",", ",,"), *(f"{key}={value}" for key, value in pairs.items())])


def lines_of(out: Path, name: str) -> list[list[str]]:
    """The words of every line that a plugin wrote behind its head.

    Raises:
        MachineError: it wrote nothing, or not all, or the window was not opened and closed exactly once.

    """
    try:
        text = out.read_text(encoding="ascii")
    except FileNotFoundError as error:
        raise MachineError(
            f"the plugin {name} saw no window", hint="a kernel at a random address cannot be followed: nokaslr"
        ) from error
    return parsed(text, name)


def parsed(text: str, name: str) -> list[list[str]]:
    """The same of what was read.

    Raises:
        MachineError: it is not whole, or the window was not opened and closed exactly once.

    """
    lines = [line.split() for line in text.splitlines()]
    if len(lines) < 5 or lines[0] != [name, "1"] or lines[-1] != ["end"]:
        raise MachineError(f"what the plugin {name} wrote is not whole")
    facts = {line[0]: int(line[1]) for line in lines[1:4]}
    windows, switches, lost = (facts.get(key, 0) for key in ("windows", "switches", "lost"))
    if windows != 1 or not switches:
        raise MachineError(f"the plugin {name} saw {windows} windows and {switches} turns of tasks, not one window")
    if lost:
        raise MachineError(f"the plugin {name} lost {lost} events: what it counted is not whole")
    return lines[4:-1]


def argument(library: Path, system_map: Path, out: Path) -> str:
    """The ``-plugin`` argument that watches ksmd and writes to ``out`` when the window closes.

    Raises:
        BuildError: the kernel lacks a symbol that tasks are followed by.

    """
    return words(library, system_map, out, {"task": _KSMD})


def read(lines: Iterable[Sequence[str]], symbols: Symbols) -> list[Function]:
    """Add up what the plugin wrote (see :func:`lines_of`), function by function, the dearest first."""
    instructions: Counter[int] = Counter()
    entries: Counter[int] = Counter()
    for line in lines:
        address, length, count = int(line[0], 16), int(line[1]), int(line[2])
        at = symbols.at(address)
        instructions[at] += length * count
        if symbols.addresses[at] == address:
            entries[at] += count
    return [Function(symbols.names[at], number, entries[at]) for at, number in instructions.most_common()]
