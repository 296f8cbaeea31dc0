# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's console says: panic, oops, warning, lockdep report, hung task.

Pure text in, :class:`Verdict` out. The wording is that of ``kernel/panic.c``, ``arch/x86/kernel/dumpstack.c``,
``kernel/locking/lockdep.c``, ``kernel/hung_task.c``, ``kernel/watchdog.c``, ``kernel/dma/debug.c``, ``mm/slub.c`` and
``mm/kasan/report.c`` of Linux 6.1 to 6.12. User programs write on the same console: once lines carry printk's time,
only such lines are believed.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

_REPORT_LINES = 120  # what one report may span; lockdep's are the longest
_TAIL_LINES = 40
_CUT_LINES = 8  # what WARN() says between "cut here" and its heading


class Outcome(StrEnum):
    """How a machine's life went. All but ``CLEAN`` are failures with a status of their own."""

    CLEAN = "clean"
    PANIC = "panic"
    OOPS = "oops"
    WARNING = "warning"
    LOCKDEP = "lockdep"
    HUNG_TASK = "hung-task"
    KASAN = "kasan"
    SILENT = "silent"
    QEMU_DIED = "qemu-died"
    TIMEOUT = "timeout"

    @property
    def status(self) -> int:
        """Exit status of ``harness boot`` for this outcome; 0 for ``CLEAN``, else 101 to 109."""
        return _STATUS[self]


_STATUS = {
    Outcome.CLEAN: 0,
    Outcome.PANIC: 101,
    Outcome.OOPS: 102,
    Outcome.WARNING: 103,
    Outcome.LOCKDEP: 104,
    Outcome.HUNG_TASK: 105,
    Outcome.SILENT: 106,
    Outcome.QEMU_DIED: 107,
    Outcome.TIMEOUT: 108,
    Outcome.KASAN: 109,
}

_SEVERITY = (Outcome.PANIC, Outcome.KASAN, Outcome.OOPS, Outcome.LOCKDEP, Outcome.WARNING, Outcome.HUNG_TASK)

# The first match wins, so the special stands before the general. A pattern is matched at the start of a message.
_PATTERNS: tuple[tuple[Outcome, re.Pattern[str]], ...] = tuple(
    (outcome, re.compile(pattern))
    for outcome, pattern in (
        (Outcome.PANIC, r"Kernel panic - not syncing"),
        (Outcome.KASAN, r"BUG: (KASAN|KFENCE|KMSAN): "),
        (Outcome.KASAN, r"UBSAN: "),
        # SLUB's own checks: "BUG kmalloc-64 (Not tainted): Redzone overwritten"
        (Outcome.KASAN, r"BUG [\w:-]+ \((Not tainted|Tainted: [^)]*)\): "),
        (
            Outcome.LOCKDEP,
            r"WARNING: (possible |inconsistent lock state|bad unlock balance|bad contention|suspicious RCU usage"
            r"|held lock freed|lock held when returning|Nested lock was not taken|.*-safe -> .*-unsafe lock order"
            r"|.* still has locks held)",
        ),
        (Outcome.LOCKDEP, r"\[ BUG: Invalid wait context \]|BUG: (MAX_LOCK|looking up invalid subclass)"),
        (Outcome.LOCKDEP, r"DEBUG_LOCKS_WARN_ON|INFO: trying to register non-static key"),
        (Outcome.HUNG_TASK, r"INFO: task .{1,40} blocked (for more than|in I/O wait for more than) \d+ seconds"),
        (Outcome.HUNG_TASK, r"(watchdog: )?BUG: (soft lockup|workqueue lockup)"),
        (Outcome.HUNG_TASK, r"(NMI )?[Ww]atchdog: Watchdog detected hard LOCKUP|Watchdog detected hard LOCKUP"),
        (Outcome.HUNG_TASK, r"(rcu: )?INFO: rcu_\w+ (self-)?detected (expedited )?stall"),
        (Outcome.WARNING, r"WARNING: "),
        # reports of these have a WARNING of their own, but not that they were given up: no check, no finding
        (Outcome.WARNING, r"DMA-API: (debugging out of memory|cacheline tracking ENOMEM|.*but only \d+ allocated)"),
        (Outcome.WARNING, r"ODEBUG: (Out of memory|selftests failed)|.*ODEBUG disabled"),
        (Outcome.WARNING, r"BUG: (sleeping function called|scheduling while atomic|using .* in preemptible)"),
        (Outcome.OOPS, r"BUG: (kernel NULL pointer|unable to handle|Bad |stack guard|spinlock|TASK stack|IRQ stack)"),
        (Outcome.OOPS, r"kernel BUG at "),
        (Outcome.OOPS, r"[A-Za-z][\w ,.:/'+-]*?: [0-9a-f]{4} \[#\d+\]"),
        (Outcome.OOPS, r"PANIC: (double fault|early exception)"),
    )
)

_TIME = re.compile(r"(?:<\d+>)?\[\s*(\d+\.\d+)\](?:\[\s*[TC]\d+\])? ?")
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|c)")
_DONE = re.compile(r"paraksm: done status=(\d+)")
_STARTED = "paraksm: started"
_CUT = "------------[ cut here ]------------"
_END = re.compile(r"---\[ end (trace|Kernel panic)|^Rebooting in |^(?:reboot: )?Power down")
_ADDRESS = re.compile(r"(?<![\w+/])(?:0x)?(ffffffff[89a-f][0-9a-f]{7})(?![\w+/])")


