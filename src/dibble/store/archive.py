"""One tree as a compressed archive, and back: how layers, package sets and outputs travel.

The archive is pax (POSIX.1-2017, pax(1)) in zstd (RFC 8878), so that `tar --zstd -xf` opens it. Owners are the numbers
of the namespace. It holds what overlayfs means by names (whiteouts, `user.overlay.*`), hard links, holes (GNU's sparse
format 1.0), times to the nanosecond and the extended attributes that belong to an image.

Unpacking trusts nothing: what it is given comes from somebody else. It writes below one new directory, through
directories that it made itself, and never more bytes than were announced.
"""

# Names in a tree are bytes, which pathlib does not take, and there are tens of thousands of them.
# ruff: noqa: PTH101, PTH102, PTH115, PTH208, PTH211
from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol, cast

from dibble.store.refused import EntryRefused
from dibble.store.sparse import data_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

CHUNK = 1 << 18
LEVEL = 3
"""zstd's own default: packs faster than most networks carry."""
_TAR_BUFFER = 1 << 14  # bytes; tarfile copies what is left of its buffer at every read, so a large one costs seconds
_WINDOW_LIMIT = 1 << 23  # bytes of memory to unpack; RFC 8878, 3.1.1.1.2 asks every decoder for 8 MiB
_SPARSE_LIMIT = 1 << 16  # pieces of one file; more holes than that are stored as zeros
_USTAR_SIZE_LIMIT = 8**11  # bytes; beyond, tarfile misreads a sparse file's size record
_READS_AT_END = 64  # a tar reader that asks more often than that after the end goes round in circles
_XATTR = "SCHILY.xattr."
_MTIME = "mtime"
_WHITEOUT = (0, 0)
_OF_THIS_MACHINE = frozenset({"user.overlay.origin", "user.overlay.uuid"})
"""File handles of the lower layers' inodes; elsewhere they point at nothing (overlayfs.rst, "Inode properties")."""
_ATTRIBUTES = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
_ENCODING, _ERRORS = "utf-8", "surrogateescape"
# What tarfile lets out for archives that nobody wrote in earnest; RecursionError is a chain of extended headers.
_MALFORMED = (tarfile.TarError, ValueError, IndexError, KeyError, OverflowError, RecursionError, EOFError)


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive's identity: `sha256` and `size` of the file, `unpacked` bytes of the tar stream, number of entries."""

    sha256: str
    size: int
    unpacked: int
    entries: int


class NotPortable(Exception):
    """A tree holds what an archive cannot (a device, a socket). The text continues a sentence that names the tree."""


class _Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


def pack(trees: Mapping[str, Path], file: IO[bytes]) -> Archive:
    """Write trees into a file, each under its name. Raises NotPortable, OSError.

    The same trees give the same bytes; the time of a tree's own directory does not count, as it only tells when a layer
    was made. Linear in their content; needs memory only for names of hard links.
    """
    import zstandard

    compressed = _Counting(file.write)
    # zstandard's stubs ask for a whole file; write, and read below, are all that it calls
    writer = zstandard.ZstdCompressor(level=LEVEL).stream_writer(cast("IO[bytes]", compressed), closefd=False)
    plain = _Counting(writer.write, hashed=False)
    entries = 0
    links: dict[tuple[int, int], str] = {}
    for name, path, status in _walk(trees):
        _pack_entry(name, path, status, links, plain)
        entries += 1
    plain.write(bytes(2 * tarfile.BLOCKSIZE))
    writer.flush(zstandard.FLUSH_FRAME)
    return Archive(compressed.sha256, compressed.count, plain.count, entries)


