# SPDX-License-Identifier: GPL-2.0-or-later
"""Hardware counters of a server, read by perf: of ksmd, VM 1 and their processor, and whether its clock stood still.

Numbers carry the names of the modelled ones (:mod:`harness.llc`) wherever they mean the same, so that two result sets
can be compared. What was not counted has no number; a note says why. Reading perf's output is pure.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.errors import HostError

FILE = "counters.json"
RAW = "counters.txt"
"""What perf said itself, in the directory of a cell."""

CLOCK_BOUND = 0.01
"""A clock that moved further from its median makes a run invalid."""
SHARE_BOUND = 0.25
"""An event that was counted for a smaller part of the time is extrapolated from too little; the run is marked."""

EVENTS = (
    "cycles", "instructions", "LLC-loads", "LLC-load-misses", "LLC-stores", "LLC-store-misses", "cpu-migrations",
)  # fmt: skip
CLOCK = ("msr/aperf/", "msr/mperf/")
INTERVAL_MS = 1000
_IDLE = 0.01
"""An interval in which a processor worked for less than this part of the busiest one says nothing of its clock."""

State = Literal["counted", "not counted", "not supported"]
_STATES: Mapping[str, State] = {"<not counted>": "not counted", "<not supported>": "not supported"}
_SEPARATOR = ";"
"""Of perf's columns: no event of ours has it in its name, and no language in its numbers."""


@dataclass(frozen=True)
class Reading:
    """One line of ``perf stat -x``."""

    event: str
    value: float | None
    """``None``: it was not counted."""
    state: State
    share: float
    """The part of the time, 0 to 1, in which a counter was free for it; the value is extrapolated from that."""
    at: float | None = None
    """With intervals: seconds since perf began."""


@dataclass(frozen=True)
class Counted:
    """What a run's counters say."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was not counted, or cannot be trusted, and why."""
    invalid: str = ""
    """Why the run is no measurement."""

    @property
    def as_dict(self) -> dict[str, Any]:
        """For a file."""
        return {"metrics": dict(self.metrics), "notes": list(self.notes), "invalid": self.invalid}


# --- what perf says ---------------------------------------------------------------------------------------


def parse(text: str, *, intervals: bool = False) -> list[Reading]:
    """Read the output of ``perf stat -x ';'``; see CSV FORMAT in perf-stat(1).

    Args:
        text: what it wrote; lines that begin with ``#`` are its own remarks.
        intervals: it ran with ``-I``: the first column is a time.

    Raises:
        HostError: a line is none of perf's.

    """
    out = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words = [word.strip() for word in line.split(_SEPARATOR)]
        try:
            at = float(words.pop(0)) if intervals else None
            value, _, event, _, percent = words[:5]
            state = _STATES.get(value, "counted")
            number = float(value) if state == "counted" else None
            share = float(percent) / 100 if number is not None else 0.0
        except ValueError as error:
            raise HostError(
                f"perf stat said something unexpected: {line!r}", hint="which perf is it? perf version; docs/hosts.md"
            ) from error
        out.append(Reading(event, number, state, share, at))
    return out


def explain(said: str, status: int) -> str:
    """Why perf counted nothing, in one line, with what mends it; empty if it did."""
    if status == 0:
        return ""
    if status == 127 or "perf not found for kernel" in said:
        return "perf is not installed: apt install linux-perf (Ubuntu: linux-tools-generic)"
    if "perf_event_paranoid" in said:
        return "perf may not count: be root, or sysctl kernel.perf_event_paranoid=-1"
    lines = [line.strip() for line in said.splitlines() if line.strip(" \\_|'\t") and line.strip() != "Error:"]
    return f"perf ended with status {status}: {lines[0] if lines else 'it said nothing'}"


# --- what that means --------------------------------------------------------------------------------------


