# SPDX-License-Identifier: GPL-2.0-or-later
"""The load generator against a real Redis server, and against a fake one where the server must misbehave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram

from harness import images
from harness.config import PROJECT
from harness.latency import ClientRun, Kind, Start, parse, pool
from harness.run import run
from tests import commands
from tests import ycsb_twin as twin
from tests.ksm_core import SANITIZERS
from tests.redis import Client, Fake, Server, encode, fake_server, free_port, serving, short_folder
from tests.workload import Said, say, talk

RECORDS = 300
WRITTEN: tuple[Kind, ...] = ("read", "update")
STARTS: tuple[Start, ...] = ("sent", "intended")
SOURCES = PROJECT / "vm-images" / "src"


@pytest.fixture(scope="session")
def redis_server() -> Path:
    """The server of the recipes, built into the user's cache: half a minute once."""
    return images.program("redis-server")


@pytest.fixture(scope="session")
def ycsb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The load generator with sanitizers."""
    program = tmp_path_factory.mktemp("ycsb") / "ycsb"
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", *SANITIZERS]
    flags += [f"-I{SOURCES / folder}" for folder in ("workload", "fleet")]
    sources = [*(SOURCES / "ycsb").glob("*.c"), *(SOURCES / "workload" / name for name in ("control.c", "options.c"))]
    run(["gcc", *flags, "-o", program, *sources])
    return program


@pytest.fixture
def server(redis_server: Path) -> Iterator[Server]:
    with serving(redis_server) as served:
        yield served


@pytest.fixture
def loaded(server: Server, ycsb: Path) -> Server:
    load(ycsb, server.path)
    return server


def load(program: Path, path: Path, *options: object, records: int = RECORDS, commands: tuple[str, ...] = ()) -> Said:
    said = say(program, ["load", "--socket", path, "--records", records, *options], *commands)
    assert said.status == 0, said
    assert said.stderr == ""
    return said


def client(program: Path, path: Path, workload: str, *options: object, commands: tuple[str, ...] = ("go",)) -> Said:
    words = ["run", "--socket", path, "--records", RECORDS, "--workload", workload]
    return say(program, [*words, *options], *commands)


def measured(said: Said) -> list[ClientRun]:
    assert said.status == 0, said
    assert said.stderr == ""
    return [parse(line) for line in said.lines if line.startswith("done")]


def counted(answer: ClientRun) -> dict[str, int]:
    """How many operations of each kind."""
    return {kind: part.tail().n for (kind, start), part in answer.latencies.items() if start == "sent"}


# --- data ----------------------------------------------------------------------------------------------


def test_keys_are_those_that_ycsb_is_known_for(server: Server, ycsb: Path) -> None:
    load(ycsb, server.path, records=2)
    keys = Client(server.path)("KEYS", "user*")
    assert isinstance(keys, list)
    assert set(keys) == {b"user6284781860667377211", b"user8517097267634966620"}


@pytest.mark.parametrize(
    ("options", "seed"), [((), 1), (("--seed", 2**64 - 1), 2**64 - 1), (("--values", "keyed"), None)]
)
def test_a_record_is_ten_fields_of_a_hundred_bytes_and_an_entry_of_the_index(
    server: Server, ycsb: Path, options: tuple[object, ...], seed: int | None
) -> None:
    load(ycsb, server.path, *options, records=40)
    ask = Client(server.path)
    for number in range(40):
        assert ask.hash(twin.key(number)) == twin.record(seed, number)
        assert ask("ZSCORE", "_indices", twin.key(number)) == str(twin.score(twin.key(number))).encode()
    assert ask("DBSIZE") == 41
    assert ask("OBJECT", "ENCODING", twin.key(0)) == b"hashtable"


def test_keyed_values_are_the_same_whatever_the_seed(ycsb: Path) -> None:
    sent = []
    for seed in (1, 2):
        with fake_server() as fake:
            load(ycsb, fake.path, "--values", "keyed", "--seed", seed)
            sent.append(bytes(fake.raw))
    assert sent[0] == sent[1]


def test_what_loading_took_is_told(server: Server, ycsb: Path) -> None:
    said = load(ycsb, server.path, commands=("go", "verify"))
    told = said.values("done")[0]
    assert int(told["records"]) == RECORDS
    assert 0 < int(told["load_ns"]) < 60e9
    assert int(told["server_bytes"]) > RECORDS * 1000
    assert int(said.values("ready")[0]["bytes"]) > RECORDS * 1000
    assert said.values("verified") == [{"pages": str(RECORDS), "bad": "0"}]


# --- operations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", "abcd")
def test_operations_are_those_of_the_workload(loaded: Server, ycsb: Path, workload: str) -> None:
    count = 2000
    (answer,) = measured(client(ycsb, loaded.path, workload, "--operations", count))
    wanted = Counter(operation.kind for operation in twin.operations(workload, RECORDS, count))
    assert counted(answer) == wanted
    share = twin.READS[workload] / 100
    assert abs(wanted["read"] - count * share) <= 4 * (count * share * (1 - share)) ** 0.5
    assert (answer.workload, answer.operations) == (workload, count)


def test_every_command_is_the_one_that_its_place_says(ycsb: Path) -> None:
    for workload in "ad":
        with fake_server() as fake:
            load(ycsb, fake.path)
            before = len(fake.received)
            said = client(ycsb, fake.path, workload, "--operations", 200, "--client", 3)
            assert said.status == 0, said
            sent = fake.received[before + 3 :]  # after the greeting and the look at the first and the last record
            wanted = []
            for place, operation in enumerate(twin.operations(workload, RECORDS, 200, client=3)):
                key = twin.key(operation.number).encode()
                if operation.kind == "read":
                    wanted.append([b"HGETALL", key])
                elif operation.kind == "update":
                    value = twin.value(1, operation.number, operation.field, 3, place)
                    wanted.append([b"HMSET", key, b"field%d" % operation.field, value])
                else:
                    pairs = twin.record(1, operation.number, 3, place).items()
                    wanted.append([b"HMSET", key, *(part for pair in pairs for part in pair)])
                    wanted.append([b"ZADD", b"_indices", str(twin.score(key.decode())).encode(), key])
            assert sent == wanted


def test_equal_seeds_send_equal_bytes_and_others_do_not(ycsb: Path) -> None:
    def sent(*options: object, stall: float = 0) -> bytes:
        def behave(number: int, _words: list[bytes]) -> None:
            if number % 97 == 0:
                time.sleep(stall)

        with fake_server(behave) as fake:
            load(ycsb, fake.path, "--seed", 7)
            del fake.raw[:]
            words = ("--seed", 7, "--operations", 150, *options)
            assert client(ycsb, fake.path, "a", *words, commands=("go", "go")).status == 0
            return bytes(fake.raw)

    first = sent()
    assert sent("--target", 2000, stall=0.02) == first
    assert sent("--client", 2) != first


def test_two_rounds_differ_and_have_histograms_of_their_own(loaded: Server, ycsb: Path) -> None:
    said = client(ycsb, loaded.path, "d", "--operations", 300, commands=("go", "go", "verify"))
    first, second = measured(said)
    assert first.checksum != second.checksum
    assert first.operations == second.operations == 300
    inserted = counted(first)["insert"] + counted(second)["insert"]
    assert said.values("verified") == [{"pages": str(RECORDS + inserted), "bad": "0"}]
    assert Client(loaded.path)("ZCARD", "_indices") == RECORDS + inserted


def test_keys_are_uniform_over_what_was_loaded_and_inserts_are_never_read(ycsb: Path) -> None:
    count = 4000
    with fake_server() as fake:
        load(ycsb, fake.path)
        before = len(fake.received)
        assert client(ycsb, fake.path, "d", "--operations", count).status == 0
        read = Counter(words[1].decode() for words in fake.received[before + 3 :] if words[0] == b"HGETALL")
        inserted = {words[1].decode() for words in fake.received[before:] if words[0] == b"HMSET"}
    loaded = {twin.key(number) for number in range(RECORDS)}
    assert read.keys() <= loaded
    assert not inserted & loaded
    mean = sum(read.values()) / RECORDS
    chi_square = sum((read[key] - mean) ** 2 / mean for key in loaded)
    assert abs(chi_square - (RECORDS - 1)) < 4 * (2 * (RECORDS - 1)) ** 0.5


# --- time ----------------------------------------------------------------------------------------------


def test_offered_rate_is_held(ycsb: Path) -> None:
    target, count = 200, 200
    with fake_server() as fake:
        load(ycsb, fake.path)
        before = len(fake.received) + 3
        (answer,) = measured(client(ycsb, fake.path, "c", "--operations", count, "--target", target))
        times = fake.times[before:]
    assert len(times) == count
    for place, at in enumerate(times):  # none came before its time; the first may itself have been late
        assert at - times[0] >= place / target - answer.behind_ns / 1e9 - 0.001
    assert (count - 1) / target <= answer.span_ns / 1e9 <= (count - 1) / target + answer.behind_ns / 1e9 + 1


def test_it_ends_when_its_time_is_over(loaded: Server, ycsb: Path) -> None:
    (paced,) = measured(client(ycsb, loaded.path, "b", "--seconds", "0.5", "--target", 100))
    assert paced.operations == 50 or paced.behind_ns > 10_000_000
    (flat_out,) = measured(client(ycsb, loaded.path, "b", "--seconds", "0.3"))
    assert flat_out.operations > 50
    assert 0.29e9 < flat_out.span_ns < 5e9


def test_a_stall_counts_once_from_sending_and_for_all_who_would_have_asked_from_the_intended_start(ycsb: Path) -> None:
    stalls = []

    def behave(_number: int, words: list[bytes]) -> None:
        if words[0] == b"HGETALL":
            stalls.append(words)
            if len(stalls) == 52:  # two of them are the look at the data
                time.sleep(1)

    with fake_server(behave) as fake:
        load(ycsb, fake.path)
        (answer,) = measured(client(ycsb, fake.path, "c", "--operations", 200, "--target", 100))
    sent, intended = answer.latencies["read", "sent"], answer.latencies["read", "intended"]
    slow = HdrHistogram(1, 3_600_000_000_000, 3)
    bucket = slow._counts_index_for(600_000_000)
    assert sum(count for at, count in sent.counts.items() if at >= bucket) == 1
    # those of the 40 intervals of 10 ms during which an answer was at least 600 ms away
    assert sum(count for at, count in intended.counts.items() if at >= bucket) >= 35
    assert sent.tail().max_ns >= 1_000_000_000
    assert answer.behind_ns >= 950_000_000


def test_percentiles_are_those_of_hdrhistogram_on_the_same_samples(loaded: Server, ycsb: Path, tmp_path: Path) -> None:
    said = client(ycsb, loaded.path, "a", "--operations", 3000, "--samples", tmp_path / "samples")
    (answer,) = measured(said)
    rows = [line.split() for line in (tmp_path / "samples").read_text().splitlines()]
    assert len(rows) == 3000
    for kind in WRITTEN:
        for column, start in enumerate(STARTS, 1):
            reference = HdrHistogram(1, 3_600_000_000_000, 3)
            values = [int(row[column]) for row in rows if row[0] == kind]
            for value in values:
                assert reference.record_value(value)
            tail = answer.latencies[kind, start].tail()
            assert tail.n == len(values)
            assert tail.p50_ns == reference.get_value_at_percentile(50)
            assert tail.p99_ns == reference.get_value_at_percentile(99)
            assert tail.max_ns == max(values)
            said_ns = said.values("done")[0][f"{kind}{'' if start == 'sent' else '_intended'}_p99_ns"]
            assert int(said_ns) == tail.p99_ns


def test_clients_of_one_server_are_pooled(loaded: Server, ycsb: Path) -> None:
    words = ["run", "--socket", loaded.path, "--records", RECORDS, "--workload", "a", "--operations", 400]
    with ThreadPoolExecutor(3) as crowd:
        said = list(crowd.map(lambda number: say(ycsb, [*words, "--client", number], "go"), (1, 2, 3)))
    answers = [answer for one in said for answer in measured(one)]
    assert len({answer.checksum for answer in answers}) == 3
    together = pool(answers)
    assert sum(together[kind, "sent"].tail().n for kind in WRITTEN) == 1200
    assert load(ycsb, loaded.path, commands=("verify",)).values("verified") == [{"pages": str(RECORDS), "bad": "0"}]
    for kind in WRITTEN:
        slowest = max(answer.latencies[kind, "sent"].max_ns for answer in answers)
        assert together[kind, "sent"].tail().max_ns == slowest


# --- what goes wrong -----------------------------------------------------------------------------------


def _altered(ask: Client) -> None:
    value = bytearray(ask.hash(twin.key(7))[b"field3"])
    value[50] ^= 1
    ask("HSET", twin.key(7), "field3", bytes(value))


def _of_another_record(ask: Client) -> None:
    ask("HSET", twin.key(7), "field3", ask.hash(twin.key(8))[b"field3"])


@pytest.mark.parametrize(
    "harm",
    [
        _altered,
        _of_another_record,
        lambda ask: ask("HDEL", twin.key(7), "field0"),
        lambda ask: ask("HSET", twin.key(7), "field10", "x"),
        lambda ask: ask("HSET", twin.key(7), "field9", "short"),
        lambda ask: ask("DEL", twin.key(7)),
    ],
)
@pytest.mark.parametrize("values", ["random", "keyed"])
def test_verify_finds_a_record_that_somebody_altered(server: Server, ycsb: Path, harm: object, values: str) -> None:
    load(ycsb, server.path, "--values", values)
    said = client(ycsb, server.path, "a", "--values", values, "--operations", 50, commands=("go", "verify"))
    assert said.values("verified") == [{"pages": str(RECORDS), "bad": "0"}]
    with subprocess.Popen(
        [ycsb, "run", "--socket", server.path, "--records", str(RECORDS), "--workload", "c", "--operations", "1",
         "--values", values],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready bytes=0\n"
        assert callable(harm)
        harm(Client(server.path))
        child.stdin.write("verify\n")
        child.stdin.flush()
        assert child.stdout.readline() == f"verified pages={RECORDS} bad=1\n"


def test_a_value_of_another_seed_is_not_right(loaded: Server, ycsb: Path) -> None:
    Client(loaded.path)("HSET", twin.key(7), "field3", twin.value(2, 7, 3))
    said = client(ycsb, loaded.path, "c", "--operations", 1, commands=("verify",))
    assert said.values("verified") == [{"pages": str(RECORDS), "bad": "1"}]


def test_a_server_that_dies_on_the_way_is_the_cause(loaded: Server, ycsb: Path) -> None:
    words = ["run", "--socket", loaded.path, "--records", RECORDS, "--workload", "a", "--seconds", 60, "--target", 100]
    with subprocess.Popen([ycsb, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready bytes=0\n"
        child.stdin.write("go\n")
        child.stdin.flush()
        time.sleep(0.3)
        loaded.process.send_signal(signal.SIGKILL)
        assert child.stdout.readline().startswith("failed the server is gone: ")
        assert child.wait(30) == 1


def test_a_server_that_falls_silent_is_the_cause(ycsb: Path) -> None:
    def behave(_number: int, words: list[bytes]) -> None:
        if words[0] == b"HMSET" and len(words) == 4:
            time.sleep(1)

    with fake_server(behave) as fake:
        load(ycsb, fake.path)
        said = client(ycsb, fake.path, "a", "--operations", 100, "--timeout", "0.3")
        assert said.cause == "the server does not answer (--timeout)"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"-OOM command not allowed\r\n", "the server refuses HMSET: OOM command not allowed"),
        (b":1\r\n", "the server answers HMSET with ':1'"),
        (b"HTTP/1.1 400 Bad Request\n", "what answers speaks another protocol than Redis"),
        (b"x" * 70000, "what answers speaks another protocol than Redis"),
        (b"+\x1b[2J\n", "what answers speaks another protocol than Redis"),
    ],
)
def test_an_answer_that_makes_no_sense_is_the_cause(ycsb: Path, answer: bytes, cause: str) -> None:
    with fake_server(lambda _number, words: answer if words[0] == b"HMSET" else None) as fake:
        assert say(ycsb, ["load", "--socket", fake.path, "--records", 10]).cause == cause


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"*0\r\n", "the server does not hold record 0 of this seed"),
        (b"*-1\r\n", "the server does not hold record 0 of this seed"),
        (b"*2\r\n$-1\r\n$-1\r\n", "the server does not hold record 0 of this seed"),
        (b"*x\r\n", "the server answers HGETALL with 'x'"),
        (b"*2\r\n$99999999\r\n", "the server sends 100000001 bytes in one piece"),
        (b"*1000\r\n" + b"$1\r\na\r\n" * 1000, "the server does not hold record 0 of this seed"),
        (encode([b"field0", twin.value(1, 0, 0)] * 10), "the server does not hold record 0 of this seed"),
    ],
)
def test_a_record_that_makes_no_sense_is_the_cause(ycsb: Path, answer: bytes, cause: str) -> None:
    with fake_server(lambda _number, words: answer if words[0] == b"HGETALL" else None) as fake:
        assert client(ycsb, fake.path, "a", "--operations", 10).cause.startswith(cause)


def test_a_record_that_shrinks_while_time_is_taken_is_the_cause(ycsb: Path) -> None:
    seen = []

    def behave(_number: int, words: list[bytes]) -> bytes | None:
        if words[0] == b"HGETALL":
            seen.append(words)
        return b"*2\r\n$6\r\nfield0\r\n$3\r\nabc\r\n" if len(seen) == 50 else None

    with fake_server(behave) as fake:
        load(ycsb, fake.path)
        said = client(ycsb, fake.path, "c", "--operations", 100)
    assert said.cause.endswith("has not the ten fields of 100 bytes that were loaded")


def test_a_real_server_that_is_full_says_so(redis_server: Path, ycsb: Path) -> None:
    with serving(redis_server, "--maxmemory", "2mb") as full:
        said = say(ycsb, ["load", "--socket", full.path, "--records", 3000])
    # a record is written by one command and entered into the index by another: memory ends at either
    assert re.match(r"the server refuses (HMSET|ZADD): OOM", said.cause)


def test_a_server_over_tcp(loaded: Server, ycsb: Path) -> None:
    words = ["run", "--server", f"127.0.0.1:{loaded.port}", "--records", RECORDS, "--workload", "b"]
    (answer,) = measured(say(ycsb, [*words, "--operations", 200], "go"))
    assert answer.operations == 200


def test_what_to_do_may_come_with_go(loaded: Server, ycsb: Path) -> None:
    words = ["run", "--later", "--socket", loaded.path, "--records", RECORDS, "--target", 2000]
    said = say(ycsb, words, "go --workload c --operations 30", "go --workload a --seconds 0.1 --target 500", "verify")
    first, second = measured(said)
    assert counted(first) == {"read": 30}
    assert (second.workload, second.operations) == ("a", 50)
    once = client(ycsb, loaded.path, "c", "--operations", 30)
    assert measured(once)[0].checksum == first.checksum
    assert say(ycsb, words, "go").cause == "go with --workload and --operations or --seconds (ycsb --help)"
    assert say(ycsb, words, "go --workload a").cause == "until when? --operations or --seconds"
    assert say(ycsb, words, "go --records 5").cause == "--records means nothing here (ycsb --help)"
    assert say(ycsb, words, "go" + " a" * 15).cause == "too many words behind go"


def test_a_loader_starts_its_server_which_opens_when_the_records_are_there(redis_server: Path, ycsb: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with short_folder() as folder:
        place = ["--socket", folder / "s", "--start", redis_server, "--listen", listen]
        where = ["--server", listen, "--records", 20_000]
        # the client comes first, and waits
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(say, ycsb, ["run", *where, "--later", "--wait", 60], "go --workload c --operations 50")
            with talk(ycsb, "load", "--records", 20_000, *place) as loader:
                assert int(loader.ready["bytes"]) > 20_000 * 1000
                assert counted(measured(asked.result())[0]) == {"read": 50}
                assert loader("verify") == {"pages": "20000", "bad": "0"}
        assert say(ycsb, ["run", *where, "--workload", "c", "--operations", 1, "--wait", 0.1]).cause.startswith(
            f"no server at {listen}"
        )  # it ended with its loader


@pytest.mark.parametrize(("number", "cause"), [(signal.SIGKILL, "was killed"), (signal.SIGTERM, "ended by itself")])
def test_a_server_of_the_loaders_that_ends_is_told_at_once(
    redis_server: Path, ycsb: Path, number: signal.Signals, cause: str
) -> None:
    with short_folder() as folder:
        words = list(map(str, (ycsb, "load", "--records", 10, "--socket", folder / "s", "--start", redis_server)))
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as loader:
            assert loader.stdout is not None
            assert loader.stdout.readline().startswith("ready ")
            children = Path(f"/proc/{loader.pid}/task/{loader.pid}/children").read_text().split()
            os.kill(int(children[0]), number)
            assert loader.stdout.readline() == f"failed the server {cause}\n"
            assert loader.wait(10) == 1


def test_nobody_at_the_port_is_the_cause(loaded: Server, ycsb: Path) -> None:
    loaded.process.kill()
    loaded.process.wait()
    where = f"127.0.0.1:{loaded.port}"
    said = say(ycsb, ["load", "--server", where, "--records", 10, "--wait", "0.2"])
    assert said.cause == f"no server at {where}: Connection refused (waited 0.2 s; --wait)"


def test_it_waits_for_a_server_that_comes_later(redis_server: Path, ycsb: Path) -> None:
    with serving(redis_server) as first:
        port = first.port
    child = subprocess.Popen(
        [ycsb, "load", "--server", f"127.0.0.1:{port}", "--records", "10"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(0.2)
    with serving(redis_server, "--port", str(port)):
        said, _ = child.communicate(timeout=30)
    assert said.startswith("ready bytes=")
    assert child.returncode == 0


def test_it_must_be_loaded_first_with_the_same_seed(loaded: Server, ycsb: Path) -> None:
    cause = client(ycsb, loaded.path, "a", "--operations", 1, "--seed", 2).cause
    assert cause.startswith("the server does not hold record 0 of this seed: ycsb load, with the same --records")


_RUN = ("run", "--socket", "/x", "--records", "10", "--workload", "a", "--operations", "1")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("dump",), "no command dump; there are load and run (ycsb --help)"),
        (("load",), "how many --records? (ycsb --help)"),
        (("load", "--records", "10"), "one of --server and --socket is wanted (ycsb --help)"),
        ((*_RUN, "--server", "127.0.0.1:1"), "one of --server and --socket is wanted (ycsb --help)"),
        ((*_RUN, "--records", "0"), "--records 0: not from 1 to 1099511627776"),
        ((*_RUN, "--records", "-5"), "--records -5: not a number"),
        ((*_RUN, "--records", "7x"), "--records 7x: not a number"),
        ((*_RUN, "--client", "4096"), "--client 4096: not from 1 to 4095"),
        ((*_RUN, "--seconds", "soon"), "--seconds soon: not a time from 0 to 86400 seconds"),
        ((*_RUN, "--seconds", "nan"), "--seconds nan: not a time from 0 to 86400 seconds"),
        ((*_RUN, "--values", "constant"), "--values constant: there are random and keyed"),
        ((*_RUN, "--workload", "e"), "--workload e: there are a, b, c and d"),
        ((*_RUN, "--workload", "ab"), "--workload ab: there are a, b, c and d"),
        ((*_RUN, "--socket", "x" * 108), "--socket: a name of 1 to 107 bytes is wanted"),
        ((*_RUN, "--verbose"), "no option --verbose; --help lists them"),
        ((*_RUN, "--target"), "--target needs a value; --help tells which"),
        ((*_RUN, "more"), "more belongs to no option; --help lists them"),
        ((*_RUN[:5], "--operations", "1"), "which --workload? a, b, c or d"),
        (_RUN[:7], "until when? --operations or --seconds"),
        (("load", "--server", "6379", "--records", "1"), "--server 6379 is not ADDRESS:PORT (ycsb --help)"),
        (("load", "--server", "a:0", "--records", "1"), "--server 0: not from 1 to 65535"),
        (("load", "--server", "localhost:1", "--records", "1"), "localhost is no IPv4 address"),
        ((*_RUN, "--samples", "/nowhere/file"), "/nowhere/file: No such file or directory"),
    ],
)
def test_what_is_asked_for_wrongly_is_told(ycsb: Path, words: tuple[str, ...], cause: str) -> None:
    assert say(ycsb, words).cause == cause


def test_help_names_every_option(ycsb: Path) -> None:
    said = run([ycsb, "--help"]).stdout
    known = re.findall(r'{ "(\w+)", required_argument', (SOURCES / "ycsb" / "main.c").read_text())
    assert len(known) >= 14
    assert all(f"--{name}" in said for name in known)


def test_the_documents_example_runs(redis_server: Path) -> None:
    (block,) = (block for block in commands.blocks() if block.mark == "executed: guest" and "ycsb load" in block.text)
    programs = f"{redis_server.parent}:{images.program('ycsb').parent}"
    with short_folder() as folder:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text], cwd=folder, env={"PATH": f"{programs}:/usr/bin:/bin"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    loaded, ready, answer = done.stdout.splitlines()
    assert int(loaded.removeprefix("ready bytes=")) > 1500 * 1000
    assert ready == "ready bytes=0"
    assert counted(parse(answer)) == Counter(operation.kind for operation in twin.operations("a", 1500, 500))
    assert done.stderr == ""


def test_a_fake_answers_as_the_real_one(redis_server: Path, ycsb: Path) -> None:
    """The fake stands for a server in other tests; what it is asked must get the same answers from a real one."""

    def spoken(path: Path) -> list[object]:
        load(ycsb, path, records=3)
        ask = Client(path)
        return [ask.hash(twin.key(2)), ask("PING"), ask("HMSET", "a", "b", "c"), ask.hash("a"), ask.hash("none")]

    with serving(redis_server) as real, fake_server() as fake:
        assert spoken(real.path) == spoken(fake.path)
        assert isinstance(fake, Fake)
