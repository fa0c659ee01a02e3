"""The finished tree as a POSIX (pax) archive, the same bytes for the same tree.

Our own writer, because the standard library's cannot store an extended attribute that is not UTF-8 without a header
that GNU tar warns about. Nothing is held but the names of files with several hard links.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, ClassVar

from dibble.errors import OutputError
from dibble.outputs.base import MAIN_IMAGE, OutputInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.events import Events, RunningActivity
    from dibble.outputs.base import Source
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox

BLOCK = 512
RECORD = 20 * BLOCK  # GNU tar's blocking factor; an archive ends at a multiple of it
_BUFFER = 4 << 20
EMPTIED = (b"./proc", b"./sys")
"""Directories that are stored without their content (contract.md 1.4)."""

# ustar type flags, POSIX.1-2017 pax, "ustar Header Block"
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_HARD_LINK = b"1"
_PAX = b"x"


class Tar:
    """`N.tar`."""

    info: ClassVar[OutputInfo] = OutputInfo(suffix="tar", reads="tree", summary="the tree as a pax archive")

    def write(
        self,
        source: Source,
        target_file: Path,
        request: Request,
        toolbox: Toolbox,
        events: Events,
        *,
        epoch: int,
        image: str = MAIN_IMAGE,
    ) -> None:
        descriptor = os.open(target_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            with events.activity("tar") as activity:
                TarWriter(descriptor, epoch, activity).write_tree(source.root)
        finally:
            os.close(descriptor)


class TarWriter:
    """Writes one archive to a descriptor. Owners are numbers, names begin with `./`, entries are sorted by name."""

    def __init__(self, descriptor: int, epoch: int, activity: RunningActivity | None = None) -> None:
        self._descriptor = descriptor
        self._epoch = epoch
        self._activity = activity
        self._pending = bytearray()
        self._written = 0
        self._links: dict[tuple[int, int], bytes] = {}  # inodes with links still to come → the first name

    def write_tree(self, root: Path) -> None:
        for name, path, status in _walk(os.fsencode(root)):
            self._entry(name, path, status)
        self._put(bytes(2 * BLOCK))
        self._put(bytes(-(self._written + len(self._pending)) % RECORD))
        self._flush()

    def _entry(self, name: bytes, path: bytes, status: os.stat_result) -> None:
        kind = _TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # a socket
            return
        target = os.readlink(path) if kind == b"2" else b""  # noqa: PTH115 - bytes
        size = status.st_size if kind == b"0" else 0
        if kind != b"5" and status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            first = self._links.setdefault(inode, name)
            if first != name:
                kind, target, size = _HARD_LINK, first, 0
        attributes = {} if kind == _HARD_LINK else _attributes(path)
        if kind == b"5":
            name += b"/"
        self._header(name, kind, status, size=size, target=target, attributes=attributes)
        if size:
            self._content(path, size)

    def _header(
        self,
        name: bytes,
        kind: bytes,
        status: os.stat_result,
        *,
        size: int,
        target: bytes,
        attributes: dict[bytes, bytes],
    ) -> None:
        mtime = min(int(status.st_mtime_ns // 1_000_000_000), self._epoch)
        records: dict[bytes, bytes] = {}
        for key, text in ((b"path", name), (b"linkpath", target)):
            if len(text) > 100 or not text.isascii():
                records[key] = text
        for key, number, limit in (
            (b"size", size, 1 << 33),
            (b"uid", status.st_uid, 1 << 21),
            (b"gid", status.st_gid, 1 << 21),
            (b"mtime", mtime, 1 << 33),
        ):
            if not 0 <= number < limit:
                records[key] = b"%d" % number
        for key, value in attributes.items():
            records[b"SCHILY.xattr." + key] = value
        if records:
            body = b"".join(pax_record(key, value) for key, value in records.items())
            self._put(ustar(b"./PaxHeaders/" + name.rstrip(b"/")[-80:], _PAX, size=len(body), mtime=mtime))
            self._put(body + bytes(-len(body) % BLOCK))
        device = status.st_rdev if kind in (b"3", b"4") else 0
        self._put(
            ustar(
                name,
                kind,
                mode=stat.S_IMODE(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                size=size,
                mtime=mtime,
                target=target,
                device=device,
            )
        )

    def _content(self, path: bytes, size: int) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            left = size
            while left:
                data = os.read(descriptor, min(left, _BUFFER))
                if not data:
                    name = os.fsdecode(path)
                    raise OutputError(f"{name} became shorter while it was archived", hint="build again")
                left -= len(data)
                self._put(data)
        finally:
            os.close(descriptor)
        self._put(bytes(-size % BLOCK))

    def _put(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        view = memoryview(self._pending)
        while view:
            count = os.write(self._descriptor, view)
            self._written += count
            view = view[count:]
        self._pending = bytearray()
        if self._activity:
            self._activity.progress(self._written, unit="bytes")


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Every entry as (name in the archive, path, status), a directory before what it holds, each sorted by bytes."""
    waiting: list[tuple[bytes, bytes]] = [(b".", root)]
    while waiting:
        name, path = waiting.pop()
        status = os.lstat(path)
        yield name, path, status
        if stat.S_ISDIR(status.st_mode) and name not in EMPTIED:
            children = sorted(os.listdir(path), reverse=True)  # noqa: PTH208 - bytes, and many
            waiting.extend((name + b"/" + child, path + b"/" + child) for child in children)


def _attributes(path: bytes) -> dict[bytes, bytes]:
    """The extended attributes that belong to the tree, sorted; not those of an overlay or of the host's policy."""
    found = {}
    for text in sorted(os.listxattr(path, follow_symlinks=False)):
        if text.startswith("user.") and not text.startswith("user.overlay."):
            wanted = True
        else:
            wanted = text in ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
        if wanted:
            found[os.fsencode(text)] = os.getxattr(path, text, follow_symlinks=False)
    return found


def pax_record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE` and a line end; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def ustar(
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    target: bytes = b"",
    device: int = 0,
) -> bytes:
    """A header block. What has no room in it is cut, because a pax record before it holds the whole."""
    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            _octal(mode, 8),
            _octal(uid, 8),
            _octal(gid, 8),
            _octal(size, 12),
            _octal(mtime, 12),
            b" " * 8,  # the checksum counts itself as spaces
            kind,
            target[:100].ljust(100, b"\0"),
            b"ustar\00000",
            bytes(64),  # user and group names: owners are numbers
            _octal(os.major(device), 8),
            _octal(os.minor(device), 8),
            bytes(167),  # no prefix
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, width: int) -> bytes:
    if not 0 <= number < 8 ** (width - 1):
        number = 0
    return b"%0*o\0" % (width - 1, number)
