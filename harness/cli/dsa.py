# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness dsa``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Identity, Json, KnownHosts
from harness.cli.target import Target, shell_of

if TYPE_CHECKING:
    from harness.dsa import Shell, Status, Write

app = typer.Typer(
    no_args_is_help=True,
    help="Intel DSA accelerators, emulated or real: what there is, set it up, take it down.\n\n"
    "Without --target it is this machine's; a guest of `harness boot --dsa 1 --ssh-port 0` is a target like a server.",
)

_Devices = Annotated[
    list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Which, say dsa0; default: all there are.")
]
_Plan = Annotated[bool, typer.Option("--plan", help="Print the writes, as shell commands; change nothing.")]


@app.command("status")
def status(
    target: Target = None, identity: Identity = None, known_hosts: KnownHosts = None, json: Json = False
) -> None:
    """Show each device with its queues, engines and drivers, and what its last command said.

    Example: harness dsa status --target ssh://root@server
    """
    from harness import dsa

    with shell_of(target, identity, known_hosts) as shell:
        _show(dsa.read(shell), json)


@app.command("configure")
def configure(
    devices: _Devices = None,
    queue_size: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Entries of a work queue; again for a second queue. [default: 64]"),
    ] = None,
    engines: Annotated[int | None, typer.Option(metavar="N", help="Engines to use; default: all.")] = None,
    mode: Annotated[str, typer.Option(metavar="[dedicated|shared]", help="Mode of the queues.")] = "dedicated",
    priority: Annotated[int, typer.Option(help="Priority of the queues, 1 to 15.")] = 10,
    max_batch: Annotated[
        int | None, typer.Option(metavar="N", help="Descriptors in a batch; default: as the device can.")
    ] = None,
    max_transfer: Annotated[int, typer.Option(metavar="BYTES", help="Bytes of a descriptor.")] = 2 << 20,
    threshold: Annotated[
        int | None, typer.Option(metavar="N", help="Entries of a shared queue that may be filled.")
    ] = None,
    driver: Annotated[
        str, typer.Option(help="Sub-driver that gets the queues; none leaves them disabled.")
    ] = "dmaengine",
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Name of the queues; default: the sub-driver's.")
    ] = None,
    plan: _Plan = False,
    target: Target = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    json: Json = False,
) -> None:
    """Set devices up: one group with the queues and engines, enabled and bound to a driver.

    The defaults are the paper's: one dedicated queue of 64 entries, four engines. What was set up before goes.

    Example: harness dsa configure --plan

    Example: harness dsa configure dsa0 --queue-size 32 --queue-size 32 --driver none
    """
    from harness import dsa
    from harness.errors import UsageError

    if mode not in ("dedicated", "shared"):
        raise UsageError(f"there is no mode {mode!r}", hint="--mode dedicated or --mode shared")
    layout = dsa.Layout(
        queues=tuple(queue_size or (64,)),
        engines=engines,
        mode="shared" if mode == "shared" else "dedicated",
        priority=priority,
        max_batch=max_batch,
        max_transfer=max_transfer,
        threshold=threshold,
        driver=None if driver == "none" else driver,
        client=name,
    )
    with shell_of(target, identity, known_hosts) as shell:
        before = dsa.read(shell)
        chosen = [before.device(each) for each in devices] if devices else list(before.devices)
        writes = [write for device in chosen for write in dsa.plan(device, layout, before.drivers)]
        _carry_out(shell, writes, plan, json)


@app.command("reset")
def reset(
    devices: _Devices = None,
    plan: _Plan = False,
    target: Target = None,
    identity: Identity = None,
    known_hosts: KnownHosts = None,
    json: Json = False,
) -> None:
    """Take devices out of service: queues and devices are unbound, nothing stays configured.

    Example: harness dsa reset dsa0
    """
    from harness import dsa

    with shell_of(target, identity, known_hosts) as shell:
        before = dsa.read(shell)
        chosen = [before.device(each) for each in devices] if devices else list(before.devices)
        _carry_out(shell, [write for device in chosen for write in dsa.release(device)], plan, json)


def _carry_out(shell: Shell, writes: list[Write], plan: bool, json: bool) -> None:
    from harness import dsa

    if plan:
        if json:
            from json import dumps

            typer.echo(dumps([{"file": write.file, "value": write.value} for write in writes], indent=1))
        else:
            for write in writes:
                typer.echo(str(write))
        return
    dsa.apply(shell, writes)
    _show(dsa.read(shell), json)


def _show(status: Status, json: bool) -> None:
    from harness import dsa

    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps(asdict(status), indent=1))
        return
    for device in status.devices:
        last = dsa.explain(device.cmd_status).text
        typer.echo(
            f"{device.name}  {device.state}, driver {device.driver or 'none'}, PCI {device.pci or 'unknown'}, "
            f"version {device.version}"
        )
        typer.echo(
            f"  {len(device.engines)} engines, {len(device.groups)} groups, {len(device.queues)} queues with "
            f"{device.queue_entries} entries in all, batches up to {device.max_batch}, "
            f"transfers up to {device.max_transfer >> 20} MiB"
        )
        typer.echo(f"  last command: {last}" + (f" ({device.cmd_status:#x})" if device.cmd_status else ""))
        if any(device.errors):
            typer.echo("  software error: " + " ".join(f"{word:#018x}" for word in device.errors))
        for engine in device.engines:
            if engine.group is not None:
                typer.echo(f"  {engine.name}  group {engine.group}")
        for queue in device.queues:
            if queue.size:
                typer.echo(
                    f"  {queue.name}  group {queue.group if queue.group is not None else 'none'}, {queue.mode}, "
                    f"{queue.size} entries, priority {queue.priority}, batches up to {queue.max_batch}, "
                    f"{queue.state}, type {queue.type}, name {queue.client or 'none'}, "
                    f"driver {queue.driver or 'none'}"
                )
    typer.echo("sub-drivers: " + ", ".join(status.drivers))
