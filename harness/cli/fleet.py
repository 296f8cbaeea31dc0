# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness fleet``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json

if TYPE_CHECKING:
    from harness.fleet import FleetPlan

app = typer.Typer(
    no_args_is_help=True,
    help="What a fleet of VMs holds in memory, and what KSM must make of it.",
)

_PROFILE = typer.Argument(help="Size of the fleet; `harness fleet profiles` lists them.")
_SET = typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the plan; repeatable.")


def _plan(profile: str, changes: list[str] | None) -> FleetPlan:
    """The plan of a profile with changes; TOML says what type a value has."""
    import tomllib

    from harness import fleet
    from harness.errors import UsageError

    values: dict[str, Any] = fleet.profile(profile).model_dump()
    for change in changes or ():
        key, equals, text = change.partition("=")
        if not equals:
            raise UsageError(f"--set {change}: not KEY=VALUE", hint="for instance --set vms=8")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    return fleet.plan_from(values)


@app.command("profiles")
def profiles() -> None:
    """List the sizes a fleet can have."""
    from harness import fleet

    for name in fleet.profiles():
        typer.echo(f"{name:8} {fleet.describe(name)}; about {fleet.stated_seconds(name):.0f} s a run")


@app.command("plan")
def plan(
    profile: Annotated[str, _PROFILE] = "laptop",
    changes: Annotated[list[str] | None, _SET] = None,
) -> None:
    """Print the plan file that the guest program reads; it also runs as root on any Linux with KSM.

    Example: harness fleet plan unit --set system=no-ksm > plan.txt
    """
    typer.echo(_plan(profile, changes).render(), nl=False)


@app.command("oracle")
def oracle(
    profile: Annotated[str, _PROFILE] = "laptop",
    changes: Annotated[list[str] | None, _SET] = None,
    json: Json = False,
) -> None:
    """Say what KSM reaches on a fleet, from the contents of its pages alone.

    Example: harness fleet oracle laptop --set vms=300 --set max_page_sharing=256
    """
    import dataclasses
    import json as encoder

    from harness import fleet

    expected = fleet.expect(_plan(profile, changes))
    values = dataclasses.asdict(expected)
    if json:
        typer.echo(encoder.dumps(values, indent=1))
        return
    for name, value in values.items():
        typer.echo(f"{name:20} {value:>9}")
    typer.echo(f"{'saved':20} {expected.saving_share:>9.1%}")


@app.command("check")
def check(
    result: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What `fleet run` wrote.")],
    profile: Annotated[str, typer.Option(help="Size of the fleet that ran.")] = "laptop",
    changes: Annotated[list[str] | None, _SET] = None,
    json: Json = False,
) -> None:
    """Check a fleet's result against its plan and the oracle, and sum it up.

    Example: harness fleet check results.bin --profile unit --set system=no-ksm
    """
    import json as encoder

    from harness import fleet

    plan = _plan(profile, changes)
    found = fleet.parse(result.read_bytes())
    fleet.check(plan, found)
    last = found.samples[-1]
    summary = {
        "application_ns": found.application_ns,
        "model": found.model,
        "corun_ns": found.corun_ns,
        "ksmd_ns": found.ksmd_ns,
        "ksmd_utilisation": round(found.ksmd_ns / found.corun_ns, 6) if found.corun_ns else None,
        "pages_saved": last["pages_sharing"],
        "pages_possible": fleet.possible(plan, found),
        "samples": len(found.samples),
    }
    if json:
        typer.echo(encoder.dumps(summary, indent=1))
        return
    for name, value in summary.items():
        typer.echo(f"{name:17} {value if value is not None else 'none'}")
