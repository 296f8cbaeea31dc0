# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated DSA under the unmodified driver: probe, configuration, refusals, traffic, faults, time."""

from __future__ import annotations

import dataclasses
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harness import dsa, images
from harness.config import PROJECT
from harness.console import Outcome
from harness.dsa import Layout
from harness.errors import DeviceError
from harness.experiment import trial
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec
from harness.qbuild import QemuBuild
from tests import commands
from tests.boot.guest import give, say

BOOT_SECONDS = 120.0  # generous: this machine may be busy
_DMATEST = "/sys/module/dmatest/parameters"

_ACCEL_CONFIG = (
    ("accel-config", "/bin/accel-config"),
    ("libaccel-config", "/lib/libaccel-config.so.1"),
    ("libjson-c", "/lib/libjson-c.so.5"),
)

Start = Callable[..., Machine]


@pytest.fixture
def start(qemu_build: QemuBuild, kernel_build: KernelBuild, functional_image: Image, tmp_path: Path) -> Iterator[Start]:
    """Start a machine with DSA devices of these properties, by default one as it is."""
    machines: list[Machine] = []

    def make(*devices: Mapping[str, str], configure: bool = True, **more: object) -> Machine:
        options = devices or ({},)
        kernel = more.pop("kernel", kernel_build)
        assert isinstance(kernel, KernelBuild)
        spec = MachineSpec(qemu_build, kernel, functional_image, "functional", 1024, dsa=options, **more)  # type: ignore[arg-type]
        machine = Machine(spec, tmp_path / f"run{len(machines)}")
        machines.append(machine)
        machine.start(timeout=BOOT_SECONDS)
        if configure:
            for device in dsa.read(machine.shell).devices:
                dsa.apply(machine.shell, dsa.plan(device, Layout()))
        return machine

    yield make
    for machine in machines:
        machine.stop()


def channels(machine: Machine) -> list[str]:
    """The DMA channels there are; their numbers are not always those of devices and queues."""
    return say(machine, "ls /sys/class/dma").split()


def counter(machine: Machine, name: str, device: str = "dsa0") -> int:
    """One of the device's counters."""
    value = machine.command("qom-get", path=f"/machine/peripheral/{device}", property=name)
    assert isinstance(value, int)
    return value


def inject(machine: Machine, rule: str) -> None:
    """Set the rule by which the device fails."""
    machine.command("qom-set", path="/machine/peripheral/dsa0", property="inject", value=rule)


def dmatest(
    machine: Machine, iterations: int, *names: str, timeout: float = 600, wait_ms: int = 20000
) -> dict[str, int]:
    """Copy random pieces with the kernel's own test client and let it verify them; failures by channel.

    Every channel gets one thread, and every thread must have made all its iterations.
    """
    chosen = names or ("dma0chan0",)
    rows = [
        f"echo {iterations} > iterations",
        "echo 1 > threads_per_chan",
        f"echo {wait_ms} > timeout",
        "dmesg -c > /dev/null",
    ]
    rows += [f"echo {channel} > channel" for channel in chosen]
    rows += ["echo 1 > run", "cat wait > /dev/null", "dmesg", "echo 0 > run"]
    said = say(machine, "\n".join([f"cd {_DMATEST} || exit", *rows]), timeout)
    found = re.findall(r"dmatest: (\w+)-copy0: summary (\d+) tests, (\d+) failures", said)
    assert sorted(name for name, _, _ in found) == sorted(chosen), said
    assert {int(tests) for _, tests, _ in found} == {iterations}, said
    return {name: int(failures) for name, _, failures in found}


def rebind(queue: str, times: int) -> str:
    """A script that takes a queue from its driver and gives it back, again and again."""
    return (
        f"cd /sys/bus/dsa/drivers; i=0; while [ $i -lt {times} ]; do i=$((i + 1)); "
        f"echo {queue} > dmaengine/unbind || exit 1; cd ../devices/{queue}; echo dedicated > mode; "
        "echo 10 > priority; echo kernel > type; echo dmaengine > name; cd /sys/bus/dsa/drivers; "
        f"echo {queue} > dmaengine/bind || exit 2; done"
    )


