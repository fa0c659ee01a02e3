"""The target's own apt and dpkg, fed from the store: for what we do not place ourselves.

Packages and lists appear where they look for them, by read-only bind mounts on a tmpfs, so nothing is copied, nothing
is fetched again and nothing of it stays in the image.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dibble.errors import PackageError
from dibble.packages.apt_state import list_name
from dibble.packages.dpkg_configure import dpkg_failure, last_lines
from dibble.sandbox import mounts
from dibble.sandbox.syscalls import MNT_DETACH, umount

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dibble.packages.apt_resolve import AptTransaction
    from dibble.packages.apt_state import AptState
    from dibble.packages.base import Package
from dibble.packages.dpkg_configure import Target

_CACHE = "var/cache/apt"
_LISTS = "var/lib/apt/lists"
_SCRATCH = "dev/shm/.dibble-archives"
"""For a target without apt: in its private /dev."""

_OPTIONS = {
    "APT::Sandbox::User": "root",
    "APT::Get::AutomaticRemove": "false",
    "Acquire::Languages": "none",  # the lists hold no translations
    "Acquire::Check-Valid-Until": "false",
    "Acquire::Check-Date": "false",
    "Dir::Log::Terminal": "",  # logs would stay in the image
    "Dir::Log::History": "",
    "Dir::Log::Planner": "/dev/null",
    "Dpkg::Use-Pty": "0",
}
_DPKG_OPTIONS = ("--force-confdef", "--force-confold", "--force-unsafe-io")


def archive_name(package: Package) -> str:
    """The file name that apt gives a package (apt-pkg/acquire-item.cc: the version is quoted, mostly its colon)."""
    return f"{package.name}_{package.version.replace(':', '%3a')}_{package.arch}.deb"


@contextlib.contextmanager
def archives(root: Path, debs: Mapping[str, Path]) -> Iterator[str]:
    """Show package files (name → file) in the target; yields the directory as the target sees it."""
    place = root / _CACHE if (root / _CACHE).is_dir() else root / _SCRATCH
    place.mkdir(exist_ok=True)
    try:
        with _shown(place, {f"archives/{name}": file for name, file in debs.items()}):
            (place / "archives/partial").mkdir(parents=True)
            yield f"/{place.relative_to(root)}/archives"
    finally:
        if place == root / _SCRATCH:
            place.rmdir()


@contextlib.contextmanager
def lists(root: Path, state: AptState, shown: str) -> Iterator[None]:
    """Show the package lists in the target; `shown` is its own path for the apt that made them."""
    place = root / _LISTS
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with state.reading() as files:
            # of a repository inside the target, the target's apt knows the path without the target's own
            prefix = list_name(f"file:{shown}", "/", "")
            stack.enter_context(_shown(place, {_local_name(file.name, prefix): file for file in files}))
        (place / "partial").mkdir()
        yield


def unpack(target: Target, debs: Mapping[str, Path]) -> None:
    """`dpkg --unpack` package files, all in one go. Raises PackageError."""
    with archives(target.root, debs) as folder:
        target.dpkg("--unpack", *(f"{folder}/{name}" for name in debs))


def apt_install(
    target: Target, transaction: AptTransaction, state: AptState, debs: Mapping[str, Path], shown: str
) -> None:
    """Carry out exactly `transaction` with the target's apt-get. Raises PackageError."""
    words = [_exact(package) for package in transaction.downloads]
    words += [f"{name}-" for name in transaction.remove]
    words += transaction.local
    options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
    options += [word for option in _DPKG_OPTIONS for word in ("-o", f"Dpkg::Options::={option}")]
    flags = ["-y", "-q", "--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages"]
    if not transaction.local:  # with it, apt 3.0 does not find package files that are named by path
        flags.append("--no-download")
    with contextlib.ExitStack() as stack:
        stack.enter_context(archives(target.root, debs))
        if transaction.downloads or transaction.local:  # a removal is decided quicker without
            stack.enter_context(lists(target.root, state, shown))
        done = target.run(["apt-get", *flags, *options, "install", *words])
    if done.status:
        error = dpkg_failure(done.output) if "dpkg: error" in done.output else None
        raise error or PackageError(
            f"the target's apt-get ended with status {done.status}" + last_lines(done.output.splitlines())
        )


def dpkg_install(target: Target, transaction: AptTransaction, debs: Mapping[str, Path]) -> None:
    """Carry out `transaction` with the target's dpkg, for a target whose apt is missing or knows other sources."""
    if transaction.remove:
        target.dpkg("--force-depends", "--remove", *transaction.remove)
    if debs or transaction.local:
        with archives(target.root, debs) as folder:
            target.dpkg("--unpack", *(f"{folder}/{name}" for name in debs), *transaction.local)
    target.dpkg("--configure", "-a")


def _local_name(name: str, prefix: str) -> str:
    return "_" + name.removeprefix(prefix) if name.startswith(prefix) else name


def _exact(package: Package) -> str:
    name = package.name if package.arch == "all" else f"{package.name}:{package.arch}"
    return f"{name}={package.version}"


@contextlib.contextmanager
def _shown(place: Path, files: Mapping[str, Path]) -> Iterator[None]:
    """Cover the directory `place` by an empty one that shows the given files, read-only."""
    mounts.tmpfs(place)
    try:
        for name, file in files.items():
            point = place / name
            point.parent.mkdir(exist_ok=True)
            point.touch()
            mounts.bind(file, point, read_only=True, recursive=False)
        yield
    finally:
        for name in files:
            umount(place / name, MNT_DETACH)
        umount(place, MNT_DETACH)
