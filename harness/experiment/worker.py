# SPDX-License-Identifier: GPL-2.0-or-later
"""One cell on a machine that was handed it: what :mod:`harness.experiment.scheduler` sends to the workers of a cluster.

A worker runs the same code (compared by digest) on the same files (compared by digest), into a store of its own, and
hands the finished run directory back: its bytes are those of a run at home.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from distributed import Security, Status, Worker, WorkerPlugin, get_worker

from harness import packages
from harness.config import PROJECT, atomic_dir, atomic_write, is_whole, lock, paths, seal, sha256_file, sha256_json
from harness.errors import EnvironmentProblem, HarnessError, Interrupted
from harness.experiment import cells
from harness.experiment.executors import KINDS
from harness.experiment.plan import Cell
from harness.experiment.store import Store
from harness.ui import configure

MEMORY, HOST = "paraksm-mib", "paraksm-host"
"""Resources of a worker: memory for machines in MiB, and the host itself, of which an exclusive cell takes all."""

SHARE = 1 / 1024
"""What a cell takes of :data:`HOST` that minds no neighbours."""

TOPIC = "paraksm"
"""Where workers say what they begin."""

_TICK = 0.5
_PATIENCE = 60.0  # seconds for a scheduler that is only just starting


@runtime_checkable
class Portable(Protocol):
    """An executor that can be pickled, and works elsewhere with the same files."""

    def files(self, cells: Iterable[Cell]) -> Mapping[str, Path]:
        """Everything it opens for some cells, by the name under which it looks for it below one directory.

        What is named ``builds/DIRECTORY/FILE`` is looked for among the builds of a machine.
        """
        ...

    def moved(self, root: Path) -> Self:
        """The same executor with its files below ``root``."""
        ...


@dataclass(frozen=True)
class Done:
    """A run directory, and why it holds no result, if so."""

    files: Mapping[str, bytes]
    failure: str | None


@dataclass(frozen=True)
class Broken:
    """Something that is wrong with a worker rather than with a cell."""

    kind: type[HarnessError]
    message: str
    hint: str | None


@functools.cache
def version() -> str:
    """The digest of this harness: two workers of different code would be two different instruments."""
    root = PROJECT / "harness"
    found = (path for path in root.rglob("*") if path.suffix in (".py", ".toml", ".j2"))
    return sha256_json({str(path.relative_to(root)): sha256_file(path) for path in found})


@dataclass(frozen=True)
class Item:
    """One file of a parcel; its bytes stay away when every worker sees the sender's disk."""

    path: Path
    sha256: str
    mode: int
    data: bytes | None


class Parcel(WorkerPlugin):  # type: ignore[misc]
    """The files that cells need, for every worker that there is and that will be."""

    idempotent = True

    def __init__(self, files: Mapping[str, Path], *, local: bool) -> None:
        self.version = version()
        self.local = local
        self.items = {
            name: Item(path, sha256_file(path), path.stat().st_mode & 0o777, None if local else path.read_bytes())
            for name, path in sorted(files.items())
        }
        self.digest = sha256_json({name: item.sha256 for name, item in self.items.items()})
        self.name = f"paraksm-{self.digest[:16]}-{self.version[:16]}"

    def setup(self, worker: Worker) -> None:
        """Ctrl-C at a terminal reaches all that was started there: what stops local workers is their scheduler."""
        if self.local and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def root(self) -> Path | None:
        """Where the files are on this machine; None: where they are on the sender's.

        Raises:
            EnvironmentProblem: this is another harness, a file cannot be had, or what was built does not run here.

        """
        if self.version != version():
            raise EnvironmentProblem(
                f"another version of the harness is installed here ({version()[:12]}, not {self.version[:12]})",
                hint="install the same checkout there, and start the worker again",
            )
        if all(item.path.is_file() and sha256_file(item.path) == item.sha256 for item in self.items.values()):
            return None
        final = paths().cache / "parcels" / self.digest[:16]
        with lock(paths().cache / "parcels" / f"{self.digest[:16]}.lock", what="files of a cell", wait=_PATIENCE):
            if not self._whole(final):
                self._unpack(final)
            for name in self.items:
                folder, _, rest = name.rpartition("builds/")
                if rest and folder in ("", *(f"{kind}/" for kind in KINDS)):
                    _install(final / name, paths().builds / rest)
        return final

    def _whole(self, final: Path) -> bool:
        return all(
            (final / name).is_file() and sha256_file(final / name) == item.sha256 for name, item in self.items.items()
        )

    def _unpack(self, final: Path) -> None:
        packages.require("boot")
        with atomic_dir(final) as work:
            for name, item in self.items.items():
                if item.data is None:
                    raise EnvironmentProblem(f"{item.path} is not here, or is another file")
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                atomic_write(work / name, item.data)
                (work / name).chmod(item.mode)


