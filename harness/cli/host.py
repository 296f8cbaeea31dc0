# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness host``."""

from __future__ import annotations

import typer

from harness.cli.options import Identity, Json, KnownHosts
from harness.cli.target import Target, shell_of

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
