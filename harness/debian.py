# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages of the machine's own Debian mirror, verified by apt against the signed index.

The mirror's address is taken from apt's configuration. The lists by which a version is chosen are our own, at
most a day old, in a private apt state: a machine's lists may be months old or hold half of its suites, and only
root may refresh them. Nothing on the machine changes.
"""

from __future__ import annotations

import contextlib
import os
import re
import tarfile
import tempfile
import time
from pathlib import Path

from harness.config import atomic_write, lock, paths, sha256_file
from harness.errors import SourceError
from harness.packages import DAY
from harness.run import CommandFailed, run
from harness.ui import ui

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_MACHINE = "machine"  # the name of the lists of the machine's own sources


def mirror_address() -> str:
    """The mirror that the machine uses for Debian's main archive.

    Raises:
        SourceError: apt is not configured for a Debian archive.
    """
    for select in (dict, _machine_lists):  # a machine whose lists were never fetched knows no origins
        config: dict[str, str] = select()
        try:
            said = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"], env=config).stdout
        except CommandFailed as error:
            raise SourceError("apt-get cannot tell its sources", hint="apt-get update") from error
        for line in said.splitlines():
            address, _, rest = line.partition(" ")
            if rest == "Debian Debian":
                return address
    raise SourceError("this machine's apt has no Debian archive", hint="give a tree of your own with --source")


def _machine_lists() -> dict[str, str]:
    """The machine's own sources with lists of ours; where those cannot be had, the machine's, and that is said."""
    try:
        return _lists(_MACHINE, None)
    except SourceError as error:
        ui().warn(f"{error.message}; the machine's own package lists are used, however old they are")
        return {}


def _lists(name: str, suite: str | None, kind: str = "deb-src") -> dict[str, str]:
    """Lists of ours, fetched again if older than a day; returns the environment that selects them.

    Raises:
        SourceError: there are none and they cannot be fetched.
    """
    state = paths().tmp / f"apt-{name}"
    fetched = state / "fetched"
    with lock(state.with_name(f".{state.name}.lock"), what=f"the package index of {name}", wait=300):
        config = _private_state(state, suite, kind)
        age = time.time() - fetched.stat().st_mtime if fetched.exists() else None
        if age is None or age > DAY:
            try:
                run(["apt-get", "update", "-o", "APT::Update::Error-Mode=any"], env=config)
            except CommandFailed as error:
                if age is None:
                    raise _unobtainable(f"the package index of {name}", error) from error
                ui().warn(f"the package index of {name} cannot be fetched; the one of {age / DAY:.0f} days ago is used")
            else:
                atomic_write(fetched, "")
    return config


def _private_state(state: Path, suite: str | None, kind: str) -> dict[str, str]:
    """An apt configuration whose lists are ours alone; returns the environment that selects it.

    With a suite its sources of this kind are the only ones, without one they are the machine's own.
    """
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    rows = [f'Dir::State "{state}";', 'Dir::State::status "/var/lib/dpkg/status";', f'Dir::Cache "{state}/cache";']
    if suite is not None:
        sources = state / "sources.list"
        atomic_write(sources, f"{kind} [signed-by={KEYRING}] {mirror_address()} {suite} main\n")
        rows += [f'Dir::Etc::sourcelist "{sources}";', 'Dir::Etc::sourceparts "-";']
    if os.getuid() == 0:
        rows.append('APT::Sandbox::User "root";')  # _apt cannot read below a home directory
    rows.append('Acquire::http::Timeout "20";')
    rows.append('Acquire::Retries "2";')
    atomic_write(state / "apt.conf", "\n".join(rows) + "\n")
    return {"APT_CONFIG": str(state / "apt.conf")}


# --- versions -----------------------------------------------------------------------------------------


def upstream(version: str) -> str:
    """The upstream part of a package's version: ``1:10.0.13+ds-0+deb13u1`` -> ``10.0.13``."""
    return re.split(r"[-+~]", version.rpartition(":")[2], maxsplit=1)[0]


def _versions(package: str, config: dict[str, str]) -> list[str]:
    """What the lists have of a package, newest first."""
    said = run(["apt-cache", "madison", package], env=config, check=False).stdout
    found = {row.split("|")[1].strip() for row in said.splitlines() if row.count("|") >= 2}
    return sorted(found, key=lambda version: [int(number) for number in re.findall(r"\d+", version)], reverse=True)


def _named(package: str, wanted: str, config: dict[str, str]) -> str:
    """``package=VERSION`` for the newest packaging of an upstream version, the package alone for none wanted.

    Raises:
        SourceError: the mirror does not have it (any more); the message says what it has.
    """
    if not wanted:
        return package
    present = _versions(package, config)
    for version in present:
        if upstream(version) == wanted:
            return f"{package}={version}"
    others = ", ".join(dict.fromkeys(upstream(version) for version in present)) or "no version of it"
    raise SourceError(
        f"the mirror has no {package} {wanted}; it has {others}",
        hint="name one of these with --kernel, or give a tree of your own with --source",
    )


