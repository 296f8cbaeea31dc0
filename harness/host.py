# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine reached over ssh: a booted guest and a server with the accelerator are the same kind of thing.

Host keys are always checked: a figure that came from the wrong machine is worse than none. Commands are argument
vectors, quoted here and nowhere else. Files are copied through ``cat``, which every host has, and compared by SHA-256
afterwards: a server without SFTP (dropbear) may end the whole connection over what is left of a channel that asked
for it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from harness.errors import HostError, UsageError
from harness.run import Completed, Deadline

CONNECT_SECONDS = 20.0
"""How long a connection may take, including key exchange and authentication."""

REVIVE_SECONDS = 900.0
"""How long a host that was lost is looked for: a server that reboots takes minutes."""

T = TypeVar("T")

_POLL_SECONDS = 0.02
_RETRY_SECONDS = 0.5
_BLOCK = 1 << 16


class Lost(HostError):
    """The connection broke; what ran over it may or may not go on there."""


@dataclass(frozen=True)
class Address:
    """Where an ssh server is and as whom to log in."""

    user: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read ``ssh://[user@]host[:port]``; the user defaults to root, because KSM's knobs are root's.

        Raises:
            UsageError: another scheme, no host, a port that is no number, a password or a path in the address.

        """
        try:
            parts = urlsplit(url)
            port = parts.port or 22
        except ValueError as error:
            raise UsageError(f"{url}: {error}", hint="write ssh://root@host:22") from error
        if parts.scheme != "ssh" or not parts.hostname:
            raise UsageError(f"{url}: not an ssh address", hint="write ssh://root@host:22")
        if parts.password is not None:
            raise UsageError("a password does not belong into an address", hint="use a key: --identity FILE")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise UsageError(f"{url}: nothing may follow the port", hint="write ssh://root@host:22")
        return cls(parts.username or "root", parts.hostname, port)

    @property
    def known_name(self) -> str:
        """The name under which known_hosts lists this server."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user}@{host}:{self.port}"


