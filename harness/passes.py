# SPDX-License-Identifier: GPL-2.0-or-later
"""What ksmd spends pass by pass, in instructions: the systems side by side on the same memory.

A fleet that stays still is scanned flat out in measured mode, where ksmd's processor time is its number of
instructions and repeats exactly. The first pass of a page stores its checksum, the second merges what is equal; later
passes find nothing new, which is how a host spends its life.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from harness import fleet, profiler, systems
from harness.config import paths
from harness.console import Symbols
from harness.errors import FleetError, MachineError
from harness.fleet import FleetPlan, FleetResult
from harness.ksm import Sample
from harness.systems import Write

if TYPE_CHECKING:
    from harness.workbench import Workbench

PASSES = 4
"""Passes that a page saved is charged with."""
_PATIENCE = 600.0
_KSM = "/sys/kernel/mm/ksm"
_FLEET = {
    "workload": "none", "vms": 40, "pages_shared_all": 512, "pages_shared_some": 256, "shared_group": 10,
    "pages_zero": 64, "pages_unique": 128, "pages_volatile": 64, "dataset_rows": 0, "prescan_passes": 0,
    "converge_passes": PASSES + 1, "pages_to_scan": 2048, "sample_ms": 1, "vm_sample_ms": 1000,
}  # fmt: skip
MIXES = {"mixed": 0, "alike": 40}
"""Fleets by name: per cent of the pages that are equal up to their last 8 bytes."""


@dataclass(frozen=True)
class Setting:
    """One way for ksmd to work; ``sysfs`` comes after what the system writes."""

    name: str
    system: str
    sysfs: tuple[Write, ...] = ()
    iommu: bool = False


def _batch(size: int) -> tuple[Write, ...]:
    return ((f"{_KSM}/offload_batch_size", str(size)),)


def _beginnings(requests: int) -> tuple[Write, ...]:
    return ((f"{_KSM}/offload_prefix_bytes", "64"), (f"{_KSM}/offload_min_requests", str(requests)))


BASELINE = Setting("CPU-ksm", "cpu-ksm")
PARA_C = Setting("Para-ksmC", "para-ksmc")
DSA_HYBRID = Setting("DSA-ksm, beginnings on the processor", "dsa-ksm", _beginnings(1))
PARA_T_HYBRID = Setting("Para-ksmT, beginnings on the processor", "para-ksmt", _beginnings(4))
TRANSLATED = Setting("Para-ksmC, translating IOMMU", "para-ksmc", iommu=True)
SETTINGS = (
    BASELINE,
    Setting("DSA-ksm", "dsa-ksm"),
    DSA_HYBRID,
    Setting("Para-ksmT", "para-ksmt"),
    PARA_T_HYBRID,
    *(Setting(f"Para-ksmC, batches of {size}", "para-ksmc", _batch(size)) for size in (16, 64)),
    PARA_C,
    Setting("Para-ksmC, batches of 1024", "para-ksmc", _batch(1024)),
    Setting("Para-ksmC, all on the device", "para-ksmc", ((f"{_KSM}/offload_prefix_bytes", "0"),)),
    TRANSLATED,
)


@dataclass(frozen=True)
class Spent:
    """What ksmd did in one run. Instructions are its own; the end of a pass is seen up to a millisecond late."""

    passes: tuple[int, ...]
    """Instructions of the first :data:`PASSES` passes."""
    whole: int
    """Instructions of all passes, the one that was under way at the end included."""
    scanned: int
    """Pages looked at in the first passes."""
    saved: int
    """Pages saved at their end."""
    merged_ns: int
    """Virtual time until nothing was left to merge."""
    merged_pass: int
    """The pass in which that was."""
    utilisation: float | None
    """Descriptors of all there was room for in batches, 0 to 1; None without batches."""

    @property
    def per_saved(self) -> float:
        """Instructions a page saved."""
        return sum(self.passes) / self.saved

    @property
    def per_scanned(self) -> float:
        """Instructions a page scanned."""
        return sum(self.passes) / self.scanned

    @property
    def steady(self) -> int:
        """Instructions of a pass in which there was nothing new."""
        return self.passes[-1]


def plan(setting: Setting, mix: str) -> FleetPlan:
    """The fleet of a row of the table."""
    return fleet.plan_from(
        fleet.profile("unit").model_dump()
        | _FLEET
        | {"system": setting.system, "sysfs": setting.sysfs, "alike_percent": MIXES[mix]}
    )


def scan(bench: Workbench, what: FleetPlan, *, iommu: bool = False, plugin: str = "") -> FleetResult:
    """Run a fleet on a sealed machine of its own, with the devices that all systems share.

    Args:
        bench: QEMU, kernel and image.
        what: the plan.
        iommu: whether an IOMMU translates.
        plugin: a plugin of QEMU that watches.

    Raises:
        MachineError: the machine did not come to its end.
        FleetError: the result is not what the plan demands.

    """
    from harness.experiment.plan import MACHINE_BASE_MIB, PLAN_FILE
    from harness.machine import Machine, MachineSpec, Outcome

    with tempfile.TemporaryDirectory(dir=paths().tmp) as folder:
        work = Path(folder)
        (work / "plan.txt").write_text(what.render(), encoding="ascii")
        spec = MachineSpec(
            bench.qemu, bench.kernel, bench.image, "measured", MACHINE_BASE_MIB + what.memory_mib,
            fw_cfg={PLAN_FILE: work / "plan.txt"}, dsa=systems.machine_devices(),
            iommu=iommu, plugin=plugin,
        )  # fmt: skip
        with Machine(spec, work / "run") as machine:
            machine.start()
            if machine.wait(_PATIENCE) is not Outcome.CLEAN:
                raise MachineError(machine.verdict.explain())
        result = fleet.parse((work / "run" / "results.bin").read_bytes())
    fleet.check(what, result)
    return result


def profile(bench: Workbench, setting: Setting, mix: str) -> tuple[Spent, list[profiler.Function]]:
    """Run a setting and count what ksmd executes, function by function.

    Raises:
        BuildError: the profiler does not compile.
        MachineError: the machine did not come to its end.
        FleetError: the result is not what the plan demands.

    """
    with tempfile.TemporaryDirectory(dir=paths().tmp) as folder:
        out, symbols = Path(folder) / "blocks", Symbols.read(bench.kernel.system_map)
        watch = profiler.argument(profiler.plugin(bench.qemu), bench.kernel.system_map, out)
        spent = read(scan(bench, plan(setting, mix), iommu=setting.iommu, plugin=watch))
        return spent, profiler.read(profiler.lines_of(out, profiler.SOURCE.stem), symbols)


def ends(result: FleetResult) -> Iterator[Sample]:
    """The samples in which one more pass is first seen to be complete, with the first of all."""
    seen = -1
    for row in result.samples:
        if row["full_scans"] > seen:
            seen = row["full_scans"]
            yield row


def read(result: FleetResult) -> Spent:
    """What a run of :func:`scan` tells.

    Raises:
        FleetError: it has fewer than :data:`PASSES` passes.

    """
    rows = list(ends(result))
    if [row["full_scans"] for row in rows[: PASSES + 1]] != list(range(PASSES + 1)):
        raise FleetError(f"two passes ended between two samples: {[row['full_scans'] for row in rows]}")
    first, last = rows[0], rows[PASSES]
    final = result.samples[-1]
    merged = next(row for row in result.samples if row["pages_sharing"] == final["pages_sharing"])
    missing = max(row["full_scans"] for row in result.samples if row["pages_sharing"] < final["pages_sharing"])
    room = final.get("offload_slots_total")
    return Spent(
        passes=tuple(b["ksmd_ns"] - a["ksmd_ns"] for a, b in pairwise(rows[: PASSES + 1])),
        whole=final["ksmd_ns"] - first["ksmd_ns"],
        scanned=last["pages_scanned"] - first["pages_scanned"],
        saved=last["pages_sharing"],
        merged_ns=merged["t_ns"] - first["t_ns"],
        merged_pass=missing + 1,
        utilisation=final["offload_slots_used"] / room if room else None,
    )


def measure(
    bench: Workbench, settings: Iterable[Setting] = SETTINGS, mixes: Iterable[str] = MIXES, jobs: int = 2
) -> dict[tuple[str, str], Spent]:
    """Every setting on every mix, by (mix, setting's name).

    Raises:
        MachineError: a machine did not come to its end.
        FleetError: a result is not what its plan demands.

    """
    cells = [(mix, setting) for mix in mixes for setting in settings]
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(lambda cell: read(scan(bench, plan(cell[1], cell[0]), iommu=cell[1].iommu)), cells)
        return {(mix, setting.name): spent for (mix, setting), spent in zip(cells, results, strict=True)}
