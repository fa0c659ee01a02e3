"""A root that is read only as its root hash says: the kernel's command line names the hash, and the two devices.

The words are systemd's (systemd-veritysetup-generator(8)), which an initramfs with systemd understands by itself and
the element `verity` has initramfs-tools understand. They name the opened device `root`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.boot.base import filesystem_of
from dibble.disk.tables.ids import partuuid
from dibble.disk.volumes.verity import HASH_BYTES, Verity
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from uuid import UUID

    from dibble.disk.model import Filesystem, Graph

NO_HASH = bytes(HASH_BYTES)
"""Stands for a root hash that is not known yet."""
_ROOT = "/dev/mapper/root"


def verity_root(graph: Graph, root: Filesystem) -> Verity | None:
    """The device that holds the file system of `/`; None where that is not checked.

    Raises DiskLayoutError where something stands between both, as nothing would open that.
    """
    found = [volume for volume in graph.volumes_below(root.base) if isinstance(volume, Verity)]
    for volume in found:
        if root.base in volume.devices:
            return volume
        raise DiskLayoutError(
            f'the root file system does not stand right on verity "{volume.name}"',
            hint=f'put other volumes below it, and the file system of / on "{volume.name}"',
            where=volume.where,
        )
    return None


def refuse_verity_root(graph: Graph, loader: str) -> None:
    """For a boot loader that gives the kernel no root hash. Raises DiskLayoutError for a root on verity, as the system
    would start from the partition below it, unchecked."""
    root = filesystem_of(graph, "/")
    volume = verity_root(graph, root) if root else None
    if volume is not None:
        raise DiskLayoutError(
            f'{loader} gives the kernel no root hash: the root on verity "{volume.name}" would start unchecked',
            hint="set DIB_BOOTLOADER=systemd-boot, with an EFI system partition (element block-device-efi)",
            where=volume.where,
        )


def sealed_line(line: str, volume: Verity, root_hash: bytes, graph: Graph, seed: UUID) -> str:
    """A command line that starts from the root by its hash, in place of what `root=` said."""
    words = [word for word in line.split() if not word.startswith("root=")]
    data, tree = (_spec(graph, seed, base) for base in volume.bases)
    devices = (f"systemd.verity_root_data={data}", f"systemd.verity_root_hash={tree}")
    return " ".join((f"root={_ROOT}", f"roothash={root_hash.hex()}", *devices, *words))


def _spec(graph: Graph, seed: UUID, device: str) -> str:
    """What a kernel's command line calls a device."""
    for table in graph.tables:
        for partition in table.partitions:
            if partition.name == device:
                return f"PARTUUID={partuuid(seed, table, partition)}"
    for volume in graph.volumes:
        if device in volume.devices:
            return volume.path_of(device)
    raise DiskLayoutError(
        f'"{device}" is a whole disk, which has no name that a root on it could be found by',
        hint="put a partition table on it",
    )
