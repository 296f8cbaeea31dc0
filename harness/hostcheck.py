# SPDX-License-Identifier: GPL-2.0-or-later
"""Is a server fit for the paper's measurements, and what mends it: facts read by one script, then judged by rules.

The script reads only, needs a POSIX shell with the usual small programs, and starts few of them: in an emulated
machine each takes a tenth of a second. Judging is pure, so that every state a server can be in is tested without it.
What firmware does is visible only in what it leaves behind: tables, functions, processor flags.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from harness import quiet
from harness.doctor import Finding
from harness.dsa import Shell
from harness.errors import HostError

_WORDS: Mapping[str, str] = {
    "intel_iommu=on,sm_on": "the IOMMU, in scalable mode",
    "no5lvl": "page tables of four levels, as the IOMMU walks them",
    "efi=nosoftreserve": "memory that firmware sets aside for special purposes is ordinary memory",
    "transparent_hugepage=never": "no huge pages from the first process on",
}
"""Words of the kernel's command line that the paper's testbed has, and what each is for."""

_PROGRAMS: Mapping[str, tuple[str, bool]] = {
    "setsid": ("util-linux", True),
    "sha256sum": ("coreutils", True),
    "mktemp": ("coreutils", True),
    "readlink": ("coreutils", True),
    "renice": ("util-linux", True),
    "chrt": ("util-linux", False),
    "perf": ("linux-perf", False),
    "turbostat": ("linux-cpupower", False),
    "kexec": ("kexec-tools", False),
    "ip": ("iproute2", False),
    "qemu-system-x86_64": ("qemu-system-x86", False),
}
"""Programs, the Debian package of each, and whether nothing works without."""

_OURS = "harness build kernel, then start it there: docs/hosts.md"
_UBUNTU = {"linux-perf": "linux-tools-generic", "linux-cpupower": "linux-tools-generic"}

_CONFIG = (
    "KSM", "KSM_OFFLOAD", "INTEL_IDXD", "INTEL_IDXD_KSM", "INTEL_IOMMU", "X86_CPU_RESCTRL", "KEXEC", "PERF_EVENTS",
)  # fmt: skip

_DSA_ID = "0x8086 0x0b25"
_ECAP_SMTS = 1 << 43
_VAR_GIB = 2
_MEMORY_FULL_GIB = 256

_READ = """
cd {root} || exit
say() {{ printf '%s\\t%s\\n' "$1" "$2"; }}
line() {{ v=; read -r v 2>/dev/null < "$2" || [ "$v" ] || return 0; say "$1" "$v"; }}
rows() {{ while read -r v || [ "$v" ]; do say "$1" "$v"; done 2>/dev/null < "$2"; }}
say uid "$(id -u)"
say machine "$(uname -m)"
line release proc/sys/kernel/osrelease
line build proc/sys/kernel/version
line boot_id proc/sys/kernel/random/boot_id
line cmdline proc/cmdline
line kexec_disabled proc/sys/kernel/kexec_load_disabled
line kexec_loaded sys/kernel/kexec_loaded
line lockdown sys/kernel/security/lockdown
line panic proc/sys/kernel/panic
line clocksource sys/devices/system/clocksource/clocksource0/current_clocksource
line smt_active sys/devices/system/cpu/smt/active
line nodes sys/devices/system/node/online
line idle_driver sys/devices/system/cpu/cpuidle/current_driver
line online sys/devices/system/cpu/online
line ksm sys/kernel/mm/ksm/run
line merge_across_nodes sys/kernel/mm/ksm/merge_across_nodes
line offload_mode sys/kernel/mm/ksm/offload_mode
line pmu sys/bus/event_source/devices/cpu/type
line l3_mask sys/fs/resctrl/info/L3/cbm_mask
line l3_closids sys/fs/resctrl/info/L3/num_closids
rows os etc/os-release
rows swap proc/swaps
rows mount proc/mounts
rows memory proc/meminfo
while read -r v; do [ "$v" ] || break; say cpu "$v"; done 2>/dev/null < proc/cpuinfo
for d in sys/devices/system/node/node[0-9]*; do line "node/${{d##*/}}" "$d/cpulist"; done
for d in sys/devices/system/cpu/cpu[0-9]*/topology; do line package "$d/physical_package_id"; done
for f in {knobs}; do [ -f "$f" ] && line "knob/$f" "$f"; done
for f in proc/[0-9]*/comm; do line comm "$f"; done
[ -e sys/firmware/acpi/tables/DMAR ] && say dmar yes
[ -d sys/firmware/efi ] && say efi yes
[ -e dev/kvm ] && say kvm yes
[ -e dev/watchdog ] && say watchdog yes
[ -e boot/grub/grub.cfg ] && say loader grub
[ -d boot/loader/entries ] || [ -d efi/loader/entries ] || [ -d boot/efi/loader/entries ] && say loader systemd-boot
for d in sys/class/iommu/*; do
    [ -e "$d" ] || continue
    say iommu "${{d##*/}}"
    line "ecap/${{d##*/}}" "$d/intel-iommu/ecap"
