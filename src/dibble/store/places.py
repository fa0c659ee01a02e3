"""Where things lie in the store, and how they get there whole (design.md 4).

    blobs/      downloads, by sha256             packages/  unpacked packages, by sha256
    layers/     what steps changed               keys/      key of a step → its layers
    outputs/    finished images, by key          tools/     the tools tree, by digest of its lock
    repositories/  package lists                 facts/     what plans want to know
    builds/     what builds did                  locks/     lock files         tmp/  what is being made

Whatever is made is made in `tmp/` and renamed into its place: a crash leaves rubbish in `tmp/` only, and the loser
of a race drops its copy. `sweep` removes the rubbish of dead processes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = ("blobs", "packages", "layers", "keys", "outputs", "tools", "repositories", "facts", "builds", "locks", "tmp")


@dataclass(frozen=True, slots=True)
class Store:
    """The places below one directory."""

    root: Path

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def layers(self) -> Path:
        return self.root / "layers"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def tools(self) -> Path:
        return self.root / "tools"

    @property
    def repositories(self) -> Path:
        return self.root / "repositories"

    @property
    def facts(self) -> Path:
        return self.root / "facts"

    @property
    def builds(self) -> Path:
        return self.root / "builds"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock `name`; waits for whoever has it. The kernel frees the lock of a dead process."""
        descriptor = os.open(self.locks / f"{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def session(self) -> Session:
        return Session(self)

    def sweep(self) -> None:
        """Remove what dead processes left in `tmp/`. Run it inside the namespace: the files may have any owner."""
        dead = []
        with self.locked("sessions"):
            for path in self.tmp.iterdir():
                try:
                    descriptor = os.open(path / ".alive", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    continue  # not a session's
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                else:
                    dead.append((path, descriptor))
        for path, descriptor in dead:
            remove_tree(path)
            os.close(descriptor)


class Session:
    """A directory in `tmp/` that is locked as long as its process lives; a context manager that removes it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        with store.locked("sessions"):  # nobody may take it for a dead one before it has its lock
            self.path = Path(tempfile.mkdtemp(prefix="build-", dir=store.tmp))
            self.path.chmod(0o755)
            self._alive = os.open(self.path / ".alive", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._alive, fcntl.LOCK_EX)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        # Removing a tree must never go through a mount into what is mounted there; what stays is swept later.
        if not _has_mounts(self.path):
            remove_tree(self.path)
        os.close(self._alive)


def _has_mounts(path: Path) -> bool:
    prefix = f"{path}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4].startswith(prefix) for line in lines)


def open_store(root: Path) -> Store:
    """Make the places where they are missing. Raises StoreError, with what to do, when that cannot be."""
    store = Store(root)
    try:
        for place in PLACES:
            (root / place).mkdir(parents=True, exist_ok=True)
        if not os.access(store.tmp, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StoreError(
            f"cannot write to the cache {root}: {error.strerror}",
            hint="give another directory with --image-cache or the variable DIB_IMAGE_CACHE",
        ) from error
    return store


def disk_full(error: OSError, where: Path) -> StoreError:
    """The error for ENOSPC or EDQUOT, with the room that is left."""
    try:
        free = shutil.disk_usage(where).free
        left = f"{free // (1 << 20)} MiB are left"
    except OSError:
        left = "it cannot even be asked"
    return StoreError(
        f"no room left in {where} ({left}): {error.strerror}",
        hint="free space there, or give another directory with --image-cache or the variable DIB_IMAGE_CACHE",
    )


def remove_tree(path: Path) -> None:
    """Remove a directory with all in it, also what its owner may not enter (an overlay's work directory)."""

    if os.geteuid() != 0:  # root, in the namespace too, may enter all that is its own
        _open_directory(str(path))
        for folder, names, _ in os.walk(path):
            for name in names:
                _open_directory(f"{folder}/{name}")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _open_directory(path: str) -> None:
    with contextlib.suppress(OSError):  # what stays shut is told when it is removed
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o700 != 0o700:
            os.chmod(path, 0o700)  # noqa: PTH101 - a hot loop over plain names


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)  # noqa: PTH101 - mkstemp makes it private
        os.replace(name, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108
        raise
