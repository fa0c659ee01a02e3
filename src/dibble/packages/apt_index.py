"""The part of a distribution that a question to apt can concern, so that apt need not look at all of it.

    LISTS.index/NAME    where the paragraphs of each package are in one state of the lists (SQLite)

apt decides by what it can reach from the packages that are asked for and those in the root: over each dependency, all
its alternatives, every version of each, and whatever provides it. Nothing else can be installed by a request, so lists
that hold only these give the same answer. They are a hundredth of Debian's, and apt answers in a tenth of the time.
Where it has no reason to prefer one of several providers it goes by the order in which it met their names, here that of
these lists; so an answer is the same each time, and all who ask get it from here.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dibble.packages.deb822 import paragraphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_SUFFIX = "_Packages"
_FORMAT = 1
_UNUSED_S = 86400.0
"""Lists change several times a day; an index that nobody used for a day is of lists that are gone."""
_PLAIN = re.compile(r"([a-z0-9][a-z0-9+.-]*?)(?::[a-z0-9-]+)?(?:=\S+|/\S+)?[+-]?")
"""A word of apt-get(8) that names one package, perhaps with architecture, version or suite. A name may itself end in
"+" or "-": both readings are followed."""
_GROUPS = {
    b"\nEssential: yes": "?essential",
    b"\nPriority: required": "?priority(required)",
    b"\nPriority: important": "?priority(important)",
    b"\nPriority: standard": "?priority(standard)",
}
_RELATIONS = ("Pre-Depends", "Depends")
_FIELD = re.compile(rb"^(Package|Pre-Depends|Depends|Recommends|Suggests): ([^\n]*(?:\n[ \t][^\n]*)*)", re.MULTILINE)
_NAME = re.compile(rb"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)")


class Index:
    """Of a set of `Packages` files: where the paragraphs of a package are, who provides it, who is in a group."""

    def __init__(self, files: Sequence[Path], database: sqlite3.Connection) -> None:
        self._files = files
        self._database = database

    def _places(self, name: str) -> list[tuple[int, int, int]]:
        """(number of the file, begin, end) of each paragraph."""
        return self._database.execute("SELECT file, begin, end FROM place WHERE name = ?", (name,)).fetchall()

    def _members(self, group: str) -> set[str]:
        """The packages that provide a name, or that a pattern of apt stands for."""
        return {row[0] for row in self._database.execute("SELECT name FROM member WHERE of = ?", (group,))}

    def names_of(self, words: Iterable[str]) -> set[str] | None:
        """The packages that words of a request name; None when some word may mean others."""
        found: set[str] = set()
        for word in words:
            if word in _GROUPS.values():
                found |= self._members(word)
                continue
            match = _PLAIN.fullmatch(word)
            if match is None:
                return None
            known = {name for name in (match[1], match[1] + "+", match[1] + "-") if self._knows(name)}
            if not known:
                return None  # apt may take it for a pattern; or it is unknown, which the whole lists explain
            found |= known
        return found

    def essential(self) -> set[str]:
        return self._members("?essential")

    def _knows(self, name: str) -> bool:
        return bool(self._places(name) or self._members(name))

    def write_reachable(self, names: Iterable[str], directory: Path, *, recommends: bool, suggests: bool) -> None:
        """Write lists of all that can be reached from `names` into a directory, under the names of the whole ones."""
        wanted = {*_RELATIONS, *(["Recommends"] if recommends else ()), *(["Suggests"] if suggests else ())}
        fields = {name.encode() for name in wanted}
        chosen: list[list[tuple[int, int]]] = [[] for _ in self._files]
        with contextlib.ExitStack() as stack:
            maps = [_mapped(path, stack) for path in self._files]
            seen = set(names)
            waiting = list(seen)
            while waiting:
                name = waiting.pop()
                reached = self._members(name)
                for number, begin, end in self._places(name):
                    chosen[number].append((begin, end))
                    for field in _FIELD.finditer(maps[number], begin, end):
                        if field[1] in fields:
                            reached.update(_names(field[2]))
                new = reached - seen
                seen |= new
                waiting += new
            for path, data, places in zip(self._files, maps, chosen, strict=True):
                text = b"\n".join(data[begin:end] + b"\n" for begin, end in sorted(places))
                (directory / path.name).write_bytes(text)


def _mapped(path: Path, stack: contextlib.ExitStack) -> mmap.mmap | bytes:
    file = stack.enter_context(path.open("rb"))
    if not path.stat().st_size:
        return b""
    return stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@contextlib.contextmanager
def index_of(lists: Sequence[Path], directory: Path) -> Iterator[Index | None]:
    """The index of the `Packages` files among `lists`, made once and kept in `directory`; None for compressed ones."""
    files = [path for path in lists if path.name.endswith(_SUFFIX)]
    if not files or any(_SUFFIX in path.name and path not in files for path in lists):
        yield None
        return
    states = [path.stat() for path in files]
    rows = [f"{p.name} {s.st_size} {s.st_mtime_ns} {s.st_ino}" for p, s in zip(files, states, strict=True)]
    kept = directory / hashlib.sha256("\n".join([str(_FORMAT), *rows]).encode()).hexdigest()
    if not kept.exists():
        directory.mkdir(parents=True, exist_ok=True)
        _forget_unused(directory)
        _make(files, kept)
    with contextlib.suppress(OSError):
        os.utime(kept)
    uri = f"file:{quote(os.fspath(kept))}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        yield Index(files, database)


def _forget_unused(directory: Path) -> None:
    """Remove what is left of former lists, and of processes that were killed."""
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _make(files: Sequence[Path], target: Path) -> None:
    """Write the index of these files."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
    os.close(descriptor)
    new = Path(name)
    try:
        with contextlib.closing(sqlite3.connect(new)) as database:
            database.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                "CREATE TABLE place (name, file, begin, end, PRIMARY KEY (name, file, begin)) WITHOUT ROWID;"
                "CREATE TABLE member (of, name, PRIMARY KEY (of, name)) WITHOUT ROWID;"
            )
            for number, path in enumerate(files):
                places, members = _scan(path.read_bytes())
                database.executemany(
                    "INSERT INTO place VALUES (?, ?, ?, ?)", [(name, number, *place) for name, *place in places]
                )
                database.executemany("INSERT OR IGNORE INTO member VALUES (?, ?)", members)
            database.commit()
        new.chmod(0o644)
        new.rename(target)
    finally:
        new.unlink(missing_ok=True)


