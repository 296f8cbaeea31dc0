# SPDX-License-Identifier: GPL-2.0-or-later
"""Configure and build QEMU's x86-64 system emulator and the firmware it starts our guests with."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import packages
from harness.builddir import BuildDir, Published, ccache_environment, cpus, toolchain
from harness.config import atomic_write, need_disk, paths, sha256_json
from harness.errors import BuildError, EnvironmentProblem
from harness.patches import AppliedSeries, held
from harness.run import run
from harness.ui import ui

_BINARY = "qemu-system-x86_64"
_CONFIGURE = (
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--enable-tcg",
    "--enable-kvm",
    "--enable-slirp",
    "--enable-plugins",
    "--enable-fdt=system",
    "--disable-install-blobs",
    "--disable-download",
    "--disable-docs",
    "--disable-tools",
    "--disable-guest-agent",
    "--disable-debug-info",
    "--disable-werror",
    # otherwise `git describe` goes into the binary, and every commit in the tree links it again
    "--with-pkgversion=paraksm",
    "--cc=ccache gcc",
)
# What `-kernel` loads: qboot hands a Linux or PVH kernel over itself, the option ROMs are QEMU's side of it.
_OPTION_ROMS = ("kvmvapic.bin", "linuxboot.bin", "linuxboot_dma.bin", "multiboot.bin", "multiboot_dma.bin", "pvh.bin")
_PROGRESS = re.compile(r"^\[(\d+)/(\d+)\] (.*)")
_NICE = 10  # a kernel that is built beside it ends with a long link, which this then fills
_FIRST_BUILD = 2 << 30
_LATER_BUILD = 512 << 20


@dataclass(frozen=True)
class QemuBuild:
    """A finished QEMU. Its files never change; ``digest`` covers the binary and its data files.

    ``data_dir`` is for ``-L``, ``firmware`` for ``-bios`` (SeaBIOS hangs under ``-icount``, qboot does not).
    """

    version: str
    binary: Path
    firmware: Path
    data_dir: Path
    digest: str
    applied: AppliedSeries


def build(applied: AppliedSeries, *, jobs: int | None = None) -> QemuBuild:
    """Build QEMU from a patched tree; only what changed since the last time is compiled.

    Raises:
        BuildError: configuration or compilation failed; the log has everything.
        Busy: another harness builds in this directory.
        EnvironmentProblem: packages or disk space are missing.

    """
    packages.require("qemu")
    key = sha256_json(str(applied.tree.path))[:8]
    name = f"qemu-{applied.tree.version}-{key}"
    directory = BuildDir(paths().builds / name, f"QEMU {applied.tree.version}", nice=_NICE)
    inputs = {
        "tree": applied.tree_id,
        "dirty": applied.dirty_digest,
        "configure": sha256_json(_CONFIGURE),
        "toolchain": toolchain(),
    }
    with directory.session():
        result = directory.published(inputs)
        if result is None:
            with held(applied):
                result = _compile(directory, applied, inputs, jobs or cpus())
    data = result.path / "data"
    return QemuBuild(applied.tree.version, result.path / _BINARY, data / "qboot.rom", data, result.digest, applied)


def target(qemu: QemuBuild, name: str) -> Path:
    """Build something else of a finished QEMU's tree, say one of its tests, in the directory that QEMU came from.

    Raises:
        BuildError: it does not compile; the log has everything.
        Busy: another harness builds in this directory.

    """
    where = qemu.binary.parent.parent
    directory = BuildDir(where, f"{name} of QEMU {qemu.version}", nice=_NICE)
    env = {**ccache_environment(), "PYTHONDONTWRITEBYTECODE": "1"}
    with directory.session():
        # the environment that QEMU was configured with may be gone since
        _configure(directory, qemu.applied.tree.path, env)
        directory.make(["ninja", name], env)
    return where / name


def _compile(directory: BuildDir, applied: AppliedSeries, inputs: Mapping[str, Any], jobs: int) -> Published:
    tree, binary = applied.tree.path, directory.path / _BINARY
    first = not binary.exists()
    need_disk(directory.path, _FIRST_BUILD if first else _LATER_BUILD, directory.what)
    if directory.stamp().get("inputs") == inputs:  # same inputs and still here: what was published is damaged
        directory.forget([binary])
    env = {**directory.start(), "PYTHONDONTWRITEBYTECODE": "1"}
    ui().step(f"{directory.what}: {'build' if first else 'rebuild what changed'}, log {directory.log}")
    started = time.monotonic()
    _configure(directory, tree, env)
    with ui().progress(directory.what, share=True) as task:

        def count(line: str) -> None:
            if match := _PROGRESS.match(line):
                task.update(float(match[1]), float(match[2]), match[3].rsplit("/", 1)[-1][-40:])

        directory.make(["ninja", f"-j{jobs}", _BINARY], env, count)
    # meson leaves its lock in the source tree, where it would count as an edit
    (tree / "subprojects" / ".wraplock").unlink(missing_ok=True)
    if not binary.is_file():
        raise BuildError(f"{directory.what}: ninja succeeded but left no {_BINARY}", log=directory.log)
    files = {_BINARY: binary, **_firmware(directory, tree, env, jobs)}
    seconds = time.monotonic() - started
    ui().info(f"{directory.what}: done in {seconds:.0f} s")
    return directory.publish(files, inputs, {"seconds": round(seconds, 1)})


def _configure(directory: BuildDir, tree: Path, env: Mapping[str, str]) -> None:
    """Run QEMU's ``configure`` unless this directory is configured so already."""
    record = directory.path / "paraksm-configured.json"
    wanted = json.dumps({"arguments": _CONFIGURE, "tree": str(tree)})
    python = directory.path / "pyvenv" / "bin" / "python3"
    if (
        (directory.path / "build.ninja").exists()
        and record.exists()
        and record.read_text() == wanted
        and _can_run_meson(python)
    ):
        return
    for module, name in (("mesonbuild", "meson"), ("pycotap", "pycotap")):
        if importlib.util.find_spec(module) is None:
            raise EnvironmentProblem(
                f"the Python package {name} is missing: QEMU's build needs it",
                hint=f"python3 -m pip --python {sys.executable} install 'meson>=1.5,<2' pycotap",
            )
    record.unlink(missing_ok=True)
    ui().info(f"{directory.what}: configuring (half a minute)")
    directory.make([tree / "configure", f"--python={sys.executable}", *_CONFIGURE], env)
    atomic_write(record, wanted)


