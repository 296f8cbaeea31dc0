# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet that never ran: results in the guest program's own format, so that everything behind it is the real thing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import fleet
from harness.errors import MachineError
from harness.experiment import watches
from harness.experiment.artefacts import EMULATED, Artefacts
from harness.experiment.plan import Cell
from harness.experiment.store import canonical

ARTEFACTS = Artefacts(
    EMULATED, "measured", {"kernel": {"version": "6.1.192", "digest": "aa"}, "qemu": {"digest": "bb"}}
)
CAPABLE = replace(ARTEFACTS, capabilities=frozenset({"ksm-dsa", "ksm-para-c", "dsa-device"}))
"""The same with a kernel and a machine that the systems with an accelerator need."""


def result(plan: fleet.FleetPlan, **change: int) -> bytes:
    """What the guest program would write for a plan: ksmd at work for 40% of the time, all that can be saved, saved."""
    ksm = plan.ksmd
    best = fleet.expect(plan).pages_sharing if ksm else 0
    values = {
        "app_ns": (20 if ksm else 10) * 10**8 + plan.seed,
        "lost_vms": 0,
        "bad_pages": 0,
        "extra_pages": 0,
    } | change
    vms = plan.vms - values["lost_vms"]
    ksmd = values["app_ns"] * 4 // 10 if ksm else 0
    names = "t_ns,ksmd_ns,app_ns,idle_ns,pages_shared,pages_sharing,pages_unshared,pages_volatile,full_scans," + (
        "stable_node_chains,stable_node_dups,run,pages_to_scan"
    )
    names = ",".join((names, *plan.counters))
    batch = next((int(value) for path, value in plan.settings if path.endswith("offload_batch_size")), 1)
    rows = []
    for step in range(11):
        sharing = best * step // 10 + (values["extra_pages"] if ksm and step == 10 else 0)
        t = values["app_ns"] * step // 10
        rows.append(
            [
                t,
                ksmd * step // 10,
                t - ksmd * step // 10,
                0,
                sharing and 1,
                sharing,
                0,
                0,
                step,
                0,
                0,
                int(ksm),
                9,
                *_counted(plan, step, batch),
            ]
        )
    facts = {
        "ksmd_nice": plan.ksmd_nice, "ksmd_policy": int(plan.ksmd_rt_priority > 0),
        "ksmd_rt_priority": plan.ksmd_rt_priority, "vm_weight": plan.vm_weight or -1,
        "pages_to_scan": plan.pages_to_scan, "sleep_millisecs": plan.sleep_millisecs,
        "max_page_sharing": plan.max_page_sharing, "app_done": 1,
        "app_ns": values["app_ns"], "app_end_ns": values["app_ns"] + 1000, "app_checksum": "00c0ffee",
        "window_ns": values["app_ns"] + 2000, "ksmd_ns_to_app_end": ksmd, "ksmd_ns_window": ksmd, "samples": 11,
    }  # fmt: skip
    verify = {
        "checked_pages": plan.vms * plan.pages_per_vm, "bad_pages_merged": values["bad_pages"],
        "bad_pages_unmerged": 0, "ksm_pages_after_unmerge": 0,
    }  # fmt: skip
    lines = [
        fleet.RESULT_HEADER,
        "[plan]", *(f"{key} {value}" for key, value in plan.lines().items()), *plan.repeated(),
        "[facts]", *(f"{key} {value}" for key, value in facts.items()),
        "[settings]", *(f"{path} {value}" for path, value in plan.settings),
        "[samples]", names, *(",".join(map(str, row)) for row in rows),
        "[vm_samples]", "t_ns,vm,runtime_ns,faults,ksm_merging_pages",
        *(f"{t},{vm + 1},{t},{vm},0" for t in (0, values["app_ns"]) for vm in range(vms)),
        "[vms]", "vm,rss_anon_kb,ksm_merging_pages,runtime_ns", *(f"{vm + 1},100,0,5" for vm in range(vms)),
        "[verify]", *(f"{key} {value}" for key, value in verify.items()),
    ]  # fmt: skip
    body = ("\n".join(lines) + "\n").encode()
    return body + f"end {zlib.crc32(body):08x} {len(body)}\n".encode()


WATCHED: dict[str, dict[str, Any]] = {
    "functions": {"functions": {"memcmp": 210, "xxh64": 170, "ksm_scan_thread": 20, "get_ksm_page": 600}},
    "misses": {
        "llc_vm1": 0.5, "llc_core": 0.6, "llc_ksmd": 0.9, "cpi_vm1": 2.0, "cpi_ksmd": 4.0, "cpi_other": 1.0,
        "llc_instructions_vm1": 100, "llc_instructions_ksmd": 50, "llc_instructions_other": 1,
    },
}  # fmt: skip
"""What a watch would have counted."""


def _counted(plan: fleet.FleetPlan, step: int, batch: int) -> list[int]:
    """Further counters: batches are fuller the smaller they are."""
    values = {"offload_slots_used": step * 16, "offload_slots_total": step * (batch + 16)}
    return [values.get(name, step) for name in plan.counters]


class FakeExecutor:
    """Answers with :func:`result`; may be slow, wrong, or deadly."""

    def __init__(self, *, seconds: float = 0.0, parallel: bool = True, change: dict[str, int] | None = None) -> None:
        self.parallel = parallel
        self.seconds = seconds
        self.change = change or {}
        self.ran: list[tuple[str, int]] = []
        self.most = 0
        self.before: Callable[[Cell], None] = lambda cell: None
        self._now = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def execute(self, cell: Cell, work: Path) -> bytes:
        """Pretend."""
        with self._lock:
            self.ran.append((cell.system, cell.seed))
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            (work / "console.log").write_text("booting\n")
            (work / "qemu.argv").write_text(f"qemu -chardev file,path={work}/results.bin\n")
            self.before(cell)
            if self._stop.wait(self.seconds):
                raise MachineError("the machine was stopped")
            if cell.watch:
                (work / watches.FILE).write_text(canonical(WATCHED[cell.watch.name]))
            if cell.plan is None:
                from tests.unit.test_operations import told

                return json.dumps(told()).encode()
            return result(cell.fleet, **self.change)
        finally:
            with self._lock:
                self._now -= 1

    def cancel(self) -> None:
        """End what is running."""
        self._stop.set()


def child() -> None:
    """Entry of a process that a test kills: run the experiment named by the environment, dying where it says."""
    from harness.experiment import conduct

    executor = FakeExecutor(seconds=0.02, parallel=False)
    deadly = int(os.environ.get("FAKE_DIE_AT", "0"))

    def before(cell: Cell) -> None:
        if deadly and len(executor.ran) == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        while os.environ.get("FAKE_HANG") and len(executor.ran) == 2:
            if executor._stop.wait(0.05):
                return
            time.sleep(0)

    executor.before = before
    name = os.environ.get("FAKE_NAME", "fig12")
    if name in (conduct.ALL, conduct.PRESETS):
        conduct.conduct_all(conduct.Request(name, profile="unit", jobs=1), executor, CAPABLE)
        return
    conduct.perform(conduct.Request(name, profile="unit", seeds=3, jobs=1), executor, ARTEFACTS)


if __name__ == "__main__":
    child()
