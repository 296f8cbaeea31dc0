# SPDX-License-Identifier: GPL-2.0-or-later
"""Misses of a modelled cache, task by task: what a QEMU plugin counts in the window of a fleet on a sealed machine.

Everything here is modelled, not measured: caches of chosen sizes, filled by the addresses that the emulated processor
really reads, writes and executes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from harness import profiler
from harness.config import PROJECT
from harness.errors import MachineError

if TYPE_CHECKING:
    from harness.qbuild import QemuBuild

SOURCE = PROJECT / "kernel" / "profiler" / "llc.c"
MODEL = SOURCE.with_name("llc_model.h")
FILE = "llc.txt"
"""What the plugin writes, in the directory of a cell."""

LINE = 64
PAPER_BYTES = 105 << 20
"""The shared cache of the paper's processor."""
PAPER_VM_MIB = 6144
PAPER_FLEET_MIB = 40 * PAPER_VM_MIB
WAYS = 15
PAPER_PRIVATE_BYTES, PRIVATE_WAYS = 2 << 20, 16
"""The second-level cache of a core of that processor (Xeon 8460Y+)."""

Owner = Literal["ksmd", "vm1", "other"]
Kind = Literal["fetch", "load", "store"]

CYCLES_INSTRUCTION = 0.4
CYCLES_SEQUENTIAL = 30.0
CYCLES_SCATTERED = 200.0
"""Default costs of level 1. Constants, not measurements: see docs/measurements.md."""


