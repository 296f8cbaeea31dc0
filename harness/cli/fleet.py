# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness fleet``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, Kernel, Source

if TYPE_CHECKING:
    from harness.fleet import FleetPlan, FleetResult
    from harness.keeper import Seen, State
    from harness.workbench import Workbench

app = typer.Typer(
    no_args_is_help=True,
    help="A fleet of VMs: bring one up, see what it holds in memory and what KSM must make of it.",
)

_MACHINE_MIB = 128
"""Memory of a sealed machine besides its VMs'."""

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


def _shares(found: FleetResult) -> dict[str, int]:
    """Of real VMs: all mergeable pages, and whose they are."""
    if found.witness is None:
        return {}
    return {"pages" if name == "pages" else f"pages_{name}": n for name, n in found.witness.all_shares.as_dict.items()}


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
    from harness import fleet

    _sum_up(_plan(profile, changes), fleet.parse(result.read_bytes()), json=json)


def _sum_up(plan: FleetPlan, found: FleetResult, *, json: bool) -> None:
    import json as encoder

    from harness import fleet

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
        **_shares(found),
        "samples": len(found.samples),
    }
    if json:
        typer.echo(encoder.dumps(summary, indent=1))
        return
    for name, value in summary.items():
        typer.echo(f"{name:17} {value if value is not None else 'none'}")


@app.command("run")
def run(
    profile: Annotated[str, _PROFILE] = "unit",
    changes: Annotated[list[str] | None, _SET] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help="Where the result goes, too.")
    ] = None,
    kernel: Kernel = None,
    source: Source = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Of the wall clock, for all.")] = 3600.0,
    json: Json = False,
) -> None:
    """Run one plan on a sealed machine, in virtual time, and sum up what came out.

    This is one cell of an experiment with any field of the plan changed. It is not kept, and in no report.

    Example: harness fleet run small --set bystanders=duty --set system=para-ksmc

    Example: harness fleet run unit --set vms=9 --output results.bin
    """
    import tempfile

    from harness import fleet, systems
    from harness.config import atomic_write, paths
    from harness.errors import FleetError, MachineError
    from harness.experiment.executors import said
    from harness.machine import Machine, MachineSpec, Outcome
    from harness.ui import ui
    from harness.workbench import workbench

    plan = _plan(profile, changes)
    bench = workbench(kernel, source, "nested" if plan.nested else "measured")
    _check_able(plan.system, bench)
    with tempfile.TemporaryDirectory(prefix="fleet.", dir=paths().tmp) as name:
        work = Path(name)
        (work / "plan.txt").write_text(plan.render(), encoding="utf-8")
        spec = MachineSpec(
            bench.qemu, bench.kernel, bench.image, "measured", _MACHINE_MIB + plan.memory_mib, seed=plan.seed,
            fw_cfg={"opt/paraksm/plan": work / "plan.txt"}, dsa=systems.machine_devices(),
        )  # fmt: skip
        ui().step(f"running {_about(plan, profile)}")
        with Machine(spec, work) as machine:
            machine.start()
            outcome = machine.wait(timeout)
        if outcome is not Outcome.CLEAN:
            raise MachineError(machine.verdict.explain())
        if machine.status:
            raise FleetError(f"the fleet program ended with status {machine.status}{said(work)}")
        raw = (work / "results.bin").read_bytes()
    if output is not None:
        atomic_write(output, raw)
    _sum_up(plan, fleet.parse(raw), json=json)


def _check_able(system: str, bench: Workbench) -> None:
    """Whether kernel and QEMU have what a system needs."""
    from harness import systems
    from harness.errors import UsageError

    capabilities = {*bench.kernel.applied.provides, *bench.qemu.applied.provides}
    if lacking := systems.lacking(systems.find(system), capabilities):
        raise UsageError(f"{system} cannot run here: it {lacking}")


# --- a fleet that stays ---------------------------------------------------------------------------------

_NAMED = typer.Argument(metavar="[NAME]", help="Which fleet: what `harness fleet up` called it.")


