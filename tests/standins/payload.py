"""The files of one package, collected, and packed as an RPM keeps them: a cpio archive ("newc"), compressed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MTIME = 1_700_000_000  # seconds since the epoch, of all that we make ourselves
CONFIG, NOREPLACE, GHOST = 1, 16, 64  # rpm's include/rpm/rpmfiles.h
KEPT_CONFIG = CONFIG | NOREPLACE
_DIRECTORY_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a package; `source` is the file with its content, else `data` is (of a link, its goal)."""

    mode: int
    data: bytes = b""
    source: Path | None = None
    user: str = "root"
    group: str = "root"
    mtime: int = MTIME
    flags: int = 0

    def content(self) -> bytes:
        return self.source.read_bytes() if self.source else self.data


@dataclass(frozen=True, slots=True)
class PackedFile:
    """What a package's header tells of one path."""

    path: str
    mode: int
    size: int
    mtime: int
    digest: str
    goal: str
    user: str
    group: str
    flags: int


@dataclass(frozen=True, slots=True)
class Packed:
    """A compressed payload on disk, its digests (sha256) and its size in bytes before compression."""

    archive: Path
    files: tuple[PackedFile, ...]
    size: int
    digest: str
    plain_digest: str

    def save(self) -> None:
        """Write what `load` reads beside the archive, last of all: whoever finds it finds a whole archive."""
        data = asdict(self) | {"archive": self.archive.name}
        new = self.archive.with_suffix(".new")
        new.write_text(json.dumps(data))
        new.rename(self.archive.with_suffix(".json"))

    @classmethod
    def load(cls, archive: Path) -> Packed | None:
        try:
            data = json.loads(archive.with_suffix(".json").read_text())
        except FileNotFoundError:
            return None
        files = tuple(PackedFile(**one) for one in data["files"])
        return cls(archive, files, data["size"], data["digest"], data["plain_digest"])


class Files:
    """The paths of one package, absolute."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def file(self, path: str, text: str | bytes, mode: int = 0o644, flags: int = 0) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.entries[path] = Entry(stat.S_IFREG | mode, data, flags=flags)

    def config(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file that the administrator may change and an upgrade leaves alone."""
        self.file(path, text, mode, KEPT_CONFIG)

    def link(self, path: str, goal: str) -> None:
        self.entries[path] = Entry(stat.S_IFLNK | 0o777, goal.encode())

    def directory(self, path: str, mode: int = 0o755, group: str = "root") -> None:
        self.entries[path] = Entry(stat.S_IFDIR | mode, group=group)

    def without_plain_directories(self) -> None:
        """Drop directories that rpm makes by itself: so no two packages say different things about one."""
        parents = {os.path.dirname(path) for path in self.entries}  # noqa: PTH120 - paths of another system
        for path, entry in list(self.entries.items()):
            plain = stat.S_ISDIR(entry.mode) and stat.S_IMODE(entry.mode) == 0o755 and entry.group == "root"
            if plain and path in parents:
                del self.entries[path]

    def pack(self, archive: Path) -> Packed:
        """Write the payload; what it holds is sorted as headers want it, by directory and name."""
        names = sorted(self.entries, key=lambda path: (f"{path.rpartition('/')[0]}/", path.rpartition("/")[2]))
        files = []
        with archive.open("wb") as file:
            stream = _Stream(file)
            for number, path in enumerate(names, 1):
                entry = self.entries[path]
                data = entry.content()
                stream.entry(f".{path}", number, entry.mode, entry.mtime, data)
                files.append(_packed(path, entry, data))
            stream.entry("TRAILER!!!", 0, 0, 0, b"")
            stream.end()
        packed = Packed(archive, tuple(files), stream.size, stream.packed.hexdigest(), stream.plain.hexdigest())
        packed.save()
        return packed


def _packed(path: str, entry: Entry, data: bytes) -> PackedFile:
    is_file, is_link = stat.S_ISREG(entry.mode), stat.S_ISLNK(entry.mode)
    return PackedFile(
        path=path,
        mode=entry.mode,
        size=_DIRECTORY_SIZE if stat.S_ISDIR(entry.mode) else len(data),
        mtime=entry.mtime,
        digest=hashlib.sha256(data).hexdigest() if is_file else "",
        goal=os.fsdecode(data) if is_link else "",
        user=entry.user,
        group=entry.group,
        flags=entry.flags,
    )


class _Stream:
    """cpio entries, compressed by gzip at its quickest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._compress = zlib.compressobj(1, zlib.DEFLATED, 31)
        self.size = 0
        self.plain, self.packed = hashlib.sha256(), hashlib.sha256()

    def entry(self, name: str, inode: int, mode: int, mtime: int, data: bytes) -> None:
        shown = os.fsencode(name) + b"\0"
        fields = (inode, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(shown), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + shown
        for part in (head + bytes(-len(head) % 4), data, bytes(-len(data) % 4)):
            self.size += len(part)
            self.plain.update(part)
            self._write(self._compress.compress(part))

    def end(self) -> None:
        self._write(self._compress.flush())

    def _write(self, data: bytes) -> None:
        self.packed.update(data)
        self._file.write(data)


def of_tree(root: Path, conffiles: set[str], owners: dict[int, str]) -> Iterator[tuple[str, Entry]]:
    """The entries of an unpacked Debian package, by absolute path, where a merged /usr has them.

    `owners` gives names for the numbers of groups other than root's.
    """
    for folder, folders, names in os.walk(root):
        for name in sorted((*folders, *names)):
            source = Path(folder, name)
            plain = f"/{source.relative_to(root)}"
            status = source.lstat()
            mtime = int(status.st_mtime)
            group = owners.get(status.st_gid, "root")
            if stat.S_ISLNK(status.st_mode):
                yield in_usr(plain), Entry(status.st_mode, os.fsencode(source.readlink()), mtime=mtime)
            elif stat.S_ISDIR(status.st_mode):
                yield in_usr(plain), Entry(status.st_mode, group=group, mtime=mtime)
            elif stat.S_ISREG(status.st_mode):
                flags = KEPT_CONFIG if plain in conffiles else 0
                yield in_usr(plain), Entry(status.st_mode, source=source, group=group, mtime=mtime, flags=flags)


def in_usr(path: str) -> str:
    """Where a path lies in a system whose /bin, /sbin and /lib* are links."""
    top = path.split("/")[1]
    return f"/usr{path}" if top in ("bin", "sbin", "lib", "lib64") else path
