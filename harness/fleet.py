# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet of VMs as data: the plan the guest program runs, what KSM must make of it, and what came out.

The guest program is ``vm-images/src/fleet``; docs/fleet.md describes both file formats. The contents of every page
are a function of the plan alone, so :func:`expect` needs no machine: it counts equal pages.
"""

from __future__ import annotations

import re
import tomllib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness import latency, systems, witness
from harness.errors import FleetError, UsageError
from harness.ksm import (
    NOTHING,
    PAGE,
    SAMPLE_SCHEMA,
    VM_COLUMNS,
    KsmKnobs,
    Nodes,
    Sample,
    check_columns,
    check_samples,
    check_vm_samples,
    nodes,
)
from harness.latency import ClientRun
from harness.systems import Write
from harness.witness import Witness

PLAN_HEADER = f"paraksm-fleet-plan {SAMPLE_SCHEMA}"
RESULT_HEADER = f"paraksm-fleet {SAMPLE_SCHEMA}"
ROW_BYTES = 19 * 16 + 8
"""A training row in memory: 18 feature nodes and a terminator of 16 bytes, and a label."""

_PATH = re.compile(r"/[!-~]{1,254}")
_VALUE = re.compile(r"[!-~](?:[ -~]{0,125}[!-~])?")

LEAST_VM_MIB = 16
"""A VM's kernel, its initramfs and a few MiB to run in."""

_VM_COST_MIB = 4
"""What a nested VM takes beside its memory: the monitor, KVM's page tables and structures, rmap items."""

_NEST_MIB = 64
"""The VMs' kernel, their image and their monitor, unpacked."""

GENERATED = "-"
"""The ``dataset`` of a plan whose rows the guest program generates."""

Count = Annotated[int, Field(ge=0, lt=2**24)]
"""Pages of a class: 24 bits of a page's coordinates (content.c)."""

REST_BYTES = 64 << 10
"""Size of the file with the second part of a plan. It is fixed: a guest that was saved remembers it from its boot."""

_LOADED = (
    *("seed", "vms", "pages_shared_all", "pages_shared_some", "shared_group", "pages_zero", "pages_unique"),
    *("pages_volatile", "volatile_period_ms", "alike_percent", "dataset_rows", "train", "solver", "repeats", "dataset"),
    *("nested", "vm_memory_mib", "vm_kaslr", "vm_group", "vm_boots"),
    *("ballast_zero", "ballast_self", "ballast_inter", "ballast_unique"),
)
"""Keys by which VMs go. They are the first part of a plan; all others can wait until memory is full."""

MIXES = ("ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d")
"""Workloads in which a group's first VM is a Redis server and the others ask it."""

CLIENTS = 3
"""Clients of a server, as in the paper."""

_RAREST = {"ycsb-a": 0.5, "ycsb-b": 0.05, "ycsb-c": 1.0, "ycsb-d": 0.05}
"""The least share of a kind of operation in a mix."""

_PORT = 6379
_SERVER_WAIT_S = 600
"""Virtual seconds that a client waits for its server to be loaded."""

_BYSTANDERS = ("frozen", "duty", "full")
"""By their numbers in the plan file."""

_DUTY_PERIOD_US = 100_000
"""Of a duty cycle: of so many microseconds bystanders get their part."""

_MOST_WEIGHT = 10_000
"""Of a cgroup."""

_SCHED_FIFO = 1
"""Linux's number of the policy."""


