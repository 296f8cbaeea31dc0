# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import Json, Kernel, Source


def command(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BENCH]...", help="Which of those above; default: boot, help."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", "-n", min=1, help="Repetitions; medians are printed.")] = 5,
    kernel: Kernel = None,
    source: Source = None,
    json: Json = False,
) -> None:
    """Measure the toolkit itself: each figure beside its limit, absolute times beside ratios.

    boot: to the first command, against a plain QEMU with a three-line init. edit: from a change of mm/ksm.c to
    a command on the new kernel. help: harness --help. fig12: the reduced figure with everything built.
    counters: what the series costs ksmd, in instructions, against the kernel without it. systems: what ksmd
    spends in each system, pass by pass, in instructions. build: everything from an empty cache (twenty minutes).
    dsa: what an emulated descriptor costs this machine. nested: how fast VMs inside the emulated machine are.
    counters, systems and nested can be had of another kernel with --kernel or --source.
    Exit status 1 if a limit is passed.

    Example: harness bench boot edit -n 3
    """
    import dataclasses
    import json as encoder

    from harness.bench import BENCHES, OF_KERNEL, Terms
    from harness.errors import UsageError

    names = what or ["boot", "help"]
    for name in names:
        if name not in BENCHES:
            raise UsageError(f"there is no bench {name!r}", hint=f"harness bench {' '.join(BENCHES)}")
    if (kernel or source) and (others := [name for name in names if name not in OF_KERNEL]):
        raise UsageError(
            f"{', '.join(others)}: not a figure of a kernel: --kernel and --source mean nothing there",
            hint=f"harness bench {' '.join(sorted(OF_KERNEL))}",
        )
    terms = Terms(rounds, kernel, source)
    figures = [figure for name in names for figure in BENCHES[name](terms)]
    if json:
        rows = [{**dataclasses.asdict(figure), "holds": figure.holds} for figure in figures]
        typer.echo(encoder.dumps(rows, indent=2))
    else:
        width = max(len(figure.name) for figure in figures)
        for figure in figures:
            limit = "" if figure.limit is None else f"limit {figure.limit:g} {figure.unit}"
            mark = "" if figure.limit is None else "holds" if figure.holds else "PASSED"
            line = f"{figure.name:{width}}  {figure.value:8.2f} {figure.unit:2} {limit:14} {mark:6} {figure.note}"
            typer.echo(line.rstrip())
    if not all(figure.holds for figure in figures):
        raise typer.Exit(1)
