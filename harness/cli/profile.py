# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness profile``."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import Json


def command(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="One of the figures' systems.")] = "cpu-ksm",
    mix: Annotated[str, typer.Option("--fleet", help="mixed, or alike: pages equal up to their last bytes.")] = "mixed",
    knobs: Annotated[
        list[str] | None, typer.Option("--set", metavar="FILE=VALUE", help="A file of /sys/kernel/mm/ksm to write.")
    ] = None,
    iommu: Annotated[bool, typer.Option("--iommu", help="An IOMMU translates the devices' addresses.")] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="How many functions to print.")] = 25,
    json: Json = False,
) -> None:
    """Where ksmd's instructions go, function by function: counted, not sampled, and the same every time.

    A fleet of 40 small VMs that stay still is scanned five times on a sealed machine, as in `harness bench systems`.
    Functions are as the compiler left them: what is inlined counts for its caller.

    Example: harness profile para-ksmc --set offload_prefix_bytes=0 --fleet alike
    """
    import dataclasses
    import json as encoder

    from harness import passes
    from harness.errors import UsageError
    from harness.systems import find, systems
    from harness.workbench import workbench

    if system not in systems() or not find(system).ksmd:
        known = [name for name, item in systems().items() if item.ksmd]
        raise UsageError(f"there is no system {system!r} in which ksmd works", hint=f"one of: {', '.join(known)}")
    if mix not in passes.MIXES:
        raise UsageError(f"there is no fleet {mix!r}", hint=f"one of: {', '.join(passes.MIXES)}")
    pairs = [word.partition("=") for word in knobs or []]
    if bad := [name for name, equals, _ in pairs if not equals or "/" in name]:
        raise UsageError(f"--set {bad[0]}: FILE=VALUE, with a file of /sys/kernel/mm/ksm")
    writes = tuple((f"/sys/kernel/mm/ksm/{name}", value) for name, _, value in pairs)
    setting = passes.Setting(system, system, writes, iommu)
    spent, functions = passes.profile(workbench(image="measured"), setting, mix)
    if json:
        rows = [dataclasses.asdict(each) for each in functions]
        typer.echo(encoder.dumps({"spent": dataclasses.asdict(spent), "functions": rows}, indent=2))
        return
    total = sum(each.instructions for each in functions)
    did = f"{spent.saved:,} pages saved, {spent.scanned:,} scanned in {len(spent.passes)} passes"
    typer.echo(f"{total:,} instructions of ksmd; {did}\n")
    typer.echo(f"{'share':>6} {'sum':>6} {'instructions':>14} {'entries':>10}  function")
    so_far = 0
    for each in functions[:top]:
        so_far += each.instructions
        shares = f"{each.instructions / total:6.1%} {so_far / total:6.1%}"
        typer.echo(f"{shares} {each.instructions:14,} {each.entries:10,}  {each.name}")
