# SPDX-License-Identifier: GPL-2.0-or-later
"""From a spec to its cells. Pure: nothing is built, run or written here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import checkpoint
from harness.errors import UsageError
from harness.experiment import trial
from harness.experiment.artefacts import EMULATED, Artefacts
from harness.experiment.dataset import FILE, Dataset, first_rows
from harness.experiment.spec import Axes, Knobs, Spec, workloads
from harness.experiment.store import RunRecord, State, Store, key_of
from harness.experiment.watches import Watch, watch
from harness.systems import find, lacking, machine_devices, systems, waiting

if TYPE_CHECKING:
    from harness.fleet import FleetPlan

VIRTUAL_PER_PAPER = 2
"""Virtual seconds in a second of the paper's 2 GHz machine, with one cycle = one virtual nanosecond."""

FULL_NAP_MS = 40
"""The nap of a profile of full size in virtual milliseconds: 20 ms of the paper's machine."""

PLAN_FILE = "opt/paraksm/plan"
"""Where the guest's init looks for its plan (fw_cfg)."""

REST_FILE = "opt/paraksm/rest"
"""Where a fleet that goes on from a checkpoint looks for the second part of its plan (fw_cfg)."""

REST_PATH = f"/sys/firmware/qemu_fw_cfg/by_name/{REST_FILE}/raw"
"""The same as the guest sees it."""

NOMINAL_LOAD = 200
"""Operations a second and client, of the paper's machine, by which the length of a run for a tail is reckoned."""

NO_FLEET = "none"
"""The kind of VMs where there are none."""

MACHINE_BASE_MIB = 96
"""Memory of a sealed machine besides the fleet's pages: kernel, init, page tables, struct page, slack."""


@dataclass(frozen=True)
class Cell:
    """One system under one workload with one seed."""

    system: str
    workload: str
    seed: int
    profile: str
    """Empty without a fleet."""
    plan: FleetPlan | None
    """None: no fleet runs, but a script that times single operations."""
    text: str
    """The fleet plan as the guest program reads it, or the script."""
    machine: Mapping[str, Any]
    artefacts: Artefacts | None
    """None while something is not built."""
    dataset: Dataset | None = None
    """Real training data, if not generated."""
    batch: int | None = None
    """Pages in a batch, where the spec has that axis; the plan holds it, so it is no input of its own."""
    watch: Watch | None = None
    """What looks at the machine from outside, if anything does."""

    @property
    def fleet(self) -> FleetPlan:
        """Its fleet.

        Raises:
            TypeError: it has none; who asks must know.

        """
        if self.plan is None:
            raise TypeError(f"{self.label}: there is no fleet")
        return self.plan

    @property
    def properties(self) -> dict[str, Any]:
        """What identifies the cell to people; part of the manifest."""
        return {
            "system": self.system,
            "workload": self.workload,
            "seed": self.seed,
            "profile": self.profile,
            "backend": self.plan.backend if self.plan else NO_FLEET,
            "mode": self.artefacts.mode if self.artefacts else "",
            "target": self.artefacts.target if self.artefacts else "",
            **({"watch": self.watch.name} if self.watch else {}),
        }

    @property
    def described(self) -> dict[str, Any]:
        """The same with the knobs, by which runs of two presets are told apart: one run may be of several presets."""
        plan = self.plan
        if plan is None:
            return self.properties
        knobs = {
            "pages_to_scan": plan.pages_to_scan,
            "sleep_millisecs": plan.sleep_millisecs,
            "scheduling": f"fifo {plan.ksmd_rt_priority}" if plan.ksmd_rt_priority else f"nice {plan.ksmd_nice}",
            "offered_load": plan.offered_load,
            "sysfs": dict(plan.settings),
        }
        return {**self.properties, "knobs": knobs}

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything the result depends on.

        Raises:
            UsageError: something is not built yet.

        """
        if self.artefacts is None:
            raise UsageError("the inputs of a cell are known only when its kernel, QEMU and image are built")
        return {
            "cell": self.properties,
            "plan": self.text,
            "machine": dict(self.machine) if self.emulated else {},
            **({"checkpoint": self.checkpoint.key} if self.resumes else {}),
            **({"dataset": self.dataset.inputs} if self.dataset else {}),
            **({"watch": self.watch.inputs} if self.watch else {}),
            **self.artefacts.inputs,
        }

    @property
    def emulated(self) -> bool:
        """Whether it runs on a machine of ours, known by its parts."""
        return self.artefacts is not None and self.artefacts.target == EMULATED

    @property
    def resumes(self) -> bool:
        """Whether it begins with a checkpoint: a fleet on a machine of ours."""
        return self.emulated and self.plan is not None

    @property
    def checkpoint(self) -> checkpoint.Order:
        """The loaded fleet that the cell begins with: everything that was decided before it, and nothing else.

        Raises:
            UsageError: something is not built yet.

        """
        if self.artefacts is None:
            raise UsageError("a checkpoint is known only when its kernel, QEMU and image are built")
        workload = workloads()[self.workload]
        what = workload.family if self.fleet.serves else workload.label  # the mixes of YCSB share it
        return checkpoint.Order(
            inputs={
                "plan": self.fleet.render_loaded(REST_PATH),
                "machine": {
                    **self.machine,
                    "argv": machine_argv(self.memory_mib, self.seed, self.devices, saving=True),
                },
                **({"dataset": self.dataset.inputs} if self.dataset else {}),
                **self.artefacts.inputs,
            },
            what=f"{self.profile}, {what}, seed {self.seed}",
            memory_mib=self.memory_mib,
        )

    @property
    def key(self) -> str | None:
        """The cell's key, or None while something is not built."""
        return None if self.artefacts is None else key_of(self.inputs)

    @property
    def label(self) -> str:
        """For people."""
        batch = "" if self.batch is None else f", batches of {self.batch}"
        watched = f", {self.watch.name} counted" if self.watch else ""
        return f"{systems()[self.system].label}, {workloads()[self.workload].label}, seed {self.seed}{batch}{watched}"

    @property
    def devices(self) -> tuple[Mapping[str, str], ...]:
        """The emulated DSAs of the machine it runs in, by their options."""
        return tuple(self.machine.get("devices", ()))

    @property
    def memory_mib(self) -> int:
        """Memory of the machine the cell runs in."""
        return int(self.machine["memory_mib"])


