# SPDX-License-Identifier: GPL-2.0-or-later
"""What an experiment is: a TOML file, checked as a whole before anything runs."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import UsageError
from harness.experiment import trial
from harness.systems import systems

HERE = Path(__file__).resolve().parent
SPECS = HERE / "specs"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Workload(_Strict):
    """A value of the workload axis; ``family`` is its column in the paper's Table 2."""

    id: str
    label: str
    family: str
    metric: str
    available: bool
    reason: str = ""
    backends: tuple[str, ...] = ("process", "nested")
    """Kinds of VMs it runs in."""
    run: str = ""
    """The workload of the fleet that it is measured in, if several share one."""
    operation: Literal["read", "update", "insert", ""] = ""
    """Whose latency is compared; empty: the execution time is."""

    @property
    def fleet(self) -> str:
        """What the fleet runs."""
        return self.run or self.id

    def lacking(self, backend: str) -> str:
        """Why it does not run in such VMs, or nothing."""
        if not self.available:
            return self.reason
        if backend not in self.backends:
            return f"runs in VMs of the kind {', '.join(self.backends)}: choose a profile that has them"
        return ""


class Knobs(_Strict):
    """How ksmd scans and is scheduled, and what load is offered, in one system of a preset.

    ``sleep_millisecs`` is in milliseconds of the paper's machine; ``priority`` is the nice value for ``other`` and
    the real-time priority for ``fifo``; ``offered_load`` is in operations a second and client; ``wait_us`` is how long
    ksmd sleeps before it looks whether the accelerator is done, in microseconds of the paper's machine, 0: as long as
    the kernel has learnt to expect.
    """

    sleep_millisecs: Annotated[int, Field(ge=0, le=60_000)]
    pages_to_scan: Annotated[int, Field(ge=1)]
    sched: Literal["other", "fifo"]
    priority: Annotated[int, Field(ge=-20, le=99)]
    offered_load: Annotated[int, Field(ge=0)]
    wait_us: Annotated[int, Field(ge=0, le=500_000)] = 0

    @model_validator(mode="after")
    def _priority_of_the_class(self) -> Self:
        low, high = (-20, 19) if self.sched == "other" else (1, 99)
        if not low <= self.priority <= high:
            raise ValueError(f"priority {self.priority}: under {self.sched} it is {low} to {high}")
        return self


class Masks(_Strict):
    """Ways of the shared cache that processors may fill, bit 0 for way 0.

    ``core`` is VM 1's, which is ksmd's too; ``others`` are those of all other VMs.
    """

    core: Annotated[int, Field(ge=1, lt=2**15)]
    others: Annotated[int, Field(ge=1, lt=2**15)]


class Ways(_Strict):
    """How a preset divides the shared cache: where VM 1 serves clients, and where every VM works for itself."""

    served: Masks
    alone: Masks


class Mix(_Strict):
    """A preset made of another one with some knobs of a second: one difference at a time."""

    of: str
    with_: Annotated[str, Field(alias="with")]
    knobs: Annotated[tuple[str, ...], Field(min_length=1)]
    about: str

    @model_validator(mode="after")
    def _known_knobs(self) -> Self:
        if unknown := [name for name in self.knobs if name not in Knobs.model_fields]:
            raise ValueError(f"knobs: {', '.join(unknown)}: there are {', '.join(Knobs.model_fields)}")
        return self


class Catalogue(_Strict):
    """All workloads and presets there are."""

    workload: tuple[Workload, ...]
    preset: dict[str, dict[str, Knobs]]
    ways: dict[str, Ways]
    mix: dict[str, Mix] = {}

    @model_validator(mode="after")
    def _known_presets(self) -> Self:
        for name, mix in self.mix.items():
            for part in (mix.of, mix.with_):
                if part not in self.preset:
                    raise ValueError(f"mix.{name}: there is no preset {part!r}")
            if name in self.preset:
                raise ValueError(f"mix.{name}: there is a preset of that name")
            if lacking := [system for system in self.preset[mix.of] if system not in self.preset[mix.with_]]:
                raise ValueError(f"mix.{name}: {mix.with_} says nothing about {', '.join(lacking)}")
        return self


WatchName = Literal["", "misses", "functions"]
"""What looks at a machine of ours from outside: modelled caches, or a profiler of ksmd."""


