# SPDX-License-Identifier: GPL-2.0-or-later
"""What a measurement wants of a host, as data: each knob with its value and the reason.

One list serves two readers: :mod:`harness.hostcheck` says what differs, :mod:`harness.prepare` changes it and puts it
back. The values are those of the paper's testbed (Table 1) and of the authors' scripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Knob:
    """Files of sysfs or procfs that all should hold one value."""

    name: str
    files: str
    """A pattern of the shell, without the leading slash."""
    want: str
    fine: tuple[str, ...]
    """Other values that are as good."""
    why: str

    def value(self, text: str) -> str:
        """What a file says; of several choices the one in brackets."""
        return current(text)

    def suits(self, text: str) -> bool:
        """Whether a file need not be changed."""
        return current(text) in (self.want, *self.fine)

    @property
    def command(self) -> str:
        """The line that sets it on the host."""
        return f"for f in /{self.files}; do echo {self.want} > $f; done"


_CPU = "sys/devices/system/cpu"

KNOBS = (
    # first, and first to be put back: processors come and go with it, and their other files with them
    Knob("smt", f"{_CPU}/smt/control", "off", ("forceoff", "notsupported", "notimplemented"),
         "a sibling takes part of the core that ksmd and VM 1 share"),
    Knob("governor", f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor", "performance", (),
         "a processor whose clock moves has no comparable time"),
    Knob("turbo", f"{_CPU}/intel_pstate/no_turbo", "1", (), "turbo depends on temperature and on the neighbours"),
    Knob("turbo", f"{_CPU}/cpufreq/boost", "0", (), "boost depends on temperature and on the neighbours"),
    Knob("C-states", f"{_CPU}/cpu[0-9]*/cpuidle/state[1-9]*/disable", "1", (),
         "waking takes microseconds, as long as a batch; the authors leave POLL alone"),
    Knob("THP", "sys/kernel/mm/transparent_hugepage/enabled", "never", (),
         "ksmd must split a huge page before it merges a part of it"),
    Knob("NUMA balancing", "proc/sys/kernel/numa_balancing", "0", (), "it unmaps and moves pages while ksmd scans"),
    Knob("NMI watchdog", "proc/sys/kernel/nmi_watchdog", "0", (), "it holds one of the few hardware counters"),
)  # fmt: skip
"""In the order in which they are written; they are put back in the same order."""

SERVICES = {
    "ksmtuned": "it changes pages_to_scan while we measure",
    "ksm": "it switches KSM on and off",
    "irqbalance": "it moves interrupts to the measured core",
    "thermald": "it changes the clock",
    "power-profiles-daemon": "it changes the governor",
}
"""Services that are stopped while we measure, each with the reason."""


def current(text: str) -> str:
    """The value of a knob; of several choices the one in brackets."""
    inside = text.partition("[")[2].partition("]")[0]
    return inside or text.strip()


def unsuitable(values: Mapping[str, str]) -> dict[Knob, dict[str, str]]:
    """Knobs with the files, and what these say, that are not as a measurement wants them."""
    found: dict[Knob, dict[str, str]] = {}
    for knob in KNOBS:
        wrong = {
            path: current(text)
            for path, text in values.items()
            if fnmatchcase(path, knob.files) and not knob.suits(text)
        }
        if wrong:
            found[knob] = wrong
    return found


def patterns() -> str:
    """All files, as words for a shell's ``for``."""
    return " ".join(dict.fromkeys(knob.files for knob in KNOBS))


def processors(text: str) -> set[int]:
    """The numbers of a list as the kernel prints it, say ``0-3,8``."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def counted(paths: Iterable[str]) -> str:
    """How many processors files belong to, for people; the file's name where they belong to none."""
    files = sorted(paths)
    cpus = {int(match[1]) for path in files if (match := re.search(r"/cpu(\d+)/", path))}
    if cpus:
        return "1 processor" if len(cpus) == 1 else f"{len(cpus)} processors"
    return f"/{files[0]}" if files else ""
