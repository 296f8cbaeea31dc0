# SPDX-License-Identifier: GPL-2.0-or-later
"""Where Linux and QEMU trees come from, and how each is known to be the right one.

Pins live in ``kernel/sources.toml``. Whatever the origin, the result is a git work tree in the cache whose
pristine content is tagged ``base``; a user's own directory is never written to.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness import debian, packages
from harness.config import (
    PROJECT,
    atomic_dir,
    atomic_write,
    full_disk,
    lock,
    need_disk,
    paths,
    says_full_disk,
    sha256_file,
    sha256_json,
)
from harness.download import download, verify_signature
from harness.errors import SourceError, UsageError
from harness.keyring import keyring_of
from harness.run import CommandFailed, run
from harness.ui import ui

Kind = Literal["linux", "qemu"]

_STAMP = "2023-02-19T00:00:00Z"  # 6.2's release day; any fixed date makes commit ids reproducible
_SECOND_TREE = 2 << 30  # bytes: Linux's files; the objects are borrowed
GIT_IDENTITY = {
    "GIT_AUTHOR_NAME": "paraksm",
    "GIT_AUTHOR_EMAIL": "paraksm@localhost",
    "GIT_AUTHOR_DATE": _STAMP,
    "GIT_COMMITTER_NAME": "paraksm",
    "GIT_COMMITTER_EMAIL": "paraksm@localhost",
    "GIT_COMMITTER_DATE": _STAMP,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}
"""Environment for git in our trees: fixed identity and date, no configuration of the user's."""


@dataclass(frozen=True)
class Pin:
    """One entry of ``kernel/sources.toml``."""

    kind: Kind
    version: str
    series: str
    via: Literal["tarball", "debian-source", "debian-binary"]
    url: str = ""
    sha256: str = ""
    signature: str = ""
    signer: str = ""
    signed: Literal["archive", "uncompressed"] = "archive"
    package: str = ""
    suite: str = ""
    member: str = ""


@dataclass(frozen=True)
class SourceTree:
    """A verified tree, ready to be patched.

    ``identity`` is the digest of the archive or the git tree it came from; ``series`` names the rendering
    of the patch series that applies.
    """

    kind: Kind
    version: str
    series: str
    path: Path
    identity: str
    origin: str


def pins(kind: Kind, file: Path | None = None) -> list[Pin]:
    """The pinned sources of a kind, in order of preference.

    Raises:
        SourceError: the file of pins is malformed.
    """
    file = file or PROJECT / "kernel" / "sources.toml"
    try:
        data = tomllib.loads(file.read_text())
        return [Pin(kind=kind, **entry) for entry in data.get(kind, [])]
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise SourceError(f"{file}: {error}", hint=f"git checkout {file}") from error


def obtain(kind: Kind, version: str | None = None, source: str | None = None) -> SourceTree:
    """Return a verified tree, from the cache if it is there.

    What is in the cache stays what it is: a series ("6.1") keeps the point release that it had when it was
    fetched, until that is removed or another is asked for by its full version.

    Args:
        kind: what is wanted.
        version: a pinned version or a point release that Debian packages; it is that or an error. ``None``
            takes the first that is cached or, if none is, the first obtainable.
        source: a directory, an archive or ``REPOSITORY@REVISION`` instead of a pin.

    Raises:
        UsageError: no such pin, or ``source`` is none of the three.
        SourceError: not obtainable, or not what its pin says.
    """
    if source is not None:
        return _from_user(kind, source)
    candidates = pins(kind)
    if version is not None:
        if pin := _pin_of(version, candidates):
            return _cached(pin) or _fetch(pin)
        known = ", ".join(pin.version for pin in candidates)
        raise UsageError(
            f"no pinned {kind} {version}; pinned are {known}",
            hint=f"use one of them, or --source with a directory, an archive or REPOSITORY@REVISION of {version}",
        )
    for pin in candidates:
        if found := _cached(pin):
            ui().info(f"{kind} {found.version} ({found.origin})")
            return found
    refused: list[str] = []
    for pin in candidates:
        try:
            tree = _fetch(pin)
        except SourceError as error:
            refused.append(f"{pin.version}: {error.message.splitlines()[0]}")
            continue
        ui().info(f"{kind} {tree.version} ({tree.origin})" + "".join(f"\n  not {line}" for line in refused))
        return tree
    raise SourceError(
        f"no pinned {kind} can be obtained:\n  " + "\n  ".join(refused),
        hint="check the network, or give a tree of your own with --source",
    )


