# SPDX-License-Identifier: GPL-2.0-or-later
"""Fold an edited tree back into a series: templates, whole files, line numbers, renderings.

A hunk that the author left alone keeps its template text, loops and conditions included. A hunk that was
changed, or is new, becomes literal text under a name of its own. The result counts only if it reproduces
the edited tree byte for byte; otherwise every file of the series is put back.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import patches, patchseries, sources
from harness.config import atomic_write
from harness.errors import PatchError, UsageError
from harness.patchseries import Patch, Series, TemplateHunk
from harness.run import CommandFailed
from harness.sources import SourceTree, git

if TYPE_CHECKING:
    from unidiff.patch import Hunk

_CHUNK = re.compile(r"^(?=--- a/|@@ \{\{ at\.)", re.MULTILINE)
_NAME = re.compile(r"@@ \{\{ at\.(\w+) \}\} @@")
_FILE = re.compile(r"--- a/(\S+)\n")


@dataclass(frozen=True)
class Refreshed:
    """Files of the project that changed, and what is left for the author to look at."""

    changed: list[Path]
    by_hand: list[str]


@dataclass
class _Draft:
    """A patch as it will be: literal hunks by file, names of template hunks that stay, line numbers."""

    keep: set[str] = field(default_factory=set)
    literal: dict[str, list[tuple[str, Hunk]]] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)


def refresh(series: Series, tree: SourceTree, patch_id: str | None = None) -> Refreshed:
    """Make the edits of an applied tree part of one patch.

    Args:
        series: the series that is applied to the tree.
        tree: the edited tree.
        patch_id: which patch takes the edit; the last if ``None``.

    Raises:
        UsageError: no such patch, or the series is not what is applied.
        PatchError: the edit cannot be expressed; nothing was changed.
    """
    state = patches.state_of(tree)
    if state.get("series_digest") != patchseries.digest(series, tree.series):
        raise UsageError(
            f"{tree.path} carries another series than patches/{series.topic} describes",
            hint="`harness patch apply`, or undo the change of patches/ first",
        )
    patch, before, after = _chain(_placed(series, tree), tree, state["commit"], patch_id)
    whole = patches.edited_tree(tree)
    if whole == state["tree_id"]:
        return Refreshed([], [])
    target = _moved_to(tree, state["commit"], after, whole, patch)
    with _undone_on_failure(series) as snapshot:
        _rewrite(series, tree, patch, before, after, target)
        by_hand = _relocate_all(patchseries.load(series.topic, series.root), tree)
        fresh = patchseries.load(series.topic, series.root)
        patchseries.generate(fresh)
        _prove(fresh, tree, whole)
        return Refreshed(snapshot.changed(), by_hand)


def relocate(series: Series, tree: SourceTree) -> Refreshed:
    """Recompute the line of every hunk in a tree by its exact context, and render again.

    Raises:
        PatchError: a context is not in the tree; the message shows what is there instead.
    """
    with _undone_on_failure(series) as snapshot:
        numbers, problems = locate(series, tree)
        if problems:
            raise PatchError("\n".join(problems), hint="edit the template; docs/patches.md says how")
        _store_numbers(series, tree.series, numbers)
        patchseries.generate(patchseries.load(series.topic, series.root))
        return Refreshed(snapshot.changed(), [])


class _Snapshot:
    """Every file of a series as it was."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._was = self._read()

    def _read(self) -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in self._root.rglob("*") if file.is_file()}

    def changed(self) -> list[Path]:
        now = self._read()
        return sorted(file for file in {*now, *self._was} if now.get(file) != self._was.get(file))

    def restore(self) -> None:
        for file in self.changed():
            if file in self._was:
                atomic_write(file, self._was[file])
            else:
                file.unlink()


@contextlib.contextmanager
def _undone_on_failure(series: Series) -> Iterator[_Snapshot]:
    snapshot = _Snapshot(series.root)
    try:
        yield snapshot
    except BaseException:
        snapshot.restore()
        raise


def _placed(series: Series, tree: SourceTree) -> Series:
    """The series with the line numbers of a tree, which may be another release than the committed ones are of."""
    numbers, problems = locate(series, tree)
    if problems:
        raise PatchError("\n".join(problems))
    return replace(
        series,
        patches=tuple(
            replace(patch, at={**patch.at, tree.series: numbers[patch.id]}) if patch.id in numbers else patch
            for patch in series.patches
        ),
    )


# --- what the author did ------------------------------------------------------------------------------


