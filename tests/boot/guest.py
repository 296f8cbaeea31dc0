# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests do with a guest again and again."""

from __future__ import annotations

from harness.machine import Machine


def say(machine: Machine, script: str, timeout: float = 300) -> str:
    """Run a script in the guest that must succeed; what it printed is returned."""
    done = machine.shell(script, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def give(machine: Machine, path: str, data: bytes) -> None:
    """Put a program into the guest, in a directory that is made if need be."""
    script = f"mkdir -p {path.rpartition('/')[0]} && cat > {path} && chmod 755 {path}"
    assert machine.execute(script, stdin=data, timeout=60) == 0
