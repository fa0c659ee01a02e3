"""Maintainer scripts of a foreign architecture with the machine's own shell, sed, perl …, of the target's release.

Emulated, what takes time is not the work but each start of a program. While scripts run, builds for this machine's
architecture of the very packages that the target has are bound over the target's programs, read-only and by an
allow-list. Their libraries lie in a multi-arch directory of their own, so the target's are not touched. No trace of it
is left in the image.

dpkg itself, its kin and ldconfig stay the target's: they have their architecture compiled in. A script that wants to
change a program that is bound fails loudly.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dibble.errors import DibbleError
from dibble.packages.apt_merge import MergedTree
from dibble.packages.dpkg_database import PRESENT, read_status, state_of
from dibble.packages.stand_in import NATIVE
from dibble.sandbox import mounts
from dibble.sandbox.inside import resolve_inside
from dibble.sandbox.syscalls import MNT_DETACH, umount

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dibble.events import Events
    from dibble.packages.apt import Apt
    from dibble.packages.apt_sources import SourceSet


@dataclass(frozen=True, slots=True)
class Allowed:
    """Packages whose programs may stand over the target's, and libraries that must not come with them."""

    packages: tuple[str, ...]
    without: frozenset[str] = frozenset()


SCRIPTS = Allowed(
    (
        *(
            "bash",
            "coreutils",
            "cpio",
            "dash",
            "debianutils",
            "diffutils",
            "dracut-install",
            "findutils",
            "gawk",
            "grep",
        ),
        *("gzip", "hostname", "init-system-helpers", "iproute2", "kmod", "mawk", "ncurses-bin", "openssl", "passwd"),
        *("perl", "perl-base", "procps", "python3-minimal", "sed", "sensible-utils", "systemd", "tar", "udev"),
        *("util-linux", "util-linux-extra", "xz-utils", "zstd"),
    )
)
"""Packages whose programs do the same whatever they are compiled for."""
INITRAMFS = Allowed(
    (
        *("bash", "coreutils", "cpio", "dash", "findutils", "gawk", "grep", "gzip", "mawk"),
        *("perl-base", "sed", "xz-utils", "zstd"),
    ),
    without=frozenset({"libkmod2"}),  # hooks find it by looking into all directories of libraries
)
"""Of these, what no hook copies into an initramfs."""
MODULES = Allowed(("dracut-install", "kmod"))
"""What is started by us, about kernel modules."""
CLEANS_LIBRARIES = "usr-is-merged"
"""Removes directories of libraries that no package has (Debian 12), so it is configured before programs are bound."""
_PERL_LIBRARY = re.compile(r"lib[a-z0-9.+-]+-perl|libperl5\.\d+")
_PLACES = (b"usr/bin/", b"usr/sbin/", b"bin/", b"sbin/", b"usr/lib/systemd/", b"usr/lib/udev/", b"usr/lib/dracut/",
           b"lib/systemd/", b"lib/udev/")  # fmt: skip
_SHARED_OBJECT = re.compile(rb"\.so(\.|$)")
_ELF = b"\x7fELF"
_BUILD = re.compile(r"\+b\d+$")
"""A package that was only compiled again has the source's version with this added (Debian Policy, binNMU)."""


@dataclass(frozen=True, slots=True)
class Programs:
    """A tree of native packages: `programs` are the paths to bind, relative; they need `loader` and `libraries`."""

    tree: Path
    programs: tuple[str, ...]
    loader: str
    libraries: str


