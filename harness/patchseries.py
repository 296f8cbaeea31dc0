# SPDX-License-Identifier: GPL-2.0-or-later
"""A patch series as data, rendered into mails that ``git am`` takes.

``patches/<topic>/series.toml`` lists the patches in order. A patch has a Jinja2 template of unified-diff
hunks for upstream files (``hooks/``) and plain new files (``src/``). Hunk headers in a template carry only
the line of their first context line, ``@@ {{ at.NAME }} @@``, a number per kernel; the generator counts the
rest. Renderings are committed, so that anyone can ``git am`` them without this program.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import PROJECT, atomic_write
from harness.errors import PatchError, UsageError

TOPICS: Mapping[str, str] = {"linux": "linux", "qemu": "qemu"}
"""Topic below ``patches/`` for each kind of source."""

BASE = "base"
"""Stands for the released tree where a patch is asked for; git's tag of it has the same name."""

_HUNK = re.compile(r"^@@ (\w+) @@(.*)$")
_STAT_WIDTH = 72  # of a diffstat's line, without its blanks and bar
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Patch:
    """One logical change."""

    id: str
    subject: str
    message: str
    kernels: tuple[str, ...]
    template: str | None
    files: Mapping[str, str]
    kconfig: tuple[str, ...]
    values: Mapping[str, Any]
    at: Mapping[str, Mapping[str, int]]
    provides: tuple[str, ...] = ()
    """Capabilities that are there from this patch on, in the words of ``harness/systems.toml``."""


@dataclass(frozen=True)
class TemplateHunk:
    """One hunk as its template renders it: ``mark`` is the word between the ``@@``, rows keep their sign."""

    path: str
    mark: str
    section: str
    rows: tuple[str, ...]

    @property
    def old(self) -> list[str]:
        """The lines that must be there, without their sign."""
        return [row[1:] for row in self.rows if row[0] in " -"]

    @property
    def growth(self) -> int:
        """Lines added minus lines removed."""
        return sum(row[0] == "+" for row in self.rows) - sum(row[0] == "-" for row in self.rows)


@dataclass(frozen=True)
class Series:
    """An ordered list of patches for one upstream project."""

    topic: str
    kernels: tuple[str, ...]
    author: str
    date: str
    patches: tuple[Patch, ...]
    root: Path
    title: str = ""
    cover: str = ""
    measured: str | None = None
    """Where the figures of the cover letter are: a document of the project, ``#``, the title of a section."""
    upto: str | None = None
    """The patch that a prefix of the series ends with, ``base`` for none of them; None for the whole series."""

    def for_kernel(self, kernel: str) -> list[Patch]:
        """The patches that a kernel series gets, in order.

        Raises:
            UsageError: the series has no rendering for that kernel.
        """
        if kernel not in self.kernels:
            raise UsageError(
                f"the {self.topic} series has no rendering for {kernel}; it has {', '.join(self.kernels)}",
                hint=f"add {kernel} to patches/{self.topic}/series.toml and run `harness patch generate`",
            )
        return [patch for patch in self.patches if kernel in patch.kernels]

    def provides(self, kernel: str) -> frozenset[str]:
        """What a kernel series can with the whole of this series."""
        return frozenset(name for patch in self.for_kernel(kernel) for name in patch.provides)

    def find(self, name: str) -> Patch:
        """The patch of a name: its id, a capability that it provides, or words of either that no other has as well.

        Case and what stands between words do not matter: ``para_c`` finds what provides ``ksm-para-c``. Where several
        patches have the words, it is the one whose name has the fewest others.

        Raises:
            UsageError: there is no such patch, or there are several.
        """
        wanted = set(_WORD.findall(name.lower()))
        others: dict[str, int] = {}
        for patch in self.patches:
            names = [set(_WORD.findall(each)) for each in (patch.id, *patch.provides)]
            if counts := [len(words - wanted) for words in names if wanted and wanted <= words]:
                others[patch.id] = min(counts)
        best = [patch for patch in self.patches if others and others.get(patch.id) == min(others.values())]
        if len(best) == 1:
            return best[0]
        if best:
            raise UsageError(
                f"{name!r} can be {' or '.join(patch.id for patch in best)} of the {self.topic} series",
                hint="write one of them",
            )
        raise UsageError(
            f"the {self.topic} series has no patch {name!r}",
            hint=f"one of: {', '.join([BASE, *(_introduced(patch) for patch in self.patches)])}",
        )

    def prefix(self, upto: str | None) -> Series:
        """The series up to a patch, that one included; all of it for None, nothing for ``base``.

        Raises:
            UsageError: there is no such patch; see :meth:`find`.
        """
        if upto is None:
            return self
        if upto == BASE:
            return dataclasses.replace(self, patches=(), upto=BASE)
        last = self.find(upto)
        return dataclasses.replace(self, patches=self.patches[: self.patches.index(last) + 1], upto=last.id)

    def before(self, patch_id: str) -> Series:
        """The series without a patch and all that follow it.

        Raises:
            UsageError: there is no such patch.
        """
        ids = [BASE, *(patch.id for patch in self.prefix(patch_id).patches)]
        return self.prefix(ids[-2])


