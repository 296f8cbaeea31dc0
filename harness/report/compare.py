# SPDX-License-Identifier: GPL-2.0-or-later
"""Two result sets side by side: what went in differently, and by what factor each number came out differently.

Cells are paired by what identifies them to people (experiment, system, workload, batch size, seed), not by their keys:
two kernels, two patches or two presets have other keys. A ratio is B over A throughout.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.experiment.spec import workloads
from harness.experiment.store import RunRecord
from harness.report import statistics, tables
from harness.report.analysis import Selection
from harness.report.statistics import Estimate
from harness.report.tables import Table
from harness.systems import systems

ALL = "all systems"
_TEXTS = ("plan", "machine.argv", "dataset")
"""Inputs of many lines: only the lines that differ are told."""


@dataclass(frozen=True, order=True)
class Subject:
    """What is measured, whatever the seed; ``batch`` is 0 where the experiment has no such axis."""

    system: str
    workload: str
    batch: int = 0

    @property
    def label(self) -> str:
        """For people."""
        batch = f", batches of {self.batch}" if self.batch else ""
        return f"{systems()[self.system].label}, {workloads()[self.workload].label}{batch}"


@dataclass(frozen=True)
class Pair:
    """One cell in both sets."""

    subject: Subject
    seed: int
    a: RunRecord
    b: RunRecord

    @property
    def same(self) -> bool:
        """It is the very same run: all inputs are equal."""
        return self.a.key == self.b.key

    def ratios(self) -> dict[str, float | None]:
        """B over A of every number that both have; None where one of them is not positive."""
        ours, theirs = numbers(self.b), numbers(self.a)
        return {
            name: ours[name] / theirs[name] if ours[name] > 0 and theirs[name] > 0 else None
            for name in theirs
            if name in ours and (ours[name] or theirs[name])
        }


@dataclass(frozen=True)
class Difference:
    """An input that is not the same in both."""

    path: str
    a: str
    b: str
    cells: int
    """In how many pairs it differs."""
    kinds: int
    """How many different pairs of values there are; ``a`` and ``b`` are the first."""


@dataclass(frozen=True)
class Experiment:
    """What two reports of one experiment have in common, and what not."""

    name: str
    pairs: tuple[Pair, ...]
    only: Mapping[str, str]
    """Cells without a partner, with the reason."""
    differences: tuple[Difference, ...]
    means: Mapping[str, Mapping[str, Estimate]]
    """By system (and all of them) and metric: geometric mean over subjects of the median over seeds of B / A."""


@dataclass(frozen=True)
class Comparison:
    """All experiments that both sets have."""

    experiments: tuple[Experiment, ...]
    alone: Mapping[str, str]
    """Experiments that one set has alone, with the set."""


def compare(a: Mapping[str, Selection], b: Mapping[str, Selection]) -> Comparison:
    """Pair two result sets, experiment by experiment."""
    alone = {name: "A" for name in a if name not in b} | {name: "B" for name in b if name not in a}
    return Comparison(tuple(_experiment(name, a[name], b[name]) for name in a if name in b), alone)


def numbers(record: RunRecord) -> dict[str, float]:
    """Every number of a record by its dotted name, and ksmd's share of the co-run."""
    out = {name: float(value) for name, value in _flat(record.metrics) if _is_number(value)}
    if out.get("corun_ns"):
        out["ksmd_share"] = out.get("ksmd_ns", 0.0) / out["corun_ns"]
    return out


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _flat(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part


def _cells(selection: Selection) -> dict[tuple[Subject, int], RunRecord | None]:
    """The runs of a report: bars that look at one run of a mix name it once."""
    return {
        (Subject(system, workloads()[workload].fleet, batch or 0), seed): record
        for (system, workload, seed), batch, record in selection.runs()
    }


def _experiment(name: str, a: Selection, b: Selection) -> Experiment:
    ours, theirs = _cells(a), _cells(b)
    pairs, only = [], {}
    for subject, seed in sorted({*ours, *theirs}):
        left, right = ours.get((subject, seed)), theirs.get((subject, seed))
        lacking = [f"{which}: {why}" for which, found in (("A", left), ("B", right)) if (why := _lacking(found))]
        if left is None or right is None or lacking:
            only[f"{subject.label}, seed {seed}"] = "; ".join(lacking)
        else:
            pairs.append(Pair(subject, seed, left, right))
    return Experiment(name, tuple(pairs), only, tuple(_differences(pairs)), _means(pairs))


def _lacking(record: RunRecord | None) -> str:
    if record is None:
        return "no run"
    return "" if record.outcome == "ok" else f"failed: {record.reason}"


# --- inputs ---------------------------------------------------------------------------------------------


def _differences(pairs: Sequence[Pair]) -> Iterator[Difference]:
    """Inputs that differ, in their own order, each with the first values it differs by."""
    found: dict[str, list[tuple[str, str]]] = {}
    for pair in pairs:
        for path, left, right in _unlike(dict(_flat(pair.a.inputs)), dict(_flat(pair.b.inputs))):
            found.setdefault(path, []).append((left, right))
    for path, values in found.items():
        yield Difference(path, *values[0], len(values), len(set(values)))


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for path in dict.fromkeys((*a, *b)):
        left, right = a.get(path), b.get(path)
        if left == right:
            continue
        if path in _TEXTS and left is not None and right is not None:
            yield (path, *_lines(left, right))
        else:
            yield path, _text(left), _text(right)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _lines(a: Any, b: Any) -> tuple[str, str]:
    """The lines that only one of two texts has."""
    left, right = (part.splitlines() if isinstance(part, str) else [_text(word) for word in part] for part in (a, b))
    gone: list[str] = []
    come: list[str] = []
    for what, i, j, k, m in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if what != "equal":
            gone += left[i:j]
            come += right[k:m]
    return "; ".join(gone) or "-", "; ".join(come) or "-"


# --- ratios ---------------------------------------------------------------------------------------------


def _means(pairs: Sequence[Pair]) -> dict[str, dict[str, Estimate]]:
    """Of each system and of all: for every metric that all of its pairs have, over the seeds that all subjects have."""
    groups = {system: [pair for pair in pairs if pair.subject.system == system] for system in systems()}
    groups[ALL] = list(pairs)
    out: dict[str, dict[str, Estimate]] = {}
    for name, group in groups.items():
        by: dict[Subject, dict[int, dict[str, float | None]]] = {}
        for pair in group:
            by.setdefault(pair.subject, {})[pair.seed] = pair.ratios()
        if not by:
            continue
        seeds = sorted(set.intersection(*(set(part) for part in by.values())))
        # a metric that a subject lacks (a p99 of Liblinear's) is averaged over those that have it
        metrics = dict.fromkeys(metric for part in by.values() for seed in seeds for metric in part[seed])
        out[name] = {}
        for metric in metrics:
            having = [part for part in by.values() if any(metric in part[seed] for seed in seeds)]
            rows = [[part[seed].get(metric) for seed in seeds] for part in having]
            values = [[value for value in row if value] for row in rows]
            if all(len(row) == len(seeds) for row in values):
                out[name][metric] = statistics.geomean_of(
                    [statistics.paired_ratio(row, [1.0] * len(row)) for row in values]
                )
    return out


# --- for people and programs ----------------------------------------------------------------------------


def tables_of(result: Comparison) -> list[Table]:
    """Per experiment: what went in differently, the mean ratios, and every cell's."""
    out: list[Table] = []
    for item in result.experiments:
        same = sum(pair.same for pair in item.pairs)
        notes = [f"{len(item.pairs)} cells in both, {same} of them the very same run"]
        notes += [f"not compared: {cell}: {why}" for cell, why in item.only.items()]
        rows = [(d.path, _short(d.a), _short(d.b), _often(d, len(item.pairs))) for d in item.differences]
        out.append(Table(f"{item.name}: inputs that differ", ("input", "A", "B", "where"), tuple(rows), tuple(notes)))
        out += [_mean_table(item), _cell_table(item)] if item.pairs else []
    if result.alone:
        alone = tuple(sorted(result.alone.items()))
        out.append(Table("experiments that one set has alone", ("experiment", "set"), alone))
    return out


def _mean_table(item: Experiment) -> Table:
    rows = []
    for system, metrics in item.means.items():
        label = ALL if system == ALL else systems()[system].label
        rows += [
            (label, name, tables.number(found, "{:.4f}x"), str(found.n))
            for name, found in metrics.items()
            if _moved(found)
        ]
    title = f"{item.name}: B / A, geometric mean over workloads of the median over seeds"
    notes = ["intervals: 95% BCa bootstrap of the log-ratio over seeds; of one seed there is none"]
    notes += ["a metric that is not listed is the same in both, or not positive in one of them"]
    notes += [f"only {which} has: {', '.join(names)}" for which, names in _alone(item).items() if names]
    return Table(title, ("system", "metric", "B / A", "seeds"), tuple(rows), tuple(notes))


def _alone(item: Experiment) -> dict[str, list[str]]:
    """Metrics that one set has and the other has in no cell: of hardware and of emulation, say."""
    a = {name for pair in item.pairs for name in numbers(pair.a)}
    b = {name for pair in item.pairs for name in numbers(pair.b)}
    return {"A": sorted(a - b), "B": sorted(b - a)}


def _moved(found: Estimate) -> bool:
    return any(sample != 1.0 for sample in (found.value, *found.samples))


def _cell_table(item: Experiment) -> Table:
    rows = []
    for pair in item.pairs:
        a, b = numbers(pair.a), numbers(pair.b)
        for name, ratio in pair.ratios().items():
            if ratio != 1.0:
                factor = "" if ratio is None else f"{ratio:.4f}x"
                rows.append((pair.subject.label, str(pair.seed), name, f"{a[name]:g}", f"{b[name]:g}", factor))
    head = ("cell", "seed", "metric", "A", "B", "B / A")
    return Table(f"{item.name}: cell by cell, what is not equal", head, tuple(rows))


def _often(found: Difference, pairs: int) -> str:
    where = "all cells" if found.cells == pairs else f"{found.cells} of {pairs} cells"
    return where if found.kinds == 1 else f"{where}, {found.kinds} kinds"


def _short(text: str, most: int = 100) -> str:
    """Digests and long lines by their beginnings; --json has the whole."""
    kind, colon, digits = text.rpartition(":")
    if len(digits) >= 40 and all(letter in "0123456789abcdef" for letter in digits):
        return f"{kind}{colon}{digits[:12]}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def values(result: Comparison) -> dict[str, Any]:
    """Everything, for ``--json``."""
    return {
        "experiments": [
            {
                "experiment": item.name,
                "differences": [dataclasses.asdict(found) for found in item.differences],
                "ratios": {
                    system: {name: dataclasses.asdict(found) for name, found in metrics.items()}
                    for system, metrics in item.means.items()
                },
                "cells": [
                    {
                        "system": pair.subject.system,
                        "workload": pair.subject.workload,
                        **({"batch": pair.subject.batch} if pair.subject.batch else {}),
                        "seed": pair.seed,
                        "a": pair.a.key,
                        "b": pair.b.key,
                        "ratios": pair.ratios(),
                    }
                    for pair in item.pairs
                ],
                "not_compared": dict(item.only),
            }
            for item in result.experiments
        ],
        "alone": dict(result.alone),
    }
