# SPDX-License-Identifier: GPL-2.0-or-later
"""Intel DSA as Linux shows it below /sys/bus/dsa: what is there, how it is set up, what a refusal means.

Everything happens through a POSIX shell on the machine in question, so that a guest, a server and this machine are
the same to it: one script reads the whole state, and a plan, which is a list of writes and can be printed, is
carried out by another. Source of all meanings: Documentation/ABI/stable/sysfs-driver-dma-idxd and drivers/dma/idxd of
Linux 6.1 and 6.2, and the architecture specification, Intel document 341204.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.errors import DeviceError, UsageError
from harness.run import Completed, run

if TYPE_CHECKING:
    from harness.host import Host

Shell = Callable[[str], Completed]
"""Runs a script with a machine's ``sh``; does not raise for its exit status. The script reads no input."""

SYSFS = "/sys"
SECONDS = 60.0
"""For a plan: one of the driver's commands takes microseconds, so longer means a lost interrupt."""

_BUS = "bus/dsa"
_PCI_ID = ("0x8086", "0x0b25")
_PRIORITIES = range(1, 16)
_NAME_MAX = 1024


def local(script: str) -> Completed:
    """A shell on this machine."""
    return run(["sh", "-s"], input=script, check=False, timeout=SECONDS)


def on(host: Host) -> Shell:
    """A shell on a host reached over ssh; the script goes there as input, since servers limit the length of a word."""
    return lambda script: host.run(["sh", "-s"], input=script, check=False, timeout=SECONDS)


# --- the model ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Queue:
    """A work queue."""

    name: str
    group: int | None
    mode: str
    size: int
    """Entries; 0: not used."""
    priority: int
    type: str
    client: str
    """What sysfs calls the name: sub-drivers recognise their queues by it."""
    max_batch: int
    max_transfer: int
    threshold: int
    state: str
    driver: str | None


@dataclass(frozen=True)
class Engine:
    """A processing engine."""

    name: str
    group: int | None


@dataclass(frozen=True)
class Group:
    """A group's share of the read buffers; 0 allowed: the driver's default, all there are."""

    name: str
    read_buffers_reserved: int
    read_buffers_allowed: int


@dataclass(frozen=True)
class Device:
    """One DSA with all it has."""

    name: str
    pci: str
    version: str
    state: str
    driver: str | None
    gen_cap: int
    op_cap: int
    groups: tuple[Group, ...]
    queue_entries: int
    """Entries that all work queues together may have."""
    max_batch: int
    max_transfer: int
    read_buffers: int
    configurable: bool
    pasid: bool
    cmd_status: int
    errors: tuple[int, ...]
    """The software error register; all zero when there was none."""
    queues: tuple[Queue, ...]
    engines: tuple[Engine, ...]


@dataclass(frozen=True)
class Status:
    """The accelerators of one machine."""

    devices: tuple[Device, ...]
    drivers: tuple[str, ...]
    """Sub-drivers a device or a queue can be bound to."""

    def device(self, name: str) -> Device:
        """The device of that name.

        Raises:
            UsageError: there is none.

        """
        for device in self.devices:
            if device.name == name:
                return device
        there = ", ".join(device.name for device in self.devices)
        raise UsageError(f"there is no device {name}; there are {there}", hint="harness dsa status")


# --- reading ------------------------------------------------------------------------------------------

