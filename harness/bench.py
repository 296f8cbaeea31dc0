# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the toolkit itself is: each figure beside its limit, and beside the plainest way to do the same."""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import truediv
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config import atomic_write, paths
from harness.errors import MachineError
from harness.run import Deadline, run, spawn, stop
from harness.ui import ui

if TYPE_CHECKING:
    from harness.images import ImageName
    from harness.machine import MachineSpec
    from harness.passes import Spent
    from harness.workbench import Workbench

_SAID = "paraksm-bench: here"
_PLAIN_INIT = f"#!/bin/busybox sh\necho '{_SAID}'\nexec /bin/busybox sleep 1000\n"
_SECONDS = 60.0
_COUNTERS = "ksm-counters"
_NESTED = 2.0
"""Times slower than the machine around it that a nested VM may be."""
_OWN_COST = 1.0
"""Per cent of ksmd's instructions that observing it may take."""


@dataclass(frozen=True)
class Terms:
    """On what a bench measures, and how often."""

    rounds: int = 5
    kernel: str | None = None
    """Version or series, ``None``: the first obtainable. Only benches of :data:`OF_KERNEL` look at it."""
    source: str | None = None
    """A tree of the user's instead."""

    def workbench(self, image: ImageName = "functional", upto: str | None = None) -> Workbench:
        """QEMU, the kernel that is measured, and an image."""
        from harness.workbench import workbench

        return workbench(self.kernel, self.source, image, upto=upto)


