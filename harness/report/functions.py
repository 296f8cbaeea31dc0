# SPDX-License-Identifier: GPL-2.0-or-later
"""What ksmd's instructions are spent on, by groups of functions (Figure 3, right)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.experiment.store import RunRecord
from harness.report import paper, statistics
from harness.report.statistics import Estimate
from harness.report.tables import Table, number
from harness.systems import System

MEMCMP, XXHASH = "memcmp", "xxhash"
REST = "rest"
GROUPS: Mapping[str, tuple[str, str]] = {
    MEMCMP: ("comparing pages", r"memcmp|memcmp_pages|pages_identical"),
    XXHASH: ("checksums of pages", r"xxh64|xxhash|calc_checksum|ksm_offload_crc"),
    "trees": (
        "walking and changing both trees",
        r"(un)?stable_(tree|node)_.*|chain(_prune)?|tree_compare|merge_with_(tree|stable)_page|rb_.*|get_ksm_page"
        r"|remove_(rmap_item_from_tree|node_from_stable_tree)|ksm_batch_.*|cmp_and_merge_page",
    ),
    "finding pages": (
        "VMAs, page tables and references of pages, of tree nodes and of those to scan",
        r"mtree_.*|mas_.*|find_vma.*|follow_.*|try_grab_.*|__?folio_put|folio_mark_accessed|mark_page_accessed"
        r"|vm_normal_page|(down|up)_(read|write)|get_mergeable_page|mm_find_pmd|_raw_spin_.*|down_read_trylock",
    ),
    "scanning": (
        "the loop over all pages, and reading on in page tables",
        r"ksm_scan_thread|ksm_do_scan|scan_get_next_rmap_item|ksm_next_page_.*|_?_?walk_.*|__cond_resched|rcu_all_qs"
        r"|ksm_offload_(?!crc).*",
    ),
    "merging": (
        "replacing a page by its twin",
        r"try_to_merge_.*|stable_tree_append|write_protect_page|replace_page|page_vma_mapped_walk|ptep_clear_flush"
        r"|flush_tlb_.*|page_(add|remove|address)_.*|set_page_dirty|folio_(mark_dirty|unlock|lock|mapped|mapping|anon_vma)"
        r"|free_(unref|pcp).*|__page_cache_release.*|__mod_(node|zone)_page_state|break_cow|fixup_.*|mmu_notifier.*",
    ),
}
"""By name: what it is, and the functions in it, as the compiler leaves them. What is in none is the rest."""

_PATTERNS = {name: re.compile(pattern) for name, (_, pattern) in GROUPS.items()}
_SUFFIX = re.compile(r"\.(constprop|isra|part|cold)\.?.*")


def group_of(function: str) -> str:
    """The group that a function belongs to."""
    plain = _SUFFIX.sub("", function)
    return next((name for name, pattern in _PATTERNS.items() if pattern.fullmatch(plain)), REST)


def shares(functions: Mapping[str, int]) -> dict[str, float]:
    """Each group's part of all instructions, 0 to 1, in the order of the groups, the rest last."""
    out = dict.fromkeys((*GROUPS, REST), 0)
    for name, instructions in functions.items():
        out[group_of(name)] += instructions
    total = sum(out.values())
    return {name: instructions / total for name, instructions in out.items()} if total else {}


@dataclass(frozen=True)
class Breakdown:
    """Where a system's ksmd spends its instructions in the window."""

    system: System
    parts: Mapping[str, Estimate]
    """By group, 0 to 1; empty where nobody counted."""
    dearest: tuple[tuple[str, float], ...]
    """Single functions of the first seed, the dearest first, 0 to 1."""


def breakdown(system: System, records: Sequence[RunRecord]) -> Breakdown:
    """Medians over the seeds; nothing where one of them was not watched (on a host, say)."""
    counted = [record.metrics.get("functions") for record in records]
    found = [shares(each) for each in counted if each]
    if not found or len(found) != len(records) or not all(found):
        return Breakdown(system, {}, ())
    parts = {name: statistics.median([each[name] for each in found]) for name in found[0]}
    first: Mapping[str, int] = records[0].metrics["functions"]
    total = sum(first.values())
    dearest = sorted(first.items(), key=lambda item: (-item[1], item[0]))
    return Breakdown(system, parts, tuple((name, count / total) for name, count in dearest))


def table(result: Breakdown, title: str, top: int = 10) -> Table:
    """Groups with the paper's numbers, and the dearest functions."""
    rows = []
    for name, part in result.parts.items():
        there = paper.find("function_share", result.system.id, name)
        what = GROUPS[name][0] if name in GROUPS else "interrupts, scheduling and all else"
        rows.append((name, what, number(part, "{:.1%}"), there.text if there else ""))
    rows += [(f"  {name}", f"function, {group_of(name)}", f"{share:.1%}", "") for name, share in result.dearest[:top]]
    if not rows:
        rows.append(("not counted", "instructions are counted on emulated machines", "", ""))
    notes = (
        "ksmd's instructions in the window, counted one by one; what is inlined counts for its caller",
        "the paper shows its other functions in a picture only",
    )
    return Table(title, ("group", "what it is", "share", "paper"), tuple(rows), notes)
