# SPDX-License-Identifier: GPL-2.0-or-later
"""A booted guest as a server with the accelerator: looked at over ssh."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness import detached
from harness.config import paths
from harness.experiment import conduct
from harness.host import Host
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec, free_port
from harness.qbuild import QemuBuild
from harness.run import Deadline
from harness.ssh import Access, grant

pytestmark = pytest.mark.boot


@pytest.fixture(scope="module")
def server(
    qemu_build: QemuBuild,
    kernel_build: KernelBuild,
    functional_image: Image,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Access]:
    """One guest with an accelerator behind an IOMMU, for all tests of this file."""
    folder = tmp_path_factory.mktemp("server")
    access = grant(folder, free_port())
    spec = MachineSpec(
        qemu_build, kernel_build, functional_image, "functional", 512, fw_cfg=access.fw_cfg, ssh_port=access.port,
        dsa=({},), iommu=True,
    )  # fmt: skip
    with Machine(spec, folder / "run") as machine:
        machine.start(timeout=120)
        yield access


def harness(server: Access, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, with the guest as its target."""
    login = ["--target", server.url, "--identity", str(server.identity), "--known-hosts", str(server.known_hosts)]
    return subprocess.run(
        [sys.executable, "-m", "harness", "-q", *words, *login],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_guest_is_looked_at_as_a_server_is(server: Access) -> None:
    done = harness(server, "host", "check", "--json")
    assert done.returncode == 1, done.stdout + done.stderr  # something to know, nothing that forbids
    found: dict[str, dict[str, str]] = {}
    for finding in json.loads(done.stdout):
        found.setdefault(finding["check"], finding)
    states = {name: finding["state"] for name, finding in found.items()}
    good = ("machine", "DSA", "idxd", "firmware: VT-d", "IOMMU", "KSM", "NUMA", "swap")
    assert {name: states[name] for name in good} == dict.fromkeys(good, "ok")
    assert "para_c" in found["KSM"]["evidence"]
    assert found["word intel_iommu"]["state"] == "warn"  # intel_iommu=on alone
    assert found["THP"]["evidence"].startswith("never")
    assert found["counters"]["state"] == found["CAT"]["state"] == "warn"
    assert all(finding["fix"] for finding in found.values() if finding["state"] != "ok")


def say(server: Access, script: str) -> str:
    """What a script on the guest prints."""
    with Host.connect(server.url, server.identity, server.known_hosts) as host:
        return host.run(["sh", "-s"], input=script, timeout=60).stdout


def test_made_quiet_and_put_back_and_nobody_else_meanwhile(server: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = "cat /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/mm/ksm/pages_to_scan /sys/kernel/mm/ksm/run"
    say(
        server, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled; echo 77 > /sys/kernel/mm/ksm/pages_to_scan"
    )
    before = say(server, knobs)
    done = harness(server, "host", "prepare", "--hours", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert {change["target"]: change["before"] for change in json.loads(done.stdout)}[
        "/sys/kernel/mm/transparent_hugepage/enabled"
    ] == "madvise"
    assert "[never]" in say(server, knobs)
    say(server, "echo 1234 > /sys/kernel/mm/ksm/pages_to_scan; echo 1 > /sys/kernel/mm/ksm/run")
    with monkeypatch.context() as other:
        other.setenv("XDG_CACHE_HOME", str(server.identity.parent / "another's cache"))
        refused = harness(server, "host", "restore")
        assert refused.returncode == 10
        assert "the host is in use" in refused.stderr
        assert "[never]" in say(server, knobs)
    assert json.loads(harness(server, "host", "status", "--json").stdout)["lease"]["ours"] is True
    done = harness(server, "host", "restore")
    assert done.returncode == 0, done.stderr
    assert say(server, knobs) == before
    assert json.loads(harness(server, "host", "status", "--json").stdout) == {
        "lease": None, "changed": None, "quarantine": None
    }  # fmt: skip


def test_a_job_outlives_the_connections_that_are_cut(server: Access) -> None:
    cut = "for p in $(pidof dropbear); do [ $p = $1 ] || kill $p; done"
    with Host.connect(server.url, server.identity, server.known_hosts) as host, host.scratch() as folder:
        # the first of them is the one that listens
        listening = say(server, "pidof dropbear | tr ' ' '\\n' | sort -n | head -1").strip()
        killer = f"set -- {listening}; {cut}"
        detached.begin(
            host, folder, f"(sleep 1; {killer}) 2>/dev/null & sleep 4; echo done; echo complaint >&2; exit 3"
        )
        ended = detached.wait(host, folder, Deadline(120))
        assert ended == detached.Ended(3, b"done\n", b"complaint\n")


def test_a_full_disk_stops_before_anything_is_changed(server: Access) -> None:
    knob = "/sys/kernel/mm/transparent_hugepage/enabled"
    say(server, f"echo madvise > {knob}; mkdir -p /var/lib/paraksm; mount -t tmpfs -o size=4k none /var/lib/paraksm")
    try:
        say(server, "head -c 8192 /dev/zero > /var/lib/paraksm/filler 2>/dev/null; true")
        done = harness(server, "host", "prepare")
        assert done.returncode == 9, done.stderr
        assert "No space left" in done.stderr
        assert "[madvise]" in say(server, f"cat {knob}")
    finally:
        say(server, f"umount /var/lib/paraksm; echo never > {knob}")


def test_every_system_is_measured_on_a_server_and_all_is_put_back(server: Access) -> None:
    """The accelerator belonged to somebody's configuration before; it has that again, and KSM its knobs."""
    queue = "cd /sys/bus/dsa/devices; cat wq0.0/name wq0.0/size wq0.0/state dsa0/state engine0.2/group_id"
    configured = harness(server, "dsa", "configure", "--queue-size", "16", "--engines", "2", "--driver", "none")
    assert configured.returncode == 0, configured.stderr
    huge = "/sys/kernel/mm/transparent_hugepage/enabled"
    say(server, f"echo 77 > /sys/kernel/mm/ksm/pages_to_scan; echo madvise > {huge}")
    state = f"{queue}; cd /sys/kernel/mm/ksm; cat {huge} offload_mode offload_batch_size pages_to_scan run"
    before = say(server, state)
    outcome = conduct.conduct(
        conduct.Request(
            "fig14", profile="unit", target=server.url, identity=server.identity, known_hosts=server.known_hosts
        )
    )
    assert outcome.failures == ()
    records = {record.cell["system"]: record for record in conduct.store().records()}
    assert set(records) == {"cpu-ksm", "dsa-ksm", "para-ksmc", "para-ksmt"}
    for name, record in records.items():
        (samples,) = paths().results.glob(f"runs/{record.key[:16]}/samples.csv")
        last = list(csv.DictReader(samples.open()))[-1]
        assert int(last["full_scans"]) > 0
        # the device did its work, behind the IOMMU, and none of it failed
        assert name == "cpu-ksm" or (int(last["offload_jobs"]) > 0 and int(last["offload_errors"]) == 0)
    assert say(server, state) == before
    told = json.loads(harness(server, "host", "status", "--json").stdout)
    assert told == {"lease": None, "changed": None, "quarantine": None}
    say(server, f"echo never > {huge}")


def test_a_server_that_cannot_be_put_back_measures_for_nobody_until_it_is_mended(server: Access) -> None:
    folder = "/sys/kernel/mm/transparent_hugepage"
    say(server, f"echo madvise > {folder}/enabled")
    assert harness(server, "host", "prepare").returncode == 0
    say(server, f"mount -o bind {folder} {folder}; mount -o remount,ro,bind {folder}")
    try:
        done = harness(server, "host", "restore")
        assert done.returncode == 9
        assert f"{folder}/enabled is never, it was madvise: Read-only file system" in done.stderr
        refused = harness(server, "experiment", "fig14", "--profile", "unit", "--seeds", "1")
        assert refused.returncode == 9
        assert "the host is in quarantine" in refused.stderr
        assert "Read-only file system" in json.loads(harness(server, "host", "status", "--json").stdout)["quarantine"]
    finally:
        say(server, f"umount {folder}")
    done = harness(server, "host", "restore")
    assert done.returncode == 0, done.stderr
    assert "[madvise]" in say(server, f"cat {folder}/enabled")
    say(server, f"echo never > {folder}/enabled")
