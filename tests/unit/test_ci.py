# SPDX-License-Identifier: GPL-2.0-or-later
"""Workflows and the scripts they call: nothing of a stranger's reaches a machine of ours, and each rule has teeth."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.config import PROJECT
from tests import commands, workflows

GITHUB = PROJECT / ".github"
CI = PROJECT / ".ci"
SCRIPTS = sorted(CI.iterdir())
ZIZMOR = ("zizmor", "--offline", "--no-progress", "--quiet", "--strict-collection", "--persona", "pedantic")
SCHEMA = ("check-jsonschema", "--builtin-schema", "vendor.github-workflows")


def lint(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a linter that came with this Python, without a network."""
    tool = Path(sys.executable).with_name(str(argv[0]))
    return subprocess.run([tool, *argv[1:]], capture_output=True, text=True, timeout=120, check=False)


# --- workflows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", workflows.FILES, ids=lambda path: path.name)
def test_a_workflow_keeps_every_rule(path: Path) -> None:
    assert workflows.complaints(path.read_text()) == []


def test_the_linters_have_nothing_to_say() -> None:
    for done in (lint(*ZIZMOR, GITHUB), lint(*SCHEMA, *workflows.FILES)):
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_test_command_lints_every_workflow() -> None:
    text = (PROJECT / "tox.ini").read_text()
    assert f"zizmor {' '.join(ZIZMOR[1:])} .github" in text
    for path in workflows.FILES:
        assert str(path.relative_to(PROJECT)) in text


def test_an_action_has_one_pin_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for path in workflows.FILES:
        for name, rest in re.findall(r"uses: (\S+?)@(.*)", path.read_text()):
            pins.setdefault(name, set()).add(rest)
    assert len(pins) >= 3
    assert {name: found for name, found in pins.items() if len(found) > 1} == {}


CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("kvm", "  push:\n    branches: [main]\n", "  pull_request:\n", "started by pull_request"),
        ("kvm", "  push:\n    branches: [main]\n", "  push:\n", "pushes to more than main"),
        ("kvm", "branches: [main]", "branches: ['**']", "pushes to more than main"),
        ("kvm", "branches: [main]", "branches: [main]\n  issue_comment:", "started by issue_comment"),
        ("kvm", " && github.ref == 'refs/heads/main'", "", "what is not of main"),
        ("kvm", "run: .ci/pin", "run: .ci/kvm", "is not .ci/pin"),
        ("kvm", "cancel-in-progress: false", "cancel-in-progress: true", "cut off by the next"),
        ("kvm", "      - name: Checkout\n", "      - uses: actions/cache@v5\n      - name: Checkout\n", "from a cache"),
        ("hosted", "runs-on: ubuntu-24.04", "runs-on: [self-hosted]", "started by pull_request"),
        ("hosted", "runs-on: ubuntu-24.04", "runs-on: {group: ours, labels: [ubuntu-24.04]}", "by pull_request"),
        ("hosted", "  pull_request:", "  pull_request_target:", "pull_request_target"),
        ("hosted", "run: .ci/fast", "run: .ci/fast ${{ github.head_ref }}", "becomes part of a script"),
        ("hosted", "run: .ci/fast", "run: tox -e unit", "not a script of .ci/"),
        ("hosted", "run: .ci/fast", "run: .ci/nothing", "there is no .ci/nothing"),
        ("hosted", CHECKOUT, "actions/checkout@v7", "not pinned"),
        ("hosted", CHECKOUT, CHECKOUT.partition(" ")[0], "no comment"),
        ("hosted", CHECKOUT, CHECKOUT.replace("# v7.0.1", "# v7"), "no comment"),
        ("hosted", "@sha256:", "-", "without a digest"),
        ("hosted", "    timeout-minutes: 45\n", "", "no timeout"),
        ("hosted", "    permissions:\n      contents: read # checkout\n", "", "permissions are not declared"),
        ("hosted", "contents: read", "contents: write", "not only to read"),
        ("hosted", "permissions: {}", "permissions: read-all", "permissions of the workflow"),
        ("hosted", "concurrency:\n  group:", "env:\n  group:", "no concurrency"),
        ("hosted", "persist-credentials: false", "persist-credentials: true", "leaves its token"),
        ("hosted", "if: ${{ !cancelled() }}", "if: ${{ success() }}", "not uploaded after a failure"),
        ("hosted", "actions/upload-artifact@", "actions/other@", "nothing is uploaded"),
        ("hosted", "CCACHE_MAXSIZE: 2G", "KEY: ${{ secrets.KEY }}", "a secret"),
        ("dsa", "  schedule:", "  push:\n    branches: [main]\n  schedule:", "a push starts a measurement"),
        ("dsa", "'dsa-nightly' || 'dsa'", "'dsa-nightly' || 'dsa-open'", "protected environment"),
        ("dsa", "    environment: $", "    elsewhere: $", "protected environment"),
        ("dsa", 'PARAKSM_CHECKOUT: "yes"', 'PARAKSM_CHECKOUT: "no"', "not what was verified"),
    ],
)
def test_a_broken_rule_is_noticed(name: str, old: str, new: str, said: str) -> None:
    text = (GITHUB / "workflows" / f"{name}.yml").read_text()
    assert old in text
    found = workflows.complaints(text.replace(old, new))
    assert any(said in complaint for complaint in found), found


