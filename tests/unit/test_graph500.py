# SPDX-License-Identifier: GPL-2.0-or-later
"""The Graph500 program: against an account of its own, against scipy, against damage."""

from __future__ import annotations

import re
import resource
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, shortest_path

from harness import images
from harness.config import PROJECT
from harness.run import run
from tests.graph500_twin import QUADRANTS, Graph, Words, digest, neighbours, search
from tests.ksm_core import SANITIZERS
from tests.workload import PAGE, Said, say, talk

SOURCES = PROJECT / "vm-images" / "src"
FOLDERS = ("graph500", "workload")

GRAPHS = [
    Graph(1),
    Graph(2, 1, 3),  # its order is not its vertices' alone: loops, vertices without neighbours
    Graph(5, 3, 7),  # a number of edges that is no power of two
    Graph(6, 1, 2**64 - 1),
    Graph(9, 5, 0),
    Graph(10),
]


@pytest.fixture(scope="module")
def program() -> Path:
    """As a guest gets it."""
    return images.program("graph500")


def options(graph: Graph, *more: object) -> list[object]:
    return ["--scale", graph.scale, "--edgefactor", graph.edge_factor, "--seed", graph.seed, *more]


class Dump:
    """What ``--dump`` wrote, taken apart."""

    def __init__(self, graph: Graph, file: Path) -> None:
        n, m = graph.vertices, graph.edge_factor << graph.scale
        words = np.fromfile(file, dtype=np.uint64)
        sizes = [2 * m, n + 1, 2 * m, n, n, n, n]
        assert len(words) in (2 * m, sum(sizes))
        parts = np.split(words, np.cumsum(sizes)[:-1])
        self.edges = parts[0].reshape(-1, 2)
        self.offsets, self.neighbours = parts[1:3]
        self.parents, self.levels, self.queue, self.depths = (part.view(np.int64) for part in parts[3:])


def dumped(program: Path, graph: Graph, file: Path, *more: object) -> tuple[Said, Dump]:
    said = say(program, options(graph, "--dump", file, *more), "go", "quit")
    assert said.status == 0
    return said, Dump(graph, file)


def levels(graph: Graph, edges: Words, root: int) -> list[float]:
    """Distances by scipy; infinite where there is no way."""
    data = (np.ones(len(edges)), (edges[:, 0].astype(np.int64), edges[:, 1].astype(np.int64)))
    matrix = coo_array(data, shape=(graph.vertices, graph.vertices)).tocsr()
    return list(shortest_path(matrix, directed=False, unweighted=True, indices=root))


# --- golden numbers


@pytest.mark.parametrize(
    ("scale", "checksum", "crc", "reached", "traversed"),
    [
        (8, "6996abde940be514", "473e6ea0", "64,1110,10248,3577,105", 262144),
        (10, "7d7cd76f8fe2b2e5", "a762e595", "64,1587,26470,26886,1760,1", 1048576),
        (12, "08bca15d10c93b81", "6b75a075", "64,1901,85181,117264,8240,86", 4194176),
    ],
)
def test_golden_graphs(
    program: Path, tmp_path: Path, scale: int, checksum: str, crc: str, reached: str, traversed: int
) -> None:
    said, _ = dumped(program, Graph(scale), tmp_path / "dump")
    (done,) = said.values("done")
    assert done["levels"] == reached
    assert (done["vertices"], done["edges"], done["roots"]) == (str(1 << scale), str(16 << scale), "64")
    assert done["traversed"] == str(traversed)
    assert done["checksum"] == checksum
    assert f"{zlib.crc32((tmp_path / 'dump').read_bytes()):08x}" == crc


