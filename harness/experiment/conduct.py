# SPDX-License-Identifier: GPL-2.0-or-later
"""One experiment from its name to its report: what ``harness experiment`` and ``harness report`` call."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import atomic_write, need_disk, paths, sha256_json
from harness.errors import UsageError
from harness.experiment import artefacts, cells, plan, spec, trial
from harness.experiment.cells import Executor, Failure, Runner
from harness.experiment.executors import Remote, Sealed, Several
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
    from harness.report.overview import Overview

CELL_DEADLINE = 3600.0
"""Wall seconds after which a cell counts as hung."""

_NEED = 512 << 20
ALL, PRESETS = "all", "presets"
"""Names of several experiments at once."""
_SHOWN = ("fig12", "fig14")
"""Where presets are compared."""
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
    scheduler: tuple[str, ...] = ()
    """Where cells run; see :func:`harness.experiment.scheduler.parse`."""


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
    _runner(request)
    parts = None if request.target else artefacts.recall(request.kernel, request.source, request.upto, _image(request))
    made = _make(request, parts)
    return made, _rows(made)


@contextlib.contextmanager
def ground(request: Request) -> Iterator[tuple[artefacts.Artefacts, Executor]]:
    """What the cells of a request run on: built, or connected to."""
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


def _nested(request: Request) -> bool:
    return request.target is None and _image(request) == "nested"


def _runner(request: Request) -> Runner:
    from harness.experiment import scheduler

    if scheduler.parse(request.scheduler) is not None and request.target is not None:
        raise UsageError("--target is one host, driven from here; --scheduler is many", hint="leave out one of them")
    return scheduler.runner(request.scheduler, request.identity, request.known_hosts)


def perform(
    request: Request, executor: Executor | None = None, parts: artefacts.Artefacts | None = None
) -> tuple[Plan, list[Failure]]:
    """Build what is needed and run the missing cells; the plan and the cells without a result are returned.

    ``executor`` and ``parts`` replace the real ground; tests use them.

    Raises:
        HarnessError: as the step that failed says; finished cells are kept.

    """
    (made,), failures = perform_all([request], request.name, executor, parts)
    return made, failures


def perform_all(
    requests: Sequence[Request],
    what: str,
    executor: Executor | None = None,
    parts: artefacts.Artefacts | None = None,
    runner: Runner | None = None,
) -> tuple[list[Plan], list[Failure]]:
    """The same for several requests that differ in experiment, preset and profile alone: every cell is run once.

    Args:
        requests: what the user asked for.
        what: name of the whole, for people.
        executor: with ``parts`` in place of the real ground; tests use them.
        parts: what that runs on.
        runner: runs the rows; as the requests say, if nothing else is said.

    Raises:
        HarnessError: as the step that failed says; finished cells are kept.

    """
    runner = runner or _runner(requests[0])
    for request in requests:
        _make(request, None)  # a mistake in the request is told before an hour of building
    need_disk(paths().results, _NEED, "the results of an experiment")
    with contextlib.ExitStack() as stack:
        grounds: dict[bool, tuple[artefacts.Artefacts, Executor]] = {}
        for request in requests:
            nested = _nested(request)
            if executor is not None and parts is not None:
                grounds[nested] = (parts, executor)
            elif nested not in grounds:
                grounds[nested] = stack.enter_context(ground(request))
        made = [_make(request, grounds[_nested(request)][0]) for request in requests]
        found = plan.union(_rows(item) for item in made)
        all_of_them = [on for _, on in grounds.values()]
        on = all_of_them[0] if len(grounds) == 1 else Several(nested=grounds[True][1], process=grounds[False][1])
        room = cells.capacity(on, requests[0].jobs)
        todo = [row for row in found if row.state != "done"]
        if todo:
            wall = sum(row.seconds for row in todo) / min(room.jobs, len(todo))
            about = f", about {wall:.0f} s" if runner is cells.run else ""
            ui().step(f"{what}: {len(todo)} of {len(found)} cells to run{about}")
            if isinstance(on, Remote):
                stack.enter_context(on.occupied(f"experiment {what}"))
        return made, runner(what, found, store(), on, room)


def conduct(request: Request, executor: Executor | None = None, parts: artefacts.Artefacts | None = None) -> Outcome:
    """Run what is missing (see :func:`perform`), then write the report."""
    made, failures = perform(request, executor, parts)
    where = request.out or paths().results / folder(made, request)
    return Outcome(_report(made, where), tuple(failures))


def named(request: Request) -> list[Request]:
    """The requests behind a name: ``all`` is every experiment, ``presets`` what shows the difference presets make."""
    if request.name == ALL:
        names = [name for name in spec.names() if request.target is None or not spec.load(name).emulated_only]
        return [replace(request, name=name) for name in names]
    if request.name == PRESETS:
        if request.preset is not None:
            raise UsageError("`presets` compares presets: --preset means nothing with it")
        return [replace(request, name=name, preset=preset) for name in _SHOWN for preset in spec.compared()]
    return [request]


def conduct_all(
    request: Request,
    executor: Executor | None = None,
    parts: artefacts.Artefacts | None = None,
    runner: Runner | None = None,
) -> tuple[Overview, list[Failure]]:
    """Run the union of the cells of several experiments, each once, then write every report and the page over all.

    A cell that fails is in the failures once, and is shown as failed in every report that looks at it.

    Raises:
        HarnessError: as :func:`perform_all`.

    """
    requests = named(request)
    plans, failures = perform_all(requests, request.name, executor, parts, runner)
    root = request.out or paths().results
    drawn: dict[str, Report] = {}
    with ui().progress("reports", len(requests)) as task:
        for made, item in zip(plans, requests, strict=True):
            name = folder(made, item)
            drawn[name] = _report(made, root / name)
            task.advance(1)
    return overview(root, drawn), failures


def preview_all(request: Request) -> tuple[list[Plan], list[Row]]:
    """The plans behind a name, and every cell once; as :func:`preview`."""
    found = [preview(item) for item in named(request)]
    return [made for made, _ in found], plan.union(rows for _, rows in found)


def folder(made: Plan, request: Request) -> str:
    """The name of a report's directory: the spec's, and whatever differs from its defaults, the kernel among it."""
    parts = [made.spec.id]
    parts += [made.profile] if made.profile != made.spec.profile else []
    parts += [made.preset] if made.preset != made.spec.preset else []
    parts += [f"linux-{_word(request.kernel)}"] if request.kernel else []
    if request.source:  # two trees may have one name
        parts.append(f"{_word(request.source.rstrip('/').rpartition('/')[2])}-{sha256_json(request.source)[:6]}")
    parts += [f"upto-{_word(request.upto)}"] if request.upto else []
    parts += [f"susy-{_word(request.susy.name)}"] if request.susy else []
    parts += [_word(request.target.removeprefix("ssh://"))] if request.target else []
    return "-".join(parts)


def _word(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in text)


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

    Of several, one whose list is damaged is named in a warning and left out.

    Raises:
        UsageError: there is no report, or the list of the only one is damaged.

    """
    if not where.is_dir() and not where.is_absolute() and (paths().results / where).is_dir():
        where = paths().results / where
    if (where / _LIST).is_file():
        return {ONE: selection(where, _store_of(where.resolve().parent))}
    found = sorted(path.parent for path in where.glob(f"*/{_LIST}"))
    if not found:
        raise UsageError(f"{where}: neither a report nor a directory of reports", hint="harness experiment fig12")
    out: dict[str, Selection] = {}
    for path in found:
        try:
            out[path.name] = selection(path, _store_of(where))
        except UsageError as error:  # one report must not hide the others
            ui().warn(f"left out: {error.message}; {error.hint}")
    return out


def overview(root: Path | None = None, drawn: Mapping[str, Report] | None = None) -> Overview:
    """Write the page over all reports of a directory; those that were not just drawn are drawn again from their runs.

    Raises:
        UsageError: there are no reports.

    """
    from harness.report import overview
    from harness.report.build import build

    root = root or paths().results
    sections = []
    for name, chosen in result_set(root).items():
        where = root if name == ONE else root / name
        try:
            report = (drawn or {}).get(name) or build(chosen, where)
        except UsageError as error:  # of a version whose presets or systems were others, say
            ui().warn(f"{where}: left out: {error.message}")
            continue
        sections.append(overview.Section(where.name, chosen, report))
    return overview.write(sections, root / "report")


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
        data["spec"].pop("verdict", None)  # bands once stood in specs
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
