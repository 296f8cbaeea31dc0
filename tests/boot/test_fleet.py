# SPDX-License-Identifier: GPL-2.0-or-later
"""Fleets under a real ksmd, on sealed machines: the oracle is reached exactly, and the same bytes come twice."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness import fleet, images, systems
from harness.errors import FleetError
from harness.run import run
from tests import fleet_twin
from tests.boot.sealed import CONVERGED, Sealed, unit

pytestmark = pytest.mark.boot

GOLDEN_MODEL = "bd0420c26843ce60"
"""Checksum of the weights that liblinear 2.50.0 found on the unit profile's rows, recorded once (gcc 12, x86-64)."""


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
    plan = unit(**CONVERGED, **change)
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
        first, second = pool.map(lambda name: sealed.raw(unit(), tmp_path / name), ("first", "second"))
    assert first == second
    ksm, without = fleet.parse(first), sealed(unit(system="no-ksm"), tmp_path / "without")
    fleet.check(unit(), ksm)
    assert ksm.model == without.model == GOLDEN_MODEL
    assert ksm.application_ns and without.application_ns
    assert ksm.application_ns > without.application_ns
    assert ksm.ksmd_ns > 0 == without.ksmd_ns


def test_every_vm_is_sampled_with_the_machine(sealed: Sealed, tmp_path: Path) -> None:
    plan = unit()
    result = sealed(plan, tmp_path / "run")
    rounds = len(result.vm_samples) // plan.vms
    assert rounds >= 2 + plan.window_ms // plan.vm_sample_ms - 1
    last = result.samples[-1]
    final = result.vm_samples[-plan.vms :]
    assert sum(row["ksm_merging_pages"] for row in final) == last["pages_shared"] + last["pages_sharing"] > 0
    first, end = result.of_vm(1)[0], result.of_vm(1)[-1]
    assert end["runtime_ns"] - first["runtime_ns"] >= 0.9 * (last["app_ns"] - result.samples[0]["app_ns"])
    # the others do nothing but rewrite their volatile pages
    assert 0 < result.of_vm(2)[-1]["runtime_ns"] - result.of_vm(2)[0]["runtime_ns"] < end["runtime_ns"] / 4
    assert result.idle_share < 0.5


def test_a_fleet_that_rests_leaves_the_processor_idle(sealed: Sealed, tmp_path: Path) -> None:
    result = sealed(unit(system="no-ksm", workload="none", pages_volatile=0, window_ms=400), tmp_path / "run")
    assert 0.9 < result.idle_share <= 1.0


def test_ksmd_runs_in_the_class_and_with_the_priority_of_the_plan(sealed: Sealed, tmp_path: Path) -> None:
    """The kernel's answer is compared with the plan by the check; what it means for VM 1 is compared here."""
    changes: dict[str, dict[str, int]] = {"fifo": {"ksmd_rt_priority": 50}, "meek": {"ksmd_nice": 19}}
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda name: sealed(unit(**changes[name]), tmp_path / name), changes)
        fifo, meek = runs
    assert (fifo.fact("ksmd_policy"), fifo.fact("ksmd_rt_priority")) == (1, 50)
    assert (meek.fact("ksmd_policy"), meek.fact("ksmd_nice")) == (0, 19)
    assert fifo.application_ns and meek.application_ns
    assert fifo.application_ns > meek.application_ns
    assert fifo.model == meek.model == GOLDEN_MODEL


def test_files_of_sysfs_are_written_in_order_and_read_back(sealed: Sealed, tmp_path: Path) -> None:
    knob = "/sys/kernel/mm/ksm/stable_node_chains_prune_millisecs"
    plan = unit(
        **CONVERGED, sysfs=((knob, "77"), ("/proc/sys/kernel/randomize_va_space", "1"), ("/proc/self/clear_refs", "1"))
    )
    result = sealed(plan, tmp_path / "run")
    assert [text for _, text in result.settings] == ["77", "1", "-"]
    with pytest.raises(FleetError, match="randomize_va_space reads back as 1, 2 was set"):
        other = plan.sysfs[0], ("/proc/sys/kernel/randomize_va_space", "2"), plan.sysfs[2]
        fleet.check(plan.model_copy(update={"sysfs": other}), result)


