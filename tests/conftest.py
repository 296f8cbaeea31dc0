# SPDX-License-Identifier: GPL-2.0-or-later
"""What every test gets: a home of its own."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A shell starts what it puts into the background with Ctrl-C ignored, and programs hand that on to those they start;
# tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def system_packages() -> None:
    """Compilers and archivers that tests run; installed where that is possible, listed where it is not."""
    from harness import packages

    packages.require("tests")


@pytest.fixture(autouse=True)
def isolated_home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's cache and results out of reach of every test that is not marked ``boot``."""
    if request.node.get_closest_marker("boot") is None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PARAKSM_RESULTS", str(tmp_path / "results"))
    return tmp_path
