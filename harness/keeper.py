# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet that stays: its machine runs in the background, minded by a process of its own, the keeper.

A fleet goes by a name. Its directory in the cache holds the machine's files, ``state.json`` (what the keeper last
said), ``lock`` (the keeper holds it as long as it lives, so a crash cannot be taken for a fleet that is up) and the
socket ``control``, over which the keeper is asked about the guest. QEMU dies with the keeper, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harness import witness
from harness.config import PROJECT, atomic_write, lock, paths
from harness.errors import Busy, EnvironmentProblem, FleetError, MachineError, UsageError
from harness.machine import GuestDown, Machine, MachineSpec
from harness.run import detach
from harness.witness import Shares

PLAN_FILE = "opt/paraksm/fleet-plan"
DEFAULT = "fleet"
"""The name of a fleet that was given none."""

BASE_MIB = 192
"""Memory of the machine besides its VMs': kernel, image, whoever logs in."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_STATE, _LOCK, _CONTROL, _LOG = "state.json", "lock", "control", "keeper.log"
_POLL = 0.1
_ASK = 60.0  # seconds for a guest to tell about its VMs: it may be busy with them
_END = 10.0  # seconds for a keeper to end its machine before it is killed

_SHARING = 256
"""Linux's default of ``max_page_sharing``."""

Phase = Literal["starting", "up", "died"]


@dataclass(frozen=True)
class State:
    """What is known of a fleet without asking its guest."""

    name: str
    phase: Phase
    about: str
    """For people: size, system, workload."""
    system: str
    vms: int
    kernel: str
    """The release that the machine runs."""
    console: str
    ssh: str
    """A line that logs in to the machine."""
    keeper: int
    """Process id of the keeper."""
    loaded: int = 0
    """VMs that have loaded."""
    seconds: float = 0.0
    """What it took to come up."""
    reason: str = ""
    """Why it died."""


@dataclass(frozen=True)
class Order:
    """A fleet to bring up. ``state`` is what is known of it before."""

    spec: MachineSpec
    state: State
    boot_seconds: float
    load_seconds: float


@dataclass(frozen=True)
class Vm:
    """A VM as its machine sees it."""

    number: int
    alive: bool
    rss_mib: float = 0.0
    """Its anonymous memory."""
    merging_pages: int = 0
    """Of these pages so many are mapped to a page of KSM's."""


@dataclass(frozen=True)
class Seen:
    """What the guest told."""

    vms: tuple[Vm, ...]
    ksm: Mapping[str, str]
    """The files of KSM in sysfs."""
    ksmd_seconds: float
    """Processor time of ksmd so far."""
    up_seconds: float
    """How long the machine has been up, by its own clock."""
    pages: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """If they were asked for: mergeable pages of each VM by its number: all, zero, self, inter, unique."""
    possible: int = 0
    """So many pages KSM can save of them."""