def _install(file: Path, final: Path) -> None:
    """Put something that was built elsewhere where it would be if it had been built here."""
    if not is_whole(final):
        with atomic_dir(final.parent) as work:
            atomic_write(work / final.name, file.read_bytes())
            seal(work / final.name)


@functools.lru_cache(maxsize=8)
def _root(name: str) -> Path | None:
    """Looked at once for each parcel: files of a parcel never change."""
    parcel = get_worker().plugins[name]
    assert isinstance(parcel, Parcel)
    return parcel.root()


def perform(cell: Cell, executor: cells.Executor, parcel: str, final: str) -> Done | Broken:
    """Run a cell here, and hand over its run directory.

    Args:
        cell: what to run.
        executor: on what, as it is where the cell comes from.
        parcel: name of the plugin that brought the files.
        final: where the run directory will be, for what names it.

    """
    worker = get_worker()
    configure(quiet=True)
    worker.log_event(TOPIC, {"key": cell.key, "worker": str(worker.name), "address": worker.address})
    cancelled = threading.Event()
    try:
        root = _root(parcel)
        if root is not None and isinstance(executor, Portable):
            executor = executor.moved(root)
            if cell.dataset is not None:
                cell = replace(cell, dataset=replace(cell.dataset, path=root / f"dataset-{cell.dataset.sha256}"))
        paths().tmp.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=paths().tmp) as folder, _minded(worker, executor, cancelled):
            store = Store(Path(folder))
            failure = cells.one(cell, store, executor, cancelled)
            return Done(_collect(store.path(str(cell.key)), final), failure.reason if failure else None)
    except HarnessError as error:
        return Broken(type(error), f"{worker.name}: {error.message}", error.hint)


def _collect(run_directory: Path, final: str) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in sorted(run_directory.iterdir())}
    if "qemu.argv" in found:  # it names its own place
        found["qemu.argv"] = found["qemu.argv"].replace(str(run_directory).encode(), final.encode())
    return found


@contextlib.contextmanager
def _minded(worker: Worker, executor: cells.Executor, cancelled: threading.Event) -> Iterator[None]:
    """Cancel the executor as soon as nobody wants the result any more: the client left, or the scheduler is lost."""
    task, over = worker.get_current_task(), threading.Event()

    def mind() -> None:
        while not over.wait(_TICK):
            state = worker.state.tasks.get(task)
            if worker.status not in (Status.running, Status.paused) or state is None or state.state == "cancelled":
                cancelled.set()
                executor.cancel()  # again and again: it may be between two steps

    thread = threading.Thread(target=mind, daemon=True, name="mind")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def serve(address: str, slots: int, memory_mib: int, tls: Path | None) -> None:
    """Be a worker of a scheduler until it ends, or until Ctrl-C.

    Args:
        address: of the scheduler, ``tcp://`` or ``tls://``.
        slots: how many cells may run here at once.
        memory_mib: memory for their machines together.
        tls: directory with ca.pem, cert.pem and key.pem; by default as Dask's own configuration says.

    Raises:
        EnvironmentProblem: the scheduler cannot be reached, or was lost.
        Interrupted: Ctrl-C.

    """
    packages.require("boot")

    async def be() -> None:
        worker = Worker(
            address,
            nthreads=slots,
            resources={MEMORY: memory_mib, HOST: 1},
            memory_limit=0,
            name=f"{os.uname().nodename}-{os.getpid()}",
            local_directory=str(paths().tmp),
            death_timeout=_PATIENCE,
            security=security(tls) if tls else None,
        )
        async with worker:
            await worker.finished()

    try:
        asyncio.run(be())
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the cells that ran here are run elsewhere") from None
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise EnvironmentProblem(
            f"{address}: no scheduler there: {error}", hint="start one with `dask scheduler`, and name its address"
        ) from error


def security(folder: Path) -> Security:
    """The keys of a cluster that :mod:`harness.experiment.scheduler` made."""
    ca, cert, key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    return Security(
        tls_ca_file=ca, tls_worker_cert=cert, tls_worker_key=key, tls_client_cert=cert, tls_client_key=key,
        tls_scheduler_cert=cert, tls_scheduler_key=key, require_encryption=True,
    )  # fmt: skip