# --- a second account


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_memory_is_what_the_account_says(program: Path, tmp_path: Path, graph: Graph) -> None:
    said, dump = dumped(program, graph, tmp_path / "dump")
    edges = graph.edges()
    offsets, entries = neighbours(graph, edges)
    assert np.array_equal(dump.edges, edges)
    assert np.array_equal(dump.offsets, offsets)
    assert np.array_equal(dump.neighbours, entries)
    roots = graph.roots(edges)
    parents, order = search(offsets, entries, roots[-1])  # the last search is what is left
    assert dump.parents.tolist() == [parents.get(v, -1) for v in range(graph.vertices)]
    assert dump.queue[: len(order)].tolist() == order
    wanted = [-1 if np.isinf(level) else int(level) for level in levels(graph, edges, roots[-1])]
    assert dump.levels.tolist() == dump.depths.tolist() == wanted
    (done,) = said.values("done")
    assert int(done["roots"]) == len(roots)
    assert int(done["checksum"], 16) == digest(graph, edges, roots)


@pytest.mark.parametrize("graph", [Graph(7, 2, 5), Graph(8)], ids=str)
def test_levels_and_edges_of_all_searches_are_those_of_scipy(program: Path, graph: Graph) -> None:
    (done,) = say(program, options(graph), "go").values("done")
    edges = graph.edges()
    found: dict[int, int] = {}
    traversed = 0
    for root in graph.roots(edges):
        distance = np.array(levels(graph, edges, root))
        for level in distance[np.isfinite(distance)].astype(int).tolist():
            found[level] = found.get(level, 0) + 1
        traversed += int(np.isfinite(distance[edges[:, 0].astype(np.int64)]).sum())
    assert [int(number) for number in done["levels"].split(",")] == [found[level] for level in sorted(found)]
    assert int(done["traversed"]) == traversed


@pytest.mark.parametrize("graph", [Graph(3, 1, 2), Graph(10), Graph(12, 2, 4)], ids=str)
def test_roots_are_distinct_and_have_neighbours(program: Path, tmp_path: Path, graph: Graph) -> None:
    said, dump = dumped(program, graph, tmp_path / "dump")
    proper = dump.edges[dump.edges[:, 0] != dump.edges[:, 1]]
    eligible = set(proper.ravel().tolist())
    roots = graph.roots(dump.edges)
    assert len(set(roots)) == len(roots) == min(64, len(eligible))
    assert set(roots) <= eligible
    (done,) = said.values("done")
    assert int(done["roots"]) == len(roots)
    assert done["levels"].split(",")[0] == str(len(roots))
    if len(eligible) == len(roots):  # a tiny graph: every vertex that can be searched from is
        assert int(done["roots"]) < 64


# --- the generator's statistics


def test_quadrants_have_their_probabilities_at_every_level() -> None:
    graph = Graph(13)
    edges = graph.edges()
    place = np.argsort(graph.labels).astype(np.uint64)  # undoes the relabelling
    count = len(edges)
    for level in range(graph.scale):
        bits = place[edges] >> np.uint64(level) & np.uint64(1)
        for (start, end), share in QUADRANTS.items():
            seen = int(((bits[:, 0] == start) & (bits[:, 1] == end)).sum())
            deviation = (count * share * (1 - share)) ** 0.5
            assert abs(seen - count * share) < 5 * deviation, (level, start, end)


def test_levels_are_drawn_independently() -> None:
    """Both halves of a word and both words of an edge: a level tells nothing about another."""
    graph = Graph(13)
    edges = np.argsort(graph.labels).astype(np.uint64)[graph.edges()]
    upper = [(edges >> np.uint64(level) & np.uint64(1)).astype(float) for level in range(graph.scale)]
    quadrant = np.array([bits[:, 0] * 2 + bits[:, 1] for bits in upper])
    correlation = np.corrcoef(quadrant) - np.eye(graph.scale)
    assert np.abs(correlation).max() < 5 / len(edges) ** 0.5


