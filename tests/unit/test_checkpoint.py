# SPDX-License-Identifier: GPL-2.0-or-later
"""Checkpoints on disk: whole or not there, made once, never a wrong one, and never too many."""

from __future__ import annotations

import contextvars
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness import cache, checkpoint
from harness.checkpoint import Order
from harness.config import lock, paths
from harness.errors import EnvironmentProblem, Interrupted, UsageError
from harness.run import Crew

MIB = 1 << 20


def order(number: int = 1, **more: Any) -> Order:
    """A checkpoint of a machine of 4 MiB."""
    return Order({"plan": f"seed {number}", **more}, f"fleet {number}", 4)


class Maker:
    """Fills a checkpoint, and counts how often it had to."""

    def __init__(self, data: bytes = b"m" * MIB) -> None:
        self.times = 0
        self.data = data
        self.meanwhile: Callable[[Path], None] = lambda folder: None

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "memory").write_bytes(b"\0" * MIB + self.data + b"\0" * MIB)
        self.meanwhile(folder)
        (folder / "state").write_bytes(b"state of it")
        (folder / "console.log").write_text("started\n")
        (folder / "qemu.argv").write_text("qemu\n")


def get(wanted: Order, make: Callable[[Path], None]) -> Path:
    """Have it, and let it go."""
    with checkpoint.held(wanted, make) as saved:
        assert saved.memory.stat().st_size > 0
        assert saved.state.read_bytes() == b"state of it"
        return saved.memory.parent


def names() -> set[str]:
    """What is below the directory of checkpoints, besides locks."""
    return {path.name for path in paths().checkpoints.iterdir() if not path.is_file()}


def test_it_is_made_once_and_kept() -> None:
    make = Maker()
    folder = get(order(), make)
    assert get(order(), make) == folder
    assert make.times == 1
    assert folder.name == order().key[:16]
    record = json.loads((folder / "checkpoint.json").read_text())
    assert (record["key"], record["what"]) == (order().key, "fleet 1")
    assert {path.name for path in folder.iterdir()} == {"memory", "state", "console.log", "checkpoint.json", "used"}


def test_what_was_made_of_other_inputs_is_not_used() -> None:
    make = Maker()
    assert len({get(order(1), make), get(order(2), make), get(order(1, qemu="other"), make)}) == 3
    assert make.times == 3


def test_another_format_is_another_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    get(order(), make)
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    get(order(), make)
    assert make.times == 2


def _flip(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("new_process", [False, True])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: os.truncate(folder / "memory", 5000), "memory is truncated"),
        (lambda folder: os.truncate(folder / "state", 3), "state is truncated"),
        (lambda folder: _flip(folder / "memory"), "memory was altered"),
        (lambda folder: _flip(folder / "state"), "state was altered"),
        (lambda folder: (folder / "memory").unlink(), "memory is not there"),
        (lambda folder: (folder / "checkpoint.json").write_text("{"), "its record is damaged"),
        (lambda folder: (folder / "checkpoint.json").unlink(), "its record is damaged"),
    ],
)
def test_a_damaged_one_is_made_again_and_said_so(
    damage: Callable[[Path], None], said: str, new_process: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    make = Maker()
    folder = get(order(), make)
    damage(folder)
    if new_process:
        checkpoint._known_whole.clear()
    assert capsys.readouterr().err == ""
    assert get(order(), make) == folder
    assert make.times == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert folder.name in line
    assert get(order(), make) == folder
    assert make.times == 2


def test_a_record_of_another_checkpoint_does_not_pass() -> None:
    """Its directory was renamed by hand."""
    make = Maker()
    get(order(1), make).rename(paths().checkpoints / order(2).key[:16])
    get(order(2), make)
    assert make.times == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk"), SystemExit(3)])
def test_what_fails_half_way_leaves_nothing(error: BaseException) -> None:
    make = Maker()

    def fail(folder: Path) -> None:
        raise error

    make.meanwhile = fail
    with pytest.raises(type(error)):
        get(order(), make)
    assert names() == set()
    get(order(), Maker())


def test_what_a_killed_harness_left_is_swept() -> None:
    rests = [paths().checkpoints / f".{order(number).key[:16]}.abc" for number in (1, 2, 3)]
    for rest in rests:
        rest.mkdir()
        (rest / "memory").write_bytes(b"x" * 5000)
    with lock(paths().checkpoints / f".{order(3).key[:16]}.lock", what="it"):  # this one is being made
        get(order(1), Maker())
    assert [rest.exists() for rest in rests] == [False, False, True]


def test_two_that_want_the_same_make_it_once() -> None:
    make, begun, go_on = Maker(), threading.Event(), threading.Event()

    def wait(folder: Path) -> None:
        begun.set()
        assert go_on.wait(20)

    make.meanwhile = wait
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(get(order(), make))) for _ in range(3)]
    threads[0].start()
    assert begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    assert found == []
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(found) == 3
    assert make.times == 1


