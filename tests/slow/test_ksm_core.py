# SPDX-License-Identifier: GPL-2.0-or-later
"""The KSM core for longer: millions of worlds, and the fuzzer."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import packages
from harness.run import run
from tests import ksm_core

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

WORLDS = 3_000_000
CHUNK = 50_000


@pytest.fixture(scope="module")
def tree() -> Path:
    return ksm_core.kernel_tree()


@pytest.mark.parametrize(("flags", "worlds"), [(("-O2",), WORLDS), (("-O1", *ksm_core.SANITIZERS), WORLDS // 10)])
def test_millions_of_worlds(tree: Path, tmp_path: Path, flags: tuple[str, ...], worlds: int) -> None:
    """Other seeds than the gate's; with sanitizers a tenth of them."""
    program = ksm_core.build(tmp_path / "test", tree, ("test.c", "printed.c", "world.c"), *flags)

    def chunk(first: int) -> str:
        done = run([str(program), "scenarios", str(first), str(CHUNK), "256"], check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = list(pool.map(chunk, range(10_000_000, 10_000_000 + worlds, CHUNK)))
    assert answers == [f"{CHUNK} scenarios\n"] * (worlds // CHUNK)


@pytest.fixture(scope="module")
def compilers() -> None:
    packages.require("fuzz")


def test_fuzzer_finds_nothing(compilers: None, tree: Path, tmp_path: Path) -> None:
    """Coverage-guided, from the inputs that were kept; a fixed seed and number of runs."""
    fuzzer = ksm_core.build(
        tmp_path / "fuzz",
        tree,
        ("fuzz.c", "world.c"),
        "-O1",
        "-fsanitize=fuzzer,address,undefined",
        "-fno-sanitize-recover=all",
        core_flags=["-Wno-error"],
        compiler="clang",
    )
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, line in enumerate((ksm_core.HERE / "corpus.txt").read_text().splitlines()):
        if not line.startswith("#"):
            (corpus / str(number)).write_bytes(bytes.fromhex(line))
    done = run(
        [str(fuzzer), "-seed=1", "-runs=300000", "-max_len=512", "-timeout=10", str(corpus)], check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DONE" in done.stderr
