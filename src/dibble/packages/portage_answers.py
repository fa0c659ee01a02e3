"""What emerge prints, read; and the files in which Portage keeps what it knows."""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dibble.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# [binary  N g   ] net-libs/libpcap-1.10.5-1::gentoo [1.9] USE="…": _emerge/resolver/output.py of Portage
_ROW = re.compile(r"^\[(ebuild|binary|blocks|uninstall)\s([^\]]*)\]\s+(\S+)")
_REMOVED = re.compile(r"^All selected packages: (.*)$", re.MULTILINE)
_VERSION = re.compile(r"^(.+?)-(\d[^-]*(?:-r\d+)?)(?:-(\d+))?$")
_MISSING = re.compile(r'there are no (?:ebuilds|binary packages|ebuilds built)[^"]*to satisfy "([^"]+)"')
_SIMILAR = re.compile(r"Maybe you meant (?:any of these: )?(.+)\?")
_MASKED = re.compile(r"All ebuilds that could satisfy \"([^\"]+)\" have been masked")
_SIGNATURE = "GnuPG verification failed"
_DAY = 86400
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Row:
    """One package that emerge is going to put in place: `name` is CATEGORY/NAME; `build` a binary package's number."""

    name: str
    version: str
    build: str
    is_binary: bool
    is_new: bool

    @property
    def cpv(self) -> str:
        return f"{self.name}-{self.version}"


def rows_of(output: str) -> list[Row]:
    """The packages in what `emerge --pretend` prints, in its order. Raises PackageError for packages that block."""
    rows = []
    blocked = []
    for line in _COLOUR.sub("", output).splitlines():
        match = _ROW.match(line)
        if match is None:
            continue
        kind, flags, words = match[1], match[2], match[3].partition("::")[0]
        if kind == "blocks" and "B" in flags:
            blocked.append(line.strip())
        parts = _VERSION.match(words)
        if kind in ("ebuild", "binary") and parts:
            name, version, build = parts[1], parts[2], parts[3] or ""
            rows.append(Row(name, version, build, kind == "binary", "N" in flags))
    if blocked:
        raise PackageError(f"packages exclude each other: {'; '.join(blocked)}")
    return rows


def removed_in(output: str) -> list[tuple[str, str]]:
    """The packages (name, version) in what `emerge --pretend --depclean` prints."""
    match = _REMOVED.search(_COLOUR.sub("", output))
    words = match[1].split() if match else []
    parts = (_VERSION.match(word.lstrip("=")) for word in words)
    return [(one[1], one[2]) for one in parts if one]


def refusal(output: str, status: int) -> PackageError:
    """The error for an emerge that ended with another status than 0."""
    plain = _COLOUR.sub("", output)
    if match := _MISSING.search(plain):
        similar = _SIMILAR.search(plain)
        there = f"; similar: {similar[1]}" if similar else ""
        return PackageError(
            f"the tree of ebuilds has no {match[1]}{there}", hint="names are CATEGORY/NAME, as in app-misc/jq"
        )
    if match := _MASKED.search(plain):
        return PackageError(
            f"all versions of {match[1]} are masked{last_lines(plain)}",
            hint="accept it: a file in /etc/portage/package.accept_keywords or package.license of the target",
        )
    if _SIGNATURE in plain:
        return PackageError(
            f"a binary package is not signed by a key that the target trusts{last_lines(plain)}",
            hint="the keys are in /etc/portage/gnupg of the target; getuto puts those of Gentoo there",
        )
    return PackageError(f"emerge ended with status {status}{last_lines(plain)}")


def last_lines(output: str) -> str:
    """The end of what was printed, indented, to follow a message."""
    return "".join(f"\n    {line}" for line in output.splitlines()[-15:] if line.strip())


@dataclass(frozen=True, slots=True)
class Binhost:
    """A repository of binary packages, of /etc/portage/binrepos.conf. `location` is where emerge keeps downloads."""

    name: str
    url: str
    location: str

    @property
    def index(self) -> str:
        """Where emerge keeps its list, below the root (portage/dbapi/bintree.py)."""
        parts = urlsplit(self.url)
        return f"var/cache/edb/binhost/{parts.hostname or ''}/{parts.path.strip('/')}/Packages"


def binhosts(root: Path) -> list[Binhost]:
    """The repositories of binary packages that a root knows."""
    place = root / "etc/portage/binrepos.conf"
    files = sorted(place.glob("*")) if place.is_dir() else [place]
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    for file in files:
        try:
            parser.read(file, encoding="utf-8")
        except configparser.Error as error:
            raise PackageError(f"/{file.relative_to(root)} of the target cannot be read: {error}") from error
    found = []
    for name in parser.sections():
        if url := parser.get(name, "sync-uri", fallback=""):
            location = parser.get(name, "location", fallback="") or f"/var/cache/binhost/{name}"
            found.append(Binhost(name, url.rstrip("/"), location))
    return found


def index_entries(text: str) -> Iterator[dict[str, str]]:
    """The packages in a `Packages` file of Portage's: paragraphs of `FIELD: VALUE`, the first one about the whole."""
    for paragraph in text.split("\n\n")[1:]:
        entry = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line)
        if "CPV" in entry:
            yield entry


def as_new(index: str, now: float) -> str:
    """A `Packages` file that emerge takes for new and does not ask for again (portage/dbapi/bintree.py: TTL)."""
    head, _, rest = index.partition("\n\n")
    lines = [line for line in head.splitlines() if not line.startswith(("TTL: ", "DOWNLOAD_TIMESTAMP: "))]
    return "\n".join([*lines, f"TTL: {_DAY}", f"DOWNLOAD_TIMESTAMP: {now:.0f}", "", rest])


def manifest_entries(text: str) -> dict[str, tuple[int, dict[str, str]]]:
    """File → size in bytes and digests by kind, of the distfiles in a Manifest (GLEP 44)."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5 and words[0] == "DIST" and words[2].isdigit():
            found[words[1]] = (int(words[2]), dict(zip(words[3::2], words[4::2], strict=False)))
    return found


def uris_in(output: str) -> dict[str, tuple[str, ...]]:
    """File → its URLs, of what `emerge --pretend --fetchonly` prints: a line for each file."""
    found = {}
    for line in output.splitlines():
        words = line.split()
        if words and all(word.startswith(("http://", "https://")) for word in words):
            found[words[0].rpartition("/")[2]] = tuple(words)
    return found


def versions(root: Path) -> list[tuple[str, str]]:
    """The installed packages (CATEGORY/NAME, version), sorted."""
    found = []
    for place in (root / "var/db/pkg").glob("*/*"):
        parts = _VERSION.match(f"{place.parent.name}/{place.name}")
        if parts and not place.name.startswith("-MERGING-"):
            found.append((parts[1], parts[2]))
    return sorted(found)


def profiles_of(root: Path, arch: str) -> Sequence[str]:
    """The profiles of the tree of ebuilds that are for an architecture."""
    file = root / "var/db/repos/gentoo/profiles/profiles.desc"
    text = file.read_text("utf-8", "replace") if file.is_file() else ""
    rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return sorted({row[1] for row in rows if len(row) >= 2 and row[0] == arch})
