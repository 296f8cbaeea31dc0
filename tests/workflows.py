# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules for workflows that keep others' code away from machines of ours; :func:`complaints` says which are broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from harness.config import PROJECT

FILES = sorted((PROJECT / ".github" / "workflows").iterdir())

HOSTED = {"ubuntu-24.04"}
"""Runners that GitHub makes for one job and throws away. Every other label is a machine of ours."""

OURS = {"push", "schedule", "workflow_dispatch"}
"""Triggers that only those who may write to the repository can cause."""

BRANCH = "main"
DSA_RUNNER = "paraksm-dsa-controller"
ENVIRONMENTS = {"dsa", "dsa-nightly"}
INLINE = re.compile(r"apt-get -q (update|install -y --no-install-recommends [a-z0-9 +.-]+)")
"""The one thing that cannot be a script of the checkout: what the checkout itself needs."""

_PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
_USES = re.compile(r"uses: *(\S+) *(.*)$")
_VERSION = re.compile(r"# v\d+\.\d+\.\d+")


def parse(text: str) -> dict[str, Any]:
    """Read a workflow; ``on`` is a truth value to YAML 1.1, and a key here."""
    data = yaml.safe_load(text)
    assert isinstance(data, dict)
    return {"on" if key is True else key: value for key, value in data.items()}


def triggers(data: dict[str, Any]) -> dict[str, Any]:
    """The events that start it, with what they are restricted to."""
    on = data["on"]
    if isinstance(on, str):
        return {on: None}
    return dict.fromkeys(on) if isinstance(on, list) else dict(on)


def labels(job: dict[str, Any]) -> set[str]:
    """Where a job may run."""
    runs_on = job.get("runs-on", "")
    if isinstance(runs_on, dict):
        return {f"group {runs_on.get('group')}", *runs_on.get("labels", [])}
    return {runs_on} if isinstance(runs_on, str) else set(runs_on)


def complaints(text: str) -> list[str]:
    """Every rule that a workflow breaks."""
    data = parse(text)
    found = list(_of_workflow(data))
    for name, job in data["jobs"].items():
        found += [f"{name}: {said}" for said in _of_job(job, data)]
    for row in text.splitlines():
        if (match := _USES.search(row)) and not _VERSION.fullmatch(match[2]):
            found.append(f"{match[1]}: no comment says which version the pin is")
    return found


def _of_workflow(data: dict[str, Any]) -> Iterator[str]:
    if data.get("permissions") != {}:
        yield "permissions of the workflow are not empty"
    if not isinstance(data.get("concurrency"), dict) or "group" not in data["concurrency"]:
        yield "no concurrency group"
    for event in ("pull_request_target", "workflow_run", "issue_comment", "repository_dispatch"):
        if event in triggers(data):
            yield f"{event} gives a stranger's event the repository's rights"
    if re.search(r"\bsecrets\b", str(data["jobs"])):
        yield "a secret is used: keys belong to the controller's own disk"


def _of_job(job: dict[str, Any], data: dict[str, Any]) -> Iterator[str]:
    if not isinstance(job.get("timeout-minutes"), int):
        yield "no timeout-minutes"
    permissions = job.get("permissions")
    if not isinstance(permissions, dict) or set(permissions.values()) - {"read", "none"}:
        yield "permissions are not declared, or not only to read"
    if labels(job) - HOSTED:
        yield from _of_own_machine(job, data)
    image = (job.get("container") or {}).get("image", "@sha256:")
    if "@sha256:" not in image:
        yield f"{image}: an image without a digest"
    if "uses" in job and not _PINNED.fullmatch(job["uses"]):
        yield f"{job['uses']}: not pinned by a full commit"
    steps = job.get("steps", [])
    for step in steps:
        yield from _of_step(step)
    uploads = [step for step in steps if "upload-artifact@" in step.get("uses", "")]
    if any(".ci/" in step.get("run", "") and ".ci/pin" not in step["run"] for step in steps) and not uploads:
        yield "nothing is uploaded"
    if any("cancelled()" not in str(step.get("if")) and "always()" not in str(step.get("if")) for step in uploads):
        yield "results are not uploaded after a failure"


def _of_own_machine(job: dict[str, Any], data: dict[str, Any]) -> Iterator[str]:
    events = triggers(data)
    if wrong := set(events) - OURS:
        yield f"a machine of ours is started by {', '.join(sorted(wrong))}"
    if "push" in events and (events["push"] or {}).get("branches") != [BRANCH]:
        yield f"a machine of ours is started by pushes to more than {BRANCH}"
    if f"github.ref == 'refs/heads/{BRANCH}'" not in str(job.get("if")):
        yield f"a machine of ours runs what is not of {BRANCH}"
    steps = job.get("steps", [])
    first = next((step["run"].strip() for step in steps if "run" in step), "")
    if first != ".ci/pin":
        yield "the first thing that a machine of ours runs is not .ci/pin"
    if data["concurrency"].get("cancel-in-progress") is not False:
        yield "a run on a machine of ours may be cut off by the next one"
    if any("actions/cache" in step.get("uses", "") for step in steps):
        yield "a machine of ours takes files from a cache that pull requests share"
    if DSA_RUNNER not in labels(job):
        return
    if "push" in events:
        yield "a push starts a measurement on the DSA host"
    named = set(re.findall(r"'(dsa[\w-]*)'", str(job.get("environment")))) or {job.get("environment")}
    if not named <= ENVIRONMENTS:
        yield "the DSA host is not behind a protected environment"
    pin: dict[str, Any] = next((step for step in steps if step.get("run", "").strip() == ".ci/pin"), {})
    if pin.get("env", {}).get("PARAKSM_CHECKOUT") != "yes":
        yield "what runs is not what was verified"


def _of_step(step: dict[str, Any]) -> Iterator[str]:
    run = step.get("run", "")
    if "${{" in run or "${{" in str(step.get("with", {}).get("script", "")):
        yield f"an expression becomes part of a script: {run.strip()}"
    for line in run.splitlines():
        if not re.fullmatch(r"\.ci/[a-z]+", line.strip()) and not INLINE.fullmatch(line.strip()):
            yield f"not a script of .ci/, which another CI could call: {line.strip()}"
        elif line.startswith(".ci/") and not (PROJECT / line.strip()).is_file():
            yield f"there is no {line.strip()}"
    uses = step.get("uses", "")
    if uses and not _PINNED.fullmatch(uses):
        yield f"{uses}: not pinned by a full commit"
    if uses.startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") is not False:
        yield "a checkout leaves its token behind"
