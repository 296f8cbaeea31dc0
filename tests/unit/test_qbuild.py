# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU builds with a fake source tree and a fake ninja: what is configured, built and published when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import packages, qbuild
from harness.builddir import BuildDir
from harness.errors import BuildError, EnvironmentProblem
from harness.patches import AppliedSeries
from harness.sources import SourceTree
from tests.fakes.project import NINJA, qemu_tree


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree that has just what the build looks at; ``ninja`` on the path is ours."""
    packages.require("kernel")  # make, ld and gcc are real
    monkeypatch.setattr(packages, "require", lambda _task: None)
    tools, tree = tmp_path / "bin", tmp_path / "qemu"
    tools.mkdir()
    (tools / "ninja").write_text(NINJA)
    (tools / "ninja").chmod(0o755)
    qemu_tree(tree)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return tree


def applied(tree: Path, edit: str | None = None) -> AppliedSeries:
    """As if the series had been applied to ``tree``."""
    source = SourceTree("qemu", "10.0.13", "10.0", tree, "tree:fake", "fake")
    return AppliedSeries(source, "0" * 40, "1" * 64, edit is not None, edit)


def _log(build: qbuild.QemuBuild) -> Path:
    return BuildDir(build.binary.parent.parent, "").log


def test_build_publishes_binary_and_firmware(tree: Path) -> None:
    """All files are there, the source tree is left clean, the second call starts nothing."""
    first = qbuild.build(applied(tree))
    assert first.binary.read_text() == "one\n"
    assert first.firmware.read_text() == "rom\n"
    assert {path.name for path in first.data_dir.iterdir()} == {"qboot.rom", *qbuild._OPTION_ROMS}
    assert not (tree / "subprojects" / ".wraplock").exists()
    assert "--without-default-features" in _log(first).read_text()
    _log(first).unlink()
    assert qbuild.build(applied(tree)) == first
    assert not _log(first).exists()


def test_edit_builds_without_configuring(tree: Path) -> None:
    """An edited source is compiled, the configuration kept, the earlier binary left as it was."""
    first = qbuild.build(applied(tree))
    (tree / "version.c").write_text("two\n")
    second = qbuild.build(applied(tree, edit="e1"))
    assert second.binary.read_text() == "two\n"
    assert first.binary.read_text() == "one\n"
    assert second.digest != first.digest
    assert "configure --python" not in _log(second).read_text()


def test_lost_python_environment_is_configured_again(tree: Path) -> None:
    """The Python that ran ``configure`` may be gone; that costs a configuration, not an error."""
    first = qbuild.build(applied(tree))
    (first.binary.parent.parent / "pyvenv" / "bin" / "python3").unlink()
    second = qbuild.build(applied(tree, edit="e1"))
    assert "configure --python" in _log(second).read_text()


def test_compile_error(tree: Path) -> None:
    """The compiler's words are in the message; after the mend the build goes on."""
    (tree / "fail").write_text("hw/core.c:1:2: error: no such thing\n")
    with pytest.raises(BuildError, match=r"hw/core\.c:1:2: error: no such thing") as caught:
        qbuild.build(applied(tree))
    assert caught.value.log
    (tree / "fail").unlink()
    assert qbuild.build(applied(tree)).binary.exists()


def test_configure_error_is_not_remembered_as_done(tree: Path) -> None:
    """A failed configuration says why, and is tried again."""
    (tree / "no-configure").touch()
    with pytest.raises(BuildError, match=r"glib-2\.0 not found"):
        qbuild.build(applied(tree))
    (tree / "no-configure").unlink()
    assert qbuild.build(applied(tree)).binary.exists()


def test_disk_fills_up(tree: Path) -> None:
    """No space is the machine's fault."""
    (tree / "fail").write_text("fatal error: error writing: No space left on device\n")
    with pytest.raises(EnvironmentProblem, match="no space left while building"):
        qbuild.build(applied(tree))


def test_damaged_binary_is_built_again(tree: Path) -> None:
    """A truncated binary is noticed by its digest."""
    first = qbuild.build(applied(tree))
    first.binary.write_text("")
    second = qbuild.build(applied(tree))
    assert second.digest == first.digest
    assert second.binary.read_text() == "one\n"


def test_tree_without_firmware(tree: Path) -> None:
    """A checkout without submodules is explained."""
    (tree / "roms" / "qboot" / "meson.build").unlink()
    with pytest.raises(BuildError, match="no roms/qboot") as caught:
        qbuild.build(applied(tree))
    assert caught.value.hint
    assert "submodule" in caught.value.hint


def test_missing_meson_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it is the hint."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EnvironmentProblem, match="meson is missing") as caught:
        qbuild.build(applied(tree))
    assert caught.value.hint
    assert "pip" in caught.value.hint
