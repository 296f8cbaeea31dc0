# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages of the machine's own Debian mirror, verified by apt against the signed index.

The mirror's address is taken from apt's configuration. Suites that the machine does not list (a newer
release's sources, say) are looked up in a private apt state, so nothing on the machine changes.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.config import lock, paths
from harness.errors import SourceError
from harness.run import CommandFailed, run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def mirror_address() -> str:
    """The mirror that the machine uses for Debian's main archive.

    Raises:
        SourceError: apt is not configured for a Debian archive.
    """
    try:
        lines = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"]).stdout.splitlines()
    except CommandFailed as error:
        raise SourceError("apt-get cannot tell its sources", hint="apt-get update") from error
    for line in lines:
        address, _, rest = line.partition(" ")
        if rest == "Debian Debian":
            return address
    raise SourceError("this machine's apt has no Debian archive", hint="give a tree of your own with --source")


def download_binary(package: str, into: Path) -> Path:
    """Fetch a binary package's .deb without installing it; apt checks its digest.

    Raises:
        SourceError: no such package, or no mirror.
    """
    into.mkdir(parents=True, exist_ok=True)
    with lock(into / f".{package}.lock", what=f"the download of {package}", wait=300):
        words = _fetched_name(package)
        target = into / words
        if not target.exists():
            try:
                run(["apt-get", "download", package], cwd=into, env={"APT_CONFIG": ""})
            except CommandFailed as error:
                raise _unobtainable(package, error) from error
        if not target.exists():
            raise SourceError(f"apt-get did not deliver {target.name}", hint="apt-get update")
        return target


def _fetched_name(package: str) -> str:
    """The file name apt will write for a package's candidate version."""
    try:
        line = run(["apt-get", "download", "--print-uris", package]).stdout.strip().splitlines()[-1]
    except (CommandFailed, IndexError) as error:
        raise _unobtainable(package, error) from error
    return line.split()[1]


def _unobtainable(package: str, error: Exception) -> SourceError:
    said = error.completed.stderr.strip().splitlines()[-1:] if isinstance(error, CommandFailed) else []
    return SourceError(
        f"Debian package {package} cannot be had: {' '.join(said) or 'not found'}", hint="apt-get update"
    )


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


def _private_state(state: Path, suite: str) -> dict[str, str]:
    """An apt configuration whose lists and sources are ours alone; returns the environment that selects it."""
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "sources.list").write_text(f"deb-src [signed-by={KEYRING}] {mirror_address()} {suite} main\n")
    user = f'APT::Sandbox::User "{"root" if os.getuid() == 0 else ""}";' if os.getuid() == 0 else ""
    (state / "apt.conf").write_text(
        f'Dir::State "{state}";\nDir::State::status "/var/lib/dpkg/status";\nDir::Cache "{state}/cache";\n'
        f'Dir::Etc::sourcelist "{state}/sources.list";\nDir::Etc::sourceparts "-";\n{user}\n'
    )
    return {"APT_CONFIG": str(state / "apt.conf")}
