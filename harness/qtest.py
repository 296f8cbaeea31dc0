# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's test protocol (docs/devel/testing/qtest.rst): a machine without processors, driven over a socket.

Time stands still in it unless it is told to pass, so that a device's work can be called for, and timed, at will.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from harness.errors import MachineError
from harness.run import spawn, stop

if TYPE_CHECKING:
    from harness.qbuild import QemuBuild

_SECONDS = 60.0  # the longest that one answer may take


class Qtest:
    """One such machine; a context manager that leaves no process behind."""

    def __init__(self, qemu: QemuBuild, words: Sequence[str], log: Path) -> None:
        ours, other = socket.socketpair()
        with other, log.open("wb") as errors:
            number = fcntl.fcntl(other, fcntl.F_DUPFD_CLOEXEC, 3)
            with contextlib.ExitStack() as theirs:
                theirs.callback(os.close, number)
                self._child: subprocess.Popen[bytes] = spawn(
                    [qemu.binary, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "qtest",
                     "-machine", "q35", "-L", qemu.data_dir, "-bios", qemu.firmware,
                     "-chardev", f"socket,id=qtest,fd={number}", "-object", "qtest,id=qtest0,chardev=qtest", *words],
                    stdout=errors,
                    stderr=errors,
                    pass_fds=[number],
                )  # fmt: skip
        ours.settimeout(_SECONDS)
        self._socket = ours
        self._file = ours.makefile("rb")
        self._log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()
        stop(self._child, grace=0.5)

    def commands(self, lines: Sequence[str]) -> list[str]:
        """Send commands in one piece, return their answers (what follows ``OK``).

        Raises:
            MachineError: QEMU ended, refused a command or did not answer.

        """
        try:
            self._socket.sendall("".join(f"{line}\n" for line in lines).encode())
            return [self._answer(line) for line in lines]
        except OSError as error:
            raise MachineError("QEMU does not answer its test protocol", log=self._log) from error

    def command(self, line: str) -> str:
        """Send one command, return its answer."""
        return self.commands([line])[0]

    def _answer(self, line: str) -> str:
        answer = self._file.readline().decode().strip()
        if answer.split(" ")[0] != "OK":
            tail = self._log.read_text(errors="replace")[-500:]
            raise MachineError(f"qtest {line!r}: {answer or 'QEMU ended'}\n{tail}".rstrip(), log=self._log)
        return answer.removeprefix("OK").strip()

    def processor_ns(self) -> int:
        """Processor time that all threads of this QEMU have had, in nanoseconds; waiting for a turn is not in it."""
        tasks = Path(f"/proc/{self._child.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks)

    def read32(self, address: int) -> int:
        """A 32-bit load."""
        return int(self.command(f"readl {address:#x}"), 16)

    def write32(self, address: int, value: int) -> None:
        """A 32-bit store."""
        self.command(f"writel {address:#x} {value:#x}")

    def write64(self, address: int, value: int) -> None:
        """A 64-bit store."""
        self.command(f"writeq {address:#x} {value:#x}")

    def write(self, address: int, data: bytes) -> None:
        """Store bytes."""
        self.command(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def configure(self, slot: int, register: int, value: int) -> None:
        """Write 32 bits of PCI configuration space: bus 0, function 0 of a slot."""
        self.commands([f"outl 0xcf8 {1 << 31 | slot << 11 | register:#x}", f"outl 0xcfc {value:#x}"])

    def step(self, nanoseconds: int) -> None:
        """Let time pass; timers that are due run before this returns."""
        self.command(f"clock_step {nanoseconds}")
