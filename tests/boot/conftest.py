# SPDX-License-Identifier: GPL-2.0-or-later
"""The real artefacts, built once per session into the user's cache."""

from __future__ import annotations

import pytest

from harness.images import Image
from harness.kbuild import KernelBuild
from harness.qbuild import QemuBuild


@pytest.fixture(autouse=True, scope="session")
def build_packages() -> None:
    """What building and booting needs."""
    from harness import packages

    for task in ("sources", "kernel", "qemu", "image", "boot"):
        packages.require(task)


@pytest.fixture(scope="session")
def kernel_build() -> KernelBuild:
    """The default kernel, patched and built."""
    from harness import kbuild, patches, sources

    return kbuild.build(patches.apply(sources.obtain("linux")))


@pytest.fixture(scope="session")
def qemu_build() -> QemuBuild:
    """The pinned QEMU, built."""
    from harness import patches, qbuild, sources

    return qbuild.build(patches.apply(sources.obtain("qemu")))


@pytest.fixture(scope="session")
def measured_image() -> Image:
    """The sealed guest image."""
    from harness import images

    return images.build("measured")


@pytest.fixture(scope="session")
def functional_image() -> Image:
    """The guest image with agent, shell and ssh server."""
    from harness import images

    return images.build("functional")
