# SPDX-License-Identifier: GPL-2.0-or-later
"""A workload program under test, driven by the lines of its control protocol (``docs/workloads.md``)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SHAPES = (
    r"ready bytes=\d+",
    r"done ns=\d+ checksum=[0-9a-f]{16}( [^\s=]+=\S+)*",
    r"verified pages=\d+ bad=\d+",
    r"failed \S.*",
)


@dataclass(frozen=True)
class Said:
    """What a run said, line by line, and how it ended."""

    lines: list[str]
    status: int
    stderr: str

    def values(self, word: str) -> list[dict[str, str]]:
        """The ``key=value`` pairs of every line that begins with a word."""
        rows = [line.split()[1:] for line in self.lines if line.split()[0] == word]
        return [dict(pair.split("=", 1) for pair in row) for row in rows]

    @property
    def cause(self) -> str:
        """Why it failed; there must be one."""
        assert self.status == 1, self
        word, _, cause = self.lines[-1].partition(" ")
        assert word == "failed", self
        return cause


def say(program: Path, options: Iterable[object], *commands: str, timeout: float = 300) -> Said:
    """Run a program with all commands on its input; every line it says has one of the protocol's shapes."""
    done = subprocess.run(
        [program, *map(str, options)],
        input="".join(f"{command}\n" for command in commands),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.stdout == "" or done.stdout.endswith("\n")
    lines = done.stdout.splitlines()
    for line in lines:
        assert any(re.fullmatch(shape, line) for shape in _SHAPES), line
    return Said(lines, done.returncode, done.stderr)