def _introduced(patch: Patch) -> str:
    """A patch's id with what else it is known by."""
    return f"{patch.id} ({', '.join(patch.provides)})" if patch.provides else patch.id


def load(topic: str, root: Path | None = None) -> Series:
    """Read a series.

    Raises:
        PatchError: the file is not a series; the message names the key.
    """
    folder = root or PROJECT / "patches" / topic
    try:
        data = tomllib.loads((folder / "series.toml").read_text())
        kernels = tuple(data["kernels"])
        patches = tuple(
            Patch(
                id=entry["id"],
                subject=entry["subject"],
                message=entry["message"].strip(),
                kernels=tuple(entry.get("kernels", kernels)),
                template=entry.get("template"),
                files=dict(entry.get("files", {})),
                kconfig=tuple(entry.get("kconfig", ())),
                values=dict(entry.get("values", {})),
                at={kernel: dict(table) for kernel, table in entry.get("at", {}).items()},
                provides=tuple(entry.get("provides", ())),
            )
            for entry in data["patch"]
        )
        return Series(
            topic=data["topic"],
            kernels=kernels,
            author=data["author"],
            date=data["date"],
            patches=patches,
            root=folder,
            title=data.get("title", data["topic"]),
            cover=data.get("cover", "").strip(),
            measured=data.get("measured"),
        )
    except KeyError as error:
        raise PatchError(f"{folder}/series.toml lacks {error}") from error
    except (OSError, tomllib.TOMLDecodeError, TypeError, AttributeError) as error:
        raise PatchError(f"{folder}/series.toml: {error}") from error


# --- rendering ----------------------------------------------------------------------------------------


def parameter_indent(name: str) -> str:
    """Tabs and blanks that align a continued parameter list of ``static ssize_t NAME_show(``."""
    column = len(f"static ssize_t {name}_show(")
    return "\t" * (column // 8) + " " * (column % 8)


def render(series: Series, kernel: str) -> dict[str, str]:
    """Render the mail files of one kernel: file name -> content.

    Raises:
        PatchError: a template does not render, or a hunk has no line for this kernel.
    """
    chosen = series.for_kernel(kernel)
    return {
        f"{number:04d}-{patch.id}.patch": mail(series, patch, kernel, f" {number}/{len(chosen)}" if chosen[1:] else "")
        for number, patch in enumerate(chosen, 1)
    }


def mail(series: Series, patch: Patch, kernel: str, mark: str) -> str:
    """One patch as a mail for ``git am``; ``mark`` is what stands behind PATCH, say `` 2/5``."""
    stat = diffstat(touched(series, patch, kernel))
    return letter(
        series,
        f"[PATCH{mark}] {patch.subject}",
        f"{log_message(series, patch)}---\n{stat}\n{render_diff(series, patch, kernel)}",
    )


def letter(series: Series, subject: str, body: str) -> str:
    """A mail from the author of the series, dated as the series is."""
    return f"From: {series.author}\nDate: {series.date}\nSubject: {subject}\n\n{body}-- \nparaksm\n"


def log_message(series: Series, patch: Patch) -> str:
    """What stands below the subject: the argument, and who signed it off."""
    return f"{patch.message}\n\nSigned-off-by: {series.author}\n"


def render_diff(series: Series, patch: Patch, kernel: str) -> str:
    """The diff of one patch for one kernel: hunks of its template, then its new files."""
    parts = [_render_template(series, patch, kernel)] if patch.template else []
    for target, origin in sorted(patch.files.items()):
        parts.append(_new_file(target, (series.root / origin).read_text()))
    return "".join(parts)


@dataclass(frozen=True)
class Change:
    """What a patch does to one file."""

    path: str
    added: int
    removed: int
    new: bool = False


def touched(series: Series, patch: Patch, kernel: str) -> list[Change]:
    """The files that a patch changes or brings, in the order of its diff."""
    rows: dict[str, list[str]] = {}
    for hunk in hunks(series, patch, kernel):
        rows.setdefault(hunk.path, []).extend(row[0] for row in hunk.rows)
    changed = [Change(path, signs.count("+"), signs.count("-")) for path, signs in rows.items()]
    return changed + [
        Change(target, len((series.root / origin).read_text().splitlines()), 0, new=True)
        for target, origin in sorted(patch.files.items())
    ]


def diffstat(changes: Iterable[Change]) -> str:
    """What git prints below a patch's message: each file with its changes, their sum, new files."""
    files: dict[str, Change] = {}
    for each in changes:
        before = files.get(each.path, Change(each.path, 0, 0))
        sums = before.added + each.added, before.removed + each.removed
        files[each.path] = Change(each.path, *sums, before.new or each.new)
    shown = [files[path] for path in sorted(files)]
    most = max((each.added + each.removed for each in shown), default=0)
    width, digits = max((len(each.path) for each in shown), default=0), len(str(most))
    share = min(1.0, max(10, _STAT_WIDTH - width - digits) / most) if most else 0.0
    lines = [
        f" {each.path:<{width}} | {each.added + each.removed:>{digits}} "
        + "+" * math.ceil(each.added * share)
        + "-" * math.ceil(each.removed * share)
        for each in shown
    ]
    added, removed = sum(each.added for each in shown), sum(each.removed for each in shown)
    lines.append(
        f" {len(shown)} file{'s' if shown[1:] else ''} changed"
        + (f", {added} insertion{'s' if added > 1 else ''}(+)" if added else "")
        + (f", {removed} deletion{'s' if removed > 1 else ''}(-)" if removed else "")
    )
    lines += [f" create mode 100644 {each.path}" for each in shown if each.new]
    return "".join(f"{line}\n" for line in lines)


class _Marks:
    """Stands for the ``at`` table when only the names of the hunks are wanted."""

    def __getitem__(self, name: str) -> str:
        return name


def hunks(series: Series, patch: Patch, kernel: str) -> list[TemplateHunk]:
    """The hunks of a patch's template for one kernel; their marks are the names of the ``at`` table."""
    return list(_split(_expand(series, patch, kernel, _Marks()), patch)) if patch.template else []


def _render_template(series: Series, patch: Patch, kernel: str) -> str:
    """Complete ``@@ LINE @@`` headers with counts and new positions, and each file with its git header."""
    out: list[str] = []
    path, shift = "", 0
    for hunk in _split(_expand(series, patch, kernel, patch.at.get(kernel, {})), patch):
        if hunk.path != path:
            path, shift = hunk.path, 0
            out += [f"diff --git a/{path} b/{path}", f"--- a/{path}", f"+++ b/{path}"]
        if not hunk.mark.isdecimal():
            raise PatchError(f"{patch.template}: {hunk.path}: {hunk.mark!r} is not a line number")
        start, count = int(hunk.mark), len(hunk.old)
        out.append(f"@@ -{start},{count} +{start + shift},{count + hunk.growth} @@{hunk.section}")
        out += hunk.rows
        shift += hunk.growth
    return "".join(f"{row}\n" for row in out)


def _expand(series: Series, patch: Patch, kernel: str, at: object) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(series.root),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - C, not HTML
    )
    environment.filters["parameter_indent"] = parameter_indent
    try:
        return environment.get_template(str(patch.template)).render(kernel=kernel, at=at, **patch.values)
    except jinja2.TemplateError as error:
        where = f" line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise PatchError(f"{patch.template}{where} for {kernel}: {error}") from error


