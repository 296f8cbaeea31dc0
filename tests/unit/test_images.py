# SPDX-License-Identifier: GPL-2.0-or-later
"""Archives, packages and guest programs."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import config, images
from harness.errors import BuildError, EnvironmentProblem, SourceError, UsageError
from harness.images import Entry, cpio

PYPROJECT = config.PROJECT / "pyproject.toml"
NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=20)


def _parse(raw: bytes) -> dict[str, tuple[int, bytes]]:
    """An independent reader of the newc format."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert raw[at : at + 6] == b"070701"
        field = [int(raw[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        start = at + 110
        name = raw[start : start + field[11] - 1].decode()
        body = (start + field[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        assert name not in found
        found[name] = (field[1], raw[body : body + field[6]])
        at = (body + field[6] + 3) & ~3


@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=8))
def test_archive_reads_back_whatever_the_sizes(files: dict[str, bytes]) -> None:
    entries = [Entry(name, stat.S_IFREG | 0o644, data) for name, data in files.items()]
    assert _parse(cpio(entries)) == {name: (stat.S_IFREG | 0o644, data) for name, data in files.items()}
    assert cpio(reversed(entries)) == cpio(entries)


def test_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    raw = cpio(
        [
            Entry("bin", stat.S_IFDIR | 0o755),
            Entry("bin/tool", stat.S_IFREG | 0o755, b"content"),
            Entry("bin/link", stat.S_IFLNK | 0o777, b"tool"),
        ]
    )
    subprocess.run(["cpio", "--extract", "--quiet"], input=raw, cwd=tmp_path, check=True)
    assert (tmp_path / "bin" / "link").read_bytes() == b"content"
    assert (tmp_path / "bin" / "tool").stat().st_mode & 0o777 == 0o755


def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, flags: str = '"-O1"') -> None:
    root = tmp_path / "project"
    (root / "vm-images" / "src").mkdir(parents=True, exist_ok=True)
    (root / "vm-images" / "src" / "hello.c").write_text(source)
    (root / "vm-images" / "recipes.toml").write_text(
        f'[program.hello]\ncompiler = "gcc"\nsources = ["src/hello.c"]\nflags = [{flags}]\n'
    )
    monkeypatch.setattr(images, "PROJECT", root)


def test_program_is_static_cached_and_rebuilt_when_its_source_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _project(tmp_path, monkeypatch, '#include <stdio.h>\nint main(void) { puts("one"); return 0; }\n')
    first = images.program("hello")
    stamp = first.stat().st_mtime_ns
    assert subprocess.run([first], capture_output=True, text=True, check=True).stdout == "one\n"
    assert images.program("hello") == first
    assert first.stat().st_mtime_ns == stamp
    _project(tmp_path, monkeypatch, '#include <stdio.h>\nint main(void) { puts("two"); return 0; }\n')
    second = images.program("hello")
    assert second != first
    assert subprocess.run([second], capture_output=True, text=True, check=True).stdout == "two\n"


def test_program_is_rebuilt_when_a_header_of_another_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _project(tmp_path, monkeypatch, '#include "word.h"\nint main(void) { return WORD; }\n', '"-O1", "-Isrc/shared"')
    header = tmp_path / "project" / "vm-images" / "src" / "shared" / "word.h"
    header.parent.mkdir()
    for status in (3, 4):
        header.write_text(f"#define WORD {status}\n")
        assert subprocess.run([images.program("hello")], check=False).returncode == status


def test_two_builds_of_a_program_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for folder in ("here", "elsewhere"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / folder / "cache"))
        _project(tmp_path / folder, monkeypatch, "int main(void) { return 7; }\n")
        contents.append(images.program("hello").read_bytes())
    assert contents[0] == contents[1]


def test_a_damaged_program_or_image_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _project(tmp_path, monkeypatch, "int main(void) { return 7; }\n")
    with (tmp_path / "project" / "vm-images" / "recipes.toml").open("a") as recipes:
        recipes.write('[image.measured]\nprograms = { "/init" = "hello" }\npackages = []\n')
    image = images.build("measured")
    for file in (images.program("hello"), image.path):
        good = file.read_bytes()
        file.write_bytes(good[: len(good) // 2])
        assert images.build("measured") == image
        assert file.read_bytes() == good


def test_a_disk_that_is_full_while_compiling_is_not_the_programs_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _project(tmp_path, monkeypatch, "int main(void) { return 7; }\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gcc").write_text(
        '#!/bin/sh\n[ "$1" = --version ] || { echo "cc1: fatal error: No space left on device" >&2; exit 1; }\n'
    )
    (tmp_path / "bin" / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(EnvironmentProblem, match="no space left while compiling hello"):
        images.program("hello")


def test_program_that_does_not_compile_shows_the_compilers_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _project(tmp_path, monkeypatch, "int main(void) { return nonsense; }\n")
    with pytest.raises(BuildError, match="nonsense") as caught:
        images.program("hello")
    assert caught.value.log is not None
    assert "nonsense" in caught.value.log.read_text()
    assert not list((config.paths().images / "programs").iterdir())


def test_unknown_program_and_image_name_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _project(tmp_path, monkeypatch, "int main(void) { return 0; }\n")
    with pytest.raises(UsageError, match="there are hello"):
        images.program("hallo")
    with pytest.raises(UsageError, match="no image"):
        images.build("functional")


def test_truncated_package_is_refused_by_name_and_removed(tmp_path: Path) -> None:
    package = tmp_path / "busybox-static_1_amd64.deb"
    package.write_bytes(b"!<arch>\ndebian-binary")
    with pytest.raises(SourceError, match=r"busybox-static_1_amd64\.deb is truncated"):
        images._member(package, "bin/busybox")
    assert not package.exists()


def test_what_runs_as_a_module_is_a_dependency_of_ours() -> None:
    """The README's environment is made without pip: whatever we start by ``python -m`` must be declared."""
    root = Path(images.__file__).parent
    started = {
        name
        for file in root.rglob("*.py")
        for name in re.findall(r'sys\.executable, "-m", "([a-z_]+)"', file.read_text())
        if not name.startswith("harness")
    }
    declared = {
        re.split(r"[<>=.\[ ]", word)[0] for word in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    }
    assert started, "the search finds nothing: it looks for words that are no longer there"
    assert started <= declared


def test_refused_source_distribution_carries_the_words_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho 'ERROR: the hashes do not match' >&2\nexit 1\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(SourceError, match="the hashes do not match"):
        images._pypi("thing", "1.0", "0" * 64)
    assert not list((tmp_path / "paraksm" / "sources").iterdir())