_ATTRIBUTES = {
    "dsa": "version state gen_cap op_cap max_work_queues_size max_batch_size max_transfer_size "
    "max_read_buffers configurable pasid_enabled cmd_status errors",
    "wq": "group_id mode size priority type name max_batch_size max_transfer_size threshold state",
    "engine": "group_id",
    "group": "read_buffers_reserved read_buffers_allowed",
}
# Named one by one: merely reading a deprecated attribute makes the driver complain in the kernel's log.
# Everything is done by the shell itself; starting a program per file takes seconds in an emulated guest.
_READ = """
cd {root} || exit
for d in bus/pci/devices/*; do
    read -r v < "$d/vendor" && read -r i < "$d/device" && [ "$v $i" = "{pci}" ] || continue
    if [ -e "$d/driver" ]; then o=$(readlink "$d/driver"); else o=; fi
    printf 'pci\\t%s\\t%s\\n' "${{d##*/}}" "${{o##*/}}"
done 2>/dev/null
[ -d {bus} ] && printf 'bus\\t\\t\\n'
cd {bus}/devices 2>/dev/null || exit 0
for d in ../drivers/*; do [ -d "$d" ] && printf 'sub\\t%s\\t\\n' "${{d##*/}}"; done
for d in *; do
    case "$d" in
    {cases}
    *) continue ;;
    esac
    for f in $names; do
        v=
        read -r v 2>/dev/null < "$d/$f" || [ "$v" ] || continue
        printf 'is\\t%s/%s\\t%s\\n' "$d" "$f" "$v"
    done
    [ -L "$d" ] && printf 'at\\t%s\\t%s\\n' "$d" "$(readlink "$d")"
    [ -e "$d/driver" ] && o=$(readlink "$d/driver") && printf 'by\\t%s\\t%s\\n' "$d" "${{o##*/}}"
done
exit 0
"""


def _reader(root: str) -> str:
    cases = "\n    ".join(f'{kind}[0-9]*) names="{names}" ;;' for kind, names in _ATTRIBUTES.items())
    return _READ.format(root=shlex.quote(root), bus=_BUS, pci=" ".join(_PCI_ID), cases=cases)


def read(shell: Shell, root: str = SYSFS) -> Status:
    """Everything there is to know about a machine's accelerators.

    Raises:
        DeviceError: it has none, or none that a driver drives; the message says how far one gets.

    """
    done = shell(_reader(root))
    if done.returncode != 0:
        raise DeviceError(f"sysfs cannot be read: {done.stderr.strip() or f'status {done.returncode}'}")
    status, functions, bus = _parse(done.stdout)
    if not status.devices:
        raise _none(functions, bus)
    return status


def _parse(text: str) -> tuple[Status, Mapping[str, str], bool]:
    values: dict[str, dict[str, str]] = defaultdict(dict)
    drivers: dict[str, str] = {}
    places: dict[str, str] = {}
    functions: dict[str, str] = {}
    subs: list[str] = []
    bus = False
    for line in text.splitlines():
        kind, key, value = [*line.split("\t", 2), "", ""][:3]
        if kind == "is":
            name, _, attribute = key.partition("/")
            values[name][attribute] = value
        elif kind == "by":
            drivers[key] = value
        elif kind == "at":
            places[key] = value
        elif kind == "pci":
            functions[key] = value
        elif kind == "sub":
            subs.append(key)
        elif kind == "bus":
            bus = True
    devices = [_device(name, values, places, drivers) for name in values if re.fullmatch(r"dsa\d+", name)]
    devices.sort(key=lambda device: _number(device.name))
    return Status(tuple(devices), tuple(sorted(subs))), functions, bus


def _device(
    name: str, values: Mapping[str, Mapping[str, str]], places: Mapping[str, str], drivers: Mapping[str, str]
) -> Device:
    own = values[name]
    number = _number(name)

    def parts(kind: str) -> list[str]:
        return sorted((part for part in values if re.fullmatch(rf"{kind}{number}\.\d+", part)), key=_number)

    queues = [_queue(part, values[part], drivers.get(part)) for part in parts("wq")]
    engines = [Engine(part, _group(values[part])) for part in parts("engine")]
    return Device(
        name=name,
        pci=places.get(name, "").rpartition("/")[0].rpartition("/")[2],
        version=own.get("version", ""),
        state=own.get("state", "unknown"),
        driver=drivers.get(name),
        gen_cap=_integer(own.get("gen_cap")),
        op_cap=_bitmap(own.get("op_cap")),
        groups=tuple(_share(part, values[part]) for part in parts("group")),
        queue_entries=_integer(own.get("max_work_queues_size")),
        max_batch=_integer(own.get("max_batch_size")),
        max_transfer=_integer(own.get("max_transfer_size")),
        read_buffers=_integer(own.get("max_read_buffers")),
        configurable=own.get("configurable") == "1",
        pasid=own.get("pasid_enabled") == "1",
        cmd_status=_integer(own.get("cmd_status")),
        errors=tuple(int(word, 16) for word in own.get("errors", "").split()),
        queues=tuple(queues),
        engines=tuple(engines),
    )