@dataclass(frozen=True)
class Caches:
    """Sizes, and which ways each class of tasks may fill (bit 0 is way 0)."""

    sets: int
    private_sets: int
    masks: Mapping[str, int]
    ways: int = WAYS
    private_ways: int = PRIVATE_WAYS

    @property
    def size(self) -> int:
        """Bytes of the shared cache."""
        return self.sets * self.ways * LINE

    @property
    def private_size(self) -> int:
        """Bytes of a private one."""
        return self.private_sets * self.private_ways * LINE

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything that decides what is counted."""
        return {
            "sets": self.sets,
            "ways": self.ways,
            "private_sets": self.private_sets,
            "private_ways": self.private_ways,
            "masks": dict(self.masks),
            "source": profiler.digests(SOURCE, MODEL),
        }


@dataclass(frozen=True)
class Counts:
    """Accesses to lines, by where they ended."""

    private_hits: int
    hits: int
    """In the shared cache."""
    sequential: int
    """Misses within two lines of one of the last 16 misses, in the same page: what a prefetcher would see coming."""
    scattered: int
    """All other misses."""

    @property
    def misses(self) -> int:
        """Misses of the shared cache."""
        return self.sequential + self.scattered

    @property
    def accesses(self) -> int:
        """Accesses to the shared cache."""
        return self.hits + self.misses

    def __add__(self, other: Counts) -> Counts:
        """The accesses of both."""
        return Counts(
            self.private_hits + other.private_hits,
            self.hits + other.hits,
            self.sequential + other.sequential,
            self.scattered + other.scattered,
        )


@dataclass(frozen=True)
class Missed:
    """What was counted in a window."""

    counts: Mapping[tuple[str, str], Counts]
    """By owner and kind of access."""
    instructions: Mapping[str, int]

    def data(self, *owners: Owner) -> Counts:
        """Loads and stores of these owners."""
        parts = [self.counts[owner, kind] for owner in owners for kind in ("load", "store")]
        return sum(parts, Counts(0, 0, 0, 0))

    def miss_rate(self, *owners: Owner) -> float:
        """Load and store misses over loads and stores, at the shared cache; 0 without accesses."""
        found = self.data(*owners)
        return found.misses / found.accesses if found.accesses else 0.0

    def cycles(self, owner: Owner) -> float:
        """Level 1: instructions, and penalties for misses of any kind."""
        found = sum((self.counts[owner, kind] for kind in get_args(Kind)), Counts(0, 0, 0, 0))
        return (
            CYCLES_INSTRUCTION * self.instructions[owner]
            + CYCLES_SEQUENTIAL * found.sequential
            + CYCLES_SCATTERED * found.scattered
        )

    def cycles_per_instruction(self, owner: Owner) -> float:
        """Level 1 over level 0; 0 without instructions."""
        return self.cycles(owner) / self.instructions[owner] if self.instructions[owner] else 0.0


def caches_for(vms: int, vm_mib: float, masks: Mapping[str, int], times: float = 1.0) -> Caches:
    """Caches for a fleet: to its memory what the paper's are to that of its fleet, by the nearest power of two.

    The shared one goes by the memory of all VMs, the private one by that of one: a VM's part of the shared cache and
    its processor's own cache keep their proportion to what the VM works on. The shared one is ``times`` as large.
    """
    return Caches(
        sets=_nearest(times * PAPER_BYTES * vms * vm_mib / PAPER_FLEET_MIB / (WAYS * LINE)),
        private_sets=_nearest(PAPER_PRIVATE_BYTES * vm_mib / PAPER_VM_MIB / (PRIVATE_WAYS * LINE)),
        masks=masks,
    )


def _nearest(wanted: float) -> int:
    return 1 << max(0, round(math.log2(wanted)))


def plugin(qemu: QemuBuild) -> Path:
    """Compile the plugin for a QEMU, or return the one that was compiled for it before.

    Raises:
        BuildError: it does not compile.

    """
    return profiler.compiled(qemu, SOURCE, (MODEL,))


def below_devices(memory_mib: int) -> int:
    """Bytes of the machine's memory that lie below its devices' addresses; the rest begins at 4 GiB."""
    size = memory_mib << 20
    return size if size < 0xB0000000 else 0x80000000


def argument(library: Path, system_map: Path, memory_mib: int, caches: Caches, out: Path) -> str:
    """The ``-plugin`` argument; ``out`` is written when the window closes.

    Raises:
        BuildError: the kernel lacks a symbol that tasks are followed by.

    """
    return profiler.words(
        library,
        system_map,
        out,
        {
            "hole": below_devices(memory_mib),
            "sets": caches.sets,
            "ways": caches.ways,
            "private-sets": caches.private_sets,
            "private-ways": caches.private_ways,
            **{owner: f"{caches.masks[owner]:#x}" for owner in get_args(Owner)},
        },
    )


def read(lines: Sequence[Sequence[str]]) -> Missed:
    """What the plugin wrote (see :func:`harness.profiler.lines_of`).

    Raises:
        MachineError: something is not there.

    """
    counts = {(words[0], words[1]): Counts(*map(int, words[2:])) for words in lines if len(words) == 6}
    instructions = {words[1]: int(words[2]) for words in lines if words[0] == "instructions"}
    wanted = {(owner, kind) for owner in get_args(Owner) for kind in get_args(Kind)}
    if set(counts) != wanted or set(instructions) != set(get_args(Owner)):
        raise MachineError("the counts of the modelled caches are not whole")
    return Missed(counts, instructions)


def metrics(missed: Missed) -> dict[str, Any]:
    """The numbers that reports use."""
    return {
        "llc_vm1": round(missed.miss_rate("vm1"), 9),
        "llc_core": round(missed.miss_rate("vm1", "ksmd"), 9),
        "llc_ksmd": round(missed.miss_rate("ksmd"), 9),
        **{f"llc_accesses_{owner}": missed.data(owner).accesses for owner in get_args(Owner)},
        **{f"llc_misses_{owner}": missed.data(owner).misses for owner in get_args(Owner)},
        **{f"llc_instructions_{owner}": missed.instructions[owner] for owner in get_args(Owner)},
        **{f"cpi_{owner}": round(missed.cycles_per_instruction(owner), 9) for owner in get_args(Owner)},
    }