class Axes(_Strict):
    """The cells are the product of these; ``seeds`` counts the seeds 1..n.

    ``batch`` lists batch sizes of a system that has batches. With ``workload_choice = "first"`` only the first
    workload that the profile's VMs can run is taken; the first of the list is the paper's.
    """

    system: Annotated[tuple[str, ...], Field(min_length=1)]
    workload: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    batch: tuple[Annotated[int, Field(ge=2, le=1024)], ...] = ()
    workload_choice: Literal["all", "first"] = "all"
    stands_for: str | None = None
    """The paper's workload, where a choice fell on another one; set by the plan."""


class Spec(_Strict):
    """One experiment."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    kind: Literal[
        "degradation",
        "saving",
        "efficiency",
        "utilisation",
        "timeline",
        "misses",
        "batch-saving",
        "batch-efficiency",
        "batch-use",
        "operation-cycles",
        "operation-latency",
    ]
    title: str
    paper: str
    baseline: str | None = None
    metrics: tuple[
        Literal[
            "application_ns", "ksmd_utilisation", "saved_bytes", "saved_per_ksmd_time", "descriptor_utilisation",
            "core_shares", "operation_cycles", "operation_latency",
            "core_shares", "llc_misses", "function_shares",
        ],
        ...,
    ]  # fmt: skip
    profile: str
    preset: str
    unequal: tuple[str, ...] = ()
    watch: WatchName = ""
    cache_times: Annotated[float, Field(gt=0, le=4096)] = 1.0
    """Size of the modelled shared cache, over that which is to the fleet's memory as the paper's is."""
    axes: Axes

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        for axis, known in (("system", systems()), ("workload", workloads())):
            names = getattr(self.axes, axis)
            for name in names:
                if name not in known:
                    raise ValueError(f"axes.{axis}: {name!r} is unknown; known: {', '.join(known)}")
            if len(set(names)) != len(names):
                raise ValueError(f"axes.{axis}: a name stands twice")
        if self.kind in ("degradation", "efficiency") and self.baseline not in self.axes.system:
            raise ValueError(f"baseline: {self.kind} needs one of its systems to compare with")
        if self.kind == "efficiency" and not all(systems()[name].ksmd for name in self.axes.system):
            raise ValueError("axes.system: there is no efficiency without ksmd")
        self._batches()
        self._operations()
        if self.kind == "misses" and (self.watch != "misses" or self.baseline not in self.axes.system):
            raise ValueError('watch, baseline: misses need watch = "misses", and one of the systems to compare with')
        one = len(self.axes.workload) == 1 or self.axes.workload_choice == "first"
        if self.kind == "timeline" and (len(self.axes.system) != 1 or not one):
            raise ValueError("axes: a timeline is of one system and one workload")
        for name in (self.preset, *self.unequal):
            if name not in presets():
                raise ValueError(f"preset {name!r} is unknown; known: {', '.join(presets())}")
        return self

    @property
    def emulated_only(self) -> bool:
        """Whether it runs on machines of ours alone: what it needs to see no host shows."""
        return self.of_operations or self.kind == "misses"

    @property
    def of_operations(self) -> bool:
        """Whether single operations are timed, and no fleet runs."""
        return self.kind.startswith("operation-")

    def _operations(self) -> None:
        """Single operations and the kinds that draw them go together; a device is what they are compared with."""
        if self.of_operations != (trial.WORKLOAD in self.axes.workload):
            raise ValueError(f"axes.workload: {trial.WORKLOAD!r} is drawn by operation-cycles and operation-latency")
        if self.of_operations and (
            self.axes.workload != (trial.WORKLOAD,)
            or len(self.axes.system) != 1
            or not systems()[self.axes.system[0]].offloads
        ):
            raise ValueError("axes: single operations are of one system that has an accelerator, and nothing else")

    def _batches(self) -> None:
        """Batch sizes, and a single system that has any, belong to the kinds that draw over them, and to no other."""
        sizes = self.axes.batch
        if not self.kind.startswith("batch-"):
            if sizes:
                raise ValueError(f"axes.batch: {self.kind} draws nothing over batch sizes")
            return
        if not sizes or list(sizes) != sorted(set(sizes)):
            raise ValueError("axes.batch: batch sizes are needed, each once, in ascending order")
        if len(self.axes.system) != 1 or not systems()[self.axes.system[0]].batch_file:
            raise ValueError("axes.system: one system with batches is needed")

    def knobs(self, preset: str) -> dict[str, Knobs]:
        """The knobs of every system of this spec under a preset.

        Raises:
            UsageError: the preset is unknown, lacks a system, or treats systems unequally without the spec's leave.

        """
        if preset not in presets():
            raise UsageError(f"preset {preset!r} is unknown", hint=f"one of: {', '.join(presets())}")
        table = presets()[preset]
        lacking = [name for name in self.axes.system if name not in table]
        if lacking:
            raise UsageError(f"preset {preset!r} says nothing about {', '.join(lacking)}")
        chosen = {name: table[name] for name in self.axes.system}
        differing = inequality(chosen)
        mix = catalogue().mix.get(preset)
        # a spec that allows a preset allows a part of it
        if differing and preset not in self.unequal and (mix is None or mix.with_ not in self.unequal):
            raise UsageError(
                f"preset {preset!r} gives the systems of {self.id} different {', '.join(differing)}",
                hint=f'to draw it all the same, with a stamp: add unequal = ["{preset}"] to the spec',
            )
        return chosen


def inequality(knobs: dict[str, Knobs]) -> list[str]:
    """What is not the same in all systems: any of offered load, scheduling, scan rhythm and wait for the accelerator.

    How ksmd scans and runs cannot differ in a system without ksmd at work; its offered load can.
    """
    with_ksmd = [item for name, item in knobs.items() if systems()[name].ksmd]
    out: list[str] = []
    if len({item.offered_load for item in knobs.values()}) > 1:
        out.append("offered load")
    if len({(item.sched, item.priority) for item in with_ksmd}) > 1:
        out.append("scheduling")
    if len({(item.sleep_millisecs, item.pages_to_scan) for item in with_ksmd}) > 1:
        out.append("scan rhythm")
    if len({item.wait_us for name, item in knobs.items() if systems()[name].offloads}) > 1:
        out.append("wait for the accelerator")
    return out


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from error


def _explain(path: Path, error: ValidationError) -> UsageError:
    lines = [f"{'.'.join(map(str, item['loc'])) or 'spec'}: {item['msg']}" for item in error.errors()]
    return UsageError(f"{path}:\n    " + "\n    ".join(lines))


@cache
def catalogue() -> Catalogue:
    """The catalogue that comes with the harness."""
    path = HERE / "catalogue.toml"
    try:
        return Catalogue.model_validate(_read(path))
    except ValidationError as error:
        raise _explain(path, error) from error


def workloads() -> dict[str, Workload]:
    """Workloads by id, in the order of the figure's bars."""
    return {item.id: item for item in catalogue().workload}


