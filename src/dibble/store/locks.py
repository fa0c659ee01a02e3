"""Locks between builds that share a store: who makes something, and who uses it. The kernel frees those of the dead.

Whoever makes an entry holds the lock file of its name; others wait and then find it made. Whoever uses an entry holds
one byte of the file `uses`, at a place that the entry's name gives; only who can have that byte alone may remove it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import struct
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROCESS = os.getpid()
"""The process that was started from outside: what runs in a PID namespace has a number there that nobody else knows."""
_FLOCK = "hhqqi"  # struct flock of fcntl(2) on 64-bit Linux: type, whence, start, length, pid
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a lock. `pid` is 0 when that is not known; `since` is in seconds since 1970."""

    pid: int
    command: str
    since: float

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})" if self.pid else "another process"


UNKNOWN = Holder(0, "", 0.0)


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[Holder], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path`, made where it is missing; waits for whoever has it.

    `on_wait` is called once when there is somebody to wait for. Raises StoreError where the file system has no locks.
    """
    descriptor = _taken(path, on_wait)
    try:
        _sign(descriptor)
        yield
    finally:
        os.close(descriptor)


def is_free(path: Path, *, remove: bool = False) -> bool:
    """Whether nobody holds a lock file. With `remove` it goes then; who waits for it makes it anew."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if remove and _is_still(path, descriptor):
            path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def holder_of(path: Path) -> Holder:
    """What a lock file says of whoever held it last."""
    try:
        data = json.loads(path.read_text())
        return Holder(int(data["pid"]), str(data["command"]), float(data["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN


def _taken(path: Path, on_wait: Callable[[Holder], None] | None) -> int:
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is not None:
                    on_wait(holder_of(path))
                    on_wait = None
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still(path, descriptor):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                raise no_locks(path, error) from error
            raise
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed while we waited


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


_SIGNED_BYTES = 2048
"""More than a signature can have: 200 characters of the command, each at most six as JSON."""


def _sign(descriptor: int) -> None:
    """Say in the lock file who holds it; on a full disk nobody can."""
    with contextlib.suppress(OSError):
        text = json.dumps({"pid": PROCESS, "command": " ".join(sys.argv)[:200], "since": time.time()})
        # Blanks cover a longer text of before; to truncate the file would wait for the file system's journal.
        os.pwrite(descriptor, text.encode("utf-8", "replace").ljust(_SIGNED_BYTES), 0)


def no_locks(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the file system of {path.parent} has no locks: {error.strerror}",
        hint="put the cache on a local disk with --image-cache or the variable DIB_IMAGE_CACHE",
    )


class Uses:
    """What this process uses of one store, named as `layers/ID`; held until the process ends or `release`.

    The locks are those of an open file description (fcntl(2), F_OFD_SETLK): children that were forked share them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._held: set[str] = set()

    def make(self) -> None:
        """Make the file, so that who may only read the store can hold entries too. Raises OSError."""
        os.close(os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))

    def hold(self, name: str) -> None:
        """Hold an entry together with others. Look afterwards whether it is there: it may just have been removed."""
        if name not in self._held and self._lock(name):
            self._held.add(name)

    def is_used(self, name: str) -> bool:
        """Whether somebody else holds an entry."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            request = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _place(name), 1, 0)
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, request)
            return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Let go of everything."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        self._held.clear()

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Try to have an entry alone for the time of the block; gives whether that is so. Never waits."""
        # A description of its own: its locks conflict with those of every other one, in this process too.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            yield _lock_byte(descriptor, _place(name), fcntl.F_WRLCK, wait=False)
        finally:
            os.close(descriptor)

    def _lock(self, name: str) -> bool:
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False  # made by an older dibble, and not opened for writing since: nothing is removed there
        return _lock_byte(self._descriptor, _place(name), fcntl.F_RDLCK, wait=True)


def _place(name: str) -> int:
    """The byte that stands for an entry; 62 bits, so that no two entries of one store meet."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2


def _lock_byte(descriptor: int, place: int, kind: int, *, wait: bool) -> bool:
    request = struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
