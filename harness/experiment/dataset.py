# SPDX-License-Identifier: GPL-2.0-or-later
"""The real training data: as many rows of the user's file as a fleet trains on, checked, kept under their digest.

SUSY as UCI ships it (a label and 18 features, separated by commas; gzipped, or that in a zip archive) or in LIBSVM's
format. The rows are handed on as they are in the file: the guest program reads both formats.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.config import atomic_write, paths, sha256_file
from harness.errors import UsageError

FEATURES = 18
FILE = "susy.data"
"""Name of the file where the guest program runs; the plan names it so, without a directory."""


@dataclass(frozen=True)
class Dataset:
    """The first rows of a file."""

    rows: int
    path: Path
    sha256: str
    """Of these rows, not of the whole file."""

    @property
    def inputs(self) -> dict[str, str | int]:
        """What goes into the key of a cell."""
        return {"rows": self.rows, "sha256": self.sha256}

    @property
    def mib(self) -> int:
        """What the file takes in a guest's memory, rounded up."""
        return -(-self.path.stat().st_size // 2**20)


def first_rows(file: Path, rows: int) -> Dataset:
    """Take the first rows of a SUSY file; the rest of it is not read.

    Raises:
        UsageError: no such file, too few rows, or a row that is none; the message names the line.

    """
    try:
        with file.open("rb") as stream:
            lines = list(_checked(file, _text(file, stream), rows))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise UsageError(f"--susy {file}: {error}", hint="SUSY.csv.gz of the UCI archive, whole or unpacked") from error
    if len(lines) < rows:
        raise UsageError(
            f"--susy {file}: it has {len(lines)} rows, the fleet trains on {rows}",
            hint="a smaller --profile, or the whole file (5,000,000 rows)",
        )
    data = b"".join(lines)
    work = paths().tmp / f"{FILE}-{rows}-{zlib.crc32(data):08x}"
    atomic_write(work, data)
    digest = sha256_file(work)
    final = paths().cache / "datasets" / f"{digest[:16]}.data"
    final.parent.mkdir(parents=True, exist_ok=True)
    work.replace(final)
    return Dataset(rows, final, digest)


def _text(file: Path, stream: IO[bytes]) -> IO[bytes]:
    """Peel off what the file is packed in; its first bytes tell, not its name."""
    magic = stream.read(4)
    stream.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return _text(file, io.BufferedReader(gzip.GzipFile(fileobj=stream)))
    if magic == b"PK\x03\x04":
        archive = zipfile.ZipFile(stream)
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise UsageError(f"--susy {file}: the archive holds {len(names)} files: {', '.join(names[:5])}")
        return _text(file, archive.open(names[0]))
    return stream


def _checked(file: Path, stream: IO[bytes], rows: int) -> Iterator[bytes]:
    for number, line in enumerate(stream, 1):
        if number > rows:
            return
        if fault := _fault(line):
            raise UsageError(
                f"--susy {file}:{number}: {fault}",
                hint="a row is label,feature1,...,feature18 (UCI) or label 1:value ... 18:value (LIBSVM)",
            )
        yield line.rstrip(b"\r\n") + b"\n"


def _fault(line: bytes) -> str:
    """What is wrong with a row; empty if nothing is."""
    words = line.decode("ascii", errors="replace").replace(",", " ").split()
    pairs = [word.partition(":") for word in words[1:]]
    try:
        float(words[0])
        if any(colon for _, colon, _ in pairs):
            indices = [int(index) for index, _, value in pairs if float(value) is not None]
            if any(not 1 <= index <= FEATURES for index in indices) or len(set(indices)) < len(indices):
                return f"features are numbered 1 to {FEATURES}, each once"
        elif len([float(word) for word in words[1:]]) != FEATURES:
            return f"{len(words) - 1} features, not {FEATURES}"
    except IndexError:
        return "an empty row"
    except ValueError as error:
        return str(error)
    return ""
