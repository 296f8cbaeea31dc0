# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness boot`` with a stand-in for QEMU: what passes through, what is refused, what each ending returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

FAKE = Path(__file__).parent.parent / "fakes" / "qemu.py"

# The command as it is, on a workbench whose QEMU is the stand-in.
_DRIVER = """
import sys
from pathlib import Path
from harness import workbench
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.patches import AppliedSeries
from harness.qbuild import QemuBuild
from harness.sources import SourceTree

def bench(kernel=None, source=None, image="functional", profile="host", upto=None):
    here = Path({folder!r})
    applied = AppliedSeries(SourceTree("linux", "6.1", "6.1", here, "tree:0", "a test"), "0", "0", False, None)
    built = KernelBuild("6.1", "6.1.192", here / "bzImage", here / "vmlinux", here / "config", here, "k", applied)
    qemu = QemuBuild("10.0", Path({fake!r}), here / "qboot.rom", here, "q", applied)
    return workbench.Workbench(qemu, built, Image(image, here / "i.cpio", "i"))

workbench.workbench = bench
sys.argv = ["harness", "-q", "boot", "--accel", "tcg", *sys.argv[1:]]
from harness.cli.main import main
main()
"""


@pytest.fixture
def driver(tmp_path: Path) -> list[str]:
    script = tmp_path / "driver.py"
    script.write_text(_DRIVER.format(folder=str(tmp_path), fake=str(FAKE)))
    return [sys.executable, str(script)]


def boot(driver: list[str], *words: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*driver, *words], input=data, capture_output=True, timeout=60, check=False)


def test_streams_and_status_pass_through(driver: list[str]) -> None:
    done = boot(driver, "--stdin", "-c", "tr a-z A-Z; echo oh >&2; exit 7", data=b"hello")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"HELLO", b"oh\n")


def test_standard_input_is_not_taken_unasked(driver: list[str]) -> None:
    assert boot(driver, "-c", "cat", data=b"hello").stdout == b""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--append", "fake.run=panic", "-c", "true"], 101, b"sysrq triggered crash"),
        (["--append", "fake.run=oops", "-c", "true"], 102, b"stable_tree_search"),
        (["--append", "fake.boot=silent", "--boot-timeout", "1", "-c", "true"], 106, b"did not reach"),
        (["--append", "fake.run=die", "-c", "true"], 107, b"something in here broke"),
        (["--append", "fake.run=never", "--timeout", "1", "-c", "true"], 108, b"the time is over"),
    ],
)
def test_each_ending_has_its_status(driver: list[str], words: list[str], status: int, said: bytes) -> None:
    done = boot(driver, *words)
    assert done.returncode == status
    assert said in done.stderr
    assert b"the whole console: " in done.stderr


def test_json_is_all_of_stdout(driver: list[str], tmp_path: Path) -> None:
    done = boot(driver, "--json", "--run-dir", str(tmp_path / "r"), "-c", "echo out; exit 3")
    value = json.loads(done.stdout)
    assert done.returncode == 3
    assert (value["outcome"], value["status"], value["run_dir"]) == ("clean", 3, str(tmp_path / "r"))
    assert b"out" in done.stderr


def test_sealed_job(driver: list[str], tmp_path: Path) -> None:
    done = boot(driver, "--mode", "measured", "--run-dir", str(tmp_path / "r"), "-c", "date")
    assert (done.returncode, done.stdout) == (3, b"results\0\xff")
    assert (tmp_path / "r" / "command.sh").read_text() == "date\n"
    assert "opt/paraksm/command" in (tmp_path / "r" / "qemu.argv").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mode", "quick", "-c", "true"], b"no mode"),
        (["--mode", "measured", "--ssh-port", "0"], b"sealed"),
        (["--mode", "measured"], b"needs a job"),
        (["--interactive", "-c", "true"], b"takes the terminal"),
    ],
)
def test_contradictions_are_refused(driver: list[str], words: list[str], said: bytes) -> None:
    done = boot(driver, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert b"next: " in done.stderr


def test_ssh_keys_are_made_for_both_ends(driver: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "r"
    assert boot(driver, "--ssh-port", "2222", "--run-dir", str(folder), "-c", "true").returncode == 0
    assert (folder / "ssh_identity").stat().st_mode & 0o777 == 0o600
    assert (folder / "ssh_host_key").stat().st_mode & 0o777 == 0o600
    assert (folder / "known_hosts").read_text().startswith("[127.0.0.1]:2222 ssh-ed25519 ")
    line = (folder / "qemu.argv").read_text()
    assert "opt/paraksm/hostkey" in line
    assert "opt/paraksm/authorized_keys" in line


def test_closed_standard_streams(driver: list[str]) -> None:
    script = f"exec {' '.join(driver)} -c 'exit 6' <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", script], timeout=60, check=False).returncode == 6


def test_old_run_directories_go_and_those_in_use_stay(driver: list[str], isolated_home: Path) -> None:
    boots = isolated_home / "cache" / "paraksm" / "boots"
    for number in range(25):
        (boots / f"20200101-0000{number:02}-999999999").mkdir(parents=True)
    (boots / f"20190101-000000-{os.getpid()}").mkdir()
    assert boot(driver, "-c", "true").returncode == 0
    left = sorted(path.name for path in boots.iterdir())
    assert len(left) == 22
    assert left[0].startswith("2019")


def test_console_relay(driver: list[str]) -> None:
    child = pexpect.spawn(driver[0], [*driver[1:], "--interactive"], encoding="utf-8", timeout=30)
    child.expect("fake console")
    child.send("a\x03")
    child.expect("heard 6103")  # Ctrl-C is the guest's
    child.send("\x1d")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
