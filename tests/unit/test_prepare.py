# SPDX-License-Identifier: GPL-2.0-or-later
"""A server made quiet and put back, by the real scripts over a directory that looks like one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import lease, prepare
from harness.dsa import Shell
from harness.errors import Busy, HostError
from harness.run import Completed
from tests.fakes import dsa as fake
from tests.fakes.server import Server

_CPU = "sys/devices/system/cpu"
BUSY = {
    f"{_CPU}/smt/control": "on",
    f"{_CPU}/cpu0/cpufreq/scaling_governor": "schedutil",
    f"{_CPU}/cpu1/cpuidle/state2/disable": "0",
    f"{_CPU}/intel_pstate/no_turbo": "0",
    "sys/kernel/mm/transparent_hugepage/enabled": "madvise",  # a kernel would mark it among several
    "proc/sys/kernel/numa_balancing": "1",
    "sys/kernel/mm/ksm/pages_to_scan": "100",
}
KSM = {"max_page_sharing": "256", "use_zero_pages": "0", "sleep_millisecs": "20", "pages_to_scan": "100"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server as its owner has it: nothing is quiet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Server(tmp_path / "server", complete=True)
    for name, text in KSM.items():
        made.put(f"sys/kernel/mm/ksm/{name}", text)
    made.put("sys/kernel/mm/ksm/offload_mode", "cpu")
    for name, text in BUSY.items():
        made.put(name, text)
    made.service("ksmtuned", "irqbalance")
    made.swap("/dev/sda2", 5)
    return made


def state(server: Server) -> str:
    return f"{server.root}/var/lib/paraksm"


def now(server: Server) -> dict[str, str]:
    """All that may be changed."""
    names = [
        *BUSY,
        *(f"sys/kernel/mm/ksm/{name}" for name in (*KSM, "run")),
        "services/ksmtuned",
        "services/irqbalance",
    ]
    return {name: server.get(name) for name in (*names, "proc/swaps")}


def make_quiet(server: Server, *, kept: bool = True, shell: Shell | None = None) -> list[prepare.Change]:
    return prepare.prepare(shell or server.shell, kept=kept, state=state(server), root=f"{server.root}/")


def put_back(server: Server) -> prepare.Snapshot | None:
    return prepare.restore(server.shell, state=state(server), root=f"{server.root}/")


def test_everything_is_quiet_and_then_as_it_was(server: Server) -> None:
    before = now(server)
    changes = make_quiet(server)
    assert {(change.kind, change.target.rpartition("/")[2]) for change in changes} == {
        ("file", "control"), ("file", "scaling_governor"), ("file", "disable"), ("file", "no_turbo"),
        ("file", "enabled"), ("file", "numa_balancing"), ("service", "ksmtuned"), ("service", "irqbalance"),
        ("swap", "sda2"),
    }  # fmt: skip
    assert changes[0].target.endswith("smt/control")
    after = now(server)
    assert after[f"{_CPU}/smt/control"] == "off"
    assert after[f"{_CPU}/cpu0/cpufreq/scaling_governor"] == "performance"
    assert after["services/ksmtuned"] == "inactive"
    assert "/dev/sda2" not in after["proc/swaps"]
    server.put("sys/kernel/mm/ksm/pages_to_scan", "4000")  # what an experiment does
    assert put_back(server) is not None
    assert now(server) == before
    assert server.get("swapon") == "-p 5 /dev/sda2"
    assert list(Path(state(server)).iterdir()) == []
    assert put_back(server) is None


def test_the_snapshot_is_there_before_the_first_change(server: Server) -> None:
    seen: list[bool] = []

    def shell(script: str) -> Completed:
        if "refused" in script and "stop" in script:
            seen.append((Path(state(server)) / "snapshot.json").exists())
            assert now(server) == before
        return server.shell(script)

    before = now(server)
    make_quiet(server, shell=shell)
    assert seen == [True]


def test_without_room_for_a_snapshot_nothing_is_touched(server: Server) -> None:
    before = now(server)
    Path(state(server)).parent.mkdir(parents=True, exist_ok=True)
    Path(state(server)).write_text("a file where a directory must be")
    with pytest.raises(HostError, match=r"nothing was changed|cannot be"):
        make_quiet(server)
    assert now(server) == before


def test_a_second_time_changes_nothing_and_forgets_nothing(server: Server) -> None:
    before = now(server)
    make_quiet(server)
    assert make_quiet(server) == []
    server.put(f"{_CPU}/cpu1/cpufreq/scaling_governor", "powersave")
    assert [change.before for change in make_quiet(server)] == ["powersave"]
    put_back(server)
    assert now(server) == before
    assert server.get(f"{_CPU}/cpu1/cpufreq/scaling_governor") == "powersave"


def test_after_a_crash_in_the_middle_what_was_is_still_known(server: Server) -> None:
    """Killed between two changes: half is quiet, the rest is not."""
    before = now(server)

    def shell(script: str) -> Completed:
        if "refused" in script and "stop" in script:
            half = script.splitlines()
            server.shell("\n".join(half[: len(half) // 2 + 6]))
            raise KeyboardInterrupt
        return server.shell(script)

    with pytest.raises(KeyboardInterrupt):
        make_quiet(server, kept=False, shell=shell)
    middle = now(server)
    assert middle != before
    # the next run neither takes the half for the owner's wish, nor does it need the machine that crashed
    with prepare.ready(server.shell, "ssh://x", "test", state=state(server), root=f"{server.root}/"):
        assert server.get("services/irqbalance") == "inactive"
    assert now(server) == before


def test_a_run_puts_back_what_it_changed_also_when_it_fails(server: Server) -> None:
    before = now(server)
    with (
        pytest.raises(RuntimeError),
        prepare.ready(server.shell, "ssh://x", "test", state=state(server), root=f"{server.root}/"),
    ):
        assert now(server) != before
        held = lease.show(server.shell, state(server))
        assert held is not None
        assert held.purpose == "test"
        raise RuntimeError
    assert now(server) == before
    assert lease.show(server.shell, state(server)) is None


def test_a_run_on_a_host_that_a_person_prepared_leaves_it_prepared(server: Server) -> None:
    make_quiet(server)
    quiet = now(server)
    with prepare.ready(server.shell, "ssh://x", "test", state=state(server), root=f"{server.root}/"):
        pass
    assert now(server) == quiet
    assert prepare.snapshot(server.shell, state(server)) is not None


def test_a_change_that_is_refused_undoes_the_others(server: Server) -> None:
    before = now(server)
    server.put("stubborn", "stop irqbalance")
    with pytest.raises(HostError, match=r"cannot be prepared: irqbalance.*again as it was"):
        make_quiet(server)
    assert now(server) == before
    assert prepare.snapshot(server.shell, state(server)) is None


def test_a_change_without_effect_is_noticed(server: Server) -> None:
    server.program("swapoff", "exit 0")
    with pytest.raises(HostError, match=r"cannot be prepared: /dev/sda2"):
        make_quiet(server)


def test_a_host_that_cannot_be_put_back_is_in_quarantine_until_it_is_mended(server: Server) -> None:
    before = now(server)
    make_quiet(server)
    server.put("stubborn", "start ksmtuned")
    with pytest.raises(HostError, match=r"(?s)in quarantine:.*ksmtuned is inactive, it was active"):
        put_back(server)
    assert server.get(f"{_CPU}/smt/control") == "on"  # all else was put back
    with pytest.raises(HostError, match=r"(?s)is in quarantine.*ksmtuned is inactive"):
        make_quiet(server)
    with (
        pytest.raises(HostError, match="in quarantine"),
        prepare.ready(server.shell, "ssh://x", "test", state=state(server), root=f"{server.root}/"),
    ):
        pass
    assert lease.show(server.shell, state(server)) is None
    (server.root / "stubborn").unlink()
    assert put_back(server) is not None
    assert now(server) == before
    assert prepare.quarantine(server.shell, state(server)) is None


def test_forgetting_leaves_the_host_as_it_is(server: Server) -> None:
    make_quiet(server)
    quiet = now(server)
    prepare.forget(server.shell, state(server))
    assert put_back(server) is None
    assert now(server) == quiet


def test_after_a_reboot_there_is_nothing_to_put_back(server: Server) -> None:
    make_quiet(server)
    server.put("proc/sys/kernel/random/boot_id", "another")
    quiet = now(server)
    assert put_back(server) is None
    assert now(server) == quiet


def test_a_damaged_snapshot_is_said_to_be_damaged(server: Server) -> None:
    make_quiet(server)
    (Path(state(server)) / "snapshot.json").write_text('{"schema": 1, "chan')
    with pytest.raises(HostError, match=r"snapshot\.json: damaged"):
        put_back(server)


def test_a_queue_that_serves_somebody_stops_before_anything_is_touched(server: Server) -> None:
    fake.bind(server.root / "sys", "wq0.0", "user")
    before = now(server)
    with pytest.raises(Busy, match=r"wq0\.0 of dsa0 serves the driver user"):
        make_quiet(server)
    assert now(server) == before
    assert prepare.snapshot(server.shell, state(server)) is None


def test_somebody_elses_lease_stops_before_anything_is_touched(server: Server) -> None:
    lease.take(server.shell, "another's", "their figures", 600, state(server))
    before = now(server)
    with (
        pytest.raises(Busy, match="their figures"),
        prepare.ready(server.shell, "ssh://x", "test", state=state(server), root=f"{server.root}/"),
    ):
        pass
    assert now(server) == before
    assert prepare.snapshot(server.shell, state(server)) is None


def test_a_host_whose_shell_is_not_roots_is_refused(server: Server) -> None:
    shell = server.shell
    server.put("tools/id", "#!/bin/sh\necho 1000")
    with pytest.raises(HostError, match="not root"):
        make_quiet(server, shell=shell)


def test_a_plan_changes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "host", "prepare", "--plan", "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")
