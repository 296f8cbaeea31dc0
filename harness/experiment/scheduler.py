# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells on more than one machine: Dask hands them to workers; what comes back is what a run here would have left.

Which machine runs a cell changes nothing in its result, because a measured machine counts instructions. So any worker
may take any cell for which it has the memory, and a cell whose worker is lost is simply run again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.config import atomic_write, paths
from harness.errors import Busy, EnvironmentProblem, HostError, Interrupted, UsageError
from harness.experiment import cells
from harness.experiment.cells import Capacity, Executor, Failure, Runner
from harness.experiment.plan import Cell, Row
from harness.experiment.store import MANIFEST, Store
from harness.run import Deadline
from harness.ui import Task, ui

if TYPE_CHECKING:
    from distributed import Client

    from harness.host import Host

LOCAL, DASK = "local", "dask"

_TICK = 0.2
_PATIENCE = 60.0  # seconds without any worker, or for the first one
_SHUTDOWN = 10.0
_LOOK = 1.0  # seconds between two looks at who is at work
_TRIES = 4  # workers that one cell may lose; Dask's own number is one less, counted otherwise


@dataclass(frozen=True)
class Place:
    """What ``--scheduler`` says: processes here, an existing cluster, or hosts whose workers are started over ssh."""

    processes: int | None = None
    """As many as the capacity says, if it was not said how many."""
    address: str | None = None
    hosts: tuple[str, ...] = ()


def parse(words: Sequence[str]) -> Place | None:
    """Read ``--scheduler``; None: no engine, the cells run in this process.

    Raises:
        UsageError: there is no such scheduler, or several that exclude each other.

    """
    from harness.host import Address

    known = "local, dask, dask:N, tcp://HOST:PORT, tls://HOST:PORT, or ssh://USER@HOST (several times)"
    if not words or list(words) == [LOCAL]:
        return None
    hosts = [word for word in words if word.startswith("ssh://")]
    if len(words) > 1 and len(hosts) != len(words):
        raise UsageError("several --scheduler must all be ssh hosts", hint=f"--scheduler {known}")
    if hosts:
        if len({Address.parse(word) for word in hosts}) != len(hosts):
            raise UsageError("a host is named twice", hint="one worker runs as many cells as its host can hold")
        return Place(hosts=tuple(hosts))
    (word,) = words
    if match := re.fullmatch(r"dask(?::([1-9]\d{0,2}))?", word):
        return Place(processes=int(match[1]) if match[1] else None)
    if re.fullmatch(r"(tcp|tls)://[^/\s]+:\d+", word):
        return Place(address=word)
    raise UsageError(f"there is no scheduler {word!r}", hint=f"--scheduler {known}")


