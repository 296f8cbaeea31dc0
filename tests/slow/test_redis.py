# SPDX-License-Identifier: GPL-2.0-or-later
"""The Redis server of the recipes, built twice from nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from harness import config, images
from harness.run import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fetched() -> Path:
    """The source package in the user's cache."""
    images.program("redis-server")
    return config.paths().sources / "redis-bookworm"


def test_two_builds_in_two_places_are_the_same_bytes(
    fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for place in ("here", "a/place/with/a/longer/name"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place))  # a compiler cache of its own too
        shutil.copytree(fetched, config.paths().sources / fetched.name)
        made.append(images.program("redis-server"))
    first, second = (file.read_bytes() for file in made)
    assert first == second
    assert str(tmp_path).encode() not in first
    assert re.search(r"Redis server v=7\.0\.\d+ sha=00000000:0 malloc=libc", run([made[0], "--version"]).stdout)
