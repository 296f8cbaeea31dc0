# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own tests of KSM, from the tree that is built, in every mode: exact counts after exactly two passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import dsa, patches, sources
from harness.console import Outcome
from harness.dsa import Layout
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Machine, MachineSpec
from harness.qbuild import QemuBuild
from harness.run import run
from tests.boot.guest import give

pytestmark = pytest.mark.boot

KSM = "/sys/kernel/mm/ksm"
ONE_PASS = "ksm_do_scan(1, start_time, timeout)"
CASES = (
    "-M", "-M -p 10", "-M -p 300", "-M -p 10 -a r", "-M -p 10 -a x", "-U", "-Z -p 10 -z 0", "-Z -p 10 -z 1",
    "-N -m 1", "-N -m 0", "-P -s 2", "-H -s 4", "-C",
)  # fmt: skip


@pytest.fixture(scope="module")
def guest(
    qemu_build: QemuBuild,
    kernel_build: KernelBuild,
    functional_image: Image,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Machine]:
    """Two NUMA nodes, a DSA that works for ksmd, and the program, which wants static libnuma."""
    folder = tmp_path_factory.mktemp("ksm-tests")
    tree = patches.apply(sources.obtain("linux")).tree.path
    [source] = tree.glob("tools/testing/selftests/*m/ksm_tests.c")
    text = source.read_text()
    # the unmerge case waits for the end of one pass, which may have been past its pages when it wrote to them
    assert text.count(ONE_PASS) == 1
    mended, program = folder / source.name, folder / "ksm_tests"
    mended.write_text(text.replace(ONE_PASS, ONE_PASS.replace("1", "2")))
    run(["gcc", "-static", "-O2", "-w", f"-I{tree}", f"-I{source.parent}", "-o", program, mended, "-lnuma"])
    spec = MachineSpec(
        qemu_build, kernel_build, functional_image, "functional", 512, cpus=2, cmdline=("numa=fake=2",), dsa=({},)
    )
    with Machine(spec, folder / "run") as machine:
        machine.start(timeout=120)
        dsa.apply(machine.shell, dsa.plan(dsa.read(machine.shell).device("dsa0"), Layout(driver="ksm")))
        give(machine, "/bin/ksm_tests", program.read_bytes())
        yield machine


@pytest.mark.parametrize("mode", ["cpu", "dsa", "para_c", "para_t"])
def test_the_kernels_own_tests(guest: Machine, mode: str) -> None:
    # every comparison and checksum goes to the device, and nobody else uses KSM
    setup = f"cd {KSM}; echo 0 > offload_prefix_bytes; echo 1 > offload_min_requests; echo {mode} > offload_mode"
    jobs = f"cat {KSM}/offload_jobs"
    before = int(guest.shell(f"{setup}; {jobs}").stdout)
    for case in CASES:
        done = guest.shell(f"ksm_tests {case} -l 120; status=$?; echo 2 > {KSM}/run; exit $status", timeout=300)
        assert done.returncode == 0, f"{case}: {done.stdout}{done.stderr}"
    after = int(guest.shell(jobs).stdout)
    assert (after > before) == (mode != "cpu")
    assert guest.verdict.outcome is Outcome.CLEAN, guest.verdict.explain()
