# SPDX-License-Identifier: GPL-2.0-or-later
"""A build directory that survives being killed, being used twice at once, and having its results damaged.

Compilers work in the directory itself; what others use are published copies in ``out-<digest>`` below it,
which appear whole and never change.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.config import (
    atomic_dir,
    atomic_write,
    full_disk,
    lock,
    paths,
    says_full_disk,
    sha256_file,
    sha256_json,
)
from harness.errors import BuildError, Busy
from harness.run import CommandFailed, run
from harness.ui import ui

_TOKEN = "PARAKSM_BUILD"  # noqa: S105 - the name of an environment variable that marks our compilers
_KEEP = 3  # published results kept per directory: a run that started on the previous one can go on
_ERROR = re.compile(r"\berror:|\bError \d|undefined reference|^make.*\*\*\*|^FAILED:|ERROR:|fatal:", re.IGNORECASE)


def cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def ccache_environment() -> dict[str, str]:
    """What makes equal compilations of one tree hit, whatever directory they run in.

    No CCACHE_BASEDIR: it hands the compiler relative names, which Linux's own ``-fmacro-prefix-map`` of the
    tree's absolute name then misses, and the tree's place would be in the kernel.
    """
    return {
        "CCACHE_DIR": str(paths().ccache),
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_MAXSIZE": os.environ.get("CCACHE_MAXSIZE", "5G"),
        "CCACHE_COMPILERCHECK": "%compiler% -v",
        "LC_ALL": "C",
    }


def toolchain() -> str:
    """Compiler and linker versions in one line: part of every build's identity."""
    compiler = run(["gcc", "--version"]).stdout.splitlines()[0]
    linker = run(["ld", "--version"]).stdout.splitlines()[0]
    return f"{compiler}; {linker}"


