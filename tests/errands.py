# SPDX-License-Identifier: GPL-2.0-or-later
"""Executors for other processes: they answer as :mod:`tests.fake_fleet` does, and leave marks in a folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distributed import get_worker

from harness.config import PROJECT
from harness.errors import EnvironmentProblem, MachineError
from harness.experiment.plan import Cell
from tests.fake_fleet import result


@dataclass
class Errand:
    """Does with each cell what ``deeds`` says, by system and seed; every start is a line of ``folder/ran``."""

    folder: Path
    deeds: Mapping[str, str] = field(default_factory=dict)
    parallel: bool = True
    seconds: float = 0.0
    parts: Mapping[str, Path] = field(default_factory=dict)
    """Files it wants to find, each with its own name in it."""
    root: Path | None = None

    def files(self, cells: Iterable[Cell]) -> dict[str, Path]:
        return dict(self.parts)

    def moved(self, root: Path) -> Errand:
        return Errand(self.folder, self.deeds, self.parallel, self.seconds, self.parts, root)

    def execute(self, cell: Cell, work: Path) -> bytes:
        name = f"{cell.system}-{cell.seed}"
        first = not any(row.startswith(f"{name} ") for row in self.ran())
        self._note("ran", f"{name} {os.getpid()}")
        with contextlib.suppress(ValueError):  # at home there is none
            self._note("addresses", get_worker().address)
        for part, path in self.parts.items():
            found = path if self.root is None else self.root / part
            assert found.read_text() == part
            self._note("found", str(found))
        (work / "console.log").write_text("booting\n")
        (work / "qemu.argv").write_text(f"qemu -chardev file,path={work}/results.bin\n")
        begun = time.monotonic()
        try:
            self._do(self.deeds.get(name, ""), first)
            time.sleep(self.seconds)
        finally:
            self._note("spans", f"{begun} {time.monotonic()}")
        return result(cell.fleet)

    def _do(self, deed: str, first: bool) -> None:
        if deed == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if deed == "fail":
            raise MachineError("the machine panicked")
        if deed == "lack":
            raise EnvironmentProblem("no space left", hint="make room")
        if deed == "hang" and first:
            if not self._stop().wait(120):
                raise AssertionError("nobody ended it")
            self._note("cancelled", str(os.getpid()))
            raise MachineError("the machine was stopped")

    def cancel(self) -> None:
        self._stop().set()

    def _stop(self) -> threading.Event:
        return _STOPS.setdefault(id(self), threading.Event())

    def _note(self, name: str, line: str) -> None:
        with (self.folder / name).open("a") as stream:
            stream.write(f"{line}\n")

    def noted(self, name: str) -> list[str]:
        """What workers noted."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def ran(self) -> list[str]:
        """System, seed and process of every start."""
        return self.noted("ran")

    def most(self) -> int:
        """How many were at it at the same time."""
        spans = [tuple(map(float, row.split())) for row in self.noted("spans")]
        return max(sum(begun <= start < ended for begun, ended in spans) for start, _ in spans)


_STOPS: dict[int, threading.Event] = {}


@contextlib.contextmanager
def head() -> Iterator[subprocess.Popen[str]]:
    """A scheduler in a process of its own; the first line it says is its address."""
    child = subprocess.Popen(
        [sys.executable, "-c", _HEAD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.PIPE,
        text=True, cwd=PROJECT,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()


_HEAD = """
import asyncio, sys
from distributed import Scheduler
async def main():
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
        print(scheduler.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


@contextlib.contextmanager
def hired(log: Path, address: str, *words: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A ``harness worker`` in a process of its own."""
    argv = [sys.executable, "-m", "harness", "worker", address, *words]
    with log.open("ab") as stream:
        child = subprocess.Popen(
            argv, env=os.environ | {"PYTHONPATH": str(PROJECT)} | env, stdout=stream, stderr=stream
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
