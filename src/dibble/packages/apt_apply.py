"""Packages put into a root that is already a system, as dpkg would unpack them, where that is provably the same.

What is checked first: nothing is replaced, removed or left half-done; no new file meets an old one; no diversion,
override or dpkg setting concerns the files; no preinst needs more than it finds. Otherwise the target's own apt does
it.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import TYPE_CHECKING

from dibble.packages.copy import copy_file, copy_metadata
from dibble.packages.dpkg_database import DATABASE, Unpacked, diversions, state_of
from dibble.packages.dpkg_scan import is_risky
from dibble.sandbox.inside import resolve_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dibble.packages.apt_resolve import AptTransaction
    from dibble.packages.deb822 import Paragraph

_SETTLED = ("installed", "config-files", "not-installed")
_HARMLESS_DPKG_OPTION = re.compile(r"(no-debsig|log\b.*|status-logger\b.*|force-(unsafe-io|conf\w+)|no-pager)$")


@dataclass(slots=True)
class Tree:
    """The root's directories, with links followed inside it; answers are kept, so make a new one when files changed."""

    root: Path
    _real: dict[bytes, bytes] = field(default_factory=dict)

    def real(self, folder: bytes) -> bytes:
        """Where the directory `folder` (absolute, in the root) really is, as a path of ours."""
        found = self._real.get(folder)
        if found is None:
            found = self._real[folder] = os.fsencode(resolve_inside(self.root, os.fsdecode(folder)))
        return found

    def place(self, path: bytes) -> bytes:
        """Where a file of this name goes: links are followed in its folder, not in its name."""
        folder, _, name = path.rpartition(b"/")
        return self.real(folder) + b"/" + name


def reason_against(
    root: Path, transaction: AptTransaction, packages: Sequence[Unpacked], status: Sequence[Paragraph]
) -> str:
    """Why these packages must not be placed natively, in some words for the log; empty when they may."""
    return next(_reasons(root, transaction, packages, status), "")


def _reasons(
    root: Path, transaction: AptTransaction, packages: Sequence[Unpacked], status: Sequence[Paragraph]
) -> Iterator[str]:
    if transaction.upgrade or transaction.remove or transaction.local:
        yield "packages are replaced or removed"
    unsettled = [p.get("Package") for p in status if state_of(p) not in _SETTLED]
    if unsettled or any((root / DATABASE / "updates").iterdir()):
        yield f"dpkg has unfinished work: {' '.join(unsettled)}"
    new = {unpacked.package.name for unpacked in packages}
    if again := sorted(new & {p.get("Package") for p in status}):
        yield f"dpkg knows earlier versions of {' '.join(again)}"
    yield from (f"dpkg is set up with {option}" for option in _dpkg_options(root))
    for unpacked in packages:
        if is_risky(unpacked.script("preinst")):
            yield f"the preinst of {unpacked.package.name} moves files"
    if not stages(packages):
        yield "preinsts need each other's packages"
    yield from _collisions(root, packages)


def stages(packages: Sequence[Unpacked]) -> list[list[Unpacked]]:
    """The packages in groups, each to be placed and configured before the next: a preinst needs its Pre-Depends.

    Within a group the order is kept. Empty when there is no such order. Alternatives in a dependency all count.
    """
    needs = {unpacked.package.name: _needs(unpacked) for unpacked in packages}
    waiting = list(packages)
    found: list[list[Unpacked]] = []
    while waiting:
        names = {unpacked.package.name for unpacked in waiting}
        group = waiting
        while first := _closure(group, names, needs):
            if len(first) == len(group):
                return []
            group = [unpacked for unpacked in group if unpacked.package.name in first]
        found.append(group)
        waiting = [unpacked for unpacked in waiting if unpacked not in group]
    return found


def essentials(packages: Sequence[Unpacked]) -> list[str]:
    """The names of the essential packages, with all that they depend on: scripts use them without saying so."""
    needs = {unpacked.package.name: _needs(unpacked) for unpacked in packages}
    found: set[str] = set()
    new = {unpacked.package.name for unpacked in packages if unpacked.control().get("Essential") == "yes"}
    while new:
        found |= new
        new = {name for one in new for name in needs[one][1] & needs.keys()} - found
    return sorted(found)


def _needs(unpacked: Unpacked) -> tuple[set[str], set[str]]:
    """What must be configured before the preinst, and before the configuration, of a package: names."""
    control = unpacked.control()
    early = _names_in(control.get("Pre-Depends"))
    return (early if unpacked.script("preinst") else set()), early | _names_in(control.get("Depends"))


def _closure(group: Sequence[Unpacked], names: set[str], needs: Mapping[str, tuple[set[str], set[str]]]) -> set[str]:
    """The packages among `names` that preinsts in `group` need, with all that those depend on."""
    found: set[str] = set()
    new = {name for unpacked in group for name in needs[unpacked.package.name][0] & names}
    while new:
        found |= new
        new = {name for one in new for name in needs[one][1] & names} - found
    return found


