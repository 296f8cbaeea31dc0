# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``docs/workloads.md`` shows of the workload programs is what they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness import images
from tests import commands
from tests.commands import Block

BLOCKS = [block for block in commands.blocks() if block.mark == "executed: program"]
_WALL = re.compile(r"\b(\w*ns|teps)=\d+")
"""What differs from run to run; the document has N there."""


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_examples_print_what_the_document_shows(block: Block, tmp_path: Path) -> None:
    known = images.recipes()["program"]
    used = {words[0] for words in block.commands()} & set(known)
    assert used, f"{block.place}: no program of ours"
    folders = [str(images.program(name).parent) for name in used]
    shown: list[tuple[str, list[str]]] = []
    for row in block.text.splitlines():
        if row.startswith("$ "):
            shown.append((row[2:], []))
        else:
            shown[-1][1].append(row)
    for command, wanted in shown:
        done = subprocess.run(
            ["bash", "-c", command],
            env={"PATH": ":".join([*folders, "/usr/bin:/bin"])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert [_WALL.sub(r"\1=N", line) for line in done.stdout.splitlines()] == wanted
        assert done.stderr == ""
