"""Putting files at their final names: whole or not at all, the old file kept under another name, checksums beside.

What is being written lies in a hidden directory `.NAME.new-XXXXXXXX` beside its final name. It holds a locked file as
long as its process lives; what a killed process left is removed by the next one that writes the same name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import NO_ROOM, OutputError
from dibble.store.sparse import copy_sparse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dibble.events import Events
    from dibble.recipe.model import Request

SIDE_SUFFIXES = (".md5", ".sha256")
_LOCK = "lock"
_MAKING_S = 60  # a directory without a lock is being made, or its maker died in between


@contextlib.contextmanager
def placing(name: str, request: Request, events: Events, *, suffix: str = "") -> Iterator[Path]:
    """Give a file name to write to; at the end of the block that file stands at `name`, with checksums.

    `name` is relative to `request.cwd`. An older file of that name is renamed, or replaced with `request.overwrite`;
    `suffix`, without its dot, stays at the end of the other name, where it is more than what follows the last dot.
    When the block fails nothing changes. Raises OutputError when the directory refuses or is full.
    """
    final = request.cwd / name
    with explained(final), _hidden_directory(final) as hidden:
        fresh = hidden / final.name
        yield fresh
        fresh.chmod(0o666 & ~_umask())
        sides = _write_checksums(fresh, name, request.checksums, events)
        if not request.overwrite:
            _set_aside(final, f".{suffix}" if suffix else final.suffix, events)
        # Old checksums go first: at no moment do they stand beside a file that they do not belong to.
        for kind in SIDE_SUFFIXES:
            _beside(final, kind).unlink(missing_ok=True)
        fresh.replace(final)
        for side in sides:
            side.replace(final.parent / side.name)


def move(source: Path, target: Path) -> None:
    """Move a file, over an existing one too; between file systems it is copied with its holes and then removed."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_sparse(source, target)
        source.unlink()


def place_trees(sources: Sequence[Path], target: Path) -> None:
    """Merge the files below each of `sources` into `target`, all readable by all. Raises OutputError.

    Directories are merged, files replaced whole; later sources count more. They are in the form of overlayfs: where one
    has a whiteout, earlier ones have nothing. What `target` had before is not removed. The sources stay as they are.
    """
    if sources:
        with explained(target):
            _merge(sources, target)


@contextlib.contextmanager
def explained(place: Path) -> Iterator[None]:
    """Tell an OSError of the block as an OutputError about `place`, with what to do."""
    try:
        yield
    except OSError as error:
        raise output_error(error, place) from error