class NativeTools:
    """For one foreign root. `apt` decides and fetches for the machine's own architecture; `place` is a new directory on
    the store's file system."""

    def __init__(self, apt: Apt, arch: str, place: Path, events: Events) -> None:
        self._apt = apt
        self._arch = arch
        self._place = place
        self._events = events
        self._made: dict[tuple[Allowed, tuple[str, ...]], Programs | None] = {}
        self._active = False

    @contextlib.contextmanager
    def around(self, root: Path, sources: SourceSet | None, allowed: Allowed = SCRIPTS) -> Iterator[None]:
        """Let the target's programs be the machine's own while the block runs, as far as that is possible."""
        if self._active or sources is None:
            yield
            return
        found = self._find(_versions(root), sources, allowed)
        with contextlib.ExitStack() as stack:
            if found is not None:
                self._active = True
                stack.callback(self._leave)
                with self._events.activity("native tools"):
                    _bind(found, root, stack)
            yield

    def started(self, root: Path, sources: SourceSet | None, place: Path, program: str) -> list[str] | None:
        """The words that start a program of `MODULES`, a path relative to the root, in the target as a native one.

        `place` is a directory in the target, in which a mount is made. None where that cannot be.
        """
        found = self._find(_versions(root), sources, MODULES) if sources else None
        if found is None or program not in found.programs:
            return None
        shown = place / NATIVE
        if not shown.exists():
            shown.mkdir()
            mounts.bind(found.tree, shown, read_only=True)
        seen = f"/{shown.relative_to(root)}"
        loader = str(resolve_inside(found.tree, found.loader).relative_to(found.tree))
        return [f"{seen}/{loader}", "--library-path", f"{seen}/{found.libraries}", f"{seen}/{program}"]

    def _leave(self) -> None:
        self._active = False

    def _find(self, versions: Mapping[str, str], sources: SourceSet, allowed: Allowed) -> Programs | None:
        names = tuple(sorted(name for name in versions if _is_allowed(name, versions, allowed)))
        key = (allowed, names)
        if key not in self._made:
            try:
                self._made[key] = self._make(names, versions, sources, allowed) if names else None
            except DibbleError as error:
                self._events.note(f"programs of the image are emulated: {error.message}", "warning")
                self._made[key] = None
        return self._made[key]

    def _make(
        self, names: Sequence[str], versions: Mapping[str, str], sources: SourceSet, allowed: Allowed
    ) -> Programs | None:
        self._apt.use_sources(replace(sources, arch=self._arch, foreign=()))
        transaction = self._apt.foresee((), names)
        same = {
            package.name
            for package in transaction.install
            if package.name in names and _BUILD.sub("", package.version) == _BUILD.sub("", versions[package.name])
        }
        wanted = [p for p in transaction.install if p.arch != "all" or p.name.startswith("perl-modules")]
        wanted = [package for package in wanted if package.name not in allowed.without]
        self._apt.fetch(replace(transaction, install=tuple(wanted), upgrade=(), remove=()))
        tree = MergedTree(self._place / str(len(self._made)))
        tree.root.mkdir(parents=True)
        tree.make_aliases(self._arch, 0)
        programs: list[str] = []
        for unpacked in self._apt.unpacked(wanted):
            if tree.add(unpacked) and unpacked.package.name in same:
                programs += _programs(tree.root, unpacked.paths())
        libraries = next((path.parent for path in sorted((tree.root / "usr/lib").glob("*/libc.so.6"))), None)
        loader = next((found for name in programs if (found := _loader(tree.root / name))), None)
        if libraries is None or loader is None:
            return None
        return Programs(tree.root, tuple(programs), loader, str(libraries.relative_to(tree.root)))


def _versions(root: Path) -> dict[str, str]:
    """The packages whose files are in the root, with their versions."""
    return {p.get("Package"): p.get("Version") for p in read_status(root) if state_of(p) in PRESENT}


def _is_allowed(name: str, versions: Mapping[str, str], allowed: Allowed) -> bool:
    """A package of the list or, with perl in it, one of the compiled modules that a native perl looks for."""
    perl = "perl" in allowed.packages and "perl-base" in versions
    return name in allowed.packages or (perl and _PERL_LIBRARY.fullmatch(name) is not None)


def _programs(tree: Path, paths: Sequence[bytes]) -> Iterator[str]:
    for path in paths:
        name = path.lstrip(b"/")
        if name.startswith(_PLACES) and not _SHARED_OBJECT.search(name):
            file = tree / os.fsdecode(name)
            status = file.lstat()
            if stat.S_ISREG(status.st_mode) and not status.st_mode & 0o6000 and _is_elf(file):
                yield os.fsdecode(name)


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == _ELF


def _loader(program: Path) -> str:
    """The path of the program's loader (PT_INTERP, elf(5)); "" when it is static."""
    match = re.search(rb"(?<=\0)/lib[\w/.-]*/ld[\w.-]+(?=\0)", b"\0" + program.read_bytes()[:8192])
    return match[0].decode() if match else ""


def _bind(found: Programs, root: Path, stack: contextlib.ExitStack) -> None:
    """Bind what is there to be bound, until `stack` ends; nothing where the target has such libraries itself."""
    libraries = resolve_inside(root, found.libraries)
    if libraries.exists() or resolve_inside(root, found.loader).exists():
        return
    link = root / found.loader.split("/")[1]
    if not os.path.lexists(link):  # /lib64, on an architecture without it
        _make_folder(root / "usr" / link.name, stack)
        link.symlink_to(f"usr/{link.name}")
        stack.callback(link.unlink)
    loader = resolve_inside(root, found.loader)
    for folder in (loader.parent, libraries):
        _make_folder(folder, stack)
    mounts.bind(found.tree / found.libraries, libraries, read_only=True)
    stack.callback(umount, libraries, MNT_DETACH)
    loader.touch()
    stack.callback(loader.unlink)
    mounts.bind(resolve_inside(found.tree, found.loader), loader, read_only=True)
    stack.callback(umount, loader, MNT_DETACH)
    for name in found.programs:
        target = resolve_inside(root, name)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISREG(target.lstat().st_mode):
                mounts.bind(found.tree / name, target, read_only=True)
                stack.callback(umount, target, MNT_DETACH)


def _make_folder(folder: Path, stack: contextlib.ExitStack) -> None:
    if not folder.exists():
        folder.mkdir()
        stack.callback(folder.rmdir)