def _pin_of(version: str, candidates: list[Pin]) -> Pin | None:
    """The pin of a version; one for a point release is made of the pin of its series at Debian."""
    for pin in candidates:
        if version in (pin.version, f"{pin.version}.0"):
            return pin
    for pin in candidates:
        if pin.via != "tarball" and pin.version == pin.series == series_of(version):
            return replace(pin, version=version)
    return None


def obtainable(kind: Kind) -> list[tuple[Pin, SourceTree | None]]:
    """Every pin with its cached tree, if there is one. Nothing is fetched."""
    return [(pin, _cached(pin)) for pin in pins(kind)]


# --- the cache of trees -------------------------------------------------------------------------------


def _record(pin: Pin) -> Path:
    return paths().trees / f"{pin.kind}-{pin.version}.json"


def _cached(pin: Pin) -> SourceTree | None:
    """The tree that this very pin, digest and all, led to; ``None`` also if what is there is damaged.

    A point release may also be what its series led to.
    """
    found = _recorded(pin)
    if found is None and pin.version != pin.series and pin.via != "tarball":
        found = _recorded(replace(pin, version=pin.series))
        if found and found.version != pin.version:
            return None
    return found


def _recorded(pin: Pin) -> SourceTree | None:
    try:
        data = json.loads(_record(pin).read_text())
        if data.pop("pin") != sha256_json(asdict(pin)):
            return None
        # a cache that was moved or copied has its trees with it, whatever place the record tells
        tree = SourceTree(**{**data, "path": paths().trees / Path(data["path"]).name})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return tree if _has_base(tree.path) else None


def _has_base(tree: Path) -> bool:
    return (tree / ".git").is_dir() and git(tree, "rev-parse", "-q", "--verify", "base^{tree}", check=False) != ""


def _fetch(pin: Pin) -> SourceTree:
    with lock(paths().trees / f".{pin.kind}-{pin.version}.lock", what=f"the {pin.kind} {pin.version} tree", wait=900):
        if found := _cached(pin):
            return found
        packages.require("sources")
        need_disk(paths().trees, 4 << 30, f"unpacking {pin.kind} {pin.version}")
        ui().step(f"obtaining {pin.kind} {pin.version}")
        unpack = {"tarball": _tarball, "debian-source": _debian_source, "debian-binary": _debian_binary}[pin.via]
        identity, origin, extract = unpack(pin)
        tree = _import(pin.kind, identity, origin, extract)
        if not f"{tree.version}.".startswith(f"{pin.version}."):
            raise SourceError(
                f"{origin} holds {pin.kind} {tree.version}, its pin says {pin.version}",
                hint="correct kernel/sources.toml, or give a tree of your own with --source",
            )
        record = {**asdict(tree), "path": str(tree.path), "pin": sha256_json(asdict(pin))}
        atomic_write(_record(pin), json.dumps(record, indent=1))
        return tree


Extract = Callable[[Path], None]


def _import(kind: Kind, identity: str, origin: str, extract: Extract) -> SourceTree:
    """Unpack into the cache and make it a git work tree with the pristine commit tagged ``base``."""
    final = paths().trees / f"{kind}-{identity.partition(':')[2][:12]}"
    with lock(final.with_name(f".{final.name}.lock"), what=f"the tree {final}", wait=900):
        if not _has_base(final):
            for leftover in final.parent.glob(f".{final.name}.*/"):  # of an import that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            with atomic_dir(final) as work, ui().progress(f"unpacking {kind}"):
                extract(work)
                tree_version(kind, work)
                _commit_base(work)
    version = tree_version(kind, final)
    return SourceTree(kind, version, series_of(version), final, identity, origin)


