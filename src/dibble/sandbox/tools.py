"""The tools tree: every program that dibble runs, from pinned Debian packages, unpacked without running any of them.

What is in it says `tools.ARCH.lock`; a group is a directory `tools/DIGEST/fs` in the store, made once and then found by
its name alone. Groups other than `core` are only complete together with it, as layers of one overlay.
"""

from __future__ import annotations

import hashlib
import os
import platform
from typing import TYPE_CHECKING

from dibble.errors import NO_ROOM, FileGone, HostError
from dibble.packages.base import Download
from dibble.sandbox import tools_merge
from dibble.sandbox.tools_lock import CORE, GROUPS, SUITE, ToolsLock, lock_path, parse_lock, read_lock, resolve
from dibble.store.contents import seal
from dibble.store.places import disk_full, open_store, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dibble.events import Events

SNAPSHOT = "http://snapshot.debian.org/archive/debian"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def host_arch() -> str:
    """This machine's architecture by Debian's name. Raises HostError for one without a tools tree."""
    machine = platform.machine()
    try:
        return _ARCHITECTURES[machine]
    except KeyError as error:
        raise HostError(
            f"there is no tools tree for {machine} machines",
            hint="build with --tools=host, which uses the programs of this machine",
        ) from error


def default_mirrors() -> tuple[str, ...]:
    """Where the host gets Debian from, then the shipped default.

    DIB_DISTRIBUTION_MIRROR is the target's; it counts when it is a mirror of Debian by its name.
    """
    from dibble.packages.debian_sources import ARCHIVE

    named = os.environ.get("DIB_DISTRIBUTION_MIRROR", "").rstrip("/")
    first = (named,) if named.endswith("/debian") else ()
    return tuple(dict.fromkeys((*first, near_mirrors(os.environ)["DIBBLE_DEBIAN_MIRROR"], ARCHIVE)))


def near_mirrors(environ: Mapping[str, str]) -> dict[str, str]:
    """The mirrors of Debian that this machine uses itself, as variables that elements read.

    What is set already stays: a host's tree says nothing of the network that it is run in, so it is told.
    """
    from dibble.packages.debian_sources import host_mirrors

    mirrors = host_mirrors()
    found = {"DIBBLE_DEBIAN_MIRROR": mirrors.archive, "DIBBLE_DEBIAN_SECURITY_MIRROR": mirrors.security}
    return {name: environ.get(name) or mirror for name, mirror in found.items()}


