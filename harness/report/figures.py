# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures as PNG and SVG, readable in grey, the same bytes for the same results."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.config import atomic_write
from harness.experiment.spec import workloads
from harness.report import batches, operations, paper, shares
from harness.report.analysis import Bar, Compared, Comparison, Degradation, Efficiency, Saving
from harness.report.batches import Batches
from harness.report.functions import GROUPS, REST, Breakdown
from harness.report.misses import Misses
from harness.report.operations import Operations
from harness.report.paper import PaperValue
from harness.report.shares import Timeline, Utilisation
from harness.report.statistics import Estimate
from harness.systems import find

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "0.88",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "savefig.dpi": 150,
    "svg.hashsalt": "paraksm",
    "svg.fonttype": "path",
}

_QUIET = "0.45"
_ABSENT = "not built yet"
_MEAN = "GeoMean"


@contextlib.contextmanager
def _canvas(width: float, height: float, ratios: tuple[float, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """A figure outside pyplot's global state: reports may be drawn from any thread. With ratios, axes side by side."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {**dict(matplotlib.rcParamsDefault), **STYLE, "backend": "agg"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(1, len(ratios), width_ratios=ratios) if ratios else figure.add_subplot()


def _save(figure: Any, base: Path) -> list[Path]:
    out: list[Path] = []
    # neither date nor library version: the same results give the same file
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None, "Creator": "paraksm"})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        path = base.with_suffix(suffix)
        atomic_write(path, buffer.getvalue())
        out.append(path)
    return out


def _stamp(figure: Any, stamps: tuple[str, ...], width: int) -> None:
    """Write the stamps below the axes, broken between them only."""
    lines: list[str] = []
    for stamp in stamps:
        if lines and len(lines[-1]) + len(stamp) + 3 <= width:
            lines[-1] += f" · {stamp}"
        else:
            lines.append(stamp)
    figure.supxlabel("\n".join(lines), fontsize=7.5, color=_QUIET, x=0.01, ha="left")


def draw_degradation(result: Degradation, base: Path) -> list[Path]:
    """Draw Figure 12 to ``base`` with the suffixes .png and .svg; returns the paths."""
    from matplotlib.lines import Line2D

    with _canvas(11.0, 4.4) as (figure, axes):
        _groups(axes, result, absent_at=1.12)
        _paper_means(axes, result)
        _limit(axes, result, least=4.4)
        axes.set_ylabel(f"degradation T / T({result.selection.spec.baseline})  [x]")
        bound = Line2D([], [], color="0", linestyle="--", linewidth=1, label="least by time share 1/(1-u)")
        _legend(axes, result, bound)
        _stamp(figure, result.stamps, 190)
        return _save(figure, base)


def draw_efficiency(result: Efficiency, base: Path) -> list[Path]:
    """Draw Figure 14 to ``base`` with the suffixes .png and .svg; returns the paths."""
    with _canvas(9.0, 4.2) as (figure, axes):
        end = _groups(axes, result, absent_at=0.12)
        compared = _systems(result)
        for place, system in enumerate(compared):
            _paper_range(axes, system, end - 0.05 + 0.12 * place)
        _limit(axes, result, least=2.0)
        axes.set_xlim(right=end + 0.12 * len(compared))
        axes.set_ylabel(f"saving for ksmd's time, over {find(str(result.selection.spec.baseline)).label}  [x]")
        _legend(axes, result)
        _stamp(figure, result.stamps, 155)
        return _save(figure, base)


def _systems(result: Comparison[Compared]) -> list[str]:
    """Those with columns of their own: all but the one that they are compared with."""
    spec = result.selection.spec
    return [name for name in spec.axes.system if name != spec.baseline]


def _groups(axes: Any, result: Comparison[Compared], *, absent_at: float) -> float:
    """Draw a group of columns for each workload and one for the means; return where they end."""
    spec, compared, absent = result.selection.spec, _systems(result), result.selection.absent
    groups = [*spec.axes.workload, _MEAN]
    width = 0.8 / len(compared)
    for column, name in enumerate(groups):
        if name in absent:
            why = result.selection.absence("", name)
            axes.text(column, absent_at, why, rotation=90, ha="center", va="bottom", fontsize=8, color=_QUIET)
            continue
        for x, system in _places(column, compared, width):
            if name == _MEAN:
                _mean(axes, result.geomeans.get(system), paper.find(spec.kind, system, name), system, x, width)
            else:
                _column(axes, result.at(system, name), x, width)
    end = len(groups) - 0.4
    axes.axhline(1, color="0", linewidth=0.8)
    axes.axvline(len(groups) - 1.5, color="0.8", linewidth=0.8)
    axes.set_xticks(range(len(groups)), [_tick(name) for name in groups])
    axes.set_xlim(-0.6, end)
    axes.tick_params(axis="x", length=0)
    axes.set_title(f"{spec.title}  –  {spec.paper}", loc="left", fontsize=10)
    return end


_HEADROOM = 1.42
"""Of the axes over the tallest column: its number and the legend stand in it."""


def _limit(axes: Any, result: Comparison[Compared], *, least: float) -> None:
    """Leave room above the columns, and the same room in all figures that need no more."""
    tops = [item.ratio.high or item.ratio.value for item in result.items if item.ratio]
    axes.set_ylim(0, max([least, *(_HEADROOM * top for top in tops)]))


def _places(column: int, compared: list[str], width: float) -> Iterator[tuple[float, str]]:
    """Where in a group of bars each system stands."""
    for place, system in enumerate(compared):
        yield column + (place - (len(compared) - 1) / 2) * width, system


def _paper_range(axes: Any, system: str, x: float) -> None:
    """The range over all workloads that the text gives, as a line behind the last group."""
    there = paper.find("efficiency", system, "all")
    if there is None:
        return
    share = 0.01 if there.unit.startswith("%") else 1.0
    low, high = there.value * share, (there.high if there.high is not None else there.value) * share
    axes.plot([x, x], [low, high], color="0", linewidth=1, marker="D", markersize=4, markerfacecolor="1")
    axes.text(x, high + 0.05, find(system).label, ha="center", va="bottom", fontsize=7, rotation=90)


def _tick(name: str) -> str:
    return _MEAN if name == _MEAN else workloads()[name].label.replace(" ", "\n")


def _column(axes: Any, item: Compared, x: float, width: float) -> None:
    """One bar with its number and interval, or in its place the word that says why there is none."""
    value = item.ratio
    if value is None:
        axes.text(x, 0.08, item.status, rotation=90, ha="center", va="bottom", fontsize=7, color=_QUIET)
    else:
        axes.bar(x, value.value, width * 0.92, color=item.system.face, hatch=item.system.hatch, edgecolor="0")
        top = value.value
        if value.low is not None and value.high is not None:
            reach = [[value.value - value.low], [value.high - value.value]]
            axes.errorbar(x, value.value, reach, color="0", capsize=2, linewidth=1)
            top = value.high
        # upright: it stays above its own column, and off the neighbours'
        axes.text(x, top + 0.06, f"{value.value:.2f}", ha="center", va="bottom", fontsize=8, rotation=90)
    if isinstance(item, Bar) and item.bound is not None:
        ends = [x - width * 0.55, x + width * 0.55]
        axes.plot(ends, [item.bound] * 2, color="0.95", linewidth=1.8)
        axes.plot(ends, [item.bound] * 2, color="0", linewidth=1, linestyle="--")


def _mean(axes: Any, mean: Estimate | None, there: PaperValue | None, system: str, x: float, width: float) -> None:
    if mean is not None:
        axes.bar(x, mean.value, width * 0.92, color=find(system).face, hatch=find(system).hatch, edgecolor="0")
    if there is not None:
        axes.plot(x, there.value, marker="D", markersize=6, markerfacecolor="1", markeredgecolor="0", linestyle="none")
        label = f"{find(system).label}  {there.value:g}"
        axes.text(x, there.value + 0.14, label, ha="center", va="bottom", fontsize=7, rotation=90)


def _paper_means(axes: Any, result: Degradation) -> None:
    """Means over groups of bars that the text gives for CPU-ksm, drawn over the bars they are of."""
    names = list(result.selection.spec.axes.workload)
    for scope in ("Liblinear+Graph500", "YCSB"):
        there = paper.find("degradation", "cpu-ksm", scope)
        columns = [index for index, name in enumerate(names) if workloads()[name].family in scope.split("+")]
        if there is None or not columns:
            continue
        axes.plot([columns[0] - 0.42, columns[-1] + 0.42], [there.value] * 2, color="0", linewidth=1, linestyle=":")
        axes.text(
            columns[-1] + 0.42,
            there.value + 0.05,
            f"paper: CPU-ksm, mean {there.value:g}x",
            ha="right",
            va="bottom",
            fontsize=7,
            bbox={"facecolor": "1", "edgecolor": "none", "pad": 0.8},
        )


def _legend(axes: Any, result: Comparison[Compared], *more: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: list[Any] = []
    for name in _systems(result):
        system = find(name)
        label = f"{system.label} ({_ABSENT})" if name in result.selection.absent else system.label
        marks.append(Patch(facecolor=system.face, hatch=system.hatch, edgecolor="0", label=label))
    marks += more
    marks.append(
        Line2D([], [], marker="D", markerfacecolor="1", markeredgecolor="0", linestyle="none", label="paper's text")
    )
    axes.legend(handles=marks, loc="upper left", ncols=3, fontsize=7.5, bbox_to_anchor=(0, 1.0))


def _dashes(line: str) -> Any:
    """A named style, or lengths of strokes and gaps."""
    return (0, tuple(map(float, line.split()))) if line[0].isdigit() else line


def draw_saving(result: Saving, base: Path) -> list[Path]:
    """Draw Figure 13 to ``base`` with the suffixes .png and .svg; returns the paths."""
    record = result.selection.any_record()
    virtual = record is not None and record.cell["mode"] == "measured"
    with _canvas(7.2, 4.4) as (figure, axes):
        absent: list[str] = []
        for curve in result.curves:
            if curve.status != "result":
                absent.append(f"{curve.system.label}: {curve.status}")
                continue
            style = _dashes(curve.system.line)
            axes.plot(curve.times, curve.middle, color="0.1", linestyle=style, label=curve.system.label)
            if result.selection.seeds > 1:
                axes.fill_between(curve.times, curve.low, curve.high, color="0.8", label="range over seeds")
        _ceiling(axes, [curve.ceiling_mib for curve in result.curves if curve.ceiling_mib is not None])
        axes.set_xlabel("virtual time in the window [s]" if virtual else "time in the window [s]")
        axes.set_ylabel("memory saved [MiB]")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.margins(y=0.12)
        axes.set_title(f"{result.selection.spec.title}\n{result.selection.spec.paper}", loc="left", fontsize=10)
        for text in absent:
            axes.plot([], [], linestyle="none", label=text)
        # savings rise from the corner below on the left: above it there is room, below the ceiling's line
        axes.legend(loc="upper left", bbox_to_anchor=(0.01, 0.9), fontsize=8, frameon=True, edgecolor="0.8")
        _stamp(figure, result.stamps, 122)
        return _save(figure, base)


def _ceiling(axes: Any, ceilings: list[float]) -> None:
    """What the content allows: one line, or two where it differs between systems by more than a line is wide."""
    if not ceilings:
        return
    ends = {min(ceilings), max(ceilings)} if max(ceilings) > 1.02 * min(ceilings) else {max(ceilings)}
    for height in sorted(ends):
        axes.axhline(height, color=_QUIET, linestyle=(0, (1, 3)), linewidth=1)
    axes.text(
        0.99, max(ceilings), "what the content allows", transform=axes.get_yaxis_transform(), ha="right", va="bottom",
        fontsize=7.5, color=_QUIET,
    )  # fmt: skip


def draw_utilisation(result: Utilisation, base: Path) -> list[Path]:
    """Draw Table 2 as columns to ``base`` with the suffixes .png and .svg; returns the paths."""
    return _draw_table(result, base, "ksmd_utilisation", "ksmd's share of its processor  [%]")


def draw_misses(result: Misses, base: Path) -> list[Path]:
    """Draw Table 3 as columns to ``base`` with the suffixes .png and .svg; returns the paths."""
    return _draw_table(result, base, "llc_miss_rate", "VM 1's misses in the modelled shared cache  [%]")


def _draw_table(result: Utilisation | Misses, base: Path, metric: str, label: str) -> list[Path]:
    """Shares by system and column, each with the paper's number, as columns."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    spec = result.selection.spec
    groups = (*shares.COLUMNS, shares.MEAN)
    width = 0.84 / len(spec.axes.system)
    highest = 60.0
    with _canvas(9.0, 4.2) as (figure, axes):
        for column, group in enumerate(groups):
            for x, name in _places(column, list(spec.axes.system), width):
                entry, there = result.at(name, group), paper.find(metric, name, group)
                top = 0.0
                if entry.share is None:
                    # the word stands clear of the paper's mark
                    foot, gap = (there.value, 15) if there is not None else (0, 2)
                    axes.annotate(_because(entry.status, group), (x, foot), (0, gap), textcoords="offset points",
                                  rotation=90, ha="center", va="bottom", fontsize=7, color=_QUIET)  # fmt: skip
                else:
                    top = 100 * entry.share.value
                    axes.bar(x, top, width * 0.92, color=entry.system.face, hatch=entry.system.hatch, edgecolor="0")
                    if entry.share.low is not None and entry.share.high is not None:
                        reach = [[top - 100 * entry.share.low], [100 * entry.share.high - top]]
                        axes.errorbar(x, top, reach, color="0", capsize=2, linewidth=1)
                        top = 100 * entry.share.high
                    axes.text(x, top + 0.7, f"{100 * entry.share.value:.3g}", ha="center", va="bottom", fontsize=7.5)
                if there is not None:
                    axes.plot(x, there.value, marker="D", markersize=5, markerfacecolor="1", markeredgecolor="0",
                              linestyle="none", zorder=5)  # fmt: skip
                    axes.annotate(f"{there.value:g}", (x, there.value), (0, 4), textcoords="offset points", ha="center",
                                  va="bottom", fontsize=7, zorder=6,
                                  bbox={"facecolor": "1", "edgecolor": "none", "pad": 0.6})  # fmt: skip
                highest = max(highest, top, there.value if there else 0)
        axes.axvline(len(groups) - 1.5, color="0.8", linewidth=0.8)
        axes.set_xticks(range(len(groups)), groups)
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.set_ylim(0, highest * 1.3)
        axes.set_ylabel(label)
        axes.set_title(f"{spec.title}  –  {spec.paper}", loc="left", fontsize=10)
        marks: list[Any] = [
            Patch(facecolor=find(name).face, hatch=find(name).hatch, edgecolor="0", label=find(name).label)
            for name in spec.axes.system
        ]
        marks.append(
            Line2D([], [], marker="D", markerfacecolor="1", markeredgecolor="0", linestyle="none", label="paper")
        )
        axes.legend(handles=marks, loc="upper left", ncols=len(marks), fontsize=7.5)
        _stamp(figure, result.stamps, 155)
        return _save(figure, base)


def _because(status: str, group: str) -> str:
    return "needs every workload" if group == shares.MEAN and status != "failed" else status


def draw_batches(result: Batches, base: Path) -> list[Path]:
    """Draw Figure 9, 15 or 16 to ``base`` with the suffixes .png and .svg; returns the paths."""
    spec = result.selection.spec
    with _canvas(9.6 if spec.kind == "batch-saving" else 7.2, 4.4) as (figure, axes):
        if spec.kind == "batch-saving":
            _batch_curves(axes, result)
        else:
            _batch_bars(axes, result)
        axes.set_title(f"{spec.title}\n{spec.paper}, beside {result.workload.label}", loc="left", fontsize=10)
        _stamp(figure, result.stamps, 122)
        return _save(figure, base)


_STROKES = ("-", "--", "-.", ":", "5 1 1 1 1 1", "8 2", "2 1")
_MARKS = ("o", "s", "^", "v", "D", "x", "+", "*")


def _batch_curves(axes: Any, result: Batches) -> None:
    record = result.selection.any_record()
    virtual = record is not None and record.cell["mode"] == "measured"
    for place, size in enumerate(result.sizes):
        if size.curve is None or size.curve.status != "result":
            axes.plot([], [], linestyle="none", label=f"{size.batch}: {size.status}")
            continue
        curve, grey = size.curve, f"{0.6 - 0.6 * place / max(1, len(result.sizes) - 1):.2f}"
        there = batches.paper_value(result, size.batch)
        step = f"  ({size.step.value:.2f}x the one before" if size.step else ""
        step += (f"; paper {there})" if there else ")") if step else ""
        step = f"  ({size.half_s.value:.2f} s for half)" if size.exhausted and size.half_s else step
        axes.plot(
            curve.times, curve.middle, color=grey, linestyle=_dashes(_STROKES[place % len(_STROKES)]),
            marker=_MARKS[place % len(_MARKS)], markevery=max(1, len(curve.times) // 8), markersize=4,
            label=f"{size.batch}{step}",
        )  # fmt: skip
        if result.selection.seeds > 1:
            axes.fill_between(curve.times, curve.low, curve.high, color="0.88")
    axes.set_xlabel("virtual time in the window [s]" if virtual else "time in the window [s]")
    axes.set_ylabel("memory saved [MiB]")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    known = [size.curve.ceiling_mib for size in result.sizes if size.curve and size.curve.ceiling_mib is not None]
    if known:
        axes.axhline(max(known), color="0.6", linewidth=0.8, linestyle=":", label="what the content allows")
    axes.legend(title="batch size", loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=7.5, title_fontsize=8)


def _batch_bars(axes: Any, result: Batches) -> None:
    from matplotlib.lines import Line2D

    full = result.selection.spec.kind == "batch-use"
    scale, unit = (100, "%") if full else (1, "x")
    tops = [0.0]
    for x, size in enumerate(result.sizes):
        value = size.use if full else size.efficiency
        if value is None:
            words = size.status if size.status != "result" else "no batch" if full else "nothing to compare"
            axes.text(x, 0.03 * scale, words, rotation=90, ha="center", va="bottom", fontsize=7.5, color=_QUIET)
        else:
            height = scale * value.value
            axes.bar(x, height, 0.7, color=result.system.face, hatch=result.system.hatch, edgecolor="0")
            if value.low is not None and value.high is not None:
                reach = [[height - scale * value.low], [scale * value.high - height]]
                axes.errorbar(x, height, reach, color="0", capsize=2, linewidth=1)
                height = scale * value.high
            axes.text(x, height + 0.01 * scale, f"{scale * value.value:.{1 if full else 2}f}", ha="center",
                      va="bottom", fontsize=8)  # fmt: skip
            tops.append(height)
        there = batches.papers(result, size.batch)
        if there is not None:
            # a number is a diamond; a bound points to where the value may lie
            mark = "v" if there.unit.startswith("% at most") else "^" if there.unit.startswith("% at least") else "D"
            axes.plot(
                x + 0.25, there.value, marker=mark, markersize=6, markerfacecolor="1", markeredgecolor="0", zorder=5
            )
            axes.text(
                x + 0.37, there.value, f"{there.value:g}{unit}", fontsize=7.5, va="center", zorder=5,
                bbox={"facecolor": "1", "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
            tops.append(there.value)
    axes.set_xticks(range(len(result.sizes)), [str(size.batch) for size in result.sizes])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(result.sizes) - 0.3)
    axes.set_xlabel("batch size  [candidate pages]")
    least = result.selection.spec.axes.batch[0]
    axes.set_ylabel("comparisons asked for together, over the batch size  [%]" if full
                    else f"saving for ksmd's time, over batches of {least}  [x]")  # fmt: skip
    axes.set_ylim(0, max(tops) * 1.25 or scale)
    drawn = {"D": "paper's text", **({"^": "paper: at least", "v": "paper: at most"} if full else {})}
    if full:
        del drawn["D"]
    axes.legend(handles=[Line2D([], [], marker=mark, markerfacecolor="1", markeredgecolor="0", linestyle="none",
                                label=label) for mark, label in drawn.items()], loc="upper right", fontsize=7.5,
                ncols=2)  # fmt: skip


def draw_timeline(result: Timeline, base: Path) -> list[Path]:
    """Draw Figure 3 to ``base`` with the suffixes .png and .svg; returns the paths."""
    spec = result.selection.spec
    record = result.selection.any_record()
    virtual = record is not None and record.cell["mode"] == "measured"
    with _canvas(11.0, 4.2, (2.2, 1.0)) as (figure, (axes, right)):
        if result.status != "result":
            axes.text(0.5, 50, f"{result.status}: {result.reason}", ha="center", color=_QUIET)
        starts = (0.0, *result.times[:-1]) if result.times else ()
        for values, name, look in (
            (result.total, "both", {"color": "0.75", "linewidth": 2.2}),
            (result.application, f"VM 1 ({result.workload.label})", {"color": "0.35", "linestyle": "--"}),
            (result.ksmd, "ksmd", {"color": "0"}),
        ):
            if values:
                edges = [*starts, result.times[-1]]
                axes.stairs([100 * value for value in values], edges, baseline=None, label=name, **look)
        there = paper.find("ksmd_utilisation_range", result.system.id, "ycsb-d")
        if there is not None and there.high is not None and result.times:
            end = result.times[-1]
            axes.plot([end * 1.02] * 2, [there.value, there.high], color="0", linewidth=1, marker="D", markersize=4,
                      markerfacecolor="1", label=f"paper: ksmd beside YCSB-d, {there.text}")  # fmt: skip
            axes.set_xlim(0, end * 1.04)
        axes.set_ylim(0, 118)
        axes.set_yticks(range(0, 101, 20))
        axes.set_xlabel("virtual time in the window [s]" if virtual else "time in the window [s]")
        within = f" in {result.bin_ns // 1_000_000} ms" if result.bin_ns else ""
        axes.set_ylabel(f"share of the processor{within}  [%]")
        axes.set_title(f"{spec.title}  –  {spec.paper}", loc="left", fontsize=10)
        if result.times:
            axes.legend(loc="upper left", ncols=4, fontsize=7.5)
        _functions(right, result.functions)
        _stamp(figure, result.stamps, 190)
        return _save(figure, base)


def _functions(axes: Any, result: Breakdown) -> None:
    """The right of Figure 3: what ksmd's instructions are spent on, the paper's numbers as marks."""
    from matplotlib.lines import Line2D

    names = [*GROUPS, REST]
    highest = 40.0
    for row, name in enumerate(names):
        part, there = result.parts.get(name), paper.find("function_share", result.system.id, name)
        if part is not None:
            share = 100 * part.value
            axes.barh(row, share, 0.62, color=result.system.face, edgecolor="0")
            highest = max(highest, share)
            axes.text(share + 1, row, f"{share:.1f}", va="center", fontsize=7.5)
        if there is not None:
            axes.plot(there.value, row - 0.42, marker="v", markersize=5, markerfacecolor="1", markeredgecolor="0",
                      linestyle="none", zorder=5)  # fmt: skip
            axes.text(there.value + 1.2, row - 0.46, f"{there.value:g}", va="center", fontsize=7)
    if not result.parts:
        axes.text(highest / 2, len(names) / 2, "not counted", ha="center", color=_QUIET)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_ylim(len(names) - 0.4, -0.9)
    axes.set_xlim(0, highest * 1.18)
    axes.set_xlabel(f"of {result.system.label}'s instructions  [%]")
    axes.set_title("Functions of ksmd  –  Figure 3, right", loc="left", fontsize=10)
    mark = Line2D([], [], marker="v", markerfacecolor="1", markeredgecolor="0", linestyle="none", label="paper")
    axes.legend(handles=[mark], loc="lower right", fontsize=7.5)


def draw_operations(result: Operations, base: Path) -> list[Path]:
    """Draw Figure 5 or 7 to ``base`` with the suffixes .png and .svg; returns the paths."""
    spec = result.selection.spec
    cycles = spec.kind == "operation-cycles"
    with _canvas(7.2 if cycles else 11.0, 4.4) as (figure, axes):
        if result.status != "result":
            axes.text(0.5, 0.5, f"{result.status}: {result.reason}", ha="center", color=_QUIET)
        elif cycles:
            _cycle_bars(axes, result)
        else:
            _latency_bars(axes, result)
        axes.set_title(f"{spec.title}  –  {spec.paper}", loc="left", fontsize=10)
        _stamp(figure, result.stamps, 122 if cycles else 190)
        return _save(figure, base)


_WAY_FACES = {"CPU-t": ("0.25", ""), "CPU-nt": ("0.55", "..."), "DSA-s": ("0.75", "\\\\\\"), "DSA-a": ("0.85", "///")}


def _cycle_bars(axes: Any, result: Operations) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    width = 0.2
    for group, item in enumerate(result.operations):
        for place, way in enumerate(operations.WAYS):
            x, height = group + (place - 1.5) * width, item.cycles[way] / item.processor
            face, hatch = _WAY_FACES[way]
            axes.bar(x, height, width * 0.9, color=face, hatch=hatch, edgecolor="0")
            if way == "DSA-a":
                asleep = item.asleep / item.processor
                axes.bar(x, asleep, width * 0.9, bottom=height, color="1", edgecolor="0", linestyle=":")
                axes.text(x, height + asleep + 0.03, f"{height:.2f}\n({height + asleep:.2f})", ha="center", fontsize=8)
            else:
                axes.text(x - 0.03, height + 0.03, f"{height:.2f}", ha="center", fontsize=8)
            if way == "CPU-nt":
                axes.plot(x - 0.06, operations.ON_HARDWARE[item.id], marker="x", markersize=6, color="0", zorder=5)
            there = operations.papers_cycles(way, item.name)
            if there is not None and there.high is not None:
                axes.plot([x + 0.06] * 2, [there.value, there.high], color="0", linewidth=1, marker="D", markersize=4,
                          markerfacecolor="1", zorder=5)  # fmt: skip
                axes.text(x + 0.09, there.high, f"{there.value:g} to {there.high:g}", fontsize=7.5, va="center")
            elif there is not None:
                axes.plot(
                    x, 1 / there.value, marker="D", markersize=5, markerfacecolor="1", markeredgecolor="0", zorder=5
                )
                axes.text(x + 0.11, 1 / there.value, f"1/{there.value:g}", fontsize=7.5, va="center")
    axes.axhline(1, color="0", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(result.operations)), [item.name for item in result.operations])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.55, len(result.operations) - 0.3)
    axes.set_ylim(0, 4.4)
    axes.set_ylabel("cycles of the processor for a page, over CPU-t  [x]")
    marks: list[Any] = [
        Patch(facecolor=face, hatch=hatch, edgecolor="0", label=way) for way, (face, hatch) in _WAY_FACES.items()
    ]
    marks.append(Patch(facecolor="1", edgecolor="0", linestyle=":", label="sleep and wake-up"))
    marks.append(Line2D([], [], marker="D", markerfacecolor="1", markeredgecolor="0", linestyle="none", label="paper"))
    marks.append(Line2D([], [], marker="x", color="0", linestyle="none", label="on an Intel Xeon"))
    axes.legend(handles=marks, loc="upper left", ncols=len(marks), fontsize=7.5, columnspacing=1.1, handletextpad=0.5)


_PART_FACES = {"submission": ("0.25", ""), "waiting": ("0.85", "///"), "CPU part": ("0.55", "")}


def _latency_bars(axes: Any, result: Operations) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names, at = [], 0.0
    for item in result.operations:
        axes.bar(at, item.processor / 1000, 0.75, color=_PART_FACES["CPU part"][0], edgecolor="0")
        axes.text(at, item.processor / 1000 + 0.15, f"{item.processor / 1000:.1f}", ha="center", fontsize=7.5)
        names.append((at, "CPU"))
        single = operations.papers_latency("latency_over_cpu", item.name, 1)
        for place, batch in enumerate(item.batches, 1):
            x, bottom = at + place, 0.0
            for part, height in zip(_PART_FACES, (batch.submit, batch.wait, batch.read), strict=True):
                face, hatch = _PART_FACES[part]
                axes.bar(x, height / 1000, 0.75, bottom=bottom, color=face, hatch=hatch, edgecolor="0", linewidth=0.7)
                bottom += height / 1000
            axes.text(x, bottom + 0.15, f"{bottom:.2g}" if bottom < 1 else f"{bottom:.1f}", ha="center", fontsize=7.5)
            cut = operations.papers_latency("latency_cut", item.name, batch.size)
            if single is not None and (batch.size == 1 or cut is not None):
                share = 1 - cut.value / 100 if cut is not None else 1.0
                axes.plot(x + 0.5, share * single.value * item.processor / 1000, marker="D", markersize=5,
                          markerfacecolor="1", markeredgecolor="0", zorder=5)  # fmt: skip
            names.append((x, str(batch.size)))
        axes.text(at + len(item.batches) / 2, 12, item.name, ha="center", fontsize=10)
        at += len(item.batches) + 2.5
    axes.set_xticks([place for place, _ in names], [name for _, name in names], fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("pages in a batch")
    axes.set_ylim(0, 14.5)
    axes.set_ylabel("virtual time for a page  [us]")
    marks: list[Any] = [
        Patch(facecolor=face, hatch=hatch, edgecolor="0", label=part) for part, (face, hatch) in _PART_FACES.items()
    ]
    marks.append(Line2D([], [], marker="D", markerfacecolor="1", markeredgecolor="0", linestyle="none",
                        label="paper: its ratios, on our CPU's time"))  # fmt: skip
    axes.legend(handles=marks, loc="upper left", ncols=len(marks), fontsize=8)
