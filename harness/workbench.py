# SPDX-License-Identifier: GPL-2.0-or-later
"""The artefacts a command needs: QEMU, kernel and image, built where they are missing or out of date."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from harness import packages
from harness.errors import Busy
from harness.run import Deadline

if TYPE_CHECKING:
    from harness.images import Image, ImageName
    from harness.kbuild import KernelBuild
    from harness.qbuild import QemuBuild

Result = TypeVar("Result")

_PATIENCE = 20.0  # seconds; a harness that holds a lock for longer is building, and its user knows


@dataclass(frozen=True)
class Workbench:
    """What one machine is made of."""

    qemu: QemuBuild
    kernel: KernelBuild
    image: Image


def workbench(
    kernel: str | None = None,
    source: str | None = None,
    image: ImageName = "functional",
    profile: str = "host",
) -> Workbench:
    """Obtain, patch and build whatever is not there yet; with everything built this takes about a second.

    Args:
        kernel: a pinned version or series ("6.1"); by default the first obtainable.
        source: a directory, tarball or git revision instead.
        image: which guest image.
        profile: which kernel configuration, see ``kernel/profiles.toml``.

    Raises:
        HarnessError: the step that failed says which and what to do.

    """
    from harness import images, kbuild, patches, qbuild, sources

    packages.require("boot")
    linux = _patiently(lambda: kbuild.build(patches.apply(sources.obtain("linux", kernel, source)), profile=profile))
    emulator = _patiently(lambda: qbuild.build(patches.apply(sources.obtain("qemu"))))
    return Workbench(emulator, linux, images.build(image))


def _patiently(step: Callable[[], Result]) -> Result:
    """Run a step again while another harness holds its lock: checking what is built takes a moment only."""
    deadline = Deadline(_PATIENCE)
    while True:
        try:
            return step()
        except Busy:
            if deadline.expired():
                raise
            time.sleep(0.1)