def fingerprint(key: Any) -> str:
    """The SHA-256 fingerprint of a paramiko key, as ``ssh-keygen -l`` prints it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


class Host:
    """A live connection; use :meth:`connect`, close it or use it as a context manager."""

    def __init__(self, address: Address, connection: Any, key: str) -> None:
        self.address = address
        self.key = key
        """Fingerprint of the host key the server showed."""
        self._connection = connection
        self._login: tuple[Path | None, Path | None, float] = (None, None, CONNECT_SECONDS)

    @classmethod
    def connect(
        cls,
        url: str,
        identity: Path | None = None,
        known_hosts: Path | None = None,
        *,
        timeout: float = CONNECT_SECONDS,
    ) -> Host:
        """Log in.

        Args:
            url: ``ssh://user@host:port``.
            identity: private key file; without it the agent and the default keys are tried.
            known_hosts: file with the server's key; without it ``~/.ssh/known_hosts``.
            timeout: seconds for each of connection, banner and authentication.

        Raises:
            HostError: unreachable, unknown or changed host key, refused key.
            UsageError: a malformed address, a file that does not exist.

        """
        address = Address.parse(url)
        for path in (identity, known_hosts):
            if path is not None and not path.is_file():
                raise UsageError(f"{path}: no such file")
        deadline = Deadline(timeout)
        while True:
            try:
                connection = _open(address, identity, known_hosts, timeout)
                break
            except HostError as error:
                # a server that is just starting behind a forwarded port accepts and hangs up
                if not _hung_up(error.__cause__) or deadline.expired():
                    raise
                time.sleep(_RETRY_SECONDS)
        made = cls(address, connection, fingerprint(connection.transport.get_remote_server_key()))
        made._login = (identity, known_hosts, timeout)
        return made

    def revive(self, seconds: float = REVIVE_SECONDS) -> None:
        """Connect again to a host that was lost, as soon as it answers.

        Raises:
            HostError: it did not answer in time, or it shows another key than before.

        """
        identity, known_hosts, timeout = self._login
        self.close()
        deadline = Deadline(seconds)
        while True:
            try:
                connection = _open(self.address, identity, known_hosts, min(timeout, max(1.0, deadline.remaining())))
            except HostError as error:
                if deadline.expired() or not _unreachable(error):
                    raise
                time.sleep(_RETRY_SECONDS)
                continue
            key = fingerprint(connection.transport.get_remote_server_key())
            if key != self.key:
                connection.close()
                raise HostError(f"{self.address}: another host answers now: {key} instead of {self.key}")
            self._connection = connection
            return

    def steadily(self, action: Callable[[], T], seconds: float = REVIVE_SECONDS) -> T:
        """Do something that may be done twice; when the connection breaks meanwhile, connect and do it again."""
        while True:
            try:
                return action()
            except Lost:
                self.revive(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def local_address(self) -> str:
        """This machine's address as the host sees it: where it can be reached from there."""
        address: str = self._connection.transport.sock.getsockname()[0]
        return address

    def close(self) -> None:
        """End the connection; closing twice is fine."""
        with contextlib.suppress(Exception):
            self._connection.close()

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | str | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a command to its end; ``stdout`` and ``stderr`` stay apart.

        Raises:
            HostError: non-zero exit (unless ``check=False``), the deadline passed, the connection broke.

        """
        status, out, err, seconds = self.run_bytes(argv, input=input, timeout=timeout)
        done = Completed(tuple(argv), status, out.decode(errors="replace"), err.decode(errors="replace"), seconds)
        if check and status != 0:
            tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-10:]
            raise HostError("\n    ".join([f"{self.address}: {shlex.join(argv)}: exit status {status}", *tail]))
        return done

    def run_bytes(
        self, argv: Sequence[str], *, input: bytes | str | None = None, timeout: float | None = None
    ) -> tuple[int, bytes, bytes, float]:
        """Like :meth:`run` without decoding or checking: status, output, errors, wall seconds."""
        if not argv:
            raise UsageError("an empty command")
        import paramiko

        data = input.encode() if isinstance(input, str) else input
        started = time.monotonic()
        try:
            channel = self._connection.transport.open_session(timeout=CONNECT_SECONDS)
            try:
                channel.exec_command(shlex.join(argv))
                status, out, err = _pump(channel, data, Deadline(timeout) if timeout is not None else None)
            finally:
                channel.close()
        except TimeoutError as error:
            raise HostError(f"{self.address}: {shlex.join(argv)}: no end after {timeout or 0:g} s") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise Lost(
                f"{self.address}: the connection broke while running {shlex.join(argv)}: {error or 'end of stream'}"
            ) from error
        return status, out, err, time.monotonic() - started

    def put(self, path: Path, remote: str, mode: int = 0o644) -> None:
        """Copy a file to the host whole or not at all, then compare SHA-256.

        Raises:
            HostError: it cannot be written, or arrived altered.

        """
        self.put_bytes(path.read_bytes(), remote, mode)

    def put_bytes(self, data: bytes, remote: str, mode: int = 0o644) -> None:
        """Like :meth:`put`, for content in memory."""
        part = f"{remote}.part"
        done = self.run(["sh", "-c", 'umask 077; cat > "$1" || { rm -f "$1"; exit 1; }', "put", part], input=data,
                        check=False)  # fmt: skip
        if done.returncode != 0:
            raise HostError(
                f"{self.address}: {remote} cannot be written: {done.stderr.strip() or f'status {done.returncode}'}",
                hint=f"is there room? df {remote.rpartition('/')[0] or '/'}",
            )
        self.run(["chmod", f"{mode:o}", part])
        self._verify(part, data)
        self.run(["mv", "-f", part, remote])

    def put_once(self, path: Path, folder: str, mode: int = 0o644) -> str:
        """Copy a file under the name of its SHA-256, unless it lies there whole already; its name there is returned.

        Files that nobody asked for during a month go.

        Raises:
            HostError: it cannot be written, or arrived altered.

        """
        from harness.config import sha256_file

        digest = sha256_file(path)
        remote = f"{folder}/{digest}"
        script = (
            'umask 077; mkdir -p "$1" && cd "$1" || exit; find . -type f -mtime +30 -exec rm -f {} \\;; '
            'set -- "$2" $(sha256sum "$2" 2>/dev/null); [ "$1" = "$2" ] || exit 44; touch "$1"'
        )
        there = self.run(["sh", "-c", script, "look", folder, digest], check=False)
        if there.returncode not in (0, 44):
            raise HostError(f"{self.address}: {folder} cannot be used: {there.stderr.strip()}")
        if there.returncode == 44:
            self.put(path, remote, mode)
        return remote

    def get(self, remote: str, path: Path) -> None:
        """Copy a file from the host and compare SHA-256.

        Raises:
            HostError: it does not exist, or arrived altered.

        """
        from harness.config import atomic_write

        status, data, err, _ = self.run_bytes(["cat", remote])
        if status != 0:
            raise HostError(f"{self.address}: cannot read {remote}: {err.decode(errors='replace').strip()}")
        self._verify(remote, data)
        atomic_write(path, data)

    def _verify(self, remote: str, data: bytes) -> None:
        words = self.run(["sha256sum", remote]).stdout.split()
        # GNU sha256sum starts the line with a backslash when the name holds one
        there = words[0].lstrip("\\") if words else ""
        here = hashlib.sha256(data).hexdigest()
        if there != here:
            raise HostError(
                f"{self.address}: {remote} was altered on its way (SHA-256 here {here[:16]}, there {there[:16]})",
                hint="is the disk there full? run the command again",
            )

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """Yield the name of a new directory on the host that is removed at the end."""
        name = self.run(["mktemp", "-d", "/tmp/paraksm.XXXXXX"]).stdout.strip()  # noqa: S108 (made by mktemp)
        if not re.fullmatch(r"/tmp/paraksm\.\w+", name):  # noqa: S108
            raise HostError(f"{self.address}: mktemp answered {name!r}")
        try:
            yield name
        finally:
            with contextlib.suppress(HostError):
                self.run(["rm", "-rf", name], timeout=30)


def _pump(channel: Any, data: bytes | None, deadline: Deadline | None) -> tuple[int, bytes, bytes]:
    """Feed standard input and collect both outputs until the command ends.

    Raises:
        TimeoutError: the deadline passed first.
        EOFError: the connection broke before an exit status came.

    """
    out, err = bytearray(), bytearray()
    left = memoryview(data or b"")
    open_input = True
    while True:
        moved = False
        while channel.recv_ready():
            out += channel.recv(_BLOCK)
            moved = True
        while channel.recv_stderr_ready():
            err += channel.recv_stderr(_BLOCK)
            moved = True
        if left and channel.send_ready():
            try:
                left = left[channel.send(bytes(left[:_BLOCK])) :]
            except OSError:  # the command closed its input early; its exit status says whether that is fine
                left = left[len(left) :]
            moved = True
        if open_input and not left:
            with contextlib.suppress(OSError):
                channel.shutdown_write()
            open_input = False
        # ask for the end first: what came before it is then visible to the second question
        ended = channel.eof_received or channel.closed
        if ended and not (channel.recv_ready() or channel.recv_stderr_ready()):
            if channel.exit_status_ready():
                break
            if channel.closed:
                raise EOFError("the server closed it")
        if deadline is not None and deadline.expired():
            raise TimeoutError
        if not moved:
            time.sleep(_POLL_SECONDS)
    status = channel.recv_exit_status()
    if status < 0:
        raise EOFError("no exit status: killed by a signal, or the server went away")
    return status, bytes(out), bytes(err)


def _load_key(path: Path) -> Any:
    """Read a private key of whatever kind.

    Raises:
        HostError: it needs a passphrase.
        UsageError: it is not a private key.

    """
    import paramiko

    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.PasswordRequiredException, TypeError) as error:
        raise HostError(
            f"{path}: this key needs a passphrase", hint=f"`ssh-add {path}`, then leave --identity out"
        ) from error
    except Exception as error:
        raise UsageError(
            f"{path}: not a private key: {error}", hint="the file without .pub is the private one"
        ) from error


def _open(address: Address, identity: Path | None, known_hosts: Path | None, timeout: float) -> Any:
    import logging

    import fabric
    import paramiko

    # it logs tracebacks of what we report ourselves
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)

    class Refuse(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        """Unknown servers are refused, with what one needs to decide."""

        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            raise HostError(
                f"{address}: its host key is not known ({fingerprint(key)})",
                hint=f"compare the fingerprint, then `ssh-keyscan -p {address.port} {address.host} >> "
                f"{known_hosts or '~/.ssh/known_hosts'}`",
            )

    words: dict[str, Any] = {"banner_timeout": timeout, "auth_timeout": timeout}
    if identity is not None:
        words |= {"pkey": _load_key(identity), "allow_agent": False, "look_for_keys": False}
    connection = fabric.Connection(
        address.host, user=address.user, port=address.port, connect_timeout=timeout, connect_kwargs=words
    )
    # fabric starts with a policy that accepts and stores any key
    connection.client.set_missing_host_key_policy(Refuse())
    try:
        if known_hosts is not None:
            connection.client.load_host_keys(str(known_hosts))
        else:
            connection.client.load_system_host_keys()
        connection.open()
    except HostError:
        connection.close()
        raise
    except Exception as error:
        connection.close()
        raise _explain(address, identity, error) from error
    connection.transport.set_keepalive(15)
    return connection


def _unreachable(error: HostError) -> bool:
    """Whether it is worth trying again: nobody answers, or somebody hangs up; not when a key is refused."""
    import paramiko

    cause: BaseException | None = error.__cause__
    refused = (paramiko.BadHostKeyException, paramiko.AuthenticationException, socket.gaierror)
    return cause is not None and not isinstance(cause, refused)


def _hung_up(error: BaseException | None) -> bool:
    """Whether the other side accepted the connection and ended it before it said a word of ssh."""
    while error is not None:
        if isinstance(error, (ConnectionResetError, EOFError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _explain(address: Address, identity: Path | None, error: Exception) -> HostError:
    """Say in one line what went wrong, and what to try."""
    import paramiko

    if isinstance(error, paramiko.BadHostKeyException):
        return HostError(
            f"{address}: its host key changed: expected {fingerprint(error.expected_key)}, "
            f"got {fingerprint(error.key)}",
            hint=f"if the server was reinstalled: `ssh-keygen -R '{address.known_name}'`; otherwise do not go on",
        )
    if isinstance(error, paramiko.AuthenticationException):
        return HostError(
            f"{address}: {address.user} was not let in"
            + (f" with the key {identity}" if identity else " with the agent's and the default keys"),
            hint="name the right key with --identity FILE",
        )
    if isinstance(error, socket.gaierror):
        return HostError(f"{address}: no such host name", hint="check the name")
    if isinstance(error, (OSError, EOFError, paramiko.SSHException)):
        reason = str(error) or type(error).__name__
        return HostError(f"{address}: cannot be reached: {reason}", hint=f"try `ssh -p {address.port} {address.host}`")
    return HostError(f"{address}: {type(error).__name__}: {error}")
