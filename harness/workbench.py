# SPDX-License-Identifier: GPL-2.0-or-later
"""The artefacts a command needs: kernel, QEMU and images, built where they are missing or out of date.

What does not depend on each other is built side by side, so that what keeps one processor busy in one of them
(unpacking, configuring, linking) overlaps with the compiling of the other. Each starts as many compilers as there
are processors: the scheduler shares them out better than a fixed split, and when one is done the other has them all.
The kernel goes first where both want a processor, for it ends with a long link, which QEMU's compilers then fill.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness import packages
from harness.errors import Busy, Interrupted
from harness.run import Crew, Deadline, check_called_off
from harness.ui import Together, ui

if TYPE_CHECKING:
    from harness.images import Image, ImageName
    from harness.kbuild import KernelBuild
    from harness.qbuild import QemuBuild

Result = TypeVar("Result")

_PATIENCE = 1800.0  # seconds; longer than any build takes
_NOTICE = 2.0  # seconds; checking what is built takes less, so a longer wait is worth a word
_TWO_CORES = {"kernel": 380.0, "VM kernel": 200.0, "QEMU": 260.0, "images": 15.0}
"""Seconds that each takes on two processors from nothing: docs/measurements.md."""


@dataclass(frozen=True)
class Workbench:
    """What one machine is made of."""

    qemu: QemuBuild
    kernel: KernelBuild
    image: Image


@dataclass(frozen=True)
class KernelOrder:
    """Which kernel: a pinned version or series ("6.1", default: the first obtainable) or a source of the user's."""

    version: str | None = None
    source: str | None = None
    profile: str = "host"
    fragments: Sequence[Path] = ()
    upto: str | None = None
    """The series only up to this patch, ``base`` for none of it."""


@dataclass(frozen=True)
class QemuOrder:
    """Which QEMU: the pinned one, or a source of the user's."""

    source: str | None = None


@dataclass(frozen=True)
class Built:
    """What was ordered; ``None`` or missing is what was not."""

    kernel: KernelBuild | None = None
    qemu: QemuBuild | None = None
    images: Mapping[str, Image] = field(default_factory=dict)


def workbench(
    kernel: str | None = None,
    source: str | None = None,
    image: ImageName = "functional",
    profile: str = "host",
    upto: str | None = None,
) -> Workbench:
    """Obtain, patch and build whatever is not there yet; with everything built this takes about a second.

    Args:
        kernel: a pinned version or series ("6.1"); by default the first obtainable.
        source: a directory, tarball or git revision instead.
        image: which guest image.
        profile: which kernel configuration, see ``kernel/profiles.toml``.
        upto: the kernel series only up to this patch, ``base`` for none of it.

    Raises:
        HarnessError: the step that failed says which and what to do.

    """
    from harness.images import WITH_VMS

    made = build(
        KernelOrder(kernel, source, profile, upto=upto), QemuOrder(), [image], also=("boot",), vms=image in WITH_VMS
    )
    assert made.kernel is not None
    assert made.qemu is not None
    return Workbench(made.qemu, made.kernel, made.images[image])


def build(
    kernel: KernelOrder | None = None,
    qemu: QemuOrder | None = None,
    images: Sequence[ImageName] = (),
    *,
    jobs: int | None = None,
    also: Sequence[str] = (),
    vms: bool = False,
) -> Built:
    """Build what is ordered, side by side.

    If one fails, the others are stopped and the failure is raised at once: nothing that was compiled is lost, and
    the next run goes on from there.

    Args:
        kernel: which kernel, if any.
        qemu: which QEMU, if any.
        images: which guest images.
        jobs: parallel compilations of each; by default one per processor.
        also: more tasks whose packages are needed.
        vms: build a kernel for nested VMs as well, of the same source, and put it into the images that carry one.

    Raises:
        HarnessError: of the first step that failed.

    """
    from harness import images as guest
    from harness import kbuild, patches, qbuild, sources

    def make_kernel(order: KernelOrder) -> KernelBuild:
        applied = patches.apply(sources.obtain("linux", order.version, order.source), upto=order.upto)
        return kbuild.build(applied, profile=order.profile, extra_fragments=order.fragments, jobs=jobs)

    def make_qemu(order: QemuOrder) -> QemuBuild:
        return qbuild.build(patches.apply(sources.obtain("qemu", None, order.source)), jobs=jobs)

    steps: dict[str, Callable[[], Any]] = {}
    if kernel:
        steps["kernel"] = lambda: _patiently(lambda: make_kernel(kernel))
        if vms:
            inner = KernelOrder(kernel.version, kernel.source, "guest")
            steps["VM kernel"] = lambda: _patiently(lambda: make_kernel(inner))
    if qemu:
        steps["QEMU"] = lambda: _patiently(lambda: make_qemu(qemu))
    if images:
        steps["images"] = lambda: {name: guest.build(name) for name in images}
    tasks = {"kernel": "kernel", "VM kernel": "kernel", "QEMU": "qemu", "images": "image"}
    packages.require("sources", *(tasks[name] for name in steps), *also)
    done = side_by_side(steps)
    if vms:
        files = guest.vm_kernel(done["VM kernel"])
        for name in set(images).intersection(guest.WITH_VMS):
            done["images"][name] = guest.extended(done["images"][name], files)
    return Built(done.get("kernel"), done.get("QEMU"), done.get("images", {}))


def side_by_side(steps: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Run steps in threads of their own and return what each returned, by name.

    The first failure stops the rest, as Ctrl-C does; when this returns or raises, none of their processes is left.

    Raises:
        HarnessError: whatever the first step to fail raised; what others said after it is a warning.

    """
    if len(steps) == 1:
        return {name: step() for name, step in steps.items()}
    from harness.builddir import cpus

    crew = Crew()
    expected = {name: _TWO_CORES.get(name, 60.0) * 2 / cpus() for name in steps}
    with (
        ui().together(" and ".join(steps), expected) as together,
        ThreadPoolExecutor(len(steps), thread_name_prefix="build") as pool,
    ):
        context = contextvars.copy_context
        pending = {
            pool.submit(context().run, _as_part, crew, together, name, step): name for name, step in steps.items()
        }
        names = dict(pending)
        try:
            failed = _first_failure(set(pending))
        except BaseException:
            crew.stop()
            raise
        if failed:
            crew.stop()
            _tell_the_others(names, failed)
            raise failed.exception() or AssertionError
    return {name: future.result() for future, name in names.items()}


def _as_part(crew: Crew, together: Together, name: str, step: Callable[[], Result]) -> Result:
    with crew.joined(), together.part(name):
        return step()


def _first_failure(pending: set[Future[Any]]) -> Future[Any] | None:
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            if future.exception():
                return future
    return None


def _tell_the_others(names: Mapping[Future[Any], str], failed: Future[Any]) -> None:
    """Wait for the rest, and say what became of it."""
    for future, name in names.items():
        if future is failed:
            continue
        error = future.exception()
        if isinstance(error, Interrupted):
            ui().info(f"{name} was stopped because {names[failed]} failed; it goes on from there next time")
        elif error:
            ui().warn(f"{name} failed as well: {error}")


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
            check_called_off()
            time.sleep(0.1)
