# SPDX-License-Identifier: GPL-2.0-or-later
"""The shipped series as a reviewer's tools see them: what can be told from a tree without building it."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from harness import packages, patches, patchseries, sources
from harness.patchseries import Series
from harness.run import run
from harness.sources import SourceTree, git
from tests import later_linux

KERNELS = patchseries.load("linux").kernels


@pytest.fixture(scope="module")
def trees() -> dict[str, SourceTree]:
    """Trees by the kernel series they are of: the default one, the pinned ones in the cache, one that is given."""
    packages.require("sources")
    default = sources.obtain("linux")
    there = {tree.series: tree for _, tree in reversed(sources.obtainable("linux")) if tree}
    return {default.series: default, **there, **({"6.2": later_linux.tree()} if later_linux.GIVEN else {})}


@pytest.fixture(scope="module")
def qemu() -> SourceTree:
    """The pinned QEMU."""
    packages.require("sources")
    return sources.obtain("qemu")


@pytest.fixture(scope="module")
def series() -> Series:
    return patchseries.load("linux")


@pytest.mark.parametrize("kernel", KERNELS)
def test_checkpatch_has_nothing_to_say(trees: dict[str, SourceTree], series: Series, kernel: str) -> None:
    """With --strict and nothing ignored; a kernel whose tree is not here is judged by another's checkpatch."""
    tree = (trees.get(kernel) or next(iter(trees.values()))).path
    mails = sorted((series.root / kernel).glob("*.patch"))
    assert len(mails) == len(series.for_kernel(kernel))
    done = run(
        ["perl", tree / "scripts/checkpatch.pl", f"--root={tree}", "--strict", "--terse", "--no-summary", *mails],
        check=False,
        timeout=300,
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr[-2000:]


COMMA = "ERROR: space required after that ',' (ctx:VxV)"
MOVED = "WARNING: added, moved or deleted file(s), does MAINTAINERS need updating?"
MACHINE = "WARNING: architecture specific defines should be avoided"
PERMITTED = {
    # operand and size are one word in the decoder's tables, in all of their entries
    ("direct-store", COMMA, r"        X86_OP_ENTRY\w+\(MOV(DIR64B)?, "),
    ("enqcmd", COMMA, r"        X86_OP_ENTRY\w+\(ENQCMDS?, "),
    # MAINTAINERS has the whole directory
    ("direct-store-test", MOVED, r"new file mode \d+"),
    # the complaint is about names that begin with __, and this one is of no architecture
    ("idxd-dsa", MACHINE, r"#if __has_attribute\(uninitialized\)"),
}
"""What QEMU's checkpatch may say: of which patch, what, and about which line."""


def test_qemus_checkpatch_says_nothing_but_what_is_permitted(qemu: SourceTree) -> None:
    """No other complaint, none about another line, and nothing is permitted that is not said."""
    series, script = patchseries.load("qemu"), qemu.path / "scripts/checkpatch.pl"
    names = [patch.id for patch in series.for_kernel(qemu.series)]
    mails = sorted((series.root / qemu.series).glob("*.patch"))
    said = set()
    for name, mail in zip(names, mails, strict=True):
        done = run(["perl", script, f"--root={qemu.path}", "--terse", "--no-summary", mail], check=False, timeout=300)
        lines = mail.read_text().splitlines()
        for row in done.stdout.splitlines():
            assert row.startswith(f"{mail}:"), row + done.stderr[-2000:]
            number, _, complaint = row.removeprefix(f"{mail}:").partition(": ")
            about = lines[int(number) - 1].removeprefix("+")
            reasons = {each for each in PERMITTED if each[:2] == (name, complaint) and re.match(each[2], about)}
            assert reasons, f"{row}\n{about}"
            said |= reasons
    assert said == PERMITTED


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_hunk_is_where_its_number_says(trees: dict[str, SourceTree], series: Series, kernel: str) -> None:
    """Committed numbers are of the release that is pinned first; 6.2's point releases do not differ in them."""
    if kernel not in trees:
        pytest.skip(f"no Linux {kernel} in the cache; PARAKSM_LINUX_{kernel.replace('.', '_')}=TREE names one")
    assert patches.commit_series(trees[kernel], series)[1] == []


def test_every_new_file_has_its_maintainers(trees: dict[str, SourceTree], series: Series) -> None:
    """After each patch, not only after the last; in the section that the series brings."""
    for kernel, tree in trees.items():
        parent = git(tree.path, "rev-parse", "base^{commit}")
        for patch in series.for_kernel(kernel):
            parent, _ = patches.commit_patch(tree, series, patch, parent)
            text = git(tree.path, "show", f"{parent}:MAINTAINERS")
            section = re.search(r"^KSM OFFLOAD\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
            patterns = re.findall(r"^F:\t(.*)$", section[1], re.MULTILINE) if section else []
            for name in patch.files:
                assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), f"{patch.id}: {name}"


def test_a_mail_tells_what_it_changes_as_git_does(trees: dict[str, SourceTree], series: Series, tmp_path: Path) -> None:
    """Counts, sums and new files of git's own summary."""
    for mail in sorted((series.root / KERNELS[0]).glob("*.patch")):
        told = mail.read_text().partition("\n---\n")[2].partition("\n\n")[0].splitlines()
        said = run(["git", "apply", "--stat", "--summary", mail], cwd=tmp_path).stdout.splitlines()

        def plain(lines: list[str]) -> list[str]:
            return sorted(re.sub(r" *\| +(\d+) .*", r" \1", line).replace("...", "") for line in lines)

        assert plain(told) == plain(said), mail.name
