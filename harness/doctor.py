# SPDX-License-Identifier: GPL-2.0-or-later
"""Is this machine fit, and what mends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness import packages, sources
from harness.builddir import BuildDir, ccache_environment, cpus
from harness.config import PROJECT, free_bytes, paths
from harness.errors import HarnessError
from harness.run import CommandFailed, run

State = Literal["ok", "warn", "fail"]
_GIB = 2**30
_DISK_FIRST = 8  # GiB for everything from nothing: sources 4, builds 2, compiler cache 1, images and results
_DISK_AFTER = 2
_MEMORY_MEASURED = 3  # GiB: the reduced fleet's guest plus QEMU
_PROBE_SECONDS = 10.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    ``warn``: the harness works, but see to it, or it will mend it itself. ``fail``: it cannot work until
    ``fix``, a command or an action, is done.
    """

    check: str
    state: State
    evidence: str
    fix: str = ""


def severity(findings: Iterable[Finding]) -> int:
    """Exit code: 0 nothing to do, 1 something to know (warn), 3 something to mend first (fail)."""
    states = {finding.state for finding in findings}
    return 3 if "fail" in states else 1 if "warn" in states else 0


def examine() -> list[Finding]:
    """All findings, in the order in which a newcomer needs them. Nothing is changed."""
    checks: tuple[Callable[[], list[Finding]], ...] = (
        check_python,
        check_packages,
        check_toolchain,
        check_disk,
        check_memory,
        check_accelerator,
        check_ccache,
        check_sources,
        check_builds,
    )
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except HarnessError as error:
            name = check.__name__.removeprefix("check_")
            findings.append(Finding(name, "fail", error.message, error.hint or ""))
    return findings


