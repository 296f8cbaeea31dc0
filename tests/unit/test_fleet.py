# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans, the oracle against a page-by-page account, the C code's pages, results and what is refused."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness import fleet
from harness.config import PROJECT
from harness.errors import FleetError, UsageError
from harness.fleet import FleetPlan
from harness.latency import Tail
from harness.run import run
from tests import fleet_twin

SOURCES = PROJECT / "vm-images" / "src" / "fleet"
RECORDED = PROJECT / "tests" / "data" / "fleet" / "converge.result"
"""From a real ksmd, Linux 6.1 with our counters: 8 VMs, 4 passes."""


def plan(**change: Any) -> FleetPlan:
    """A small fleet at rest."""
    values: dict[str, Any] = {
        "workload": "none", "vms": 8, "pages_shared_all": 100, "pages_shared_some": 50, "shared_group": 4,
        "pages_zero": 20, "pages_unique": 60, "pages_volatile": 0, "volatile_period_ms": 100, "dataset_rows": 0,
        "prescan_passes": 0, "converge_passes": 4, "sleep_millisecs": 20,
    }  # fmt: skip
    return fleet.plan_from(values | change)


# --- plans


def nested_plan(**changes: Any) -> FleetPlan:
    """Four real VMs without a workload."""
    values = {"backend": "nested", "workload": "none", "vms": 4, "vm_memory_mib": 32, "window_ms": 500}
    return fleet.plan_from(values | changes)


def test_the_plan_file_has_the_keys_that_the_guest_program_knows() -> None:
    source = (SOURCES / "plan.c").read_text()
    table = source[source.index("keys[] = {") : source.index("#define KEYS")]
    everywhere, _, nested = table.partition("only plans with real VMs")
    known = [part.split(")")[0] for part in everywhere.split("KEY(")[1:]]
    more = [part.split(")")[0] for part in nested.split("KEY(")[1:]]
    first, *lines = plan().render().splitlines()
    assert f'"{first}\\n"' in source
    assert sorted(line.split()[0] for line in lines) == sorted([*known, "dataset"])
    assert f"#define NESTED_KEYS {len(more)}\n" in source
    real = nested_plan().render().splitlines()[1:]
    assert sorted(line.split()[0] for line in real) == sorted([*known, *more, "dataset"])
    assert all(len(line.split()) == 2 for line in lines)


