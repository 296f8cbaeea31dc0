# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress: what is left of one task, and of several that go on side by side."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import ui
from harness.ui import Together, Ui


class _Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(ui, "time", made)
    return made


Capture = pytest.CaptureFixture[str]


def test_parts_share_one_line_with_an_estimate_from_the_start(clock: _Clock, capsys: Capture) -> None:
    """At first the expectation speaks, then the pace: here everything takes twice as long as expected."""
    shown = Ui(terminal=False)
    with shown.together("kernel and QEMU", {"kernel": 300.0, "QEMU": 100.0}) as both:
        assert both.remaining() == 400.0
        with both.part("QEMU"), shown.progress("unpacking qemu") as unpacking:
            unpacking.update()
            with both.part("kernel"), shown.progress("kernel 6.1", 1000, share=True) as task:
                clock.now += 31
                task.update(0)
                assert "kernel and QEMU 0%, about 7 min left" in capsys.readouterr().err
                clock.now += 169
                task.update(done=1000 / 3)  # 100 of 400 s are done after 200
                assert both.remaining() == pytest.approx(600.0)
                said = capsys.readouterr().err
                assert "kernel and QEMU 25%, about 10 min left" in said
                assert "kernel 6.1 33%" in said
                assert "unpacking qemu" in said
            assert both.remaining() == pytest.approx(100.0 * 200 / 300)
        assert both.remaining() == 0.0


def test_what_is_only_a_stage_moves_no_bar(clock: _Clock) -> None:
    shown = Ui(terminal=False)
    with (
        shown.together("it", {"a": 10.0}) as both,
        both.part("a"),
        shown.progress("download", 100) as download,
    ):
        download.update(done=90)
        assert both.remaining() == 10.0


def test_threads_on_a_terminal_share_one_bar(capsys: Capture) -> None:
    shown = Ui(terminal=True)

    def work(both: Together, name: str) -> None:
        with both.part(name), shown.progress(name, 10, share=True) as task:
            for _ in range(10):
                task.advance()
            shown.info(f"{name} is done")

    with shown.together("it", {"a": 1.0, "b": 1.0}) as both, ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(contextvars.copy_context().run, work, both, name) for name in "ab"]:
            future.result()
    said = capsys.readouterr().err
    assert "a is done" in said
    assert "b is done" in said
    assert shown._bars is None


def test_quiet_is_quiet(capsys: Capture) -> None:
    shown = Ui(terminal=False, quiet=True)
    with shown.together("it", {"a": 1.0}) as both, both.part("a"), shown.progress("a", 1, share=True) as task:
        task.advance()
    assert capsys.readouterr().err == ""