done
for d in sys/bus/pci/devices/*; do
    read -r v < "$d/vendor" && read -r i < "$d/device" && [ "$v $i" = "{dsa}" ] || continue
    o=; [ -e "$d/driver" ] && o=$(readlink "$d/driver")
    say dsa "${{d##*/}} ${{o##*/}}"
    line "dsa_group/${{d##*/}}" "$d/iommu_group/type"
done 2>/dev/null
[ -d sys/bus/dsa ] && say dsa_bus yes
for d in sys/bus/dsa/devices/dsa[0-9]*; do [ -e "$d" ] && line "pasid/${{d##*/}}" "$d/pasid_enabled"; done
for d in sys/bus/dsa/devices/wq[0-9]*; do
    o=; [ -e "$d/driver" ] && o=$(readlink "$d/driver") && say wq "${{d##*/}} ${{o##*/}}"
done
for d in sys/bus/dsa/drivers/*; do [ -d "$d" ] && say dsa_driver "${{d##*/}}"; done
r=; read -r r < proc/sys/kernel/osrelease
{{ zcat proc/config.gz 2>/dev/null || cat "boot/config-$r" 2>/dev/null; }} | grep -E '^CONFIG_({config})=' |
    while read -r v; do say config "$v"; done
for f in "lib/modules/$r"/kernel/drivers/dma/idxd/idxd.ko*; do [ -e "$f" ] && say idxd_module "$f"; done
grep -q 'Soft Reserved' proc/iomem 2>/dev/null && say soft_reserved yes
for p in {programs}; do command -v "$p" >/dev/null 2>&1 && say program "$p"; done
df -Pk {store} 2>/dev/null | while read -r a b c v e; do case "$v" in *[!0-9]*) ;; *) say free_kib "$v" ;; esac; done
exit 0
"""


@dataclass(frozen=True)
class Facts:
    """What the script found: keys with all their values, in the order in which they came."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def one(self, key: str) -> str | None:
        """The first value."""
        found = self.values.get(key)
        return found[0] if found else None

    def all(self, key: str) -> tuple[str, ...]:
        """Every value."""
        return self.values.get(key, ())

    def below(self, prefix: str) -> dict[str, str]:
        """Keys that begin with ``prefix/``, without it, with their first value."""
        return {
            key.removeprefix(f"{prefix}/"): found[0]
            for key, found in self.values.items()
            if key.startswith(f"{prefix}/")
        }

    @property
    def flags(self) -> frozenset[str]:
        """The first processor's flags."""
        for row in self.all("cpu"):
            name, _, words = row.partition(":")
            if name.strip() == "flags":
                return frozenset(words.split())
        return frozenset()

    @property
    def config(self) -> frozenset[str] | None:
        """What is built in or a module; ``None`` if the kernel's configuration is not to be found."""
        rows = self.all("config")
        return frozenset(row.partition("=")[0].removeprefix("CONFIG_") for row in rows) if rows else None

    @property
    def words(self) -> tuple[str, ...]:
        """The kernel's command line."""
        return tuple((self.one("cmdline") or "").split())


def script(root: str = "/") -> str:
    """The script; ``root`` is where its files lie."""
    return _READ.format(
        root=shlex.quote(root), knobs=quiet.patterns(), dsa=_DSA_ID, config="|".join(_CONFIG),
        programs=" ".join([*_PROGRAMS, "systemctl"]), store="var/lib",
    )  # fmt: skip


