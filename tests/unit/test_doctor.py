# SPDX-License-Identifier: GPL-2.0-or-later
"""What the doctor says, and what it returns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import doctor, kvmprobe, packages, sources
from harness.builddir import BuildDir
from harness.config import lock, paths
from harness.doctor import Finding
from harness.errors import EnvironmentProblem


def test_severity() -> None:
    """The worst state decides."""
    ok, warn, fail = (Finding("x", state, "") for state in ("ok", "warn", "fail"))
    assert doctor.severity([ok]) == 0
    assert doctor.severity([ok, warn]) == 1
    assert doctor.severity([warn, fail, ok]) == 3


@pytest.mark.parametrize(("root", "state"), [(True, "warn"), (False, "fail")])
def test_missing_packages(monkeypatch: pytest.MonkeyPatch, root: bool, state: str) -> None:
    """Root's missing packages come by themselves; a user's are named with the command."""
    monkeypatch.setattr(packages, "has_apt", lambda: True)
    monkeypatch.setattr(packages, "missing", lambda task: ["flex", "bison"] if task == "kernel" else [])
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    (finding,) = doctor.check_packages()
    assert finding.state == state
    assert "kernel: flex bison" in finding.evidence
    assert finding.fix.endswith("flex bison")
    assert finding.fix.startswith("sudo") is not root


def test_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little space fails, with a way out."""
    monkeypatch.setattr(doctor, "free_bytes", lambda _path: 2**30)
    (finding,) = doctor.check_disk()
    assert finding.state == "fail"
    assert "1 GiB free" in finding.evidence
    assert "prune" in finding.fix


def test_no_kvm(tmp_path: Path) -> None:
    """Without a device TCG is the answer, and is fine."""
    (finding,) = doctor.check_accelerator(str(tmp_path / "kvm"))
    assert finding.state == "ok"
    assert finding.evidence.startswith("TCG")


def test_device_that_is_not_kvm(tmp_path: Path) -> None:
    """A node that opens is not an accelerator."""
    (tmp_path / "kvm").touch()
    (finding,) = doctor.check_accelerator(str(tmp_path / "kvm"))
    assert finding.evidence.startswith("TCG")
    assert "KVM_GET_API_VERSION fails" in finding.evidence


def test_probe_that_hangs(tmp_path: Path) -> None:
    """The probe has a deadline of its own."""
    (tmp_path / "kvm").touch()
    (finding,) = doctor.check_accelerator(str(tmp_path / "kvm"), seconds=0.001)
    assert "did not come back within 0.001 s" in finding.evidence


def test_probe_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that is killed is not an accelerator either."""
    (tmp_path / "kvm").touch()
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -SEGV $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    (finding,) = doctor.check_accelerator(str(tmp_path / "kvm"))
    assert "died with status -11" in finding.evidence


def test_interpreted_is_not_accelerated() -> None:
    """What runs a thousand times too slowly does not work."""
    assert kvmprobe._judge(0.4)["works"] is True
    assert kvmprobe._judge(600.0)["works"] is False


def test_probe_memory_maps_itself() -> None:
    """The page tables reach the code."""
    memory = kvmprobe._memory()

    def at(offset: int) -> int:
        return int.from_bytes(memory[offset : offset + 8], "little")

    assert at(at(kvmprobe._PML4) & ~0xFFF) & ~0xFFF == kvmprobe._PD
    assert at(kvmprobe._PD) == 0x83
    assert memory[kvmprobe._START] == 0xB9


def test_builds_are_told_apart() -> None:
    """Nothing, unfinished, finished, and being built."""
    assert [finding.evidence for finding in doctor.check_builds()][:2] == ["not built yet", "not built yet"]
    for name, file in (("linux-a", "paraksm-build.json"), ("linux-b", "paraksm-unfinished.json")):
        (paths().builds / name).mkdir()
        (paths().builds / name / file).write_text('{"inputs": 1}')
    kernel = doctor.check_builds()[0]
    assert kernel.state == "warn"
    assert "linux-b" in kernel.evidence
    assert "linux-a" not in kernel.evidence
    directory = BuildDir(paths().builds / "linux-b", "b")
    with lock(directory._lock, what="b"):
        assert directory.state() == "busy"
        assert "linux-b (being built now)" in doctor.check_builds()[0].evidence


def test_a_check_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """One broken check does not hide the others."""

    def broken() -> list[Finding]:
        raise EnvironmentProblem("no toolchain", hint="install one")

    broken.__name__ = "check_toolchain"
    monkeypatch.setattr(doctor, "check_toolchain", broken)
    findings = doctor.examine()
    assert Finding("toolchain", "fail", "no toolchain", "install one") in findings
    assert any(finding.check == "disk" for finding in findings)


def test_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON on standard output, exit status by severity."""
    from harness.cli.main import app

    monkeypatch.setattr(doctor, "examine", lambda: [Finding("disk", "fail", "full", "empty it")])
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert json.loads(result.stdout) == [{"check": "disk", "state": "fail", "evidence": "full", "fix": "empty it"}]
    assert result.exit_code == 3
    shown = CliRunner().invoke(app, ["doctor"])
    assert "empty it" in shown.stdout
    assert shown.exit_code == 3


def test_a_tree_that_is_older_than_its_pin_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache keeps what it has; doctor says which release the pins prefer and the command that takes it."""
    pins = [
        sources.Pin("linux", version, "6.1", "debian-binary", package="p", member="m") for version in ("6.1.9", "6.1")
    ]
    old = sources.SourceTree("linux", "6.1.7", "6.1", tmp_path, "sha256:0", "a test")
    monkeypatch.setattr(sources, "pins", lambda kind: pins if kind == "linux" else [])
    monkeypatch.setattr(
        sources, "obtainable", lambda kind: [(pins[0], None), (pins[1], old)] if kind == "linux" else []
    )
    (finding,) = doctor.check_sources()
    assert (finding.state, finding.fix) == ("warn", "harness build kernel --kernel 6.1.9")
    assert "6.1.7 is taken by default, which the pins have at 6.1.9" in finding.evidence
