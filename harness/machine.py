# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine: its command line, its life, its end.

Two modes share this code. *functional*: as fast as the accelerator goes, commands through the agent. *measured*:
one thread, virtual time counts instructions, nothing asynchronous enters; the job and its input come in through
fw_cfg, results leave over the second serial port.

All channels are socket pairs inherited by QEMU: no path to collide or to outgrow ``sun_path``, nobody else can
connect, and QEMU sees the end of ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from harness.config import atomic_write
from harness.console import Outcome, Reader, Symbols, Verdict, registers
from harness.errors import MachineError
from harness.monitor import Monitor
from harness.run import Completed, Deadline, spawn, stop
from harness.session import Input, Session, Sink

if TYPE_CHECKING:
    from harness.images import Image
    from harness.kbuild import KernelBuild
    from harness.qbuild import QemuBuild

__all__ = ["Channels", "GuestDown", "Machine", "MachineSpec", "Outcome", "Saved", "argv"]

BOOT_SECONDS = 60.0
"""How long a guest may take to its handshake; an emulated boot takes two."""

_LOAD_SECONDS = 60.0  # for a saved machine to be there again; it takes a fraction of one

_EPOCH = "2026-01-01T00:00:00"
_PORT = "org.paraksm.agent"
_GRACE = 10.0  # wall seconds from an oops to our end of what hangs because of it: a dead task keeps its locks
_POLL = 0.02

# ERMS and FSRM must go together (one alone stops Linux 6.1 early); without them copies are plain loops, whose
# instructions are counted one by one.
_CPU = "max,-erms,-fsrm"

_MACHINE = "q35,i8042=off,usb=off,sata=off,smbus=off"  # what nobody uses still costs a boot its probing

_WORDS = (
    "console=ttyS0",
    "panic=-1",  # a panic ends the run at once, by a reset that -no-reboot turns into an exit
    "loglevel=5",  # warnings are shown; every further line costs time on an emulated UART
    "tsc=reliable",  # high-resolution timers from the start, also with several processors
    "no_timer_check",
    "random.trust_cpu=on",
)


@dataclass(frozen=True)
class Saved:
    """The files a machine is saved in: its memory as it lies there, and everything else.

    Memory is a sparse file that is mapped, not read: loading takes no time for it, machines that were loaded from the
    same file share what none of them has written, and none of them changes the file.
    """

    memory: Path
    state: Path


@dataclass(frozen=True)
class MachineSpec:
    """Everything that decides what a machine is."""

    qemu: QemuBuild
    kernel: KernelBuild
    image: Image
    mode: Literal["functional", "measured"]
    memory_mib: int
    cpus: int = 1
    cmdline: tuple[str, ...] = ()
    """Words appended to the kernel's command line."""
    seed: int = 1
    """Seed of QEMU's own random numbers; the guest's come from it in measured mode."""
    fw_cfg: Mapping[str, Path] = field(default_factory=dict)
    """Files handed to the guest; a name without a slash lands below ``opt/paraksm/``."""
    ssh_port: int | None = None
    """Port of 127.0.0.1 that is forwarded to the guest's ssh server (functional only)."""
    accel: str = "tcg"
    cpu: str = _CPU
    console: bool = False
    """Whether a shell runs on the console, connected to :attr:`Machine.terminal` (functional only)."""
    paused: bool = False
    """Start with the processors stopped (QEMU's ``-S``)."""
    dsa: tuple[Mapping[str, str], ...] = ()
    """One emulated DSA for each, with these options of QEMU's ``idxd-dsa``; their QOM ids are dsa0, dsa1, ..."""
    iommu: bool = False
    """Whether an IOMMU translates what devices read and write."""
    plugin: str = ""
    """A ``-plugin`` argument; ``harness/profiler.py`` makes one."""
    saving: Saved | None = None
    """Boot, run until the guest stops its machine, and then be saved there: :meth:`Machine.save` (measured only)."""
    incoming: Saved | None = None
    """Go on where a machine was saved, instead of booting; all else must be as it was there (measured only)."""


@dataclass(frozen=True)
class Channels:
    """File descriptors that QEMU inherits; ``None`` where a mode has no such channel."""

    monitor: int
    agent: int | None = None
    console: int | None = None


