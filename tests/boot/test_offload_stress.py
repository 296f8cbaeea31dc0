# SPDX-License-Identifier: GPL-2.0-or-later
"""ksmd with an accelerator on a kernel that watches itself, while memory, knobs and devices change under it.

The guest's ``storm`` (vm-images/src/storm) uses mergeable memory in every way there is: processes that exit or are
killed in the middle of a scan, generations of forks, huge pages, swap, migration, mremap; a meddler turns all knobs.
Every process knows what its pages must hold. Afterwards still memory must be merged exactly as far as its contents
allow, in every mode, and the kernel must have had nothing to report: no address sanitizer, no lockdep, no DMA-API.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import dsa, images
from harness.console import Outcome
from harness.dsa import Layout, Write
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec
from harness.qbuild import QemuBuild
from tests.boot.guest import give, say

BOOT_SECONDS = 180.0  # a kernel that checks every access, on a machine that may be busy
WORDS = (
    "numa=fake=2",
    "brd.rd_nr=1",
    "brd.rd_size=131072",
    "movablecore=256M",
    "slub_debug=F",  # the sanitizer sees the rest
    "hung_task_timeout_secs=60",
    "dma_debug_entries=16384",
)
MODES = ("cpu", "dsa", "para_c", "para_t")
KSM = Layout(driver="ksm")
QUEUE = "wq0.0"

Start = Callable[..., Machine]


@dataclass(frozen=True)
class Storm:
    """What rages, and for how long."""

    seconds: int
    words: tuple[str, ...] = ()
    """Arguments of the guest's program."""
    hooks: tuple[str, ...] = ()
    """Which of :func:`hooks` run in the guest all the time."""
    rules: tuple[str, ...] = ()
    """What the device injects, one after the other."""
    iommu: bool = False
    device: dict[str, str] = field(default_factory=dict)


STORMS = {
    # every knob, every mode, a backend that lies, fails and hangs, and no device in the way
    "knobs": Storm(20, ("toggles=run,shape,work,work,knobs,backend,backend,compact,look",)),
    # exits above all: few pages a process, gone before ksmd has seen them twice, and few mappings for a KSM page
    "exits": Storm(
        15,
        ("exits=16", "workers=1", "pages=256", "sharing=2,3", "modes=para_c,para_t", "toggles=shape,look,look,look"),
    ),
    # huge pages wherever they can be had, and blocks of memory that go away and come back
    "huge": Storm(20, ("huge=1", "pages=1024", "toggles=run,shape,work,knobs,memory,memory,compact")),
    # the device answers wrongly, late, with errors or never, and its queue comes and goes
    "faults": Storm(
        25,
        ("modes=dsa,para_c,para_c,para_t", "pages=256","toggles=run,work,work,compact"),
        hooks=("queue",),
        rules=(
            "status=0x13,every=7", "page-fault,every=5", "wrong,every=3", "delay=3000000,every=9", "lost,every=400",
            "page-fault,every=1", "",
        ),
    ),
    # the device is disabled, halts, or is reset under its driver; an IOMMU that translates notices stray accesses
    "resets": Storm(
        25,
        ("modes=dsa,para_c,para_c,para_t", "pages=256","toggles=run,work,work"),
        hooks=("device", "reset"),
        rules=("wq-disable,nth=9", "halt,nth=7", "", "halt=1,nth=8", ""),
        iommu=True,
    ),
}  # fmt: skip


SHORT = ("knobs", "exits")
"""These in the gate; all of them, longer and with several seeds, among the soak tests."""


@pytest.fixture
def start(qemu_build: QemuBuild, debug_kernel: KernelBuild, functional_image: Image, tmp_path: Path) -> Iterator[Start]:
    """Start a machine with swap, two NUMA nodes and a DSA whose queue works for ksmd."""
    machines: list[Machine] = []

    def make(*, iommu: bool = False, device: dict[str, str] | None = None) -> Machine:
        spec = MachineSpec(
            qemu_build, debug_kernel, functional_image, "functional", 1024,
            cpus=2, cmdline=WORDS, dsa=(device or {},), iommu=iommu,
        )  # fmt: skip
        machine = Machine(spec, tmp_path / f"run{len(machines)}")
        machines.append(machine)
        machine.start(timeout=BOOT_SECONDS)
        dsa.apply(machine.shell, dsa.plan(dsa.read(machine.shell).device("dsa0"), KSM))
        say(machine, "mkswap /dev/ram0 && swapon /dev/ram0")
        give(machine, "/bin/storm", images.program("storm").read_bytes())
        return machine

    yield make
    for machine in machines:
        machine.stop()