def folder_of(name: str) -> Path:
    """Where a fleet's files are.

    Raises:
        UsageError: not a name.

    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a fleet", hint="small letters, digits and hyphens, 32 at most, say: two-small"
        )
    return paths().cache / "fleets" / name


def names() -> list[str]:
    """Fleets that are up, or of which something is left."""
    return sorted(path.parent.name for path in (paths().cache / "fleets").glob(f"*/{_STATE}"))


def is_kept(name: str) -> bool:
    """Whether a keeper lives."""
    folder = folder_of(name)
    if not (folder / _LOCK).exists():
        return False
    try:
        with lock(folder / _LOCK, what=name):
            return False
    except Busy:
        return True


def read(name: str) -> State:
    """What is known of a fleet; one whose keeper is gone without a word has died.

    Raises:
        UsageError: there is none of that name.

    """
    kept = is_kept(name)  # first: a keeper that ends now has written before
    file = folder_of(name) / _STATE
    try:
        state = State(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = names()
        more = f"; there are: {', '.join(known)}" if known else ""
        raise UsageError(f"no fleet {name!r} is up{more}", hint=_up_hint(name)) from None
    except (OSError, ValueError, TypeError) as error:
        raise FleetError(f"{file} is damaged: {error}", hint=_down_hint(name)) from error
    if state.phase != "died" and not kept:
        return replace(state, phase="died", reason="its keeper was killed, or this machine rebooted")
    return state


def _up_hint(name: str) -> str:
    return "harness fleet up --profile small" + ("" if name == DEFAULT else f" --name {name}")


def _down_hint(name: str) -> str:
    return "harness fleet down" + ("" if name == DEFAULT else f" {name}")


# --- up -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def claimed(name: str) -> Iterator[Path]:
    """An empty directory for a fleet that is to be brought up; what is left of a dead one is removed.

    Raises:
        Busy: it is up, or somebody is bringing it up.

    """
    folder = folder_of(name)
    with lock(folder.with_name(f".{name}.up"), what=f"fleet {name!r}"):
        if is_kept(name):
            raise Busy(
                f"fleet {name!r} is already up: {read(name).about}",
                hint=f"{_down_hint(name)}, or give the new one a name: --name OTHER",
            )
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        except BaseException:
            if not (folder / _STATE).exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise


def up(order: Order, folder: Path, tell: Any = None) -> State:
    """Start a keeper, and wait until the fleet is up. Whoever interrupts this ends it.

    Args:
        order: what.
        folder: from :func:`claimed`.
        tell: called with the state as VMs come up.

    Raises:
        MachineError: the machine or the fleet program failed; the message has their last words.
        EnvironmentProblem: too little memory.

    """
    _need_memory(order.spec.memory_mib)
    name = order.state.name
    search = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH", "")]))
    child = detach(
        [sys.executable, "-c", "from harness.keeper import main; main()"],
        pickle.dumps(order),
        cwd=folder, env={"PYTHONPATH": search}, log=folder / _LOG,
    )  # fmt: skip
    try:
        while True:
            ended = child.poll() is not None  # before the last look, which then sees its last word
            with contextlib.suppress(OSError, ValueError):
                state = State(**json.loads((folder / _STATE).read_text(encoding="utf-8")))
                if state.phase == "died":
                    raise MachineError(
                        f"fleet {name!r} did not come up: {state.reason}",
                        hint=f"the whole console is in {state.console}; {_down_hint(name)} removes what is left",
                    )
                if state.phase == "up":
                    return state
                if tell:
                    tell(state)
            if ended:
                said = (folder / _LOG).read_text(errors="replace").strip()
                raise FleetError(f"the keeper of fleet {name!r} ended with status {child.returncode}: {said}")
            time.sleep(_POLL)
    except KeyboardInterrupt:
        _end_young(child)
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _end_young(keeper: subprocess.Popen[bytes]) -> None:
    """End a keeper that may not have its lock yet, so that only its parent can be sure of it."""
    keeper.terminate()
    try:
        keeper.wait(_END)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


def _need_memory(mib: int) -> None:
    import psutil

    room = psutil.virtual_memory().available >> 20
    if room < mib:
        raise EnvironmentProblem(
            f"the fleet's machine has {mib} MiB, {room} MiB are free here",
            hint="a smaller size: harness fleet profiles",
        )


# --- asking and ending ----------------------------------------------------------------------------------


def ask(name: str, *, pages: bool = False) -> Seen:
    """What the guest of a fleet that is up tells about its VMs and KSM.

    Args:
        name: of the fleet.
        pages: compare all pages of all VMs, too; they stand still for a moment.

    Raises:
        MachineError: it died, or does not answer.
        UsageError: there is none.

    """
    folder = folder_of(name)
    try:
        with _at(folder) as here, socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(_ASK + 5)
            wire.connect(f"{here}/{_CONTROL}")
            wire.sendall(b"pages" if pages else b"look")
            wire.shutdown(socket.SHUT_WR)
            raw = b"".join(iter(lambda: wire.recv(1 << 16), b""))
        answer = json.loads(raw)
    except (OSError, ValueError) as error:
        state = read(name)
        if state.phase == "died":
            raise _death(state) from None
        raise MachineError(f"the keeper of fleet {name!r} does not answer: {error}", hint=_down_hint(name)) from error
    if "fault" in answer:
        raise MachineError(str(answer["fault"]), hint=_down_hint(name))
    found = {int(number): row for number, row in answer.pop("pages").items()}
    return Seen(tuple(Vm(**vm) for vm in answer.pop("vms")), **answer, pages=found)


def check_alive(state: State) -> None:
    """Raise what a fleet died of.

    Raises:
        MachineError: it died.

    """
    if state.phase == "died":
        raise _death(state)


def _death(state: State) -> MachineError:
    tail = "" if "|" in state.reason else _tail(Path(state.console))
    return MachineError(
        f"fleet {state.name!r} died: {state.reason}{tail}",
        hint=f"the whole console is in {state.console}; {_down_hint(state.name)} removes what is left",
    )


def _tail(console: Path) -> str:
    with contextlib.suppress(OSError):
        return "".join(f"\n  | {line}" for line in console.read_text(errors="replace").splitlines()[-10:])
    return ""


def down(name: str) -> bool:
    """End a fleet and remove what is left of it; whether it was alive.

    Raises:
        UsageError: there is none of that name.
        FleetError: a process cannot be ended.

    """
    import psutil

    folder = folder_of(name)
    if not folder.exists():
        read(name)
    alive = is_kept(name)
    if alive:
        try:
            keeper = psutil.Process(int((folder / f"{_LOCK}.pid").read_text()))
            family = [keeper, *keeper.children(recursive=True)]
            keeper.terminate()
            _, left = psutil.wait_procs(family, _END)
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            _, left = psutil.wait_procs(left, _END)
        except (psutil.NoSuchProcess, OSError, ValueError):  # it ended meanwhile
            left = []
        if left or is_kept(name):
            raise FleetError(f"fleet {name!r} cannot be ended: {', '.join(str(process.pid) for process in left)}")
    shutil.rmtree(folder, ignore_errors=True)
    return alive


# --- the keeper -----------------------------------------------------------------------------------------


def main() -> None:
    """Keep the fleet whose :class:`Order` comes over standard input until we are told to end."""
    order = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - from up(), over our own pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _told_to_end)
    # whoever asks whether we live holds it for a moment
    with lock(Path(_LOCK).absolute(), what="the fleet", wait=_END):
        _Keeper(order, Path.cwd()).keep()


def _told_to_end(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(0)


class _Keeper:
    def __init__(self, order: Order, folder: Path) -> None:
        self._order = order
        self._folder = folder
        self._began = time.monotonic()
        self._state = replace(order.state, keeper=os.getpid())
        self._note()

    def _note(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
        atomic_write(self._folder / _STATE, json.dumps(asdict(self._state), indent=1) + "\n")

    def keep(self) -> None:
        """The machine's life."""
        try:
            with Machine(self._order.spec, self._folder) as machine:
                machine.start(timeout=self._order.boot_seconds)
                self._load(machine)
                with _listener(self._folder) as control:
                    self._note(phase="up", seconds=round(time.monotonic() - self._began, 1))
                    self._serve(machine, control)
        except MachineError as error:
            self._note(phase="died", reason=error.message)
        except FleetError as error:
            self._note(phase="died", reason=f"{error.message}{_tail(self._folder / 'console.log')}")

    def _load(self, machine: Machine) -> None:
        said = bytearray()

        def hear(data: bytes) -> None:
            said.extend(data)
            loaded = said.count(b"loaded\n")
            if loaded != self._state.loaded:
                self._note(loaded=loaded)

        script = _LOAD.replace("@PLAN@", _guest_file(PLAN_FILE))
        status = machine.execute(script, on_stdout=hear, timeout=self._order.load_seconds)
        if status:
            words = said.decode(errors="replace").replace("loaded\n", "").strip()
            raise FleetError(f"the fleet program ended: {words or 'without a word'}")
        self._note(loaded=self._state.vms)

    def _serve(self, machine: Machine, control: socket.socket) -> None:
        while True:
            if not machine.alive():
                machine.shell("true", timeout=5)  # says what it died of
            try:
                wire, _ = control.accept()
            except TimeoutError:
                continue
            with wire:
                wire.settimeout(5)
                with contextlib.suppress(OSError):
                    pages = b"".join(iter(lambda: wire.recv(16), b"")) == b"pages"  # noqa: B023 - used at once
                    answer = self._look(machine, _LOOK + _PAGES if pages else _LOOK)
                    wire.sendall(json.dumps(answer).encode())

    def _look(self, machine: Machine, script: str) -> dict[str, Any]:
        try:
            done = machine.shell(script, timeout=_ASK)
            if done.returncode:
                return {"fault": f"the guest of the fleet: {done.stderr.strip() or done.returncode}"}
            return asdict(seen(done.stdout))
        except GuestDown:
            raise
        except ValueError as error:
            return {"fault": f"the guest of the fleet told what makes no sense: {error}"}


