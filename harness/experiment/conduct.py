# SPDX-License-Identifier: GPL-2.0-or-later
"""One experiment from its name to its report: what ``harness experiment`` and ``harness report`` call."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import atomic_write, need_disk, paths
from harness.errors import UsageError
from harness.experiment import artefacts, cells, plan, spec, trial
from harness.experiment.cells import Executor, Failure
from harness.experiment.executors import Remote, Sealed
from harness.experiment.plan import Plan, Row
from harness.experiment.spec import Spec
from harness.experiment.store import RunRecord, Store, canonical
from harness.ksm import PAGE
from harness.ui import ui

if TYPE_CHECKING:
    from harness.images import ImageName
    from harness.report.analysis import Selection
    from harness.report.build import Report
    from harness.report.compare import Comparison

CELL_DEADLINE = 3600.0
"""Wall seconds after which a cell counts as hung."""

_NEED = 512 << 20
_LIST = "experiment.json"
ONE = "A and B"
"""Name of what is compared when a set is one report: two of them are a pair, whatever they are called."""


@dataclass(frozen=True)
class Request:
    """What the user asked for; None means the spec's own choice."""

    name: str
    profile: str | None = None
    preset: str | None = None
    seeds: int | None = None
    jobs: int | None = None
    kernel: str | None = None
    source: str | None = None
    target: str | None = None
    identity: Path | None = None
    known_hosts: Path | None = None
    out: Path | None = None
    upto: str | None = None
    susy: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came out: the report, and the cells that have no result."""

    report: Report
    failures: tuple[Failure, ...]


def store() -> Store:
    """The store of this invocation."""
    return Store(paths().results)


def _image(request: Request) -> ImageName:
    """What the machine of a fleet starts with: real VMs need their monitor, kernel and image in it."""
    from harness import fleet

    asked = spec.load(request.name)
    if asked.of_operations:
        return "measured"
    size = request.profile or asked.profile
    return "nested" if fleet.profile(size).nested else "measured"


def _make(request: Request, parts: artefacts.Artefacts | None) -> Plan:
    return plan.make(
        spec.load(request.name),
        parts,
        profile=request.profile,
        preset=request.preset,
        seeds=request.seeds,
        virtual=request.target is None,
        promised=artefacts.promised(request.upto) if request.target is None else (),
        dataset=request.susy,
    )


def _rows(made: Plan) -> list[Row]:
    from harness import fleet

    stated = trial.SECONDS if made.spec.of_operations else fleet.stated_seconds(made.profile)
    return plan.rows(made, store(), stated)


def preview(request: Request) -> tuple[Plan, list[Row]]:
    """The plan and the state of its cells; builds nothing, runs nothing, connects to nothing."""
    parts = None if request.target else artefacts.recall(request.kernel, request.source, request.upto, _image(request))
    made = _make(request, parts)
    return made, _rows(made)


@contextlib.contextmanager
def _ground(request: Request) -> Iterator[tuple[artefacts.Artefacts, Executor]]:
    """What cells run on: built, or connected to."""
    if request.target is None:
        from harness.workbench import workbench

        bench = workbench(request.kernel, request.source, image=_image(request), upto=request.upto)
        parts = artefacts.remember(bench, request.kernel, request.source, request.upto, _image(request))
        yield parts, Sealed(bench, deadline=CELL_DEADLINE)
        return
    if request.kernel or request.source or request.upto:
        raise UsageError("a target runs its own kernel: --kernel, --source and --upto mean nothing with --target")
    from harness.host import Host

    programs = artefacts.programs()
    with Host.connect(request.target, request.identity, request.known_hosts) as host:
        yield artefacts.of_host(host, programs), Remote(host, programs, deadline=CELL_DEADLINE)


def perform(
    request: Request, executor: Executor | None = None, parts: artefacts.Artefacts | None = None
) -> tuple[Plan, list[Failure]]:
    """Build what is needed and run the missing cells; the plan and the cells without a result are returned.

    ``executor`` and ``parts`` replace the real ground; tests use them.

    Raises:
        HarnessError: as the step that failed says; finished cells are kept.

    """
    _make(request, None)  # a mistake in the request is told before an hour of building
    need_disk(paths().results, _NEED, "the results of an experiment")
    with contextlib.ExitStack() as stack:
        if executor is None or parts is None:
            parts, executor = stack.enter_context(_ground(request))
        made = _make(request, parts)
        found = _rows(made)
        todo = [row for row in found if row.state != "done"]
        jobs = cells.default_jobs(made, executor) if request.jobs is None or not executor.parallel else request.jobs
        if todo:
            wall = sum(row.seconds for row in todo) / min(jobs, len(todo))
            ui().step(f"{made.spec.id}: {len(todo)} of {len(found)} cells to run, about {wall:.0f} s")
            if isinstance(executor, Remote):
                stack.enter_context(executor.occupied(f"experiment {made.spec.id}"))
        return made, cells.run(made, found, store(), executor, jobs)


def conduct(request: Request, executor: Executor | None = None, parts: artefacts.Artefacts | None = None) -> Outcome:
    """Run what is missing (see :func:`perform`), then write the report."""
    made, failures = perform(request, executor, parts)
    where = request.out or paths().results / folder(made, request.target)
    return Outcome(_report(made, where), tuple(failures))


def folder(made: Plan, target: str | None) -> str:
    """The name of a report's directory: the spec's, and whatever differs from its defaults."""
    parts = [made.spec.id]
    parts += [made.profile] if made.profile != made.spec.profile else []
    parts += [made.preset] if made.preset != made.spec.preset else []
    if target is not None:
        parts.append("".join(letter if letter.isalnum() else "-" for letter in target.removeprefix("ssh://")))
    return "-".join(parts)


def scale(made: Plan) -> str:
    """How the fleet compares with the paper's, for the face of the figure."""
    if not made.cells or made.spec.of_operations:
        return ""
    fleet = made.cells[0].fleet
    size = f"{fleet.vm_memory_mib}" if fleet.nested else f"{fleet.pages_per_vm * PAGE / 2**20:.1f}"
    text = f"{fleet.vms} x {size} MiB"
    return text if made.profile == "full" else f"reduced: {text} instead of 40 x 6 GiB"


