# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``vm-images/src/ycsb`` must send, computed a second time from its documentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
OPERATION, KEY, FIELD, PHASE, VALUE = range(1, 6)
READS = {"a": 50, "b": 95, "c": 100, "d": 95}
FIELDS = 10


def mix(x: int) -> int:
    x &= _MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
    return x ^ x >> 31


def draw(seed: int, client: int, stream: int, place: int) -> int:
    return mix(mix(mix(seed + _GOLDEN) + (client << 8 | stream) * _GOLDEN) + place * _GOLDEN)


def below(random: int, limit: int) -> int:
    return random * limit >> 64


def key(number: int) -> str:
    """YCSB's: FNV-1a of the number's eight bytes, as a signed number without its sign."""
    value = 0xCBF29CE484222325
    for byte in number.to_bytes(8, "little"):
        value = ((value ^ byte) * 0x100000001B3) & _MASK
    return f"user{value if value < 1 << 63 else (1 << 64) - value}"


def score(text: str) -> int:
    """Java's String.hashCode()."""
    value = 0
    for letter in text.encode():
        value = (31 * value + letter) & 0xFFFFFFFF
    return value - (1 << 32 if value >> 31 else 0)


def _spell(bits: int) -> bytes:
    return bytes(32 + (bits >> 6 * i & 63) for i in range(10))


def value(seed: int | None, number: int, field: int, writer: int = 0, version: int = 0) -> bytes:
    """A field's value; without a seed the keyed one."""
    packed = 0 if seed is None else version << 12 | writer
    base = mix(draw(seed or 0, 0, VALUE, number * FIELDS + field) ^ mix(packed))
    return _spell(packed) + b"".join(_spell(draw(base, 0, VALUE, block)) for block in range(1, 10))


def record(seed: int | None, number: int, writer: int = 0, version: int = 0) -> dict[bytes, bytes]:
    return {b"field%d" % field: value(seed, number, field, writer, version) for field in range(FIELDS)}


@dataclass(frozen=True)
class Operation:
    kind: str
    number: int
    field: int


def operations(workload: str, records: int, count: int, seed: int = 1, client: int = 1) -> Iterator[Operation]:
    """The first operations of a client."""
    inserted = 0
    for place in range(count):
        field = below(draw(seed, client, FIELD, place), FIELDS)
        number = below(draw(seed, client, KEY, place), records)
        if below(draw(seed, client, OPERATION, place), 100) < READS[workload]:
            yield Operation("read", number, field)
        elif workload == "d":
            yield Operation("insert", records + inserted, field)
            inserted += 1
        else:
            yield Operation("update", number, field)