def _queue(name: str, own: Mapping[str, str], driver: str | None) -> Queue:
    return Queue(
        name=name,
        group=_group(own),
        mode=own.get("mode", ""),
        size=_integer(own.get("size")),
        priority=_integer(own.get("priority")),
        type=own.get("type", ""),
        client=own.get("name", ""),
        max_batch=_integer(own.get("max_batch_size")),
        max_transfer=_integer(own.get("max_transfer_size")),
        threshold=_integer(own.get("threshold")),
        state=own.get("state", "unknown"),
        driver=driver,
    )


def _share(name: str, own: Mapping[str, str]) -> Group:
    return Group(name, _integer(own.get("read_buffers_reserved")), _integer(own.get("read_buffers_allowed")))


def _group(own: Mapping[str, str]) -> int | None:
    number = _integer(own.get("group_id", "-1"))
    return None if number < 0 else number


def _integer(text: str | None) -> int:
    """A number as sysfs writes it: decimal, or hexadecimal with 0x."""
    return int(text, 0) if text else 0


def _bitmap(text: str | None) -> int:
    """Operations: one number, or since Linux 6.2 groups of eight hexadecimal digits."""
    return int(text.replace(",", ""), 16) if text and "," in text else _integer(text)


def _number(name: str) -> int:
    return int(re.findall(r"\d+", name)[-1])


def _none(functions: Mapping[str, str], bus: bool) -> DeviceError:
    """Why there is no device, from the outermost reason inwards."""
    if not functions:
        return DeviceError(
            f"this machine has no DSA (PCI {_PCI_ID[0][2:]}:{_PCI_ID[1][2:]})",
            hint="`harness boot --dsa 1` emulates one; a server's is switched on in its firmware",
        )
    listed = ", ".join(functions)
    if not bus:
        return DeviceError(
            f"there is a DSA ({listed}), but the kernel has no driver for it",
            hint="modprobe idxd; a kernel of your own needs CONFIG_INTEL_IDXD, see kernel/fragments/dsa.config",
        )
    if not any(functions.values()):
        return DeviceError(
            f"there is a DSA ({listed}), but idxd does not drive it",
            hint="dmesg | grep idxd (most often the processor, or the virtual one, lacks MOVDIR64B)",
        )
    other = ", ".join(f"{place} by {driver or 'nobody'}" for place, driver in functions.items())
    return DeviceError(f"there is a DSA, but not driven by idxd: {other}", hint="give it back to idxd first")


# --- planning -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How a device is to be set up; by default as in the paper: one group, one dedicated queue, all engines."""

    queues: tuple[int, ...] = (64,)
    """Entries of each work queue."""
    engines: int | None = None
    """How many; ``None``: all."""
    mode: Literal["dedicated", "shared"] = "dedicated"
    priority: int = 10
    max_batch: int | None = None
    """Descriptors in a batch; ``None``: what the device can do."""
    max_transfer: int = 2 << 20
    threshold: int | None = None
    """Entries of a shared queue that submissions may fill; ``None``: all."""
    driver: str | None = "dmaengine"
    """Sub-driver the queues are bound to; ``None``: they stay disabled."""
    client: str | None = None
    """Name of the queues; ``None``: the driver's name, by which sub-drivers know their queues."""


@dataclass(frozen=True)
class Write:
    """One write to a file below /sys/bus/dsa."""

    file: str
    value: str

    @property
    def device(self) -> str:
        """The device whose cmd_status tells how it went."""
        number = re.search(
            r"(?:dsa|wq|engine|group)(\d+)", self.value if self.file.startswith("drivers") else self.file
        )
        assert number is not None
        return f"dsa{number[1]}"

    @property
    def path(self) -> str:
        """The file's whole name."""
        return f"{SYSFS}/{_BUS}/{self.file}"

    def __str__(self) -> str:
        return f"echo {shlex.quote(self.value)} > {self.path}"


