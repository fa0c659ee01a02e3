"""A lean reader of the tar archives in packages, which writes their entries into an empty directory.

Python's `tarfile` takes about as long for its bookkeeping as xz takes to decompress; this does only what packages need:
ustar, GNU long names and pax headers, strictly in order, into a tree that nobody else writes.

Source: pax(1) of POSIX.1-2017 ("ustar Interchange Format", "pax Header Block"); GNU tar manual, "Basic Tar Format".
"""

# Names in a tree are bytes, which pathlib does not take, and there are tens of thousands of them.
# ruff: noqa: PTH101, PTH102, PTH108, PTH211
from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dibble.packages.unpack.ar import DamagedArchive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dibble.packages.unpack.stream import Stream

_Made = TypeVar("_Made")

BLOCK = 512
READ_AT = time.time_ns()
"""When files were last read: after they were changed, so that reading one leaves its time alone (mount(8), relatime)
or makes it a later one; images have the build's time in place of either."""
_ZEROS = bytes(BLOCK)
_XATTR = b"SCHILY.xattr."
_HEADER_LIMIT = 1 << 20  # bytes of one long name or pax header; Linux allows a path of 4 KiB and an attribute of 64 KiB

_REGULAR = (b"0", b"\0", b"7")
_HARD_LINK = b"1"
_SYMLINK = b"2"
_CHARACTER = b"3"
_BLOCK_DEVICE = b"4"
_DIRECTORY = b"5"
_FIFO = b"6"
_NODES = {_CHARACTER: stat.S_IFCHR, _BLOCK_DEVICE: stat.S_IFBLK, _FIFO: stat.S_IFIFO}


@dataclass(slots=True)
class Entry:
    """One entry. `name` and `link` are as the archive has them, `mtime` in nanoseconds, `size` in bytes."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    device: tuple[int, int]
    attributes: dict[str, bytes]


def entries(stream: Stream) -> Iterator[Entry]:
    """The entries in order. The caller takes exactly `size` bytes from the stream before it asks for the next.

    Raises DamagedArchive.
    """
    common: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    while True:
        header = stream.take(BLOCK)
        if header == _ZEROS:
            return
        _check(header)
        kind = header[156:157]
        size = _number(header[124:136])
        if kind in (b"x", b"g", b"L", b"K"):
            if size > _HEADER_LIMIT:
                raise DamagedArchive(f"has an extended header of {size} bytes")
            data = stream.take(size)
            stream.skip(-size % BLOCK)
            if kind == b"L":
                own[b"path"] = data.rstrip(b"\0")
            elif kind == b"K":
                own[b"linkpath"] = data.rstrip(b"\0")
            else:
                (own if kind == b"x" else common).update(_pax(data))
            continue
        entry = _entry(header, kind, size, {**common, **own} if common else own)
        own = {}
        yield entry
        stream.skip(-entry.size % BLOCK)


def _entry(header: bytes, kind: bytes, size: int, extended: dict[bytes, bytes]) -> Entry:
    name = _text(header[0:100])
    if header[257:263] == b"ustar\0" and header[345:346] != b"\0":  # GNU ("ustar  ") has other things there
        name = _text(header[345:500]) + b"/" + name
    if kind == b"\0" and name.endswith(b"/"):  # before POSIX, a directory was told by its name
        kind = _DIRECTORY
    entry = Entry(
        name=name,
        kind=kind,
        mode=_number(header[100:108]) & 0o7777,
        uid=_number(header[108:116]),
        gid=_number(header[116:124]),
        size=size,
        mtime=_number(header[136:148]) * 1_000_000_000,
        link=_text(header[157:257]),
        device=(_number(header[329:337]), _number(header[337:345])) if kind in (_CHARACTER, _BLOCK_DEVICE) else (0, 0),
        attributes={},
    )
    if extended:
        _extend(entry, extended)
    if kind not in _REGULAR:
        entry.size = 0  # what size such an entry states is not that of data
    return entry


def _extend(entry: Entry, extended: dict[bytes, bytes]) -> None:
    try:
        entry.name = extended.get(b"path", entry.name)
        entry.link = extended.get(b"linkpath", entry.link)
        entry.size = int(extended.get(b"size", entry.size))
        entry.uid = int(extended.get(b"uid", entry.uid))
        entry.gid = int(extended.get(b"gid", entry.gid))
        if b"mtime" in extended:
            whole, _, fraction = extended[b"mtime"].partition(b".")
            entry.mtime = int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or 0)
    except ValueError as error:
        raise DamagedArchive(f"has a pax header with a damaged number ({error})") from error
    if any(key.startswith(b"GNU.sparse.") for key in extended):
        raise DamagedArchive("holds a sparse file, which packages do not")
    if entry.size < 0:
        raise DamagedArchive("has a pax header with a negative size")
    for key, value in extended.items():
        if key.startswith(_XATTR):
            entry.attributes[os.fsdecode(key[len(_XATTR) :])] = value


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _number(raw: bytes) -> int:
    """Octal digits, or (GNU) a big-endian number marked by the top bit."""
    if raw[0] & 0x80:
        return int.from_bytes(raw, "big", signed=True) if raw[0] == 0xFF else int.from_bytes(raw[1:], "big")
    try:
        return int(raw.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise DamagedArchive(f"has a damaged number {raw!r} in a tar header") from error


def _check(header: bytes) -> None:
    # The sum of all bytes, the field itself counted as spaces.
    if sum(header) - sum(header[148:156]) + 8 * 0x20 != _number(header[148:156]):
        raise DamagedArchive("has a tar header with a wrong checksum")


def _pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Records "LENGTH KEY=VALUE\\n", where LENGTH counts the whole record; a value may hold any byte."""
    at = 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        try:
            end = at + int(length)
        except ValueError as error:
            raise DamagedArchive("has a damaged pax header") from error
        key, equals, value = data[at + len(length) + 1 : end - 1].partition(b"=")
        if not space or not equals or end <= at or end > len(data) or data[end - 1 : end] != b"\n":
            raise DamagedArchive("has a damaged pax header")
        yield key, value
        at = end


