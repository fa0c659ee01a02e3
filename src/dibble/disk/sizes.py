"""Sizes as people write them in a block-device description (contract.md 5.4), and arithmetic on them.

Everything after this file counts in bytes; sectors appear only inside `tables/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NewType

from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from dibble.errors import Where

Bytes = NewType("Bytes", int)

KIB = Bytes(1 << 10)
MIB = Bytes(1 << 20)
GIB = Bytes(1 << 30)
TIB = Bytes(1 << 40)

# Case matters: a lone M is 10⁶ as in diskimage-builder, not 2²⁰ as in lvcreate.
UNITS: dict[str, int] = {
    "TiB": TIB,
    "GiB": GIB,
    "MiB": MIB,
    "KiB": KIB,
    "TB": 10**12,
    "GB": 10**9,
    "MB": 10**6,
    "KB": 10**3,
    "T": 10**12,
    "G": 10**9,
    "M": 10**6,
    "K": 10**3,
    "B": 1,
    "": 1,
}

_HINT = 'write a number and a unit, such as "10GiB", "1.5 GB" or "512MiB"'
_ABSOLUTE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+|) ?(?P<unit>[A-Za-z]*)")
_PERCENT = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?%")


@dataclass(frozen=True, slots=True)
class Percent:
    """A part of the space that is still free when its turn comes; `share` is 1 for 100 %."""

    share: Fraction

    def of(self, free: int) -> Bytes:
        return Bytes(int(free * self.share))

    def __str__(self) -> str:
        return f"{float(self.share * 100):g}%"


def parse_size(text: str, where: Where | None = None) -> Bytes:
    """The bytes that `text` stands for, rounded down. A missing number is 1, so that `MiB` is 1 MiB.

    Raises DiskLayoutError at `where`.
    """
    match = _ABSOLUTE.fullmatch(text)
    if match is None or not text:
        raise DiskLayoutError(f'"{text}" is not a size', hint=_HINT, where=where)
    unit = match["unit"]
    if unit not in UNITS:
        known = ", ".join(name for name in UNITS if name)
        raise DiskLayoutError(f'"{text}": unknown unit "{unit}"', hint=f"units are {known}; case matters", where=where)
    return Bytes(int(Fraction(match["number"] or "1") * UNITS[unit]))


def parse_share(text: str, where: Where | None = None) -> Bytes | Percent:
    """An absolute size, or a percentage of what is left. Raises DiskLayoutError at `where`."""
    match = _PERCENT.fullmatch(text)
    if match is None:
        return parse_size(text, where)
    share = Fraction(match["number"]) / 100
    if not 0 < share <= 1:
        raise DiskLayoutError(
            f'"{text}" is not between 0% and 100%',
            hint="a percentage is taken of the space left by the partitions before it",
            where=where,
        )
    return Percent(share)


def round_up(value: int, multiple: int) -> Bytes:
    return Bytes(-(-value // multiple) * multiple)


def round_down(value: int, multiple: int) -> Bytes:
    return Bytes(value // multiple * multiple)


def human(value: int) -> str:
    """`value` for people: the largest unit of 1024 with at most two decimals, `8 MiB`, `1.46 GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value >= UNITS[unit]:
            return f"{value / UNITS[unit]:.2f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{value} bytes"
