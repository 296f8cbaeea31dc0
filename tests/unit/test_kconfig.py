# SPDX-License-Identifier: GPL-2.0-or-later
"""Fragments, and why a symbol is not what was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import kconfig
from harness.config import PROJECT
from harness.errors import UsageError
from harness.kconfig import Model, Request

TREE = Path(__file__).parent.parent / "data" / "fakelinux"


@pytest.fixture(scope="module")
def model() -> Model:
    """The fake tree's symbols."""
    return Model(TREE)


def test_fragment_values(tmp_path: Path) -> None:
    """Both ways to write "off", strings, comments; and what it renders to."""
    path = tmp_path / "a.config"
    path.write_text('CONFIG_A=y\n# a comment\nCONFIG_B=n\n# CONFIG_C is not set\nCONFIG_D="x y"\n\n')
    merged = kconfig.merge([path])
    assert {name: request.value for name, request in merged.items()} == {"A": "y", "B": "n", "C": "n", "D": '"x y"'}
    assert merged["D"].origin == f"{path}:5"
    assert kconfig.render(merged) == 'CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\nCONFIG_D="x y"\n'


def test_later_fragment_wins(tmp_path: Path) -> None:
    """Of two files the later decides."""
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_text("CONFIG_A=y\n")
    second.write_text("# CONFIG_A is not set\n")
    assert kconfig.merge([first, second])["A"].value == "n"


@pytest.mark.parametrize(
    ("text", "word"), [("CONFIG_A=y\nCONFIG_A=n\n", ":1"), ("CONFIG A=y\n", "not a configuration line")]
)
def test_bad_fragment(tmp_path: Path, text: str, word: str) -> None:
    """A contradiction within a file, and a line that is none, are named with their place."""
    path = tmp_path / "bad.config"
    path.write_text(text)
    with pytest.raises(UsageError, match=word):
        kconfig.merge([path])


def test_absent_fragment(tmp_path: Path) -> None:
    """A missing file is an error of the user's, not a traceback."""
    with pytest.raises(UsageError, match="cannot be read"):
        kconfig.merge([tmp_path / "no.config"])


def test_model_reads_structure(model: Model) -> None:
    """Sources are followed, help texts are not symbols."""
    assert {"KSM", "64BIT", "MMU", "FAKE_IDXD"} <= set(model.symbols)
    assert "NOT_A_SYMBOL" not in model.symbols
    assert model.selectors["FAKE_HIDDEN"] == ["FAKE_USER if KSM"]


@pytest.mark.parametrize(
    ("symbol", "value", "config", "words"),
    [
        ("KSN", "y", {}, ["no such symbol", "CONFIG_KSM"]),
        ("KSM", "y", {"64BIT": "y", "MMU": "y"}, ["FAKE_SWAP || FAKE_ZSWAP", "FAKE_SWAP=n"]),
        ("KSM", "y", {"64BIT": "y", "MMU": "y", "FAKE_ZSWAP": "y", "FAKE_NOMMU": "y"}, ["FAKE_NOMMU=y"]),
        ("KSM", "y", {"64BIT": "y", "FAKE_SWAP": "y"}, ["MMU (MMU=n)"]),
        ("FAKE_HIDDEN", "y", {"MMU": "y"}, ["nobody can set it", "FAKE_USER"]),
        ("FAKE_HIDDEN", "n", {"MMU": "y", "FAKE_HIDDEN": "y", "FAKE_USER": "y"}, ["selected by FAKE_USER"]),
        ("FAKE_SLAB", "y", {"MMU": "y", "FAKE_SLUB": "y"}, ["choice", "CONFIG_FAKE_SLUB"]),
        ("FAKE_IDXD", "m", {"MMU": "y", "NR_CPUS": "2"}, ["FAKE_DMA=n", "NR_CPUS=2", "EXPERT=n"]),
    ],
)
def test_explain(model: Model, symbol: str, value: str, config: dict[str, str], words: list[str]) -> None:
    """The reason names the symbols it hangs on, with their values."""
    said = model.explain(Request(symbol, value, "f:1"), config)
    for word in words:
        assert word in said


def test_explain_names_only_what_is_off(model: Model) -> None:
    """Dependencies that hold are not blamed."""
    said = model.explain(Request("KSM", "y", "f:1"), {"64BIT": "y", "MMU": "y", "FAKE_NOMMU": "y", "FAKE_SWAP": "y"})
    assert "FAKE_NOMMU=y" in said
    assert "64BIT" not in said
    assert "SWAP" not in said


def test_verify(model: Model) -> None:
    """Fulfilled requests are silent, module is not built-in, an unknown symbol that is to be off is off."""
    requests = {
        "KSM": Request("KSM", "y", "f:1"),
        "FAKE_IDXD": Request("FAKE_IDXD", "y", "f:2"),
        "GONE_SINCE": Request("GONE_SINCE", "n", "f:3"),
    }
    config = {"KSM": "y", "FAKE_IDXD": "m", "MMU": "y", "FAKE_DMA": "y", "NR_CPUS": "8", "EXPERT": "y"}
    problems = kconfig.verify(requests, config, model)
    assert len(problems) == 1
    assert "CONFIG_FAKE_IDXD=y (f:2): it is m" in problems[0]


def test_own_fragments_are_sound() -> None:
    """The committed fragments parse, and every profile names fragments that exist."""
    from harness import kbuild

    for profile in kbuild.profiles(PROJECT / "kernel" / "profiles.toml").values():
        requests = kconfig.merge(profile.fragments)
        assert "KSM" not in requests if profile.name == "guest" else requests["KSM"].value == "y"
