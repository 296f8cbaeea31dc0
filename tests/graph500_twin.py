# SPDX-License-Identifier: GPL-2.0-or-later
"""A second, independent account of the Graph500 program: written from docs/workloads.md, in whole arrays."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.fleet_twin import mix64

Words = NDArray[np.uint64]

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15
QUADRANTS = {(0, 0): 0.57, (0, 1): 0.19, (1, 0): 0.19, (1, 1): 0.05}
"""Bit of the start, bit of the end: probability."""


def mixed(x: Words) -> Words:
    """SplitMix64's finaliser of every word."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def stream(seed: int, number: int) -> int:
    """The key of one of the generator's streams."""
    return mix64(mix64(seed + _STEP & _MASK) + number * _STEP & _MASK)


def permuted(count: int, key: int) -> Words:
    """The permutation of 0 .. count - 1 that a key draws, as a table."""
    bits = max(1, (count - 1).bit_length())
    rounds = []
    for _ in range(4):
        factor = mix64(key := key + _STEP & _MASK) | 1
        rounds.append((factor, mix64(key := key + _STEP & _MASK)))
    table = np.arange(count, dtype=np.uint64)
    todo = np.ones(count, dtype=bool)
    while todo.any():
        x = table[todo]
        for factor, summand in rounds:
            x = x * np.uint64(factor) + np.uint64(summand) & np.uint64(2**bits - 1)
            x ^= x >> np.uint64((bits + 1) // 2)
        table[todo] = x
        todo = table >= count
    return table


@dataclass(frozen=True)
class Graph:
    """A graph of the generator's."""

    scale: int
    edge_factor: int = 16
    seed: int = 1

    @property
    def vertices(self) -> int:
        """How many."""
        return 1 << self.scale

    @property
    def labels(self) -> Words:
        """The number of a vertex by its place in the matrix."""
        return permuted(self.vertices, stream(self.seed, 2))

    def edges(self) -> Words:
        """The edge list, one row of start and end an edge."""
        count = self.edge_factor << self.scale
        state = mixed(permuted(count, stream(self.seed, 3)) + np.uint64(stream(self.seed, 1)))
        ends = np.zeros((count, 2), dtype=np.uint64)
        half, hundred = np.uint64(32), np.uint64(100)
        for level in range(self.scale):
            if level % 6 == 0:
                state += np.uint64(_STEP)
                word = mixed(state)
            low = (word & np.uint64(2**32 - 1)) * hundred
            pair = ((word >> half) * hundred + (low >> half)) >> half
            word = word * hundred
            ends[:, 0] = ends[:, 0] * 2 + (pair >= 76)
            ends[:, 1] = ends[:, 1] * 2 + ((pair >= 95) | (pair >= 57) & (pair < 76))
        return self.labels[ends]

    def roots(self, edges: Words, most: int = 64) -> list[int]:
        """The first vertices, in the order of candidates, with a neighbour other than themselves."""
        proper = edges[edges[:, 0] != edges[:, 1]]
        eligible = set(proper.ravel().tolist())
        return [v for v in permuted(self.vertices, stream(self.seed, 4)).tolist() if v in eligible][:most]


def neighbours(graph: Graph, edges: Words) -> tuple[Words, Words]:
    """Offsets and entries of the lists of neighbours, which stand in the edge list's order, a loop twice."""
    owners, others = edges.ravel(), edges[:, ::-1].ravel()
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners.astype(np.int64), minlength=graph.vertices)
    return np.concatenate(([0], np.cumsum(counts))).astype(np.uint64), others[order]


def search(offsets: Words, entries: Words, root: int) -> tuple[dict[int, int], list[int]]:
    """Parents of what is reached, and the order in which it is, by a queue."""
    at, entry = offsets.tolist(), entries.tolist()
    parents, order, queue = {root: root}, [root], deque([root])
    while queue:
        u = queue.popleft()
        for v in entry[at[u] : at[u + 1]]:
            if v not in parents:
                parents[v] = u
                order.append(v)
                queue.append(v)
    return parents, order


def digest(graph: Graph, edges: Words, roots: list[int]) -> int:
    """The checksum of a run."""
    offsets, entries = neighbours(graph, edges)
    value = 0
    for root in roots:
        parents, order = search(offsets, entries, root)
        inside = np.isin(edges[:, 0], np.array(order, dtype=np.uint64)).sum()
        words = [len(order), int(inside), *(parents.get(v, _MASK) for v in range(graph.vertices))]
        value = mix64(value ^ root)
        for word in words:
            value = mix64(value ^ word)
    return value
