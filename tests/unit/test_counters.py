# SPDX-License-Identifier: GPL-2.0-or-later
"""Hardware counters: perf's words by hand, what they come to, and the script that counts, over a perf made of shell."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import counters, dsa
from harness.cli import main as cli
from harness.counters import Reading
from harness.errors import FleetError, HostError
from harness.experiment import cells
from harness.run import Completed
from tests.unit.test_report import record

HEAD = "# started on Wed Nov 25 12:00:00 2026\n\n"
TASK = HEAD + "".join(
    f"{line}\n"
    for line in (
        "4000000;;cycles;9000000;100.00;2.000;GHz",
        "2000000;;instructions;9000000;100.00;0.50;insn per cycle",
        "300;;LLC-loads;4500000;50.00;;",
        "60;;LLC-load-misses;4500000;50.00;20.00;of all LL-cache accesses",
        "100;;LLC-stores;3600000;40.00;;",
        "40;;LLC-store-misses;3600000;40.00;;",
        "0;;cpu-migrations;9000000;100.00;0.000;/sec",
    )
)


def clock(*ratios: float) -> str:
    """Intervals of a processor that counts a million in each."""
    rows = ""
    for number, ratio in enumerate(ratios, 1):
        rows += f"     {number}.000100000;{round(ratio * 1e6)};;msr/aperf/;1000000;100.00;;\n"
        rows += f"     {number}.000100000;1000000;;msr/mperf/;1000000;100.00;;\n"
    return HEAD + rows


def files(**parts: str) -> str:
    """As the host prints them."""
    return "".join(f"\n=== {name.replace('__', '.')}\n{text}" for name, text in parts.items())


def whole(*ratios: float, ksmd: str = TASK, vm1: str = TASK) -> str:
    """A run in which everything was counted."""
    return files(
        clock__csv=clock(*ratios), clock__status="0\n", core__csv=TASK, core__status="0\n", done="", ksmd__csv=ksmd,
        ksmd__status="0\n", opened="yes\n", vm1__csv=vm1, vm1__status="0\n",
    )  # fmt: skip


def test_a_line_is_value_event_and_the_share_of_the_time() -> None:
    readings = counters.parse(TASK)
    assert [reading.event for reading in readings] == list(counters.EVENTS)
    assert readings[0] == Reading("cycles", 4e6, "counted", 1.0)
    assert readings[2] == Reading("LLC-loads", 300, "counted", 0.5)


def test_what_was_not_counted_has_no_value_and_no_share() -> None:
    found = counters.parse("<not supported>;;cycles;0;100.00;;\n<not counted>;msec;task-clock;0;100.00;;\n")
    assert found == [
        Reading("cycles", None, "not supported", 0.0),
        Reading("task-clock", None, "not counted", 0.0),
    ]


def test_intervals_have_their_time_first() -> None:
    assert [reading.at for reading in counters.parse(clock(1.0, 1.0), intervals=True)] == [1.0001] * 2 + [2.0001] * 2


@pytest.mark.parametrize("line", ["cycles", "x;;cycles;1;100.00", "1;;cycles;1;many"])
def test_a_line_that_is_not_perfs_is_an_error(line: str) -> None:
    with pytest.raises(HostError, match="unexpected"):
        counters.parse(line)


@pytest.mark.parametrize(
    ("said", "status", "why"),
    [
        ("", 0, ""),
        ("sh: 1: perf: not found", 127, "apt install linux-perf"),
        ("WARNING: perf not found for kernel 6.1.0", 2, "linux-tools-generic"),
        ("Error:\nAccess is limited.\nConsider adjusting /proc/sys/kernel/perf_event_paranoid\n", 255, "be root"),
        ("Error:\nThe cycles event is not supported.\n", 255, "status 255: The cycles event is not supported."),
        ("", 1, "it said nothing"),
    ],
)
def test_why_perf_counted_nothing(said: str, status: int, why: str) -> None:
    found = counters.explain(said, status)
    assert why in found
    assert bool(found) == bool(status)


def test_the_numbers_have_the_names_of_the_modelled_ones() -> None:
    found = counters.judge(whole(1.0, 1.0, 1.0))
    assert found.invalid == ""
    assert found.notes == ()
    wanted = {
        "cycles_vm1": 4e6, "cycles_core": 4e6, "llc_instructions_vm1": 2e6, "cpi_vm1": 2.0, "llc_accesses_vm1": 400,
        "llc_misses_vm1": 100, "llc_vm1": 0.25, "llc_ksmd": 0.25, "llc_core": 0.25, "counted_share_vm1": 0.4,
        "migrations_ksmd": 0, "clock_moved": 0.0,
    }  # fmt: skip
    assert {name: found.metrics[name] for name in wanted} == wanted


def test_the_processors_rate_is_that_of_both_tasks() -> None:
    busy = TASK.replace("300;;LLC-loads", "1100;;LLC-loads")
    found = counters.judge(whole(1.0, 1.0, ksmd=busy))
    assert found.metrics["llc_core"] == pytest.approx(200 / 1600)
    lacking = TASK.replace("100;;LLC-stores;3600000;40.00", "<not supported>;;LLC-stores;0;100.00")
    found = counters.judge(whole(1.0, 1.0, ksmd=lacking))
    assert "llc_ksmd" not in found.metrics
    assert "llc_core" not in found.metrics  # not that of the processor's other programs either
    assert found.metrics["llc_vm1"] == 0.25
    assert found.notes == ("ksmd: LLC-stores: not supported (the processor lacks the event)",)


def test_an_event_that_had_a_counter_too_rarely_marks_the_run() -> None:
    rare = TASK.replace("4500000;50.00;;", "900000;24.00;;")
    found = counters.judge(whole(1.0, 1.0, vm1=rare))
    assert found.metrics["counted_share_vm1"] == 0.24
    assert found.notes == ("vm1: extrapolated from less than 25% of the time: LLC-loads 24%",)
    assert counters.judge(whole(1.0, 1.0, vm1=rare.replace("24.00", "25.00"))).notes == ()


@pytest.mark.parametrize(("ratios", "valid"), [((1.0, 1.009, 1.0), True), ((1.0, 1.011, 1.0), False)])
def test_a_clock_that_moved_makes_it_no_measurement(ratios: tuple[float, ...], valid: bool) -> None:
    found = counters.judge(whole(*ratios))
    assert found.metrics["clock_moved"] == pytest.approx(ratios[1] - 1)
    assert (found.invalid == "") == valid
    assert valid or "1.1% (APERF/MPERF), more than 1%" in found.invalid


def test_an_interval_in_which_nothing_ran_says_nothing_of_the_clock() -> None:
    idle = "     4.000100000;50;;msr/aperf/;1000000;100.00;;\n     4.000100000;100;;msr/mperf/;1000000;100.00;;\n"
    assert counters.of_clock(counters.parse(clock(1.0, 1.0, 1.0) + idle, intervals=True)).invalid == ""


def test_without_the_counters_cpufreq_is_asked_and_without_that_it_is_said() -> None:
    assert "10.0% (cpufreq)" in counters.of_clock([], [2000000, 2000000, 2200000]).invalid
    assert counters.of_clock([], [2000000, 2000000]).metrics == {"clock_moved": 0.0}
    (note,) = counters.of_clock([], [2000000]).notes
    assert "not watched" in note


def test_what_is_missing_leaves_the_rest() -> None:
    text = files(core__none="VM 1 may run on the processors 0-3\n", ksmd__csv=TASK, ksmd__status="0\n", opened="yes\n",
                 vm1__err="Error:\nperf_event_paranoid\n", vm1__status="255\n")  # fmt: skip
    found = counters.judge(text)
    assert found.metrics["cycles_ksmd"] == 4e6
    assert "cycles_vm1" not in found.metrics
    assert any(note.startswith("core: not counted: VM 1 may run") for note in found.notes)
    assert any("be root" in note for note in found.notes)
    assert counters.judge("").notes == ("no counters: the window was not seen to open",)


def test_a_run_is_failed_when_the_clock_moved_and_else_has_the_numbers(tmp_path: Path) -> None:
    assert cells.counted(tmp_path) == {}
    good = counters.judge(whole(1.0, 1.0))
    (tmp_path / counters.FILE).write_text(json.dumps(good.as_dict))
    assert cells.counted(tmp_path) == {**good.metrics, "counters": {"notes": []}}
    (tmp_path / counters.FILE).write_text(json.dumps(counters.judge(whole(1.0, 2.0)).as_dict))
    with pytest.raises(FleetError, match="the clock moved"):
        cells.counted(tmp_path)


# --- the scripts --------------------------------------------------------------------------------------------


def perf(folder: Path) -> Path:
    """A perf that notes its words, runs the command it was given, and then writes what it would have counted."""
    (folder / "task").write_text(TASK)
    (folder / "clock").write_text(clock(1.0, 1.0))
    path = folder / "bin" / "perf"
    path.parent.mkdir()
    path.write_text(
        f"""#!/bin/sh
