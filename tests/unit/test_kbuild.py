# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel builds on a fake tree: what is built again, and what happens when things go wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from harness import builddir, config, kbuild, packages, patches, patchseries, sources
from harness.errors import BuildError, Busy, EnvironmentProblem, UsageError
from harness.patches import AppliedSeries
from harness.sources import SourceTree

FAKE = Path(__file__).parent.parent / "data" / "fakelinux"


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """The fake tree still needs make and a compiler to ask for its version."""
    packages.require("kernel")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A fake kernel of our own."""
    return Path(shutil.copytree(FAKE, tmp_path / "linux"))


def applied(tree: Path, edit: str | None = None) -> AppliedSeries:
    """As if the series had been applied to ``tree``; ``edit`` stands for the digest of uncommitted changes."""
    source = SourceTree("linux", "6.1.0", "6.1", tree, "tree:fake", "fake")
    return AppliedSeries(source, "0" * 40, "1" * 64, edit is not None, edit)


def behave(tree: Path, unit: str, script: str) -> None:
    """Tell the fake kernel what to do before it compiles ``unit``."""
    (tree / "behave").mkdir(exist_ok=True)
    (tree / "behave" / unit).write_text(textwrap.dedent(script))


def compiled(build_dir: Path) -> list[str]:
    """Objects that the last build compiled."""
    log = builddir.BuildDir(build_dir, "").log
    return re.findall(r"^  CC +(\S+)$", log.read_text(), re.MULTILINE)


def test_first_build_and_nothing_to_do(tree: Path) -> None:
    """All artefacts appear; the second build does not even start make."""
    first = kbuild.build(applied(tree))
    assert sorted(compiled(first.build_dir)) == ["mm/ksm.o", "mm/slub.o"]
    assert first.release == "6.1.0-fake"
    assert "CONFIG_KSM=y" in first.config.read_text()
    assert b"ksmd" in first.vmlinux.read_bytes()
    assert first.system_map.exists()
    log = builddir.BuildDir(first.build_dir, "").log
    log.unlink()
    again = kbuild.build(applied(tree))
    assert again == first
    assert not log.exists()


def test_edit_compiles_only_what_it_touches(tree: Path) -> None:
    """An edited mm/ksm.c is one object; the earlier kernel stays as it was."""
    first = kbuild.build(applied(tree))
    before = first.vmlinux.read_bytes()
    with (tree / "mm" / "ksm.c").open("a") as source:
        source.write("int edited;\n")
    second = kbuild.build(applied(tree, edit="e1"))
    assert compiled(second.build_dir) == ["mm/ksm.o"]
    assert second.digest != first.digest
    assert b"edited" in second.vmlinux.read_bytes()
    assert first.vmlinux.read_bytes() == before


def test_changed_fragment_is_honoured(tree: Path, tmp_path: Path) -> None:
    """The same build directory takes a fragment's new content; an equal configuration keeps its time."""
    extra = tmp_path / "extra.config"
    extra.write_text("CONFIG_HZ_250=y\n")
    first = kbuild.build(applied(tree), extra_fragments=[extra])
    stamp = (first.build_dir / ".config").stat().st_mtime_ns
    extra.write_text("# only a comment more\nCONFIG_HZ_250=y\n")
    assert kbuild.build(applied(tree, edit="other"), extra_fragments=[extra]).digest == first.digest
    assert (first.build_dir / ".config").stat().st_mtime_ns == stamp
    assert compiled(first.build_dir) == []
    extra.write_text("# CONFIG_HZ_250 is not set\nCONFIG_NEW=y\n")
    second = kbuild.build(applied(tree), extra_fragments=[extra])
    assert second.build_dir == first.build_dir
    assert "CONFIG_NEW=y" in second.config.read_text()
    assert "CONFIG_HZ_250=y" not in second.config.read_text()


def test_missing_symbol_is_named(tree: Path, tmp_path: Path) -> None:
    """A symbol that vanishes stops the build and says what it depends on; next time it builds."""
    extra = tmp_path / "extra.config"
    extra.write_text("CONFIG_FAKE_IDXD=y\nCONFIG_KMS=y\n")
    (tree / "refused.txt").write_text("CONFIG_FAKE_IDXD\nCONFIG_KMS\n")
    with pytest.raises(UsageError) as caught:
        kbuild.build(applied(tree), extra_fragments=[extra])
    assert f"CONFIG_FAKE_IDXD=y ({extra}:1)" in caught.value.message
    assert "FAKE_DMA=n" in caught.value.message
    assert "no such symbol; nearest: CONFIG_KSM" in caught.value.message
    (build_dir,) = config.paths().builds.glob("linux-*")
    assert builddir.BuildDir(build_dir, "").state() == "empty"
    extra.write_text("CONFIG_EXPERT=y\n")
    assert kbuild.build(applied(tree), extra_fragments=[extra]).vmlinux.exists()


