# SPDX-License-Identifier: GPL-2.0-or-later
"""What a patch author asks of a series: is it current, where does it apply, how is it sent."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import patches, patchseries, sources
from harness.config import atomic_write
from harness.errors import EnvironmentProblem, HarnessError, PatchError, SourceError, UsageError
from harness.patchseries import Series
from harness.sources import SourceTree, git

_WIDTH = 72  # of a cover letter's lines


@dataclass(frozen=True)
class Checked:
    """The series against one kernel.

    ``result`` is ``applies``, ``fails`` or ``not obtainable``; ``detail`` says where, why or from what.
    ``offsets`` names hunks that were found, exactly, at another line than the series says. They are a mistake where
    ``exact`` is set: the line numbers of a series are those of the release that is pinned first.
    """

    topic: str
    kernel: str
    result: str
    detail: str
    tree_id: str = ""
    offsets: tuple[str, ...] = ()
    exact: bool = False

    @property
    def shifted(self) -> bool:
        """Whether line numbers are not those of the release they should be of."""
        return self.exact and bool(self.offsets)


def check(series: Series, *, fetch: bool = True, own: Sequence[str] = ()) -> list[Checked]:
    """Apply the series, beside the work trees, to every kernel that can be had and to those of the user.

    Args:
        series: what to apply.
        fetch: whether kernels that are not in the cache are fetched.
        own: trees of the user, as ``--source`` takes them.
    """
    kind = _kind(series)
    found: list[Checked] = []
    known: set[str] = set()
    for pin, cached in sources.obtainable(kind):
        exact = pin.series not in known
        known.add(pin.series)
        tree = cached
        if tree is None and fetch:
            try:
                tree = sources.obtain(kind, pin.version)
            except (SourceError, EnvironmentProblem) as error:
                found.append(Checked(series.topic, pin.version, "not obtainable", error.message.splitlines()[0]))
                continue
        if tree is None:
            found.append(Checked(series.topic, pin.version, "not obtainable", "not in the cache"))
        else:
            found.append(dataclasses.replace(_try(series, tree), exact=exact))
    found += [_try(series, sources.obtain(kind, source=source)) for source in own]
    return found


def _kind(series: Series) -> sources.Kind:
    return "qemu" if series.topic == "qemu" else "linux"


def _try(series: Series, tree: SourceTree) -> Checked:
    try:
        commit, offsets = patches.commit_series(tree, series)
    except HarnessError as error:
        return Checked(series.topic, tree.version, "fails", error.message)
    tree_id = git(tree.path, "rev-parse", f"{commit}^{{tree}}")
    return Checked(series.topic, tree.version, "applies", tree.origin, tree_id, tuple(offsets))


def export(series: Series, kernel: str, folder: Path) -> list[Path]:
    """Write the series as numbered mails with a cover letter, ready for ``git send-email`` or ``git am``.

    Raises:
        UsageError: ``folder`` holds patches already, or the series is empty.
    """
    chosen = series.for_kernel(kernel)
    if not chosen:
        raise UsageError(f"the {series.topic} series has no patch for {kernel}", hint="harness patch list")
    if folder.exists() and (not folder.is_dir() or any(folder.glob("*.patch"))):
        raise UsageError(f"{folder} exists and may hold another export", hint="name a new directory")
    total = len(chosen)
    letters = {"0000-cover-letter.patch": _cover(series, kernel)}
    for number, patch in enumerate(chosen, 1):
        letters[f"{number:04d}-{patch.id}.patch"] = patchseries.mail(series, patch, kernel, f" {number}/{total}")
    for name, text in letters.items():
        atomic_write(folder / name, text)
    return [folder / name for name in letters]


def _measured(series: Series) -> list[str]:
    """The figures of the cover letter, out of the one document that has them; its Markdown becomes plain text.

    Raises:
        PatchError: the document lacks the section.
    """
    name, _, title = str(series.measured).partition("#")
    file = series.root.parent.parent / name
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    section = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        raise PatchError(f"{file} has no section {title!r}", hint=f"`measured` in {series.root}/series.toml names it")
    blocks = re.sub(r"[*`]", "", section[1]).strip().split("\n\n")
    return "\n\n".join(_aligned(block) if block.startswith("|") else _filled(block) for block in blocks).split("\n")


def _filled(paragraph: str) -> str:
    return textwrap.fill(" ".join(paragraph.split()), _WIDTH, break_long_words=False, break_on_hyphens=False)


def _aligned(table: str) -> str:
    """A table of Markdown in columns, the first to the left, figures to the right."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    del rows[1]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def _cover(series: Series, kernel: str) -> str:
    chosen = series.for_kernel(kernel)
    rows = [f"For Linux {kernel}." if series.topic == "linux" else f"For QEMU {kernel}.", ""]
    rows += [series.cover, ""] if series.cover else []
    rows += [*_measured(series), ""] if series.measured else []
    rows += [f"{series.author.partition(' <')[0]} ({len(chosen)}):", *(f"  {patch.subject}" for patch in chosen), ""]
    rows.append(patchseries.diffstat(each for patch in chosen for each in patchseries.touched(series, patch, kernel)))
    return patchseries.letter(series, f"[PATCH 0/{len(chosen)}] {series.title}", "\n".join(rows))
