# SPDX-License-Identifier: GPL-2.0-or-later
"""Listing and pruning the cache."""

from __future__ import annotations

import json
import subprocess

import pytest
from typer.testing import CliRunner

from harness import cache
from harness.config import lock, paths
from harness.errors import UsageError


def _file(kind: str, name: str, size: int = 10000) -> None:
    path = paths().cache / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_entries() -> None:
    """Each build is an entry, the compiler cache is one, lock files are none."""
    _file("builds", "linux-a/vmlinux")
    _file("builds", ".linux-a.lock")
    _file("ccache", "0/1")
    _file("ccache", "0/2")
    found = {(entry.kind, entry.path.name): entry.size for entry in cache.entries()}
    assert set(found) == {("builds", "linux-a"), ("ccache", "ccache")}
    assert found["ccache", "ccache"] >= 20000


def test_prune_removes_only_what_was_named() -> None:
    """Other kinds stay; a dry run removes nothing."""
    _file("builds", "linux-a/vmlinux")
    _file("images", "a.cpio")
    assert [note for _entry, note in cache.prune(["builds"], dry_run=True)] == ["would be removed"]
    assert (paths().builds / "linux-a").exists()
    assert [note for _entry, note in cache.prune(["builds"])] == ["removed"]
    assert not (paths().builds / "linux-a").exists()
    assert (paths().images / "a.cpio").exists()


def test_prune_leaves_a_build_under_way_alone() -> None:
    """Whoever holds the lock keeps the directory."""
    _file("builds", "linux-a/vmlinux")
    with lock(paths().builds / ".linux-a.lock", what="kernel"):
        ((_entry, note),) = cache.prune(["builds"])
    assert note.startswith("kept")
    assert (paths().builds / "linux-a" / "vmlinux").exists()


def test_prune_keeps_edited_trees() -> None:
    """Nobody's edits are thrown away."""
    for name in ("edited", "clean"):
        tree = paths().trees / name
        _file("trees", f"{name}/file")
        git = ["git", "-C", str(tree), "-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "add", "file"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    (paths().trees / "edited" / "file").write_text("an edit")
    notes = {entry.path.name: note for entry, note in cache.prune(["trees"])}
    assert notes["clean"] == "removed"
    assert notes["edited"].startswith("kept")
    assert (paths().trees / "edited" / "file").read_text() == "an edit"


def test_unknown_kind() -> None:
    """The kinds there are, are listed."""
    with pytest.raises(UsageError, match="'bilds'"):
        cache.entries(["bilds"])


def test_command_line() -> None:
    """Sizes as JSON; pruning wants to be told what."""
    from harness.cli.main import app

    _file("images", "a.cpio")
    listed = json.loads(CliRunner().invoke(app, ["cache", "list", "--json"]).stdout)
    assert [entry["kind"] for entry in listed] == ["images"]
    assert isinstance(CliRunner().invoke(app, ["cache", "prune"]).exception, UsageError)
    assert "a.cpio" in CliRunner().invoke(app, ["cache", "prune", "images"]).stdout
    assert cache.entries() == []
