# SPDX-License-Identifier: GPL-2.0-or-later
"""One program out of a Debian source package, made by the package's own makefile.

apt verifies the package by the suite's signed index, dpkg-source the archives by the package's own description.
Neither the place where it is built nor the builder's environment is in the result.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import debian, packages
from harness.builddir import ccache_environment, cpus
from harness.config import full_disk, need_disk, paths, says_full_disk
from harness.errors import BuildError, SourceError
from harness.run import CommandFailed, run
from harness.ui import ui

_ROOM = 256 << 20  # bytes: a program's sources and objects
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class SourcePackage:
    """What to fetch and what to make of it.

    Attributes:
        package: its name at Debian.
        suite: any suite of the mirror.
        version: the upstream version; Debian's own revisions of it, which mend its flaws, are welcome.
        directory: where in the package make runs.
        target: what make is asked for: the file that is the program.
        variables: for make; ``{objects}`` in a value stands for objects of ours that are linked in.

    """

    package: str
    suite: str
    version: str
    directory: str
    target: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> SourcePackage:
        """Read it from a recipe's table."""
        return cls(**recipe)


def description(wanted: SourcePackage) -> Path:
    """The package's .dsc, which names its archives with their digests; fetched unless it is there.

    Raises:
        SourceError: the mirror has no such package or version.

    """
    present = [
        file
        for file in sorted((paths().sources / f"{wanted.package}-{wanted.suite}").glob(f"{wanted.package}_*.dsc"))
        if debian.upstream(file.stem.partition("_")[2]) == wanted.version
    ]
    if present:
        return present[-1]
    packages.require("sources")
    try:
        return debian.download_source(wanted.package, wanted.suite, paths().sources, wanted.version)
    except SourceError as error:
        raise SourceError(
            error.message, hint="check the network; suite and version are pinned in vm-images/recipes.toml"
        ) from error


def build(wanted: SourcePackage, source: Path, objects: Sequence[Path], work: Path, log: Path) -> Path:
    """Unpack a package into an empty directory and make its program there.

    Args:
        wanted: what to make.
        source: the .dsc that :func:`description` gave.
        objects: objects of ours to be linked in.
        work: the directory; it may be removed afterwards.
        log: gets everything that make and the compilers say.

    Raises:
        SourceError: an archive is damaged; the description is removed, so that the next run fetches all anew.
        BuildError: it does not compile.
        EnvironmentProblem: the disk is full.

    """
    need_disk(work, _ROOM, f"building {wanted.package}")
    packages.require("sources")
    tree = work / "tree"
    with ui().progress(f"{wanted.package} {wanted.version}", share=True) as task:
        _unpack(source, tree)
        done = 0

        def count(line: str) -> None:
            nonlocal done
            done += 1
            task.update(done=done, note=_COLOUR.sub("", line).strip().rsplit("/", 1)[-1][-40:])

        named = " ".join(str(file) for file in objects)
        words = [f"{name}={value.replace('{objects}', named)}" for name, value in wanted.variables.items()]
        try:
            run(
                ["env", "-i", *_environment(), "make", f"-j{cpus()}", "-C", tree / wanted.directory, wanted.target,
                 *words],
                log=log,
                on_line=count,
            )  # fmt: skip
        except CommandFailed as error:
            said = log.read_text(errors="replace")
            if says_full_disk(said):
                raise full_disk(f"while building {wanted.package}") from error
            raise BuildError(f"{wanted.package} does not compile:\n{said[-2000:]}", log=log) from error
    made = tree / wanted.directory / wanted.target
    if not made.is_file():
        raise BuildError(f"{wanted.package}: make succeeded but left no {wanted.target}", log=log)
    return made


def _environment() -> list[str]:
    """All that a makefile sees of its builder: no flags of his, no date, no host, no git repository around."""
    return [
        f"PATH={os.environ.get('PATH', os.defpath)}",
        "SOURCE_DATE_EPOCH=0",
        "GIT_DIR=/nonexistent",
        *(f"{name}={value}" for name, value in ccache_environment().items()),
    ]


def _unpack(source: Path, tree: Path) -> None:
    try:
        run(["dpkg-source", "--no-copy", "--extract", source, tree])
    except CommandFailed as error:
        shutil.rmtree(tree, ignore_errors=True)
        if says_full_disk(error.completed.stderr):
            raise full_disk(f"while unpacking {source.name}") from error
        source.unlink(missing_ok=True)
        said = error.completed.stderr.strip().splitlines() or ["dpkg-source says nothing"]
        raise SourceError(
            f"{source.name} names files that are damaged or absent: {said[-1]}", hint="run again: they are fetched anew"
        ) from error
