# SPDX-License-Identifier: GPL-2.0-or-later
"""A real ssh server on the loopback, with and without SFTP; every way in which a connection can go wrong."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
import pytest

from harness.errors import HostError, UsageError
from harness.host import Address, Host


class _Session(paramiko.ServerInterface):  # type: ignore[misc]
    def __init__(self, allowed: paramiko.PKey, corrupt: bool) -> None:
        self.allowed = allowed
        self.corrupt = corrupt

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == "root" and key.asbytes() == self.allowed.asbytes()
        return int(paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        thread = threading.Thread(target=self._execute, args=(channel, command.decode()), daemon=True)
        transport = channel.get_transport()
        assert isinstance(transport, _Transport)
        transport.after_reply = thread.start
        return True

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        child = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdin and child.stdout and child.stderr

        def feed() -> None:
            assert child.stdin
            try:
                while block := channel.recv(65536):
                    child.stdin.write(block[:-1] + b"!" if self.corrupt else block)
                child.stdin.close()
            except (OSError, ValueError):
                pass

        def copy(source: Callable[[int], bytes], sink: Callable[[bytes], None]) -> None:
            with contextlib.suppress(OSError):  # the client may be gone
                while block := source(4096):
                    sink(block)

        threads = [
            threading.Thread(target=feed, daemon=True),
            threading.Thread(target=copy, args=(child.stdout.read, channel.sendall), daemon=True),
            threading.Thread(target=copy, args=(child.stderr.read, channel.sendall_stderr), daemon=True),
        ]
        for thread in threads:
            thread.start()
        status = child.wait()
        for thread in threads[1:]:
            thread.join()
        try:
            if status >= 0:
                channel.send_exit_status(status)
            channel.shutdown_write()
            channel.close()
        except (OSError, EOFError, paramiko.SSHException):
            pass


class _Transport(paramiko.Transport):  # type: ignore[misc]
    """Lets a command run when the client knows that it was accepted: one that is quicker would close the channel."""

    after_reply: Callable[[], None] | None = None

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)
        if threading.current_thread() is self and self.after_reply:
            start, self.after_reply = self.after_reply, None
            start()


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle:
        handle = paramiko.SFTPHandle(flags)
        handle.writefile = handle.readfile = Path(path).open("w+b")  # noqa: SIM115
        return handle

    def stat(self, path: str) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(Path(path).stat())


@dataclass
class Server:
    """An ssh server in this process."""

    directory: Path
    sftp: bool = False
    corrupt: bool = False
    hang_up: int = 0
    host_key: paramiko.PKey = field(default_factory=lambda: paramiko.RSAKey.generate(2048))
    user_key: paramiko.RSAKey = field(default_factory=lambda: paramiko.RSAKey.generate(2048))

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"ssh://root@127.0.0.1:{self.port}"
        self.identity = self.directory / "id"
        self.user_key.write_private_key_file(str(self.identity))
        self.known = self.directory / "known_hosts"
        self.trust(self.host_key)
        self.transports: list[paramiko.Transport] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def trust(self, key: paramiko.PKey) -> None:
        """Write ``key`` as this server's into known_hosts."""
        self.known.write_text(f"[127.0.0.1]:{self.port} {key.get_name()} {key.get_base64()}\n")

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.hang_up > 0:
                self.hang_up -= 1
                client.close()
                continue
            transport = _Transport(client)
            transport.add_server_key(self.host_key)
            if self.sftp:
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files)
            self.transports.append(transport)
            try:
                transport.start_server(server=_Session(self.user_key, self.corrupt))
            except (paramiko.SSHException, EOFError, OSError):
                continue

    def cut(self) -> None:
        """End every connection, without a word; new ones are accepted."""
        for transport in self.transports:
            transport.sock.close()
            transport.close()
        self.transports.clear()

    def close(self) -> None:
        """End it and every connection."""
        self.listener.close()
        for transport in self.transports:
            transport.close()

    def login(self) -> Host:
        """A host connected to it."""
        return Host.connect(self.url, self.identity, self.known)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


