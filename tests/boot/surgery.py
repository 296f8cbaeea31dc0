# SPDX-License-Identifier: GPL-2.0-or-later
"""Break a running guest's kernel from outside: QEMU's gdb stub writes machine code over a function.

So the kernel under test itself produces a real oops or a real hung task, without being built for it. The protocol
is gdb's ("Remote Serial Protocol" in its manual).
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from harness.console import Symbols
from harness.machine import Machine

VICTIM = "meminfo_proc_show"
"""Runs when a program reads /proc/meminfo, and only then."""

UNDEFINED = b"\x0f\x0b"
"""``ud2``: an invalid opcode, fatal to whoever runs it."""


def sleep_for_ever(symbols: Symbols) -> bytes:
    """Code that sleeps uninterruptibly again and again: ``mov edi, ticks; mov rax, f; call rax; jmp back``."""
    address = symbols.addresses[symbols.names.index("schedule_timeout_uninterruptible")]
    code = b"\xbf" + struct.pack("<I", 1 << 20) + b"\x48\xb8" + struct.pack("<Q", address) + b"\xff\xd0"
    return code + b"\xeb" + struct.pack("<b", -(len(code) + 2))


def overwrite(machine: Machine, function: str, code: bytes, folder: Path) -> None:
    """Replace the start of a kernel function while the guest runs."""
    symbols = Symbols.read(machine.spec.kernel.system_map)
    address = symbols.addresses[symbols.names.index(function)]
    path = folder / "gdb"
    machine.command("human-monitor-command", **{"command-line": f"gdbserver unix:{path},server=on,wait=off"})
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(20)
        wire.connect(str(path))
        assert _ask(wire, "?").startswith("T")  # attaching stops the guest
        assert _ask(wire, f"M{address:x},{len(code):x}:{code.hex()}") == "OK"
        assert _ask(wire, f"m{address:x},{len(code):x}") == code.hex()
        assert _ask(wire, "D") == "OK"


def _ask(wire: socket.socket, packet: str) -> str:
    wire.sendall(f"${packet}#{sum(packet.encode()) % 256:02x}".encode())
    answer = b""
    while b"#" not in answer or len(answer.partition(b"#")[2]) < 2:
        data = wire.recv(4096)
        assert data, "the stub went away"
        answer += data
    wire.sendall(b"+")
    return answer.partition(b"$")[2].partition(b"#")[0].decode()