def release(device: Device) -> list[Write]:
    """The writes that take a device out of service and leave nothing of its configuration."""
    writes = [
        Write(f"drivers/{queue.driver}/unbind", queue.name) for queue in device.queues if queue.driver is not None
    ]
    if device.driver is not None:
        writes.append(Write(f"drivers/{device.driver}/unbind", device.name))
    for queue in device.queues:  # what is left in other parts would be configured along at the next start
        if queue.group is not None:
            writes.append(Write(f"devices/{queue.name}/group_id", "-1"))
        if queue.size:
            writes.append(Write(f"devices/{queue.name}/size", "0"))
    writes += [Write(f"devices/{engine.name}/group_id", "-1") for engine in device.engines if engine.group is not None]
    for group in device.groups:  # last: a group with engines must be allowed some
        for attribute in ("read_buffers_reserved", "read_buffers_allowed"):
            if getattr(group, attribute):
                writes.append(Write(f"devices/{group.name}/{attribute}", "0"))
    return writes


def plan(device: Device, layout: Layout, drivers: Sequence[str] | None = None) -> list[Write]:
    """The writes that set a device up, whatever state it is in; all in group 0.

    Args:
        device: as it is.
        layout: as it is to be.
        drivers: the sub-drivers that are there, if known.

    Raises:
        UsageError: the device cannot be set up so; nothing was written.

    """
    _check(device, layout, drivers)
    queues = device.queues[: len(layout.queues)]
    engines = device.engines[: layout.engines]
    writes = release(device)
    writes += [Write(f"devices/{engine.name}/group_id", "0") for engine in engines]
    for queue, size in zip(queues, layout.queues, strict=True):
        rows = {
            "group_id": 0,
            "mode": layout.mode,
            "size": size,
            "priority": layout.priority,
            "type": "user" if layout.driver == "user" else "kernel",
            "name": layout.client or layout.driver or "paraksm",  # after the type: a new type clears the name
            "max_batch_size": layout.max_batch or device.max_batch,
            "max_transfer_size": layout.max_transfer,
        }
        if layout.mode == "shared":
            rows["threshold"] = layout.threshold or size
        writes += [Write(f"devices/{queue.name}/{name}", str(value)) for name, value in rows.items()]
    writes.append(Write("drivers/idxd/bind", device.name))
    if layout.driver is not None:
        writes += [Write(f"drivers/{layout.driver}/bind", queue.name) for queue in queues]
    return writes


def recreate(now: Device, before: Device) -> list[Write]:
    """The writes that give a device back the configuration it once had, bindings and all."""
    writes = release(now)
    writes += [
        Write(f"devices/{engine.name}/group_id", str(engine.group))
        for engine in before.engines
        if engine.group is not None
    ]
    for group in before.groups:
        for attribute in ("read_buffers_allowed", "read_buffers_reserved"):
            if value := getattr(group, attribute):
                writes.append(Write(f"devices/{group.name}/{attribute}", str(value)))
    for queue in before.queues:
        if not queue.size:
            continue
        rows = {
            "group_id": queue.group if queue.group is not None else -1,
            "mode": queue.mode,
            "size": queue.size,
            "priority": queue.priority,
            "type": queue.type,
            "name": queue.client,
            "max_batch_size": queue.max_batch,
            "max_transfer_size": queue.max_transfer,
        }
        if queue.mode == "shared":
            rows["threshold"] = queue.threshold
        if queue.type not in ("kernel", "user"):  # a queue without a type has no name either
            del rows["type"], rows["name"]
        writes += [Write(f"devices/{queue.name}/{name}", str(value)) for name, value in rows.items()]
    if before.driver is not None:
        writes.append(Write(f"drivers/{before.driver}/bind", before.name))
        writes += [Write(f"drivers/{q.driver}/bind", q.name) for q in before.queues if q.driver is not None]
    return writes