def test_unknown_profile(tree: Path) -> None:
    """The profiles that exist are listed."""
    with pytest.raises(UsageError) as caught:
        kbuild.build(applied(tree), profile="hots")
    assert caught.value.hint
    assert "host" in caught.value.hint


def test_compiler_error_is_shown_and_recovered(tree: Path) -> None:
    """The error line is in the message, the log beside it; after the mend only the rest is compiled."""
    behave(tree, "slub", "echo \"mm/slub.c:3:1: error: expected ';'\" >&2; exit 1")
    with pytest.raises(BuildError) as caught:
        kbuild.build(applied(tree), jobs=1)
    assert "mm/slub.c:3:1: error: expected ';'" in caught.value.message
    assert caught.value.log
    assert caught.value.log.exists()
    (tree / "behave" / "slub").unlink()
    assert compiled(kbuild.build(applied(tree)).build_dir) == ["mm/slub.o"]


def test_warning_does_not_fail(tree: Path) -> None:
    """A compiler that only warns has built."""
    behave(tree, "ksm", "echo 'mm/ksm.c:1:1: warning: unused' >&2")
    assert kbuild.build(applied(tree)).vmlinux.exists()


def test_disk_fills_up(tree: Path) -> None:
    """Running out of space is the machine's fault and says so; with space again the build goes on."""
    behave(tree, "slub", "echo 'fatal error: error writing to mm/slub.o: No space left on device' >&2; exit 1")
    with pytest.raises(EnvironmentProblem, match="no space left while building"):
        kbuild.build(applied(tree))
    (tree / "behave" / "slub").unlink()
    assert kbuild.build(applied(tree)).vmlinux.exists()


