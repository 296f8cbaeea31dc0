# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json


def command(
    where: Annotated[
        str, typer.Argument(metavar="NAME|DIR", help="A report below the results directory, or its directory.")
    ] = "fig12",
    rebuild: Annotated[
        bool, typer.Option("--rebuild-index", help="Only rebuild index.json from the manifests of all runs.")
    ] = False,
    json: Json = False,
) -> None:
    """Draw table, picture and page again from the stored runs; nothing is built or run.

    The same runs give the same bytes.

    Example: harness report fig12
    """
    from harness.config import paths
    from harness.experiment import conduct
    from harness.report import tables

    if rebuild:
        typer.echo(str(conduct.store().write_index()))
        return
    directory = Path(where) if (Path(where) / "experiment.json").is_file() else paths().results / where
    report = conduct.redraw(directory)
    if json:
        from json import dumps

        typer.echo(dumps(report.values | {"files": [str(path) for path in report.files]}, indent=1))
        return
    tables.show(report.table)
    typer.echo("\nwritten:\n" + "\n".join(f"  {path}" for path in report.files))