def check_python() -> list[Finding]:
    """The interpreter."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    return [Finding("python", "ok", f"{version} at {sys.executable}")]


def check_packages() -> list[Finding]:
    """System packages of every task."""
    if not packages.has_apt():
        return [
            Finding(
                "packages",
                "warn",
                "no apt and dpkg here: what is installed cannot be told",
                "install what docs/building.md lists",
            )
        ]
    lacking = {task: names for task in packages.TASKS if (names := packages.missing(task))}
    if not lacking:
        return [Finding("packages", "ok", f"all packages for {', '.join(packages.TASKS)} are installed")]
    every = list(dict.fromkeys(name for names in lacking.values() for name in names))
    root = os.geteuid() == 0
    where = "; ".join(f"{task}: {' '.join(names)}" for task, names in lacking.items())
    return [
        Finding(
            "packages",
            "warn" if root else "fail",
            f"missing for {where}" + (" (installed when first needed)" if root else ""),
            packages.install_command(every),
        )
    ]


def check_toolchain() -> list[Finding]:
    """Compiler, linker, make, ninja: present and new enough for Linux 6.2 and QEMU 10."""
    wanted = (("gcc", 8), ("ld", 2), ("make", 4), ("ninja", 1), ("git", 2), ("ccache", 4))
    findings = []
    for name, least in wanted:
        found = shutil.which(name)
        if found is None:
            findings.append(Finding(name, "warn" if os.geteuid() == 0 else "fail", "not found", _package_of(name)))
            continue
        line = (run([name, "--version"], check=False).stdout.splitlines() or ["?"])[0]
        match = re.search(r"(\d+)\.\d+(\.\d+)?\s*$", line) or re.search(r"(\d+)\.\d+", line)
        old = match is not None and int(match[1]) < least
        findings.append(
            Finding(name, "fail" if old else "ok", line, f"version {least} or newer is needed" if old else "")
        )
    return findings


def _package_of(program: str) -> str:
    package = {"ld": "binutils", "ninja": "ninja-build"}.get(program, program)
    return packages.install_command([package])


def check_disk() -> list[Finding]:
    """Space for the cache."""
    cache = paths().cache
    free = free_bytes(cache) / _GIB
    need = _DISK_AFTER if any(paths().builds.glob("*/out-*")) else _DISK_FIRST
    evidence = f"{free:.0f} GiB free below {cache}"
    if free >= need:
        return [Finding("disk", "ok", evidence)]
    return [
        Finding(
            "disk",
            "fail",
            f"{evidence}, {need} GiB are needed",
            "harness cache list, then harness cache prune; or set XDG_CACHE_HOME to a larger disk",
        )
    ]


def check_memory() -> list[Finding]:
    """Memory for a guest with a fleet in it, and processors."""
    table = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(table["MemAvailable"].split()[0]) * 1024 / _GIB
    evidence = f"{available:.1f} GiB available, {cpus()} processors"
    if available >= _MEMORY_MEASURED:
        return [Finding("memory", "ok", evidence)]
    return [Finding("memory", "warn", f"{evidence}; fig12 wants {_MEMORY_MEASURED} GiB", "close other programs")]


def check_accelerator(device: str = "/dev/kvm", seconds: float = _PROBE_SECONDS) -> list[Finding]:
    """Run a vCPU through the device, bounded; without one that works everything runs under TCG."""
    if not Path(device).exists():
        return [Finding("accelerator", "ok", f"TCG: there is no {device}")]
    try:
        said = run([sys.executable, "-m", "harness.kvmprobe", device], cwd=PROJECT, timeout=seconds, check=False)
        result = json.loads(said.stdout)
        works, evidence = bool(result["works"]), str(result["evidence"])
    except CommandFailed:
        works, evidence = False, f"a vCPU on {device} did not come back within {seconds:g} s"
    except (ValueError, KeyError, TypeError):
        works, evidence = False, f"the probe of {device} died with status {said.returncode}"
    if works:
        return [Finding("accelerator", "ok", f"KVM: {evidence}; experiments use TCG all the same, for equal results")]
    return [Finding("accelerator", "ok", f"TCG: {device} exists, but {evidence}")]


def check_ccache() -> list[Finding]:
    """Size and hits of the compiler cache."""
    if shutil.which("ccache") is None:
        return []
    said = run(["ccache", "--print-stats"], env=ccache_environment(), check=False).stdout
    stats = dict(line.split("\t", 1) for line in said.splitlines() if "\t" in line)
    hits = int(stats.get("direct_cache_hit", 0)) + int(stats.get("preprocessed_cache_hit", 0))
    calls = hits + int(stats.get("cache_miss", 0))
    size = int(stats.get("cache_size_kibibyte", 0)) / 2**20
    rate = f", {100 * hits / calls:.0f}% of {calls} compilations were hits" if calls else ""
    return [Finding("compiler cache", "ok", f"{size:.1f} GiB{rate}, below {paths().ccache}")]


def check_sources() -> list[Finding]:
    """Source trees in the cache, and whether the one that is taken by default is what the pins prefer."""
    findings = []
    kinds: tuple[sources.Kind, ...] = ("linux", "qemu")
    for kind in kinds:
        trees = [(pin, tree) for pin, tree in sources.obtainable(kind) if tree]
        if not trees:
            continue
        versions = ", ".join(dict.fromkeys(tree.version for _, tree in trees))
        default = trees[0][1]
        evidence = f"{kind}: cached {versions}; {default.version} is taken by default"
        preferred = next(pin.version for pin in sources.pins(kind) if pin.series == default.series)
        fix = ""
        if default.version != preferred != default.series:
            evidence += f", which the pins have at {preferred}"
            fix = f"harness build kernel --kernel {preferred}" if kind == "linux" else "harness cache prune trees"
        findings.append(Finding("sources", "warn" if fix else "ok", evidence, fix))
    return findings or [Finding("sources", "ok", "none cached yet", "fetched when first needed")]


def check_builds() -> list[Finding]:
    """Finished kernels, QEMU builds and images, and builds that were cut short."""
    findings = []
    for kind, pattern in (("kernel", "linux-*"), ("QEMU", "qemu-*")):
        done, cut = [], []
        for path in sorted(paths().builds.glob(pattern)):
            state = BuildDir(path, path.name).state()
            if state == "unfinished":
                cut.append(path.name)
            elif state != "empty":
                done.append(path.name + (" (being built now)" if state == "busy" else ""))
        command = f"harness build {kind.lower()}"
        if cut:
            findings.append(Finding(kind, "warn", f"not finished: {', '.join(cut)}", f"{command} goes on with it"))
        elif done:
            findings.append(Finding(kind, "ok", f"built: {', '.join(done)}"))
        else:
            findings.append(Finding(kind, "ok", "not built yet", f"{command} (or any command that needs it)"))
    images = sorted(path.name for path in paths().images.glob("*.cpio*"))
    findings.append(
        Finding(
            "images",
            "ok",
            f"built: {', '.join(images)}" if images else "not built yet",
            "" if images else "harness build images",
        )
    )
    return findings
