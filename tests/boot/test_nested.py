# SPDX-License-Identifier: GPL-2.0-or-later
"""Real VMs inside the emulated machine: they come up, their timers live, ksmd merges exactly what is equal in them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness import fleet, systems
from harness.errors import FleetError
from harness.fleet import FleetPlan, FleetResult
from harness.machine import Machine, MachineSpec, Outcome
from harness.workbench import Workbench, workbench
from tests.boot.guest import say
from tests.boot.sealed import Sealed


@pytest.fixture(scope="module")
def nest() -> Workbench:
    """QEMU, the host's kernel, and an image with the monitor, the VMs' kernel and their image."""
    return workbench(image="nested")


@pytest.fixture(scope="module")
def nested(nest: Workbench) -> Sealed:
    """Fleets of real VMs on sealed machines."""
    return Sealed(nest.qemu, nest.kernel, nest.image)


def _plan(**change: Any) -> FleetPlan:
    values: dict[str, Any] = {
        "backend": "nested", "workload": "graph500", "graph_scale": 10, "graph_roots": 16, "vms": 4,
        "vm_memory_mib": 40, "window_ms": 200, "vm_sample_ms": 50, "pages_to_scan": 512,
    }  # fmt: skip
    return fleet.plan_from(values | change)


@pytest.mark.boot
@pytest.mark.parametrize("system", ["cpu-ksm", "para-ksmc"])
def test_what_is_merged_is_what_is_equal_and_two_runs_are_byte_identical(
    nested: Sealed, tmp_path: Path, system: str
) -> None:
    plan = _plan(system=system)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(
            lambda name: nested.raw(plan, tmp_path / name, None, systems.machine_devices()), ("a", "b")
        )
    assert first == second
    result = fleet.parse(first)
    fleet.check(plan, result)  # counters are what the contents demand, and nothing changed when all was taken apart
    assert result.witness
    seen = result.witness.all_shares
    assert seen.pages == seen.zero + seen.self_ + seen.inter + seen.unique
    assert seen.pages > 4 * 4096  # four Linux guests, 16 MiB each at least
    # kernels at addresses of their own: much is equal, far from all
    assert 0.2 < seen.inter / seen.pages < 0.8
    assert result.witness.settled["pages_sharing"] > 10000
    assert result.trained
    runtimes = [result.of_vm(number)[-1]["runtime_ns"] for number in (1, 2)]
    assert runtimes[0] > runtimes[1] > 0  # VM 1 worked, the others were booted


@pytest.mark.boot
def test_the_answer_does_not_depend_on_the_system_and_clones_are_equal(nested: Sealed, tmp_path: Path) -> None:
    """Without address randomisation more is equal; ksmd off, nothing is merged; the graph's answer is the same."""
    without = nested(_plan(system="no-ksm"), tmp_path / "without")
    fixed = nested(_plan(vm_kaslr=False), tmp_path / "fixed")
    assert without.witness
    assert fixed.witness
    assert without.witness.settled["pages_sharing"] == 0
    assert without.model == fixed.model is not None
    equal = [shares.inter / shares.pages for shares in (without.witness.all_shares, fixed.witness.all_shares)]
    assert equal[1] > equal[0] + 0.1


def _used(result: FleetResult, numbers: range) -> float:
    """Processor time of these VMs over the window."""
    rows = [result.of_vm(number) for number in numbers]
    return sum(row[-1]["runtime_ns"] - row[0]["runtime_ns"] for row in rows) / result.fact("window_ns")


