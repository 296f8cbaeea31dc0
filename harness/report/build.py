# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole report: what the command line calls after a run, and again when it only redraws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config import atomic_write
from harness.report import analysis, batches, figures, misses, operations, page, readings, shares, tables, verdicts
from harness.report.analysis import Selection
from harness.report.tables import Table


@dataclass(frozen=True)
class Report:
    """Files of a report, its table, and its numbers for ``--json``."""

    table: Table
    values: dict[str, Any]
    files: tuple[Path, ...]


def build(selection: Selection, out: Path) -> Report:
    """Write table, figure and page of an experiment to ``out``; the same records give the same bytes."""
    out.mkdir(parents=True, exist_ok=True)
    base = out / selection.spec.id
    table, values, (png, svg), result = _drawn(selection, base)
    judged = verdicts.judge_all(readings.read([selection]), selection.profile, only=selection.spec.id)
    table = replace(table, notes=(*table.notes, *verdicts.lines(judged)))
    values |= {"verdicts": verdicts.values(judged)["verdicts"]}
    html = page.write(result, table, svg, base.with_suffix(".html"))
    text = base.with_suffix(".md")
    atomic_write(text, tables.markdown(table))
    return Report(table, values, (text, png, svg, html))


def _drawn(selection: Selection, base: Path) -> tuple[Table, dict[str, Any], list[Path], page.Result]:
    """What is computed, as a table, as values and drawn, by the spec's kind."""
    kind = selection.spec.kind
    if kind == "degradation":
        bars = analysis.degradation(selection)
        return tables.of_degradation(bars), tables.values(bars), figures.draw_degradation(bars, base), bars
    if kind == "efficiency":
        marks = analysis.efficiency(selection)
        return tables.of_efficiency(marks), tables.values(marks), figures.draw_efficiency(marks, base), marks
    if kind == "saving":
        curves = analysis.saving(selection)
        return tables.of_saving(curves), tables.values(curves), figures.draw_saving(curves, base), curves
    if kind == "utilisation":
        entries = shares.utilisation(selection)
        values = tables.heading(selection, entries.stamps) | shares.values_2(entries)
        return shares.table_2(entries), values, figures.draw_utilisation(entries, base), entries
    if kind == "timeline":
        line = shares.timeline(selection)
        values = tables.heading(selection, line.stamps) | shares.values_3(line)
        return shares.table_3(line), values, figures.draw_timeline(line, base), line
    if selection.spec.of_operations:
        single = operations.operations(selection)
        values = tables.heading(selection, single.stamps) | operations.values(single)
        return operations.table(single), values, figures.draw_operations(single, base), single
    if kind == "misses":
        found = misses.misses(selection)
        values = tables.heading(selection, found.stamps) | misses.values(found)
        return misses.table(found), values, figures.draw_misses(found, base), found
    sizes = batches.batches(selection)
    values = tables.heading(selection, sizes.stamps) | batches.values(sizes)
    return batches.table(sizes), values, figures.draw_batches(sizes, base), sizes
