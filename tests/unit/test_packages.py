# SPDX-License-Identifier: GPL-2.0-or-later
"""System packages, with a dpkg and an apt of our own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness import packages
from harness.errors import EnvironmentProblem, UsageError

_DPKG = """#!/bin/sh
cat "$FAKE_STATE/installed"
"""
_APT = """#!/bin/sh
echo "$*" >> "$FAKE_STATE/apt-calls"
for word; do last=$word; done
case "$*" in
*" update"*) exit 0 ;;
*" install"*)
    [ -f "$FAKE_STATE/broken" ] && { echo "E: Unable to locate package"; exit 100; }
    if [ -f "$FAKE_STATE/stale" ]; then rm "$FAKE_STATE/stale"; echo "E: 404"; exit 100; fi
    for word; do
        case $word in -*|*=*|install) ;; *) printf 'installed\\t%s\\t\\n' "$word" >> "$FAKE_STATE/installed" ;; esac
    done ;;
esac
"""


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system on which nothing is installed; returns the directory of its state."""
    tools, state = tmp_path / "bin", tmp_path / "state"
    tools.mkdir()
    state.mkdir()
    (state / "installed").touch()
    for name, text in (("dpkg-query", _DPKG), ("apt-get", _APT)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_STATE", str(state))
    monkeypatch.setattr(packages, "_LISTS", state / "lists")
    return state


def _calls(state: Path) -> list[str]:
    path = state / "apt-calls"
    words = path.read_text().splitlines() if path.exists() else []
    return ["update" if " update" in line else "install" for line in words]


def test_nothing_installed(debian: Path) -> None:
    """Everything of the task is missing, in the table's order, once."""
    assert packages.missing("kernel") == list(dict.fromkeys(packages.TASKS["kernel"]))


def test_provided_and_removed_packages(debian: Path) -> None:
    """A provided name counts; a package that was removed but left its configuration does not."""
    (debian / "installed").write_text("installed\tlibslirp0t64\tlibslirp0 (= 4.8)\nconfig-files\tlibfdt1\t\n")
    missing = packages.missing("boot")
    assert "libslirp0" not in missing
    assert "libfdt1" in missing


def test_root_installs(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root: lists are fetched if there are none, then one installation; the second call does nothing."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    packages.require("kernel")
    assert _calls(debian) == ["update", "install"]
    packages.require("kernel")
    assert _calls(debian) == ["update", "install"]
    assert packages.missing("kernel") == []


def test_stale_lists(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror that has moved on is asked for its lists again."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (debian / "lists" / "partial").mkdir(parents=True)
    (debian / "lists" / "mirror_Packages").touch()
    (debian / "stale").touch()
    packages.require("image")
    assert _calls(debian) == ["install", "update", "install"]


@pytest.mark.parametrize(("age", "calls"), [(3600, ["install"]), (2 * packages.DAY, ["update", "install"])])
def test_lists_are_fetched_again_after_a_day(
    debian: Path, monkeypatch: pytest.MonkeyPatch, age: float, calls: list[str]
) -> None:
    """apt dates lists as the mirror does; its working directory says when it last asked."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (debian / "lists" / "partial").mkdir(parents=True)
    (debian / "lists" / "mirror_Packages").touch()
    asked = time.time() - age
    os.utime(debian / "lists" / "partial", (asked, asked))
    packages.require("image")
    assert _calls(debian) == calls


def test_several_tasks_are_one_installation(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command needs in all is asked for once, and nothing else."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    packages.require("sources", "image", "boot")
    assert _calls(debian) == ["update", "install"]
    assert packages.missing("boot", "image", "sources") == []
    assert "ninja-build" in packages.missing("qemu")


def test_user_gets_one_command(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root nothing is started; the hint installs what every task lacks, at once."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EnvironmentProblem) as caught:
        packages.require("kernel")
    assert caught.value.hint
    assert "\n" not in caught.value.hint
    assert caught.value.hint.startswith("sudo apt-get update && sudo apt-get install -y")
    for name in ("flex", "ninja-build", "openssh-client"):
        assert f" {name}" in caught.value.hint
    assert _calls(debian) == []


def test_failed_installation(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What apt said is in the message, the log is named."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (debian / "broken").touch()
    with pytest.raises(EnvironmentProblem, match="Unable to locate package") as caught:
        packages.require("qemu")
    assert caught.value.log
    assert caught.value.log.exists()


def test_unknown_task(debian: Path) -> None:
    """A misspelt task is an error, not an empty list."""
    with pytest.raises(UsageError):
        packages.missing("kernle")
