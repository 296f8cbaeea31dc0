# SPDX-License-Identifier: GPL-2.0-or-later
"""The accelerator is what works, not what exists."""

from __future__ import annotations

import pytest

from harness import accel
from harness.doctor import Finding
from harness.errors import UsageError


@pytest.fixture(params=["KVM: a vCPU ran", "TCG: /dev/kvm exists, but a vCPU did not run"])
def probe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def check() -> list[Finding]:
        asked.append(request.param)
        return [Finding("accelerator", "ok", request.param)]

    monkeypatch.setattr(accel, "check_accelerator", check)
    return asked


def test_auto_follows_the_probe_and_asks_once(probe: list[str]) -> None:
    first = accel.accelerator("auto")
    assert accel.accelerator("auto") == first
    assert len(probe) == 1
    assert first == ("kvm" if probe[0].startswith("KVM") else "tcg")


def test_tcg_needs_no_probe(probe: list[str]) -> None:
    assert accel.accelerator("tcg") == "tcg"
    assert accel.accelerator("auto", measured=True) == "tcg"
    assert not probe


def test_kvm_must_work(probe: list[str]) -> None:
    with pytest.raises(UsageError, match="counts instructions"):
        accel.accelerator("kvm", measured=True)
    try:
        assert accel.accelerator("kvm") == "kvm"
    except UsageError as error:
        assert "did not run" in error.message
        assert probe[0].startswith("TCG")


def test_unknown_accelerator() -> None:
    with pytest.raises(UsageError, match="no accelerator"):
        accel.accelerator("hvf")
