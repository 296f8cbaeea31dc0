# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness host``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Identity, Json, KnownHosts
from harness.cli.target import Target, shell_of

if TYPE_CHECKING:
    from harness.prepare import Change

app = typer.Typer(
    no_args_is_help=True,
    help="A server that is measured on: is it fit, made ready, put back.\n\n"
    "With --target it is reached over ssh, as root, its host key checked; without, it is this machine.",
)


@app.command("check")
def check(target: Target = None, identity: Identity = None, known_hosts: KnownHosts = None, json: Json = False) -> None:
    """Say whether a server is fit, and for everything that is not, the command that mends it. Changes nothing.

    Looks at the firmware's switches as far as they show, the DSA and its driver, the IOMMU, the kernel's command line
    and what came of its words, huge pages, services that disturb, governor, turbo, SMT, C-states, NUMA, swap,
    cache allocation, counters, programs, ways to boot a kernel once, disk and memory.

    Exit status: 0 nothing to do, 1 something to know, 3 something to mend first.

    Example: harness host check --target ssh://root@server

    Example: harness host check --target ssh://root@server --json | jq '.[] | select(.state != "ok") | .fix'
    """
    from harness import hostcheck
    from harness.cli.findings import show
    from harness.doctor import severity

    with shell_of(target, identity, known_hosts) as shell:
        findings = hostcheck.examine(shell)
    show(findings, json)
    raise typer.Exit(severity(findings))


def _name(target: str | None) -> str:
    """What a host is called in the cache: the same however its address was written."""
    from harness.host import Address

    return "here" if target is None else str(Address.parse(target))


@app.command("prepare")
def prepare(
    target: Target = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    hours: Annotated[float, typer.Option(min=0.1, metavar="HOURS", help="How long the host is ours.")] = 4.0,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be changed; change nothing.")] = False,
    json: Json = False,
) -> None:
    """Have a server to oneself and make it quiet, until `harness host restore`.

    What is changed is what `harness host check` finds: governor, turbo, SMT, C-states, huge pages, NUMA balancing,
    the NMI watchdog, services that disturb, swap. Before the first change all values are written to the server itself,
    with KSM's knobs and the accelerators' configuration, so that they are found again after a crash.

    An experiment does this by itself for its own time. This command is for several in a row, and for work by hand.

    Example: harness host prepare --target ssh://root@server --hours 8
    """
    from harness import hostcheck, lease
    from harness import prepare as preparing

    with shell_of(target, identity, known_hosts) as shell:
        if plan:
            _changes(preparing.survey(hostcheck.read(shell)), json)
            return
        name = _name(target)
        mine = lease.token(name) or lease.fresh()
        preparing.admit(shell)
        ours, _ = lease.take(shell, mine, "work by hand", round(hours * 3600))
        lease.keep(name, mine)
        _changes(preparing.prepare(shell, kept=True), json)
    from harness.ui import ui

    ui().info(f"the host is {ours.holder}'s for {hours:g} hours; `harness host restore` puts it back")


def _changes(changes: list[Change], json: bool) -> None:
    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps([asdict(change) for change in changes], indent=1))
        return
    for change in changes:
        typer.echo(str(change))
    if not changes:
        typer.echo("nothing to change")


@app.command("restore")
def restore(
    target: Target = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Leave the host as it is, and drop snapshot and quarantine.")
    ] = False,
) -> None:
    """Put a server back as it was before it was prepared, look whether it is, and give it free.

    The snapshot lies on the server: this works from any machine, and after whatever happened, once nobody else has it.
    When something cannot be put back the server is quarantined: nothing measures there until this command has found
    everything as it was.

    Example: harness host restore --target ssh://root@server
    """
    from harness import lease
    from harness import prepare as preparing

    name = _name(target)
    with shell_of(target, identity, known_hosts) as shell:
        mine = lease.token(name) or lease.fresh()
        lease.take(shell, mine, "putting it back")
        try:
            if forget:
                preparing.forget(shell)
                typer.echo("the host stays as it is; its snapshot is gone")
                return
            before = preparing.restore(shell)
        finally:
            lease.leave(shell, mine)
            lease.forget(name)
    if before is None:
        typer.echo("there is nothing to put back")
    else:
        typer.echo(f"{len(before.changes)} changes undone; everything is as it was")


@app.command("status")
def status(
    target: Target = None, identity: Identity = None, known_hosts: KnownHosts = None, json: Json = False
) -> None:
    """Say who has a server, whether it is prepared, and whether it is in quarantine.

    Example: harness host status --target ssh://root@server
    """
    from dataclasses import asdict
    from json import dumps

    from harness import lease
    from harness import prepare as preparing

    with shell_of(target, identity, known_hosts) as shell:
        held, snapshot, why = lease.show(shell), preparing.snapshot(shell), preparing.quarantine(shell)
    ours = held is not None and held.token == lease.token(_name(target))
    if json:
        told = asdict(held) | {"expired": held.expired, "ours": ours} if held else None
        if told:
            del told["token"]
        changes = [asdict(change) for change in snapshot.changes] if snapshot else None
        typer.echo(dumps({"lease": told, "changed": changes, "quarantine": why}, indent=1))
        return
    if held is None:
        typer.echo("free")
    else:
        typer.echo(f"{'expired: ' if held.expired else ''}{held}" + (" (that is us)" if ours else ""))
    if snapshot is not None:
        typer.echo(f"prepared by {snapshot.holder}: {len(snapshot.changes)} changes")
    if why is not None:
        typer.echo(f"in quarantine:\n{why}")


@app.command("counters")
def count(
    target: Target = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    of: Annotated[
        str, typer.Option("--of", metavar="WHAT", help="A process by name or number, or a processor: ksmd, 4711, cpu1.")
    ] = "ksmd",
    seconds: Annotated[float, typer.Option(min=0.1, max=50, metavar="SECONDS", help="For how long.")] = 10.0,
    json: Json = False,
) -> None:
    """Read a server's hardware counters for some seconds: cycles, instructions, accesses and misses of the LLC.

    Needs perf there and a processor that shows its counters. Events share the few counters there are: `share` is the
    part of the time in which each was really counted. An experiment on a server counts by itself while a window is
    open, and watches the clock.

    Example: harness host counters --target ssh://root@server --of ksmd --seconds 10

    Example: harness host counters --of cpu1 --seconds 5 --json
    """
    from dataclasses import asdict
    from json import dumps

    from harness import counters
    from harness.errors import HostError

    with shell_of(target, identity, known_hosts) as shell:
        if why := shell(counters.PROBE).stdout.strip():
            raise HostError(f"nothing can be counted: {why}", hint="`harness host check` says what the host lacks")
        done = shell(counters.measure(of, seconds))
    if done.returncode == counters.NOBODY:
        raise HostError(f"no process is called {of!r} there", hint="--of takes a name, a process id or cpuN")
    if why := counters.explain(done.stderr, done.returncode):
        raise HostError(why, hint="docs/hosts.md, on counters")
    readings = counters.parse(done.stderr)
    found = counters.of_task("it", readings)
    if json:
        told = {"readings": [asdict(reading) for reading in readings], **found.as_dict}
        typer.echo(dumps(told, indent=1))
        return
    for reading in readings:
        value = reading.state if reading.value is None else f"{reading.value:,.0f}"
        typer.echo(f"{reading.event:20} {value:>20} {reading.share:6.1%}")
    for note in found.notes:
        typer.echo(note)
