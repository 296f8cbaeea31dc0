# SPDX-License-Identifier: GPL-2.0-or-later
"""A worker with a cache of its own boots, loads and measures: the bytes are those of a run at home."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.experiment import artefacts, cells, plan, scheduler, spec, worker
from harness.experiment.cells import Capacity
from harness.experiment.executors import Sealed
from harness.experiment.store import Store
from harness.images import Image
from harness.kbuild import KernelBuild
from harness.qbuild import QemuBuild
from harness.workbench import Workbench
from tests import errands

pytestmark = pytest.mark.boot

SAME = ("manifest.json", "plan.txt", "results.raw", "samples.csv", "vm_samples.csv")


def test_a_worker_elsewhere_measures_the_same_bytes(
    qemu_build: QemuBuild, kernel_build: KernelBuild, measured_image: Image, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bench = Workbench(qemu_build, kernel_build, measured_image)
    made = plan.make(spec.load("fig12"), artefacts.of_workbench(bench), profile="unit")
    home, there = Store(tmp_path / "home"), Store(tmp_path / "there")
    rows = [row for row in plan.rows(made, home, 10.0) if row.cell.system in ("cpu-ksm", "para-ksmc")]
    at_home = Sealed(bench, deadline=600)
    assert cells.run("home", rows, home, at_home, Capacity(1)) == []

    copy, far = tmp_path / "copy", tmp_path / "far"
    for name, path in at_home.files([]).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / name)
    pack = worker.Parcel.__init__

    def pack_and_go(parcel: worker.Parcel, files: dict[str, Path], *, local: bool) -> None:
        pack(parcel, files, local=local)
        shutil.rmtree(copy)

    monkeypatch.setattr(worker.Parcel, "__init__", pack_and_go)
    with errands.head() as head:
        assert head.stdout is not None
        address = head.stdout.readline().strip()
        with errands.hired(tmp_path / "worker.log", address, "--jobs", "2", XDG_CACHE_HOME=str(far)):
            run = scheduler.runner([address])
            assert run("there", rows, there, at_home.moved(copy), Capacity(1)) == []

    for row in rows:
        one, other = (store.path(str(row.cell.key)) for store in (home, there))
        assert [(one / name).read_bytes() for name in SAME] == [(other / name).read_bytes() for name in SAME]
        assert f"{far}/paraksm/parcels" in (other / "qemu.argv").read_text()
        assert f"{far}/paraksm/checkpoints" in (other / "qemu.argv").read_text()
        assert str(there.path(str(row.cell.key))) in (other / "qemu.argv").read_text()
    assert (tmp_path / "home" / "index.json").read_bytes() == (tmp_path / "there" / "index.json").read_bytes()
