# SPDX-License-Identifier: GPL-2.0-or-later
"""The paper's numbers, each with the place where the paper states it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VALUES = Path(__file__).resolve().parent / "paper_values.toml"


@dataclass(frozen=True)
class PaperValue:
    """One number of the paper's text or tables."""

    metric: str
    system: str
    scope: str
    value: float
    unit: str
    where: str
    high: float | None = None
    """The upper end where the paper gives a range; ``value`` is then the lower."""

    @property
    def text(self) -> str:
        """The number, or the range, with its unit."""
        return f"{self.value:g}{'' if self.high is None else f' to {self.high:g}'}{self.unit}"


@cache
def values() -> tuple[PaperValue, ...]:
    """All of them, in the order of the file."""
    data = tomllib.loads(VALUES.read_text(encoding="utf-8"))
    return tuple(PaperValue(**item) for item in data["value"])


def find(metric: str, system: str, scope: str) -> PaperValue | None:
    """The paper's number, or None where the paper gives it only in a picture or not at all."""
    for item in values():
        if (item.metric, item.system, item.scope) == (metric, system, scope):
            return item
    return None
