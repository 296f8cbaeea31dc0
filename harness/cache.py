# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept below the cache directory, and how it is removed without hurting a run under way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import checkpoint
from harness.config import lock, paths
from harness.errors import Busy, UsageError
from harness.run import run

KINDS = ("sources", "trees", "builds", "images", "checkpoints", "ccache", "logs", "tmp")


@dataclass(frozen=True)
class Entry:
    """One file or directory of the cache; ``size`` in bytes on disk."""

    kind: str
    path: Path
    size: int
    note: str = ""
    """What it is and how old, where its name does not tell."""


def entries(kinds: Sequence[str] = KINDS) -> list[Entry]:
    """What is there, by kind; the compiler cache is one entry.

    Raises:
        UsageError: no such kind.

    """
    found = []
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"the cache keeps no {kind!r}", hint=f"kinds: {' '.join(KINDS)}")
        top = paths().cache / kind
        if kind == "ccache":
            children = [top] if top.is_dir() else []
        else:
            # lock files stay: whoever waits for one holds it open
            children = sorted(path for path in top.glob("*") if not path.name.startswith("."))
        tell = checkpoint.describe if kind == "checkpoints" else _nothing
        found += [Entry(kind, path, _size(path), tell(path)) for path in children]
    return found


def _nothing(_path: Path) -> str:
    return ""


def _size(path: Path) -> int:
    total = 0
    if path.is_dir() and not path.is_symlink():
        for folder, _folders, names in os.walk(path):
            for name in names:
                try:
                    total += Path(folder, name).lstat().st_blocks * 512
                except FileNotFoundError:
                    continue  # a compiler is at work
    else:
        total = path.lstat().st_blocks * 512
    return total


def prune(kinds: Sequence[str], *, dry_run: bool = False) -> Iterator[tuple[Entry, str]]:
    """Remove entries of some kinds, saying for each what became of it.

    A build whose lock is held and a tree with edits in it are kept.
    """
    for entry in entries(kinds):
        if entry.kind == "trees" and _edited(entry.path):
            yield entry, "kept: it has edits; `harness patch refresh` exports them"
        elif dry_run:
            yield entry, "would be removed"
        else:
            yield entry, _remove(entry)


def _remove(entry: Entry) -> str:
    try:
        with lock(entry.path.with_name(f".{entry.path.name}.lock"), what=entry.path.name):
            if entry.path.is_dir() and not entry.path.is_symlink():
                shutil.rmtree(entry.path)
            else:
                entry.path.unlink(missing_ok=True)
    except Busy as error:
        return f"kept: {error.message}"
    return "removed"


def _edited(tree: Path) -> bool:
    if not (tree / ".git").exists():
        return False
    return bool(run(["git", "-C", tree, "status", "--porcelain", "-uno"], check=False).stdout.strip())
