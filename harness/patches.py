# SPDX-License-Identifier: GPL-2.0-or-later
"""Patch series as data: rendered from templates, applied as git commits with zero fuzz.

``patches/<topic>/series.toml`` lists the patches in order. A patch has a Jinja2 template of unified-diff
hunks for upstream files (``hooks/``) and plain new files (``src/``). Hunk headers in a template carry only
the line of their first context line, ``@@ {{ at.NAME }} @@``, a number per kernel; the generator counts the
rest. Renderings are committed, so that anyone can ``git am`` them without this program.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import PROJECT, atomic_write, lock
from harness.errors import PatchError, UsageError
from harness.run import CommandFailed
from harness.sources import SourceTree, git

TOPICS: Mapping[str, str] = {"linux": "linux", "qemu": "qemu"}
"""Topic below ``patches/`` for each kind of source."""

_HUNK = re.compile(r"^@@ (\d+) @@(.*)$")


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


@dataclass(frozen=True)
class Series:
    """An ordered list of patches for one upstream project."""

    topic: str
    kernels: tuple[str, ...]
    author: str
    date: str
    patches: tuple[Patch, ...]
    root: Path

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


@dataclass(frozen=True)
class AppliedSeries:
    """A tree with its series applied.

    ``tree_id`` is git's id of the patched tree, ``series_digest`` the SHA-256 of the renderings. ``dirty``
    says that the work tree was edited on top; ``dirty_digest`` then identifies the edit.
    """

    tree: SourceTree
    tree_id: str
    series_digest: str
    dirty: bool
    dirty_digest: str | None


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
                files=entry.get("files", {}),
                kconfig=tuple(entry.get("kconfig", ())),
                values=entry.get("values", {}),
                at=entry.get("at", {}),
            )
            for entry in data["patch"]
        )
        return Series(data["topic"], kernels, data["author"], data["date"], patches, folder)
    except KeyError as error:
        raise PatchError(f"{folder}/series.toml lacks {error}") from error
    except (OSError, tomllib.TOMLDecodeError) as error:
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
        f"{number:04d}-{patch.id}.patch": _mail(series, patch, kernel, number, len(chosen))
        for number, patch in enumerate(chosen, 1)
    }


def _mail(series: Series, patch: Patch, kernel: str, number: int, count: int) -> str:
    diff = render_diff(series, patch, kernel)
    mark = f"{number}/{count}" if count > 1 else ""
    head = [
        f"From: {series.author}",
        f"Date: {series.date}",
        f"Subject: [PATCH{' ' + mark if mark else ''}] {patch.subject}",
        "",
        patch.message,
        "",
        f"Signed-off-by: {series.author}",
        "---",
        "",
    ]
    return "\n".join(head) + diff + "--\nparaksm\n"


def render_diff(series: Series, patch: Patch, kernel: str) -> str:
    """The diff of one patch for one kernel: hunks of its template, then its new files."""
    parts = [_render_template(series, patch, kernel)] if patch.template else []
    for target, origin in sorted(patch.files.items()):
        parts.append(_new_file(target, (series.root / origin).read_text()))
    return "".join(parts)


def _render_template(series: Series, patch: Patch, kernel: str) -> str:
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
        text = environment.get_template(str(patch.template)).render(
            kernel=kernel, at=patch.at.get(kernel, {}), **patch.values
        )
    except jinja2.TemplateError as error:
        where = f" line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise PatchError(f"{patch.template}{where} for {kernel}: {error}") from error
    return _number_hunks(text, patch)


def _number_hunks(text: str, patch: Patch) -> str:
    """Complete ``@@ LINE @@`` headers with counts and new positions, and each file with its git header."""
    out: list[str] = []
    shift = 0
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("--- a/"):
            shift = 0
            out.append(f"diff --git {line[4:]} {lines[index + 1][4:]}")
        match = _HUNK.match(line)
        if match:
            body = list(_body(lines, index + 1))
            old = sum(row[0] in " -" for row in body)
            new = sum(row[0] in " +" for row in body)
            start = int(match[1])
            out.append(f"@@ -{start},{old} +{start + shift},{new} @@{match[2]}")
            shift += new - old
        elif line and line[0] not in "-+ ":
            raise PatchError(f"{patch.template}: not a diff line: {line!r}")
        else:
            out.append(line or " ")
    return "\n".join(out) + "\n"


def _body(lines: list[str], start: int) -> Iterator[str]:
    for row in lines[start:]:
        if row.startswith(("@@ ", "--- a/")):
            return
        yield row or " "


def _new_file(target: str, content: str) -> str:
    rows = content.splitlines()
    head = f"diff --git a/{target} b/{target}\nnew file mode 100644\n--- /dev/null\n+++ b/{target}\n"
    return head + f"@@ -0,0 +1,{len(rows)} @@\n" + "".join(f"+{row}\n" for row in rows)


def generate(series: Series) -> list[Path]:
    """Write the renderings of every kernel; return the files that changed."""
    changed: list[Path] = []
    for kernel in series.kernels:
        folder = series.root / kernel
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


# --- applying -----------------------------------------------------------------------------------------


def apply(tree: SourceTree, series: Series | None = None) -> AppliedSeries:
    """Apply the series of a tree's kind, each patch as a commit with a fixed identity and date.

    Nothing happens, and no time stamp moves, if the tree already carries exactly this series. Local edits
    are kept: they only make the result ``dirty``.

    Raises:
        PatchError: a hunk does not apply, or the series changed under local edits.
    """
    series = series or load(TOPICS[tree.kind])
    wanted = digest(series, tree.series)
    with lock(tree.path.parent / f".{tree.path.name}.lock", what=f"the tree {tree.path}", wait=300):
        state_file = tree.path / ".git" / "paraksm.json"
        state = json.loads(state_file.read_text()) if state_file.exists() else {}
        edit = _edit_digest(tree.path, state.get("commit") or "base")
        if state.get("series_digest") != wanted:
            if edit is not None:
                raise PatchError(
                    f"{tree.path} has local edits on top of an older series",
                    hint=f"harness patch refresh, or git -C {tree.path} stash",
                )
            commit = commit_series(tree, series)
            git(tree.path, "checkout", "-q", "-B", "paraksm", commit)
            state = {
                "series_digest": wanted,
                "commit": commit,
                "tree_id": git(tree.path, "rev-parse", f"{commit}^{{tree}}"),
            }
            atomic_write(state_file, json.dumps(state))
    return AppliedSeries(tree, str(state["tree_id"]), wanted, edit is not None, edit)


def commit_series(tree: SourceTree, series: Series) -> str:
    """Make the commits on top of ``base`` without touching the work tree; return the last commit's id."""
    index = tree.path / ".git" / "paraksm-index"
    env = {"GIT_INDEX_FILE": str(index)}
    parent = git(tree.path, "rev-parse", "base^{commit}")
    try:
        git(tree.path, "read-tree", "base", env=env)
        for patch in series.for_kernel(tree.series):
            diff = render_diff(series, patch, tree.series)
            try:
                git(tree.path, "apply", "--cached", "--whitespace=nowarn", "-", env=env, input=diff)
            except CommandFailed as error:
                raise PatchError(_explain(tree, patch, diff, error.completed.stderr, env)) from error
            message = f"{patch.subject}\n\n{patch.message}\n\nSigned-off-by: {series.author}\n"
            snapshot = git(tree.path, "write-tree", env=env)
            parent = git(tree.path, "commit-tree", snapshot, "-p", parent, input=message)
    finally:
        index.unlink(missing_ok=True)
    return parent


