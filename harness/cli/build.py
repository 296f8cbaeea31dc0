# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Jobs, Json, Kernel, KernelProfile, Source, Upto

if TYPE_CHECKING:
    from harness.workbench import Built


def command(
    what: Annotated[str, typer.Argument(metavar="[kernel|qemu|images|all]", help="What to build.")] = "all",
    kernel: Kernel = None,
    source: Source = None,
    upto: Upto = None,
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
    from harness import workbench
    from harness.errors import UsageError

    if what not in ("kernel", "qemu", "images", "all"):
        raise UsageError(f"there is nothing called {what!r} to build", hint="kernel, qemu, images or all")
    if what in ("qemu", "images") and (kernel or fragment or upto or profile != "host"):
        raise UsageError(f"kernel options mean nothing to `build {what}`", hint="`harness build kernel` takes them")
    every = what == "all"
    built = workbench.build(
        workbench.KernelOrder(kernel, source, profile, fragment or (), upto) if every or what == "kernel" else None,
        workbench.QemuOrder(None if every else source) if every or what == "qemu" else None,
        ("measured", "functional") if every or what == "images" else (),
        jobs=jobs,
    )
    done = _facts(built)
    if json:
        from json import dumps

        typer.echo(dumps(done, indent=1))
    else:
        for title, facts in done.items():
            typer.echo(f"{title}: " + "  ".join(f"{key} {value}" for key, value in facts.items()))


def _facts(built: Built) -> dict[str, dict[str, str]]:
    """Paths and digests of what was built, by name."""
    facts: dict[str, dict[str, str]] = {}
    if built.kernel:
        facts["kernel"] = {
            "release": built.kernel.release,
            "bzimage": str(built.kernel.bzimage),
            "vmlinux": str(built.kernel.vmlinux),
            "config": str(built.kernel.config),
            "tree": str(built.kernel.applied.tree.path),
            "build_dir": str(built.kernel.build_dir),
            "digest": built.kernel.digest,
        }
    if built.qemu:
        facts["qemu"] = {
            "version": built.qemu.version,
            "binary": str(built.qemu.binary),
            "firmware": str(built.qemu.firmware),
            "data_dir": str(built.qemu.data_dir),
            "tree": str(built.qemu.applied.tree.path),
            "digest": built.qemu.digest,
        }
    for name, image in built.images.items():
        facts[f"image {name}"] = {"path": str(image.path), "digest": image.digest}
    return facts
