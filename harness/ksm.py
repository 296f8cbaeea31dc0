# SPDX-License-Identifier: GPL-2.0-or-later
"""KSM as seen from user space: its knobs, its counters, and how many stable nodes a content needs.

Source of all meanings: Documentation/admin-guide/mm/ksm.rst and mm/ksm.c of Linux 6.1 and 6.2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from harness.errors import FleetError, UsageError

PAGE = 4096
"""Bytes of a page on x86."""

SAMPLE_SCHEMA = 2
"""Version of the tables below; 2 has the processor's idle time and rows of every VM."""

_STALE = "harness and guest image differ: harness build images"

Sample = Mapping[str, int]
"""One row of counters; a counter that the kernel lacks has no key, it is never 0 for want of a value."""


@dataclass(frozen=True)
class Column:
    """A column of the sample table."""

    name: str
    unit: Literal["ns", "pages", "passes", "nodes", "comparisons", "faults", "1"]
    meaning: str
    monotone: bool = False
    """It never falls while ksmd is merging."""
    always: bool = True
    """Every kernel with KSM has it; the others come with our series or with a later kernel."""


COLUMNS: tuple[Column, ...] = (
    Column("t_ns", "ns", "since the window opened, CLOCK_MONOTONIC", monotone=True),
    Column("ksmd_ns", "ns", "ksmd's time on a processor, first field of its schedstat", monotone=True),
    Column("app_ns", "ns", "VM 1's time on a processor", monotone=True),
    Column("idle_ns", "ns", "idle time of all processors together, in steps of 10 ms"),
    Column("pages_shared", "pages", "stable nodes in use: the copies that are kept"),
    Column("pages_sharing", "pages", "further mappings of those copies: the pages saved"),
    Column("pages_unshared", "pages", "pages seen twice with the same checksum, without a partner"),
    Column("pages_volatile", "pages", "visited pages that are none of the above"),
    Column("full_scans", "passes", "passes over all mergeable memory", monotone=True),
    Column("stable_node_chains", "nodes", "contents with more than one stable node"),
    Column("stable_node_dups", "nodes", "stable nodes below those chains"),
    Column("run", "1", "the switch: 0 off, 1 on, 2 take everything apart"),
    Column("pages_to_scan", "pages", "pages a wake-up"),
    Column("page_checksums", "pages", "candidates checksummed", monotone=True, always=False),
    Column("pages_scanned", "pages", "candidates handed to the merging code", monotone=True, always=False),
    Column("page_comparisons", "comparisons", "comparisons of two pages' contents", monotone=True, always=False),
)
"""What the guest program ``fleet`` samples of the whole machine, in its order."""

VM_COLUMNS: tuple[Column, ...] = (
    Column("t_ns", "ns", "since the window opened; one time for all VMs", monotone=True),
    Column("vm", "1", "number of the VM, from 1"),
    Column("runtime_ns", "ns", "the VM's time on a processor", monotone=True),
    Column("faults", "faults", "its page faults, minor and major, copies on write among them", monotone=True),
    Column("ksm_merging_pages", "pages", "its pages that are mapped to a KSM page", always=False),
)
"""What it samples of every VM."""


@dataclass(frozen=True)
class KsmKnobs:
    """The writable files below /sys/kernel/mm/ksm that an experiment sets.

    ``sleep_millisecs`` is in milliseconds of the machine that runs ksmd; under emulation these are virtual.
    """

    pages_to_scan: int = 100
    sleep_millisecs: int = 20
    max_page_sharing: int = 256
    use_zero_pages: bool = False
    merge_across_nodes: bool = True

    def __post_init__(self) -> None:
        """Refuse what the kernel would refuse with a bare EINVAL.

        Raises:
            UsageError: a value out of the kernel's range.

        """
        if not 1 <= self.pages_to_scan < 2**32:
            raise UsageError(f"pages_to_scan = {self.pages_to_scan}: KSM takes 1 to 2^32 - 1")
        if not 0 <= self.sleep_millisecs < 2**32:
            raise UsageError(f"sleep_millisecs = {self.sleep_millisecs}: KSM takes 0 to 2^32 - 1")
        if not 2 <= self.max_page_sharing < 2**31:
            raise UsageError(f"max_page_sharing = {self.max_page_sharing}: a KSM page has at least 2 mappings")


