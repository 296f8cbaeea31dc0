# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that were saved when their guest said so, kept on disk until the space is wanted.

A checkpoint goes by the digest of everything that decides what is in it: change anything, and it is another one. It
appears whole or not at all, is compared with its digests before this program first uses it, and made again if it is
damaged. Two that want the same one at the same time make it once.

The disk it takes is bounded: :func:`limit`; what was not used for longest goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import atomic_dir, atomic_write, free_bytes, lock, need_disk, paths, sha256_json
from harness.errors import Busy, UsageError
from harness.machine import Saved
from harness.run import CommandFailed, run
from harness.ui import ui

FORMAT = 2
"""Of the files, and of how a machine is saved and loaded. A new number makes all checkpoints anew."""

LIMIT = "PARAKSM_CHECKPOINTS_GIB"
"""Environment variable: how much disk all checkpoints may take together."""

_DEFAULT_LIMIT_GIB = 8.0
_WAIT = 3600.0  # another harness may be making the same one
_RECORD, _USED = "checkpoint.json", "used"
_FILES = ("memory", "state")
_CHUNK = 4 << 20
_ZEROS = bytes(_CHUNK)


@dataclass(frozen=True)
class Order:
    """Which checkpoint is wanted."""

    inputs: Mapping[str, Any]
    """Plain values: everything that decides what is in the machine when its guest stops it."""
    what: str
    """For people."""
    memory_mib: int
    """Memory of the machine: no checkpoint is much larger."""

    @property
    def key(self) -> str:
        """The checkpoint's name."""
        return key_of(self.inputs)


@dataclass(frozen=True)
class Kept:
    """A checkpoint that is there, as ``harness cache`` shows it."""

    path: Path
    what: str
    size: int
    """Bytes on disk."""
    used: float
    """When it was last used: seconds since the epoch."""


def key_of(inputs: Mapping[str, Any]) -> str:
    """Digest of a checkpoint's inputs and of :data:`FORMAT`."""
    return sha256_json({"format": FORMAT, "inputs": dict(inputs)})


def limit() -> int:
    """Bytes that all checkpoints may take together.

    Raises:
        UsageError: the environment names no size.

    """
    text = os.environ.get(LIMIT, "")
    try:
        size = float(text or _DEFAULT_LIMIT_GIB)
    except ValueError:
        size = -1.0
    if not 0 <= size < float("inf"):
        raise UsageError(f"{LIMIT}={text}: not a number of GiB", hint=f"for instance {LIMIT}=20")
    return int(size * 2**30)


@contextlib.contextmanager
def held(order: Order, make: Callable[[Path], None]) -> Iterator[Saved]:
    """A whole checkpoint that nobody removes meanwhile: load the machine inside, and leave when it runs.

    Args:
        order: which.
        make: puts the files ``memory`` and ``state`` into the directory it is given; called if there is no such
            checkpoint, or only a damaged one.

    Raises:
        Busy: another harness took an hour to make it.
        Interrupted: the work was called off while waiting.
        EnvironmentProblem: there is no room for it.

    """
    limit()  # a mistake in it is told before minutes of work
    final = _place(order.key)
    with lock(_lock_of(final), what=f"the checkpoint {final.name}", wait=_WAIT):
        if fault := _fault(final, order.key):
            if final.exists():
                ui().warn(f"checkpoint {final.name} of {order.what}: {fault}: it is made again")
            _make(final, order, make)
        (final / _USED).touch()
        yield Saved(final / "memory", final / "state")


def is_there(key: str) -> bool:
    """Whether there is such a checkpoint; whether it is whole shows when it is used."""
    return _place(key).is_dir()


def kept() -> list[Kept]:
    """All checkpoints, the most recently used first."""
    out = []
    for path in paths().checkpoints.glob("*"):
        if path.name.startswith("."):
            continue
        with contextlib.suppress(OSError):  # removed by another harness while we look
            size = sum(file.lstat().st_blocks * 512 for file in path.iterdir())
            out.append(Kept(path, _what(path), size, _used(path)))
    return sorted(out, key=lambda item: (-item.used, item.path.name))


def describe(path: Path) -> str:
    """One line for people about what is at a checkpoint's place."""
    age = max(0.0, time.time() - _used(path))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    unit, seconds = next(((unit, seconds) for unit, seconds in units if age >= seconds), units[-1])
    return f"{_what(path)}; used {age / seconds:.0f} {unit} ago"


def _place(key: str) -> Path:
    return paths().checkpoints / key[:16]


def _lock_of(final: Path) -> Path:
    return final.with_name(f".{final.name}.lock")


