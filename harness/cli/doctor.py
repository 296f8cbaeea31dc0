# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness doctor``."""

from __future__ import annotations

import typer

from harness.cli.options import Json


def command(
    json: Json = False,
) -> None:
    """Say whether this machine is fit, and what mends it.

    Looks at Python, system packages, toolchain, disk, memory, the accelerator (by running a virtual CPU,
    at most ten seconds), the compiler cache, and what is cached. Changes nothing.

    Exit status: 0 nothing to do, 1 something to know, 3 something to mend first.

    Example: harness doctor --json | jq '.[] | select(.state != "ok")'
    """
    from dataclasses import asdict
    from json import dumps

    from harness import doctor

    findings = doctor.examine()
    if json:
        typer.echo(dumps([asdict(finding) for finding in findings], indent=1))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for name in ("check", "state", "evidence", "next"):
            table.add_column(name, overflow="fold")
        colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
        for finding in findings:
            state = f"[{colours[finding.state]}]{finding.state}[/]"
            table.add_row(finding.check, state, _plain(finding.evidence), _plain(finding.fix))
        Console().print(table)
    raise typer.Exit(doctor.severity(findings))


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