def replace_lost(root: Path, unpacked: Unpacked) -> None:
    """Place again what a preinst has removed or changed of its package's files, which dpkg would unpack only then.

    Configuration files that are there stay as they are.
    """
    tree = Tree(root)
    base = os.fsencode(unpacked.root)
    keep = set(unpacked.conffiles())
    for path in unpacked.paths():
        source = base + path
        status = os.lstat(source)
        if stat.S_ISDIR(status.st_mode):
            target = tree.real(path)
            if not os.path.lexists(target):
                os.mkdir(target)  # noqa: PTH102 - bytes
                copy_metadata(source, target, status)
            continue
        target = tree.place(path)
        try:
            there = os.lstat(target)
        except FileNotFoundError:
            copy_file(source, target)
            continue
        same = (there.st_size, there.st_mtime_ns, there.st_mode, there.st_uid, there.st_gid)
        if (
            same != (status.st_size, status.st_mtime_ns, status.st_mode, status.st_uid, status.st_gid)
            and path not in keep
        ):
            os.unlink(target)  # noqa: PTH108 - bytes
            copy_file(source, target)


def place(root: Path, unpacked: Unpacked) -> None:
    """Copy a package's files into the root, with all their metadata.

    Directories that exist keep theirs. Hard links between files of the package stay hard links.
    """
    tree = Tree(root)
    links: dict[tuple[int, int], bytes] = {}
    times: list[tuple[bytes, bytes, os.stat_result]] = []
    base = os.fsencode(unpacked.root)
    waiting = [(base, b"")]
    while waiting:
        folder, shown = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = shown + b"/" + entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, path))
                    target = tree.real(path)
                    if not os.path.lexists(target):
                        status = entry.stat(follow_symlinks=False)
                        os.mkdir(target, 0o700)  # noqa: PTH102 - bytes
                        times.append((entry.path, target, status))
                    continue
                target = tree.place(path)
                status = entry.stat(follow_symlinks=False)
                first = links.setdefault((status.st_dev, status.st_ino), target) if status.st_nlink > 1 else target
                if first is target:
                    copy_file(entry.path, target)
                else:
                    os.link(first, target, follow_symlinks=False)
    for source, target, status in reversed(times):
        copy_metadata(source, target, status)


def _collisions(root: Path, packages: Sequence[Unpacked]) -> Iterator[str]:
    """What of the packages meets another file, or what a diversion or override concerns, in words."""
    tree = Tree(root)
    special = {tree.place(path) for path in (*_diverted(root), *_overridden(root))}
    owners: dict[bytes, str] = {}
    folders: set[bytes] = set()
    absent: set[bytes] = set()  # directories that are not in the root, so neither is anything in them
    for unpacked in packages:
        base = os.fsencode(unpacked.root)
        name = unpacked.package.name
        for path in unpacked.paths():
            if path == b"/.":
                continue
            said = f"{os.fsdecode(path)} of {name}"
            target = tree.place(path)
            is_folder = stat.S_ISDIR(os.lstat(base + path).st_mode)
            if target in special:
                yield f"{said} is diverted or overridden"
            if target in owners or (target in folders and not is_folder):
                yield f"{said} meets that of {owners.get(target, 'another package')}"
            if is_folder:
                folders.add(target)
            else:
                owners[target] = name
            if target.rpartition(b"/")[0] in absent or not os.path.lexists(target):
                if is_folder:
                    absent.add(target)
            elif not is_folder or not os.path.isdir(tree.real(path)):  # noqa: PTH112 - bytes
                yield f"{said} is there already"


def _diverted(root: Path) -> Iterator[bytes]:
    for path, elsewhere, _ in diversions(root):
        yield path
        yield elsewhere


def _overridden(root: Path) -> Iterator[bytes]:
    try:
        lines = (root / DATABASE / "statoverride").read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        words = line.split(None, 3)  # owner group mode path
        if len(words) == 4:
            yield words[3]


def _dpkg_options(root: Path) -> Iterator[str]:
    """Settings of dpkg, in its configuration files, that may change what unpacking does."""
    folder = root / "etc/dpkg/dpkg.cfg.d"
    files = [root / "etc/dpkg/dpkg.cfg", *(sorted(folder.iterdir()) if folder.is_dir() else ())]
    for file in files:
        if file.is_file():
            for line in file.read_text("utf-8", "replace").splitlines():
                option = line.partition("#")[0].strip()
                if option and not _HARMLESS_DPKG_OPTION.match(option):
                    yield option


def _names_in(relation: str) -> set[str]:
    """All package names in a dependency field."""
    return set(re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]+)", relation))
