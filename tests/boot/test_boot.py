# SPDX-License-Identifier: GPL-2.0-or-later
"""Live guests: commands, seven ways to fail, the console, ssh, sealed runs, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.console import Outcome, Symbols
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import GuestDown, Machine, MachineSpec, free_port
from harness.qbuild import QemuBuild
from tests.boot.surgery import UNDEFINED, VICTIM, overwrite, sleep_for_ever

pytestmark = pytest.mark.boot

HARNESS = [sys.executable, "-m", "harness", "-q", "boot"]
BOOT_SECONDS = 60.0  # generous: this machine may be busy
DEBUG_BOOT_SECONDS = 180.0  # the same for a kernel that checks every access
Functional = Callable[..., MachineSpec]


@pytest.fixture
def functional(qemu_build: QemuBuild, kernel_build: KernelBuild, functional_image: Image) -> Functional:
    def make(*words: str, **more: object) -> MachineSpec:
        kernel = more.pop("kernel", kernel_build)
        assert isinstance(kernel, KernelBuild)
        return MachineSpec(qemu_build, kernel, functional_image, "functional", 1024, cmdline=words, **more)  # type: ignore[arg-type]

    return make


@pytest.fixture
def guest(functional: Functional, tmp_path: Path) -> Iterator[Machine]:
    with Machine(functional(), tmp_path / "run") as machine:
        machine.start(timeout=BOOT_SECONDS)
        yield machine


def lkdtm(crash: str) -> str:
    """A script that asks the kernel for a crash (drivers/misc/lkdtm)."""
    return f"mount -t debugfs none /sys/kernel/debug; echo {crash} > /sys/kernel/debug/provoke-crash/DIRECT"


# --- commands -----------------------------------------------------------------------------------------


def test_streams_status_and_input(guest: Machine) -> None:
    out, errors = bytearray(), bytearray()
    data = os.urandom(3_000_000)
    status = guest.execute(
        "cat; printf 'to\\0err' >&2; exit 42",
        stdin=data,
        on_stdout=out.extend,
        on_stderr=errors.extend,
        timeout=60,
    )
    assert (status, bytes(errors)) == (42, b"to\0err")
    assert bytes(out) == data
    assert guest.execute("kill -9 $$", timeout=30) == 137
    assert guest.execute("head -c 1 > /dev/null", stdin=data, timeout=30) == 0
    assert guest.execute("sleep 1000 &", timeout=30) == 0
    assert guest.verdict.outcome is Outcome.CLEAN


def test_the_guest_has_what_experiments_need(guest: Machine) -> None:
    out = bytearray()
    script = "cat /sys/kernel/mm/ksm/run /sys/kernel/mm/ksm/pages_scanned; pgrep ksmd; cat /proc/sys/kernel/printk"
    assert guest.execute(script, on_stdout=out.extend, timeout=30) == 0
    assert out.split()[:2] == [b"0", b"0"]


# --- seven ways to fail -------------------------------------------------------------------------------


def test_panic(guest: Machine) -> None:
    with pytest.raises(GuestDown) as caught:
        guest.execute("echo c > /proc/sysrq-trigger", timeout=30)
    assert caught.value.verdict.outcome is Outcome.PANIC
    assert any("sysrq_handle_crash" in line for line in caught.value.verdict.tail)


def test_warning(functional: Functional, tmp_path: Path) -> None:
    """A fanout that RCU refuses with WARN_ON (kernel/rcu/tree.c, rcu_init_geometry); the guest lives on."""
    with Machine(functional("rcutree.rcu_fanout_leaf=1"), tmp_path / "run") as machine:
        machine.start(timeout=BOOT_SECONDS)
        assert machine.execute("exit 5", timeout=60) == 5
        verdict = machine.verdict
    assert verdict.outcome is Outcome.WARNING
    assert "rcu_init_geometry" in verdict.headline


def test_oops(guest: Machine, tmp_path: Path) -> None:
    """A function of the running kernel becomes an invalid opcode; its caller dies, the guest lives on."""
    overwrite(guest, VICTIM, UNDEFINED, tmp_path)
    assert guest.execute("sh -c 'read line < /proc/meminfo'", timeout=60) > 128
    assert guest.execute("exit 5", timeout=60) == 5
    assert guest.verdict.outcome is Outcome.OOPS
    assert "invalid opcode" in guest.verdict.headline
    assert any(f"RIP: 0010:{VICTIM}+0x0" in line for line in guest.verdict.tail)


def test_an_oops_that_keeps_a_lock(guest: Machine, tmp_path: Path) -> None:
    """``cat`` dies with the lock of its output pipe, on which the agent then waits for ever."""
    overwrite(guest, VICTIM, UNDEFINED, tmp_path)
    with pytest.raises(GuestDown) as caught:
        guest.execute("cat /proc/meminfo", timeout=300)
    assert caught.value.verdict.outcome is Outcome.OOPS


def test_hung_task(guest: Machine, tmp_path: Path) -> None:
    """A function of the running kernel sleeps for ever; khungtaskd tells of its caller."""
    overwrite(guest, VICTIM, sleep_for_ever(Symbols.read(guest.spec.kernel.system_map)), tmp_path)
    guest.execute(
        "echo 1 > /proc/sys/kernel/hung_task_timeout_secs; sh -c 'read line < /proc/meminfo' & sleep 5", timeout=60
    )
    assert guest.verdict.outcome is Outcome.HUNG_TASK
    assert "task sh:" in guest.verdict.headline
    assert any("schedule_timeout" in line for line in guest.verdict.tail)


def test_qemu_dies(guest: Machine) -> None:
    os.kill(guest.pid, signal.SIGKILL)
    with pytest.raises(GuestDown) as caught:
        guest.execute("sleep 100", timeout=30)
    assert caught.value.verdict.outcome is Outcome.QEMU_DIED
    assert "signal 9" in caught.value.message


def test_power_off_under_a_command_is_not_success(guest: Machine) -> None:
    with pytest.raises(GuestDown, match="powered off or reset") as caught:
        guest.execute("poweroff -f", timeout=30)
    assert caught.value.verdict.outcome is Outcome.QEMU_DIED


@pytest.mark.parametrize("more", [{"paused": True}, {"cpu": "max,-erms"}], ids=["stopped", "early-hang"])
def test_silence(functional: Functional, tmp_path: Path, more: dict[str, object]) -> None:
    """A stopped processor, and a real early hang: this processor model stops Linux 6.1 before its console."""
    with Machine(functional(**more), tmp_path / "run") as machine, pytest.raises(GuestDown) as caught:
        machine.start(timeout=6)
    assert caught.value.verdict.outcome is Outcome.SILENT
    assert any(line.startswith("cpu 0: at 0x") for line in caught.value.verdict.tail)


def test_a_command_without_end(guest: Machine) -> None:
    with pytest.raises(GuestDown) as caught:
        guest.execute("sleep 1000", timeout=1)
    assert caught.value.verdict.outcome is Outcome.TIMEOUT


@pytest.mark.parametrize(
    ("crash", "outcome", "words"),
    [("WARNING", Outcome.WARNING, "lkdtm_WARNING"), ("BUG", Outcome.OOPS, "lkdtm_BUG")],
)
def test_debug_kernel(
    functional: Functional, debug_kernel: KernelBuild, tmp_path: Path, crash: str, outcome: Outcome, words: str
) -> None:
    with Machine(functional(kernel=debug_kernel), tmp_path / "run") as machine:
        machine.start(timeout=DEBUG_BOOT_SECONDS)
        machine.execute(lkdtm(crash), timeout=60)
        assert machine.execute("exit 5", timeout=60) == 5
        verdict = machine.verdict
    assert verdict.outcome is outcome, verdict.explain()
    assert any(words in line for line in verdict.tail), verdict.explain()


def test_debug_kernel_finds_a_lock_that_is_kept(
    functional: Functional, debug_kernel: KernelBuild, tmp_path: Path
) -> None:
    """The guest may hang afterwards, with its lock and without preemption; the report must not be lost by that."""
    with Machine(functional(kernel=debug_kernel), tmp_path / "run") as machine:
        machine.start(timeout=DEBUG_BOOT_SECONDS)
        with contextlib.suppress(GuestDown):
            machine.execute(lkdtm("SPINLOCKUP"), timeout=30)
        verdict = machine.verdict
    assert verdict.outcome is Outcome.LOCKDEP, verdict.explain()
    assert any("(lock_me_up){" in line for line in verdict.tail), verdict.explain()


# --- sealed -------------------------------------------------------------------------------------------


def test_two_sealed_runs_are_byte_identical(
    qemu_build: QemuBuild, kernel_build: KernelBuild, measured_image: Image, tmp_path: Path
) -> None:
    """Random numbers, scheduling statistics and clocks included."""
    job = tmp_path / "job.sh"
    job.write_text(
        "head -c 64 /dev/urandom | od -x; cat /proc/uptime /proc/self/schedstat /proc/interrupts\n"
        "echo 1 > /sys/kernel/mm/ksm/run; sleep 0.2; cat /proc/$(pgrep ksmd)/schedstat; date; exit 9\n"
    )
    seen = []
    for number in (1, 2):
        spec = MachineSpec(qemu_build, kernel_build, measured_image, "measured", 512, seed=5, fw_cfg={"command": job})
        with Machine(spec, tmp_path / str(number)) as machine:
            machine.start()
            assert machine.wait(300) is Outcome.CLEAN, machine.verdict.explain()
            assert machine.status == 9
        seen.append([(tmp_path / str(number) / name).read_bytes() for name in ("console.log", "results.bin")])
    assert seen[0] == seen[1]
    assert b"Thu Jan  1 00:00" in seen[0][1]


# --- ssh ----------------------------------------------------------------------------------------------


def test_ssh_with_a_checked_host_key(functional: Functional, tmp_path: Path) -> None:
    import paramiko

    from harness.host import Host
    from harness.ssh import grant

    access = grant(tmp_path, free_port())
    with Machine(functional(ssh_port=access.port, fw_cfg=access.fw_cfg), tmp_path / "run") as machine:
        machine.start(timeout=BOOT_SECONDS)
        with Host.connect(access.url, access.identity, access.known_hosts) as host:
            assert host.run(["cat", "/sys/kernel/mm/ksm/run"]).stdout == "0\n"
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        with paramiko.SSHClient() as client:
            client.load_host_keys(str(access.known_hosts))
            with pytest.raises(paramiko.AuthenticationException):
                client.connect(
                    "127.0.0.1",
                    access.port,
                    "root",
                    key_filename=str(grant(stranger, access.port).identity),
                    allow_agent=False,
                    look_for_keys=False,
                )


# --- the command --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("qemu_build", "kernel_build", "functional_image")
class TestCommand:
    """``harness boot`` as its users run it."""

    def test_passes_everything_through(self) -> None:
        done = subprocess.run(
            [*HARNESS, "--stdin", "-c", "tr a-z A-Z; echo oh >&2; exit 7"], input=b"hello", capture_output=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (7, b"HELLO", b"oh\n")

    def test_closed_standard_streams(self) -> None:
        done = subprocess.run(["sh", "-c", f"exec {' '.join(HARNESS)} -c 'exit 6' <&- >&- 2>&-"])
        assert done.returncode == 6

    def test_two_at_once(self) -> None:
        both = [
            subprocess.Popen([*HARNESS, "-c", f"echo {n}; exit {n}"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            for n in (1, 2)
        ]
        assert [child.communicate()[0] for child in both] == [b"1\n", b"2\n"]
        assert [child.returncode for child in both] == [1, 2]

    def test_panic_has_its_status(self) -> None:
        done = subprocess.run([*HARNESS, "--json", "-c", "echo c > /proc/sysrq-trigger"], capture_output=True)
        assert done.returncode == Outcome.PANIC.status
        assert json.loads(done.stdout)["outcome"] == "panic"
        assert b"sysrq triggered crash" in done.stderr

    def test_sealed_command(self) -> None:
        done = subprocess.run([*HARNESS, "--mode", "measured", "-c", "echo sealed; exit 3"], capture_output=True)
        assert (done.returncode, done.stdout) == (3, b"sealed\n")

    def test_console_in_a_terminal(self) -> None:
        import pexpect

        child = pexpect.spawn(HARNESS[0], [*HARNESS[1:], "--interactive"], encoding="utf-8", timeout=BOOT_SECONDS)
        child.expect("# ")
        child.sendline("echo $((6 * 7)) $(tty)")
        child.expect("42 /dev/ttyS0")
        child.sendline("sleep 1000")
        child.sendcontrol("c")
        child.expect("# ")
        child.send("\x1d")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0

    def test_killed_harness_leaves_no_qemu(self, tmp_path: Path) -> None:
        child = subprocess.Popen([*HARNESS, "--keep", "--run-dir", str(tmp_path)], start_new_session=True)
        end = time.monotonic() + BOOT_SECONDS
        while not (found := _children(child.pid, "qemu-system")):
            assert time.monotonic() < end, "QEMU never started"
            time.sleep(0.1)
        child.kill()
        child.wait()
        end = time.monotonic() + 2.0
        while any(Path(f"/proc/{pid}").exists() for pid in found):
            assert time.monotonic() < end, "QEMU outlived the harness by 2 s"
            time.sleep(0.05)


def _children(parent: int, name: str) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        is_child = re.search(rf"^PPid:\s*{parent}$", text, re.MULTILINE)
        if is_child and name in (status.parent / "cmdline").read_text():
            found.append(int(status.parent.name))
    return found
