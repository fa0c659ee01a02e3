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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import NO_ROOM, StoreError
from dibble.store import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from dibble.store.locks import Holder, Uses

PLACES = ("blobs", "packages", "layers", "keys", "outputs", "tools", "repositories", "facts", "builds", "locks", "tmp")
ASIDE = "aside-"
"""Begins the names of directories in `tmp/` with entries that were found damaged."""


@dataclass(frozen=True, slots=True)
class Store:
    """The places below one directory. `uses` holds what this process uses of it (`store.locks`).

    `behind` is a store that this one has links to (`store.condition`), `uses_behind` what is used of that.
    """

    root: Path
    behind: Path | None = None
    uses: Uses = field(init=False, repr=False, compare=False)
    uses_behind: Uses | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uses", locks.Uses(self.locks / "uses"))
        behind = locks.Uses(self.behind / "locks" / "uses") if self.behind else None
        object.__setattr__(self, "uses_behind", behind)

    @property
    def roots(self) -> tuple[Path, ...]:
        """The directories in which files of this store may lie."""
        return (self.root,) if self.behind is None else (self.root, self.behind)

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
    def answers(self) -> Path:
        """What package managers answered, among their lists."""
        return self.repositories / "answers"

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

    def locked(self, name: str, on_wait: Callable[[Holder], None] | None = None) -> AbstractContextManager[None]:
        """Hold the lock `name`; waits for whoever has it, after telling `on_wait`."""
        return locks.locked(self.locks / f"{name}.lock", on_wait)

    def use(self, name: str) -> None:
        """Hold an entry (`layers/ID`) as long as this process lives, and note that it was used now.

        Look afterwards whether it is there. On a store that cannot be written nothing is noted.
        """
        self.uses.hold(name)
        if self.uses_behind is not None:
            self.uses_behind.hold(name)
        with contextlib.suppress(OSError):
            os.utime(self.root / name)

    def use_packages(self, digests: Iterable[str]) -> None:
        """Use downloads and unpacked packages, by their sha256 (`use`)."""
        for sha256 in digests:
            for place in ("blobs", "packages"):
                self.use(f"{place}/{sha256[:2]}/{sha256}")

    def session(self) -> Session:
        """Raises StoreError where nothing can be written."""
        try:
            return Session(self)
        except OSError as error:
            raise store_error(error, self.root) from error

    def sweep(self) -> None:
        """Remove what dead processes left in `tmp/`. Run it inside the namespace: the files may have any owner.

        What was put aside as damaged goes when no other process is at work, as it may still be mounted.
        """
        dead = []
        aside = []
        alive = False
        with self.locked("sessions"):
            for path in self.tmp.iterdir():
                if path.name.startswith(ASIDE):
                    aside.append(path)
                    continue
                try:
                    descriptor = os.open(path / ".alive", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    continue  # not a session's
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                    alive = True
                else:
                    dead.append((path, descriptor))
        for path, descriptor in dead:
            remove_tree(path)
            os.close(descriptor)
        for path in aside if not alive else ():
            remove_tree(path)


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


def open_store(root: Path, warn: Callable[[str], None] = lambda text: None) -> Store:
    """The store at `root`, made where it is missing, or the one that must be used instead (`store.condition`).

    `warn` is told why. Raises StoreError, with what to do, when there is no way to go on.
    """
    from dibble.store.condition import opened

    return opened(root, warn)


def open_places(store: Store) -> None:
    """Make the places where they are missing. Raises StoreError, with what to do, when that cannot be."""
    try:
        for place in PLACES:
            (store.root / place).mkdir(parents=True, exist_ok=True)
        if not os.access(store.tmp, os.W_OK):
            readonly = os.statvfs(store.tmp).f_flag & os.ST_RDONLY
            number = errno.EROFS if readonly else errno.EACCES
            raise OSError(number, os.strerror(number))
        store.uses.make()
    except OSError as error:
        raise store_error(error, store.root) from error


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


def store_error(error: OSError, where: Path) -> StoreError:
    """The error for a store that does not take something."""
    if error.errno in NO_ROOM:
        return disk_full(error, where)
    about = f" ({error.filename})" if error.filename else ""
    return StoreError(
        f"cannot write to the cache {where}: {error.strerror}{about}",
        hint="give another directory with --image-cache or the variable DIB_IMAGE_CACHE",
    )


def remove_tree(path: Path) -> None:
    """Remove a directory with all in it, also what its owner may not enter (an overlay's work directory).

    Of a symbolic link only the link goes.
    """
    if path.is_symlink():
        path.unlink(missing_ok=True)
        return
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
