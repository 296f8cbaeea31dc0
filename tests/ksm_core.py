# SPDX-License-Identifier: GPL-2.0-or-later
"""The userspace build of the KSM core: its files, and the kernel's own red-black tree below it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness import packages, sources
from harness.config import PROJECT
from harness.run import run

HERE = PROJECT / "kernel" / "ksm_batch"
CORE = PROJECT / "patches" / "linux" / "src" / "mm" / "ksm_batch.c"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_FLAGS = ("-std=gnu11", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror")


def kernel_tree() -> Path:
    """A kernel tree, obtained into the user's cache if it is not there yet."""
    packages.require("sources")
    return sources.obtain("linux").path


def build(
    target: Path,
    tree: Path,
    files: Iterable[str],
    *flags: str,
    core_flags: Iterable[str] = (),
    compiler: str = "gcc",
) -> Path:
    """Compile the core, the kernel's rbtree.c and files of ``kernel/ksm_batch`` into one program.

    Args:
        target: the program.
        tree: a kernel tree.
        files: names in ``kernel/ksm_batch``.
        flags: for every file and for the linker.
        core_flags: for the core alone.
        compiler: a C compiler.

    """
    common = [*_FLAGS, *flags, f"-I{HERE}/include", f"-I{tree}/tools/include"]
    core = target.with_suffix(".core.o")
    run([compiler, *common, *core_flags, "-c", "-o", core, CORE])
    run([compiler, *common, "-o", target, *(HERE / name for name in files), core, tree / "tools/lib/rbtree.c"])
    return target