@dataclass(frozen=True)
class Symbols:
    """A kernel's text symbols, to name raw addresses."""

    addresses: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def read(cls, system_map: Path) -> Symbols:
        """Parse a ``System.map``; only text symbols are kept."""
        rows = []
        for line in system_map.read_text().splitlines():
            parts = line.split()
            if len(parts) == 3 and parts[1] in "tTwW":
                rows.append((int(parts[0], 16), parts[2]))
        rows.sort()
        return cls(tuple(address for address, _ in rows), tuple(name for _, name in rows))

    def at(self, address: int) -> int:
        """Which symbol an address belongs to, or begins after; -1 below all."""
        return bisect.bisect_right(self.addresses, address) - 1

    def name(self, address: int) -> str | None:
        """``symbol+0x12`` for an address inside the kernel's text, else ``None``."""
        at = self.at(address)
        if at < 0 or address - self.addresses[at] > 1 << 20:
            return None
        return f"{self.names[at]}+{address - self.addresses[at]:#x}"


@dataclass
class Finding:
    """One report of the kernel about itself."""

    outcome: Outcome
    headline: str
    time: float | None
    """Seconds since the guest's boot, if the console carries them."""
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What a console said, in order; ``outcome`` is the gravest of it."""

    outcome: Outcome
    headline: str
    findings: tuple[Finding, ...]
    tail: tuple[str, ...]
    """The report behind ``outcome``, or the last lines of the console; raw addresses carry their symbols."""
    done: int | None
    """Status of a sealed job that said it was done."""

    def explain(self) -> str:
        """The verdict for people: headline, other findings, decoded tail."""
        others = [f"also: {item.outcome}: {item.headline}" for item in self.findings if item.headline != self.headline]
        return "\n".join([f"{self.outcome}: {self.headline}", *others, *(f"  | {line}" for line in self.tail)])


class Reader:
    """Reads a console as it grows. Feed it bytes in pieces of any size; ask for the verdict at any time."""

    def __init__(self, symbols: Symbols | None = None) -> None:
        self.findings: list[Finding] = []
        self.done: int | None = None
        self.started = False
        """Whether the guest's process 1 said its first words."""
        self.symbols = symbols
        self._rest = b""
        self._timed = False
        self._open: Finding | None = None
        self._cut: list[str] = []
        self._last: list[str] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes; only complete lines are judged until :meth:`verdict` is asked."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)

    def verdict(self) -> Verdict:
        """The verdict on everything fed so far, an unfinished last line included."""
        if self._rest:
            self._line(self._rest)
            self._rest = b""
        worst = next((item for kind in _SEVERITY for item in self.findings if item.outcome is kind), None)
        if worst is None:
            return Verdict(Outcome.CLEAN, "nothing to report", (), tuple(map(self._decode, self._last)), self.done)
        cause = self.findings[0] if worst.outcome is Outcome.PANIC else worst
        lines = cause.lines if cause is worst else [*cause.lines, *worst.lines]
        headline = worst.headline if cause is worst else f"{worst.headline} (after {cause.headline})"
        return Verdict(worst.outcome, headline, tuple(self.findings), tuple(map(self._decode, lines)), self.done)

    def _line(self, raw: bytes) -> None:
        line = _ANSI.sub("", raw.decode(errors="replace")).replace("\r", "").rstrip()
        if not line:
            return
        self._last = [*self._last[-(_TAIL_LINES - 1) :], line]
        self.started = self.started or _STARTED in line
        if said := _DONE.search(line):
            self.done = int(said[1])
        marks = list(_TIME.finditer(line))
        if not marks:
            if not self._timed:
                self._message(line, None, line)
            elif self._open:
                self._keep(self._open, line)
            return
        self._timed = True
        for mark, after in zip(marks, [*marks[1:], None], strict=True):
            end = after.start() if after else len(line)
            self._message(line[mark.end() : end].strip(), float(mark[1]), line[mark.start() : end])

    def _message(self, text: str, time: float | None, whole: str) -> None:
        if text == _CUT:
            self._open, self._cut = None, [whole]
            return
        outcome = next((kind for kind, pattern in _PATTERNS if pattern.match(text)), None)
        if outcome is not None and not self._belongs(outcome):
            self._open = Finding(outcome, text, time, [*self._cut, whole])
            self.findings.append(self._open)
        elif self._cut and len(self._cut) < _CUT_LINES:
            self._cut.append(whole)
            return
        elif self._open is not None:
            self._keep(self._open, whole)
            if _END.match(text):
                self._open = None
        self._cut = []

    def _belongs(self, outcome: Outcome) -> bool:
        """Whether a heading continues the open report: die()'s "Oops: 0000 [#1]" after "BUG: unable to ..."."""
        return self._open is not None and self._open.outcome is outcome is Outcome.OOPS and len(self._open.lines) < 12

    @staticmethod
    def _keep(finding: Finding, line: str) -> None:
        if len(finding.lines) < _REPORT_LINES:
            finding.lines.append(line)

    def _decode(self, line: str) -> str:
        symbols = self.symbols
        if symbols is None:
            return line

        def name(match: re.Match[str]) -> str:
            found = symbols.name(int(match[1], 16))
            return f"{match[0]} ({found})" if found else match[0]

        return _ADDRESS.sub(name, line)


def judge(text: str | bytes, symbols: Symbols | None = None) -> Verdict:
    """The verdict on a whole console."""
    reader = Reader(symbols)
    reader.feed(text.encode() if isinstance(text, str) else text)
    return reader.verdict()


def registers(dump: str, symbols: Symbols | None) -> Sequence[str]:
    """Where each processor is, from the monitor's ``info registers -a``: for machines that say nothing."""
    where = []
    for number, match in enumerate(re.finditer(r"\b[RE]IP=([0-9a-f]+)", dump)):
        address = int(match[1], 16)
        found = symbols.name(address) if symbols else None
        where.append(f"cpu {number}: at {address:#x}" + (f" ({found})" if found else ""))
    return where