def _split(text: str, patch: Patch) -> Iterator[TemplateHunk]:
    path, mark, section = "", "", ""
    rows: list[str] = []
    lines = text.splitlines()
    for index, line in enumerate(lines):
        opens = line.startswith("--- a/") and lines[index + 1 : index + 2] == [f"+++ b/{line[6:]}"]
        match = _HUNK.match(line)
        if (opens or match) and rows:
            yield TemplateHunk(path, mark, section, tuple(rows))
            rows = []
        if opens:
            path, mark = line[6:], ""
        elif match:
            mark, section = match[1], match[2]
        elif mark and (not line or line[0] in "-+ "):
            rows.append(line or " ")
        elif mark or (line.strip() and line != f"+++ b/{path}"):
            raise PatchError(f"{patch.template}: not a line of a diff: {line!r}")
    if rows:
        yield TemplateHunk(path, mark, section, tuple(rows))


def _new_file(target: str, content: str) -> str:
    rows = content.splitlines()
    head = f"diff --git a/{target} b/{target}\nnew file mode 100644\n--- /dev/null\n+++ b/{target}\n"
    return head + f"@@ -0,0 +1,{len(rows)} @@\n" + "".join(f"+{row}\n" for row in rows)


def generate(series: Series) -> list[Path]:
    """Write the renderings of every kernel; return the files that changed."""
    changed: list[Path] = []
    for kernel in series.kernels:
        changed += write(series, kernel, series.root / kernel)
    return changed


def write(series: Series, kernel: str, folder: Path) -> list[Path]:
    """Make a folder hold the renderings of one kernel and no other; return the files that changed."""
    changed: list[Path] = []
    wanted = render(series, kernel)
    for stale in sorted(folder.glob("*.patch")):
        if stale.name not in wanted:
            stale.unlink()
            changed.append(stale)
    for name, text in wanted.items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            atomic_write(file, text)
            changed.append(file)
    return changed


def stale(series: Series) -> list[str]:
    """Committed renderings that differ from what the generator makes, as ``KERNEL/FILE``."""
    bad: list[str] = []
    for kernel in series.kernels:
        wanted = render(series, kernel)
        present = {file.name for file in (series.root / kernel).glob("*.patch")}
        bad += [f"{kernel}/{name}" for name in sorted(present ^ set(wanted))]
        bad += [
            f"{kernel}/{name}"
            for name in sorted(present & set(wanted))
            if (series.root / kernel / name).read_text() != wanted[name]
        ]
    return bad


def digest(series: Series, kernel: str) -> str:
    """SHA-256 over the renderings of one kernel, in order."""
    text = "".join(f"{name}\n{body}" for name, body in render(series, kernel).items())
    return hashlib.sha256(text.encode()).hexdigest()
