"""A block device of this machine, which then has the bytes of the raw disk.

The kernel lets nobody else claim the device while it is written. Both ends are cleared first and written last: what
broke off does not start, and counts as blank the next time. On a larger device the end stays cleared, since a table
that stood there would be found beside the new one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dibble.errors import UsageError
from dibble.publish.base import Publication, Published, PublishError
from dibble.publish.held import EDGE, held, refuse, too_small
from dibble.store.sparse import data_ranges, write_at

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 4 << 20
# linux/fs.h
_BLKRRPART, _BLKFLSBUF, _BLKZEROOUT, _BLKSSZGET = 0x125F, 0x1261, 0x127F, 0x1268
_PUNCH_HOLE = 0x01 | 0x02  # linux/falloc.h: FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE


class BlockDevice:
    """`device:///dev/NAME`, or just `/dev/NAME`."""

    summary: ClassVar[str] = "a block device of this machine: the bytes of the raw disk"
    place: ClassVar[str] = "/dev/NAME"
    overwrites: ClassVar[bool] = True

    def check(self, publication: Publication) -> None:
        kind, path = publication.properties.format, Path(publication.place)
        if kind != "raw":
            raise UsageError(
                f"{publication.image} is {kind}; a device takes the plain disk", hint="build it as raw: -t raw"
            )
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise UsageError(f"there is no device {path}", hint="lsblk lists those that there are") from error
        if not stat.S_ISBLK(mode):
            raise UsageError(f"{path} is no block device", hint="to make a file, copy the raw disk: cp --sparse=always")

    def publish(self, publication: Publication) -> Published:
        path = Path(publication.place)
        image = os.open(publication.image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with _claimed(path) as device:
                self._write(publication, path, image, device)
        except OSError as error:
            raise PublishError(
                f"{path} cannot be written: {error.strerror}", hint="the kernel's log (dmesg) may say why"
            ) from error
        finally:
            os.close(image)
        publication.progress.finish()
        return Published(str(path), {})

    def _write(self, publication: Publication, path: Path, image: int, device: int) -> None:
        size, room = os.fstat(image).st_size, os.lseek(device, 0, os.SEEK_END)
        if room < size:
            raise too_small(str(path), room, size)
        sector = struct.unpack("i", fcntl.ioctl(device, _BLKSSZGET, bytes(4)))[0]
        if size % sector:
            raise PublishError(
                f"{path} has sectors of {sector} bytes, of which the disk is no whole number",
                hint="build it with another --image-size, in MiB",
            )
        what = held(lambda offset, length: _read(device, offset, length), room)
        if what and not publication.force:
            raise refuse(str(path), what)
        pieces, edges = list(_pieces(image, size)), (EDGE, max(EDGE, room - EDGE))
        total = sum(length for _, length in pieces)
        with publication.events.activity("write") as activity:
            _clear(device, 0, min(EDGE, room))
            _clear(device, max(0, room - EDGE), min(EDGE, room))
            for offset, length in _holes(image, size):
                _clear(device, offset, length)
            written = 0
            for offset, length in sorted(pieces, key=lambda piece: _turn(piece, edges)):
                write_at(device, _read(image, offset, length), offset)
                written += length
                activity.progress(written, total, "bytes")
            os.fsync(device)
        with publication.events.activity("read back"):
            with contextlib.suppress(OSError):  # root's right alone; then it is the kernel's memory that is compared
                fcntl.ioctl(device, _BLKFLSBUF, 0)
            _compare(path, image, device, size)
        with contextlib.suppress(OSError):  # not every device has partitions
            fcntl.ioctl(device, _BLKRRPART, 0)


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[int]:
    """The device, opened so that the kernel refuses what is in use, in whatever name space. Raises PublishError."""
    try:
        device = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            users = uses_of(path)
            raise PublishError(
                f"{path} is in use{': ' if users else ''}{'; '.join(users)}",
                hint="end that first (umount, swapoff, vgchange -an, mdadm --stop, cryptsetup close); --force does not",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PublishError(
                f"{path} may not be written by you", hint="become root, or a member of the device's group"
            ) from error
        if error.errno == errno.EROFS:
            raise PublishError(f"{path} is read-only", hint="make it writable: blockdev --setrw") from error
        raise
    try:
        yield device
    finally:
        os.close(device)


def uses_of(path: Path, *, sysfs: Path = Path("/sys"), proc: Path = Path("/proc")) -> list[str]:
    """What uses a block device or one of its partitions, in words, as far as it is seen from here."""
    number = path.stat().st_rdev
    top = (sysfs / f"dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    parts = [top, *sorted(child.parent for child in top.glob("*/partition"))]
    mounts = [line.split() for line in (proc / "self/mountinfo").read_text("utf-8", "replace").splitlines()]
    swaps = {line.split()[0] for line in (proc / "swaps").read_text("utf-8", "replace").splitlines()[1:]}
    uses = []
    for part in parts:
        name = f"/dev/{part.name}"
        numbers = (part / "dev").read_text().strip() if (part / "dev").is_file() else ""
        uses += [f"{name} is mounted at {m[4]}" for m in mounts if m[2] == numbers or m[m.index("-") + 2] == name]
        uses += [f"{name} is swap space"] if name in swaps else []
        for holder in sorted((part / "holders").iterdir()) if (part / "holders").is_dir() else ():
            uses.append(f"{name} belongs to {_kind_of(holder)} {holder.name}")
    return uses


def _kind_of(holder: Path) -> str:
    if (holder / "md").is_dir():
        return "the RAID array"
    uuid = (holder / "dm/uuid").read_text() if (holder / "dm/uuid").is_file() else ""
    return {"LVM-": "the logical volume", "CRYP": "the opened container"}.get(uuid[:4], "the device")


def _pieces(image: int, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each piece that has data."""
    for begin, length in data_ranges(image, 0, size):
        for offset in range(begin, begin + length, _PIECE):
            yield offset, min(_PIECE, begin + length - offset)


def _turn(piece: tuple[int, int], edges: tuple[int, int]) -> tuple[int, int]:
    """When a piece is written: the middle, from front to back, then the end, then the beginning from back to front."""
    offset, length = piece
    if offset < edges[0]:
        return 2, -offset
    return int(offset + length > edges[1]), offset


def _holes(image: int, size: int) -> Iterator[tuple[int, int]]:
    position = 0
    for begin, length in data_ranges(image, 0, size):
        if begin > position:
            yield position, begin - position
        position = begin + length
    if position < size:
        yield position, size - position


def _clear(device: int, offset: int, length: int) -> None:
    """Make a range zeros: given back to a device that can, else written by it, else written by us."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(device, _PUNCH_HOLE, ctypes.c_longlong(offset), ctypes.c_longlong(length)) == 0:
        return
    try:
        fcntl.ioctl(device, _BLKZEROOUT, struct.pack("QQ", offset, length))
    except OSError:
        for start in range(offset, offset + length, _PIECE):
            write_at(device, bytes(min(_PIECE, offset + length - start)), start)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.pread(descriptor, length, offset)
        if not part:
            break
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)


def _compare(path: Path, image: int, device: int, size: int) -> None:
    for offset in range(0, size, _PIECE):
        length = min(_PIECE, size - offset)
        if _read(image, offset, length) != _read(device, offset, length):
            raise PublishError(
                f"{path} does not give back what was written, from byte {offset} on",
                hint="the device is damaged, smaller than it says, or somebody else has written to it",
            )