def _chain(series: Series, tree: SourceTree, commit: str, patch_id: str | None) -> tuple[Patch, str, str]:
    """The patch that takes the edit, and the commits before and after it."""
    chosen = series.for_kernel(tree.series)
    if not chosen:
        raise UsageError(f"the {series.topic} series has no patch yet", hint="add one to series.toml first")
    commits = git(tree.path, "rev-list", "--reverse", f"base..{commit}").split()
    ids = [patch.id for patch in chosen]
    name = series.find(patch_id).id if patch_id else ids[-1]
    if name not in ids:
        raise UsageError(f"{name} is not for {tree.series}", hint=f"one of: {', '.join(ids)}")
    place = ids.index(name)
    return chosen[place], ["base", *commits][place], commits[place]


def _moved_to(tree: SourceTree, top: str, after: str, whole: str, patch: Patch) -> str:
    """The tree after ``patch`` once it holds the edit; later patches stay on top of it."""
    if top == after:
        return whole
    edit = git(tree.path, "diff", "--binary", "--no-ext-diff", f"{top}^{{tree}}", whole) + "\n"
    with patches.scratch_index(tree, after) as env:
        try:
            git(tree.path, "apply", "--cached", "--whitespace=nowarn", "-", env=env, input=edit)
        except CommandFailed as error:
            raise PatchError(
                f"the edit touches what a patch after {patch.id} made: {error.completed.stderr.strip()}",
                hint="name that later patch",
            ) from error
        return git(tree.path, "write-tree", env=env)


# --- the template -------------------------------------------------------------------------------------


def _rewrite(series: Series, tree: SourceTree, patch: Patch, before: str, after: str, target: str) -> None:
    """Write template, whole files and numbers of ``patch`` so that it leads from ``before`` to ``target``."""
    old, new = _diff(tree, before, after), _diff(tree, before, target)
    kernel = tree.series
    template = series.root / (patch.template or f"hooks/{patch.id}.diff.j2")
    text = template.read_text() if template.exists() else "{# SPDX-License-Identifier: GPL-2.0-only #}\n"
    hunks = patchseries.hunks(series, patch, kernel)
    # what is not rendered for this kernel is another kernel's business
    draft = _Draft(keep=set(_NAME.findall(text)) - {hunk.mark for hunk in hunks})
    files = dict(patch.files)
    for path in sorted({*old, *new, *(hunk.path for hunk in hunks)}):
        if path in files or not _has(tree, before, path):
            _whole_file(series, tree, files, path, target)
        else:
            mine = [hunk for hunk in hunks if hunk.path == path]
            _sort_out(draft, path, patch.at, kernel, mine, old.get(path, []), new.get(path, []))
    at = _spread(patch, kernel, draft, hunks)
    composed = _compose(text, draft, at.get(kernel, {}))
    if _NAME.search(composed):
        atomic_write(template, composed)
        _store(series, patch.id, str(template.relative_to(series.root)), files, at)
    else:
        template.unlink(missing_ok=True)
        _store(series, patch.id, None, files, {})