def of_task(owner: str, readings: Sequence[Reading]) -> Counted:
    """The numbers of a task, or of a processor."""
    found = {reading.event: reading for reading in readings}
    values = {name: reading.value for name, reading in found.items() if reading.value is not None}
    metrics: dict[str, float] = {}
    notes = []
    for state in ("not counted", "not supported"):
        if names := [name for name, reading in found.items() if reading.state == state]:
            why = (
                "the processor lacks the event" if state == "not supported" else "no counter was free, or it never ran"
            )
            notes.append(f"{owner}: {', '.join(names)}: {state} ({why})")
    used = [reading for reading in readings if reading.value is not None]
    if low := [reading for reading in used if reading.share < SHARE_BOUND]:
        names_ = ", ".join(f"{reading.event} {reading.share:.0%}" for reading in low)
        notes.append(f"{owner}: extrapolated from less than {SHARE_BOUND:.0%} of the time: {names_}")
    if "cycles" in values:
        metrics[f"cycles_{owner}"] = values["cycles"]
    if "instructions" in values:
        metrics[f"llc_instructions_{owner}"] = values["instructions"]
        if "cycles" in values and values["instructions"] > 0:
            metrics[f"cpi_{owner}"] = round(values["cycles"] / values["instructions"], 9)
    if {"LLC-loads", "LLC-stores", "LLC-load-misses", "LLC-store-misses"} <= values.keys():
        accesses = values["LLC-loads"] + values["LLC-stores"]
        misses = values["LLC-load-misses"] + values["LLC-store-misses"]
        metrics |= {f"llc_accesses_{owner}": accesses, f"llc_misses_{owner}": misses}
        metrics[f"llc_{owner}"] = _rate(misses, accesses)
    if used:
        metrics[f"counted_share_{owner}"] = round(min(reading.share for reading in used), 4)
    if "cpu-migrations" in values:
        metrics[f"migrations_{owner}"] = values["cpu-migrations"]
    return Counted(metrics, tuple(notes))


def _rate(misses: float, accesses: float) -> float:
    return round(misses / accesses, 9) if accesses > 0 else 0.0


def of_clock(readings: Sequence[Reading], khz: Sequence[int] = ()) -> Counted:
    """How far the clock moved.

    Args:
        readings: APERF and MPERF by interval: their ratio is the clock, over the one that MPERF counts in.
        khz: what cpufreq said now and then; asked only where the counters are missing.

    """
    by: dict[float, dict[str, float]] = {}
    for reading in readings:
        if reading.value is not None and reading.at is not None:
            by.setdefault(reading.at, {})[reading.event] = reading.value
    pairs = [(row[CLOCK[0]], row[CLOCK[1]]) for row in by.values() if set(CLOCK) <= row.keys()]
    busiest = max((mperf for _, mperf in pairs), default=0.0)
    clocks = [aperf / mperf for aperf, mperf in pairs if mperf > 0 and mperf >= _IDLE * busiest]
    source = "APERF/MPERF"
    if len(clocks) < 2:
        clocks, source = [float(number) for number in khz if number > 0], "cpufreq"
    if len(clocks) < 2:
        return Counted(notes=("the clock was not watched: neither msr/aperf/ and msr/mperf/ nor cpufreq said enough",))
    middle = statistics.median(clocks)
    moved = max(abs(clock / middle - 1) for clock in clocks)
    why = (
        f"the clock moved by {moved:.1%} ({source}), more than {CLOCK_BOUND:.0%}: its time and cycles do not compare"
        if moved > CLOCK_BOUND
        else ""
    )
    return Counted({"clock_moved": round(moved, 6)}, (f"clock by {source}",) if source == "cpufreq" else (), why)


def together(parts: Sequence[Counted]) -> Counted:
    """All of a run: the processor's miss rate is that of its two tasks, as in the modelled caches."""
    metrics: dict[str, float] = {}
    for part in parts:
        metrics |= part.metrics
    names = [f"llc_{what}_{owner}" for what in ("accesses", "misses") for owner in ("vm1", "ksmd")]
    if all(name in metrics for name in names):
        accesses, misses = (sum(metrics[name] for name in pair) for pair in (names[:2], names[2:]))
        metrics["llc_core"] = _rate(misses, accesses)
    else:
        metrics.pop("llc_core", None)
    notes = tuple(note for part in parts for note in part.notes)
    return Counted(metrics, notes, "; ".join(part.invalid for part in parts if part.invalid))


def judge(text: str) -> Counted:
    """What a run's files say: those of :data:`SCRIPT`, as :data:`COLLECT` prints them."""
    files = _split(text)
    if not files.get("opened"):
        return Counted(notes=("no counters: the window was not seen to open",))
    parts = []
    for owner in ("ksmd", "vm1", "core"):
        if f"{owner}.status" not in files:
            why = files.get(f"{owner}.none", "").strip() or "its perf did not end"
            parts.append(Counted(notes=(f"{owner}: not counted: {why}",)))
        elif why := explain(files.get(f"{owner}.err", ""), _status(files, owner)):
            parts.append(Counted(notes=(f"{owner}: {why}",)))
        else:
            parts.append(of_task(owner, parse(files.get(f"{owner}.csv", ""))))
    clock = parse(files.get("clock.csv", ""), intervals=True) if _status(files, "clock") == 0 else []
    khz = [int(word) for word in files.get("khz", "").split() if word.isdigit()]
    return together([*parts, of_clock(clock, khz)])


def _status(files: Mapping[str, str], owner: str) -> int:
    word = files.get(f"{owner}.status", "").strip()
    return int(word) if word.isdigit() else 1


