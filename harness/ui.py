# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees while work is going on: bars on a terminal, rare plain lines in a pipe, all on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

_PIPE_PERIOD = 30.0  # seconds between two lines of one task when stderr is not a terminal


class Task:
    """One piece of long work with an estimate of what is left."""

    def __init__(self, show: Callable[[Task], None], label: str, total: float | None) -> None:
        self._show = show
        self.label = label
        self.total = total
        self.done = 0.0
        self.note = ""
        self.started = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        """Count ``amount`` more units as done."""
        self.done += amount
        self._show(self)

    def update(self, done: float | None = None, total: float | None = None, note: str | None = None) -> None:
        """Set the count, the expected total or the text behind the bar."""
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        self.note = self.note if note is None else note
        self._show(self)

    def remaining(self) -> float | None:
        """Estimated seconds left, from the pace so far; ``None`` while nothing can be said."""
        if not self.total or self.done <= 0:
            return None
        pace = (time.monotonic() - self.started) / self.done
        return max(0.0, (self.total - self.done) * pace)


class Ui:
    """Messages and progress for people. Never writes to standard output."""

    def __init__(self, *, terminal: bool | None = None, quiet: bool = False) -> None:
        self.terminal = bool(sys.stderr and sys.stderr.isatty()) if terminal is None else terminal
        self.quiet = quiet
        self._bars: Any = None

    def info(self, message: str) -> None:
        """Something worth knowing."""
        if not self.quiet:
            self._line(message, "")

    def step(self, message: str) -> None:
        """The next piece of work begins."""
        if not self.quiet:
            self._line(f"==> {message}", "bold")

    def warn(self, message: str) -> None:
        """Something the user should act upon; shown even when quiet."""
        self._line(f"warning: {message}", "yellow")

    def _line(self, message: str, style: str) -> None:
        if self.terminal:
            self._console().print(message, style=style or None, markup=False, highlight=False, soft_wrap=True)
        else:
            print(message, file=sys.stderr, flush=True)

    def _console(self) -> Any:
        if self._bars is not None:
            return self._bars.console
        return _stderr_console()

    @contextlib.contextmanager
    def progress(self, label: str, total: float | None = None) -> Iterator[Task]:
        """Show one task until the block ends; nested and parallel tasks share the screen."""
        if self.quiet:
            yield Task(lambda _task: None, label, total)
        elif self.terminal:
            with self._bar(label, total) as task:
                yield task
        else:
            yield self._plain(label, total)

    def _plain(self, label: str, total: float | None) -> Task:
        last = [time.monotonic()]

        def show(task: Task) -> None:
            now = time.monotonic()
            if now - last[0] < _PIPE_PERIOD:
                return
            last[0] = now
            left = task.remaining()
            share = f" {100 * task.done / task.total:.0f}%" if task.total else ""
            estimate = f", about {left:.0f} s left" if left is not None else ""
            print(f"    {task.label}{share}{estimate} {task.note}".rstrip(), file=sys.stderr, flush=True)

        return Task(show, label, total)

    @contextlib.contextmanager
    def _bar(self, label: str, total: float | None) -> Iterator[Task]:
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        owner = self._bars is None
        if owner:
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}"),
                console=_stderr_console(),
                transient=True,
            )
            self._bars.start()
        bars = self._bars
        handle = bars.add_task(label, total=total, note="")
        try:
            yield Task(
                lambda task: bars.update(handle, completed=task.done, total=task.total, note=task.note),
                label,
                total,
            )
        finally:
            bars.remove_task(handle)
            if owner:
                bars.stop()
                self._bars = None


@cache
def _stderr_console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


_current = Ui()


def ui() -> Ui:
    """The user interface of this process."""
    return _current


def configure(*, quiet: bool) -> None:
    """Replace the interface, as the command line asks."""
    global _current
    _current = Ui(quiet=quiet)
