# SPDX-License-Identifier: GPL-2.0-or-later
"""The SVR program: its memory against an account of its own, its data from the generator and from files."""

from __future__ import annotations

import re
import resource
import struct
import subprocess
from pathlib import Path

import pytest

from harness import images
from harness.config import PROJECT
from harness.run import run
from tests import fleet_twin
from tests.ksm_core import SANITIZERS
from tests.workload import PAGE, say, talk

SOURCES = PROJECT / "vm-images" / "src"


@pytest.fixture(scope="module")
def program() -> Path:
    """As a guest gets it."""
    return images.program("svr")


Row = tuple[float, tuple[float, ...]]


def generated(seed: int, count: int) -> list[Row]:
    return [(label, tuple(features)) for label, features in (fleet_twin.susy_row(seed, i) for i in range(count))]


def memory(rows: list[Row]) -> bytes:
    """What rows look like to liblinear, padded to whole pages."""
    nodes = b"".join(
        b"".join(struct.pack("<i4xd", i, value) for i, value in enumerate(row, 1)) + struct.pack("<i12x", -1)
        for _, row in rows
    )
    raw = nodes + struct.pack(f"<{len(rows)}d", *(label for label, _ in rows))
    return raw + bytes(-len(raw) % PAGE)


def as_uci(rows: list[Row]) -> str:
    return "".join(f"{label:.18e},{','.join(f'{x:.18e}' for x in row)}\n" for label, row in rows)


def as_libsvm(rows: list[Row]) -> str:
    return "".join(f"{label:g} {' '.join(f'{i}:{x!r}' for i, x in enumerate(row, 1))}\n" for label, row in rows)


# --- data


@pytest.mark.parametrize(("rows", "seed"), [(1, 1), (13, 2), (14, 2**64 - 1), (500, 1)])
def test_memory_is_what_the_account_says(program: Path, tmp_path: Path, rows: int, seed: int) -> None:
    wanted = memory(generated(seed, rows))
    said = say(program, ["--rows", rows, "--seed", seed, "--dump", tmp_path / "dump"], "verify")
    assert (tmp_path / "dump").read_bytes() == wanted
    assert said.values("ready") == [{"bytes": str(len(wanted))}]
    assert said.values("verified") == [{"pages": str(len(wanted) // PAGE), "bad": "0"}]


@pytest.mark.parametrize("write", [as_uci, as_libsvm])
def test_a_file_of_the_same_rows_is_the_same_memory_and_the_same_model(
    program: Path, tmp_path: Path, write: object
) -> None:
    assert callable(write)
    rows = generated(3, 400)
    (tmp_path / "SUSY").write_text(write(rows) + "1,2,3\n")  # more rows than are wanted
    outcomes = []
    for words in (["--seed", 3], ["--dataset", tmp_path / "SUSY"]):
        said = say(program, ["--rows", 400, "--dump", tmp_path / "dump", *words], "go", "verify")
        (verdict,) = said.values("verified")
        assert verdict["bad"] == "0"
        outcomes.append((said.values("done")[0]["checksum"], (tmp_path / "dump").read_bytes()))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1] == memory(rows)


def test_a_wrong_byte_is_found_in_its_page(program: Path) -> None:
    size = len(memory(generated(1, 1300)))
    pages = size // PAGE
    with talk(program, "--rows", 1300) as running:
        start = running.area(size)
        assert running("verify") == {"pages": str(pages), "bad": "0"}
        places = {0: 0, 4095: 0, 4096 * 5 + 8: 5, 1300 * 304 - 1: 96, 1300 * 304: 96, size - 1: pages - 1}
        bad = set()
        for place, page in places.items():
            running.poke(start + place, 0x10)
            bad.add(page)
            assert running("verify") == {"pages": str(pages), "bad": str(len(bad))}
        for place in places:
            running.poke(start + place, 0x10)
        assert running("verify") == {"pages": str(pages), "bad": "0"}


def test_a_file_that_changed_is_noticed(program: Path, tmp_path: Path) -> None:
    rows = generated(1, 100)
    file = tmp_path / "SUSY.csv"
    file.write_text(as_uci(rows))
    with talk(program, "--rows", 100, "--dataset", file) as running:
        assert running("verify")["bad"] == "0"
        file.write_text(as_uci([*rows[:-1], rows[0]]))
        assert running("verify")["bad"] == "1"


def test_memory_that_training_takes_it_gives_back(program: Path) -> None:
    with talk(program, "--rows", 20000, "--solver", 11) as running:
        held = int(running.ready["bytes"])
        assert held == pytest.approx(312 * 20000, rel=0.001)
        for _ in range(3):
            assert held <= running.resident < held + (1 << 20)
            running("go")


# --- training


@pytest.mark.parametrize(
    ("solver", "checksum"),
    [
        (1, "1d32cb1ff0ce9ad9"),
        (2, "8020b555febe2cff"),
        (3, "055281bfc35ec322"),
        (11, "eb5a79ff13e8d53a"),
        (12, "eef0a543599cba86"),
        (13, "4070de702aa4d357"),
    ],
)
def test_golden_models(program: Path, solver: int, checksum: str) -> None:
    said = say(program, ["--rows", 2000, "--solver", solver], "go", "go")
    for done in said.values("done"):
        assert done.pop("ns").isdigit()
        assert done == {"checksum": checksum, "rows": "2000", "solver": str(solver), "repeats": "1"}
    assert len(said.values("done")) == 2


def test_the_model_depends_on_data_and_work(program: Path) -> None:
    runs: tuple[list[object], ...] = ([], ["--seed", 2], ["--rows", 501], ["--repeats", 2], ["--solver", 11])
    checksums = {say(program, ["--rows", 500, *words], "go").values("done")[0]["checksum"] for words in runs}
    assert len(checksums) == len(runs)


# --- what cannot be done


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--rows", "0"], "--rows 0: not from 1 to 100000000"),
        (["--rows", "many"], "--rows many: not a number"),
        (["--solver", "5"], "--solver 5: not 1, 2, 3, 11, 12 or 13"),
        (["--solver", "21"], "--solver 21: not from 1 to 13"),
        (["--repeats", "0"], "--repeats 0: not from 1 to 1000000"),
        (["--dataset"], "--dataset needs a value; --help tells which"),
        (["--iterations", "3"], "no option --iterations; --help lists them"),
        (["file"], "file belongs to no option; --help lists them"),
        (["--dataset", "/nowhere/SUSY"], "--dataset /nowhere/SUSY: No such file or directory"),
        (["--dataset", "/"], "--dataset /:1: Is a directory"),
        (["--rows", "9", "--dump", "/nowhere/dump"], "--dump /nowhere/dump: No such file or directory"),
    ],
)
def test_bad_words_are_named(program: Path, words: list[str], cause: str) -> None:
    said = say(program, words, "go")
    assert said.cause == cause
    assert len(said.lines) == 1


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("1,2,3\n" * 5, " has 5 rows, --rows wants 6"),
        ("", " has 0 rows, --rows wants 6"),
        ("1,2\n\n", ":2: no label"),
        ("1 19:0.5\n", ":1: feature 19"),
        ("1 0:0.5\n", ":1: feature 0"),
        ("1,2,x\n", ":1: not a number: x"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(program: Path, tmp_path: Path, text: str, cause: str) -> None:
    file = tmp_path / "SUSY"
    file.write_text(text)
    assert say(program, ["--rows", 6, "--dataset", file]).cause == f"--dataset {file}{cause}"


def test_want_of_memory_is_named(program: Path) -> None:
    if int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) < 30 << 20:
        assert say(program, ["--rows", 100000000]).cause.startswith("a run with 100000000 rows takes ")

    done = subprocess.run(
        [program, "--rows", "30000"],
        capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 20, 8 << 20)),
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(r"failed no memory for the rows, 9363456 bytes: Cannot allocate memory\n", done.stdout)


