"""An archive of the system that a disk image holds, made without a mount, a loop device or a partition scanner.

qemu-img makes a plain file of whatever format the image has (raw, qcow2, vmdk, vhd, vhdx …), the file systems are read
by their own tools, and their trees are put together as they would be mounted: `/boot` and `/boot/efi` into `/`.
"""

from __future__ import annotations

import stat
import tarfile
from typing import TYPE_CHECKING

from dibble.errors import ReadError, ToolFailed
from dibble.read import vfat
from dibble.read.btrfs import BtrfsReader
from dibble.read.ext import ExtReader
from dibble.read.partitions import FoundPartition, partitions_of
from dibble.read.roles import Found, roles_of
from dibble.read.superblocks import BTRFS, TREES, VFAT, XFS, Content, content_at
from dibble.read.xfs import XfsReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from dibble.read.entry import Entry
    from dibble.sandbox.toolbox import Toolbox

_PACKED = {b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
"""A socket has no place in an archive: whoever listens makes it."""


def archive_image(image: Path, archive: Path, toolbox: Toolbox, scratch: Path) -> Mapping[str, str]:
    """Write a pax archive of the system in `image`; returns what was read, as mount point → partition in words.

    `scratch` is an empty directory that the tools see; it takes up to twice the room of the image's data and is left
    empty. `archive` is complete or not there. Raises ReadError, and ToolFailed where a tool cannot do its work.
    """
    raw = _plain(image, toolbox, scratch)
    with raw.open("rb") as disk:
        size = raw.stat().st_size
        partitions = partitions_of(disk, size)
        whole = content_at(disk, 0)
        if not partitions or whole.kind in TREES:
            partitions = (FoundPartition(0, 0, size, ""),)
        found = [(partition, content_at(disk, partition.offset)) for partition in partitions]
    roles = roles_of(found, image.name)
    try:
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
            for number, point in enumerate(sorted(roles)):
                directory = scratch / f"tree-{number}"
                directory.mkdir()
                _add(tar, point, _entries(raw, roles[point], toolbox, directory))
                for file in directory.rglob("*"):
                    if not file.is_dir():
                        file.unlink()
    except BaseException:
        archive.unlink(missing_ok=True)
        raise
    finally:
        for file in scratch.iterdir():
            if file.is_file():
                file.unlink()
    return {point: _in_words(*roles[point]) for point in sorted(roles)}


def _in_words(partition: FoundPartition, content: Content) -> str:
    where = f"partition {partition.number}" if partition.number else "the whole disk"
    label = f", label {content.label}" if content.label else ""
    return f"{where} ({content.kind}{label})"


def _plain(image: Path, toolbox: Toolbox, scratch: Path) -> Path:
    """The disk as a sparse file of its own, which may be changed."""
    with image.open("rb") as file:
        head = file.read(8)
    program = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    source = image
    try:
        if program:
            source = scratch / "unpacked"
            with source.open("wb") as out:
                toolbox.run([program, "-d", "-c", toolbox.path(image)], stdout_file=out)
        raw = scratch / "disk.raw"
        toolbox.run(["qemu-img", "convert", "-O", "raw", toolbox.path(source), toolbox.path(raw)])
    except ToolFailed as error:
        raise ReadError(f"{image.name} is no disk image that can be read: {error.output.strip()}") from error
    if program:
        source.unlink()
    return raw


def _entries(raw: Path, found: Found, toolbox: Toolbox, scratch: Path) -> Iterator[Entry]:
    partition, content = found
    if content.kind == VFAT:
        return vfat.entries(raw, partition.offset, toolbox, scratch)
    if content.kind == XFS:
        return XfsReader(raw, partition.offset, partition.size, scratch).entries()
    if content.kind == BTRFS:
        return BtrfsReader(raw, partition.offset, partition.size, scratch).entries()
    if not content.needs_recovery:
        return ExtReader(raw, partition.offset, toolbox, scratch).entries()
    alone = raw.with_name(f"partition-{partition.number}.raw")
    options = f"driver=raw,offset={partition.offset},size={partition.size},file.driver=file"
    options += f",file.filename={toolbox.path(raw)}"
    toolbox.run(["qemu-img", "convert", "--image-opts", "-O", "raw", options, toolbox.path(alone)])
    # e2fsck(8): 0 and 1 are well; what it finds beside the journal does not keep the tree from being read
    toolbox.run(["e2fsck", "-y", "-E", "journal_only", toolbox.path(alone)], check=False)
    with alone.open("rb") as disk:
        if content_at(disk, 0).needs_recovery:
            raise ReadError("the journal of a file system in the image cannot be replayed", hint="run fsck on it first")
    return ExtReader(alone, 0, toolbox, scratch).entries()


def _add(tar: tarfile.TarFile, point: str, entries: Iterable[Entry]) -> None:
    """Add the entries of a file system below its mount point."""
    prefix = f".{point}".rstrip("/")
    first: dict[int, str] = {}
    for entry in entries:
        name = f"{prefix}/{entry.path}".rstrip("/")
        kind = _TYPES.get(stat.S_IFMT(entry.mode))
        if kind is None:
            continue
        member = tarfile.TarInfo(name)
        member.type, member.mode = kind, stat.S_IMODE(entry.mode)
        member.uid, member.gid, member.mtime = entry.uid, entry.gid, entry.mtime
        member.pax_headers = {
            f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in entry.attributes.items()
        }
        if kind != tarfile.DIRTYPE and entry.inode in first:
            member.type, member.linkname, member.pax_headers = tarfile.LNKTYPE, first[entry.inode], {}
            tar.addfile(member)
            continue
        first[entry.inode] = name
        member.linkname = entry.link
        member.devmajor, member.devminor = entry.device
        if entry.content is None:
            tar.addfile(member)
            continue
        member.size = entry.content.stat().st_size
        with entry.content.open("rb") as content:
            tar.addfile(member, content)
