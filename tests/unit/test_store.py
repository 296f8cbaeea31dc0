# SPDX-License-Identifier: GPL-2.0-or-later
"""The result store: keys, whole-or-nothing runs, an index that is a function of the manifests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest

from harness.errors import Busy
from harness.experiment.store import Store, canonical, key_of, write_manifest


def put(store: Store, seed: int, outcome: Literal["ok", "failed"] = "ok", seconds: float = 1.5, **more: Any) -> str:
    """Store one run."""
    cell = {"system": "cpu-ksm", "workload": "liblinear", "seed": seed, "profile": "unit"}
    inputs = {"plan": f"seed {seed}\n", **more}
    key = key_of(inputs)
    with store.cell(key), store.new(key) as work:
        (work / "samples.csv").write_text("t_ns\n0\n")
        write_manifest(
            work, key=key, cell=cell, inputs=inputs, outcome=outcome, reason="" if outcome == "ok" else "lost a VM",
            metrics={"application_ns": 5}, identical=("samples.csv", "absent"),
        )  # fmt: skip
        (work / "host.json").write_text(json.dumps({"seconds": seconds}))
    return key


def test_a_key_depends_on_every_input_and_not_on_their_order() -> None:
    assert key_of({"a": 1, "b": {"c": 2, "d": 3}}) == key_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert key_of({"a": 1, "b": {"c": 2}}) != key_of({"a": 1, "b": {"c": 3}})


def test_done_failed_missing_pending_are_four_states(tmp_path: Path) -> None:
    store = Store(tmp_path)
    done, failed = put(store, 1), put(store, 2, "failed")
    assert [store.state(key) for key in (done, failed, "0" * 64, None)] == ["done", "failed", "missing", "pending"]
    record = store.get(failed)
    assert record is not None
    assert (record.outcome, record.reason) == ("failed", "lost a VM")


def test_a_failed_run_is_replaced_by_a_good_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = put(store, 1, "failed")
    assert put(store, 1) == key
    assert store.state(key) == "done"
    assert [path.name for path in store.runs.iterdir()] == [key[:16]]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.cell("a" * 64), store.new("a" * 64) as work:
        (work / "half").write_text("x")
        raise KeyboardInterrupt
    assert list(store.runs.iterdir()) == []


def test_what_a_killed_run_left_is_swept_by_the_next(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mine, other = store.runs / f".{'a' * 16}.x1", store.runs / f".{'b' * 16}.x2"
    for left in (mine, other):
        left.mkdir(parents=True)
    with store.cell("a" * 64):
        assert not mine.exists()
        assert other.exists()


def test_one_cell_is_run_by_one_harness_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.cell("a" * 64), pytest.raises(Busy), store.cell("a" * 64):
        pass


def test_the_index_is_rebuilt_from_manifests_alone(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    for seed in (1, 2, 3):
        put(one, seed, "failed" if seed == 2 else "ok", seconds=1)
    for seed in (3, 1, 2):
        put(two, seed, "failed" if seed == 2 else "ok", seconds=99)
    first, second = one.write_index().read_bytes(), two.write_index().read_bytes()
    assert first == second
    (tmp_path / "one" / "index.json").unlink()
    assert one.write_index().read_bytes() == first
    assert [run["outcome"] for run in json.loads(first)["runs"]].count("failed") == 1


def test_the_manifest_names_its_files_by_digest_and_has_no_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.path(put(store, 1)) / "manifest.json"
    data = json.loads(path.read_text())
    assert list(data["files"]) == ["samples.csv"]
    assert len(data["files"]["samples.csv"]) == 64
    assert "seconds" not in path.read_text()
    assert path.read_text() == canonical(data)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 99}', '{"schema": 1, "inputs": {}, "key": "x"}'])
def test_a_damaged_manifest_is_named_left_out_and_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    store = Store(tmp_path)
    good, bad = put(store, 1), put(store, 2)
    (store.path(bad) / "manifest.json").write_text(damage)
    assert store.state(bad) == "missing"
    assert [record.key for record in store.records()] == [good]
    assert bad[:16] in capsys.readouterr().err
    put(store, 2)
    assert store.state(bad) == "done"


def test_altered_inputs_are_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = put(store, 1)
    path = store.path(key) / "manifest.json"
    path.write_text(path.read_text().replace("seed 1", "seed 7"))
    assert store.state(key) == "missing"


def test_a_run_of_another_key_in_the_same_place_is_not_taken(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = put(store, 1), put(store, 2)
    shutil.rmtree(store.path(second))
    store.path(first).rename(store.path(second))
    assert store.state(second) == "missing"


def test_durations_of_like_cells(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, 1, seconds=3)
    put(store, 2, seconds=5)
    put(store, 3, "failed", seconds=700)
    assert sorted(store.seconds({"workload": "liblinear", "profile": "unit"})) == [3, 5]
    assert store.seconds({"workload": "graph500"}) == []