def test_golden_plan() -> None:
    assert plan(system="cpu-ksm", seed=7).render() == (
        "paraksm-fleet-plan 2\nseed 7\nvms 8\npages_shared_all 100\npages_shared_some 50\nshared_group 4\n"
        "pages_zero 20\npages_unique 60\npages_volatile 0\nvolatile_period_ms 100\nalike_percent 0\ndataset_rows 0\n"
        "train 0\nsolver 12\nrepeats 1\nksm 1\npages_to_scan 2048\nsleep_millisecs 20\nmax_page_sharing 256\n"
        "use_zero_pages 0\nmerge_across_nodes 1\nksmd_nice 5\nksmd_rt_priority 0\nvm_weight 3\nprescan_passes 0\n"
        "converge_passes 4\nwindow_ms 0\nsample_ms 10\nvm_sample_ms 500\ndataset -\n"
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"vms": 0}, "vms"),
        ({"vms": "8"}, "vms"),
        ({"vms": 2**16}, "vms"),
        ({"pages_zero": -1}, "pages_zero"),
        ({"pages_unique": 2**24}, "pages_unique"),
        ({"solver": 5}, "solver"),
        ({"colour": 1}, "colour"),
        ({"backend": "cloud"}, "backend"),
        ({"backend": "nested"}, "vm_memory_mib"),
        ({"backend": "nested", "vm_memory_mib": 32}, "pages_"),
        ({"system": "gpu-ksm"}, "there are no-ksm, cpu-ksm"),
        ({"sysfs": (("relative", "1"),)}, "absolute path"),
        ({"sysfs": (("/sys/a b", "1"),)}, "absolute path"),
        ({"sysfs": (("/sys/a", "1\n2"),)}, "one line"),
        ({"ksmd_nice": 20}, "ksmd_nice"),
        ({"ksmd_rt_priority": 100}, "ksmd_rt_priority"),
        ({"vm_sample_ms": 0}, "vm_sample_ms"),
        ({"max_page_sharing": 1}, "max_page_sharing"),
        ({"pages_to_scan": 0}, "pages_to_scan"),
        ({"dataset": "two words"}, "blanks"),
        ({"dataset": "x" * 256}, "255"),
        ({"system": "no-ksm"}, "converges"),
        ({"converge_passes": 0}, "nothing to wait for"),
        ({"workload": "liblinear", "converge_passes": 0}, "dataset_rows"),
        ({"workload": "ycsb-a"}, "nested VMs"),
        ({"ballast_unique": 1}, "of nested VMs"),
        ({"bystanders": "duty"}, "of nested VMs"),
        ({"bystanders": "busy"}, "bystanders"),
        ({"bystander_percent": 0}, "bystander_percent"),
    ],
)
def test_impossible_plans_are_refused_by_name(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        plan(**change)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"ballast_unique": 4097}, "4097 pages of ballast do not fit into 32 MiB"),
        ({"ballast_self": 1}, "takes two"),
        ({"bystanders": "full"}, "workload of VM 1"),
        ({"bystanders": "duty", "workload": "graph500", "converge_passes": 3}, "workload of VM 1"),
    ],
)
def test_what_real_vms_cannot_do_is_refused_by_name(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        nested_plan(**change)


def test_bystanders_can_wait_for_the_second_part_of_a_plan_and_ballast_cannot() -> None:
    plan = nested_plan(workload="graph500", bystanders="duty", bystander_percent=7, ballast_zero=5)
    loaded, rest = plan.render_loaded("/rest").splitlines(), plan.render_rest().splitlines()
    assert {"bystanders 1", "bystander_percent 7"} <= set(rest)
    assert "ballast_zero 5" in loaded
    assert {line.split(" ")[0] for line in loaded}.isdisjoint(line.split(" ")[0] for line in rest if line)


# --- groups of a server and its clients


def served_plan(**changes: Any) -> FleetPlan:
    """Two groups of three real VMs."""
    values = {"workload": "ycsb-d", "vms": 6, "vm_group": 3, "records": 200, "operations": 40, "offered_load": 50}
    return nested_plan(**(values | changes))


def test_the_first_of_a_group_serves_and_only_the_clients_of_vm_1_are_told_to_go() -> None:
    one = served_plan(seed=3)
    data = ["--records 200 --seed 768", "--records 200 --seed 769"]
    for group, first in enumerate((1, 4)):
        server = f"10.1.{group}.1:6379"
        own = f"/bin/ycsb load {data[group]} --start /bin/redis-server --socket /tmp/redis --listen {server}"
        assert one.commands[first] == own
        for client in (1, 2):
            own = f"/bin/ycsb run {data[group]} --server {server} --client {client} --later --wait 600"
            assert one.commands[first + client] == own
    assert one.orders == dict.fromkeys((2, 3), "--workload d --target 50 --operations 40")
    assert served_plan(workload="none").orders == {}
    assert served_plan(converge_passes=3).orders == {}


def test_all_mixes_and_rates_go_on_from_one_loaded_fleet() -> None:
    one = served_plan()
    for change in ({"workload": "ycsb-a"}, {"offered_load": 7}, {"operations": 9}, {"system": "no-ksm"}):
        other = served_plan(**change)
        assert other.render_loaded("/rest") == one.render_loaded("/rest")
        assert other.render_rest() != one.render_rest()
    assert served_plan(records=201).render_loaded("/rest") != one.render_loaded("/rest")
    assert served_plan(vm_group=2).render_loaded("/rest") != one.render_loaded("/rest")


@pytest.mark.parametrize("group", [0, 1, 7])
def test_a_server_alone_has_no_clients(group: int) -> None:
    with pytest.raises(UsageError, match="groups of a server and clients"):
        served_plan(vm_group=group)


def test_a_run_lasts_until_its_rarest_operation_has_a_tail() -> None:
    some = served_plan(tail_samples=600, window_ms=1000)
    count = {mix: fleet.operations(some, mix, 100, 100) for mix in fleet.MIXES}
    assert count == {"ycsb-a": 400, "ycsb-b": 4000, "ycsb-c": 200, "ycsb-d": 4000}
    assert fleet.operations(some, "ycsb-b", 15, 100) == 600  # as long, not as many
    assert fleet.operations(some, "ycsb-b", 0, 100) == 4000
    assert fleet.operations(served_plan(window_ms=8000), "ycsb-b", 100, 100) == 800


def _answer(plan: FleetPlan, **change: object) -> str:
    said = {"ns": 5, "checksum": "00c0ffee00c0ffee", "workload": plan.workload[-1], "operations": 40, "span_ns": 4}
    said |= {"behind_ns": 3, "read_n": 38, "insert_n": 2}
    for kind, count in (("read", 38), ("insert", 2)):
        for start in ("", "_intended"):
            said |= {f"{kind}{start}_{name}_ns": 100 for name in ("p50", "p99", "max")}
            said[f"{kind}{start}_hist"] = f"100x{count}"
    return "done " + " ".join(f"{key}={value}" for key, value in (said | change).items())


def _served_result(plan: FleetPlan, *lines: str, records: int = 404, bad: int = 0) -> fleet.FleetResult:
    text = RECORDED.read_text()
    body = text[: text.rindex("end ")]
    start, stop = body.index("[plan]\n") + 7, body.index("[facts]")
    told = [f"{key} {value}" for key, value in plan.lines().items()]
    body = body[:start] + "\n".join([*told, *plan.repeated()]) + "\n" + body[stop:]
    body = body[: body.index("[verify]")]
    clients = "\n".join(f"{number} {line}" for number, line in enumerate(lines, 2))
    body += f"[clients]\n{clients}\n[verify]\nchecked_records {records}\nbad_records {bad}\n"
    return fleet.parse((body + f"end {zlib.crc32(body.encode()):08x} {len(body)}\n").encode())


def _client_faults(plan: FleetPlan, result: fleet.FleetResult) -> str:
    with pytest.raises(FleetError) as caught:
        fleet.check(plan, result)
    words = ("client", "operations of", "records is")
    return "\n".join(line.strip() for line in str(caught.value).splitlines() if any(word in line for word in words))


def test_what_clients_measured_is_read_and_pooled() -> None:
    plan = served_plan()
    result = _served_result(plan, _answer(plan), _answer(plan, checksum="1" * 16))
    assert [run.checksum for run in result.clients] == ["00c0ffee00c0ffee", "1" * 16]
    assert result.latencies["insert", "sent"].tail().n == 4
    assert result.latencies["read", "intended"].tail() == Tail(76, 100, 100, 100)
    assert list(result.repeated) == plan.repeated()
    assert _client_faults(plan, result) == ""  # 2 x 200 records, and 4 inserted


def test_a_client_that_did_less_or_found_something_else_is_a_fault() -> None:
    plan = served_plan()
    less = _answer(plan, operations=39, read_n=37, read_hist="100x37", read_intended_hist="100x37")
    assert "VM 3 performed 39 operations of d, not 40" in _client_faults(
        plan, _served_result(plan, _answer(plan), less)
    )
    assert "1 of 2 clients reported" in _client_faults(plan, _served_result(plan, _answer(plan)))
    both = (_answer(plan), _answer(plan))
    assert "bad_records is 1, must be 0" in _client_faults(plan, _served_result(plan, *both, bad=1))
    assert "checked_records is 400, must be 404" in _client_faults(plan, _served_result(plan, *both, records=400))
    damaged = _answer(plan).replace("read_hist=100x38", "read_hist=100x37")
    with pytest.raises(FleetError, match="its histogram"):
        _served_result(plan, _answer(plan), damaged)


def test_profiles_are_plans_and_grow() -> None:
    sizes = [fleet.profile(name).memory_mib for name in fleet.profiles()]
    kinds = [fleet.profile(name).backend for name in fleet.profiles()]
    assert fleet.profiles() == ["unit", "ci", "laptop", "small", "scaled"]
    assert kinds == ["process"] * 3 + ["nested"] * 2
    for kind in kinds:
        own = [size for size, of in zip(sizes, kinds, strict=True) if of == kind]
        assert own == sorted(own)
    assert fleet.profile("laptop").vms == 40
    for name in fleet.profiles():
        found = fleet.profile(name)
        wakeups = found.window_ms / (found.sleep_millisecs + found.pages_to_scan * 25e-3)
        assert wakeups >= 10, f"{name}: ksmd wakes {wakeups:.1f} times at 25,000 instructions a page"
        assert fleet.stated_seconds(name) > 0
        assert fleet.describe(name)
    with pytest.raises(UsageError, match="huge"):
        fleet.profile("huge")


# --- oracle


def test_golden_oracle() -> None:
    assert fleet.expect(plan()) == fleet.Expectation(
        pages=1840,
        distinct=100 + 2 * 50 + 8 * 60 + 1,
        pages_shared=201,
        pages_sharing=1159,
        pages_unshared=480,
        zero_saved=0,
        stable_node_chains=0,
        stable_node_dups=0,
    )


def test_zero_pages_of_the_kernel_are_no_ksm_pages() -> None:
    mine, kernels = fleet.expect(plan()), fleet.expect(plan(use_zero_pages=True))
    assert (kernels.pages_shared, kernels.pages_sharing) == (200, 1000)
    assert kernels.zero_saved == 160
    assert mine.saving_share == pytest.approx(1159 / 1840)
    assert kernels.saving_share == pytest.approx(1160 / 1840)


PLANS = st.builds(
    plan,
    vms=st.integers(1, 9),
    pages_shared_all=st.integers(0, 5),
    pages_shared_some=st.integers(0, 5),
    shared_group=st.integers(1, 12),
    pages_zero=st.integers(0, 6),
    pages_unique=st.integers(0, 4),
    pages_volatile=st.integers(0, 3),
    dataset_rows=st.integers(0, 40),
    max_page_sharing=st.integers(2, 9),
    use_zero_pages=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(PLANS)
def test_the_oracle_counts_what_merging_by_hand_gives(some: FleetPlan) -> None:
    oracle, by_hand = fleet.expect(some), fleet_twin.merge(some)
    assert {name: getattr(oracle, name) for name in by_hand} == by_hand
    assert oracle.pages == sum(1 for _ in fleet_twin.contents(some))
    total = oracle.pages_shared + oracle.pages_sharing + oracle.pages_unshared + oracle.zero_saved
    assert total == oracle.pages


# --- the C code

DRIVER = r"""
#include <stdlib.h>
#include <string.h>
#include "fleet.h"
int main(int argc, char **argv)
{
	static uint64_t page[PAGE_WORDS];
	enum page_class class_;
	struct plan plan;
	long n = argc > 3 ? atol(argv[3]) : 0;

	if (!strcmp(argv[1], "load")) {
		struct susy_row *rows = calloc(n + 1, sizeof(*rows));
		if (!susy_load(argv[2], n, rows))
			return 1;
		fwrite(rows, sizeof(*rows), n, stdout);
		return 0;
	}
	if (!strcmp(argv[1], "susy")) {
		for (long i = 0; i < n; i++) {
			struct susy_row row;
			susy_generate(atol(argv[2]), i, &row);
			fwrite(&row, sizeof(row), 1, stdout);
		}
		return 0;
	}
	if (!plan_read(&plan, argv[2]))
		return 1;
	if (!strcmp(argv[1], "both") && (!*plan.rest || !plan_read_rest(&plan)))
		return 1;
	if (!strcmp(argv[1], "echo") || !strcmp(argv[1], "both"))
		plan_write(&plan, stdout);
	for (long i = 0; !strcmp(argv[1], "pages") && i < plan_pages(&plan); i++) {
		uint64_t key = page_key(&plan, n, i, argc > 4 ? atol(argv[4]) : 0, &class_);
		page_fill(&plan, page, key, class_);
		if (!page_check(&plan, page, key, class_))
			return 3;
		page[i % PAGE_WORDS] ^= 1ULL << (i % 64);
		if (page_check(&plan, page, key, class_))
			return 4;	/* a single flipped bit must be seen */
		page[i % PAGE_WORDS] ^= 1ULL << (i % 64);
		fwrite(page, 1, PAGE, stdout);
	}
	return 0;
}
"""


class Guest:
    """The parts of the guest program that need no kernel, compiled for this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "driver.c").write_text(DRIVER)
        files = [SOURCES / name for name in ("content.c", "plan.c", "susy.c")]
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fsanitize=undefined", f"-I{SOURCES}"]
        run(["gcc", *flags, "-o", directory / "guest", directory / "driver.c", *files, "-lm"])

    def __call__(self, *words: object, check: bool = True) -> tuple[int, bytes, str]:
        out = self.directory / "out"
        command = f'"$0" "$@" > {out}'
        done = run(["sh", "-c", command, self.directory / "guest", *map(str, words)], check=check)
        return done.returncode, out.read_bytes(), done.stderr


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """One compilation for all tests here."""
    return Guest(tmp_path_factory.mktemp("guest"))


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize("alike", [0, 40, 100])
def test_every_page_of_the_c_code_is_the_one_of_the_account(guest: Guest, tmp_path: Path, alike: int) -> None:
    some = plan(vms=5, pages_shared_all=3, pages_shared_some=2, shared_group=2, pages_zero=2, pages_unique=3, seed=99)
    some = fleet.plan_from(some.model_dump() | {"pages_volatile": 2, "alike_percent": alike})
    path = _file(tmp_path, some.render())
    everything = []
    for vm in range(some.vms):
        _, raw, _ = guest("pages", path, vm)
        pages = [raw[at : at + 4096] for at in range(0, len(raw), 4096)]
        assert pages == [fleet_twin.page_bytes(some, vm, page) for page in range(some.pages_per_vm)]
        everything += pages
    assert len(set(everything)) == fleet.expect(some).distinct
    assert len(everything) == fleet.expect(some).pages


def test_only_volatile_pages_change_and_they_change_every_time(guest: Guest, tmp_path: Path) -> None:
    some = plan(pages_shared_all=2, pages_shared_some=1, pages_zero=1, pages_unique=2, pages_volatile=3)
    path = _file(tmp_path, some.render())
    versions = [guest("pages", path, 1, version)[1] for version in (0, 1, 2)]
    still = 6 * 4096
    assert versions[0][:still] == versions[1][:still] == versions[2][:still]
    changing = {raw[at : at + 4096] for raw in versions for at in range(still, len(raw), 4096)}
    assert len(changing) == 9


def test_another_seed_is_another_fleet(guest: Guest, tmp_path: Path) -> None:
    pages = {guest("pages", _file(tmp_path, plan(seed=seed, pages_zero=0).render()), 0)[1][:4096] for seed in range(5)}
    assert len(pages) == 5


def test_the_c_code_reads_the_plan_as_it_is_meant(guest: Guest, tmp_path: Path) -> None:
    some = plan(seed=2**61, dataset="/data/SUSY.csv", use_zero_pages=True)
    _, echoed, _ = guest("echo", _file(tmp_path, some.render()))
    assert dict(line.split() for line in echoed.decode().splitlines()) == some.lines()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text.replace("vms 8\n", ""), "no vms"),
        (lambda text: text + "colour 1\n", "colour"),
        (lambda text: text.replace("vms 8", "vms eight"), "vms eight"),
        (lambda text: text.replace("plan 2", "plan 1"), "version 2"),
        (lambda text: "", "version 2"),
        (lambda text: text + "sysfs /sys/kernel/mm/ksm/run\n", "cannot read: sysfs"),
        (lambda text: text + "counter a\n" * 33, "cannot read: counter"),
        (lambda text: text + "sysfs /a b\n" * 257, "cannot read: sysfs"),
    ],
)
def test_the_c_code_refuses_a_plan_by_name(guest: Guest, tmp_path: Path, spoil: Any, words: str) -> None:
    status, _, said = guest("echo", _file(tmp_path, spoil(plan().render())), check=False)
    assert status == 1
    assert words in said


def test_a_plan_in_two_parts_is_the_same_plan(guest: Guest, tmp_path: Path) -> None:
    """What is behind the checkpoint comes from a file of fixed size, also where lines may repeat."""
    some = plan(seed=11, dataset="/data/SUSY.csv", system="para-ksmc", sysfs=(("/sys/a", "x y"), ("/sys/b", "2")))
    first = some.render_loaded(str(tmp_path / "rest"))
    rest = some.render_rest()
    assert len(rest) == len(plan(system="cpu-ksm").render_rest()) == fleet.REST_BYTES
    (tmp_path / "rest").write_text(rest)
    whole = guest("echo", _file(tmp_path, some.render()))[1]
    assert guest("both", _file(tmp_path, first))[1] == whole
    assert sorted(first.splitlines()[1:-1] + rest.split("end\n")[0].splitlines()) == sorted(
        some.render().splitlines()[1:]
    )


def test_the_c_code_keeps_who_is_told_what(guest: Guest, tmp_path: Path) -> None:
    some = served_plan()
    told = guest("echo", _file(tmp_path, some.render()))[1].decode().splitlines()
    assert [line for line in told if line.startswith(("vm ", "go "))] == some.repeated()[: len(some.commands) + 2]
    twice = some.render().replace("go 3 ", "go 2 ")
    status, _, said = guest("echo", _file(tmp_path, twice), check=False)
    assert status == 1
    assert "cannot read: go 2" in said


def test_systems_and_windows_share_what_is_loaded() -> None:
    """One saved fleet serves all that differ behind it, and none that differ before."""
    one = plan(workload="liblinear", converge_passes=0, window_ms=5, dataset_rows=9)

    def first(**change: Any) -> str:
        return fleet.plan_from(one.model_dump() | change).render_loaded("/rest")

    same: tuple[dict[str, Any], ...] = (
        {"system": "no-ksm"}, {"system": "para-ksmc"}, {"window_ms": 7}, {"ksmd_nice": 0}, {"sample_ms": 3},
        {"prescan_passes": 4}, {"use_zero_pages": True}, {"vm_weight": 9}, {"sysfs": (("/sys/a", "1"),)},
    )  # fmt: skip
    other: tuple[dict[str, Any], ...] = (
        {"seed": 2}, {"vms": 9}, {"pages_zero": 1}, {"dataset_rows": 8}, {"repeats": 2}, {"solver": 11},
        {"alike_percent": 1}, {"workload": "none"}, {"dataset": "/data"}, {"volatile_period_ms": 3},
    )  # fmt: skip
    assert {first(**change) for change in same} == {first()}
    assert len({first(**change) for change in other} | {first()}) == len(other) + 1


@pytest.mark.parametrize(
    ("spoil_first", "spoil_rest", "words"),
    [
        (lambda text: text.replace("vms 8\n", ""), None, "no vms"),
        (lambda text: text.replace("repeats 1\n", ""), None, "no repeats"),
        (lambda text: text + "checkpoint /b\n", None, "cannot read: checkpoint"),
        (None, lambda text: text.replace("window_ms", "window"), "cannot read: window"),
        (None, lambda text: text.replace("window_ms 0\n", ""), "no window_ms"),
        (None, lambda text: "vms 8\n" + text, "cannot read: vms"),
        (None, lambda text: "checkpoint /b\n" + text, "cannot read: checkpoint"),
        (None, lambda text: text.replace("end\n", "").rstrip() + "\n", 'has no line "end"'),
        (None, lambda text: text.replace("sample_ms 10", "sample_ms 0"), "at least 1"),
    ],
)
def test_a_part_that_lacks_something_is_refused_by_name(
    guest: Guest, tmp_path: Path, spoil_first: Any, spoil_rest: Any, words: str
) -> None:
    rest = tmp_path / "rest"
    rest.write_text((spoil_rest or str)(plan().render_rest()))
    first = (spoil_first or str)(plan().render_loaded(str(rest)))
    status, _, said = guest("both", _file(tmp_path, first), check=False)
    assert status == 1
    assert words in said


def test_too_many_settings_for_the_second_part_are_refused() -> None:
    with pytest.raises(UsageError, match="65536 are for them"):
        plan(sysfs=tuple((f"/sys/{'x' * 200}{i}", "y" * 100) for i in range(250))).render_rest()


def _rows(raw: bytes) -> list[tuple[float, ...]]:
    return [struct.unpack_from("<19d", raw, at) for at in range(0, len(raw), 19 * 8)]


def test_generated_training_data_are_the_same_bits_in_c_and_python(guest: Guest) -> None:
    _, raw, _ = guest("susy", 5, 300)
    assert _rows(raw) == [(label, *features) for label, features in (fleet_twin.susy_row(5, i) for i in range(300))]


def test_golden_training_data(guest: Guest) -> None:
    _, raw, _ = guest("susy", 1, 20000)
    assert f"{zlib.crc32(raw):08x}" == "7392573d"
    share = sum(row[0] for row in _rows(raw)) / 20000
    assert share == pytest.approx(0.4576, abs=0.02)


def test_both_formats_of_the_real_file(guest: Guest, tmp_path: Path) -> None:
    table = [fleet_twin.susy_row(3, i) for i in range(20)]
    uci, sparse = tmp_path / "SUSY.csv", tmp_path / "SUSY.svm"
    uci.write_text("".join(f"{label:.18e},{','.join(f'{x:.18e}' for x in row)}\n" for label, row in table))
    sparse.write_text(
        "".join(f"{label:g} {' '.join(f'{i + 1}:{x!r}' for i, x in enumerate(row))}\n" for label, row in table)
    )
    wanted = [(label, *row) for label, row in table]
    assert _rows(guest("load", uci, 20)[1]) == wanted
    assert _rows(guest("load", sparse, 20)[1]) == wanted
    assert _rows(guest("load", uci, 7)[1]) == wanted[:7]


def test_a_short_or_missing_or_foreign_file_is_refused(guest: Guest, tmp_path: Path) -> None:
    short, foreign = tmp_path / "short.csv", tmp_path / "foreign.svm"
    short.write_text("1,2,3\n" * 5)
    foreign.write_text("1 19:0.5\n")
    status, _, said = guest("load", short, 6, check=False)
    assert (status, "has 5 rows, the plan wants 6" in said) == (1, True)
    assert guest("load", tmp_path / "absent", 1, check=False)[0] == 1
    status, _, said = guest("load", foreign, 1, check=False)
    assert (status, "feature 19" in said) == (1, True)


# --- results


def test_a_recorded_result_of_a_real_ksmd_is_what_the_oracle_says() -> None:
    result = fleet.parse(RECORDED.read_bytes())
    fleet.check(plan(), result)
    assert result.samples[-1]["pages_sharing"] == 1159
    assert result.samples[0]["pages_scanned"] == 0
    assert result.application_ns is None
    assert result.model is None
    assert (result.corun_ns, result.ksmd_ns) == (50192231, 49784619)
    assert result.idle_share == 0
    assert [row["ksm_merging_pages"] for row in result.of_vm(8)] == [0, 170]
    assert [row["runtime_ns"] for row in result.of_vm(8)] == [3392572, 3392572]
    assert [vm["vm"] for vm in result.vms] == list(range(1, 9))


def test_a_terminal_around_the_result_does_no_harm() -> None:
    raw = RECORDED.read_bytes()
    assert fleet.parse(b"login: \r\n" + raw.replace(b"\n", b"\r\n") + b"\r\n~ # ") == fleet.parse(raw)


def test_every_truncation_is_noticed() -> None:
    raw = RECORDED.read_bytes()
    for size in range(0, len(raw), 7):
        with pytest.raises(FleetError):
            fleet.parse(raw[:size])


def test_every_flipped_bit_is_noticed() -> None:
    raw = RECORDED.read_bytes()
    whole = fleet.parse(raw)
    for at in range(0, len(raw), 11):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << at % 7
        try:
            assert fleet.parse(bytes(damaged)) == whole
        except FleetError:
            continue
        assert at >= raw.rindex(b"end "), f"byte {at}"  # a hexadecimal digit in the other case is the same number


def _sealed(text: str) -> bytes:
    """A result with a right last line, whatever it says."""
    body = text[: text.index("\nend ") + 1].encode()
    return body + f"end {zlib.crc32(body):08x} {len(body)}\n".encode()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("201,1159,480,0,5,0,0,0,2048,9412", "201,1158,480,0,5,0,0,0,2048,9412", "pages_sharing is 1158"),
        ("201,1159,480,0,5,0,0,0,2048,9412", "201,1159,479,1,5,0,0,0,2048,9412", "pages_volatile is 1"),
        ("bad_pages_merged 0", "bad_pages_merged 3", "bad_pages_merged is 3"),
        ("bad_pages_unmerged 0", "bad_pages_unmerged 1", "bad_pages_unmerged is 1"),
        ("ksm_pages_after_unmerge 0", "ksm_pages_after_unmerge 2", "ksm_pages_after_unmerge is 2"),
        ("checked_pages 1840", "checked_pages 1610", "checked_pages is 1610"),
        ("\n8,932,170,3398277", "", "7 of 8 VMs"),
        ("seed 1\n", "seed 2\n", "seed was 2"),
        ("[facts]\nksmd_nice 5", "[facts]\nksmd_nice 0", "ksmd_nice reads back as 0"),
        ("ksmd_policy 0\nksmd_rt", "ksmd_policy 1\nksmd_rt", "ksmd_policy reads back as 1"),
        ("0\nvm_weight 3\npages_to_scan 2048", "0\nvm_weight 100\npages_to_scan 2048", "vm_weight"),
        ("50109722,49779586", "50109722,59779586", "ksmd_ns fell"),
        ("50192231,8,3392572,238", "50192231,8,3392572,237", "VM 8: faults fell"),
        ("\n50192231,8,3392572,238,170", "", "does not hold the VMs 1 to 8"),
        ("8,3392572,238,170", "8,3392572,-1,170", "faults of VM 8 could not be read"),
        ("dataset -\n[facts]", "dataset -\nsysfs /sys/a 1\n[facts]", "not those that were asked for"),
    ],
)
def test_a_result_that_breaks_its_plan_or_the_oracle(old: str, new: str, words: str) -> None:
    text = RECORDED.read_text()
    assert old in text
    with pytest.raises(FleetError, match=words):
        fleet.check(plan(), fleet.parse(_sealed(text.replace(old, new))))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("paraksm-fleet 2", "paraksm-fleet 1", "no fleet result"),
        ("[vms]", "[machines]", "no section vms"),
        ("page_checksums\n", "page_sums\n", "page_sums"),
        ("pages_shared,", "", "does not fit"),
        ("8,932,170,3398277", "8,932,170", "does not fit"),
        ("0\nvm_weight 3\npages_to_scan 2048", "0\nvm_weight\npages_to_scan 2048", "keys and values"),
        ("t_ns,vm,runtime_ns", "t_ns,vm,walltime_ns", "walltime_ns"),
        ("[settings]\n", "[settings]\n/sys/a\n", "paths and values"),
    ],
)
def test_a_result_of_another_shape(old: str, new: str, words: str) -> None:
    with pytest.raises(FleetError, match=words):
        fleet.parse(_sealed(RECORDED.read_text().replace(old, new)))


def test_saving_more_than_the_contents_allow_is_an_error() -> None:
    window = plan(converge_passes=0, window_ms=50)
    text = RECORDED.read_text().replace("converge_passes 4", "converge_passes 0").replace("window_ms 0", "window_ms 50")
    text = text.replace("sleep_millisecs 0\n", "sleep_millisecs 20\n")
    fleet.check(window, fleet.parse(_sealed(text)))
    text = text.replace(",201,1159,480,0,5", ",201,1160,480,0,5")
    with pytest.raises(FleetError, match="1160 pages were saved, the contents allow 1159"):
        fleet.check(window, fleet.parse(_sealed(text)))


def test_ksmd_must_sleep_when_there_is_no_ksm() -> None:
    still = plan(converge_passes=0, window_ms=50, system="no-ksm")
    text = RECORDED.read_text().replace("converge_passes 4", "converge_passes 0").replace("window_ms 0", "window_ms 50")
    text = text.replace("sleep_millisecs 0\n", "sleep_millisecs 20\n")
    with pytest.raises(FleetError, match=r"(?s)though ksmd never ran.*though it was off"):
        fleet.check(still, fleet.parse(_sealed(text.replace("\nksm 1\n", "\nksm 0\n"))))


# --- command line


def _cli(*words: str) -> Any:
    from harness.cli.fleet import app

    return CliRunner().invoke(app, list(words))


def test_the_command_line_prints_plans_oracles_and_profiles() -> None:
    assert (
        _cli("plan", "unit", "--set", "system=no-ksm", "--set", "vms=5").stdout
        == fleet.plan_from(fleet.profile("unit").model_dump() | {"system": "no-ksm", "vms": 5}).render()
    )
    values = json.loads(_cli("oracle", "ci", "--json").stdout)
    assert values["pages_sharing"] == fleet.expect(fleet.profile("ci")).pages_sharing
    assert [line.split()[0] for line in _cli("profiles").stdout.splitlines()] == fleet.profiles()


@pytest.mark.parametrize("change", ["vms", "vms=many", "colour=1", "solver=9"])
def test_the_command_line_refuses_what_no_plan_has(change: str) -> None:
    assert isinstance(_cli("plan", "unit", "--set", change).exception, UsageError)


def test_the_command_line_checks_a_result(tmp_path: Path) -> None:
    path = tmp_path / "results.bin"
    path.write_bytes(RECORDED.read_bytes())
    changes = [f"--set={key}={json.dumps(value)}" for key, value in plan().model_dump().items()]
    summary = json.loads(_cli("check", str(path), "--json", *changes).stdout)
    assert (summary["pages_saved"], summary["pages_possible"], summary["samples"]) == (1159, 1159, 7)
    assert isinstance(_cli("check", str(path)).exception, FleetError)