class FleetPlan(BaseModel):
    """What one fleet run does. Page counts are per VM; times are in the guest's milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    backend: Literal["process", "nested"] = "process"
    """What a VM is: a process, or a guest of its own under KVM inside the machine."""
    system: str = "cpu-ksm"
    """One of :mod:`harness.systems`: whether ksmd works, and in which mode."""
    sysfs: Annotated[tuple[Write, ...], Field(strict=False)] = ()
    """Further files to write before anything is scanned, or other values for those of the system."""
    workload: Literal["liblinear", "graph500", "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "none"] = "liblinear"
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 1
    vms: Annotated[int, Field(ge=1, lt=2**16)]

    vm_memory_mib: Annotated[int, Field(ge=0, lt=2**20)] = 0
    """Memory of each nested VM."""
    vm_kaslr: bool = True
    """Whether the kernels of nested VMs lie at addresses of their own."""
    vm_group: Annotated[int, Field(ge=0, le=250)] = 0
    """So many neighbouring nested VMs share a network; 0: none has one."""
    vm_boots: Annotated[int, Field(ge=1)] = 4
    """Nested VMs that boot at a time."""
    ballast_zero: Count = 0
    """Pages in each nested VM that no program of its own uses: zero, written by the VM."""
    ballast_self: Count = 0
    """Pages that each have one equal in the same VM, and none in another."""
    ballast_inter: Count = 0
    """Pages that are the same in every VM."""
    ballast_unique: Count = 0
    """Pages like no other."""

    bystanders: Literal["frozen", "duty", "full"] = "frozen"
    """What nested VMs do in the window that the run does not wait for: nothing; their own workload over and over, on
    ``bystander_percent`` of a processor; or as fast as their weight lets them."""
    bystander_percent: Annotated[int, Field(ge=1, le=100)] = 10
    """Of a processor, for all bystanders of a duty cycle together."""

    pages_shared_all: Count = 0
    """The same in every VM."""
    pages_shared_some: Count = 0
    """The same within each group of ``shared_group`` neighbouring VMs."""
    shared_group: Annotated[int, Field(ge=1)] = 4
    pages_zero: Count = 0
    pages_unique: Count = 0
    pages_volatile: Count = 0
    """Rewritten every ``volatile_period_ms`` while the window is open."""
    volatile_period_ms: Annotated[int, Field(ge=1, lt=2**31)] = 50
    alike_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Of the pages that are not zero: equal up to their last 8 bytes, so that comparing them takes whole pages."""

    dataset: str = GENERATED
    """A file the guest can read (UCI or LIBSVM format of SUSY), or ``-``: generate from the seed."""
    dataset_rows: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Training rows, the same in every VM; only VM 1 trains on them."""
    graph_scale: Annotated[int, Field(ge=1, le=42)] = 12
    """Graph500: 2^scale vertices, and 16 times as many edges."""
    graph_roots: Annotated[int, Field(ge=1, le=64)] = 64
    """Graph500: searches a run."""
    solver: Literal[1, 2, 3, 11, 12, 13] = 12
    """Liblinear's number. 11 to 13 are support vector regression, the paper's text; 1 is its scripts' default."""
    repeats: Annotated[int, Field(ge=1, lt=2**31)] = 1
    """Trainings in a row: fixed work, the same in every system."""

    records: Annotated[int, Field(ge=1, lt=2**31)] = 1500
    """YCSB: records in each server."""
    offered_load: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """YCSB: operations a (virtual) second of each client, evenly spaced; 0: one after the other."""
    operations: Annotated[int, Field(ge=1, lt=2**32)] = 300
    """YCSB: how many each client performs: fixed work, the same in every system."""
    tail_samples: Annotated[int, Field(ge=0)] = 0
    """YCSB: so many of its rarest operation a mix has at least, and lasts as long as that takes."""

    pages_to_scan: int = 2048
    sleep_millisecs: int = 40
    max_page_sharing: int = 256
    use_zero_pages: bool = False
    merge_across_nodes: bool = True
    ksmd_nice: Annotated[int, Field(ge=-20, le=19)] = 5
    ksmd_rt_priority: Annotated[int, Field(ge=0, le=99)] = 0
    """Above 0: ksmd runs under SCHED_FIFO with this priority, and its nice value means nothing."""
    vm_weight: Annotated[int, Field(ge=0, le=10000)] = 3
    """cgroup v2 cpu.weight of VM 1; 0: no cgroup. 40 busy VMs below one slice of weight 100 get 2.5 each."""

    prescan_passes: Annotated[int, Field(ge=0)] = 1
    """Passes flat out before the window. The first visit of a page only stores its checksum."""
    converge_passes: Annotated[int, Field(ge=0)] = 0
    """Instead of a window: without naps until ksmd has made so many passes in all. VMs stay still."""
    window_ms: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """The window stays open at least so long, and until the application has ended."""
    sample_ms: Annotated[int, Field(ge=1, lt=2**31)] = 10
    vm_sample_ms: Annotated[int, Field(ge=1, lt=2**31)] = 500
    """Period of the rows of all VMs; one VM's costs as much as a row of the machine."""

    @model_validator(mode="after")
    def _consistent(self) -> FleetPlan:
        self.knobs  # noqa: B018  (its own check)
        if self.system not in systems.systems():
            raise ValueError(f"there is no system {self.system!r}; there are {', '.join(systems.systems())}")
        for path, value in self.settings:
            if not _PATH.fullmatch(path) or not _VALUE.fullmatch(value):
                raise ValueError(f"sysfs {path!r} {value!r}: an absolute path without blanks, and one line of value")
        if self.nested:
            if self.vm_memory_mib < LEAST_VM_MIB:
                raise ValueError(f"vm_memory_mib {self.vm_memory_mib}: a nested VM needs {LEAST_VM_MIB} at least")
            if self.pages_per_vm > self.dataset_pages:
                raise ValueError("pages_* describe VMs that are processes: a nested VM fills its memory itself")
        self._check_nested_only()
        if self.workload == "liblinear" and not self.dataset_rows and not self.converge_passes:
            raise ValueError("liblinear needs dataset_rows")
        if self.workload in ("graph500", *MIXES) and not self.nested:
            raise ValueError(f"{self.workload} runs in nested VMs")
        if self.serves and not 2 <= self.vm_group <= self.vms:
            raise ValueError("YCSB needs groups of a server and clients: vm_group from 2 to vms")
        if self.converge_passes and not self.ksmd:
            raise ValueError("nothing converges without KSM")
        if not self.window_ms and not self.converge_passes and not self.trains:
            raise ValueError("neither a window, nor an application, nor passes: there is nothing to wait for")
        if any(c.isspace() for c in self.dataset) or not 0 < len(self.dataset) < 256:
            raise ValueError(f"dataset {self.dataset!r}: 1 to 255 characters without blanks")
        return self

    def _check_nested_only(self) -> None:
        if not self.nested and (self.ballast_pages or self.bystanders != "frozen"):
            raise ValueError("ballast_* and bystanders are of nested VMs; processes have pages_*")
        if self.nested and self.ballast_pages * PAGE > (self.vm_memory_mib - LEAST_VM_MIB) << 20:
            raise ValueError(f"{self.ballast_pages} pages of ballast do not fit into {self.vm_memory_mib} MiB")
        if self.ballast_self == 1:
            raise ValueError("ballast_self 1: a page equal to another takes two")
        if self.bystanders != "frozen" and not (self.trains and self.workload in ("liblinear", "graph500")):
            raise ValueError("bystanders run the workload of VM 1: liblinear or graph500, in a window")

    @property
    def ballast_pages(self) -> int:
        """Pages of ballast in each nested VM."""
        return self.ballast_zero + self.ballast_self + self.ballast_inter + self.ballast_unique

    @property
    def knobs(self) -> KsmKnobs:
        """KSM's knobs during the window."""
        return KsmKnobs(
            pages_to_scan=self.pages_to_scan,
            sleep_millisecs=self.sleep_millisecs,
            max_page_sharing=self.max_page_sharing,
            use_zero_pages=self.use_zero_pages,
            merge_across_nodes=self.merge_across_nodes,
        )

    @property
    def nested(self) -> bool:
        """Whether VMs are guests of their own."""
        return self.backend == "nested"

    @property
    def ksmd(self) -> bool:
        """Whether ksmd works."""
        return systems.find(self.system).ksmd

    @property
    def settings(self) -> tuple[Write, ...]:
        """Files of sysfs that are written, in this order, before anything is scanned."""
        return systems.settings(systems.find(self.system), self.sysfs)

    @property
    def counters(self) -> tuple[str, ...]:
        """Further counters of KSM to sample where the kernel has them."""
        return systems.find(self.system).counters

    @property
    def trains(self) -> bool:
        """Whether VM 1's application runs: a fleet that converges stays still."""
        return self.workload != "none" and not self.converge_passes

    @property
    def serves(self) -> bool:
        """Whether the first VM of each group is a server and the others are its clients."""
        return self.workload in MIXES

    @property
    def clients(self) -> tuple[int, ...]:
        """The VMs that ask VM 1 while the window is open, by their numbers."""
        return tuple(range(2, self.vm_group + 1)) if self.serves and self.trains else ()

    @property
    def orders(self) -> dict[int, str]:
        """What a VM is told when the window opens, by its number; without any, VM 1 works by itself."""
        letter = self.workload[-1]
        words = f"--workload {letter} --target {self.offered_load} --operations {self.operations}"
        return dict.fromkeys(self.clients, words)

    @property
    def commands(self) -> dict[int, str]:
        """What runs in each nested VM, by its number."""
        if not self.nested or self.workload == "none":
            return {}
        if self.serves:
            return {number: self._member(number) for number in range(1, self.vms + 1)}
        if self.workload == "graph500":
            words = f"/bin/graph500 --scale {self.graph_scale} --seed {self.seed} --roots {self.graph_roots}"
        else:
            words = f"/bin/svr --rows {self.dataset_rows} --seed {self.seed} --solver {self.solver}"
            words += f" --repeats {self.repeats}"
        return dict.fromkeys(range(1, self.vms + 1), words)

    def _member(self, number: int) -> str:
        """What runs in a VM of a group: the server with its loader, or a client that knows its work only later.

        So one loaded fleet serves all mixes and all rates.
        """
        group, member = divmod(number - 1, self.vm_group)
        server = f"10.1.{group}.1:{_PORT}"
        data = f"--records {self.records} --seed {(256 * self.seed + group) % 2**62}"
        if not member:
            return f"/bin/ycsb load {data} --start /bin/redis-server --socket /tmp/redis --listen {server}"
        return f"/bin/ycsb run {data} --server {server} --client {member} --later --wait {_SERVER_WAIT_S}"

    @property
    def dataset_pages(self) -> int:
        """Pages of the training data in each VM."""
        return -(-self.dataset_rows * ROW_BYTES // PAGE)

    @property
    def pages_per_vm(self) -> int:
        """All mergeable pages of a VM."""
        return (
            self.pages_shared_all
            + self.pages_shared_some
            + self.pages_zero
            + self.pages_unique
            + self.pages_volatile
            + self.dataset_pages
        )

    @property
    def memory_mib(self) -> int:
        """What the VMs take of a machine, in MiB.

        A page costs itself, its struct page, its rmap item and its share of page tables; unmerged it may be doubled
        while the fleet is being filled.
        """
        if self.nested:
            return _NEST_MIB + self.vms * (self.vm_memory_mib * 33 // 32 + _VM_COST_MIB)
        return self.vms * self.pages_per_vm * PAGE * 3 // 2 // 2**20

    def lines(self) -> dict[str, str]:
        """The plan as the guest program knows it, key by key."""
        numbers: dict[str, int] = {
            name: int(getattr(self, name))
            for name in (
                *("seed", "vms", "pages_shared_all", "pages_shared_some", "shared_group", "pages_zero"),
                *("pages_unique", "pages_volatile", "volatile_period_ms", "alike_percent", "dataset_rows"),
            )
        }
        numbers |= {"train": int(self.trains), "solver": self.solver, "repeats": self.repeats}
        numbers |= {"ksm": int(self.ksmd)}
        numbers |= {
            name: int(getattr(self, name))
            for name in (
                *("pages_to_scan", "sleep_millisecs", "max_page_sharing", "use_zero_pages", "merge_across_nodes"),
                *("ksmd_nice", "ksmd_rt_priority", "vm_weight", "prescan_passes", "converge_passes", "window_ms"),
                *("sample_ms", "vm_sample_ms"),
            )
        }
        if self.nested:
            names = (
                *("nested", "vm_memory_mib", "vm_kaslr", "vm_group", "vm_boots"),
                *("ballast_zero", "ballast_self", "ballast_inter", "ballast_unique", "bystander_percent"),
            )
            numbers |= {name: int(getattr(self, name)) for name in names}
            numbers |= {"bystanders": _BYSTANDERS.index(self.bystanders)}
        return {name: str(value) for name, value in numbers.items()} | {"dataset": self.dataset}

    def render(self) -> str:
        """The plan file: a version line, one ``key value`` a line, then what is written to sysfs and sampled."""
        lines = [f"{key} {value}" for key, value in self.lines().items()]
        return "\n".join([PLAN_HEADER, *lines, *self.repeated()]) + "\n"

    def render_loaded(self, rest: str) -> str:
        """The first part alone: it decides what is in memory.

        Args:
            rest: the file, in the guest, from which it takes :meth:`render_rest` behind its checkpoint.

        """
        lines = [f"{key} {value}" for key, value in self.lines().items() if key in _LOADED]
        return "\n".join([PLAN_HEADER, *lines, *self._programs(), f"checkpoint {rest}"]) + "\n"

    def render_rest(self) -> str:
        """The second part: what KSM and its scheduling are like, and what is measured; always of the same size.

        Raises:
            UsageError: it does not fit.

        """
        lines = [f"{key} {value}" for key, value in self.lines().items() if key not in _LOADED]
        text = "\n".join([*lines, *self._writes(), "end"]) + "\n"
        if len(text) > REST_BYTES:
            raise UsageError(
                f"fleet plan: system, knobs and sysfs files take {len(text)} bytes, {REST_BYTES} are for them"
            )
        return text.ljust(REST_BYTES, "\n")

    def repeated(self) -> list[str]:
        """The lines that may stand more than once, in an order that counts."""
        return [*self._programs(), *self._writes()]

    def _programs(self) -> list[str]:
        return [f"vm {number} {command}" for number, command in self.commands.items()]

    def _writes(self) -> list[str]:
        return [
            *(f"go {number} {words}" for number, words in self.orders.items()),
            *(f"sysfs {path} {value}" for path, value in self.settings),
            *(f"counter {name}" for name in self.counters),
        ]


def operations(plan: FleetPlan, mix: str, offered_load: int, nominal_load: int) -> int:
    """How many operations a client performs: those of the window, or as many as make the tail of the rarest kind.

    Args:
        plan: window and samples wanted.
        mix: one of :data:`MIXES`.
        offered_load: a client's operations a second.
        nominal_load: the rate by which the tail's time is reckoned, the same in all systems.

    """
    tail = plan.tail_samples / (CLIENTS * _RAREST[mix] * nominal_load)
    return max(1, round((offered_load or nominal_load) * max(plan.window_ms / 1000, tail)))


def plan_from(values: dict[str, Any]) -> FleetPlan:
    """Make a plan from plain data, say a TOML table.

    Raises:
        UsageError: a missing, unknown or impossible value, by name.

    """
    try:
        return FleetPlan.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"fleet plan: {where + ': ' if where else ''}{first['msg']}") from error


@cache
def _profiles() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("fleet_profiles.toml").read_text(encoding="utf-8"))