def read(shell: Shell, root: str = "/") -> Facts:
    """Ask a host for everything that is judged; nothing is changed there.

    Raises:
        HostError: its shell cannot do that.

    """
    done = shell(script(root))
    if done.returncode != 0:
        raise HostError(f"its state cannot be read: {done.stderr.strip() or f'status {done.returncode}'}")
    values: dict[str, list[str]] = {}
    for row in done.stdout.splitlines():
        key, tab, value = row.partition("\t")
        if tab:
            values.setdefault(key, []).append(value)
    return Facts({key: tuple(found) for key, found in values.items()})


def judge(facts: Facts) -> list[Finding]:
    """All findings, in the order in which one mends a server: what needs the firmware first, then the kernel."""
    rules: tuple[Callable[[Facts], list[Finding]], ...] = (
        _login,
        _firmware,
        _device,
        _iommu,
        _command_line,
        _kernel,
        _knobs,
        _services,
        _idle,
        _numa,
        _swap,
        _cache,
        _counters,
        _programs,
        _loader,
        _room,
    )
    return [finding for rule in rules for finding in rule(facts)]


def _login(facts: Facts) -> list[Finding]:
    name = next((row.partition("=")[2].strip('"') for row in facts.all("os") if row.startswith("PRETTY_NAME=")), "")
    system = f"{name or 'an unknown system'}, Linux {facts.one('release') or '?'}"
    findings = []
    if facts.one("machine") != "x86_64":
        findings.append(
            Finding("machine", "fail", f"{facts.one('machine')}; the programs are for x86_64", "take an x86_64 server")
        )
    else:
        findings.append(Finding("machine", "ok", system))
    if facts.one("uid") != "0":
        findings.append(
            Finding("login", "fail", "not root: neither KSM nor the device can be set up", "log in as ssh://root@HOST")
        )
    return findings


def _firmware(facts: Facts) -> list[Finding]:
    """Switches of the firmware, as far as an operating system sees what they did."""
    findings = []

    def switch(name: str, good: bool, there: str, absent: str, fix: str) -> None:
        state, evidence = ("ok", there) if good else ("warn", absent)
        findings.append(Finding(f"firmware: {name}", state, evidence, "" if good else fix))  # type: ignore[arg-type]

    setup = "in the firmware's setup: "
    switch("VT-d", facts.one("dmar") is not None, "the IOMMU's table (DMAR) is there", "no DMAR table: it is off",
           setup + "Intel VT for Directed I/O = enable")  # fmt: skip
    virtual = bool({"vmx", "svm"} & facts.flags)
    switch("virtualization", virtual and facts.one("kvm") is not None,
           "KVM can run VMs", "there is no /dev/kvm" if virtual else "neither VMX nor SVM",
           "modprobe kvm_intel" if virtual else setup + "Intel VMX Virtual Technology = enable")  # fmt: skip
    nodes, packages = facts.below("node"), set(facts.all("package"))
    populated = [name for name, cpus in nodes.items() if cpus.strip()]
    if packages:
        switch("sub-NUMA clusters", len(populated) <= len(packages), "one node a socket",
               f"{len(populated)} nodes in {len(packages)} sockets: parts of the cache and of memory are far",
               setup + "SNC = disable")  # fmt: skip
    return findings


def _device(facts: Facts) -> list[Finding]:
    functions = facts.all("dsa")
    findings = []
    if "movdir64b" not in facts.flags:
        findings.append(
            Finding("MOVDIR64B", "fail", "the processor cannot hand descriptors to the device",
                    "take a 4th-generation Xeon or newer; a VM needs the host's processor model")
        )  # fmt: skip
    switch = "in the firmware's setup: IIO, IOAT configuration: DSA = enable, on each socket"
    if not functions:
        findings.append(
            Finding("DSA", "fail", "there is no device (PCI 8086:0b25): only no-ksm and cpu-ksm can run", switch)
        )
        return findings
    sockets = len(set(facts.all("package")))
    few = len(functions) < sockets
    evidence = f"{len(functions)} devices" + (f" in {sockets} sockets" if few else "")
    findings.append(Finding("DSA", "warn" if few else "ok", evidence, switch if few else ""))
    idle = [row.split()[0] for row in functions if row.split()[1:] != ["idxd"]]
    if not facts.one("dsa_bus"):
        config = facts.config
        if facts.one("idxd_module"):
            findings.append(Finding("idxd", "fail", "the driver is not loaded", "modprobe idxd"))
        else:
            why = "the kernel was built without it" if config and "INTEL_IDXD" not in config else "there is no driver"
            findings.append(Finding("idxd", "fail", why, _OURS))
    elif idle:
        findings.append(
            Finding("idxd", "fail", f"does not drive {', '.join(idle)}", "dmesg | grep idxd; then modprobe idxd")
        )
    else:
        findings.append(Finding("idxd", "ok", f"drives {', '.join(row.split()[0] for row in functions)}"))
    busy = [row for row in facts.all("wq") if row.split()[1:] not in ([], ["ksm"])]
    if busy:
        held = ", ".join(f"{name} by {driver}" for name, driver in (row.split() for row in busy))
        findings.append(
            Finding("work queues", "warn", f"bound: {held}; an experiment takes them down",
                    "harness dsa reset --target ssh://root@HOST")
        )  # fmt: skip
    return findings


