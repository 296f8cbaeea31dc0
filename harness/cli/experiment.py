# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness experiment``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Identity, Jobs, Json, Kernel, KnownHosts, Source, Upto

if TYPE_CHECKING:
    from harness.experiment.cells import Failure
    from harness.experiment.conduct import Request
    from harness.experiment.plan import Plan, Row


def command(
    name: Annotated[
        str, typer.Argument(metavar="all|presets|fig12|table2|...|FILE.toml", help="Which experiment, or several.")
    ],
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the cells, their state and cost; build and run nothing.")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(metavar="laptop|ci|unit|...", help="Size of the fleet; default: the spec's.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="paper|artifact|fair|...", help="Knobs of the systems; default: the spec's.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds; the table then has intervals.")] = None,
    jobs: Jobs = None,
    kernel: Kernel = None,
    source: Source = None,
    upto: Upto = None,
    susy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Train on the first rows of the real SUSY file (.csv, .gz or .zip of UCI's, or LIBSVM's).",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="ssh://USER@HOST:PORT", help="Run on that host, in its own time, as root.")
    ] = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    scheduler: Annotated[
        list[str] | None,
        typer.Option(
            metavar="local|dask|tcp://...|ssh://...",
            help="Who runs cells: this process, processes here (dask:N), a Dask scheduler's workers, hosts over ssh.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the report goes; default: results/NAME.")
    ] = None,
    json: Json = False,
) -> None:
    """Reproduce a figure of the paper: run what is missing, print the table, write picture and page.

    A cell (one system, workload and seed) is run once and kept under the hash of everything that went into it.
    Ctrl-C loses nothing that was finished; the same command goes on. A failed cell is tried again.

    `all` is every experiment: the cells of all of them, each run once, then every report and one page with verdicts.
    `presets` draws Figures 12 and 14 under the paper's text, the authors' scripts, and each of their differences alone.

    Example: harness experiment all --profile ci
    Example: harness experiment fig12 --plan
    Example: harness experiment fig12 --seeds 5
    Example: harness experiment fig12 --seeds 5 --scheduler ssh://me@one --scheduler ssh://me@two
    Example: harness experiment fig13 --target ssh://root@server --identity ~/.ssh/id_ed25519
    """
    from harness.experiment import conduct

    request = conduct.Request(
        name, profile, preset, seeds, jobs, kernel, source, target, identity, known_hosts, out, upto, susy,
        scheduler=tuple(scheduler or ()),
    )  # fmt: skip
    if name in (conduct.ALL, conduct.PRESETS):
        _several(request, plan, json)
        return
    if plan:
        _print_plan(*conduct.preview(request), json)
        return
    outcome = conduct.conduct(request)
    if json:
        from json import dumps

        files = [str(path) for path in outcome.report.files]
        failed = [{"cell": failure.cell.label, "reason": failure.reason} for failure in outcome.failures]
        typer.echo(dumps(outcome.report.values | {"failed": failed, "files": files}, indent=1))
    else:
        from harness.report import tables

        tables.show(outcome.report.table)
        typer.echo("\nwritten:\n" + "\n".join(f"  {path}" for path in outcome.report.files))
    _complain(outcome.failures)


def _complain(failures: Sequence[Failure]) -> None:
    """End with the first of the cells that failed.

    Raises:
        FleetError: there is one.

    """
    from harness.errors import FleetError
    from harness.experiment import conduct

    if failures:
        first = failures[0]
        key = str(first.cell.key)[:16]
        raise FleetError(
            f"{len(failures)} cells failed; the first, {first.cell.label}: {first.reason}",
            hint=f"its console is in {conduct.store().runs / key}; the same command tries it again",
        )


def _several(request: Request, plan: bool, json: bool) -> None:
    """Several experiments at once."""
    from harness.experiment import conduct

    if plan:
        made, rows = conduct.preview_all(request)
        _print_rows(request.name, made, rows, json)
        return
    whole, failures = conduct.conduct_all(request)
    if json:
        from json import dumps

        failed = [{"cell": failure.cell.label, "reason": failure.reason} for failure in failures]
        files = [str(path) for path in whole.files]
        typer.echo(dumps(whole.values | {"failed": failed, "files": files}, indent=1))
    else:
        from harness.report import tables

        for table in whole.tables:
            tables.show(table)
        typer.echo("\nwritten:\n" + "\n".join(f"  {path}" for path in whole.files))
    _complain(failures)


def _absent(made: Plan) -> dict[str, str]:
    """Labels of what does not exist here, each with the reason."""
    from harness.experiment.spec import workloads
    from harness.systems import systems

    labels = {item.id: item.label for item in systems().values()} | {
        item.id: item.label for item in workloads().values()
    }
    return {labels[name]: reason for name, reason in made.absent.items()}


def _checkpoints(rows: list[Row]) -> list[str]:
    """Where the cells that are left begin."""
    from harness import checkpoint

    keys = {row.cell.checkpoint.key for row in rows if row.state != "done" and row.cell.resumes}
    if not keys:
        return []
    there = sum(checkpoint.is_there(key) for key in keys)
    return [f"every cell goes on from its fleet's checkpoint, which all systems share: {there} of {len(keys)} made"]


def _print_plan(made: Plan, rows: list[Row], json: bool) -> None:
    _print_rows(made.spec.id, [made], rows, json)


def _print_rows(what: str, made: Sequence[Plan], rows: list[Row], json: bool) -> None:
    absent = {label: reason for item in made for label, reason in _absent(item).items()}
    if json:
        from json import dumps

        cells = [
            {
                **{name: row.cell.properties[name] for name in ("system", "workload", "seed", "profile")},
                **({} if row.cell.batch is None else {"batch": row.cell.batch}),
                "key": row.cell.key,
                "checkpoint": row.cell.checkpoint.key if row.cell.resumes else None,
                "state": row.state,
                "seconds": round(row.seconds, 1),
                "estimate": row.source,
            }
            for row in rows
        ]
        typer.echo(dumps({"experiment": what, "cells": cells, "absent": absent}, indent=1))
        return
    from harness.report.tables import Table, show

    lines = tuple(
        (
            row.cell.key[:16] if row.cell.key else "pending",
            row.cell.label,
            row.state,
            f"{row.seconds:.0f} s" if row.seconds else "",
            row.source,
        )
        for row in rows
    )
    total, left = sum(row.seconds for row in rows), sum(row.state != "done" for row in rows)
    notes = [f"{left} of {len(rows)} cells left"]
    notes += [f"one after another about {total:.0f} s, less with several at once; building not counted"]
    notes += _checkpoints(rows)
    if any(row.state == "pending" for row in rows):
        notes.append("pending: the key is known once kernel, QEMU and image are built (or the target is reached)")
    notes += [f"no cells: {label} ({reason})" for label, reason in absent.items()]
    show(Table(_title(what, made), ("key", "cell", "state", "time", "estimate from"), lines, tuple(notes)))


def _title(what: str, made: Sequence[Plan]) -> str:
    if len(made) > 1:
        return f"{what}: {', '.join(dict.fromkeys(item.spec.id for item in made))}"
    (only,) = made
    seeds = f"{only.seeds} seed" + ("s" if only.seeds > 1 else "")
    return f"{what}: {only.spec.title} (profile {only.profile}, preset {only.preset}, {seeds})"
