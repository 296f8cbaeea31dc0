# SPDX-License-Identifier: GPL-2.0-or-later
"""A series against a tiny kernel: render, apply, check, refresh, and what happens when it does not fit."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import patches, patchseries, patchset, refresh, sources
from harness.config import PROJECT, paths
from harness.errors import PatchError, UsageError
from harness.patchseries import Series
from harness.sources import SourceTree, git

MAKEFILE = "VERSION = 6\nPATCHLEVEL = {}\nSUBLEVEL = 0\n"
SCAN = "".join(
    f"static int {name}(int page)\n{{\n\tint err = page;\n\n"
    f"\tif (err < 0)\n\t\treturn err;\n\t{name}_one(err);\n\treturn 0;\n}}\n\n"
    for name in ("search", "insert", "merge", "scan", "show")
)

FAKE = Path(__file__).parent.parent / "data" / "fakeseries"


def _kernel(folder: Path, minor: int) -> SourceTree:
    (folder / "mm").mkdir(parents=True)
    (folder / "Makefile").write_text(MAKEFILE.format(minor))
    (folder / "mm" / "ksm.c").write_text(("int one;\nint two;\nint three;\n" if minor == 2 else "") + "\n" + SCAN)
    (folder / "mm" / "slub.c").write_text("int slub;\n" * 30)
    return sources.obtain("linux", source=str(folder))


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    return _kernel(tmp_path / "k61", 1)


@pytest.fixture
def newer(tmp_path: Path) -> SourceTree:
    return _kernel(tmp_path / "k62", 2)


@pytest.fixture
def series(tmp_path: Path) -> Series:
    root = tmp_path / "patches" / "linux"
    shutil.copytree(FAKE, root)
    loaded = patchseries.load("linux", root)
    patchseries.generate(loaded)
    return loaded


def _again(series: Series) -> Series:
    return patchseries.load(series.topic, series.root)


def _edit(tree: SourceTree, old: str, new: str, name: str = "mm/ksm.c") -> None:
    file = tree.path / name
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def _times(tree: SourceTree) -> dict[str, int]:
    return {
        str(file): file.stat().st_mtime_ns
        for file in tree.path.rglob("*")
        if ".git" not in file.parts and file.is_file()
    }


# --- rendering ----------------------------------------------------------------------------------------


def test_rendering_is_stable_and_each_kernel_gets_its_own(series: Series) -> None:
    one, two = patchseries.render(series, "6.1"), patchseries.render(series, "6.2")
    assert list(one) == ["0001-count.patch", "0002-show.patch"]
    assert patchseries.render(_again(series), "6.1") == one
    assert 'merge_two(err, "6.1");' in one["0001-count.patch"]
    assert 'merge_two(err, "6.2");' in two["0001-count.patch"]
    assert "Subject: [PATCH 2/2] mm: show" in one["0002-show.patch"]
    assert patchseries.generate(series) == []


def test_rendering_is_what_git_am_takes(series: Series, tree: SourceTree, tmp_path: Path) -> None:
    applied = patches.apply(tree, series)
    plain = tmp_path / "plain"
    shutil.copytree(tree.path, plain)
    git(plain, "checkout", "-q", "--detach", "base")
    mails = [str(series.root / "6.1" / name) for name in patchseries.render(series, "6.1")]
    git(plain, "am", "-q", *mails)
    assert git(plain, "rev-parse", "HEAD^{tree}") == applied.tree_id
    assert (
        git(plain, "log", "-1", "--format=%an <%ae> %aI")
        == "A. Author <author@example.invalid> 2023-02-19T00:00:00+00:00"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{{ name }}", "{{ nam }}", "count.diff.j2 for 6.1: 'nam' is undefined"),
        ("{{ at.search }}", "{{ at.serach }}", "serach"),
        ("{% endfor %}", "", "count.diff.j2 line"),
        ("+\tksm", "*\tksm", "not a line of a diff"),
        ("{{ at.search }}", "{{ 'x' }}", "'x' is not a line number"),
    ],
)
def test_broken_template_is_named(series: Series, old: str, new: str, said: str) -> None:
    file = series.root / "hooks" / "count.diff.j2"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(PatchError, match=said.replace(".", r"\.")):
        patchseries.render(series, "6.1")


@pytest.mark.parametrize(
    ("old", "new"), [("subject =", "subjcet ="), ('topic = "linux"', "topic = "), ("files = {", "files = 3 #")]
)
def test_broken_series_is_named(series: Series, old: str, new: str) -> None:
    file = series.root / "series.toml"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(PatchError, match=r"series\.toml"):
        patchseries.render(_again(series), "6.1")


def test_kernel_without_rendering_is_a_usage_error(series: Series) -> None:
    with pytest.raises(UsageError, match=r"no rendering for 5\.15; it has 6\.1, 6\.2"):
        patchseries.render(series, "5.15")


def test_stale_missing_and_surplus_renderings_are_found(series: Series) -> None:
    folder = series.root / "6.1"
    assert patchseries.stale(series) == []
    (folder / "0001-count.patch").write_text((folder / "0001-count.patch").read_text().replace("merge_two", "merge_2"))
    (folder / "0002-show.patch").unlink()
    (folder / "0003-old.patch").write_text("")
    assert sorted(patchseries.stale(series)) == ["6.1/0001-count.patch", "6.1/0002-show.patch", "6.1/0003-old.patch"]
    assert len(patchseries.generate(series)) == 3
    assert patchseries.stale(series) == []


# --- applying -----------------------------------------------------------------------------------------


def test_apply_commits_each_patch_with_ids_that_are_the_same_everywhere(
    series: Series, tree: SourceTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied = patches.apply(tree, series)
    assert git(tree.path, "log", "--format=%s", "base..paraksm").split("\n") == ["mm: show", "mm: count"]
    assert git(tree.path, "rev-parse", "HEAD^{tree}") == applied.tree_id
    assert not applied.dirty
    text = (tree.path / "mm" / "ksm.c").read_text()
    assert "\tksm_searched++;\n\tksm_merged++;\n\tsearch_one" in text
    assert 'merge_two(err, "6.1")' in text
    assert (tree.path / "mm" / "new.h").read_text().endswith("int fresh;\n")
    commit = git(tree.path, "rev-parse", "HEAD")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    other = sources.obtain("linux", source=str(tmp_path / "k61"))
    assert other.path != tree.path
    patches.apply(other, series)
    assert git(other.path, "rev-parse", "HEAD") == commit


def test_second_apply_changes_nothing_and_a_new_series_only_what_differs(series: Series, tree: SourceTree) -> None:
    first = patches.apply(tree, series)
    before = _times(tree)
    assert patches.apply(tree, _again(series)) == first
    assert _times(tree) == before
    header = series.root / "src" / "new.h"
    header.write_text(header.read_text() + "int more;\n")
    second = patches.apply(tree, _again(series))
    assert second.tree_id != first.tree_id
    assert {Path(name).name for name, time in _times(tree).items() if before[name] != time} == {"new.h"}


def test_edits_make_it_dirty_and_are_identified(series: Series, tree: SourceTree) -> None:
    clean = patches.apply(tree, series)
    _edit(tree, "show_all();", "show_most();")
    one = patches.apply(tree, series)
    assert (one.dirty, one.tree_id) == (True, clean.tree_id)
    assert patches.apply(tree, series) == one
    (tree.path / "mm" / "odd name.c").write_text("int odd;\n")
    (tree.path / "mm" / "dangling").symlink_to("nowhere")
    two = patches.apply(tree, series)
    assert len({clean.dirty_digest, one.dirty_digest, two.dirty_digest}) == 3
    git(tree.path, "add", "-A")
    git(tree.path, "commit", "-q", "-m", "mine")
    assert patches.apply(tree, series).dirty


def test_a_copied_tree_is_hashed_once_and_what_is_staged_stays(series: Series, tree: SourceTree) -> None:
    patches.apply(tree, series)
    _edit(tree, "show_all();", "show_most();")
    git(tree.path, "add", "mm/ksm.c")
    for file in (tree.path / "mm").iterdir():  # what restoring a cache does: other inodes, the same times
        copy = Path(shutil.copy2(file, file.with_name("copy")))
        copy.replace(file)
    assert git(tree.path, "diff-files", "--name-only") != ""
    first = patches.apply(tree, series)
    assert git(tree.path, "diff-files", "--name-only") == ""
    assert git(tree.path, "diff", "--cached", "--name-only") == "mm/ksm.c"
    assert patches.apply(tree, series) == first


def test_new_file_is_an_edit_though_the_tree_ignores_it_and_leftovers_are_none(
    series: Series, tree: SourceTree
) -> None:
    """Debian's Linux carries a .gitignore with ``/*``: git would not tell a new mm/foo.c."""
    patches.apply(tree, series)
    (tree.path / ".gitignore").write_text("/*\n")
    before = patches.apply(tree, series).dirty_digest
    (tree.path / "mm" / "ksm.c.orig").write_text("left by patch(1)\n")
    assert patches.apply(tree, series).dirty_digest == before
    (tree.path / "mm" / "brand_new.c").write_text("int brand_new;\n")
    assert patches.apply(tree, series).dirty_digest != before


