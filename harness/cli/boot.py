# SPDX-License-Identifier: GPL-2.0-or-later
"""``harness boot``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, Kernel, KernelProfile, Source, Upto

if TYPE_CHECKING:
    from harness.dsa import Write
    from harness.machine import Machine, MachineSpec
    from harness.ssh import Access


def command(
    run: Annotated[
        str | None, typer.Option("--command", "-c", metavar="CMD", help="Run CMD with the guest's /bin/sh; then end.")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Sit at the guest's console; Ctrl-] leaves and ends it.")
    ] = False,
    keep: Annotated[bool, typer.Option(help="Keep the guest running until Ctrl-C.")] = False,
    ssh_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="Start an ssh server, on this port of 127.0.0.1; 0: any."),
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Pass our standard input to CMD.")] = False,
    mode: Annotated[str, typer.Option(metavar="[functional|measured]", help="How the guest runs.")] = "functional",
    kernel: Kernel = None,
    source: Source = None,
    upto: Upto = None,
    profile: KernelProfile = "host",
    memory: Annotated[int, typer.Option(min=128, metavar="MIB", help="Memory of the guest.")] = 1024,
    cpus: Annotated[int, typer.Option(min=1, max=8, help="Processors of the guest.")] = 1,
    accel: Annotated[
        str, typer.Option(metavar="[auto|tcg|kvm]", help="auto takes KVM if a probe runs a vCPU on it (functional).")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of a measured run.")] = 1,
    append: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Another word for the kernel's command line; repeatable.")
    ] = None,
    dsa: Annotated[
        int, typer.Option(min=0, max=8, metavar="N", help="Emulated DSA accelerators, set up before CMD.")
    ] = 0,
    dsa_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A property of the emulated devices, see docs/dsa.md; repeatable."),
    ] = None,
    dsa_driver: Annotated[
        str, typer.Option(metavar="NAME", help="Sub-driver that gets their queues; none: left as after boot.")
    ] = "dmaengine",
    iommu: Annotated[bool, typer.Option("--iommu", help="An IOMMU that translates the devices' addresses.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="For CMD or the sealed job.")] = 3600.0,
    boot_timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Until the guest reports.")] = 60.0,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where console, command line and keys go; default: the cache.")
    ] = None,
    json: Json = False,
) -> None:
    """Boot the patched kernel in a virtual machine; build first what is missing.

    With --command its output, errors and exit status come through as they are. Whatever the kernel reports
    about itself meanwhile is a result of its own, shown with the decoded tail of the console:

    101 panic, 102 oops, 103 warning, 104 lockdep report, 105 hung task, 106 nothing heard from the guest,
    107 QEMU died, 108 time is over, 109 KASAN. (A command may return these as well; --json tells them apart, and
    sends the command's own output to standard error.)

    Example: harness boot -c 'cat /sys/kernel/mm/ksm/run'

    Example: harness boot --dsa 1 -c 'cat /sys/bus/dsa/devices/wq0.0/state' (one group, 64-entry queue, 4 engines)

    Example: harness boot --mode measured -c 'dmesg | tail' (sealed: the same bytes every time)
    """
    from harness.errors import UsageError

    if mode not in ("functional", "measured"):
        raise UsageError(f"there is no mode {mode!r}", hint="--mode functional or --mode measured")
    measured = mode == "measured"
    if measured and (interactive or keep or stdin or ssh_port is not None):
        raise UsageError("a measured guest is sealed", hint="leave out --interactive, --keep, --stdin and --ssh-port")
    if not (run or interactive or keep or ssh_port is not None):
        if measured:
            raise UsageError("a measured guest needs a job", hint="add --command")
        interactive = True
    if interactive and (run or json):
        raise UsageError("--interactive takes the terminal", hint="leave out --command and --json")
    from harness.accel import accelerator
    from harness.machine import MachineSpec, free_port
    from harness.workbench import workbench

    options = _options(dsa_option, dsa)
    if dsa and accel == "kvm":
        raise UsageError("the emulated DSA does not work under KVM", hint="leave out --accel")
    chosen = accelerator("tcg" if dsa else accel, measured=measured)
    setup = _setup(dsa, options, dsa_driver)
    folder = _folder(run_dir)
    bench = workbench(kernel, source, "measured" if measured else "functional", profile, upto)
    access = None
    files: dict[str, Path] = {}
    if ssh_port is not None:
        from harness.ssh import grant

        access = grant(folder, ssh_port or free_port())
        files.update(access.fw_cfg)
    if measured and run:
        files["command"] = folder / "command.sh"
        files["command"].write_text(_guarded(setup) + run + "\n")
    spec = MachineSpec(
        bench.qemu, bench.kernel, bench.image, "measured" if measured else "functional", memory, cpus,
        tuple(append or ()), seed, files, access.port if access else None, accel=chosen, console=interactive,
        dsa=tuple(options for _ in range(dsa)), iommu=iommu,
    )  # fmt: skip
    raise typer.Exit(_live(spec, folder, setup, run, access, interactive, keep, stdin, timeout, boot_timeout, json))


def _options(words: list[str] | None, devices: int) -> dict[str, str]:
    """Properties of the emulated devices."""
    from harness.errors import UsageError

    options: dict[str, str] = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise UsageError(f"--dsa-option {word}: not KEY=VALUE", hint="for instance --dsa-option num-engines=2")
        options[name] = value
    if options and not devices:
        raise UsageError("--dsa-option without a device", hint="add --dsa 1")
    return options


def _setup(devices: int, options: Mapping[str, str], driver: str) -> list[Write]:
    """The writes that set the emulated devices up: known before the guest runs, so a sealed one can make them, too."""
    from harness.dsa import Layout, emulated, plan

    if driver == "none":
        return []
    return [write for number in range(devices) for write in plan(emulated(number, options), Layout(driver=driver))]


def _guarded(setup: list[Write]) -> str:
    """What a sealed job does first."""
    from harness.dsa import script

    return f"({script(setup)}) >&2 || exit 125\n" if setup else ""


def _live(
    spec: MachineSpec,
    folder: Path,
    setup: list[Write],
    run: str | None,
    access: Access | None,
    interactive: bool,
    keep: bool,
    stdin: bool,
    timeout: float,
    boot_timeout: float,
    json: bool,
) -> int:
    """Run the machine; the exit status of ``harness boot`` is returned."""
    import functools

    from harness.dsa import SECONDS, apply
    from harness.machine import GuestDown, Machine, Outcome
    from harness.ui import ui

    status: int | None = None
    machine = Machine(spec, folder)
    try:
        with machine:
            machine.start(timeout=boot_timeout)
            if spec.mode == "measured":
                machine.wait(timeout)
                status = machine.status
                if not json and (folder / "results.bin").exists():
                    _emit(1, (folder / "results.bin").read_bytes())
            else:
                if setup:
                    apply(functools.partial(machine.shell, timeout=SECONDS), setup)
                if access:
                    ui().info(f"log in with: {access.command}")
                status = _use(machine, run, interactive, keep or (access is not None and not run), stdin, timeout, json)
            verdict = machine.verdict
    except GuestDown as down:
        verdict = down.verdict
    if json:
        _report(machine, verdict.outcome.value, verdict.headline, status)
    if verdict.outcome is Outcome.CLEAN:
        return status or 0
    _emit(2, (verdict.explain() + f"\n  the whole console: {machine.console_log}\n").encode())
    return verdict.outcome.status


def _use(
    machine: Machine, run: str | None, interactive: bool, keep: bool, stdin: bool, timeout: float, json: bool
) -> int | None:
    """Do with a booted guest what was asked for."""
    import functools
    import sys
    import time

    from harness.ui import ui

    status: int | None = None
    if run:
        source = sys.stdin.fileno() if stdin and sys.stdin is not None else None
        out = functools.partial(_emit, 2 if json else 1)
        status = machine.execute(
            run, stdin=source, on_stdout=out, on_stderr=functools.partial(_emit, 2), timeout=timeout
        )
    if interactive:
        from harness.terminal import relay

        assert machine.terminal is not None
        keyboard = sys.stdin.fileno() if sys.stdin is not None else None
        ui().info("the guest's console; Ctrl-] leaves")
        machine.terminal.sendall(b"\n")  # its prompt was printed before we listened
        relay(machine.terminal, machine.alive, keyboard)
    elif keep:
        ui().info(f"the guest runs, console in {machine.console_log}; Ctrl-C ends it")
        try:
            while machine.alive():
                time.sleep(0.2)
        except KeyboardInterrupt:
            ui().info("ended")
    return status


def _folder(asked: Path | None) -> Path:
    """The run directory; of those in the cache the newest are kept."""
    import os
    import shutil
    import time

    from harness.config import paths

    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        return asked.absolute()
    parent = paths().cache / "boots"
    for old in sorted(parent.glob("*"), key=lambda path: path.name)[:-20]:
        if not Path("/proc", old.name.rpartition("-")[2]).exists():  # its harness is gone
            shutil.rmtree(old, ignore_errors=True)
    folder = parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True)
    return folder


def _report(machine: Machine, outcome: str, headline: str, status: int | None) -> None:
    import json

    value = {
        "outcome": outcome,
        "headline": headline,
        "status": status,
        "boot_seconds": machine.boot_seconds,
        "kernel": machine.spec.kernel.release,
        "run_dir": str(machine.run_dir),
        "tail": list(machine.verdict.tail),
    }
    _emit(1, (json.dumps(value, indent=2) + "\n").encode())


def _emit(descriptor: int, data: bytes) -> None:
    """Unbuffered, so that what a dying guest said last is not lost with us."""
    import os

    while data:
        data = data[os.write(descriptor, data) :]
