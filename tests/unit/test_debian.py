# SPDX-License-Identifier: GPL-2.0-or-later
"""What is taken from a Debian mirror, with an apt of our own: lists, versions, packages, packaging and signing keys."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from harness import debian, keyring
from harness.config import paths
from harness.errors import SourceError
from harness.packages import DAY

SIGNED = Path(__file__).parent.parent / "data" / "signed"
SIGNER = "C9918F7CDC1E6BF4F2AE7AD52D38311C5DCB1852"

_APT_GET = """#!/bin/sh
case "$*" in
update*) echo update >> "$FAKE/calls"; [ -f "$FAKE/offline" ] && { echo "E: no network" >&2; exit 100; }; exit 0 ;;
indextargets*) echo "http://m.invalid/debian Debian Debian" ;;
*--print-uris*) for word; do last=$word; done
    version=$(echo "$last" | sed -n 's/.*=//p'); name=p_${version:-9-1}_all.deb
    echo "'https://m.invalid/$name' $name 10 SHA256:$(cat "$FAKE/promised")" ;;
download*) version=$(echo "$2" | sed -n 's/.*=//p'); echo "download $2" >> "$FAKE/calls"
    cp "$FAKE/content" "p_${version:-9-1}_all.deb" ;;
source*) for word; do last=$word; done; version=${last#*=}; echo "source $last" >> "$FAKE/calls"
    [ -f "$FAKE/packaging-$version" ] || { echo "E: 404 Not Found" >&2; exit 100; }
    case "$*" in *--diff-only*) cp "$FAKE/packaging-$version" "p_$version.debian.tar.xz" ;; esac ;;
