# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that KSM may merge: what a program obtains is advised if it is asked for, and only then."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import images
from harness.config import PROJECT
from harness.run import run
from tests.redis import Client, serving
from tests.smaps import Area, anonymous_kib, areas
from tests.workload import say

RECORDS = 1500
WANTED = {**os.environ, "PARAKSM_MERGEABLE": "1"}

pytestmark = pytest.mark.skipif(
    not Path("/sys/kernel/mm/ksm").is_dir(), reason="this kernel has no KSM; the guest of the boot tests has"
)

PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char variable[200000] = { 1 };
static char zeroes[200000];

static void *use(size_t bytes)
{
	char *at = malloc(bytes);

	memset(at, 7, bytes);
	return at;
}

static void *thread(void *nothing)
{
	return nothing ? nothing : use(3000);
}

int main(void)
{
	pthread_t other;
	char *grown;

	memset(variable, 1, sizeof(variable));
	memset(zeroes, 1, sizeof(zeroes));
	for (int i = 0; i < 100; i++)
		use(10000);
	grown = realloc(use(1 << 20), 8 << 20);
	memset(grown, 7, 8 << 20);
	pthread_create(&other, NULL, thread, NULL);
	pthread_join(other, NULL);
	memset(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 7, 1 << 20);
	memset(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), 7, 1 << 20);
	unsetenv("PARAKSM_MERGEABLE");
	use(5 << 20);
	puts("there");
	fflush(stdout);
	getchar();
	return 0;
}
"""

# Runs a program whose every madvise(MADV_MERGEABLE) fails with the given error, as on a kernel without KSM.
REFUSING = r"""
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sock_filter rules[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADV_MERGEABLE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned int)atoi(argv[1])),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(rules) / sizeof(*rules), rules };

	if (argc < 3 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 99;
	execv(argv[2], argv + 2);
	return 98;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that obtains memory in every way, linked as the recipes link."""
    folder = tmp_path_factory.mktemp("mergeable")
    (folder / "program.c").write_text(PROGRAM)
    wraps = [flag for flag in images.recipes()["program"]["ycsb"]["flags"] if flag.startswith("-Wl,--wrap")]
    assert wraps
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static", *wraps]
    source = PROJECT / "vm-images" / "src" / "mergeable" / "mergeable.c"
    run(["gcc", *flags, "-o", folder / "program", folder / "program.c", source])
    return folder / "program"


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refusing")
    (folder / "refusing.c").write_text(REFUSING)
    run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", folder / "refusing", folder / "refusing.c"])
    return folder / "refusing"


def _areas_of(program: Path, env: dict[str, str]) -> list[Area]:
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        found = areas(Path(f"/proc/{child.pid}/smaps").read_text())
        child.communicate(b"\n")
    assert child.returncode == 0
    return found


def test_all_that_is_obtained_is_advised_and_nothing_that_is_shared(program: Path) -> None:
    found = _areas_of(program, WANTED)
    # stack and variables of the C library that became read-only
    assert anonymous_kib(found, mergeable=False) <= 64
    assert anonymous_kib(found, mergeable=True) >= (1 + 8 + 1 + 5) * 1024 + 400
    assert all(area.mergeable for area in found if area.name == "[heap]")
    assert not any(area.mergeable for area in found if area.shared or area.name == "[stack]")


@pytest.mark.parametrize("value", [None, "", "0", "10", "yes"])
def test_nothing_changes_unless_it_is_asked_for(program: Path, value: str | None) -> None:
    env = {key: text for key, text in WANTED.items() if key != "PARAKSM_MERGEABLE"}
    env |= {} if value is None else {"PARAKSM_MERGEABLE": value}
    env["XPARAKSM_MERGEABLE"] = "1"
    assert anonymous_kib(_areas_of(program, env), mergeable=True) == 0


@pytest.mark.parametrize(("error", "told"), [(22, "error 22"), (12, "error 12"), (1, "error 1")])
def test_advice_that_is_refused_ends_the_program_with_the_cause(
    program: Path, refusing: Path, error: int, told: str
) -> None:
    done = subprocess.run([refusing, str(error), program], env=WANTED, capture_output=True, text=True, check=False)
    cause = f"failed memory cannot be made mergeable: madvise(MADV_MERGEABLE) gives {told}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, cause, cause)
    plain = {key: text for key, text in WANTED.items() if key != "PARAKSM_MERGEABLE"}
    done = subprocess.run(
        [refusing, str(error), program], env=plain, input="\n", capture_output=True, text=True, check=True
    )
    assert done.stdout == "there\n"


@pytest.fixture(scope="session")
def redis_server() -> Path:
    return images.program("redis-server")


@pytest.fixture(scope="session")
def ycsb() -> Path:
    return images.program("ycsb")


@pytest.fixture(params=[True, False], ids=["wanted", "plain"])
def loaded(request: pytest.FixtureRequest, redis_server: Path, ycsb: Path) -> Iterator[tuple[bool, list[Area]]]:
    """Areas of a real server that holds records."""
    env = WANTED if request.param else {key: text for key, text in WANTED.items() if key != "PARAKSM_MERGEABLE"}
    with serving(redis_server, env=env) as server:
        said = say(ycsb, ["load", "--socket", server.path, "--records", RECORDS], "verify")
        assert said.values("verified") == [{"pages": str(RECORDS), "bad": "0"}]
        assert Client(server.path)("DBSIZE") == RECORDS + 1
        yield request.param, areas(Path(f"/proc/{server.process.pid}/smaps").read_text())


def test_the_heap_of_a_redis_server_is_mergeable(loaded: tuple[bool, list[Area]]) -> None:
    wanted, found = loaded
    if not wanted:
        assert anonymous_kib(found, mergeable=True) == 0
        return
    assert anonymous_kib(found, mergeable=True) * 1024 >= RECORDS * 2000
    assert anonymous_kib(found, mergeable=False) <= 64
