# SPDX-License-Identifier: GPL-2.0-or-later
"""KSM on a host that runs already, as its owner had it: read, put to what a run begins with, and put back.

The switch, the knobs that the fleet program and the systems write, and the scheduling of ksmd.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.dsa import Shell
from harness.errors import HostError
from harness.quiet import current
from harness.systems import catalogue, knob_files

FOLDER = "/sys/kernel/mm/ksm"
_KNOBS = ("max_page_sharing", "merge_across_nodes", "use_zero_pages", "pages_to_scan", "sleep_millisecs")
"""Knobs the fleet program sets; the first two can be written only while nothing is merged."""
_NUMA = "merge_across_nodes"
"""A kernel without NUMA does not have it."""

KSMD = 'for d in /proc/[0-9]*; do read -r n < $d/comm && [ "$n" = ksmd ] && echo ${d#/proc/}; done 2>/dev/null'
"""Prints ksmd's process id."""
SCHEDULING = "for p in $({ksmd}); do cut -d' ' -f19,40,41 /proc/$p/stat; done"
"""Nice value, real-time priority and policy: fields 19, 40 and 41 of its stat."""


@dataclass(frozen=True)
class KsmState:
    """What is put back."""

    values: Mapping[str, str] = field(default_factory=dict)
    scheduling: tuple[str, ...] = ()


def read(shell: Shell, folder: str = FOLDER, ksmd: str = KSMD) -> KsmState:
    """As it is now.

    Raises:
        HostError: a knob that every kernel with KSM has cannot be read.

    """
    names = ("run", *_KNOBS, *knob_files(FOLDER))
    done = shell(
        f'cd {shlex.quote(folder)} && for n in {" ".join(names)}; do [ ! -e "$n" ] || echo "$n $(cat "$n")"; done; '
        + "echo scheduling $("
        + SCHEDULING.format(ksmd=ksmd)
        + ")"
    )
    rows = [row.partition(" ") for row in done.stdout.splitlines()]
    values = {name: current(text) for name, _, text in rows if name != "scheduling"}
    if lost := [name for name in ("run", *_KNOBS) if not values.get(name) and name != _NUMA]:
        raise HostError(f"cannot read {', '.join(lost)} in {folder}: {done.stderr.strip() or 'no such file'}")
    scheduling = next((tuple(text.split()) for name, _, text in rows if name == "scheduling"), ())
    return KsmState(values, scheduling if len(scheduling) == 3 else ())


def start(before: KsmState, folder: str = FOLDER) -> str:
    """The script that puts it to what every run begins with."""
    resets = [(path.rpartition("/")[2], value) for path, value in catalogue().reset]
    return "\n".join(
        [
            f"cd {shlex.quote(folder)} || exit",
            *(f"echo {value} > {name}" for name, value in resets if name in before.values),
        ]
    )


def restore(before: KsmState, folder: str = FOLDER, ksmd: str = KSMD) -> str:
    """The script that puts it back; it ends with the number of writes that were refused."""
    lines = [
        f"cd {shlex.quote(folder)} || exit",
        "bad=0",
        'put() { echo "$1" > "$2" || bad=$((bad + 1)); }',
        "put 2 run",
    ]
    # the last first: a mode was written after its knobs, and a knob may be refused while the mode is at work
    lines += [
        f"put {shlex.quote(value)} {shlex.quote(name)}"
        for name, value in reversed(list(before.values.items()))
        if name != "run"
    ]
    lines.append(f"put {shlex.quote(before.values['run'])} run")
    if before.scheduling and all(re.fullmatch(r"-?\d+", word) for word in before.scheduling):
        nice, priority, policy = before.scheduling
        how = f"-f -p {priority}" if policy == "1" else "-o -p 0"
        lines.append(
            f"for p in $({ksmd}); do renice {nice} -p $p >/dev/null; "
            f"[ \"$(cut -d' ' -f41 /proc/$p/stat)\" = {policy} ] || chrt {how} $p || bad=$((bad + 1)); done"
        )
    return "\n".join([*lines, '[ "$bad" = 0 ]'])


def differs(before: KsmState, now: KsmState) -> list[str]:
    """What is not as it was, in words."""
    out = [
        f"{name} is {now.values.get(name, 'gone')}, it was {value}"
        for name, value in before.values.items()
        if now.values.get(name) != value
    ]
    if before.scheduling and now.scheduling and before.scheduling != now.scheduling:
        out.append(f"ksmd's scheduling is {' '.join(now.scheduling)}, it was {' '.join(before.scheduling)}")
    return out


def dump(state: KsmState) -> str:
    """As a file has it."""
    return json.dumps({"values": dict(state.values), "scheduling": list(state.scheduling)})


def load(text: str) -> KsmState:
    """Read that again.

    Raises:
        HostError: it is damaged.

    """
    try:
        data = json.loads(text)
        return KsmState(data["values"], tuple(data["scheduling"]))
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(f"what KSM was before is damaged: {error}", hint="harness host restore") from error
