# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables: for a terminal, for a pipe, as Markdown and as values for JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from harness.experiment.spec import workloads
from harness.report import paper
from harness.report.analysis import ABSENCES, Bar, Degradation, Efficiency, Mark, Saving, Selection
from harness.report.statistics import Estimate
from harness.systems import systems


@dataclass(frozen=True)
class Table:
    """A title, column heads and rows of text."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    more: tuple[Table, ...] = ()
    """What belongs below it."""


def of_degradation(result: Degradation) -> Table:
    """Figure 12 as a table: one row a workload and system that has a number or could have one."""
    spec = result.selection.spec
    rows: list[tuple[str, ...]] = []
    for name in spec.axes.workload:
        if name in result.selection.absent:
            continue
        for system in spec.axes.system:
            rows.append(_row(result.at(system, name)))
    for system, mean in result.geomeans.items():
        ours = _mean(result, system, mean)
        papers = _paper("degradation", system, "GeoMean")
        rows.append(("GeoMean", systems()[system].label, "", ours, papers, *[""] * 8))
    notes = [*result.stamps, *_absent_workloads(result)]
    return Table(
        f"{spec.title} ({spec.paper})",
        (
            "workload",
            "system",
            "time [s]",
            "degradation",
            "paper",
            "time-share bound",
            "ksmd util.",
            "paper (Table 2)",
            "saved [MiB]",
            "metric",
            "n",
            "from intended start",
            "seeds pooled",
        ),
        tuple(rows),
        tuple(notes),
    )


def _mean(result: Degradation | Efficiency, system: str, mean: Estimate | None) -> str:
    if mean is not None:
        return _ratio(mean)
    return "not built yet" if system in result.selection.absent else "needs every workload"


def _absent_workloads(result: Degradation | Efficiency) -> list[str]:
    selection = result.selection
    whys: dict[str, list[str]] = {}
    for name in selection.spec.axes.workload:
        if name in selection.absent:
            whys.setdefault(selection.absence("", name), []).append(workloads()[name].label)
    return [f"{why}: {', '.join(labels)}" for why, labels in whys.items()]


def of_efficiency(result: Efficiency) -> Table:
    """Figure 14 as a table: one row a workload and system that has a number or could have one."""
    spec = result.selection.spec
    rows = [
        _mark(result.at(system, name))
        for name in spec.axes.workload
        if name not in result.selection.absent
        for system in spec.axes.system
    ]
    for system, mean in result.geomeans.items():
        label, ours = systems()[system].label, _mean(result, system, mean)
        rows.append(("GeoMean", label, "", "", "", ours, _paper("efficiency", system, "all")))
    notes = [*result.stamps, *_absent_workloads(result)]
    base = systems()[str(spec.baseline)].label
    return Table(
        f"{spec.title} ({spec.paper})",
        ("workload", "system", "saved [MiB]", "ksmd [s]", "saved / ksmd [B/us]", f"over {base}", "paper (all)"),
        tuple(rows),
        tuple(notes),
    )


def _mark(mark: Mark) -> tuple[str, ...]:
    there = _paper("efficiency", mark.system.id, "all")
    if mark.status != "result":
        text = mark.status if mark.status in ABSENCES else f"{mark.status}: {mark.reason}"
        return (mark.workload.label, mark.system.label, "", "", "", text, there)
    return (
        mark.workload.label,
        mark.system.label,
        number(mark.saved_mib, "{:.2f}"),
        number(mark.ksmd_seconds, "{:.4f}"),
        number(mark.bytes_per_us, "{:.1f}"),
        _ratio(mark.ratio),
        there,
    )


def _row(bar: Bar) -> tuple[str, ...]:
    scope = bar.workload.family
    both = "Liblinear+Graph500" if scope in ("Liblinear", "Graph500") else scope
    there = _paper("degradation", bar.system.id, scope)
    mean = _paper("degradation", bar.system.id, both)
    table2 = _paper("ksmd_utilisation", bar.system.id, scope)
    papers = there or (f"{mean} (mean of {both})" if mean else "")
    if bar.status != "result":
        text = bar.status if bar.status in ABSENCES else f"{bar.status}: {bar.reason}"
        what = (bar.workload.metric, "", "", "")
        return (bar.workload.label, bar.system.label, "", text, papers, "", "", table2, "", *what)
    return (
        bar.workload.label,
        bar.system.label,
        number(bar.seconds, "{:.6f}" if bar.workload.operation else "{:.4f}"),
        _ratio(bar.ratio),
        papers,
        f">= {bar.bound:.2f}x" if bar.bound and bar.bound > 1 else "",
        number(bar.utilisation, "{:.1%}"),
        table2,
        number(bar.saved_mib, "{:.2f}"),
        bar.workload.metric,
        "" if bar.samples is None else str(bar.samples),
        _ratio(bar.intended),
        _ratio(bar.pooled),
    )


def of_saving(result: Saving, points: int = 10) -> Table:
    """Figure 13 as a table: the saving at ``points`` equal steps of the window."""
    import numpy

    done = [curve for curve in result.curves if curve.status == "result"]
    end = min((curve.times[-1] for curve in done), default=0.0)
    grid = [end * step / points for step in range(1, points + 1)]
    rows: list[tuple[str, ...]] = []
    for time in grid if done else []:
        cells = []
        for curve in result.curves:
            if curve.status == "result":
                cells.append(f"{float(numpy.interp(time, curve.times, curve.middle)):.2f}")
            else:
                cells.append(curve.status)
        rows.append((f"{time:.3f}", *cells))
    notes = list(result.stamps)
    for curve in result.curves:
        if curve.status in ("failed", "missing"):
            notes.append(f"{curve.system.label}: {curve.status}: {curve.reason}")
        if curve.ceiling_mib is not None:
            notes.append(f"{curve.system.label}: the content allows {curve.ceiling_mib:.2f} MiB in the window")
    for value in paper.values():
        if value.metric == "saving":
            notes.append(f"paper, {systems()[value.system].label}: {value.text} ({value.where})")
    head = ("time [s]", *(f"{curve.system.label} [MiB]" for curve in result.curves))
    return Table(f"{result.selection.spec.title} ({result.selection.spec.paper})", head, tuple(rows), tuple(notes))


def _paper(metric: str, system: str, scope: str) -> str:
    found = paper.find(metric, system, scope)
    return found.text if found else ""


def _ratio(estimate: Estimate | None) -> str:
    return number(estimate, "{:.3f}x")


def number(estimate: Estimate | None, form: str) -> str:
    """An estimate with its interval, if it has one; nothing for none."""
    if estimate is None:
        return ""
    text = form.format(estimate.value)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{form.format(estimate.low)}, {form.format(estimate.high)}]"


def markdown(table: Table) -> str:
    """GitHub-flavoured Markdown."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    out = [f"## {table.title}", "", line(table.head), "|" + "---|" * len(table.head)]
    out += [line(row) for row in table.rows]
    out += ["", *(f"- {note}" for note in table.notes), ""]
    return "\n".join([*out, *(markdown(each) for each in table.more)])