@dataclass(frozen=True)
class Figure:
    """One measured value; ``limit`` is what the project promises, ``None`` for a value to compare with."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        return self.limit is None or self.value <= self.limit


def _command(*words: str, env: dict[str, str] | None = None) -> float:
    """Wall seconds of one ``harness`` command."""
    return run([sys.executable, "-m", "harness", *words], env=env).seconds


# --- boot ---------------------------------------------------------------------------------------------


def boot(terms: Terms) -> list[Figure]:
    """Boot to first command, against a plain QEMU with a three-line init; rounds are interleaved."""
    from harness.machine import MachineSpec

    bench = terms.workbench()
    spec = MachineSpec(bench.qemu, bench.kernel, bench.image, "functional", 1024)
    ours: list[float] = []
    plain: list[float] = []
    whole: list[float] = []
    with tempfile.TemporaryDirectory(dir=paths().tmp) as folder, ui().progress("bench boot", terms.rounds) as task:
        image = _plain_image(Path(folder))
        for number in range(terms.rounds):
            plain.append(_plain_boot(spec, image, Path(folder) / "plain.log"))
            ours.append(_our_boot(spec, Path(folder) / f"run{number}"))
            whole.append(_command("-q", "boot", "--command", "true"))
            task.advance()
    a, b = statistics.median(ours), statistics.median(plain)
    return [
        Figure("boot to first command", a, "s", 4.0, f"median of {terms.rounds}, {min(ours):.2f} to {max(ours):.2f}"),
        Figure(
            "plain QEMU to its init", b, "s", None, f"median of {terms.rounds}, {min(plain):.2f} to {max(plain):.2f}"
        ),
        # neighbours in time are compared: a busy machine is busy for both
        Figure("ours / plain", statistics.median(map(truediv, ours, plain)), "x", 1.25, "median of the pairs"),
        Figure("`harness boot -c true`, start to end", statistics.median(whole), "s", None, "with all checks"),
    ]


def _plain_image(folder: Path) -> Path:
    import stat

    from harness import images

    busybox = images.package_file("busybox", "/bin/busybox")
    entries = [
        images.Entry("bin", stat.S_IFDIR | 0o755),
        images.Entry("dev", stat.S_IFDIR | 0o755),
        images.Entry("bin/busybox", stat.S_IFREG | 0o755, busybox),
        images.Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        images.Entry("init", stat.S_IFREG | 0o755, _PLAIN_INIT.encode()),
    ]
    path = folder / "plain.cpio"
    atomic_write(path, images.cpio(entries))
    return path


def _plain_boot(spec: MachineSpec, image: Path, log: Path) -> float:
    """What one would type by hand: the same QEMU, kernel, firmware and processor, ``quiet``, nothing else."""
    log.unlink(missing_ok=True)
    began = time.monotonic()
    child = spawn(
        [spec.qemu.binary, "-nodefaults", "-display", "none", "-no-reboot", "-machine", "q35",
         "-L", spec.qemu.data_dir, "-bios", spec.qemu.firmware, "-cpu", spec.cpu, "-m", str(spec.memory_mib),
         "-accel", "tcg,thread=multi", "-kernel", spec.kernel.bzimage, "-initrd", image,
         "-append", "console=ttyS0 quiet", "-serial", f"file:{log}"]
    )  # fmt: skip
    deadline = Deadline(_SECONDS)
    try:
        while not (log.exists() and _SAID in log.read_text(errors="replace")):
            if deadline.expired() or child.poll() is not None:
                raise MachineError("the plain QEMU did not reach its init", log=log)
            time.sleep(0.005)
        return time.monotonic() - began
    finally:
        stop(child, grace=0.5)


def _our_boot(spec: MachineSpec, folder: Path) -> float:
    from harness.machine import Machine

    began = time.monotonic()
    with Machine(spec, folder) as machine:
        machine.start(timeout=_SECONDS)
        machine.execute("true", timeout=_SECONDS)
        return time.monotonic() - began


# --- edit, help, figure, build ------------------------------------------------------------------------


def edit(terms: Terms) -> list[Figure]:
    """Edit ``mm/ksm.c``, build, boot, run a command that exercises KSM. The edit is taken back."""
    from harness import kbuild, patches, sources

    tree = sources.obtain("linux")
    kbuild.build(patches.apply(tree))
    seconds = []
    for number in range(terms.rounds):
        with _edited(tree.path / "mm" / "ksm.c", f"\n/* bench {os.getpid()}.{number} */\n"):
            seconds.append(
                _command("-q", "boot", "--command", "echo 1 > /sys/kernel/mm/ksm/run && cat /sys/kernel/mm/ksm/run")
            )
    return [Figure("edit mm/ksm.c to booted and tested", statistics.median(seconds), "s", 60.0)]


@contextmanager
def _edited(file: Path, more: str) -> Iterator[None]:
    before = file.read_bytes()
    try:
        file.write_bytes(before + more.encode())
        yield
    finally:
        file.write_bytes(before)


def help_text(terms: Terms) -> list[Figure]:
    """``harness --help``, what everybody types first."""
    seconds = [_command("--help") for _ in range(max(terms.rounds, 3))]
    return [Figure("harness --help", min(seconds), "s", 0.3, f"best of {len(seconds)}")]


def fig12(terms: Terms) -> list[Figure]:
    """The reduced Figure 12 with everything built and no cell run yet."""
    terms.workbench(image="measured")
    seconds = []
    for _ in range(terms.rounds):
        with tempfile.TemporaryDirectory(dir=paths().tmp) as folder:
            seconds.append(_command("-q", "experiment", "fig12", env={"PARAKSM_RESULTS": folder}))
    return [Figure("warm fig12, reduced profile", statistics.median(seconds), "s", 180.0)]


def counters(terms: Terms) -> list[Figure]:
    """What the series' counters cost ksmd, and what the whole series does while KSM is in its ordinary mode.

    Three kernels of the same tree and configuration, the same fleet, the same passes, in virtual time: ksmd's
    processor time is its number of instructions, and repeats exactly.
    """
    from harness import patchseries

    series = patchseries.load("linux")
    before = series.before(_COUNTERS).upto
    plain = _ksmd_instructions(terms.workbench(image="measured", upto=before))
    part, all_of_it = terms.workbench(image="measured", upto=_COUNTERS), terms.workbench(image="measured")
    counting = _ksmd_instructions(part)
    built = all_of_it.kernel.applied
    same = part.kernel.applied.tree_id == (built.dirty_digest or built.tree_id)
    whole = counting if same else _ksmd_instructions(all_of_it)
    figures = []
    for name, (first, steady) in {f"up to {_COUNTERS}": counting, "the whole series": whole}.items():
        for what, ours, theirs in (("merging passes", first, plain[0]), ("steady passes", steady, plain[1])):
            note = f"{ours:,} instead of {theirs:,} instructions"
            figures.append(Figure(f"ksmd, {name}, {what}", 100 * (ours / theirs - 1), "%", _OWN_COST, note))
    return figures


def _ksmd_instructions(bench: Workbench) -> tuple[int, int]:
    """Instructions of ksmd in the passes until all is merged, and in twenty passes afterwards.

    The end of a pass is seen up to a millisecond late, a thousandth of either figure.
    """
    from harness import fleet, passes

    still = {"workload": "none", "prescan_passes": 0, "converge_passes": 24, "sample_ms": 1, "vm_sample_ms": 1000}
    result = passes.scan(bench, fleet.plan_from(fleet.profile("ci").model_dump() | still | {"vms": 40}))

    def after(passes: int) -> int:
        return next(row["ksmd_ns"] for row in result.samples if row["full_scans"] >= passes)

    return after(4) - result.samples[0]["ksmd_ns"], after(24) - after(4)


# --- the systems, pass by pass -------------------------------------------------------------------------

_SAVED_MIXED, _SAVED_ALIKE = 1 / 1.6, 1 / 2.5
"""What Para-ksmC may spend on a page saved, of what CPU-ksm does, on the two fleets."""
_IOMMU = 1.5
"""What a translating IOMMU may make of Para-ksmC's cost."""


