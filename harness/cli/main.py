# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``harness`` command."""

from __future__ import annotations

import importlib
import os
import sys

import typer

from harness import __version__
from harness.errors import HarnessError

COMMANDS = (
    "doctor",
    "build",
    "patch",
    "boot",
    "dsa",
    "host",
    "fleet",
    "experiment",
    "worker",
    "report",
    "bench",
    "profile",
    "cache",
)
"""``harness/cli/<name>.py`` has ``app`` (a group) or ``command`` (a function), and imports rooms only when called."""

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    help="Patch, build, boot, measure and plot KSM page deduplication.\n\n"
    "First figure: [bold]harness experiment fig12[/bold]   What is missing here: [bold]harness doctor[/bold]",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _register() -> None:
    for name in COMMANDS:
        module = importlib.import_module(f"harness.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(module.command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def root(
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only results and warnings."),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Set what holds for every command."""
    from harness import ui

    ui.configure(quiet=quiet)


_register()


def _standard_streams() -> None:
    """Give closed standard streams to /dev/null, lest a file of ours takes their number and their traffic."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - a descriptor, kept for good
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def main() -> None:
    """Entry point: turn every expected error into a message, a hint and an exit code."""
    _standard_streams()
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except HarnessError as error:
        if debug:
            raise
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  next: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as end:
        if not _by_the_keyboard(end):
            raise
        print("interrupted; what was finished is kept, the same command resumes", file=sys.stderr)
        sys.exit(130)


def _by_the_keyboard(end: BaseException | None) -> bool:
    """Whether Ctrl-C is at the root of it: typer turns that into an exit like any other."""
    while end is not None and not isinstance(end, KeyboardInterrupt):
        end = end.__cause__ or end.__context__
    return end is not None