def _iommu(facts: Facts) -> list[Finding]:
    units = facts.all("iommu")
    if not units:
        return [
            Finding("IOMMU", "warn", "off: the device sees bus addresses; mapping a page costs less than in the paper",
                    _add_words(["intel_iommu=on,sm_on"], facts))
        ]  # fmt: skip
    scalable = [int(text, 16) & _ECAP_SMTS for text in facts.below("ecap").values()]
    how = "scalable mode possible" if scalable and all(scalable) else "legacy mode only"
    types = sorted(set(facts.below("dsa_group").values()))
    pasid = sorted(set(facts.below("pasid").values()))
    evidence = f"{len(units)} units, {how}"
    if types:
        evidence += f"; addresses of the DSA: {', '.join(types)}"
    if pasid:
        evidence += f"; PASIDs {'on' if pasid == ['1'] else 'off'}, which ksmd's dedicated queue does not need"
    if types == ["identity"]:
        return [
            Finding("IOMMU", "warn", evidence + "; the paper's translates", "remove iommu=pt from the command line")
        ]
    return [Finding("IOMMU", "ok", evidence)]


def _command_line(facts: Facts) -> list[Finding]:
    """Each documented word against the line, and against what came of it."""
    words = facts.words
    findings, missing = [], []
    effects: dict[str, bool] = {
        "intel_iommu=on,sm_on": bool(facts.all("iommu")),
        "no5lvl": "la57" not in facts.flags,
        "efi=nosoftreserve": facts.one("soft_reserved") is None,
        "transparent_hugepage=never": quiet.current(
            facts.one("knob/sys/kernel/mm/transparent_hugepage/enabled") or "never"
        ) == "never",
    }  # fmt: skip
    for word, purpose in _WORDS.items():
        name = f"word {word.partition('=')[0]}"
        given, there = _has(words, word), effects[word]
        if given and there:
            findings.append(Finding(name, "ok", f"{word}: given, and it is so"))
        elif given:
            findings.append(
                Finding(name, "warn", f"{word} is given, but without effect ({purpose})", _reason(word, facts))
            )
        elif there and word != "intel_iommu=on,sm_on":
            findings.append(Finding(name, "ok", f"{word}: not given, but it is so already"))
        else:
            missing.append(word)
            findings.append(Finding(name, "warn", f"{word} is missing ({purpose})", _add_words([word], facts)))
    findings += _misspelt(words, facts)
    if len(missing) > 1:
        findings.append(
            Finding(
                "command line", "warn", f"{len(missing)} words are missing; all at once", _add_words(missing, facts)
            )
        )
    return findings


def _has(words: Sequence[str], wanted: str) -> bool:
    """Whether a word with all its comma-separated values is on the line, in one word or in several."""
    name, equals, values = wanted.partition("=")
    if not equals:
        return name in words
    given = {value for word in words if word.startswith(f"{name}=") for value in word.partition("=")[2].split(",")}
    return set(values.split(",")) <= given


def _reason(word: str, facts: Facts) -> str:
    if word.startswith("intel_iommu") and facts.one("dmar") is None:
        return "VT-d is off in the firmware: switch it on"
    if word.startswith("transparent_hugepage"):
        return "something changed it after boot: " + _command("THP")
    return "dmesg | grep -i -e dmar -e 'command line'"


