# SPDX-License-Identifier: GPL-2.0-or-later
"""What the documents say is so: every command parses, every example that is marked runs, every name exists.

A comment above a block says who executes it: ``executed: unit`` here on a project in miniature, ``executed: boot``
in ``tests/boot/test_docs.py``, ``executed: guest`` by the tests of what it is about, ``executed: program`` by
``test_workloads.py`` with the guest's programs, ``elsewhere`` nobody: it is for a machine without this project. All
other shell blocks are parsed by the command line's own parsers.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.config import PROJECT
from tests import commands
from tests.commands import Block
from tests.fakes.project import Project

SHELL = ("", "sh", "console")
OTHERS = {"git", "gpg", "pytest", "python3", "tox", ".venv/bin/tox", "$EDITOR"}
"""Programs that are not ours and may stand in an example."""

MARKS = (
    "", "output", "test-command", "executed: unit", "executed: boot", "executed: guest", "executed: program",
    "elsewhere", "contracts",
)  # fmt: skip

BLOCKS = commands.blocks()


def _is_ours(words: list[str]) -> bool:
    return words[0].rpartition("/")[2] == "harness"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that examples name and whose existence a parser checks."""
    for name in ("results.bin", "my.config", "mine.toml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in SHELL], ids=lambda block: block.place)
def test_every_command_of_every_block_exists(block: Block) -> None:
    if block.language == "" and "harness " not in block.text:
        return  # what a program printed
    ours = block.mark not in ("output", "elsewhere", "executed: guest", "executed: program")
    found = block.commands() if ours else []
    assert found or not ours, f"{block.place}: a shell block without a command"
    for words in found:
        if _is_ours(words):
            commands.parse(words)
        else:
            assert words[0] in OTHERS, f"{block.place}: {words[0]} is neither ours nor known"


MENTIONED = list(commands.mentioned())


@pytest.mark.usefixtures("files")
def test_every_command_in_running_text_help_and_hints_exists() -> None:
    assert len(MENTIONED) > 60
    wrong = []
    for place, line in MENTIONED:
        text = re.sub(r"\{[^}]*\}", "1", line).replace("...", "1").strip()
        try:
            for words in filter(_is_ours, commands.simple_commands(text)):
                commands.parse(words)
        except Exception as error:
            if len(text.split()) <= 2 and type(error).__name__ in ("NoArgsIsHelpError", "MissingParameter"):
                continue  # a command that is only named
            wrong.append(f"{place}: {line}: {error}")
    assert wrong == []


def test_a_wrong_option_would_be_noticed() -> None:
    for line in ("harness boot --comand true", "harness bot", "harness patch fold", "harness bench -n many"):
        with pytest.raises(Exception, match=r"(?i)no such|valid integer|not a valid"):
            commands.parse(line.split())


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "fake")
    (made.root / "my.config").write_text("CONFIG_EXPERT=y\n")
    yield made
    made.close()


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.mark == "executed: unit"], ids=lambda block: block.place)
def test_what_is_marked_runs(block: Block, project: Project) -> None:
    from harness import fleet
    from tests.fake_fleet import result

    (project.root / "results.bin").write_bytes(result(fleet.profile("unit")))
    for words in block.commands():
        done = project.harness(*words[1:])
        # doctor's status says how much it found
        assert done.returncode in ((0, 1) if words[1] == "doctor" else (0,)), f"{words}: {done.stderr}"
        assert done.stdout


def test_every_example_is_checked_by_somebody() -> None:
    for block in BLOCKS:
        assert block.mark in MARKS, block.place
        if block.language == "python":
            assert block.mark in ("executed: boot", "contracts"), f"{block.place}: Python that nobody runs"
        else:
            assert block.language in (*SHELL, "diff"), f"{block.place}: a language that nobody checks"
    assert sum(block.mark == "executed: unit" for block in BLOCKS) >= 2
    assert sum(block.mark == "executed: boot" for block in BLOCKS) >= 3


def test_the_contracts_name_what_there_is() -> None:
    (block,) = (block for block in BLOCKS if block.mark == "contracts")
    module, checked = None, 0
    for row in block.text.splitlines():
        if match := re.match(r"# harness/(\w+)\.py", row):
            module = importlib.import_module(f"harness.{match[1]}")
        elif row.startswith("# harness/"):
            module = None
        for name in re.findall(r"^(?:@\S+ )?(?:def|class|enum) (\w+)", re.sub(r"\([a-z]+=True\) ", " ", row)):
            assert module is not None, row
            assert hasattr(module, name), f"{module.__name__} has no {name}"
            checked += 1
    assert checked > 40


def test_every_module_has_its_room() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text()
    listed = set(re.findall(r"^\| `harness/([\w/]+?)(?:\.py|/)` \|", text, re.MULTILINE))
    present = {path.stem for path in (PROJECT / "harness").glob("*.py") if not path.name.startswith("__")}
    present |= {path.parent.name for path in (PROJECT / "harness").glob("*/__init__.py")}
    assert listed == present


def test_links_between_documents_lead_somewhere() -> None:
    for file in commands.DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name}: {target}"