_LOAD = """
setsid fleet hold @PLAN@ < /dev/null > /run/fleet 2> /run/fleet.errors &
pid=$! told=0
while :; do
    count=0 up=
    while read -r what rest; do
        case $what in vm) count=$((count + 1)) ;; up) up=1 ;; esac
    done < /run/fleet
    while [ $told -lt $count ]; do echo loaded; told=$((told + 1)); done
    [ -z "$up" ] || exit 0
    kill -0 $pid 2> /dev/null || break
    sleep 0.2
done
cat /run/fleet.errors
exit 1
"""
"""Brings the VMs up; they stay when the script ends. A line for each that has loaded."""

_LOOK = """
read -r up rest < /proc/uptime
echo "up $up"
read -r ran rest < /proc/$(pidof ksmd)/schedstat && echo "ksmd $ran"
for file in /sys/kernel/mm/ksm/*; do
    [ -d $file ] || { read -r value < $file && echo "ksm ${file##*/} $value"; } 2> /dev/null
done
while read -r what number pid; do
    [ "$what" = vm ] || continue
    rss= merging=0
    if [ -r /proc/$pid/status ]; then
        while read -r key value rest; do [ "$key" != RssAnon: ] || rss=$value; done < /proc/$pid/status
        read -r merging < /proc/$pid/ksm_merging_pages
    fi 2> /dev/null
    echo "vm $number ${rss:-lost} $merging"
done < /run/fleet
"""


