# SPDX-License-Identifier: GPL-2.0-or-later
"""The systems that figures compare: what each needs, and how a kernel is put into it. All of it is data.

``systems.toml`` maps a system to files of sysfs and to accelerators, which ``harness/dsa.py`` sets up. Whether a
kernel and a machine are capable of it is told by their patches (``provides`` in ``patches/*/series.toml``) or, for a
host that runs already, by its own sysfs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness import dsa
from harness.errors import UsageError

FILE = Path(__file__).with_name("systems.toml")

Write = tuple[str, str]
"""A file of sysfs and what is written to it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Capability(_Strict):
    """Something a kernel or a machine can or cannot do."""

    what: str
    file: str
    """A running host that has this file ..."""
    word: str = ""
    """... with this word in it is capable."""

    def shown_by(self, text: str) -> bool:
        """Whether the file's text says so; the current one of several modes stands in brackets."""
        return not self.word or self.word in text.replace("[", " ").replace("]", " ").split()


class Device(_Strict):
    """A DSA of the machine, and how it is set up."""

    options: dict[str, str] = Field(default_factory=dict)
    """Of QEMU's ``idxd-dsa``."""
    layout: dsa.Layout = dsa.Layout()


class System(_Strict):
    """KSM in one mode on one machine."""

    id: str
    label: str
    ksmd: bool = True
    needs: tuple[str, ...] = ()
    devices: dict[str, int] = Field(default_factory=dict)
    sysfs: tuple[Write, ...] = ()
    counters: tuple[str, ...] = ()
    batch_file: str = ""
    """Where the size of its batches is written; empty: it has none."""
    face: str = "0.6"
    hatch: str = ""
    line: str = "-"

    @property
    def offloads(self) -> bool:
        """Whether an accelerator works for it."""
        return bool(self.devices)


class Catalogue(_Strict):
    """All systems, and what they are made of."""

    system: tuple[System, ...]
    capability: dict[str, Capability]
    device: dict[str, Device]
    reset: tuple[Write, ...] = ()
    wait: tuple[Write, ...] = ()
    """How ksmd is made to sleep ``{us}`` microseconds before it looks whether the accelerator is done."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        for system in self.system:
            for kind, names, known in (
                ("capability", system.needs, self.capability),
                ("device", tuple(system.devices), self.device),
            ):
                for name in names:
                    if name not in known:
                        raise ValueError(f"{system.id}: there is no {kind} {name!r}")
        return self


@cache
def catalogue(file: Path = FILE) -> Catalogue:
    """The systems there are.

    Raises:
        UsageError: the file says something that cannot be; the message names it.

    """
    try:
        return Catalogue.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: not TOML: {error}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc'])) or 'systems'}: {item['msg']}" for item in error.errors()]
        raise UsageError(f"{file}:\n    " + "\n    ".join(lines)) from error


def systems() -> dict[str, System]:
    """Systems by id, in the paper's order."""
    return {item.id: item for item in catalogue().system}


def find(name: str) -> System:
    """A system by id.

    Raises:
        UsageError: there is none of that name.

    """
    known = systems()
    if name not in known:
        raise UsageError(f"there is no system {name!r}", hint=f"one of: {', '.join(known)}")
    return known[name]


def lacking(system: System, capabilities: Collection[str]) -> str:
    """Why a system cannot run where only these capabilities are; empty if it can."""
    missing = [catalogue().capability[name].what for name in system.needs if name not in capabilities]
    return f"needs {' and '.join(missing)}" if missing else ""


def settings(system: System, more: Iterable[Write] = ()) -> tuple[Write, ...]:
    """The files that put a kernel into a system: devices, then knobs; ``more`` replaces a value or is added."""
    out = [
        (write.path, write.value)
        for number, device in _devices(system)
        for write in dsa.plan(dsa.emulated(number, device.options), device.layout)
    ]
    out += system.sysfs
    for path, value in more:
        same = [place for place, (known, _) in enumerate(out) if known == path]
        if same:
            out[same[-1]] = (path, value)
        else:
            out.append((path, value))
    return tuple(out)


def waiting(system: System, microseconds: int) -> tuple[Write, ...]:
    """The files that make ksmd sleep so long before it looks at the accelerator; 0: as the kernel does by itself."""
    if not microseconds or not system.offloads:
        return ()
    return tuple((path, value.format(us=microseconds)) for path, value in catalogue().wait)


def knob_files(folder: str) -> tuple[str, ...]:
    """Names of all files directly below a folder that a run may write."""
    known = catalogue()
    paths = [path for path, _ in known.reset + known.wait] + [path for item in known.system for path, _ in item.sysfs]
    return tuple(dict.fromkeys(path.rpartition("/")[2] for path in paths if path.rpartition("/")[0] == folder))


def machine_devices() -> tuple[Mapping[str, str], ...]:
    """The emulated DSAs of the machine that all systems share, by their options, as a machine takes them.

    It has what any of them uses. So a fleet is loaded once for all, and they are compared on the same machine; what a
    system does not use is never set up there, and takes no part.
    """
    return tuple(catalogue().device[name].options for name, count in _most().items() for _ in range(count))


def _most() -> dict[str, int]:
    """Devices of each kind that the most demanding system uses, in the catalogue's order."""
    known = catalogue()
    return {name: max((item.devices.get(name, 0) for item in known.system), default=0) for name in known.device}


def _devices(system: System) -> Iterator[tuple[int, Device]]:
    """A system's devices, by their numbers in the shared machine."""
    first = 0
    for name, most in _most().items():
        for number in range(system.devices.get(name, 0)):
            yield first + number, catalogue().device[name]
        first += most
