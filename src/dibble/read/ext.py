"""ext2, ext3 and ext4 read by debugfs(8): the whole tree with owners, times, extended attributes, links and devices.

debugfs is asked for everything by inode number, many questions to a run, so that no name has to be quoted. What it
prints is in the format of e2fsprogs 1.47 (debugfs/ls.c, debugfs.c).
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from dibble.errors import ReadError
from dibble.read.entry import Entry, is_kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

_ROOT = 2  # the root's inode
_LEFT_OUT = ("lost+found",)  # each file system has one of its own
_LISTED = re.compile(rb"/(\d+)/(\d{6})/(-?\d+)/(-?\d+)/([^/]+)/(\d*)/\n")
_MTIME = re.compile(rb"^ ?mtime: 0x([0-9a-f]{8})(?::([0-9a-f]{8}))?", re.MULTILINE)
_DEVICE = re.compile(rb"^Device major/minor number: (\d+):(\d+)", re.MULTILINE)
_LINK = re.compile(rb'^Fast link dest: "(.*)"\n*\Z', re.MULTILINE | re.DOTALL)
_ATTRIBUTES = re.compile(rb"^Extended attributes:\n((?:  .*\n)+)", re.MULTILINE)
_ATTRIBUTE = re.compile(rb"^  ([^\n]+?) \(\d+\)", re.MULTILINE)
_EPOCH_BITS = 0b11  # of the extra part: two more bits of the seconds; the rest are nanoseconds


class _Listed(NamedTuple):
    """A line of `ls -p`: a name's path, and what it stands for; the size is 0 for a directory."""

    path: str
    mode: int
    uid: int
    gid: int
    inode: int
    size: int