class ToolsTree:
    """The groups of tools in one store. Use it inside the namespace, as uid 0."""

    def __init__(
        self,
        store_dir: Path,
        events: Events,
        *,
        mirrors: Sequence[str] | None = None,
        lock: ToolsLock | None = None,
        offline: bool = False,
    ) -> None:
        self._store = open_store(store_dir)
        self._events = events
        self._mirrors = mirrors
        self._locked = lock or read_lock(host_arch())
        self._offline = offline

    @property
    def identity(self) -> str:
        """Names the exact programs of `core`, which are what scripts see; for keys."""
        return self.identity_of(CORE)

    def identity_of(self, *groups: str) -> str:
        """Names the exact programs of some groups. Substitutes for a lock that could not be had count, once made."""
        lock = self._lock()
        names = sorted({CORE, *groups})
        return hashlib.sha256(" ".join(_directory_name(lock, name) for name in names).encode()).hexdigest()

    def ensure(self, *groups: str) -> tuple[Path, ...]:
        """Make `core` and the named groups ready; return their directories as an overlay takes them, `core` last.

        Fetches and unpacks what is missing; what is there costs one look each. Raises FetchError, PackageError,
        StoreError, and UsageError for an unknown group. A crash leaves at most rubbish in the store's `tmp`.
        """
        names = [*(name for name in dict.fromkeys(reversed(groups)) if name != CORE), CORE]
        lock = self._lock()
        for name in names:
            self._store.use(f"tools/{_directory_name(lock, name)}")
        if any(not self._directory(lock, name).exists() for name in names):
            try:
                self._make_all(lock, names)
            except FileGone as gone:
                lock = self._substitute(gone)
                self._make_all(lock, names)
        if lock is not self._locked:
            self._events.note(
                "the tools are not the locked ones, which the mirrors no longer have, but those that"
                f" {lock.suite} had when they were fetched: update dibble, or run `dibble tools update` in its source",
                level="warning",
            )
        return tuple(self._directory(lock, name) for name in names)

    def _lock(self) -> ToolsLock:
        """The lock, or what had to be taken instead of it earlier."""
        try:
            return parse_lock(self._substitute_path.read_text("utf-8"), source=self._substitute_path)
        except FileNotFoundError:
            return self._locked

    @property
    def _substitute_path(self) -> Path:
        digest = hashlib.sha256(str(self._locked).encode()).hexdigest()
        return self._store.tools / f"instead-of-{digest[:32]}.lock"

    def _substitute(self, gone: FileGone) -> ToolsLock:
        """A lock of the same packages in the versions that the suite has now. Raises `gone` when that has no sense."""
        if self._offline or self._substitute_path.exists():
            raise gone
        self._events.note(
            f"{gone.message.partition(':')[0]}; taking the versions that {self._locked.suite} has now", "warning"
        )
        wanted = {name: [package.name for package in group] for name, group in self._locked.groups.items()}
        lock = resolve(
            wanted,
            suite=self._locked.suite,
            arch=self._locked.arch,
            mirrors=self._archives(),
            blobs=self._store.blobs,
            events=self._events,
        )
        write_whole(self._substitute_path, str(lock).encode())
        return lock

    def _archives(self) -> tuple[str, ...]:
        return tuple(self._mirrors) if self._mirrors is not None else default_mirrors()

    def _directory(self, lock: ToolsLock, group: str) -> Path:
        return self._store.tools / _directory_name(lock, group) / "fs"

    def _make_all(self, lock: ToolsLock, groups: Sequence[str]) -> None:
        from dibble.packages.fetch import fetch_all
        from dibble.packages.unpack.deb import unpack_all

        missing = [name for name in groups if not self._directory(lock, name).exists()]
        packages = [package for name in missing for package in lock.group(name)]
        roots = [*(mirror.rstrip("/") for mirror in self._archives()), f"{SNAPSHOT}/{lock.snapshot}"]
        downloads = [
            Download(tuple(f"{root}/{package.path}" for root in roots), package.sha256, package.size, package.name)
            for package in packages
        ]
        self._store.use_packages(package.sha256 for package in packages)
        blobs = fetch_all(downloads, self._store.blobs, self._events, offline=self._offline)
        unpacked = unpack_all(blobs, self._store.packages, self._events)
        for name in missing:
            self._make(self._directory(lock, name), name, [unpacked[one.sha256] for one in lock.group(name)])

    def _make(self, directory: Path, group: str, packages: Sequence[Path]) -> None:
        """Make one group's directory. Who waits for the lock finds it made."""
        place = directory.parent
        with self._store.locked(f"tools-{place.name}"):
            if directory.exists():
                return
            with self._store.session() as session:
                new = session.path / "tools"
                new.mkdir(mode=0o755)
                try:
                    tools_merge.merge([package / "root" for package in packages], new / "fs")
                    if group == CORE:
                        tools_merge.finish(new / "fs")
                    seal(new, linked=True)
                    new.rename(place)
                except OSError as error:
                    if error.errno in NO_ROOM:
                        raise disk_full(error, self._store.tools) from error
                    raise


def _directory_name(lock: ToolsLock, group: str) -> str:
    """32 hexadecimal digits of a digest over the group's lines and the way they are put together."""
    text = f"{tools_merge.VERSION} {group} {lock.digest(group)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def update(arch: str, *, store_dir: Path, events: Events, mirrors: Sequence[str] | None = None) -> ToolsLock:
    """Write the lock for `arch` anew, beside this file, from signed metadata; return it.

    Raises FetchError, PackageError, and HostError where the file cannot be written.
    """
    if arch not in GROUPS:
        raise HostError(f"there is no tools tree for {arch} machines", hint=f"known are: {', '.join(GROUPS)}")
    lock = resolve(
        GROUPS[arch],
        suite=SUITE,
        arch=arch,
        mirrors=default_mirrors() if mirrors is None else mirrors,
        blobs=open_store(store_dir).blobs,
        events=events,
    )
    path = lock_path(arch)
    try:
        write_whole(path, str(lock).encode())
    except OSError as error:
        raise HostError(
            f"cannot write {path}: {error.strerror}", hint="run it from a source tree of dibble that you may write to"
        ) from error
    return lock