@dataclass(frozen=True)
class Plan:
    """All cells of an experiment that can be run, and what cannot."""

    spec: Spec
    profile: str
    preset: str
    seeds: int
    cells: tuple[Cell, ...]
    absent: Mapping[str, str]
    """Systems and workloads of the spec that do not exist here, by id, each with the reason."""

    def bars(self) -> Iterator[tuple[str, Cell]]:
        """Every workload of the spec with the cells that tell of it; several may look at one cell."""
        for name in self.spec.axes.workload:
            if name not in self.absent:
                yield from ((name, cell) for cell in self.cells if cell.workload == workloads()[name].fleet)


@dataclass(frozen=True)
class Row:
    """A line of ``--plan``."""

    cell: Cell
    state: State
    seconds: float
    """Estimated wall time, 0 when done."""
    source: str
    """Where the estimate comes from."""


def make(
    spec: Spec,
    artefacts: Artefacts | None,
    *,
    profile: str | None = None,
    preset: str | None = None,
    seeds: int | None = None,
    virtual: bool = True,
    promised: Collection[str] = (),
    dataset: Path | None = None,
) -> Plan:
    """Expand a spec into cells: seed, workload, system, batch size; workloads that share a run have one cell.

    Args:
        spec: the experiment.
        artefacts: what it runs on; None while that is not built (keys are then pending).
        profile: size of the fleet; the spec's own by default.
        preset: knobs of the systems; the spec's own by default.
        seeds: how many seeds, counted from 1; the spec's own by default.
        virtual: time is virtual, so the paper's milliseconds are doubled.
        promised: capabilities to plan with while ``artefacts`` is None.
        dataset: the real SUSY file; by default the guest program generates rows from the seed.

    Raises:
        UsageError: an unknown profile or preset, or one that the spec does not allow; a file that is no such data;
            single operations on a host.

    """
    from harness import fleet

    profile, preset, seeds = profile or spec.profile, preset or spec.preset, seeds or spec.axes.seeds
    if spec.kind == "misses" and not virtual:
        raise UsageError(
            f"{spec.id} counts misses of modelled caches, on machines of ours", hint="without --target; on a host: perf"
        )
    looks = partial(watch, spec.watch, preset=preset, cache_times=spec.cache_times) if virtual else None
    knobs = spec.knobs(preset)
    data = None if dataset is None else first_rows(dataset, fleet.profile(profile).dataset_rows)
    capabilities = promised if artefacts is None else artefacts.capabilities
    absent = {name: lacking(systems()[name], capabilities) for name in spec.axes.system}
    backend = NO_FLEET if spec.of_operations else fleet.profile(profile).backend
    spec = spec.model_copy(update={"axes": _chosen(spec.axes, backend)})
    absent |= {name: workloads()[name].lacking(backend) for name in spec.axes.workload}
    absent = {name: reason for name, reason in absent.items() if reason}
    if spec.of_operations:
        if not virtual:
            raise UsageError(f"{spec.id} times the device of a machine of ours: it takes no --target")
        there = [name for name in spec.axes.system if name not in absent]
        return Plan(spec, profile, preset, 1, tuple(_trial(name, artefacts) for name in there), absent)
    runs = dict.fromkeys(workloads()[name].fleet for name in spec.axes.workload if name not in absent)
    cells = tuple(
        _cell(system, workload, seed, profile, knobs[system], artefacts, virtual, data, batch, looks)
        for seed in range(1, seeds + 1)
        for workload in runs
        for system in spec.axes.system
        if system not in absent
        for batch in spec.axes.batch or (None,)
    )
    return Plan(spec, profile, preset, seeds, cells, absent)