def _misspelt(words: Sequence[str], facts: Facts) -> list[Finding]:
    """Words that look like a documented one and are none: the kernel passes over them in silence."""
    names = [word.partition("=")[0] for word in _WORDS]
    findings = []
    for word in words:
        name = word.partition("=")[0]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.85)
        if near and name not in names:
            findings.append(
                Finding("command line", "warn", f"{word} means nothing to the kernel; is it {near[0]}?",
                        f"correct it in {'/etc/default/grub, then update-grub' if _grub(facts) else 'the boot entry'}")
            )  # fmt: skip
    return findings


def _grub(facts: Facts) -> bool:
    return "grub" in facts.all("loader")


def _add_words(words: Sequence[str], facts: Facts) -> str:
    """The command that puts words on the command line of the next boots, whole lines to paste."""
    line = " ".join(words)
    if _grub(facts):
        return (
            f"echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {line}\"' > /etc/default/grub.d/"
            f"paraksm-{words[0].partition('=')[0] if len(words) == 1 else 'all'}.cfg && update-grub && reboot"
        )
    return f"add to the boot entry's options: {line}"


def _kernel(facts: Facts) -> list[Finding]:
    findings = []
    if facts.one("ksm") is None:
        findings.append(Finding("KSM", "fail", f"kernel {facts.one('release')} has none", _OURS))
    elif (modes := facts.one("offload_mode")) is not None:
        findings.append(Finding("KSM", "ok", f"with the series: {modes}"))
    else:
        findings.append(
            Finding("KSM", "warn", f"kernel {facts.one('release')} is without the series: only no-ksm and cpu-ksm",
                    _OURS)
        )  # fmt: skip
    source = facts.one("clocksource")
    if source is not None:
        good = source == "tsc"
        findings.append(
            Finding("clock", "ok" if good else "warn", source,
                    "" if good else "dmesg | grep -i tsc; other clocks cost a microsecond for each reading")
        )  # fmt: skip
    return findings


def _command(name: str) -> str:
    return "; ".join(knob.command for knob in quiet.KNOBS if knob.name == name)


def _knobs(facts: Facts) -> list[Finding]:
    values = facts.below("knob")
    wrong = quiet.unsuitable(values)
    findings = []
    for knob in quiet.KNOBS:
        if knob in wrong:
            there = sorted(set(wrong[knob].values()))
            findings.append(
                Finding(knob.name, "warn", f"{', '.join(there)} on {quiet.counted(wrong[knob])}: {knob.why}",
                        knob.command)
            )  # fmt: skip
        elif mine := {path: text for path, text in values.items() if fnmatchcase(path, knob.files)}:
            there = sorted({quiet.current(text) for text in mine.values()})
            findings.append(Finding(knob.name, "ok", f"{', '.join(there)} on {quiet.counted(mine)}"))
    return findings


def _services(facts: Facts) -> list[Finding]:
    running = set(facts.all("comm"))
    found = {name: why for name, why in quiet.SERVICES.items() if name[:15] in running}
    if not found:
        return [Finding("services", "ok", "none runs that would disturb")]
    return [Finding("services", "warn", f"{name} runs: {why}", f"systemctl stop {name}") for name, why in found.items()]


def _idle(facts: Facts) -> list[Finding]:
    """A processor without a frequency driver cannot be held at one frequency."""
    values = facts.below("knob")
    governed = any("/cpufreq/" in path for path in values)
    if governed:
        return []
    return [
        Finding("governor", "warn", "no frequency driver: the clock cannot be set from here",
                "in the firmware's setup: let the operating system control P-states; a VM has none")
    ]  # fmt: skip


def _numa(facts: Facts) -> list[Finding]:
    populated = [name for name, cpus in facts.below("node").items() if cpus.strip()]
    if len(populated) <= 1:
        return [Finding("NUMA", "ok", "one node")]
    return [
        Finding("NUMA", "warn", f"{len(populated)} nodes: merging across them is {facts.one('merge_across_nodes')}; "
                "the authors take the second socket offline",
                "boot with maxcpus and mem of one socket, or pin the fleet: docs/hosts.md")
    ]  # fmt: skip


def _swap(facts: Facts) -> list[Finding]:
    areas = [row.split()[0] for row in facts.all("swap")[1:] if row.strip()]
    if not areas:
        return [Finding("swap", "ok", "off")]
    return [Finding("swap", "warn", f"on {', '.join(areas)}: pages of VMs may leave memory", "swapoff -a")]


