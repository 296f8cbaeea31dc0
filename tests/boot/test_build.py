# SPDX-License-Identifier: GPL-2.0-or-later
"""The real kernel's build: only what an edit touches, the same bytes again, and a symbol that cannot be had."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from harness import kbuild
from harness.builddir import BuildDir, ccache_environment, cpus
from harness.config import paths
from harness.errors import UsageError
from harness.kbuild import KernelBuild
from harness.qbuild import QemuBuild
from harness.run import run

pytestmark = pytest.mark.boot


def test_touched_ksm_is_one_object_and_the_same_kernel(kernel_build: KernelBuild) -> None:
    """Editing mm/ksm.c takes an incremental build; equal sources give equal bytes."""
    os.utime(kernel_build.applied.tree.path / "mm" / "ksm.c")
    touched = dataclasses.replace(kernel_build.applied, dirty_digest=f"touched {time.time_ns()}")
    before = time.monotonic()
    again = kbuild.build(touched)
    seconds = time.monotonic() - before
    log = BuildDir(kernel_build.build_dir, "").log.read_text()
    assert "mm/ksm.o" in log
    # besides ksm.c only what holds a checksum or a version of the whole is compiled
    assert len(re.findall(r"^  CC ", log, re.MULTILINE)) <= 6
    assert again.digest == kernel_build.digest
    print(f"incremental build after touching mm/ksm.c: {seconds:.1f} s")


def test_the_kernel_does_not_know_where_it_was_built(kernel_build: KernelBuild) -> None:
    """No file of it names its tree, its build directory or the cache."""
    for file in (kernel_build.vmlinux, kernel_build.bzimage, kernel_build.system_map, kernel_build.config):
        content = file.read_bytes()
        for place in (kernel_build.applied.tree.path, kernel_build.build_dir, paths().cache):
            assert str(place).encode() not in content, f"{file.name} holds {place}"


def test_another_place_compiles_the_same_bytes(kernel_build: KernelBuild) -> None:
    """Tree and build directory elsewhere, nothing from the compiler cache: the same objects."""
    objects = ("mm/ksm.o", "kernel/sched/core.o", "lib/vsprintf.o", "init/version.o", "arch/x86/kernel/head_64.o")
    with tempfile.TemporaryDirectory(prefix="elsewhere-", dir=paths().tmp) as folder:
        tree, out = Path(folder) / "tree", Path(folder) / "out"
        run(["cp", "--archive", "--link", kernel_build.applied.tree.path, tree])
        out.mkdir()
        shutil.copyfile(kernel_build.config, out / ".config")
        make: list[str | Path] = [
            "make",
            "-C",
            tree,
            f"O={out}",
            "CC=ccache gcc",
            "HOSTCC=ccache gcc",
            *kbuild.FIXED,
            f"-j{cpus()}",
        ]
        run([*make, *kbuild.FIXED, f"-j{cpus()}", *objects], env={**ccache_environment(), "CCACHE_RECACHE": "1"})
        for name in objects:
            assert (out / name).read_bytes() == (kernel_build.build_dir / name).read_bytes(), name


def test_missing_symbol_is_named_with_its_dependency(kernel_build: KernelBuild, tmp_path: Path) -> None:
    """A fragment that cannot be fulfilled is refused before anything is compiled."""
    fragment = tmp_path / "wish.config"
    fragment.write_text("CONFIG_SND_HDA_INTEL=y\nCONFIG_TRANSPARENT_HUGEPAGES=y\n")
    with pytest.raises(UsageError) as caught:
        kbuild.build(kernel_build.applied, extra_fragments=[fragment])
    assert "CONFIG_SND_HDA_INTEL=y" in caught.value.message
    assert "SOUND=n" in caught.value.message
    assert "nearest: CONFIG_TRANSPARENT_HUGEPAGE" in caught.value.message


def test_qemu_answers(qemu_build: QemuBuild) -> None:
    """The published binary starts, finds its firmware, and is the pinned version."""
    said = run([qemu_build.binary, "-L", qemu_build.data_dir, "--version"]).stdout
    assert qemu_build.version in said
    assert qemu_build.firmware.stat().st_size == 65536
