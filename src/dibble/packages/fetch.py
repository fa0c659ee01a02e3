"""Downloads into the store: parallel, resumed, retried, verified while they stream.

A blob lies under its own sha256. While it comes it is `.SHA256.part` beside that, locked by whoever writes it; a killed
download goes on from there. What is wanted, and from which mirrors, is decided elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dibble.errors import NO_ROOM, DibbleError, FetchError, FileGone, MidSync, NoSuchSuite, StoreError
from dibble.packages.http import Failure, Reason, new_session, opened
from dibble.store.places import disk_full

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import requests

    from dibble.events import Events, RunningActivity
    from dibble.packages.base import Download

THREADS = 8  # small files are bound by round trips, not by bandwidth; public mirrors allow about this many connections
BREAKS = 5  # broken transfers of one file from one server, each with progress, before the next server is tried
SMALL_LIMIT = 128 << 20  # bytes; the largest index of a Debian suite is some 15 MB compressed

_FULL = (*NO_ROOM, errno.EFBIG)
_MID_SYNC = "the mirror is mid-sync or tampered with: try again later, or name another mirror"
_ONLINE = "run once without --offline"


def fetch_all(downloads: Sequence[Download], blobs: Path, events: Events, *, offline: bool = False) -> dict[str, Path]:
    """Make every download a verified file `blobs/SHA256[:2]/SHA256`; return sha256 → path.

    What is there already is not asked for again. Raises FileGone when the servers that answer have no such file (naming
    every such file), FetchError for other faults of network or mirror, StoreError when `blobs` cannot take the data.
    What was received before a fault stays and is used by the next call. Safe beside others that fetch the same.
    """
    wanted = {download.sha256: download for download in downloads}
    found = {sha256: blob_path(blobs, sha256) for sha256 in wanted}
    missing = [wanted[sha256] for sha256, path in found.items() if not _is_whole(path, wanted[sha256].size)]
    if not missing:
        return found
    if offline:
        names = _listed([_name(download) for download in missing])
        raise FetchError(f"{names}: not in the cache, and --offline forbids to fetch", hint=_ONLINE)
    missing.sort(key=lambda download: -download.size)
    with events.activity("download") as activity:
        _Fetcher(blobs, _Meter(activity, sum(download.size for download in missing))).fetch(missing)
    return found


def get_small(url: str, *, offline: bool = False, limit: int = SMALL_LIMIT) -> bytes:
    """The body of a small file (metadata), unverified. Raises as `fetch_all`; `limit` in bytes guards memory."""
    if offline:
        raise FetchError(f"{url} is not in the cache, and --offline forbids to fetch", hint=_ONLINE)
    session = new_session()
    body = bytearray()
    try:
        with opened(session, url, 0) as answer:
            for chunk in answer.chunks:
                body += chunk
                if len(body) > limit:
                    raise Failure(Reason.WRONG, f"sends more than {limit} bytes")
    except Failure as failure:
        error = _as_error(url, {url: failure})
        if isinstance(error, FileGone):
            raise NoSuchSuite(error.message, hint=error.hint) from failure
        raise error from failure
    finally:
        session.close()
    return bytes(body)


def blob_path(blobs: Path, sha256: str) -> Path:
    """Where the blob lies, or will lie."""
    return blobs / sha256[:2] / sha256


@dataclass(slots=True)
class _Meter:
    """Counts the bytes of all threads together; bytes that turn out useless are taken back."""

    activity: RunningActivity
    total: int
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        with self.lock:
            self.done += count
            self.activity.progress(self.done, max(self.total, self.done), "bytes")


class _Part:
    """The file that a download is received into, and the hash of what it holds so far."""

    def __init__(self, descriptor: int, meter: _Meter) -> None:
        self._descriptor = descriptor
        self._meter = meter
        self._hash = hashlib.sha256()
        self.size = 0
        while chunk := os.read(descriptor, 1 << 20):  # what an earlier run received
            self._count(chunk)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def append(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._count(data)

    def clear(self) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.ftruncate(self._descriptor, 0)
        self._meter.add(-self.size)
        self._hash = hashlib.sha256()
        self.size = 0

    def _count(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)
        self._meter.add(len(data))


class _Fetcher:
    def __init__(self, blobs: Path, meter: _Meter) -> None:
        self._blobs = blobs
        self._meter = meter
        self._stop = threading.Event()
        self._dead: dict[str, Failure] = {}  # host → why; after its tries are used up it is left alone
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    def fetch(self, downloads: Sequence[Download]) -> None:
        errors: list[DibbleError] = []
        gone: dict[str, FileGone] = {}
        with ThreadPoolExecutor(min(THREADS, len(downloads)), thread_name_prefix="fetch") as pool:
            running = {pool.submit(self._one, download): download for download in downloads}
            try:
                for future in as_completed(running):
                    try:
                        future.result()
                    except FileGone as error:
                        gone[_name(running[future])] = error
                    except DibbleError as error:
                        errors.append(error)
                        self._stop.set()  # the others would meet the same
                    except Failure:
                        continue  # stopped because of another's error
            finally:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                for session in self._sessions:
                    session.close()
        if errors:
            raise errors[0]
        if gone:
            first = next(iter(gone.values()))
            if len(gone) == 1:
                raise first
            raise FileGone(f"{_listed(sorted(gone))}: not on the mirror (any more)", hint=first.hint) from first

    def _one(self, download: Download) -> None:
        """Fetch one file from the first server that delivers it."""
        if self._stop.is_set():
            raise Failure(Reason.STOPPED, "stopped")
        path = blob_path(self._blobs, download.sha256)
        failures: dict[str, Failure] = {}
        with _store_faults(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked_part(path) as (part_path, descriptor):
                if _is_whole(path, download.size):
                    part_path.unlink()  # another process was first
                    return
                part = _Part(descriptor, self._meter)
                for url in download.urls:
                    try:
                        self._complete(part, url, download)
                    except Failure as failure:
                        if failure.reason is Reason.STOPPED:
                            raise
                        failures[url] = failure
                    else:
                        os.fchmod(descriptor, 0o644)
                        part_path.rename(path)
                        return
        raise _as_error(_name(download), failures)

    def _complete(self, part: _Part, url: str, download: Download) -> None:
        """Bring the part to its end from one server, going on where a transfer broke."""
        host = urlsplit(url).netloc
        if host in self._dead:
            raise self._dead[host]
        breaks = 0
        while True:
            before = part.size
            try:
                if not download.size or before < download.size:
                    self._receive(part, url, download.size)
                _check(part, download)
            except Failure as failure:
                if failure.reason is Reason.WRONG:
                    part.clear()
                    if before:
                        continue  # perhaps only what an earlier run or server sent was wrong: once from the start
                if failure.reason is not Reason.NO_ANSWER:
                    raise
                breaks += 1
                if part.size <= before or breaks > BREAKS:
                    self._dead[host] = failure
                    raise
            else:
                return

    def _receive(self, part: _Part, url: str, size: int) -> None:
        with opened(self._session(), url, part.size) as answer:
            if answer.offset != part.size:  # the server does not do ranges and sends all
                part.clear()
            for chunk in answer.chunks:
                if self._stop.is_set():
                    raise Failure(Reason.STOPPED, "stopped")
                part.append(chunk)
                if size and part.size > size:
                    raise Failure(Reason.WRONG, f"sends more than the {size} bytes expected")

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = new_session()
            self._sessions.append(session)
        return session


def _check(part: _Part, download: Download) -> None:
    if download.size and part.size != download.size:
        raise Failure(Reason.WRONG, f"sends {part.size} bytes where {download.size} are expected")
    if part.sha256 != download.sha256:
        raise Failure(Reason.WRONG, f"sends a file with sha256 {part.sha256} where {download.sha256} is expected")


@contextmanager
def _locked_part(path: Path) -> Iterator[tuple[Path, int]]:
    """Open the unfinished file of a blob and lock it against other threads and processes.

    The lock is the file's, not the name's: when the previous owner renamed or removed it while we waited, open anew.
    """
    part = path.with_name(f".{path.name}.part")
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(descriptor), part.stat())
            except FileNotFoundError:
                same = False
            if same:
                yield part, descriptor
                return
        finally:
            os.close(descriptor)


@contextmanager
def _store_faults(directory: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(error, directory) from error
        raise StoreError(
            f"cannot write to {error.filename or directory}: {error.strerror}",
            hint="give yourself the right to write there, or set DIB_IMAGE_CACHE to another directory",
        ) from error


def _is_whole(path: Path, size: int) -> bool:
    try:
        found = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return False
    return found == size or not size


def _name(download: Download) -> str:
    return download.name or download.urls[0].rpartition("/")[2]


def _listed(names: Sequence[str]) -> str:
    few = ", ".join(names[:5])
    return f"{few} and {len(names) - 5} more" if len(names) > 5 else few


def _as_error(name: str, failures: Mapping[str, Failure]) -> FetchError:
    """The one error for a file that no server delivered, told by the most telling failure."""
    by_reason = {failure.reason: (url, failure) for url, failure in failures.items()}
    tried = "; ".join(f"{url}: {failure.text}" for url, failure in failures.items())
    if Reason.WRONG in by_reason:
        url, failure = by_reason[Reason.WRONG]
        return MidSync(f"{name}: {urlsplit(url).netloc} {failure.text}", hint=_MID_SYNC)
    if Reason.GONE in by_reason:
        return FileGone(
            f"{name} is not on the mirror (any more): {tried}",
            hint="is the mirror's address right and does it carry this release? else update the package lists",
        )
    if Reason.NO_ANSWER in by_reason:
        url, failure = by_reason[Reason.NO_ANSWER]
        return FetchError(
            f"{urlsplit(url).netloc or url} does not answer: {failure.text}",
            hint="check the network and the proxy variables, or name another mirror (DIB_DISTRIBUTION_MIRROR)",
        )
    if not failures:
        return FetchError(f"{name}: no address to fetch it from", hint="name a mirror (DIB_DISTRIBUTION_MIRROR)")
    return FetchError(f"{name} was refused: {tried}", hint="ask who runs the mirror, or name another one")