def _can_run_meson(python: Path) -> bool:
    """Whether the environment that ``configure`` made still works; it leans on the Python it was made with."""
    return python.exists() and run([python, "-c", "import mesonbuild"], check=False).returncode == 0


def _firmware(directory: BuildDir, tree: Path, env: Mapping[str, str], jobs: int) -> dict[str, Path]:
    """Build qboot and the option ROMs from the tree's own sources: published name -> file."""
    qboot, roms = directory.path / "paraksm-qboot", directory.path / "paraksm-optionrom"
    source = tree / "roms" / "qboot"
    if not (source / "meson.build").exists():
        raise BuildError(
            f"{tree} has no roms/qboot: the firmware cannot be built",
            hint="a git checkout needs `git submodule update --init roms/qboot`; release archives have it",
        )
    if not (qboot / "build.ninja").exists():
        shutil.rmtree(qboot, ignore_errors=True)
        directory.make([sys.executable, "-m", "mesonbuild.mesonmain", "setup", qboot, source], env)
    directory.make(["ninja", "-C", qboot, f"-j{jobs}"], env)
    roms.mkdir(exist_ok=True)
    makefile = tree / "pc-bios" / "optionrom" / "Makefile"
    # configure writes this file only where a 32-bit libc is installed, which these ROMs do not use
    settings = f"TOPSRC_DIR={tree}\nCC=gcc\nOBJCOPY=objcopy\nPYTHON={sys.executable}\n"
    if not (roms / "config.mak").exists() or (roms / "config.mak").read_text() != settings:
        atomic_write(roms / "config.mak", settings)
    directory.make(["make", "-C", roms, "-f", makefile, "Makefile=", "all"], env)
    return {"data/qboot.rom": qboot / "bios.bin", **{f"data/{name}": roms / name for name in _OPTION_ROMS}}
