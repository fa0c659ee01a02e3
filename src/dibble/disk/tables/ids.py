"""Ids of disks and partitions, which follow from the recipe, and the names that a kernel makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid5

if TYPE_CHECKING:
    from uuid import UUID

    from dibble.disk.model import Partition, Table


def disk_guid(seed: UUID, table: Table) -> UUID:
    return uuid5(seed, f"disk {table.base}")


def mbr_disk_id(seed: UUID, table: Table) -> int:
    """The 32 bits at byte 440 of an MBR."""
    return disk_guid(seed, table).int >> 96


def partition_guid(seed: UUID, table: Table, name: str) -> UUID:
    return uuid5(seed, f"partition {table.base} {name}")


def partuuid(seed: UUID, table: Table, partition: Partition) -> str:
    """What `PARTUUID=` says for a partition, in the kernel and in libblkid (block/partitions/msdos.c, efi.c)."""
    if table.label == "mbr":
        return f"{mbr_disk_id(seed, table):08x}-{partition.number:02x}"
    return str(partition_guid(seed, table, partition.name))