@dataclass(frozen=True)
class Published:
    """A finished result: its directory and one digest over the content of all its files."""

    path: Path
    digest: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class BuildDir:
    """One build directory; ``what`` names it for people, ``nice`` is how readily it yields to other builds."""

    path: Path
    what: str
    nice: int = 5

    @property
    def log(self) -> Path:
        """All output of the last build."""
        return paths().logs / f"{self.path.name}.log"

    @property
    def _stamp(self) -> Path:
        return self.path / "paraksm-build.json"

    @property
    def _marker(self) -> Path:
        return self.path / "paraksm-unfinished.json"

    def stamp(self) -> dict[str, Any]:
        """What the last successful build recorded; empty if there was none or the record is damaged."""
        try:
            value = json.loads(self._stamp.read_text())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def state(self) -> Literal["empty", "busy", "unfinished", "done"]:
        """What is here: nothing, a build under way, one that was cut short, or a finished one."""
        try:
            with lock(self._lock, what=self.what):
                if self._marker.exists():
                    return "unfinished"
                return "done" if self.stamp() else "empty"
        except Busy:
            return "busy"

    @property
    def _lock(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Have the directory to ourselves, after cleaning up what a killed build left.

        Raises:
            Busy: another harness builds here.

        """
        with lock(self._lock, what=self.what):
            self.path.mkdir(parents=True, exist_ok=True)
            self._recover()
            yield

    def published(self, inputs: Mapping[str, Any]) -> Published | None:
        """The finished result for exactly these inputs, if it is there and undamaged."""
        stamp = self.stamp()
        if stamp.get("inputs") != dict(inputs) or self._marker.exists():
            return None
        out = self.path / str(stamp.get("output"))
        if not _holds(out, stamp.get("files", {})):
            ui().warn(f"{self.what}: a file in {out} is not what was built; building it again")
            return None
        return Published(out, str(stamp["digest"]), stamp.get("facts", {}))

    def forget(self, artefacts: Sequence[Path]) -> None:
        """Make the next build link again what may be damaged."""
        for path in artefacts:
            path.unlink(missing_ok=True)

    def give_up(self) -> None:
        """Nothing was compiled and nothing will be: the build that was started is not one to go on with."""
        self._marker.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove everything that was compiled here; published results stay for whoever uses them."""
        for path in self.path.iterdir():
            if path.name.startswith("out-"):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def publish(self, files: Mapping[str, Path], inputs: Mapping[str, Any], facts: Mapping[str, Any]) -> Published:
        """Copy the results to a directory of their own and record what they were made of.

        Args:
            files: name in the published directory -> file to copy.
            inputs: everything that decided the content.
            facts: what later builds or readers want to know (duration, number of objects, release).

        """
        digests = {name: sha256_file(path) for name, path in sorted(files.items())}
        digest = sha256_json(digests)
        out = self.path / f"out-{digest[:12]}"
        if not _holds(out, digests):  # somebody may be running from it: leave it alone if it is right
            with atomic_dir(out) as work:
                for name, path in files.items():
                    (work / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, work / name)
        os.utime(out)
        stamp = {"inputs": dict(inputs), "output": out.name, "files": digests, "digest": digest, "facts": dict(facts)}
        atomic_write(self._stamp, json.dumps(stamp, indent=1, sort_keys=True))
        self._marker.unlink(missing_ok=True)
        older = sorted(self.path.glob("out-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in older:
            if path != out and path not in older[:_KEEP]:
                shutil.rmtree(path, ignore_errors=True)
        return Published(out, digest, facts)

    def start(self) -> dict[str, str]:
        """Note that a build is under way; returns the environment its processes must carry."""
        token = secrets.token_hex(8)
        atomic_write(self._marker, json.dumps({"token": token, "started": time.time()}))
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".old.log"))
        return {_TOKEN: token, **ccache_environment()}

    def make(
        self, argv: Sequence[str | Path], env: Mapping[str, str], on_line: Callable[[str], None] | None = None
    ) -> None:
        """Run one build command, politely (see ``nice``), everything it says going to the log.

        Raises:
            BuildError: it failed; the message holds the lines that say why.
            EnvironmentProblem: the disk is full.

        """
        try:
            run(["nice", "-n", str(self.nice), *argv], cwd=self.path, env=env, log=self.log, on_line=on_line)
        except CommandFailed as error:
            said = self.log.read_text(errors="replace").splitlines()
            if any(says_full_disk(line) for line in said):
                raise full_disk(f"while building {self.what}; what was compiled is kept") from error
            reasons = [line.strip() for line in said if _ERROR.search(line)][:8] or said[-12:]
            raise BuildError(
                "\n    ".join([f"{self.what} failed:", *reasons]),
                hint=f"the whole output is in {self.log}; the same command goes on from here",
                log=self.log,
            ) from error

    def _recover(self) -> None:
        """End compilers that outlived a killed harness; remove what they wrote only in part."""
        try:
            marker = json.loads(self._marker.read_text())
            token, started = str(marker["token"]), float(marker["started"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            token, started = "", 0.0
        ended = _end_marked(token) if token else 0
        removed = _remove_partial(self.path, started - 1)
        if ended or removed:
            ui().info(f"{self.what}: the last build was cut short; removed {removed} unfinished files, going on")


def _holds(folder: Path, digests: Mapping[str, str]) -> bool:
    """Whether all files are there with the right content."""
    try:
        return bool(digests) and all(sha256_file(folder / name) == digest for name, digest in digests.items())
    except OSError:
        return False


def _end_marked(token: str) -> int:
    """Kill processes that carry our token. Children of a killed make live on; only their mark finds them."""
    wanted = f"{_TOKEN}={token}".encode()
    ended = 0
    for _attempt in range(20):  # a process may fork between two scans
        found = 0
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
                    found += 1
        ended += found
        if not found:
            break
        time.sleep(0.05)
    return ended


def _remove_partial(top: Path, since: float) -> int:
    """Remove targets whose Kbuild record (``.NAME.cmd``) is older than they are, and broken records.

    Kbuild writes the record after the target, so a target that is newer was cut short; make alone would
    take it for finished. Only files written since ``since`` (Unix seconds) are looked at. An empty object
    file is never right. Removing too much costs a compiler-cache hit each.
    """
    removed = 0
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith("out-")]
        for name in names:
            path = Path(folder, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if status.st_mtime < since or not path.is_file() or path.is_symlink():
                continue
            record = path.with_name(f".{name}.cmd")
            if name.startswith(".") and name.endswith(".cmd"):
                broken = status.st_size == 0 or not path.read_bytes().endswith(b"\n")
                victims = [path, path.with_name(name[1:-4])] if broken else []
            elif record.exists() and record.stat().st_mtime < status.st_mtime:
                victims = [path, record]
            elif name.endswith((".o", ".a")) and (status.st_size == 0 or _in_kbuild_without_record(path, record)):
                victims = [path]
            else:
                victims = []
            for victim in victims:
                victim.unlink(missing_ok=True)
                removed += 1
    return removed


def _in_kbuild_without_record(path: Path, record: Path) -> bool:
    """Whether the file lies where Kbuild keeps records, but has none: its first compilation was cut short."""
    return not record.exists() and any(path.parent.glob(".*.cmd"))
