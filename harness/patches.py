# SPDX-License-Identifier: GPL-2.0-or-later
"""Patch series as data: rendered from templates, applied as git commits with zero fuzz.

``patches/<topic>/series.toml`` lists the patches in order. A patch has a Jinja2 template of unified-diff
hunks for upstream files (``hooks/``) and plain new files (``src/``). Hunk headers in a template carry only
the line of their first context line, ``@@ {{ at.NAME }} @@``, a number per kernel; the generator counts the
rest. Renderings are committed, so that anyone can ``git am`` them without this program.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import PROJECT, atomic_write, lock
from harness.errors import PatchError, UsageError
from harness.run import CommandFailed, run
from harness.sources import GIT_IDENTITY, SourceTree, git
from harness.ui import ui

TOPICS: Mapping[str, str] = {"linux": "linux", "qemu": "qemu"}
"""Topic below ``patches/`` for each kind of source."""

_HUNK = re.compile(r"^@@ (\w+) @@(.*)$")
_OFFSET = re.compile(
    r"^(?:Checking patch (?P<file>.*)\.\.\.|Hunk #(?P<hunk>\d+) succeeded at .*\(offset (?P<lines>-?\d+) lines?\)\.)$"
)


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
    says that the work tree was edited on top; ``dirty_digest`` is then git's id of the tree as it is.
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
                files=dict(entry.get("files", {})),
                kconfig=tuple(entry.get("kconfig", ())),
                values=dict(entry.get("values", {})),
                at={kernel: dict(table) for kernel, table in entry.get("at", {}).items()},
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
    return letter(
        series, f"[PATCH{mark}] {patch.subject}", _log(series, patch) + "---\n\n" + render_diff(series, patch, kernel)
    )


def letter(series: Series, subject: str, body: str) -> str:
    """A mail from the author of the series, dated as the series is."""
    return f"From: {series.author}\nDate: {series.date}\nSubject: {subject}\n\n{body}-- \nparaksm\n"


def _log(series: Series, patch: Patch) -> str:
    return f"{patch.message}\n\nSigned-off-by: {series.author}\n"


def render_diff(series: Series, patch: Patch, kernel: str) -> str:
    """The diff of one patch for one kernel: hunks of its template, then its new files."""
    parts = [_render_template(series, patch, kernel)] if patch.template else []
    for target, origin in sorted(patch.files.items()):
        parts.append(_new_file(target, (series.root / origin).read_text()))
    return "".join(parts)


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
        state = _settle(tree)
        present = edited_tree(tree)
        dirty = present != _tree_of(tree, state.get("commit") or "base")
        if state.get("series_digest") != wanted:
            commit, offsets = commit_series(tree, series)
            for line in offsets:
                ui().warn(f"{tree.kind} {tree.version}: {line}; `harness patch refresh --lines` mends the number")
            if not dirty:
                _switch(tree, state, commit)
            elif present == _tree_of(tree, commit):  # the edits are what the series now says
                git(tree.path, "symbolic-ref", "HEAD", "refs/heads/paraksm")
                git(tree.path, "reset", "-q", "--mixed", commit)
                dirty = False
            else:
                raise PatchError(
                    f"{tree.path} has local edits on top of an older series",
                    hint=f"`git -C {tree.path} stash --include-untracked` keeps them aside; "
                    "undo the change of the series and `harness patch refresh` makes them part of it",
                )
            state = {"series_digest": wanted, "commit": commit}
            state["tree_id"] = _tree_of(tree, commit)
            atomic_write(_state_file(tree), json.dumps(state))
    return AppliedSeries(tree, state["tree_id"], wanted, dirty, present if dirty else None)


def _tree_of(tree: SourceTree, commit: str) -> str:
    return git(tree.path, "rev-parse", f"{commit}^{{tree}}")


def _state_file(tree: SourceTree) -> Path:
    return tree.path / ".git" / "paraksm.json"


def state_of(tree: SourceTree) -> dict[str, str]:
    """What is applied to a tree: ``commit``, ``tree_id``, ``series_digest``; empty if nothing is."""
    try:
        state = json.loads(_state_file(tree).read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _switch(tree: SourceTree, state: dict[str, str], commit: str) -> None:
    """Move the work tree to a commit; git rewrites only files that differ, so builds stay incremental."""
    atomic_write(_state_file(tree), json.dumps({**state, "moving": commit}))
    git(tree.path, "checkout", "-q", "-B", "paraksm", commit)


def _settle(tree: SourceTree) -> dict[str, str]:
    """Finish a switch that was killed half-way; what the tree held then is kept as a diff."""
    state = state_of(tree)
    target = state.pop("moving", None)
    if target is None:
        return state
    (tree.path / ".git" / "index.lock").unlink(missing_ok=True)
    kept = tree.path / ".git" / "paraksm-interrupted.diff"
    atomic_write(kept, git(tree.path, "diff", "--binary", "--no-ext-diff", target))
    ui().warn(f"{tree.path}: finishing an apply that was interrupted; what the tree held is in {kept}")
    git(tree.path, "symbolic-ref", "HEAD", "refs/heads/paraksm")
    git(tree.path, "reset", "-q", "--hard", target)
    return {**state, "commit": target, "series_digest": ""}


def commit_series(tree: SourceTree, series: Series) -> tuple[str, list[str]]:
    """Make the commits on top of ``base`` without touching the work tree.

    Returns:
        The last commit's id, and a line for each hunk that was found at another place than its header says.

    Raises:
        PatchError: a hunk does not apply; context must match whole, only its line may differ.
    """
    parent = git(tree.path, "rev-parse", "base^{commit}")
    offsets: list[str] = []
    for patch in series.for_kernel(tree.series):
        parent, moved = commit_patch(tree, series, patch, parent)
        offsets += moved
    return parent, offsets


def commit_patch(tree: SourceTree, series: Series, patch: Patch, parent: str) -> tuple[str, list[str]]:
    """Commit one patch on top of ``parent``; returns as :func:`commit_series` does."""
    diff = render_diff(series, patch, tree.series)
    if not diff:
        raise PatchError(f"{patch.id} is empty for {tree.series}", hint="give it a template or files in series.toml")
    with scratch_index(tree, parent) as env:
        try:
            said = git_stderr(tree, "apply", "--cached", "--verbose", "--whitespace=nowarn", "-", env=env, input=diff)
        except CommandFailed as error:
            raise PatchError(_explain(tree, patch, diff, error.completed.stderr, env)) from error
        snapshot = git(tree.path, "write-tree", env=env)
    message = f"{patch.subject}\n\n{_log(series, patch)}"
    return git(tree.path, "commit-tree", snapshot, "-p", parent, input=message), list(_offsets(patch, said))


def git_stderr(tree: SourceTree, *words: str, env: dict[str, str], input: str) -> str:
    """Run git for what it says, not for what it prints."""
    return run(["git", "-C", tree.path, *words], env={**GIT_IDENTITY, **env, "LC_ALL": "C"}, input=input).stderr


@contextlib.contextmanager
def scratch_index(tree: SourceTree, start: str) -> Iterator[dict[str, str]]:
    """An index of our own that holds ``start``; the work tree's is not touched."""
    with tempfile.TemporaryDirectory(prefix="paraksm-", dir=tree.path / ".git") as folder:
        env = {"GIT_INDEX_FILE": f"{folder}/index"}
        git(tree.path, "read-tree", start, env=env)
        yield env


