# SPDX-License-Identifier: GPL-2.0-or-later
"""A host made quiet for measuring, and put back as it was, whatever happens in between.

Before anything is changed the values that were there are written to a file on the host itself: the snapshot. It is
never replaced while it is there, so that what a crashed run left behind is not mistaken for the owner's choice, and
any later command finds it again, from any machine. After putting back everything is read again. What is then not as it
was quarantines the host: nothing measures there until somebody has looked. All changes end with the boot, so a
snapshot of another boot has nothing left to put back.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness import dsa, hostcheck, ksmstate, lease, quiet
from harness.dsa import Shell
from harness.errors import Busy, DeviceError, HostError
from harness.hostcheck import Facts
from harness.ksmstate import KsmState
from harness.lease import STATE, Lease
from harness.ui import ui

_SNAPSHOT = "snapshot.json"
_QUARANTINE = "quarantine"
_SCHEMA = 1

Kind = Literal["file", "service", "swap"]


@dataclass(frozen=True)
class Change:
    """One thing that is not as a measurement wants it."""

    kind: Kind
    target: str
    before: str
    after: str

    def __str__(self) -> str:
        if self.kind == "file":
            return f"{self.target}: {self.before} -> {self.after}"
        return f"{self.kind} {self.target}: {'stop' if self.kind == 'service' else 'off'}"


@dataclass(frozen=True)
class Snapshot:
    """What a host was before the first change, and who took it."""

    holder: str
    kept: bool
    """Made by a person's command, and left until he puts the host back; not by a run for its own time."""
    boot_id: str
    release: str
    changes: tuple[Change, ...]
    ksm: KsmState | None
    devices: tuple[dsa.Device, ...]

    def dump(self) -> str:
        """As it lies on the host."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def load(cls, text: str, where: str) -> Snapshot:
        """Read it again.

        Raises:
            HostError: it is damaged, or of another version.

        """
        try:
            data = json.loads(text)
            if data.pop("schema") != _SCHEMA:
                raise ValueError("another version's")
            changes = tuple(Change(**row) for row in data.pop("changes"))
            ksm = data.pop("ksm")
            state = KsmState(ksm["values"], tuple(ksm["scheduling"])) if ksm is not None else None
            devices = tuple(_device(row) for row in data.pop("devices"))
            return cls(changes=changes, ksm=state, devices=devices, **data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HostError(
                f"{where}: damaged: {error}",
                hint="look at the file, put the host back by hand, then harness host restore --forget",
            ) from error


def _device(row: Mapping[str, Any]) -> dsa.Device:
    parts = {
        "groups": tuple(dsa.Group(**part) for part in row["groups"]),
        "queues": tuple(dsa.Queue(**part) for part in row["queues"]),
        "engines": tuple(dsa.Engine(**part) for part in row["engines"]),
        "errors": tuple(row["errors"]),
    }
    return dsa.Device(**{**row, **parts})


# --- what is to be changed ------------------------------------------------------------------------------


def survey(facts: Facts) -> list[Change]:
    """All that is not as a measurement wants it, in the order in which it is changed; pure."""
    changes = [
        Change("file", f"/{path}", before, knob.want)
        for knob, wrong in quiet.unsuitable(facts.below("knob")).items()
        for path, before in wrong.items()
    ]
    running = set(facts.all("comm"))
    if "systemctl" in facts.all("program"):
        changes += [Change("service", name, "active", "inactive") for name in quiet.SERVICES if name[:15] in running]
    for row in facts.all("swap")[1:]:
        if len(words := row.split()) == 5:
            changes.append(Change("swap", words[0].replace("\\040", " "), words[4], "off"))
    return changes


_HEAD = """
bad=0
no() {{ bad=$((bad + 1)); printf 'refused\\t%s\\t%s\\n' "$1" "$2"; {give_up} }}
file() {{ said=$( {{ printf '%s\\n' "$1" > "$2"; }} 2>&1 ) || no "$2" "$said"; }}
service() {{ said=$(systemctl "$1" "$2" 2>&1 < /dev/null) || no "$2" "$said"; }}
off() {{ said=$(swapoff "$1" 2>&1) || no "$1" "$said"; }}
on() {{
    while read -r d x; do [ "$d" != "$3" ] || return 0; done < "$4"
    p=; [ "$1" -lt 0 ] || p="-p $1"
    said=$(swapon $p "$2" 2>&1) || no "$2" "$said"
}}
"""


def forward(changes: Sequence[Change]) -> str:
    """The script that makes the changes; it ends at the first that is refused."""
    rows = []
    for change in changes:
        target = shlex.quote(change.target)
        if change.kind == "file":
            # processors that SMT took away took their files along
            rows.append(f"[ ! -e {target} ] || file {shlex.quote(change.after)} {target}")
        else:
            rows.append(f"service stop {target}" if change.kind == "service" else f"off {target}")
    return "\n".join([_HEAD.format(give_up="exit 1;"), *rows, "exit 0"])


def backward(changes: Sequence[Change], root: str = "/") -> str:
    """The script that puts everything back; what is refused does not keep the rest from being put back."""
    rows = []
    for change in changes:
        target = shlex.quote(change.target)
        if change.kind == "file":
            rows.append(f"file {shlex.quote(change.before)} {target}")
        elif change.kind == "service":
            rows.append(f"service start {target}")
        else:
            rows.append(f"on {shlex.quote(change.before)} {target} {_listed(change)} {shlex.quote(root)}proc/swaps")
    return "\n".join([_HEAD.format(give_up=""), *rows, '[ "$bad" = 0 ]'])


_LOOK = """
not() { printf 'differs\\t%s\\t%s\\n' "$1" "$2"; }
look() {
    v=
    read -r v 2>/dev/null < "$1" || [ "$v" ] || return 1
    case $v in *'['*) v=${v#*'['}; v=${v%%']'*} ;; esac
}
"""


def _listed(change: Change) -> str:
    """What /proc/swaps calls a swap area, as a word of the shell."""
    return shlex.quote(change.target.replace(" ", "\\040"))


def differing(changes: Sequence[Change], side: Literal["before", "after"], root: str = "/") -> str:
    """The script that prints what is not as one side of the changes has it: kind, target and what is there."""
    rows = [_LOOK]
    for change in changes:
        target, want = shlex.quote(change.target), shlex.quote(getattr(change, side))
        if change.kind == "file":
            gone = f"not {target} gone" if side == "before" else ":"
            rows.append(f'if look {target}; then [ "$v" = {want} ] || not {target} "$v"; else {gone}; fi')
        elif change.kind == "service":
            rows.append(f'v=$(systemctl is-active {target} < /dev/null); [ "$v" = {want} ] || not {target} "$v"')
        else:
            state = "on" if side == "before" else "off"
            rows.append(
                f'v=off; while read -r d x; do [ "$d" = {_listed(change)} ] && v=on; done '
                f"< {shlex.quote(root)}proc/swaps; [ $v = {state} ] || not {target} $v"
            )
    return "\n".join([*rows, "exit 0"])


# --- what lies on the host --------------------------------------------------------------------------------


def _file(state: str, name: str) -> str:
    return f"{state}/{name}"


def _get(shell: Shell, path: str) -> str | None:
    done = shell(f"[ -e {shlex.quote(path)} ] || exit 44; cat {shlex.quote(path)}")
    if done.returncode == 44:
        return None
    if done.returncode != 0:
        raise HostError(f"{path} cannot be read: {done.stderr.strip()}")
    return done.stdout


def _put(shell: Shell, path: str, text: str) -> None:
    """Write a file on the host whole or not at all."""
    new = shlex.quote(f"{path}.new")
    done = shell(
        f"umask 077; mkdir -p {shlex.quote(path.rpartition('/')[0])} && printf '%s\\n' {shlex.quote(text)} > {new} && "
        f"sync {new} && mv {new} {shlex.quote(path)}"
    )
    if done.returncode != 0:
        raise HostError(
            f"{path} cannot be written: {done.stderr.strip()}; nothing was changed", hint="make room there: df /var/lib"
        )


def snapshot(shell: Shell, state: str = STATE) -> Snapshot | None:
    """The snapshot that lies on the host, if one does."""
    path = _file(state, _SNAPSHOT)
    text = _get(shell, path)
    return Snapshot.load(text, path) if text is not None else None


def quarantine(shell: Shell, state: str = STATE) -> str | None:
    """Why nothing may measure there, if so."""
    text = _get(shell, _file(state, _QUARANTINE))
    return text.strip() if text is not None else None


def admit(shell: Shell, state: str = STATE) -> None:
    """Let nobody onto a host that could not be put back.

    Raises:
        HostError: it is in quarantine.

    """
    if (why := quarantine(shell, state)) is not None:
        raise HostError(
            "the host is in quarantine, since it could not be put back:\n    " + why.replace("\n", "\n    "),
            hint="mend that by hand, then `harness host restore`, which looks again",
        )


def _boot(shell: Shell, root: str) -> str:
    return (_get(shell, f"{root}proc/sys/kernel/random/boot_id") or "").strip()


# --- doing it -----------------------------------------------------------------------------------------------


def _devices(shell: Shell, root: str) -> tuple[dsa.Device, ...]:
    try:
        return dsa.read(shell, f"{root}sys").devices
    except DeviceError:
        return ()


def prepare(shell: Shell, *, kept: bool, state: str = STATE, root: str = "/") -> list[Change]:
    """Make a host quiet, after a snapshot of all that changes; what was changed is returned.

    The lease is the caller's affair. On a host that is prepared already nothing happens but what is missing.

    Raises:
        HostError: quarantine, or a change that the host refuses (it is then put back as it was).
        Busy: a work queue of its accelerators is in somebody's hands.

    """
    admit(shell, state)
    facts = hostcheck.read(shell, root)
    there = snapshot(shell, state)
    if there is not None and there.boot_id != facts.one("boot_id"):
        there = None  # what it would put back ended with that boot
    if facts.one("uid") != "0":
        raise HostError("not root there: nothing can be prepared", hint="log in as ssh://root@HOST")
    devices = _devices(shell, root)
    if there is None:
        _nobody_works(devices)
    changes = [Change(c.kind, _rooted(c, root), c.before, c.after) for c in survey(facts)]
    known = {change.target for change in there.changes} if there is not None else set()
    fresh = [change for change in changes if change.target not in known]
    ksm = None
    if facts.one("ksm") is not None:
        ksm = ksmstate.read(shell, f"{root}sys/kernel/mm/ksm")
    made = Snapshot(
        lease.holder() if there is None else there.holder,
        kept or (there is not None and there.kept),
        facts.one("boot_id") or "",
        facts.one("release") or "",
        (*(there.changes if there is not None else ()), *fresh),
        there.ksm if there is not None else ksm,
        there.devices if there is not None else devices,
    )
    _put(shell, _file(state, _SNAPSHOT), made.dump())
    done = shell(forward(changes))
    refused = _rows(done.stdout, "refused")
    wrong = refused or _rows(shell(differing(changes, "after", root)).stdout, "differs")
    if done.returncode != 0 or wrong:
        what = "; ".join(f"{target}: {said}" for target, said in wrong) or done.stderr.strip()
        restore(shell, state=state, root=root)
        raise HostError(f"the host cannot be prepared: {what}; it is again as it was", hint="harness host check")
    return changes


def _rooted(change: Change, root: str) -> str:
    return root.rstrip("/") + change.target if change.kind == "file" else change.target


def _nobody_works(devices: Sequence[dsa.Device]) -> None:
    """Refuse a host whose accelerator serves somebody else.

    Raises:
        Busy: a queue is bound to a driver that is not ours.

    """
    for device in devices:
        for queue in device.queues:
            if queue.driver is not None and queue.driver != "ksm":
                raise Busy(
                    f"{queue.name} of {device.name} serves the driver {queue.driver} ({queue.client or 'no name'})",
                    hint="if nobody needs it: `harness dsa reset`, then again",
                )


def _rows(text: str, kind: str) -> list[tuple[str, str]]:
    out = []
    for row in text.splitlines():
        word, _, rest = row.partition("\t")
        if word == kind:
            target, _, said = rest.partition("\t")
            out.append((target, said.rpartition(": ")[2]))
    return out


def restore(shell: Shell, *, state: str = STATE, root: str = "/") -> Snapshot | None:
    """Put a host back as its snapshot has it, look whether it is, and take the snapshot away.

    Returns what was put back; ``None``: there was nothing to put back.

    Raises:
        HostError: something is not as it was; the host is in quarantine, the snapshot stays.

    """
    before = snapshot(shell, state)
    if before is None or before.boot_id != _boot(shell, root):  # all that is changed ends with the boot
        _remove(shell, state, _SNAPSHOT, _QUARANTINE)
        return None
    wrong: list[str] = []
    folder = f"{root}sys/kernel/mm/ksm"
    if before.ksm is not None:
        shell(ksmstate.restore(before.ksm, folder))
    wrong += _restore_devices(shell, before.devices, root)
    refused = dict(_rows(shell(backward(before.changes, root)).stdout, "refused"))
    for target, value in _rows(shell(differing(before.changes, "before", root)).stdout, "differs"):
        was = next(change.before for change in before.changes if change.target == target)
        wrong.append(f"{target} is {value}, it was {was}" + (f": {refused[target]}" if target in refused else ""))
    if before.ksm is not None:
        try:
            wrong += [f"{folder}: {text}" for text in ksmstate.differs(before.ksm, ksmstate.read(shell, folder))]
        except HostError as error:
            wrong.append(error.message)
    if wrong:
        text = "\n".join(wrong)
        _put(shell, _file(state, _QUARANTINE), text)
        raise HostError(
            "the host could not be put back and is in quarantine:\n    " + "\n    ".join(wrong),
            hint="mend that by hand, then `harness host restore`, which looks again; or restore --forget",
        )
    _remove(shell, state, _SNAPSHOT, _QUARANTINE)
    return before


def _restore_devices(shell: Shell, before: Sequence[dsa.Device], root: str) -> list[str]:
    if not before:
        return []
    now = {device.name: device for device in _devices(shell, root)}
    wrong = []
    for device in before:
        if device.name not in now:
            wrong.append(f"{device.name} is gone")
        elif _configured(now[device.name]) != _configured(device):
            try:
                dsa.apply(shell, dsa.recreate(now[device.name], device), f"{root}sys")
            except DeviceError as error:
                wrong.append(error.message)
    return wrong


def _configured(device: dsa.Device) -> tuple[object, ...]:
    """What a configuration consists of."""
    queues = tuple(q for q in device.queues if q.size)
    return device.driver, queues, tuple(e for e in device.engines if e.group is not None)


def forget(shell: Shell, state: str = STATE) -> None:
    """Take snapshot and quarantine away and leave the host as it is."""
    _remove(shell, state, _SNAPSHOT, _QUARANTINE)


def _remove(shell: Shell, state: str, *names: str) -> None:
    files = " ".join(shlex.quote(_file(state, name)) for name in names)
    done = shell(f"rm -f {files}")
    if done.returncode != 0:
        raise HostError(f"{files} cannot be removed: {done.stderr.strip()}")


@contextlib.contextmanager
def ready(
    shell: Shell, name: str, purpose: str, seconds: int = lease.SECONDS, *, state: str = STATE, root: str = "/"
) -> Iterator[Lease]:
    """Have a host to oneself, quiet, and put it back afterwards unless a person prepared it before.

    Raises:
        Busy: somebody else has it; nothing was touched.
        HostError: it is in quarantine, cannot be prepared, or could not be put back.

    """
    with lease.held(shell, name, purpose, seconds, state) as ours:
        before = snapshot(shell, state)
        if before is not None and before.boot_id != _boot(shell, root):
            before = None
        kept = before is not None and before.kept
        if before is not None and not kept:
            ui().warn(
                f"{name}: a run of {before.holder} did not end properly; the host is put back to what it was before"
            )
        changes = prepare(shell, kept=False, state=state, root=root)
        if changes:
            ui().step(f"{name}: made quiet ({len(changes)} changes), its snapshot lies in {state}")
        try:
            yield ours
        finally:
            if not kept:
                restore(shell, state=state, root=root)
