# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one virtual CPU through ``/dev/kvm`` and say whether it can carry an unmodified 64-bit guest.

A device node that opens proves nothing, and neither does a vCPU that gets somewhere: a module for
paravirtual guests interprets the code of any other guest, a thousand times slower than the processor. So
the probe is the state every kernel is in, ring 0 of long mode with its own page tables, and it is timed: it
counts to a million, reloads CR3, writes a byte to a port and halts. Runs in a process of its own (``python -m
harness.kvmprobe``), which a deadline may kill; prints JSON. Interface: ``Documentation/virt/kvm/api.rst``.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import struct
import sys
import time
from typing import Any

_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_GET_VCPU_MMAP_SIZE = 0xAE04
_CREATE_VCPU = 0xAE41
_RUN = 0xAE80
_SET_USER_MEMORY_REGION = 0x4020AE46  # _IOW(0xAE, 0x46, 32 bytes)
_SET_TSS_ADDR = 0xAE47
_GET_REGS = 0x8090AE81  # _IOR(0xAE, 0x81, 144 bytes)
_SET_REGS = 0x4090AE82
_GET_SREGS = 0x8138AE83  # _IOR(0xAE, 0x83, 312 bytes)
_SET_SREGS = 0x4138AE84

_EXITS = {0: "unknown", 2: "io", 5: "hlt", 6: "mmio", 8: "shutdown", 9: "fail-entry", 17: "internal-error"}
_CODE = bytes.fromhex(
    "b9 40 42 0f 00"  # mov $1000000, %ecx
    "ff c9"  # 1: dec %ecx
    "75 fc"  # jnz 1b
    "0f 20 d8"  # mov %cr3, %rax
    "0f 22 d8"  # mov %rax, %cr3
    "b0 42"  # mov $0x42, %al
    "e6 10"  # out %al, $0x10
    "f4"  # hlt
)
_INSTRUCTIONS = 2_000_006
_SLOWEST = 50.0  # nanoseconds an instruction; a processor needs less than one, an interpreter several hundred
_START, _PML4, _PDPT, _PD, _SIZE = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
_PRESENT_WRITABLE, _LARGE = 3, 0x80
_CR0 = 0x80000031  # PG, NE, ET, PE
_CR4 = 0x20  # PAE
_EFER = 0x500  # LMA, LME
# struct kvm_segment: base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable, padding
_SEGMENT = struct.Struct("<QIH10B")
_CODE_SEGMENT = _SEGMENT.pack(0, 0xFFFFFFFF, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0)
_DATA_SEGMENT = _SEGMENT.pack(0, 0xFFFFFFFF, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0)


def probe(device: str = "/dev/kvm") -> dict[str, Any]:
    """Result of the probe: ``works`` and ``evidence``, the last step that was reached."""
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return {"works": False, "evidence": f"{device}: {error.strerror}"}
    step = "KVM_GET_API_VERSION"
    try:
        version = fcntl.ioctl(kvm, _GET_API_VERSION)
        if version != 12:
            return {"works": False, "evidence": f"{device}: API version {version}, wanted 12"}
        step = "KVM_CREATE_VM"
        machine = fcntl.ioctl(kvm, _CREATE_VM, 0)
        step = "KVM_SET_TSS_ADDR"
        fcntl.ioctl(machine, _SET_TSS_ADDR, 0x7FFBD000)  # three pages no guest memory covers
        step = "KVM_SET_USER_MEMORY_REGION"
        memory = _memory()
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, struct.pack("IIQQQ", 0, 0, 0, _SIZE, address))
        step = "KVM_CREATE_VCPU"
        vcpu = fcntl.ioctl(machine, _CREATE_VCPU, 0)
        size = fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE)
        shared = mmap.mmap(vcpu, size)
        step = "setting the registers"
        _prepare(vcpu)
        step = "KVM_RUN"
        return _run(vcpu, shared)
    except OSError as error:
        return {"works": False, "evidence": f"{device} opens, but {step} fails: {error.strerror}"}


def _memory() -> mmap.mmap:
    """Guest memory: the code, and page tables that map the first 2 MiB onto themselves."""
    memory = mmap.mmap(-1, _SIZE)
    memory[_START : _START + len(_CODE)] = _CODE
    struct.pack_into("<Q", memory, _PML4, _PDPT | _PRESENT_WRITABLE)
    struct.pack_into("<Q", memory, _PDPT, _PD | _PRESENT_WRITABLE)
    struct.pack_into("<Q", memory, _PD, _LARGE | _PRESENT_WRITABLE)
    return memory


def _prepare(vcpu: int) -> None:
    """Put a fresh vCPU into ring 0 of long mode at the code."""
    special = bytearray(312)
    fcntl.ioctl(vcpu, _GET_SREGS, special)
    for index in range(6):  # cs, ds, es, fs, gs, ss
        at = index * _SEGMENT.size
        special[at : at + _SEGMENT.size] = _DATA_SEGMENT if index else _CODE_SEGMENT
    struct.pack_into("<QQQQ", special, 224, _CR0, 0, _PML4, _CR4)
    struct.pack_into("<Q", special, 264, _EFER)
    fcntl.ioctl(vcpu, _SET_SREGS, special)
    general = bytearray(144)
    struct.pack_into("<QQ", general, 128, _START, 2)  # rip, rflags
    fcntl.ioctl(vcpu, _SET_REGS, general)


def _run(vcpu: int, shared: mmap.mmap) -> dict[str, Any]:
    """Run until the port write and the halt were seen; four exits are plenty."""
    wrote = False
    seen = []
    before = time.process_time()  # guest time counts as ours, waiting for a busy machine does not
    for _exit in range(4):
        fcntl.ioctl(vcpu, _RUN, 0)
        reason = struct.unpack_from("<I", shared, 8)[0]
        seen.append(_EXITS.get(reason, str(reason)))
        if reason == 2:
            _direction, width, port, _count, offset = struct.unpack_from("<BBHIQ", shared, 32)
            wrote = (width, port, shared[offset]) == (1, 0x10, 0x42)
        elif reason == 5 and wrote:
            return _judge((time.process_time() - before) / _INSTRUCTIONS * 1e9)
        else:
            break
    return {"works": False, "evidence": f"a vCPU was created but does not run 64-bit code: exit {', '.join(seen)}"}


def _judge(nanoseconds: float) -> dict[str, Any]:
    if nanoseconds > _SLOWEST:
        return {
            "works": False,
            "evidence": f"a vCPU runs, but interpreted: {nanoseconds:.0f} ns an instruction in ring 0",
        }
    return {"works": True, "evidence": f"a vCPU ran ring-0 code in long mode at {nanoseconds:.1f} ns an instruction"}


if __name__ == "__main__":
    json.dump(probe(*sys.argv[1:2]), sys.stdout)
