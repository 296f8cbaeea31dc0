# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole project in miniature: this harness on fake sources, with fake tools where real ones are slow.

What is real: the command, packages (asked, nothing installed), download, digest, unpacking, git, series, make, gcc
for the guest program. The kernel is ``tests/data/fakelinux``; QEMU's ``configure`` and ``ninja`` are shell scripts.
``behave`` holds scripts that a build step runs first: ``ksm`` (compiling mm/ksm.c) and ``ninja``.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

from harness import packages

REAL = Path(__file__).parents[2]

CONFIGURE = """#!/bin/sh
echo "configure $*"
[ -f "$(dirname "$0")/no-configure" ] && { echo "ERROR: glib-2.0 not found"; exit 1; }
mkdir -p pyvenv/bin
printf '#!/bin/sh\\nexit 0\\n' > pyvenv/bin/python3
chmod +x pyvenv/bin/python3
echo "source=$(dirname "$0")" > build.ninja
mkdir -p "$(dirname "$0")/subprojects"
touch "$(dirname "$0")/subprojects/.wraplock"
"""
NINJA = """#!/bin/sh
[ "$1" = --version ] && { echo 1.11.1; exit; }
case "$*" in
*paraksm-qboot*) for word; do case $word in */paraksm-qboot) echo rom > "$word/bios.bin" ;; esac; done ;;
*) . ./build.ninja
   echo "[1/2] Compiling C object hw_core.c.o"
   [ -f "$BEHAVE/ninja" ] && { . "$BEHAVE/ninja"; }
   [ -f "$source/fail" ] && { echo "FAILED: hw_core.c.o"; cat "$source/fail"; exit 1; }
   echo "[2/2] Linking target qemu-system-x86_64"
   cat "$source/version.c" > qemu-system-x86_64 ;;
esac
"""
ROMS = """all:
\tfor name in kvmvapic linuxboot linuxboot_dma multiboot multiboot_dma pvh; do echo $$name > $$name.bin; done
"""
_SERIES = (
    'topic = "{}"\nkernels = ["{}"]\nauthor = "A <a@b.invalid>"\ndate = "Sun, 19 Feb 2023 00:00:00 +0000"\npatch = []\n'
)
_RECIPES = """
[program.init]
compiler = "gcc"
sources = ["src/init.c"]
flags = ["-O1"]
[image.measured]
programs = { "/init" = "init" }
packages = []
[image.functional]
programs = { "/init" = "init" }
packages = []
"""


def qemu_tree(tree: Path) -> None:
    """A QEMU source tree that has just what the build looks at."""
    for folder in ("roms/qboot", "pc-bios/optionrom"):
        (tree / folder).mkdir(parents=True)
    (tree / "configure").write_text(CONFIGURE)
    (tree / "configure").chmod(0o755)
    (tree / "version.c").write_text("one\n")
    (tree / "VERSION").write_text("10.0.13\n")
    (tree / "roms" / "qboot" / "meson.build").write_text("project('qboot')\n")
    (tree / "pc-bios" / "optionrom" / "Makefile").write_text(ROMS)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Project:
    """The project below ``root``; :meth:`start` and :meth:`harness` type commands in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.behave = root / "behave"
        self.cache = root / "cache"
        self.served = root / "www"
        tools = root / "bin"
        for folder in (self.behave, self.served, tools):
            folder.mkdir(parents=True)
        self._tool(tools / "ninja", NINJA)
        installed = "".join(f"installed\\t{name}\\t\\n" for names in packages.TASKS.values() for name in names)
        self._tool(tools / "dpkg-query", f"#!/bin/sh\nprintf '{installed}'\n")
        self._project()
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(self.served))
        )
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(root / "project"),
            "PARAKSM_MIRROR": f"http://127.0.0.1:{self.server.server_address[1]}",
            "XDG_CACHE_HOME": str(self.cache),
            "BEHAVE": str(self.behave),
        }

    @staticmethod
    def _tool(file: Path, text: str) -> None:
        file.write_text(text)
        file.chmod(0o755)

    def _project(self) -> None:
        project = self.root / "project"
        shutil.copytree(REAL / "harness", project / "harness", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(REAL / "kernel", project / "kernel")
        (project / "vm-images" / "src").mkdir(parents=True)
        (project / "vm-images" / "recipes.toml").write_text(_RECIPES)
        (project / "vm-images" / "src" / "init.c").write_text("int main(void) { return 0; }\n")
        for topic, version in (("linux", "6.1"), ("qemu", "10.0")):
            (project / "patches" / topic).mkdir(parents=True)
            (project / "patches" / topic / "series.toml").write_text(_SERIES.format(topic, version))
        linux, qemu = self.root / "linux-6.1.7", self.root / "qemu-10.0.13"
        shutil.copytree(REAL / "tests" / "data" / "fakelinux", linux)
        text = (linux / "Makefile").read_text().replace("behave/$*", '"$$BEHAVE/$*"')
        (linux / "Makefile").write_text(f"VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 7\n{text}")
        qemu_tree(qemu)
        (project / "kernel" / "sources.toml").write_text(
            self._pin("linux", "6.1.7", "6.1", linux) + self._pin("qemu", "10.0.13", "10.0", qemu)
        )

    def _pin(self, kind: str, version: str, series: str, tree: Path) -> str:
        name = f"{tree.name}.tar.xz"
        with tarfile.open(self.served / name, "w:xz") as tar:
            tar.add(tree, tree.name)
        digest = hashlib.sha256((self.served / name).read_bytes()).hexdigest()
        return (
            f'[[{kind}]]\nversion = "{version}"\nseries = "{series}"\nvia = "tarball"\n'
            f'url = "https://elsewhere.invalid/{name}"\nsha256 = "{digest}"\n'
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command that is going on, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *words],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def harness(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        with self.start(*words) as child:
            out, err = child.communicate(timeout=120)
        return subprocess.CompletedProcess(words, child.returncode, out, err)

    def processes(self) -> list[str]:
        """Command lines of what runs on behalf of this project, the harness itself included."""
        mark, found = f"BEHAVE={self.behave}".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return found

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()