def refused(machine: Machine, changes: Mapping[str, str], layout: Layout | None = None) -> DeviceError:
    """The refusal of a setup in which some values are others than the plan's."""
    device = dsa.read(machine.shell).device("dsa0")
    writes = [
        dataclasses.replace(write, value=changes[write.file.removeprefix("devices/")])
        if write.file.removeprefix("devices/") in changes
        else write
        for write in dsa.plan(device, layout or Layout())
    ]
    with pytest.raises(DeviceError) as caught:
        dsa.apply(machine.shell, writes)
    dsa.apply(machine.shell, dsa.release(dsa.read(machine.shell).device("dsa0")))
    return caught.value


# --- probe and configuration --------------------------------------------------------------------------


@pytest.mark.boot
def test_the_driver_finds_a_sapphire_rapids_device(start: Start) -> None:
    machine = start(configure=False)
    device = dsa.read(machine.shell).device("dsa0")
    assert device.version == "0x100"
    # later kernels of 6.1 hide the batch operation, bit 1, from programs
    assert (device.gen_cap, device.op_cap | 1 << 1) == (0x40915F0107, 0x1003F03FF)
    assert (len(device.groups), len(device.queues), len(device.engines)) == (4, 8, 4)
    assert (device.queue_entries, device.read_buffers) == (128, 96)
    assert (device.max_batch, device.max_transfer) == (1024, 1 << 31)
    assert (device.configurable, device.pasid, device.state) == (True, False, "disabled")
    said = say(machine, f"cat /proc/interrupts; cat /sys/bus/pci/devices/{device.pci}/class; dmesg")
    assert "idxd-misc" in said
    assert "0x088000" in said
    assert "Intel(R) Accelerator Device (v100)" in said
    assert machine.verdict.outcome is Outcome.CLEAN


@pytest.mark.boot
def test_the_defaults_come_up_and_go_down(start: Start) -> None:
    machine = start()
    status = dsa.read(machine.shell)
    device = status.device("dsa0")
    queue = device.queues[0]
    assert (device.state, device.driver, device.cmd_status) == ("enabled", "idxd", 0)
    assert (queue.state, queue.driver, queue.mode, queue.size) == ("enabled", "dmaengine", "dedicated", 64)
    assert (queue.type, queue.client, queue.max_batch, queue.group) == ("kernel", "dmaengine", 1024, 0)
    assert [engine.group for engine in device.engines] == [0] * 4
    assert {"dmaengine", "idxd", "user"} <= set(status.drivers)
    dsa.apply(machine.shell, dsa.release(device))
    after = dsa.read(machine.shell).device("dsa0")
    assert (after.state, after.driver, after.queues[0].size) == ("disabled", None, 0)
    # and once more, with what a second look at the device asks for
    dsa.apply(machine.shell, dsa.plan(after, Layout(queues=(32, 16), engines=2)))
    again = dsa.read(machine.shell).device("dsa0")
    assert [queue.state for queue in again.queues[:3]] == ["enabled", "enabled", "disabled"]
    assert set(dmatest(machine, 50, *channels(machine)).values()) == {0}
    assert len(channels(machine)) == 2


@pytest.mark.boot
def test_what_the_device_refuses_is_told_in_words(start: Start) -> None:
    machine = start(configure=False)
    none = refused(machine, {"wq0.0/priority": "0"})
    assert "priority 0 (cmd_status 0x23)" in none.message
    assert "--priority" in str(none.hint)
    assert "cmd_status 0x17" in refused(machine, {"engine0.3/group_id": "1"}).message
    assert "cmd_status 0x800c0000" in refused(machine, {"wq0.0/mode": "shared"}).message
    too_many = refused(machine, {"wq0.0/size": "129"})
    assert "wq0.0 does not take size = 129" in too_many.message
    nowhere = refused(machine, {"wq0.0/group_id": "-1"})
    assert "cannot bind" in nowhere.message
    dsa.apply(machine.shell, dsa.plan(dsa.read(machine.shell).device("dsa0"), Layout()))
    assert dmatest(machine, 20) == {"dma0chan0": 0}


