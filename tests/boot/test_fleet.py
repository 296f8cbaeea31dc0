# SPDX-License-Identifier: GPL-2.0-or-later
"""Fleets under a real ksmd, on sealed machines: the oracle is reached exactly, and the same bytes come twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness import fleet, images
from harness.fleet import FleetPlan, FleetResult
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec, Outcome
from harness.qbuild import QemuBuild
from harness.run import run
from tests import fleet_twin

pytestmark = pytest.mark.boot

GOLDEN_MODEL = "bd0420c26843ce60"
"""Checksum of the weights that liblinear 2.50.0 found on the unit profile's rows, recorded once (gcc 12, x86-64)."""


class Sealed:
    """Runs plans, each on a machine of its own."""

    def __init__(self, qemu: QemuBuild, kernel: KernelBuild, image: Image) -> None:
        self.qemu, self.kernel, self.image = qemu, kernel, image

    def raw(self, plan: FleetPlan, work: Path, dataset: Path | None = None) -> bytes:
        """What the guest program wrote."""
        work.mkdir()
        (work / "plan.txt").write_text(plan.render())
        files = {"opt/paraksm/plan": work / "plan.txt"}
        if dataset:
            files["opt/paraksm/dataset"] = dataset
        memory = 128 + plan.vms * plan.pages_per_vm * 4096 * 3 // 2 // 2**20
        spec = MachineSpec(self.qemu, self.kernel, self.image, mode="measured", memory_mib=memory, fw_cfg=files)
        with Machine(spec, work) as machine:
            machine.start()
            outcome = machine.wait(300)
        assert outcome is Outcome.CLEAN, (work / "console.log").read_text(errors="replace")[-3000:]
        return (work / "results.bin").read_bytes()

    def __call__(self, plan: FleetPlan, work: Path, dataset: Path | None = None) -> FleetResult:
        """A checked result."""
        result = fleet.parse(self.raw(plan, work, dataset))
        fleet.check(plan, result)
        return result


@pytest.fixture(scope="session")
def sealed(qemu_build: QemuBuild, kernel_build: KernelBuild, measured_image: Image) -> Sealed:
    """The default kernel, QEMU and measured image."""
    return Sealed(qemu_build, kernel_build, measured_image)


def _unit(**change: Any) -> FleetPlan:
    return fleet.plan_from(fleet.profile("unit").model_dump() | change)


CONVERGED: dict[str, Any] = {
    "workload": "none", "converge_passes": 4, "prescan_passes": 0, "vms": 9, "shared_group": 4, "pages_zero": 30,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "chains"),
    [
        pytest.param({}, 1, id="plain"),  # the zero page alone has more than 256 mappings
        # nine VMs make two full nodes and one page that waits for ever; groups of four fill one node
        pytest.param({"max_page_sharing": 4}, 24 + 39 + 1, id="chains"),
        pytest.param({"use_zero_pages": True}, 0, id="kernel-zero-pages"),
    ],
)
def test_ksmd_reaches_the_oracle_exactly(sealed: Sealed, tmp_path: Path, change: dict[str, Any], chains: int) -> None:
    plan = _unit(**CONVERGED, **change)
    oracle = fleet.expect(plan)
    result = sealed(plan, tmp_path / "run")  # its check demands equality
    last = result.samples[-1]
    assert last["pages_sharing"] == oracle.pages_sharing > 0
    assert last["stable_node_chains"] == chains
    assert last["full_scans"] >= 4
    # our counters: every page is a candidate in every pass, but a zero page that is gone is none
    living = oracle.pages - oracle.zero_saved
    assert living * 4 <= last["pages_scanned"] <= oracle.pages * (last["full_scans"] + 1)
    assert 0 < last["page_checksums"] < last["pages_scanned"]
    assert last["page_comparisons"] >= last["pages_sharing"]
    assert sum(vm["ksm_merging_pages"] for vm in result.vms) == last["pages_shared"] + last["pages_sharing"]


def test_two_runs_are_byte_identical_and_ksm_changes_no_model(sealed: Sealed, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda name: sealed.raw(_unit(), tmp_path / name), ("first", "second"))
    assert first == second
    ksm, without = fleet.parse(first), sealed(_unit(system="no-ksm"), tmp_path / "without")
    fleet.check(_unit(), ksm)
    assert ksm.model == without.model == GOLDEN_MODEL
    assert ksm.application_ns and without.application_ns
    assert ksm.application_ns > without.application_ns
    assert ksm.ksmd_ns > 0 == without.ksmd_ns


def test_sampling_costs_little(sealed: Sealed, tmp_path: Path) -> None:
    """Without ksmd, sampling is all that can slow VM 1; every 10 ms must cost less than 1% of every 500 ms."""
    plan = {"system": "no-ksm", "pages_volatile": 0}
    often = sealed(_unit(**plan), tmp_path / "often").application_ns
    rarely = sealed(_unit(**plan, sample_ms=500), tmp_path / "rarely").application_ns
    assert often and rarely
    assert abs(often / rarely - 1) < 0.01, f"sampling costs {often / rarely - 1:.2%}"


def test_a_file_of_the_same_rows_gives_the_same_model(sealed: Sealed, tmp_path: Path) -> None:
    """Generator in C, its account in Python, the loader and liblinear agree to the last bit."""
    data = tmp_path / "SUSY.csv"
    rows = (fleet_twin.susy_row(1, i) for i in range(500))
    data.write_text("".join(f"{label:.18e},{','.join(f'{x:.18e}' for x in row)}\n" for label, row in rows))
    where = "/sys/firmware/qemu_fw_cfg/by_name/opt/paraksm/dataset/raw"
    result = sealed(_unit(dataset=where), tmp_path / "run", data)
    assert result.model == GOLDEN_MODEL


def test_the_program_dumps_what_the_account_says(tmp_path: Path) -> None:
    program = images.program("fleet")
    plan = _unit(vms=3, dataset_rows=30)
    (tmp_path / "plan.txt").write_text(plan.render())
    for vm in range(plan.vms):
        run(["sh", "-c", f'"$0" dump plan.txt {vm} > pages', program], cwd=tmp_path)
        raw = (tmp_path / "pages").read_bytes()
        synthetic = plan.pages_per_vm - plan.dataset_pages
        assert raw[: synthetic * 4096] == b"".join(fleet_twin.page_bytes(plan, vm, i) for i in range(synthetic))
        assert raw[synthetic * 4096 :] == fleet_twin.dataset_bytes(plan.seed, plan.dataset_rows)


@pytest.mark.parametrize(("old", "new"), [("vms 4\n", ""), ("plan 1", "plan 9"), ("solver 12", "solver twelve")])
def test_the_program_refuses_a_bad_plan_before_it_touches_ksm(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "plan.txt").write_text(_unit().render().replace(old, new))
    done = run([images.program("fleet"), "run", tmp_path / "plan.txt"], check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "fleet: failed" in done.stderr