class GuestDown(MachineError):
    """The machine ended, or failed, before it had done what was asked; carries the verdict."""

    def __init__(self, verdict: Verdict, run_dir: Path) -> None:
        log = run_dir / "console.log"
        super().__init__(verdict.explain(), hint=f"the whole console is in {log}", log=log)
        self.verdict = verdict


def _quote(path: Path | str) -> str:
    """A comma inside a QEMU option value is doubled."""
    return str(path).replace(",", ",,")


def kernel_words(spec: MachineSpec) -> str:
    """The kernel's command line."""
    words = [*_WORDS, f"paraksm.mode={spec.mode}"]
    if spec.console:
        words.append("paraksm.console")
    if spec.iommu:
        words.append("intel_iommu=on")
    return " ".join([*words, *spec.cmdline])


def argv(spec: MachineSpec, run_dir: Path, channels: Channels) -> list[str]:
    """QEMU's command line: a pure function of its arguments.

    Raises:
        MachineError: the specification contradicts itself.

    """
    measured = spec.mode == "measured"
    if measured and (spec.ssh_port is not None or spec.console):
        raise MachineError("a measured machine is sealed: no ssh, no console", hint="use the functional mode")
    if (spec.saving or spec.incoming) and not measured:
        raise MachineError("only a measured machine is saved and loaded", hint="use the measured mode")
    if spec.saving and spec.incoming:
        raise MachineError("a machine that was loaded is not saved again", hint="save it where it is booted")
    if spec.dsa and spec.accel != "tcg":
        # descriptors are 64-byte stores to a device, which KVM's instruction emulator does not know
        raise MachineError(f"the emulated DSA does not work under {spec.accel}", hint="use tcg")
    log = _quote(run_dir / "console.log")
    words = [
        str(spec.qemu.binary), "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
        "-L", str(spec.qemu.data_dir), "-bios", str(spec.qemu.firmware),
        "-kernel", str(spec.kernel.bzimage), "-initrd", str(spec.image.path),
        "-append", kernel_words(spec),
        "-machine", _MACHINE + (",memory-backend=memory" if spec.saving or spec.incoming else ""),
        "-cpu", spec.cpu, "-smp", str(spec.cpus), "-m", f"{spec.memory_mib}M",
        "-chardev", f"socket,id=monitor,fd={channels.monitor}", "-mon", "chardev=monitor,mode=control",
    ]  # fmt: skip
    words += _saved_words(spec)
    if spec.iommu:  # before the devices whose accesses it translates
        words += ["-device", "intel-iommu"]
    if channels.console is not None:
        words += ["-chardev", f"socket,id=console,fd={channels.console},logfile={log}"]
    else:
        words += ["-chardev", f"file,id=console,path={log}"]
    words += ["-serial", "chardev:console"]
    if measured:
        words += [
            "-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-seed", str(spec.seed),
            "-rtc", f"base={_EPOCH},clock=vm",
            "-chardev", f"file,id=results,path={_quote(run_dir / 'results.bin')}", "-serial", "chardev:results",
        ]  # fmt: skip
    else:
        words += _functional_words(spec, channels)
    for number, options in enumerate(spec.dsa):
        listed = "".join(f",{name}={_quote(value)}" for name, value in options.items())
        words += ["-device", f"idxd-dsa,id=dsa{number}{listed}"]
    for name, path in sorted(spec.fw_cfg.items()):
        words += ["-fw_cfg", f"name={_full_name(name)},file={_quote(path)}"]
    if spec.plugin:
        words += ["-plugin", spec.plugin]
    if spec.paused:
        words.append("-S")
    return words


def _saved_words(spec: MachineSpec) -> list[str]:
    """What a machine has for being saved, and so must have where it is loaded."""
    saved = spec.saving or spec.incoming
    if saved is None:
        return []
    # a mapping of its own for whoever loads, of a file that is not opened for writing
    how = "share=on" if spec.saving else "share=off,readonly=on,rom=off"
    words = [
        "-object",
        f"memory-backend-file,id=memory,size={spec.memory_mib}M,mem-path={_quote(saved.memory)},{how}",
        "-device", "guest-stop",
    ]  # fmt: skip
    return words if spec.saving else [*words, "-incoming", "defer"]