def _cell(
    system: str,
    workload: str,
    seed: int,
    profile: str,
    knobs: Knobs,
    artefacts: Artefacts | None,
    virtual: bool,
    dataset: Dataset | None,
    batch: int | None = None,
    looks: Callable[[FleetPlan], Watch | None] | None = None,
) -> Cell:
    plan = fleet_plan(system, workload, seed, profile, knobs, virtual=virtual)
    if dataset is not None:
        plan = plan.model_copy(update={"dataset": FILE})
    if batch is not None:
        plan = plan.model_copy(update={"sysfs": (*plan.sysfs, (systems()[system].batch_file, str(batch)))})
    memory = MACHINE_BASE_MIB + plan.memory_mib + (2 * dataset.mib if dataset else 0)
    machine: dict[str, Any] = {"memory_mib": -(-memory // 32) * 32, "seed": seed}
    if virtual:
        machine["devices"] = list(machine_devices())
        machine["argv"] = machine_argv(machine["memory_mib"], seed, tuple(machine["devices"]))
    found = looks(plan) if looks else None
    return Cell(system, workload, seed, profile, plan, plan.render(), machine, artefacts, dataset, batch, found)


def _trial(system: str, artefacts: Artefacts | None) -> Cell:
    """Neither fleet nor chance nor knobs: the same cell for all profiles, presets and seeds."""
    machine: dict[str, Any] = {"memory_mib": trial.MEMORY_MIB, "seed": 1, "devices": list(machine_devices())}
    machine["argv"] = machine_argv(machine["memory_mib"], 1, tuple(machine["devices"]), script=True)
    return Cell(system, trial.WORKLOAD, 1, "", None, trial.SCRIPT, machine, artefacts)


def _chosen(axes: Axes, backend: str) -> Axes:
    """The axes with the one workload that a choice falls on: the first that such VMs can run, or else the paper's."""
    if axes.workload_choice == "all":
        return axes
    paper = axes.workload[0]
    chosen = next((name for name in axes.workload if not workloads()[name].lacking(backend)), paper)
    return axes.model_copy(update={"workload": (chosen,), "stands_for": paper if chosen != paper else None})


def machine_argv(
    memory_mib: int,
    seed: int,
    devices: tuple[Mapping[str, str], ...] = (),
    *,
    saving: bool = False,
    script: bool = False,
) -> list[str]:
    """The sealed machine's command line with names in place of paths: what of it decides a result.

    Args:
        memory_mib: memory of the machine.
        seed: of its random numbers.
        devices: its DSAs.
        saving: the machine that is saved, instead of the one that goes on from there.
        script: neither, but one that runs a script.

    """
    from types import SimpleNamespace
    from typing import cast

    from harness import machine

    parts: Any = SimpleNamespace(
        binary=Path("QEMU"), data_dir=Path("DATA"), firmware=Path("FIRMWARE"), bzimage=Path("KERNEL"),
        path=Path("IMAGE"),
    )  # fmt: skip
    saved = None if script else machine.Saved(Path("MEMORY"), Path("STATE"))
    files = {trial.COMMAND_FILE: Path("SCRIPT")} if script else {PLAN_FILE: Path("PLAN"), REST_FILE: Path("REST")}
    spec = machine.MachineSpec(
        cast("Any", parts), parts, parts, "measured", memory_mib,
        seed=seed, fw_cfg=files, dsa=devices,
        saving=saved if saving else None, incoming=None if saving else saved,
    )  # fmt: skip
    return machine.argv(spec, Path("RUN"), machine.Channels(monitor=3))


def fleet_plan(system: str, workload: str, seed: int, profile: str, knobs: Knobs, *, virtual: bool) -> FleetPlan:
    """The fleet of a cell: a profile's, with the system's knobs.

    Raises:
        UsageError: unknown profile.

    """
    from harness import fleet

    base = fleet.profile(profile)
    # A small profile has a short window: ksmd then naps shorter and scans less at a time, at the same pace, so that
    # enough of its wake-ups fit. The profile's own nap, against the full-size one, says by how much.
    share = min(1.0, base.sleep_millisecs / FULL_NAP_MS)
    scale = VIRTUAL_PER_PAPER if virtual else 1
    return base.model_copy(
        update={
            "system": system,
            "workload": workload,
            "seed": seed,
            "pages_to_scan": max(1, round(knobs.pages_to_scan * share)),
            "sleep_millisecs": round(knobs.sleep_millisecs * scale * share),
            **(_load(base, workload, knobs, scale) if workload in fleet.MIXES else {}),
            "sysfs": (*base.sysfs, *waiting(find(system), knobs.wait_us * scale)),
            **({"ksmd_rt_priority": knobs.priority} if knobs.sched == "fifo" else {"ksmd_nice": knobs.priority}),
        }
    )


def _load(base: FleetPlan, mix: str, knobs: Knobs, scale: int) -> dict[str, Any]:
    """What clients are to do. An operation costs cycles, so its rate is one for cycles too: half in virtual seconds."""
    from harness import fleet

    offered = max(1, round(knobs.offered_load / scale)) if knobs.offered_load else 0
    return {
        "vm_group": base.vm_group or 1 + fleet.CLIENTS,
        "offered_load": offered,
        "operations": fleet.operations(base, mix, offered, NOMINAL_LOAD // scale),
    }


def rows(plan: Plan, store: Store, stated: float) -> list[Row]:
    """What is done, failed or missing, and what the rest will take.

    Args:
        plan: the plan.
        store: where results are.
        stated: seconds of a cell that the profile promises, for want of a measured one.

    """
    out: list[Row] = []
    known: dict[tuple[Any, ...], tuple[float, str]] = {}
    for cell in plan.cells:
        state = store.state(cell.key)
        if state == "done":
            out.append(Row(cell, state, 0.0, ""))
            continue
        like = {name: cell.properties[name] for name in ("system", "workload", "profile", "backend")}
        like["watch"] = cell.properties.get("watch")
        if cell.artefacts is not None:
            like["target"] = cell.artefacts.target
        mark = tuple(like.values())
        if mark not in known:
            seconds = store.seconds(like, partial(_alike, _shape(cell.text)))
            known[mark] = (
                (statistics.median(seconds), f"median of {len(seconds)} earlier")
                if seconds
                else (stated * (cell.watch.cost if cell.watch else 1), f"profile {plan.profile}")
            )
        out.append(Row(cell, state, *known[mark]))
    return out


def union(parts: Iterable[Sequence[Row]]) -> list[Row]:
    """Rows of several plans, each cell once, in the order in which it is first met."""
    out: dict[Any, Row] = {}
    for rows_ in parts:
        for row in rows_:
            # while something is not built there are no keys; fleet, system and machine tell what will have the same
            out.setdefault(row.cell.key or (row.cell.text, str(row.cell.machine)), row)
    return list(out.values())


def _shape(text: str) -> list[str]:
    """A fleet plan without its seed: plans of one shape take about the same time."""
    return [line for line in text.splitlines() if not line.startswith("seed ")]


def _alike(shape: list[str], record: RunRecord) -> bool:
    return _shape(str(record.inputs.get("plan"))) == shape
