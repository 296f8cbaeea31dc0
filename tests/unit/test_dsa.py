# SPDX-License-Identifier: GPL-2.0-or-later
"""DSA through sysfs: what is read, what is planned, what a refusal says; on a directory that stands for sysfs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness import dsa
from harness.cli.main import app
from harness.dsa import Device, Layout, Write, apply, emulated, explain, plan, read, release, script
from harness.errors import DeviceError, UsageError
from tests.fakes import dsa as fake

RECIPE = [
    ("devices/engine0.0/group_id", "0"),
    ("devices/engine0.1/group_id", "0"),
    ("devices/engine0.2/group_id", "0"),
    ("devices/engine0.3/group_id", "0"),
    ("devices/wq0.0/group_id", "0"),
    ("devices/wq0.0/mode", "dedicated"),
    ("devices/wq0.0/size", "64"),
    ("devices/wq0.0/priority", "10"),
    ("devices/wq0.0/type", "kernel"),
    ("devices/wq0.0/name", "dmaengine"),
    ("devices/wq0.0/max_batch_size", "1024"),
    ("devices/wq0.0/max_transfer_size", "2097152"),
    ("drivers/idxd/bind", "dsa0"),
    ("drivers/dmaengine/bind", "wq0.0"),
]


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """Two devices as after boot."""
    root = tmp_path / "sys tem"  # a blank: every name is quoted
    for number, address in enumerate(("0000:00:04.0", "0000:00:05.0")):
        fake.function(root, address)
        if number == 0:
            fake.bus(root)
        fake.device(root, number, address)
    return root


def fresh(sysfs: Path, name: str = "dsa0") -> Device:
    return read(dsa.local, str(sysfs)).device(name)


def pairs(writes: list[Write]) -> list[tuple[str, str]]:
    return [(write.file, write.value) for write in writes]


# --- reading ------------------------------------------------------------------------------------------


def test_read_finds_everything(sysfs: Path) -> None:
    status = read(dsa.local, str(sysfs))
    assert [device.name for device in status.devices] == ["dsa0", "dsa1"]
    assert status.drivers == ("dmaengine", "idxd", "user")
    first = status.devices[0]
    assert (first.pci, first.version, first.state, first.driver) == ("0000:00:04.0", "0x100", "disabled", None)
    assert (first.gen_cap, first.op_cap, first.cmd_status) == (0x40915F0107, 0x1003F03FF, 0x800D0000)
    assert (first.queue_entries, first.max_batch, first.max_transfer, first.read_buffers) == (128, 1024, 1 << 31, 96)
    assert [queue.name for queue in first.queues] == [f"wq0.{n}" for n in range(8)]
    assert {queue.group for queue in first.queues} == {None}
    assert first.queues[0].client == ""
    assert not any(first.errors) and len(first.errors) == 4
    assert status.devices[1].queues[3].name == "wq1.3"


def test_read_sees_drivers_and_attributes(sysfs: Path) -> None:
    (sysfs / "bus/dsa/devices/wq0.0/size").write_text("64\n")
    (sysfs / "bus/dsa/devices/wq0.0/name").write_text("two words\n")
    (sysfs / "bus/dsa/devices/dsa0/errors").write_text("0x5300000000000001 0x2 0x3 0x4 \n")
    fake.bind(sysfs, "dsa0", "idxd")
    fake.bind(sysfs, "wq0.0", "dmaengine")
    device = fresh(sysfs)
    assert (device.driver, device.queues[0].driver, device.queues[0].size) == ("idxd", "dmaengine", 64)
    assert device.queues[0].client == "two words"
    assert device.errors == (0x5300000000000001, 2, 3, 4)


def test_ten_queues_are_in_order_of_number(tmp_path: Path) -> None:
    fake.function(tmp_path, "0000:00:04.0")
    fake.bus(tmp_path)
    fake.device(tmp_path, 0, "0000:00:04.0", queues=11)
    assert [queue.name for queue in fresh(tmp_path).queues][-2:] == ["wq0.9", "wq0.10"]


def test_op_cap_of_later_kernels(tmp_path: Path) -> None:
    fake.function(tmp_path, "0000:00:04.0")
    fake.bus(tmp_path)
    fake.device(tmp_path, 0, "0000:00:04.0", op_cap="00000000,00000000,00000001,003f027d")
    assert fresh(tmp_path).op_cap == 0x1003F027D


@pytest.mark.parametrize("kind", ["nothing", "no driver", "not probed", "elsewhere"])
def test_why_there_is_none(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bus/pci/devices").mkdir(parents=True)
    words = {"nothing": "no DSA", "no driver": "no driver for it", "not probed": "does not drive it"}
    if kind != "nothing":
        fake.function(tmp_path, "0000:6a:01.0", "vfio-pci" if kind == "elsewhere" else None)
    if kind in ("not probed", "elsewhere"):
        fake.bus(tmp_path)
    with pytest.raises(DeviceError, match=words.get(kind, "0000:6a:01.0 by vfio-pci")) as caught:
        read(dsa.local, str(tmp_path))
    assert caught.value.hint


def test_without_sysfs(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="sysfs cannot be read"):
        read(dsa.local, str(tmp_path / "none"))


# --- planning -----------------------------------------------------------------------------------------


def test_plan_of_a_fresh_device_is_the_recipe(sysfs: Path) -> None:
    assert pairs(plan(fresh(sysfs), Layout())) == RECIPE


def test_the_emulated_device_is_as_it_boots(sysfs: Path) -> None:
    assert plan(emulated(1, {}), Layout()) == plan(fresh(sysfs, "dsa1"), Layout())


def test_emulated_device_has_its_options() -> None:
    device = emulated(0, {"num-engines": "2", "max-batch-shift": "0x5", "time-scale": "1000"})
    written = dict(pairs(plan(device, Layout(queues=(100,)))))
    assert "devices/engine0.2/group_id" not in written
    assert written["devices/wq0.0/max_batch_size"] == "32"
    with pytest.raises(UsageError, match="3 engines are wanted, it has 2"):
        plan(device, Layout(engines=3))
    with pytest.raises(UsageError, match="not a number"):
        emulated(0, {"num-wqs": "many"})


def test_a_running_device_is_released_first(sysfs: Path) -> None:
    devices = sysfs / "bus/dsa/devices"
    for queue in ("wq0.0", "wq0.1"):
        (devices / queue / "size").write_text("32\n")
        (devices / queue / "group_id").write_text("0\n")
        fake.bind(sysfs, queue, "dmaengine")
    (devices / "engine0.3/group_id").write_text("1\n")
    fake.bind(sysfs, "dsa0", "idxd")
    writes = pairs(plan(fresh(sysfs), Layout(engines=1)))
    assert writes[:3] == [
        ("drivers/dmaengine/unbind", "wq0.0"),
        ("drivers/dmaengine/unbind", "wq0.1"),
        ("drivers/idxd/unbind", "dsa0"),
    ]
    bound = writes.index(("drivers/idxd/bind", "dsa0"))
    for undone in (("devices/wq0.1/group_id", "-1"), ("devices/wq0.1/size", "0"), ("devices/engine0.3/group_id", "-1")):
        assert writes.count(undone) == 1
        assert 2 < writes.index(undone) < bound
    assert len(writes) == len(set(writes))


def test_release_leaves_nothing(sysfs: Path) -> None:
    apply(dsa.local, plan(fresh(sysfs), Layout(queues=(32, 64))), str(sysfs))
    for name in ("read_buffers_reserved", "read_buffers_allowed"):
        (sysfs / "bus/dsa/devices/group0.2" / name).write_text("3\n")
    fake.bind(sysfs, "dsa0", "idxd")
    fake.bind(sysfs, "wq0.1", "user")
    apply(dsa.local, release(fresh(sysfs)), str(sysfs))
    assert (sysfs / "bus/dsa/drivers/user/unbind").read_text() == "wq0.1\n"
    device = fresh(sysfs)
    assert {queue.size for queue in device.queues} == {0}
    assert {(group.read_buffers_reserved, group.read_buffers_allowed) for group in device.groups} == {(0, 0)}
    assert {queue.group for queue in device.queues} | {engine.group for engine in device.engines} == {None}


def test_type_before_name_and_bind_in_order() -> None:
    writes = pairs(plan(emulated(0, {}), Layout(queues=(8, 8), driver="ksm", client="ksm7")))
    assert writes.index(("devices/wq0.1/type", "kernel")) < writes.index(("devices/wq0.1/name", "ksm7"))
    assert writes[-3:] == [("drivers/idxd/bind", "dsa0"), ("drivers/ksm/bind", "wq0.0"), ("drivers/ksm/bind", "wq0.1")]


def test_without_a_driver_queues_stay_disabled() -> None:
    writes = pairs(plan(emulated(0, {}), Layout(driver=None)))
    assert writes[-1] == ("drivers/idxd/bind", "dsa0")


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (Layout(queues=(64, 65)), "129 entries"),
        (Layout(queues=(1,) * 9), "9 work queues"),
        (Layout(queues=(0,)), "at least one"),
        (Layout(engines=5), "5 engines"),
        (Layout(priority=0), "priority 0"),
        (Layout(priority=16), "priority 16"),
        (Layout(max_batch=1025), "batches of 1025"),
        (Layout(max_transfer=1 << 32), "transfers"),
        (Layout(mode="shared"), "PASID"),
        (Layout(threshold=3), "threshold"),
        (Layout(client=" "), "name"),
        (Layout(driver="ksm"), "no sub-driver ksm; there are dmaengine, user"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(layout: Layout, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        plan(emulated(0, {}), layout, ("dmaengine", "user"))
    assert caught.value.hint


# --- applying -----------------------------------------------------------------------------------------


def test_apply_writes_what_was_planned(sysfs: Path) -> None:
    apply(dsa.local, plan(fresh(sysfs, "dsa1"), Layout()), str(sysfs))
    device = fresh(sysfs, "dsa1")
    assert device.queues[0].size == 64
    assert [engine.group for engine in device.engines] == [0] * 4
    assert (sysfs / "bus/dsa/drivers/dmaengine/bind").read_text() == "wq1.0\n"
    assert pairs(plan(fresh(sysfs), Layout())) == RECIPE  # the other one is as it was


def test_a_refused_bind_says_what_the_device_said(sysfs: Path) -> None:
    (sysfs / "bus/dsa/devices/dsa0/cmd_status").write_text("0x23\n")
    refused = sysfs / "bus/dsa/drivers/dmaengine/bind"
    refused.unlink()
    refused.mkdir()  # what root cannot write either
    with pytest.raises(
        DeviceError, match=r"cannot bind wq0\.0 \(dmaengine\).*priority 0 \(cmd_status 0x23\)"
    ) as caught:
        apply(dsa.local, plan(fresh(sysfs), Layout()), str(sysfs))
    assert "--priority" in str(caught.value.hint)


def test_a_refused_attribute_does_not_blame_the_last_command(sysfs: Path) -> None:
    refused = sysfs / "bus/dsa/devices/wq0.0/size"
    refused.unlink()
    refused.mkdir()
    writes = [Write("devices/wq0.0/size", "9"), Write("devices/wq0.1/size", "9")]
    with pytest.raises(DeviceError, match=r"wq0\.0 does not take size = 9") as caught:
        apply(dsa.local, writes, str(sysfs))
    assert "cmd_status" not in caught.value.message
    assert fresh(sysfs).queues[1].size == 0  # nothing after the refusal


def test_the_script_is_for_any_posix_shell(sysfs: Path) -> None:
    text = script(plan(fresh(sysfs), Layout(client="it's")), str(sysfs))
    for shell in (["dash"], ["bash", "--posix"]):
        assert subprocess.run([*shell, "-c", text], check=False).returncode == 0
        assert fresh(sysfs).queues[0].client == "it's"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "success"),
        (0x23, "priority 0"),
        (0x15, "group"),
        (0x800D0000, "no queue is configured"),
        (0x800C0000, "shared queue"),
        (0x7F, "unknown outcome 0x7f"),
        (0x80990000, "unknown outcome 0x80990000"),
    ],
)
def test_codes_in_words(code: int, said: str) -> None:
    assert said in explain(code).text
    assert code == 0 or explain(code).hint


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture
def command(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``harness dsa`` on the fake tree."""
    monkeypatch.setattr("harness.dsa.read", lambda shell: read(shell, str(sysfs)))
    monkeypatch.setattr("harness.dsa.apply", lambda shell, writes: apply(shell, writes, str(sysfs)))
    return lambda *words: CliRunner().invoke(app, ["dsa", *words], catch_exceptions=False)


def test_status_as_json(command: Any) -> None:
    value = json.loads(command("status", "--json").stdout)
    assert value["devices"][1]["name"] == "dsa1"
    assert value["devices"][0]["queues"][0]["mode"] == "shared"


def test_plan_changes_nothing_and_can_be_pasted(command: Any, sysfs: Path) -> None:
    said = command("configure", "dsa0", "--plan").stdout.splitlines()
    assert said == [f"echo {value} > /sys/bus/dsa/{file}" for file, value in RECIPE]
    assert fresh(sysfs).queues[0].size == 0


def test_configure_all_then_reset_one(command: Any, sysfs: Path) -> None:
    said = command("configure", "--queue-size", "16", "--queue-size", "8", "--driver", "none").stdout
    assert "wq1.1  group 0, dedicated, 8 entries" in said
    command("reset", "dsa1")
    assert [fresh(sysfs, name).queues[0].size for name in ("dsa0", "dsa1")] == [16, 0]


def test_unknown_device(command: Any) -> None:
    with pytest.raises(UsageError, match="no device dsa7; there are dsa0, dsa1"):
        command("reset", "dsa7")