def profiles() -> list[str]:
    """The names of the fleet sizes, smallest first."""
    return list(_profiles())


def _profile(name: str) -> dict[str, Any]:
    if name not in _profiles():
        raise UsageError(f"there is no fleet profile {name!r}", hint=f"one of: {', '.join(profiles())}")
    return _profiles()[name]


def profile(name: str) -> FleetPlan:
    """The plan of a profile.

    Raises:
        UsageError: there is no such profile.

    """
    return plan_from(_profile(name)["plan"])


def stated_seconds(name: str) -> float:
    """Wall seconds that one cell of a profile takes on the machine it was sized on (2 cores, TCG), with its boot.

    Raises:
        UsageError: there is no such profile.

    """
    return float(_profile(name)["seconds"])


def describe(name: str) -> str:
    """One line for people about a profile.

    Raises:
        UsageError: there is no such profile.

    """
    return str(_profile(name)["about"])


@dataclass(frozen=True)
class Expectation:
    """What KSM reaches when it has seen the fleet often enough (two passes) and nothing is rewritten.

    All numbers are pages, except chains and dups, which are stable nodes.
    """

    pages: int
    """Mergeable pages of all VMs."""
    distinct: int
    """Different contents among them."""
    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    zero_saved: int
    """Pages replaced by the kernel's zero page; counted nowhere in 6.1 and 6.2."""
    stable_node_chains: int
    stable_node_dups: int

    @property
    def saving_share(self) -> float:
        """Pages saved of all pages, 0 to 1."""
        return (self.pages_sharing + self.zero_saved) / self.pages if self.pages else 0.0


