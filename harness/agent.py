# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness's end of the wire to the guest's agent (``vm-images/src/agent.c``).

A frame is one type byte, a little-endian 32-bit length, the payload. Nothing here waits: bytes in, events out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from harness.errors import MachineError

CHUNK = 1 << 15
"""Bytes of standard input per frame: below a pipe's capacity, so that the agent seldom waits."""

_HEAD = struct.Struct("<cI")
_LARGEST = 1 << 20  # the agent sends at most 64 KiB


class Kind(Enum):
    """Frame types; the first four go to the guest."""

    RUN = b"X"
    INPUT = b"I"
    CLOSE = b"C"
    SIGNAL = b"S"
    HELLO = b"H"
    OUTPUT = b"O"
    ERRORS = b"E"
    RESULT = b"R"


@dataclass(frozen=True)
class Frame:
    """One message."""

    kind: Kind
    payload: bytes = b""

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return _HEAD.pack(self.kind.value, len(self.payload)) + self.payload

    @property
    def status(self) -> int:
        """Exit status in a ``RESULT``: 0 to 255, 128 + N for signal N."""
        return int(struct.unpack("<i", self.payload)[0])


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes, yield the frames they complete.

        Raises:
            MachineError: what arrives is not the agent's protocol.

        """
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            mark, size = _HEAD.unpack_from(self._buffer)
            try:
                kind = Kind(mark)
            except ValueError as error:
                raise MachineError(f"the guest's agent sent an unknown frame type {mark!r}") from error
            if size > _LARGEST:
                raise MachineError(f"the guest's agent announced a frame of {size} bytes")
            if len(self._buffer) < _HEAD.size + size:
                return
            payload = bytes(self._buffer[_HEAD.size : _HEAD.size + size])
            del self._buffer[: _HEAD.size + size]
            yield Frame(kind, payload)
