# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that the makefile of a source package makes, on a small package made here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness import config, images, sourcepackage
from harness.errors import BuildError, SourceError
from harness.run import run
from harness.sourcepackage import SourcePackage

CONTROL = """\
Source: thing
Maintainer: nobody <nobody@localhost>

Package: thing
Architecture: any
Description: a program for a test
"""
CHANGELOG = """\
thing (1.2-1) unstable; urgency=low

  * Made.

 -- nobody <nobody@localhost>  Thu, 01 Jan 2026 00:00:00 +0000
"""
MAKEFILE = """\
CC = gcc
WORDS = -DDATE='"$(SOURCE_DATE_EPOCH)"' -DWORD='"$(WORD)"' -DFLAGS='"$(CFLAGS)$(MAKELEVEL)"'
made: made.c
\t$(CC) $(CFLAGS) $(WORDS) -o $@ made.c $(MORE)
"""
PROGRAM = """\
#include <stdio.h>
int more(void);
int main(void) { printf("%s %s [%s] %d\\n", DATE, WORD, FLAGS, more()); return 0; }
"""
RECIPE = """\
[program.thing]
compiler = "gcc"
sources = ["src/more.c"]
flags = ["-O1"]

[program.thing.debian]
package = "thing"
suite = "none"
version = "1.2"
directory = "here"
target = "made"
variables = { WORD = "word", MORE = "-s {objects}" }
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recipes with a program that a package's makefile makes."""
    recipes = tmp_path / "project" / "vm-images"
    (recipes / "src").mkdir(parents=True)
    (recipes / "src" / "more.c").write_text("int more(void) { return 42; }\n")
    (recipes / "recipes.toml").write_text(RECIPE)
    monkeypatch.setattr(images, "PROJECT", recipes.parent)
    return recipes


@pytest.fixture
def cache(tmp_path: Path, project: Path) -> Path:
    """The package, where it lies once it was fetched."""
    (tmp_path / "source" / "here").mkdir(parents=True)
    (tmp_path / "source" / "debian" / "source").mkdir(parents=True)
    for name, text in {
        "here/Makefile": MAKEFILE,
        "here/made.c": PROGRAM,
        "debian/control": CONTROL,
        "debian/changelog": CHANGELOG,
        "debian/source/format": "3.0 (quilt)\n",
    }.items():
        (tmp_path / "source" / name).write_text(text)
    folder = config.paths().sources / "thing-none"
    folder.mkdir(parents=True)
    run(["tar", "-C", tmp_path, "-czf", folder / "thing_1.2.orig.tar.gz", "--exclude=debian", "source"])
    run(["dpkg-source", "--build", tmp_path / "source"], cwd=folder)
    assert (folder / "thing_1.2-1.dsc").exists()
    assert project.is_dir()
    return folder


def _says(program: Path) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout


def test_a_program_is_made_and_knows_nothing_of_its_builder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CFLAGS", "MAKEFLAGS", "WORD", "SOURCE_DATE_EPOCH"):
        monkeypatch.setenv(name, "-k")
    made = images.program("thing")
    assert _says(made) == "0 word [0] 42\n"
    assert str(cache.parent.parent).encode() not in made.read_bytes()
    assert {file.name for file in made.parent.iterdir()} == {"thing", "thing.sha256"}
    assert not list(config.paths().tmp.glob("thing-*"))


def test_it_is_made_once_and_again_when_anything_of_it_changes(cache: Path, project: Path) -> None:
    first = images.program("thing")
    stamp = first.stat().st_mtime_ns
    assert images.program("thing") == first
    assert first.stat().st_mtime_ns == stamp
    (project / "recipes.toml").write_text(RECIPE.replace('"word"', '"other"'))
    second = images.program("thing")
    assert _says(second) == "0 other [0] 42\n"
    (project / "src" / "more.c").write_text("int more(void) { return 43; }\n")
    third = images.program("thing")
    assert _says(third) == "0 other [0] 43\n"
    description = next(cache.glob("*.dsc"))
    description.write_text(description.read_text() + "\n")
    assert len({first, second, third, images.program("thing")}) == 4


def test_a_damaged_archive_is_refused_and_fetched_anew_next_time(cache: Path) -> None:
    archive = cache / "thing_1.2.orig.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"thing_1.2-1.dsc names files that are damaged or absent: .*orig.tar.gz"):
        images.program("thing")
    assert not list(cache.glob("*.dsc"))
    assert not list((config.paths().images / "programs").iterdir())


def test_another_version_in_the_cache_is_not_taken(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def download(package: str, suite: str, _into: Path, version: str) -> Path:
        asked.append((package, suite, version))
        raise SourceError("not here")

    monkeypatch.setattr("harness.debian.download_source", download)
    with pytest.raises(SourceError, match="not here") as caught:
        sourcepackage.description(SourcePackage("thing", "none", "1.3", "here", "made"))
    assert asked == [("thing", "none", "1.3")]
    assert caught.value.hint is not None
    assert "vm-images/recipes.toml" in caught.value.hint
    assert sourcepackage.description(SourcePackage("thing", "none", "1.2", "here", "made")).parent == cache


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("-s {objects}", "-s", "undefined reference to `more'"),
        ('"made"', '"nothing"', "No rule to make target"),
        ('"here"', '"nowhere"', "nowhere"),
    ],
)
def test_what_cannot_be_made_shows_why(cache: Path, project: Path, old: str, new: str, cause: str) -> None:
    (project / "recipes.toml").write_text(RECIPE.replace(old, new))
    with pytest.raises(BuildError, match=cause) as caught:
        images.program("thing")
    assert caught.value.log is not None
    assert cause in caught.value.log.read_text()
    assert cache.is_dir()


def test_redis_is_pinned_to_a_version_without_what_would_differ_between_builds() -> None:
    wanted = SourcePackage.of(images.recipes()["program"]["redis-server"]["debian"])
    assert wanted.version.startswith("7.0.")
    assert {"MALLOC": "libc", "BUILD_TLS": "no", "USE_SYSTEMD": "no", "DEBUG": ""}.items() <= wanted.variables.items()
    assert "-static" in wanted.variables["REDIS_LDFLAGS"]
