# SPDX-License-Identifier: GPL-2.0-or-later
"""What the memory of real VMs must say of KSM, on sections as the guest program writes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import witness

_NONE = {
    "pages_shared": 0, "pages_sharing": 0, "pages_unshared": 0, "pages_volatile": 0, "stable_node_chains": 0,
    "stable_node_dups": 0,
}  # fmt: skip

Counters = dict[str, dict[str, int]]
Tables = dict[str, list[dict[str, int]]]


def _seen() -> tuple[Counters, Tables]:
    """Two VMs: five contents that nobody else has, three that two pages have, and one of four pages: all zero."""
    rows = [
        {"vm": 1, "pages": 8, "zero": 2, "self": 0, "inter": 3, "unique": 3, "hash": 11},
        {"vm": 2, "pages": 7, "zero": 2, "self": 0, "inter": 3, "unique": 2, "hash": 22},
    ]
    contents = [{"mappings": 1, "contents": 5}, {"mappings": 2, "contents": 3}, {"mappings": 4, "contents": 1}]
    tables = {}
    for when in ("found", "merged", "unmerged"):
        tables[f"pages_{when}"] = [dict(row) for row in rows]
        tables[f"contents_{when}"] = contents
    settled = _NONE | {"pages_shared": 4, "pages_sharing": 6, "pages_unshared": 5}
    return {"loose": dict(_NONE), "settled": settled, "apart": dict(_NONE)}, tables


def _faults(counters: Counters, tables: Tables, *, ksmd: bool = True) -> list[str]:
    text = {name: {key: str(value) for key, value in found.items()} for name, found in counters.items()}
    return list(witness.faults(witness.read(text, tables), ksmd=ksmd, limit=256))


def test_what_the_contents_demand_is_no_fault() -> None:
    assert not _faults(*_seen())
    counters, tables = _seen()
    assert not _faults(counters | {"settled": dict(_NONE)}, tables, ksmd=False)


def test_every_section_is_read() -> None:
    counters, tables = _seen()
    assert {*counters, *tables} == set(witness.SECTIONS)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda counters, tables: tables["pages_found"][1].update(hash=23), "VM 2 changed while what the run"),
        (lambda counters, tables: tables["pages_merged"][0].update(hash=12), "VM 1 changed while KSM was"),
        (lambda counters, tables: counters["loose"].update(pages_sharing=1), "pages_sharing is 1 after"),
        (lambda counters, tables: counters["apart"].update(pages_shared=2), "pages_shared is 2 after"),
        (lambda counters, tables: counters["settled"].update(pages_shared=5), "pages_shared is 5 in VMs"),
        (lambda counters, tables: counters["settled"].update(pages_unshared=4), "pages_unshared is 4 in VMs"),
        (lambda counters, tables: counters["settled"].update(pages_volatile=1), "pages_volatile is 1 in VMs"),
        (lambda counters, tables: counters["settled"].update(stable_node_dups=3), "stable_node_dups is 3 in VMs"),
    ],
)
def test_each_fault_is_told_alone(harm: Callable[[Counters, Tables], None], said: str) -> None:
    counters, tables = _seen()
    harm(counters, tables)
    (fault,) = _faults(counters, tables)
    assert said in fault


def test_a_change_before_all_was_merged_anew_is_told() -> None:
    """Merged anew and taken apart once more it stays the same, so only the hash of what the run had left shows it."""
    counters, tables = _seen()
    for when in ("merged", "unmerged"):
        tables[f"pages_{when}"][0]["hash"] = 13
    (fault,) = _faults(counters, tables)
    assert "memory of VM 1 changed while what the run had merged" in fault
