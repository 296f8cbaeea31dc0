# SPDX-License-Identifier: GPL-2.0-or-later
"""Redis servers for tests: the real one, a thin client of it, and a fake whose behaviour a test decides."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Answer = bytes | int | list["Answer"] | None


class Refused(Exception):
    """The server's error."""


class Client:
    """Raw commands, as redis-cli sends them."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rb")

    def __call__(self, *words: object) -> Answer:
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self._socket.sendall(encode(parts))
        return self._answer()

    def _answer(self) -> Answer:
        head = self._stream.readline().rstrip(b"\r\n")
        kind, rest = head[:1], head[1:]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._stream.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        raise Refused(rest.decode())

    def hash(self, key: str) -> dict[bytes, bytes]:
        """A whole hash."""
        answer = self("HGETALL", key)
        assert isinstance(answer, list)
        parts = [part for part in answer if isinstance(part, bytes)]
        return dict(zip(parts[::2], parts[1::2], strict=True))

    def close(self) -> None:
        """End the connection."""
        self._stream.close()
        self._socket.close()


def encode(parts: list[bytes]) -> bytes:
    """A list of strings in RESP2."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


@dataclass(frozen=True)
class Server:
    """A real server on a UNIX socket and a port of the loopback."""

    path: Path
    port: int
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A directory whose name leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="paraksm-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def serving(program: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A real server that keeps nothing on disk, until the block ends."""
    with short_folder() as folder:
        path, port = folder / "redis.sock", free_port()
        words = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(path), "--save", "", *options]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, *words, "--appendonly", "no", "--dir", str(folder)], stdout=log, stderr=log, env=env
            )
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError):
                    Client(path).close()
                    break
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)
            yield Server(path, port, process)
        finally:
            process.kill()
            process.wait()


Behaviour = Callable[[int, list[bytes]], bytes | None]


@dataclass
class Fake:
    """A server that records what it is sent, holds hashes, and does what a test wants at the n-th command.

    Attributes:
        path: its socket.
        behave: called with the number of a command (from 0, over all connections) and the command; bytes that it
            returns are the answer, ``None`` leaves it to the fake. It may sleep, or raise EOFError to hang up.

    """

    path: Path
    behave: Behaviour = lambda _number, _words: None
    received: list[list[bytes]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    hashes: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)

    def answer(self, words: list[bytes]) -> bytes:
        """The fake's own answer."""
        number = len(self.received)
        self.received.append(words)
        self.times.append(time.monotonic())
        if (told := self.behave(number, words)) is not None:
            return told
        name = words[0].upper()
        if name == b"PING":
            return b"+PONG\r\n"
        if name == b"HMSET":
            self.hashes.setdefault(words[1], {}).update(zip(words[2::2], words[3::2], strict=True))
            return b"+OK\r\n"
        if name == b"HGETALL":
            return encode([part for pair in self.hashes.get(words[1], {}).items() for part in pair])
        if name == b"ZADD":
            return b":1\r\n"
        return b"$19\r\n\r\nused_memory:4096\r\n\r\n"


class _Handler(socketserver.StreamRequestHandler):
    server: _Listener

    def handle(self) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                words = self._words()
                self.wfile.write(self.server.fake.answer(words))

    def _words(self) -> list[bytes]:
        parts = []
        for _ in range(int(self._line()[1:])):
            size = int(self._line()[1:])
            text = self.rfile.read(size + 2)
            self.server.fake.raw += text
            parts.append(text[:-2])
        return parts

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line:
            raise EOFError
        self.server.fake.raw += line
        return line


class _Listener(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    fake: Fake


@contextlib.contextmanager
def fake_server(behave: Behaviour | None = None) -> Iterator[Fake]:
    """A fake server, until the block ends."""
    with short_folder() as folder:
        fake = Fake(folder / "fake.sock")
        if behave:
            fake.behave = behave
        with _Listener(str(fake.path), _Handler) as listener:
            listener.fake = fake
            thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            try:
                yield fake
            finally:
                listener.shutdown()
                thread.join()
