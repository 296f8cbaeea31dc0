# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the missing cells of a plan. Interrupting at any point and running again ends at the same index."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent import futures
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness import checkpoint, counters
from harness.config import atomic_write
from harness.errors import Busy, FleetError, Interrupted, MachineError
from harness.experiment import trial, watches
from harness.experiment.plan import Cell, Row
from harness.experiment.store import HOST, Store, write_manifest
from harness.run import Deadline
from harness.ui import ui

if TYPE_CHECKING:
    from harness.fleet import FleetResult

_TICK = 0.2  # seconds between two looks at the workers
_LOCK_WAIT = 3600.0  # another harness may be running the same cell: its result is as good as ours
_EMULATOR_MIB = 512
"""What the emulator's own heap and translation buffer take at most."""
PAGE = 4096


class Executor(Protocol):
    """Runs one fleet somewhere; a machine of ours, a host over ssh, or a fake in a test."""

    @property
    def parallel(self) -> bool:
        """Whether several cells may run at once."""
        ...

    def execute(self, cell: Cell, work: Path) -> bytes:
        """Run the cell's fleet with ``work`` for files of its own; return what the fleet program wrote.

        Raises:
            MachineError, FleetError: this cell failed; others need not.

        """
        ...

    def cancel(self) -> None:
        """End what is running; called from another thread when the user interrupts."""
        ...


