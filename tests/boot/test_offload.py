# SPDX-License-Identifier: GPL-2.0-or-later
"""ksmd with an accelerator: whatever the mode, the batch or the device, memory ends as a scan one by one leaves it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import fleet, systems
from harness.fleet import FleetPlan, FleetResult
from harness.systems import Write
from tests.boot.sealed import CONVERGED, Sealed, unit

pytestmark = pytest.mark.boot

KSM = "/sys/kernel/mm/ksm"
DEBUG = "/sys/module/ksm_offload_debug/parameters"


def _plan(mode: str, change: dict[str, object] | None = None, **knobs: int) -> FleetPlan:
    """A fleet that is scanned to the end in one mode, the batches worked off by the processor."""
    lines = [*((f"{KSM}/offload_{name}", str(value)) for name, value in knobs.items()), (f"{KSM}/offload_mode", mode)]
    return unit(**{**CONVERGED, **FINE, **(change or {})}, sysfs=tuple(lines))


def _faults(**rates: int) -> tuple[Write, ...]:
    """The debug backend with these rates in place of the device, asked about everything."""
    knobs = {"backend": "debug", "prefix_bytes": "0", "min_requests": "1", "timeout_ms": "2"}
    return (
        *((f"{DEBUG}/{name}", str(value)) for name, value in rates.items()),
        (f"{DEBUG}/enable", "Y"),
        *((f"{KSM}/offload_{name}", value) for name, value in knobs.items()),
    )


FINE = {"sample_ms": 1}
"""A pass of a batch takes a few milliseconds."""


def _passes(result: FleetResult) -> int:
    """How many passes were complete when something was still to be merged."""
    last = result.samples[-1]["pages_sharing"]
    return max(sample["full_scans"] for sample in result.samples if sample["pages_sharing"] < last)


@pytest.fixture(scope="session")
def passes_one_by_one(sealed: Sealed, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many passes ksmd takes without any of this."""
    return _passes(sealed(unit(**CONVERGED, **FINE), tmp_path_factory.mktemp("one-by-one") / "run"))


def _passes_on_the_device(sealed: Sealed, work: Path, system: str) -> int:
    """Passes until memory is as the contents allow, exactly, with every answer from the device."""
    devices = systems.machine_devices()
    result = sealed(unit(**CONVERGED, **FINE, system=system), work, devices=devices)
    last = result.samples[-1]
    assert last["offload_jobs"] > 0
    assert last["offload_checksums"] > 0
    assert last["offload_errors"] == last["offload_timeouts"] == last["offload_fallbacks"] == 0
    return _passes(result)


ACCELERATED = ("dsa-ksm", "para-ksmc", "para-ksmt")


@pytest.mark.parametrize("system", ACCELERATED)
def test_every_system_reaches_the_oracle_on_the_emulated_device(
    sealed: Sealed, tmp_path: Path, passes_one_by_one: int, system: str
) -> None:
    """The unmodified idxd driver, the queue driver of the series, the device: exactly what the contents allow."""
    assert _passes_on_the_device(sealed, tmp_path / "run", system) == passes_one_by_one


