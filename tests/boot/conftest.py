# SPDX-License-Identifier: GPL-2.0-or-later
"""The real artefacts, built once per session into the user's cache."""

from __future__ import annotations

import pytest

from harness import kbuild, patches, sources
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.qbuild import QemuBuild
from harness.workbench import Workbench, workbench
from tests import later_linux
from tests.boot.sealed import Sealed


@pytest.fixture(autouse=True, scope="session")
def build_packages() -> None:
    """What building and booting needs."""
    from harness import packages

    for task in ("sources", "kernel", "qemu", "image", "boot"):
        packages.require(task)


@pytest.fixture(scope="session")
def bench() -> Workbench:
    """What every command builds for itself; a build that another harness is at is waited for."""
    return workbench(image="measured")


@pytest.fixture(scope="session")
def kernel_build(bench: Workbench) -> KernelBuild:
    """The default kernel, patched and built."""
    return bench.kernel


@pytest.fixture(scope="session")
def qemu_build(bench: Workbench) -> QemuBuild:
    """The pinned QEMU, built."""
    return bench.qemu


@pytest.fixture(scope="session")
def measured_image(bench: Workbench) -> Image:
    """The sealed guest image."""
    return bench.image


@pytest.fixture(scope="session")
def later_kernel() -> KernelBuild:
    """Linux 6.2, patched and built."""
    return kbuild.build(patches.apply(later_linux.tree()))


@pytest.fixture(scope="session")
def functional_image() -> Image:
    """The guest image with agent, shell and ssh server."""
    from harness import images

    return images.build("functional")


@pytest.fixture(scope="session")
def debug_kernel() -> KernelBuild:
    """The kernel with all witnesses: sanitizer, lockdep, DMA debugging, and crashes on request (LKDTM)."""
    return kbuild.build(patches.apply(sources.obtain("linux")), profile="debug")


@pytest.fixture(scope="session")
def sealed(qemu_build: QemuBuild, kernel_build: KernelBuild, measured_image: Image) -> Sealed:
    """The default kernel, QEMU and measured image."""
    return Sealed(qemu_build, kernel_build, measured_image)


@pytest.fixture(scope="session")
def sealed_later(qemu_build: QemuBuild, later_kernel: KernelBuild, measured_image: Image) -> Sealed:
    """The same with Linux 6.2."""
    return Sealed(qemu_build, later_kernel, measured_image)
