# SPDX-License-Identifier: GPL-2.0-or-later
"""A directory that looks like what idxd shows in sysfs: plain files instead of attributes."""

from __future__ import annotations

from pathlib import Path

_DEVICE = {
    "version": "0x100",
    "state": "disabled",
    "gen_cap": "0x40915f0107",
    "op_cap": "0x1003f03ff",
    "max_work_queues_size": "128",
    "max_batch_size": "1024",
    "max_transfer_size": "2147483648",
    "max_read_buffers": "96",
    "configurable": "1",
    "pasid_enabled": "0",
    "cmd_status": "0x800d0000",
    "errors": "0x0000000000000000 0x0000000000000000 0x0000000000000000 0x0000000000000000 ",
}
_QUEUE = {
    "group_id": "-1",
    "mode": "shared",
    "size": "0",
    "priority": "0",
    "type": "none",
    "name": "",
    "max_batch_size": "32",
    "max_transfer_size": "2097152",
    "threshold": "0",
    "state": "disabled",
}


def function(root: Path, address: str, driver: str | None = "idxd") -> Path:
    """A PCI function with DSA's id; its place below ``devices`` is returned."""
    place = root / "devices/pci0000:00" / address
    place.mkdir(parents=True)
    (place / "vendor").write_text("0x8086\n")
    (place / "device").write_text("0x0b25\n")
    if driver is not None:
        (root / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (place / "driver").symlink_to(Path("../../../bus/pci/drivers") / driver)
    listed = root / "bus/pci/devices"
    listed.mkdir(parents=True, exist_ok=True)
    (listed / address).symlink_to(Path("../../../devices/pci0000:00") / address)
    return place


def bus(root: Path, *drivers: str) -> None:
    """The dsa bus with its sub-drivers."""
    (root / "bus/dsa/devices").mkdir(parents=True)
    for driver in drivers or ("dmaengine", "idxd", "user"):
        folder = root / "bus/dsa/drivers" / driver
        folder.mkdir(parents=True)
        for name in ("bind", "unbind"):
            (folder / name).write_text("")


def device(root: Path, number: int, address: str, *, queues: int = 8, engines: int = 4, **more: str) -> Path:
    """A device of the driver, as after boot, with changed attributes; its directory is returned."""
    place = root / "devices/pci0000:00" / address / f"dsa{number}"
    parts = {"": _DEVICE | more}
    parts |= {f"/wq{number}.{index}": _QUEUE for index in range(queues)}
    parts |= {f"/engine{number}.{index}": {"group_id": "-1"} for index in range(engines)}
    shares = {"read_buffers_reserved": "0", "read_buffers_allowed": "0"}
    parts |= {f"/group{number}.{index}": shares for index in range(4)}
    for part, attributes in parts.items():
        folder = Path(f"{place}{part}")
        folder.mkdir(parents=True)
        for name, text in attributes.items():
            (folder / name).write_text(f"{text}\n")
        (root / "bus/dsa/devices" / folder.name).symlink_to(
            Path("../../../devices/pci0000:00") / address / f"dsa{number}{part}"
        )
    return place


def bind(root: Path, name: str, driver: str) -> None:
    """Mark a device or queue as bound."""
    (root / "bus/dsa/devices" / name / "driver").symlink_to(root / "bus/dsa/drivers" / driver)