def hooks(machine: Machine) -> dict[str, str]:
    """Scripts that take the device from ksmd, in several ways, and give it back."""
    device = dsa.read(machine.shell).device("dsa0")
    fresh = dsa.plan(dsa.emulated(0, {}), KSM)
    # what is left of a queue's configuration after it was unbound need not, and cannot, be written
    kept = (f"devices/{QUEUE}/group_id", f"devices/{QUEUE}/size")
    queue = [Write("drivers/ksm/unbind", QUEUE)]
    queue += [row for row in fresh if QUEUE in (row.value, row.device) and row.file not in kept]
    nap = "usleep $(($$ % 7 * 10000))\n"
    take = "".join(f"echo {row.value} > /sys/bus/dsa/{row.file}\n" for row in dsa.release(device))
    pci = "/sys/bus/pci"
    again = f"echo {device.pci} > {pci}/drivers/idxd/unbind\necho 1 > {pci}/devices/{device.pci}/reset\n{nap}"
    again += f"echo {device.pci} > {pci}/drivers/idxd/bind\n"
    # one of them at a time; what fails because a fault was quicker is put right by the next
    start = (
        "exec 2> /dev/null; while ! mkdir /tmp/device.lock; do usleep 5000; done; trap 'rmdir /tmp/device.lock' EXIT\n"
    )
    return {
        "queue": start + dsa.script(queue[:1]) + nap + dsa.script(queue[1:]),
        "device": start + dsa.script(dsa.plan(device, KSM)),
        "reset": f"{start}echo 1 > {pci}/devices/{device.pci}/reset\n{nap}{take}{again}{dsa.script(fresh)}",
    }


def inject(machine: Machine, rule: str) -> None:
    """Set the rule by which the device fails."""
    machine.command("qom-set", path="/machine/peripheral/dsa0", property="inject", value=rule)


def put_right(machine: Machine, recover: str) -> None:
    """A device without faults, with its queue in ksmd's service."""
    inject(machine, "")
    say(machine, f"{recover}\ngrep -q {QUEUE} /sys/kernel/mm/ksm/offload_backend")


def rage(machine: Machine, storm: Storm, seed: int, seconds: int) -> str:
    """A storm in the guest, faults of the device from outside, a machine put right, and still memory in every mode."""
    scripts = hooks(machine)
    words = [f"seed={seed}", f"seconds={seconds}", "calm=", *storm.words]
    for name in storm.hooks:
        give(machine, f"/tmp/{name}.sh", scripts[name].encode())
        words.append(f"hook=/tmp/{name}.sh")
    say(machine, f"( storm {' '.join(words)} > /tmp/storm.log 2>&1; echo $? > /tmp/storm.status ) < /dev/null &")
    end = time.monotonic() + seconds + 400
    for rule in itertools.cycle(storm.rules or ("",)):
        inject(machine, rule)
        if machine.execute("for i in $(seq 30); do [ -e /tmp/storm.status ] && exit; usleep 50000; done; exit 1") == 0:
            break
        assert time.monotonic() < end, say(machine, "cat /tmp/storm.log; ps; dmesg | tail -50")
    said = say(machine, "cat /tmp/storm.log")
    assert say(machine, "cat /tmp/storm.status").strip() == "0", said
    put_right(machine, scripts["reset"])
    huge = [word for word in storm.words if word.startswith("huge")]
    calm = " ".join([f"seed={seed}", "seconds=0", *huge])
    said += say(machine, f"storm {calm}", timeout=900)
    assert "storm: ok" in said
    assert {(row[1], row[2]) for row in map(str.split, said.splitlines()) if row[0] == "emptied"} == {
        (mode, f"merge_across_nodes={across}") for mode in MODES for across in "01"
    }
    return said


def figures(said: str, key: str) -> dict[str, int]:
    """Numbers of the lines that begin with a word."""
    rows = [line.split() for line in said.splitlines() if line.startswith(key + " ")]
    return {row[1]: int(row[-1]) for row in rows}


@pytest.mark.boot
@pytest.mark.parametrize("name", SHORT)
def test_storm(start: Start, name: str) -> None:
    storm = STORMS[name]
    machine = start(iommu=storm.iommu, device=storm.device)
    said = rage(machine, storm, seed=1, seconds=storm.seconds)
    assert machine.verdict.outcome is Outcome.CLEAN, machine.verdict.explain()
    assert all(count > 0 for count in figures(said, "op").values()), said


@pytest.mark.soak
def test_a_completion_that_came_too_late_gives_the_device_back(start: Start) -> None:
    """Pages of a job that was given up stay mapped until the device is done with them, and no longer."""
    machine = start()
    inject(machine, "delay=1500000000,every=50,count=2")  # ksmd waits a second
    said = say(machine, "storm seconds=0 calm=para_c", timeout=600)
    assert figures(said, "ksm")["offload_timeouts"] > 0, said
    inject(machine, "")
    said = say(machine, "sleep 2; storm seconds=0 calm=para_c", timeout=600)
    rows = [row for row in said.splitlines() if row.startswith("calm para_c ")]
    assert rows
    assert all(int(row.rpartition("jobs=")[2]) > 0 for row in rows), said
    assert machine.verdict.outcome is Outcome.CLEAN, machine.verdict.explain()


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(100, 103))
@pytest.mark.parametrize("name", STORMS)
def test_storm_for_long(start: Start, name: str, seed: int) -> None:
    storm = STORMS[name]
    machine = start(iommu=storm.iommu, device=storm.device)
    rage(machine, storm, seed=seed, seconds=600)
    assert machine.verdict.outcome is Outcome.CLEAN, machine.verdict.explain()
