# SPDX-License-Identifier: GPL-2.0-or-later
"""The systems as data: what they need, how a kernel is put into one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import dsa, patchseries, systems
from harness.errors import UsageError

MODE = "/sys/kernel/mm/ksm/offload_mode"


def test_every_system_names_capabilities_and_devices_that_exist() -> None:
    known = systems.catalogue()
    assert [system.id for system in known.system][:2] == ["no-ksm", "cpu-ksm"]
    for system in known.system:
        assert all(path.startswith("/sys/") for path, _ in systems.settings(system))
        assert len(systems.machine_devices()) >= sum(system.devices.values())
        assert len(system.counters) <= 32


def test_what_patches_provide_are_words_of_the_catalogue() -> None:
    for topic in patchseries.TOPICS.values():
        for patch in patchseries.load(topic).patches:
            assert set(patch.provides) <= set(systems.catalogue().capability), patch.id


def test_several_devices_are_configured_one_after_the_other() -> None:
    two = systems.find("dsa-ksm").model_copy(update={"devices": {"dsa": 2}})
    binds = [value for path, value in systems.settings(two) if path.endswith("/bind")]
    assert binds == ["dsa0", "wq0.0", "dsa1", "wq1.0"]


def test_the_shared_machine_has_what_any_system_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind as often as the most demanding system uses it; who uses the second kind finds it behind the first."""
    assert systems.machine_devices() == ({},)
    file = tmp_path / "systems.toml"
    text = systems.FILE.read_text().replace("devices = { dsa = 1 }", "devices = { dsa = 2 }", 1)
    text += '\n[device.small]\noptions = { num-wqs = "1" }\nlayout = { driver = "ksm" }\n'
    text += '\n[[system]]\nid = "other"\nlabel = "other"\ndevices = { small = 1 }\n'
    file.write_text(text)
    mine = systems.catalogue(file)
    monkeypatch.setattr(systems, "catalogue", lambda: mine)
    assert systems.machine_devices() == ({}, {}, {"num-wqs": "1"})

    def bound(name: str) -> list[str]:
        return [value for path, value in systems.settings(systems.find(name)) if path.endswith("/bind")]

    assert bound("dsa-ksm") == ["dsa0", "wq0.0", "dsa1", "wq1.0"]
    assert bound("para-ksmc") == ["dsa0", "wq0.0"]
    assert bound("other") == ["dsa2", "wq2.0"]


def test_the_queue_of_a_system_is_the_papers_layout_for_ksm() -> None:
    """What `harness dsa configure --driver ksm` writes, and not a copy of it."""
    writes = dsa.plan(dsa.emulated(0, {}), dsa.Layout(driver="ksm"))
    for name in ("dsa-ksm", "para-ksmc", "para-ksmt"):
        assert systems.settings(systems.find(name))[: len(writes)] == tuple((each.path, each.value) for each in writes)


def test_a_device_differs_from_the_papers_where_the_catalogue_says_so(tmp_path: Path) -> None:
    file = tmp_path / "systems.toml"
    wished = 'options = { num-engines = "2" }\nlayout = { driver = "ksm", queues = [16] }'
    file.write_text(systems.FILE.read_text().replace('layout = { driver = "ksm" }', wished))
    device = systems.catalogue(file).device["dsa"]
    assert device.options == {"num-engines": "2"}
    assert device.layout == dsa.Layout(driver="ksm", queues=(16,))


def test_a_plan_changes_a_knob_of_its_system_or_adds_one() -> None:
    system = systems.find("para-ksmc")
    size = "/sys/kernel/mm/ksm/offload_batch_size"
    changed = systems.settings(system, [(size, "64"), ("/sys/kernel/mm/ksm/smart_scan", "0")])
    assert dict(changed)[size] == "64"
    assert [path for path, _ in changed][-2:] == [MODE, "/sys/kernel/mm/ksm/smart_scan"]


def test_what_is_lacking_is_said_in_words() -> None:
    system = systems.find("dsa-ksm")
    assert systems.lacking(system, ()) == "needs KSM's mode dsa in the kernel and a DSA in the machine"
    assert systems.lacking(system, {"ksm-dsa", "dsa-device"}) == ""
    assert systems.lacking(systems.find("cpu-ksm"), ()) == ""


@pytest.mark.parametrize(
    ("text", "shown"), [("[cpu] dsa para_c\n", True), ("cpu [dsa]\n", True), ("cpu para_dsa\n", False), ("", False)]
)
def test_a_mode_is_a_word_of_its_file(text: str, shown: bool) -> None:
    assert systems.catalogue().capability["ksm-dsa"].shown_by(text) is shown


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"ksm-dsa", "dsa-device"]', '"ksm-dsb"]', "no capability 'ksm-dsb'"),
        ("devices = { dsa = 1 }", "devices = { iax = 1 }", "no device 'iax'"),
        ('label = "STYX"', 'label = "STYX"\ncolour = "red"', "colour"),
        ('driver = "ksm" }', 'drives = "ksm" }', "drives"),
        ('driver = "ksm" }', 'queues = "64" }', "queues"),
        ("ksmd = false", "ksmd = ", "not TOML"),
    ],
)
def test_a_mistake_in_the_catalogue_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "systems.toml"
    text = systems.FILE.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=said):
        systems.catalogue(file)


def test_an_unknown_system_lists_the_known() -> None:
    with pytest.raises(UsageError) as caught:
        systems.find("gpu-ksm")
    assert "cpu-ksm" in str(caught.value.hint)