# --- files --------------------------------------------------------------------------------------------


def download_binary(package: str, into: Path, version: str = "", suite: str | None = None) -> Path:
    """Fetch a binary package's .deb without installing it, verified against the signed index.

    A file that is there already is taken if its digest is the index's, and fetched again if not.

    Args:
        package: its name.
        into: where the file goes.
        version: an upstream version; by default what the index says is newest.
        suite: any suite of the mirror; by default those that the machine itself uses.

    Raises:
        SourceError: no such package or version, no mirror, or the mirror serves another file.
    """
    into.mkdir(parents=True, exist_ok=True)
    with lock(into / f".{package}.lock", what=f"the download of {package}", wait=300):
        config = _machine_lists() if suite is None else _lists(f"{suite}-binary", suite, "deb")
        chosen = _named(package, version, config)
        name, sha256 = _announced(chosen, config)
        target = into / name
        if target.exists():
            if sha256_file(target) == sha256:
                return target
            ui().warn(f"{target} is damaged; it is fetched again")
            target.unlink()
        with tempfile.TemporaryDirectory(prefix=f".{package}-", dir=into) as folder:
            try:
                run(["apt-get", "download", chosen], cwd=Path(folder), env=config)
            except CommandFailed as error:
                raise _unobtainable(f"Debian package {package}", error) from error
            got = Path(folder) / name
            if not got.exists() or sha256_file(got) != sha256:
                raise SourceError(f"{name} is altered or truncated: its SHA-256 is not {sha256}", hint="apt-get update")
            got.replace(target)
        return target


def _announced(package: str, config: dict[str, str]) -> tuple[str, str]:
    """File name and SHA-256 that the signed index gives for a package (``NAME`` or ``NAME=VERSION``)."""
    try:
        said = run(["apt-get", "download", "--print-uris", package], env=config).stdout
    except CommandFailed as error:
        raise _unobtainable(f"Debian package {package}", error) from error
    match = re.search(r"^'[^']*' (\S+) \d+ SHA256:([0-9a-f]{64})$", said, re.MULTILINE)
    if match is None:
        raise SourceError(f"Debian package {package} has no SHA-256 in the index", hint="apt-get update")
    return match[1], match[2]


def _unobtainable(what: str, error: CommandFailed) -> SourceError:
    said = [line for line in error.completed.stderr.splitlines() if line.startswith("E:")] or ["not found"]
    return SourceError(f"{what} cannot be had: {said[0]}", hint="apt-get update")


def download_source(package: str, suite: str, into: Path, version: str = "") -> Path:
    """Fetch a source package of any suite of the mirror and return its .dsc.

    apt checks the suite's signature and, through the index, the digest of every file.

    Raises:
        SourceError: no mirror, no such package or version, or a digest that does not match.
    """
    config = _lists(suite, suite)
    folder = into / f"{package}-{suite}"
    with lock(into / f".{folder.name}.lock", what=f"the download of {package}", wait=300):
        folder.mkdir(parents=True, exist_ok=True)
        chosen = _named(package, version, config)
        try:
            run(["apt-get", "source", "--download-only", "--only-source", chosen], cwd=folder, env=config)
        except CommandFailed as error:
            raise _unobtainable(f"Debian package {package} (source, {suite})", error) from error
    found = sorted(folder.glob(f"{package}_*.dsc"), key=lambda file: file.stat().st_mtime)
    exact = [file for file in found if upstream(file.stem.partition("_")[2]) == version]
    if not (exact or found):
        raise SourceError(f"apt-get delivered no source of {package} from {suite}")
    return (exact or found)[-1]


def source_file(package: str, suite: str, member: str) -> bytes:
    """A file below ``debian/`` of a source package; only the packaging is fetched, not the upstream archive.

    Any version that the mirror still serves will do, the newest first.

    Raises:
        SourceError: no mirror, no such package, or none of its versions has the file.
    """
    config = _lists(suite, suite)
    reason = f"the mirror has no source of {package} in {suite}"
    for version in _versions(package, config):
        with tempfile.TemporaryDirectory(prefix="packaging-", dir=paths().tmp) as folder:
            try:
                run(
                    ["apt-get", "source", "--download-only", "--only-source", "--diff-only", f"{package}={version}"],
                    cwd=Path(folder),
                    env=config,
                )
            except CommandFailed as error:
                reason = _unobtainable(f"the packaging of {package} {version}", error).message
                continue
            for archive in Path(folder).glob("*.debian.tar.*"):
                with contextlib.suppress(KeyError), tarfile.open(archive) as packed:
                    if content := packed.extractfile(member):
                        return content.read()
            reason = f"the packaging of {package} {version} has no {member}"
    raise SourceError(reason, hint="apt-get update")
