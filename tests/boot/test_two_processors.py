# SPDX-License-Identifier: GPL-2.0-or-later
"""Two processors at one accelerator at the same time, and what is left of both in a machine that loads their state."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from harness.monitor import Monitor
from harness.qbuild import QemuBuild
from harness.run import run, spawn, stop
from tests.boot.test_direct_store import BARE, CPU, FREESTANDING

pytestmark = pytest.mark.boot

ROUNDS = 5000
"""Descriptors that each processor gives each queue; the kernel's own number."""
SIDE = r" accepted (\d+) retried (\d+) wrong (\d+) lost (\d+) pasid (\d+)"
SECONDS = 700.0  # both queues at their guest's limit, and the rest


class Bare:
    """A machine without an operating system; its serial port and its monitor."""

    def __init__(self, qemu: QemuBuild, kernel: Path, folder: Path, *more: str) -> None:
        machine = "-M q35 -nodefaults -vga none -nic none -display none -no-reboot -m 64 -smp 2"
        devices = "-device idxd-dsa,id=dsa0 -device isa-debug-exit,iobase=0xf4,iosize=4"
        serial, monitor = folder / "serial", folder / "monitor"
        folder.mkdir()
        with contextlib.ExitStack() as waiting:
            ears = []
            for path in (serial, monitor):
                ear = waiting.enter_context(socket.socket(socket.AF_UNIX))
                ear.bind(str(path))
                ear.listen()
                ear.settimeout(SECONDS)
                ears.append(ear)
            self.child = spawn(
                [qemu.binary, *machine.split(), *devices.split(), "-accel", "tcg,thread=multi",
                 "-cpu", f"{CPU},enqcmd=on", "-L", qemu.data_dir, "-bios", qemu.firmware, "-kernel", kernel,
                 "-serial", f"unix:{serial}", "-qmp", f"unix:{monitor}", *more]
            )  # fmt: skip
            self._serial, self._wire = (ear.accept()[0] for ear in ears)
        self._monitor = Monitor(self._wire)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._monitor.close()
        self._serial.close()
        stop(self.child, grace=0.5)

    def until(self, word: str) -> list[str]:
        """What the kernel prints up to this line."""
        said, end = "", time.monotonic() + SECONDS
        while not said.endswith(f"{word}\n"):
            ready, _, _ = select.select([self._serial], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"nothing more within {SECONDS} s after: {said!r}"
            piece = self._serial.recv(4096)
            assert piece, f"the machine ended after: {said!r}"
            said += piece.decode().replace("\r", "")
        return said.splitlines()

    def go_on(self) -> None:
        """The byte that the kernel waits for."""
        self._serial.sendall(b"x")

    def ask(self, name: str, **arguments: object) -> object:
        """One command to the monitor."""
        return self._monitor.execute(name, arguments, SECONDS)

    def becomes(self, status: str, query: str) -> None:
        """Wait until a query answers with this status."""
        end = time.monotonic() + SECONDS
        while (told := self.ask(query)) and isinstance(told, dict) and told.get("status") != status:
            assert told.get("status") != "failed" and time.monotonic() < end, told
            time.sleep(0.1)

    def counter(self, name: str) -> int:
        """One of the accelerator's counters."""
        value = self.ask("qom-get", path="/machine/peripheral/dsa0", property=name)
        assert isinstance(value, int)
        return value


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel that is the test."""
    file = tmp_path_factory.mktemp("bare") / "two-processors.elf"
    run(["gcc", *FREESTANDING, f"-Wl,-T,{BARE / 'kernel.ld'}", "-o", file, BARE / "two_processors.c"])
    return file


@pytest.fixture
def first(qemu_build: QemuBuild, kernel: Path, tmp_path: Path) -> Iterator[Bare]:
    """A machine that has done its first half and waits."""
    with Bare(qemu_build, kernel, tmp_path / "first") as machine:
        yield machine


def judge(lines: list[str]) -> int:
    """Each processor's every descriptor was done, once and right; how many had to be retried."""
    retried = 0
    for line, queue in zip(lines[:2], ("dedicated", "shared"), strict=True):
        found = re.fullmatch(f"{queue}:{SIDE} and{SIDE}", line)
        assert found, line
        numbers = [int(number) for number in found.groups()]
        for cpu in range(2):
            accepted, again, wrong, lost, pasid = numbers[5 * cpu : 5 * cpu + 5]
            assert (accepted, wrong, lost, pasid) == (ROUNDS, 0, 0, 0x100 + cpu), line
            assert again == 0 or queue == "shared", line
            retried += again
    return retried


def test_no_descriptor_is_lost_or_done_twice(first: Bare) -> None:
    """A dedicated queue with room for all, a shared one with too little: what is refused is counted on both sides."""
    retried = judge(first.until("waiting"))
    assert retried > 0
    names = ("descriptors", "op-memmove", "completions", "retries", "errors", "sw-errors", "dropped")
    assert [first.counter(name) for name in names] == [4 * ROUNDS, 4 * ROUNDS, 4 * ROUNDS, retried, 0, 0, 0]


def test_saved_and_loaded(first: Bare, qemu_build: QemuBuild, kernel: Path, tmp_path: Path) -> None:
    """Each processor has its IA32_PASID in the machine that loads the state, and the queues work on."""
    judge(first.until("waiting"))
    first.ask("migrate", uri=f"file:{tmp_path / 'state'}")
    first.becomes("completed", "query-migrate")
    with Bare(qemu_build, kernel, tmp_path / "second", "-incoming", f"file:{tmp_path / 'state'}") as second:
        second.becomes("running", "query-status")  # a byte that came before would be overwritten
        second.go_on()
        retried = judge(second.until("end"))
        assert second.counter("retries") >= retried > 0
        second.go_on()
        assert second.child.wait(SECONDS) == 1  # isa-debug-exit: 2 * 0 + 1
