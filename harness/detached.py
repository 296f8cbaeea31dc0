# SPDX-License-Identifier: GPL-2.0-or-later
"""Long work on a host that does not end with the connection over which it was begun.

A job is a directory on the host: the program runs in a session of its own and writes into files there; when it ends,
its status is a file, too. Whoever lost the connection, or a later process that knows the directory's name, connects
again and waits on. Beginning a job twice begins it once.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import HostError
from harness.host import REVIVE_SECONDS, Host
from harness.run import Deadline, check_called_off

_SLICE = 20
"""Seconds for which the host itself looks, once a second, before it is asked again."""

_RUNNING, _GONE = 75, 76

# $1 the directory, $2 a script, which gets the directory as its first word
_BEGIN = """
cd "$1" && mkdir begun 2>/dev/null || exit 0
setsid sh -c '
    echo $$ > "$1/minder"
    sh -c "$2" job "$1" > "$1/out" 2> "$1/err"
    echo $? > "$1/status.new" && mv "$1/status.new" "$1/status"
' minder "$1" "$2" < /dev/null > /dev/null 2>&1 &
n=0
while [ ! -e minder ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
"""
_WAIT = """
cd "$1" 2>/dev/null || exit 76
n=0
until [ -e status ]; do
    p=
    if ! read -r p < minder || [ ! -d "/proc/$p" ]; then
        sleep 1  # it may have ended this moment
        [ -e status ] && break
        exit 76
    fi
    [ "$n" -lt "$2" ] || exit 75
    sleep 1
    n=$((n + 1))
done
cat status
"""


@dataclass(frozen=True)
class Ended:
    """How a job ended, and what it wrote."""

    status: int
    out: bytes
    err: bytes


def begun(host: Host, folder: str) -> bool:
    """Whether a job was begun in a directory and runs, or has ended; not if it was lost with a reboot or a kill."""
    return host.run(["sh", "-c", _WAIT, "wait", folder, "0"], check=False, timeout=60).returncode in (0, _RUNNING)


def begin(host: Host, folder: str, script: str, seconds: float = REVIVE_SECONDS) -> None:
    """Run a script in the background, its output in files of ``folder``, which exists."""
    host.steadily(lambda: host.run(["sh", "-c", _BEGIN, "begin", folder, script], timeout=60), seconds)


def wait(host: Host, folder: str, deadline: Deadline, seconds: float = REVIVE_SECONDS) -> Ended:
    """Wait for the end of a job, over as many connections as it takes.

    Args:
        host: where it runs; is connected again whenever the connection breaks.
        folder: its directory.
        deadline: for the job.
        seconds: for each time that the host is lost.

    Raises:
        TimeoutError: the deadline passed; the job runs on.
        HostError: the host stays away, or the job is gone without a word: killed, or the host was booted.

    """

    def look() -> int | None:
        slice_ = max(1, min(_SLICE, round(deadline.remaining())))
        done = host.run(["sh", "-c", _WAIT, "wait", folder, str(slice_)], check=False, timeout=_SLICE + 60)
        if done.returncode == 0:
            return int(done.stdout)
        if done.returncode == _RUNNING:
            return None
        raise HostError(
            f"{host.address}: the job in {folder} is gone and left no status: it was killed, or the host was booted",
            hint="look with `harness host status`, then the same command again",
        )

    while (status := host.steadily(look, seconds)) is None:
        check_called_off()
        if deadline.expired():
            raise TimeoutError
    return Ended(status, host.steadily(lambda: _whole(host, folder, "out"), seconds),
                 host.steadily(lambda: _whole(host, folder, "err"), seconds))  # fmt: skip


def _whole(host: Host, folder: str, name: str) -> bytes:
    status, data, said, _ = host.run_bytes(["cat", f"{folder}/{name}"])
    if status != 0:
        raise HostError(f"{host.address}: {folder}/{name} cannot be read: {said.decode(errors='replace').strip()}")
    return data
