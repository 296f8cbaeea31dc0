# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that mean the same in several commands: one spelling, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Kernel = Annotated[
    str | None, typer.Option("--kernel", metavar="VERSION", help="Kernel, say 6.1; default: the first obtainable.")
]
Source = Annotated[
    str | None,
    typer.Option("--source", metavar="WHERE", help="A tree of your own: directory, archive or REPOSITORY@REVISION."),
]
Upto = Annotated[
    str | None,
    typer.Option(
        "--upto",
        metavar="PATCH",
        help="Only the series up to this patch, by its name or what it provides (para_c); `base`: nothing of it.",
    ),
]
KernelProfile = Annotated[str, typer.Option("--profile", help="Kernel profile of kernel/profiles.toml.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="How many at once; default: as cores and memory allow.")
]
Identity = Annotated[Path | None, typer.Option("--identity", metavar="FILE", help="Private key for the target.")]
KnownHosts = Annotated[
    Path | None, typer.Option("--known-hosts", metavar="FILE", help="Host keys; default: ~/.ssh/known_hosts.")
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON, alone on standard output.")]
