# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast guests of guests are emulated: the same work in the machine itself, and in 1, 8 and 40 VMs inside it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config import paths
from harness.errors import MachineError
from harness.run import Deadline

if TYPE_CHECKING:
    from harness.machine import Machine
    from harness.workbench import Workbench

FLEETS = (1, 8, 40)
_RUNS = 40
"""Runs of the workload, the same number whatever the number of VMs."""
_WORKLOAD = "/bin/graph500 --scale 11 --roots 16"
_VM_MIB = 40
_PATIENCE = 900.0
_POLL = 0.002

_SCRIPT = f"""
mark() {{ read up idle < /proc/uptime; echo "mark $1 $up"; }}
echo 1 > /proc/sys/kernel/printk
mknod /dev/kvm c 10 232
start() {{
    mkfifo /tmp/in$1 /tmp/out$1
    if [ @VMS@ = 0 ]; then
        {_WORKLOAD} < /tmp/in$1 > /tmp/out$1 &
    else
        vmm --kernel /vm/vmlinux --relocs /vm/vmlinux.relocs --initramfs /vm/initramfs --memory {_VM_MIB} --seed $1 \\
            --name vm$1 --words "console=ttyS0 quiet -- {_WORKLOAD}" < /tmp/in$1 > /tmp/out$1 &
    fi
    eval "exec $((10 + 2 * $1))> /tmp/in$1 $((11 + 2 * $1))< /tmp/out$1"
    while :; do
        eval "read word rest <&$((11 + 2 * $1))" || exit 1
        [ $word != ready ] || break
    done
}}
i=1
while [ $i -le @USERS@ ]; do start $i; i=$((i + 1)); done
round=-1
while [ $round -lt @ROUNDS@ ]; do
    [ $round != 0 ] || mark start
    i=1
    while [ $i -le @USERS@ ]; do eval "echo go >&$((10 + 2 * i))"; i=$((i + 1)); done
    i=1
    while [ $i -le @USERS@ ]; do eval "read line <&$((11 + 2 * i))" || exit 1; i=$((i + 1)); done
    round=$((round + 1))
done
mark end
sleep 0.5
"""


@dataclass(frozen=True)
class Speed:
    """One fleet at work; the processor time is that of the emulating process."""

    vms: int
    """0: the work was done in the machine itself."""
    virtual: float
    """Virtual seconds: thousands of millions of instructions."""
    seconds: float

    @property
    def mips(self) -> float:
        """Millions of emulated instructions a second of processor time."""
        return 1000 * self.virtual / self.seconds


def measure(bench: Workbench) -> Iterator[Speed]:
    """The machine itself, then each fleet; the first run of each program is not counted.

    Args:
        bench: QEMU, the kernel, and the ``nested`` image with its VMs' kernel.

    Raises:
        MachineError: a machine did not come to its end, or a VM was lost.

    """
    for vms in (0, *FLEETS):
        yield _measure(bench, vms)


def _measure(bench: Workbench, vms: int) -> Speed:
    from harness.machine import Machine, MachineSpec, Outcome

    users = max(vms, 1)
    script = _SCRIPT.replace("@VMS@", str(vms)).replace("@USERS@", str(users))
    with tempfile.TemporaryDirectory(dir=paths().tmp) as folder:
        work = Path(folder)
        (work / "script").write_text(script.replace("@ROUNDS@", str(_RUNS // users)))
        spec = MachineSpec(
            bench.qemu, bench.kernel, bench.image, "measured", 224 + users * (_VM_MIB + 8),
            fw_cfg={"opt/paraksm/command": work / "script"},
        )  # fmt: skip
        with Machine(spec, work / "run") as machine:
            machine.start()
            marks = dict(_marks(machine, work / "run" / "results.bin"))
            outcome = machine.wait(_PATIENCE)
            if outcome is not Outcome.CLEAN or machine.status or len(marks) != 2:
                raise MachineError(f"{vms} VMs: {machine.verdict.explain()}")
    (began, first), (ended, last) = marks["start"], marks["end"]
    return Speed(vms, ended - began, last - first)


def _marks(machine: Machine, results: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """Each mark of the script, with its virtual time and the processor time of QEMU when it was seen."""
    import psutil

    process, deadline, seen = psutil.Process(machine.pid), Deadline(_PATIENCE), 0
    while not deadline.expired():
        try:
            spent = process.cpu_times()
        except psutil.NoSuchProcess:
            return
        lines = results.read_text().splitlines(keepends=True) if results.exists() else []
        for line in lines[seen:]:
            if line.startswith("mark ") and line.endswith("\n"):
                _, name, up = line.split()
                yield name, (float(up), spent.user + spent.system)
                seen += 1
                if name == "end":
                    return
        time.sleep(_POLL)