def _offsets(patch: Patch, said: str) -> Iterator[str]:
    file = ""
    for line in said.splitlines():
        match = _OFFSET.match(line)
        if match and match["file"]:
            file = match["file"]
        elif match:
            yield f"{patch.id}: {file} hunk {match['hunk']} is {match['lines']} lines off"


def edited_tree(tree: SourceTree) -> str:
    """Git's id of the work tree as it is, edits and new files (but not ignored ones) included."""
    with tempfile.TemporaryDirectory(prefix="paraksm-", dir=tree.path / ".git") as folder:
        env = {"GIT_INDEX_FILE": f"{folder}/index"}
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(tree.path / ".git" / "index", env["GIT_INDEX_FILE"])  # spares hashing what did not change
        git(tree.path, "add", "--all", env=env)
        return git(tree.path, "write-tree", env=env)


def _explain(tree: SourceTree, patch: Patch, diff: str, said: str, env: dict[str, str]) -> str:
    """Say which hunk failed, and what the file has where its context should be."""
    match = re.search(r"patch failed: (\S+):(\d+)", said)
    if not match:
        return f"{patch.id} does not apply to {tree.kind} {tree.version}: {said.strip()}"
    name, line = match[1], int(match[2])
    hunk = _hunk_at(diff, name, line)
    present = git(tree.path, "show", f":{name}", env=env, check=False).splitlines()
    found, near = nearest_context(present, hunk, line)
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


def nearest_context(present: list[str], wanted: list[str], around: int = 1) -> tuple[int, list[str]]:
    """The place in a file most like the wanted lines: its first line number and the lines there.

    Most equal lines decide, then the likeness of the text, then the distance from line ``around``.
    """
    bag, size = set(wanted), len(wanted)
    starts = range(max(1, len(present) - size + 1))
    scores = [sum(row in bag for row in present[start : start + size]) for start in starts]
    best = [start for start in starts if scores[start] == max(scores)]
    best = sorted(best, key=lambda start: abs(start + 1 - around))[:50]
    text = "\n".join(wanted)
    chosen = max(best, key=lambda at: difflib.SequenceMatcher(None, text, "\n".join(present[at : at + size])).ratio())
    return chosen + 1, present[chosen : chosen + size]
