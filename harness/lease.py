# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has a host to himself: a lease that lies on the host, with an end, so that two users never measure at once.

The host's clock alone decides, since those of the users may differ. Every change is made by one script under a lock,
so that of two who come at once one is told that he is late. A lease names a token; whoever has the token has the
lease, and keeps it in the cache of his own machine.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.config import atomic_write, lock, paths
from harness.dsa import Shell
from harness.errors import Busy, HostError

STATE = "/var/lib/paraksm"
"""Where on a host everything of ours lies that must survive a lost connection and a reboot."""

SECONDS = 4 * 3600
"""How long a lease holds, unless it is asked for longer or renewed."""


@dataclass(frozen=True)
class Lease:
    """Who has the host, what for, and when by the host's clock."""

    token: str
    since: int
    until: int
    holder: str
    purpose: str
    left: int = field(default=0, compare=False)
    """Seconds that are left; not above 0: it has expired."""

    @property
    def expired(self) -> bool:
        """Whether anybody may have the host now."""
        return self.left <= 0

    def __str__(self) -> str:
        return f"{self.holder}, for {self.purpose}, since {_stamp(self.since)}, until {_stamp(self.until)} UTC"


def _stamp(seconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


# util-linux, which every server has, brings flock; in a guest of ours a directory that only one can make stands in for
# it, and one whose maker is gone is nobody's
_GUARDED = """
umask 077
mkdir -p {state} && cd {state} || exit 3
if command -v flock >/dev/null; then
    exec 9> guard.lock && flock -w 10 9 || exit 3
else
    n=0
    until mkdir guard 2>/dev/null; do
        n=$((n + 1))
        p=
        read -r p 2>/dev/null < guard/pid
        if [ "$n" -gt 100 ] || {{ [ "$p" ] && [ ! -d "/proc/$p" ]; }}; then rm -rf guard; else sleep 0.1; fi
    done
    trap 'rm -rf guard' EXIT
    trap 'exit 4' HUP INT TERM
    echo $$ > guard/pid
fi
now=$(date +%s)
token= since=0 until=0 holder= purpose=
[ -e lease ] && {{ read -r token; read -r since; read -r until; read -r holder; read -r purpose; }} < lease
case "$since$until" in '' | *[!0-9]*) token= since=0 until=0 ;; esac
tell() {{ printf '%s\\n' "$1" "$token" "$since" "$until" "$holder" "$purpose" "$((until - now))"; }}
"""
_TAKE = """
if [ "$token" ] && [ "$token" != {token} ] && [ "$until" -gt "$now" ]; then tell held; exit 0; fi
[ "$token" = {token} ] || since=$now
said=taken
[ "$token" ] && [ "$token" != {token} ] && said=expired && old=$holder
token={token} until=$((now + {seconds})) holder={holder} purpose={purpose}
printf '%s\\n' "$token" "$since" "$until" "$holder" "$purpose" > lease.new && mv lease.new lease || exit 3
tell "$said${{old:+ $old}}"
"""
_LEAVE = """
[ "$token" = {token} ] || {{ tell other; exit 0; }}
rm -f lease || exit 3
tell left
"""


def _ask(shell: Shell, state: str, action: str) -> tuple[str, Lease | None]:
    done = shell(_GUARDED.format(state=shlex.quote(state)) + action)
    rows = done.stdout.splitlines()
    if done.returncode != 0 or len(rows) < 7:
        raise HostError(
            f"the lease in {state} cannot be read or written: {done.stderr.strip() or f'status {done.returncode}'}",
            hint="is the login root, and the disk not full? df /var/lib",
        )
    said, token, since, until, holder, purpose, left = rows[:7]
    return said, Lease(token, int(since), int(until), holder, purpose, int(left)) if token else None


def show(shell: Shell, state: str = STATE) -> Lease | None:
    """The lease that lies there, expired or not."""
    return _ask(shell, state, "tell is")[1]


def take(shell: Shell, token: str, purpose: str, seconds: int = SECONDS, state: str = STATE) -> tuple[Lease, str]:
    """Have the host to oneself from now on; with the token of one's own lease, for that much longer.

    An expired lease is replaced; whose it was is the second part of the answer, else an empty text.

    Raises:
        Busy: somebody else has it, and since when and until when; nothing was changed.
        HostError: nothing can be written there.

    """
    action = _TAKE.format(
        token=shlex.quote(token),
        seconds=int(seconds),
        holder=shlex.quote(holder()),
        purpose=shlex.quote(_line(purpose)),
    )
    said, lease = _ask(shell, state, action)
    assert lease is not None
    if said == "held":
        raise Busy(
            f"the host is in use: {lease}",
            hint=f"ask {lease.holder.partition('@')[0]}, or wait {-(-lease.left // 60)} minutes",
        )
    return lease, said.partition(" ")[2]


def leave(shell: Shell, token: str, state: str = STATE) -> bool:
    """Give the host free; False: the lease was not ours any more."""
    return _ask(shell, state, _LEAVE.format(token=shlex.quote(token)))[0] == "left"


def holder() -> str:
    """Who we are: user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return _line(f"{user}@{socket.gethostname()}")


def _line(text: str) -> str:
    """Text that is one line of a file."""
    return re.sub(r"\s+", " ", text).strip() or "?"


# --- the holder's side ----------------------------------------------------------------------------------


def _purse(name: str) -> Path:
    return paths().cache / "leases" / re.sub(r"[^\w.-]+", "_", name)


def token(name: str) -> str | None:
    """The token of the lease that we have or had; ``name`` is the host's address."""
    return _remembered(name)[0]


def _remembered(name: str) -> tuple[str | None, bool]:
    """Token, and whether a person's command took the lease."""
    try:
        words = _purse(name).read_text().split()
    except FileNotFoundError:
        return None, False
    return (words[0], words[1:] != ["run"]) if words else (None, False)


def keep(name: str, text: str, *, run: bool = False) -> None:
    """Remember a token for the commands that follow; of a ``run``, which gives it back unless it is killed."""
    atomic_write(_purse(name), f"{text} run\n" if run else f"{text}\n")


def forget(name: str) -> None:
    """Remember none any more."""
    _purse(name).unlink(missing_ok=True)


def fresh() -> str:
    """A token that nobody can guess."""
    return secrets.token_hex(16)


@contextlib.contextmanager
def held(shell: Shell, name: str, purpose: str, seconds: int = SECONDS, state: str = STATE) -> Iterator[Lease]:
    """Have a host for a while; a lease that was kept by an earlier command stays when the while is over.

    Raises:
        Busy: somebody else has the host, or another command of ours is at it.

    """
    from harness.ui import ui

    with lock(_purse(name).with_suffix(".lock"), what=f"another command that works on {name}"):
        known, by_hand = _remembered(name)
        mine = known or fresh()
        lease, displaced = take(shell, mine, purpose, seconds, state)
        if not by_hand:  # remembered all the same: if we are killed, the next run may go on with it
            keep(name, mine, run=True)
        if displaced:
            ui().warn(f"{name}: the lease of {displaced} had expired; it is ours now")
        try:
            yield lease
        finally:
            if not by_hand:
                forget(name)
                try:
                    leave(shell, mine, state)
                except HostError as error:
                    ui().warn(f"{name}: the lease could not be given back, it ends by itself: {error.message}")