def _check(device: Device, layout: Layout, drivers: Sequence[str] | None) -> None:
    """Refuse what the driver would refuse with a bare number."""

    def refuse(message: str, hint: str | None = None) -> UsageError:
        return UsageError(f"{device.name}: {message}", hint=hint or "harness dsa status shows what there is")

    if not device.configurable:
        raise refuse("its configuration is fixed", "a virtual device of a hypervisor is set up there")
    if not layout.queues or len(layout.queues) > len(device.queues):
        raise refuse(f"{len(layout.queues)} work queues are wanted, it has {len(device.queues)}")
    if min(layout.queues) < 1:
        raise refuse("a work queue has at least one entry")
    if sum(layout.queues) > device.queue_entries:
        raise refuse(f"{sum(layout.queues)} entries are wanted, it has {device.queue_entries} for all work queues")
    if layout.engines is not None and not 1 <= layout.engines <= len(device.engines):
        raise refuse(f"{layout.engines} engines are wanted, it has {len(device.engines)}")
    if layout.priority not in _PRIORITIES:
        raise refuse(f"priority {layout.priority}: it takes 1 to {_PRIORITIES[-1]}")
    if layout.max_batch is not None and not 1 <= layout.max_batch <= device.max_batch:
        raise refuse(f"batches of {layout.max_batch}: it takes up to {device.max_batch}")
    if not 1 <= layout.max_transfer <= device.max_transfer:
        raise refuse(f"transfers of {layout.max_transfer} bytes: it takes up to {device.max_transfer}")
    if layout.threshold is not None and layout.mode != "shared":
        raise refuse("only a shared work queue has a threshold", "--mode shared, or leave the threshold out")
    if layout.threshold is not None and not 1 <= layout.threshold <= min(layout.queues):
        raise refuse(f"threshold {layout.threshold}: it is between 1 and the queue's size")
    if layout.client is not None and not 1 <= len(layout.client.strip()) <= _NAME_MAX:
        raise refuse("a work queue needs a name, of at most 1024 characters")
    if layout.mode == "shared" and not device.pasid:
        raise refuse(
            "a shared work queue needs PASIDs, which this machine does not have",
            "--mode dedicated; or an IOMMU in scalable mode and a processor with ENQCMD",
        )
    if layout.driver is not None and drivers is not None and layout.driver not in drivers:
        raise refuse(f"there is no sub-driver {layout.driver}; there are {', '.join(drivers)}")


def emulated(number: int, options: Mapping[str, str]) -> Device:
    """What the driver shows of the ``number``-th emulated device of a machine that has just booted.

    ``options`` are those of QEMU's ``idxd-dsa``; what they do not say is its default.
    """

    def option(name: str, default: int) -> int:
        try:
            return int(options.get(name, str(default)), 0)
        except ValueError as error:
            raise UsageError(f"{name}={options[name]}: not a number", hint="--dsa-option NAME=NUMBER") from error

    return Device(
        name=f"dsa{number}",
        pci="",
        version="0x100",
        state="disabled",
        driver=None,
        gen_cap=0,
        op_cap=option("op-cap", 0x1003F03FF),
        groups=tuple(Group(f"group{number}.{index}", 0, 0) for index in range(option("num-groups", 4))),
        queue_entries=option("total-wq-size", 128),
        max_batch=1 << option("max-batch-shift", 10),
        max_transfer=1 << option("max-xfer-shift", 31),
        read_buffers=option("read-buffers", 96),
        configurable=True,
        pasid=False,
        cmd_status=0,
        errors=(),
        queues=tuple(
            Queue(f"wq{number}.{index}", None, "shared", 0, 0, "none", "", 32, 2 << 20, 0, "disabled", None)
            for index in range(option("num-wqs", 8))
        ),
        engines=tuple(Engine(f"engine{number}.{index}", None) for index in range(option("num-engines", 4))),
    )


# --- applying -----------------------------------------------------------------------------------------

