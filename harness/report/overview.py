# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole evaluation on one page: verdicts, every figure, where each bar comes from, and what it is not.

The reports of a result set are grouped by what makes them comparable (size, preset, kernel, target). Nothing is
computed here that a report or a verdict has not computed; the same runs give the same bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import atomic_write, sha256_json
from harness.experiment.spec import catalogue, compared, presets, workloads
from harness.experiment.store import RunRecord
from harness.report import analysis, readings, tables, verdicts
from harness.report.analysis import Selection
from harness.report.build import Report
from harness.report.page import environment
from harness.report.tables import Table
from harness.report.verdicts import Judgements
from harness.systems import systems

ORDER = ("fig3", "fig5", "fig7", "fig9", "fig12", "table2", "table3", "fig13", "fig14", "fig15", "fig16")
"""As the paper shows them; others follow."""

SHOWN = {"degradation": "Figure 12", "efficiency": "Figure 14"}
"""Kinds of experiments whose presets are set side by side."""


@dataclass(frozen=True)
class Section:
    """One report of the set."""

    name: str
    """Its directory."""
    selection: Selection
    report: Report

    def _record(self) -> RunRecord | None:
        """One of its runs, also if it failed."""
        return next((record for _, _, record in self.selection.runs() if record is not None), None)

    @property
    def target(self) -> str:
        """On what kernel and where its runs were made."""
        record = self._record()
        if record is None:
            return "nothing run"
        kernel = record.inputs.get("kernel", {})
        return f"Linux {kernel.get('version', '?')}, {record.cell['target']}"

    @property
    def build(self) -> str:
        """Digest of the kernel it ran on: an edited tree has the version of the one that it was made from."""
        record = self._record()
        return "" if record is None else sha256_json(record.inputs.get("kernel", {}))[:12]


@dataclass(frozen=True)
class Group:
    """Reports that may be judged together."""

    title: str
    profile: str
    preset: str
    sections: tuple[Section, ...]
    judgements: Judgements


@dataclass(frozen=True)
class Overview:
    """The page's files, its tables for a terminal and its numbers for ``--json``."""

    tables: tuple[Table, ...]
    values: dict[str, Any]
    files: tuple[Path, ...]


def write(sections: Sequence[Section], out: Path) -> Overview:
    """Write report.html and report.md to ``out``, a directory beside the reports."""
    groups = grouped(sections)
    beside = side_by_side(groups)
    out.mkdir(parents=True, exist_ok=True)
    html, text = out / "report.html", out / "report.md"
    context = {
        "groups": groups,
        "beside": beside,
        "presets": meanings(),
        "verdict_table": verdict_table,
        "traces": traces,
        "provenance": provenance,
        "limits": limits,
        "picture": _picture,
    }
    atomic_write(html, environment().get_template("overview.html.j2").render(context))
    atomic_write(text, _markdown(groups, beside))
    shown = [verdict_table(group) for group in groups]
    values = {
        "groups": [
            {
                "profile": group.profile,
                "preset": group.preset,
                "target": group.sections[0].target,
                "reports": [section.name for section in group.sections],
                **verdicts.values(group.judgements),
            }
            for group in groups
        ]
    }
    return Overview(tuple(shown), values, (text, html))


def grouped(sections: Sequence[Section]) -> list[Group]:
    """Put together what was made of one size, preset and kernel, in the paper's order."""
    found: dict[tuple[str, str, str, str], list[Section]] = {}
    for section in sorted(sections, key=_place):
        key = (section.selection.profile, section.selection.preset, section.target, section.build)
        found.setdefault(key, []).append(section)
    several = {key[:3] for key in found if [other[:3] for other in found].count(key[:3]) > 1}
    groups = []
    for (profile, preset, target, build), items in found.items():
        judged = verdicts.judge_all(readings.read([item.selection for item in items]), profile)
        which = f" (build {build})" if (profile, preset, target) in several else ""
        groups.append(
            Group(f"profile {profile}, preset {preset}, {target}{which}", profile, preset, tuple(items), judged)
        )
    order = [*compared(), *presets()]
    return sorted(groups, key=lambda group: (group.profile, order.index(group.preset), group.title))


def _place(section: Section) -> tuple[int, str]:
    name = section.selection.spec.id
    return (ORDER.index(name) if name in ORDER else len(ORDER), section.name)


def verdict_table(group: Group) -> Table:
    """The verdicts of a group, with a claim a row."""
    return verdicts.table(group.judgements, f"Verdicts: {group.title}")