def test_who_waits_for_another_can_be_called_off() -> None:
    crew, failures = Crew(), list[BaseException]()

    def wait() -> None:
        with crew.joined():
            try:
                get(order(), Maker())
            except Interrupted as error:
                failures.append(error)

    with lock(paths().checkpoints / f".{order().key[:16]}.lock", what="it"):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(wait,))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        crew.stop()
        thread.join(20)
    assert len(failures) == 1


# --- how much disk ------------------------------------------------------------------------------------


def test_the_least_recently_used_makes_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(checkpoint.LIMIT, str(2.9 * MIB / 2**30))
    make = Maker(os.urandom(MIB))
    folders = [get(order(number), make) for number in (1, 2)]
    os.utime(folders[0] / "used", (1000, 1000))
    os.utime(folders[1] / "used", (2000, 2000))
    get(order(1), make)  # used again: now the other is older
    third = get(order(3), make)
    assert names() == {folders[0].name, third.name}
    assert f"{folders[1].name} of fleet 2 made room" in capsys.readouterr().err
    assert make.times == 3


def test_what_is_in_use_and_what_was_just_made_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checkpoint.LIMIT, "0")
    make = Maker()
    with checkpoint.held(order(1), make) as first:
        second = get(order(2), make)
        assert names() == {first.memory.parent.name, second.name}
    third = get(order(3), make)
    assert names() == {third.name}


def test_a_full_disk_takes_the_old_ones_first(monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    get(order(1), make)
    monkeypatch.setattr(
        checkpoint, "free_bytes", lambda path: 0 if (path.parent / order(1).key[:16]).exists() else 2**40
    )
    second = get(order(2), make)
    assert names() == {second.name}
    monkeypatch.setattr("harness.config.free_bytes", lambda path: 0)
    with pytest.raises(EnvironmentProblem, match="a checkpoint of fleet 3 needs"):
        get(order(3), make)


@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(checkpoint.LIMIT, text)
    make = Maker()
    with pytest.raises(UsageError, match="not a number of GiB"):
        get(order(), make)
    assert make.times == 0


def test_zero_pages_take_no_disk_and_holes_no_part_in_the_digest(tmp_path: Path) -> None:
    folder = get(order(), Maker())
    assert (folder / "memory").stat().st_blocks * 512 < 2 * MIB
    dense, sparse = tmp_path / "dense", tmp_path / "sparse"
    size = 20 * MIB
    dense.write_bytes(b"\0" * (5 * MIB) + b"x" * 100 + b"\0" * (size - 5 * MIB - 101) + b"y")
    with sparse.open("wb") as stream:
        stream.truncate(size)
        stream.seek(5 * MIB)
        stream.write(b"x" * 100)
        stream.seek(size - 1)
        stream.write(b"y")
    assert sparse.stat().st_blocks < dense.stat().st_blocks
    assert checkpoint.digest(dense) == checkpoint.digest(sparse)
    digests = {checkpoint.digest(sparse)}
    for at, what in ((5 * MIB, b"z"), (0, b"1"), (12 * MIB, b"1")):
        with sparse.open("r+b") as stream:
            stream.seek(at)
            stream.write(what)
        digests.add(checkpoint.digest(sparse))
    os.truncate(sparse, size + MIB)
    digests.add(checkpoint.digest(sparse))
    assert len(digests) == 5


# --- what people see ----------------------------------------------------------------------------------


def test_harness_cache_lists_and_prunes_them() -> None:
    from harness.cli.main import app

    folder = get(order(), Maker(os.urandom(MIB)))
    os.utime(folder / "used", (0, 0))
    shown = CliRunner().invoke(app, ["cache", "list"]).stdout
    line = next(line for line in shown.splitlines() if folder.name in line)
    assert "checkpoints" in line
    assert "fleet 1; used " in line
    assert line.endswith(" d ago")
    assert "1 MiB  in checkpoints, of 8 GiB that they may take (PARAKSM_CHECKPOINTS_GIB)" in shown
    with checkpoint.held(order(), Maker()):
        ((_entry, note),) = cache.prune(["checkpoints"])
    assert note.startswith("kept")
    ((entry, note),) = cache.prune(["checkpoints"])
    assert (entry.path, note) == (folder, "removed")
    assert names() == set()


def test_a_damaged_one_is_listed_all_the_same() -> None:
    folder = get(order(), Maker())
    (folder / "checkpoint.json").unlink()
    (entry,) = cache.entries(["checkpoints"])
    assert entry.note.startswith("damaged; used ")
    (kept,) = checkpoint.kept()
    assert kept.path == folder