def _groups(plan: FleetPlan) -> Iterator[int]:
    """VMs in each group that shares pages; the last may be smaller."""
    full, rest = divmod(plan.vms, plan.shared_group)
    yield from [plan.shared_group] * full
    if rest:
        yield rest


def expect(plan: FleetPlan) -> Expectation:
    """Count equal pages: the oracle.

    Volatile pages differ between VMs and are expected to stay as they are; while they are being rewritten they are
    not counted as unshared by ksmd, so in a window this is a bound, after ``converge_passes`` it is exact.
    A dataset's pages are taken to differ from each other: 4 KiB of full mantissas, or 512 unsorted labels.

    Raises:
        UsageError: the plan is of real VMs: what is in their memory is found out by a run.

    """
    if plan.nested:
        raise UsageError(
            "what is in real VMs is not decided by their plan",
            hint="a run counts equal pages in their memory: harness experiment fig12 --profile small",
        )
    limit = plan.max_page_sharing
    total = nodes(plan.vms, limit).times(plan.pages_shared_all + plan.dataset_pages)
    groups = list(_groups(plan))
    for members in groups:
        total += nodes(members, limit).times(plan.pages_shared_some)
    alone = (plan.pages_unique + plan.pages_volatile) * plan.vms
    total += Nodes(0, 0, alone, 0, 0)
    zeros = plan.vms * plan.pages_zero
    total += nodes(zeros, limit) if zeros and not plan.use_zero_pages else NOTHING
    return Expectation(
        pages=plan.vms * plan.pages_per_vm,
        distinct=plan.pages_shared_all
        + plan.dataset_pages
        + plan.pages_shared_some * len(groups)
        + alone
        + (1 if zeros else 0),
        pages_shared=total.shared,
        pages_sharing=total.sharing,
        pages_unshared=total.unshared,
        zero_saved=zeros if plan.use_zero_pages else 0,
        stable_node_chains=total.chains,
        stable_node_dups=total.dups,
    )


