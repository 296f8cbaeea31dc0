# SPDX-License-Identifier: GPL-2.0-or-later
"""The KUnit suites of the series, in a kernel that is a user process (ARCH=um): no QEMU, no image."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from harness import packages, patches, sources
from harness.run import run

pytestmark = pytest.mark.slow

CONFIG = """
CONFIG_64BIT=y
CONFIG_KUNIT=y
CONFIG_KSM=y
CONFIG_KSM_BATCH_KUNIT_TEST=y
"""
CASES = 10


@pytest.fixture(scope="module")
def tree() -> Path:
    """The default kernel with the whole series."""
    packages.require("sources", "kernel")
    return patches.apply(sources.obtain("linux")).tree.path


@pytest.mark.timeout(3600)
def test_suite_passes(tree: Path, tmp_path: Path) -> None:
    make = ["make", "-s", "-C", str(tree), "ARCH=um", "SUBARCH=x86_64", f"O={tmp_path}"]
    if shutil.which("ccache"):
        make.append("CC=ccache gcc")
    run([*make, "allnoconfig"])
    with (tmp_path / ".config").open("a") as config:
        config.write(CONFIG)
    run([*make, "olddefconfig"])
    assert "CONFIG_KSM_BATCH=y" in (tmp_path / ".config").read_text()
    run([*make, f"-j{os.cpu_count()}", "vmlinux"], log=tmp_path / "build.log")
    done = run(
        [str(tmp_path / "vmlinux"), "mem=128M", "kunit_shutdown=halt", "con=null", "con0=fd:0,fd:1"],
        check=False,
        timeout=300,
    )
    cases = re.findall(r"^ +(ok|not ok) \d+ (\w+)", done.stdout, re.MULTILINE)
    assert len(cases) == CASES, done.stdout[-3000:]
    assert all(verdict == "ok" for verdict, _ in cases), done.stdout[-3000:]
    assert "\nok 1 ksm_batch" in done.stdout
    assert "WARNING:" not in done.stdout
