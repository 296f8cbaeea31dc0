# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a fleet runs: on sealed machines of ours in virtual time, or as root on a host reached over ssh."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import checkpoint, counters, detached, dsa, ksmstate, lease, prepare
from harness.config import atomic_write
from harness.errors import DeviceError, FleetError, HostError, MachineError
from harness.experiment import trial, watches
from harness.experiment.dataset import FILE
from harness.experiment.plan import PLAN_FILE, REST_FILE, REST_PATH, Cell
from harness.experiment.store import canonical
from harness.run import Completed, Crew, Deadline, check_called_off
from harness.ui import ui

if TYPE_CHECKING:
    from harness.dsa import Shell
    from harness.experiment.cells import Executor
    from harness.host import Host
    from harness.ksmstate import KsmState
    from harness.machine import Machine, MachineSpec
    from harness.workbench import Workbench

_KSM, _KSMD, _STATE = ksmstate.FOLDER, ksmstate.KSMD, lease.STATE


class Sealed:
    """Runs fleets on sealed machines of ours, several at once: each goes on from the checkpoint of its loaded fleet."""

    parallel = True

    def __init__(self, bench: Workbench, *, deadline: float) -> None:
        self._bench = bench
        self._deadline = deadline
        self._lock = threading.Lock()
        self._machines: set[Machine] = set()
        self._crew = Crew()

    def execute(self, cell: Cell, work: Path) -> bytes:
        """Load the fleet where it was saved, let it read the rest of its plan, take what it writes to the second port.

        Raises:
            MachineError: the machine did not end by itself; the message holds its last words.
            FleetError: the fleet program said it failed.
            Interrupted: cancelled while another harness was making the checkpoint.

        """
        from harness import images
        from harness.machine import MachineSpec

        if cell.plan is None:
            return self._script(cell, work)
        # init runs the program in /; fw_cfg would hand over a byte at a time, again and again from the start
        data = {} if cell.dataset is None else {FILE: cell.dataset.path}
        parts = {PLAN_FILE: work / "loaded.txt", REST_FILE: work / "rest.txt"}
        atomic_write(parts[PLAN_FILE], cell.fleet.render_loaded(REST_PATH))
        atomic_write(parts[REST_FILE], cell.fleet.render_rest())
        spec = MachineSpec(
            qemu=self._bench.qemu,
            kernel=self._bench.kernel,
            image=images.extended(self._bench.image, data),
            mode="measured",
            memory_mib=cell.memory_mib,
            seed=cell.seed,
            fw_cfg=parts,
            dsa=cell.devices,
        )
        plugin = cell.watch.plugin(self._bench, cell.memory_mib, work) if cell.watch else ""
        try:
            with contextlib.ExitStack() as stack, self._crew.joined():
                with checkpoint.held(cell.checkpoint, lambda folder: self._load(spec, folder, work)) as saved:
                    machine = stack.enter_context(self._started(replace(spec, incoming=saved, plugin=plugin), work))
                raw = self._result(machine, work, "the fleet program")
            if cell.watch:
                atomic_write(work / watches.FILE, canonical(cell.watch.metrics(self._bench, work)))
            return raw
        finally:
            for path in parts.values():  # together they are plan.txt
                path.unlink(missing_ok=True)

    def _script(self, cell: Cell, work: Path) -> bytes:
        """Boot a machine that runs the cell's script and powers off."""
        from harness.machine import MachineSpec

        script = work / "command.sh"
        atomic_write(script, cell.text)
        bench = self._bench
        spec = MachineSpec(
            qemu=bench.qemu, kernel=bench.kernel, image=bench.image, mode="measured", memory_mib=cell.memory_mib,
            seed=cell.seed, fw_cfg={trial.COMMAND_FILE: script}, dsa=cell.devices,
        )  # fmt: skip
        try:
            with self._crew.joined(), self._started(spec, work) as machine:
                return self._result(machine, work, cell.text.strip())
        finally:
            script.unlink(missing_ok=True)  # it is plan.txt

    def _result(self, machine: Machine, work: Path, what: str) -> bytes:
        """Wait for the end of a sealed machine, and take what was written."""
        from harness.machine import Outcome

        outcome = machine.wait(self._deadline)
        if outcome is not Outcome.CLEAN:
            raise MachineError(machine.verdict.explain())
        if machine.status != 0:
            raise FleetError(f"{what} ended with status {machine.status}{said(work)}")
        return (work / "results.bin").read_bytes()

    def _load(self, spec: MachineSpec, folder: Path, work: Path) -> None:
        """Boot and fill the fleet's memory, and save that; what the console said is the cell's if this fails."""
        from harness.machine import GuestDown, Saved

        ui().step(f"loading a fleet of {spec.memory_mib} MiB and saving it")
        saved = Saved(folder / "memory", folder / "state")
        try:
            with self._started(replace(spec, saving=saved), folder) as machine:
                machine.save(self._deadline)
        except GuestDown as error:
            with contextlib.suppress(OSError):
                shutil.copyfile(folder / "console.log", work / "console.log")
            if machine.status:
                raise FleetError(f"the fleet program ended with status {machine.status}{said(work)}") from error
            raise

    @contextlib.contextmanager
    def _started(self, spec: MachineSpec, folder: Path) -> Iterator[Machine]:
        """A machine that runs, and that :meth:`cancel` ends."""
        from harness.machine import Machine

        with Machine(spec, folder) as machine:
            with self._lock:
                self._machines.add(machine)
            try:
                check_called_off()
                machine.start()
                check_called_off()  # by somebody who found no process to end yet
                yield machine
            finally:
                with self._lock:
                    self._machines.discard(machine)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process begins with the same artefacts and no machines."""
        return partial(Sealed, deadline=self._deadline), (self._bench,)

    def files(self, cells: Iterable[Cell]) -> dict[str, Path]:
        """What the machines of some cells are made of; see :class:`harness.experiment.worker.Portable`."""
        qemu, kernel, image = self._bench.qemu, self._bench.kernel, self._bench.image
        data = {f"data/{path.name}": path for path in sorted(qemu.data_dir.iterdir()) if path.is_file()}
        inside = qemu.firmware.parent == qemu.data_dir
        symbols = {path.name: path for path in (kernel.system_map,) if path.is_file()}
        plugins = {cell.watch.name: cell.watch.library(self._bench) for cell in cells if cell.watch}
        return {
            **{f"builds/{path.parent.name}/{path.name}": path for path in plugins.values()},
            "qemu": qemu.binary, "bzImage": kernel.bzimage, f"{image.name}.cpio": image.path, **data, **symbols,
            **({} if inside else {"firmware": qemu.firmware}),
        }  # fmt: skip

    def moved(self, root: Path) -> Sealed:
        """The same with files of the same content elsewhere."""
        qemu, kernel, image = self._bench.qemu, self._bench.kernel, self._bench.image
        firmware = "firmware" if qemu.firmware.parent != qemu.data_dir else f"data/{qemu.firmware.name}"
        bench = replace(
            self._bench,
            qemu=replace(qemu, binary=root / "qemu", data_dir=root / "data", firmware=root / firmware),
            kernel=replace(kernel, bzimage=root / "bzImage", vmlinux=root / "vmlinux"),
            image=replace(image, path=root / f"{image.name}.cpio"),
        )
        return Sealed(bench, deadline=self._deadline)

    def cancel(self) -> None:
        """End every machine's QEMU, and all waiting; the thread that waits for it then cleans up."""
        self._crew.stop()
        with self._lock:
            for machine in self._machines:
                machine.kill()


