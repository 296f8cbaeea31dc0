# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a pure function; life and death of a machine with a stand-in for QEMU."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.console import Outcome
from harness.errors import MachineError
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.machine import Channels, GuestDown, Machine, MachineSpec, Saved, argv, free_port, kernel_words
from harness.patches import AppliedSeries
from harness.qbuild import QemuBuild
from harness.sources import SourceTree

FAKE = Path(__file__).parent.parent / "fakes" / "qemu.py"
Make = Callable[..., MachineSpec]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A specification whose QEMU is the stand-in."""
    monkeypatch.setattr("harness.machine._GRACE", 0.3)
    tree = SourceTree("linux", "6.1.192", "6.1", tmp_path, "tree:0", "a test")
    applied = AppliedSeries(tree, "0", "0", False, None)
    (tmp_path / "System.map").write_text("ffffffff81001000 T native_halt\n")
    kernel = KernelBuild(
        "6.1.192", "6.1.192", tmp_path / "bzImage", tmp_path / "vmlinux", tmp_path / "config", tmp_path, "k", applied
    )
    qemu = QemuBuild("10.0.13", FAKE, tmp_path / "qboot.rom", tmp_path / "data", "q", applied)

    def build(mode: Any = "functional", *words: str, **more: Any) -> MachineSpec:
        return MachineSpec(qemu, kernel, Image(mode, tmp_path / "i.cpio", "i"), mode, 512, cmdline=words, **more)

    return build


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


# --- the command line ---------------------------------------------------------------------------------


def test_measured_is_sealed_and_counted(make: Make) -> None:
    words = argv(make("measured", seed=7), Path("/r"), Channels(3))
    assert value(words, "-icount") == "shift=0,sleep=off"
    assert value(words, "-accel") == "tcg,thread=single"
    assert value(words, "-seed") == "7"
    assert value(words, "-rtc") == "base=2026-01-01T00:00:00,clock=vm"
    assert "-nodefaults" in words
    assert not [word for word in words if word.startswith(("user,", "virtio", "virtserial"))]
    assert words[-2:] == ["-serial", "chardev:results"]


def test_functional_has_an_agent_and_no_instruction_counting(make: Make) -> None:
    words = argv(make(), Path("/r"), Channels(3, 4))
    assert "-icount" not in words
    assert "socket,id=agent,fd=4" in words
    assert "virtserialport,chardev=agent,name=org.paraksm.agent" in words
    assert "-netdev" not in words


def test_ssh_listens_on_the_loopback_only_and_reaches_nothing_else(make: Make) -> None:
    network = value(argv(make(ssh_port=2222), Path("/r"), Channels(3, 4)), "-netdev")
    assert "hostfwd=tcp:127.0.0.1:2222-" in network
    assert "restrict=on" in network


def test_argv_is_pure(make: Make) -> None:
    spec = make("measured", "numa=fake=2")
    assert argv(spec, Path("/r"), Channels(3)) == argv(dataclasses.replace(spec), Path("/r"), Channels(3))
    assert not list(Path(spec.image.path).parent.glob("console*"))


def test_commas_in_paths_are_doubled(make: Make) -> None:
    words = argv(make("measured", fw_cfg={"plan": Path("/a,b/plan")}), Path("/r,s"), Channels(3))
    assert "name=opt/paraksm/plan,file=/a,,b/plan" in words
    assert "file,id=console,path=/r,,s/console.log" in words


def test_fw_cfg_names_may_be_full(make: Make) -> None:
    words = argv(make(fw_cfg={"opt/other/x": Path("/x")}), Path("/r"), Channels(3, 4))
    assert "name=opt/other/x,file=/x" in words


def test_kernel_words_end_with_the_users(make: Make) -> None:
    words = kernel_words(make("functional", "loglevel=7", "numa=fake=2")).split()
    assert words[-2:] == ["loglevel=7", "numa=fake=2"]
    assert "panic=-1" in words
    assert "paraksm.mode=functional" in words


@pytest.mark.parametrize("more", [{"ssh_port": 22}, {"console": True}])
def test_measured_refuses_what_would_unseal_it(make: Make, more: dict[str, Any]) -> None:
    with pytest.raises(MachineError, match="sealed"):
        argv(make("measured", **more), Path("/r"), Channels(3))


def test_accelerators_behind_the_iommu_that_translates_for_them(make: Make) -> None:
    spec = make("measured", dsa=({}, {"num-engines": "2", "inject": "lost,nth=3"}), iommu=True)
    words = argv(spec, Path("/r"), Channels(3))
    devices = [words[at + 1] for at, word in enumerate(words) if word == "-device"]
    assert devices == [
        "intel-iommu", "idxd-dsa,id=dsa0", "idxd-dsa,id=dsa1,num-engines=2,inject=lost,,nth=3",
    ]  # fmt: skip
    assert "intel_iommu=on" in kernel_words(spec).split()
    assert "intel_iommu=on" not in kernel_words(make(dsa=({},))).split()


def test_no_accelerator_unless_asked(make: Make) -> None:
    assert not [word for word in argv(make("measured"), Path("/r"), Channels(3)) if "idxd" in word or "iommu" in word]


def test_kvm_cannot_have_the_emulated_accelerator(make: Make) -> None:
    with pytest.raises(MachineError, match="does not work under kvm"):
        argv(make(dsa=({},), accel="kvm"), Path("/r"), Channels(3, 4))


def test_who_is_saved_and_who_is_loaded_differ_in_the_file_alone(make: Make) -> None:
    saved = Saved(Path("/c,d/memory"), Path("/c,d/state"))
    one = argv(make("measured", saving=saved), Path("/r"), Channels(3))
    other = argv(make("measured", incoming=saved), Path("/r"), Channels(3))
    memory = "memory-backend-file,id=memory,size=512M,mem-path=/c,,d/memory"
    assert value(one, "-object") == f"{memory},share=on"
    assert value(other, "-object") == f"{memory},share=off,readonly=on,rom=off"
    assert other[-2:] == ["-incoming", "defer"] or value(other, "-incoming") == "defer"
    assert [word for word in one if word not in other] == [f"{memory},share=on"]
    assert value(one, "-machine").endswith(",memory-backend=memory")
    assert value(one, "-device") == "guest-stop"
    plain = argv(make("measured"), Path("/r"), Channels(3))
    assert not [word for word in plain if "guest-stop" in word or "memory" in word]


@pytest.mark.parametrize("mode", ["functional", "measured"])
def test_only_a_measured_machine_is_saved_and_only_once(make: Make, mode: str) -> None:
    saved = Saved(Path("/m"), Path("/s"))
    wrong: dict[str, Any] = {"saving": saved} if mode == "functional" else {"saving": saved, "incoming": saved}
    with pytest.raises(MachineError, match="saved"):
        argv(make(mode, **wrong), Path("/r"), Channels(3, 4))


# --- saved and loaded ---------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["stop", "late"])
def test_a_machine_is_saved_where_its_guest_stops_it_and_goes_on_there(make: Make, tmp_path: Path, when: str) -> None:
    """Stopped before anybody asked, or while we wait."""
    saved = Saved(tmp_path / "memory", tmp_path / "state")
    with Machine(make("measured", f"fake.save={when}", saving=saved), tmp_path / "one") as machine:
        machine.start()
        machine.save(20)
        assert not machine.alive()
    assert saved.memory.read_text() == "fake memory\n"
    with Machine(make("measured", incoming=saved), tmp_path / "two") as machine:
        machine.start()
        assert machine.wait(20) is Outcome.CLEAN
        assert machine.status == 3


@pytest.mark.parametrize(
    ("word", "outcome"), [("panic", Outcome.PANIC), ("lost", Outcome.QEMU_DIED), ("hang", Outcome.TIMEOUT)]
)
def test_a_guest_that_never_stops_its_machine(make: Make, tmp_path: Path, word: str, outcome: Outcome) -> None:
    saved = Saved(tmp_path / "memory", tmp_path / "state")
    with Machine(make("measured", f"fake.save={word}", saving=saved), tmp_path / "run") as machine:
        machine.start()
        with pytest.raises(GuestDown) as caught:
            machine.save(1)
    assert caught.value.verdict.outcome is outcome
    assert not saved.state.exists()


def test_a_machine_that_qemu_cannot_save_is_an_error(make: Make, tmp_path: Path) -> None:
    saved = Saved(tmp_path / "memory", tmp_path / "state")
    with Machine(make("measured", "fake.save=full", saving=saved), tmp_path / "run") as machine:
        machine.start()
        with pytest.raises(MachineError, match="did not save the machine: failed"):
            machine.save(20)


def test_a_state_that_is_none_is_refused_in_qemus_words(make: Make, tmp_path: Path) -> None:
    saved = Saved(tmp_path / "memory", tmp_path / "state")
    saved.state.write_text("something else")
    with Machine(make("measured", incoming=saved), tmp_path / "run") as machine:
        with pytest.raises(GuestDown, match=r"(?s)status 1.*Not a migration stream"):
            machine.start()
        assert not machine.alive()


# --- functional life ----------------------------------------------------------------------------------


def test_command_streams_and_status(make: Make, tmp_path: Path) -> None:
    out, errors = bytearray(), bytearray()
    with Machine(make(), tmp_path / "run") as machine:
        machine.start(timeout=20)
        status = machine.execute(
            "cat; printf 'e\\0\\377' >&2; exit 7",
            stdin=b"x" * 300_000,
            on_stdout=out.extend,
            on_stderr=errors.extend,
            timeout=20,
        )
        assert machine.execute("kill -9 $$", timeout=20) == 137
        assert machine.verdict.outcome is Outcome.CLEAN
        assert machine.alive()
    assert (status, bytes(out), bytes(errors)) == (7, b"x" * 300_000, b"e\0\xff")
    assert not machine.alive()


def test_input_from_a_descriptor(make: Make, tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_bytes(bytes(range(256)) * 1000)
    out = bytearray()
    with Machine(make(), tmp_path / "run") as machine, source.open("rb") as stream:
        machine.start(timeout=20)
        assert machine.execute("cat", stdin=stream.fileno(), on_stdout=out.extend, timeout=20) == 0
        reading, writing = os.pipe()
        os.write(writing, b" piped")
        os.close(writing)
        assert machine.execute("cat", stdin=reading, on_stdout=out.extend, timeout=20) == 0
        os.close(reading)
    assert bytes(out) == source.read_bytes() + b" piped"


@pytest.mark.parametrize(
    ("word", "outcome", "words"),
    [
        ("fake.boot=silent", Outcome.SILENT, "native_halt+0x2"),
        ("fake.boot=chatter", Outcome.TIMEOUT, "still booting"),
        ("fake.boot=die", Outcome.QEMU_DIED, "could not load the kernel"),
        ("fake.boot=reset", Outcome.QEMU_DIED, "powered off or reset"),
        ("fake.boot=panic", Outcome.PANIC, "Attempted to kill init"),
    ],
)
def test_boot_fails(make: Make, tmp_path: Path, word: str, outcome: Outcome, words: str) -> None:
    with Machine(make("functional", word), tmp_path / "run") as machine, pytest.raises(GuestDown) as caught:
        machine.start(timeout=1.5 if outcome in (Outcome.SILENT, Outcome.TIMEOUT) else 20)
    assert caught.value.verdict.outcome is outcome
    assert words in caught.value.message
    assert "console.log" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("word", "outcome", "words"),
    [
        ("fake.run=panic", Outcome.PANIC, "sysrq_handle_crash"),
        ("fake.run=die", Outcome.QEMU_DIED, "killed by signal 9"),
        ("fake.run=never", Outcome.TIMEOUT, "the time is over"),
        ("fake.run=cripple", Outcome.OOPS, "stable_tree_search"),
    ],
)
def test_command_fails(make: Make, tmp_path: Path, word: str, outcome: Outcome, words: str) -> None:
    with Machine(make("functional", word), tmp_path / "run") as machine:
        machine.start(timeout=20)
        with pytest.raises(GuestDown) as caught:
            machine.execute("true", timeout=0.5 if outcome is Outcome.TIMEOUT else 20)
        assert machine.verdict == caught.value.verdict
    assert caught.value.verdict.outcome is outcome
    assert words in caught.value.message


def test_an_oops_is_seen_while_the_guest_lives_on(make: Make, tmp_path: Path) -> None:
    with Machine(make("functional", "fake.run=oops"), tmp_path / "run") as machine:
        machine.start(timeout=20)
        assert machine.execute("exit 3", timeout=20) == 3
        assert machine.verdict.outcome is Outcome.OOPS
        assert machine.execute("true", timeout=20) == 0


def test_what_is_no_frame_is_an_error(make: Make, tmp_path: Path) -> None:
    with Machine(make("functional", "fake.run=garbage"), tmp_path / "run") as machine:
        machine.start(timeout=20)
        with pytest.raises(MachineError, match="unknown frame type"):
            machine.execute("true", timeout=20)


def test_monitor(make: Make, tmp_path: Path) -> None:
    with Machine(make(), tmp_path / "run") as machine:
        machine.start(timeout=20)
        assert machine.command("query-status") == {"status": "running", "running": True}
        with pytest.raises(MachineError, match="no such command"):
            machine.command("no-such-command")
        assert machine.execute("exit 4", timeout=20) == 4


def test_two_at_once_and_a_long_path(make: Make, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    with Machine(make(), deep / "1") as one, Machine(make(), deep / "2") as two:
        one.start(timeout=20)
        two.start(timeout=20)
        assert (one.execute("exit 1", timeout=20), two.execute("exit 2", timeout=20)) == (1, 2)


def test_the_command_line_is_recorded(make: Make, tmp_path: Path) -> None:
    with Machine(make(), tmp_path / "run") as machine:
        machine.start(timeout=20)
    assert str(FAKE) in (tmp_path / "run" / "qemu.argv").read_text()


# --- sealed life --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "outcome", "status"),
    [
        ("fake.job=done", Outcome.CLEAN, 3),
        ("fake.job=panic", Outcome.PANIC, None),
        ("fake.job=lost", Outcome.QEMU_DIED, None),
        ("fake.job=hang", Outcome.TIMEOUT, None),
        ("fake.job=oops", Outcome.OOPS, None),
    ],
)
def test_sealed_job(make: Make, tmp_path: Path, word: str, outcome: Outcome, status: int | None) -> None:
    with Machine(make("measured", word), tmp_path / "run") as machine:
        machine.start()
        assert machine.wait(0.7 if word.endswith("hang") else 20) is outcome
        assert machine.status == status
        assert machine.verdict.outcome is outcome
    assert (tmp_path / "run" / "results.bin").read_bytes() == b"results\0\xff"


# --- nothing stays behind -----------------------------------------------------------------------------

_HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from harness.run import spawn
child = spawn([{fake!r}, "-append", "fake.boot=silent", "-chardev", "socket,id=monitor,fd=0",
               "-chardev", "socket,id=agent,fd=0"])
print(child.pid, flush=True)
time.sleep(3600)
"""


def gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_killing_the_harness_leaves_no_machine() -> None:
    code = _HOLD.format(fake=str(FAKE), tests=str(FAKE.parent))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        holder.send_signal(signal.SIGKILL)
        assert gone(pid, 2.0)


def test_leaving_the_block_ends_the_machine(make: Make, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Machine(make(), tmp_path / "run") as machine:
        machine.start(timeout=20)
        pid = machine.pid
        raise RuntimeError
    assert gone(pid, 0.5)


def test_free_port_is_free() -> None:
    assert 1024 <= free_port() <= 65535
