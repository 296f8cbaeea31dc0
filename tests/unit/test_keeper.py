# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness fleet up``, ``status`` and ``down`` with a stand-in for QEMU: no way of ending leaves a process."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import keeper, workbench
from harness.cli.main import main
from harness.errors import UsageError
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.patches import AppliedSeries
from harness.qbuild import QemuBuild
from harness.sources import SourceTree

# what `harness fleet` imports when it is called: here once, not in each process that is forked
for _late in ("harness.fleet", "harness.ssh", "harness.report.tables", "rich.progress"):
    importlib.import_module(_late)

FAKE = Path(__file__).parent.parent / "fakes" / "qemu.py"


Harness = Callable[..., subprocess.CompletedProcess[str]]


def _stand_in(folder: Path) -> Callable[..., workbench.Workbench]:
    """What takes the place of :func:`workbench.workbench`: nothing is built, QEMU is a stand-in."""
    applied = AppliedSeries(SourceTree("linux", "6.1", "6.1", folder, "tree:0", "a test"), "0", "0", False, None)
    files = (folder / "bzImage", folder / "vmlinux", folder / "config")
    kernel = KernelBuild("6.1", "6.1.192", *files, folder, "k", applied)
    qemu = QemuBuild("10.0", FAKE, folder / "qboot.rom", folder, "q", applied)

    def bench(kernel_version: str | None = None, source: str | None = None, image: str = "") -> workbench.Workbench:
        assert (kernel_version, source) == (None, None)
        return workbench.Workbench(qemu, kernel, Image(image, folder / "i.cpio", "i"))

    return bench


