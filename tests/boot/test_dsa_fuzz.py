# SPDX-License-Identifier: GPL-2.0-or-later
"""Random descriptors in a guest, every answer and all memory judged by an oracle; registers and resets from there.

What the guest's program prints is kept with the test's run directory; a mismatch line says how to repeat its case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harness.console import Outcome
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec
from harness.qbuild import QemuBuild

BOOT_SECONDS = 60.0
AT_ONCE = {"timing-preset": "none"}
"""A device that takes no time: without counting instructions its timers would wait for the host, not work."""
Started = Callable[[Mapping[str, str]], Machine]


@pytest.fixture
def start(
    qemu_build: QemuBuild, kernel_build: KernelBuild, functional_image: Image, tmp_path: Path
) -> Iterator[Started]:
    """Start a machine with a device of these properties."""
    machines: list[Machine] = []

    def make(device: Mapping[str, str]) -> Machine:
        spec = MachineSpec(qemu_build, kernel_build, functional_image, "functional", 512, dsa=(device,))
        machines.append(Machine(spec, tmp_path / f"run{len(machines)}"))
        machines[-1].start(timeout=BOOT_SECONDS)
        return machines[-1]

    yield make
    for machine in machines:
        machine.stop()


def check(machine: Machine, words: str, timeout: float = 600) -> tuple[int, str]:
    """Run the guest's ``dsa-check``; status and what it said."""
    said = bytearray()
    status = machine.execute(
        f"dsa-check {words} --unbind", on_stdout=said.extend, on_stderr=said.extend, timeout=timeout
    )
    return status, said.decode()


def summary(said: str) -> dict[str, int]:
    """The counts of a fuzz run."""
    found = re.search(r"(\d+) cases, (\d+) descriptors, (\d+) batches, (\d+) software errors, (\d+) mismatches", said)
    assert found, said
    return dict(zip(("cases", "descriptors", "batches", "errors", "mismatches"), map(int, found.groups()), strict=True))


@pytest.mark.boot
def test_twenty_thousand_descriptors(start: Started) -> None:
    machine = start(AT_ONCE)
    status, said = check(machine, "fuzz --seed 1 --count 20000")
    assert status == 0, said
    counts = summary(said)
    assert counts["mismatches"] == 0
    assert counts["descriptors"] >= 20_000
    # every operation and every status that a descriptor can be given was among them
    opcodes = dict(re.findall(r"\b([0-9a-f]{2})=(\d+)", said.split("opcodes:")[1].split("\n")[0]))
    statuses = dict(re.findall(r"\b([0-9a-f]{2})=(\d+)", said.split("statuses:")[1].split("\n")[0]))
    assert {"00", "02", *(f"{n:02x}" for n in range(3, 10)), *(f"{n:02x}" for n in range(0x10, 0x16)), "20"} <= set(
        opcodes
    )
    assert {"01", "02", "07", "08", "09", "10", "11", "12", "13", "15", "16", "19", "1b", "1c"} <= set(statuses)
    assert machine.verdict.outcome is Outcome.CLEAN


@pytest.mark.boot
def test_descriptors_that_take_time(start: Started) -> None:
    """With the timing model, so that several are in flight and finish out of order."""
    status, said = check(start({}), "fuzz --seed 2 --count 3000")
    assert status == 0, said
    assert summary(said)["descriptors"] >= 3000


@pytest.mark.boot
def test_a_wrong_device_is_found_out(start: Started) -> None:
    """One wrong comparison in a hundred descriptors; the case it names shows it again."""
    machine = start(AT_ONCE)
    machine.command("qom-set", path="/machine/peripheral/dsa0", property="inject", value="wrong,every=100")
    status, said = check(machine, "fuzz --seed 3 --count 5000")
    assert status == 1, said
    assert summary(said)["mismatches"] > 0
    found = re.search(r"mismatch --seed 3 --case (\d+): opcode 0x05 .*result \d, expected \d", said)
    assert found, said
    machine.command("qom-set", path="/machine/peripheral/dsa0", property="inject", value="wrong,every=1")
    status, said = check(machine, f"fuzz --seed 3 --case {found[1]} --cases 1")
    assert status == 1, said
    machine.command("qom-set", path="/machine/peripheral/dsa0", property="inject", value="")
    status, said = check(machine, f"fuzz --seed 3 --case {found[1]} --cases 1")
    assert status == 0, said


@pytest.mark.boot
def test_acceptance(start: Started) -> None:
    status, said = check(start({}), "acceptance")
    assert status == 0, said
    assert "not ok" not in said
    assert "SKIP" not in said
    assert int(said.rsplit("1..", 1)[1]) == len(re.findall(r"^ok \d+", said, re.MULTILINE))


@pytest.mark.boot
def test_dsa_check_says_what_is_wrong(start: Started) -> None:
    machine = start(AT_ONCE)
    status, said = check(machine, "fuzz --device 1 --count 1")
    assert status == 3
    assert "1 DSA" in said
    status, said = check(machine, "fuzz --count many")
    assert status == 2
    assert "not a number" in said


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 110))
def test_a_million_descriptors(start: Started, seed: int) -> None:
    """Ten times a hundred thousand."""
    machine = start(AT_ONCE)
    status, said = check(machine, f"fuzz --seed {seed} --count 100000 --verbose", timeout=3000)
    assert status == 0, said
    assert summary(said)["descriptors"] >= 100_000
    assert machine.verdict.outcome is Outcome.CLEAN
