# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells without a fleet: one sealed run of a program that times single operations (Figures 5 and 7)."""

from __future__ import annotations

import json
from typing import Any

from harness.errors import MachineError

WORKLOAD = "operations"
"""The workload of such a cell."""

SCRIPT = "dsa-time --unbind\n"
"""What the machine's shell runs; the program takes the device from the driver and sets it up itself."""

COMMAND_FILE = "opt/paraksm/command"
"""Where the guest's init looks for a script (fw_cfg)."""

MEMORY_MIB = 256
SECONDS = 15.0
"""Wall time of such a run, for want of a measured one."""

OPERATIONS = ("compare", "checksum")
BATCHES = tuple(2**power for power in range(11))
CLIENTS = ("polled", "slept")
PARTS = ("submit_ns", "wait_ns", "read_ns")


def parse(raw: bytes) -> dict[str, Any]:
    """What the program wrote, if it is all there and adds up.

    Raises:
        MachineError: it is not; the message says what is wrong.

    """
    try:
        told = json.loads(raw)
        for operation in OPERATIONS:
            for name in ("processor_ns", "streaming_ns"):
                _positive(told[operation][name], f"{operation}.{name}")
            rows = told[operation]["batches"]
            if tuple(row["batch"] for row in rows) != BATCHES:
                raise ValueError(f"{operation}: batches are {[row['batch'] for row in rows]}, must be {list(BATCHES)}")
            for row in rows:
                for client in CLIENTS:
                    where = f"{operation}, batches of {row['batch']}, {client}"
                    _positive(row[client]["processor_ns"], where)
                    if sum(_positive(row[client][part], where) for part in PARTS) != row[f"{client}_ns"]:
                        raise ValueError(f"{where}: the parts are not the whole")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise MachineError(f"what dsa-time said is no result: {what}", hint="console.log has its messages") from error
    return {name: told[name] for name in OPERATIONS}


def _positive(value: object, where: str) -> int:
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"{where}: {value!r} is no time")
    return value
