# SPDX-License-Identifier: GPL-2.0-or-later
"""What a cell runs on: the built kernel, QEMU and image of an emulated machine, or a host reached over ssh.

Planning needs their identities only. They are remembered after every build together with a witness (a digest of
everything in this checkout and in the source trees that could change them), so that a plan can name its cells
without building; when the witness no longer fits, the keys are pending.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.config import PROJECT, atomic_write, paths, sha256_file, sha256_json
from harness.errors import HostError
from harness.systems import catalogue

if TYPE_CHECKING:
    from harness.host import Host
    from harness.images import ImageName
    from harness.workbench import Workbench

EMULATED = "emulated"
"""The target of cells that run on our own sealed machine."""

_PROGRAMS = ("fleet",)
"""Guest programs that a fleet run needs on a host reached over ssh."""


@dataclass(frozen=True)
class Artefacts:
    """Identities of everything a cell runs on."""

    target: str
    mode: Literal["measured", "functional"]
    """``measured``: virtual time, deterministic; ``functional``: the wall clock of a host."""
    inputs: Mapping[str, Any]
    """What goes into the key of every cell, plain values."""
    capabilities: frozenset[str] = frozenset()
    """What the kernel and the machine can, in the words of :mod:`harness.systems`."""


def of_workbench(bench: Workbench) -> Artefacts:
    """The identities of an emulated machine's parts."""
    kernel, qemu = bench.kernel, bench.qemu
    return Artefacts(
        EMULATED,
        "measured",
        {
            "kernel": {
                "version": kernel.version,
                "release": kernel.release,
                "digest": kernel.digest,
                "config": sha256_file(kernel.config),
                "source": kernel.applied.tree.identity,
                "tree": kernel.applied.tree_id,
                "series": kernel.applied.series_digest,
                "edit": kernel.applied.dirty_digest,
            },
            "qemu": {
                "version": qemu.version,
                "digest": qemu.digest,
                "source": qemu.applied.tree.identity,
                "tree": qemu.applied.tree_id,
                "series": qemu.applied.series_digest,
                "edit": qemu.applied.dirty_digest,
            },
            "image": {"name": bench.image.name, "digest": bench.image.digest},
        },
        frozenset(kernel.applied.provides) | frozenset(qemu.applied.provides),
    )


def promised(upto: str | None = None) -> frozenset[str]:
    """What the series of this checkout provide: what a machine will be capable of once it is built."""
    from harness import patchseries

    series = [patchseries.load(topic) for topic in patchseries.TOPICS.values()]
    parts = [item.prefix(upto) if item.topic == "linux" else item for item in series]
    return frozenset(name for item in parts for patch in item.patches for name in patch.provides)


def of_running(host: Host) -> frozenset[str]:
    """What a host that runs can, as its sysfs shows it."""
    out = set()
    for name, capability in catalogue().capability.items():
        read = host.run(["sh", "-c", 'test -e "$1" && { cat "$1" 2>/dev/null; true; }', "look", capability.file],
                        timeout=30, check=False)  # fmt: skip
        if read.returncode == 0 and capability.shown_by(read.stdout):
            out.add(name)
    return frozenset(out)


def programs() -> dict[str, Path]:
    """The static guest programs a host needs, by name, built if they are not."""
    from harness import images

    return {name: images.program(name) for name in _PROGRAMS}


def of_host(host: Host, binaries: Mapping[str, Path]) -> Artefacts:
    """The identities of a host: its address and key, its kernel, and the programs we bring.

    Raises:
        HostError: it is not Linux with KSM, or we are not root there.

    """
    release = host.run(["uname", "-r"], timeout=30).stdout.strip()
    version = host.run(["uname", "-v"], timeout=30).stdout.strip()
    machine = host.run(["uname", "-m"], timeout=30).stdout.strip()
    if machine != "x86_64":
        raise HostError(f"{host.address}: {machine} machine; the guest programs are for x86_64")
    if host.run(["id", "-u"], timeout=30).stdout.strip() != "0":
        raise HostError(f"{host.address}: {host.address.user} is not root there", hint="log in as root")
    if host.run(["test", "-w", "/sys/kernel/mm/ksm/run"], timeout=30, check=False).returncode != 0:
        raise HostError(f"{host.address}: its kernel {release} has no KSM", hint="boot one with CONFIG_KSM=y")
    return Artefacts(
        str(host.address),
        "functional",
        {
            "kernel": {"version": release, "release": release, "build": version},
            "host": {"address": str(host.address), "key": host.key},
            "programs": {name: sha256_file(path) for name, path in binaries.items()},
        },
        of_running(host),
    )


# --- memory of the last build ---------------------------------------------------------------------------


def _memo(kernel: str | None, source: str | None, upto: str | None, image: ImageName) -> Path:
    return paths().cache / "identities" / f"{image}-{sha256_json([kernel, source, upto])[:16]}.json"


def _witness(trees: list[str]) -> str:
    """Digest of all that decides what a build gives: our own files and the edits of the source trees."""
    from harness.sources import git

    digest = hashlib.sha256()
    files = [path for name in ("kernel", "patches", "vm-images") for path in (PROJECT / name).rglob("*")]
    files += (PROJECT / "harness").glob("*.py")
    for path in sorted(files):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(PROJECT)}\0{sha256_file(path)}\n".encode())
    for tree in trees:
        edits = git(Path(tree), "status", "--porcelain") + git(Path(tree), "diff", "HEAD")
        digest.update(f"{tree}\0{git(Path(tree), 'rev-parse', 'HEAD')}\0{edits}\n".encode())
    return digest.hexdigest()


def remember(
    bench: Workbench, kernel: str | None, source: str | None, upto: str | None = None, image: ImageName = "measured"
) -> Artefacts:
    """Keep the identities of what was just built for later plans; return them."""
    made = of_workbench(bench)
    trees = [str(bench.kernel.applied.tree.path), str(bench.qemu.applied.tree.path)]
    files = [bench.kernel.bzimage, bench.qemu.binary, bench.image.path]
    atomic_write(
        _memo(kernel, source, upto, image),
        json.dumps(
            {
                "witness": _witness(trees),
                "trees": trees,
                "files": [str(path) for path in files],
                "inputs": dict(made.inputs),
                "capabilities": sorted(made.capabilities),
            }
        ),
    )
    return made


def recall(
    kernel: str | None, source: str | None, upto: str | None = None, image: ImageName = "measured"
) -> Artefacts | None:
    """The identities of what is built and still fits this checkout; None when that cannot be known without building.

    A tree of the user's (``source``) may have changed in any way, so nothing is recalled for it.
    """
    if source is not None:
        return None
    try:
        data = json.loads(_memo(kernel, source, upto, image).read_text())
        present = all(Path(path).is_file() for path in data["files"]) and all(Path(t).is_dir() for t in data["trees"])
        if not present or data["witness"] != _witness(data["trees"]):
            return None
        return Artefacts(EMULATED, "measured", data["inputs"], frozenset(data["capabilities"]))
    except (OSError, ValueError, KeyError):
        return None
