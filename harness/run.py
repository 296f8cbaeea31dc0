# SPDX-License-Identifier: GPL-2.0-or-later
"""The only place that starts a process.

Every child gets its own process group (so a deadline or Ctrl-C reaps all of it), dies with the harness
(``PR_SET_PDEATHSIG``, prctl(2)), and never inherits our standard input.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness.errors import EnvironmentProblem, HarnessError, Interrupted

_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 200
_libc = ctypes.CDLL(None, use_errno=True)


class Deadline:
    """A point in time that is handed down, so that nested waits share one budget (seconds)."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def expired(self) -> bool:
        """Whether the budget is used up."""
        return self.remaining() == 0.0


@dataclass(frozen=True)
class Completed:
    """A finished process: what ran, what it said, how long it took (wall seconds)."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float


class CommandFailed(HarnessError):
    """A command exited non-zero or passed its deadline; the message ends with its last lines."""

    def __init__(self, completed: Completed, *, log: Path | None = None, reason: str | None = None) -> None:
        tail = (completed.stderr.strip() or completed.stdout.strip()).splitlines()[-15:]
        what = reason or f"exit status {completed.returncode}"
        lines = [f"{shlex.join(completed.argv[:6])}{' ...' if len(completed.argv) > 6 else ''}: {what}"]
        super().__init__("\n    ".join(lines + tail), hint=f"the whole output is in {log}" if log else None, log=log)
        self.completed = completed


class Crew:
    """Work that is going on in several threads and can be called off as one.

    Whatever :func:`run` starts in a context whose crew was :meth:`joined` belongs to it. After :meth:`stop`
    its processes are ended and everything that asks raises :class:`Interrupted`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._off = threading.Event()

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Make the processes that this context starts part of the crew."""
        token = _crew.set(self)
        try:
            yield
        finally:
            _crew.reset(token)

    @contextlib.contextmanager
    def _minding(self, start: Callable[[], subprocess.Popen[bytes]]) -> Iterator[subprocess.Popen[bytes]]:
        with self._lock:  # started before the end, and then known; or not at all
            self.check()
            child = start()
            self._children.add(child)
        try:
            yield child
        finally:
            with self._lock:
                self._children.discard(child)

    def check(self) -> None:
        """Raise :class:`Interrupted` once the crew is called off."""
        if self._off.is_set():
            raise Interrupted("called off; what was finished is kept", hint="the same command goes on from here")

    def stop(self) -> None:
        """Call it off: tell every process and its group to end, kill what has not after two seconds."""
        with self._lock:
            self._off.set()
            children = list(self._children)
        for child in children:
            signal_group(child, signal.SIGTERM)
        deadline = Deadline(2.0)
        while any(child.returncode is None for child in children) and not deadline.expired():
            time.sleep(0.02)  # whoever ran it reaps it
        for child in children:
            signal_group(child, signal.SIGKILL)  # also what a child that has ended left behind


_crew: contextvars.ContextVar[Crew] = contextvars.ContextVar("crew", default=Crew())  # noqa: B039 - never stopped


def check_called_off() -> None:
    """Raise :class:`Interrupted` if the work that this thread is part of was called off.

    For waits and loops that start no process; :func:`run` asks by itself.
    """
    _crew.get().check()


def _die_with_parent(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died between fork and prctl
            os._exit(127)

    return prepare


def spawn(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = subprocess.DEVNULL,
    stderr: int | IO[Any] | None = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a long-running child; ``env`` is added to ours.

    ``PR_SET_PDEATHSIG`` fires when the *thread* that forked ends, so call this from a thread that lives as
    long as the child should.

    Raises:
        EnvironmentProblem: the program does not exist.

    """
    words = [str(word) for word in argv]
    try:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **env} if env else None,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
        )
    except FileNotFoundError as error:
        missing = words[0] if error.filename in (None, words[0]) else error.filename
        raise EnvironmentProblem(f"{missing}: not found", hint="run `harness doctor`") from error


def detach(
    argv: Sequence[str | Path], data: bytes, *, cwd: Path, env: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a process that outlives us, in a session of its own: the one kind that nobody ends in our place.

    Args:
        argv: what.
        data: its standard input.
        cwd: where.
        env: added to our environment.
        log: where both of its output streams go.

    """
    with log.open("wb") as sink:
        child = subprocess.Popen(
            [str(word) for word in argv], cwd=cwd, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=sink,
            stderr=sink, start_new_session=True,
        )  # fmt: skip
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError), child.stdin as stream:
        stream.write(data)
    return child


def signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the child's whole process group; a group that is gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def stop(child: subprocess.Popen[bytes], grace: float = 2.0) -> int:
    """End a child and its group: TERM, then KILL after ``grace`` seconds; reap it, return its status."""
    if child.poll() is None:
        signal_group(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
    signal_group(child, signal.SIGKILL)
    return child.wait()


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str | bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run a command to its end.

    With ``log`` or ``on_line`` both output streams are merged line by line into them as they come, and
    ``stdout`` of the result holds the last 200 lines.

    Raises:
        CommandFailed: non-zero exit (unless ``check=False``) or ``timeout`` seconds passed.
        EnvironmentProblem: the program does not exist.
        Interrupted: the crew that this is part of was called off.

    """
    data = input.encode() if isinstance(input, str) else input
    start = time.monotonic()
    streaming = log is not None or on_line is not None
    late = False

    def start_it() -> subprocess.Popen[bytes]:
        return spawn(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if streaming else subprocess.PIPE,
        )

    crew = _crew.get()
    with crew._minding(start_it) as child:
        try:
            if streaming:
                out, late = _stream(child, data, log, on_line, timeout)
                err = ""
            else:
                try:
                    raw_out, raw_err = child.communicate(data, timeout)
                except subprocess.TimeoutExpired:
                    late = True
                    signal_group(child, signal.SIGKILL)
                    raw_out, raw_err = child.communicate()
                out, err = raw_out.decode(errors="replace"), raw_err.decode(errors="replace")
        except BaseException:
            stop(child)
            raise
    if child.returncode:
        crew.check()
    words = tuple(str(word) for word in argv)
    done = Completed(words, child.returncode, out, err, time.monotonic() - start)
    if late:
        raise CommandFailed(done, log=log, reason=f"no end after {timeout:g} s")
    if check and done.returncode != 0:
        raise CommandFailed(done, log=log)
    return done


def _stream(
    child: subprocess.Popen[bytes],
    data: bytes | None,
    log: Path | None,
    on_line: Callable[[str], None] | None,
    timeout: float | None,
) -> tuple[str, bool]:
    """Copy merged output line by line; return its tail and whether the deadline struck."""
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    late = threading.Event()

    def expire() -> None:
        late.set()
        signal_group(child, signal.SIGKILL)

    timer = threading.Timer(timeout, expire) if timeout is not None else None
    assert child.stdout is not None
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("ab")) if log else None
        if timer:
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
        if data is not None and child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(data)
                child.stdin.close()
        for raw in child.stdout:
            if sink:
                sink.write(raw)
                sink.flush()
            line = raw.decode(errors="replace").rstrip("\n")
            tail.append(line)
            if on_line:
                on_line(line)
        child.wait()
    return "\n".join(tail), late.is_set()
