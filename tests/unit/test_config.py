# SPDX-License-Identifier: GPL-2.0-or-later
"""Directories, locks and files that are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
from collections.abc import Iterator
from multiprocessing.context import ForkProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from harness import config
from harness.errors import Busy, EnvironmentProblem


def test_cache_follows_xdg(isolated_home: Path) -> None:
    assert config.paths().trees == isolated_home / "cache" / "paraksm" / "trees"
    assert config.paths().trees.is_dir()
    assert config.paths().results == isolated_home / "results"


def _hold(path: Path, ready: Event, done: Event) -> None:
    with config.lock(path, what="the tree"):
        ready.set()
        done.wait(30)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[tuple[ForkProcess, Event]]:
    """Another process that holds the lock until the event is set."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(path, ready, done))
    holder.start()
    assert ready.wait(20)
    yield holder, done
    holder.join()


def test_lock_names_its_holder_and_is_free_afterwards(tmp_path: Path) -> None:
    with _held(tmp_path / "x.lock") as (holder, done):
        with pytest.raises(Busy, match=f"pid {holder.pid}"), config.lock(tmp_path / "x.lock", what="the tree"):
            pass
        done.set()
    with config.lock(tmp_path / "x.lock", what="the tree"):
        pass


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    with _held(tmp_path / "x.lock") as (holder, _done):
        holder.kill()
    with config.lock(tmp_path / "x.lock", what="the tree"):
        pass


def test_failed_directory_leaves_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "tree"
    with config.atomic_dir(final) as work:
        (work / "a").write_text("old")
    with pytest.raises(RuntimeError), config.atomic_dir(final) as work:
        (work / "a").write_text("half")
        raise RuntimeError
    assert (final / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_full_disk_keeps_the_old_file_and_names_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "index.json"
    config.atomic_write(target, "old")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EnvironmentProblem, match="no space left"):
        config.atomic_write(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_need_disk_compares_with_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "free_bytes", lambda _path: 2**30)
    config.need_disk(tmp_path, 2**29, "a build")
    with pytest.raises(EnvironmentProblem, match=r"needs 5\.0 GiB.*1\.0 GiB are free"):
        config.need_disk(tmp_path, 5 * 2**30, "a build")


def test_canonical_digest_ignores_key_order() -> None:
    assert config.sha256_json({"a": 1, "b": [2]}) == config.sha256_json({"b": [2], "a": 1})
    assert config.sha256_json({"a": 1}) != config.sha256_json({"a": 2})