def output_error(error: OSError, place: Path) -> OutputError:
    """The error for a file system that refuses to take `place`."""
    directory = place.parent
    reason = error.strerror or str(error)
    if error.errno in NO_ROOM:
        try:
            left = f" ({shutil.disk_usage(directory).free >> 20} MiB are left)"
        except OSError:
            left = ""
        hint = f"free space in {directory}, or name another directory with -o"
        return OutputError(f"no room for {place}{left}: {reason}", hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = f"make {directory} writable for you, or name another directory with -o"
    elif error.errno == errno.ENOENT:
        hint = f"mkdir -p {directory}"
    elif error.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.ENOTDIR, errno.EEXIST):
        hint = f"move away what is in the way of {place}"
    elif error.errno == errno.ENAMETOOLONG:
        hint = "give a shorter name with -o"
    elif error.errno == errno.EFBIG:
        hint = "name a directory on a file system that takes files of this size with -o"
    else:
        hint = f"is the file system of {directory} in order? See dmesg"
    about = f" ({error.filename})" if error.filename and str(error.filename) != str(place) else ""
    return OutputError(f"{place} cannot be written: {reason}{about}", hint=hint)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _umask() -> int:
    """The process's umask, read without changing it (proc(5): /proc/PID/status, since Linux 4.7)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


# --- the hidden directory


@contextlib.contextmanager
def _hidden_directory(final: Path) -> Iterator[Path]:
    start = os.fsdecode(os.fsencode(final.name)[:200])  # a name has at most 255 bytes
    prefix = f".{start}.new-"
    _sweep(final.parent, prefix)
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=final.parent))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, path, ignore_errors=True)
        # Locked under another name first: whoever finds the lock file finds it locked.
        making = path / f"{_LOCK}.making"
        descriptor = os.open(making, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, descriptor)
        with contextlib.suppress(OSError):  # a file system without locks: then leftovers stay
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            making.rename(path / _LOCK)
        yield path


def _sweep(directory: Path, prefix: str) -> None:
    """Remove what dead processes left that were writing the same name."""
    for entry in os.scandir(directory):
        if not entry.name.startswith(prefix) or not entry.is_dir(follow_symlinks=False):
            continue
        try:
            descriptor = os.open(Path(entry.path) / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _MAKING_S:
                    shutil.rmtree(entry.path, ignore_errors=True)
            continue
        except OSError:
            continue  # somebody else's
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path, ignore_errors=True)
        finally:
            os.close(descriptor)


# --- the old file


def _set_aside(final: Path, suffix: str, events: Events) -> None:
    """Give an existing file its dated name, with its checksum files (contract.md 1.4; unique, D54)."""
    if not os.path.lexists(final):
        return
    stamp = time.strftime("%Y.%m.%d-%H.%M.%S")
    stem = final.name.removesuffix(suffix)
    number = 1
    while True:
        more = "" if number == 1 else f"-{number}"
        old = final.with_name(f"{stem}-{stamp}{more}{suffix}")
        number += 1
        if any(os.path.lexists(path) for path in (old, *(_beside(old, kind) for kind in SIDE_SUFFIXES))):
            continue
        try:
            os.link(final, old, follow_symlinks=False)  # so that there is a file at the final name at every moment
        except FileExistsError:
            continue
        except OSError:  # a file of somebody else, or a file system without hard links
            final.rename(old)
        break
    for kind in SIDE_SUFFIXES:
        side = _beside(final, kind)
        if side.is_file():
            text = side.read_bytes()
            head, found, _ = text.rpartition(os.fsencode(final.name))
            _beside(old, kind).write_bytes(head + os.fsencode(old.name) + b"\n" if found else text)
    events.note(f"the older {final.name} is now {old.name}")


# --- checksums


def _write_checksums(fresh: Path, name: str, kinds: Sequence[str], events: Events) -> list[Path]:
    """Write the files that md5sum and sha256sum would, beside `fresh`; they name the file as the user did."""
    if not kinds:
        return []
    with events.activity("checksums"), ThreadPoolExecutor(len(kinds)) as pool:
        sums = list(pool.map(lambda kind: _checksum(fresh, kind), kinds))
    paths = []
    for kind, digest in zip(kinds, sums, strict=True):
        path = _beside(fresh, f".{kind}")
        path.write_bytes(_checksum_line(digest, name))
        paths.append(path)
    return paths


def _checksum(path: Path, kind: str) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _checksum_line(digest: str, name: str) -> bytes:
    """A line of md5sum(1); a name with a backslash or a line end is escaped, which a leading backslash tells."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    return os.fsencode(f"{mark}{digest}  {escaped}\n")


# --- trees


def _merge(sources: Sequence[Path], target: Path) -> None:
    umask = _umask()
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted({path.name for source in sources for path in source.iterdir()}):
        final = target / name
        path = next(source / name for source in reversed(sources) if os.path.lexists(source / name))
        if directories := _directories([source / name for source in sources]):
            if not final.is_dir():
                final.unlink(missing_ok=True)
            _merge(directories, final)
            continue
        with _hidden_directory(final) as hidden:
            fresh = hidden / name
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                fresh.symlink_to(path.readlink())
            elif stat.S_ISREG(status.st_mode):
                copy_sparse(path, fresh)
                fresh.chmod((0o644 | stat.S_IMODE(status.st_mode) & 0o111) & ~umask)
                os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
            else:
                continue  # a whiteout, a socket or a device is nothing to hand over
            fresh.replace(final)


def _directories(paths: Sequence[Path]) -> list[Path]:
    """The directories, of those paths that are there, that an overlay would show merged; none for another thing."""
    found: list[Path] = []
    for path in reversed([path for path in paths if os.path.lexists(path)]):
        if path.is_symlink() or not path.is_dir():
            break
        found.insert(0, path)
        with contextlib.suppress(OSError):  # most file systems say so where there is no such attribute
            if os.getxattr(path, "user.overlay.opaque") == b"y":
                break
    return found