@pytest.mark.boot
def test_bystanders_take_what_they_are_given(nested: Sealed, tmp_path: Path) -> None:
    """In a duty cycle a part of the processor, however idle it is; at full speed what three of four equals get."""
    plans = {
        "frozen": _plan(system="no-ksm", window_ms=400),
        "duty": _plan(system="cpu-ksm", window_ms=1000, bystanders="duty", bystander_percent=20),
        "full": _plan(system="no-ksm", graph_scale=12, bystanders="full"),
    }
    with ThreadPoolExecutor(2) as pool:
        raws = pool.map(lambda name: nested.raw(plans[name], tmp_path / name), plans)
        results = {name: fleet.parse(raw) for name, raw in zip(plans, raws, strict=True)}
    for name, result in results.items():
        fleet.check(plans[name], result)  # whoever worked stands still at the end, and every page is accounted for
    others = {name: _used(result, range(2, 5)) for name, result in results.items()}
    assert others["frozen"] < 0.02
    assert 0.17 < others["duty"] < 0.24  # at most 11 parts of ten periods, and the rest of a time slice
    assert 0.7 < others["full"] < 0.8
    assert 0.2 < _used(results["full"], range(1, 2)) < 0.3
    assert results["frozen"].model == results["duty"].model


@pytest.mark.boot
def test_ballast_is_as_zero_equal_and_unique_as_asked(nested: Sealed, tmp_path: Path) -> None:
    change: dict[str, Any] = {"system": "no-ksm", "workload": "none", "vms": 3}
    counts = {"zero": 700, "self": 901, "inter": 1100, "unique": 1300}
    ballast = {f"ballast_{kind}": number for kind, number in counts.items()}
    without, with_it = (
        fleet.parse(nested.raw(_plan(**change | more), tmp_path / name)).witness
        for name, more in (("without", {}), ("with", ballast))
    )
    assert without
    assert with_it
    before, after = without.all_shares.as_dict, with_it.all_shares.as_dict
    for kind in ("zero", "self", "unique"):
        # page tables are unique, too
        assert 0.98 * 3 * counts[kind] < after[kind] - before[kind] < 1.05 * 3 * counts[kind], kind
    # contents that each VM has once: what memory held before that ballast took counted among those of other VMs
    shared = [witness.contents[3] for witness in (without, with_it)]
    assert abs(shared[1] - shared[0] - counts["inter"]) < 0.02 * counts["inter"]


def _brought(contents: Mapping[int, int], vms: int) -> tuple[int, int]:
    """Pages, and what of them can be saved, without memory that was freed.

    A kernel that boots frees thousands of pages, zero or filled with one byte. What is loaded afterwards takes their
    place, so that a VM with more in it has fewer of them.
    """
    kept = [(mappings, number) for mappings, number in contents.items() if mappings <= 64 * vms]
    return sum(mappings * number for mappings, number in kept), sum(
        (mappings - 1) * number for mappings, number in kept
    )


@pytest.mark.boot
def test_processes_and_real_vms_agree_on_what_a_workload_saves(nested: Sealed, tmp_path: Path) -> None:
    """Of the pages that liblinear brings with it, that is: a real VM has a kernel and programs besides."""
    rows, vms = 12_000, 4
    found = {}
    for workload in ("liblinear", "none"):
        plan = _plan(workload=workload, dataset_rows=rows, vms=vms, system="cpu-ksm")
        result = nested(plan, tmp_path / workload)  # KSM has saved what these contents allow, to the page
        assert result.witness
        found[workload] = _brought(result.witness.contents, vms)
    pages, saved = (a - b for a, b in zip(found["liblinear"], found["none"], strict=True))
    plan = fleet.plan_from(
        {"vms": vms, "dataset_rows": rows, "workload": "liblinear", "converge_passes": 4, "prescan_passes": 0}
    )
    last = nested(plan, tmp_path / "processes").samples[-1]
    modelled = last["pages_sharing"] / (vms * plan.pages_per_vm)
    assert pages > 0.95 * vms * plan.pages_per_vm
    assert abs(saved / pages - modelled) < 0.1, f"{saved} of {pages} pages in real VMs, {modelled:.3f} in processes"


def _served(**change: Any) -> FleetPlan:
    """One group: a Redis server in VM 1, and its three clients."""
    return _plan(
        **{"workload": "ycsb-d", "vm_group": 4, "records": 200, "operations": 150, "offered_load": 300, **change}
    )