def require() -> None:
    """See that Dask is there.

    Raises:
        EnvironmentProblem: the optional dependency is not installed.

    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(
            f"this needs Dask, an optional dependency ({error})",
            hint=f"`{sys.executable} -m pip install 'dask[distributed]'`, or install this project as '.[dask]'",
        ) from error


def runner(words: Sequence[str], identity: Path | None = None, known_hosts: Path | None = None) -> Runner:
    """Who runs the rows, as the user said.

    Raises:
        UsageError: there is no such scheduler.
        EnvironmentProblem: it needs a package that is not here.

    """
    place = parse(words)
    if place is None:
        return cells.run
    require()
    return _Dask(place, identity, known_hosts)


@dataclass
class _Flight:
    """A cell that was handed out; its lock is held until it is back."""

    row: Row
    lock: contextlib.ExitStack
    since: float | None = None
    """When a worker said that it began."""
    workers: list[str] = field(default_factory=list)


class _Dask:
    """Runs rows on a cluster; see :class:`harness.experiment.cells.Runner`."""

    def __init__(self, place: Place, identity: Path | None, known_hosts: Path | None) -> None:
        self._place = place
        self._identity, self._known_hosts = identity, known_hosts

    def __call__(
        self, what: str, rows: Sequence[Row], store: Store, executor: Executor, capacity: Capacity
    ) -> list[Failure]:
        from harness.experiment.worker import Portable

        if not isinstance(executor, Portable):
            raise UsageError(
                "a target's cells are run from here: they need its connection", hint="leave out --scheduler or --target"
            )
        todo = [row for row in rows if row.state != "done"]
        try:
            if not todo:
                return []
            with contextlib.ExitStack() as stack:
                places = _Cluster(self._place, self._identity, self._known_hosts, stack)
                client = places.connect(capacity, max(cells.memory_mib(row.cell) for row in todo))
                return _Run(what, todo, store, executor, client, places).run()
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; finished cells are kept", hint="the same command goes on where this one stopped"
            ) from None
        finally:
            store.write_index()


class _Cluster:
    """Workers, and what it takes to have them."""

    def __init__(
        self, place: Place, identity: Path | None, known_hosts: Path | None, stack: contextlib.ExitStack
    ) -> None:
        self._place, self._stack = place, stack
        self._identity, self._known_hosts = identity, known_hosts
        self.local = not place.address and not place.hosts
        self.said: list[str] = []
        """Last words of workers that were started over ssh."""

    def connect(self, capacity: Capacity, largest: int) -> Client:
        """A client of a cluster with at least one worker of ours.

        Args:
            capacity: of this machine.
            largest: MiB that the largest cell needs.

        Raises:
            EnvironmentProblem: it cannot be reached, or nobody works there.
            HostError: a host cannot be reached, or has no harness.

        """
        import dask
        from distributed import Client

        # a machine full of emulators is slow to answer
        self._stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": f"{_PATIENCE:.0f}s"}))
        for name in list(logging.root.manager.loggerDict):
            if name.partition(".")[0] in ("distributed", "tornado"):  # what matters of it we say ourselves
                logging.getLogger(name).setLevel(logging.CRITICAL)
        if self._place.address:
            try:
                client = Client(self._place.address, timeout=_PATIENCE / 2)
            except (OSError, TimeoutError, ValueError) as error:
                raise EnvironmentProblem(
                    f"{self._place.address}: no scheduler there: {error}", hint="start one with `dask scheduler`"
                ) from error
        else:
            client = Client(self._made(capacity, largest))
        self._stack.callback(client.close, timeout=_SHUTDOWN)
        deadline = Deadline(_PATIENCE)
        while not workers(client):
            if deadline.expired() or self.said:
                address = client.scheduler_info()["address"]
                raise EnvironmentProblem(
                    f"no worker of this harness at {address}" + "".join(f"\n    {word}" for word in self.said),
                    hint=f"on each machine: harness worker {address}",
                )
            time.sleep(_TICK)
        return client

    def _made(self, capacity: Capacity, largest: int) -> Any:
        """A scheduler in this process, with workers here or on the hosts."""
        from distributed import LocalCluster, Security

        from harness.experiment.worker import HOST, MEMORY

        words: dict[str, Any] = {
            "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL, "threads_per_worker": 1,
            "memory_limit": 0, "local_directory": str(paths().tmp),
        }  # fmt: skip
        paths().tmp.mkdir(parents=True, exist_ok=True)
        # who has no key of this run is not let in: not another user of this machine either
        keys = Security.temporary()
        words |= {"security": keys, "protocol": "tls://"}
        if self._place.hosts:
            return self._on_hosts(LocalCluster, keys, words)
        count = self._place.processes or capacity.jobs
        room = capacity.memory_mib
        if room is not None and self._place.processes is None:  # one always may: what is too large shows by failing
            count = max(1, min(count, room // largest))
        share = largest if room is None else max(largest, room // count)
        return self._stack.enter_context(
            LocalCluster(n_workers=count, processes=True, resources={MEMORY: share, HOST: 1}, **words)
        )

    def _on_hosts(self, cluster: Any, keys: Any, words: dict[str, Any]) -> Any:
        from harness.host import Host

        hosts = [
            self._stack.enter_context(Host.connect(url, self._identity, self._known_hosts)) for url in self._place.hosts
        ]
        ours = {host.local_address for host in hosts}
        folders = {host: self._stack.enter_context(host.scratch()) for host in hosts}
        for host, there in folders.items():
            for name, text in _pem(keys).items():
                host.put_bytes(text.encode(), f"{there}/{name}", 0o600)
        threads: list[threading.Thread] = []
        self._stack.callback(_join, threads)
        made = self._stack.enter_context(
            cluster(
                n_workers=0, processes=False,
                host=ours.pop() if len(ours) == 1 else "0.0.0.0", **words,  # noqa: S104
            )
        )  # fmt: skip
        port = made.scheduler_address.rpartition(":")[2]
        for host, there in folders.items():
            argv = [str(Path(sys.executable).with_name("harness")), "worker", f"tls://{host.local_address}:{port}"]
            threads.append(threading.Thread(target=self._serve, args=(host, [*argv, "--tls", there]), daemon=True))
            threads[-1].start()
        return made

    def _serve(self, host: Host, argv: list[str]) -> None:
        """Run a worker on a host until its scheduler ends it."""
        try:
            done = host.run(argv, check=False)
        except HostError as error:
            self.said.append(error.message)
            return
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no word"])[-3:]
            self.said.append(f"{host.address}: its worker ended with status {done.returncode}: {' '.join(last)}")


def _join(threads: list[threading.Thread]) -> None:
    deadline = Deadline(_SHUTDOWN)
    for thread in threads:
        thread.join(deadline.remaining())


def _pem(keys: Any) -> dict[str, str]:
    return {"ca.pem": keys.tls_ca_file, "cert.pem": keys.tls_worker_cert, "key.pem": keys.tls_worker_key}


def workers(client: Client) -> dict[str, Mapping[str, Any]]:
    """The workers that ``harness worker`` or we started, by address."""
    from harness.experiment.worker import HOST, MEMORY

    found = client.scheduler_info(n_workers=-1)["workers"]
    return {address: each for address, each in found.items() if {MEMORY, HOST} <= set(each["resources"])}


def _lost() -> EnvironmentProblem:
    return EnvironmentProblem("the scheduler was lost", hint="finished cells are kept; the same command goes on")


class _Run:
    """The rows of one run on their way."""

    def __init__(
        self, what: str, rows: list[Row], store: Store, executor: Executor, client: Client, places: _Cluster
    ) -> None:
        self._what, self._store, self._executor, self._client = what, store, executor, client
        self._places = places
        self._queue, self._count = rows, len(rows)
        self._flights: dict[Any, _Flight] = {}
        self._failures: list[Failure] = []
        self._name = uuid.uuid4().hex[:8]
        self._parcel = ""
        self._slots = 0
        self._alone, self._next_look = Deadline(_PATIENCE), Deadline(0)

    def run(self) -> list[Failure]:
        """Hand out what there is room for, take back what is done, until nothing is left.

        Raises:
            HarnessError: something that no other cell would survive either.

        """
        from harness.experiment.worker import TOPIC

        self._check_room()
        self._client.subscribe_topic(TOPIC, self._began)
        total, done = sum(row.seconds for row in self._queue), 0.0
        try:
            self._send_files()
            with ui().progress(f"{self._what}: {self._count} cells, {self._crowd()}", total) as task:
                while self._queue or self._flights:
                    self._hand_out()
                    for future in self._landed():
                        flight = self._flights[future]
                        done += flight.row.seconds
                        with flight.lock:
                            self._take(future, flight)
                        del self._flights[future]
                    self._show(task, done)
        finally:
            with contextlib.suppress(Exception):
                self._client.unsubscribe_topic(TOPIC)
            for future, flight in self._flights.items():
                with contextlib.suppress(Exception):  # workers look by themselves whether their cell is wanted
                    self._client.cancel([future], force=True)
                flight.lock.close()
        return self._failures

    def _check_room(self) -> None:
        from harness.experiment.worker import MEMORY

        most = max(each["resources"][MEMORY] for each in workers(self._client).values())
        for row in self._queue:
            if cells.memory_mib(row.cell) > most:
                raise EnvironmentProblem(
                    f"{row.cell.label} needs {cells.memory_mib(row.cell)} MiB; the largest worker offers {most:.0f}",
                    hint="a smaller --profile, or a worker with more (--memory)",
                )

    def _send_files(self) -> None:
        from harness.experiment.worker import Parcel, Portable

        assert isinstance(self._executor, Portable)
        files = dict(self._executor.files([row.cell for row in self._queue]))
        for row in self._queue:
            if row.cell.dataset is not None:
                files[f"dataset-{row.cell.dataset.sha256}"] = row.cell.dataset.path
        parcel = Parcel(files, local=self._places.local)
        self._client.register_plugin(parcel)
        self._parcel = parcel.name

    def _crowd(self) -> str:
        self._look()
        return f"up to {min(self._slots, self._count)} at once on {len(workers(self._client))} workers"

    def _look(self) -> None:
        """See now and then who is at work.

        Raises:
            EnvironmentProblem: nobody, for a while, or the scheduler is gone.

        """
        if not self._next_look.expired():
            return
        self._next_look = Deadline(_LOOK)
        try:
            found = workers(self._client)
        except (OSError, TimeoutError) as error:
            raise _lost() from error
        self._slots = sum(each["nthreads"] for each in found.values())
        if found:
            self._alone = Deadline(_PATIENCE)
        elif self._alone.expired():
            raise EnvironmentProblem(
                "no worker is left" + "".join(f"\n    {word}" for word in self._places.said),
                hint="finished cells are kept; the same command goes on",
            )

    def _hand_out(self) -> None:
        """Not more than can run: what waits can still be taken by another harness, and goes to whoever is free."""
        self._look()
        for row in list(self._queue):
            if len(self._flights) >= self._slots:
                return
            lock = contextlib.ExitStack()
            key = str(row.cell.key)
            try:
                lock.enter_context(self._store.cell(key))
            except Busy:
                continue  # another harness runs it: its result is as good as ours
            self._queue.remove(row)
            if self._store.state(key) == "done":
                lock.close()
                self._count -= 1
                continue
            self._flights[self._submit(row.cell)] = _Flight(row, lock)

    def _submit(self, cell: Cell) -> Any:
        from harness.experiment import worker

        share = worker.SHARE if self._executor.parallel else 1
        return self._client.submit(
            worker.perform, cell, self._executor, self._parcel, str(self._store.path(str(cell.key))),
            key=f"cell-{self._name}-{cell.key}", pure=False,
            resources={worker.MEMORY: cells.memory_mib(cell), worker.HOST: share},
        )  # fmt: skip

    def _landed(self) -> list[Any]:
        import distributed

        if not self._flights:
            time.sleep(_TICK)
            return []
        # a future that its client gave up is done as well: _take() says what that means
        with contextlib.suppress(TimeoutError, distributed.client.FuturesCancelledError):
            distributed.wait(list(self._flights), timeout=_TICK, return_when="FIRST_COMPLETED")
        return [future for future in self._flights if future.done()]

    def _take(self, future: Any, flight: _Flight) -> None:
        """Put a finished cell into the store, or say why there is none.

        Raises:
            HarnessError: its worker lacks something, or the scheduler was lost.

        """
        from distributed.scheduler import KilledWorker

        from harness.experiment.worker import Broken, Done

        cell = flight.row.cell
        if future.status in ("cancelled", "lost"):
            raise _lost()
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            self._fail(Failure(cell, f"{len(flight.workers) or _TRIES} workers were lost while they ran it"))
            return
        if error is not None:
            raise EnvironmentProblem(f"{cell.label}: a worker cannot run it: {error}") from error
        result = future.result()
        if isinstance(result, Broken):
            raise result.kind(result.message, hint=result.hint)
        assert isinstance(result, Done)
        if json.loads(result.files[MANIFEST])["key"] != cell.key:
            raise EnvironmentProblem(f"{cell.label}: a worker answered with another cell")
        with self._store.new(str(cell.key)) as work:
            for name, data in result.files.items():
                atomic_write(work / name, data)
        if result.failure is not None:
            self._fail(Failure(cell, result.failure))

    def _fail(self, failure: Failure) -> None:
        self._failures.append(failure)
        ui().warn(f"{failure.cell.label}: failed: {failure.reason}")

    def _began(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Called by Dask's thread whenever a worker begins a cell."""
        _, said = event
        for flight in list(self._flights.values()):
            if flight.row.cell.key == said["key"] and said["address"] not in flight.workers:
                if flight.workers:
                    ui().warn(f"{flight.row.cell.label}: its worker was lost; runs again on {said['worker']}")
                flight.workers.append(said["address"])
                flight.since = time.monotonic()

    def _show(self, task: Task, done: float) -> None:
        now = time.monotonic()
        running = [flight for flight in self._flights.values() if flight.since is not None]
        partly = sum(min(now - cast("float", f.since), 0.95 * f.row.seconds) for f in running)
        left = len(self._queue) + len(self._flights)
        task.update(done=done + partly, note=f"{left} of {self._count} cells left, {len(running)} running")
