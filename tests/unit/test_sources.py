# SPDX-License-Identifier: GPL-2.0-or-later
"""Where trees come from: pins over a local web server, the user's own, and everything that can go wrong."""

from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import json
import lzma
import multiprocessing
import os
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import debian, keyring, packages, sources
from harness.config import paths
from harness.errors import EnvironmentProblem, SourceError, UsageError

MAKEFILE = "# SPDX-License-Identifier: GPL-2.0\nVERSION = 6\nPATCHLEVEL = 2\nSUBLEVEL = {}\nEXTRAVERSION =\n"


def _tree(folder: Path, sublevel: int = 0) -> Path:
    (folder / "mm").mkdir(parents=True)
    (folder / "Makefile").write_text(MAKEFILE.format(sublevel))
    (folder / "mm" / "ksm.c").write_text("int ksm;\n")
    (folder / ".gitignore").write_text("*.o\n*.orig\n")
    (folder / "kept.orig").write_text("ignored by git, but part of the release\n")
    return folder


def _archive(folder: Path, name: str, sublevel: int = 0) -> Path:
    _tree(folder / "plain" / name.removesuffix(".tar.xz"), sublevel)
    with tarfile.open(folder / name, "w:xz") as tar:
        tar.add(folder / "plain" / name.removesuffix(".tar.xz"), name.removesuffix(".tar.xz"))
    return folder / name


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class _Web:
    """A directory that is served, and the requests that came."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.cut: int | None = None
        self.stuck = threading.Event()  # cleared: half of a file is sent, then nothing until it is set
        self.stuck.set()
        web = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                web.asked.append(self.path)

            def copyfile(self, source: object, outputfile: object) -> None:
                if not web.stuck.is_set():
                    outputfile.write(source.read(100))  # type: ignore[attr-defined]
                    outputfile.flush()  # type: ignore[attr-defined]
                    web.stuck.wait(60)
                elif web.cut is None:
                    super().copyfile(source, outputfile)  # type: ignore[arg-type]
                else:
                    outputfile.write(source.read(web.cut))  # type: ignore[attr-defined]
                    self.close_connection = True

        handler = functools.partial(Handler, directory=str(root))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Web]:
    (tmp_path / "www").mkdir()
    served = _Web(tmp_path / "www")
    monkeypatch.setenv("PARAKSM_MIRROR", served.url)
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of our own, whose pins the test writes."""
    monkeypatch.setattr(sources, "PROJECT", tmp_path / "project")
    monkeypatch.setattr(keyring, "PROJECT", tmp_path / "project")
    monkeypatch.setattr(packages, "require", lambda *_tasks: None)
    (tmp_path / "project" / "kernel").mkdir(parents=True)
    return tmp_path / "project" / "kernel" / "sources.toml"


def _pin(version: str, **entry: str) -> str:
    rows = {"version": version, "series": "6.2", "via": "tarball", **entry}
    return "[[linux]]\n" + "".join(f'{key} = "{value}"\n' for key, value in rows.items())


def _pin_62(pinned: Path, web: _Web) -> Path:
    archive = _archive(web.root, "linux-6.2.tar.xz")
    pinned.write_text(_pin("6.2", url="https://elsewhere.invalid/v6.x/linux-6.2.tar.xz", sha256=_digest(archive)))
    return archive


def _tree_id(tree: sources.SourceTree) -> str:
    return sources.git(tree.path, "rev-parse", "base^{tree}")


