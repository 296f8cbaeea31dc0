# SPDX-License-Identifier: GPL-2.0-or-later
"""Configure and build Linux: out of tree, through ccache, the same bytes every time."""

from __future__ import annotations

import hashlib
import re
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import kconfig, packages
from harness.builddir import BuildDir, Published, ccache_environment, cpus, toolchain
from harness.config import PROJECT, atomic_write, need_disk, paths, sha256_json
from harness.errors import BuildError, UsageError
from harness.patches import AppliedSeries, held
from harness.patchseries import load
from harness.ui import ui

_ARTEFACTS = {
    "bzImage": "arch/x86/boot/bzImage",
    "vmlinux": "vmlinux",
    "System.map": "System.map",
    "config": ".config",
}
_RELOCS = "vmlinux.relocs"
_MOVABLE = "RANDOMIZE_BASE"
FIXED = (  # Documentation/kbuild/reproducible-builds.rst
    "KBUILD_BUILD_TIMESTAMP=2023-02-19 00:00:00 UTC",
    "KBUILD_BUILD_USER=paraksm",
    "KBUILD_BUILD_HOST=paraksm",
    "KBUILD_BUILD_VERSION=1",
    # set though empty: otherwise a patched git tree gets a "+" behind its release
    "LOCALVERSION=",
    "ARCH=x86",
    "CROSS_COMPILE=",
    "KCFLAGS=",
    "KAFLAGS=",
)
_OBJECT = re.compile(r"^\s+(CC|AS|HOSTCC|LD|AR|GEN|WRAP|UPD|HOSTLD)\s")
_FIRST_BUILD = 1 << 30  # bytes: a build directory of the host profile takes 200 MiB, the debug profile 600
_LATER_BUILD = 256 << 20


@dataclass(frozen=True)
class Profile:
    """A named list of fragments; see ``kernel/profiles.toml``."""

    name: str
    purpose: str
    fragments: tuple[Path, ...]
    objects: int


@dataclass(frozen=True)
class KernelBuild:
    """A finished kernel. Its files never change; ``digest`` covers all of them."""

    version: str
    release: str
    bzimage: Path
    vmlinux: Path
    config: Path
    build_dir: Path
    digest: str
    applied: AppliedSeries

    @property
    def system_map(self) -> Path:
        """Addresses of the symbols of ``vmlinux``."""
        return self.vmlinux.with_name("System.map")

    @property
    def relocs(self) -> Path | None:
        """What in ``vmlinux`` depends on where it lies, or None for a kernel that stays where it was linked."""
        path = self.vmlinux.with_name(_RELOCS)
        return path if path.is_file() else None


def profiles(file: Path | None = None) -> dict[str, Profile]:
    """The profiles there are, by name."""
    path = file or PROJECT / "kernel" / "profiles.toml"
    data: dict[str, dict[str, Any]] = tomllib.loads(path.read_text())
    return {
        name: Profile(
            name,
            entry["purpose"],
            tuple(path.parent / "fragments" / f"{part}.config" for part in entry["fragments"]),
            int(entry["objects"]),
        )
        for name, entry in data.items()
    }


def build(
    applied: AppliedSeries,
    *,
    profile: str = "host",
    extra_fragments: Sequence[Path] = (),
    jobs: int | None = None,
) -> KernelBuild:
    """Build the kernel of a patched tree; only what changed since the last time is compiled.

    Args:
        applied: the tree, with its series applied (and perhaps edited on top).
        profile: which list of fragments configures it.
        extra_fragments: more fragments; what they say wins.
        jobs: parallel compilations, by default one per processor.

    Raises:
        UsageError: unknown profile, or a requested symbol cannot have its value; the message says why.
        BuildError: the compiler failed; the log has everything.
        Busy: another harness builds in this directory.
        EnvironmentProblem: packages or disk space are missing.

    """
    chosen = profiles().get(profile)
    if chosen is None:
        raise UsageError(f"there is no kernel profile {profile!r}", hint=f"profiles: {', '.join(sorted(profiles()))}")
    requests = kconfig.merge([*chosen.fragments, *(path.absolute() for path in extra_fragments)])
    requests = {name: request for name, request in requests.items() if name not in _of_later_patches(applied)}
    packages.require("kernel")
    directory = _directory(applied, profile, extra_fragments)
    inputs = {
        "tree": applied.tree_id,
        "dirty": applied.dirty_digest,
        "requests": hashlib.sha256(kconfig.render(requests).encode()).hexdigest(),
        "toolchain": toolchain(),
        "stamps": sha256_json([FIXED, sorted(ccache_environment())]),
    }
    with directory.session():
        result = directory.published(inputs)
        if result is None:
            with held(applied):
                result = _compile(directory, applied, chosen, requests, inputs, jobs or cpus())
    return KernelBuild(
        version=applied.tree.version,
        release=str(result.facts["release"]),
        bzimage=result.path / "bzImage",
        vmlinux=result.path / "vmlinux",
        config=result.path / "config",
        build_dir=directory.path,
        digest=result.digest,
        applied=applied,
    )


