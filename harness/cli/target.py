# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine a command is about: this one, or one reached over ssh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.dsa import Shell

Target = Annotated[
    str | None, typer.Option("--target", metavar="ssh://USER@HOST:PORT", help="Another machine; default: this one.")
]


@contextmanager
def shell_of(target: str | None, identity: Path | None, known_hosts: Path | None) -> Iterator[Shell]:
    """A shell there."""
    from harness import dsa

    if target is None:
        yield dsa.local
        return
    from harness.host import Host

    with Host.connect(target, identity, known_hosts) as host:
        yield dsa.on(host)