def _edit_digest(tree: Path, commit: str) -> str | None:
    """Identify what the user changed on top of ``commit`` (committed or not), or ``None``."""
    difference = git(tree, "diff", "--binary", "--no-ext-diff", commit)
    extra = git(tree, "ls-files", "--others", "--exclude-standard")
    if not difference and not extra:
        return None
    digest_ = hashlib.sha256(difference.encode())
    for name in extra.splitlines():
        digest_.update(name.encode() + b"\0" + (tree / name).read_bytes())
    return digest_.hexdigest()


def _explain(tree: SourceTree, patch: Patch, diff: str, said: str, env: dict[str, str]) -> str:
    """Say which hunk failed, and what the file has where its context should be."""
    match = re.search(r"patch failed: (\S+):(\d+)", said)
    if not match:
        return f"{patch.id} does not apply to {tree.kind} {tree.version}: {said.strip()}"
    name, line = match[1], int(match[2])
    hunk = _hunk_at(diff, name, line)
    present = git(tree.path, "show", f":{name}", env=env, check=False).splitlines()
    found, near = nearest_context(present, hunk)
    context = "\n".join(
        difflib.unified_diff(
            hunk, near, f"{name} as the patch expects it", f"{name}:{found} as it is", lineterm="", n=9
        )
    )
    return f"{patch.id} does not apply to {tree.kind} {tree.version}: {name}:{line}\n{context}"