def possible(plan: FleetPlan, result: FleetResult) -> int:
    """Pages that KSM can save of this fleet, by the oracle or by what was found in memory at the end."""
    if result.witness is None:
        return expect(plan).pages_sharing
    return result.witness.reach(plan.max_page_sharing).sharing


@dataclass(frozen=True)
class FleetResult:
    """A fleet run, parsed. Times are nanoseconds of the guest's clock."""

    plan: dict[str, str]
    facts: dict[str, str]
    settings: tuple[Write, ...]
    """The files of the plan as they read at the end; ``-`` where a file can only be written."""
    samples: tuple[Sample, ...]
    vm_samples: tuple[Sample, ...]
    """Rows of every VM, round after round."""
    vms: tuple[dict[str, int], ...]
    verify: dict[str, int]
    repeated: tuple[str, ...] = ()
    """The plan's ``vm``, ``go``, ``sysfs`` and ``counter`` lines as the guest read them."""
    witness: Witness | None = None
    """Of nested VMs: what stood in their memory at the end."""
    clients: tuple[ClientRun, ...] = ()
    """What those measured who asked VM 1, in the order of their numbers."""

    def fact(self, name: str) -> int:
        """A fact that is a number.

        Raises:
            FleetError: the guest program did not report it.

        """
        try:
            return int(self.facts[name])
        except (KeyError, ValueError) as error:
            raise FleetError(f"the fleet result has no number {name}") from error

    @property
    def trained(self) -> bool:
        """Whether VM 1's application ran to its end."""
        return self.fact("app_done") == 1

    @property
    def application_ns(self) -> int | None:
        """What the application took, by its own clock, or None if none ran."""
        return self.fact("app_ns") if self.trained else None

    @property
    def latencies(self) -> dict[tuple[latency.Kind, latency.Start], latency.Latencies]:
        """Of all clients together, by kind and start."""
        return latency.pool(self.clients)

    @property
    def model(self) -> str | None:
        """Checksum of the trained weights: equal work gives equal models."""
        return self.facts["app_checksum"] if self.trained else None

    @property
    def idle_share(self) -> float:
        """Idle time of all processors over the length of the window."""
        first, last = self.samples[0], self.samples[-1]
        span = last["t_ns"] - first["t_ns"]
        return (last["idle_ns"] - first["idle_ns"]) / span if span else 0.0

    def of_vm(self, number: int) -> list[Sample]:
        """The rows of one VM, in time; VMs count from 1."""
        return [row for row in self.vm_samples if row["vm"] == number]

    @property
    def corun_ns(self) -> int:
        """How long application and ksmd ran side by side; the whole window when there is no application."""
        return self.fact("app_end_ns") if self.trained else self.fact("window_ns")

    @property
    def ksmd_ns(self) -> int:
        """Processor time of ksmd in that interval."""
        return self.fact("ksmd_ns_to_app_end") if self.trained else self.fact("ksmd_ns_window")


