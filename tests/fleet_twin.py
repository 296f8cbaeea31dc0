# SPDX-License-Identifier: GPL-2.0-or-later
"""A second, independent account of what a fleet holds: written from docs/fleet.md, page by page, without counting."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator

from harness.fleet import FleetPlan

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
WORDS = 512


def mix64(x: int) -> int:
    """SplitMix64's finaliser."""
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & _MASK
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def content(plan: FleetPlan, vm: int, page: int) -> tuple[int, ...]:
    """Class, owner, page of a page in a VM's synthetic part; VMs count from 0, equal tuples are equal pages."""
    edges = (plan.pages_shared_all, plan.pages_shared_some, plan.pages_zero, plan.pages_unique, plan.pages_volatile)
    begin = 0
    for class_, size in enumerate(edges, start=1):
        if page < begin + size:
            owner = {1: 0, 2: vm // plan.shared_group, 3: 0, 4: vm, 5: vm}[class_]
            return (3,) if class_ == 3 else (class_, owner, page)
        begin += size
    raise IndexError(page)


def page_bytes(plan: FleetPlan, vm: int, page: int) -> bytes:
    """The 4096 bytes of a page as they are before anything is rewritten."""
    what = content(plan, vm, page)
    if what == (3,):
        return bytes(8 * WORDS)
    class_, owner, number = what
    key = mix64(class_ << 56 | owner << 40 | number << 16) ^ mix64(plan.seed + _GOLDEN & _MASK)
    common = mix64(0) ^ mix64(plan.seed + _GOLDEN & _MASK) if key % 100 < plan.alike_percent else key
    keys = [*[common] * (WORDS - 1), key]
    return struct.pack(f"<{WORDS}Q", *(mix64(each + i * _GOLDEN & _MASK) for i, each in enumerate(keys)))


def contents(plan: FleetPlan) -> Iterator[tuple[int, ...]]:
    """Every page of every VM, the training data's too, in the order ksmd meets them."""
    for vm in range(plan.vms):
        yield from (content(plan, vm, page) for page in range(plan.pages_per_vm - plan.dataset_pages))
        yield from ((6, page) for page in range(plan.dataset_pages))


def merge(plan: FleetPlan) -> dict[str, int]:
    """Do by hand what ksmd does with pages that stay still: fill one stable node after the other, in pairs at first."""
    nodes: dict[tuple[int, ...], list[int]] = {}
    waiting: Counter[tuple[int, ...]] = Counter()
    for page in contents(plan):
        if plan.use_zero_pages and page == (3,):
            continue
        mine = nodes.setdefault(page, [])
        if mine and mine[-1] < plan.max_page_sharing:
            mine[-1] += 1
        elif waiting[page]:
            waiting[page] = 0
            mine.append(2)
        else:
            waiting[page] = 1
    chains = [mine for mine in nodes.values() if len(mine) > 1]
    return {
        "pages_shared": sum(len(mine) for mine in nodes.values()),
        "pages_sharing": sum(sum(mine) - len(mine) for mine in nodes.values()),
        "pages_unshared": waiting.total(),
        "stable_node_chains": len(chains),
        "stable_node_dups": sum(len(mine) for mine in chains),
        "distinct": len(set(contents(plan))),
    }


def susy_row(seed: int, row: int) -> tuple[float, list[float]]:
    """Label and features of a generated training row (susy.c)."""
    state = mix64(seed ^ mix64(row + 1))

    def uniform() -> float:
        nonlocal state
        state = state + _GOLDEN & _MASK
        return (mix64(state) >> 11) * 2.0**-53

    def bell() -> float:
        total = 0.0
        for _ in range(4):
            total += uniform()
        return (total - 2) * 1.7320508075688772

    def cos_pi(turn: float) -> float:
        turn = turn - 2 if turn > 1 else turn + 2 if turn < -1 else turn
        y = turn * turn
        inner = 0.235331 + y * (-0.025807 + y * 0.001929)
        return 1 + y * (-4.934802 + y * (4.058712 + y * (-1.335263 + y * inner)))

    def positive(x: float) -> float:
        return max(x, 0.0)

    signal = uniform() < 0.4576
    shift = 0.35 if signal else 0.0
    pt1 = 1 + 0.5 * bell() + shift
    pt2 = 1 + 0.5 * bell() + 0.5 * shift
    met = 1 + 0.6 * bell() + 1.5 * shift
    f = [pt1 * pt1 * 0.7 + 0.2, 1.1 * bell(), 2 * uniform() - 1]
    f += [pt2 * pt2 * 0.6 + 0.2, 1.1 * bell(), 2 * uniform() - 1]
    f += [met * met * 0.6 + 0.05, 2 * uniform() - 1]
    f += [f[6] * math.sqrt(1 - 0.5 * positive(cos_pi(f[7] - f[5]))), -(f[6] * cos_pi(f[7] - f[2]))]
    pt, gap = f[0] + f[3], f[1] - f[4]
    f += [math.sqrt(pt * pt + gap * gap), math.sqrt(f[6] * pt * 0.5)]
    f += [f[11] / (f[10] + 1e-3), positive(math.sqrt(f[0] * f[3]) - 0.5 * f[6])]
    f += [math.sqrt(f[10] * f[10] + f[6] * f[6])]
    f += [0.5 * (f[10] + f[14]) - 0.25 * f[13]]
    f += [positive(cos_pi(f[2] - f[5]) + 1) * 0.5, gap / (1 + gap * gap)]
    return float(signal), f


def dataset_bytes(seed: int, rows: int) -> bytes:
    """Training data as liblinear wants it in memory: 18 nodes and a terminator a row, then labels; whole pages."""
    table = [susy_row(seed, row) for row in range(rows)]
    raw = b"".join(
        b"".join(struct.pack("<iid", i + 1, 0, value) for i, value in enumerate(features))
        + struct.pack("<iid", -1, 0, 0)
        for _, features in table
    )
    raw += struct.pack(f"<{rows}d", *(label for label, _ in table))
    return raw + bytes(-len(raw) % 4096)
