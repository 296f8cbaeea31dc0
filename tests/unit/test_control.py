# SPDX-License-Identifier: GPL-2.0-or-later
"""The control protocol of workload programs, on a workload that does nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.config import PROJECT
from harness.run import run
from tests.ksm_core import SANITIZERS
from tests.workload import say

SOURCES = PROJECT / "vm-images" / "src" / "workload"

DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "control.h"

static const char *habit;
static int runs, rests;

static void go(void *state, struct control_result *result)
{
	if (state != &runs)
		abort();
	if (!strcmp(habit, "fails"))
		control_fail("vertex %d\nhas no\tparent", 7);
	if (!strcmp(habit, "sleeps"))
		usleep(50000);
	result->checksum = 0xabc;
	if (strcmp(habit, "plain"))
		control_add(result, "runs", "%d", ++runs);
	control_add(result, "rests", "%d", rests);
	for (int i = 0; !strcmp(habit, "talks") && i < 1000; i++)
		control_add(result, "again", "%01000d", i);
	if (!strcmp(habit, "spaces"))
		control_add(result, "name", "%s", "two words");
}

static void order(void *state, char *words)
{
	(void)state;
	usleep(runs ? 0 : 1000000);
	runs = atoi(words);
}

static void rest(void *state)
{
	(void)state;
	rests++;
	if (!strcmp(habit, "rests"))
		usleep(1000000);
}

static void verify(void *state, struct control_verdict *verdict)
{
	(void)state;
	verdict->pages = 12;
	verdict->bad = 1;
}

int main(int argc, char **argv)
{
	struct workload some = { .bytes = 4096, .state = &runs, .go = go, .rest = rest, .verify = verify };

	habit = argc > 1 ? argv[1] : "plain";
	if (!strcmp(habit, "no memory"))
		control_fail("no memory for %d bytes", 4096);
	if (!strcmp(habit, "plain"))
		some.rest = NULL;
	if (!strcmp(habit, "listens"))
		some.order = order;
	return control_serve(&some);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workload that does nothing, with sanitizers."""
    folder = tmp_path_factory.mktemp("control")
    (folder / "driver.c").write_text(DRIVER)
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", *SANITIZERS, f"-I{SOURCES}"]
    run(["gcc", *flags, "-o", folder / "driver", folder / "driver.c", SOURCES / "control.c"])
    return folder / "driver"


def test_every_command_has_its_answer(program: Path) -> None:
    said = say(program, ["counts"], "go", "verify", "go", "quit", "go")
    assert said.values("ready") == [{"bytes": "4096"}]
    assert [row.pop("ns").isdigit() for row in said.values("done")] == [True, True]
    assert [(row["checksum"], row["runs"], row["rests"]) for row in said.values("done")] == [
        ("0000000000000abc", "1", "0"),
        ("0000000000000abc", "2", "1"),
    ]
    assert said.values("verified") == [{"pages": "12", "bad": "1"}]
    assert (len(said.lines), said.status, said.stderr) == (4, 0, "")


def test_the_end_of_input_ends_it_well(program: Path) -> None:
    assert say(program, []).status == 0
    done = subprocess.run([program], input="go", capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2  # a last line without its end counts


def test_a_console_may_add_returns_and_empty_lines(program: Path) -> None:
    said = say(program, [], "", "go\r", "  ", "verify\r", "quit\r", "go")
    assert [line.split()[0] for line in said.lines] == ["ready", "done", "verified"]
    assert said.status == 0


def test_the_time_is_that_of_the_run_alone(program: Path) -> None:
    slow, quick = (int(say(program, [habit], "go").values("done")[0]["ns"]) for habit in ("sleeps", "rests"))
    assert slow >= 50_000_000
    assert quick < 1_000_000_000


@pytest.mark.parametrize(
    ("habit", "command", "cause"),
    [
        ("plain", "stop", "no command stop; there are go, verify, quit"),
        ("plain", "go on", "no command go on; there are go, verify, quit"),
        ("plain", "x" * 255, "a command of more than 254 bytes"),
        ("plain", "g\x1b[Ao", "no command g [Ao; there are go, verify, quit"),
        ("fails", "go", "vertex 7 has no parent"),
        ("talks", "go", "no room for again in the answer"),
        ("spaces", "go", "white space in the value of name"),
    ],
)
def test_what_it_cannot_do_ends_it_in_one_line(program: Path, habit: str, command: str, cause: str) -> None:
    said = say(program, [habit], command, "verify")
    assert said.cause == cause
    assert [line.split()[0] for line in said.lines] == ["ready", "failed"]


def test_words_behind_go_are_read_before_the_time_counts(program: Path) -> None:
    said = say(program, ["listens"], "go 41", "go", "go 7 or so")
    assert [row["runs"] for row in said.values("done")] == ["42", "43", "8"]
    assert int(said.values("done")[0]["ns"]) < 1_000_000_000


def test_it_may_fail_before_it_is_ready(program: Path) -> None:
    said = say(program, ["no memory"], "go")
    assert said.lines == ["failed no memory for 4096 bytes"]
    assert said.status == 1


def test_a_command_of_the_longest_length_is_read_whole(program: Path) -> None:
    assert say(program, [], "x" * 254).cause.startswith("no command xxx")
    assert say(program, [], "go" + " " * 252, "go").lines[1].startswith("done")


def test_lines_are_out_before_the_next_command_comes(program: Path) -> None:
    with subprocess.Popen([program, "counts"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready bytes=4096\n"
        for command, word in (("verify", "verified"), ("go", "done"), ("verify", "verified")):
            child.stdin.write(f"{command}\n")
            child.stdin.flush()
            assert child.stdout.readline().split()[0] == word
        child.stdin.close()
        assert child.wait(10) == 0


def test_an_answer_that_nobody_can_hear_is_an_error(program: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([program], input="go\n", stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "standard output" in done.stderr


def test_input_that_cannot_be_read_is_not_its_end(program: Path) -> None:
    with Path("/proc/self/mem").open("rb") as unreadable:  # nothing is mapped at its beginning
        done = subprocess.run([program], stdin=unreadable, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "failed standard input: Input/output error"