_PAGES = """
set --
while read -r what number pid; do
    [ "$what" = vm ] && kill -0 $pid 2> /dev/null || continue
    echo "counted $number"
    set -- "$@" $pid
done < /run/fleet
[ $# = 0 ] || fleet shares "$@"
"""
"""Whose pages are equal: two tables of the fleet program, of the VMs that live in their order."""


def seen(text: str) -> Seen:
    """What the scripts in the guest printed.

    Raises:
        ValueError: that makes no sense.

    """
    vms, ksm, up_seconds, ksmd = [], {}, 0.0, 0
    for line in text.splitlines():
        what, _, rest = line.partition(" ")
        if what == "vm":
            number, rss, merging = rest.split()
            alive = rss != "lost"
            vms.append(Vm(int(number), alive, round(int(rss) / 1024, 1) if alive else 0.0, int(merging or 0)))
        elif what == "ksm":
            name, _, value = rest.partition(" ")
            ksm[name] = value
        elif what == "up":
            up_seconds = float(rest)
        elif what == "ksmd":
            ksmd = int(rest)
    pages, possible = _pages(text, int(ksm.get("max_page_sharing", _SHARING)))
    return Seen(tuple(vms), ksm, round(ksmd / 1e9, 3), up_seconds, pages, possible)


def _pages(text: str, limit: int) -> tuple[dict[int, dict[str, int]], int]:
    """Pages of each VM, and how many KSM can save of them all."""
    _, _, tables = text.partition("[pages_now]\n")
    if not tables:
        return {}, 0
    counted = [int(line.split()[1]) for line in text.splitlines() if line.startswith("counted ")]
    first, _, second = tables.partition("[contents_now]\n")
    names, *rows = first.splitlines()
    shares = [Shares.of(dict(zip(names.split(","), map(int, row.split(",")), strict=True))) for row in rows]
    counts = (row.split(",") for row in second.splitlines()[1:])
    contents = {int(mappings): int(same) for mappings, same in counts}
    found = {number: share.as_dict for number, share in zip(counted, shares, strict=True)}
    return found, witness.reach(contents, limit).sharing


def _guest_file(name: str) -> str:
    return f"/sys/firmware/qemu_fw_cfg/by_name/{name}/raw"


@contextlib.contextmanager
def _at(folder: Path) -> Iterator[str]:
    """A short name for a directory: the path of a socket has 107 bytes at most."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _listener(folder: Path) -> Iterator[socket.socket]:
    with _at(folder) as here, socket.socket(socket.AF_UNIX) as control:
        control.bind(f"{here}/{_CONTROL}")
        control.listen()
        control.settimeout(0.2)
        yield control