def _cache(facts: Facts) -> list[Finding]:
    if "cat_l3" not in facts.flags:
        return [
            Finding("CAT", "warn", "the processor cannot divide its last-level cache: no cache policies",
                    "take a server with CAT (Intel RDT) for the figures that need it")
        ]  # fmt: skip
    mounted = any(row.split()[1:3] == ["/sys/fs/resctrl", "resctrl"] for row in facts.all("mount"))
    if not mounted:
        built = facts.config is None or "X86_CPU_RESCTRL" in facts.config
        return [
            Finding("CAT", "warn", "resctrl is not mounted" if built else "the kernel was built without resctrl",
                    "mount -t resctrl resctrl /sys/fs/resctrl" if built else "build one with CONFIG_X86_CPU_RESCTRL=y")
        ]  # fmt: skip
    mask = facts.one("l3_mask") or "0"
    return [
        Finding("CAT", "ok", f"{int(mask, 16).bit_count()} ways, {facts.one('l3_closids') or '?'} classes of service")
    ]


def _counters(facts: Facts) -> list[Finding]:
    if facts.one("pmu") is None:
        return [
            Finding("counters", "warn", "no hardware performance counters: no cycles, no cache misses",
                    "in a VM: give it the host's PMU; on a server: perf stat -e cycles true")
        ]  # fmt: skip
    return [Finding("counters", "ok", "the processor's performance counters are there")]


def _programs(facts: Facts) -> list[Finding]:
    there = set(facts.all("program"))
    ubuntu = any(re.fullmatch(r'ID="?ubuntu"?', row) for row in facts.all("os"))

    def package(name: str) -> str:
        debian = _PROGRAMS[name][0]
        return _UBUNTU.get(debian, debian) if ubuntu else debian

    findings = []
    for needed, state in ((True, "fail"), (False, "warn")):
        absent = [name for name, (_, must) in _PROGRAMS.items() if must is needed and name not in there]
        if absent:
            packages = " ".join(dict.fromkeys(package(name) for name in absent))
            findings.append(
                Finding("programs", state, f"missing: {', '.join(absent)}",  # type: ignore[arg-type]
                        f"apt-get update && apt-get install -y --no-install-recommends {packages}")
            )  # fmt: skip
    return findings or [Finding("programs", "ok", "all are there")]


def _loader(facts: Facts) -> list[Finding]:
    """How a kernel of ours would be started, once."""
    ways = [f"{name}, one boot" for name in facts.all("loader")]
    config = facts.config
    kexec = (
        facts.one("kexec_loaded") is not None
        and facts.one("kexec_disabled") in (None, "0")
        and "kexec" in facts.all("program")
        and quiet.current(facts.one("lockdown") or "[none]") == "none"
    )
    if kexec:
        ways.append("kexec")
    if not ways:
        without = config is not None and "KEXEC" not in config
        why = "no boot loader we know" + (", and the kernel was built without kexec" if without else ", and no kexec")
        fix = "install grub, or boot a kernel with CONFIG_KEXEC=y" if without else "apt-get install -y kexec-tools"
        return [Finding("boot", "warn", f"no way to start a kernel once: {why}", fix)]
    dog = "a watchdog is there" if facts.one("watchdog") else "no watchdog: a kernel that hangs needs a hand"
    return [Finding("boot", "ok", f"{', '.join(ways)}; {dog}")]


def _room(facts: Facts) -> list[Finding]:
    findings = []
    free = facts.one("free_kib")
    if free is not None:
        gib = int(free) / 2**20
        good = gib >= _VAR_GIB
        findings.append(
            Finding("disk", "ok" if good else "warn", f"{gib:.1f} GiB free below /var/lib",
                    "" if good else f"{_VAR_GIB} GiB are wanted for kernels, programs and results: apt-get clean")
        )  # fmt: skip
    total = next((row.split()[1] for row in facts.all("memory") if row.startswith("MemTotal:")), None)
    if total is not None:
        gib = int(total) / 2**20
        good = gib >= _MEMORY_FULL_GIB
        findings.append(
            Finding("memory", "ok" if good else "warn", f"{gib:.0f} GiB",
                    "" if good else f"the full fleet takes {_MEMORY_FULL_GIB} GiB; a smaller one: --profile laptop")
        )  # fmt: skip
    return findings


def examine(shell: Shell, root: str = "/") -> list[Finding]:
    """Read a host and judge it."""
    return judge(read(shell, root))
