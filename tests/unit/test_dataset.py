# SPDX-License-Identifier: GPL-2.0-or-later
"""The first rows of the real training data, whatever they are packed in, and what is refused."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.experiment import plan, spec
from harness.experiment.dataset import FILE, first_rows
from harness.images import Image, extended
from tests import fleet_twin
from tests.fake_fleet import ARTEFACTS
from tests.unit.test_images import _parse


def uci(rows: int, seed: int = 1) -> bytes:
    """Rows in the form that UCI's SUSY.csv has."""
    table = (fleet_twin.susy_row(seed, i) for i in range(rows))
    return "".join(f"{label:.18e},{','.join(f'{x:.18e}' for x in row)}\n" for label, row in table).encode()


def zipped(data: bytes, *names: str) -> bytes:
    """A zip archive of equal files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return out.getvalue()


def test_the_rows_are_the_same_however_the_file_is_packed(tmp_path: Path) -> None:
    data = uci(30)
    forms = {
        "SUSY.csv": data,
        "SUSY.csv.gz": gzip.compress(data),
        "susy.zip": zipped(gzip.compress(data), "SUSY.csv.gz"),
        "dos.csv": data.replace(b"\n", b"\r\n"),
    }
    found = set()
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        taken = first_rows(tmp_path / name, 20)
        assert taken.path.read_bytes() == b"".join(data.splitlines(keepends=True)[:20])
        found.add((taken.rows, taken.sha256))
    assert len(found) == 1


def test_the_rest_of_a_huge_file_is_not_read(tmp_path: Path) -> None:
    whole = gzip.compress(uci(200)) + b"\x1f\x8bgarbage behind the rows that are needed"
    (tmp_path / "SUSY.csv.gz").write_bytes(whole)
    assert first_rows(tmp_path / "SUSY.csv.gz", 5).rows == 5


def test_libsvms_format_is_taken_as_it_is(tmp_path: Path) -> None:
    text = "1 1:0.5 3:0.25 18:-1e-3\n0 2:1\n"
    (tmp_path / "SUSY").write_text(text)
    assert first_rows(tmp_path / "SUSY", 2).path.read_text() == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"1,2,3\n", ":1: 2 features, not 18"),
        (uci(1) + b"\n" + uci(1), ":2: an empty row"),
        (uci(1) + b"high," + b"1," * 17 + b"1\n", ":2: could not convert"),
        (b"1 19:0.5\n", "numbered 1 to 18"),
        (b"1 2:0.5 2:0.5\n", "each once"),
        (b"1 2:half\n", "could not convert"),
        (uci(3), "it has 3 rows, the fleet trains on 5"),
        (b"", "it has 0 rows"),
        (gzip.compress(uci(9))[:500], "ended before"),
        (b"\x1f\x8b\x00\x00 no gzip", "compression method"),
        (zipped(uci(9), "a", "b"), "holds 2 files: a, b"),
        (zipped(uci(9), "a")[:40], "not a zip file"),
        (b"\x00\xff" * 50, "could not convert"),
    ],
)
def test_what_is_no_such_file_is_refused_by_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        first_rows(path, 5)
    assert said in caught.value.message


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        first_rows(tmp_path / "absent", 5)


def test_the_data_are_part_of_a_cell(tmp_path: Path) -> None:
    paths = []
    for number in (1, 2):
        paths.append(tmp_path / f"{number}.csv")
        paths[-1].write_bytes(uci(600, seed=number))
    made = [plan.make(spec.load("fig12"), ARTEFACTS, profile="unit", dataset=path).cells[0] for path in (None, *paths)]
    assert len({cell.key for cell in made}) == 3
    assert f"dataset {FILE}\n" in made[1].text
    assert "dataset -\n" in made[0].text
    assert "dataset" not in made[0].inputs
    dataset = made[1].dataset
    assert dataset is not None
    assert made[1].inputs["dataset"] == {"rows": 500, "sha256": dataset.sha256}
    # the name and place of the file, and rows that are not used, are nothing to the result
    (tmp_path / "moved.csv").write_bytes(uci(700, seed=1))
    moved = plan.make(spec.load("fig12"), ARTEFACTS, profile="unit", dataset=tmp_path / "moved.csv").cells[0]
    assert moved.key == made[1].key


def test_an_image_takes_a_second_archive(tmp_path: Path) -> None:
    from harness.images import Entry, cpio

    first = cpio([Entry("init", 0o100755, b"x" * 5)])
    (tmp_path / "image").write_bytes(first)
    (tmp_path / "rows").write_bytes(b"1,2\n")
    image = Image("measured", tmp_path / "image", "abc")
    assert extended(image, {}) is image
    longer = extended(image, {FILE: tmp_path / "rows"})
    whole = longer.path.read_bytes()
    assert whole.startswith(first)
    assert len(first) % 512 == 0
    assert _parse(whole[len(first) :]) == {FILE: (0o100644, b"1,2\n")}
    (tmp_path / "rows").write_bytes(b"1,3\n")
    assert extended(image, {FILE: tmp_path / "rows"}).path != longer.path