def test_neither_labels_nor_places_tell_anything() -> None:
    graph = Graph(13)
    edges = graph.edges().astype(float)
    degrees = np.bincount(edges.ravel().astype(np.int64), minlength=graph.vertices)
    bound = 5 / graph.vertices**0.5
    assert abs(np.corrcoef(np.arange(graph.vertices), degrees)[0, 1]) < bound
    assert abs(np.corrcoef(degrees[:-1], degrees[1:])[0, 1]) < bound
    assert abs(np.corrcoef(edges[:-1, 0], edges[1:, 0])[0, 1]) < 5 / len(edges) ** 0.5


def test_degrees_are_skewed_as_a_kronecker_graphs_are(program: Path, tmp_path: Path) -> None:
    graph = Graph(13)
    _, dump = dumped(program, graph, tmp_path / "dump", "--roots", 1)
    degrees = np.sort(np.diff(dump.offsets.astype(np.int64)))
    assert degrees.sum() == 2 * len(dump.edges)
    # a vertex whose bits hold k ones has a mean degree of 2 M 0.76^(scale - k) 0.24^k
    ones = np.array([v.bit_count() for v in range(graph.vertices)])
    mean = 2 * len(dump.edges) * 0.76 ** (graph.scale - ones) * 0.24**ones
    assert degrees[-1] == pytest.approx(mean.max(), rel=0.1)
    assert (degrees == 0).mean() == pytest.approx(np.exp(-mean).mean(), abs=0.02)
    top = degrees[-len(degrees) // 100 :].sum() / degrees.sum()
    assert top == pytest.approx(np.sort(mean)[-len(mean) // 100 :].sum() / mean.sum(), rel=0.1)
    assert top > 0.15  # one vertex in a hundred has more than a seventh of all ends; by chance it would have 1.5%


def test_most_of_the_graph_is_one_component(program: Path, tmp_path: Path) -> None:
    graph = Graph(12)
    said, dump = dumped(program, graph, tmp_path / "dump")
    rows, columns = dump.edges.astype(np.int64).T
    count, label = connected_components(
        coo_array((np.ones(len(rows)), (rows, columns)), shape=(graph.vertices, graph.vertices)).tocsr(), directed=False
    )
    sizes = np.bincount(label)
    (done,) = said.values("done")
    assert sizes.max() * 64 >= sum(map(int, done["levels"].split(","))) > sizes.max() * 60
    assert count > 1


@pytest.mark.parametrize("change", [{"seed": 2}, {"edge_factor": 15}, {"scale": 11}])
def test_another_option_is_another_graph(program: Path, change: dict[str, int]) -> None:
    base = {"scale": 10, "edge_factor": 16, "seed": 1}
    checksums = {
        say(program, options(Graph(**some), "--roots", 4), "go").values("done")[0]["checksum"]
        for some in (base, base | change)
    }
    assert len(checksums) == 2


# --- validation


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (1, "is below itself"),
        (2, r"vertex \d+ of level (\d+) hangs below \d+ of level \1$"),
        (3, r"an edge joins vertex \d+ of level \d+ and \d+ of level \d+$"),
        (4, r"vertex \d+ is in the tree, its neighbour \d+ is not$"),
        (5, r"no edge joins vertex \d+ and its parent \d+$"),
    ],
)
@pytest.mark.parametrize("graph", [Graph(8), Graph(10, 4, 9)], ids=str)
def test_each_check_notices_its_damage(program: Path, graph: Graph, check: int, words: str) -> None:
    said = say(program, options(graph, "--spoil", check), "go")
    root = graph.roots(graph.edges())[0]
    assert said.cause.startswith(f"root {root}: check {check}: "), said.cause
    assert re.search(words, said.cause)


def test_trees_that_nobody_validates_are_the_same(program: Path) -> None:
    graph = Graph(10)
    done, believed = (say(program, options(graph, *more), "go").values("done")[0] for more in ((), ("--no-validate",)))
    for key in ("checksum", "levels", "traversed", "roots"):
        assert done[key] == believed[key]
    assert int(done["validate_ns"]) > 0
    assert believed["validate_ns"] == "0"
    assert int(believed["peak_bytes"]) < int(done["peak_bytes"])


# --- memory


def test_two_processes_hold_the_same_bytes_after_any_number_of_runs(program: Path, tmp_path: Path) -> None:
    graph, contents, sums = Graph(10, 5, 6), [], set()
    for name, runs in (("one", 1), ("other", 1), ("third", 3)):
        said = say(program, options(graph, "--dump", tmp_path / name), *["go"] * runs)
        assert len(said.values("done")) == runs
        sums |= {done["checksum"] for done in said.values("done")}
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] == contents[2]
    assert len(sums) == 1


