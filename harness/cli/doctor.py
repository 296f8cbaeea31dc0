# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness doctor``."""

from __future__ import annotations

import typer

from harness.cli.options import Json


def command(
    json: Json = False,
) -> None:
    """Say whether this machine is fit, and what mends it.

    Looks at Python, system packages, toolchain, disk, memory, the accelerator (by running a virtual CPU,
    at most ten seconds), the compiler cache, and what is cached. Changes nothing.

    Exit status: 0 nothing to do, 1 something to know, 3 something to mend first.

    Example: harness doctor --json | jq '.[] | select(.state != "ok")'
    """
    from harness import doctor
    from harness.cli.findings import show

    findings = doctor.examine()
    show(findings, json)
    raise typer.Exit(doctor.severity(findings))