def _diff(tree: SourceTree, old: str, new: str) -> dict[str, list[Hunk]]:
    from unidiff.patch import PatchSet

    plain = ("--no-ext-diff", "--no-color", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/")
    text = git(tree.path, "diff", *plain, old, new)
    if re.search(r"^Binary files ", text, re.MULTILINE):
        raise PatchError("a binary file changed; a series holds text only", hint="remove it from the tree")
    if re.search(r"^\\ No newline", text, re.MULTILINE):
        raise PatchError("a changed file lacks the newline at its end", hint="add it")
    return {file.path: list(file) for file in PatchSet(text + "\n")}


def _has(tree: SourceTree, commit: str, path: str) -> bool:
    return bool(git(tree.path, "ls-tree", "--name-only", commit, "--", path))


def _whole_file(series: Series, tree: SourceTree, files: dict[str, str], path: str, target: str) -> None:
    """A file that upstream lacks is kept as it is below src/, one for all kernels."""
    if not _has(tree, target, path):
        (series.root / files.pop(path)).unlink(missing_ok=True)
        return
    files.setdefault(path, f"src/{path}")
    atomic_write(series.root / files[path], git(tree.path, "show", f"{target}:{path}") + "\n")


def _sort_out(
    draft: _Draft,
    path: str,
    at: Mapping[str, Mapping[str, int]],
    kernel: str,
    mine: list[TemplateHunk],
    old: list[Hunk],
    new: list[Hunk],
) -> None:
    """Decide for one file which template hunks stay and which hunks of the edit become literal."""
    start = {hunk.mark: at[kernel][hunk.mark] for hunk in mine}
    spans = {hunk.mark: range(start[hunk.mark], start[hunk.mark] + max(1, len(hunk.old))) for hunk in mine}
    before = {_key(hunk) for hunk in old}
    literal = [hunk for hunk in new if _key(hunk) not in before]
    while True:  # a template hunk that goes takes all of what it made with it
        gone = {
            name
            for name, span in spans.items()
            if any(_meets(one, span) for one in literal) or not any(_meets(one, span) for one in new)
        }
        more = [hunk for hunk in new if hunk not in literal and any(_meets(hunk, spans[name]) for name in gone)]
        if not more:
            break
        literal += more
    draft.keep |= set(spans) - gone
    taken = {name for table in at.values() for name in table} | set(draft.at)
    for hunk in sorted(literal, key=lambda one: one.source_start):
        reuse = [name for name in spans if name in gone and _meets(hunk, spans[name]) and name not in draft.at]
        name = reuse[0] if reuse else _new_name(path, hunk, taken)
        taken.add(name)
        draft.at[name] = hunk.source_start
        draft.literal.setdefault(path, []).append((name, hunk))


def _key(hunk: Hunk) -> tuple[int, str]:
    return hunk.source_start, _rows(hunk)


def _rows(hunk: Hunk) -> str:
    return str(hunk).partition("\n")[2]


def _meets(hunk: Hunk, span: range) -> bool:
    return bool(hunk.source_start < span.stop and span.start < hunk.source_start + max(1, hunk.source_length))


def _new_name(path: str, hunk: Hunk, taken: set[str]) -> str:
    """Name a hunk after the function it is in, or after its file."""
    match = re.search(r"(\w+)\(", hunk.section_header or "")
    stem = match[1] if match else re.sub(r"\W", "_", Path(path).stem)
    stem = stem if not stem[0].isdigit() else f"_{stem}"
    numbered = (f"{stem}_{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([stem], numbered) if name not in taken)


def _compose(text: str, draft: _Draft, numbers: Mapping[str, int]) -> str:
    """The template with its kept hunks and the literal ones, in the order of their lines."""
    head, *chunks = _CHUNK.split(text)
    sections: dict[str, list[str]] = {}
    titles: dict[str, str] = {}
    path = ""
    for chunk in chunks:
        if title := _FILE.match(chunk):
            path = title[1]
            titles[path] = chunk
        elif _name_of(chunk) in draft.keep:
            sections.setdefault(path, []).append(chunk)
    for path, hunks in draft.literal.items():
        titles.setdefault(path, f"--- a/{path}\n+++ b/{path}\n")
        for name, hunk in hunks:
            section = f" {hunk.section_header}" if hunk.section_header else ""
            made = f"@@ {{{{ at.{name} }}}} @@{_quoted(section)}\n{_quoted(_rows(hunk))}"
            present = sections.setdefault(path, [])
            after = [i for i, chunk in enumerate(present) if numbers.get(_name_of(chunk), 0) > hunk.source_start]
            present.insert(after[0] if after else len(present), made)
    return head + "".join(titles[path] + "".join(sections[path]) for path in titles if sections.get(path))


def _name_of(chunk: str) -> str:
    match = _NAME.match(chunk)
    return match[1] if match else ""


def _quoted(text: str) -> str:
    """Literal text for Jinja2."""
    return re.sub(r"\{[{%#]", lambda match: f"{{{{ '{match[0]}' }}}}", text)


def _spread(patch: Patch, kernel: str, draft: _Draft, hunks: list[TemplateHunk]) -> dict[str, dict[str, int]]:
    """Line numbers of all kernels; those of new hunks are estimates where no tree has been looked at."""
    here = {**patch.at.get(kernel, {}), **draft.at}
    where = {hunk.mark: hunk.path for hunk in hunks}
    where |= {name: path for path, rows in draft.literal.items() for name, _ in rows}
    result: dict[str, dict[str, int]] = {}
    for other in patch.kernels:
        known = patch.at.get(other, {})
        table = {name: line for name, line in known.items() if name in draft.keep}
        for name, line in draft.at.items():
            beside = [one for one in known if where.get(one) == where[name] and one in patch.at.get(kernel, {})]
            near = min(beside, key=lambda one: abs(patch.at[kernel][one] - line), default=None)
            table[name] = line + (known[near] - patch.at[kernel][near] if near else 0)
        result[other] = table
    result[kernel] = {name: line for name, line in here.items() if name in draft.keep or name in draft.at}
    return result


# --- series.toml --------------------------------------------------------------------------------------


def _document(series: Series) -> Any:
    import tomlkit

    return tomlkit.parse((series.root / "series.toml").read_text())


def _entry(document: Any, patch_id: str) -> Any:
    return next(entry for entry in document["patch"] if entry["id"] == patch_id)


def _store(
    series: Series, patch_id: str, template: str | None, files: Mapping[str, str], at: Mapping[str, Mapping[str, int]]
) -> None:
    """Write a patch's template, files and numbers, and leave comments and everything else as they are."""
    document = _document(series)
    entry = _entry(document, patch_id)
    if template is None:
        entry.pop("template", None)
    elif entry.get("template") != template:
        entry["template"] = template
    if files != dict(entry.get("files", {})):
        entry["files"] = dict(files)
    if not at:
        entry.pop("at", None)
    for kernel, table in at.items():
        _set_numbers(entry, kernel, table)
    atomic_write(series.root / "series.toml", document.as_string())


def _store_numbers(series: Series, kernel: str, numbers: Mapping[str, Mapping[str, int]]) -> None:
    document = _document(series)
    for patch_id, table in numbers.items():
        if table:
            _set_numbers(_entry(document, patch_id), kernel, table)
    atomic_write(series.root / "series.toml", document.as_string())


def _set_numbers(entry: Any, kernel: str, table: Mapping[str, int]) -> None:
    import tomlkit

    if "at" not in entry:
        entry["at"] = tomlkit.table(is_super_table=True)
    if kernel not in entry["at"]:
        entry["at"][kernel] = tomlkit.table()
    present = entry["at"][kernel]
    for name in [name for name in present if name not in table]:
        present.remove(name)
    for name, line in table.items():
        if present.get(name) != line:
            present[name] = line


# --- where hunks are ----------------------------------------------------------------------------------


def locate(series: Series, tree: SourceTree) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Find every hunk in a tree by its exact context.

    Returns:
        Patch -> hunk -> line, and a description of each hunk that is nowhere; patches after it are not tried.
    """
    parent = "base"
    numbers: dict[str, dict[str, int]] = {}
    for patch in series.for_kernel(tree.series):
        table, problems = _locate_patch(series, patch, tree, parent)
        if problems:
            return numbers, problems
        numbers[patch.id] = table
        moved = replace(patch, at={**patch.at, tree.series: table})
        parent, _ = patches.commit_patch(tree, series, moved, parent)
    return numbers, []


def _locate_patch(series: Series, patch: Patch, tree: SourceTree, parent: str) -> tuple[dict[str, int], list[str]]:
    table: dict[str, int] = {}
    problems: list[str] = []
    path, drift, present = "", 0, [""]
    for hunk in patchseries.hunks(series, patch, tree.series):
        if hunk.path != path:
            path, drift = hunk.path, 0
            present = git(tree.path, "show", f"{parent}:{path}", check=False).splitlines()
        rows = hunk.old
        places = [i + 1 for i in range(len(present)) if present[i : i + len(rows)] == rows]
        said = patch.at.get(tree.series, {}).get(hunk.mark, 1)
        if places:
            table[hunk.mark] = min(places, key=lambda line: abs(line - said - drift))
            drift = table[hunk.mark] - said
            continue
        line, near = patches.nearest_context(present, rows, said + drift)
        shown = difflib.unified_diff(rows, near, "as the template expects it", f"{path}:{line} as it is", lineterm="")
        problems.append(f"{tree.series}: {patch.id}, hunk {hunk.mark} is nowhere in {path}\n" + "\n".join(shown))
    return table, problems


def _relocate_all(series: Series, tree: SourceTree) -> list[str]:
    """Store exact numbers for every kernel whose tree is here; say which kernels need the author.

    Committed numbers are those of the release that is pinned first, whichever of its series was edited.
    """
    by_hand: list[str] = []
    pinned = [found for _, found in sources.obtainable(tree.kind) if found]
    trees = {found.series: found for found in (tree, *reversed(pinned))}
    for kernel in series.kernels:
        other = trees.get(kernel)
        if other is None:
            by_hand.append(f"{kernel}: no tree here; its line numbers are estimates until `patch refresh --lines`")
            continue
        numbers, problems = locate(series, other)
        _store_numbers(series, kernel, numbers)
        by_hand += problems
    return by_hand


def _prove(series: Series, tree: SourceTree, whole: str) -> None:
    """The new series must give the edited tree, byte for byte; then the tree is clean again."""
    commit, _ = patches.commit_series(tree, series)
    made = git(tree.path, "rev-parse", f"{commit}^{{tree}}")
    if made != whole:
        shown = git(tree.path, "diff", "--no-ext-diff", "--no-color", made, whole)
        raise PatchError(
            f"the refreshed series would miss this part of your edit:\n{shown}",
            hint="a hunk inside a Jinja2 condition must be edited by hand in the template; nothing was changed",
        )
    if patches.apply(tree, series).dirty:
        raise PatchError(f"{tree.path} changed while it was refreshed", hint="run the command again")
