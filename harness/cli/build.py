# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Jobs, Json, Kernel, KernelProfile, Source


def command(
    what: Annotated[str, typer.Argument(metavar="[kernel|qemu|images|all]", help="What to build.")] = "all",
    kernel: Kernel = None,
    source: Source = None,
    profile: KernelProfile = "host",
    fragment: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="More kernel configuration; repeatable, the last wins.")
    ] = None,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Build the kernel, QEMU and the guest images; only what changed since the last time.

    --source is the kernel's tree, with `build qemu` QEMU's. --json has every path and digest.

    A build that was interrupted, even killed, goes on where it stopped. After an edit of the kernel tree
    (its path is in the JSON) the same command compiles just what the edit touches.

    Example: harness build kernel --fragment my.config --json
    """
    from harness import images, kbuild, patches, qbuild, sources
    from harness.errors import UsageError

    if what not in ("kernel", "qemu", "images", "all"):
        raise UsageError(f"there is nothing called {what!r} to build", hint="harness build kernel, qemu, images or all")
    if what in ("qemu", "images") and (kernel or fragment or profile != "host"):
        raise UsageError(f"kernel options mean nothing to `build {what}`", hint="harness build kernel ...")
    done: dict[str, dict[str, str]] = {}
    if what in ("kernel", "all"):
        applied = patches.apply(sources.obtain("linux", kernel, source))
        built = kbuild.build(applied, profile=profile, extra_fragments=fragment or (), jobs=jobs)
        done["kernel"] = {
            "release": built.release,
            "bzimage": str(built.bzimage),
            "vmlinux": str(built.vmlinux),
            "config": str(built.config),
            "tree": str(applied.tree.path),
            "build_dir": str(built.build_dir),
            "digest": built.digest,
        }
    if what in ("qemu", "all"):
        applied = patches.apply(sources.obtain("qemu", None, source if what == "qemu" else None))
        qemu = qbuild.build(applied, jobs=jobs)
        done["qemu"] = {
            "version": qemu.version,
            "binary": str(qemu.binary),
            "firmware": str(qemu.firmware),
            "data_dir": str(qemu.data_dir),
            "tree": str(applied.tree.path),
            "digest": qemu.digest,
        }
    if what in ("images", "all"):
        for name in ("measured", "functional"):
            image = images.build(name)
            done[f"image {name}"] = {"path": str(image.path), "digest": image.digest}
    if json:
        from json import dumps

        typer.echo(dumps(done, indent=1))
    else:
        for title, facts in done.items():
            typer.echo(f"{title}: " + "  ".join(f"{key} {value}" for key, value in facts.items()))