@pytest.mark.boot
def test_several_devices_and_the_command_line(tmp_path: Path) -> None:
    """``harness boot --dsa 2``: configured before the first command, properties passed on."""
    words = ["--dsa", "2", "--dsa-option", "num-engines=2", "--dsa-option", "max-batch-shift=8"]
    script = "cd /sys/bus/dsa/devices; cat wq[01].0/state wq1.0/size wq0.0/max_batch_size; ls -d engine1.*"
    done = subprocess.run(
        [sys.executable, "-m", "harness", "-q", "boot", *words, "--run-dir", str(tmp_path / "r"), "-c", script],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (
        0, ["enabled", "enabled", "64", "256", "engine1.0", "engine1.1"],
    ), done.stderr  # fmt: skip


@pytest.mark.boot
def test_status_over_ssh_is_the_same(start: Start, tmp_path: Path) -> None:
    from harness.machine import free_port
    from harness.ssh import grant

    access = grant(tmp_path, free_port())
    machine = start(fw_cfg=access.fw_cfg, ssh_port=access.port)
    words = ["--target", access.url, "--identity", str(access.identity), "--known-hosts", str(access.known_hosts)]
    done = subprocess.run(
        [sys.executable, "-m", "harness", "-q", "dsa", "status", "--json", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["devices"]
    assert told == json.loads(json.dumps([dataclasses.asdict(device) for device in dsa.read(machine.shell).devices]))


# --- traffic ------------------------------------------------------------------------------------------


@pytest.mark.boot
def test_dmatest_with_interrupts(start: Start) -> None:
    machine = start()
    before = {name: counter(machine, name) for name in ("op-memmove", "interrupts", "completions", "bytes-written")}
    assert dmatest(machine, 3000) == {"dma0chan0": 0}
    after = {name: counter(machine, name) for name in before}
    assert after["op-memmove"] - before["op-memmove"] == 3000
    assert after["completions"] - before["completions"] >= 3000
    assert after["interrupts"] - before["interrupts"] >= 3000
    assert after["bytes-written"] > before["bytes-written"]
    assert [counter(machine, name) for name in ("errors", "sw-errors", "dropped", "injected")] == [0] * 4
    line = next(row for row in say(machine, "cat /proc/interrupts").splitlines() if "idxd-portal" in row)
    assert int(line.split()[1]) >= 3000
    assert machine.verdict.outcome is Outcome.CLEAN


@pytest.mark.boot
def test_bound_and_unbound_again_and_again(start: Start) -> None:
    machine = start()
    say(machine, rebind("wq0.0", 100), timeout=600)
    assert dmatest(machine, 50) == {"dma0chan0": 0}
    for _ in range(10):
        device = dsa.read(machine.shell).device("dsa0")
        dsa.apply(machine.shell, dsa.release(device))
        dsa.apply(machine.shell, dsa.plan(dsa.read(machine.shell).device("dsa0"), Layout()))
    assert dmatest(machine, 50) == {"dma0chan0": 0}
    assert counter(machine, "sw-errors") == 0
    assert machine.verdict.outcome is Outcome.CLEAN


@pytest.mark.boot
def test_a_second_queue_comes_and_goes_under_traffic(start: Start) -> None:
    """The driver writes the whole configuration again for it; what is enabled must not notice."""
    machine = start(configure=False)
    dsa.apply(machine.shell, dsa.plan(dsa.read(machine.shell).device("dsa0"), Layout(queues=(32, 32))))
    traffic = (
        f"cd {_DMATEST}; echo 0 > iterations; echo 20000 > timeout; echo 1 > threads_per_chan; "
        "dmesg -c > /dev/null; echo dma0chan0 > channel; echo 1 > run"
    )
    stop = f'cd {_DMATEST}; [ "$(cat run)" = Y ] || exit 3; echo 0 > run; dmesg'
    said = say(machine, f"{traffic}\n{rebind('wq0.1', 20)}\n{stop}", timeout=600)
    found = re.search(r"summary (\d+) tests, (\d+) failures", said)
    assert found and int(found[1]) > 20, said
    # Linux 6.0 to 6.2 end the interruptible waits of a kernel thread that is being stopped (kthread_stop sets
    # TIF_NOTIFY_SIGNAL): dmatest then says that the descriptor in flight timed out, long before its 20 s are over.
    cut_short = (found[1], "test timed out")
    failures = re.findall(r"result #(\d+): '([^']+)'", said)
    assert [one for one in failures if one != cut_short] == [], said
    assert int(found[2]) == len(failures) <= 1, said
    # The completion of that descriptor comes after the thread's end, and dmatest's callback warns of just that.
    late = failures and "dmatest_callback" in machine.verdict.headline
    assert machine.verdict.outcome is (Outcome.WARNING if late else Outcome.CLEAN), machine.verdict.explain()


@pytest.mark.boot
def test_several_devices_at_once(start: Start) -> None:
    machine = start({}, {}, {"num-engines": "1"})
    names = ("dma0chan0", "dma1chan0", "dma2chan0")
    assert dmatest(machine, 300, *names) == dict.fromkeys(names, 0)
    assert [counter(machine, "op-memmove", f"dsa{n}") for n in range(3)] == [300] * 3


@pytest.mark.boot
def test_an_iommu_translates_for_the_device(start: Start) -> None:
    machine = start(iommu=True)
    place = dsa.read(machine.shell).device("dsa0").pci
    said = say(machine, f"dmesg | grep -i dmar; cat /sys/bus/pci/devices/{place}/iommu_group/type")
    assert "IOMMU enabled" in said
    assert said.splitlines()[-1].startswith("DMA"), said  # not "identity": addresses are the IOMMU's
    assert dmatest(machine, 500) == {"dma0chan0": 0}
    assert counter(machine, "op-memmove") == 500
    assert "DMAR: [DMA" not in say(machine, "dmesg")  # no fault


@pytest.mark.boot
def test_function_level_reset(start: Start) -> None:
    machine = start()
    place = dsa.read(machine.shell).device("dsa0").pci
    dsa.apply(machine.shell, dsa.release(dsa.read(machine.shell).device("dsa0")))
    say(machine, f"echo {place} > /sys/bus/pci/drivers/idxd/unbind; echo 1 > /sys/bus/pci/devices/{place}/reset; "
        f"echo {place} > /sys/bus/pci/drivers/idxd/bind")  # fmt: skip
    [device] = dsa.read(machine.shell).devices
    assert device.state == "disabled"
    dsa.apply(machine.shell, dsa.plan(device, Layout()))
    assert set(dmatest(machine, 50, *channels(machine)).values()) == {0}


@pytest.mark.boot
def test_the_lines_of_the_documents(start: Start) -> None:
    """What the page says to type in a guest, and what QEMU's own page says, do what they promise."""
    ours = [block for block in commands.blocks() if block.file.name == "dsa.md"]
    [page] = [block.text for block in ours if block.mark == "executed: guest"]
    rst = (PROJECT / "patches/qemu/src/docs/system/devices/idxd-dsa.rst").read_text()
    parts = re.findall(r"\.\. code-block:: shell\n\n((?:  .*\n|\n)+)", rst)
    guest = [re.sub(r"(?m)^  ", "", part) for part in parts if part.lstrip().startswith("cd ")]
    assert len(guest) == 2
    for script in (page, "\n".join(guest)):
        assert "summary 1000 tests, 0 failures" in say(start(configure=False), script)


@pytest.mark.boot
def test_accel_config(start: Start) -> None:
    """Intel's own tool and its configuration tests, from Debian's package; two devices, as the tests want them."""
    machine = start({}, {}, configure=False)
    for package, where in _ACCEL_CONFIG:
        data = images.package_file(package, where)
        give(machine, where, data)
    said = say(machine, "accel-config test")
    assert re.findall(r"accfg-test(\d) (passed|\*\w+\*)", said) == [(str(n), "passed") for n in range(4)], said
    assert "SUCCESS!" in said
    # the tests leave shared queues in groups and too few read buffers, with which no device comes up here
    for device in dsa.read(machine.shell).devices:
        dsa.apply(machine.shell, dsa.release(device))
    queue = "-g 0 -s 64 -m dedicated -p 10 -y kernel -n dmaengine -x 2097152"  # the tests leave a small limit
    said = say(
        machine,
        f"for n in 0 1 2 3; do accel-config config-engine dsa0/engine0.$n -g 0; done; "
        f"accel-config config-wq dsa0/wq0.0 {queue} && accel-config enable-device dsa0 && "
        "accel-config enable-wq dsa0/wq0.0 && accel-config list",
    )
    [listed] = json.loads(said[said.index("[") :])
    assert (listed["dev"], listed["state"]) == ("dsa0", "enabled")
    assert listed["groups"][0]["grouped_workqueues"][0]["state"] == "enabled"
    assert len(listed["groups"][0]["grouped_engines"]) == 4
    assert dmatest(machine, 100) == {"dma0chan0": 0}
    say(machine, "accel-config disable-wq dsa0/wq0.0 && accel-config disable-device dsa0")
    assert dsa.read(machine.shell).device("dsa0").state == "disabled"


@pytest.mark.boot
def test_accel_config_of_trixie(start: Start) -> None:
    """The later version, with the libraries it was built for; they are not those of the guest."""
    machine = start({}, {}, configure=False)
    for package, where in (*_ACCEL_CONFIG, ("libc", "/lib/libc.so.6"), ("libc", "/lib64/ld-linux-x86-64.so.2")):
        data = images.package_file(package, where, suite="trixie")
        give(machine, f"/trixie/{where.rpartition('/')[2]}", data)
    tool = "/trixie/ld-linux-x86-64.so.2 --library-path /trixie /trixie/accel-config"
    assert say(machine, f"{tool} --version").strip() == "4.1.8+"  # what Debian's 4.1.8-1 says of itself
    # this version's tests begin with a look at pasid_enabled, which the driver sets only with an IOMMU that has PASIDs
    tested = machine.shell(f"{tool} test")
    assert "device has no pasid support, skipping tests" in tested.stdout + tested.stderr
    assert not dsa.read(machine.shell).device("dsa0").pasid
    say(
        machine,
        f"{tool} config-engine dsa0/engine0.0 -g 0; "
        f"{tool} config-wq dsa0/wq0.0 -g 0 -s 64 -m dedicated -p 10 -y kernel -n dmaengine -d dmaengine && "
        f"{tool} enable-device dsa0 && {tool} enable-wq dsa0/wq0.0",
    )
    assert dsa.read(machine.shell).device("dsa0").queues[0].state == "enabled"
    assert dmatest(machine, 100) == {"dma0chan0": 0}
    assert machine.verdict.outcome is Outcome.CLEAN


@pytest.mark.boot
def test_the_driver_of_6_2(start: Start, later_kernel: KernelBuild) -> None:
    """Built in, where it needs the bus linked first."""
    machine = start(kernel=later_kernel)
    device = dsa.read(machine.shell).device("dsa0")
    assert say(machine, "uname -r").startswith("6.2")
    assert (device.gen_cap, device.op_cap | 1 << 1) == (0x40915F0107, 0x1003F03FF)
    assert device.queues[0].state == "enabled"
    assert dmatest(machine, 1000) == {"dma0chan0": 0}
    say(machine, rebind("wq0.0", 100), timeout=600)
    for _ in range(10):
        dsa.apply(machine.shell, dsa.plan(dsa.read(machine.shell).device("dsa0"), Layout()))
    assert set(dmatest(machine, 1000, *channels(machine)).values()) == {0}
    assert counter(machine, "op-memmove") == 2000
    assert machine.verdict.outcome is Outcome.CLEAN


@pytest.mark.boot
def test_errors_that_no_record_can_take_reach_the_log(start: Start) -> None:
    """A record at an odd address, then more descriptors than the queue has entries; the driver tells of both."""
    machine = start()
    place = dsa.read(machine.shell).device("dsa0").pci
    put = f"dmesg -c > /dev/null; dsa-put {place} 0"
    said = say(machine, f"{put} 1 0x0000000c00000000 0x8; sleep 1; dmesg")
    assert dsa.read(machine.shell).device("dsa0").errors[0] >> 8 & 0xFF == 0x1B
    assert re.search(r"(?m)err\[0\]: 0x[0-9a-f]*1b[0-9a-f]{2}$", said), said
    inject(machine, "delay=300000000,every=1")
    say(machine, f"{put} 256 0; sleep 1")  # no-operations without a record
    inject(machine, "")
    assert counter(machine, "dropped") > 0
    assert "err[0]" in say(machine, "dmesg")
    assert dsa.read(machine.shell).device("dsa0").errors[0] >> 8 & 0xFF == 0x53
    assert dmatest(machine, 100) == {"dma0chan0": 0}  # and it works on


# --- faults on request --------------------------------------------------------------------------------


@pytest.mark.boot
@pytest.mark.parametrize(
    ("rule", "failures"),
    [
        ("status=0x13,every=10,count=5", 5),
        ("page-fault,every=10,count=5", 5),
        ("delay=3000000,every=5", 0),
    ],
)
def test_an_injected_fault_is_noticed(start: Start, rule: str, failures: int) -> None:
    machine = start()
    inject(machine, rule)
    assert dmatest(machine, 100) == {"dma0chan0": failures}
    assert counter(machine, "injected") == (20 if rule.startswith("delay") else failures)
    inject(machine, "")
    assert dmatest(machine, 100) == {"dma0chan0": 0}


@pytest.mark.boot
def test_a_lost_completion_times_out(start: Start) -> None:
    machine = start()
    inject(machine, "lost,nth=5")
    assert dmatest(machine, 20, wait_ms=1000) == {"dma0chan0": 1}


@pytest.mark.boot
def test_a_bad_rule_is_refused(start: Start) -> None:
    machine = start(configure=False)
    with pytest.raises(Exception, match="unknown kind 'sometimes'"):
        inject(machine, "sometimes,nth=1")


def halt(machine: Machine, rule: str, message: str) -> None:
    """Halt a device under traffic, and see that its driver notices and says so."""
    busy = f"cd {_DMATEST}; echo 0 > iterations; echo 1000 > timeout; echo dma0chan0 > channel; echo 1 > run"
    say(machine, f"dmesg -c > /dev/null; {busy}")
    inject(machine, rule)
    say(machine, f"for i in $(seq 100); do dmesg | grep '{message}' && exit 0; usleep 100000; done; dmesg; exit 1")
    say(machine, f"echo 0 > {_DMATEST}/run; grep disabled /sys/bus/dsa/devices/dsa0/state")
    inject(machine, "")


@pytest.mark.boot
def test_a_halted_device_is_reported(start: Start) -> None:
    machine = start()
    halt(machine, "halt=0,nth=20", "Device is HALTED!")
    # idxd sends no command to a device that halted, not even the one that would help: docs/dsa.md
    pci = dsa.read(machine.shell).device("dsa0").pci
    say(machine, f"cd /sys/bus/pci; echo {pci} > drivers/idxd/unbind; echo 1 > devices/{pci}/reset")
    say(machine, f"echo {pci} > /sys/bus/pci/drivers/idxd/bind")
    dsa.apply(machine.shell, dsa.plan(dsa.read(machine.shell).device("dsa0"), Layout()))
    assert dmatest(machine, 100) == {"dma0chan0": 0}
    halt(machine, "halt=1,nth=20", "idxd halted, need FLR")
    assert machine.verdict.outcome is Outcome.CLEAN, machine.verdict.explain()


# --- time ---------------------------------------------------------------------------------------------


def sealed(
    qemu: QemuBuild, kernel: KernelBuild, image: Image, folder: Path, job: str, *, setup: bool = True
) -> tuple[str, bytes]:
    """A measured machine that runs a job; its console and its results."""
    folder.mkdir()
    device = dsa.emulated(0, {})
    prefix = f"({dsa.script(dsa.plan(device, Layout()))}) >&2 || exit 125\n" if setup else ""
    (folder / "command.sh").write_text(prefix + job)
    files = {"command": folder / "command.sh"}
    spec = MachineSpec(qemu, kernel, image, "measured", 1024, fw_cfg=files, dsa=({},))
    with Machine(spec, folder) as machine:
        machine.start()
        outcome = machine.wait(600)
        assert outcome is Outcome.CLEAN, machine.verdict.explain()
        assert machine.status == 0, machine.console_log.read_text()
        return machine.console_log.read_text(), (folder / "results.bin").read_bytes()


@pytest.mark.boot
def test_two_measured_runs_are_the_same_bytes(
    qemu_build: QemuBuild, kernel_build: KernelBuild, measured_image: Image, tmp_path: Path
) -> None:
    job = (
        f"cd {_DMATEST} && echo 300 > iterations && echo 1 > threads_per_chan && echo dma0chan0 > channel && "
        "echo 1 > run && cat wait && echo 0 > run && dmesg && cat /proc/interrupts /proc/schedstat && "
        "dsa-time --unbind --repeats 8\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw
    runs = [sealed(qemu_build, kernel_build, measured_image, tmp_path / f"r{n}", job) for n in range(2)]
    switches = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw - before
    assert b"summary 300 tests, 0 failures" in runs[0][1]
    assert b'"checksum"' in runs[0][1]
    assert runs[0] == runs[1]
    # 200 are usual; with a main loop that is woken for each timer and each nap of the guest it is 6000
    assert switches < 2000


@pytest.mark.boot
def test_pages_take_as_long_as_in_the_paper(
    qemu_build: QemuBuild, kernel_build: KernelBuild, measured_image: Image, tmp_path: Path
) -> None:
    """Figure 7: one page at a time is slower than the processor, eight in a batch are worth it."""
    _, said = sealed(qemu_build, kernel_build, measured_image, tmp_path / "r", "dsa-time --unbind\n", setup=False)
    told = trial.parse(said)  # all batches, whose parts add up
    for name, expected in (("compare", 2.6), ("checksum", 2.7)):
        cpu = told[name]["processor_ns"]
        slept = {row["batch"]: row["slept_ns"] for row in told[name]["batches"]}
        polled = {row["batch"]: row["polled_ns"] for row in told[name]["batches"]}
        assert slept[1] / cpu == pytest.approx(expected, rel=0.1), told
        assert 0.15 <= slept[8] / 8 / slept[1] <= 0.22, told
        assert slept[256] / 256 <= 0.2 * cpu, told
        assert polled[1] < cpu < slept[1], told  # what makes one page slow is the sleep, not the device


# --- for hours ----------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_dmatest_100_000(start: Start) -> None:
    machine = start()
    assert dmatest(machine, 100_000, timeout=7000) == {"dma0chan0": 0}
    assert counter(machine, "op-memmove") == 100_000
    assert counter(machine, "errors") == counter(machine, "sw-errors") == 0
    assert machine.verdict.outcome is Outcome.CLEAN