@dataclass(frozen=True)
class Failure:
    """A cell without a result, and why."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Capacity:
    """What may run at once."""

    jobs: int
    memory_mib: int | None = None
    """For all machines together; None: the user said how many, and it is not looked at."""


class Runner(Protocol):
    """Runs the rows that have no result: :func:`run` does it here; another one may send them elsewhere.

    However it does it, a cell goes through :func:`one` with a store that these results end up in.
    """

    def __call__(
        self, what: str, rows: Sequence[Row], store: Store, executor: Executor, capacity: Capacity
    ) -> list[Failure]:
        """Run them, write the index, return the failures; see :func:`run`."""
        ...


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def room_mib() -> int:
    """Memory for machines: what is free, with a quarter to spare."""
    import psutil

    return int(psutil.virtual_memory().available * 0.75 / 2**20)


def capacity(executor: Executor, jobs: int | None = None) -> Capacity:
    """As many cells at once as the user says, or as there are cores and as memory holds with a quarter to spare."""
    if not executor.parallel:
        return Capacity(1)
    if jobs is not None:
        return Capacity(jobs)
    return Capacity(cores(), room_mib())


def run(what: str, rows: Sequence[Row], store: Store, executor: Executor, capacity: Capacity) -> list[Failure]:
    """Run every cell that has no result, write the index, and return the failures.

    A failed cell is recorded as failed, with its console, and is tried again by the next run. A cell starts when a
    place is free, when memory has room for its machine, and when no other one is just making its checkpoint.

    Raises:
        Interrupted: Ctrl-C; finished cells are kept, nothing else is left behind.
        HarnessError: something that no other cell would survive either (a missing tool, a full disk, a lost host).

    """
    queue = [row for row in rows if row.state != "done"]
    if not queue:
        store.write_index()
        return []
    failures: list[Failure] = []
    running: dict[futures.Future[Failure | None], _Running] = {}
    cancelled = threading.Event()
    count, total, done = len(queue), sum(row.seconds for row in queue), 0.0
    pool = futures.ThreadPoolExecutor(max_workers=capacity.jobs, thread_name_prefix="cell")
    try:
        with ui().progress(f"{what}: {count} cells, up to {min(capacity.jobs, count)} at once", total) as task:
            while queue or running:
                while (row := _next(queue, running.values(), capacity)) is not None:
                    queue.remove(row)
                    future = pool.submit(one, row.cell, store, executor, cancelled)
                    running[future] = _Running(row, time.monotonic())
                for future in futures.wait(running, timeout=_TICK, return_when=futures.FIRST_COMPLETED).done:
                    done += running.pop(future).row.seconds
                    failure = future.result()
                    if failure is not None:
                        failures.append(failure)
                        ui().warn(f"{failure.cell.label}: failed: {failure.reason}")
                left = len(queue) + len(running)
                # a running cell counts up to its estimate, and not quite
                partly = sum(min(time.monotonic() - r.since, 0.95 * r.row.seconds) for r in running.values())
                task.update(done=done + partly, note=f"{left} of {count} cells left")
    except BaseException as error:
        cancelled.set()
        _abandon(pool, executor, running)
        store.write_index()
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(
                "interrupted; finished cells are kept", hint="the same command goes on where this one stopped"
            ) from None
        raise
    pool.shutdown()
    store.write_index()
    return failures


@dataclass(frozen=True)
class _Running:
    row: Row
    since: float


def _next(queue: Sequence[Row], running: Collection[_Running], capacity: Capacity) -> Row | None:
    """The first that may start now. One always may when nothing runs: what is too large for memory shows by failing."""
    if len(running) >= capacity.jobs:
        return None
    room = math.inf if capacity.memory_mib is None or not running else capacity.memory_mib
    room -= sum(memory_mib(item.row.cell) for item in running)
    making = {
        key for item in running if (key := _checkpoint(item.row.cell)) is not None and not checkpoint.is_there(key)
    }
    return next((row for row in queue if memory_mib(row.cell) <= room and _checkpoint(row.cell) not in making), None)


def memory_mib(cell: Cell) -> int:
    """What a cell's machine takes of this computer's memory, at most."""
    return cell.memory_mib + _EMULATOR_MIB


def _checkpoint(cell: Cell) -> str | None:
    return cell.checkpoint.key if cell.resumes else None


def _abandon(pool: futures.ThreadPoolExecutor, executor: Executor, running: Collection[futures.Future[Any]]) -> None:
    """Stop everything under way and wait until it is gone, whatever it answers."""
    pool.shutdown(wait=False, cancel_futures=True)
    while not all(future.done() for future in running):
        executor.cancel()  # again and again: a worker may have been between two steps
        futures.wait(list(running), timeout=_TICK)


@contextlib.contextmanager
def _turn(store: Store, key: str, cancelled: threading.Event) -> Iterator[None]:
    """Hold a cell; while another harness runs it, wait in slices, so that Ctrl-C gets through.

    Raises:
        Interrupted: cancelled while waiting.

    """
    deadline = Deadline(_LOCK_WAIT)
    with contextlib.ExitStack() as stack:
        while True:
            if cancelled.is_set():
                raise Interrupted("interrupted")
            try:
                stack.enter_context(store.cell(key, wait=_TICK))
                break
            except Busy:
                if deadline.expired():
                    raise
        yield


def one(cell: Cell, store: Store, executor: Executor, cancelled: threading.Event) -> Failure | None:
    """Run one cell, unless another harness finished it meanwhile."""
    key = cell.key
    assert key is not None
    with _turn(store, key, cancelled):
        if store.state(key) == "done":
            return None
        begun, clock = datetime.now(UTC), time.monotonic()
        failure: Failure | None = None
        metrics: dict[str, Any] = {}
        with store.new(key) as work:
            atomic_write(work / "plan.txt", cell.text)
            try:
                raw = executor.execute(cell, work)
                atomic_write(work / "results.raw", raw)
                metrics = measure(cell, raw, work) | watched(cell, work)
                metrics |= counted(work)
            except (MachineError, FleetError) as error:
                if cancelled.is_set():  # it failed because it was stopped
                    raise Interrupted("interrupted") from error
                failure = Failure(cell, error.message)
            _tidy(work, store.path(key))
            write_manifest(
                work,
                key=key,
                cell=cell.described,
                inputs=cell.inputs,
                outcome="failed" if failure else "ok",
                reason=failure.reason if failure else "",
                metrics=metrics,
                identical=("plan.txt", "results.raw", "samples.csv", "vm_samples.csv", watches.FILE),
            )
            atomic_write(
                work / HOST,
                json.dumps(
                    {
                        "begun": begun.isoformat(timespec="seconds"),
                        "seconds": round(time.monotonic() - clock, 3),
                        "cores": os.cpu_count(),
                        "system": platform.platform(),
                    },
                    indent=1,
                )
                + "\n",
            )
    return failure


def _tidy(work: Path, final: Path) -> None:
    """Keep of the machine's files what explains the run, with the names they will have."""
    argv = work / "qemu.argv"
    if argv.is_file():
        argv.write_text(argv.read_text(errors="replace").replace(str(work), str(final)), encoding="utf-8")
    for path in work.iterdir():
        if not path.is_file() or path.name == "results.bin":  # sockets; and results.raw is the same bytes
            path.unlink()


