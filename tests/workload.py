# SPDX-License-Identifier: GPL-2.0-or-later
"""A workload program under test, driven by the lines of its control protocol (``docs/workloads.md``)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096
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


class Talk:
    """A program that waits for the next command."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.ready = self.hear()

    def hear(self) -> dict[str, str]:
        assert self.child.stdout is not None
        return dict(pair.split("=", 1) for pair in self.child.stdout.readline().split()[1:])

    def __call__(self, command: str) -> dict[str, str]:
        assert self.child.stdin is not None
        self.child.stdin.write(f"{command}\n")
        self.child.stdin.flush()
        return self.hear()

    @property
    def resident(self) -> int:
        """Bytes of anonymous memory that it has."""
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        match = re.search(r"RssAnon:\s+(\d+) kB", text)
        assert match is not None
        return 1024 * int(match[1])

    def area(self, size: int) -> int:
        """The address of its only area of a size."""
        rows = Path(f"/proc/{self.child.pid}/maps").read_text().splitlines()
        bounds = [[int(word, 16) for word in row.split()[0].split("-")] for row in rows]
        (start,) = (low for low, high in bounds if high - low == size)
        return start

    def poke(self, address: int, flip: int) -> None:
        """Flip bits of a byte behind its back."""
        with Path(f"/proc/{self.child.pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(address)
            byte = memory.read(1)[0]
            memory.seek(address)
            memory.write(bytes([byte ^ flip]))


@contextmanager
def talk(program: Path, *words: object) -> Iterator[Talk]:
    """Start a program, talk to it, and see it end well when there is nothing more to say."""
    with subprocess.Popen(
        [program, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        yield Talk(child)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(30) == 0