def side_by_side(groups: Sequence[Group]) -> list[Table]:
    """Figures 12 and 14 by preset: what each difference of the authors' scripts does to each system."""
    out = []
    for (profile, target, _), items in _by_fleet(groups).items():
        for kind, figure in SHOWN.items():
            found = {
                group.preset: section
                for group in items
                for section in group.sections
                if section.selection.spec.kind == kind
            }
            if len(found) > 1:
                out.append(_presets_table(figure, kind, found, f"profile {profile}, {target}"))
    return out


def _by_fleet(groups: Sequence[Group]) -> dict[tuple[str, str, str], list[Group]]:
    """Groups of one size on one kernel: only the preset differs."""
    out: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        first = group.sections[0]
        out.setdefault((group.profile, first.target, first.build), []).append(group)
    return out


def _presets_table(figure: str, kind: str, found: Mapping[str, Section], where: str) -> Table:
    compute = analysis.degradation if kind == "degradation" else analysis.efficiency
    results = {preset: compute(section.selection) for preset, section in found.items()}
    axes = next(iter(found.values())).selection.spec.axes
    rows = []
    for workload in axes.workload:
        for system in axes.system:
            cells = []
            for result in results.values():
                item = result.at(system, workload)
                share = getattr(item, "utilisation", None)
                ksmd = f", ksmd {share.value:.1%}" if share is not None else ""
                saved = f", {item.saved_mib.value:.1f} MiB" if item.saved_mib else ""
                cells.append(f"{tables.number(item.ratio, '{:.3f}x')}{ksmd}{saved}" if item.ratio else item.status)
            if any(cell not in (*analysis.ABSENCES, "missing") for cell in cells):
                rows.append((workloads()[workload].label, systems()[system].label, *cells))
    stamps = [f"{preset}: {line}" for preset, result in results.items() for line in result.stamps if "UNEQUAL" in line]
    return Table(f"{figure} under each preset ({where})", ("workload", "system", *results), tuple(rows), tuple(stamps))


def meanings() -> list[tuple[str, str]]:
    """What each preset is, for people."""
    said = {
        "paper": "the paper's text: one scheduling class, rhythm and load for all systems",
        "artifact": "what the authors' published scripts set: class, rhythm, wait and load differ between systems",
        "fair": "the same for all systems, at half the pace",
    }
    said |= {name: f"{mix.of}, but {mix.about}" for name, mix in catalogue().mix.items()}
    return [(name, said[name]) for name in compared()]


# --- where bars come from -------------------------------------------------------------------------------


def traces(section: Section) -> list[dict[str, str]]:
    """A row a run: what it shows, its directory, and short digests of what went into it."""
    out = []
    for (system, workload, seed), batch, record in section.selection.runs():
        label = systems()[system].label + ("" if batch is None else f", batches of {batch}")
        out.append(
            {
                "bar": f"{workloads()[workload].label}, {label}, seed {seed}",
                "outcome": "not run" if record is None else record.outcome,
                "directory": "" if record is None else f"runs/{record.short}",
                "inputs": "" if record is None else _digests(record),
            }
        )
    return out


def _digests(record: RunRecord) -> str:
    """Enough to see which inputs two bars share; the whole is in the manifest."""
    parts = {"key": record.key, "plan": sha256_json(record.inputs.get("plan"))}
    for name in ("kernel", "qemu", "image", "programs"):
        if name in record.inputs:
            found = record.inputs[name]
            digest = found.get("digest") if isinstance(found, Mapping) else None
            parts[name] = str(digest or sha256_json(found))
    if "checkpoint" in record.inputs:
        parts["checkpoint"] = str(record.inputs["checkpoint"])
    return " ".join(f"{name} {value.removeprefix('sha256:')[:12]}" for name, value in parts.items())


def provenance(group: Group) -> list[tuple[str, str]]:
    """Everything that the runs of a group were made of, in full; more than one value where they differ."""
    found: dict[str, list[str]] = {}
    for section in group.sections:
        for _, _, record in section.selection.runs():
            for name, value in _parts(record) if record is not None else ():
                if value not in found.setdefault(name, []):
                    found[name].append(value)
    return [(name, "; ".join(values)) for name, values in found.items()]


def _parts(record: RunRecord) -> list[tuple[str, str]]:
    out = []
    for name in ("kernel", "qemu", "image", "host", "programs", "dataset"):
        part = record.inputs.get(name)
        if isinstance(part, Mapping):
            out += [(f"{name} {key}", str(value)) for key, value in part.items() if value is not None]
    return out


