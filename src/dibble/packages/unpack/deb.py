"""Debian packages → directories in the store, natively and in parallel. No maintainer script runs here.

One package becomes `root/` (its files), `control/` (its control files), `list` (dpkg's `info/NAME.list`) and
`contents` (`store.contents`, by which later damage is found).

Source: deb(5), deb-control(5); dpkg `lib/dpkg/dbmodify` and `src/main/filesdb` for the form of the list.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from dibble.errors import NO_ROOM, HostError, PackageError, StoreError, Where
from dibble.packages.unpack.ar import DamagedArchive, Member, members
from dibble.packages.unpack.stream import Stream
from dibble.packages.unpack.tar import Writer, entries
from dibble.store.contents import seal
from dibble.store.places import disk_full

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dibble.events import Events

_FETCH_AGAIN = "the file is damaged: remove it from the cache and fetch it again"


def unpack(deb: Path, destination: Path) -> None:
    """Unpack a .deb into `destination`/{root/,control/,list,contents}; when that is there already, do nothing.

    Owners, modes, times, hard links and extended attributes are the package's (so the caller must be uid 0, in a
    namespace or for real, unless the package belongs to the caller). It appears complete or not at all: work is done in
    `.NAME.new` beside it, which the next call reuses after a crash and which locks out others meanwhile. Raises
    PackageError when the package is damaged or would write outside, StoreError when the disk is full.
    """
    with _locked_place(destination) as place:
        if place is None:
            return
        try:
            with deb.open("rb") as file:
                _unpack_open(file, place)
            place.rename(destination)
        except BaseException as error:
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, DamagedArchive):
                raise PackageError(f"{deb.name} {error}", hint=_FETCH_AGAIN, where=Where(file=deb)) from error
            if isinstance(error, OSError):
                raise _as_error(deb, destination, error) from error
            raise


def unpack_all(debs: Mapping[str, Path], packages_dir: Path, events: Events) -> dict[str, Path]:
    """Unpack packages, given as sha256 → .deb, each once ever into `packages_dir/SHA256[:2]/SHA256`; return those.

    One process per CPU, biggest package first. What is there costs one look. Raises as `unpack`.
    """
    found = {sha256: packages_dir / sha256[:2] / sha256 for sha256 in debs}
    missing = [sha256 for sha256, place in found.items() if not place.exists()]
    if not missing:
        return found
    missing.sort(key=lambda sha256: -debs[sha256].stat().st_size)
    for folder in {found[sha256].parent for sha256 in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    with events.activity("unpack") as activity:
        workers = min(os.cpu_count() or 1, len(missing))
        if workers == 1:
            for done, sha256 in enumerate(missing):
                unpack(debs[sha256], found[sha256])
                activity.progress(done + 1, len(missing), "packages")
            return found
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from concurrent.futures.process import BrokenProcessPool

        # fork: the modules are loaded, and workers touch neither threads nor events of this process
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_die_quietly) as pool:
            try:
                running = [pool.submit(unpack, debs[sha256], found[sha256]) for sha256 in missing]
                for done, future in enumerate(as_completed(running)):
                    future.result()
                    activity.progress(done + 1, len(missing), "packages")
            except BrokenProcessPool as error:
                raise HostError(
                    "a process that unpacked packages was killed",
                    hint="if nobody killed it, the machine may have run out of memory: see dmesg",
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    return found


def _die_quietly() -> None:
    """In a worker: let Ctrl-C end it at once, without a traceback; the parent has its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _unpack_open(file: IO[bytes], place: Path) -> None:
    parts = _parts(file)
    for part, folder in (("control.tar", place / "control"), ("data.tar", place / "root")):
        folder.mkdir(mode=0o700)
        names = _write_tar(file, parts[part], folder)
    # dpkg: one path a line, the root as "/.", in the archive's order (now of data.tar)
    listing = place / "list"
    listing.write_bytes(b"".join(b"/" + (name or b".") + b"\n" for name in names))
    for path, mode in ((listing, 0o644), (place, 0o755)):
        path.chmod(mode)  # whatever the umask is
    seal(place)


def _parts(file: IO[bytes]) -> dict[str, Member]:
    """The members of a .deb by their names without compression suffix. Raises DamagedArchive."""
    found = members(file)
    if not found or found[0].name != "debian-binary":
        raise DamagedArchive("is not a Debian package")
    file.seek(found[0].offset)
    version = file.read(found[0].size).partition(b"\n")[0]
    if not version.startswith(b"2."):
        raise DamagedArchive(f"is a Debian package of format {version.decode('ascii', 'replace')}, not 2")
    parts: dict[str, Member] = {}
    for member in found[1:]:
        stem, tar, _ = member.name.partition(".tar")
        if stem in ("control", "data") and tar:
            parts.setdefault(stem + tar, member)
    for wanted in ("control.tar", "data.tar"):
        if wanted not in parts:
            raise DamagedArchive(f"has no {wanted}")
    return parts


def _write_tar(file: IO[bytes], member: Member, folder: Path) -> list[bytes]:
    file.seek(member.offset)
    stream = Stream(file, member.name, member.size)
    writer = Writer(folder)
    for entry in entries(stream):
        writer.write(entry, stream)
    stream.drain()
    writer.finish()
    return writer.names


@contextmanager
def _locked_place(destination: Path) -> Iterator[Path | None]:
    """An empty directory `.NAME.new`, locked; None when `destination` is there. Waits for whoever is at it.

    The lock is the directory's, not the name's, and goes away with its holder. So what a killed holder left is emptied.
    """
    place = destination.with_name(f".{destination.name}.new")
    while True:
        if destination.exists():
            yield None
            return
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its holder renamed it in between
        except OSError as error:
            if isinstance(error, FileExistsError) and (not os.path.lexists(place) or place.is_dir()):
                continue  # mkdir met another's, and looked at it after that was renamed
            raise StoreError(
                f"cannot write to {error.filename}: {error.strerror}",
                hint="give yourself the right to write there, or set DIB_IMAGE_CACHE to another directory",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(descriptor), place.stat())
            except FileNotFoundError:
                same = False
            if not same:
                continue
            for leftover in place.iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            if not destination.exists():
                yield place
                return
            place.rmdir()  # made in the moment in which another renamed its own
        finally:
            os.close(descriptor)


def _as_error(deb: Path, destination: Path, error: OSError) -> PackageError | StoreError:
    if error.errno in NO_ROOM:
        return disk_full(error, destination.parent)
    if error.errno == errno.EPERM:
        return PackageError(
            f"{deb.name} holds what cannot be created here: {error}",
            hint="owners, device nodes and attributes need root or a user namespace with enough ids",
            where=Where(file=deb),
        )
    return PackageError(f"{deb.name} cannot be unpacked: {error}", hint=_FETCH_AGAIN, where=Where(file=deb))
