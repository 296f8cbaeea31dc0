# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness cache``."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import Json

app = typer.Typer(help="What is kept below the cache directory, and how to get the space back.", no_args_is_help=True)


@app.command("list")
def list_(
    json: Json = False,
) -> None:
    """Show what takes how much space (in JSON: bytes).

    Checkpoints are machines with a loaded fleet, saved so that experiments need not load it again. What was not used
    for longest goes by itself when they take more than PARAKSM_CHECKPOINTS_GIB.

    Example: harness cache list
    """
    from harness import cache, checkpoint, config

    entries = cache.entries()
    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps([{**asdict(entry), "path": str(entry.path)} for entry in entries], indent=1))
        return
    for entry in entries:
        typer.echo(f"{entry.size / 2**20:9.0f} MiB  {entry.kind:11}  {entry.path.name}  {entry.note}".rstrip())
    taken = sum(entry.size for entry in entries if entry.kind == "checkpoints")
    typer.echo(
        f"{taken / 2**20:9.0f} MiB  in checkpoints, of {checkpoint.limit() / 2**30:g} GiB that they may take "
        f"({checkpoint.LIMIT})"
    )
    typer.echo(f"{sum(entry.size for entry in entries) / 2**20:9.0f} MiB  in all, below {config.paths().cache}")


@app.command()
def prune(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(metavar="[builds|images|checkpoints|sources|trees|ccache|logs|tmp]...", help="What to remove."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All kinds.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would go.")] = False,
) -> None:
    """Remove cached files; what is needed again is fetched or built again. Builds under way are left alone.

    Edited source trees are kept: export your edits with `harness patch refresh` first.

    Example: harness cache prune builds
    """
    from harness import cache
    from harness.errors import UsageError

    if bool(kinds) == everything:
        raise UsageError(
            "say what to remove: some kinds, or --all", hint=f"kinds: {' '.join(cache.KINDS)}; `harness cache list`"
        )
    for entry, note in cache.prune(cache.KINDS if everything else kinds or (), dry_run=dry_run):
        typer.echo(f"{entry.size / 2**20:9.0f} MiB  {entry.kind:11}  {entry.path.name}  {note}")