echo "$*" >> {folder}/words
said={folder}/task
while [ "$1" != -- ]; do
    case $1 in -o) out=$2 ;; -I) said={folder}/clock ;; esac
    shift
done
shift
"$@"
cat $said > "${{out:-/dev/stderr}}"
"""
    )
    path.chmod(0o755)
    return path.parent


FLEET = """
import ctypes, os, time, sys
name = ctypes.CDLL(None).prctl
child = os.fork()
if not child:
    name(15, b"vm1")
    time.sleep(30)
    os._exit(0)
os.sched_setaffinity(child, {min(os.sched_getaffinity(0))})
name(15, b"window open")
until = time.monotonic() + 60
while len(open(sys.argv[1]).readlines() if os.path.exists(sys.argv[1]) else []) < int(sys.argv[2]):
    time.sleep(0.05)
    if time.monotonic() > until:
        break
time.sleep(0.3)
name(15, b"fleet")
time.sleep(1)
os.kill(child, 9)
os.wait()
print(child)
"""
"""Its window is open until perf was started as often as it says, and a moment more."""


def test_the_script_counts_vm_1_and_its_processor_while_the_window_is_open(tmp_path: Path) -> None:
    path = f"{perf(tmp_path)}:/usr/bin:/bin"
    words = ["python3", "-c", FLEET, str(tmp_path / "words"), "3"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as fleet:
        count = subprocess.run(
            ["sh", "-c", counters.SCRIPT, "count", str(tmp_path), str(fleet.pid)],
            env={"PATH": path}, check=False, timeout=120, capture_output=True, text=True,
        )  # fmt: skip
        child = fleet.communicate()[0].strip()
    assert (count.returncode, count.stderr) == (0, "")
    said = subprocess.run(
        ["sh", "-c", counters.COLLECT, "collect", str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    found = counters.judge(said)
    assert found.metrics["cycles_vm1"] == 4e6
    assert found.metrics["cycles_core"] == 4e6
    assert found.metrics["clock_moved"] == 0.0
    asked = (tmp_path / "words").read_text()
    assert f"-p {child} " in asked
    assert " -C " in asked


def test_a_fleet_without_a_window_has_no_counters(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    done = subprocess.run(["sh", "-c", counters.SCRIPT, "count", str(tmp_path), str(gone.pid)], check=False, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "counters" / "done").exists()


def shell_with(path: str) -> dsa.Shell:
    """This machine, with its programs in a path, and counters."""

    def shell(script: str) -> Completed:
        if script == counters.PROBE:
            return Completed((), 0, "", "", 0)
        done = subprocess.run(["sh", "-s"], input=script, env={"PATH": path}, check=False, text=True,
                              capture_output=True, timeout=60)  # fmt: skip
        return Completed((), done.returncode, done.stdout, done.stderr, 0)

    return shell


def test_a_command_counts_a_process_or_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsa, "local", shell_with(f"{perf(tmp_path)}:/usr/bin:/bin"))
    invoke = CliRunner().invoke
    done = invoke(cli.app, ["host", "counters", "--of", "cpu1", "--seconds", "0.1", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"]["cycles_it"] == 4e6
    assert invoke(cli.app, ["host", "counters", "--of", "4711", "--seconds", "0.1"]).exit_code == 0
    first, second = (tmp_path / "words").read_text().splitlines()
    assert " -C 1 -- sleep 0.1" in first
    assert " -p 4711 -- sleep 0.1" in second
    missing = invoke(cli.app, ["host", "counters", "--of", "nobody-here", "--seconds", "0.1"])
    assert isinstance(missing.exception, HostError)
    assert "no process is called 'nobody-here'" in missing.exception.message


def test_hardware_and_emulation_are_compared_by_the_same_names(tmp_path: Path) -> None:
    from harness.report import compare

    made = record(tmp_path, "cpu-ksm", 1)
    modelled = {**made.metrics, "llc_vm1": 0.5, "cpi_vm1": 4.0, "llc_accesses_other": 7}
    there = {**made.metrics, **counters.judge(whole(1.0, 1.0)).metrics, "counters": {"notes": ["a note"]}}
    from dataclasses import replace

    pair = compare.Pair(
        compare.Subject("cpu-ksm", "liblinear"), 1, replace(made, metrics=modelled), replace(made, metrics=there)
    )
    ratios = pair.ratios()
    assert (ratios["llc_vm1"], ratios["cpi_vm1"]) == (0.5, 0.5)
    assert "cycles_vm1" not in ratios  # no emulated number means the same
