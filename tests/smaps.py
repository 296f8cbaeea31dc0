# SPDX-License-Identifier: GPL-2.0-or-later
"""A process's memory as its kernel tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Area:
    """A mapping of a process."""

    name: str
    anonymous_kib: int
    shared: bool
    mergeable: bool


def areas(text: str) -> list[Area]:
    """What ``/proc/PID/smaps`` says."""
    found: list[Area] = []
    name, anonymous, shared = "", 0, False
    for line in text.splitlines():
        if match := re.match(r"[0-9a-f]+-[0-9a-f]+ (....) \S+ \S+ \S+ *(.*)", line):
            shared, name = match[1][3] == "s", match[2]
        elif line.startswith("Anonymous:"):
            anonymous = int(line.split()[1])
        elif line.startswith("VmFlags:"):
            found.append(Area(name, anonymous, shared, "mg" in line.split()))
    return found


def anonymous_kib(found: list[Area], *, mergeable: bool) -> int:
    """Anonymous memory that is advised, or that is not."""
    return sum(area.anonymous_kib for area in found if area.mergeable == mergeable)
