# SPDX-License-Identifier: GPL-2.0-or-later
"""The result store: one directory a cell, and an index that is nothing but a digest of their manifests.

``runs/<first 16 digits of the key>/`` holds ``manifest.json`` (what must be the same whenever the same inputs are
run again), the raw result and samples, and ``host.json`` (where and when, which may differ). A run directory appears
whole or not at all; what a killed run left is swept by the next one.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.config import atomic_dir, atomic_write, lock, sha256_file, sha256_json
from harness.errors import HarnessError, UsageError
from harness.ui import ui

SCHEMA = 1
MANIFEST, HOST = "manifest.json", "host.json"

State = Literal["done", "failed", "missing", "pending"]
"""``failed``: it ran and its result is no result; ``pending``: the key is unknown until something is built."""


def key_of(inputs: Mapping[str, Any]) -> str:
    """The key of a cell: SHA-256 over all of its inputs and the schema version."""
    return sha256_json({"schema": SCHEMA, "inputs": dict(inputs)})


@dataclass(frozen=True)
class RunRecord:
    """One finished cell, as its manifest tells it."""

    key: str
    cell: Mapping[str, Any]
    """system, workload, seed, profile, backend, mode, target."""
    inputs: Mapping[str, Any]
    outcome: Literal["ok", "failed"]
    reason: str
    metrics: Mapping[str, Any]
    path: Path

    @property
    def short(self) -> str:
        """The name of its directory."""
        return self.key[:16]


class Store:
    """The run directories and the index below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"

    def path(self, key: str) -> Path:
        """Where the run with this key is or will be."""
        return self.runs / key[:16]

    def state(self, key: str | None) -> State:
        """What is known of a cell; a run made under another schema counts as missing."""
        if key is None:
            return "pending"
        record = self.get(key)
        if record is None:
            return "missing"
        return "done" if record.outcome == "ok" else "failed"

    def get(self, key: str) -> RunRecord | None:
        """The record of a key, or None; a directory with a damaged manifest counts as none (it is run again)."""
        try:
            record = _read(self.path(key) / MANIFEST)
        except HarnessError:
            return None
        return record if record is not None and record.key == key else None

    def records(self) -> list[RunRecord]:
        """Every readable record, by key; a damaged one is named in a warning and left out."""
        out: list[RunRecord] = []
        for path in sorted(self.runs.glob(f"[0-9a-f]*/{MANIFEST}")):
            try:
                record = _read(path)
            except HarnessError as error:
                ui().warn(f"{error.message}; {error.hint}")
                continue
            if record is not None:
                out.append(record)
        return out

    @contextlib.contextmanager
    def cell(self, key: str, *, wait: float = 0) -> Iterator[None]:
        """Hold the right to make one run; sweep what a killed holder left.

        Raises:
            Busy: another harness is making it, still after ``wait`` seconds.

        """
        with lock(self.root / "locks" / f"{key[:16]}.lock", what=f"cell {key[:16]}", wait=wait):
            for left in self.runs.glob(f".{key[:16]}.*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    @contextlib.contextmanager
    def new(self, key: str) -> Iterator[Path]:
        """Yield the directory of a run that becomes visible when the block ends without error."""
        self.runs.mkdir(parents=True, exist_ok=True)
        with atomic_dir(self.path(key)) as work:
            yield work

    def index(self) -> dict[str, Any]:
        """The index: everything reports ask for, from the manifests alone."""
        return {
            "schema": SCHEMA,
            "runs": [
                {
                    "key": record.key,
                    "cell": dict(record.cell),
                    "outcome": record.outcome,
                    "reason": record.reason,
                    "metrics": dict(record.metrics),
                }
                for record in self.records()
            ],
        }

    def write_index(self) -> Path:
        """Rebuild ``index.json``; its bytes depend on the manifests alone."""
        path = self.root / "index.json"
        with lock(self.root / "locks" / "index.lock", what="the index", wait=60):
            atomic_write(path, canonical(self.index()))
        return path

    def seconds(self, like: Mapping[str, Any], alike: Callable[[RunRecord], bool] = lambda _: True) -> list[float]:
        """Wall seconds of earlier cells with these properties (any of a cell's fields) that are ``alike``."""
        out: list[float] = []
        for record in self.records():
            same = all(record.cell.get(name) == value for name, value in like.items())
            if record.outcome == "ok" and same and alike(record):
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                    out.append(float(json.loads((record.path / HOST).read_text())["seconds"]))
        return out


def canonical(value: Any) -> str:
    """JSON whose bytes depend on the value alone, readable for people."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def write_manifest(
    work: Path,
    *,
    key: str,
    cell: Mapping[str, Any],
    inputs: Mapping[str, Any],
    outcome: Literal["ok", "failed"],
    reason: str = "",
    metrics: Mapping[str, Any] | None = None,
    identical: tuple[str, ...] = (),
) -> None:
    """Write the manifest of a run; the files ``identical`` names are listed with their digests."""
    atomic_write(
        work / MANIFEST,
        canonical(
            {
                "schema": SCHEMA,
                "key": key,
                "cell": dict(cell),
                "inputs": dict(inputs),
                "outcome": outcome,
                "reason": reason,
                "metrics": dict(metrics or {}),
                "files": {name: sha256_file(work / name) for name in sorted(identical) if (work / name).is_file()},
            }
        ),
    )


def _read(path: Path) -> RunRecord | None:
    """Read a manifest; None when there is none.

    Raises:
        UsageError: it cannot be read as one of this schema.

    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: damaged: {error}", hint=f"remove {path.parent}; the cell is then run again"
        ) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise UsageError(
            f"{path}: not a manifest of schema {SCHEMA}",
            hint=f"results of another version: move {path.parent} away or choose another --results directory",
        )
    try:
        if key_of(data["inputs"]) != data["key"]:
            raise UsageError(
                f"{path}: its inputs were altered: they do not hash to its key",
                hint=f"remove {path.parent}; the cell is then run again",
            )
        return RunRecord(
            key=data["key"],
            cell=data["cell"],
            inputs=data["inputs"],
            outcome=data["outcome"],
            reason=data["reason"],
            metrics=data["metrics"],
            path=path.parent,
        )
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: damaged: lacks {error}", hint=f"remove {path.parent}") from error