@dataclass(frozen=True)
class Nodes:
    """What one content becomes once nothing is left to merge."""

    shared: int
    sharing: int
    unshared: int
    chains: int
    dups: int

    def __add__(self, other: Nodes) -> Nodes:
        return Nodes(
            self.shared + other.shared,
            self.sharing + other.sharing,
            self.unshared + other.unshared,
            self.chains + other.chains,
            self.dups + other.dups,
        )

    def times(self, count: int) -> Nodes:
        """The sum over ``count`` contents with equally many mappings."""
        return Nodes(
            self.shared * count, self.sharing * count, self.unshared * count, self.chains * count, self.dups * count
        )


NOTHING = Nodes(0, 0, 0, 0, 0)


def nodes(mappings: int, limit: int) -> Nodes:
    """How ksmd lays out a content with ``mappings`` pages when a stable node takes ``limit`` of them.

    ksmd fills one node before it starts another, and a new node needs two pages that meet in the unstable tree: a
    single left-over page stays unshared for ever. Two or more nodes of one content hang below a chain.
    """
    full, rest = divmod(mappings, limit)
    shared = full + (rest > 1)
    unshared = 1 if rest == 1 else 0
    chained = shared > 1
    return Nodes(
        shared=shared,
        sharing=mappings - unshared - shared,
        unshared=unshared,
        chains=1 if chained else 0,
        dups=shared if chained else 0,
    )


def check_columns(names: Iterable[str], columns: Sequence[Column] = COLUMNS, also: Collection[str] = ()) -> None:
    """Check the header of a sample table.

    Args:
        names: the header.
        columns: what the table has.
        also: further counters that the plan asked for and a kernel may have.

    Raises:
        FleetError: a column that every kernel has is missing, or one is unknown.

    """
    present = list(names)
    known = {column.name for column in columns} | set(also)
    if unknown := [name for name in present if name not in known]:
        raise FleetError(f"unknown sample columns: {', '.join(unknown)}", hint=_STALE)
    if lost := [column.name for column in columns if column.always and column.name not in present]:
        raise FleetError(f"sample columns are missing: {', '.join(lost)}", hint=_STALE)


def check_samples(samples: Sequence[Sample]) -> list[str]:
    """What contradicts itself in a table of samples, one line a contradiction; empty when sound."""
    faults = _falls(samples, COLUMNS)
    for sample in samples:
        if sample.get("page_checksums", 0) > sample.get("pages_scanned", sample.get("page_checksums", 0)):
            faults.append(f"more checksums than candidates at t = {sample['t_ns']} ns")
            break
    return faults


def check_vm_samples(samples: Sequence[Sample], vms: int) -> list[str]:
    """The same for the table of the VMs: every VM is in every round, and none of its sums falls."""
    faults = []
    rounds = [samples[at : at + vms] for at in range(0, len(samples), vms)]
    if any([row["vm"] for row in part] != list(range(1, vms + 1)) for part in rounds):
        faults.append(f"a round of VM samples does not hold the VMs 1 to {vms}")
    for vm in range(1, vms + 1):
        faults += [f"VM {vm}: {fault}" for fault in _falls([row for row in samples if row["vm"] == vm], VM_COLUMNS)]
    if lost := [row for row in samples if row["faults"] < 0]:
        faults.append(f"the faults of VM {lost[0]['vm']} could not be read")
    return faults


def _falls(samples: Sequence[Sample], columns: Sequence[Column]) -> list[str]:
    faults = []
    for column in columns:
        if not column.monotone or not samples or column.name not in samples[0]:
            continue
        for before, after in pairwise(samples):
            if after[column.name] < before[column.name]:
                faults.append(
                    f"{column.name} fell from {before[column.name]} to {after[column.name]} at t = {after['t_ns']} ns"
                )
                break
    return faults
