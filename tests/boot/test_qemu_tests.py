# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests that the QEMU series brings for QEMU's own test runner, against the QEMU that was built."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from harness import qbuild
from harness.qbuild import QemuBuild

pytestmark = pytest.mark.boot

OURS = {"tests/qtest/idxd-test": 30, "tests/unit/test-idxd-ops": 5, "tests/qtest/guest-stop-test": 5}
"""Target of QEMU's build -> how many tests it has at least."""


def command(qemu: QemuBuild, folder: Path) -> Path:
    """The QEMU for a qtest: without an installation, it must be told where its firmware is."""
    script = folder / qemu.binary.name
    script.write_text(f'#!/bin/sh\nexec {qemu.binary} -L {qemu.data_dir} -bios {qemu.firmware.name} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("name", OURS)
def test_of_the_series(qemu_build: QemuBuild, name: str, tmp_path: Path) -> None:
    program = qbuild.target(qemu_build, name)
    qemu = command(qemu_build, tmp_path)
    environment = {**os.environ, "QTEST_QEMU_BINARY": str(qemu)}
    done = subprocess.run(
        [program, "--tap", "-k"],
        cwd=qemu_build.binary.parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    planned = re.search(r"^1\.\.(\d+)$", done.stdout, re.MULTILINE)
    assert planned, done.stdout
    assert len(re.findall(r"^ok \d+", done.stdout, re.MULTILINE)) == int(planned[1]) >= OURS[name]
    assert "# SKIP" not in done.stdout
