# SPDX-License-Identifier: GPL-2.0-or-later
"""Examples of the documents that need a real machine, executed as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.workbench import Workbench
from tests import commands
from tests.commands import Block

pytestmark = pytest.mark.boot

BLOCKS = [block for block in commands.blocks() if block.mark == "executed: boot"]


@pytest.mark.usefixtures("bench")
@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language != "python"], ids=lambda block: block.place)
def test_shell_examples_run(block: Block, tmp_path: Path) -> None:
    for words in block.commands():
        done = subprocess.run(
            [sys.executable, "-m", "harness", *words[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        assert done.stdout


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda block: block.place)
def test_python_examples_run(
    block: Block, bench: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {"run_dir": tmp_path / "run", "chunks": []}
    exec(compile(block.text, block.place, "exec"), names)
    assert names["status"] == 0
    chunks = names["chunks"]
    assert isinstance(chunks, list)
    assert b"".join(chunks).decode().strip() == bench.kernel.release
