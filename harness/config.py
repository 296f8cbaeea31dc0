# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things live, and how files and directories appear there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import Busy, EnvironmentProblem
from harness.run import Deadline, check_called_off

PROJECT = Path(__file__).resolve().parent.parent
"""The checkout: the parent of ``harness/``; ``patches/``, ``kernel/`` and ``vm-images/`` are beside it."""


@dataclass(frozen=True)
class Paths:
    """Directories of one invocation; each is created when first asked for."""

    cache: Path
    results: Path

    def _sub(self, name: str) -> Path:
        path = self.cache / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def sources(self) -> Path:
        """Verified archives."""
        return self._sub("sources")

    @property
    def trees(self) -> Path:
        """Unpacked source trees, each a git work tree."""
        return self._sub("trees")

    @property
    def builds(self) -> Path:
        """Out-of-tree build directories."""
        return self._sub("builds")

    @property
    def images(self) -> Path:
        """Guest images and what they are made of."""
        return self._sub("images")

    @property
    def checkpoints(self) -> Path:
        """Machines as they were saved."""
        return self._sub("checkpoints")

    @property
    def ccache(self) -> Path:
        """The compiler cache shared by the kernel and QEMU builds."""
        return self._sub("ccache")

    @property
    def logs(self) -> Path:
        """Logs of builds and downloads."""
        return self._sub("logs")

    @property
    def tmp(self) -> Path:
        """Scratch space on the same file system as the cache."""
        return self._sub("tmp")


def paths() -> Paths:
    """The directories for the environment as it is now (``XDG_CACHE_HOME``, ``PARAKSM_RESULTS``)."""
    import platformdirs

    cache = platformdirs.user_cache_path("paraksm", appauthor=False)
    results = Path(os.environ.get("PARAKSM_RESULTS", "results")).absolute()
    return Paths(cache=cache, results=results)


@contextlib.contextmanager
def lock(path: Path, *, what: str, wait: float = 0) -> Iterator[None]:
    """Hold an inter-process lock; the lock file names its holder.

    Raises:
        Busy: another process holds it after ``wait`` seconds.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_name(path.name + ".pid")
    deadline = Deadline(wait)
    # flock(2) itself, not a library: the kernel drops it when a holder dies, and it needs no hooks around fork,
    # which in a program that starts processes from several threads are what breaks
    while (descriptor := _take(path)) is None:
        check_called_off()
        if deadline.expired():
            pid = "unknown"
            with contextlib.suppress(FileNotFoundError):
                pid = holder.read_text().strip()
            raise Busy(
                f"{what} is in use by another harness (pid {pid})", hint="wait for it to end, then run this again"
            )
        time.sleep(min(0.05, deadline.remaining()))
    try:
        holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path) -> int | None:
    """A descriptor that holds the lock; ``None`` if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):  # taken, or the file was removed under us
        pass
    os.close(descriptor)
    return None


@contextlib.contextmanager
def atomic_dir(final: Path) -> Iterator[Path]:
    """Yield a new sibling directory that becomes ``final`` on success and vanishes on any failure."""
    final.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield work
        work.chmod(0o755)
        if final.exists():
            shutil.rmtree(final)
        work.rename(final)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode() if isinstance(data, str) else data
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    work = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        work.chmod(0o644)
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise full_disk(f"while writing {path}") from error
        raise
    except BaseException:
        work.unlink(missing_ok=True)
        raise


def full_disk(when: str) -> EnvironmentProblem:
    """The error for a disk that filled up; ``when`` says at what, and what became of it."""
    return EnvironmentProblem(
        f"no space left {when}", hint="free some space (`harness cache list` shows what is kept), then run this again"
    )


def says_full_disk(text: str) -> bool:
    """Whether a program that failed said that the disk is full."""
    return os.strerror(errno.ENOSPC).lower() in text.lower()


def seal(file: Path) -> None:
    """Note a finished file's digest beside it, for :func:`is_whole`."""
    atomic_write(file.with_name(file.name + ".sha256"), sha256_file(file))


def is_whole(file: Path) -> bool:
    """Whether a file is there and still what it was when it was sealed."""
    try:
        return file.with_name(file.name + ".sha256").read_text() == sha256_file(file)
    except OSError:
        return False


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON (sorted keys, no blanks)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def free_bytes(path: Path) -> int:
    """Bytes available on the file system that holds ``path`` or its nearest existing parent."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def need_disk(path: Path, size: int, what: str) -> None:
    """Refuse to start what cannot finish.

    Raises:
        EnvironmentProblem: fewer than ``size`` bytes are free for ``what``.

    """
    free = free_bytes(path)
    if free < size:
        raise EnvironmentProblem(
            f"{what} needs {size / 2**30:.1f} GiB below {path}, {free / 2**30:.1f} GiB are free",
            hint="free some space (`harness cache list` lists what is kept) or set XDG_CACHE_HOME to a larger disk",
        )
