# SPDX-License-Identifier: GPL-2.0-or-later
"""The workload programs in a measured guest, where their time is their number of instructions."""

from __future__ import annotations

import re

import pytest

from harness import images
from harness.config import PROJECT
from harness.machine import Machine, MachineSpec, Outcome
from harness.workbench import Workbench
from tests.workload import Said, say

pytestmark = pytest.mark.boot

COMMANDS = ("go", "verify", "go")
RUNS = {
    "graph500": ["--scale", "12", "--roots", "8"],
    "svr": ["--rows", "2000"],
}


@pytest.fixture(scope="module")
def said(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """What each program says in a guest; one guest runs them all."""
    work = tmp_path_factory.mktemp("workloads")
    script = work / "command.sh"
    told = "".join(f"{command}\\n" for command in COMMANDS)
    script.write_text(
        "".join(
            f"chmod 755 /{name}; printf '{told}' | /{name} {' '.join(words)}; echo status=$?\n"
            for name, words in RUNS.items()
        )
    )
    image = images.extended(bench.image, {name: images.program(name) for name in RUNS})
    spec = MachineSpec(
        bench.qemu, bench.kernel, image, mode="measured", memory_mib=192, fw_cfg={"opt/paraksm/command": script}
    )
    with Machine(spec, work / "run") as machine:
        machine.start()
        assert machine.wait(300) is Outcome.CLEAN, machine.verdict.explain()
    lines = (work / "run" / "results.bin").read_text().splitlines()
    found = {}
    for name in RUNS:
        end = next(at for at, line in enumerate(lines) if line.startswith("status="))
        found[name] = Said(lines[:end], int(lines[end].partition("=")[2]), "")
        del lines[: end + 1]
    assert not lines
    return found


@pytest.mark.parametrize("name", RUNS)
def test_results_are_those_of_this_machine(said: dict[str, Said], name: str) -> None:
    native = say(images.program(name), RUNS[name], *COMMANDS)
    assert (said[name].status, native.status) == (0, 0)
    for word in ("ready", "verified"):
        assert said[name].values(word) == native.values(word)
    varies = {"ns", "teps", "build_ns", "search_ns", "validate_ns"}
    there, here = (
        [{key: value for key, value in row.items() if key not in varies} for row in some.values("done")]
        for some in (said[name], native)
    )
    assert there == here
    assert len(there) == 2


def _documented(step: str) -> float:
    """A figure of the table of costs."""
    text = (PROJECT / "docs" / "workloads.md").read_text()
    match = re.search(rf"^\| {re.escape(step)} \| ([\d.,]+) \|", text, re.MULTILINE)
    assert match is not None, step
    return float(match[1].replace(",", ""))


def test_instructions_are_what_the_document_says(said: dict[str, Said]) -> None:
    """One instruction is one nanosecond, so a run's time says what it costs, to the instruction."""
    done = said["graph500"].values("done")[-1]
    edges, roots = int(done["edges"]), int(done["roots"])
    found = {
        "`graph500`: kernel 1": int(done["build_ns"]) / edges,
        "`graph500`: a search": int(done["search_ns"]) / edges / roots,
        "`graph500`: validation of its tree": int(done["validate_ns"]) / edges / roots,
        "`svr`: a training by solver 12": int(said["svr"].values("done")[-1]["ns"]) / 2000,
    }
    assert found == {step: pytest.approx(_documented(step), rel=0.1) for step in found}
    for name in RUNS:
        first, second = (int(row["ns"]) for row in said[name].values("done"))
        assert second == pytest.approx(first, rel=0.01)  # a run leaves nothing behind
