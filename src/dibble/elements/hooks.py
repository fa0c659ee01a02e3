"""Merging the elements' directories into one hook tree, and what a phase runs and sees of it (contract.md 1.8, 2.3).

The merge reads names and modes only; contents are read where two elements have the same nested file, and by `digest`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.elements.model import Element, HookFile, HookTree
from dibble.elements.phases import sees
from dibble.elements.strange import strange
from dibble.errors import ElementError, Where
from dibble.events import Note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Directories of an element that serve its authors, not a build.
LEFT_OUT_DIRECTORIES = frozenset({"tests", "test-elements", "__pycache__"})
# Top-level files that no script of a build reads; element-deps and -provides are read from the elements themselves.
LEFT_OUT_FILES = frozenset(
    {"element-deps", "element-needs", "element-provides", "element-tools", "element-unusable", "__init__.py"}
)
# Top-level files that every element may have; their readers go to the elements, so that one covers another is no news.
ONE_PER_ELEMENT = re.compile(r"pkg-map|svc-map|package-installs\.(yaml|json)|block-device-.*\.yaml")

SCRIPT_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LEADING_NUMBER = re.compile(r"-?[0-9]+")  # as `sort -n` reads it; a name cannot hold blanks or a point


def merge(elements: Sequence[Element]) -> HookTree:
    """The hook tree of these elements, given in their order.

    The same name right inside a directory (`install.d/10-x`) of two elements is an ElementError that names both. Of
    the same file further down (`static/etc/x`), or of the same file beside the directories, the later element's is
    taken, with a warning where they differ. A directory that is a link counts as what it leads to; all other links
    stay links. Hidden entries of elements and of their directories, and what only serves an element's authors, are
    left out; so is, with a warning, what is no file, directory or link.
    """
    merging = _Merging()
    for element in elements:
        try:
            merging.add(element)
        except OSError as error:
            raise ElementError(
                f"{error.filename} cannot be read: {error.strerror}", where=Where(element=element.name)
            ) from error
    return merging.tree()


def read_tree(directory: Path) -> HookTree:
    """The hook tree as it stands in a directory, e.g. after scripts of extra-data.d have added to it.

    Takes all there is; every file's element is empty.
    """
    merging = _Merging()
    merging.walk(Element("", directory), directory, "", merging.place_nested)
    return merging.tree()


class _Merging:
    """The tree under construction."""

    def __init__(self) -> None:
        self._files: dict[str, HookFile] = {}
        self._directories: dict[str, tuple[int, str]] = {}  # permission bits, and the element that brought it
        self._notes: list[Note] = []

    def add(self, element: Element) -> None:
        for entry in _entries(element.path):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.name not in LEFT_OUT_DIRECTORIES:
                    self._directory(element, entry.name, entry.stat().st_mode)
                    self.walk(element, Path(entry.path), entry.name, self._place_hook)
            elif entry.is_file():
                if not _left_out(entry.name):
                    self._place_top(element, entry.name, entry)
            else:
                self._leave_out(element, entry)

    def walk(
        self, element: Element, directory: Path, name: str, place: Callable[[Element, str, os.DirEntry[str]], None]
    ) -> None:
        """Take in a directory's entries under `name`; its files by `place`, those further down by `place_nested`."""
        for entry in _entries(directory):
            skip_hidden = entry.name.startswith(".") and place == self._place_hook
            if skip_hidden or entry.name == "__pycache__" or entry.name.endswith(".pyc"):
                continue
            below = f"{name}/{entry.name}" if name else entry.name
            if entry.is_dir(follow_symlinks=False):
                self._directory(element, below, entry.stat(follow_symlinks=False).st_mode)
                self.walk(element, Path(entry.path), below, self.place_nested)
            elif entry.is_symlink() or entry.is_file():
                place(element, below, entry)
            else:
                self._leave_out(element, entry)

    def _leave_out(self, element: Element, entry: os.DirEntry[str]) -> None:
        place = Where(entry.path, 1, element=element.name)
        self._notes.append(Note(text=f"{place}: {entry.name} {strange(entry)}", level="warning"))

    def _directory(self, element: Element, name: str, mode: int) -> None:
        if name in self._files:
            raise _conflict(name, self._files[name].element, element.name, element.path / name)
        self._directories[name] = (_normal_bits(mode), element.name)

    def _place_hook(self, element: Element, name: str, entry: os.DirEntry[str]) -> None:
        before = self._files.get(name)
        if before:
            raise ElementError(
                f"duplicated hook {name}: the elements {before.element} and {element.name} both have it",
                hint=f"rename it in one of them, or leave {before.element} or {element.name} out",
                where=Where(file=entry.path, line=1, element=element.name),
            )
        self._place(element, name, entry)

    def _place_top(self, element: Element, name: str, entry: os.DirEntry[str]) -> None:
        before = self._files.get(name)
        self._place(element, name, entry)
        if before and not ONE_PER_ELEMENT.fullmatch(name):
            self._warn_when_different(before, self._files[name])

    def place_nested(self, element: Element, name: str, entry: os.DirEntry[str]) -> None:
        before = self._files.get(name)
        self._place(element, name, entry)
        if before:
            self._warn_when_different(before, self._files[name])

    def _place(self, element: Element, name: str, entry: os.DirEntry[str]) -> None:
        if name in self._directories:
            raise _conflict(name, self._directories[name][1], element.name, Path(entry.path))
        executable = not entry.is_symlink() and bool(entry.stat().st_mode & 0o111)
        self._files[name] = HookFile(name, Path(entry.path), element.name, executable)

    def _warn_when_different(self, before: HookFile, after: HookFile) -> None:
        if _state(before) != _state(after):
            place = Where(after.path, 1, element=after.element)
            text = f"{place}: {after.name} replaces that of element {before.element}"
            self._notes.append(Note(text=text, level="warning"))

    def tree(self) -> HookTree:
        files = {name: self._files[name] for name in sorted(self._files)}
        for name, file in files.items():
            if not file.executable and file.path.is_symlink():
                files[name] = HookFile(name, file.path, file.element, _link_executable(files, file))
        directories = {name: self._directories[name][0] for name in sorted(self._directories)}
        return HookTree(files, directories, tuple(self._notes))


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _left_out(name: str) -> bool:
    return name in LEFT_OUT_FILES or name.startswith("README") or name.endswith(".pyc")


