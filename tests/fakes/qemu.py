#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A stand-in for QEMU: same command line, QMP, agent socket and console, no guest.

Words on the kernel's command line, or in FAKE_QEMU, choose what happens: ``fake.boot=`` (ready, silent, panic, die,
reset, chatter), ``fake.run=`` (real, panic, oops, cripple, die, garbage, never, fleet,
unfleet: the last two the machine of a fleet of two VMs, and of one that cannot come up), ``fake.job=`` (done, good,
bad, panic, lost, hang, oops), ``fake.save=`` (stop, late, full, or a job: what a machine that is to be saved does; its
memory is then the line ``fake memory``).
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONSOLES = Path(__file__).parent.parent / "data" / "consoles"


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def word(name: str, default: str) -> str:
    found = re.search(rf"fake\.{name}=(\w+)", f"{option('-append')} {os.environ.get('FAKE_QEMU', '')}")
    return found[1] if found else default


def chardev(name: str) -> dict[str, str]:
    text = next(value for value in sys.argv if re.match(rf"(socket|file),id={name},", value))
    parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    return dict(part.partition("=")[::2] for part in parts[1:])


def console(text: str) -> None:
    about = chardev("console")
    with Path(about.get("path") or about["logfile"]).open("a") as stream:
        stream.write(text)


def golden(name: str) -> str:
    return (CONSOLES / f"{name}.txt").read_text()


def requests(wire: socket.socket) -> Iterator[dict[str, Any]]:
    """JSON objects follow each other without any separator."""
    text = ""
    while data := wire.recv(4096):
        text += data.decode()
        while text := text.lstrip():
            try:
                value, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            yield value


status = "inmigrate" if "-incoming" in sys.argv else "running"
stopped, told_to_go_on = threading.Event(), threading.Event()


def migration(request: dict[str, Any]) -> dict[str, object] | None:
    """The commands by which machines are saved and loaded; None for others."""
    global status
    what, file = request["execute"], Path(str(request.get("arguments", {}).get("uri", "")).removeprefix("file:"))
    if what == "query-status":
        return {"return": {"status": status, "running": status == "running"}}
    if what == "migrate":
        if word("save", "stop") != "full":
            file.write_text("fake state")
        return {"return": {}}
    if what == "query-migrate":
        return {"return": {"status": "failed" if word("save", "stop") == "full" else "completed"}}
    if what == "migrate-incoming":
        if file.read_text() != "fake state":
            print("qemu: Not a migration stream", file=sys.stderr, flush=True)
            os._exit(1)
        status = "paused"
        return {"return": {}}
    if what == "cont":
        status = "running"
        told_to_go_on.set()
        return {"return": {}}
    return None


