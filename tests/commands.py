# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands as documents and help texts write them, and the parser that they must satisfy: the command line's own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import PROJECT

DOCUMENTS = (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))

_SETTING = re.compile(r"[A-Z_]+=")
_MARK = re.compile(r"^<!-- (.*) -->$")
_INLINE = re.compile(r"`(harness(?: [^`\n]*)?)`")
_EXAMPLE = re.compile(r"^\s*Example: (harness .*?)(?: \([^()]*\))?$")
_HINT = re.compile(r"hint=f?\"(harness [^\"]*)\"")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document; ``mark`` is the comment on the line before it."""

    file: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.file.name}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The simple commands of a shell block, in order, redirections and pipes cut off."""
        text = self.text.replace("\\\n", " ")
        if self.language == "console":
            text = "\n".join(row[2:] for row in text.splitlines() if row.startswith("$ "))
        return [words for row in text.splitlines() for words in simple_commands(row)]


def blocks() -> list[Block]:
    """Every fenced block of every document."""
    found = []
    for file in DOCUMENTS:
        rows = file.read_text().splitlines()
        opened: tuple[int, str] | None = None
        for number, row in enumerate(rows):
            if not row.startswith("```"):
                continue
            if opened is None:
                opened = number, row[3:].strip()
            else:
                start, language = opened
                mark = _MARK.match(rows[start - 1]) if start else None
                text = "\n".join(rows[start + 1 : number]) + "\n"
                found.append(Block(file, start + 1, language, mark[1] if mark else "", text))
                opened = None
        assert opened is None, f"{file}: a block is not closed"
    return found


def simple_commands(line: str) -> Iterator[list[str]]:
    """Split a shell line at ``|``, ``&&``, ``;`` and drop redirections, comments and variables set for a command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.commenters = "#"
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for token in [*lexer, ";"]:
        if skip:
            skip = False
        elif set(token) <= set("<>"):
            skip = True
        elif set(token) <= set("|&;"):
            if words:
                yield words
            words = []
        elif words or not _SETTING.match(token):
            words.append(token)


def mentioned() -> Iterator[tuple[str, str]]:
    """Commands in running text of documents, in help texts and in hints of errors: where, and the line."""
    for file in DOCUMENTS:
        for number, row in enumerate(file.read_text().splitlines(), 1):
            for match in _INLINE.finditer(row):
                yield f"{file.name}:{number}", match[1]
    for file in sorted((PROJECT / "harness").rglob("*.py")):
        for number, row in enumerate(file.read_text().splitlines(), 1):
            found = [match[1] for pattern in (_INLINE, _HINT) for match in pattern.finditer(row)]
            if example := _EXAMPLE.match(row):
                found.append(example[1])
            for line in found:
                yield f"{file.relative_to(PROJECT)}:{number}", line


def parse(words: list[str]) -> None:
    """Hand a command to the parsers of its group and its command, as the entry point would; nothing is run.

    Raises:
        Exception: the parser's own, for a command, option or value that does not exist.

    """
    import typer

    from harness.cli.main import app

    command: Any = typer.main.get_command(app)
    context, args = None, words[1:]
    try:
        while True:
            context = command.make_context(command.name or "harness", list(args), parent=context)
            if not hasattr(command, "resolve_command"):
                return
            args = [*context._protected_args, *context.args]
            if not args:
                return
            _, command, args = command.resolve_command(context, args)
    except typer.Exit:
        return  # --help and --version end here