def beside(tree: SourceTree) -> SourceTree:
    """A second work tree of the same sources, for what must not disturb the first and the edits in it.

    It borrows the first one's objects, and is made anew when it no longer fits them.
    """
    path = tree.path.with_name(f"{tree.path.name}-prefix")
    with lock(path.with_name(f".{path.name}.lock"), what=f"the tree {path}", wait=300):
        base = git(tree.path, "rev-parse", "base^{commit}")
        if not path.exists() or git(path, "rev-parse", "base^{commit}", check=False) != base:
            need_disk(paths().trees, _SECOND_TREE, f"a second tree of {tree.kind} {tree.version}")
            shutil.rmtree(path, ignore_errors=True)
            with atomic_dir(path) as work:
                git(tree.path, "clone", "-q", "--shared", "--no-checkout", str(tree.path), str(work))
                git(work, "config", "gc.auto", "0")
                git(work, "checkout", "-q", "-B", "paraksm", "base")
    return dataclasses.replace(tree, path=path)


def _commit_base(work: Path) -> None:
    git(work, "init", "-q", "-b", "paraksm")
    # without this threshold every file becomes a loose object: minutes instead of seconds for Linux
    git(work, "-c", "core.bigFileThreshold=1", "-c", "core.compression=0", "add", "-A", "-f", ".")
    git(work, "commit", "-q", "--no-verify", "-m", "base")
    git(work, "tag", "base")
    git(work, "config", "gc.auto", "0")


def git(
    tree: Path, *words: str, env: dict[str, str] | None = None, input: str | None = None, check: bool = True
) -> str:
    """Run git in a tree of ours and return its standard output without the final newline."""
    done = run(["git", "-C", tree, *words], env={**GIT_IDENTITY, **(env or {})}, input=input, check=check)
    return done.stdout.rstrip("\n")


def tree_version(kind: Kind, tree: Path) -> str:
    """The version a tree says it has: Makefile for Linux, VERSION for QEMU.

    Raises:
        SourceError: the directory is not such a tree.
    """
    try:
        if kind == "qemu":
            return (tree / "VERSION").read_text().strip()
        text = (tree / "Makefile").read_text()
        words = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL) *= *(\d+)", text, re.MULTILINE))
        sublevel = words.get("SUBLEVEL", "0")
        return f"{words['VERSION']}.{words['PATCHLEVEL']}" + (f".{sublevel}" if sublevel != "0" else "")
    except (OSError, KeyError) as error:
        raise SourceError(f"{tree} is not a {kind} tree", hint="give the top directory of the sources") from error


def series_of(version: str) -> str:
    """Major and minor number, which name the rendering: ``6.1.192`` -> ``6.1``."""
    return ".".join(version.split(".")[:2])


# --- pinned origins -----------------------------------------------------------------------------------


def _tarball(pin: Pin) -> tuple[str, str, Extract]:
    name = pin.url.rsplit("/", 1)[-1]
    if not pin.sha256:
        if not (pin.signature and pin.signer):
            raise SourceError(
                f"{name} is pinned without digest and signature", hint="add sha256 to its entry in kernel/sources.toml"
            )
        keyring_of(pin.signer, name)  # before a hundred megabytes are fetched in vain
    archive = download(pin.url, pin.sha256)
    if not pin.sha256:
        verify_signature(archive, pin.signature, pin.signer, uncompressed=pin.signed == "uncompressed")
    digest = pin.sha256 or sha256_file(archive)
    return f"sha256:{digest}", name, lambda work: untar(archive, work)


def untar(archive: Path, work: Path) -> None:
    """Unpack an archive without its top directory.

    Raises:
        SourceError: it is truncated or no archive.
        EnvironmentProblem: the disk is full.
    """
    try:
        run(
            ["tar", "--extract", "--strip-components=1", "--no-same-owner", "--file", archive, "--directory", work],
            env={"LC_ALL": "C"},
        )
    except CommandFailed as error:
        if says_full_disk(error.completed.stderr):
            raise full_disk(f"while unpacking {archive.name}; nothing of it is kept") from error
        said = error.completed.stderr.strip().splitlines() or ["tar says nothing"]
        raise SourceError(
            f"{archive.name} is truncated or not an archive: {said[0]}",
            hint=f"remove {archive}, or give a whole one",
        ) from error


def _point_release(pin: Pin) -> str:
    """The version that a package must have; empty if the pin is for whatever its series is at."""
    return "" if pin.version == pin.series else pin.version


