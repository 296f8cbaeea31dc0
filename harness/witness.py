# SPDX-License-Identifier: GPL-2.0-or-later
"""Real VMs judged from outside: what their memory holds, what KSM made of it, and that nothing in it changed.

While all VMs stand still the guest program hashes every page that may be merged (``vm-images/src/fleet/pagestat.c``):
as the run left it, and, when KSM was taken apart and has merged all anew, before and after it is taken apart again.
How often each content is mapped says exactly what KSM must have reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.ksm import NOTHING, Nodes, nodes

COUNTERS = ("loose", "settled", "apart")
"""Sections of a fleet result with KSM's counters."""

SECTIONS = (
    *COUNTERS,
    *(f"{what}_{when}" for when in ("found", "merged", "unmerged") for what in ("pages", "contents")),
)
"""Sections of a fleet result that make a witness."""


@dataclass(frozen=True)
class Shares:
    """Populated mergeable pages of one VM, or of all, by who else has their content."""

    pages: int
    zero: int
    self_: int
    """Equal to another page of the same VM only."""
    inter: int
    """Equal to a page of another VM."""
    unique: int

    @classmethod
    def of(cls, row: Mapping[str, int]) -> Shares:
        """From a row of the guest program's."""
        return cls(row["pages"], row["zero"], row["self"], row["inter"], row["unique"])

    @property
    def as_dict(self) -> dict[str, int]:
        """By the names of the guest program's columns."""
        return {
            "pages": self.pages, "zero": self.zero, "self": self.self_, "inter": self.inter, "unique": self.unique,
        }  # fmt: skip

    def __add__(self, other: Shares) -> Shares:
        return Shares(
            self.pages + other.pages,
            self.zero + other.zero,
            self.self_ + other.self_,
            self.inter + other.inter,
            self.unique + other.unique,
        )


@dataclass(frozen=True)
class Witness:
    """What was seen of VMs that stood still."""

    loose: Mapping[str, int]
    """KSM's counters when what the run had merged was taken apart."""
    settled: Mapping[str, int]
    """KSM's counters when it had seen everything anew."""
    apart: Mapping[str, int]
    """KSM's counters when that was taken apart."""
    shares: tuple[Shares, ...]
    """By VM, in their order."""
    hashes: tuple[tuple[int, int, int], ...]
    """Of all pages of each VM: as the run left them, merged anew, and taken apart."""
    contents: Mapping[int, int]
    """Number of mappings -> how many contents are mapped so often."""

    @property
    def all_shares(self) -> Shares:
        """Of all VMs together."""
        return sum(self.shares, Shares(0, 0, 0, 0, 0))

    def reach(self, limit: int) -> Nodes:
        """What KSM reaches on these contents with this ``max_page_sharing``."""
        return reach(self.contents, limit)


def reach(contents: Mapping[int, int], limit: int) -> Nodes:
    """What KSM reaches on so many contents by the number of their mappings, with this ``max_page_sharing``."""
    total = NOTHING
    for mappings, same in contents.items():
        total += nodes(mappings, limit).times(same)
    return total


def read(counters: Mapping[str, Mapping[str, str]], tables: Mapping[str, Sequence[Mapping[str, int]]]) -> Witness:
    """A witness from the parsed sections of a fleet result."""
    found, merged, unmerged = (tables[f"pages_{when}"] for when in ("found", "merged", "unmerged"))
    loose, settled, apart = ({name: int(value) for name, value in counters[key].items()} for key in COUNTERS)
    return Witness(
        loose=loose,
        settled=settled,
        apart=apart,
        shares=tuple(map(Shares.of, unmerged)),
        hashes=tuple((a["hash"], b["hash"], c["hash"]) for a, b, c in zip(found, merged, unmerged, strict=True)),
        contents={row["mappings"]: row["contents"] for row in tables["contents_unmerged"]},
    )


def faults(witness: Witness, *, ksmd: bool, limit: int) -> Iterator[str]:
    """Whatever KSM did that it must not do, or did not do that it must.

    Args:
        witness: what was seen.
        ksmd: whether ksmd worked.
        limit: ``max_page_sharing``.

    """
    for number, (found, merged, apart) in enumerate(witness.hashes, 1):
        if found != apart:
            yield f"memory of VM {number} changed while what the run had merged was taken apart"
        if merged != apart:
            yield f"memory of VM {number} changed while KSM was taken apart"
    for counters in (witness.loose, witness.apart):
        for name in ("pages_shared", "pages_sharing", "pages_unshared"):
            if counters[name]:
                yield f"{name} is {counters[name]} after everything was taken apart"
    reach = witness.reach(limit) if ksmd else NOTHING
    wanted = {
        "pages_shared": reach.shared,
        "pages_sharing": reach.sharing,
        "pages_unshared": reach.unshared,
        "stable_node_chains": reach.chains,
        "stable_node_dups": reach.dups,
        "pages_volatile": 0,
    }
    for name, number in wanted.items():
        if witness.settled[name] != number:
            yield f"{name} is {witness.settled[name]} in VMs that stand still, their contents demand {number}"