def test_want_of_memory_for_training_is_named(program: Path) -> None:
    with subprocess.Popen(
        [program, "--rows", "18000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline().startswith("ready")
        resource.prlimit(child.pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))  # less than it has: it gets no more
        said, _ = child.communicate("go\n", timeout=60)
        assert said == "failed no memory for training on 18000 rows\n"
        assert child.returncode == 1


def test_help_tells_the_options(program: Path) -> None:
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    source = (SOURCES / "svr" / "main.cpp").read_text()
    names = re.findall(r'\{ "([a-z-]+)", (?:no|required)_argument', source)
    assert len(names) == 8
    for name in names:
        assert f"--{name}" in done.stdout


# --- sanitizers


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with address and undefined behaviour sanitizers; liblinear as it is."""
    folder = tmp_path_factory.mktemp("svr")
    liblinear = images.distribution("liblinear")
    include = [f"-I{SOURCES / name}" for name in ("fleet", "workload")] + [f"-I{liblinear}"]
    warnings = ["-Wall", "-Wextra", "-Wshadow", "-Wmissing-declarations", "-Werror"]
    ours = [*(SOURCES / "svr").glob("*.cpp"), SOURCES / "fleet" / "svr.cpp"]
    ours += [*(SOURCES / "workload").glob("*.c"), SOURCES / "fleet" / "susy.c"]
    theirs = [*(liblinear / "cpp-source").glob("*.cpp"), *(liblinear / "cpp-source" / "blas").glob("*.c")]
    for file in (*ours, *theirs):
        flags = [*warnings, *SANITIZERS] if file in ours else ["-w"]
        compiler = "gcc" if file.suffix == ".c" else "g++"
        target = folder / f"{file.parent.name}-{file.stem}.o"
        run([compiler, "-O1", "-g", "-ffp-contract=off", *flags, *include, "-c", "-o", target, file])
    run(["g++", *SANITIZERS, "-o", folder / "svr", *sorted(folder.glob("*.o"))])
    return folder / "svr"


@pytest.mark.parametrize("solver", [1, 12])
def test_nothing_is_done_that_the_language_forbids(watched: Path, program: Path, tmp_path: Path, solver: int) -> None:
    (tmp_path / "SUSY").write_text(as_libsvm(generated(1, 301)))
    for words in ([], ["--dataset", tmp_path / "SUSY"]):
        chosen = ["--rows", 301, "--solver", solver, *words]
        said = say(watched, chosen, "go", "verify", "go", "quit")
        assert (said.status, said.stderr) == (0, "")
        assert {row["checksum"] for row in said.values("done")} == {
            say(program, chosen, "go").values("done")[0]["checksum"]
        }
        assert said.values("verified")[0]["bad"] == "0"
