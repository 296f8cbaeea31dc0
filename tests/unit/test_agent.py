# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames survive every way of being cut; nonsense is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agent import Decoder, Frame, Kind
from harness.errors import MachineError

FRAMES = st.lists(st.builds(Frame, st.sampled_from(Kind), st.binary(max_size=300)), max_size=8)


@given(frames=FRAMES, step=st.integers(1, 50))
def test_frames_come_out_as_they_went_in(frames: list[Frame], step: int) -> None:
    wire = b"".join(frame.encode() for frame in frames)
    decoder = Decoder()
    out = [frame for at in range(0, len(wire), step) for frame in decoder.feed(wire[at : at + step])]
    assert out == frames


def test_wire_format_is_the_agents() -> None:
    assert Frame(Kind.RUN, b"ls").encode() == b"X\x02\0\0\0ls"
    assert Frame(Kind.RESULT, struct.pack("<i", 137)).status == 137


def test_unknown_type_and_absurd_length_are_refused() -> None:
    with pytest.raises(MachineError, match="unknown frame type"):
        list(Decoder().feed(b"\x00\x01\0\0\0a"))
    with pytest.raises(MachineError, match="announced"):
        list(Decoder().feed(b"O\xff\xff\xff\xff"))
