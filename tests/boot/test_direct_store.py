# SPDX-License-Identifier: GPL-2.0-or-later
"""The direct store instructions of the emulated CPU, by programs that run on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.config import PROJECT
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec
from harness.qbuild import QemuBuild
from harness.run import run

pytestmark = pytest.mark.boot

USER_TEST = PROJECT / "patches" / "qemu" / "src" / "tests" / "tcg" / "x86_64" / "direct-store.c"
BARE = Path(__file__).parent / "bare"
CPU = "max,-erms,-fsrm"
FREESTANDING = [
    *("-m32", "-march=i686", "-O1", "-ffreestanding", "-nostdlib", "-static", "-mgeneral-regs-only"),
    *("-fno-pic", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    "-Wl,--build-id=none,--no-warn-rwx-segments",
]
COUNTED = ("-icount", "shift=0,sleep=off")


@pytest.mark.parametrize(("cpu", "enqcmd"), [(CPU, "absent"), (f"{CPU},enqcmd=on", "present")])
def test_user_mode(
    cpu: str,
    enqcmd: str,
    qemu_build: QemuBuild,
    kernel_build: KernelBuild,
    functional_image: Image,
    tmp_path: Path,
) -> None:
    """QEMU's own test program, as a process of a guest with two processors."""
    program = tmp_path / "direct-store"
    run(["gcc", "-O2", "-static", "-pthread", "-o", program, USER_TEST])
    output = bytearray()
    spec = MachineSpec(qemu_build, kernel_build, functional_image, "functional", 512, cpus=2, cpu=cpu)
    with Machine(spec, tmp_path / "run") as machine:
        machine.start(timeout=120)
        status = machine.execute(
            "cat > /tmp/direct-store && chmod +x /tmp/direct-store && /tmp/direct-store",
            stdin=program.read_bytes(),
            on_stdout=output.extend,
            timeout=120,
        )
    text = output.decode()
    assert status == 0, text
    assert text.startswith("ok: ") and text.endswith(f" 0 failed, enqcmd {enqcmd}\n")


@pytest.fixture(scope="module")
def bare_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel that is the test, in 32-bit protected mode."""
    kernel = tmp_path_factory.mktemp("bare") / "direct-store.elf"
    run(["gcc", *FREESTANDING, f"-Wl,-T,{BARE / 'kernel.ld'}", "-o", kernel, BARE / "direct_store.c"])
    return kernel


def boot_bare(qemu: QemuBuild, kernel: Path, *more: str) -> list[str]:
    """What the kernel prints until it ends; its verdict is the exit status."""
    machine = "-M q35 -nodefaults -vga none -nic none -display none -serial stdio -no-reboot -m 64"
    devices = "-device edu -device idxd-dsa -device isa-debug-exit,iobase=0xf4,iosize=4"
    firmware: list[str | Path] = ["-L", qemu.data_dir, "-bios", qemu.firmware, "-kernel", kernel]
    done = run([qemu.binary, *machine.split(), *devices.split(), *firmware, *more], timeout=120, check=False)
    assert done.returncode == 1, done.stdout + done.stderr  # isa-debug-exit: 2 * 0 + 1
    return done.stdout.splitlines()


def test_supervisor_and_devices(qemu_build: QemuBuild, bare_kernel: Path) -> None:
    """Segments, 16-bit addresses, IA32_PASID, ENQCMDS, queues of an accelerator that accept, refuse and are full."""
    lines = boot_bare(qemu_build, bare_kernel, "-cpu", f"{CPU},enqcmd=on")
    assert re.fullmatch(r"ok: [1-9]\d+ checks, 0 failed", lines[-1])


def test_devices_see_exact_time(qemu_build: QemuBuild, bare_kernel: Path) -> None:
    """Under icount a descriptor takes the same time from every place in a block of code, and in every run."""
    arguments = ("-cpu", f"{CPU},enqcmd=on", *COUNTED)
    first = boot_bare(qemu_build, bare_kernel, *arguments)
    latency = re.search(r"latency (\d+) to (\d+) ticks", "\n".join(first))
    assert latency is not None
    assert 100 < int(latency[1]) <= int(latency[2]) <= int(latency[1]) + 8  # a round of the loop that polls
    refused = re.search(r"refused (\d+)", "\n".join(first))
    assert refused is not None and int(refused[1]) > 0  # the CPU outruns the device, and is told
    assert boot_bare(qemu_build, bare_kernel, *arguments) == first


def test_enqcmd_is_not_there_unasked(qemu_build: QemuBuild, bare_kernel: Path) -> None:
    """Linux without XSAVES would let one task's PASID pass to the next."""
    with pytest.raises(AssertionError, match=r"read_pasid\(\) == 0 && !fault_vector \(vector 13\)"):
        boot_bare(qemu_build, bare_kernel, "-cpu", CPU)