def test_a_run_takes_its_memory_anew_and_gives_it_back(program: Path) -> None:
    graph = Graph(13)
    with talk(program, *options(graph, "--roots", 2)) as running:
        held = int(running.ready["bytes"])
        assert held == 256 * graph.vertices
        slack = 1 << 19  # of a static program itself
        for _ in range(3):
            assert held <= running.resident < held + slack
            peak = int(running("go")["peak_bytes"])
            assert peak == pytest.approx(552 * graph.vertices, rel=0.01)


def test_a_wrong_byte_is_found_in_its_page(program: Path) -> None:
    graph = Graph(9, 9)  # 18 pages, full to the last
    with talk(program, *options(graph)) as running:
        start = running.area(18 * PAGE)
        assert running("verify") == {"pages": "18", "bad": "0"}
        running.poke(start + 17 * PAGE + 4095, 0x80)
        assert running("verify") == {"pages": "18", "bad": "1"}
        running.poke(start, 1)
        running.poke(start + 100, 1)
        assert running("verify") == {"pages": "18", "bad": "2"}
        for address in (start, start + 100, start + 17 * PAGE + 4095):
            running.poke(address, 0x80 if address > start + 100 else 1)
        assert running("verify") == {"pages": "18", "bad": "0"}
        running("go")
        assert running("verify") == {"pages": "18", "bad": "0"}


def test_what_lies_behind_the_last_edge_is_looked_at(program: Path) -> None:
    with talk(program, *options(Graph(7, 43))) as running:  # half of the last page
        start = running.area(22 * PAGE)
        assert running("verify") == {"pages": "22", "bad": "0"}
        running.poke(start + 22 * PAGE - 1, 1)
        assert running("verify") == {"pages": "22", "bad": "1"}


def test_memory_is_mergeable_where_that_is_asked_for(program: Path) -> None:
    if not Path("/sys/kernel/mm/ksm").exists():
        assert "cannot be merged" in say(program, options(Graph(9), "--mergeable")).cause
        return
    for more, mergeable in (((), False), (("--mergeable",), True)):
        with talk(program, *options(Graph(9), *more)) as running:
            text = Path(f"/proc/{running.child.pid}/smaps").read_text()
            start = running.area(256 * 512)
            area = text[text.index(f"{start:x}-") :]
            flags = re.search(r"VmFlags:(.*)", area)
            assert flags is not None
            assert (" mg" in flags[1]) is mergeable


# --- the measured part


def test_edges_a_second_are_the_edges_by_the_time_of_the_search(program: Path) -> None:
    (done,) = say(program, options(Graph(10), "--roots", 1), "go").values("done")
    assert int(done["teps"]) == pytest.approx(int(done["traversed"]) * 1e9 / int(done["search_ns"]), rel=1e-6)
    parts = sum(int(done[f"{part}_ns"]) for part in ("build", "search", "validate"))
    assert parts <= int(done["ns"])


