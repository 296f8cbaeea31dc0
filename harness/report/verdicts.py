# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the shape of the paper's results is reproduced: claims with bands that were set before the runs.

Pure: readings (what was measured) go in, judgements come out. Each says reproduced, partly or not, with the measured
value, the band and the paper's value; what was not measured is said, never guessed.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import UsageError
from harness.report import means, statistics
from harness.report.means import MeanSet
from harness.report.statistics import Estimate
from harness.report.tables import Table

BANDS = Path(__file__).resolve().parent / "verdicts.toml"

Column = Literal["scaled", "ci"]
Result = Literal["reproduced", "partly", "not reproduced", "not measured", "not judged"]
Form = Literal["value", "ratio", "order", "each", "rise", "peak", "sum"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Band(_Strict):
    """Where a number must lie: ``low`` and ``high`` belong to the band, ``above`` and ``below`` do not."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    among: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        bounds = [self.low, self.high, self.above, self.below]
        if bool(self.among) == any(bound is not None for bound in bounds):
            raise ValueError("a band has bounds, or points that a peak may be among")
        return self

    def holds(self, value: float) -> bool:
        """Whether a number lies in it; NaN does not."""
        return (
            not math.isnan(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    @property
    def text(self) -> str:
        """For people."""
        if self.among:
            return f"one of {', '.join(self.among)}"
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        words = (("at least", self.low), ("at most", self.high), ("above", self.above), ("below", self.below))
        return ", ".join(f"{word} {bound:g}" for word, bound in words if bound is not None)


class Test(_Strict):
    """One number in a band."""

    __test__ = False  # pytest would take it for one of its own

    what: str
    quantity: str
    form: Form
    points: Annotated[tuple[str, ...], Field(min_length=1)]
    to: str | None = None
    level: Literal[1] | None = None
    scaled: Band | None = None
    ci: Band | None = None

    @model_validator(mode="after")
    def _points_of_the_form(self) -> Self:
        if (self.to is not None) != (self.form == "ratio"):
            raise ValueError(f"{self.what}: a ratio is to a point, and nothing else is")
        if (len(self.points) == 1) != (self.form in ("value", "ratio")):
            raise ValueError(f"{self.what}: {self.form} of {len(self.points)} points")
        if self.scaled is None and self.ci is None:
            raise ValueError(f"{self.what}: no band")
        for band in (self.scaled, self.ci):
            if band is not None and bool(band.among) != (self.form == "peak"):
                raise ValueError(f"{self.what}: `among` is for peaks, and only that")
            if band is not None and not set(band.among) <= set(self.points):
                raise ValueError(f"{self.what}: a peak among what are none of its points")
        return self

    def band(self, column: Column) -> Band | None:
        """The band that judges a column."""
        return self.scaled if column == "scaled" else self.ci


class Verdict(_Strict):
    """A claim of the paper's, and what of ours must lie where for it to hold."""

    id: Annotated[str, Field(pattern=r"^V\d+$")]
    claim: str
    paper: str
    where: str
    experiment: str
    kind: Literal["evidence", "calibrated input"] = "evidence"
    test: Annotated[tuple[Test, ...], Field(min_length=1)]


class Book(_Strict):
    """The whole data file."""

    columns: dict[Column, tuple[str, ...]]
    verdict: tuple[Verdict, ...]

    def column(self, profile: str) -> Column:
        """Which bands judge a profile."""
        return next((name for name, profiles in self.columns.items() if profile in profiles), "scaled")


@cache
def book(path: Path = BANDS) -> Book:
    """The claims and bands that come with the harness.

    Raises:
        UsageError: the file says something that cannot be.

    """
    try:
        return Book.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise UsageError(f"{path}: {error}") from error


# --- what was measured ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """A quantity: of each point (a system, a batch size) the parts of the mean that is judged, and what it lacks."""

    points: Mapping[str, Mapping[str, Estimate]]
    over: MeanSet
    lacking: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Point and part without a number, for people, each with the reason."""


Readings = Mapping[tuple[str, int], Reading]
"""By quantity and level: 0 counts instructions, 1 adds modelled miss penalties."""


def one(points: Mapping[str, Estimate], lacking: Mapping[str, str] | None = None) -> Reading:
    """Make a reading that is no mean: one number a point."""
    part = MeanSet("one number", {"": 1}, "")
    return Reading({point: {"": found} for point, found in points.items()}, part, lacking or {})


@dataclass(frozen=True)
class Measured:
    """What a test's form made of a reading; ``lacks`` names parts that a mean should have had, or why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    point: str = ""
    """Where a peak is."""
    lacks: str = ""

    @property
    def text(self) -> str:
        """For people."""
        if self.point:
            return self.point
        if self.value is None:
            return "-"
        interval = "" if self.low is None else f" [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.value:.4g}{interval}"


def measure(test: Test, reading: Reading) -> Measured:
    """Apply a test's form to what was measured."""
    wanted = (*test.points, *([test.to] if test.to is not None else []))
    if absent := [point for point in wanted if not reading.points.get(point)]:
        return Measured(None, lacks=_why(reading, absent))
    # points are compared over the parts that all of them have
    common = [part for part in reading.over.parts if all(part in reading.points[point] for point in wanted)]
    lacks = ", ".join(part for part in reading.over.parts if part not in common)
    if not common:
        return Measured(None, lacks=_why(reading, wanted))
    if test.form == "each":
        steps = [_steps(reading, test.points, part) for part in common]
        return Measured(sum(all(step > 1 for step in part) for part in steps) / len(steps), lacks=lacks)
    if test.form == "value":
        return _measured(_mean(reading, test.points[0], common), lacks)
    if test.form == "ratio":
        return _measured(_over(reading, test.points[0], str(test.to), common), lacks)
    if test.form == "sum":
        total = sum(_mean(reading, point, common).value for point in test.points)
        return Measured(total, lacks=lacks)
    if test.form == "order":
        steps_of = [_over(reading, after, before, common) for before, after in pairwise(test.points)]
        return _measured(min(steps_of, key=lambda step: step.value), lacks)
    top = max(test.points, key=lambda point: _mean(reading, point, common).value)
    if test.form == "peak":
        return Measured(_mean(reading, top, common).value, point=top, lacks=lacks)
    return _measured(_over(reading, top, test.points[0], common), lacks)


def _measured(found: Estimate, lacks: str) -> Measured:
    return Measured(found.value, found.low, found.high, lacks=lacks)


def _why(reading: Reading, points: Sequence[str]) -> str:
    told = [f"{name}: {reason}" for name, reason in reading.lacking.items() if name.split(", ")[0] in points]
    return "; ".join(told) or f"no number of {', '.join(points)}"


def _mean(reading: Reading, point: str, parts: Sequence[str]) -> Estimate:
    return _averaged(reading, {part: reading.points[point][part] for part in parts})


def _over(reading: Reading, point: str, to: str, parts: Sequence[str]) -> Estimate:
    """Geometric mean over the parts of ratios that are paired by seed."""
    return _averaged(reading, {part: _ratio(reading.points[point][part], reading.points[to][part]) for part in parts})


def _averaged(reading: Reading, values: Mapping[str, Estimate]) -> Estimate:
    """The mean of a set; a single number is itself, also where it is 0."""
    if len(values) == 1:
        return next(iter(values.values()))
    if any(found.value <= 0 for found in values.values()):
        return Estimate(0.0, None, None, next(iter(values.values())).n)
    found, _ = means.estimate(reading.over, values)
    assert found is not None
    return found


def _ratio(a: Estimate, b: Estimate) -> Estimate:
    """Paired by seed if both tell what each gave; nothing over something is 0, and anything over nothing unbounded."""
    ours, theirs = a.samples or (a.value,), b.samples or (b.value,)
    if len(ours) == len(theirs) and all(value > 0 for value in (*ours, *theirs)):
        return statistics.paired_ratio(ours, theirs)
    if b.value <= 0:
        return Estimate(math.inf if a.value > 0 else math.nan, None, None, min(a.n, b.n))
    return Estimate(a.value / b.value, None, None, min(a.n, b.n))


def _steps(reading: Reading, points: Sequence[str], part: str) -> list[float]:
    values = [reading.points[point][part].value for point in points]
    return [after / before if before > 0 else math.inf for before, after in pairwise(values)]


# --- judging --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One test, measured and judged."""

    test: Test
    band: Band
    measured: Measured
    holds: bool | None
    """None where there is no number."""
    remark: str = ""


@dataclass(frozen=True)
class Judgement:
    """A verdict at one level."""

    verdict: Verdict
    level: int
    result: Result
    findings: tuple[Finding, ...]
    reason: str = ""
    """Why it was not measured or not judged, or what keeps it from being whole."""

    @property
    def counts(self) -> bool:
        """Whether it is evidence at all."""
        return self.verdict.kind == "evidence"


def judge(verdict: Verdict, readings: Readings, column: Column, level: int = 0) -> Judgement:
    """Judge one claim at one level."""
    tests = [(test, band) for test in verdict.test if (band := test.band(column)) is not None]
    tests = [(test, band) for test, band in tests if test.level in (None, level)]
    if not tests:
        return Judgement(verdict, level, "not judged", (), "has no band for a profile of this size")
    findings = tuple(_find(verdict, test, band, readings, level) for test, band in tests)
    known = [finding for finding in findings if finding.holds is not None]
    if not known:
        return Judgement(verdict, level, "not measured", findings, findings[0].measured.lacks)
    lacks = list(dict.fromkeys(finding.measured.lacks for finding in findings if finding.measured.lacks))
    reason = f"lacks {'; '.join(lacks)}" if lacks else ""
    if not any(finding.holds for finding in known):
        return Judgement(verdict, level, "not reproduced", findings, reason)
    whole = len(known) == len(findings) and all(finding.holds for finding in known) and not lacks
    return Judgement(verdict, level, "reproduced" if whole else "partly", findings, reason)


def _find(verdict: Verdict, test: Test, band: Band, readings: Readings, level: int) -> Finding:
    reading = readings.get((test.quantity, level)) or readings.get((test.quantity, 0))
    if reading is None:
        return Finding(test, band, Measured(None, lacks=f"harness experiment {verdict.experiment}"), None)
    found = measure(test, reading)
    if found.point:
        return Finding(test, band, found, found.point in band.among)
    if found.value is None:
        return Finding(test, band, found, None)
    holds, remark = band.holds(found.value), ""
    if found.low is not None and found.high is not None:
        inside = band.holds(found.low) and band.holds(found.high)
        if holds and not inside:
            remark = "its interval leaves the band"
        elif not holds and (band.holds(found.low) or band.holds(found.high)):
            remark = "its interval reaches into the band"
    return Finding(test, band, found, holds, remark)


@dataclass(frozen=True)
class Judgements:
    """All claims at all levels that were measured, for one size of fleet."""

    column: Column
    items: tuple[Judgement, ...]

    def counts(self) -> dict[Result, int]:
        """How many of the evidence came out how, instructions alone."""
        out: dict[Result, int] = {}
        for item in self.items:
            if item.counts and item.level == 0:
                out[item.result] = out.get(item.result, 0) + 1
        return out

    def disagreements(self) -> list[str]:
        """Claims of which a number holds by instructions alone and not with modelled miss penalties, or the reverse."""
        by: dict[str, dict[int, Judgement]] = {}
        for item in self.items:
            by.setdefault(item.verdict.id, {})[item.level] = item
        out = []
        for name, found in by.items():
            if 1 not in found or 0 not in found:
                continue
            held = [{f.test.what: f.holds for f in found[level].findings if f.holds is not None} for level in (0, 1)]
            if differing := [what for what in held[0] if what in held[1] and held[0][what] != held[1][what]]:
                out.append(
                    f"{name}: {found[0].result} by instructions alone, {found[1].result} with modelled miss penalties "
                    f"({', '.join(differing)})"
                )
        return out

    @property
    def summary(self) -> str:
        """One line for people."""
        order: tuple[Result, ...] = ("reproduced", "partly", "not reproduced", "not measured", "not judged")
        counts = self.counts()
        inputs = sum(1 for item in self.items if not item.counts and item.level == 0)
        told = ", ".join(f"{counts[result]} {result}" for result in order if counts.get(result))
        return f"{told} (bands: {self.column}); {inputs} calibrated inputs are shown and not counted"


def judge_all(readings: Readings, profile: str, only: str | None = None) -> Judgements:
    """Judge every claim, or those that one experiment measures; at level 1 those of which anything was read there."""
    column = book().column(profile)
    items = []
    for verdict in book().verdict:
        if only not in (None, verdict.experiment):
            continue
        items.append(judge(verdict, readings, column))
        if any((test.quantity, 1) in readings for test in verdict.test):
            items.append(judge(verdict, readings, column, 1))
    return Judgements(column, tuple(items))


# --- for people and programs ----------------------------------------------------------------------------


def table(found: Judgements, title: str) -> Table:
    """A row a claim, and below it one a test: measured, band, paper."""
    rows: list[tuple[str, ...]] = []
    for item in found.items:
        verdict = item.verdict
        level = " (with miss penalties)" if item.level else ""
        label = "" if item.counts else " (calibrated input, no evidence)"
        result = f"{item.result}: {item.reason}" if item.reason else item.result
        rows.append(
            (f"{verdict.id}{level}", f"{verdict.claim}{label}", result, "", f"{verdict.paper}; {verdict.where}")
        )
        for finding in item.findings if item.result != "not measured" else ():
            holds = {True: "holds", False: "does not", None: "no number"}[finding.holds]
            remark = f"{holds}; {finding.remark}" if finding.remark else holds
            rows.append(("", f"- {finding.test.what}", f"{finding.measured.text} ({remark})", finding.band.text, ""))
    notes = (found.summary, *found.disagreements())
    return Table(title, ("", "claim", "measured", "band", "paper"), tuple(rows), notes)


def lines(found: Judgements) -> list[str]:
    """One line a claim that anything was measured of, for below a table."""
    out = []
    for item in found.items:
        if item.result in ("not measured", "not judged"):
            continue
        told = "; ".join(
            f"{finding.test.what} {finding.measured.text} (band: {finding.band.text})" for finding in item.findings
        )
        label = "" if item.counts else ", calibrated input"
        reason = f" ({item.reason})" if item.reason else ""
        level = " with miss penalties" if item.level else ""
        out.append(f"{item.verdict.id}{label}{level}: {item.result}{reason}: {told}; paper: {item.verdict.paper}")
    return out


def values(found: Judgements) -> dict[str, Any]:
    """Everything, for ``--json``."""
    return {
        "bands": found.column,
        "counts": found.counts(),
        "disagreements": found.disagreements(),
        "verdicts": [
            {
                "id": item.verdict.id,
                "claim": item.verdict.claim,
                "kind": item.verdict.kind,
                "level": item.level,
                "result": item.result,
                "reason": item.reason,
                "paper": item.verdict.paper,
                "where": item.verdict.where,
                "tests": [
                    {
                        "what": finding.test.what,
                        "measured": finding.measured.point or _finite(finding.measured.value),
                        "low": _finite(finding.measured.low),
                        "high": _finite(finding.measured.high),
                        "lacks": finding.measured.lacks,
                        "band": finding.band.model_dump(exclude_defaults=True),
                        "holds": finding.holds,
                        "remark": finding.remark,
                    }
                    for finding in item.findings
                ],
            }
            for item in found.items
        ],
    }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None