def _start(folder: Path, words: tuple[str, ...], env: dict[str, str]) -> int:
    """The id of a process of its own that runs ``harness fleet``: forked, for starting Python takes its time."""
    if pid := os.fork():
        return pid
    try:
        for number, name in enumerate(("stdout", "stderr"), 1):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.environ.update(env)
        workbench.workbench = _stand_in(folder)
        keeper._END = 2.0
        sys.argv = ["harness", "-q", "fleet", *words]
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end(folder: Path, pid: int, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return subprocess.CompletedProcess(words, code, (folder / "stdout").read_text(), (folder / "stderr").read_text())


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """``harness fleet`` with a cache of its own; at the end nothing of it may live."""
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "FAKE_QEMU": "fake.run=fleet"}

    def call(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return _end(tmp_path, _start(tmp_path, words, env | more), words)

    yield call
    call("down", "--all")
    assert _ours(tmp_path) == []


def _ours(folder: Path) -> list[psutil.Process]:
    """Processes that have anything to do with a directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) or str(folder) in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return found


def _family(state: dict[str, Any]) -> list[psutil.Process]:
    boss = psutil.Process(state["keeper"])
    return [boss, *boss.children(recursive=True)]


def test_up_returns_and_the_fleet_stays_until_down(harness: Harness, tmp_path: Path) -> None:
    done = harness("up", "--profile", "small", "--set", "vms=2", "--system", "cpu-ksm", "--json")
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    assert (state["phase"], state["loaded"], state["vms"]) == ("up", 2, 2)
    assert "48 MiB" in state["about"]
    family = _family(state)
    assert len(family) == 2  # keeper and QEMU; whoever typed `up` is gone
    argv = (tmp_path / "cache/paraksm/fleets/fleet/qemu.argv").read_text()
    assert "paraksm.mode=functional" in argv
    assert "name=opt/paraksm/fleet-plan,file=" in argv

    seen = json.loads(harness("status", "--json").stdout)
    assert seen["ksm"] == {"run": "1", "pages_sharing": "12"}
    assert seen["ksmd_seconds"] == 2.5
    assert seen["vms"] == [
        {"number": 1, "alive": True, "rss_mib": 2.0, "merging_pages": 5},
        {"number": 2, "alive": False, "rss_mib": 0.0, "merging_pages": 0},
    ]
    shown = harness("status").stdout
    assert "1 of 2 VMs are lost: 2" in shown
    assert "ssh -p " in shown

    seen = json.loads(harness("status", "--json", "--shares").stdout)
    assert seen["pages"] == {"1": {"pages": 10, "zero": 4, "self": 2, "inter": 3, "unique": 1}}
    assert seen["possible"] == 1 + 2 + 2  # at most three to a page of KSM's: of the four that are equal one stays
    shown = harness("status", "--shares").stdout
    assert "40.0%" in shown
    assert "KSM can save 5 of 10 pages, and saves 12 now" in shown

    done = harness("down")
    assert (done.returncode, done.stdout) == (0, "fleet 'fleet' is down\n")
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert not (tmp_path / "cache/paraksm/fleets/fleet").exists()


def test_a_second_one_needs_another_name(harness: Harness) -> None:
    assert harness("up", "--profile", "unit").returncode == 0
    done = harness("up", "--profile", "unit")
    assert done.returncode == 10
    assert "already up" in done.stderr
    assert "harness fleet down" in done.stderr
    assert harness("up", "--profile", "unit", "--name", "other").returncode == 0
    assert harness("status", "--json").returncode == 2  # which one?
    assert sorted(json.loads(harness("down", "--all", "--json").stdout)["ended"]) == ["fleet", "other"]
    assert harness("down", "--all").stdout == "no fleet is up\n"


@pytest.mark.parametrize("command", ["status", "down"])
def test_what_is_not_up_is_told_with_the_next_command(harness: Harness, command: str) -> None:
    done = harness(command)
    assert done.returncode == 2
    assert "no fleet 'fleet' is up" in done.stderr
    assert "harness fleet up" in done.stderr


def test_a_machine_that_dies_is_told_with_its_console(harness: Harness) -> None:
    state = json.loads(harness("up", "--profile", "unit", "--json").stdout)
    family = _family(state)
    with Path(state["console"]).open("a") as console:
        console.write("the last words\n")
    family[1].kill()
    assert psutil.wait_procs(family, timeout=10)[1] == []  # the keeper notices, and ends
    done = harness("status")
    assert done.returncode == 7
    assert "QEMU was killed by signal 9" in done.stderr
    assert "the last words" in done.stderr
    assert "harness fleet down" in done.stderr
    assert harness("up", "--profile", "unit").returncode == 0  # what is left of a dead one is no hindrance


def test_a_keeper_that_is_killed_leaves_neither_qemu_nor_the_impression_of_a_fleet(harness: Harness) -> None:
    state = json.loads(harness("up", "--profile", "unit", "--json").stdout)
    family = _family(state)
    os.kill(state["keeper"], signal.SIGKILL)
    assert psutil.wait_procs(family, timeout=5)[1] == []
    done = harness("status")
    assert done.returncode == 7
    assert "its keeper was killed" in done.stderr
    done = harness("down")
    assert (done.returncode, done.stdout) == (0, "fleet 'fleet' had died; what was left is removed\n")
    assert harness("status").returncode == 2


def test_a_keeper_that_does_not_listen_is_killed(harness: Harness) -> None:
    state = json.loads(harness("up", "--profile", "unit", "--json").stdout)
    family = _family(state)
    os.kill(state["keeper"], signal.SIGSTOP)
    assert harness("down").returncode == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("fake.run=unfleet", "VM 2 died while it was loading"),
        ("fake.run=die", "something in here broke"),
        ("fake.boot=die", "could not load the kernel"),
        ("fake.boot=silent", "did not reach its first program"),
    ],
)
def test_one_that_does_not_come_up_says_why_and_is_gone(harness: Harness, tmp_path: Path, what: str, said: str) -> None:
    done = harness("up", "--profile", "unit", "--boot-timeout", "1", FAKE_QEMU=what)
    assert done.returncode == 7, done.stderr
    assert said in done.stderr
    for _ in range(100):
        if not _ours(tmp_path):
            break
        time.sleep(0.05)
    assert _ours(tmp_path) == []


def test_ctrl_c_while_it_comes_up_ends_it(harness: Harness, tmp_path: Path) -> None:
    words, apart = ("up", "--profile", "unit"), tmp_path / "apart"
    apart.mkdir()
    child = _start(apart, words, {"XDG_CACHE_HOME": str(tmp_path / "cache"), "FAKE_QEMU": "fake.run=never"})
    state = tmp_path / "cache/paraksm/fleets/fleet/state.json"
    while not state.exists():
        time.sleep(0.05)
    shown = harness("status")
    assert shown.returncode == 0
    assert "is coming up: 0 of 4 VMs" in shown.stdout
    os.kill(child, signal.SIGINT)
    assert _end(apart, child, words).returncode == 130
    assert _ours(tmp_path) == []
    assert not state.exists()


def test_what_cannot_be_is_refused_before_anything_starts(harness: Harness) -> None:
    for words, said in (
        (("--system", "styx"), "needs a SmartNIC"),
        (("--name", "Über/uns"), "is no name for a fleet"),
        (("--profile", "huge"), "no fleet profile 'huge'"),
        (("--profile", "scaled", "--set", "vm_memory_mib=500000"), "MiB are free here"),
    ):
        done = harness("up", *words)
        assert done.returncode in (2, 3), done.stderr
        assert said in done.stderr
    assert harness("status").returncode == 2


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("fake.job=bad", 8, "ended with status 1\n    fleet: as it is wanted: bad"),
        ("fake.job=panic", 7, "panic"),
        ("fake.job=good", 8, "the guest wrote no fleet result"),
    ],
)
def test_a_single_run_that_fails_says_why_and_leaves_nothing(
    harness: Harness, tmp_path: Path, what: str, code: int, said: str
) -> None:
    done = harness("run", "unit", "--output", str(tmp_path / "out"), FAKE_QEMU=what)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert list((tmp_path / "cache/paraksm/tmp").iterdir()) == []


def test_names_and_what_guests_say() -> None:
    with pytest.raises(UsageError, match="no name"):
        keeper.folder_of("../x")
    assert keeper.seen("up 1.5\nksm offload_mode [cpu] dsa\n").ksm == {"offload_mode": "[cpu] dsa"}
    with pytest.raises(ValueError, match="unpack"):
        keeper.seen("vm 1\n")
