# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages of the machine's own Debian mirror, verified by apt against the signed index.

The mirror's address is taken from apt's configuration. Suites that the machine does not list (a newer
release's sources, say) are looked up in a private apt state, so nothing on the machine changes.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from harness.config import atomic_write, lock, paths, sha256_file
from harness.errors import SourceError
from harness.run import CommandFailed, run
from harness.ui import ui

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


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
    """The machine's own sources with package lists of ours, fetched now; needs no root, changes nothing."""
    state = paths().tmp / "apt-machine"
    with lock(paths().tmp / ".apt-machine.lock", what="the package index", wait=300):
        config = _private_state(state, None)
        try:
            run(["apt-get", "update"], env=config)
        except CommandFailed as error:
            raise _unobtainable("index", error) from error
    return config


def download_binary(package: str, into: Path) -> Path:
    """Fetch a binary package's .deb without installing it, verified against the signed index.

    A file that is there already is taken if its digest is the index's, and fetched again if not.

    Raises:
        SourceError: no such package, no mirror, or the mirror serves another file.
    """
    into.mkdir(parents=True, exist_ok=True)
    with lock(into / f".{package}.lock", what=f"the download of {package}", wait=300):
        config: dict[str, str] = {}
        try:
            name, sha256 = _announced(package, config)
        except SourceError:
            config = _machine_lists()
            name, sha256 = _announced(package, config)
        target = into / name
        if target.exists():
            if sha256_file(target) == sha256:
                return target
            ui().warn(f"{target} is damaged; it is fetched again")
            target.unlink()
        with tempfile.TemporaryDirectory(prefix=f".{package}-", dir=into) as folder:
            try:
                run(["apt-get", "download", package], cwd=Path(folder), env=config)
            except CommandFailed as error:
                raise _unobtainable(package, error) from error
            got = Path(folder) / name
            if not got.exists() or sha256_file(got) != sha256:
                raise SourceError(f"{name} is altered or truncated: its SHA-256 is not {sha256}", hint="apt-get update")
            got.replace(target)
        return target


def _announced(package: str, config: dict[str, str]) -> tuple[str, str]:
    """File name and SHA-256 that the signed index gives for a package's candidate version."""
    try:
        said = run(["apt-get", "download", "--print-uris", package], env=config).stdout
    except CommandFailed as error:
        raise _unobtainable(package, error) from error
    match = re.search(r"^'[^']*' (\S+) \d+ SHA256:([0-9a-f]{64})$", said, re.MULTILINE)
    if match is None:
        raise SourceError(f"Debian package {package} has no SHA-256 in the index", hint="apt-get update")
    return match[1], match[2]


def _unobtainable(package: str, error: CommandFailed) -> SourceError:
    said = [line for line in error.completed.stderr.splitlines() if line.startswith("E:")] or ["not found"]
    return SourceError(f"Debian package {package} cannot be had: {said[0]}", hint="apt-get update")


def download_source(package: str, suite: str, into: Path) -> Path:
    """Fetch a source package of any suite of the mirror and return its .dsc.

    apt checks the suite's signature and, through the index, the digest of every file.

    Raises:
        SourceError: no mirror, no such package, or a digest that does not match.
    """
    state = paths().tmp / f"apt-{suite}"
    with lock(paths().tmp / f".apt-{suite}.lock", what=f"the package index of {suite}", wait=300):
        config = _private_state(state, suite)
        folder = into / f"{package}-{suite}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            run(["apt-get", "update"], env=config)
            run(["apt-get", "source", "--download-only", "--only-source", package], cwd=folder, env=config)
        except CommandFailed as error:
            raise _unobtainable(f"{package} (source, {suite})", error) from error
    found = sorted(folder.glob(f"{package}_*.dsc"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise SourceError(f"apt-get delivered no source of {package} from {suite}")
    return found[-1]


def _private_state(state: Path, suite: str | None) -> dict[str, str]:
    """An apt configuration whose lists are ours alone; returns the environment that selects it.

    With a suite its sources are the only ones, without one they are the machine's own.
    """
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    rows = [f'Dir::State "{state}";', 'Dir::State::status "/var/lib/dpkg/status";', f'Dir::Cache "{state}/cache";']
    if suite is not None:
        sources = state / "sources.list"
        atomic_write(sources, f"deb-src [signed-by={KEYRING}] {mirror_address()} {suite} main\n")
        rows += [f'Dir::Etc::sourcelist "{sources}";', 'Dir::Etc::sourceparts "-";']
    if os.getuid() == 0:
        rows.append('APT::Sandbox::User "root";')  # _apt cannot read below a home directory
    rows.append('Acquire::http::Timeout "20";')
    rows.append('Acquire::Retries "2";')
    atomic_write(state / "apt.conf", "\n".join(rows) + "\n")
    return {"APT_CONFIG": str(state / "apt.conf")}
