"""The mounts that a sandbox is made of. All of them live in the build's own mount namespace."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import HostError
from dibble.sandbox.inside import resolve_inside
from dibble.sandbox.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_REC,
    make_read_only,
    mount,
    umount,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEV_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "fd/0",
    "stdout": "fd/1",
    "stderr": "fd/2",
    "ptmx": "pts/ptmx",
}
_PAGE = 4096
"""mount(2) takes at most one page of options (on every architecture that we know of at least this much)."""


def bind(source: Path, target: Path, *, read_only: bool = False, recursive: bool = True) -> None:
    """Bind-mount; the mount point must exist and be of the same kind (file or directory)."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))
    if read_only:
        make_read_only(target)


def bind_at(source: Path, root: Path, *, read_only: bool = False) -> None:
    """Show the absolute path `source` at the same path below `root`, making the mount point there.

    What is mounted below `source` comes along, unless `root` itself lies there: that would double all mounts each time.
    """
    target = resolve_inside(root, str(source))
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(exist_ok=True)
    bind(source, target, read_only=read_only, recursive=not root.is_relative_to(source))


def show_files(files: Iterable[Path], root: Path) -> None:
    """Show files at the same paths below `root`, read-only, where nothing has these names there."""
    for file in files:
        if os.path.isfile(file) and not os.path.lexists(resolve_inside(root, str(file))):  # noqa: PTH113 - False without a right
            with contextlib.suppress(OSError):  # a part of its path may be a file there
                bind_at(file, root, read_only=True)


def tmpfs(target: Path, *, mode: int = 0o755, size: str = "") -> None:
    mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode:o}" + (f",size={size}" if size else ""))


def devices(target: Path) -> None:
    """A private /dev: the harmless devices bound from the host, new pseudo terminals, shared memory.

    The directory is not sticky: in a sticky one the kernel refuses to open devices of unmapped owners for creating
    (may_create_in_sticky), which breaks every `> /dev/null`.
    """
    tmpfs(target, mode=0o755)
    for name in DEVICES:
        node = target / name
        node.touch()
        bind(Path("/dev") / name, node, recursive=False)
    (target / "pts").mkdir()
    mount("devpts", target / "pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    (target / "shm").mkdir()
    tmpfs(target / "shm", mode=0o1777)
    for name, goal in _DEV_LINKS.items():
        (target / name).symlink_to(goal)


def system(root: Path) -> None:
    """The /proc of this PID namespace, a private /dev and a read-only view of the host's /sys, below `root`."""
    for name in ("proc", "dev", "sys"):
        (root / name).mkdir(exist_ok=True)
    bind(Path("/proc"), root / "proc")
    devices(root / "dev")
    bind(Path("/sys"), root / "sys", read_only=True)


def overlay(lowers: Sequence[Path], upper: Path, work: Path, target: Path) -> None:
    """Mount an overlay; `lowers` come topmost first.

    Directories are handed over as /proc/self/fd/N, so that the length and the characters of their paths do not matter:
    mount(2) takes one page of options, about 180 layers. `userxattr` is what an unprivileged mount needs
    (Linux >= 5.11); `volatile` leaves out every sync, because a crash discards the layer anyway.
    """
    with contextlib.ExitStack() as stack:

        def handle(path: Path) -> str:
            descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            return f"/proc/self/fd/{descriptor}"

        below = ":".join(handle(path) for path in lowers)
        options = f"lowerdir={below},upperdir={handle(upper)},workdir={handle(work)},userxattr"
        if len(options) >= _PAGE:
            raise HostError(f"{len(lowers)} layers do not fit one overlay mount")
        try:
            mount("overlay", target, "overlay", 0, options + ",volatile")
        except OSError as error:
            raise HostError(
                f"cannot mount an overlay over {upper}: {error.strerror}",
                hint="the cache must be on a file system that overlayfs can write to (ext4, xfs, btrfs, tmpfs), and"
                " the kernel at least 5.11; choose another place with --image-cache or DIB_IMAGE_CACHE",
            ) from error


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of mountinfo(5): `root` is the directory of the file system that is mounted at `path`."""

    path: Path
    root: str
    kind: str
    source: str
    device: str
    options: str


def mounted_below(path: Path) -> list[MountPoint]:
    """The mounts at or below `path`, in the order they were made."""
    found = []
    prefix = str(path).rstrip("/")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        point = fields[4].encode().decode("unicode_escape")
        if point == prefix or point.startswith(prefix + "/"):
            found.append(MountPoint(Path(point), fields[3], tail[0], tail[1], fields[2], fields[5]))
    return found


def unmount_all(path: Path) -> None:
    """Detach every mount at or below `path`."""
    _detach([point.path for point in mounted_below(path)])


def unmount_all_below(path: Path) -> None:
    """Detach every mount below `path`, but not one on `path` itself."""
    _detach([point.path for point in mounted_below(path) if point.path != path])


def _detach(points: Sequence[Path]) -> None:
    """Detach mounts, and with each what is mounted below it (MNT_DETACH, umount2(2)): one call for a whole /dev.

    A place may have several mounts, one over the other.
    """
    known = set(points)
    for point in reversed(points):
        if not known.intersection(point.parents):
            with contextlib.suppress(OSError):  # a mount that went with the one it stood on
                umount(point, MNT_DETACH)


def only_show(directory: Path, names: Sequence[str]) -> None:
    """Mount over a directory one in memory that holds copies of these of its files (paths below it), nothing else."""
    behind = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tmpfs(directory, mode=stat.S_IMODE(os.fstat(behind).st_mode))
        for name in names:
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(f"/proc/self/fd/{behind}/{name}", target, follow_symlinks=False)
    finally:
        os.close(behind)


@contextlib.contextmanager
def hidden(paths: Sequence[Path]) -> Iterator[None]:
    """Make each directory appear empty while the block runs, with its owner and mode as they are."""
    done: list[Path] = []
    try:
        for path in paths:
            status = path.stat()
            mode = stat.S_IMODE(status.st_mode)
            mount("tmpfs", path, "tmpfs", 0, f"mode={mode:o},uid={status.st_uid},gid={status.st_gid},size=4k")
            done.append(path)
        yield
    finally:
        for path in reversed(done):
            umount(path, MNT_DETACH)
