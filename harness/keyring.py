# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys that releases are signed with: taken from Debian's packaging, which carries them under Debian's signature.

A pin names a fingerprint; ``[keys.FINGERPRINT]`` in ``kernel/sources.toml`` names the source package whose
``debian/upstream`` has that key. Only the key with that very fingerprint is kept, whatever else the file holds.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import tomllib
from pathlib import Path

from harness import debian
from harness.config import PROJECT, atomic_write, lock, paths
from harness.errors import HarnessError, SourceError
from harness.run import run
from harness.ui import ui


def keyring_of(signer: str, what: str) -> Path:
    """A keyring with a pinned key: ``$PARAKSM_KEYRING``, or the one from Debian's packaging.

    Args:
        signer: the key's fingerprint.
        what: the file that is to be verified, for messages.

    Raises:
        SourceError: it cannot be had, so ``what`` cannot be verified.
    """
    if given := os.environ.get("PARAKSM_KEYRING"):
        if not Path(given).is_file():
            raise SourceError(
                f"{what} cannot be verified: PARAKSM_KEYRING={given} is no file",
                hint=f"gpg --export {signer} > {given}",
            )
        return Path(given).absolute()
    kept = paths().sources / "keys" / f"{signer}.gpg"
    with lock(kept.with_name(f".{signer}.lock"), what=f"the key {signer}", wait=300):
        try:
            if not kept.is_file() or _fingerprints(kept.read_bytes()) != [signer]:
                atomic_write(kept, _from_debian(signer))
        except HarnessError as error:
            raise SourceError(
                f"{what} cannot be verified: the key {signer} cannot be had ({error.message})",
                hint=f"gpg --export {signer} > FILE, then set PARAKSM_KEYRING=FILE",
            ) from error
    return kept


def _from_debian(signer: str) -> bytes:
    places = tomllib.loads((PROJECT / "kernel" / "sources.toml").read_text()).get("keys", {})
    if signer not in places:
        raise SourceError("kernel/sources.toml does not say who packages it")
    place = places[signer]
    ui().info(f"taking the key {signer} from Debian's packaging of {place['package']} ({place['suite']})")
    key = select(debian.source_file(place["package"], place["suite"], place["file"]), signer)
    if not key:
        raise SourceError(f"{place['file']} of Debian's {place['package']} does not have it")
    return key


def select(keys: bytes, fingerprint: str) -> bytes:
    """Of some keys, armoured or not, the one with this primary fingerprint, binary; empty if it is not there."""
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        run(["gpg", "--batch", "--quiet", "--homedir", home, "--import"], input=keys)
        file = Path(home) / "key"
        run(["gpg", "--batch", "--quiet", "--homedir", home, "--output", file, "--export", fingerprint], check=False)
        key = file.read_bytes() if file.exists() else b""
    return key if _fingerprints(key) == [fingerprint] else b""


def _fingerprints(keys: bytes) -> list[str]:
    """Primary fingerprints of the keys in a file, as gpg reads them."""
    if not keys:
        return []
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        said = run(
            ["gpg", "--batch", "--homedir", home, "--with-colons", "--show-keys"], input=keys, check=False
        ).stdout
    rows = [row.split(":") for row in said.splitlines()]
    return [following[9] for row, following in itertools.pairwise(rows) if row[0] == "pub" and following[0] == "fpr"]