def parse(raw: bytes) -> FleetResult:
    """Read what ``fleet run`` wrote; text around it (a terminal's carriage returns, a banner) does no harm.

    Raises:
        FleetError: no result, a truncated one, one whose checksum is wrong, or one of another version.

    """
    body = _body(raw)
    sections: dict[str, list[str]] = {}
    for line in body.splitlines()[1:]:
        if line.startswith("[") and line.endswith("]"):
            sections[line[1:-1]] = []
        elif sections:
            sections[next(reversed(sections))].append(line)
    judged = witness.SECTIONS if "settled" in sections else ("verify",)
    if lost := [name for name in (*_SECTIONS, *judged) if name not in sections]:
        raise FleetError(f"the fleet result has no section {', '.join(lost)}")
    repeated = [line for line in sections["plan"] if line.startswith(("vm ", "go ", "sysfs ", "counter "))]
    samples, vm_samples = (_table(name, sections[name]) for name in ("samples", "vm_samples"))
    asked = [line.removeprefix("counter ") for line in repeated if line.startswith("counter ")]
    check_columns(sections["samples"][0].split(","), also=asked)
    check_columns(sections["vm_samples"][0].split(","), VM_COLUMNS)
    return FleetResult(
        plan=_pairs("plan", [line for line in sections["plan"] if line not in repeated]),
        facts=_pairs("facts", sections["facts"]),
        settings=_settings(sections["settings"]),
        samples=tuple(samples),
        vm_samples=tuple(vm_samples),
        vms=tuple(_table("vms", sections["vms"])),
        verify={key: int(value) for key, value in _pairs("verify", sections.get("verify", [])).items()},
        repeated=tuple(repeated),
        witness=_witness(sections) if "settled" in sections else None,
        clients=tuple(latency.parse(line.partition(" ")[2]) for line in sections.get("clients", [])),
    )