@pytest.fixture(scope="session")
def passes_of_6_2(sealed_later: Sealed, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many passes 6.2 takes without an accelerator."""
    return _passes(sealed_later(unit(**CONVERGED, **FINE), tmp_path_factory.mktemp("6.2") / "run"))


@pytest.mark.parametrize("system", ACCELERATED)
def test_every_system_reaches_the_oracle_on_6_2(
    sealed_later: Sealed, tmp_path: Path, passes_of_6_2: int, system: str
) -> None:
    """The series as rendered for the paper's kernel, whose scanner and driver differ."""
    assert sealed_later.kernel.release.startswith("6.2")
    assert _passes_on_the_device(sealed_later, tmp_path / "run", system) == passes_of_6_2


@pytest.mark.parametrize("size", [2, 3, 16, 255, 256, 1024])
def test_batches_of_any_size_reach_the_oracle(
    sealed: Sealed, tmp_path: Path, passes_one_by_one: int, size: int
) -> None:
    plan = _plan("para_c", batch_size=size, prefix_bytes=0, change={"pages_to_scan": 4096})
    assert _passes(sealed(plan, tmp_path / "run")) == passes_one_by_one


@pytest.mark.parametrize("levels", [1, 2, 4, 6])
def test_any_number_of_levels_reaches_the_oracle(
    sealed: Sealed, tmp_path: Path, passes_one_by_one: int, levels: int
) -> None:
    plan = _plan("para_t", tree_levels=levels, prefix_bytes=0)
    assert _passes(sealed(plan, tmp_path / "run")) == passes_one_by_one


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"max_page_sharing": 2}, id="two-mappings-a-page"),
        pytest.param({"max_page_sharing": 4}, id="chains"),
        pytest.param({"use_zero_pages": True}, id="kernel-zero-pages"),
        pytest.param({"pages_to_scan": 7}, id="quanta-smaller-than-batches"),
    ],
)
@pytest.mark.parametrize("mode", ["para_c", "para_t"])
def test_batches_under_every_setting(sealed: Sealed, tmp_path: Path, mode: str, change: dict[str, object]) -> None:
    sealed(_plan(mode, change=change), tmp_path / "run")


@pytest.mark.parametrize("system", ACCELERATED)
def test_a_page_of_zeroes_is_known_by_the_checksum_of_the_device(sealed: Sealed, tmp_path: Path, system: str) -> None:
    """It becomes the kernel's own, not a KSM page, only if ksmd knows what the device makes of zeroes."""
    plan = unit(**CONVERGED, **FINE, system=system, use_zero_pages=True)
    result = sealed(plan, tmp_path / "run", devices=systems.machine_devices())
    assert fleet.expect(plan).zero_saved > 0
    assert result.samples[-1]["offload_checksums"] > 0


@pytest.mark.parametrize("system", ACCELERATED)
def test_a_device_that_lies_and_fails_merges_nothing_that_differs(sealed: Sealed, tmp_path: Path, system: str) -> None:
    """Each VM reads its memory again, merged and unmerged, and a page that became another's ends the run."""
    faults = _faults(lie=10, fail=20, refuse=20, hang=2, unmappable=10, delay_us=2)
    plan = unit(**CONVERGED, **FINE, system=system, sysfs=faults)
    devices = systems.machine_devices()
    result = fleet.parse(sealed.raw(plan, tmp_path / "run", devices=devices))
    oracle, last = fleet.expect(plan), result.samples[-1]
    assert last["offload_errors"] > 0
    # a lie about a checksum costs a page a pass, one about an order a place in a tree: some, not most
    assert 0.9 * oracle.pages_sharing <= last["pages_sharing"] <= oracle.pages_sharing
    # a search led astray may make a second KSM page of a content, never one of a content that had no like
    assert last["pages_shared"] + last["pages_sharing"] <= oracle.pages_shared + oracle.pages_sharing


@pytest.mark.parametrize("system", ACCELERATED)
def test_a_device_that_fails_but_never_lies_changes_nothing(
    sealed: Sealed, tmp_path: Path, passes_one_by_one: int, system: str
) -> None:
    """What a device does not answer the processor does, with the same checksum, in the same pass."""
    faults = _faults(lie=0, fail=200, refuse=100, hang=2, unmappable=50)
    plan = unit(**CONVERGED, **FINE, system=system, sysfs=faults)
    result = sealed(plan, tmp_path / "run", devices=systems.machine_devices())
    assert result.samples[-1]["offload_fallbacks"] > 0
    assert _passes(result) == passes_one_by_one


@pytest.mark.parametrize("system", ACCELERATED)
def test_two_runs_are_the_same_bytes_whatever_keeps_the_main_loop_busy(
    sealed: Sealed, tmp_path: Path, system: str
) -> None:
    """A clock that was warped while a vCPU had not ended its turn made DSA-ksm, which naps most, differ every time."""
    plan, devices = unit(system=system), systems.machine_devices()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(
            lambda pestered: sealed.raw(plan, tmp_path / str(pestered), devices=devices, pestered=pestered),
            (False, True),
        )
    assert first == second
