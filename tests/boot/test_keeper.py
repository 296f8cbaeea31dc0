# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness fleet up`` with real VMs: they load, ksmd merges, a lost one is told, ``down`` leaves no process."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from harness.workbench import workbench

NAME = "boot-test"


def _harness(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", "-q", "fleet", *words],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def _seen() -> dict[str, Any]:
    done = _harness("status", NAME, "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


@pytest.mark.boot
def test_real_vms_come_up_are_merged_and_go_away() -> None:
    workbench(image="fleet")  # what has to be built is built here, without the time limit of the command
    change = ["--set", "vms=2", "--set", "vm_memory_mib=40", "--set", "graph_scale=10"]
    words = ["--name", NAME, "--profile", "small", "--workload", "graph500", "--system", "para-ksmc", *change]
    done = _harness("up", *words, "--json")
    assert done.returncode == 0, done.stderr
    try:
        state = json.loads(done.stdout)
        keeper = psutil.Process(state["keeper"])
        family = [keeper, *keeper.children(recursive=True)]
        assert len(family) == 2
        # one VM's own equal pages are merged before ksmd has looked at the other
        for _ in range(100):
            seen = _seen()
            if int(seen["ksm"]["pages_sharing"]) > 1000 and all(vm["merging_pages"] for vm in seen["vms"]):
                break
            time.sleep(0.2)
        assert int(seen["ksm"]["pages_sharing"]) > 1000
        assert "[para_c]" in seen["ksm"]["offload_mode"]
        assert int(seen["ksm"]["offload_compares"]) > 0
        assert [vm["alive"] for vm in seen["vms"]] == [True, True]
        assert all(vm["rss_mib"] > 8 and vm["merging_pages"] for vm in seen["vms"])
        assert 0 < seen["ksmd_seconds"] < seen["up_seconds"]

        # whose pages they are, seen from outside while they stand still; then they go on
        seen = json.loads(_harness("status", NAME, "--shares", "--json").stdout)
        for vm in ("1", "2"):
            pages = seen["pages"][vm]
            assert pages["pages"] == sum(pages[kind] for kind in ("zero", "self", "inter", "unique")) > 4096
            assert pages["inter"] > pages["pages"] / 5
        assert int(seen["ksm"]["pages_sharing"]) < 1.1 * seen["possible"]

        # whoever logs in can end a VM: that is told, and the other lives
        script = "set -- $(pidof vmm | tr ' ' '\\n' | sort -n); kill -9 $2; uname -r"
        told = subprocess.run(
            [*shlex.split(state["ssh"]), script], capture_output=True, text=True, check=False, timeout=60
        )
        assert told.stdout.strip() == state["kernel"], told.stderr
        for _ in range(50):
            if [vm["alive"] for vm in _seen()["vms"]] == [True, False]:
                break
            time.sleep(0.1)
        assert "1 of 2 VMs are lost: 2" in _harness("status", NAME).stdout
    finally:
        done = _harness("down", NAME)
    assert done.stdout == f"fleet '{NAME}' is down\n"
    assert psutil.wait_procs(family, timeout=5)[1] == []
