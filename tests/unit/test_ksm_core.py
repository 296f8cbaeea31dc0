# SPDX-License-Identifier: GPL-2.0-or-later
"""The KSM core against the algorithm that takes one page after the other, and the printed one against the rules."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from harness.run import Completed, run
from tests import ksm_core

ERRORS = ("E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "E9", "E10", "ET")


@pytest.fixture(scope="module")
def tree() -> Path:
    return ksm_core.kernel_tree()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ksm_core")


@pytest.fixture(scope="module")
def program(tree: Path, folder: Path) -> Path:
    """The tests with sanitizers."""
    return ksm_core.build(folder / "test", tree, ("test.c", "printed.c", "world.c"), "-O1", *ksm_core.SANITIZERS)


def _run(*argv: object, input: str | None = None) -> Completed:
    return run([str(word) for word in argv], check=False, input=input)


def test_random_trees_and_batches(program: Path) -> None:
    """Partners as one by one, structure, order, references, bounds of work: the rules are in world.c."""
    for first, count, most in ((0, 12000, 100), (1_000_000, 1000, 1024)):
        done = _run(program, "scenarios", first, count, most)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout == f"{count} scenarios\n"


@pytest.mark.parametrize("error", ERRORS)
def test_printed_error_is_noticed(program: Path, error: str) -> None:
    """With the error as printed a case fails; mended, and by our core, it passes. One error at a time."""
    assert _run(program, "printed", error, "no").stdout == "passed\n"
    done = _run(program, "ours", error)
    assert done.stdout == "passed\n", done.stderr[-2000:]
    broken = _run(program, "printed", error, "yes")
    assert broken.returncode != 0
    assert "passed" not in broken.stdout
    if error in ("E1", "E2", "E3", "E6"):
        assert "null pointer" in broken.stderr
    elif error == "E10":
        assert "heap-buffer-overflow" in broken.stderr
    else:
        assert "broken: " in broken.stderr


def test_inputs_that_the_fuzzer_kept(tree: Path, folder: Path) -> None:
    replay = ksm_core.build(folder / "replay", tree, ("fuzz.c", "world.c"), "-O1", "-DREPLAY", *ksm_core.SANITIZERS)
    corpus = (ksm_core.HERE / "corpus.txt").read_text()
    done = _run(replay, input=corpus)
    assert done.returncode == 0, done.stderr[-2000:]
    kept = sum(not line.startswith("#") for line in corpus.splitlines())
    assert kept > 50
    assert done.stdout == f"{kept} inputs\n"


@pytest.fixture(scope="module")
def work(tree: Path, folder: Path) -> list[dict[str, Any]]:
    """What searches cost: requests, rounds, and basic blocks of the core that were executed."""
    program = ksm_core.build(
        folder / "work",
        tree,
        ("test.c", "printed.c", "world.c"),
        "-O1",
        "-DCOUNT_BLOCKS",
        core_flags=["-fsanitize-coverage=trace-pc"],
    )
    return [json.loads(line) for line in run([str(program), "work"]).stdout.splitlines()]


def test_nothing_is_quadratic(work: list[dict[str, Any]]) -> None:
    """Twice the candidates take little more than twice the steps, whatever they are and wherever they end."""
    shapes = defaultdict(list)
    for row in work:
        if row["shape"] != "levels":
            shapes[row["shape"]].append(row)
    assert len(shapes) > 10
    for shape, rows in shapes.items():
        assert [row["n"] for row in rows] == [256, 512, 1024, 2048, 4096]
        for small, large in itertools.pairwise(rows):
            assert large["blocks"] < 2.4 * small["blocks"], shape
            assert small["blocks"] > small["n"]


def test_sorting_takes_n_log_n_comparisons(work: list[dict[str, Any]]) -> None:
    for row in work:
        assert row["sorted"] <= row["n"] * math.ceil(math.log2(row["n"]) or 1), row
    alike = [row for row in work if row["shape"] == "all alike"]
    assert all(row["sorted"] == row["n"] - 1 and row["linked"] == 1 for row in alike)


def test_rounds_and_pairs(work: list[dict[str, Any]]) -> None:
    """A level a round, or M levels with at most 2^M - 1 pairs; early decisions need the backend for the rest only."""
    by_shape = defaultdict(list)
    for row in work:
        by_shape[row["shape"]].append(row)
        levels = max(1, row["levels"])
        assert row["rounds"] <= math.ceil(row["height"] / levels)
        assert row["pairs"] <= row["room"] <= row["rounds"] * row["n"] * (2**levels - 1)
    for plain, eager in zip(by_shape["unique"], by_shape["eager"], strict=True):
        assert eager["early"] + eager["pairs"] == plain["pairs"]
        assert 3 * eager["rounds"] < plain["rounds"]
        assert eager["gets"] < 1.2 * plain["gets"] < 0.6 * plain["pairs"]
    rounds = [row["rounds"] for row in by_shape["levels"]]
    assert rounds[0] == by_shape["levels"][0]["pairs"]
    assert rounds == [math.ceil(rounds[0] / levels) for levels in range(1, 7)]