def unpack(source: _Readable, expected: Archive, target: Path, tops: Iterable[str]) -> None:
    """Write an archive's entries below the empty directory `target`, verifying it while it is read.

    `tops` are the names that may stand right in `target`. Raises EntryRefused when the archive is not the expected
    one or holds what it must not, OSError when it cannot be written; whatever is in `target` is worthless then.
    """
    import zstandard

    compressed = _Verifying(source, expected.size)
    plain = _Limited(
        zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT).stream_reader(
            cast("IO[bytes]", compressed), read_size=CHUNK
        ),
        expected.unpacked,
    )
    writer = _Unpacker(os.fsencode(target), frozenset(os.fsencode(name) for name in tops))
    found = 0
    try:
        with tarfile.open(
            fileobj=cast("IO[bytes]", plain),
            mode="r|",
            bufsize=_TAR_BUFFER,
            format=tarfile.PAX_FORMAT,
            encoding=_ENCODING,
            errors=_ERRORS,
        ) as archive:
            while (info := archive.next()) is not None:
                if archive.pax_headers:
                    raise EntryRefused("has a global header")
                found += 1
                if found > expected.entries:
                    raise EntryRefused(f"holds more than the {expected.entries} entries that it should")
                writer.write(info, archive)
                archive.members.clear()  # type: ignore[attr-defined]  # else every entry stays in memory
        while plain.read(CHUNK):
            pass
    except zstandard.ZstdError as error:
        raise EntryRefused(f"does not decompress ({error})") from error
    except _MALFORMED as error:
        raise EntryRefused(f"is no sound tar archive ({error or type(error).__name__})") from error
    compressed.check(expected)
    if (found, plain.count) != (expected.entries, expected.unpacked):
        raise EntryRefused(
            f"holds {found} entries in {plain.count} bytes, not {expected.entries} in {expected.unpacked}"
        )
    writer.finish()


# --- streams


class _Counting:
    """Counts, and digests, what is written through it."""

    def __init__(self, write: Callable[[bytes], object], *, hashed: bool = True) -> None:
        self._write = write
        self._hash = hashlib.sha256() if hashed else None
        self.count = 0

    def write(self, data: bytes) -> int:
        self._write(data)
        self.count += len(data)
        if self._hash:
            self._hash.update(data)
        return len(data)

    def flush(self) -> None:
        """zstandard asks for it; the file is flushed by who opened it."""

    @property
    def sha256(self) -> str:
        assert self._hash is not None
        return self._hash.hexdigest()


class _Verifying:
    """Digests what is read through it, and reads no more than one byte beyond the expected size."""

    def __init__(self, source: _Readable, size: int) -> None:
        self._source = source
        self._left = size + 1
        self._hash = hashlib.sha256()
        self._count = 0

    def read(self, size: int = CHUNK, /) -> bytes:
        data = self._source.read(min(size if size > 0 else CHUNK, self._left))
        self._left -= len(data)
        self._count += len(data)
        self._hash.update(data)
        return data

    def check(self, expected: Archive) -> None:
        while self._left and self.read():
            pass
        if self._count != expected.size:
            more = "more" if self._count > expected.size else f"{self._count}"
            raise EntryRefused(f"has {more} bytes where {expected.size} are expected")
        if self._hash.hexdigest() != expected.sha256:
            raise EntryRefused(f"has the sha256 {self._hash.hexdigest()}, not {expected.sha256}")


class _Limited:
    """Refuses a stream that goes on after `limit` bytes, and a reader that goes on after the stream's end."""

    def __init__(self, source: _Readable, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._ends = 0
        self.count = 0

    def read(self, size: int = CHUNK, /) -> bytes:
        data = self._source.read(min(size, self._limit - self.count + 1))
        self.count += len(data)
        if self.count > self._limit:
            raise EntryRefused(f"unpacks to more than the {self._limit} bytes that it should")
        if not data:
            self._ends += 1
            if self._ends > _READS_AT_END:
                raise EntryRefused("ends in the middle of an entry")
        return data


# --- packing


def _walk(trees: Mapping[str, Path]) -> Iterator[tuple[str, bytes, os.stat_result]]:
    """(name, path, status) of every entry: a directory before what it holds, each sorted by bytes."""
    waiting = [(os.fsencode(name), os.fsencode(path)) for name, path in sorted(trees.items(), reverse=True)]
    while waiting:
        name, path = waiting.pop()
        status = os.lstat(path)
        yield name.decode(_ENCODING, _ERRORS), path, status
        if stat.S_ISDIR(status.st_mode):
            waiting += [(name + b"/" + n, path + b"/" + n) for n in sorted(os.listdir(path), reverse=True)]


def _pack_entry(
    name: str, path: bytes, status: os.stat_result, links: dict[tuple[int, int], str], out: _Counting
) -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    kind = stat.S_IFMT(status.st_mode)
    headers = {_MTIME: _time_text(status.st_mtime_ns if "/" in name or kind != stat.S_IFDIR else 0)}
    if kind != stat.S_IFDIR and status.st_nlink > 1:
        first = links.setdefault((status.st_dev, status.st_ino), name)
        if first != name:
            info.type, info.linkname = tarfile.LNKTYPE, first
            out.write(info.tobuf(tarfile.PAX_FORMAT, _ENCODING, _ERRORS))
            return
    pieces: list[tuple[int, int]] = []
    table = b""
    if kind == stat.S_IFREG:
        pieces = _pieces(path, status)
        data = sum(length for _, length in pieces)
        info.size = status.st_size
        if data != status.st_size:
            table = _sparse_table(pieces)
            info.size = len(table) + data
            # GNU tar manual, "Storing Sparse Files", PAX format 1.0; the name in the header is for other readers
            headers |= {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": name,
                "GNU.sparse.realsize": str(status.st_size),
            }
    elif kind == stat.S_IFLNK:
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path).decode(_ENCODING, _ERRORS)
    elif kind == stat.S_IFDIR:
        info.type = tarfile.DIRTYPE
    elif kind == stat.S_IFIFO:
        info.type = tarfile.FIFOTYPE
    elif kind == stat.S_IFCHR and status.st_rdev == os.makedev(*_WHITEOUT):
        info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, *_WHITEOUT
    else:
        raise NotPortable(f'holds "{name}", which is a {"socket" if kind == stat.S_IFSOCK else "device"}')
    info.pax_headers = headers | _attributes(name, path)
    out.write(info.tobuf(tarfile.PAX_FORMAT, _ENCODING, _ERRORS))
    if kind == stat.S_IFREG:
        out.write(table)
        _copy(name, path, pieces, out)
        out.write(bytes(-info.size % tarfile.BLOCKSIZE))