@pytest.mark.parametrize(
    ("linter", "old", "new"),
    [
        (ZIZMOR, "run: .ci/fast", "run: echo ${{ github.event.pull_request.title }}"),
        (ZIZMOR, CHECKOUT, "actions/checkout@v7"),
        (ZIZMOR, "  pull_request:", "  pull_request_target:"),
        (SCHEMA, "runs-on:", "run-on:"),
        (SCHEMA, "timeout-minutes: 45", "timeout-minutes: [45]"),
    ],
)
def test_the_linters_have_teeth(linter: tuple[str, ...], old: str, new: str, tmp_path: Path) -> None:
    text = (GITHUB / "workflows" / "hosted.yml").read_text()
    assert old in text
    (tmp_path / "bad.yml").write_text(text.replace(old, new))
    assert lint(*linter, tmp_path / "bad.yml").returncode != 0


# --- scripts ------------------------------------------------------------------------------------------


def script(name: str, *words: str, cwd: Path = PROJECT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one with nothing of this CI's in its environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PARAKSM_", "GITHUB_", "PYTEST_"))}
    return subprocess.run(
        [CI / name, *words], cwd=cwd, env=clean | env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    assert path.read_text().startswith("#!/usr/bin/env bash\n# SPDX-License-Identifier: GPL-2.0-or-later\n")
    environments = set(re.findall(r"^\[testenv:(\w+)\]", (PROJECT / "tox.ini").read_text(), re.MULTILINE))
    for words in re.findall(r'^exec .*/tox" (.*)$', path.read_text(), re.MULTILINE):
        assert set(words.split()) <= environments


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_command_of_a_script_exists(path: Path) -> None:
    host = "--target ssh://root@h --identity key --known-hosts hosts"
    for line in re.findall(r'^\t?"\$here/(harness .*)$', path.read_text().replace("\\\n", " "), re.MULTILINE):
        given = line.replace('"${host[@]}"', host).replace('"$PARAKSM_SEEDS"', "1").partition("||")[0]
        commands.parse(next(iter(commands.simple_commands(given))))


def git(where: Path, *words: str) -> str:
    """Run git in a repository of the test's."""
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    done = subprocess.run(
        ["git", *words], cwd=where, env=os.environ | identity, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose origin has three commits on main, and one that is only on a branch of its own."""
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "main")
    for number in range(3):
        git(origin, "commit", "-q", "--allow-empty", "-m", f"main {number}")
    git(origin, "tag", "release")
    git(origin, "checkout", "-q", "-b", "stranger")
    git(origin, "commit", "-q", "--allow-empty", "-m", "not merged")
    git(origin, "checkout", "-q", "main")
    git(tmp_path, "clone", "-q", str(origin), "clone")
    return tmp_path / "clone"


def test_a_commit_of_the_branch_is_pinned(clone: Path, tmp_path: Path) -> None:
    commit = git(clone, "rev-parse", "main~1")
    output = tmp_path / "output"
    done = script("pin", cwd=clone, PARAKSM_COMMIT=commit, GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    assert output.read_text() == f"commit={commit}\n"
    assert git(clone, "rev-parse", "HEAD") != commit
    assert script("pin", cwd=clone, PARAKSM_COMMIT=commit, PARAKSM_CHECKOUT="yes").returncode == 0
    assert git(clone, "rev-parse", "HEAD") == commit


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("", "not the full id"),
        ("main", "not the full id"),
        ("release", "not the full id"),
        ("short", "not the full id"),
        ("stranger", "not on main"),
        ("tree", "no commit here"),
        ("0" * 40, "no commit here"),
        ("$(touch PWNED)", "not the full id"),
        ("--help", "not the full id"),
    ],
)
def test_what_is_not_of_the_branch_is_refused(clone: Path, what: str, said: str) -> None:
    ids = {
        "short": git(clone, "rev-parse", "--short", "main"),
        "stranger": git(clone, "rev-parse", "origin/stranger"),
        "tree": git(clone, "rev-parse", "main^{tree}"),
    }
    before = git(clone, "rev-parse", "HEAD")
    done = script("pin", cwd=clone, PARAKSM_COMMIT=ids.get(what, what), PARAKSM_CHECKOUT="yes")
    assert done.returncode == 1
    assert said in done.stderr
    assert git(clone, "rev-parse", "HEAD") == before
    assert not (clone / "PWNED").exists()


def test_a_shallow_clone_is_no_evidence(clone: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{tmp_path}/origin", "shallow")
    done = script("pin", cwd=tmp_path / "shallow", PARAKSM_COMMIT=git(clone, "rev-parse", "main"))
    assert done.returncode == 1
    assert "shallow" in done.stderr


@pytest.fixture
def controller(tmp_path: Path) -> dict[str, str]:
    """A controller whose ssh says what the test wants, and whose harness only notes what it was told."""
    tools, here = tmp_path / "tools", tmp_path / "project" / ".ci"
    tools.mkdir()
    here.mkdir(parents=True)
    shutil.copy(CI / "dsa", here / "dsa")
    for path, text in (
        (tools / "ssh", f'echo "$@" >> {tmp_path}/ssh; cat {tmp_path}/boot_id'),
        (
            here / "harness",
            f'echo "$PARAKSM_RESULTS: $*" >> {tmp_path}/harness\n'
            "case $2 in fig13) false ;; check) exit $FIT ;; restore) exit $BACK ;; esac",
        ),
    ):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    (tmp_path / "boot_id").write_text("another machine\n")
    return {
        "PATH": f"{tools}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(tmp_path),
        "PARAKSM_CI_OUT": str(tmp_path / "out"), "FIT": "1", "BACK": "0",
        "PARAKSM_TARGET": "ssh://root@host:22", "PARAKSM_IDENTITY": "key", "PARAKSM_KNOWN_HOSTS": "hosts",
        "PARAKSM_EXPERIMENTS": "fig12 fig14", "PARAKSM_PROFILE": "laptop", "PARAKSM_SEEDS": "5",
    }  # fmt: skip


def measure(tmp_path: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run .ci/dsa as the controller would."""
    return subprocess.run(
        [tmp_path / "project" / ".ci" / "dsa"], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_controller_measures_what_it_was_told(controller: dict[str, str], tmp_path: Path) -> None:
    done = measure(tmp_path, controller)
    assert done.returncode == 0, done.stderr
    host = "--target ssh://root@host:22 --identity key --known-hosts hosts"
    rows = (tmp_path / "harness").read_text().splitlines()
    before = ("host prepare --hours 12", "host check", "dsa status")
    assert rows[:3] == [f"{tmp_path}/out/results: {what} {host}" for what in before]
    assert rows[-1] == f"{tmp_path}/out/results: host restore {host}"
    assert rows[3:-1] == [
        f"{tmp_path}/out/results: experiment {name} --profile laptop --seeds 5 {host} --out {tmp_path}/out/{name}"
        for name in ("fig12", "fig14")
    ]
    assert "StrictHostKeyChecking=yes" in (tmp_path / "ssh").read_text()


def test_a_host_that_is_not_fit_is_not_measured_on(controller: dict[str, str], tmp_path: Path) -> None:
    done = measure(tmp_path, controller | {"FIT": "3"})
    assert done.returncode == 3
    assert "not fit to be measured on" in done.stderr
    told = (tmp_path / "harness").read_text()
    assert "experiment" not in told
    assert told.splitlines()[-1].split()[1:3] == ["host", "restore"]


def test_a_host_that_is_not_put_back_fails_the_run(controller: dict[str, str], tmp_path: Path) -> None:
    assert measure(tmp_path, controller | {"BACK": "9"}).returncode == 9


def test_one_failed_experiment_fails_the_run_and_not_the_others(controller: dict[str, str], tmp_path: Path) -> None:
    done = measure(tmp_path, controller | {"PARAKSM_EXPERIMENTS": "fig13 fig14"})
    assert done.returncode == 1
    assert "failed: fig13" in done.stderr
    assert "experiment fig14" in (tmp_path / "harness").read_text()


def test_the_controller_is_never_the_host(controller: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text(Path("/proc/sys/kernel/random/boot_id").read_text())
    done = measure(tmp_path, controller)
    assert done.returncode == 2
    assert "is this machine" in done.stderr
    assert not (tmp_path / "harness").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TARGET", "", "not set"),
        ("TARGET", "ssh://root@h -oProxyCommand=x", "not an ssh address"),
        ("TARGET", "-oProxyCommand=x", "not an ssh address"),
        ("EXPERIMENTS", "fig12 --source=/etc", "not the name of an experiment"),
        ("EXPERIMENTS", "$(touch PWNED)", "not the name of an experiment"),
        ("EXPERIMENTS", "../mine.toml", "not the name of an experiment"),
        ("PROFILE", "--kernel", "not the name of a profile"),
        ("SEEDS", "5; reboot", "not a number"),
    ],
)
def test_words_that_are_no_names_never_reach_the_host(
    controller: dict[str, str], tmp_path: Path, name: str, value: str, said: str
) -> None:
    done = measure(tmp_path, controller | {f"PARAKSM_{name}": value})
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "ssh").exists()


def test_one_run_at_a_time(controller: dict[str, str], tmp_path: Path) -> None:
    holder = subprocess.Popen(
        ["flock", tmp_path / "paraksm-dsa.lock", "sh", "-c", "echo held; sleep 60"], stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = measure(tmp_path, controller)
    finally:
        os.killpg(holder.pid, 9)
        holder.wait()
    assert done.returncode == 2
    assert "another run" in done.stderr


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A project whose tox writes what it was told, and whose ``boot`` fails and leaves a console."""
    (tmp_path / "project" / ".ci").mkdir(parents=True)
    shutil.copy(CI / "tox", tmp_path / "project" / ".ci" / "tox")
    tox = tmp_path / "project" / ".venv" / "bin" / "tox"
    tox.parent.mkdir(parents=True)
    tox.write_text(
        "#!/bin/sh\n"
        f'echo "$2 $PYTEST_ADDOPTS" >> {tmp_path}/told\n'
        '[ "$2" = boot ] || exit 0\n'
        'there=$TMPDIR/pytest-of-$(id -un)/pytest-0/test_x0; mkdir -p "$there"\n'
        'echo panic > "$there/console.log"; echo no > "$there/memory"; exit 1\n'
    )
    tox.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    return tmp_path


def test_every_environment_is_run_and_one_failure_is_one(suite: Path) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(suite / "tmp"),
        "HOME": str(suite),
        "PARAKSM_CI_OUT": str(suite / "out"),
    }
    argv = [str(suite / "project" / ".ci" / "tox")]
    done = subprocess.run([*argv, "boot", "unit"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "failed: boot" in done.stderr
    told = (suite / "told").read_text().splitlines()
    assert [row.split()[0] for row in told] == ["boot", "unit"]
    assert f"--junitxml={suite}/out/unit.xml" in told[1]
    kept = [path for path in (suite / "out").rglob("*") if path.is_file()]
    assert [path.name for path in kept] == ["console.log"]
    assert kept[0].read_text() == "panic\n"
    assert subprocess.run([*argv, "unit"], env=env, capture_output=True, timeout=60, check=False).returncode == 0
    assert subprocess.run(argv, env=env, capture_output=True, timeout=60, check=False).returncode == 2