def test_output_errors_and_status_stay_apart(server: Server) -> None:
    with server.login() as host:
        done = host.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)
        assert host.key.startswith("ssh-rsa SHA256:")


def test_words_arrive_as_they_were(server: Server) -> None:
    words = ["two words", "$HOME", "it's", "a;b", "", "*", "new\nline"]
    with server.login() as host:
        assert host.run(["printf", "<%s>", *words]).stdout == "".join(f"<{word}>" for word in words)


def test_binary_input_and_output(server: Server) -> None:
    data = bytes(range(256)) * 4096
    with server.login() as host:
        status, out, err, _ = host.run_bytes(["cat"], input=data)
    assert (status, out == data, err) == (0, True, b"")


def test_a_failing_command_names_itself_and_its_last_words(server: Server) -> None:
    with server.login() as host, pytest.raises(HostError, match=r"(?s)exit status 4.*no luck"):
        host.run(["sh", "-c", "echo no luck >&2; exit 4"])


def test_a_deadline_ends_a_silent_command(server: Server) -> None:
    with server.login() as host:
        started = time.monotonic()
        with pytest.raises(HostError, match=r"no end after 0\.5 s"):
            host.run(["sleep", "20"], timeout=0.5)
        assert time.monotonic() - started < 5


def test_a_broken_connection_is_an_error(server: Server) -> None:
    with server.login() as host:
        threading.Timer(0.5, server.close).start()
        with pytest.raises(HostError, match="connection broke"):
            host.run(["sleep", "20"], timeout=15)


def test_a_command_killed_by_a_signal_is_an_error(server: Server) -> None:
    with server.login() as host, pytest.raises(HostError, match="connection broke"):
        host.run(["exec", "sh", "-c", "kill -9 $$"])


@pytest.mark.parametrize("sftp", [True, False])
def test_files_travel_whole_with_and_without_sftp(tmp_path: Path, sftp: bool) -> None:
    server = Server(tmp_path, sftp=sftp)
    data = hashlib.sha256(b"seed").digest() * 9000
    source, there, back = tmp_path / "source", tmp_path / "there with blank", tmp_path / "back"
    source.write_bytes(data)
    with server.login() as host:
        host.put(source, str(there), 0o755)
        assert there.read_bytes() == data
        assert there.stat().st_mode & 0o777 == 0o755
        assert not there.with_name(there.name + ".part").exists()
        host.get(str(there), back)
    assert back.read_bytes() == data
    server.close()


def test_a_file_altered_on_its_way_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path, corrupt=True)
    with server.login() as host, pytest.raises(HostError, match="altered on its way"):
        host.put_bytes(b"content", str(tmp_path / "there"))
    assert not (tmp_path / "there").exists()
    server.close()