def watched(cell: Cell, work: Path) -> dict[str, Any]:
    """What was counted from outside, which the executor has left in a file.

    Raises:
        MachineError: there is none.

    """
    if cell.watch is None:
        return {}
    try:
        found: dict[str, Any] = json.loads((work / watches.FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MachineError(f"nobody counted {cell.watch.name} while the window was open") from error
    return found


def counted(work: Path) -> dict[str, Any]:
    """What a server's own counters say, where there was a server; its notes are kept beside the numbers.

    Raises:
        FleetError: the run is no measurement: the clock moved.

    """
    try:
        found = json.loads((work / counters.FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if found["invalid"]:
        raise FleetError(found["invalid"])
    numbers: dict[str, Any] = found["metrics"]
    return {**numbers, "counters": {"notes": found["notes"]}}


def _tails(result: FleetResult) -> dict[str, dict[str, dict[str, int]]]:
    """Percentiles of all clients together, by kind of operation and by start."""
    tails: dict[str, dict[str, dict[str, int]]] = {}
    for (kind, start), found in result.latencies.items():
        tails.setdefault(kind, {})[start] = asdict(found.tail())
    return tails


def measure(cell: Cell, raw: bytes, work: Path) -> dict[str, Any]:
    """Check a result against the oracle, write samples.csv, and return the numbers that reports use.

    Raises:
        FleetError: truncated, a lost VM, or a result that the content does not allow.
        MachineError: what timed single operations did not say all of it.

    """
    from harness import fleet

    if cell.plan is None:
        return {"operations": trial.parse(raw)}

    result = fleet.parse(raw)
    fleet.check(cell.fleet, result)
    samples = result.samples  # the check has seen that there are some
    names = list(samples[0])
    lines = [",".join(names), *(",".join(str(sample[name]) for name in names) for sample in samples)]
    atomic_write(work / "samples.csv", "\n".join(lines) + "\n")
    names = list(result.vm_samples[0])
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in result.vm_samples)]
    atomic_write(work / "vm_samples.csv", "\n".join(lines) + "\n")
    first, last = samples[0], samples[-1]
    # a window that waits for a slow application is longer than planned: systems are compared over the planned one
    planned = next((row for row in samples if row["t_ns"] >= cell.fleet.window_ms * 1_000_000), last)
    faults = [row["faults"] for row in result.of_vm(1)]
    return {
        "application_ns": result.application_ns,
        "model": result.model,
        "latencies": _tails(result),
        "behind_ns": max((run.behind_ns for run in result.clients), default=0),
        "corun_ns": result.corun_ns,
        "ksmd_ns": result.ksmd_ns,
        "saved_bytes": PAGE * (last["pages_sharing"] - first["pages_sharing"]),
        "window_ns": last["t_ns"] - first["t_ns"],
        "planned_saved_bytes": PAGE * (planned["pages_sharing"] - first["pages_sharing"]),
        "planned_ksmd_ns": planned["ksmd_ns"] - first["ksmd_ns"],
        "idle_share": round(result.idle_share, 6),
        "vm1_faults": faults[-1] - faults[0],
        # what the un-timed passes before the window merged cannot be saved in it
        "possible_bytes": PAGE * (fleet.possible(cell.fleet, result) - first["pages_sharing"]),
        # real VMs: whose pages they are at the end, by who else has their content
        **({"pages": result.witness.all_shares.as_dict} if result.witness else {}),
    }