*) exit 99 ;;
esac
"""


class Mirror:
    """A mirror that the fake apt serves from a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.serve(b"a package\n")
        (folder / "promised").write_text(hashlib.sha256(b"a package\n").hexdigest())
        self.has("9-1")

    def serve(self, content: bytes) -> None:
        (self.folder / "content").write_bytes(content)

    def has(self, *versions: str) -> None:
        rows = (f"        p |  {version} | http://m.invalid/debian x/main Packages\n" for version in versions)
        (self.folder / "madison").write_text("".join(rows))

    def packaging(self, version: str, files: dict[str, bytes]) -> None:
        with tarfile.open(self.folder / f"packaging-{version}", "w:xz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    def offline(self) -> None:
        (self.folder / "offline").touch()

    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    folder, tools = tmp_path / "mirror", tmp_path / "bin"
    folder.mkdir()
    tools.mkdir()
    for name, text in (("apt-get", _APT_GET), ("apt-cache", '#!/bin/sh\ncat "$FAKE/madison"\n')):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    return Mirror(folder)


def _age_lists(name: str, age: float) -> None:
    stamp = paths().tmp / f"apt-{name}" / "fetched"
    os.utime(stamp, (time.time() - age,) * 2)


def test_package_is_fetched_once_and_verified_each_time(mirror: Mirror, tmp_path: Path) -> None:
    file = debian.download_binary("p", tmp_path / "debs")
    assert debian.download_binary("p", tmp_path / "debs") == file
    assert mirror.calls() == ["update", "download p"]
    file.write_bytes(b"a pack")
    assert debian.download_binary("p", tmp_path / "debs").read_bytes() == b"a package\n"
    assert mirror.calls() == ["update", "download p", "download p"]


def test_package_that_is_not_what_the_index_says_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    mirror.serve(b"another\n")
    with pytest.raises(SourceError, match=r"p_9-1_all\.deb is altered or truncated"):
        debian.download_binary("p", tmp_path / "debs")
    assert [file for file in (tmp_path / "debs").iterdir() if not file.name.startswith(".p.lock")] == []


def test_lists_older_than_a_day_are_fetched_before_anything_is_decided(
    mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    debian.download_binary("p", tmp_path / "debs")
    _age_lists("machine", DAY / 2)
    debian.download_binary("p", tmp_path / "debs")
    assert mirror.calls().count("update") == 1
    _age_lists("machine", 3 * DAY)
    debian.download_binary("p", tmp_path / "debs")
    assert mirror.calls().count("update") == 2
    mirror.offline()
    _age_lists("machine", 3 * DAY)
    debian.download_binary("p", tmp_path / "debs")  # and without a network the old ones, aloud
    assert "the one of 3 days ago is used" in capsys.readouterr().err


def test_without_lists_of_ours_the_machines_are_used_aloud(
    mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.offline()
    assert debian.download_binary("p", tmp_path / "debs").exists()
    assert "the machine's own package lists are used" in capsys.readouterr().err


def test_a_version_is_that_version_or_an_error_that_names_the_others(mirror: Mirror, tmp_path: Path) -> None:
    mirror.has("6.1.176-1", "6.1.9-1", "6.1.192-1", "6.1.192-2")
    assert debian.download_binary("p", tmp_path / "debs", "6.1.192").name == "p_6.1.192-2_all.deb"
    assert debian.download_binary("p", tmp_path / "debs", "6.1.176").name == "p_6.1.176-1_all.deb"
    with pytest.raises(SourceError, match=r"no p 6\.1\.17; it has 6\.1\.192, 6\.1\.176, 6\.1\.9$") as caught:
        debian.download_binary("p", tmp_path / "debs", "6.1.17")
    assert "--kernel" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("version", "upstream"),
    [("6.1.192-2", "6.1.192"), ("1:10.0.13+ds-0+deb13u1", "10.0.13"), ("7.2~rc1-1", "7.2"), ("1.2", "1.2")],
)
def test_upstream_part_of_a_version(version: str, upstream: str) -> None:
    assert debian.upstream(version) == upstream


def test_a_package_of_another_suite_has_lists_of_its_own(mirror: Mirror, tmp_path: Path) -> None:
    assert debian.download_binary("p", tmp_path / "debs", suite="later").exists()
    [row] = (paths().tmp / "apt-later-binary" / "sources.list").read_text().splitlines()
    assert row == f"deb [signed-by={debian.KEYRING}] http://m.invalid/debian later main"
    assert mirror.calls()[-1] == "download p"


# --- signing keys -------------------------------------------------------------------------------------


@pytest.fixture
def armoured() -> bytes:
    """Both keys of the test data, as Debian's packaging has its keys."""
    return subprocess.run(
        ["gpg", "--batch", "--enarmor"], input=(SIGNED / "both.gpg").read_bytes(), capture_output=True, check=True
    ).stdout.replace(b"ARMORED FILE", b"PUBLIC KEY BLOCK")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose pins say where the test's key is."""
    (tmp_path / "project" / "kernel").mkdir(parents=True)
    (tmp_path / "project" / "kernel" / "sources.toml").write_text(
        f'[keys.{SIGNER}]\npackage = "p"\nsuite = "new"\nfile = "debian/upstream/signing-key.asc"\n'
    )
    monkeypatch.setattr(keyring, "PROJECT", tmp_path / "project")


KEY = "debian/upstream/signing-key.asc"


@pytest.mark.usefixtures("places")
def test_a_key_is_taken_from_the_newest_packaging_that_can_be_had(mirror: Mirror, armoured: bytes) -> None:
    mirror.has("6.1-1", "6.12.9-1", "6.12.10-1")
    mirror.packaging("6.1-1", {KEY: b"an old one"})
    mirror.packaging("6.12.9-1", {"debian/control": b"", KEY: armoured})
    file = keyring.keyring_of(SIGNER, "linux.tar.xz")
    assert [call for call in mirror.calls() if call != "update"] == ["source p=6.12.10-1", "source p=6.12.9-1"]
    assert keyring._fingerprints(file.read_bytes()) == [SIGNER]  # the other key of the file is left out
    before = mirror.calls()
    assert keyring.keyring_of(SIGNER, "linux.tar.xz") == file
    assert mirror.calls() == before
    file.write_bytes(file.read_bytes()[:100])
    assert keyring._fingerprints(keyring.keyring_of(SIGNER, "x").read_bytes()) == [SIGNER]


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no network", "index of new cannot be had: E: no network"),
        ("not served", "packaging of p 2-1 cannot be had: E: 404"),
        ("no such file", f"packaging of p 2-1 has no {KEY}"),
        ("another key", "does not have it"),
        ("unknown signer", "does not say who packages it"),
    ],
)
def test_a_key_that_cannot_be_had_names_the_cause_and_the_way_out(
    mirror: Mirror, armoured: bytes, case: str, said: str
) -> None:
    mirror.has("2-1")
    signer = SIGNER
    if case == "no network":
        mirror.offline()
    elif case == "no such file":
        mirror.packaging("2-1", {"debian/control": b""})
    elif case == "another key":
        mirror.packaging("2-1", {KEY: _other_key()})
    elif case == "unknown signer":
        signer = "0" * 40
    with pytest.raises(SourceError, match=rf"linux\.tar\.xz cannot be verified: the key {signer}") as caught:
        keyring.keyring_of(signer, "linux.tar.xz")
    assert said in caught.value.message
    assert caught.value.hint == f"gpg --export {signer} > FILE, then set PARAKSM_KEYRING=FILE"
    if case == "another key":
        mirror.packaging("2-1", {KEY: armoured})
        assert keyring.keyring_of(SIGNER, "linux.tar.xz").is_file()


def _other_key() -> bytes:
    """The key of the test data that is not the wanted one."""
    data = (SIGNED / "both.gpg").read_bytes()
    (other,) = [name for name in keyring._fingerprints(data) if name != SIGNER]
    return keyring.select(data, other)


def test_a_given_keyring_is_taken_and_one_that_is_missing_is_named(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARAKSM_KEYRING", str(SIGNED / "both.gpg"))
    assert keyring.keyring_of(SIGNER, "x") == SIGNED / "both.gpg"
    monkeypatch.setenv("PARAKSM_KEYRING", "/nowhere")
    with pytest.raises(SourceError, match="PARAKSM_KEYRING=/nowhere is no file"):
        keyring.keyring_of(SIGNER, "x")
    assert mirror.calls() == []


def test_every_signer_that_is_pinned_has_a_place_for_its_key() -> None:
    import tomllib

    from harness import sources
    from harness.config import PROJECT

    known = tomllib.loads((PROJECT / "kernel" / "sources.toml").read_text())["keys"]
    signers = {pin.signer for kind in ("linux", "qemu") for pin in sources.pins(kind) if pin.signer}
    assert signers
    assert signers <= set(known)
    assert all(set(place) == {"package", "suite", "file"} for place in known.values())
