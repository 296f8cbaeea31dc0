# SPDX-License-Identifier: GPL-2.0-or-later
"""What looks at a cell's machine from outside while its window is open: plugins of QEMU. No sample knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness import llc, profiler
from harness.errors import UsageError
from harness.experiment.spec import WatchName, ways
from harness.ksm import PAGE

if TYPE_CHECKING:
    from harness.fleet import FleetPlan
    from harness.workbench import Workbench

FILE = "watched.json"
"""What a watch has counted, in the directory of a cell."""


class Watch(Protocol):
    """One way to look."""

    @property
    def name(self) -> WatchName:
        """What specs call it."""
        ...

    @property
    def cost(self) -> float:
        """How much longer a cell takes with it, for estimates (docs/measurements.md)."""
        ...

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Everything that decides what is counted."""
        ...

    def library(self, bench: Workbench) -> Path:
        """The plugin, compiled if it is not."""
        ...

    def plugin(self, bench: Workbench, memory_mib: int, work: Path) -> str:
        """The ``-plugin`` argument; what it writes goes to ``work``."""
        ...

    def metrics(self, bench: Workbench, work: Path) -> dict[str, Any]:
        """What was counted, for the manifest.

        Raises:
            MachineError: it is not whole.

        """
        ...


@dataclass(frozen=True)
class Misses:
    """Misses of modelled caches."""

    caches: llc.Caches
    name: WatchName = "misses"
    cost: float = 3.9

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Sizes, ways, and the plugin's source."""
        return {"misses": self.caches.inputs}

    def library(self, bench: Workbench) -> Path:
        """That of the caches."""
        return llc.plugin(bench.qemu)

    def plugin(self, bench: Workbench, memory_mib: int, work: Path) -> str:
        """With the sizes of the caches."""
        return llc.argument(self.library(bench), bench.kernel.system_map, memory_mib, self.caches, work / llc.FILE)

    def metrics(self, bench: Workbench, work: Path) -> dict[str, Any]:
        """Rates, counts, and cycles an instruction."""
        return llc.metrics(llc.read(profiler.lines_of(work / llc.FILE, llc.SOURCE.stem)))


@dataclass(frozen=True)
class Functions:
    """Instructions of ksmd, function by function."""

    name: WatchName = "functions"
    cost: float = 1.1

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The plugin's source."""
        return {"functions": profiler.digests(profiler.SOURCE)}

    def library(self, bench: Workbench) -> Path:
        """That of the profiler."""
        return profiler.plugin(bench.qemu)

    def plugin(self, bench: Workbench, memory_mib: int, work: Path) -> str:
        """Watching ksmd."""
        return profiler.argument(self.library(bench), bench.kernel.system_map, work / profiler.FILE)

    def metrics(self, bench: Workbench, work: Path) -> dict[str, Any]:
        """Instructions by function."""
        from harness.console import Symbols

        lines = profiler.lines_of(work / profiler.FILE, profiler.SOURCE.stem)
        found = profiler.read(lines, Symbols.read(bench.kernel.system_map))
        (work / profiler.FILE).unlink()  # blocks by address: their sums are what anybody wants
        return {"functions": {each.name: each.instructions for each in found}}


def watch(name: WatchName, plan: FleetPlan, preset: str, cache_times: float = 1.0) -> Watch | None:
    """What is to look at a fleet; the shared cache is ``cache_times`` as large as goes with its memory.

    Raises:
        UsageError: the preset does not say how the ways of the cache are divided.

    """
    if name == "misses":
        divided = ways().get(preset)
        if divided is None:
            raise UsageError(
                f"preset {preset!r} does not divide the ways of the shared cache", hint="ways in the catalogue"
            )
        mine = divided.served if plan.serves else divided.alone
        vm_mib = plan.vm_memory_mib if plan.nested else plan.pages_per_vm * PAGE / 2**20
        masks = {"ksmd": mine.core, "vm1": mine.core, "other": mine.others}
        return Misses(llc.caches_for(plan.vms, vm_mib, masks, cache_times))
    return Functions() if name == "functions" else None