def test_the_runner_sets_up_the_queue_of_an_accelerator_in_the_sealed_guest(sealed: Sealed, tmp_path: Path) -> None:
    """The catalogue's own lines, up to the client that takes the queue: here the kernel's DMA engine."""
    system = systems.find("dsa-ksm")
    queue = [line for line in systems.settings(system) if line[0].startswith("/sys/bus/dsa/")]
    assert queue[-1] == ("/sys/bus/dsa/drivers/ksm/bind", "wq0.0")
    queue[-1] = ("/sys/bus/dsa/drivers/dmaengine/bind", "wq0.0")
    queue.append(("/sys/kernel/mm/ksm/stable_node_chains_prune_millisecs", "77"))
    plan = unit(**CONVERGED, sysfs=tuple(queue))
    result = fleet.parse(sealed.raw(plan, tmp_path / "run", devices=systems.machine_devices()))
    fleet.check(plan, result)
    shown = dict(result.settings)
    assert shown["/sys/bus/dsa/devices/wq0.0/size"] == "64"
    assert shown["/sys/bus/dsa/devices/wq0.0/max_batch_size"] == "1024"
    assert shown["/sys/bus/dsa/drivers/idxd/bind"] == "-"


def test_a_kernel_that_lacks_a_mode_says_which_file(sealed: Sealed, tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="no fleet result"):
        sealed(unit(system="dsa-ksm"), tmp_path / "run")
    said = (tmp_path / "run" / "console.log").read_text()
    first = fleet.plan_from({**unit().model_dump(), "system": "dsa-ksm"}).settings[0][0]
    assert f"fleet: cannot write 0 to {first}: No such file or directory" in said


def test_sampling_costs_little(sealed: Sealed, tmp_path: Path) -> None:
    """Without ksmd, sampling is all that can slow VM 1: as a profile has it, it must cost less than 1%."""
    plan: dict[str, Any] = {"system": "no-ksm", "pages_volatile": 0}
    # as many VMs as the largest profile has, sampled as often
    plan |= {"vms": 40, "dataset_rows": 1000, "vm_sample_ms": fleet.profile("laptop").vm_sample_ms, "repeats": 40}
    periods = {"often": plan, "rarely": {**plan, "sample_ms": 10_000, "vm_sample_ms": 10_000}}
    with ThreadPoolExecutor(2) as pool:
        often, rarely = pool.map(lambda name: sealed(unit(**periods[name]), tmp_path / name), periods)
    assert often.application_ns and rarely.application_ns
    assert len(often.vm_samples) >= 4 * 40, "rows of VMs were taken while it trained"
    cost = often.application_ns / rarely.application_ns - 1
    assert abs(cost) < 0.01, f"sampling costs {cost:.2%}"


def test_a_file_of_the_same_rows_gives_the_same_model(sealed: Sealed, tmp_path: Path) -> None:
    """Generator in C, its account in Python, the loader and liblinear agree to the last bit."""
    data = tmp_path / "SUSY.csv"
    rows = (fleet_twin.susy_row(1, i) for i in range(500))
    data.write_text("".join(f"{label:.18e},{','.join(f'{x:.18e}' for x in row)}\n" for label, row in rows))
    where = "/sys/firmware/qemu_fw_cfg/by_name/opt/paraksm/dataset/raw"
    result = sealed(unit(dataset=where), tmp_path / "run", data)
    assert result.model == GOLDEN_MODEL


def test_the_program_dumps_what_the_account_says(tmp_path: Path) -> None:
    program = images.program("fleet")
    plan = unit(vms=3, dataset_rows=30)
    (tmp_path / "plan.txt").write_text(plan.render())
    for vm in range(plan.vms):
        run(["sh", "-c", f'"$0" dump plan.txt {vm} > pages', program], cwd=tmp_path)
        raw = (tmp_path / "pages").read_bytes()
        synthetic = plan.pages_per_vm - plan.dataset_pages
        assert raw[: synthetic * 4096] == b"".join(fleet_twin.page_bytes(plan, vm, i) for i in range(synthetic))
        assert raw[synthetic * 4096 :] == fleet_twin.dataset_bytes(plan.seed, plan.dataset_rows)


@pytest.mark.parametrize(("old", "new"), [("vms 4\n", ""), ("plan 2", "plan 9"), ("solver 12", "solver twelve")])
def test_the_program_refuses_a_bad_plan_before_it_touches_ksm(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "plan.txt").write_text(unit().render().replace(old, new))
    done = run([images.program("fleet"), "run", tmp_path / "plan.txt"], check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "fleet: failed" in done.stderr


def test_a_single_run_is_summed_up_and_its_result_can_be_checked(tmp_path: Path) -> None:
    words = ["unit", "--set", "vms=2", "--set", "window_ms=100"]
    command = [sys.executable, "-m", "harness", "-q", "fleet"]
    done = run([*command, "run", *words, "--json", "--output", tmp_path / "results.bin"])
    again = run([*command, "check", tmp_path / "results.bin", "--profile", *words, "--json"])
    assert json.loads(done.stdout) == json.loads(again.stdout)
    assert json.loads(done.stdout)["pages_saved"] > 0
