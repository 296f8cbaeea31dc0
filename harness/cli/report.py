# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json


def command(
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|DIR]",
            help="A report below the results directory, or its directory; default: all, on one page.",
        ),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild-index", help="Only rebuild index.json from the manifests of all runs.")
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Two results directories, or two reports: what went in differently, and each number of B over A's.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Draw table, picture and page again from the stored runs; nothing is built or run.

    Without a name: every report, and one page over all of them, with the verdicts on the paper's claims
    (results/report/report.html and .md). The same runs give the same bytes. --compare pairs the cells of two kernels,
    patches or presets and prints the ratios of all numbers that both have, with intervals over the seeds.

    Example: harness report
    Example: harness report fig12
    Example: harness report --compare results/fig12 results/fig12-artifact
    Example: harness report --compare before/results after/results --json
    """
    from harness.config import paths
    from harness.experiment import conduct
    from harness.report import tables

    if rebuild:
        typer.echo(str(conduct.store().write_index()))
        return
    if compare is not None:
        _compare(*compare, json)
        return
    if where is None:
        _all(json)
        return
    directory = Path(where) if (Path(where) / "experiment.json").is_file() else paths().results / where
    report = conduct.redraw(directory)
    if json:
        from json import dumps

        typer.echo(dumps(report.values | {"files": [str(path) for path in report.files]}, indent=1))
        return
    tables.show(report.table)
    typer.echo("\nwritten:\n" + "\n".join(f"  {path}" for path in report.files))


def _compare(a: Path, b: Path, json: bool) -> None:
    from harness.experiment import conduct
    from harness.report import compare, tables

    found = conduct.compare(a, b)
    if json:
        from json import dumps

        typer.echo(dumps(compare.values(found), indent=1))
        return
    for table in compare.tables_of(found):
        tables.show(table)


def _all(json: bool) -> None:
    from harness.experiment import conduct
    from harness.report import tables

    whole = conduct.overview()
    if json:
        from json import dumps

        typer.echo(dumps(whole.values | {"files": [str(path) for path in whole.files]}, indent=1))
        return
    for table in whole.tables:
        tables.show(table)
    typer.echo("\nwritten:\n" + "\n".join(f"  {path}" for path in whole.files))
