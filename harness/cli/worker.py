# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness worker``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Jobs


def command(
    address: Annotated[str, typer.Argument(metavar="tcp://HOST:PORT|tls://HOST:PORT", help="The scheduler's address.")],
    jobs: Jobs = None,
    memory: Annotated[
        int | None,
        typer.Option(min=1, metavar="MIB", help="Memory for machines; default: three quarters of what is free."),
    ] = None,
    tls: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="ca.pem, cert.pem and key.pem; default: as Dask's configuration says."),
    ] = None,
) -> None:
    """Run cells of experiments for a Dask scheduler, here, until it ends or Ctrl-C.

    Needs the same checkout as the machine whose experiment it is, and nothing built: kernel, QEMU and image come from
    there, by digest. `dask scheduler` starts a scheduler; `--scheduler tcp://HOST:PORT` of an experiment names it.

    Example: harness worker tcp://head:8786
    """
    import re

    from harness.errors import UsageError
    from harness.experiment import scheduler

    if not re.fullmatch(r"(tcp|tls)://[^/\s]+:\d+", address):
        raise UsageError(f"{address}: not the address of a scheduler", hint="harness worker tcp://HOST:8786")
    scheduler.require()
    from harness.experiment import cells, worker

    room = cells.Capacity(jobs or cells.cores(), memory or cells.room_mib())
    assert room.memory_mib is not None
    worker.serve(address, room.jobs, room.memory_mib, tls)