KINDS = ("nested", "process")


class Several:
    """One executor for each kind of VMs: their machines start with other images."""

    def __init__(self, nested: Executor, process: Executor) -> None:
        self._nested, self._process = nested, process

    @property
    def parallel(self) -> bool:
        """Whether several cells may run at once."""
        return self._nested.parallel and self._process.parallel

    def files(self, cells: Iterable[Cell]) -> dict[str, Path]:
        """What the machines of both are made of."""
        return {
            f"{kind}/{name}": path
            for kind, executor in zip(KINDS, (self._nested, self._process), strict=True)
            if isinstance(executor, Sealed)
            for name, path in executor.files(cells).items()
        }

    def moved(self, root: Path) -> Several:
        """Both of them with files of the same content elsewhere."""
        nested, process = self._nested, self._process
        return Several(
            nested.moved(root / "nested") if isinstance(nested, Sealed) else nested,
            process.moved(root / "process") if isinstance(process, Sealed) else process,
        )

    def execute(self, cell: Cell, work: Path) -> bytes:
        """Run the cell where its VMs can."""
        return (self._nested if cell.plan is not None and cell.plan.nested else self._process).execute(cell, work)

    def cancel(self) -> None:
        """End what is running."""
        for executor in (self._nested, self._process):
            executor.cancel()


