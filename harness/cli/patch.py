# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness patch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, Kernel, Source, Upto

if TYPE_CHECKING:
    from harness.patchseries import Series

app = typer.Typer(
    no_args_is_help=True,
    help="The kernel and QEMU changes: data and templates in patches/, rendered, applied as git commits.\n\n"
    "A day's work: `harness patch apply`, edit in the tree it names, `harness boot`, `harness patch refresh`, "
    "`harness patch check`. See docs/patches.md.",
)

Topic = Annotated[str, typer.Option(metavar="[linux|qemu]", help="Which series; without a default: both.")]


@app.command("list")
def list_(topic: Topic = "", json: Json = False) -> None:
    """Show the patches of each series in order: for which kernels, under which symbols, providing and touching what.

    Example: harness patch list --topic linux
    """
    from harness import patchseries

    rows = []
    for series in _series(topic):
        for number, patch in enumerate(series.patches, 1):
            kernels = [kernel for kernel in series.kernels if kernel in patch.kernels]
            files = patchseries.touched(series, patch, kernels[-1]) if kernels else []
            rows.append(
                {
                    "topic": series.topic,
                    "number": number,
                    "id": patch.id,
                    "subject": patch.subject,
                    "kernels": kernels,
                    "kconfig": list(patch.kconfig),
                    "provides": list(patch.provides),
                    "files": {each.path: [each.added, each.removed] for each in files},
                }
            )
            if not json:
                symbols = " ".join(f"CONFIG_{name}" for name in patch.kconfig) or "none"
                typer.echo(f"{series.topic} {number:04d} {patch.id}: {patch.subject}")
                provides = f"   provides {' '.join(patch.provides)}" if patch.provides else ""
                typer.echo(f"    kernels {' '.join(kernels)}   symbols {symbols}{provides}")
                for each in files:
                    typer.echo(f"    +{each.added:<4} -{each.removed:<4} {each.path}")
        if not json and not series.patches:
            typer.echo(f"{series.topic}: no patches; the tree is built as released")
    if json:
        _print(rows)


@app.command()
def generate(
    topic: Topic = "",
    kernel: Annotated[
        str | None, typer.Option(metavar="SERIES", help="Only for 6.1, 6.2, ...; default: all, in their place.")
    ] = None,
    upto: Upto = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where a part goes; default: KERNEL-upto-PATCH here.")
    ] = None,
) -> None:
    """Render every series for every kernel into patches/TOPIC/KERNEL/, ready for `git am`.

    Run it after an edit of series.toml, a template in hooks/ or a file in src/, and commit the result.
    A part of a series (--upto) goes to a directory of its own.

    Example: harness patch generate

    Example: harness patch generate --kernel 6.2 --upto para_c --out mails
    """
    from harness import patchseries
    from harness.errors import UsageError

    if out is not None or upto is not None or kernel is not None:
        (series,) = _series(topic or "linux")
        if kernel is None:
            raise UsageError("a part is rendered for one kernel", hint=f"--kernel {' or '.join(series.kernels)}")
        part = series.prefix(upto)
        part.for_kernel(kernel)
        where = out or (series.root / kernel if upto is None else Path(f"{kernel}-upto-{part.upto}"))
        if where != series.root / kernel and any(where.glob("*.patch")):
            raise UsageError(f"{where} holds patches already", hint="name a new directory with --out")
        for file in patchseries.write(part, kernel, where):
            typer.echo(f"{'wrote' if file.exists() else 'removed'} {file}")
        return
    for series in _series(topic):
        changed = patchseries.generate(series)
        for file in changed:
            typer.echo(f"{'wrote' if file.exists() else 'removed'} {file.relative_to(series.root.parent.parent)}")
        if not changed:
            typer.echo(f"{series.topic}: renderings are up to date")


@app.command()
def apply(
    kernel: Kernel = None, source: Source = None, topic: Topic = "linux", upto: Upto = None, json: Json = False
) -> None:
    """Apply the series to a tree in the cache and print where that tree is.

    Each patch becomes a commit, context must match exactly, and the ids come out the same everywhere.
    A second run changes nothing, not even a time stamp; your edits in that tree are kept. A part of the
    series (--upto) goes to a second tree, which all parts share.

    Example: harness patch apply --kernel 6.1
    """
    from harness import patches, sources

    (series,) = _series(topic)
    tree = sources.obtain("qemu" if topic == "qemu" else "linux", kernel, source)
    applied = patches.apply(tree, series, upto=upto)
    tree = applied.tree
    if json:
        _print(
            {
                "version": tree.version,
                "origin": tree.origin,
                "identity": tree.identity,
                "path": str(tree.path),
                "tree_id": applied.tree_id,
                "series_digest": applied.series_digest,
                "dirty": applied.dirty,
                "dirty_digest": applied.dirty_digest,
            }
        )
    else:
        typer.echo(f"{tree.kind} {tree.version} from {tree.origin}")
        typer.echo(f"patched tree {applied.tree_id}{', and your edits on top' if applied.dirty else ''}")
        typer.echo(str(tree.path))


