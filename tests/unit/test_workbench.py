# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a parallel build."""

from __future__ import annotations

import pytest

from harness import workbench
from harness.errors import BuildError, Busy


def test_a_lock_that_is_soon_free_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[Exception | str] = [Busy("taken"), Busy("taken"), "built"]

    def step() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert workbench._patiently(step) == "built"
    assert capsys.readouterr().err == ""


def test_a_long_wait_is_announced_once_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workbench, "_NOTICE", 0.05)
    monkeypatch.setattr(workbench, "_PATIENCE", 0.6)

    def step() -> str:
        raise Busy("the kernel is in use by another harness (pid 7)")

    with pytest.raises(Busy):
        workbench._patiently(step)
    assert capsys.readouterr().err.count("pid 7") == 1


def test_other_errors_are_not_waited_for() -> None:
    calls = []

    def step() -> str:
        calls.append(1)
        raise BuildError("broken")

    with pytest.raises(BuildError):
        workbench._patiently(step)
    assert len(calls) == 1