def systems(terms: Terms) -> list[Figure]:
    """What ksmd spends in each system, pass by pass, on the same memory, in instructions. Repeats exactly."""
    from harness import passes

    table = passes.measure(terms.workbench(image="measured"))
    figures = []
    for (mix, name), spent in table.items():
        millions = ", ".join(f"{number / 1e6:.1f}" for number in spent.passes)
        used = "" if spent.utilisation is None else f"; {spent.utilisation:.0%} of the slots used"
        note = f"M a pass: {millions}; {spent.per_scanned:,.0f} a page scanned; merged in pass {spent.merged_pass}"
        note += f" after {spent.merged_ns / 1e6:,.0f} ms{used}"
        figures.append(Figure(f"{mix}: {name}", spent.per_saved, "", None, note))
    return figures + against(table)


def against(table: Mapping[tuple[str, str], Spent]) -> list[Figure]:
    """What is promised of the systems, from the rows of :func:`harness.passes.measure`."""
    from harness import passes

    figures = []
    for mix, bound in zip(passes.MIXES, (_SAVED_MIXED, _SAVED_ALIKE), strict=True):
        cpu, para = table[mix, passes.BASELINE.name], table[mix, passes.PARA_C.name]
        ratios = {
            "Para-ksmC / CPU-ksm, a page saved": (para.per_saved / cpu.per_saved, bound),
            **{
                f"{each.name} / CPU-ksm, a steady pass": (table[mix, each.name].steady / cpu.steady, 1.0)
                for each in (passes.PARA_C, passes.DSA_HYBRID, passes.PARA_T_HYBRID)
            },
            "Para-ksmC / CPU-ksm, time to full merge": (para.merged_ns / cpu.merged_ns, 1.0),
            "Para-ksmC, IOMMU / none": (table[mix, passes.TRANSLATED.name].per_saved / para.per_saved, _IOMMU),
        }
        figures += [Figure(f"{mix}: {name}", value, "x", limit) for name, (value, limit) in ratios.items()]
    return figures


def build(_terms: Terms) -> list[Figure]:
    """Everything from nothing: an empty cache, downloads apart from the compiler's work not separated."""
    with tempfile.TemporaryDirectory(dir=paths().tmp) as folder:
        seconds = _command("-q", "build", "all", env={"XDG_CACHE_HOME": folder})
    return [Figure("cold build of everything", seconds, "s", 1200.0, f"on {os.cpu_count()} processors")]


