"""What both partition tables share: errors with the place of a partition, and the search for the smallest disk."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, NoReturn, Protocol

from dibble.disk.sizes import KIB, MIB, Bytes, Percent, human, round_up
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.disk.model import Extent, Partition, Table

STEP = 64 * KIB
"""Disk sizes are multiples of this (contract.md 5.3)."""
NO_LIMIT = 1 << 63


class Place(Protocol):
    """Where the partitions of a table lie on a disk of so many bytes; DiskLayoutError when they do not fit."""

    def __call__(self, table: Table, disk_size: int, sector_size: int) -> dict[str, Extent]: ...


def refuse(partition: Partition, reason: str, hint: str) -> NoReturn:
    """Raise a DiskLayoutError that points at the partition."""
    raise DiskLayoutError(f'partition "{partition.name}" {reason}', hint=hint, where=partition.where)


def asked_size(partition: Partition, free: int) -> Bytes:
    """The bytes that a partition asks for when `free` bytes are left."""
    if partition.size is not None:
        return Bytes(partition.size)
    assert partition.percent is not None, "a partition has a size or a percentage"
    # By way of text, so that 33.3 means 333/1000 and not the nearest binary fraction.
    return Percent(Fraction(str(partition.percent)) / 100).of(max(free, 0))


def too_large(partition: Partition, size: int, free: int) -> NoReturn:
    """Raise the error for a partition that reaches beyond the end of the disk."""
    refuse(
        partition,
        f"takes {human(size)}, but {human(max(free, 0))} of the disk are left for it",
        'make it smaller, give the last partition the size "100%", or make the disk larger',
    )


def smallest_disk(
    table: Table, wanted: Mapping[str, int], sector_size: int, place: Place, limit: int = NO_LIMIT
) -> Bytes:
    """The bytes of the smallest disk, a multiple of 64 KiB, on which each partition of `wanted` has its bytes.

    Fixed sizes stay as they are; a fixed size below the wanted one is an error, as is a table that fits on no disk of
    up to `limit` bytes.
    With several percentages a disk smaller by less than the alignment may do as well, because starts are rounded.
    """
    for partition in table.partitions:
        need = wanted.get(partition.name, 0)
        if partition.size is not None and partition.size < need:
            refuse(
                partition,
                f"has {human(partition.size)}, its content needs {human(need)}",
                f"give it at least {human(round_up(need, MIB))}, or a percentage",
            )

    def lacking(disk_size: int) -> DiskLayoutError | None:
        try:
            extents = place(table, disk_size, sector_size)
        except DiskLayoutError as error:
            return error
        for partition in table.partitions:
            need, has = wanted.get(partition.name, 0), extents[partition.name].size
            if has < need:
                return DiskLayoutError(
                    f'partition "{partition.name}" has {human(has)}, its content needs {human(need)}',
                    hint="give it a larger size or percentage",
                    where=partition.where,
                )
        return None

    enough = Bytes(STEP)
    while error := lacking(enough):
        if enough >= limit:
            raise error
        enough = Bytes(enough * 2)
    too_small = enough // 2 if enough > STEP else 0
    while enough - too_small > STEP:
        middle = round_up((enough + too_small) // 2, STEP)
        if lacking(middle):
            too_small = middle
        else:
            enough = middle
    return enough