def monitor() -> None:
    wire = socket.socket(fileno=int(chardev("monitor")["fd"]))

    def tell_stop() -> None:
        stopped.wait()
        say({"event": "STOP", "timestamp": {"seconds": 0, "microseconds": 0}})

    def say(value: object) -> None:
        wire.sendall(json.dumps(value).encode() + b"\r\n")

    try:
        say({"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}})
        for request in requests(wire):
            answer: dict[str, object]
            if (known := migration(request)) is not None:
                answer = known
            elif request["execute"] == "no-such-command":
                answer = {"error": {"class": "CommandNotFound", "desc": "no such command"}}
            elif request["execute"] == "human-monitor-command":
                answer = {"return": "CPU#0\r\nRIP=ffffffff81001002 RFL=00000246\r\n"}
            else:
                answer = {"return": {}}
            say(answer | ({"id": request["id"]} if "id" in request else {}))
            if request["execute"] == "qmp_capabilities":  # no events before the answer to this
                threading.Thread(target=tell_stop, daemon=True).start()
    except OSError:
        return


def send(wire: socket.socket, kind: bytes, payload: bytes = b"") -> None:
    wire.sendall(struct.pack("<cI", kind, len(payload)) + payload)


def receive(wire: socket.socket) -> tuple[bytes, bytes]:
    stream = b""
    while len(stream) < 5:
        data = wire.recv(5 - len(stream))
        if not data:
            sys.exit(0)
        stream += data
    kind, size = struct.unpack("<cI", stream)
    payload = b""
    while len(payload) < size:
        payload += wire.recv(size - len(payload))
    return kind, payload


def run_command(wire: socket.socket, script: bytes) -> None:
    what = word("run", "real")
    if what == "panic":
        console(golden("panic-sysrq-live"))
        sys.exit(0)
    if what == "die":
        print("qemu: fatal: something in here broke", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "garbage":
        wire.sendall(b"?????not a frame")
    if what == "cripple":
        console(golden("oops-null"))
    if what in ("never", "garbage", "cripple"):
        time.sleep(3600)
    if what == "oops":
        console(golden("oops-null"))
    stdin = b""
    while (frame := receive(wire))[0] != b"C":
        stdin += frame[1]
    if what in ("fleet", "unfleet"):
        said, failed = b"up 7.5\nksmd 2500000000\nksm run 1\nksm pages_sharing 12\nvm 1 2048 5\nvm 2 lost 0\n", 0
        if b"fleet shares" in script:
            said += b"ksm max_page_sharing 3\ncounted 1\n[pages_now]\nvm,pages,zero,self,inter,unique,hash\n"
            said += b"1,10,4,2,3,1,99\n[contents_now]\nmappings,contents\n1,1\n2,1\n3,1\n4,1\n"
        if b"fleet hold" in script:
            said, failed = b"loaded\nloaded\n", 0
            if what == "unfleet":
                said, failed = b"loaded\nfleet: VM 2 died while it was loading\n", 1
        send(wire, b"O", said)
        send(wire, b"R", struct.pack("<i", failed))
        return
    done = subprocess.run(["sh", "-c", script], input=stdin, capture_output=True, check=False)
    for start in range(0, len(done.stdout), 1000):
        send(wire, b"O", done.stdout[start : start + 1000])
    send(wire, b"E", done.stderr)
    send(wire, b"R", struct.pack("<i", done.returncode if done.returncode >= 0 else 128 - done.returncode))


def terminal() -> None:
    """A console that says what it hears, in hexadecimal."""
    wire = socket.socket(fileno=int(chardev("console")["fd"]))
    heard = b""
    while data := wire.recv(4096):
        heard += data.strip(b"\n")
        wire.sendall(b"fake console, heard " + heard.hex().encode() + b"\r\n")


def functional() -> None:
    what = word("boot", "ready")
    wire = socket.socket(fileno=int(chardev("agent")["fd"]))
    if what == "chatter":
        console("paraksm: started\nstill booting\n")
    if what in ("silent", "chatter"):
        time.sleep(3600)
    if what == "die":
        print("qemu: could not load the kernel", file=sys.stderr)
        sys.exit(1)
    if what == "panic":
        console(golden("no-times"))
    if what in ("reset", "panic"):
        sys.exit(0)
    send(wire, b"H", b"1")
    while True:
        kind, payload = receive(wire)
        if kind == b"X":
            run_command(wire, payload)


def saving() -> None:
    global status
    file = next(part for part in option("-object").split(",") if part.startswith("mem-path=")).partition("=")[2]
    Path(file).write_text("fake memory\n")
    console("paraksm: started\n")
    if word("save", "stop") == "late":
        time.sleep(0.5)
    status = "paused"
    stopped.set()
    time.sleep(3600)


def measured() -> None:
    what = word("job", "done")
    if "-incoming" in sys.argv:
        told_to_go_on.wait()
    elif "-object" in sys.argv:
        what = word("save", "stop")
        if what in ("stop", "late", "full"):
            saving()
    Path(chardev("results")["path"]).write_bytes(b"results\0\xff")
    if what == "panic":
        console(golden("panic-sysrq-live"))
    elif what == "oops":
        console(golden("oops-null"))
        time.sleep(3600)
    elif what == "hang":
        console("paraksm: started\n")
        time.sleep(3600)
    elif what == "done":
        console(golden("sealed-live"))
    elif what in ("good", "bad"):
        console(f"paraksm: started\nfleet: as it is wanted: {what}\nparaksm: done status={int(what == 'bad')}\n")


if __name__ == "__main__":
    threading.Thread(target=monitor, daemon=True).start()
    if "paraksm.console" in option("-append").split():
        threading.Thread(target=terminal, daemon=True).start()
    if "paraksm.mode=measured" in option("-append"):
        measured()
    else:
        functional()