# --- the emulated DSA ---------------------------------------------------------------------------------

_GUEST_WORK = "head -c 300000000 /dev/zero | md5sum"


def dsa(terms: Terms) -> list[Figure]:
    """An emulated descriptor against the plain operation, and a machine whose DSA is idle against one without."""
    from harness import dsaspeed
    from harness.machine import MachineSpec

    bench = terms.workbench()
    figures = []
    for pages, where in ((dsaspeed.NEAR, "near"), (dsaspeed.FAR, "far")):
        cost = dsaspeed.measure(bench.qemu, max(terms.rounds, 3), pages)
        batch = f"in batches of {dsaspeed.MEMBERS}, {pages} pages in turns"
        figures += [
            Figure(f"4 KiB compare, a descriptor, {where}", cost.compare, "ns", None, batch),
            Figure(f"memcmp of as much memory, {where}", cost.memcmp, "ns"),
            Figure(f"compare / memcmp, {where}", cost.compare / cost.memcmp, "x", 1.5),
            Figure(f"4 KiB CRC, a descriptor, {where}", cost.crc, "ns", None, batch),
            Figure(f"crc32c of as much memory, {where}", cost.crc32c, "ns", None, "one chain of SSE4.2's instruction"),
            Figure(f"CRC / crc32c, {where}", cost.crc / cost.crc32c, "x", 1.5),
        ]
    without = MachineSpec(bench.qemu, bench.kernel, bench.image, "functional", 1024)
    idle = dataclasses.replace(without, dsa=({},))
    spent: dict[str, list[float]] = {"without": [], "idle": []}
    with tempfile.TemporaryDirectory(dir=paths().tmp) as folder:
        for number in range(terms.rounds):
            for name, spec in (("without", without), ("idle", idle)):
                spent[name].append(_guest_seconds(spec, Path(folder) / f"{name}{number}"))
    plain, with_device = (min(spent[name]) for name in ("without", "idle"))
    return [
        *figures,
        Figure("guest work, no device", plain, "s", None, f"processor time, best of {terms.rounds}"),
        Figure("idle device / no device", with_device / plain, "x", 1.05),
    ]


def _guest_seconds(spec: MachineSpec, folder: Path) -> float:
    """Processor seconds that QEMU takes for some work of its guest."""
    import psutil

    from harness.machine import Machine

    with Machine(spec, folder) as machine:
        machine.start(timeout=_SECONDS)
        process = psutil.Process(machine.pid)
        before = process.cpu_times()
        if status := machine.execute(_GUEST_WORK, timeout=10 * _SECONDS):
            raise MachineError(f"the guest's work ended with status {status}")
        after = process.cpu_times()
        return (after.user - before.user) + (after.system - before.system)


# --- VMs inside the emulated machine ----------------------------------------------------------------------


def nested(terms: Terms) -> list[Figure]:
    """The same work in the emulated machine itself, and in VMs inside it."""
    from harness import nestspeed

    plain, *fleets = nestspeed.measure(terms.workbench(image="nested"))
    return [
        Figure("in the machine itself", plain.mips, "MIPS", None, "millions of instructions a second of QEMU's time"),
        *(Figure(f"in {each.vms} VMs", each.mips, "MIPS") for each in fleets),
        *(Figure(f"machine / {each.vms} VMs", plain.mips / each.mips, "x", _NESTED) for each in fleets),
    ]


BENCHES: dict[str, Callable[[Terms], list[Figure]]] = {
    "boot": boot,
    "edit": edit,
    "help": help_text,
    "fig12": fig12,
    "counters": counters,
    "systems": systems,
    "build": build,
    "dsa": dsa,
    "nested": nested,
}
"""Name -> what measures it."""
OF_KERNEL = frozenset({"counters", "systems", "nested"})
"""Benches whose figures are a kernel's, so that another kernel may be asked for."""