def test_getting_a_missing_file(server: Server, tmp_path: Path) -> None:
    with server.login() as host, pytest.raises(HostError, match="cannot read /nowhere"):
        host.get("/nowhere", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_scratch_is_removed(server: Server) -> None:
    with server.login() as host:
        with host.scratch() as name:
            host.put_bytes(b"x", f"{name}/file")
            assert Path(name, "file").read_bytes() == b"x"
        assert not Path(name).exists()


def test_an_unknown_host_key_is_refused_with_its_fingerprint(server: Server) -> None:
    server.known.write_text("")
    with pytest.raises(HostError, match=r"not known \(ssh-rsa SHA256:") as caught:
        server.login()
    assert caught.value.hint is not None
    assert "ssh-keyscan" in caught.value.hint


def test_a_changed_host_key_is_refused(server: Server) -> None:
    server.trust(paramiko.RSAKey.generate(2048))
    with pytest.raises(HostError, match="host key changed"):
        server.login()


def test_a_refused_key_is_named(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other"
    paramiko.RSAKey.generate(2048).write_private_key_file(str(other))
    with pytest.raises(HostError, match=r"root was not let in with the key .*other"):
        Host.connect(server.url, other, server.known)


def test_a_public_key_is_no_identity(server: Server, tmp_path: Path) -> None:
    public = tmp_path / "id.pub"
    public.write_text("ssh-rsa AAAA me\n")
    with pytest.raises(UsageError, match="not a private key"):
        Host.connect(server.url, public, server.known)


def test_a_key_with_a_passphrase_is_explained(server: Server, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    server.user_key.write_private_key_file(str(locked), password="secret")
    with pytest.raises(HostError, match="passphrase"):
        Host.connect(server.url, locked, server.known)


def test_a_server_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    server = Server(tmp_path, hang_up=2)
    with server.login() as host:
        assert host.run(["echo", "up"]).stdout == "up\n"
    server.close()


def test_a_server_that_always_hangs_up_is_given_up(tmp_path: Path) -> None:
    server = Server(tmp_path, hang_up=10**6)
    with pytest.raises(HostError, match="cannot be reached"):
        Host.connect(server.url, server.identity, server.known, timeout=1.0)
    server.close()


def test_nobody_listening(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(HostError, match="cannot be reached"):
        Host.connect(f"ssh://root@127.0.0.1:{port}")


def test_something_that_is_not_ssh() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ssh://root@127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(HostError, match="cannot be reached"):
            Host.connect(url, timeout=0.5)


@pytest.mark.parametrize("url", ["host", "http://h", "ssh://", "ssh://u:p@h", "ssh://h:x", "ssh://h/path"])
def test_malformed_addresses(url: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(url)


def test_addresses() -> None:
    assert Address.parse("ssh://h") == Address("root", "h", 22)
    assert str(Address.parse("ssh://me@[::1]:99")) == "ssh://me@[::1]:99"
    assert Address.parse("ssh://me@h:99").known_name == "[h]:99"


def test_a_host_that_was_lost_is_found_again(server: Server) -> None:
    with server.login() as host:
        server.cut()
        assert host.steadily(lambda: host.run(["echo", "again"]).stdout, 60) == "again\n"


def test_a_host_that_stays_away_is_an_error_in_time(server: Server) -> None:
    with server.login() as host:
        server.hang_up = 1 << 20
        server.cut()
        started = time.monotonic()
        with pytest.raises(HostError, match="cannot be reached"):
            host.revive(1)
        assert time.monotonic() - started < 60


def test_another_host_at_the_same_address_is_refused(server: Server) -> None:
    with server.login() as host:
        server.cut()
        server.host_key = paramiko.RSAKey.generate(2048)
        with pytest.raises(HostError, match="host key changed"):
            host.revive(60)
        server.trust(server.host_key)
        with pytest.raises(HostError, match="another host answers now"):
            host.revive(60)


def test_a_file_goes_there_once_and_again_when_it_was_altered(server: Server, tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "kept there"
    source.write_bytes(b"program")
    with server.login() as host:
        there = Path(host.put_once(source, str(folder), 0o755))
        assert there.name == hashlib.sha256(b"program").hexdigest()
        assert there.stat().st_mode & 0o777 == 0o755
        first = there.stat().st_ino
        host.put_once(source, str(folder), 0o755)
        assert there.stat().st_ino == first
        there.write_bytes(b"pr0gram")
        host.put_once(source, str(folder), 0o755)
        assert there.read_bytes() == b"program"


def test_a_full_disk_is_said_to_be_full_and_nothing_stays(server: Server, tmp_path: Path) -> None:
    with server.login() as host:
        with pytest.raises(HostError, match="No space left") as caught:
            host.run(["sh", "-c", "cat > /dev/full"], input=b"x" * 10000)
        (tmp_path / "x.part").symlink_to("/dev/full")
        with pytest.raises(HostError, match=r"x cannot be written.*No space left") as caught:
            host.put_bytes(b"x" * 10000, f"{tmp_path}/x")
        assert "df" in (caught.value.hint or "")
        assert not (tmp_path / "x").exists()
        assert not (tmp_path / "x.part").is_symlink()