def _record(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; nothing if it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        data = json.loads((path / _RECORD).read_text(encoding="utf-8"))
        if isinstance(data, dict):
            return data
    return {}


def _what(path: Path) -> str:
    return str(_record(path).get("what", "damaged"))


def _used(path: Path) -> float:
    for name in (_USED, _RECORD, ""):
        with contextlib.suppress(OSError):
            return (path / name).stat().st_mtime
    return 0.0


# --- whole or not ---------------------------------------------------------------------------------------

_known_whole: dict[tuple[Path, str], tuple[int, ...]] = {}
"""Files that this process has compared with their digests, by what must have changed if they did."""
_known_lock = threading.Lock()


def _identity(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _fault(final: Path, key: str) -> str:
    """Why a checkpoint cannot be used; empty if it can."""
    if not final.is_dir():
        return "it is not there"
    record = _record(final)
    if record.get("key") != key or key_of(record.get("inputs") or {}) != key:
        return "its record is damaged"
    for name in _FILES:
        file, wanted = final / name, record.get("files", {}).get(name, {})
        try:
            identity = _identity(file)
        except OSError:
            return f"{name} is not there"
        if file.stat().st_size != wanted.get("size"):
            return f"{name} is truncated, or has grown"
        with _known_lock:
            if _known_whole.get((file, key)) == identity:
                continue
        if digest(file) != wanted.get("sha256"):
            return f"{name} was altered"
        with _known_lock:
            _known_whole[file, key] = identity
    return ""


def digest(file: Path) -> str:
    """Hex SHA-256 of a sparse file: where its data lie, and the SHA-256 of each piece. Holes are not read.

    Pieces are taken by as many threads as there are processors: hashing is what a fleet that was saved by another
    harness waits for.
    """
    out = hashlib.sha256()
    with file.open("rb") as stream:
        number = stream.fileno()
        size = os.fstat(number).st_size
        places = [at for start, end in _data(number, size) for at in range(start, end, _CHUNK)]
        with futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for at, found in zip(places, pool.map(lambda at: _piece(number, at), places), strict=True):
                if found:
                    out.update(b"%d " % at + found)
        out.update(b"%d" % size)
    return out.hexdigest()


def _piece(descriptor: int, at: int) -> bytes:
    """The digest of a piece; nothing if all of it is zero: which zero pages are holes is the file system's business."""
    piece = os.pread(descriptor, _CHUNK, at)
    return b"" if piece == _ZEROS[: len(piece)] else hashlib.sha256(piece).digest()


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Parts of a file that are not holes, in whole chunks, so that the parts do not depend on where holes begin."""
    at = 0
    while at < size:
        try:
            found = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole up to the end
            return
        hole = os.lseek(descriptor, found, os.SEEK_HOLE)
        start, at = max(at, found // _CHUNK * _CHUNK), min(size, -(-hole // _CHUNK) * _CHUNK)
        yield start, at


# --- making and removing --------------------------------------------------------------------------------


def _make(final: Path, order: Order, make: Callable[[Path], None]) -> None:
    size = order.memory_mib << 20
    _sweep(final)
    shutil.rmtree(final, ignore_errors=True)
    if free_bytes(final) < size:
        _shrink(total=0, keep=final, enough=lambda: free_bytes(final) >= size)
    need_disk(final, size, f"a checkpoint of {order.what}")
    began = time.monotonic()
    with atomic_dir(final) as work:
        make(work)
        _dig_holes(work / "memory")
        files = {name: {"size": (work / name).stat().st_size, "sha256": digest(work / name)} for name in _FILES}
        for path in work.iterdir():
            if path.name not in (*_FILES, "console.log"):
                path.unlink()
        record = {
            "key": order.key, "what": order.what, "inputs": dict(order.inputs), "files": files,
            "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
        atomic_write(work / _RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")
        (work / _USED).touch()
    with _known_lock:
        for name in _FILES:
            _known_whole[final / name, order.key] = _identity(final / name)
    _shrink(total=limit(), keep=final)


def _dig_holes(memory: Path) -> None:
    """Give the zero pages back, where the file system can."""
    with contextlib.suppress(CommandFailed):
        run(["fallocate", "--dig-holes", memory])


def _sweep(final: Path) -> None:
    """Remove what a killed harness left of this one; the lock is ours."""
    for rest in final.parent.glob(f".{final.name}.*"):
        if rest.is_dir():
            shutil.rmtree(rest, ignore_errors=True)


def _shrink(total: int, keep: Path, enough: Callable[[], bool] | None = None) -> None:
    """Remove what was not used for longest until the rest fits; what is in use stays, and so does ``keep``."""
    for rest in paths().checkpoints.glob(".*.*"):
        if rest.is_dir():
            with contextlib.suppress(Busy), lock(_lock_of(final := _owner(rest)), what=final.name):
                _sweep(final)
    entries = kept()
    left = sum(entry.size for entry in entries)
    for entry in reversed(entries):
        if enough() if enough else left <= total:
            return
        if entry.path == keep:
            continue
        with contextlib.suppress(Busy), lock(_lock_of(entry.path), what=entry.path.name):
            shutil.rmtree(entry.path, ignore_errors=True)
            left -= entry.size
            ui().info(f"checkpoint {entry.path.name} of {entry.what} made room ({entry.size / 2**20:.0f} MiB)")


def _owner(rest: Path) -> Path:
    """The checkpoint that a temporary directory ``.NAME.random`` was to become."""
    return rest.with_name(rest.name.split(".")[1])