def _time_text(nanoseconds: int) -> str:
    """Seconds with nine digits behind the point; before 1970 the whole is negative, as pax(1) has it."""
    whole, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{'-' if nanoseconds < 0 else ''}{whole}.{rest:09d}"


def _attributes(name: str, path: bytes) -> dict[str, str]:
    found = {}
    for key in sorted(os.listxattr(path, follow_symlinks=False)):
        if (key.startswith("user.") or key in _ATTRIBUTES) and key not in _OF_THIS_MACHINE:
            if "=" in key or "\n" in key:
                raise NotPortable(f'holds "{name}" with an attribute "{key}", which a pax header cannot name')
            found[_XATTR + key] = os.getxattr(path, key, follow_symlinks=False).decode(_ENCODING, _ERRORS)
    return found


def _pieces(path: bytes, status: os.stat_result) -> list[tuple[int, int]]:
    """(offset, length) of a file's data; one piece when it has no holes."""
    size = status.st_size
    whole = [(0, size)]
    if status.st_blocks * 512 >= size:  # stat(2): blocks are of 512 bytes
        return whole
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        pieces = list(data_ranges(descriptor, 0, size))
    finally:
        os.close(descriptor)
    if len(pieces) > _SPARSE_LIMIT or sum(length for _, length in pieces) >= _USTAR_SIZE_LIMIT // 2:
        return whole
    return pieces


