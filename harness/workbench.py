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
from harness.ui import ui

if TYPE_CHECKING:
    from harness.images import Image, ImageName
    from harness.kbuild import KernelBuild
    from harness.qbuild import QemuBuild

Result = TypeVar("Result")

_PATIENCE = 1800.0  # seconds; longer than any build takes
_NOTICE = 2.0  # seconds; checking what is built takes less, so a longer wait is worth a word


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
    """Run a step again while another harness is at it: what it builds is what we need."""
    deadline, notice = Deadline(_PATIENCE), Deadline(_NOTICE)
    told = False
    while True:
        try:
            return step()
        except Busy as error:
            if deadline.expired():
                raise
            if notice.expired() and not told:
                ui().info(f"{error.message}; waiting for it")
                told = True
            time.sleep(0.1)
