"""Packages of the store → one tree of hard links, as dpkg would have unpacked them into an empty root.

The tree becomes the lowest layer of an overlay and is only ever seen through it: a file in it *is* the file in the
store. A package that cannot be placed beyond doubt (two packages ship one path; a link where another ships a directory)
is left out whole, for the target's own dpkg to unpack later.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import TYPE_CHECKING

from dibble.packages.copy import copy_file
from dibble.packages.unpack.tar import READ_AT
from dibble.sandbox.inside import resolve_inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.packages.dpkg_database import Unpacked

ALIASES = ("bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32")
"""Directories that are links into /usr on a merged system (usr-is-merged; UsrMerge, DEP 17)."""

# Which of them debootstrap makes for an architecture, beside bin, sbin and lib, where base-files does not ship the
# links (before Debian 13): those of its C library's variants.
_LIBRARY_ALIASES = {
    "amd64": ("lib32", "lib64", "libx32"),
    "i386": ("lib64", "libx32"),
    "loong64": ("lib64",),
    "mips64el": ("lib32", "lib64", "libo32"),
    "mipsel": ("lib32", "lib64"),
    "ppc64": ("lib32", "lib64"),
    "ppc64el": ("lib64",),
    "s390x": ("lib32",),
}


class _Collision(Exception):
    """A path is taken; the package must not be merged."""


@dataclass(slots=True)
class MergedTree:
    """A tree that grows by packages."""

    root: Path
    _times: dict[bytes, int] = field(default_factory=dict)
    """Directory → modification time in nanoseconds; set at the end, as each new member changes it."""

    def add(self, unpacked: Unpacked) -> bool:
        """Place all files of a package; False when that cannot be, and then the tree is as before.

        The first package to ship a directory gives it owner, mode and time, as with dpkg.
        """
        placed: list[bytes] = []
        made: list[bytes] = []
        try:
            self._merge(os.fsencode(unpacked.root), b"", placed, made)
        except _Collision:
            for path in reversed(placed):
                os.unlink(path)  # noqa: PTH108 - bytes
            for path in reversed(made):
                os.rmdir(path)  # noqa: PTH106 - bytes
                del self._times[path]
            return False
        return True

    def make_aliases(self, arch: str, time_ns: int) -> None:
        """Make the links of a merged /usr, as debootstrap does for releases whose base-files does not ship them."""
        base = os.fsencode(self.root)
        folders = [base + b"/usr"]
        for name in ("bin", "sbin", "lib", *_LIBRARY_ALIASES.get(arch, ())):
            folders.append(base + b"/usr/" + name.encode())
            link = self.root / name
            link.symlink_to(f"usr/{name}")
            os.utime(link, ns=(READ_AT, time_ns), follow_symlinks=False)
        for folder in folders:
            os.mkdir(folder)  # noqa: PTH102 - bytes
            self._times[folder] = time_ns

    def finish(self) -> None:
        """Set the times of the directories; nothing may be added later."""
        for path, time in self._times.items():
            os.utime(path, ns=(READ_AT, time))

    def _merge(self, source: bytes, below: bytes, placed: list[bytes], made: list[bytes]) -> None:
        """Merge the directory `source` of a package into the directory `below` (relative to the root, or empty)."""
        base = os.fsencode(self.root)
        with os.scandir(source) as entries:
            for entry in entries:
                relative = below + b"/" + entry.name if below else entry.name
                target = base + b"/" + relative
                if entry.is_dir(follow_symlinks=False):
                    self._merge(entry.path, self._directory(entry, relative, target, made), placed, made)
                else:
                    _link(entry, target)
                    placed.append(target)

    def _directory(self, entry: os.DirEntry[bytes], relative: bytes, target: bytes, made: list[bytes]) -> bytes:
        """Make the directory unless it is there; returns where its members go, relative to the root."""
        try:
            os.mkdir(target, 0o700)  # noqa: PTH102 - bytes
        except FileExistsError:
            mode = os.lstat(target).st_mode
            if stat.S_ISDIR(mode):
                return relative
            if not stat.S_ISLNK(mode):
                raise _Collision from None
            real = resolve_inside(self.root, os.fsdecode(relative))
            if not real.is_dir():
                raise _Collision from None
            return os.fsencode(real.relative_to(self.root))
        status = entry.stat(follow_symlinks=False)
        os.chown(target, status.st_uid, status.st_gid)
        os.chmod(target, stat.S_IMODE(status.st_mode))  # noqa: PTH101 - bytes
        made.append(target)
        self._times[target] = status.st_mtime_ns
        return relative


def needs_aliases(packages: Sequence[Unpacked]) -> bool:
    """Whether no package ships the links of a merged /usr although one asks for a merged system."""
    names = {unpacked.package.name for unpacked in packages}
    if not names & {"usr-is-merged", "usrmerge", "init-system-helpers"}:
        return False
    return not any(
        (unpacked.root / "bin").is_symlink() for unpacked in packages if unpacked.package.name == "base-files"
    )


def _link(entry: os.DirEntry[bytes], target: bytes) -> None:
    try:
        os.link(entry.path, target, follow_symlinks=False)
    except FileExistsError:
        raise _Collision from None
    except OSError as error:
        if error.errno not in (errno.EMLINK, errno.EXDEV, errno.EPERM):
            raise
        copy_file(entry.path, target)
