# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys for the ssh server of a guest: made here, handed in through fw_cfg, so that both ends can be strict."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.config import atomic_write


@dataclass(frozen=True)
class Access:
    """What is needed to log in to a guest as root, and what the guest needs to let us."""

    port: int
    identity: Path
    known_hosts: Path
    fw_cfg: Mapping[str, Path]

    @property
    def url(self) -> str:
        """The address for ``--target``."""
        return f"ssh://root@127.0.0.1:{self.port}"

    @property
    def command(self) -> str:
        """A line that logs in with OpenSSH, host key checked."""
        return (
            f"ssh -p {self.port} -i {shlex.quote(str(self.identity))}"
            f" -o UserKnownHostsFile={shlex.quote(str(self.known_hosts))} -o IdentitiesOnly=yes root@127.0.0.1"
        )


def grant(folder: Path, port: int) -> Access:
    """Make a host key, a login key and a ``known_hosts`` file in ``folder``."""
    identity, host_key = folder / "ssh_identity", folder / "ssh_host_key"
    login = _key(identity, "paraksm")
    host = _key(host_key, "paraksm guest")
    authorized, known_hosts = folder / "authorized_keys", folder / "known_hosts"
    atomic_write(authorized, f"{login}\n")
    atomic_write(known_hosts, f"[127.0.0.1]:{port} {host}\n")
    return Access(port, identity, known_hosts, {"authorized_keys": authorized, "hostkey": host_key})


def _key(path: Path, comment: str) -> str:
    """Write an Ed25519 private key that only we can read; return the public line."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(private)
    return f"{public.decode()} {comment}"