@pytest.mark.boot
def test_clients_measure_what_their_server_takes_and_two_runs_are_byte_identical(
    nested: Sealed, tmp_path: Path
) -> None:
    plan = _served(system="cpu-ksm")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda name: nested.raw(plan, tmp_path / name), ("a", "b"))
    assert first == second
    result = fleet.parse(first)
    fleet.check(plan, result)  # every record is what was written, every counter what the contents demand
    assert result.witness
    tails = {key: found.tail() for key, found in result.latencies.items()}
    assert tails["read", "sent"].n + tails["insert", "sent"].n == 450
    assert tails["insert", "sent"].n > 10
    for kind in ("read", "insert"):
        sent, intended = tails[kind, "sent"], tails[kind, "intended"]
        assert 30_000 < sent.p50_ns <= sent.p99_ns < 1.001 * sent.max_ns < 100_000_000  # a bucket's highest value
        assert sent.p50_ns < intended.p50_ns
    # at the offered rate: nobody was asked faster than that, nor fell behind for long
    assert result.fact("app_end_ns") > 0.49e9
    assert all(run.behind_ns < 20_000_000 for run in result.clients)
    runtimes = [result.of_vm(number)[-1]["runtime_ns"] - result.of_vm(number)[0]["runtime_ns"] for number in (1, 2)]
    assert all(runtime > 1_000_000 for runtime in runtimes)  # both ends worked in the window


_PING = r"""
t() { read up idle < /proc/uptime; echo "$up $*"; }
echo 1 > /proc/sys/kernel/printk
mknod /dev/kvm c 10 232
i=1
while [ $i -le @VMS@ ]; do
    mkfifo /tmp/in$i /tmp/out$i
    vmm --kernel /vm/vmlinux --relocs /vm/vmlinux.relocs --initramfs /vm/initramfs --memory 40 --seed $i \
        --name vm$i --words "console=ttyS0 quiet" < /tmp/in$i > /tmp/out$i &
    eval "exec $((10 + 2 * i))> /tmp/in$i $((11 + 2 * i))< /tmp/out$i"
    i=$((i + 1))
done
i=1
while [ $i -le @VMS@ ]; do eval "read line <&$((11 + 2 * i))"; t vm$i $line; i=$((i + 1)); done
round=0
while [ $round -lt @ROUNDS@ ]; do
    i=1
    while [ $i -le @VMS@ ]; do eval "echo ping 5 >&$((10 + 2 * i))"; i=$((i + 1)); done
    i=1
    while [ $i -le @VMS@ ]; do eval "read line <&$((11 + 2 * i))"; t vm$i $line; i=$((i + 1)); done
    round=$((round + 1))
done
i=1
while [ $i -le @VMS@ ]; do
    eval "echo facts >&$((10 + 2 * i)); read line <&$((11 + 2 * i))"; t vm$i $line; i=$((i + 1))
done
"""


def _answers(nest: Workbench, work: Path, vms: int, rounds: int) -> list[str]:
    """Boot VMs all at once, then let each sleep and say how long it slept."""
    work.mkdir()
    (work / "script").write_text(_PING.replace("@VMS@", str(vms)).replace("@ROUNDS@", str(rounds)))
    spec = MachineSpec(
        nest.qemu, nest.kernel, nest.image, "measured", 192 + 48 * vms,
        fw_cfg={"opt/paraksm/command": work / "script"},
    )  # fmt: skip
    with Machine(spec, work / "run") as machine:
        machine.start()
        assert machine.wait(1000) is Outcome.CLEAN, machine.verdict.explain()  # 300 s were too few at load 20
    return (work / "run" / "results.bin").read_text().splitlines()


def _check_answers(lines: list[str], vms: int, rounds: int) -> None:
    assert sum(line.endswith(" up") for line in lines) == vms
    slept = [int(line.split()[3]) for line in lines if " pong " in line]
    assert len(slept) == vms * rounds
    assert all(5_000_000 <= one < 40_000_000 for one in slept)


@pytest.mark.boot
def test_every_vm_keeps_its_timers(nest: Workbench, tmp_path: Path) -> None:
    """QEMU delivered an interrupt that VMRUN injects twice at times: the guest then spins for ever on its own lock."""
    lines = _answers(nest, tmp_path / "eight", 8, 60)
    _check_answers(lines, 8, 60)
    facts = [dict(word.split("=") for word in line.split()[3:]) for line in lines if " facts " in line]
    for what in ("stack", "map"):  # programs lie elsewhere in each VM, as kernels do
        assert len({each[what] for each in facts}) == 8