def said(work: Path) -> str:
    """What the program wrote to the console."""
    with contextlib.suppress(OSError):
        lines = (work / "console.log").read_text(errors="replace").splitlines()
        words = [line for line in lines if line.startswith(("fleet:", "dsa-time:"))][-5:]
        return "".join(f"\n    {line}" for line in words)
    return ""


class Remote:
    """Runs fleets as root on one host, one after another, and leaves its KSM as it was."""

    parallel = False

    def __init__(self, host: Host, programs: Mapping[str, Path], *, deadline: float) -> None:
        self._host = host
        self._renew: Callable[[], object] = lambda: None
        self._programs = programs
        self._deadline = deadline
        self._directory: str | None = None

    @contextlib.contextmanager
    def occupied(self, purpose: str) -> Iterator[None]:
        """Have the host to ourselves, quiet, for as many fleets as are run meanwhile; then it is put back.

        Raises:
            Busy: somebody else has it, or its accelerator serves somebody; nothing was touched.
            HostError: it is in quarantine, or cannot be prepared or put back.

        """
        at_once, name = dsa.on(self._host), str(self._host.address)

        def shell(script: str) -> Completed:
            return self._host.steadily(lambda: at_once(script))  # all of this may be done twice

        seconds = round(2 * self._deadline)
        with prepare.ready(shell, name, purpose, seconds) as ours:
            self._renew = lambda: lease.take(shell, ours.token, purpose, seconds)
            try:
                yield
            finally:
                self._renew = lambda: None

    def execute(self, cell: Cell, work: Path) -> bytes:
        """Upload programs and plan, run, fetch the result.

        Raises:
            FleetError: the fleet program failed, or was late.
            HostError: the host was lost.
            Busy: the host is somebody else's by now.

        """
        self._renew()
        host = self._host
        there = f"{_STATE}/jobs/{str(cell.key or 'nameless')[:16]}"
        # a process of ours that was killed may have left it; its KSM's state is then the true one
        if self._host.steadily(lambda: detached.begun(host, there)):
            ui().step(f"{host.address}: {cell.label} runs there already; waiting for its end")
        else:
            self._bring(cell, there)
        try:
            with self._restored(there):
                self._directory = there
                detached.begin(host, there, _RUN)
                try:
                    ended = detached.wait(host, there, Deadline(self._deadline))
                except TimeoutError as error:
                    raise FleetError(f"{host.address}: the fleet: no end after {self._deadline:g} s") from error
                finally:
                    self._directory = None
                    self._end(there)
                self._counted(there, work)
        finally:
            with contextlib.suppress(HostError):
                host.run(["rm", "-rf", there], timeout=60)
        said = ended.err.decode(errors="replace")
        atomic_write(work / "console.log", said)
        if ended.status != 0:
            tail = "".join(f"\n    {line}" for line in said.strip().splitlines()[-5:])
            raise FleetError(f"the fleet program ended with status {ended.status} on {host.address}{tail}")
        return ended.out

    def _bring(self, cell: Cell, there: str) -> None:
        """Put all that a fleet needs into a new directory there; programs and data only if they are not there yet."""
        host = self._host
        host.steadily(lambda: host.run(["sh", "-c", 'rm -rf "$1" && umask 077 && mkdir -p "$1"', "new", there]))
        files = {name: (path, 0o755) for name, path in self._programs.items()}
        if cell.dataset is not None:
            files[FILE] = cell.dataset.path, 0o644
        link = 'ln -f "$1" "$2" 2>/dev/null || cp "$1" "$2"'
        for name, (path, mode) in files.items():
            kept = host.steadily(lambda path=path, mode=mode: host.put_once(path, f"{_STATE}/files", mode))  # type: ignore[misc]
            host.steadily(lambda name=name, kept=kept: host.run(["sh", "-c", link, "link", kept, f"{there}/{name}"]))  # type: ignore[misc]
        host.steadily(lambda: host.put_bytes(cell.text.encode(), f"{there}/plan"))
        why = host.steadily(lambda: dsa.on(host)(counters.PROBE)).stdout.strip()
        name, text = ("uncounted", f"{why}\n") if why else (_COUNT, counters.SCRIPT)
        host.steadily(lambda: host.put_bytes(text.encode(), f"{there}/{name}"))

    def _counted(self, there: str, work: Path) -> None:
        """Take what perf counted, if it was there to count; a fleet's result does not depend on it."""
        host = self._host
        why = host.steadily(lambda: host.run(["cat", f"{there}/uncounted"], check=False)).stdout.strip()
        if why:
            found = counters.Counted(notes=(why,))
        else:
            text = host.steadily(lambda: host.run(["sh", "-c", counters.COLLECT, "collect", there], check=False)).stdout
            atomic_write(work / counters.RAW, text)
            try:
                found = counters.judge(text)
            except HostError as error:
                found = counters.Counted(notes=(error.message,))
        atomic_write(work / counters.FILE, canonical(found.as_dict))
        for note in found.notes:
            ui().step(f"{host.address}: {note}")

    def cancel(self) -> None:
        """End the fleet on the host; its run then returns."""
        there = self._directory
        if there is not None:
            self._end(there)

    def _end(self, there: str) -> None:
        """Terminate the program, if it still runs or is about to, and wait a moment for it to be gone."""
        with contextlib.suppress(HostError):
            self._host.run(["sh", "-c", _END, "end", there], timeout=60, check=False)

    @contextlib.contextmanager
    def _restored(self, there: str) -> Iterator[None]:
        """Put KSM's switch, mode, knobs and ksmd's scheduling back, whatever happens; how they were lies there, too."""
        host = self._host
        shell = dsa.on(host)
        noted = f"{there}/ksm"
        found = host.steadily(lambda: host.run(["cat", noted], check=False))
        if found.returncode == 0:
            before = ksmstate.load(found.stdout)
        else:
            try:
                before = host.steadily(lambda: ksmstate.read(shell, _KSM, _KSMD))
            except HostError as error:
                raise HostError(f"{host.address}: {error.message}", hint=error.hint) from error
            host.steadily(lambda: host.put_bytes(ksmstate.dump(before).encode(), noted))
            host.steadily(lambda: self._reset(shell, before))
        try:
            yield
        finally:
            try:
                done = host.steadily(lambda: shell(ksmstate.restore(before, _KSM, _KSMD)))
                if done.returncode != 0:
                    ui().warn(f"{host.address}: KSM's knobs were not put back: {done.stderr.strip()}")
            except HostError as error:
                ui().warn(f"{host.address}: KSM's knobs were not put back: {error.message}")

    def _reset(self, shell: Shell, before: KsmState) -> None:
        """What every plan begins with: KSM in no mode, devices as they are after boot."""
        shell(ksmstate.start(before, _KSM))
        try:
            devices = dsa.read(shell).devices
        except DeviceError:
            return  # its systems then need none
        dsa.apply(shell, [write for device in devices for write in dsa.release(device)])


_COUNT = "count.sh"
# the shell's number becomes the program's, so that whoever interrupts can find it; what counts is no child of it
_RUN = (
    'echo $$ > "$1/pid" && [ ! -e "$1/ended" ] && cd "$1" && { [ ! -e "$1/'
    + _COUNT
    + '" ] || (sh "$1/'
    + _COUNT
    + '" "$1" $$ < /dev/null > /dev/null 2>&1 &); } && exec "$1/fleet" run "$1/plan"'
)
_END = """
: > "$1/ended" && read -r p < "$1/pid" || exit 0
told=
for i in 1 2 3 4 5 6 7 8 9 10; do
    case "$(readlink "/proc/$p/exe")" in
        "$1"/*) [ -n "$told" ] || kill -TERM "$p"; told=1 ;;
        *) [ -z "$told" ] && [ -d "/proc/$p" ] || exit 0 ;;
    esac
    sleep 0.3
done
case "$(readlink "/proc/$p/exe")" in "$1"/*) kill -KILL "$p" ;; esac
"""
"""The shell of :data:`_RUN` either sees the mark or has told its number, and is then the program a moment later."""
