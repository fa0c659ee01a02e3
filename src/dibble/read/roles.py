"""Which partition of a disk is mounted where: by type, label and size, since nobody is asked. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.errors import ReadError
from dibble.read.superblocks import TREES, VFAT, Content

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dibble.read.partitions import FoundPartition

# The Discoverable Partitions Specification; UEFI 2.10, 5.3.3.
_ESP = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef")
_XBOOTLDR = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
_ROOTS = frozenset(
    {
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",  # x86-64
        "44479540-f297-41b2-9af7-d131d5f0458a",  # x86
        "b921b045-1df0-41c3-af44-4c6f280d3fae",  # 64-bit Arm
        "69dad710-2ce4-4e3c-b16c-21a1d49abed3",  # 32-bit Arm
        "5eead9a9-fe09-4a1e-a1d7-520d00531306",  # s390x
        "c31c45e6-3f39-412e-80fb-4809c4980599",  # ppc64le
        "72ec70a6-cf74-40e6-bd49-4bda08e8f224",  # riscv64
    }
)
_UNREAD = {
    "LVM": "its volumes are LVM's",
    "LUKS": "it is encrypted",
    "RAID": "it is part of a RAID",
}
_HINT = "give an archive of the tree (tar), or an image whose root file system is ext2, ext3, ext4, xfs or btrfs"

Found = tuple["FoundPartition", Content]


def roles_of(found: Iterable[Found], name: str) -> Mapping[str, Found]:
    """Mount point → partition: `/`, and `/boot` and `/boot/efi` where there are such.

    The root file system is the one with a root's type; else that with a root's label; else the largest. Raises
    ReadError, which speaks of `name`, where there is none or where it is of a kind that is not read.
    """
    roles: dict[str, Found] = {}
    others: list[Found] = []
    for one in found:
        partition, content = one
        if partition.kind in _ESP and content.kind == VFAT:
            roles.setdefault("/boot/efi", one)
        elif partition.kind == _XBOOTLDR or "boot" in (content.label.lower(), partition.name.lower()):
            if content.kind in TREES:
                roles.setdefault("/boot", one)
        elif content.kind not in ("", "swap", VFAT):
            others.append(one)
    if not others:
        raise ReadError(f"{name} has no partition with a root file system", hint=_HINT)
    root = max(others, key=_rank)
    kind = root[1].kind
    if kind not in TREES:
        why = _UNREAD.get(kind, f"its file system is {kind}, which is not read yet")
        raise ReadError(f"the root of {name} cannot be read: {why}", hint=_HINT)
    return {"/": root, **roles}


def _rank(one: Found) -> tuple[bool, bool, int]:
    partition, content = one
    labels = (content.label.lower(), partition.name.lower())
    named = any(label in ("root", "rootfs", "/") or label.endswith(("-rootfs", "-root", "_root")) for label in labels)
    return partition.kind in _ROOTS, named, partition.size
