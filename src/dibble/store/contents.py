"""What an entry of the store holds, written into it when it is made, so that later damage is found and named.

The file `contents` of an entry is a head, one record for each name below the entry, and a digest of all that, each
ended by a null byte. A record is `MODE UID GID MTIME SIZE CONTENT ATTRIBUTES PATH`: mode octal, time in nanoseconds,
size in bytes (0 for directories), path relative to the entry. CONTENT is the sha256 of a file or of a link's target,
`-` for a directory, `=` for a file that is a hard link into `packages/` and recorded there, and for a file with holes
`holes:` and a digest that does not depend on where the holes are.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from dibble.store.sparse import data_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set
    from pathlib import Path

NAME = "contents"
HEAD = b"dibble contents 1"
LINKED = b"="
_OWN = (NAME.encode(), f".{NAME}.new".encode())
_BLOCK = 1 << 20
_LARGE = 1 << 20  # bytes from which a file is worth a thread; hashlib lets other threads run from 2 KiB on


@dataclass(frozen=True, slots=True)
class Difference:
    """One name that is not as it was recorded; `what` continues a sentence about it. `path` is relative, decoded."""

    path: str
    what: str


class NoContents(Exception):
    """There is no readable list of contents; the text says why."""


def seal(entry: Path, *, linked: bool = False, known: Mapping[bytes, bytes] = MappingProxyType({})) -> None:
    """Record what `entry` holds. With `linked`, files that have names outside it are known to be recorded there.

    `known` are digests (`content_digest`) that need not be made, by path relative to the entry. Linear in names, and in
    bytes less those of linked files and of `known`. Raises OSError.
    """
    data = b"\0".join((HEAD, *describe(entry, linked=linked, known=known), b""))
    new = entry / f".{NAME}.new"
    new.write_bytes(data + hashlib.sha256(data).hexdigest().encode() + b"\0")
    new.chmod(0o644)
    new.rename(entry / NAME)


def content_digest(path: Path) -> bytes:
    """The digest of a file as it is recorded of one with the same content."""
    return _content(os.fsencode(path), path.lstat())


def describe(entry: Path, *, linked: bool = False, known: Mapping[bytes, bytes] = MappingProxyType({})) -> list[bytes]:
    """The records of all names below `entry`, in the order of their paths."""
    root = os.fsencode(entry)
    plain: list[tuple[bytes, os.stat_result]] = []
    large: list[tuple[bytes, os.stat_result]] = []
    names = list(names_below(root))
    within = Counter(status.st_ino for _, status in names if status.st_nlink > 1) if linked else Counter()
    for relative, status in names:
        is_large = stat.S_ISREG(status.st_mode) and status.st_size >= _LARGE
        (large if is_large else plain).append((relative, status))

    def record(item: tuple[bytes, os.stat_result]) -> bytes:
        relative, status = item
        if status.st_nlink > within[status.st_ino] > 0 and stat.S_ISREG(status.st_mode):
            return _record(root, relative, status, LINKED)
        return _record(root, relative, status, known.get(relative) or _content(root + b"/" + relative, status))

    if large:
        with ThreadPoolExecutor(min(len(large), os.cpu_count() or 1)) as pool:
            running = pool.map(record, large)
            records = [record(item) for item in plain]
            records.extend(running)
    else:
        records = [record(item) for item in plain]
    records.sort(key=lambda text: text.split(b" ", 7)[7])
    return records


def read(entry: Path) -> dict[bytes, tuple[bytes, ...]]:
    """Path → the fields before it, as recorded. Raises NoContents."""
    try:
        data = (entry / NAME).read_bytes()
    except FileNotFoundError:
        raise NoContents("has no record of its contents") from None
    except OSError as error:
        raise NoContents(f"has a record of its contents that cannot be read: {error.strerror}") from error
    body, _, digest = data[:-1].rpartition(b"\0")
    if not data.endswith(b"\0") or hashlib.sha256(body + b"\0").hexdigest().encode() != digest:
        raise NoContents("has a damaged record of its contents")
    head, *records = body.split(b"\0")
    if head != HEAD:
        raise NoContents("has a record of its contents that another version of dibble made")
    found = {}
    for text in records:
        *fields, path = text.split(b" ", 7)
        found[path] = tuple(fields)
    return found


def differences(entry: Path, *, linked: Set[int] = frozenset()) -> Iterator[Difference]:
    """What is not as recorded, in the order of paths; `linked` holds the inode numbers of good files in `packages/`.

    Reads everything. Raises NoContents.
    """
    recorded = read(entry)
    root = os.fsencode(entry)
    present = dict(names_below(root))
    for path in sorted(recorded.keys() | present.keys()):
        name = os.fsdecode(path)
        if path not in present:
            yield Difference(name, "is missing")
        elif path not in recorded:
            yield Difference(name, "was not there")
        elif what := _difference(root, path, present[path], recorded[path], linked):
            yield Difference(name, what)


_FIELDS = ("mode", "owner", "group", "time", "size")


def _difference(
    root: bytes, path: bytes, status: os.stat_result, recorded: tuple[bytes, ...], linked: Set[int]
) -> str | None:
    *numbers, content, attributes = recorded
    if content == LINKED:
        if status.st_ino not in linked:
            return "is no longer the file of its package"
        now = _record(root, path, status, LINKED)
    else:
        try:
            now = _record(root, path, status, _content(root + b"/" + path, status, content))
        except OSError as error:
            return f"cannot be read: {error.strerror}"
    fields = now.split(b" ", 7)[:7]
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(int(numbers[0], 8)):
        return "is of another type"
    for name, was, found in zip(_FIELDS, numbers, fields, strict=False):
        if was != found:
            return f"has another {name} ({_shown(name, found)}, not {_shown(name, was)})"
    if fields[5] != content:
        return "has other content"
    return "has other extended attributes" if fields[6] != attributes else None


def _shown(name: str, value: bytes) -> str:
    return value.decode("ascii", "replace") if name != "time" else f"{int(value) / 1e9:.0f}"


def names_below(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Every name below a directory (relative), but not the record itself."""
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(root + b"/" + folder if folder else root) as entries:
            for entry in entries:
                relative = folder + b"/" + entry.name if folder else entry.name
                if relative in _OWN:
                    continue
                yield relative, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(relative)


