# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole report: what the command line calls after a run, and again when it only redraws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import atomic_write
from harness.report import analysis, figures, page, tables
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
    if selection.spec.kind == "degradation":
        bars = analysis.degradation(selection)
        table, values = tables.of_degradation(bars), tables.values(bars)
        png, svg = figures.draw_degradation(bars, base)
        html = page.write(bars, table, svg, base.with_suffix(".html"))
    elif selection.spec.kind == "efficiency":
        marks = analysis.efficiency(selection)
        table, values = tables.of_efficiency(marks), tables.values(marks)
        png, svg = figures.draw_efficiency(marks, base)
        html = page.write(marks, table, svg, base.with_suffix(".html"))
    else:
        curves = analysis.saving(selection)
        table, values = tables.of_saving(curves), tables.values(curves)
        png, svg = figures.draw_saving(curves, base)
        html = page.write(curves, table, svg, base.with_suffix(".html"))
    text = base.with_suffix(".md")
    atomic_write(text, tables.markdown(table))
    return Report(table, values, (text, png, svg, html))
