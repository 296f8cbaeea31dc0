# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet on a sealed machine of its own: the small plan that tests vary, and how it is run and judged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from harness import fleet
from harness.errors import MachineError
from harness.fleet import FleetPlan, FleetResult
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec, Outcome
from harness.qbuild import QemuBuild

CONVERGED: dict[str, Any] = {
    "workload": "none", "converge_passes": 4, "prescan_passes": 0, "vms": 9, "shared_group": 4, "pages_zero": 30,
}  # fmt: skip
"""A change of the small plan: no workload, four passes, groups and a chain among few pages."""


def unit(**change: Any) -> FleetPlan:
    """The unit profile, changed."""
    return fleet.plan_from(fleet.profile("unit").model_dump() | change)


@contextmanager
def _questions(machine: Machine) -> Iterator[None]:
    """Ask QEMU one thing after the other, until it is gone; a run that nobody was heard in proves nothing."""
    over, asked = threading.Event(), 0

    def ask() -> None:
        nonlocal asked
        while not over.is_set():
            try:
                machine.command("query-status")
            except MachineError:
                return
            asked += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert asked > 100


class Sealed:
    """Runs plans, each on a machine of its own."""

    def __init__(self, qemu: QemuBuild, kernel: KernelBuild, image: Image) -> None:
        self.qemu, self.kernel, self.image = qemu, kernel, image

    def raw(
        self,
        plan: FleetPlan,
        work: Path,
        dataset: Path | None = None,
        devices: tuple[Mapping[str, str], ...] = (),
        *,
        pestered: bool = False,
        plugin: Callable[[int], str] = lambda memory_mib: "",
    ) -> bytes:
        """What the guest program wrote.

        Args:
            plan: the fleet.
            work: for files of its own.
            dataset: training data.
            devices: the machine's DSAs.
            pestered: QEMU's main loop has to answer questions all the time.
            plugin: a plugin that looks on, by the memory of the machine.

        """
        work.mkdir()
        (work / "plan.txt").write_text(plan.render())
        files = {"opt/paraksm/plan": work / "plan.txt"}
        if dataset:
            files["opt/paraksm/dataset"] = dataset
        memory = 128 + plan.memory_mib
        spec = MachineSpec(
            self.qemu, self.kernel, self.image, mode="measured", memory_mib=memory, fw_cfg=files, dsa=devices,
            plugin=plugin(memory),
        )  # fmt: skip
        with Machine(spec, work) as machine:
            machine.start()
            with _questions(machine) if pestered else nullcontext():
                outcome = machine.wait(300)
        assert outcome is Outcome.CLEAN, (work / "console.log").read_text(errors="replace")[-3000:]
        return (work / "results.bin").read_bytes()

    def __call__(
        self, plan: FleetPlan, work: Path, dataset: Path | None = None, devices: tuple[Mapping[str, str], ...] = ()
    ) -> FleetResult:
        """A checked result."""
        result = fleet.parse(self.raw(plan, work, dataset, devices))
        fleet.check(plan, result)
        return result
