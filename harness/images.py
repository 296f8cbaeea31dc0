# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest images: static programs, files of Debian packages, and a cpio archive, reproducible without root.

Recipes are data in ``vm-images/recipes.toml``. An image depends on its recipe, its sources and the packages'
digests only, so two builds are byte-identical. The archive format is "newc" (Linux:
Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import hashlib
import io
import shutil
import stat
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness import debian, sourcepackage
from harness.config import (
    PROJECT,
    atomic_dir,
    atomic_write,
    full_disk,
    is_whole,
    lock,
    paths,
    says_full_disk,
    seal,
    sha256_file,
    sha256_json,
)
from harness.errors import BuildError, SourceError, UsageError
from harness.run import CommandFailed, run
from harness.sourcepackage import SourcePackage
from harness.sources import untar
from harness.ui import ui

if TYPE_CHECKING:
    from harness.kbuild import KernelBuild

ImageName = Literal["measured", "functional", "nested", "fleet", "vm"]
"""``nested`` is ``measured`` with a monitor for VMs and their image, ``vm``, in it; ``fleet`` has an ssh server too."""

WITH_VMS = ("nested", "fleet")
"""Images that carry a kernel for the VMs in them."""

_DIRECTORIES = ("bin", "dev", "dev/pts", "dev/shm", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin")
_ETC = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shells": "/bin/sh\n",
}


@dataclass(frozen=True)
class Image:
    """An initramfs: uncompressed, because decompressing costs instructions and nothing else."""

    name: str
    path: Path
    digest: str


@dataclass(frozen=True)
class Entry:
    """One file of an archive; ``data`` is a link's target or a file's content."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(entries: Iterable[Entry]) -> bytes:
    """Write a newc archive: sorted names, inodes in order, owner 0, time 0."""
    out = io.BytesIO()
    ordered = sorted(entries, key=lambda entry: entry.name)
    for inode, entry in enumerate([*ordered, Entry("TRAILER!!!", 0)], 1):
        name = entry.name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        out.write(b"\0" * (-out.tell() % 4) + entry.data)
        out.write(b"\0" * (-out.tell() % 4))
    out.write(b"\0" * (-out.tell() % 512))
    return out.getvalue()


def recipes() -> dict[str, Any]:
    """The parsed ``vm-images/recipes.toml``."""
    return tomllib.loads((PROJECT / "vm-images" / "recipes.toml").read_text())


def build(name: ImageName) -> Image:
    """Build an image, or return the one that the same inputs made before.

    Raises:
        UsageError: no such image.
        BuildError: a guest program does not compile.
        SourceError: a package cannot be obtained.
    """
    known = recipes()
    recipe = known.get("image", {}).get(name)
    if recipe is None:
        raise UsageError(f"no image {name}; there are {', '.join(known.get('image', {}))}")
    with lock(paths().images / f".{name}.lock", what=f"the {name} image", wait=600):
        programs = {where: program(part) for where, part in recipe["programs"].items()}
        packages = {part: _package(known["package"][part]["package"]) for part in recipe.get("packages", ())}
        inner = {where: build(part).path for where, part in recipe.get("images", {}).items()}
        key = sha256_json(
            [
                recipe,
                {where: sha256_file(file) for where, file in programs.items()},
                {part: [known["package"][part], sha256_file(file)] for part, file in packages.items()},
                {where: sha256_file(file) for where, file in inner.items()},
                sha256_file(Path(__file__)),
            ]
        )
        final = paths().images / f"{name}-{key[:16]}.cpio"
        if not is_whole(final):
            entries = _tree(programs | inner, {part: (known["package"][part], file) for part, file in packages.items()})
            atomic_write(final, cpio(entries))
            seal(final)
        return Image(name, final, sha256_file(final))


def extended(image: Image, files: Mapping[str, Path]) -> Image:
    """An image with more files, below directories it has: a second archive behind the first, as the kernel allows."""
    if not files:
        return image
    digests = {name: sha256_file(file) for name, file in sorted(files.items())}
    final = paths().images / f"{image.name}-{sha256_json([image.digest, digests])[:16]}.cpio"
    if not final.exists():
        more = cpio(Entry(name, stat.S_IFREG | 0o644, file.read_bytes()) for name, file in files.items())
        atomic_write(final, image.path.read_bytes() + more)
    return Image(image.name, final, sha256_file(final))


def vm_kernel(kernel: KernelBuild) -> dict[str, Path]:
    """The files of a kernel that the monitor of a nested VM loads, by their place in the ``nested`` image.

    Raises:
        BuildError: binutils cannot read the kernel.

    """
    final = paths().images / f"vmlinux-{kernel.digest[:16]}"
    if not is_whole(final):
        with atomic_dir(paths().tmp / f"vmlinux-{kernel.digest[:16]}") as work:
            try:
                run(["objcopy", "--strip-all", kernel.vmlinux, work / "vmlinux"])
            except CommandFailed as error:
                raise BuildError(f"{kernel.vmlinux} cannot be stripped: {error.completed.stderr.strip()}") from error
            atomic_write(final, (work / "vmlinux").read_bytes())
        seal(final)
    return {"vm/vmlinux": final} | ({"vm/vmlinux.relocs": kernel.relocs} if kernel.relocs else {})


def _tree(programs: Mapping[str, Path], packages: Mapping[str, tuple[Mapping[str, Any], Path]]) -> list[Entry]:
    files = {where.lstrip("/"): file.read_bytes() for where, file in programs.items()}
    links: dict[str, str] = {}
    for recipe, archive in packages.values():
        for where, member in recipe["files"].items():
            files[where.lstrip("/")] = _member(archive, member)
    if "bin/busybox" in files:
        links = {name: "/bin/busybox" for name in _applets(files["bin/busybox"]) if name not in files}
    folders = {*_DIRECTORIES}
    for name in (*files, *links):
        folders |= {str(parent) for parent in Path(name).parents if str(parent) != "."}
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in folders]
    entries += [Entry(name, stat.S_IFREG | 0o755, data) for name, data in files.items()]
    entries += [Entry(name, stat.S_IFREG | 0o644, text.encode()) for name, text in _ETC.items()]
    entries += [Entry(name, stat.S_IFLNK | 0o777, target.encode()) for name, target in links.items()]
    entries += [
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry("dev/null", stat.S_IFCHR | 0o666, device=(1, 3)),
    ]
    return entries


def _applets(busybox: bytes) -> list[str]:
    """Paths of busybox's applets, as the binary itself lists them."""
    file = paths().tmp / f"busybox-{hashlib.sha256(busybox).hexdigest()[:16]}"
    if not file.exists():
        atomic_write(file, busybox)
    file.chmod(0o755)
    return run([file, "--list-full"]).stdout.split()


# --- packages -----------------------------------------------------------------------------------------


def package_file(package: str, where: str, suite: str | None = None) -> bytes:
    """What a package of the recipes, of the machine's suite or of another, puts at ``where`` in an image."""
    recipe = recipes()["package"][package]
    return _member(_package(recipe["package"], suite), recipe["files"][where])


def _package(name: str, suite: str | None = None) -> Path:
    folder = paths().sources / ("debs" if suite is None else f"debs-{suite}")
    present = sorted(folder.glob(f"{name}_*.deb"))
    return present[-1] if present else debian.download_binary(name, folder, suite=suite)


def _member(archive: Path, member: str) -> bytes:
    """One file of a .deb; merged-/usr releases differ in the leading ``usr/``."""
    folder = paths().tmp / f"deb-{sha256_file(archive)[:16]}"
    if not folder.exists():
        with atomic_dir(folder) as work:
            try:
                run(["dpkg-deb", "--extract", archive, work])
            except CommandFailed as error:
                if says_full_disk(error.completed.stderr):
                    raise full_disk(f"while unpacking {archive.name}") from error
                archive.unlink(missing_ok=True)
                raise SourceError(
                    f"{archive.name} is truncated or altered; it was removed", hint="run again"
                ) from error
    for candidate in (member, f"usr/{member}", member.removeprefix("usr/")):
        if (folder / candidate).exists():
            return (folder / candidate).read_bytes()
    raise SourceError(f"{archive.name} has no {member}", hint="vm-images/recipes.toml names files of Debian 12")


# --- programs -----------------------------------------------------------------------------------------


def program(name: str) -> Path:
    """Compile a static guest program, or return the one that the same sources made before.

    Raises:
        UsageError: no such program.
        BuildError: it does not compile; the log has the compiler's words.
    """
    recipe = recipes()["program"].get(name)
    if recipe is None:
        raise UsageError(f"no guest program {name}; there are {', '.join(recipes()['program'])}")
    if "pypi" in recipe:
        recipe["pypi"] = recipes()["pypi"][recipe["pypi"]]
    root = PROJECT / "vm-images"
    sources = sorted({file for pattern in recipe["sources"] for file in root.glob(pattern)})
    if not sources:
        raise BuildError(f"{name}: no sources match {recipe['sources']}")
    folders = {file.parent for file in sources} | {root / flag[2:] for flag in recipe["flags"] if flag.startswith("-I")}
    headers = sorted({file for folder in folders for file in folder.glob("*.h")})
    compiler = recipe["compiler"]
    inputs = [
        recipe,
        {str(file.relative_to(root)): sha256_file(file) for file in (*sources, *headers)},
        run([compiler, "--version"]).stdout,
    ]
    package = SourcePackage.of(recipe["debian"]) if "debian" in recipe else None
    described = sourcepackage.description(package) if package else None
    if described:
        inputs += [sha256_file(described), sha256_file(Path(sourcepackage.__file__))]
    final = paths().images / "programs" / f"{name}-{sha256_json(inputs)[:16]}" / name
    if is_whole(final):
        return final
    ui().step(f"compiling {name} for the guest")
    if package and described:
        with lock(paths().images / f".program-{name}.lock", what=f"the program {name}", wait=600):
            if not is_whole(final):
                _make(name, recipe, sources, package, described, final)
    else:
        _compile(name, recipe, sources, final)
    return final


def _compile(name: str, recipe: Mapping[str, Any], sources: list[Path], final: Path) -> None:
    root = PROJECT / "vm-images"
    words = [str(file.relative_to(root)) for file in sources]
    flags = list(recipe["flags"])
    log = paths().logs / f"program-{name}.log"
    log.unlink(missing_ok=True)
    with atomic_dir(final.parent) as work:
        if pypi := recipe.get("pypi"):
            unpacked = _pypi(pypi["name"], pypi["version"], pypi["sha256"])
            words += [str(file) for pattern in pypi["sources"] for file in sorted(unpacked.glob(pattern))]
            words = [part for word in words for part in _language(word)] + ["-x", "none"]
            flags += [f"-I{unpacked}", f"-ffile-prefix-map={unpacked}=."]
        _gcc(
            name,
            log,
            [recipe["compiler"], "-static", "-Wl,--build-id=none", *flags, "-o", work / name, *words,
             *recipe.get("libraries", [])],
        )  # fmt: skip
        seal(work / name)


def _gcc(name: str, log: Path, argv: Sequence[str | Path]) -> None:
    try:
        run(argv, cwd=PROJECT / "vm-images", log=log, env={"SOURCE_DATE_EPOCH": "0"})
    except CommandFailed as error:
        if says_full_disk(error.completed.stdout):
            raise full_disk(f"while compiling {name} for the guest") from error
        raise BuildError(f"{name} does not compile:\n{error.completed.stdout[-2000:]}", log=log) from error


def _make(
    name: str, recipe: Mapping[str, Any], sources: list[Path], package: SourcePackage, described: Path, final: Path
) -> None:
    """Make a program of a source package; sources of ours are compiled first, for its link to take in."""
    log = paths().logs / f"program-{name}.log"
    log.unlink(missing_ok=True)
    with atomic_dir(final.parent) as work, tempfile.TemporaryDirectory(prefix=f"{name}-", dir=paths().tmp) as folder:
        objects = [Path(folder) / f"{source.stem}.o" for source in sources]
        for source, made in zip(sources, objects, strict=True):
            shown = source.relative_to(PROJECT / "vm-images")
            _gcc(name, log, [recipe["compiler"], *recipe["flags"], "-c", "-o", str(made), str(shown)])
        shutil.copyfile(sourcepackage.build(package, described, objects, Path(folder), log), work / name)
        (work / name).chmod(0o755)
        seal(work / name)


def _language(source: str) -> tuple[str, str, str]:
    """Say the language of each file: g++ alone would compile C as C++, and mangle its names."""
    return ("-x", "c" if source.endswith(".c") else "c++", source)


def distribution(name: str) -> Path:
    """A source distribution of the recipes, unpacked."""
    pin = recipes()["pypi"][name]
    return _pypi(pin["name"], pin["version"], pin["sha256"])


def _pypi(name: str, version: str, sha256: str) -> Path:
    """A pinned source distribution from PyPI, verified before anything in it is used, unpacked."""
    final = paths().sources / f"{name}-{version}-{sha256[:12]}"
    if not final.exists():
        with atomic_dir(final) as work:
            wanted = work / "requirements.txt"
            wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
            try:
                run(
                    [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                     "--require-hashes", "--dest", work, "--requirement", wanted],
                )  # fmt: skip
            except CommandFailed as error:
                said = (error.completed.stderr.strip() or error.completed.stdout.strip()).splitlines()
                raise SourceError(
                    f"{name} {version} cannot be had from PyPI, or is not the pinned file:\n" + "\n".join(said[-3:]),
                    hint="run again when PyPI is reachable; a file that differs from its pin is never used",
                ) from error
            archive = next(work.glob("*.tar.gz"))
            untar(archive, work)
    return final