_APPLY = """
cd {root}/{bus} || exit 2
n=0
put() {{
    said=$( {{ printf '%s\\n' "$1" > "$2"; }} 2>&1 ) && n=$((n + 1)) && return
    v=
    read -r v 2>/dev/null < "devices/$3/cmd_status"
    printf 'refused\\t%s\\t%s\\t%s\\n' "$n" "$v" "$said"
    exit 1
}}
"""


def script(writes: Iterable[Write], root: str = SYSFS) -> str:
    """A POSIX shell script that carries a plan out, and at the first refusal says which write it was and ends."""
    rows = [f"put {shlex.quote(write.value)} {shlex.quote(write.file)} {shlex.quote(write.device)}" for write in writes]
    return _APPLY.format(root=shlex.quote(root), bus=_BUS) + "\n".join([*rows, ""])


def apply(shell: Shell, writes: Sequence[Write], root: str = SYSFS) -> None:
    """Carry a plan out.

    Raises:
        DeviceError: the driver or the device refused a write; those before it were done.

    """
    if not writes:
        return
    done = shell(script(writes, root))
    if done.returncode == 0:
        return
    match = re.search(r"^refused\t(\d+)\t([^\t]*)\t(.*)", done.stdout, re.MULTILINE)
    if match is None:
        raise DeviceError(
            f"the plan was not carried out: {done.stderr.strip() or f'status {done.returncode}'}",
            hint="harness dsa status",
        )
    raise refusal(writes[int(match[1])], _integer(match[2]), match[3])


def refusal(write: Write, cmd_status: int, said: str) -> DeviceError:
    """What a refused write means.

    cmd_status holds the outcome of the last command, so that it says something about binding and unbinding only.
    """
    reason = said.rpartition(": ")[2] or "refused"
    if write.file.startswith("drivers/"):
        _, driver, action = write.file.split("/")
        message = f"{write.device}: cannot {action} {write.value} ({driver}): {reason}"
        if cmd_status:
            meaning = explain(cmd_status)
            return DeviceError(f"{message}: {meaning.text} (cmd_status {cmd_status:#x})", hint=meaning.hint)
        return DeviceError(message, hint="dmesg | tail; is another driver bound, or does it know no such queue?")
    part, attribute = write.file.split("/")[1:]
    return DeviceError(
        f"{write.device}: {part} does not take {attribute} = {write.value}: {reason}",
        hint="be root; an enabled device or queue is released first: harness dsa reset",
    )


# --- what the numbers mean ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Meaning:
    """An outcome in words, and what to do about it."""

    text: str
    hint: str


_RESET = "harness dsa reset, then configure again"
_GROUPS = "put at least one engine and one queue into each group that is used: harness dsa configure"
_SIZES = "harness dsa configure --queue-size N; all queues share the device's entries"
_DMESG = "dmesg | grep idxd"

_DRIVER_SAYS: Mapping[int, Meaning] = {  # enum idxd_scmd_stat, include/uapi/linux/idxd.h
    0x80000010: Meaning("the device is enabled already", _RESET),
    0x80000020: Meaning("the device is not enabled", "bind the device before its queues: harness dsa configure"),
    0x80000021: Meaning("the queue is enabled already", _RESET),
    0x80020000: Meaning("the device could not be registered with dmaengine", _DMESG),
    0x80030000: Meaning("the queue is in no group", "harness dsa configure"),
    0x80040000: Meaning("the queue has no name", "harness dsa configure --name NAME"),
    0x80050000: Meaning(
        "the queue needs shared virtual memory, which is off", "harness dsa configure --mode dedicated"
    ),
    0x80060000: Meaning("a shared queue needs a threshold", "harness dsa configure --mode shared --threshold N"),
    0x80070000: Meaning("the queue's portal cannot be mapped", _DMESG),
    0x80080000: Meaning("there is no memory for the queue's descriptors", "free memory, or a smaller --queue-size"),
    0x80090000: Meaning("the queue's reference count cannot be set up", _DMESG),
    0x800A0000: Meaning("the queue could not be registered as a DMA channel", _DMESG),
    0x800B0000: Meaning("the queue's character device cannot be made", _DMESG),
    0x800C0000: Meaning(
        "a shared queue is in a group, but this machine cannot have one",
        "harness dsa configure --mode dedicated, which leaves no other queue in a group",
    ),
    0x800D0000: Meaning("no queue is configured", "harness dsa configure"),
    0x800E0000: Meaning("the queue has no entries", _SIZES),
    0x800F0000: Meaning("the queue may not be privileged", _DMESG),
    0x80100000: Meaning("the queue's interrupt cannot be had", _DMESG),
    0x80110000: Meaning("a user queue needs an IOMMU with PASIDs", "harness dsa configure --driver dmaengine"),
}