def _directory(applied: AppliedSeries, profile: str, extra_fragments: Sequence[Path]) -> BuildDir:
    """One directory per tree, part of the series, profile and set of extra fragments: switching recompiles nothing."""
    key = [str(applied.tree.path), *sorted(str(path.absolute()) for path in extra_fragments)]
    part, words = "", profile
    if applied.upto is not None:
        key.append(f"upto {applied.upto}")
        part, words = f"-upto-{applied.upto}", f"{profile}, up to {applied.upto}"
    name = f"linux-{applied.tree.version}{part}-{profile}-{sha256_json(key)[:8]}"
    return BuildDir(paths().builds / name, f"kernel {applied.tree.version} ({words})")


def _of_later_patches(applied: AppliedSeries) -> frozenset[str]:
    """Symbols that no tree has before a patch which this part of the series lacks."""
    if applied.series is None:
        return frozenset()
    present = {name for patch in applied.series.patches for name in patch.kconfig}
    later = {name for patch in load(applied.series.topic, applied.series.root).patches for name in patch.kconfig}
    absent = later - present
    return frozenset(absent - set(kconfig.Model(applied.tree.path).symbols) if absent else ())


def _compile(
    directory: BuildDir,
    applied: AppliedSeries,
    profile: Profile,
    requests: Mapping[str, kconfig.Request],
    inputs: Mapping[str, Any],
    jobs: int,
) -> Published:
    stamp = directory.stamp()
    if stamp.get("inputs", {}).get("stamps", inputs["stamps"]) != inputs["stamps"]:
        directory.clean()  # make does not see how ccache is set up, yet objects depend on it
    built = {name: directory.path / path for name, path in _ARTEFACTS.items()}
    if _MOVABLE in requests and requests[_MOVABLE].value == "y":
        built[_RELOCS] = directory.path / "arch/x86/boot/compressed" / _RELOCS
    first = not built["vmlinux"].exists()
    need_disk(directory.path, _FIRST_BUILD if first else _LATER_BUILD, directory.what)
    if stamp.get("inputs") == inputs:  # same inputs and still here: the result is damaged, and its origin may be
        directory.forget([built["bzImage"], built["vmlinux"]])
    env = directory.start()
    make: list[str | Path] = [
        "make",
        "-C",
        applied.tree.path,
        f"O={directory.path}",
        "CC=ccache gcc",
        "HOSTCC=ccache gcc",
        *FIXED,
    ]
    ui().step(f"{directory.what}: {'build' if first else 'rebuild what changed'}, log {directory.log}")
    started = time.monotonic()
    try:
        configure(directory, applied.tree.path, make, env, requests)
    except UsageError:
        directory.give_up()
        raise
    objects = int(stamp.get("facts", {}).get("objects", profile.objects))
    compiled = 0
    with ui().progress(directory.what, objects if first else None, share=True) as task:

        def count(line: str) -> None:
            nonlocal compiled
            if _OBJECT.match(line):
                compiled += 1
                task.update(compiled, max(compiled, objects) if first else None, line.split()[-1])

        directory.make([*make, f"-j{jobs}", "bzImage"], env, count)
    seconds = time.monotonic() - started
    for name, path in built.items():
        if not path.is_file():
            raise BuildError(f"{directory.what}: make succeeded but left no {name}", log=directory.log)
    release = (directory.path / "include/config/kernel.release").read_text().strip()
    ui().info(f"{directory.what}: {compiled} objects in {seconds:.0f} s")
    facts = {"release": release, "seconds": round(seconds, 1), "objects": compiled if first else objects}
    return directory.publish(built, inputs, facts)


def configure(
    directory: BuildDir,
    tree: Path,
    make: Sequence[str | Path],
    env: Mapping[str, str],
    requests: Mapping[str, kconfig.Request],
) -> None:
    """Write ``.config`` for the requests, only if it changes, and verify every one of them.

    Everything that no fragment asks for is off (``allnoconfig``). The new configuration is made beside the
    old one: an unchanged ``.config`` keeps its time, so make recompiles nothing.

    Raises:
        UsageError: a request is not fulfilled; the message names each, and the dependency that is off.

    """
    wanted, fresh = directory.path / ".paraksm.fragment", directory.path / ".config.new"
    atomic_write(wanted, kconfig.render(requests))
    fresh.unlink(missing_ok=True)
    directory.make([*make, f"KCONFIG_CONFIG={fresh}", f"KCONFIG_ALLCONFIG={wanted}", "allnoconfig"], env)
    text = fresh.read_text()
    config = kconfig.parse_config(text)
    if any(config.get(symbol, "n") != request.value for symbol, request in requests.items()):
        problems = kconfig.verify(requests, config, kconfig.Model(tree))
        raise UsageError(
            "\n    ".join([f"{directory.what}: the kernel cannot be configured as asked:", *problems]),
            hint="add what is missing to the fragment, or take the line out",
            log=directory.log,
        )
    current = directory.path / ".config"
    if not current.exists() or current.read_text() != text:
        fresh.replace(current)
    else:
        fresh.unlink()