def test_edits_are_never_lost_to_a_changed_series(series: Series, tree: SourceTree) -> None:
    patches.apply(tree, series)
    _edit(tree, "show_all();", "show_most();")
    header = series.root / "src" / "new.h"
    header.write_text("int other;\n")
    with pytest.raises(PatchError, match="local edits") as caught:
        patches.apply(tree, _again(series))
    assert "stash" in str(caught.value.hint)
    assert "show_most();" in (tree.path / "mm" / "ksm.c").read_text()
    git(tree.path, "stash", "-q")
    assert not patches.apply(tree, _again(series)).dirty
    assert (tree.path / "mm" / "new.h").read_text() == "int other;\n"


def test_edits_that_became_the_series_are_adopted_without_touching_a_file(series: Series, tree: SourceTree) -> None:
    patches.apply(tree, series)
    (tree.path / "mm" / "new.h").write_text("int other;\n")
    (series.root / "src" / "new.h").write_text("int other;\n")
    before = _times(tree)
    applied = patches.apply(tree, _again(series))
    assert not applied.dirty
    assert _times(tree) == before
    assert git(tree.path, "status", "--porcelain") == ""


def test_apply_killed_while_it_switches_is_finished_by_the_next(
    series: Series, tree: SourceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches.apply(tree, series)
    (series.root / "src" / "new.h").write_text("int other;\n")
    genuine = sources.git

    def killed(path: Path, *words: str, **more: object) -> str:
        if words[0] == "checkout":  # half of the files written, the lock of the index left behind
            (tree.path / "mm" / "new.h").write_text("int ot")
            (tree.path / ".git" / "index.lock").write_text("")
            raise KeyboardInterrupt
        return genuine(path, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(patches, "git", killed)
    with pytest.raises(KeyboardInterrupt):
        patches.apply(tree, _again(series))
    monkeypatch.setattr(patches, "git", genuine)
    applied = patches.apply(tree, _again(series))
    assert not applied.dirty
    assert (tree.path / "mm" / "new.h").read_text() == "int other;\n"
    assert "int ot\n" in (tree.path / ".git" / "paraksm-interrupted.diff").read_text()


def test_corrupt_state_is_made_anew(series: Series, tree: SourceTree) -> None:
    first = patches.apply(tree, series)
    for text in ("", "{", "[]"):
        (tree.path / ".git" / "paraksm.json").write_text(text)
        assert patches.apply(tree, series) == first


def test_hunk_that_does_not_fit_is_shown_beside_the_nearest_context(series: Series, tmp_path: Path) -> None:
    other = tmp_path / "other"
    _kernel(other, 1)
    file = other / "mm" / "ksm.c"
    file.write_text(file.read_text().replace("\tmerge_one(err);", "\tmerge_one(err, 0);"))
    tree = sources.obtain("linux", source=str(other))
    with pytest.raises(PatchError) as caught:
        patches.apply(tree, series)
    said = caught.value.message
    assert "count does not apply to linux 6.1: mm/ksm.c:" in said
    assert "-\tmerge_one(err);" in said
    assert "+\tmerge_one(err, 0);" in said
    assert git(tree.path, "status", "--porcelain") == ""
    assert (tree.path / "mm" / "ksm.c").read_text() == file.read_text()


def test_no_fuzz_one_different_context_line_is_enough_to_refuse(series: Series, tmp_path: Path) -> None:
    other = tmp_path / "other"
    _kernel(other, 1)
    file = other / "mm" / "ksm.c"
    file.write_text(file.read_text().replace("\tsearch_one(err);\n\treturn 0;", "\tsearch_one(err);\n\treturn 1;"))
    with pytest.raises(PatchError, match=r"mm/ksm\.c"):
        patches.apply(sources.obtain("linux", source=str(other)), series)


# --- checking and exporting ---------------------------------------------------------------------------


def test_check_tells_applying_failing_and_shifted(series: Series, tree: SourceTree, tmp_path: Path) -> None:
    shifted = tmp_path / "shifted"
    shutil.copytree(tmp_path / "k61", shifted)
    (shifted / "mm" / "ksm.c").write_text("int extra;\nint lines;\n" + (shifted / "mm" / "ksm.c").read_text())
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "k61", broken)
    (broken / "mm" / "ksm.c").write_text("int nothing;\n")
    rows = patchset.check(series, fetch=False, own=[str(tmp_path / "k61"), str(shifted), str(broken)])
    mine = rows[-3:]
    assert [row.result for row in mine] == ["applies", "applies", "fails"]
    assert mine[0].offsets == ()
    assert mine[1].offsets[0] == "count: mm/ksm.c hunk 1 is 2 lines off"
    assert mine[0].tree_id == patches.apply(tree, series).tree_id
    assert {row.result for row in rows[:-3]} == {"not obtainable"}


def test_check_wants_the_very_lines_of_the_release_that_is_pinned_first(
    series: Series, tree: SourceTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "k61", moved)
    (moved / "mm" / "ksm.c").write_text("int extra;\n" + (moved / "mm" / "ksm.c").read_text())
    older = sources.obtain("linux", source=str(moved))
    first, second = (sources.Pin("linux", name, "6.1", "tarball") for name in ("6.1.9", "6.1"))
    monkeypatch.setattr(sources, "obtainable", lambda kind: [(first, tree), (second, older)])
    rows = patchset.check(series, fetch=False)
    assert [(row.exact, bool(row.offsets), row.shifted) for row in rows] == [(True, False, False), (False, True, False)]
    monkeypatch.setattr(sources, "obtainable", lambda kind: [(first, older), (second, tree)])
    assert [row.shifted for row in patchset.check(series, fetch=False)] == [True, False]


def test_a_refresh_writes_the_lines_of_the_release_that_is_pinned_first(
    series: Series, tree: SourceTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though an older one is in the cache, or was edited."""
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "k61", moved)
    (moved / "mm" / "ksm.c").write_text("int extra;\n" * 7 + (moved / "mm" / "ksm.c").read_text())
    older = sources.obtain("linux", source=str(moved))
    pins = [sources.Pin("linux", name, "6.1", "tarball") for name in ("6.1.9", "6.1")]
    monkeypatch.setattr(sources, "obtainable", lambda kind: list(zip(pins, (tree, older), strict=True)))
    patches.apply(older, series)
    _edit(older, "int slub;\n" * 30, "int slab;\n" * 30, "mm/slub.c")
    refresh.refresh(series, older)
    assert patches.commit_series(tree, _again(series))[1] == []
    assert patches.commit_series(older, _again(series))[1] != []


def test_export_is_numbered_with_a_cover_and_never_overwrites(series: Series, tmp_path: Path) -> None:
    files = patchset.export(series, "6.1", tmp_path / "out")
    assert [file.name for file in files] == ["0000-cover-letter.patch", "0001-count.patch", "0002-show.patch"]
    cover = files[0].read_text()
    assert "Subject: [PATCH 0/2] mm: a test" in cover
    assert "mm: show" in cover
    assert " mm/ksm.c | 5 ++++-\n" in cover
    with pytest.raises(UsageError, match="exists"):
        patchset.export(series, "6.1", tmp_path / "out")


def test_the_cover_letter_has_the_figures_of_the_one_place_where_they_are(tmp_path: Path) -> None:
    series = patchseries.load("linux")
    text = (PROJECT / "docs" / "measurements.md").read_text()
    section = text.partition("\n## What ksmd spends, system by system\n")[2].partition("\n## ")[0]
    rows = [line.replace("*", "").split("|")[1:-1] for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 4
    cover = patchset.export(series, "6.2", tmp_path / "out")[0].read_text().splitlines()
    for cells in [rows[0], *rows[2:]]:
        assert [cell.strip() for cell in cells] in [re.split(r"  +", line) for line in cover]
    assert not [line for line in cover if "`" in line or "**" in line]


def test_figures_that_are_not_there_are_named(series: Series, tmp_path: Path) -> None:
    absent = dataclasses.replace(series, measured="docs/absent.md#Figures")
    with pytest.raises(PatchError, match=r"absent\.md has no section 'Figures'"):
        patchset.export(absent, "6.1", tmp_path / "out")


# --- refreshing ---------------------------------------------------------------------------------------


def test_refresh_without_edit_does_nothing(series: Series, tree: SourceTree) -> None:
    patches.apply(tree, series)
    assert refresh.refresh(series, tree).changed == []


def _refreshed(series: Series, tree: SourceTree, patch: str | None = None) -> refresh.Refreshed:
    """Refresh, and hold the result to what it promises."""
    before = _times(tree)
    done = refresh.refresh(series, tree, patch)
    assert _times(tree) == before
    fresh = _again(series)
    assert patchseries.stale(fresh) == []
    assert not patches.apply(tree, fresh).dirty
    assert git(tree.path, "status", "--porcelain") == ""
    assert "# a comment that stays" in (series.root / "series.toml").read_text()
    return done


def test_changed_hunk_becomes_literal_and_the_others_keep_their_template(series: Series, tree: SourceTree) -> None:
    patches.apply(tree, series)
    _edit(tree, 'merge_two(err, "6.1");', "merge_three(err, {{0}});")
    done = _refreshed(series, tree, "count")
    template = (series.root / "hooks" / "count.diff.j2").read_text()
    assert "{% for name in names %}" in template
    assert '"{{ kernel }}"' not in template
    assert "@@ {{ at.merge }} @@" in template
    assert "merge_three(err, {{0}});" in patchseries.render(_again(series), "6.1")["0001-count.patch"]
    assert {file.name for file in done.changed} >= {"count.diff.j2", "0001-count.patch"}


def test_new_hunks_of_known_and_unknown_files_reach_every_kernel(
    series: Series, tree: SourceTree, newer: SourceTree
) -> None:
    patches.apply(tree, series)
    _edit(tree, "insert_one(err);", "insert_one(err);\n\tksm_inserted++;")
    slub = tree.path / "mm" / "slub.c"
    slub.write_text("int first;\n" + slub.read_text())
    done = _refreshed(series, tree, "show")
    assert any(line.startswith("6.2:") for line in done.by_hand)  # no pinned 6.2 in this cache
    fresh = _again(series)
    assert "@@ {{ at.insert }} @@" in (series.root / "hooks" / "show.diff.j2").read_text()
    patches.apply(newer, fresh)
    assert "ksm_inserted++;" in (newer.path / "mm" / "ksm.c").read_text()
    assert (newer.path / "mm" / "slub.c").read_text().startswith("int first;\n")


def test_whole_files_come_and_go(series: Series, tree: SourceTree) -> None:
    patches.apply(tree, series)
    (tree.path / "mm" / "second.c").write_text("int second;\n")
    (tree.path / "mm" / "new.h").write_text("int changed;\n")
    _refreshed(series, tree, "count")
    assert (series.root / "src" / "new.h").read_text() == "int changed;\n"
    assert (series.root / "src" / "mm" / "second.c").read_text() == "int second;\n"
    (tree.path / "mm" / "second.c").unlink()
    _refreshed(_again(series), tree, "count")
    assert not (series.root / "src" / "mm" / "second.c").exists()
    assert dict(_again(series).patches[0].files) == {"mm/new.h": "src/new.h"}


def test_edit_of_an_early_patch_shifts_the_later_ones(series: Series, tree: SourceTree) -> None:
    patches.apply(tree, series)
    was = _again(series).patches[1].at["6.1"]["show"]
    _edit(tree, "\tksm_searched++;\n", "\tksm_searched++;\n\tmany();\n\tmore();\n")
    _refreshed(series, tree, "count")
    fresh = _again(series)
    assert fresh.patches[1].at["6.1"]["show"] == was + 2
    assert patches.commit_series(tree, fresh)[1] == []  # no offsets


def test_hunk_that_is_undone_leaves_template_and_table(series: Series, tree: SourceTree) -> None:
    patches.apply(tree, series)
    _edit(tree, 'merge_two(err, "6.1");', "merge_one(err);")
    _refreshed(series, tree, "count")
    assert "merge" not in _again(series).patches[0].at["6.1"]
    assert "merge" not in (series.root / "hooks" / "count.diff.j2").read_text().replace("merged", "")


def test_edit_that_belongs_to_a_later_patch_is_refused_and_nothing_changes(series: Series, tree: SourceTree) -> None:
    patches.apply(tree, series)
    files = {file: file.read_bytes() for file in series.root.rglob("*") if file.is_file()}
    _edit(tree, "show_all();", "show_most();")
    with pytest.raises(PatchError, match="a patch after count made"):
        refresh.refresh(series, tree, "count")
    assert {file: file.read_bytes() for file in series.root.rglob("*") if file.is_file()} == files
    assert "show_most();" in (tree.path / "mm" / "ksm.c").read_text()


def test_hunk_inside_a_condition_is_left_to_the_author_and_nothing_changes(series: Series, tree: SourceTree) -> None:
    template = series.root / "hooks" / "show.diff.j2"
    template.write_text(template.read_text().replace("@@ {{", "{% if true %}\n@@ {{", 1) + "{% endif %}\n")
    series = _again(series)
    patches.apply(tree, series)
    files = {file: file.read_bytes() for file in series.root.rglob("*") if file.is_file()}
    _edit(tree, "show_all();", "show_most();")
    with pytest.raises(PatchError):
        refresh.refresh(series, tree)
    assert {file: file.read_bytes() for file in series.root.rglob("*") if file.is_file()} == files


@pytest.mark.parametrize("what", ["binary", "no newline", "unknown patch", "series changed"])
def test_what_cannot_be_refreshed_is_refused(series: Series, tree: SourceTree, what: str) -> None:
    patches.apply(tree, series)
    patch = None
    if what == "binary":
        (tree.path / "mm" / "blob").write_bytes(bytes(range(256)))
    elif what == "no newline":
        (tree.path / "mm" / "slub.c").write_text("int slub;")
    elif what == "unknown patch":
        patch = "nope"
    else:
        (series.root / "src" / "new.h").write_text("int other;\n")
    with pytest.raises((PatchError, UsageError)) as caught:
        refresh.refresh(_again(series), tree, patch)
    assert caught.value.hint


def test_lines_are_found_again_in_a_kernel_that_moved(series: Series, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    _kernel(moved, 2)
    file = moved / "mm" / "ksm.c"
    file.write_text("int more;\n" * 40 + file.read_text())
    tree = sources.obtain("linux", source=str(moved))
    assert patches.commit_series(tree, series)[1]
    refresh.relocate(series, tree)
    assert patches.commit_series(tree, _again(series))[1] == []
    assert patchseries.stale(_again(series)) == []


# --- the shipped series and the command ---------------------------------------------------------------


def test_shipped_renderings_are_what_the_generator_makes() -> None:
    for topic in patchseries.TOPICS.values():
        assert patchseries.stale(patchseries.load(topic)) == []


def test_counters_stand_at_every_comparison_checksum_and_visit() -> None:
    """The patch, read as text: each kind of work is counted once at each of its places."""
    series = patchseries.load("linux")
    for kernel in series.kernels:
        added = [
            line[1:].strip()
            for line in patchseries.render(series, kernel)["0001-ksm-counters.patch"].splitlines()
            if line.startswith("+") and line.endswith("++;")
        ]
        assert sorted(added) == ["ksm_page_checksums++;", *["ksm_page_comparisons++;"] * 4, "ksm_pages_scanned++;"]


def _harness(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", "patch", *words], capture_output=True, text=True, check=False
    )


def test_command_lists_as_json_and_refuses_an_unknown_topic() -> None:
    rows = json.loads(_harness("list", "--json").stdout)
    assert rows[0]["id"] == "ksm-counters"
    assert rows[0]["kconfig"] == ["KSM"]
    assert "mm/ksm.c" in rows[0]["files"]
    done = _harness("list", "--topic", "bsd")
    assert done.returncode == 2
    assert "next:" in done.stderr


def test_command_reports_a_tree_where_the_series_fails(tmp_path: Path) -> None:
    _kernel(tmp_path / "k61", 1)
    done = _harness("check", "--topic", "linux", "--no-fetch", "--json", "--source", str(tmp_path / "k61"))
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    last = json.loads(done.stdout)["kernels"][-1]
    assert (last["kernel"], last["result"]) == ("6.1", "fails")
    assert "ksm-counters does not apply" in last["detail"]


def test_command_applies_to_nothing_without_a_trace(tmp_path: Path) -> None:
    done = _harness("apply", "--source", str(tmp_path / "absent"))
    assert done.returncode == 2
    assert "absent" in done.stderr
    assert list(paths().trees.iterdir()) == []


# --- a part of a series -------------------------------------------------------------------------------


def test_a_prefix_ends_where_it_is_told(series: Series) -> None:
    ids = [patch.id for patch in series.patches]
    assert ids == ["count", "show"]
    assert [patch.id for patch in series.prefix("count").patches] == ["count"]
    assert series.prefix("base").patches == ()
    assert series.prefix(None) is series
    assert series.before("show").upto == "count"
    assert series.before("count").upto == "base"
    assert "[PATCH] mm" in patchseries.render(series.prefix("count"), "6.1")["0001-count.patch"]
    with pytest.raises(UsageError, match="no patch 'shows'") as caught:
        series.prefix("shows")
    assert caught.value.hint == "one of: base, count, show"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("ksm-para", "ksm-para"),
        ("para_c", "ksm-para"),
        ("PARA-T", "ksm-para"),
        ("para", "ksm-para"),
        ("dsa", "idxd-ksm"),
        ("idxd", "idxd-ksm"),
        ("batch core", "ksm-batch-core"),
        ("kunit", "ksm-batch-kunit"),
        ("counters", "ksm-counters"),
        ("offload", "ksm-offload"),
        ("debug", "ksm-offload-debug"),
        ("docs", "ksm-offload-docs"),
    ],
)
def test_a_patch_goes_by_what_one_would_call_it(said: str, meant: str) -> None:
    series = patchseries.load("linux")
    assert series.find(said).id == meant
    part = series.prefix(said)
    assert (part.upto, part.patches[-1].id) == (meant, meant)


@pytest.mark.parametrize(
    ("said", "which"), [("batch", "ksm-batch-core or ksm-batch-kunit"), ("ksm", "ksm-counters or ksm-offload or ")]
)
def test_a_name_that_can_be_several_patches_is_refused(said: str, which: str) -> None:
    with pytest.raises(UsageError, match=f"'{said}' can be {which}"):
        patchseries.load("linux").find(said)


@pytest.mark.parametrize("said", ["smartnic", "para_x", "", "-"])
def test_what_is_no_patch_shows_those_there_are_and_what_they_provide(said: str) -> None:
    with pytest.raises(UsageError, match=f"no patch '{said}'") as caught:
        patchseries.load("linux").find(said)
    assert "ksm-para (ksm-para-c, ksm-para-t)" in str(caught.value.hint)


def test_every_patch_of_every_series_is_found_by_its_name() -> None:
    for topic in patchseries.TOPICS.values():
        series = patchseries.load(topic)
        for patch in series.patches:
            assert series.find(patch.id) == patch
            for name in patch.provides:
                assert series.find(name) == patch


def test_a_kernel_up_to_a_mode_has_what_its_system_needs() -> None:
    """DSA-ksm needs the queue driver, too, so only that provides it."""
    for kernel in ("6.1", "6.2"):
        part = patchseries.load("linux").prefix("dsa")
        assert {"drivers/dma/idxd/ksm.c", "mm/ksm_offload.c"} <= {
            name for patch in part.for_kernel(kernel) for name in patch.files
        }


def test_parts_go_to_a_second_tree_and_the_users_keeps_what_it_has(series: Series, tree: SourceTree) -> None:
    whole = patches.apply(tree, series)
    _edit(tree, "int slub;\n" * 30, "int edited;\n", "mm/slub.c")
    before = _times(tree)
    base, first = (patches.apply(tree, series, upto=name) for name in ("base", "count"))
    assert base.tree.path == first.tree.path != tree.path
    assert _times(tree) == before
    assert base.tree_id == git(tree.path, "rev-parse", "base^{tree}")
    assert len({base.tree_id, first.tree_id, whole.tree_id}) == 3
    assert (base.dirty, first.dirty) == (False, False)
    assert first.upto == "count"
    # its commit is the one that the whole series has at that place
    assert git(first.tree.path, "rev-parse", "HEAD") == git(tree.path, "rev-parse", "paraksm~1")
    assert patches.apply(tree, series, upto="show").tree_id == whole.tree_id


def test_a_part_is_held_while_it_is_built_whatever_was_applied_since(series: Series, tree: SourceTree) -> None:
    first = patches.apply(tree, series, upto="count")
    patches.apply(tree, series, upto="base")
    with patches.held(first):
        assert git(first.tree.path, "rev-parse", "HEAD^{tree}") == first.tree_id
        script = "import sys; from filelock import FileLock; FileLock(sys.argv[1], timeout=0).acquire()"
        file = first.tree.path.with_name(f".{first.tree.path.name}.lock")
        child = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=False)
        assert "Timeout" in child.stderr
    (first.tree.path / "mm" / "slub.c").write_text("int edited;\n")
    with pytest.raises(PatchError, match="edited meanwhile"), patches.held(first):
        pass


def test_a_second_tree_that_lost_what_it_borrows_is_made_anew(series: Series, tree: SourceTree) -> None:
    first = patches.apply(tree, series, upto="count")
    alternates = first.tree.path / ".git" / "objects" / "info" / "alternates"
    alternates.write_text("/nowhere\n")
    assert patches.apply(tree, series, upto="count") == first
    assert alternates.read_text().strip() == str(tree.path / ".git" / "objects")


def test_the_command_renders_a_part_for_one_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from harness.cli.patch import app

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["generate", "--kernel", "6.2", "--upto", "ksm-counters"])
    assert done.exit_code == 0, done.output
    names = [patch.id for patch in patchseries.load("linux").prefix("ksm-counters").for_kernel("6.2")]
    written = sorted(path.name for path in (tmp_path / "6.2-upto-ksm-counters").iterdir())
    assert [name[5:-6] for name in written] == names
    again = CliRunner().invoke(app, ["generate", "--kernel", "6.2", "--upto", "ksm-counters"])
    assert isinstance(again.exception, UsageError)
    assert CliRunner().invoke(app, ["generate", "--kernel", "6.1", "--upto", "para_c"]).exit_code == 0
    assert (tmp_path / "6.1-upto-ksm-para" / "0007-ksm-para.patch").exists()
    for words in (
        ["--upto", "ksm-counters"],
        ["--kernel", "5.4", "--upto", "base"],
        ["--kernel", "6.2", "--upto", "no"],
    ):
        assert isinstance(CliRunner().invoke(app, ["generate", *words]).exception, UsageError)
