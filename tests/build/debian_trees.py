"""Two trees compared entry by entry: owners, modes, links, attributes, content. One may be a tar archive.

Owners are compared by name: scripts take the next free number, so numbers tell in which order they ran. For the same
reason lists of accounts and marks are sorted.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_ACCOUNTS = ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow")
MOUNTED = ("dev", "proc", "sys")
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "link",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
}


@dataclass(frozen=True)
class Entry:
    """One path. `twins` are all paths of a file with hard links, sorted; `content` a file's text or a link's target."""

    kind: str
    mode: int = 0
    owner: str = "0"
    group: str = "0"
    content: bytes = b""
    twins: tuple[str, ...] = ()
    attributes: tuple[tuple[str, bytes], ...] = ()

    def differences(self, other: Entry) -> list[str]:
        """What differs, in words."""
        found = []
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if ours != theirs:
                show = (lambda value: f"0{value:o}") if field.name == "mode" else _short
                found.append(f"{field.name} {show(ours)} instead of {show(theirs)}")
        return found


def of_root(root: Path) -> dict[str, Entry]:
    """The entries of a directory by their path below it; what is mounted on it is left out."""
    found: dict[str, Entry] = {}
    groups: dict[tuple[int, int], list[str]] = {}
    numbers: dict[str, tuple[int, int]] = {}
    for folder, folders, files in os.walk(root):
        shown = os.path.relpath(folder, root)
        if shown == ".":
            folders[:] = [name for name in folders if name not in MOUNTED]
        for name in (*folders, *files):
            path = os.path.join(folder, name)  # noqa: PTH118
            key = os.path.normpath(os.path.join(shown, name))  # noqa: PTH118
            status = os.lstat(path)
            kind = _kind(status.st_mode)
            content = b""
            attributes: tuple[tuple[str, bytes], ...] = ()
            if kind == "link":
                content = os.fsencode(os.readlink(path))  # noqa: PTH115
            else:
                names = [one for one in os.listxattr(path) if not one.startswith("user.overlay.")]
                attributes = tuple(sorted((one, os.getxattr(path, one)) for one in names))
            if kind == "file":
                with open(path, "rb") as file:  # noqa: PTH123
                    content = file.read()
                numbers[key] = (status.st_dev, status.st_ino)
                groups.setdefault(numbers[key], []).append(key)
            mode = stat.S_IMODE(status.st_mode) if kind != "link" else 0
            found[key] = Entry(kind, mode, str(status.st_uid), str(status.st_gid), content, (), attributes)
    return {key: _with_twins(entry, groups.get(numbers.get(key, (0, 0)), ())) for key, entry in found.items()}


def of_tar(path: Path) -> dict[str, Entry]:
    """The entries of an archive, named as those of a root."""
    found: dict[str, Entry] = {}
    groups: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            key = os.path.normpath(member.name)
            if key.split("/")[0] in (".", *MOUNTED):
                continue
            if member.islnk():
                goal = os.path.normpath(member.linkname)
                first[key] = first.get(goal, goal)
                groups[first[key]].append(key)
                found[key] = found[first[key]]
                continue
            kind = _KINDS[member.type]
            content = b""
            if kind == "file":
                data = archive.extractfile(member)
                assert data is not None
                content = data.read()
                groups[key] = [key]
                first[key] = key
            elif kind == "link":
                content = os.fsencode(member.linkname)
            prefix = "SCHILY.xattr."
            attributes = tuple(
                sorted(
                    (name.removeprefix(prefix), value.encode("utf-8", "surrogateescape"))
                    for name, value in member.pax_headers.items()
                    if name.startswith(prefix)
                )
            )
            mode = member.mode & 0o7777 if kind != "link" else 0
            found[key] = Entry(kind, mode, str(member.uid), str(member.gid), content, (), attributes)
    return {key: _with_twins(entry, groups.get(first.get(key, ""), ())) for key, entry in found.items()}


def in_names(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The same entries with names for the owners, as their own /etc/passwd and /etc/group have them."""
    users, groups = _numbers(entries["etc/passwd"]), _numbers(entries["etc/group"])
    found = {}
    for path, entry in entries.items():
        content = entry.content
        if path in _ACCOUNTS:
            content = b"\n".join(sorted(_without_numbers(path, line) for line in content.splitlines()))
        if path == "var/lib/dpkg/status":  # without blanks at the ends of lines
            content = b"\n".join(line.rstrip() for line in content.rstrip().splitlines())
        if path == "var/lib/apt/extended_states":
            content = b"\n\n".join(sorted(content.strip().split(b"\n\n")))
        if entry.kind == "link":  # the one, or by systemctl the other, when that is there before the unit's package
            content = content.replace(b"/lib/systemd/", b"/usr/lib/systemd/").replace(b"/usr/usr/", b"/usr/")
        named = replace(
            entry,
            owner=users.get(entry.owner, entry.owner),
            group=groups.get(entry.group, entry.group),
            content=content,
        )
        found[path] = named
    return found


def _numbers(file: Entry) -> dict[str, str]:
    """Number → name in /etc/passwd or /etc/group."""
    rows = [line.split(":") for line in file.content.decode().splitlines()]
    return {row[2]: row[0] for row in rows}


def _without_numbers(path: str, line: bytes) -> bytes:
    """A line of an accounts' file without the numbers that are given out from the top down (SYS_UID_MAX)."""
    fields = line.split(b":")
    for place in {"etc/passwd": (2, 3), "etc/group": (2,)}.get(path, ()):
        if 900 <= int(fields[place]) <= 999:
            fields[place] = b"next"
    return b":".join(fields)


def differences(ours: Mapping[str, Entry], theirs: Mapping[str, Entry], ignored: Iterable[str] = ()) -> list[str]:
    """Each path that differs, with what differs; `ignored` paths stand for all below them too."""
    prefixes = tuple(ignored)

    def counts(path: str) -> bool:
        return not any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)

    found = [f"only ours: {path}" for path in ours.keys() - theirs.keys() if counts(path)]
    found += [f"only theirs: {path}" for path in theirs.keys() - ours.keys() if counts(path)]
    for path in ours.keys() & theirs.keys():
        if counts(path) and (words := ours[path].differences(theirs[path])):
            found.append(f"{path}: {'; '.join(words)}")
    return sorted(found)


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISLNK, "link"),
        (stat.S_ISFIFO, "fifo"),
    ):
        if test(mode):
            return name
    return "device"


def _with_twins(entry: Entry, group: Iterable[str]) -> Entry:
    names = tuple(sorted(group))
    if len(names) < 2:
        return entry
    return Entry(entry.kind, entry.mode, entry.owner, entry.group, entry.content, names, entry.attributes)


def _short(value: object) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes {hashlib.sha256(value).hexdigest()[:12]}" if len(value) > 60 else repr(value)
    return repr(value)