def _sparse_table(pieces: Sequence[tuple[int, int]]) -> bytes:
    numbers = [len(pieces), *(number for piece in pieces for number in piece)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + bytes(-len(text) % tarfile.BLOCKSIZE)


def _copy(name: str, path: bytes, pieces: Sequence[tuple[int, int]], out: _Counting) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for start, length in pieces:
            done = 0
            while done < length:
                data = os.pread(descriptor, min(CHUNK, length - done), start + done)
                if not data:
                    raise NotPortable(f'holds "{name}", which became shorter while it was read')
                out.write(data)
                done += len(data)
    finally:
        os.close(descriptor)


# --- unpacking


class _Unpacker:
    """Writes entries below `root`, an empty directory of our own that nobody else writes to.

    Every entry's parent is a directory of the same archive, every hard link's target a file of it: so no symbolic link
    is ever followed, and nothing outside is named. Directories get their owners, modes and times in `finish`.
    """

    def __init__(self, root: bytes, tops: frozenset[bytes]) -> None:
        self._root = root + b"/"
        self._tops = tops
        self._directories: dict[bytes, tarfile.TarInfo] = {}
        self._files: set[bytes] = set()

    def write(self, info: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        name = self._checked(info)
        path = self._root + name
        try:
            if info.isdir():
                os.mkdir(path, 0o700)
                self._directories[name] = info
                return
            self._files.add(name)
            if info.islnk():
                os.link(self._root + self._link_target(info), path, follow_symlinks=False)
                return
            if info.isreg():
                self._regular(path, info, archive)
                return
            self._special(name, path, info)
            _dress(path, info)
        except FileExistsError as error:
            raise EntryRefused(f'has "{info.name}" twice') from error

    def finish(self) -> None:
        """Dress the directories, innermost first: a time changes with every entry that is made below it."""
        for name in sorted(self._directories, reverse=True):
            _dress(self._root + name, self._directories[name])

    def _checked(self, info: tarfile.TarInfo) -> bytes:
        name = info.name.encode(_ENCODING, _ERRORS)
        parts = name.split(b"/")
        if {b"", b".", b".."} & set(parts) or b"\0" in name:
            raise EntryRefused(f'has an unsafe path "{info.name}"')
        if len(parts) == 1:
            if name not in self._tops:
                raise EntryRefused(f'has "{info.name}", which does not belong there')
        elif name.rpartition(b"/")[0] not in self._directories:
            raise EntryRefused(f'has "{info.name}", whose directory is not in it')
        return name

    def _link_target(self, info: tarfile.TarInfo) -> bytes:
        target = info.linkname.encode(_ENCODING, _ERRORS)
        if target not in self._files or target == info.name.encode(_ENCODING, _ERRORS):
            raise EntryRefused(f'links "{info.name}" to "{info.linkname}", which is no file before it')
        return target

    def _special(self, name: bytes, path: bytes, info: tarfile.TarInfo) -> None:
        if info.issym():
            os.symlink(info.linkname.encode(_ENCODING, _ERRORS), path)
        elif info.isfifo():
            os.mkfifo(path, 0o600)
        elif info.ischr() and (info.devmajor, info.devminor) == _WHITEOUT:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(*_WHITEOUT))
        else:
            raise EntryRefused(f'has "{name.decode(_ENCODING, _ERRORS)}", which is a device or of an unknown kind')

    def _regular(self, path: bytes, info: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        source = archive.fileobj  # at the entry's data: an archive is read once, from its begin to its end
        assert source is not None
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            pieces = [(0, info.size)] if info.sparse is None else _checked_pieces(info)
            for start, length in pieces:
                done = 0
                while done < length:
                    data = source.read(min(CHUNK, length - done))
                    if not data:
                        raise EntryRefused(f'ends in the middle of "{info.name}"')
                    os.pwrite(descriptor, data, start + done)
                    done += len(data)
            if info.sparse is not None:
                os.ftruncate(descriptor, info.size)
            _dress(descriptor, info)
        finally:
            os.close(descriptor)


def _checked_pieces(info: tarfile.TarInfo) -> list[tuple[int, int]]:
    pieces = cast("list[tuple[int, int]]", info.sparse)  # (offset, length); typeshed has it as bytes
    end = 0
    for start, length in pieces:
        if start < end or length < 0:
            raise EntryRefused(f'has "{info.name}" with a damaged table of holes')
        end = start + length
    if end > info.size or len(pieces) > _SPARSE_LIMIT + 1:
        raise EntryRefused(f'has "{info.name}" with a damaged table of holes')
    return pieces


def _dress(where: bytes | int, info: tarfile.TarInfo) -> None:
    """Owner, mode, extended attributes, time, in the order in which none undoes another (chown(2) clears setuid)."""
    follow = isinstance(where, int)
    symlink = info.issym()
    os.chown(where, info.uid, info.gid, follow_symlinks=follow)
    if not symlink:
        os.chmod(where, info.mode & 0o7777)
    for header, text in info.pax_headers.items():
        if header.startswith(_XATTR):
            key = header[len(_XATTR) :]
            if not (key.startswith("user.") or key in _ATTRIBUTES):
                raise EntryRefused(f'has "{info.name}" with an attribute "{key}", which no layer has')
            os.setxattr(where, key, text.encode(_ENCODING, _ERRORS), follow_symlinks=follow)
    os.utime(where, ns=(time.time_ns(), _nanoseconds(info)), follow_symlinks=follow)


def _nanoseconds(info: tarfile.TarInfo) -> int:
    text = info.pax_headers.get(_MTIME)
    if text is None:
        return int(info.mtime) * 1_000_000_000
    whole, _, fraction = text.lstrip("-").partition(".")
    number = int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    return -number if text.startswith("-") else number