def test_full_disk_is_seen_before_the_start(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started that cannot end."""
    monkeypatch.setattr(config, "free_bytes", lambda _path: 1000)
    with pytest.raises(EnvironmentProblem, match="GiB are free"):
        kbuild.build(applied(tree))
    monkeypatch.undo()


@pytest.mark.parametrize("name", ["vmlinux", "bzImage", "System.map"])
def test_damaged_result_is_built_again(tree: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A truncated artefact, in the published copy and in the build directory, is noticed and mended."""
    first = kbuild.build(applied(tree))
    published = first.bzimage.with_name(name)
    good = published.read_bytes()
    published.write_bytes(good[:4])
    if name == "vmlinux":
        (first.build_dir / name).write_bytes(good[:4])
    assert kbuild.build(applied(tree)).digest == first.digest
    assert published.read_bytes() == good
    assert "is not what was built" in capsys.readouterr().err


def test_damaged_record_is_survived(tree: Path) -> None:
    """A garbled record costs a make run, no more."""
    first = kbuild.build(applied(tree))
    (first.build_dir / "paraksm-build.json").write_text('{"inputs": ')
    assert kbuild.build(applied(tree)).digest == first.digest


_BUILD = """
import sys
from pathlib import Path
from harness import kbuild
from harness.patches import AppliedSeries
from harness.sources import SourceTree
source = SourceTree("linux", "6.1.0", "6.1", Path(sys.argv[1]), "tree:fake", "fake")
kbuild.build(AppliedSeries(source, "0" * 40, "1" * 64, False, None))
"""


def _start_stuck_build(tree: Path, pid_file: Path) -> subprocess.Popen[bytes]:
    """A harness whose compiler has written half of ksm.o and hangs; ``pid_file`` holds the compiler's pid."""
    behave(tree, "ksm", f'echo half > "$O/mm/ksm.o"; echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 60')
    child = subprocess.Popen([sys.executable, "-c", _BUILD, str(tree)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while not pid_file.exists():
        assert child.poll() is None, "the build ended early"
        assert time.monotonic() < end, "the build never reached ksm.c"
        time.sleep(0.02)
    return child


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_killed_mid_build(tree: Path, tmp_path: Path) -> None:
    """After SIGKILL the orphaned compiler is ended, its half-written object removed, the rest kept."""
    first = kbuild.build(applied(tree))  # so that ksm.o has a record that make would believe
    with (tree / "mm" / "ksm.c").open("a") as source:
        source.write("int edited;\n")
    (first.build_dir / "paraksm-build.json").unlink()
    pid_file = tmp_path / "pid"
    child = _start_stuck_build(tree, pid_file)
    child.send_signal(signal.SIGKILL)
    child.wait()
    compiler = int(pid_file.read_text())
    assert (first.build_dir / "mm" / "ksm.o").read_text() == "half\n"
    (tree / "behave" / "ksm").unlink()
    second = kbuild.build(applied(tree))
    assert not _alive(compiler)
    assert compiled(second.build_dir) == ["mm/ksm.o"]
    assert b"half" not in second.vmlinux.read_bytes()
    assert b"edited" in second.vmlinux.read_bytes()


def test_two_at_once(tree: Path, tmp_path: Path) -> None:
    """The second harness is told who builds here; the first is not disturbed."""
    child = _start_stuck_build(tree, tmp_path / "pid")
    try:
        with pytest.raises(Busy, match=str(child.pid)):
            kbuild.build(applied(tree))
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
        compiler = int((tmp_path / "pid").read_text())
        if _alive(compiler):
            os.kill(compiler, signal.SIGKILL)


def test_profiles_do_not_share_a_directory(tree: Path) -> None:
    """Switching profiles compiles nothing twice."""
    host = kbuild.build(applied(tree))
    debug = kbuild.build(applied(tree), profile="debug")
    assert host.build_dir != debug.build_dir
    assert "CONFIG_PROVE_LOCKING=y" in debug.config.read_text()


def test_other_stamps_compile_everything(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What make cannot see but objects depend on empties the directory; the published kernel stays."""
    first = kbuild.build(applied(tree))
    monkeypatch.setattr(kbuild, "FIXED", (*kbuild.FIXED, "KBUILD_BUILD_VERSION=2"))
    second = kbuild.build(applied(tree))
    assert sorted(compiled(second.build_dir)) == ["mm/ksm.o", "mm/slub.o"]
    assert first.vmlinux.exists()


def test_old_results_are_dropped(tree: Path) -> None:
    """Published kernels do not pile up without end."""
    for number in range(6):
        (tree / "mm" / "ksm.c").write_text(f"int version = {number};\n")
        last = kbuild.build(applied(tree, edit=str(number)))
    assert len(list(last.build_dir.glob("out-*"))) <= 4
    assert last.vmlinux.exists()


def test_parts_of_a_series_lie_side_by_side_and_ask_for_no_symbol_of_a_later_patch(tree: Path, tmp_path: Path) -> None:
    """Each part keeps its kernel; a symbol that only a later patch defines is no mistake, a misspelt one is."""
    root = tmp_path / "series"
    (root / "src").mkdir(parents=True)
    (root / "src" / "extra.c").write_text("int extra;\n")
    (root / "series.toml").write_text(
        'topic = "linux"\nkernels = ["6.1"]\nauthor = "A <a@b>"\ndate = "Sun, 19 Feb 2023 00:00:00 +0000"\n'
        '[[patch]]\nid = "offload"\nsubject = "s"\nmessage = "m"\nkconfig = ["KSM", "KSM_OFFLOAD"]\n'
        'files = { "mm/extra.c" = "src/extra.c" }\n'
    )
    series = patchseries.load("linux", root)
    makefile = tree / "Makefile"
    makefile.write_text("VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 0\n" + makefile.read_text())
    extra = tmp_path / "extra.config"
    extra.write_text("CONFIG_KSM_OFFLOAD=y\n")
    source = sources.obtain("linux", source=str(tree))
    whole = kbuild.build(patches.apply(source, series), extra_fragments=[extra])
    (tree / "refused.txt").write_text("CONFIG_KSM_OFFLOAD\nCONFIG_KSM_OFLOAD\n")
    source = sources.obtain("linux", source=str(tree))
    base = kbuild.build(patches.apply(source, series, upto="base"), extra_fragments=[extra])
    assert "upto-base" in base.build_dir.name
    assert base.build_dir != whole.build_dir
    assert "CONFIG_KSM_OFFLOAD=y" in whole.config.read_text()
    assert "CONFIG_KSM_OFFLOAD=y" not in base.config.read_text()
    assert "CONFIG_KSM=y" in base.config.read_text()
    log = builddir.BuildDir(base.build_dir, "").log
    log.unlink()
    patches.apply(source, series, upto="offload")
    assert kbuild.build(patches.apply(source, series, upto="base"), extra_fragments=[extra]) == base
    assert not log.exists()
    extra.write_text("CONFIG_KSM_OFLOAD=y\n")
    with pytest.raises(UsageError, match="KSM_OFLOAD"):
        kbuild.build(patches.apply(source, series, upto="base"), extra_fragments=[extra])
