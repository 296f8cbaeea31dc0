# SPDX-License-Identifier: GPL-2.0-or-later
"""What an emulated descriptor costs the machine that emulates it, beside the plain work on the same amount of memory.

Descriptors are queued while virtual time stands still; then one step of the clock makes the device do them all, and
its processor time is what they cost. What a batch costs besides is in it, what a guest and its driver cost is not.
The plain work is done on memory that is as large, is visited in the same order and as often, and is of huge pages like
a guest's: how much memory is looked at in turns decides which of the processor's caches it comes from, and that is
worth more than all else here.
"""

from __future__ import annotations

import statistics
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import images
from harness.config import paths
from harness.errors import MachineError
from harness.qtest import Qtest
from harness.run import run

if TYPE_CHECKING:
    from harness.qbuild import QemuBuild

MEMBERS = 256
BATCHES = 48
NEAR = 64
"""Pages, or pairs of them, that fit in a core's own cache together with the descriptors and their records."""
FAR = 4096
"""Pages that fit in none of these, nor does the translation of their addresses."""
_PAGE, _SIZE, _RECORD = 4096, 64, 32  # bytes: of a page, a descriptor, a record
_SLOT = 4
_REGISTERS, _PORTALS = 0xE000_0000, 0xE010_0000
_LISTS, _RECORDS, _FIRST, _SECOND = 0x100_0000, 0x200_0000, 0x400_0000, 0x600_0000
_CMD, _CMDSTS, _OFFSETS = 0xA0, 0xA8, 0x60
_ENABLE_DEVICE, _ENABLE_WQ = 1, 6
_BATCH, _COMPARE, _CRC = 0x01, 0x05, 0x10
_RECORD_FLAGS = 1 << 2 | 1 << 3
_SUCCESS = 1


@dataclass(frozen=True)
class Cost:
    """Nanoseconds a 4 KiB descriptor, and of the plain operation on a page; medians of the rounds."""

    compare: float
    crc: float
    memcmp: float
    crc32c: float


def measure(qemu: QemuBuild, rounds: int, pages: int) -> Cost:
    """Measure both, the device and the plain operations in turns, on so many pages."""
    plain_program = images.program("plainspeed")
    compares, crcs, memcmps, crc32cs = [], [], [], []
    log = "qemu.log"
    with tempfile.TemporaryDirectory(dir=paths().tmp) as folder, _device(qemu, Path(folder) / log, pages) as machine:
        for _ in range(rounds):
            compares.append(_run(machine, _COMPARE, pages))
            crcs.append(_run(machine, _CRC, pages))
            said = run([plain_program, str(pages), str(BATCHES * MEMBERS)]).stdout.split()
            memcmps.append(float(said[1]))
            crc32cs.append(float(said[3]))
    middle = statistics.median
    return Cost(middle(compares), middle(crcs), middle(memcmps), middle(crc32cs))


@contextmanager
def _device(qemu: QemuBuild, log: Path, pages: int) -> Iterator[Qtest]:
    """A machine with one device: a queue of 64 entries, four engines; and so many pairs of equal pages."""
    with Qtest(qemu, ["-m", "256M", "-device", f"idxd-dsa,id=dsa0,addr={_SLOT:#x}"], log) as machine:
        for register, value in ((0x10, _REGISTERS), (0x14, 0), (0x18, _PORTALS), (0x1C, 0), (0x04, 0x6)):
            machine.configure(_SLOT, register, value)
        offsets = machine.read32(_REGISTERS + _OFFSETS)
        groups, queues = (offsets & 0xFFFF) << 8, (offsets >> 16) << 8
        for dword, value in enumerate((64, 0, 1 | 10 << 4, 21 | 10 << 5)):
            machine.write32(_REGISTERS + queues + 4 * dword, value)
        machine.write64(_REGISTERS + groups, 1)
        machine.write64(_REGISTERS + groups + 32, 0xF)
        for command in (_ENABLE_DEVICE, _ENABLE_WQ):
            machine.write32(_REGISTERS + _CMD, command << 20)
            machine.step(100_000)
            if status := machine.read32(_REGISTERS + _CMDSTS):
                raise MachineError(f"the device refuses command {command}: status {status:#x}", log=log)
        # equal pages of content that is not constant, as far as a test protocol's line carries it
        line = bytes(number * 37 & 0xFF for number in range(_PAGE))
        for base in (_FIRST, _SECOND):
            for page in range(pages):
                machine.write(base + page * _PAGE, line)
        yield machine


def _descriptor(opcode: int, record: int, first: int, second: int, size: int) -> bytes:
    return struct.pack("<IIQQQI28x", 0, opcode << 24 | _RECORD_FLAGS, record, first, second, size)


def _run(machine: Qtest, opcode: int, pages: int) -> float:
    """Nanoseconds a descriptor, of ``BATCHES`` batches that are all there at once and go through the pages in turns."""
    lists = max(1, pages // MEMBERS)
    for number in range(lists * MEMBERS):
        page = number % pages * _PAGE
        second = _SECOND + page if opcode == _COMPARE else 0
        record = _RECORDS + number % MEMBERS * _RECORD
        machine.write(_LISTS + number * _SIZE, _descriptor(opcode, record, _FIRST + page, second, _PAGE))
    own = _RECORDS + MEMBERS * _RECORD
    machine.command(f"memset {_RECORDS:#x} {(MEMBERS + BATCHES) * _RECORD:#x} 0")
    for batch in range(BATCHES):
        raw = _descriptor(_BATCH, own + batch * _RECORD, _LISTS + batch % lists * MEMBERS * _SIZE, 0, MEMBERS)
        words = struct.unpack("<8Q", raw)
        machine.commands([f"writeq {_PORTALS + 0x1000 + 8 * n:#x} {word:#x}" for n, word in enumerate(words)])
    began = machine.processor_ns()
    machine.step(1_000_000_000)
    took = machine.processor_ns() - began
    for batch in range(BATCHES):
        status = machine.read32(own + batch * _RECORD) & 0xFF
        if status != _SUCCESS:
            raise MachineError(f"batch {batch} of {BATCHES} ended with status {status:#x}")
    return took / (BATCHES * MEMBERS)
