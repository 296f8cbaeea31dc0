# SPDX-License-Identifier: GPL-2.0-or-later
"""System packages: which task needs which, and how they get here."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from harness.config import lock, paths
from harness.errors import EnvironmentProblem, UsageError
from harness.run import CommandFailed, Completed, run
from harness.ui import ui

_COMPILE = ("gcc", "libc6-dev", "make", "binutils", "ccache")

_SOURCES = ("git", "xz-utils", "tar", "dpkg-dev", "gpg", "gpgv", "debian-archive-keyring", "ca-certificates")

TASKS: dict[str, tuple[str, ...]] = {
    "sources": _SOURCES,
    "kernel": (*_COMPILE, "git", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "lz4", "perl", "xz-utils"),
    "qemu": (
        *_COMPILE,
        "git",
        "python3",
        "python3-venv",
        "ninja-build",
        "pkg-config",
        "libglib2.0-dev",
        "libslirp-dev",
        "libfdt-dev",
        "zlib1g-dev",
        "libpixman-1-dev",
        "flex",
        "bison",
    ),
    "image": (*_COMPILE, "g++"),
    "boot": ("openssh-client", "libglib2.0-0", "libslirp0", "libfdt1", "libpixman-1-0", "zlib1g"),
    "fuzz": ("clang", "libclang-rt-dev"),
    "review": ("sparse", "perl"),
    "tests": (*_COMPILE, *_SOURCES, "g++", "cpio", "libnuma-dev", "perl"),
}
"""Debian packages by task; installing what is there already is no work."""

DAY = 86400.0
"""Seconds after which package lists are fetched again before anything is decided by them."""

_LISTS = Path("/var/lib/apt/lists")
_APT = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Get::Assume-Yes=true")
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}


def _installed(names: Iterable[str]) -> set[str]:
    """Those of ``names`` that dpkg has installed, also under a provided name (``pkg-config``, t64 libraries)."""
    done = run(["dpkg-query", "-W", "-f", "${db:Status-Status}\t${Package}\t${Provides}\n"], env=_QUIET, check=False)
    present: set[str] = set()
    for line in done.stdout.splitlines():
        status, _, rest = line.partition("\t")
        if status == "installed":
            package, _, provides = rest.partition("\t")
            present.add(package)
            present.update(word.split()[0].split(":")[0] for word in provides.split(",") if word.strip())
    return present & set(names)


def has_apt() -> bool:
    """Whether this is a Debian-like system, whose packages we can query and install."""
    return shutil.which("dpkg-query") is not None and shutil.which("apt-get") is not None


def missing(*tasks: str) -> list[str]:
    """Packages of some tasks that are not installed; empty where there is no dpkg to ask.

    Raises:
        UsageError: no such task.

    """
    names: dict[str, None] = {}
    for task in tasks:
        if task not in TASKS:
            raise UsageError(f"no packages are listed for {task!r}", hint=f"tasks: {', '.join(TASKS)}")
        names |= dict.fromkeys(TASKS[task])
    if not has_apt():
        return []
    present = _installed(names)
    return [name for name in names if name not in present]


def install_command(names: Iterable[str], *, root: bool | None = None) -> str:
    """The one line that installs ``names``, for a person to paste."""
    is_root = os.geteuid() == 0 if root is None else root
    sudo = "" if is_root else "sudo "
    listed = shlex.join(names)
    return f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {listed}"


def require(*tasks: str) -> None:
    """See to it that the packages of some tasks are installed: as root install them, otherwise say how.

    Raises:
        EnvironmentProblem: packages are missing and we are not root, or the installation failed; the hint
            is one command to paste, for everything that any task lacks.

    """
    names = missing(*tasks)
    if not names:
        return
    if os.geteuid() != 0:
        raise EnvironmentProblem(
            f"missing system packages for {', '.join(tasks)}: {' '.join(names)}",
            hint=install_command(missing(*TASKS), root=False),
        )
    with lock(paths().cache / ".apt.lock", what="package installation", wait=900):
        names = missing(*tasks)  # another harness may have installed them while we waited
        if names:
            _install(names)


def lists_age() -> float:
    """Seconds since this machine's package lists were last fetched; infinite if they never were.

    apt dates the lists as the mirror does; only its working directory says when it last asked.
    """
    if not any(_LISTS.glob("*_Packages*")):
        return math.inf
    try:
        return max(0.0, time.time() - (_LISTS / "partial").stat().st_mtime)
    except FileNotFoundError:
        return math.inf


def _install(names: list[str]) -> None:
    ui().step(f"installing packages: {' '.join(names)}")
    log = paths().logs / "apt.log"
    if lists_age() > DAY:
        _apt(["update"], log)
    done = _apt(["install", "--no-install-recommends", *names], log)
    if done.returncode != 0:  # a mirror may move on within a day
        _apt(["update"], log)
        done = _apt(["install", "--no-install-recommends", *names], log)
    present = _installed(names)
    left = [name for name in names if name not in present]
    if left:
        reason = "\n    ".join(line for line in done.stdout.splitlines() if line.startswith(("E:", "W:")))
        raise EnvironmentProblem(
            f"apt-get did not install {' '.join(left)}" + (f":\n    {reason}" if reason else ""),
            hint=install_command(left),
            log=log,
        )


def _apt(words: list[str], log: Path) -> Completed:
    try:
        return run([*_APT, *words], env=_QUIET, log=log, check=False, timeout=1800)
    except CommandFailed as error:
        raise EnvironmentProblem("apt-get did not end within 30 minutes", hint=f"see {log}", log=log) from error