class Writer:
    """Writes entries below `root`, a directory that exists, is empty and belongs to us alone.

    Nothing is ever written through a symbolic link or above `root`. Directories are open to us (0700) until `finish`
    gives them their own owners, modes and times.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root) + b"/"
        self._directories: dict[bytes, Entry | None] = {b"": None}
        found = root.stat()
        # A chown is saved where files come to life with the right owner.
        self._owner = (found.st_uid, found.st_gid)
        self.names: list[bytes] = []
        """Paths as they were written, relative to `root`, in the archive's order; the root itself is empty."""

    def write(self, entry: Entry, stream: Stream) -> None:
        """Write one entry, with its data from the stream. Raises DamagedArchive, OSError."""
        name = _relative(entry.name)
        self.names.append(name)
        if entry.kind == _DIRECTORY:
            self._directory(name, entry)
            return
        parent = name.rpartition(b"/")[0]
        if parent not in self._directories:
            self._directory(parent, None)
        if not name or name in self._directories:
            raise DamagedArchive(f'has "{_shown(name)}" as a directory and as something else')
        path = self._root + name
        if entry.kind in _REGULAR:
            self._regular(path, entry, stream)
        elif entry.kind == _SYMLINK:
            self._replacing(lambda: os.symlink(entry.link, path), path)
            self._dress(path, entry)
        elif entry.kind == _HARD_LINK:
            self._hard_link(path, entry)
        elif entry.kind in _NODES:
            mode = _NODES[entry.kind] | 0o600
            self._replacing(lambda: os.mknod(path, mode, os.makedev(*entry.device)), path)
            self._dress(path, entry)
        else:
            raise DamagedArchive(f'has "{_shown(name)}" of an unknown kind {entry.kind!r}')

    def finish(self) -> None:
        """Give the directories what is theirs, innermost first."""
        for name, entry in sorted(self._directories.items(), reverse=True):
            if entry:
                self._dress(self._root + name, entry)
            else:  # the archive does not list it
                os.chmod(self._root + name, 0o755)  # noqa: S103 - a directory, as dpkg makes one

    def _regular(self, path: bytes, entry: Entry, stream: Stream) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = self._replacing(lambda: os.open(path, flags, 0o600), path)
        try:
            if entry.size:
                stream.write_to(descriptor, entry.size)
            self._dress(descriptor, entry)
        finally:
            os.close(descriptor)

    def _hard_link(self, path: bytes, entry: Entry) -> None:
        target = _relative(entry.link)
        if target.rpartition(b"/")[0] not in self._directories or target in self._directories:
            raise DamagedArchive(f'links "{_shown(entry.name)}" to "{_shown(target)}", which is no file before it')
        try:
            self._replacing(lambda: os.link(self._root + target, path, follow_symlinks=False), path)
        except FileNotFoundError as error:
            raise DamagedArchive(
                f'links "{_shown(entry.name)}" to "{_shown(target)}", which is no file before it'
            ) from error

    def _dress(self, where: bytes | int, entry: Entry) -> None:
        """Owner, mode, extended attributes, time, in the order in which none undoes another.

        A chown clears setuid bits and capabilities; only the time is changed by everything.
        """
        symlink = entry.kind == _SYMLINK
        follow = isinstance(where, int)
        if (entry.uid, entry.gid) != self._owner:
            os.chown(where, entry.uid, entry.gid, follow_symlinks=follow)
        if not symlink:
            os.chmod(where, entry.mode)
        for key, value in entry.attributes.items():
            os.setxattr(where, key, value, follow_symlinks=follow)
        os.utime(where, ns=(READ_AT, entry.mtime), follow_symlinks=follow)

    def _directory(self, name: bytes, entry: Entry | None) -> None:
        if name not in self._directories:
            parent = name.rpartition(b"/")[0]
            if parent not in self._directories:
                self._directory(parent, None)
            try:
                os.mkdir(self._root + name, 0o700)
            except FileExistsError as error:
                raise DamagedArchive(f'has "{_shown(name)}" as a directory and as something else') from error
        if entry or name not in self._directories:
            self._directories[name] = entry

    @staticmethod
    def _replacing(act: Callable[[], _Made], path: bytes) -> _Made:
        """Do it; when the archive has the same name twice, the later entry counts, as with dpkg."""
        try:
            return act()
        except FileExistsError:
            os.unlink(path)
            return act()


def _relative(name: bytes) -> bytes:
    """The path below the root, without "./" and slashes at the end. Raises DamagedArchive when it would leave it."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or b".." in parts or b"\n" in name:
        raise DamagedArchive(f'has an unsafe path "{_shown(name)}"')
    return b"/".join(parts)


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