def _conflict(name: str, before: str, after: str, place: Path) -> ElementError:
    return ElementError(
        f"{name} is a directory in one of the elements {before} and {after} and a file in the other",
        hint=f"rename it in one of them, or leave {before} or {after} out",
        where=Where(file=place, line=1, element=after),
    )


def _link_executable(files: dict[str, HookFile], link: HookFile) -> bool:
    """Whether a link leads to an executable: first within the tree, as it will in the build, then from the element."""
    target = os.path.normpath(os.path.join(os.path.dirname(link.name), os.readlink(link.path)))  # noqa: PTH115, PTH118, PTH120
    if target in files:
        return files[target].executable
    try:
        mode = link.path.stat().st_mode
    except OSError:
        return False  # a dangling link, which is data
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def scripts(tree: HookTree, phase: str, *, name_pattern: re.Pattern[str] = SCRIPT_NAME) -> list[HookFile]:
    """What the phase directory `phase` runs, in order: by leading number, a name without one counting as 0, then by
    the bytes of the name. `name_pattern` is RUN_PARTS_REGEX."""
    chosen = [file for base, file in _direct(tree, phase) if file.executable and name_pattern.fullmatch(base)]
    return sorted(chosen, key=lambda file: _order(file.name.rpartition("/")[2]))


def ignored(tree: HookTree, phase: str, *, name_pattern: re.Pattern[str] = SCRIPT_NAME) -> tuple[Note, ...]:
    """Why the other files of a phase directory do not run. They may well be data that its scripts read."""
    notes: list[Note] = []
    for base, file in _direct(tree, phase):
        if not name_pattern.fullmatch(base):
            reason = "its name does not match " + name_pattern.pattern
        elif not file.executable:
            reason = "it is not executable"
        else:
            continue
        notes.append(Note(text=f"{file.name} of element {file.element} does not run: {reason}"))
    return tuple(notes)


def _direct(tree: HookTree, phase: str) -> Iterator[tuple[str, HookFile]]:
    prefix = f"{phase}/"
    for name, file in tree.files.items():
        base = name.removeprefix(prefix)
        if base != name and "/" not in base:
            yield base, file


def _order(base: str) -> tuple[int, bytes]:
    number = _LEADING_NUMBER.match(base)
    return int(number.group()) if number else 0, os.fsencode(base)


def visible(tree: HookTree, phase: str) -> Iterator[HookFile]:
    """The files that scripts of a phase see, sorted by name."""
    return (file for name, file in tree.files.items() if sees(phase, name))


def normal_mode(file: HookFile) -> int:
    """A file's permission bits less what the umask of whoever checked it out decides: writing by group and others."""
    return _normal_bits(file.path.lstat().st_mode)


def _normal_bits(mode: int) -> int:
    return stat.S_IMODE(mode) & ~0o022


def _state(file: HookFile) -> tuple[int, str | bytes]:
    if file.path.is_symlink():
        return 0, os.readlink(file.path)  # noqa: PTH115 - Path would rewrite the text
    return normal_mode(file), file.path.read_bytes()


def digest(file: HookFile) -> str:
    """SHA-256, in hexadecimal, of a file's kind, permission bits and content, or of a link's target.

    Neither where it stands nor when it was written counts.
    """
    status = file.path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return hashlib.sha256(b"link\0" + os.fsencode(os.readlink(file.path))).hexdigest()  # noqa: PTH115
    content = _content(file.path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return hashlib.sha256(f"file\0{normal_mode(file):o}\0{content}".encode()).hexdigest()


def digest_of(tree: HookTree, phase: str) -> str:
    """SHA-256, in hexadecimal, of all that scripts of a phase see in the hook tree: names, modes, contents."""
    whole = hashlib.sha256()
    for name, bits in tree.directories.items():
        if sees(phase, name):
            whole.update(b"%s\0%o\0" % (os.fsencode(name), bits))
    for file in visible(tree, phase):
        whole.update(b"%s\0%s\0" % (os.fsencode(file.name), digest(file).encode()))
    return whole.hexdigest()


@lru_cache(maxsize=8192)
def _content(path: Path, inode: int, size: int, modified: int, changed: int) -> str:
    """The digest of a file's bytes, read once for all phases while inode, size and times (nanoseconds) stay."""
    del inode, size, modified, changed
    return hashlib.sha256(path.read_bytes()).hexdigest()