_DEVICE_SAYS: Mapping[int, Meaning] = {  # CMDSTS, error code
    0x01: Meaning("the device does not know the command", _DMESG),
    0x02: Meaning("there is no such queue", "harness dsa status"),
    0x03: Meaning("hardware error", _DMESG),
    0x04: Meaning("reserved bits of a command are set", _DMESG),
    0x05: Meaning("the device has halted", "dmesg | grep idxd, then harness dsa reset"),
    0x10: Meaning("the device was not disabled", _RESET),
    0x11: Meaning("the configuration is not valid", _RESET),
    0x12: Meaning("the device may not master the bus", "setpci -s ADDRESS COMMAND=6"),
    0x13: Meaning("the PASID configuration is not valid", _RESET),
    0x14: Meaning("the queues together have more entries than the device", _SIZES),
    0x15: Meaning("a queue is in no group, or in several", _GROUPS),
    0x16: Meaning("an engine is in several groups", _GROUPS),
    0x17: Meaning("a group has queues but no engine, or engines but no queue", _GROUPS),
    0x18: Meaning("a group is allowed fewer than 4 read buffers for each engine, or more than there are", _RESET),
    0x19: Meaning("the event log is not set up properly", _RESET),
    0x1A: Meaning("address translation services are not set up properly", _RESET),
    0x1B: Meaning("PASID state and configuration contradict each other", _RESET),
    0x20: Meaning("the device is not enabled", "harness dsa configure"),
    0x21: Meaning("the queue was not disabled", _RESET),
    0x22: Meaning("the queue has no entries", _SIZES),
    0x23: Meaning("the queue has priority 0", "harness dsa configure --priority 10 (1 to 15)"),
    0x24: Meaning("the device does not have queues of this mode", "harness dsa configure --mode dedicated"),
    0x25: Meaning("the device cannot block on page faults", "echo 0 > .../block_on_fault"),
    0x26: Meaning("a shared queue needs a PASID, and a dedicated one must not have it", "--mode dedicated"),
    0x27: Meaning("batches of that size are too large for the device", "harness dsa configure --max-batch N"),
    0x28: Meaning("transfers of that size are too large for the device", "harness dsa configure --max-transfer BYTES"),
    0x2A: Meaning("the queue is privileged, but the device's PASIDs are not", _DMESG),
    0x2B: Meaning("the occupancy interrupt is not set up properly", _RESET),
    0x2C: Meaning("address translation of the queue is not set up properly", _RESET),
    0x2D: Meaning("an operation is allowed that the device does not have", _RESET),
    0x2E: Meaning("page requests of the queue are not set up properly", _RESET),
    0x31: Meaning("the device was not enabled", "harness dsa status"),
    0x32: Meaning("the queue was not enabled", "harness dsa status"),
    0x41: Meaning("there is no such interrupt handle", _DMESG),
    0x42: Meaning("no interrupt handle is left", _DMESG),
}


def explain(cmd_status: int) -> Meaning:
    """What a device's cmd_status says: codes of the driver have the top bit, others come from the device."""
    if not cmd_status:
        return Meaning("success", "")
    known = _DRIVER_SAYS.get(cmd_status) if cmd_status >> 31 else _DEVICE_SAYS.get(cmd_status & 0xFF)
    return known or Meaning(f"unknown outcome {cmd_status:#x}", _DMESG)