def plain(table: Table) -> str:
    """Columns of text for a pipe: no colour, no frames that depend on a width."""
    grid = [table.head, *((tuple(cell.splitlines()[0] if cell else "" for cell in row)) for row in table.rows)]
    widths = [max(len(row[column]) for row in grid) for column in range(len(table.head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in grid]
    lines.insert(1, "  ".join("-" * width for width in widths))
    text = "\n".join([table.title, "", *lines, "", *(f"  {note}" for note in table.notes)]) + "\n"
    return "\n".join([text, *(plain(each) for each in table.more)])


def show(table: Table) -> None:
    """Print to standard output: framed on a terminal, plain columns in a pipe."""
    import sys

    if not sys.stdout.isatty():
        sys.stdout.write(plain(table))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as Rich

    drawn = Rich(title=table.title, box=box.SIMPLE_HEAD, title_justify="left")
    for column, name in enumerate(table.head):
        drawn.add_column(name, justify="left" if column < 2 else "right")
    for row in table.rows:
        quiet = any(cell in ABSENCES for cell in row)
        drawn.add_row(*(_escape(cell) for cell in row), style="dim" if quiet else None)
    console = Console()
    console.print(drawn)
    for note in table.notes:
        console.print(f"  {_escape(note)}", style="dim", highlight=False)
    for each in table.more:
        console.print()
        show(each)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def heading(selection: Selection, stamps: tuple[str, ...]) -> dict[str, Any]:
    """What the values of every experiment begin with."""
    return {
        "experiment": selection.spec.id,
        "profile": selection.profile,
        "preset": selection.preset,
        "seeds": selection.seeds,
        "stamps": list(stamps),
    }


def values(result: Degradation | Saving | Efficiency) -> dict[str, Any]:
    """The numbers for ``--json``: estimates as objects, absent ones as null with their status."""
    head = heading(result.selection, result.stamps)
    if isinstance(result, Saving):
        return head | {
            "curves": [
                {
                    "system": curve.system.id,
                    "status": curve.status,
                    "reason": curve.reason,
                    "seconds": list(curve.times),
                    "saving_mib": list(curve.middle),
                    "ceiling_mib": curve.ceiling_mib,
                }
                for curve in result.curves
            ]
        }

    def plain_estimate(estimate: Estimate | None) -> dict[str, Any] | None:
        return dataclasses.asdict(estimate) if estimate else None

    if isinstance(result, Efficiency):
        return head | {
            "marks": [
                {
                    "system": mark.system.id,
                    "workload": mark.workload.id,
                    "status": mark.status,
                    "reason": mark.reason,
                    "efficiency": plain_estimate(mark.ratio),
                    "bytes_per_us": plain_estimate(mark.bytes_per_us),
                    "saved_mib": plain_estimate(mark.saved_mib),
                    "ksmd_seconds": plain_estimate(mark.ksmd_seconds),
                }
                for mark in result.items
            ],
            "geomean": {system: plain_estimate(mean) for system, mean in result.geomeans.items()},
        }
    return head | {
        "bars": [
            {
                "system": bar.system.id,
                "workload": bar.workload.id,
                "status": bar.status,
                "reason": bar.reason,
                "metric": bar.workload.metric,
                "samples": bar.samples,
                "degradation": plain_estimate(bar.ratio),
                "degradation_from_intended_start": plain_estimate(bar.intended),
                "degradation_of_pooled_seeds": plain_estimate(bar.pooled),
                "ksmd_utilisation": plain_estimate(bar.utilisation),
                "time_share_bound": bar.bound,
                "seconds": plain_estimate(bar.seconds),
                "saved_mib": plain_estimate(bar.saved_mib),
            }
            for bar in result.items
        ],
        "geomean": {system: plain_estimate(mean) for system, mean in result.geomeans.items()},
    }