def test_pinned_archive_becomes_a_reproducible_tree(web: _Web, pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _pin_62(pinned, web)
    tree = sources.obtain("linux", "6.2")
    assert (tree.version, tree.series, tree.identity) == ("6.2", "6.2", f"sha256:{_digest(archive)}")
    assert (tree.path / "kept.orig").exists()
    assert "kept.orig" in sources.git(tree.path, "ls-tree", "--name-only", "base")
    assert sources.git(tree.path, "status", "--porcelain") == ""
    commit = sources.git(tree.path, "rev-parse", "base^{commit}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(web.root / "other"))
    again = sources.obtain("linux", "6.2.0")  # the same release under its other name
    assert again.path != tree.path
    assert sources.git(again.path, "rev-parse", "base^{commit}") == commit


def test_second_run_needs_no_network(web: _Web, pinned: Path) -> None:
    _pin_62(pinned, web)
    first = sources.obtain("linux", "6.2")
    asked = len(web.asked)
    assert asked
    assert sources.obtain("linux", "6.2") == first
    assert len(web.asked) == asked


@pytest.mark.parametrize("damage", ["altered", "truncated", "cut off by the server", "absent"])
def test_damaged_download_is_refused_by_name_and_mended_by_the_next_run(web: _Web, pinned: Path, damage: str) -> None:
    archive = _pin_62(pinned, web)
    whole = archive.read_bytes()
    if damage == "altered":
        archive.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    elif damage == "truncated":
        archive.write_bytes(whole[: len(whole) // 2])
    elif damage == "absent":
        archive.unlink()
    else:
        web.cut = 100
    with pytest.raises(
        SourceError, match=r"linux-6\.2\.tar\.xz (is altered or truncated|cannot be downloaded)"
    ) as caught:
        sources.obtain("linux", "6.2")
    assert caught.value.hint
    assert list(paths().sources.iterdir()) == []
    assert list(paths().trees.glob("linux-*")) == []
    archive.write_bytes(whole)
    web.cut = None
    assert sources.obtain("linux", "6.2").version == "6.2"


def test_a_disk_that_fills_up_is_named_and_nothing_half_stays(
    web: _Web, pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While unpacking, then while downloading; with space again the same command works."""
    archive = _pin_62(pinned, web)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tar").write_text(
        '#!/bin/sh\necho "tar: x: Cannot write: No space left on device" >&2; exit 2\n'
    )
    (tmp_path / "bin" / "tar").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        with pytest.raises(EnvironmentProblem, match=r"no space left while unpacking linux-6\.2"):
            sources.obtain("linux", "6.2")
    assert not [entry for entry in paths().trees.iterdir() if entry.is_dir()]
    (paths().sources / archive.name).unlink()
    with monkeypatch.context() as patch:
        patch.setattr("pooch.retrieve", _full)
        with pytest.raises(EnvironmentProblem, match=r"no space left while downloading linux-6\.2") as caught:
            sources.obtain("linux", "6.2")
        assert "harness cache list" in str(caught.value.hint)
    assert sources.obtain("linux", "6.2").version == "6.2"


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _stuck_download() -> None:
    sources.obtain("linux", "6.2")


def test_a_download_that_is_killed_leaves_nothing_that_is_taken_for_it(web: _Web, pinned: Path) -> None:
    archive = _pin_62(pinned, web)
    web.stuck.clear()
    child = multiprocessing.get_context("fork").Process(target=_stuck_download)
    child.start()
    deadline = time.monotonic() + 30
    while not web.asked and time.monotonic() < deadline:
        time.sleep(0.02)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    web.stuck.set()
    assert not (paths().sources / archive.name).exists()
    assert sources.obtain("linux", "6.2").version == "6.2"


def test_damaged_archive_in_the_cache_is_fetched_again(web: _Web, pinned: Path) -> None:
    archive = _pin_62(pinned, web)
    (paths().sources / archive.name).write_bytes(archive.read_bytes()[:-7])
    assert sources.obtain("linux", "6.2").version == "6.2"
    assert _digest(paths().sources / archive.name) == _digest(archive)


def test_a_copied_cache_uses_its_own_tree(web: _Web, pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that of the cache it was copied from, which somebody else may be patching."""
    _pin_62(pinned, web)
    first = sources.obtain("linux", "6.2")
    shutil.copytree(paths().cache, web.root / "copied" / "paraksm", symlinks=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(web.root / "copied"))
    second = sources.obtain("linux", "6.2")
    assert second.path == web.root / "copied" / "paraksm" / "trees" / first.path.name
    assert _tree_id(second) == _tree_id(first)


def test_damaged_tree_and_record_are_made_again(web: _Web, pinned: Path) -> None:
    _pin_62(pinned, web)
    tree = sources.obtain("linux", "6.2")
    (tree.path / ".git" / "HEAD").unlink()
    assert _tree_id(sources.obtain("linux", "6.2"))
    record = paths().trees / "linux-6.2.json"
    for text in ("", "[]", json.dumps({"path": 3})):
        record.write_text(text)
        assert sources.obtain("linux", "6.2") == tree


def test_changed_pin_is_not_answered_from_the_cache(web: _Web, pinned: Path) -> None:
    _pin_62(pinned, web)
    sources.obtain("linux", "6.2")
    pinned.write_text(pinned.read_text().replace('sha256 = "', 'sha256 = "0')[:-3] + '"\n')
    with pytest.raises(SourceError, match="altered or truncated"):
        sources.obtain("linux", "6.2")


def test_archive_of_another_release_is_refused(web: _Web, pinned: Path) -> None:
    archive = _archive(web.root, "linux-6.2.tar.xz")
    pinned.write_text(_pin("6.3", url=f"https://elsewhere.invalid/{archive.name}", sha256=_digest(archive)))
    with pytest.raises(SourceError, match=r"holds linux 6\.2, its pin says 6\.3"):
        sources.obtain("linux", "6.3")


def test_default_takes_the_first_obtainable_and_says_so(
    web: _Web, pinned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = _archive(web.root, "linux-6.2.9.tar.xz", 9)
    pinned.write_text(
        _pin("6.2", url="https://elsewhere.invalid/linux-6.2.tar.xz", sha256="0" * 64)
        + _pin("6.2.9", url=f"https://elsewhere.invalid/{second.name}", sha256=_digest(second))
    )
    assert sources.obtain("linux").version == "6.2.9"
    said = capsys.readouterr().err
    assert "linux 6.2.9 (linux-6.2.9.tar.xz)" in said
    assert "not 6.2: linux-6.2.tar.xz cannot be downloaded (HTTP status 404)" in said
    assert sources.obtain("linux").version == "6.2.9"
    assert "linux 6.2.9 (linux-6.2.9.tar.xz)" in capsys.readouterr().err


def test_a_version_asked_for_never_falls_back(web: _Web, pinned: Path) -> None:
    other = _archive(web.root, "linux-6.2.9.tar.xz", 9)
    pinned.write_text(
        _pin("6.2", url="https://elsewhere.invalid/linux-6.2.tar.xz", sha256="0" * 64)
        + _pin("6.2.9", url=f"https://elsewhere.invalid/{other.name}", sha256=_digest(other))
    )
    with pytest.raises(SourceError, match=r"linux-6\.2\.tar\.xz"):
        sources.obtain("linux", "6.2")
    with pytest.raises(UsageError, match=r"no pinned linux 9\.99; pinned are 6\.2, 6\.2\.9"):
        sources.obtain("linux", "9.99")


def test_nothing_obtainable_lists_every_reason(pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAKSM_MIRROR", "http://127.0.0.1:1")
    pinned.write_text(
        _pin("6.2", url="https://elsewhere.invalid/linux-6.2.tar.xz", sha256="0" * 64)
        + _pin("6.2.9", url="https://elsewhere.invalid/linux-6.2.9.tar.xz", sha256="0" * 64)
    )
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"(?s)linux-6\.2\.tar\.xz.*linux-6\.2\.9\.tar\.xz"):
        sources.obtain("linux")
    assert time.monotonic() - start < 20


def test_pin_without_digest_and_signature_is_refused_before_a_download(web: _Web, pinned: Path) -> None:
    archive = _archive(web.root, "linux-6.2.tar.xz")
    pinned.write_text(_pin("6.2", url=f"https://elsewhere.invalid/{archive.name}"))
    with pytest.raises(SourceError, match="without digest and signature"):
        sources.obtain("linux", "6.2")
    assert web.asked == []


def test_malformed_pins_are_one_clear_error(pinned: Path) -> None:
    pinned.write_text("[[linux]]\nversoin = 1\n")
    with pytest.raises(SourceError, match=r"sources\.toml.*versoin"):
        sources.obtain("linux")


def test_every_shipped_pin_is_verifiable() -> None:
    for kind in ("linux", "qemu"):
        shipped = sources.pins(kind)
        assert shipped
        for pin in shipped:
            assert pin.version.startswith(pin.series)
            assert pin.via != "tarball" or len(pin.sha256) == 64 or (pin.signature and len(pin.signer) == 40)


# --- signatures ---------------------------------------------------------------------------------------


SIGNED = Path(__file__).parent.parent / "data" / "signed"
SIGNER = "C9918F7CDC1E6BF4F2AE7AD52D38311C5DCB1852"


def _signed(web: _Web, pinned: Path, *, by: str = "release", signed: str = "uncompressed") -> Path:
    """Serve the signed archive; the keyring knows both signers, the pin names the first."""
    archive = Path(shutil.copy(SIGNED / "linux-6.2.16.tar.xz", web.root))
    shutil.copy(SIGNED / f"{by}.{signed}.sig", web.root / "linux.sign")
    place = "https://elsewhere.invalid"
    entry = {"url": f"{place}/{archive.name}", "signature": f"{place}/linux.sign", "signer": SIGNER}
    pinned.write_text(_pin("6.2.16", signed=signed, **entry))
    return archive


@pytest.mark.parametrize("signed", ["uncompressed", "archive"])
def test_signature_of_the_pinned_key_is_accepted(
    web: _Web, pinned: Path, signed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _signed(web, pinned, signed=signed)
    monkeypatch.setenv("PARAKSM_KEYRING", str(SIGNED / "both.gpg"))
    tree = sources.obtain("linux", "6.2.16")
    assert (tree.version, tree.identity) == ("6.2.16", f"sha256:{_digest(archive)}")


@pytest.mark.parametrize("case", ["stranger", "altered", "truncated", "wrong key named"])
def test_signature_that_is_not_good_is_refused_and_the_next_run_recovers(
    web: _Web, pinned: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _signed(web, pinned, by="stranger" if case == "stranger" else "release")
    monkeypatch.setenv("PARAKSM_KEYRING", str(SIGNED / "both.gpg"))
    if case == "altered":  # a valid archive of other content
        archive.write_bytes(lzma.compress(lzma.decompress(archive.read_bytes()).replace(b"int ksm;", b"int bad;")))
    elif case == "truncated":
        archive.write_bytes(archive.read_bytes()[:-40])
    elif case == "wrong key named":
        pinned.write_text(pinned.read_text().replace(SIGNER, SIGNER[::-1]))
    with pytest.raises(SourceError, match=r"linux-6\.2\.16\.tar\.xz is not signed by [0-9A-F]{40}"):
        sources.obtain("linux", "6.2.16")
    assert list(paths().sources.iterdir()) == []
    _signed(web, pinned)
    assert sources.obtain("linux", "6.2.16").version == "6.2.16"


def test_without_a_key_nothing_is_fetched_and_the_way_out_is_named(web: _Web, pinned: Path) -> None:
    _signed(web, pinned)
    with pytest.raises(SourceError, match=r"linux-6\.2\.16\.tar\.xz cannot be verified: the key") as caught:
        sources.obtain("linux", "6.2.16")
    assert "PARAKSM_KEYRING" in str(caught.value.hint)
    assert web.asked == []


def test_the_key_is_taken_from_debians_packaging(web: _Web, pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _signed(web, pinned)
    pinned.write_text(pinned.read_text() + f'[keys.{SIGNER}]\npackage = "linux"\nsuite = "s"\nfile = "debian/k"\n')
    monkeypatch.setattr(debian, "source_file", lambda *_: (SIGNED / "both.gpg").read_bytes())
    assert sources.obtain("linux", "6.2.16").identity == f"sha256:{_digest(archive)}"


# --- what a series is at ------------------------------------------------------------------------------


class _Packaged:
    """Debian's kernels: each version as the archive that a package carries; which were fetched."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.newest = folder, "6.2.9"
        self.fetched: list[str] = []
        monkeypatch.setattr(debian, "download_binary", self._download)
        monkeypatch.setattr(sources, "_debian_binary", self._unpack)

    def _download(self, _package: str, _into: Path, version: str = "") -> Path:
        version = version or self.newest
        self.fetched.append(version)
        name = f"linux-{version}.tar.xz"
        return _archive(self.folder, name, int(version.rsplit(".", 1)[1]))

    def _unpack(self, pin: sources.Pin) -> tuple[str, str, sources.Extract]:
        archive = debian.download_binary(pin.package, paths().sources, sources._point_release(pin))
        return (
            f"sha256:{_digest(archive)}",
            f"Debian package {archive.stem}",
            lambda work: sources.untar(archive, work),
        )


@pytest.fixture
def packaged(tmp_path: Path, pinned: Path, monkeypatch: pytest.MonkeyPatch) -> _Packaged:
    pinned.write_text(
        _pin("6.2.9", series="6.2", via="debian-binary", package="p", member="m")
        + _pin("6.2", series="6.2", via="debian-binary", package="p", member="m")
    )
    (tmp_path / "mirror").mkdir()
    return _Packaged(tmp_path / "mirror", monkeypatch)


def test_a_series_keeps_the_point_release_it_had(packaged: _Packaged) -> None:
    """A newer one on the mirror changes nothing by itself; asked for by its full version it stands beside."""
    assert sources.obtain("linux", "6.2").version == "6.2.9"
    packaged.newest = "6.2.12"
    assert sources.obtain("linux", "6.2").version == "6.2.9"
    assert sources.obtain("linux").version == "6.2.9"
    newer = sources.obtain("linux", "6.2.12")
    assert newer.version == "6.2.12"
    assert sources.obtain("linux", "6.2.12") == newer
    assert sources.obtain("linux", "6.2").version == "6.2.9"
    assert packaged.fetched == ["6.2.9", "6.2.12"]


def test_what_a_series_led_to_serves_its_full_version_too(packaged: _Packaged) -> None:
    first = sources.obtain("linux", "6.2")
    assert sources.obtain("linux", "6.2.9").path == first.path
    assert sources.obtain("linux") == first
    assert packaged.fetched == ["6.2.9"]


def test_a_point_release_of_another_series_is_no_pin(packaged: _Packaged) -> None:
    with pytest.raises(UsageError, match=r"no pinned linux 6\.3\.1; pinned are 6\.2\.9, 6\.2"):
        sources.obtain("linux", "6.3.1")


# --- the user's own -----------------------------------------------------------------------------------


def _git(folder: Path, *words: str) -> str:
    return sources.git(folder, *words)


def _snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Time and content of every file; git may freshen the time of an object it meets again, nothing else."""
    return {
        str(file): (0 if "objects" in file.parts else file.lstat().st_mtime_ns, _digest(file))
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_directory_archive_and_revision_give_the_same_tree(tmp_path: Path) -> None:
    archive = _archive(tmp_path, "linux-6.2.tar.xz")
    folder = tmp_path / "plain" / "linux-6.2"
    trees = [sources.obtain("linux", source=str(folder)), sources.obtain("linux", source=str(archive))]
    _git(folder, "init", "-q")
    _git(folder, "add", "-A", "-f")
    _git(folder, "commit", "-q", "-m", "x")
    _git(folder, "tag", "v6.2")
    before = _snapshot(folder)
    trees += [sources.obtain("linux", source=f"{folder}@v6.2"), sources.obtain("linux", source=str(folder))]
    assert {_tree_id(tree) for tree in trees} == {_tree_id(trees[0])}
    assert {tree.version for tree in trees} == {"6.2"}
    assert _snapshot(folder) == before
    assert trees[2].identity == f"tree:{_tree_id(trees[0])}"


def test_edits_of_a_work_tree_are_imported_and_its_repository_is_not_written(tmp_path: Path) -> None:
    folder = _tree(tmp_path / "mine@home")
    _git(folder, "init", "-q")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "x")
    clean = sources.obtain("linux", source=str(folder))
    (folder / "mm" / "ksm.c").write_text("int ksm, edited;\n")
    (folder / "mm" / "new.c").write_text("int fresh;\n")
    (folder / "mm" / "new.o").write_text("object\n")
    before = _snapshot(folder)
    edited = sources.obtain("linux", source=str(folder))
    assert _snapshot(folder) == before
    assert edited.path != clean.path
    assert (edited.path / "mm" / "ksm.c").read_text() == "int ksm, edited;\n"
    assert (edited.path / "mm" / "new.c").exists()
    assert not (edited.path / "mm" / "new.o").exists()
    assert sources.obtain("linux", source=f"{folder}@HEAD").path == clean.path


def test_read_only_directory_can_be_taken(tmp_path: Path) -> None:
    folder = _tree(tmp_path / "ro")
    for file in [*folder.rglob("*"), folder]:
        file.chmod(0o555 if file.is_dir() else 0o444)
    tree = sources.obtain("linux", source=str(folder))
    assert (tree.path / "mm").stat().st_mode & 0o200
    for file in [folder, *folder.rglob("*")]:
        file.chmod(0o755 if file.is_dir() else 0o644)


def test_edit_of_a_plain_directory_is_noticed(tmp_path: Path) -> None:
    folder = _tree(tmp_path / "plain")
    first = sources.obtain("linux", source=str(folder))
    assert sources.obtain("linux", source=str(folder)) == first
    (folder / "mm" / "ksm.c").write_text("int other;\n")
    assert (sources.obtain("linux", source=str(folder)).path / "mm" / "ksm.c").read_text() == "int other;\n"


@pytest.mark.parametrize("what", ["nothing", "empty directory", "text", "truncated", "unknown revision"])
def test_useless_source_is_refused_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    place = tmp_path / "thing"
    source = str(place)
    if what == "empty directory":
        place.mkdir()
    elif what == "text":
        place.write_text("hello\n")
    elif what == "truncated":
        place.write_bytes(_archive(tmp_path, "linux-6.2.tar.xz").read_bytes()[:200])
    elif what == "unknown revision":
        _git(_tree(place), "init", "-q")
        source += "@v9"
    with pytest.raises((SourceError, UsageError), match=r"thing") as caught:
        sources.obtain("linux", source=source)
    assert caught.value.hint
    assert [entry for entry in paths().trees.iterdir() if entry.is_dir()] == []


def test_qemu_tree_is_told_by_its_version_file(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "VERSION").write_text("10.0.13\n")
    tree = sources.obtain("qemu", source=str(tmp_path / "q"))
    assert (tree.version, tree.series) == ("10.0.13", "10.0")
    with pytest.raises(SourceError, match="not a linux tree"):
        sources.obtain("linux", source=str(tmp_path / "q"))


# --- killed, and two at once --------------------------------------------------------------------------


def _slow_import(archive: str, started: Path) -> None:
    genuine = sources.untar

    def slow(file: Path, work: Path) -> None:
        genuine(file, work)
        started.write_text("")
        time.sleep(60)

    sources.untar = slow  # type: ignore[assignment]
    sources.obtain("linux", source=archive)


def test_killed_import_leaves_no_tree_and_the_next_run_recovers(tmp_path: Path) -> None:
    archive = _archive(tmp_path, "linux-6.2.tar.xz")
    child = multiprocessing.get_context("fork").Process(target=_slow_import, args=(str(archive), tmp_path / "started"))
    child.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert len([entry for entry in paths().trees.iterdir() if entry.is_dir()]) == 1  # the unfinished one
    tree = sources.obtain("linux", source=str(archive))
    assert [entry for entry in paths().trees.iterdir() if entry.is_dir()] == [tree.path]


def _obtain(archive: str, answers: multiprocessing.SimpleQueue[tuple[str, int]]) -> None:
    tree = sources.obtain("linux", source=archive)
    answers.put((str(tree.path), (tree.path / "Makefile").stat().st_ino))


def test_two_at_once_share_one_tree(tmp_path: Path) -> None:
    archive = _archive(tmp_path, "linux-6.2.tar.xz")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    children = [context.Process(target=_obtain, args=(str(archive), answers)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert len({answers.get() for _ in children}) == 1  # path and inode: nobody replaced it