_SECTIONS = ("plan", "facts", "settings", "samples", "vm_samples", "vms")


def _witness(sections: dict[str, list[str]]) -> Witness:
    return witness.read(
        {name: _pairs(name, sections[name]) for name in witness.COUNTERS},
        {name: _table(name, sections[name]) for name in witness.SECTIONS if name not in witness.COUNTERS},
    )


def _settings(lines: list[str]) -> tuple[Write, ...]:
    pairs = [line.partition(" ") for line in lines]
    if any(not text for _, _, text in pairs):
        raise FleetError("the fleet result's section settings is not made of paths and values")
    return tuple((path, text) for path, _, text in pairs)


def _body(raw: bytes) -> str:
    """The checked text between the version line and the ``end`` line."""
    data = raw.replace(b"\r\n", b"\n")
    start = data.find(f"{RESULT_HEADER}\n".encode())
    if start < 0:
        raise FleetError("the guest wrote no fleet result", hint="the console log says why")
    data = data[start:]
    at = data.find(b"\nend ")
    end = data[at + 1 :].split(b"\n", 1) if at >= 0 else []
    if len(end) != 2:
        raise FleetError(f"the fleet result is truncated after {len(data)} bytes", hint="run the cell again")
    body, words = data[: at + 1], end[0].split()
    try:
        crc, size = int(words[1], 16), int(words[2])
    except (IndexError, ValueError) as error:
        raise FleetError("the last line of the fleet result is garbled", hint="run the cell again") from error
    if size != len(body) or crc != zlib.crc32(body):
        raise FleetError(
            f"the fleet result is damaged: {len(body)} bytes with CRC {zlib.crc32(body):08x}, "
            f"its last line says {size} and {crc:08x}",
            hint="run the cell again",
        )
    return body.decode("ascii", errors="replace")


def _pairs(section: str, lines: list[str]) -> dict[str, str]:
    try:
        return dict(line.split(" ", 1) for line in lines)
    except ValueError as error:
        raise FleetError(f"the fleet result's section {section} is not made of keys and values") from error


def _table(section: str, lines: list[str]) -> list[dict[str, int]]:
    if not lines:
        raise FleetError(f"the fleet result's section {section} has no header")
    names = lines[0].split(",")
    try:
        return [dict(zip(names, map(int, line.split(",")), strict=True)) for line in lines[1:]]
    except ValueError as error:
        raise FleetError(f"the fleet result's section {section} has a line that does not fit its header") from error


def check(plan: FleetPlan, result: FleetResult, expectation: Expectation | None = None) -> None:
    """Compare a result with its plan and with the oracle.

    After ``converge_passes`` of three or more every counter must equal the oracle; in a window nothing may pass it.

    Raises:
        FleetError: every difference, one a line.

    """
    faults = [*_plan_faults(plan, result), *_memory_faults(plan, result), *check_samples(result.samples)]
    faults += check_vm_samples(result.vm_samples, plan.vms) if result.vm_samples else ["there are no samples of VMs"]
    if plan.trains and not result.trained:
        faults.append("VM 1's application did not end")
    if not result.samples:
        faults.append("there are no samples")
    else:
        faults += _ksm_faults(plan, result, expectation)
    if faults:
        raise FleetError("the fleet's result is not what its plan demands:\n    " + "\n    ".join(faults))


