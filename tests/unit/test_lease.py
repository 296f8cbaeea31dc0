# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has a host: with flock as on a server, and without as in a guest of ours."""

from __future__ import annotations

import shlex
import threading
from pathlib import Path

import pytest

from harness import lease
from harness.dsa import Shell
from harness.errors import Busy, HostError
from harness.run import Completed, run


@pytest.fixture(params=["flock", "directory"])
def shell(request: pytest.FixtureRequest) -> Shell:
    """A shell on this machine."""

    def run_there(script: str) -> Completed:
        if request.param == "directory":
            script = script.replace("command -v flock", "false")
        return run(["sh", "-s"], input=script, check=False, timeout=60)

    return run_there


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return str(tmp_path / "state of a host")


def lies(state: str) -> list[str]:
    """The names of what was left there, the lock aside."""
    return sorted(path.name for path in Path(state).iterdir() if path.name != "guard.lock")


def test_one_has_it_and_the_other_is_told_who_since_when_and_until_when(shell: Shell, state: str) -> None:
    ours, displaced = lease.take(shell, "aaaa", "a  long\nmeasurement", 3600, state)
    assert (displaced, ours.purpose, ours.expired) == ("", "a long measurement", False)
    assert 3590 <= ours.left <= 3600
    with pytest.raises(
        Busy, match=rf"in use: {lease.holder()}, for a long measurement, since 20.*, until 20"
    ) as caught:
        lease.take(shell, "bbbb", "mine", 60, state)
    assert "or wait 60 minutes" in (caught.value.hint or "")
    assert lease.show(shell, state) == ours
    assert lease.leave(shell, "bbbb", state) is False
    assert lease.leave(shell, "aaaa", state) is True
    assert lease.show(shell, state) is None
    assert lies(state) == []


def test_the_holder_renews_and_keeps_the_beginning(shell: Shell, state: str) -> None:
    first, _ = lease.take(shell, "aaaa", "x", 60, state)
    again, _ = lease.take(shell, "aaaa", "x", 7200, state)
    assert again.since == first.since
    assert again.until >= first.until + 7000


def test_an_expired_lease_is_nobodys(shell: Shell, state: str) -> None:
    lease.take(shell, "aaaa", "x", -5, state)
    old = lease.show(shell, state)
    assert old is not None
    assert old.expired
    ours, displaced = lease.take(shell, "bbbb", "y", 60, state)
    assert displaced == lease.holder()
    assert ours.token == "bbbb"
    assert ours.since >= old.since


def test_of_many_who_come_at_once_one_gets_it(shell: Shell, state: str) -> None:
    got: list[str] = []

    def come(token: str) -> None:
        try:
            lease.take(shell, token, "x", 60, state)
        except Busy:
            return
        got.append(token)

    threads = [threading.Thread(target=come, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = lease.show(shell, state)
    assert held is not None
    assert got == [held.token]


def test_a_guard_whose_maker_was_killed_is_nobodys(state: str) -> None:
    def shell(script: str) -> Completed:
        return run(["sh", "-s"], input=script.replace("command -v flock", "false"), check=False, timeout=60)

    guard = Path(state) / "guard"
    guard.mkdir(parents=True)
    child = run(["sh", "-c", "echo $$"]).stdout.strip()
    (guard / "pid").write_text(child)
    assert lease.take(shell, "aaaa", "x", 60, state)[0].token == "aaaa"
    assert not guard.exists()


def test_a_damaged_lease_is_none(shell: Shell, state: str) -> None:
    Path(state).mkdir()
    (Path(state) / "lease").write_text("aaaa\nsoon\n")
    assert lease.show(shell, state) is None
    assert lease.take(shell, "bbbb", "x", 60, state)[0].token == "bbbb"


def test_a_place_that_cannot_be_written_is_an_error_with_the_reason(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be read or written"):
        lease.take(shell, "aaaa", "x", 60, str(tmp_path / "file" / "state"))


def test_held_for_a_while_and_free_again(shell: Shell, state: str) -> None:
    with lease.held(shell, "ssh://root@h:22", "x", 60, state) as ours:
        assert lease.show(shell, state) == ours
        with pytest.raises(Busy, match="another command"), lease.held(shell, "ssh://root@h:22", "y", 60, state):
            pass
    assert lease.show(shell, state) is None


def test_a_kept_lease_is_used_and_stays(shell: Shell, state: str) -> None:
    name = "ssh://root@h:22"
    lease.take(shell, "aaaa", "by hand", 60, state)
    lease.keep(name, "aaaa")
    with lease.held(shell, name, "x", 60, state) as ours:
        assert ours.token == "aaaa"
    held = lease.show(shell, state)
    assert held is not None
    assert held.token == "aaaa"
    lease.forget(name)
    with pytest.raises(Busy), lease.held(shell, name, "x", 60, state):
        pass


def test_words_of_a_purpose_are_no_shell(shell: Shell, state: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    text = f"$(touch {shlex.quote(str(trap))})`touch {trap}`'; touch {trap}"
    assert lease.take(shell, "aaaa", text, 60, state)[0].purpose == text
    assert not trap.exists()