@cache
def presets() -> dict[str, dict[str, Knobs]]:
    """Presets by name, mixed ones behind the others."""
    out = dict(catalogue().preset)
    for name, mix in catalogue().mix.items():
        out[name] = {
            system: Knobs.model_validate(
                {**knobs.model_dump(), **out[mix.with_][system].model_dump(include=set(mix.knobs))}
            )
            for system, knobs in out[mix.of].items()
        }
    return out


def compared() -> list[str]:
    """Presets that are set side by side: equal treatment, one difference at a time, and all of them."""
    return ["paper", "fair", *catalogue().mix, "artifact"]


def ways() -> dict[str, Ways]:
    """How presets divide the shared cache, by preset."""
    found = catalogue().ways
    # a preset that is another one but for some knobs divides the cache as that does
    return found | {name: found[mix.of] for name, mix in catalogue().mix.items() if mix.of in found}


def names() -> list[str]:
    """The paper's experiments; those in folders, on the method itself, are run when they are named."""
    return sorted(path.stem for path in SPECS.glob("*.toml"))


def load(name: str) -> Spec:
    """Read a spec by name, or from a ``.toml`` file of the user's.

    Raises:
        UsageError: no such spec, or it says something that cannot be; the message names the field.

    """
    path = Path(name) if name.endswith(".toml") else SPECS / f"{name}.toml"
    if not path.is_file():
        raise UsageError(f"no experiment {name!r}", hint=f"there are: {', '.join(names())} (or a path to a .toml file)")
    try:
        return Spec.model_validate(_read(path))
    except ValidationError as error:
        raise _explain(path, error) from error