def _plan_faults(plan: FleetPlan, result: FleetResult) -> Iterator[str]:
    """The plan that ran is the plan that was asked for, and the kernel took it."""
    for key, value in plan.lines().items():
        if result.plan.get(key) != value:
            yield f"plan: {key} was {result.plan.get(key)} in the guest, {value} was asked for"
    if list(result.repeated) != plan.repeated():
        yield "plan: its sysfs and counter lines are not those that were asked for"
    wanted = {
        "ksmd_nice": plan.ksmd_nice,
        "ksmd_policy": _SCHED_FIFO if plan.ksmd_rt_priority else 0,
        "ksmd_rt_priority": plan.ksmd_rt_priority,
        "max_page_sharing": plan.max_page_sharing,
        "pages_to_scan": plan.pages_to_scan,
        "sleep_millisecs": 0 if plan.converge_passes else plan.sleep_millisecs,
    }
    if plan.vm_weight:
        wanted["vm_weight"] = plan.vm_weight
    if plan.bystanders != "frozen" and plan.vms > 1:
        wanted["others_weight"] = min(_MOST_WEIGHT, (plan.vm_weight or 100) * (plan.vms - 1))
        wanted["others_us"] = plan.bystander_percent * _DUTY_PERIOD_US // 100 if plan.bystanders == "duty" else -1
    for key, number in wanted.items():
        if result.fact(key) != number:
            yield f"{key} reads back as {result.fact(key)}, {number} was set"
    for (path, value), (_, text) in zip(plan.settings, result.settings, strict=False):
        if text not in ("-", value) and f"[{value}]" not in text.split():
            yield f"{path} reads back as {text}, {value} was set"
    if len(result.settings) != len(plan.settings):
        yield f"{len(result.settings)} of {len(plan.settings)} files of sysfs were read back"


def _memory_faults(plan: FleetPlan, result: FleetResult) -> Iterator[str]:
    """Every VM is there, and no page changed under it."""
    if len(result.vms) != plan.vms:
        yield f"{len(result.vms)} of {plan.vms} VMs reported"
    if plan.nested:
        if result.witness is None:
            yield "nobody looked at the memory of the VMs"
        else:
            yield from witness.faults(result.witness, ksmd=plan.ksmd, limit=plan.max_page_sharing)
        yield from _client_faults(plan, result)
        return
    pages = plan.vms * plan.pages_per_vm
    for key, wanted in (
        ("checked_pages", pages),
        ("bad_pages_merged", 0),
        ("bad_pages_unmerged", 0),
        ("ksm_pages_after_unmerge", 0),
    ):
        if result.verify.get(key) != wanted:
            yield f"{key} is {result.verify.get(key)}, must be {wanted}"


def _client_faults(plan: FleetPlan, result: FleetResult) -> Iterator[str]:
    """Every client did its work, and what it finds on the server is what was written there."""
    if len(result.clients) != len(plan.clients):
        yield f"{len(result.clients)} of {len(plan.clients)} clients reported"
    for number, run in zip(plan.clients, result.clients, strict=False):
        if (run.workload, run.operations) != (plan.workload[-1], plan.operations):
            yield f"VM {number} performed {run.operations} operations of {run.workload}, not {plan.operations}"
    if not plan.clients:
        return
    inserts = sum(
        sum(found.counts.values())
        for run in result.clients
        for (kind, start), found in run.latencies.items()
        if (kind, start) == ("insert", "sent")
    )
    # a client reads what was loaded and as many records behind as it inserted itself
    wanted = len(plan.clients) * plan.records + inserts
    for key, number in (("checked_records", wanted), ("bad_records", 0)):
        if result.verify.get(key) != number:
            yield f"{key} is {result.verify.get(key)}, must be {number}"


def _ksm_faults(plan: FleetPlan, result: FleetResult, expectation: Expectation | None) -> Iterator[str]:
    last = result.samples[-1]
    if not plan.ksmd:
        for sample in (result.samples[0], last):
            for name in ("pages_shared", "pages_sharing", "pages_unshared"):
                if sample[name]:
                    yield f"{name} is {sample[name]} though ksmd never ran"
        if last["ksmd_ns"] != result.samples[0]["ksmd_ns"]:
            yield f"ksmd ran for {last['ksmd_ns'] - result.samples[0]['ksmd_ns']} ns though it was off"
    elif plan.nested:
        return  # memory changes as long as they run; when they stand still the witness says all
    elif plan.converge_passes >= 3:
        oracle = expectation or expect(plan)
        exact = ("pages_shared", "pages_sharing", "pages_unshared", "stable_node_chains", "stable_node_dups")
        for name in exact:
            if last[name] != getattr(oracle, name):
                wanted = getattr(oracle, name)
                yield f"{name} is {last[name]} after {last['full_scans']} passes, the contents demand {wanted}"
        if last["pages_volatile"]:
            yield f"pages_volatile is {last['pages_volatile']} though nothing was rewritten"
    else:
        oracle = expectation or expect(plan)
        most = max(sample["pages_sharing"] for sample in result.samples)
        if most > oracle.pages_sharing:
            yield f"{most} pages were saved, the contents allow {oracle.pages_sharing}"