def _debian_binary(pin: Pin) -> tuple[str, str, Extract]:
    package = debian.download_binary(pin.package, paths().sources, _point_release(pin))

    def extract(work: Path) -> None:
        inner = paths().tmp / f"{pin.package}-{os.getpid()}"
        try:
            run(["dpkg-deb", "--extract", package, inner])
            untar(inner / pin.member, work)
        finally:
            shutil.rmtree(inner, ignore_errors=True)

    return f"sha256:{sha256_file(package)}", f"Debian package {package.stem}", extract


def _debian_source(pin: Pin) -> tuple[str, str, Extract]:
    description = debian.download_source(pin.package, pin.suite, paths().sources, _point_release(pin))

    def extract(work: Path) -> None:
        inner = work / "unpacked"
        run(["dpkg-source", "--no-copy", "--extract", description, inner])
        for entry in inner.iterdir():
            entry.rename(work / entry.name)
        inner.rmdir()

    return f"sha256:{sha256_file(description)}", f"Debian source package {description.stem}", extract


# --- the user's own sources ---------------------------------------------------------------------------


def _from_user(kind: Kind, source: str) -> SourceTree:
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        tree_version(kind, path)
        if (path / ".git").exists():
            return _from_git(kind, path, "")
        identity = f"dir:{_directory_digest(path)}"
        return _import(kind, identity, f"directory {path}", lambda work: _copy(path, work))
    if path.is_file():
        return _import(kind, f"sha256:{sha256_file(path)}", f"archive {path.name}", lambda work: untar(path, work))
    location, _, revision = source.rpartition("@")
    repository = Path(location).expanduser().absolute()
    if revision and location and repository.is_dir():
        return _from_git(kind, repository, revision)
    raise UsageError(
        f"--source {source}: no such directory or file", hint="give a directory, an archive or REPOSITORY@REVISION"
    )


def _from_git(kind: Kind, repository: Path, revision: str) -> SourceTree:
    """Import a revision; without one, the work tree as it is, with every edit that git does not ignore.

    Index and new objects go to a directory of ours, so nothing is written to the user's repository
    (git may freshen the time stamp of an object there that it would have written again).
    """
    with tempfile.TemporaryDirectory(prefix="import-", dir=paths().tmp) as folder:
        env = {"GIT_INDEX_FILE": f"{folder}/index"}

        def ask(*words: str) -> str:
            return git(repository, "-c", "safe.directory=*", "-c", "core.fsmonitor=false", *words, env=env)

        try:
            if revision:
                tree_id = ask("rev-parse", "--verify", f"{revision}^{{tree}}")
            else:
                ours = Path(folder) / "objects"
                ours.mkdir()
                store = ask("rev-parse", "--path-format=absolute", "--git-path", "objects")
                used = Path(ask("rev-parse", "--path-format=absolute", "--git-dir")) / "index"
                if used.exists():
                    shutil.copyfile(used, env["GIT_INDEX_FILE"])  # spares hashing what did not change
                env |= {"GIT_OBJECT_DIRECTORY": str(ours), "GIT_ALTERNATE_OBJECT_DIRECTORIES": store}
                ask("add", "--all")
                tree_id = ask("write-tree")
        except CommandFailed as error:
            raise UsageError(
                f"{repository} has no revision {revision or 'to import'}: {error.completed.stderr.strip()}",
                hint=f"git -C {repository} tag --list",
            ) from error

        def extract(work: Path) -> None:
            try:
                ask("read-tree", tree_id)
                ask("checkout-index", "--all", f"--prefix={work}/")
            except CommandFailed as error:
                said = error.completed.stderr.strip().splitlines()[:1]
                raise SourceError(
                    f"{repository} lacks files of {revision or 'its work tree'}: {' '.join(said)}",
                    hint="fetch the whole repository, or give a directory",
                ) from error

        return _import(kind, f"tree:{tree_id}", f"git {repository.name}@{revision or 'work tree'}", extract)


def _directory_digest(path: Path) -> str:
    """Digest of names, sizes and times: enough to notice an edit without reading a gigabyte."""
    import hashlib

    digest = hashlib.sha256(str(path).encode())
    for root, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            status: Any = (Path(root) / name).lstat()
            digest.update(f"{root}/{name}:{status.st_size}:{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _copy(source: Path, work: Path) -> None:
    run(["cp", "--recursive", "--no-dereference", "--preserve=mode,timestamps", "--reflink=auto", f"{source}/.", work])
    run(["chmod", "--recursive", "u+w", work])