def _split(text: str) -> dict[str, str]:
    out: dict[str, str] = {}
    for part in text.split(_MARK)[1:]:
        name, _, rest = part.partition("\n")
        out[name.strip()] = rest
    return out


# --- on the host ------------------------------------------------------------------------------------------

_MARK = "=== "
PROBE = """
ls /sys/bus/event_source/devices/cpu/type >/dev/null 2>&1 || { echo 'the host has no hardware counters (PMU)'; exit 0; }
command -v perf >/dev/null 2>&1 || echo 'perf is not installed: apt install linux-perf (Ubuntu: linux-tools-generic)'
"""
"""Prints why nothing can be counted; nothing if it can."""


def stat(events: Sequence[str], where: str, out: str = "", *, intervals: bool = False) -> str:
    """The beginning of a perf command, before ``--``; ``where`` is for the shell."""
    words = f"LC_ALL=C perf stat -x '{_SEPARATOR}' -e {shlex.quote(','.join(events))} {where}"
    words += f" -I {INTERVAL_MS}" if intervals else ""
    return f"{words} -o {out}" if out else words


SCRIPT = f"""
w=$1/counters p=$2
mkdir "$w" 2>/dev/null || exit 0
is_open() {{ n=; read -r n 2>/dev/null < "/proc/$p/comm" && [ "$n" = "window open" ]; }}
until is_open; do
    [ -d "/proc/$p" ] || {{ : > "$w/done"; exit 0; }}
    sleep 0.1
done
echo yes > "$w/opened"
v= k= c=
for d in /proc/[0-9]*; do
    n=; read -r n 2>/dev/null < "$d/comm" || continue
    [ "$n" != ksmd ] || k=${{d#/proc/}}
    [ "$n" = vm1 ] && grep -q "^PPid:[^0-9]*$p\\$" "$d/status" && v=${{d#/proc/}}
done
if [ "$v" ]; then
    while read -r n r; do [ "$n" != Cpus_allowed_list: ] || c=$r; done < "/proc/$v/status"
    case $c in *[!0-9]*) echo "VM 1 may run on the processors $c" > "$w/core.none"; c= ;; esac
fi
look='n=; while read -r n < /proc/'$p'/comm && [ "$n" = "window open" ]; do sleep 0.1; done 2>/dev/null; exit 0'
task() {{
    [ "$2" ] || {{ [ -e "$w/$1.none" ] || echo "it is not there" > "$w/$1.none"; return; }}
    ( {stat(EVENTS, '"$3" "$2"', '"$w/$1.csv"')} -- sh -c "$look" 2> "$w/$1.err"; echo $? > "$w/$1.status" ) &
}}
task ksmd "$k" -p
task vm1 "$v" -p
task core "$c" -C
o=-a; [ ! "$c" ] || o="-C $c"
( {stat(CLOCK, "$o", '"$w/clock.csv"', intervals=True)} -- sh -c "$look" 2> "$w/clock.err"
  echo $? > "$w/clock.status" ) &
while is_open; do
    for f in /sys/devices/system/cpu/cpu${{c:-0}}/cpufreq/scaling_cur_freq; do
        [ ! -e "$f" ] || {{ read -r n < "$f" && echo "$n" >> "$w/khz"; }}
    done
    sleep 1
done
wait
: > "$w/done"
"""
"""Counts from outside while the window of a fleet is open. Words: the fleet's directory, its process."""

COLLECT = f"""
cd "$1/counters" 2>/dev/null || exit 0
n=0
while [ ! -e done ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
for f in *; do echo; echo '{_MARK}'"$f"; cat "$f"; done
"""
"""Prints all that was counted, each file below its name."""


NOBODY = 44
"""Status of :func:`measure`: no process has that name."""


def measure(target: str, seconds: float) -> str:
    """A script that counts for some seconds; ``target`` is a process id, ``cpuN``, or the name of processes."""
    quoted = shlex.quote(target)
    number = target.removeprefix("cpu")
    if target.startswith("cpu") and number.isdigit():
        find = f"set -- -C {number}"
    elif target.isdigit():
        find = f"set -- -p {target}"
    else:
        find = (
            "set --; for d in /proc/[0-9]*; do n=; read -r n 2>/dev/null < $d/comm; "
            f'[ "$n" != {quoted} ] || set -- -p "${{2:+$2,}}${{d#/proc/}}"; done\n'
            f"[ $# -gt 0 ] || {{ echo no process is called {quoted} >&2; exit {NOBODY}; }}"
        )
    return f"{find}\n{stat(EVENTS, chr(34) + '$@' + chr(34))} -- sleep {seconds:g}"