@app.command("up")
def up(
    size: Annotated[
        str, typer.Option("--profile", metavar="small|scaled|ci|...", help="Size; see `harness fleet profiles`.")
    ] = "small",
    system: Annotated[
        str, typer.Option(metavar="no-ksm|cpu-ksm|para-ksmc|...", help="What ksmd does, from the start.")
    ] = "cpu-ksm",
    workload: Annotated[
        str | None, typer.Option(metavar="liblinear|graph500|none", help="What VMs load; default: the profile's.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the fleet is called; several may be up at a time.")] = "fleet",
    changes: Annotated[list[str] | None, _SET] = None,
    cpus: Annotated[int, typer.Option(min=1, max=8, help="Processors of the machine around the VMs.")] = 1,
    ssh_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Of 127.0.0.1, for its ssh server; 0: any.")
    ] = 0,
    kernel: Kernel = None,
    source: Source = None,
    boot_timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Until the machine reports.")] = 60.0,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Until all VMs have loaded.")] = 3600.0,
    json: Json = False,
) -> None:
    """Boot a fleet's machine, load its VMs and let ksmd work on them, in the background until `harness fleet down`.

    The machine is functional: it runs as fast as it can, its time is the clock on the wall, and you may log in. It
    is not for figures; those come from `harness experiment`.

    Example: harness fleet up --profile small --system para-ksmc

    Example: harness fleet up --profile ci --name other --set vms=4
    """
    import dataclasses
    import json as encoder

    from harness import keeper, systems
    from harness.machine import MachineSpec, free_port
    from harness.ssh import grant
    from harness.ui import ui
    from harness.workbench import workbench

    plan = _plan(size, [*(changes or ()), f"system={system}", *([f"workload={workload}"] if workload else [])])
    with keeper.claimed(name) as folder:
        bench = workbench(kernel, source, "fleet" if plan.nested else "functional")
        _check_able(system, bench)
        access = grant(folder, ssh_port or free_port())
        (folder / "plan.txt").write_text(plan.render(), encoding="utf-8")
        spec = MachineSpec(
            bench.qemu, bench.kernel, bench.image, "functional", keeper.BASE_MIB + plan.memory_mib, cpus,
            fw_cfg={**access.fw_cfg, keeper.PLAN_FILE: folder / "plan.txt"}, ssh_port=access.port,
            dsa=systems.machine_devices(),
        )  # fmt: skip
        state = keeper.State(
            name=name, phase="starting", about=_about(plan, size), system=system, vms=plan.vms,
            kernel=bench.kernel.release, console=str(folder / "console.log"), ssh=access.command, keeper=0,
        )  # fmt: skip
        with ui().progress(f"bringing up {state.about}", plan.vms) as task:
            state = keeper.up(
                keeper.Order(spec, state, boot_timeout, timeout),
                folder,
                lambda seen: task.update(done=seen.loaded, note=f"{seen.loaded} of {seen.vms} VMs"),
            )
    if json:
        typer.echo(encoder.dumps(dataclasses.asdict(state), indent=1))
        return
    typer.echo(f"fleet {name!r} is up after {state.seconds:.0f} s: {state.about}")
    _print_ways(state)


def _about(plan: FleetPlan, size: str) -> str:
    from harness import systems

    kind = f"real VMs of {plan.vm_memory_mib} MiB" if plan.nested else "processes that stand for VMs"
    return f"{plan.vms} {kind} (profile {size}, {plan.workload}), {systems.find(plan.system).label}"


def _print_ways(state: State) -> None:
    suffix = "" if state.name == "fleet" else f" {state.name}"
    typer.echo(f"  log in   {state.ssh}")
    typer.echo(f"  console  {state.console}")
    typer.echo(f"  look     harness fleet status{suffix}")
    typer.echo(f"  end      harness fleet down{suffix}")


