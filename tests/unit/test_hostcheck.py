# SPDX-License-Identifier: GPL-2.0-or-later
"""Every state a server can be in, by the real script over a directory that looks like one, and by ssh."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import hostcheck
from harness.doctor import Finding, severity
from harness.errors import HostError
from harness.machine import free_port
from harness.run import Completed
from tests.fakes.dsa import bind
from tests.fakes.server import WORDS, Server
from tests.unit.test_host import Server as Ssh

_CPU = "sys/devices/system/cpu"


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "server")


def examine(server: Server) -> dict[str, list[Finding]]:
    """Findings by what was looked at."""
    found: dict[str, list[Finding]] = {}
    for finding in hostcheck.examine(server.shell, str(server.root)):
        found.setdefault(finding.check, []).append(finding)
    return found


def test_a_server_that_is_fit_has_nothing_to_mend(server: Server) -> None:
    found = hostcheck.examine(server.shell, str(server.root))
    assert [(item.check, item.evidence) for item in found if item.state != "ok" and item.check != "disk"] == []
    assert {item.check for item in found} >= {
        "machine", "firmware: VT-d", "firmware: virtualization", "DSA", "idxd", "IOMMU", "word intel_iommu", "KSM",
        "governor", "turbo", "smt", "C-states", "THP", "services", "NUMA", "swap", "CAT", "counters", "programs",
        "boot",
    }  # fmt: skip
    assert [item.fix for item in found if item.state == "ok"] == [""] * sum(item.state == "ok" for item in found)


WORSE: dict[str, tuple[Callable[[Server], Any], str, str, str, str]] = {
    # what was done to the server: check, state, part of the evidence, part of what mends it
    "VT-d off": (lambda s: s.remove("sys/firmware/acpi/tables/DMAR"),
                 "firmware: VT-d", "warn", "no DMAR", "Directed I/O"),
    "no KVM": (lambda s: s.remove("dev/kvm"), "firmware: virtualization", "warn", "no /dev/kvm", "modprobe"),
    "SNC": (lambda s: s.put("sys/devices/system/node/node1/cpulist", "1"),
            "firmware: sub-NUMA clusters", "warn", "2 nodes in 1 sockets", "SNC = disable"),
    "old processor": (lambda s: s.put("proc/cpuinfo", "flags : fpu vmx cat_l3"),
                      "MOVDIR64B", "fail", "descriptors", "4th-generation"),
    "one device in two sockets": (lambda s: s.put(f"{_CPU}/cpu1/topology/physical_package_id", "1"),
                                  "DSA", "warn", "1 devices in 2 sockets", "each socket"),
    "idxd does not drive": (lambda s: s.remove("sys/bus/pci/devices/0000:00:01.0/driver"),
                            "idxd", "fail", "does not drive 0000:00:01.0", "modprobe idxd"),
    "no IOMMU": (lambda s: s.remove("sys/class/iommu/dmar0"),
                 "IOMMU", "warn", "off", "intel_iommu=on,sm_on"),
    "word without effect": (lambda s: s.remove("sys/class/iommu/dmar0"),
                            "word intel_iommu", "warn", "without effect", "dmesg"),
    "five levels": (lambda s: (s.words(WORDS.replace("no5lvl", "")),
                               s.put("proc/cpuinfo", "flags : vmx movdir64b cat_l3 la57")),
                    "word no5lvl", "warn", "is missing", "grub.d"),
    "soft reserved": (lambda s: s.put("proc/iomem", "100000-200000 : Soft Reserved"),
                      "word efi", "warn", "without effect", "dmesg"),
    "misspelt": (lambda s: s.words(WORDS.replace("hugepage", "hagepages")),
                 "command line", "warn", "transparent_hagepages=never means nothing", "update-grub"),
    "no KSM": (lambda s: s.remove("sys/kernel/mm/ksm"),
               "KSM", "fail", "has none", "build kernel"),
    "not patched": (lambda s: s.remove("sys/kernel/mm/ksm/offload_mode"),
                    "KSM", "warn", "without the series", "build kernel"),
    "clock": (lambda s: s.put("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"),
              "clock", "warn", "hpet", "dmesg"),
    "governor": (lambda s: s.put(f"{_CPU}/cpu1/cpufreq/scaling_governor", "schedutil"),
                 "governor", "warn", "schedutil on 1 processor", "echo performance"),
    "no governor": (lambda s: [s.remove(f"{_CPU}/cpu{n}/cpufreq/scaling_governor") for n in (0, 1)],
                    "governor", "warn", "no frequency driver", "P-states"),
    "turbo": (lambda s: s.put(f"{_CPU}/intel_pstate/no_turbo", "0"), "turbo", "warn", "0 on", "echo 1 >"),
    "SMT": (lambda s: s.put(f"{_CPU}/smt/control", "on"), "smt", "warn", "sibling", "echo off >"),
    "C-states": (lambda s: s.put(f"{_CPU}/cpu0/cpuidle/state2/disable", "0"),
                 "C-states", "warn", "1 processor", "state[1-9]*/disable"),
    "THP": (lambda s: s.put("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never"),
            "THP", "warn", "always", "echo never"),
    "NUMA balancing": (lambda s: s.put("proc/sys/kernel/numa_balancing", "1"),
                       "NUMA balancing", "warn", "1 on", "echo 0"),
    "ksmtuned": (lambda s: s.put("proc/77/comm", "ksmtuned"),
                 "services", "warn", "pages_to_scan", "systemctl stop ksmtuned"),
    "swap": (lambda s: s.put("proc/swaps", "Filename Type\n/dev/sda2 partition 8 0 -2"),
             "swap", "warn", "/dev/sda2", "swapoff -a"),
    "no CAT": (lambda s: s.put("proc/cpuinfo", "flags : vmx movdir64b"), "CAT", "warn", "cannot divide", "RDT"),
    "resctrl not mounted": (lambda s: s.put("proc/mounts", "proc /proc proc rw 0 0"),
                            "CAT", "warn", "not mounted", "mount -t resctrl"),
    "no resctrl": (lambda s: (s.put("proc/mounts", "proc /proc proc rw 0 0"),
                              s.put("boot/config-6.1.192-paraksm", "CONFIG_KSM=y")),
                   "CAT", "warn", "without resctrl", "CONFIG_X86_CPU_RESCTRL"),
    "no counters": (lambda s: s.remove("sys/bus/event_source/devices/cpu/type"),
                    "counters", "warn", "no hardware", "PMU"),
    "no setsid": (lambda s: s.remove("bin/setsid"), "programs", "fail", "setsid", "util-linux"),
    "no perf": (lambda s: s.remove("bin/perf"), "programs", "warn", "perf", "linux-perf"),
    "no perf on Ubuntu": (lambda s: (s.remove("bin/perf"), s.put("etc/os-release", "ID=ubuntu")),
                          "programs", "warn", "perf", "linux-tools-generic"),
    "no way to boot": (lambda s: (s.remove("boot/grub/grub.cfg"), s.remove("bin/kexec")),
                       "boot", "warn", "no kexec", "kexec-tools"),
    "kexec not built": (lambda s: (s.remove("boot/grub/grub.cfg"),
                                   s.remove("sys/kernel/kexec_loaded"),
                                   s.put("boot/config-6.1.192-paraksm", "CONFIG_KSM=y")),
                        "boot", "warn", "built without kexec", "CONFIG_KEXEC"),
    "little memory": (lambda s: s.put("proc/meminfo", "MemTotal: 16777216 kB"),
                      "memory", "warn", "16 GiB", "--profile"),
    "queue in use": (lambda s: bind(s.root / "sys", "wq0.0", "user"),
                     "work queues", "warn", "wq0.0 by user", "dsa reset"),
}  # fmt: skip


@pytest.mark.parametrize("name", WORSE)
def test_what_is_not_fit_is_found_and_has_a_remedy(server: Server, name: str) -> None:
    spoil, check, state, evidence, fix = WORSE[name]
    before = [(item.check, item.state) for item in hostcheck.examine(server.shell, str(server.root))]
    assert (check, state) not in before
    spoil(server)
    found = [item for item in examine(server)[check] if item.state == state]
    assert found, examine(server)
    assert evidence in found[0].evidence
    assert fix in found[0].fix


def test_without_a_device_the_driver_is_not_blamed(server: Server) -> None:
    (server.root / "sys/bus/pci/devices/0000:00:01.0").unlink()
    found = examine(server)
    assert found["DSA"][0].state == "fail"
    assert "IOAT" in found["DSA"][0].fix
    assert "idxd" not in found


def test_a_driver_that_is_a_module_is_loaded_and_one_that_is_not_there_is_built(server: Server) -> None:
    (server.root / "sys/bus/dsa").rename(server.root / "gone")
    assert examine(server)["idxd"][0].evidence == "there is no driver"
    server.put("lib/modules/6.1.192-paraksm/kernel/drivers/dma/idxd/idxd.ko.xz", "x")
    assert examine(server)["idxd"][0].fix == "modprobe idxd"
    (server.root / "lib/modules/6.1.192-paraksm/kernel/drivers/dma/idxd/idxd.ko.xz").unlink()
    server.put("boot/config-6.1.192-paraksm", "CONFIG_KSM=y")
    assert examine(server)["idxd"][0].evidence == "the kernel was built without it"


def test_a_word_split_in_two_is_as_good(server: Server) -> None:
    server.words(WORDS.replace("intel_iommu=on,sm_on", "intel_iommu=sm_on intel_iommu=on"))
    assert examine(server)["word intel_iommu"][0].state == "ok"


def test_several_missing_words_have_one_command(server: Server) -> None:
    server.words("quiet")
    server.put("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never")
    (together,) = [item for item in examine(server)["command line"] if "all at once" in item.evidence]
    assert "intel_iommu=on,sm_on transparent_hugepage=never" in together.fix
    assert together.fix.endswith("update-grub && reboot")


def test_a_user_who_is_not_root_is_told_so(server: Server) -> None:
    facts = hostcheck.read(server.shell, str(server.root))
    assert severity(hostcheck.judge(hostcheck.Facts({**facts.values, "uid": ("1000",)}))) == 3


def test_a_shell_that_fails_is_an_error(tmp_path: Path) -> None:
    def shell(script: str) -> Completed:
        return Completed(("sh",), 2, "", "no such file", 0.0)

    with pytest.raises(HostError, match="no such file"):
        hostcheck.read(shell, str(tmp_path))


def test_over_ssh_the_same_findings_as_data(tmp_path: Path) -> None:
    """The machine that runs the tests, once directly and once as a target."""
    ssh = Ssh(tmp_path)
    words = ["--target", ssh.url, "--identity", str(ssh.identity), "--known-hosts", str(ssh.known)]
    try:
        told = [
            subprocess.run(
                [sys.executable, "-m", "harness", "host", "check", "--json", *more],
                capture_output=True, text=True, timeout=120, check=False,
            )
            for more in ([], words)
        ]  # fmt: skip
    finally:
        ssh.close()
    volatile = ("disk", "services")
    here, there = ([f for f in json.loads(done.stdout) if f["check"] not in volatile] for done in told)
    assert here == there
    assert {done.returncode for done in told} <= {1, 3}
    assert told[0].returncode == told[1].returncode


def test_a_host_that_cannot_be_reached_is_an_error_of_its_own(tmp_path: Path) -> None:
    ssh = Ssh(tmp_path)
    ssh.close()
    nobody = f"ssh://root@127.0.0.1:{free_port()}"
    done = subprocess.run(
        [sys.executable, "-m", "harness", "host", "check", "--target", nobody, "--identity", str(ssh.identity),
         "--known-hosts", str(ssh.known)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 9
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
