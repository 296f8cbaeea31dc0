# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in a guest over the agent's socket: standard input in, output, errors and status out."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable

from harness.agent import CHUNK, Decoder, Frame, Kind

Sink = Callable[[bytes], None]
Input = bytes | int | None

_BACKLOG = 1 << 18  # bytes that wait for the guest before more input is read


class Session:
    """Our end of the agent's wire; one command at a time. Single-threaded: :meth:`exchange` moves bytes."""

    def __init__(self, wire: socket.socket) -> None:
        wire.setblocking(False)
        self._wire = wire
        self._decoder = Decoder()
        self._out = bytearray()
        self._source: int | None = None
        self.ready = False
        """The agent reported."""
        self.status: int | None = None
        """Exit status of the command; ``None`` while it runs."""
        self._running = False

    @property
    def finished(self) -> bool:
        """Nothing is awaited: the agent is there and no command runs."""
        return self.ready and not self._running

    def begin(self, script: str, stdin: Input) -> None:
        """Send a command; ``stdin`` is bytes or a file descriptor to read from."""
        self.status = None
        self._running = True
        self._send(Frame(Kind.RUN, script.encode()))
        if isinstance(stdin, int):
            self._source = stdin
            return
        data = stdin or b""
        for start in range(0, len(data), CHUNK):
            self._send(Frame(Kind.INPUT, data[start : start + CHUNK]))
        self._send(Frame(Kind.CLOSE))

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        self._send(Frame(Kind.SIGNAL, bytes([number])))

    def exchange(self, seconds: float, on_stdout: Sink | None = None, on_stderr: Sink | None = None) -> bool:
        """Move bytes both ways for at most ``seconds`` without traffic; ``False`` once the other end is gone."""
        with selectors.DefaultSelector() as selector:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
            selector.register(self._wire, events)
            if self._source is not None and len(self._out) < _BACKLOG:
                try:
                    selector.register(self._source, selectors.EVENT_READ)
                except PermissionError:  # a regular file: always readable, not pollable
                    self._read_source()
                    return self._pump(self._wire_events(0.0), on_stdout, on_stderr)
            happened = selector.select(seconds)
        mask = 0
        for key, what in happened:
            if key.fileobj is self._wire:
                mask = what
            else:
                self._read_source()
        return self._pump(mask, on_stdout, on_stderr)

    def close(self) -> None:
        """Close the wire."""
        self._wire.close()

    def _wire_events(self, seconds: float) -> int:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wire, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0))
            return sum(what for _, what in selector.select(seconds))

    def _pump(self, mask: int, on_stdout: Sink | None, on_stderr: Sink | None) -> bool:
        try:
            if mask & selectors.EVENT_WRITE and self._out:
                del self._out[: self._wire.send(self._out[: 1 << 16])]
            if mask & selectors.EVENT_READ:
                data = self._wire.recv(1 << 17)
                if not data:
                    return False
                self._take(data, on_stdout, on_stderr)
        except BlockingIOError:
            return True
        except (ConnectionError, BrokenPipeError):
            return False
        return True

    def _take(self, data: bytes, on_stdout: Sink | None, on_stderr: Sink | None) -> None:
        for frame in self._decoder.feed(data):
            if frame.kind is Kind.HELLO:
                self.ready = True
            elif frame.kind is Kind.OUTPUT and on_stdout is not None:
                on_stdout(frame.payload)
            elif frame.kind is Kind.ERRORS and on_stderr is not None:
                on_stderr(frame.payload)
            elif frame.kind is Kind.RESULT:
                self.status = frame.status
                self._running = False
                self._source = None

    def _read_source(self) -> None:
        assert self._source is not None
        data = os.read(self._source, CHUNK)
        if data:
            self._send(Frame(Kind.INPUT, data))
        else:
            self._source = None
            self._send(Frame(Kind.CLOSE))

    def _send(self, frame: Frame) -> None:
        self._out += frame.encode()