def _functional_words(spec: MachineSpec, channels: Channels) -> list[str]:
    words = [
        "-accel", "tcg,thread=multi" if spec.accel == "tcg" else spec.accel,
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,fd={channels.agent}",
        "-device", f"virtserialport,chardev=agent,name={_PORT}",
    ]  # fmt: skip
    if spec.ssh_port is not None:
        forward = f"hostfwd=tcp:127.0.0.1:{spec.ssh_port}-10.0.2.15:22"
        words += ["-netdev", f"user,id=net,restrict=on,{forward}", "-device", "virtio-net-pci,netdev=net,romfile="]
    return words


def _full_name(name: str) -> str:
    return name if "/" in name else f"opt/paraksm/{name}"


class Machine:
    """One machine from start to end; a context manager that leaves no process behind.

    Start it from a thread that lives as long as the machine: the kernel ends QEMU when that thread ends
    (``PR_SET_PDEATHSIG``), which is what keeps a killed harness from leaving a QEMU.
    """

    def __init__(self, spec: MachineSpec, run_dir: Path) -> None:
        self.spec = spec
        self.run_dir = run_dir.absolute()
        self.terminal: socket.socket | None = None
        """Our end of the console, if the specification asks for one. Read it, or the guest's console stalls."""
        self.boot_seconds: float | None = None
        """Wall seconds from the start of QEMU to the handshake."""
        self._child: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        self._session: Session | None = None
        self._oopsed: Deadline | None = None
        self._reader = Reader(self._symbols())
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        assert self._child is not None, "start() first"
        return self._child.pid

    @property
    def console_log(self) -> Path:
        """The console, as it grows."""
        return self.run_dir / "console.log"

    def start(self, *, timeout: float = BOOT_SECONDS) -> None:
        """Start QEMU; in functional mode wait for the agent's handshake, ``timeout`` wall seconds at most.

        A machine that was saved goes on when this returns; its files may then be removed.

        Raises:
            GuestDown: the guest failed on the way, or did not report; or the files are not those of such a machine.
            EnvironmentProblem: there is no such QEMU.

        """
        began = time.monotonic()
        self._launch()
        if self.spec.incoming is not None:
            self._load(self.spec.incoming)
        if self._session is not None:
            deadline = Deadline(timeout)
            while not self._session.ready:
                self._step(self._session, deadline, None)
            self.boot_seconds = time.monotonic() - began

    def _launch(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        for name in ("console.log", "results.bin"):
            (self.run_dir / name).unlink(missing_ok=True)
        functional = self.spec.mode == "functional"
        with contextlib.ExitStack() as theirs:

            def pair() -> tuple[socket.socket, int]:
                ours, other = socket.socketpair()
                with other:  # above the standard streams, which may be closed in us and are replaced in the child
                    number = fcntl.fcntl(other, fcntl.F_DUPFD_CLOEXEC, 3)
                theirs.callback(os.close, number)
                return ours, number

            agent = console = None
            ours, monitor = pair()
            self._monitor = Monitor(ours)
            if functional:
                ours, agent = pair()
                self._session = Session(ours)
            if self.spec.console:
                self.terminal, console = pair()
            channels = Channels(monitor, agent, console)
            words = argv(self.spec, self.run_dir, channels)
            atomic_write(self.run_dir / "qemu.argv", shlex.join(words) + "\n")
            errors = theirs.enter_context((self.run_dir / "qemu.log").open("wb"))
            inherited = [fd for fd in (monitor, agent, console) if fd is not None]
            self._child = spawn(words, cwd=self.run_dir, stdout=errors, stderr=errors, pass_fds=inherited)

    def _load(self, saved: Saved) -> None:
        deadline = Deadline(_LOAD_SECONDS)
        try:
            self.command("migrate-set-capabilities", capabilities=_MEMORY_ASIDE)
            self.command("migrate-incoming", uri=f"file:{saved.state}")
            while (status := _status(self.command("query-status"))) == "inmigrate":
                if deadline.expired():
                    raise self._down(Outcome.SILENT)
                time.sleep(_POLL)
            if status != "paused":
                raise MachineError(f"{saved.state}: not of a machine that its guest stopped: it is {status}")
            self.command("cont")
        except GuestDown:
            raise
        except MachineError as error:
            raise self._down(Outcome.QEMU_DIED) from error

    def save(self, timeout: float) -> None:
        """Wait until the guest stops its machine, save it where the specification says, and end QEMU.

        Args:
            timeout: wall seconds until the guest has come so far.

        Raises:
            GuestDown: it ended or failed before, or the time is over.
            MachineError: QEMU could not save it.

        """
        saved, monitor, child = self.spec.saving, self._monitor, self._child
        assert saved is not None and monitor is not None and child is not None, "start() a machine that is saved first"
        deadline = Deadline(timeout)
        try:
            stopped = _status(self.command("query-status")) == "paused"  # before anybody listened
            while not (stopped or monitor.heard("STOP", _POLL)):
                self._read_console()
                if child.poll() is not None:
                    raise self._down(Outcome.QEMU_DIED)
                if deadline.expired() or self._crippled():
                    raise self._down(Outcome.SILENT)
        except GuestDown:
            raise
        except MachineError as error:  # its end of the line is closed
            raise self._down(Outcome.QEMU_DIED) from error
        self.command("migrate-set-capabilities", capabilities=_MEMORY_ASIDE)
        self.command("migrate", uri=f"file:{saved.state}")
        while (status := _status(self.command("query-migrate"))) != "completed":
            if status in ("failed", "cancelled") or deadline.expired():
                raise MachineError(f"QEMU did not save the machine: {status}" + "".join(
                    f"\n    {line}" for line in self._qemu_said()
                ))  # fmt: skip
            time.sleep(_POLL)
        self.stop()

    def execute(
        self,
        script: str,
        *,
        stdin: Input = None,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        timeout: float | None = None,
    ) -> int:
        """Run a script with the guest's ``/bin/sh -c``; its exit status is returned (128 + N for signal N).

        Args:
            script: the command.
            stdin: bytes, or a file descriptor that is read to its end; nothing by default.
            on_stdout: called with each piece of standard output as it comes.
            on_stderr: the same for standard error.
            timeout: wall seconds; without it the command may run for ever.

        Raises:
            GuestDown: the guest or QEMU ended first, or the time is over.

        """
        session = self._session
        assert session is not None and session.ready, "a functional machine, started"
        deadline = Deadline(timeout) if timeout is not None else None
        self._oopsed = None  # a new command gets its own time, also on a kernel that has oopsed
        session.begin(script, stdin)
        while session.status is None:
            self._step(session, deadline, (on_stdout, on_stderr))
        self._read_console()
        return session.status

    def shell(self, script: str, *, timeout: float | None = None) -> Completed:
        """Run a script as :meth:`execute` does, and collect what it says.

        Raises:
            GuestDown: the guest or QEMU ended first, or the time is over.

        """
        out, errors = bytearray(), bytearray()
        began = time.monotonic()
        status = self.execute(script, on_stdout=out.extend, on_stderr=errors.extend, timeout=timeout)
        said, complaints = out.decode(errors="replace"), errors.decode(errors="replace")
        return Completed(("sh", "-c", script), status, said, complaints, time.monotonic() - began)

    def _step(self, session: Session, deadline: Deadline | None, sinks: tuple[Sink | None, Sink | None] | None) -> None:
        """Move bytes for a moment; notice the end of QEMU, a panic and the deadline."""
        alive = session.exchange(_POLL, *(sinks or (None, None)))
        self._read_console()
        assert self._child is not None
        if not alive or self._child.poll() is not None:
            raise self._down(Outcome.QEMU_DIED)
        if session.finished:
            return
        if (deadline is not None and deadline.expired()) or self._crippled():
            raise self._down(Outcome.TIMEOUT if session.ready else Outcome.SILENT)

    def _crippled(self) -> bool:
        """Whether the kernel oopsed a while ago: what has not ended since then hardly will."""
        if self._oopsed is None and any(item.outcome is Outcome.OOPS for item in self._reader.findings):
            self._oopsed = Deadline(_GRACE)
        return self._oopsed is not None and self._oopsed.expired()

    def wait(self, timeout: float) -> Outcome:
        """Wait for a measured machine to end by itself; at the deadline it is stopped.

        ``CLEAN`` means that the guest said it was done; :attr:`status` is then the job's exit status.
        """
        assert self._child is not None, "start() first"
        deadline = Deadline(timeout)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_POLL)
            self._read_console()
            if self._child.returncode is not None:
                break
            if deadline.expired() or self._crippled():
                return self._down(Outcome.SILENT).verdict.outcome
        verdict = self._reader.verdict()
        if verdict.outcome is Outcome.CLEAN and verdict.done is None:
            return self._down(Outcome.QEMU_DIED).verdict.outcome
        self._last = verdict
        return verdict.outcome

    _last: Verdict | None = None

    @property
    def verdict(self) -> Verdict:
        """What is known about the machine's life so far."""
        self._read_console()
        return self._last or self._reader.verdict()

    @property
    def status(self) -> int | None:
        """Exit status of a sealed job, once the guest said it."""
        return self._reader.done

    def alive(self) -> bool:
        """Whether QEMU runs and the kernel has not panicked."""
        self._read_console()
        running = self._child is not None and self._child.poll() is None
        return running and all(item.outcome is not Outcome.PANIC for item in self._reader.findings)

    def kill(self) -> None:
        """Tell QEMU to end, from any thread; whoever runs the machine notices, and cleans up."""
        child = self._child
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)

    def stop(self) -> None:
        """End QEMU, if it still runs, and reap it."""
        if self._child is not None:
            stop(self._child, grace=0.5)
            self._read_console()
        for channel in (self._monitor, self.terminal, self._session):
            if channel is not None:
                channel.close()

    def command(self, name: str, **arguments: object) -> object:
        """One QMP command. Never during a measured run: it would be an asynchronous event."""
        assert self._monitor is not None, "start() first"
        return self._monitor.execute(name, arguments)

    # --- how it ended -----------------------------------------------------------------------------------

    def _symbols(self) -> Symbols | None:
        file = self.spec.kernel.vmlinux.with_name("System.map")
        return Symbols.read(file) if file.is_file() else None

    def _read_console(self) -> None:
        with contextlib.suppress(FileNotFoundError), self.console_log.open("rb") as stream:
            stream.seek(self._position)
            for piece in iter(lambda: stream.read(1 << 20), b""):
                self._position += len(piece)
                self._reader.feed(piece)

    def _down(self, reason: Outcome) -> GuestDown:
        """Judge a machine that cannot go on: the console decides, ``reason`` stands where it reports nothing.

        A machine whose process 1 spoke is not silent but late.
        """
        assert self._child is not None
        where: tuple[str, ...] = ()
        if reason is Outcome.QEMU_DIED:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(2.0)  # the channel closes a little before the process ends
        elif self._child.poll() is None:
            where = tuple(self._processors())
        code = stop(self._child, grace=0.5)
        self._read_console()
        if reason is Outcome.SILENT and self._reader.started:
            reason = Outcome.TIMEOUT
        verdict = self._reader.verdict()
        if verdict.outcome is Outcome.CLEAN:
            verdict = Verdict(
                reason, self._headline(reason, code), (), (*verdict.tail, *self._qemu_said(), *where), verdict.done
            )
        self._last = verdict
        return GuestDown(verdict, self.run_dir)

    def _headline(self, reason: Outcome, code: int) -> str:
        if reason is Outcome.SILENT:
            return "the guest did not reach its first program in time"
        if reason is Outcome.TIMEOUT:
            return "the time is over"
        if code < 0:
            return f"QEMU was killed by signal {-code}"
        if code > 0:
            return f"QEMU ended with status {code}"
        return "the guest powered off or reset before it had reported"

    def _qemu_said(self) -> Iterator[str]:
        with contextlib.suppress(OSError):
            lines = (self.run_dir / "qemu.log").read_text(errors="replace").splitlines()[-10:]
            yield from (f"qemu: {line}" for line in lines if "terminating on signal" not in line)

    def _processors(self) -> list[str]:
        """Where a machine that says nothing is stuck."""
        with contextlib.suppress(MachineError, OSError):
            dump = self.command("human-monitor-command", **{"command-line": "info registers -a"})
            return list(registers(str(dump), self._reader.symbols))
        return []


_MEMORY_ASIDE = [{"capability": "x-ignore-shared", "state": True}]
"""What is mapped from a file is not copied into the state as well."""


def _status(answer: object) -> str:
    assert isinstance(answer, dict)
    return str(answer.get("status", "unknown"))


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