def _report(made: Plan, where: Path) -> Report:
    """Write the report, and beside it which cells it is made of, so that it can be redrawn without a plan."""
    listed: dict[str, Any] = {
        "schema": 2,
        "spec": made.spec.model_dump(mode="json", by_alias=True),
        "profile": made.profile,
        "preset": made.preset,
        "seeds": made.seeds,
        "scale": scale(made),
        "absent": dict(made.absent),
        "cells": [
            {"system": c.system, "workload": name, "seed": c.seed, "key": c.key}
            | ({} if c.batch is None else {"batch": c.batch})
            for name, c in made.bars()
        ],
    }
    atomic_write(where / _LIST, canonical(listed))
    return redraw(where)


def redraw(where: Path) -> Report:
    """Draw a report again from the store: the same records give the same bytes.

    Raises:
        UsageError: there is no report in the directory, or its list is damaged.

    """
    from harness.report.build import build

    return build(selection(where, store()), where)


def result_set(where: Path) -> dict[str, Selection]:
    """The reports of a result set by name, with the runs that lie beside them; of one report's directory, that one.

    Raises:
        UsageError: there is no report, or the list of one is damaged.

    """
    if not where.is_dir() and not where.is_absolute() and (paths().results / where).is_dir():
        where = paths().results / where
    if (where / _LIST).is_file():
        return {ONE: selection(where, _store_of(where.resolve().parent))}
    found = sorted(path.parent for path in where.glob(f"*/{_LIST}"))
    if not found:
        raise UsageError(f"{where}: neither a report nor a directory of reports", hint="harness experiment fig12")
    return {path.name: selection(path, _store_of(where)) for path in found}


def compare(a: Path, b: Path) -> Comparison:
    """Compare two result sets, or two reports.

    Raises:
        UsageError: one of them has no reports, or they have none in common.

    """
    from harness.report.compare import compare

    found = compare(result_set(a), result_set(b))
    if not found.experiments:
        raise UsageError(
            f"{a} and {b} have no report in common: {', '.join(sorted(found.alone))}",
            hint="name two directories of reports, or two reports: harness report --compare results/fig12 other/fig12",
        )
    return found


def _store_of(root: Path) -> Store:
    """The runs beside a report; a report that was written elsewhere is one of this store's."""
    return Store(root) if (root / "runs").is_dir() else store()


def selection(where: Path, store: Store) -> Selection:
    """The records that a report is made of, out of a store.

    Raises:
        UsageError: there is no report in the directory, or its list is damaged.

    """
    from harness.report.analysis import CellName, Selection

    path = where / _LIST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        records: dict[int | None, dict[CellName, RunRecord | None]] = {None: {}}
        for item in data["cells"]:
            name = (item["system"], item["workload"], int(item["seed"]))
            records.setdefault(item.get("batch"), {})[name] = store.get(item["key"])
        return Selection(
            Spec.model_validate(data["spec"]), data["profile"], data["preset"], data["seeds"], records.pop(None),
            data["absent"], data["scale"], {size: part for size, part in records.items() if size is not None},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise UsageError(f"{where}: no report there", hint="harness experiment fig12") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: damaged: {error}", hint="run the experiment again; finished cells are kept"
        ) from error
