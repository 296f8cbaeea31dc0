# SPDX-License-Identifier: GPL-2.0-or-later
"""A directory that looks like a server with the accelerator: its /proc, /sys, /etc and /boot as plain files."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.dsa import Shell
from harness.run import Completed, run
from tests.fakes import dsa

WORDS = "intel_iommu=on,sm_on no5lvl efi=nosoftreserve transparent_hugepage=never"
PROGRAMS = (
    "setsid", "sha256sum", "mktemp", "readlink", "renice", "chrt", "perf", "turbostat", "kexec", "ip",
    "qemu-system-x86_64",
)  # fmt: skip

_CPU = "sys/devices/system/cpu"
_FILES = {
    "proc/sys/kernel/osrelease": "6.1.192-paraksm",
    "proc/sys/kernel/version": "#1 SMP",
    "proc/sys/kernel/random/boot_id": "11111111-2222-3333-4444-555555555555",
    "proc/sys/kernel/numa_balancing": "0",
    "proc/sys/kernel/nmi_watchdog": "0",
    "proc/cmdline": f"BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 {WORDS} quiet",
    "proc/swaps": "Filename\tType\tSize\tUsed\tPriority",
    "proc/mounts": "resctrl /sys/fs/resctrl resctrl rw,relatime 0 0",
    "proc/meminfo": f"MemTotal:       {512 << 20} kB",
    "proc/iomem": "00000000-00000fff : Reserved",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu vmx movdir64b enqcmd cat_l3\n\nprocessor\t: 1",
    "proc/1/comm": "systemd",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian',
    "boot/config-6.1.192-paraksm": "CONFIG_KSM=y\nCONFIG_INTEL_IDXD=m\nCONFIG_X86_CPU_RESCTRL=y\nCONFIG_KEXEC=y",
    "boot/grub/grub.cfg": "",
    "dev/kvm": "",
    "dev/watchdog": "",
    "var/lib/here": "",
    "sys/firmware/acpi/tables/DMAR": "",
    "sys/kernel/mm/ksm/run": "0",
    "sys/kernel/mm/ksm/merge_across_nodes": "1",
    "sys/kernel/mm/ksm/offload_mode": "[cpu] dsa para_c para_t",
    "sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]",
    "sys/kernel/kexec_loaded": "0",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
    "sys/devices/system/node/online": "0",
    "sys/devices/system/node/node0/cpulist": "0-1",
    "sys/bus/event_source/devices/cpu/type": "4",
    "sys/fs/resctrl/info/L3/cbm_mask": "7fff",
    "sys/fs/resctrl/info/L3/num_closids": "15",
    "sys/class/iommu/dmar0/intel-iommu/ecap": "ee9e86f050df",
    f"{_CPU}/smt/control": "off",
    f"{_CPU}/smt/active": "0",
    f"{_CPU}/intel_pstate/no_turbo": "1",
    **{f"{_CPU}/cpu{n}/cpufreq/scaling_governor": "performance" for n in (0, 1)},
    **{f"{_CPU}/cpu{n}/cpuidle/state{s}/disable": "0" if s == 0 else "1" for n in (0, 1) for s in (0, 1, 2)},
    **{f"{_CPU}/cpu{n}/topology/physical_package_id": "0" for n in (0, 1)},
}  # fmt: skip


class Server:
    """One such directory, fit for everything; a test makes it worse."""

    def __init__(self, root: Path, *, complete: bool = False) -> None:
        """``complete``: it also has all programs of the machine that runs the test."""
        self.root = root
        self.complete = complete
        for name, text in _FILES.items():
            self.put(name, text)
        dsa.function(root / "sys", "0000:00:01.0")
        dsa.bus(root / "sys")
        dsa.device(root / "sys", 0, "0000:00:01.0")
        for name in PROGRAMS:
            self.put(f"bin/{name}", "#!/bin/sh\n")
            (root / "bin" / name).chmod(0o755)

    def put(self, name: str, text: str) -> Path:
        """Write a file below the root; its place is returned."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n" if text else "")
        return path

    def get(self, name: str) -> str:
        """What a file says."""
        return (self.root / name).read_text().strip()

    def remove(self, name: str) -> Path:
        """Take a file or a directory away; where it is now is returned."""
        return (self.root / name).rename(self.root / f"gone-{len(list(self.root.glob('gone-*')))}")

    def words(self, line: str) -> Path:
        """Another command line of the kernel."""
        return self.put("proc/cmdline", line)

    @property
    def shell(self) -> Shell:
        """A shell there; its user is root, and it finds only the programs that are in ``bin``."""
        tools = self.root / "tools"
        tools.mkdir(exist_ok=True)
        for name in ("zcat", "cat", "grep", "df"):
            found = shutil.which(name)
            assert found is not None
            if not (tools / name).exists():
                (tools / name).symlink_to(found)
        for name, said in (("id", "0"), ("uname", "x86_64")):
            self.put(f"tools/{name}", f"#!/bin/sh\necho {said}")
            (tools / name).chmod(0o755)
        real = shutil.which("readlink")
        path = f"{tools}:{self.root / 'bin'}:/usr/bin:/bin" if self.complete else f"{tools}:{self.root / 'bin'}"

        def shell(script: str) -> Completed:
            # the stand-in of readlink says only that it is there
            words = ["/bin/sh", "-c", f'readlink() {{ {real} "$@"; }}\n{script}']
            return run(words, env={"PATH": path}, check=False, timeout=60)

        return shell

    def service(self, *names: str) -> None:
        """Let services run, and a systemctl that knows them; it refuses to touch what is in ``stubborn``."""
        for number, name in enumerate(names):
            self.put(f"proc/{100 + number}/comm", name)
            self.put(f"services/{name}", "active")
        self.program(
            "systemctl",
            f'file={self.root}/services/$2; grep -qx "$1 $2" {self.root}/stubborn 2>/dev/null && exit 1',
            '[ "$1" != is-active ] || exec cat $file',
            '[ "$1" = stop ] && echo inactive > $file || echo active > $file',
            f'for f in {self.root}/proc/[0-9]*/comm; do [ "$(cat $f)" != "$2" ] || rm $f; done',
            f'[ "$1" = stop ] || {{ cd {self.root}/proc && mkdir -p 20${{#2}} && echo "$2" > 20${{#2}}/comm; }}',
        )

    def swap(self, device: str, priority: int) -> None:
        """Let there be swap, and programs that switch it off and on."""
        table = self.root / "proc/swaps"
        row = f"{device} partition 1048572 0 {priority}"
        self.put("proc/swaps", f"Filename\t\t\tType\t\tSize\tUsed\tPriority\n{row}")
        self.program("swapoff", f"grep -v '^'\"$1 \" {table} > {table}.new; mv {table}.new {table}")
        busy = f'grep -q "^{device} " {table} && echo "swapon: {device}: Device or resource busy" >&2 && exit 255'
        self.program("swapon", busy, f'echo "$*" >> {self.root}/swapon; echo "{row}" >> {table}')

    def program(self, name: str, *lines: str) -> None:
        """Give it a program made of shell."""
        self.put(f"bin/{name}", "\n".join(["#!/bin/sh", *lines])).chmod(0o755)