def _functional(nest: Workbench, work: Path, vms: int, rounds: int) -> list[str]:
    """The same on two processors that run side by side, in the time of the clock on the wall."""
    spec = MachineSpec(nest.qemu, nest.kernel, nest.image, "functional", 192 + 48 * vms, cpus=2)
    with Machine(spec, work) as machine:
        machine.start(timeout=500)  # a machine that hangs does so for ever, a busy one took 255 s to boot
        return say(machine, _PING.replace("@VMS@", str(vms)).replace("@ROUNDS@", str(rounds)), timeout=600).splitlines()


@pytest.mark.soak
def test_timers_live_on_two_processors_side_by_side(nest: Workbench, tmp_path: Path) -> None:
    lines = _functional(nest, tmp_path / "eight", 8, 20)
    assert sum(line.endswith(" up") for line in lines) == 8
    assert sum(" pong " in line for line in lines) == 8 * 20


@pytest.mark.soak
@pytest.mark.parametrize("run", range(10))
def test_forty_of_forty_side_by_side(nest: Workbench, tmp_path: Path, run: int) -> None:
    lines = _functional(nest, tmp_path / "forty", 40, 3 + run)
    assert sum(line.endswith(" up") for line in lines) == 40
    assert sum(" pong " in line for line in lines) == 40 * (3 + run)


@pytest.mark.soak
@pytest.mark.parametrize("run", range(10))
def test_forty_of_forty(nest: Workbench, tmp_path: Path, run: int) -> None:
    """Ten times in a row; each time another number of rounds, so that no two runs have the same timing."""
    _check_answers(_answers(nest, tmp_path / "forty", 40, 5 + run), 40, 5 + run)


_KILL = r"""
fleet run /sys/firmware/qemu_fw_cfg/by_name/opt/paraksm/fleet-plan/raw > /tmp/result &
while [ "$(pidof vmm | wc -w)" -lt 4 ]; do sleep 0.01; done
while [ "$(cat /sys/kernel/mm/ksm/full_scans)" -lt 1 ]; do sleep 0.01; done
set -- $(pidof vmm | tr ' ' '\n' | sort -n)
kill -9 "$@VM@"
wait %1
echo "status $?"
"""


@pytest.mark.boot
@pytest.mark.parametrize(
    ("plan", "victim"),
    [
        (_plan(graph_scale=12, graph_roots=64, window_ms=1000), 1),
        (_plan(graph_scale=12, graph_roots=64, window_ms=1000), 3),
        (_served(operations=600), 1),
        (_served(operations=600), 4),
    ],
    ids=["works", "lies there", "serves", "asks"],
)
def test_a_vm_that_is_killed_ends_the_run_with_its_number(
    nest: Workbench, tmp_path: Path, plan: FleetPlan, victim: int
) -> None:
    """In the middle of the window; VM 1 runs the workload, or serves those that do."""
    (tmp_path / "script").write_text(_KILL.replace("@VM@", str(victim)))
    (tmp_path / "plan").write_text(plan.render())
    spec = MachineSpec(
        nest.qemu, nest.kernel, nest.image, "measured", 512,
        fw_cfg={"opt/paraksm/command": tmp_path / "script", "opt/paraksm/fleet-plan": tmp_path / "plan"},
    )  # fmt: skip
    with Machine(spec, tmp_path / "run") as machine:
        machine.start()
        assert machine.wait(300) is Outcome.CLEAN, machine.verdict.explain()
    assert (tmp_path / "run" / "results.bin").read_text().split() == ["status", "1"]
    assert f"fleet: VM {victim}" in (tmp_path / "run" / "console.log").read_text()


@pytest.mark.boot
def test_a_vm_too_small_for_its_kernel_is_told(nested: Sealed, tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="wrote no fleet result"):
        nested(_plan(vm_memory_mib=16), tmp_path / "run")
    assert "does not fit into 16 MiB" in (tmp_path / "run" / "console.log").read_text()
