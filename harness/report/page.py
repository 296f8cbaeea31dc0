# SPDX-License-Identifier: GPL-2.0-or-later
"""One self-contained HTML page: figure, numbers, and for each of them the inputs it came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.config import atomic_write
from harness.experiment.spec import workloads
from harness.experiment.store import canonical
from harness.report.analysis import Selection
from harness.report.tables import Table
from harness.systems import systems

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).resolve().parent / "templates"


class Result(Protocol):
    """What was computed from a selection of runs."""

    @property
    def selection(self) -> Selection:
        """The runs."""
        ...

    @property
    def stamps(self) -> tuple[str, ...]:
        """What stands on the face of the figure."""
        ...


def environment() -> jinja2.Environment:
    """Templates of pages: everything that is filled in is escaped, and nothing may be forgotten."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )


def write(result: Result, table: Table, svg: Path, path: Path) -> Path:
    """Write the page; the drawing goes into it, nothing is loaded from elsewhere."""
    import markupsafe

    drawing = svg.read_text(encoding="utf-8")
    text = (
        environment()
        .get_template("page.html.j2")
        .render(
            table=table,
            stamps=result.stamps,
            svg=markupsafe.Markup(drawing[drawing.index("<svg") :]),  # noqa: S704 (our own drawing, without its XML head)
            runs=_runs(result.selection),
            kind=result.selection.spec.kind,
            baseline=result.selection.spec.baseline,
        )
    )
    atomic_write(path, text)
    return path


def _runs(selection: Selection) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for (system, workload, seed), batch, record in selection.runs():
        out.append(
            {
                "workload": workloads()[workload].label,
                "system": systems()[system].label + ("" if batch is None else f", batches of {batch}"),
                "seed": seed,
                "outcome": "missing" if record is None else record.outcome,
                "directory": "" if record is None else f"runs/{record.short}",
                "inputs": "" if record is None else canonical(dict(record.inputs)),
            }
        )
    return out
