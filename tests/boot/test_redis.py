# SPDX-License-Identifier: GPL-2.0-or-later
"""Redis and its load generator on a sealed machine: merged by ksmd, unharmed by it, and the same bytes twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import images
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.latency import ClientRun, Start, parse
from harness.machine import Machine, MachineSpec, Outcome
from harness.qbuild import QemuBuild
from tests import ycsb_twin as twin
from tests.smaps import anonymous_kib, areas

pytestmark = pytest.mark.boot

RECORDS = 400
OPERATIONS = 300
STARTS: tuple[Start, ...] = ("sent", "intended")

JOB = f"""\
fail() {{ echo "$@" >&2; exit 1; }}
ifconfig lo 127.0.0.1 up
chmod 755 /redis-server /ycsb
export PARAKSM_MERGEABLE=1
for group in 1 2; do
    /redis-server --port 700$group --save '' --appendonly no --dir /tmp >/tmp/server$group.log &
    /ycsb load --server 127.0.0.1:700$group --records {RECORDS} --values keyed </dev/null || fail load
done
for workload in a b c d; do
    echo go | /ycsb run --server 127.0.0.1:7001 --records {RECORDS} --values keyed --workload $workload \\
        --operations {OPERATIONS} --target 2000 || fail run $workload
done
cd /sys/kernel/mm/ksm
echo 1000 > pages_to_scan && echo 10 > sleep_millisecs && echo 1 > run
while [ $(cat full_scans) -lt 4 ]; do usleep 10000; done
echo sharing $(cat pages_sharing)
for group in 1 2; do
    printf 'verify\\ngo\\nverify\\n' | /ycsb run --server 127.0.0.1:700$group --records {RECORDS} --values keyed \\
        --workload a --operations {OPERATIONS} --client 2 || fail verify
done
echo 2 > run
echo left $(cat pages_shared) $(cat pages_sharing)
echo verify | /ycsb run --server 127.0.0.1:7002 --records {RECORDS} --values keyed --workload c --operations 1 || fail
echo smaps
cat /proc/$(pidof redis-server | cut -d' ' -f1)/smaps
"""


@pytest.fixture(scope="module")
def runs(
    qemu_build: QemuBuild,
    kernel_build: KernelBuild,
    measured_image: Image,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[str]:
    """What two runs of the same job said."""
    programs = {name: images.program(name) for name in ("redis-server", "ycsb")}
    image = images.extended(measured_image, programs)

    def once(name: str) -> str:
        folder = tmp_path_factory.mktemp(name)
        (folder / "command.sh").write_text(JOB)
        spec = MachineSpec(qemu_build, kernel_build, image, "measured", 256, fw_cfg={"command": folder / "command.sh"})
        with Machine(spec, folder) as machine:
            machine.start()
            outcome = machine.wait(300)
            assert outcome is Outcome.CLEAN, machine.verdict.explain()
            assert machine.status == 0, machine.console_log.read_text()[-3000:]
        return (folder / "results.bin").read_text()

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(once, ("first", "second")))


def _answers(said: str) -> list[ClientRun]:
    return [parse(line) for line in said.splitlines() if line.startswith("done")]


def test_two_runs_are_the_same_bytes(runs: list[str]) -> None:
    assert runs[0] == runs[1]


def test_clients_hold_their_rate_and_do_what_their_workload_says(runs: list[str]) -> None:
    answers = _answers(runs[0])
    assert [answer.workload for answer in answers] == ["a", "b", "c", "d", "a", "a"]
    for answer in answers[:4]:
        reads = sum(operation.kind == "read" for operation in twin.operations(answer.workload, RECORDS, OPERATIONS))
        assert answer.span_ns >= (OPERATIONS - 1) * 500_000
        assert answer.behind_ns < 2_000_000
        # a timer, an interrupt and a switch, some 3 us; the slack of timers would be 50
        sent, intended = (answer.latencies["read", start].tail() for start in STARTS)
        assert sent.n == reads
        assert 0 < intended.p50_ns - sent.p50_ns < 10_000
        # one operation costs both ends, their system calls and two switches: far more than the code of either alone
        assert 20_000 < sent.p50_ns < 400_000


def test_equal_servers_are_merged_and_no_record_is_harmed(runs: list[str]) -> None:
    said = runs[0].splitlines()
    (sharing,) = (int(line.split()[1]) for line in said if line.startswith("sharing"))
    # both hold the same records, loaded in the same order: of some 250 pages of records each most find their like
    assert sharing > 150
    verdicts = [line for line in said if line.startswith("verified")]
    assert verdicts == [f"verified pages={RECORDS} bad=0"] * 5
    assert "left 0 0" in said


def test_a_guests_server_is_mergeable(runs: list[str]) -> None:
    found = areas(runs[0].partition("\nsmaps\n")[2])
    assert anonymous_kib(found, mergeable=True) * 1024 >= RECORDS * 2000
    assert anonymous_kib(found, mergeable=False) <= 64