def _hunk_at(diff: str, name: str, line: int) -> list[str]:
    from unidiff.patch import PatchSet

    for file in PatchSet(diff):
        for hunk in file if file.path == name else ():
            if hunk.source_start == line:
                return [row.value.rstrip("\n") for row in hunk.source_lines()]
    return []


def nearest_context(present: list[str], wanted: list[str]) -> tuple[int, list[str]]:
    """The place in a file most like the wanted lines: its first line number and the lines there."""
    best, where = -1.0, 0
    bag = set(wanted)
    for start in range(max(1, len(present) - len(wanted) + 1)):
        window = present[start : start + len(wanted)]
        score = sum(row in bag for row in window) / max(1, len(wanted))
        if score > best:
            best, where = score, start
    return where + 1, present[where : where + len(wanted)]


# --- refreshing ---------------------------------------------------------------------------------------


def export_edit(tree: SourceTree, series: Series) -> str:
    """The edit on top of the applied series as a diff; empty if there is none."""
    state_file = tree.path / ".git" / "paraksm.json"
    commit = json.loads(state_file.read_text())["commit"] if state_file.exists() else "base"
    git(tree.path, "add", "--intent-to-add", "--all")
    return git(tree.path, "diff", "--no-ext-diff", "--no-color", str(commit))


def relocate(series: Series, patch: Patch, tree: SourceTree) -> dict[str, int]:
    """Where each hunk of a template belongs in a tree: hunk name -> line, by exact context.

    Raises:
        PatchError: a context is not there, or there more than once and not near its old line.
    """
    names = re.findall(r"^@@ \{\{ at\.(\w+) \}\} @@", (series.root / str(patch.template)).read_text(), re.MULTILINE)
    from unidiff.patch import PatchSet

    hunks = [(file.path, hunk) for file in PatchSet(render_diff(series, patch, tree.series)) for hunk in file]
    result: dict[str, int] = {}
    for name, (path, hunk) in zip(names, hunks, strict=False):
        rows = [row.value.rstrip("\n") for row in hunk.source_lines()]
        present = git(tree.path, "show", f"base:{path}").splitlines()
        places = [i + 1 for i in range(len(present)) if present[i : i + len(rows)] == rows]
        if not places:
            found, near = nearest_context(present, rows)
            raise PatchError(
                f"{patch.id}: the context of hunk {name} is not in {path}; nearest is line {found}:\n"
                + "\n".join(difflib.unified_diff(rows, near, "expected", "found", lineterm="")),
            )
        result[name] = min(places, key=lambda line: abs(line - hunk.source_start))
    return result