# --- what cannot be done


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--scale", "0"], "--scale 0: not from 1 to 42"),
        (["--scale", "43"], "--scale 43: not from 1 to 42"),
        (["--scale", "-3"], "--scale -3: not a number"),
        (["--scale", "ten"], "--scale ten: not a number"),
        (["--scale", "10x"], "--scale 10x: not a number"),
        (["--scale", ""], "--scale : not a number"),
        (["--scale", "18446744073709551626"], "--scale 18446744073709551626: not from 1 to 42"),
        (["--edgefactor", "0"], "--edgefactor 0: not from 1 to 1024"),
        (["--roots", "65"], "--roots 65: not from 1 to 64"),
        (["--roots", "0"], "--roots 0: not from 1 to 64"),
        (["--spoil", "6"], "--spoil 6: not from 1 to 5"),
        (["--seed", "18446744073709551616"], "--seed 18446744073709551616: not from 0 to 18446744073709551615"),
        (["--scale"], "--scale needs a value; --help tells which"),
        (["--colour", "red"], "no option --colour; --help lists them"),
        (["-s", "3"], "no option -s; --help lists them"),
        (["--scale", "3", "4"], "4 belongs to no option; --help lists them"),
        (["--spoil", "1", "--no-validate"], "--spoil without validation: nobody would notice"),
        (["--scale", "3", "--dump", "/nowhere/dump"], "--dump /nowhere/dump: No such file or directory"),
        (["--scale", "3", "--dump", "/dev/full"], "--dump /dev/full: No space left on device"),
    ],
)
def test_bad_words_are_named(program: Path, words: list[str], cause: str) -> None:
    said = say(program, words, "go")
    assert said.cause == cause
    assert len(said.lines) == 1


def test_a_graph_larger_than_the_machine_is_refused_before_it_is_made(program: Path) -> None:
    said = say(program, ["--scale", 40], timeout=10)
    assert re.fullmatch(
        r"a run at scale 40 with 16 edges a vertex takes \d+ MiB of memory, \d+ MiB are available", said.cause
    )
    assert say(program, ["--scale", 42, "--edgefactor", 1024], timeout=10).cause.startswith("a run at scale 42")


@pytest.mark.parametrize(("limit_mib", "what"), [(3, "the edge list"), (6, "neighbours")])
def test_memory_that_is_refused_is_named(program: Path, limit_mib: int, what: str) -> None:
    done = subprocess.run(
        [program, "--scale", "14"],
        input="go\n",
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_mib << 20, limit_mib << 20)),
    )
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(rf"failed no memory for {what}, \d+ bytes: Cannot allocate memory", last)


def test_a_graph_of_loops_alone_has_no_search(program: Path) -> None:
    lonely = next(
        seed for seed in range(1000) if all(start == end for start, end in Graph(1, 1, seed).edges().tolist())
    )
    assert say(program, options(Graph(1, 1, lonely))).cause.startswith("no vertex of this graph has a neighbour")


def test_help_tells_the_options(program: Path) -> None:
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    source = (SOURCES / "graph500" / "main.c").read_text()
    names = re.findall(r'\{ "([a-z-]+)", (?:no|required)_argument', source)
    assert len(names) == 9
    for name in names:
        assert f"--{name}" in done.stdout


# --- sanitizers


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with address and undefined behaviour sanitizers."""
    target = tmp_path_factory.mktemp("graph500") / "graph500"
    files = [file for folder in FOLDERS for file in sorted((SOURCES / folder).glob("*.c"))]
    include = [f"-I{SOURCES / folder}" for folder in (*FOLDERS, "fleet")]
    warnings = ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Werror"]
    run(["gcc", "-O1", "-g", *warnings, *SANITIZERS, *include, "-o", target, *files])
    return target


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_nothing_is_done_that_the_language_forbids(watched: Path, program: Path, graph: Graph) -> None:
    said = say(watched, options(graph), "go", "verify", "go", "quit")
    assert (said.status, said.stderr) == (0, "")
    plain = say(program, options(graph), "go")
    assert {row["checksum"] for row in said.values("done")} == {plain.values("done")[0]["checksum"]}
    assert [row["bad"] for row in said.values("verified")] == ["0"]


@pytest.mark.parametrize("check", range(1, 6))
def test_damage_is_noticed_without_a_step_out_of_bounds(watched: Path, check: int) -> None:
    said = say(watched, options(Graph(8), "--spoil", check), "go")
    assert f"check {check}" in said.cause
    assert said.stderr == ""