# --- honest limits --------------------------------------------------------------------------------------


def limits(group: Group) -> list[str]:
    """What these numbers are not: from the runs themselves, and what holds for all of them."""
    chosen = [section.selection for section in group.sections]
    fleets = [item for item in chosen if not item.spec.of_operations]
    stamped = sorted({line for item in fleets for line in analysis.stamps(item)})
    record = next((found for item in (*fleets, *chosen) if (found := item.any_record())), None)
    out: list[str] = []
    if record is not None and record.cell["mode"] == "measured":
        out.append(
            "Time is instructions: one emulated instruction counts as one cycle of 1 ns. Caches, memory latency and "
            "bandwidth cost nothing in it; what they add on hardware is in none of the numbers of level 0."
        )
        out.append(
            "The accelerator is a model: its times come from constants that were set from the paper and public "
            "measurements. Verdicts that follow from them are labelled and not counted."
        )
    scales = {item.scale for item in chosen if item.scale}
    out += [f"The fleet is {scale}." for scale in sorted(scales)]
    if record is not None and record.cell["backend"] == "process":
        out.append("The VMs are processes with the memory of VMs, not virtual machines.")
    version = str(record.inputs.get("kernel", {}).get("version", "?")) if record is not None else "?"
    if record is not None and not version.startswith("6.2"):
        out.append(f"The kernel is {version}, not the paper's 6.2.")
    least = min((item.seeds for item in fleets), default=1)
    if least == 1:
        out.append("One seed: a result is exactly repeatable, and how much it would vary with the seed is not shown.")
    else:
        out.append(f"Intervals are over {least} seeds of contents and load; the machine itself does not vary.")
    out += [f"{line}: systems are not compared on equal terms." for line in stamped if line.startswith("UNEQUAL")]
    out += [f"Some figures are drawn {line}." for line in stamped if line.startswith("beside ")]
    absent: dict[str, str] = {}
    for item in chosen:
        absent |= item.absent
    for name, reason in absent.items():
        known: Any = systems().get(name) or workloads().get(name)
        out.append(f"{known.label if known else name} is not there: {reason}.")
    failed = sum(r is not None and r.outcome != "ok" for item in chosen for _, _, r in item.runs())
    missing = sum(r is None for item in chosen for _, _, r in item.runs())
    out += [f"{failed} runs failed and have no number."] if failed else []
    out += [f"{missing} runs are missing and have no number."] if missing else []
    out.append("What the paper shows only in a picture has no number here: nothing was read off a figure.")
    return out


# --- Markdown -------------------------------------------------------------------------------------------


def _markdown(groups: Sequence[Group], beside: Sequence[Table]) -> str:
    parts = ["# Para-ksm: the evaluation", ""]
    for group in groups:
        parts += [f"- {group.title}: {group.judgements.summary}"]
    parts += ["", "Every number is traced to its run in `report.html`, and run directories hold their inputs.", ""]
    for group in groups:
        parts += [f"# {group.title[0].upper()}{group.title[1:]}", "", tables.markdown(verdict_table(group))]
        for section in group.sections:
            name = section.selection.spec.id
            parts += [tables.markdown(section.report.table), f"![{name}](../{section.name}/{name}.png)", ""]
            parts += ["| bar | run | inputs |", "|---|---|---|"]
            parts += [f"| {row['bar']} | {_linked(row)} | {row['inputs']} |" for row in traces(section)]
            parts += [""]
        parts += ["## What went in", ""]
        parts += [f"- {name}: `{value}`" for name, value in provenance(group)]
        parts += ["", "## What these numbers are not", ""]
        parts += [f"- {line}" for line in limits(group)] + [""]
    if beside:
        parts += ["# Presets side by side", "", *(f"- `{name}`: {what}" for name, what in meanings()), ""]
        parts += [tables.markdown(table) for table in beside]
    return "\n".join(parts)


def _linked(row: Mapping[str, str]) -> str:
    if not row["directory"]:
        return row["outcome"]
    return f"[{row['directory']}](../{row['directory']}/manifest.json)" + ("" if row["outcome"] == "ok" else " failed")


def _picture(section: Section) -> str:
    """The drawing as a part of the page; its names cannot meet those of another drawing."""
    svg = next(path for path in section.report.files if path.suffix == ".svg")
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()
