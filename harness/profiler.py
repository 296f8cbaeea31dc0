# SPDX-License-Identifier: GPL-2.0-or-later
"""Where ksmd's instructions go: every function's, counted by a QEMU plugin on a sealed machine, not sampled."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config import PROJECT, atomic_dir, is_whole, paths, seal, sha256_file, sha256_json
from harness.console import Symbols
from harness.errors import BuildError
from harness.run import CommandFailed, run

if TYPE_CHECKING:
    from harness.qbuild import QemuBuild

SOURCE = PROJECT / "kernel" / "profiler" / "thread.c"
_THREAD = "ksm_scan_thread"
_SWITCH = "__switch_to"


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
    marks = [*(sha256_file(file) for file in (source, *included)), qemu.digest]
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


def argument(library: Path, symbols: Symbols, out: Path) -> str:
    """The ``-plugin`` argument that watches ksmd and writes to ``out`` when QEMU ends.

    Raises:
        BuildError: the kernel has no ksmd.

    """
    where = dict(zip(symbols.names, symbols.addresses, strict=True))
    if _THREAD not in where:
        raise BuildError("this kernel has no ksmd", hint="CONFIG_KSM=y")
    return f"{library},out={out},switch={where[_SWITCH]:#x},thread={where[_THREAD]:#x}"


def read(lines: Iterable[str], symbols: Symbols) -> list[Function]:
    """Add up what the plugin wrote, function by function, the dearest first."""
    instructions: Counter[int] = Counter()
    entries: Counter[int] = Counter()
    for line in lines:
        words = line.split()
        address, length, count = int(words[0], 16), int(words[1]), int(words[2])
        at = symbols.at(address)
        instructions[at] += length * count
        if symbols.addresses[at] == address:
            entries[at] += count
    return [Function(symbols.names[at], number, entries[at]) for at, number in instructions.most_common()]