def _record(root: bytes, relative: bytes, status: os.stat_result, content: bytes) -> bytes:
    mode = status.st_mode
    size = 0 if stat.S_ISDIR(mode) else status.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else status.st_size
    head = f"{mode:o} {status.st_uid} {status.st_gid} {status.st_mtime_ns} {size}".encode()
    return b" ".join((head, content, _attributes(root + b"/" + relative, mode), relative))


def _attributes(path: bytes, mode: int) -> bytes:
    """A digest of the extended attributes, or `-`."""
    if stat.S_ISLNK(mode):
        return b"-"
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return b"-"  # a file system without them
    if not names:
        return b"-"
    pairs = (os.fsencode(name) + b"=" + os.getxattr(path, name, follow_symlinks=False) for name in sorted(names))
    return hashlib.sha256(b"\0".join(pairs)).hexdigest()[:32].encode()


def _content(path: bytes, status: os.stat_result, recorded: bytes = b"") -> bytes:
    """The digest of a file's bytes or a link's target; in the form of `recorded` when that is given."""
    if stat.S_ISLNK(status.st_mode):
        return hashlib.sha256(os.readlink(path)).hexdigest().encode()  # noqa: PTH115 - bytes
    if not stat.S_ISREG(status.st_mode):
        return b"-"
    with_holes = recorded.startswith(b"holes:") if recorded else status.st_blocks * 512 < status.st_size - _BLOCK
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if with_holes:
            return b"holes:" + _digest_with_holes(descriptor, status.st_size).encode()
        found = hashlib.sha256()
        while block := os.read(descriptor, _BLOCK if status.st_size >= _BLOCK else status.st_size + 1):
            found.update(block)
        return found.hexdigest().encode()
    finally:
        os.close(descriptor)


def _digest_with_holes(descriptor: int, size: int) -> str:
    """A digest of the blocks that are not all zero, with their places; holes are not read."""
    found = hashlib.sha256()
    zeros = bytes(_BLOCK)
    position = 0
    for start, length in data_ranges(descriptor, 0, size):
        position = max(position, start // _BLOCK * _BLOCK)
        while position < start + length:
            block = os.pread(descriptor, _BLOCK, position)
            if not block:
                break  # it became shorter meanwhile
            if block != zeros[: len(block)]:
                found.update(position.to_bytes(8, "big") + block)
            position += len(block)
    return found.hexdigest()
