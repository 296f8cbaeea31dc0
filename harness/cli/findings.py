# SPDX-License-Identifier: GPL-2.0-or-later
"""Findings for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from harness.doctor import Finding


def show(findings: Sequence[Finding], json: bool) -> None:
    """Print a table, or JSON."""
    from dataclasses import asdict
    from json import dumps

    if json:
        typer.echo(dumps([asdict(finding) for finding in findings], indent=1))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("check", "state", "evidence", "next"):
        table.add_column(name, overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for finding in findings:
        state = f"[{colours[finding.state]}]{finding.state}[/]"
        table.add_row(escape(finding.check), state, escape(finding.evidence), escape(finding.fix))
    Console().print(table)