class ExtReader:
    """Reads the file system at `offset` (bytes) of a raw image. `scratch` is an empty directory that the tools see."""

    def __init__(self, image: Path, offset: int, toolbox: Toolbox, scratch: Path) -> None:
        self._name = f"{toolbox.path(image)}?offset={offset}"
        self._toolbox = toolbox
        self._scratch = scratch

    def entries(self) -> Iterator[Entry]:
        """Every entry, a directory before what is in it; the contents lie in the scratch directory.

        Takes as much room there as the files are large. Raises ReadError for what is damaged, ToolFailed.
        """
        listed = self._listed()
        facts = dict(self._answers("stat", sorted({entry.inode for entry in listed})))
        attributes = self._attributes(facts)
        contents = self._contents(listed, facts)
        for entry in listed:
            about = facts[entry.inode]
            link = ""
            if stat.S_ISLNK(entry.mode):
                short = _LINK.search(about)
                link = os.fsdecode(short[1] if short else contents[entry.inode].read_bytes())
            device = _DEVICE.search(about)
            yield Entry(
                entry.path,
                entry.mode,
                entry.uid,
                entry.gid,
                entry.inode,
                mtime=_mtime(about),
                content=contents.get(entry.inode) if stat.S_ISREG(entry.mode) else None,
                link=link,
                device=(int(device[1]), int(device[2])) if device else (0, 0),
                attributes=attributes.get(entry.inode, {}),
            )

    def _listed(self) -> list[_Listed]:
        """All names, level by level."""
        found: list[_Listed] = []
        level = {_ROOT: ""}
        seen = {_ROOT}
        while level:
            below: dict[int, str] = {}
            for inode, text in self._answers("ls -p", list(level)):
                folder = level[inode]
                for entry in self._entries_of(folder, text):
                    name = entry.path.rpartition("/")[2]
                    if name == "." and inode == _ROOT:
                        found.append(_Listed("", entry.mode, entry.uid, entry.gid, _ROOT, 0))
                    if name in (".", "..") or (inode == _ROOT and name in _LEFT_OUT):
                        continue
                    found.append(entry)
                    if stat.S_ISDIR(entry.mode):
                        if entry.inode in seen:
                            raise ReadError(f"the directory {entry.path} is in two places: the file system is damaged")
                        seen.add(entry.inode)
                        below[entry.inode] = entry.path
            level = below
        return found

    def _entries_of(self, folder: str, text: bytes) -> Iterator[_Listed]:
        position = 0
        text = text.rstrip(b"\n") + b"\n" if text.strip() else b""
        while position < len(text):
            match = _LISTED.match(text, position)
            if match is None:
                raise ReadError(f"the directory /{folder} cannot be read: {text[position : position + 80]!r}")
            inode, mode, uid, gid, name, size = match.groups()
            path = f"{folder}/{os.fsdecode(name)}".lstrip("/")
            owners = (int(uid) & 0xFFFFFFFF, int(gid) & 0xFFFFFFFF)
            yield _Listed(path, int(mode, 8), *owners, int(inode), int(size or 0))
            position = match.end()

    def _attributes(self, facts: Mapping[int, bytes]) -> dict[int, dict[str, bytes]]:
        """Extended attributes by inode."""
        wanted: list[tuple[int, str, Path]] = []
        for inode, about in facts.items():
            block = _ATTRIBUTES.search(about)
            for match in _ATTRIBUTE.finditer(block[1]) if block else ():
                name = os.fsdecode(match[1])
                if is_kept(name) and '"' not in name:
                    wanted.append((inode, name, self._scratch / f"attribute-{len(wanted)}"))
        self._ask(f'ea_get -f {self._toolbox.path(file)} <{inode}> "{name}"' for inode, name, file in wanted)
        found: dict[int, dict[str, bytes]] = {}
        for inode, name, file in wanted:
            if not file.exists():
                raise ReadError(f"the attribute {name} of inode {inode} cannot be read")
            found.setdefault(inode, {})[name] = file.read_bytes()
            file.unlink()
        return found

    def _contents(self, listed: Sequence[_Listed], facts: Mapping[int, bytes]) -> dict[int, Path]:
        """Files with the contents, by inode: of regular files that are not empty, and of long symbolic links."""
        sizes: dict[int, int] = {}
        for entry in listed:
            long_link = stat.S_ISLNK(entry.mode) and not _LINK.search(facts[entry.inode])
            if (stat.S_ISREG(entry.mode) and entry.size) or long_link:
                sizes[entry.inode] = entry.size
        files = {inode: self._scratch / f"inode-{inode}" for inode in sizes}
        self._ask(f"dump <{inode}> {self._toolbox.path(file)}" for inode, file in files.items())
        for inode, file in files.items():
            if not file.exists() or file.stat().st_size != sizes[inode]:
                path = next(entry.path for entry in listed if entry.inode == inode)
                raise ReadError(f"/{path} cannot be read: the file system is damaged")
        return files

    def _answers(self, question: str, inodes: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """What debugfs prints for each inode."""
        text = self._ask(f"{question} <{inode}>" for inode in inodes)
        marks = [f"debugfs: {question} <{inode}>\n".encode() for inode in inodes]
        if not text.startswith(tuple(marks[:1])):
            raise ReadError(f"the file system cannot be read: {text[:200].decode('utf-8', 'replace')}")
        begin = 0
        for inode, mark, following in zip(inodes, marks, [*marks[1:], b""], strict=True):
            begin += len(mark)
            end = text.find(b"\n" + following, begin - 1) + 1 if following else len(text)
            if not end:
                raise ReadError(f"the file system cannot be read: nothing is known of its inode {inode}")
            yield inode, text[begin:end]
            begin = end

    def _ask(self, questions: Iterable[str]) -> bytes:
        """Put questions to debugfs and return what it prints on standard output, each question before its answer."""
        script, output = self._scratch / "questions", self._scratch / "answers"
        script.write_text("".join(f"{question}\n" for question in questions))
        with output.open("wb") as file:
            argv = ["debugfs", "-f", self._toolbox.path(script), self._name]
            done = self._toolbox.run(argv, stdout_file=file, check=False)
        if done.status:
            raise ReadError(f"the file system cannot be read: {done.output.strip()}")
        text = output.read_bytes()
        output.unlink()
        return text


def _mtime(about: bytes) -> float:
    """Seconds since 1970 (Linux, Documentation/filesystems/ext4/inodes.rst, "Inode Timestamps")."""
    match = _MTIME.search(about)
    if match is None:
        return 0.0
    low = int(match[1], 16)
    extra = int(match[2] or b"0", 16)
    seconds = (low - (1 << 32) if low >> 31 else low) + ((extra & _EPOCH_BITS) << 32)
    return seconds + (extra >> 2) / 1e9