def _scan(data: bytes) -> tuple[list[tuple[str, int, int]], list[tuple[str, str]]]:
    """(name, begin, end) of each paragraph of a `Packages` file; (group or virtual package, name) of each member."""
    places: list[tuple[str, int, int]] = []
    members: list[tuple[str, str]] = []
    at = 0
    for stanza in data.split(b"\n\n"):
        begin, at = at, at + len(stanza) + 2
        text = b"\n" + stanza + b"\n"
        start = text.find(b"\nPackage: ")
        if start < 0:
            continue
        name = text[start + 10 : text.find(b"\n", start + 10)].strip().decode("ascii", "replace")
        places.append((name, begin, begin + len(stanza)))
        if (provides := text.find(b"\nProvides: ")) >= 0:
            row = text[provides + 11 : text.find(b"\n", provides + 11)]
            members += [(virtual, name) for virtual in _names(row)]
        members += [(group, name) for sign, group in _GROUPS.items() if sign in text]
    return places, members


def _names(relation: bytes) -> Iterator[str]:
    """The names of all alternatives in a field of relations."""
    return (match[1].decode() for match in _NAME.finditer(relation))


@contextlib.contextmanager
def reachable(
    lists: Sequence[Path], words: Sequence[str], status: Path | None, settings: Iterable[str], directory: Path
) -> Iterator[Path | None]:
    """A directory with lists of all that a request with these words can concern, for the time of the block.

    `status` is the dpkg status file of the root. None where that cannot be told.
    """
    with index_of(lists, directory) as index:
        names = index.names_of(words) if index else None
        if index is None or names is None:
            yield None
            return
        names |= index.essential()  # an upgrade installs new ones by itself
        if status is not None:
            for paragraph in paragraphs(status.read_bytes(), status):
                names.add(paragraph.get("Package"))
                for field in (*_RELATIONS, "Recommends", "Suggests"):
                    names.update(_names(paragraph.get(field).encode("utf-8", "surrogateescape")))
        place = Path(tempfile.mkdtemp(prefix=".lists-", dir=directory))
        try:
            place.chmod(0o755)
            recommends, suggests = _wanted(settings)
            index.write_reachable(names, place, recommends=recommends, suggests=suggests)
            for path in lists:
                if not path.name.endswith(_SUFFIX):
                    os.link(path, place / path.name)
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _wanted(settings: Iterable[str]) -> tuple[bool, bool]:
    """Whether recommended and suggested packages may come along; when in doubt, they may."""
    recommends, suggests = True, False
    for line in settings:
        name, _, value = line.partition(" ")
        off = value.strip(' ";').lower() in ("0", "no", "false", "without", "off", "disable")
        if name.lower() == "apt::install-recommends":
            recommends = not off
        if name.lower() == "apt::install-suggests":
            suggests = not off
    return recommends, suggests
