# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees while work is going on: bars on a terminal, rare plain lines in a pipe, all on stderr."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
        self.estimate: Callable[[], float] | None = None

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
        if self.estimate:
            return self.estimate()
        if not self.total or self.done <= 0:
            return None
        pace = (time.monotonic() - self.started) / self.done
        return max(0.0, (self.total - self.done) * pace)


class Together:
    """Several pieces of work under one bar, each worth the seconds that it is expected to take.

    What is left is told from the start: by those expectations at first, by the pace once a twentieth is done.
    """

    _TELLING = 0.05

    def __init__(self, task: Task, expected: Mapping[str, float]) -> None:
        self._task = task
        self._expected = dict(expected)
        self._done = dict.fromkeys(expected, 0.0)
        self._notes = dict.fromkeys(expected, "")
        self._lock = threading.Lock()
        task.estimate = self.remaining
        task.update(total=sum(expected.values()))

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Progress that this context shows until the block ends is that of the part ``name``."""
        token = _part.set((self, name))
        try:
            yield
            self._show(name, 1.0, "done")
        finally:
            _part.reset(token)

    def task(self, name: str, label: str, total: float | None, share: bool) -> Task:
        """A task of a part; only one that is most of the part's work moves the bar, others are a note."""

        def show(task: Task) -> None:
            percent = f" {100 * task.done / task.total:.0f}%" if task.total else ""
            known = share and task.total
            self._show(name, task.done / task.total if known and task.total else None, f"{label}{percent}")

        made = Task(show, label, total)
        show(made)
        return made

    def _show(self, name: str, fraction: float | None, note: str) -> None:
        with self._lock:
            if fraction is not None:
                self._done[name] = min(1.0, fraction)
            self._notes[name] = note
            done = sum(self._expected[part] * share for part, share in self._done.items())
            busy = [text for text in self._notes.values() if text and text != "done"]
            self._task.update(done=done, note=", ".join(busy))

    def remaining(self) -> float:
        """Estimated seconds left."""
        total, done = sum(self._expected.values()), self._task.done
        elapsed = time.monotonic() - self._task.started
        pace = elapsed / done if done > self._TELLING * total else 1.0
        return max(0.0, (total - done) * pace)


_part: contextvars.ContextVar[tuple[Together, str] | None] = contextvars.ContextVar("part", default=None)


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
    def progress(self, label: str, total: float | None = None, *, share: bool = False) -> Iterator[Task]:
        """Show one task until the block ends; nested tasks share the screen.

        Args:
            label: what is going on.
            total: how many units it takes, if known.
            share: whether this is most of the work of the part it belongs to (see :meth:`together`).

        """
        part = _part.get()
        if self.quiet:
            yield Task(lambda _task: None, label, total)
        elif part:
            yield part[0].task(part[1], label, total, share)
        elif self.terminal:
            with self._bar(label, total) as task:
                yield task
        else:
            yield self._plain(label, total)

    @contextlib.contextmanager
    def together(self, label: str, expected: Mapping[str, float]) -> Iterator[Together]:
        """One bar for work that goes on side by side.

        Args:
            label: the whole.
            expected: name of each part -> seconds it is expected to take.

        """
        with self.progress(label) as task:
            yield Together(task, expected)

    def _plain(self, label: str, total: float | None) -> Task:
        last = [time.monotonic()]

        def show(task: Task) -> None:
            now = time.monotonic()
            if now - last[0] < _PIPE_PERIOD:
                return
            last[0] = now
            share = f" {100 * task.done / task.total:.0f}%" if task.total else ""
            left = f", {text}" if (text := _left(task)) else ""
            print(f"    {task.label}{share}{left} {task.note}".rstrip(), file=sys.stderr, flush=True)

        return Task(show, label, total)

    @contextlib.contextmanager
    def _bar(self, label: str, total: float | None) -> Iterator[Task]:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        owner = self._bars is None
        if owner:
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.fields[note]}"),
                console=_stderr_console(),
                transient=True,
            )
            self._bars.start()
        bars = self._bars
        handle = bars.add_task(label, total=total, note="", left="")

        def show(task: Task) -> None:
            bars.update(handle, completed=task.done, total=task.total, note=task.note, left=_left(task))

        try:
            yield Task(show, label, total)
        finally:
            bars.remove_task(handle)
            if owner:
                bars.stop()
                self._bars = None


def _left(task: Task) -> str:
    seconds = task.remaining()
    if seconds is None:
        return ""
    return f"about {seconds:.0f} s left" if seconds < 120 else f"about {seconds / 60:.0f} min left"


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
