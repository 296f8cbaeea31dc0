# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetch one file over HTTP and prove that it is the right one, by digest or by signature."""

from __future__ import annotations

import errno
import logging
import lzma
import os
import shutil
import tempfile
from pathlib import Path

from harness.config import full_disk, paths, sha256_file
from harness.errors import SourceError
from harness.keyring import keyring_of
from harness.run import check_called_off, run
from harness.ui import Task, ui

_CONNECT_SECONDS, _READ_SECONDS = 5, 60


def mirror(url: str) -> str:
    """``url``, or the file of that name below ``$PARAKSM_MIRROR`` if that is set."""
    base = os.environ.get("PARAKSM_MIRROR")
    return f"{base.rstrip('/')}/{url.rsplit('/', 1)[-1]}" if base else url


class _Bar:
    """What pooch calls a progress bar, on top of our own."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @property
    def total(self) -> float | None:
        return self._task.total

    @total.setter
    def total(self, value: float) -> None:
        self._task.update(total=value or None)

    def update(self, size: int) -> None:
        check_called_off()
        self._task.advance(size)

    def reset(self) -> None:
        self._task.update(done=0)

    def close(self) -> None:
        """The block that opened the task closes it."""


def download(url: str, sha256: str) -> Path:
    """Fetch into the cache of archives; a file gets its name only whole and, with a digest, verified.

    A file that is there already is taken if its digest is right, and fetched again if not.

    Raises:
        SourceError: not reachable, or not the file that ``sha256`` (may be empty) names.
    """
    import pooch
    import requests

    name = url.rsplit("/", 1)[-1]
    target = paths().sources / name
    if target.exists():
        if not sha256 or sha256_file(target) == sha256:
            return target
        ui().warn(f"{target} is not what its pin says; it is fetched again")
        target.unlink()
    pooch.get_logger().setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="download-", dir=paths().tmp) as folder, ui().progress(name) as task:
        fetch = pooch.HTTPDownloader(progressbar=_Bar(task), timeout=(_CONNECT_SECONDS, _READ_SECONDS))
        try:
            pooch.retrieve(
                mirror(url), f"sha256:{sha256}" if sha256 else None, fname=name, path=folder, downloader=fetch
            )
        except ValueError as error:  # pooch's word for a wrong digest
            raise SourceError(
                f"{name} is altered or truncated: its SHA-256 is not {sha256}",
                hint="run the command again; if it stays, the mirror serves another file than the pinned one",
            ) from error
        except (requests.RequestException, OSError) as error:
            if error.errno == errno.ENOSPC:
                raise full_disk(f"while downloading {name}") from error
            raise SourceError(
                f"{name} cannot be downloaded ({_reason(error)})",
                hint="check the network, set PARAKSM_MIRROR to a mirror that holds it, or use --source",
            ) from error
        (Path(folder) / name).replace(target)
    return target


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    return f"HTTP status {response.status_code}" if response is not None else type(error).__name__


def verify_signature(archive: Path, signature_url: str, signer: str, *, uncompressed: bool) -> None:
    """Check a detached signature against the pinned fingerprint; a file that fails is removed.

    Args:
        archive: the downloaded file.
        signature_url: where its signature is.
        signer: fingerprint of the signing key.
        uncompressed: whether the signature is over the decompressed content, as kernel.org's are.

    Raises:
        SourceError: no keyring, or the signature is not a good one of that key over this file.
    """
    keyring = keyring_of(signer, archive.name)
    signature = download(signature_url, "")
    with tempfile.TemporaryDirectory(prefix="verify-", dir=paths().tmp) as folder:
        content = archive
        good = True
        if uncompressed:
            content = Path(folder) / archive.stem
            try:
                with lzma.open(archive) as packed, content.open("wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
            except (lzma.LZMAError, EOFError):
                good = False
        if good:
            done = run(["gpgv", "--status-fd", "1", "--keyring", keyring, signature, content], check=False)
            good = done.returncode == 0 and any(
                line.startswith("[GNUPG:] VALIDSIG ") and signer in line.split() for line in done.stdout.splitlines()
            )
    if not good:
        archive.unlink()
        signature.unlink()
        raise SourceError(
            f"{archive.name} is not signed by {signer}: it is altered, truncated or another's",
            hint="run the command again; if it stays, do not use this mirror",
        )
