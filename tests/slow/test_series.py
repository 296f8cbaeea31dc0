# SPDX-License-Identifier: GPL-2.0-or-later
"""Every commit of the kernel series by itself: it builds, boots and merges, and brings no warning of gcc or sparse."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import fleet, kbuild, packages, patches, patchseries, sources, workbench
from harness.builddir import ccache_environment, cpus
from harness.images import Image
from harness.machine import Machine, MachineSpec, Outcome
from harness.patchseries import Series
from harness.qbuild import QemuBuild
from harness.run import run
from harness.sources import SourceTree
from tests import later_linux
from tests.boot.sealed import CONVERGED, unit

# boot: with the real cache, in which builds are incremental
pytestmark = [pytest.mark.slow, pytest.mark.boot, pytest.mark.timeout(3600)]

SERIES = patchseries.load("linux")
EVERY_COMMIT = pytest.mark.parametrize("commit", [patch.id for patch in SERIES.patches])
KUNIT = "CONFIG_KUNIT=y\nCONFIG_KSM_BATCH_KUNIT_TEST=y\n"


@pytest.fixture(scope="module", params=SERIES.kernels)
def origin(request: pytest.FixtureRequest) -> SourceTree:
    """What the series is for, one after the other."""
    packages.require("sources", "kernel", "boot", "review")
    return later_linux.tree() if request.param == "6.2" else sources.obtain("linux", request.param)


@pytest.fixture(scope="module")
def tree(origin: SourceTree) -> SourceTree:
    """A tree of its own, in which commit follows commit, so that every build but the first is incremental."""
    return sources.beside(origin)


def _first(tree: SourceTree, commit: str) -> Series:
    """The series up to a commit, as a series of which there is no more."""
    if commit not in [patch.id for patch in SERIES.for_kernel(tree.series)]:
        pytest.skip(f"{commit} is not for {tree.series}")
    return dataclasses.replace(SERIES.prefix(commit), upto=None)


@pytest.fixture(scope="module")
def rest() -> tuple[QemuBuild, Image]:
    """What a kernel needs besides."""
    built = workbench.build(qemu=workbench.QemuOrder(), images=["functional"])
    assert built.qemu is not None
    return built.qemu, built.images["functional"]


@EVERY_COMMIT
def test_a_commit_builds_boots_and_merges(
    tree: SourceTree, rest: tuple[QemuBuild, Image], tmp_path: Path, commit: str
) -> None:
    """The host's configuration, as far as the commit has its symbols; ksmd reaches what the contents allow."""
    kernel = kbuild.build(patches.apply(tree, _first(tree, commit)))
    plan = unit(**CONVERGED)
    memory = 160 + plan.memory_mib
    out = bytearray()
    with Machine(MachineSpec(rest[0], kernel, rest[1], "functional", memory), tmp_path / "run") as machine:
        machine.start()
        script = "cat > /tmp/plan && exec /bin/fleet run /tmp/plan"
        status = machine.execute(script, stdin=plan.render().encode(), on_stdout=out.extend, timeout=600)
        assert (status, machine.verdict.outcome) == (0, Outcome.CLEAN), machine.verdict.explain()
    result = fleet.parse(bytes(out))
    fleet.check(plan, result)
    assert result.ksmd_ns > 0


@dataclasses.dataclass(frozen=True)
class Review:
    """A build directory of its own, in which single objects are compiled with all warnings and run through sparse."""

    tree: SourceTree
    out: Path
    config: str

    def complaints(self, series: Series, files: list[str]) -> set[str]:
        """What is said about files of a tree with this series, without the numbers of lines."""
        patches.apply(self.tree, series)
        (self.out / ".config").write_text(self.config)
        make: list[str | Path] = ["make", "-s", "-C", self.tree.path, f"O={self.out}", *kbuild.FIXED, f"-j{cpus()}"]
        env = {**ccache_environment(), "LC_ALL": "C"}
        run([*make, "CC=ccache gcc", "olddefconfig"], env=env)
        objects = [str(Path(name).with_suffix(".o")) for name in files]
        run([*make, "CC=ccache gcc", "prepare"], env=env)
        for name in objects:
            (self.out / name).unlink(missing_ok=True)
        # no ccache: it would not run sparse's half of a compilation, nor is anything compiled twice
        done = run([*make, "W=1", "C=2", *objects], env=env)
        assert all((self.out / name).exists() for name in objects)
        return set(self._lines(done.stderr))

    def _lines(self, said: str) -> Iterator[str]:
        for line in re.sub("[‘’]", "'", said).splitlines():  # Linux's Makefile unsets LC_ALL
            if match := re.match(r"(\S+?):\d+:(?:\d+:)? (?:warning|error): (.*)", line):
                yield f"{match[1].removeprefix(f'{self.tree.path}/')}: {match[2]}"


@pytest.fixture(scope="module")
def review(origin: SourceTree, tree: SourceTree, tmp_path_factory: pytest.TempPathFactory) -> Review:
    whole = kbuild.build(patches.apply(origin))
    return Review(tree, tmp_path_factory.mktemp("review"), whole.config.read_text() + KUNIT)


@pytest.fixture(scope="module")
def known(tree: SourceTree, review: Review) -> set[str]:
    """What upstream's own files have the tools say before the first commit."""
    names = {each.path for patch in SERIES.for_kernel(tree.series) for each in _sources(tree, patch.id) if not each.new}
    return review.complaints(dataclasses.replace(SERIES, patches=()), sorted(names))


def _sources(tree: SourceTree, commit: str) -> list[patchseries.Change]:
    [patch] = [patch for patch in SERIES.patches if patch.id == commit]
    return [each for each in patchseries.touched(SERIES, patch, tree.series) if each.path.endswith(".c")]


@EVERY_COMMIT
def test_a_commit_brings_no_warning(tree: SourceTree, review: Review, known: set[str], commit: str) -> None:
    """gcc with W=1, sparse with C=2, over the sources that the commit touches or brings."""
    part = _first(tree, commit)
    names = [each.path for each in _sources(tree, commit)]
    if names:
        assert review.complaints(part, names) - known == set()


def test_the_tools_are_heard(tree: SourceTree, review: Review) -> None:
    """A warning of each is seen, so that silence above means something."""
    part = _first(tree, "ksm-batch-core")
    patches.apply(tree, part)
    file = tree.path / "mm" / "ksm_batch.c"
    before = file.read_bytes()
    try:
        file.write_bytes(before + b"int ksm_seen(int x)\n{\n\treturn x;\n}\nvoid *ksm_zero;\nint *ksm_null = 0;\n")
        said = review.complaints(part, ["mm/ksm_batch.c"])
    finally:
        file.write_bytes(before)
    assert "mm/ksm_batch.c: no previous prototype for 'ksm_seen' [-Wmissing-prototypes]" in said
    assert "mm/ksm_batch.c: Using plain integer as NULL pointer" in said