@app.command("status")
def status(
    name: Annotated[str | None, _NAMED] = None,
    shares: Annotated[
        bool, typer.Option("--shares", help="Compare all pages: which are zero, equal to others, unique.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the VMs and KSM's counters of a fleet that is up; without a name, of every fleet.

    With --shares VMs stand still while their pages are compared from outside. That says what KSM can save of them,
    whatever it has done so far.

    The exit status is 0 only if the fleet is up (7: it died, 2: there is none).

    Example: harness fleet status --json | jq .ksm.pages_sharing

    Example: harness fleet status --shares
    """
    import dataclasses
    import json as encoder

    from harness import keeper

    wanted = [name] if name else keeper.names() or [keeper.DEFAULT]
    if json and len(wanted) > 1:
        from harness.errors import UsageError

        raise UsageError(f"several fleets are up: {', '.join(wanted)}", hint=f"harness fleet status --json {wanted[0]}")
    for one in wanted:
        state = keeper.read(one)
        keeper.check_alive(state)
        found = keeper.ask(one, pages=shares) if state.phase == "up" else None
        if json:
            value = dataclasses.asdict(state) | (dataclasses.asdict(found) if found else {"vms": []})
            typer.echo(encoder.dumps(value, indent=1))
        else:
            _print_status(state, found)


def _print_status(state: State, found: Seen | None) -> None:
    if found is None:
        typer.echo(f"fleet {state.name!r} is coming up: {state.loaded} of {state.vms} VMs; {state.about}")
        return
    from harness.report.tables import Table, show

    lost = [str(vm.number) for vm in found.vms if not vm.alive]
    said = f"{len(lost)} of {state.vms} VMs are lost: {', '.join(lost)}" if lost else f"all {state.vms} VMs live"
    typer.echo(f"fleet {state.name!r} is up: {state.about}, Linux {state.kernel}")
    typer.echo(f"{said}; ksmd has run {found.ksmd_seconds:.1f} s of {found.up_seconds:.0f} s")
    show(Table("VMs", ("VM", "memory", "merged"), tuple(
        (str(vm.number), f"{vm.rss_mib:.1f} MiB" if vm.alive else "lost", f"{vm.merging_pages * 4 / 1024:.1f} MiB")
        for vm in found.vms
    ), ()))  # fmt: skip
    _print_shares(found)
    show(Table("KSM", ("file", "value"), tuple(found.ksm.items()), ()))
    _print_ways(state)


def _print_shares(found: Seen) -> None:
    from harness.report.tables import Table, show

    if not found.pages:
        return
    names = ("zero", "self", "inter", "unique")
    rows: dict[str, dict[str, int]] = {str(number): dict(row) for number, row in found.pages.items()}
    rows["all"] = {name: sum(row[name] for row in found.pages.values()) for name in ("pages", *names)}
    show(Table("Pages", ("VM", "pages", "zero", "equal in it", "equal in others", "unique"), tuple(
        (number, str(row["pages"]), *(f"{row[name] / row['pages']:.1%}" if row["pages"] else "-" for name in names))
        for number, row in rows.items()
    ), ()))  # fmt: skip
    saved = int(found.ksm.get("pages_sharing", 0))
    typer.echo(f"KSM can save {found.possible} of {rows['all']['pages']} pages, and saves {saved} now")


@app.command("down")
def down(
    name: Annotated[str, _NAMED] = "fleet",
    every: Annotated[bool, typer.Option("--all", help="All fleets.")] = False,
    json: Json = False,
) -> None:
    """End a fleet, its machine and its keeper, and remove what is left of one that died.

    Example: harness fleet down --all
    """
    import json as encoder

    from harness import keeper

    ended = {one: keeper.down(one) for one in (keeper.names() if every else [name])}
    if json:
        typer.echo(encoder.dumps({"ended": [one for one, alive in ended.items() if alive], "removed": list(ended)}))
        return
    for one, alive in ended.items():
        typer.echo(f"fleet {one!r} is down" if alive else f"fleet {one!r} had died; what was left is removed")
    if not ended:
        typer.echo("no fleet is up")
