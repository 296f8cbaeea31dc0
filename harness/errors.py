# SPDX-License-Identifier: GPL-2.0-or-later
"""One exception root; each family has its own exit code, each error may carry the next command to type."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class HarnessError(Exception):
    """Anything the harness reports to its user without a traceback.

    ``hint`` is the next command or action; ``exit_code`` is what the ``harness`` command returns.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, log: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log


class UsageError(HarnessError):
    """What was asked for does not exist or contradicts itself."""

    exit_code = 2


class EnvironmentProblem(HarnessError):
    """This machine lacks something: a tool, a package, disk space, memory."""

    exit_code = 3


class SourceError(HarnessError):
    """A source cannot be obtained, or is not what its pin says it is."""

    exit_code = 4


class PatchError(HarnessError):
    """A series does not render, does not apply, or differs from its committed rendering."""

    exit_code = 5


class BuildError(HarnessError):
    """A kernel, QEMU or image build failed; ``log`` has all of its output."""

    exit_code = 6


class MachineError(HarnessError):
    """QEMU or the guest failed; the message holds the decoded tail of the console."""

    exit_code = 7


class FleetError(HarnessError):
    """A fleet lost a VM, or KSM did not reach what the content demands."""

    exit_code = 8


class HostError(HarnessError):
    """A host cannot be reached over ssh, or a command on it failed."""

    exit_code = 9


class Busy(HarnessError):
    """Another run holds what this one needs."""

    exit_code = 10


class DeviceError(HarnessError):
    """An accelerator is missing, or its driver or the device itself refused what was asked."""

    exit_code = 11


class Interrupted(HarnessError):
    """The user pressed Ctrl-C; what was finished is kept."""

    exit_code = 130
