# SPDX-License-Identifier: GPL-2.0-or-later
"""Put a patch series on a tree: one git commit a patch, zero fuzz, the user's edits kept.

Commits have a fixed identity and date, so their ids are the same on every machine. They are made beside the
work tree, which then moves to the last of them; git rewrites only the files that differ.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.config import atomic_write, lock
from harness.errors import PatchError
from harness.patchseries import TOPICS, Patch, Series, digest, load, log_message, render_diff
from harness.run import CommandFailed, run
from harness.sources import GIT_IDENTITY, SourceTree, beside, git
from harness.ui import ui

# what editors and patch(1) leave behind is nobody's edit
_LEFTOVERS = tuple(f":(exclude,glob)**/{name}" for name in ("*.orig", "*.rej", "*~", ".*.sw?"))
_OFFSET = re.compile(
    r"^(?:Checking patch (?P<file>.*)\.\.\.|Hunk #(?P<hunk>\d+) succeeded at .*\(offset (?P<lines>-?\d+) lines?\)\.)$"
)


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
    series: Series | None = field(default=None, compare=False, repr=False)

    @property
    def provides(self) -> frozenset[str]:
        """What the patched tree can, in the words of ``harness/systems.toml``."""
        return self.series.provides(self.tree.series) if self.series else frozenset()

    @property
    def upto(self) -> str | None:
        """The patch that the series was cut after, if it was."""
        return self.series.upto if self.series else None


def apply(tree: SourceTree, series: Series | None = None, *, upto: str | None = None) -> AppliedSeries:
    """Apply the series of a tree's kind, each patch as a commit with a fixed identity and date.

    Nothing happens, and no time stamp moves, if the tree already carries exactly this series. Local edits
    are kept: they only make the result ``dirty``. A part of the series goes to a second work tree, which all
    such parts share, so that the first keeps what it has.

    Args:
        tree: what to patch.
        series: what to apply; by default the project's.
        upto: only up to this patch, ``base`` for none.

    Raises:
        PatchError: a hunk does not apply, or the series changed under local edits.
        UsageError: the series has no such patch.
    """
    series = (series or load(TOPICS[tree.kind])).prefix(upto)
    if series.upto is not None:
        tree = beside(tree)
    with _locked(tree):
        return _bring(tree, series)


@contextlib.contextmanager
def held(applied: AppliedSeries) -> Iterator[None]:
    """Keep a tree as it is while it is built.

    Whoever builds a part of the series needs this: another may want another part in the same tree. The tree
    of the whole series is the user's; it changes only with the series.

    Raises:
        PatchError: the tree was edited since it was applied.
    """
    if applied.upto is None or applied.series is None:
        yield
        return
    with _locked(applied.tree):
        if _bring(applied.tree, applied.series) != applied:
            raise PatchError(f"{applied.tree.path} was edited meanwhile", hint="run the same command again")
        yield


def _locked(tree: SourceTree) -> contextlib.AbstractContextManager[None]:
    return lock(tree.path.parent / f".{tree.path.name}.lock", what=f"the tree {tree.path}", wait=300)


def _bring(tree: SourceTree, series: Series) -> AppliedSeries:
    """Make a tree that is ours alone carry a series."""
    wanted = digest(series, tree.series)
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
    return AppliedSeries(tree, state["tree_id"], wanted, dirty, present if dirty else None, series)


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
    message = f"{patch.subject}\n\n{log_message(series, patch)}"
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
    """Git's id of the work tree as it is, edits and new files included.

    Ignored files, too: builds go elsewhere, and Debian's Linux ignores whatever is new below its top folder.
    """
    with tempfile.TemporaryDirectory(prefix="paraksm-", dir=tree.path / ".git") as folder:
        env = {"GIT_INDEX_FILE": f"{folder}/index"}
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(tree.path / ".git" / "index", env["GIT_INDEX_FILE"])  # spares hashing what did not change
            _freshen(tree, Path(folder), env)
        git(tree.path, "add", "--all", "--force", "--", ".", *_LEFTOVERS, env=env)
        return git(tree.path, "write-tree", env=env)


def _freshen(tree: SourceTree, folder: Path, env: dict[str, str]) -> None:
    """Record the files' present inodes and times in the tree's index, if it has others.

    A cache that was copied or restored has other ones than git noted; every look at it would hash a gigabyte.
    The index appears whole and without its lock file, which a killed git would leave behind.
    """
    index, ours = tree.path / ".git" / "index", folder / "index"
    before = ours.stat().st_ino
    git(tree.path, "update-index", "-q", "--refresh", env=env, check=False)
    if ours.stat().st_ino != before and not index.with_name("index.lock").exists():
        Path(shutil.copy2(ours, folder / "fresh")).replace(index)


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