@app.command()
def check(
    topic: Topic = "",
    source: Annotated[
        list[str] | None, typer.Option(metavar="WHERE", help="Also a tree of your own; repeatable.")
    ] = None,
    fetch: Annotated[bool, typer.Option(help="Fetch kernels that are not in the cache.")] = True,
    json: Json = False,
) -> None:
    """Prove that the committed renderings are what the generator makes, and that they apply everywhere.

    Exit status 5 if a rendering is stale, if a patch fails, or if a hunk is at another line than its number says in
    the release that is pinned first for its kernel. A kernel that cannot be had here is listed and is no failure,
    unless none can be had.

    Example: harness patch check --source ~/linux@v6.2
    """
    from dataclasses import asdict

    from harness import patchseries, patchset
    from harness.errors import PatchError

    stale: list[str] = []
    rows: list[patchset.Checked] = []
    for series in _series(topic):
        stale += [f"patches/{series.topic}/{name}" for name in patchseries.stale(series)]
        rows += patchset.check(series, fetch=fetch, own=source or () if series.topic == (topic or "linux") else ())
    if json:
        _print({"stale": stale, "kernels": [asdict(row) for row in rows]})
    else:
        for name in stale:
            typer.echo(f"stale            {name}")
        for row in rows:
            typer.echo(f"{row.result:16} {row.topic} {row.kernel}: {row.detail} {row.tree_id[:12]}".rstrip())
            for line in row.offsets:
                typer.echo(f"                 {line}")
    if stale:
        raise PatchError(f"{len(stale)} renderings are not what the generator makes", hint="harness patch generate")
    failed = [row for row in rows if row.result == "fails"]
    if failed:
        raise PatchError(
            f"the series fails on {', '.join(f'{row.topic} {row.kernel}' for row in failed)}",
            hint="compare the context printed above; docs/patches.md says how a template is updated",
        )
    if moved := [row for row in rows if row.shifted]:
        raise PatchError(
            f"line numbers are not those of {', '.join(f'{row.topic} {row.kernel}' for row in moved)}",
            hint=f"harness patch refresh --lines --topic {moved[0].topic} --kernel {moved[0].kernel}",
        )
    if not any(row.result == "applies" for row in rows):
        raise PatchError("no tree could be had to apply the series to", hint="give one with --source")


@app.command()
def refresh(
    patch: Annotated[
        str | None, typer.Argument(metavar="[PATCH]", help="Which patch takes it; default: the last.")
    ] = None,
    kernel: Kernel = None,
    source: Source = None,
    topic: Topic = "linux",
    lines: Annotated[
        bool, typer.Option("--lines", help="Only recompute where the hunks are in this kernel; no edit is taken.")
    ] = False,
    json: Json = False,
) -> None:
    """Fold your edits of the applied tree into a patch: template, new files, line numbers, renderings.

    Give the same --kernel or --source as for `apply`. Hunks that you changed become literal text in the
    template, all others stay as they are written. Nothing is changed if the new series does not
    reproduce your tree byte for byte.

    Example: harness patch refresh ksm-counters
    """
    from harness import sources
    from harness.refresh import refresh as fold
    from harness.refresh import relocate

    (series,) = _series(topic)
    tree = sources.obtain("qemu" if topic == "qemu" else "linux", kernel, source)
    done = relocate(series, tree) if lines else fold(series, tree, patch)
    if json:
        _print({"changed": [str(file) for file in done.changed], "by_hand": list(done.by_hand)})
        return
    for file in done.changed:
        typer.echo(f"wrote {file.relative_to(series.root.parent.parent)}")
    if not done.changed:
        typer.echo("nothing to do: the tree is what the series says")
    for line in done.by_hand:
        typer.echo(f"by hand: {line}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    kernel: Annotated[str | None, typer.Option(metavar="SERIES", help="6.1, 6.2, ...; default: the last.")] = None,
    topic: Topic = "linux",
) -> None:
    """Write the series with a cover letter, ready for `git send-email` or `git am`.

    The letter argues (`cover` in series.toml), shows what was measured (from docs/measurements.md) and sums up.

    Example: harness patch export outgoing --kernel 6.2
    """
    from harness import patchset

    (series,) = _series(topic)
    for file in patchset.export(series, kernel or series.kernels[-1], folder):
        typer.echo(str(file))


def _series(topic: str) -> list[Series]:
    from harness import patchseries
    from harness.errors import UsageError

    if topic and topic not in patchseries.TOPICS.values():
        raise UsageError(f"there is no series for {topic!r}", hint="--topic linux or --topic qemu")
    return [patchseries.load(name) for name in patchseries.TOPICS.values() if topic in ("", name)]


def _print(value: object) -> None:
    from json import dumps

    typer.echo(dumps(value, indent=1))
