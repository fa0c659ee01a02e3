"""Where a repository has the packages that were decided on: primary.xml, which tells of all of them.

Format: https://github.com/rpm-software-management/createrepo_c, XML schema `primary`. A distribution's has some 150 MB;
only the entries that are wanted are parsed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast
from xml.etree import ElementTree

from dibble.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_BLOCK = 1 << 20  # bytes
_END = b"</package>"
_NAME = re.compile(rb"<package\b[^>]*>\s*<name>([^<]*)</name>")
_COMMON = "{http://linux.duke.edu/metadata/common}"
_REPO = "{http://linux.duke.edu/metadata/repo}"
_BASE = "{http://www.w3.org/XML/1998/namespace}base"

Key = tuple[str, str, str]
"""Name, edition (EPOCH:VERSION-RELEASE, without an epoch of 0) and architecture."""


@dataclass(frozen=True, slots=True)
class Location:
    """`path` is below `base`, an address of its own, or where that is empty below the repository's; `size` in bytes."""

    path: str
    base: str
    sha256: str
    size: int


def locations(repository: Path, wanted: Collection[Key]) -> dict[Key, Location]:
    """Where the packages are of which this repository, a copy of its metadata, has an entry. Raises FetchError."""
    if not wanted:
        return {}
    names = {name.encode() for name, _, _ in wanted}
    found: dict[Key, Location] = {}
    primary = _primary(repository)
    try:
        with _opened(primary) as file:
            for entry in _entries(file, names):
                key, location = _read(entry)
                if key in wanted:
                    found[key] = location
    except (ElementTree.ParseError, EOFError, OSError, KeyError, ValueError) as error:
        raise FetchError(f"the metadata {primary.name} cannot be read: {error}", hint="name another mirror") from error
    return found


def content_words(repomd: bytes) -> list[str]:
    """The words with which a repository describes its content, as openSUSE's name their keys. Raises FetchError."""
    try:
        root = ElementTree.fromstring(repomd)  # noqa: S314 - expat itself limits what entities come to
    except ElementTree.ParseError as error:
        raise FetchError(f"repomd.xml cannot be read: {error}", hint="name another mirror") from error
    return [str(one.text) for one in root.iterfind(f"{_REPO}tags/{_REPO}content") if one.text]


def _primary(repository: Path) -> Path:
    root = ElementTree.parse(repository / "repodata/repomd.xml").getroot()  # noqa: S314 - its signature was checked
    for data in root.iterfind(f"{_REPO}data"):
        location = data.find(f"{_REPO}location")
        if data.get("type") == "primary" and location is not None:
            return repository / location.get("href", "")
    raise FetchError("the metadata of a repository has no list of packages", hint="name another mirror")


def _opened(file: Path) -> IO[bytes]:
    match file.suffix:
        case ".gz":
            import gzip

            return cast("IO[bytes]", gzip.open(file))
        case ".zst":
            import zstandard

            return cast("IO[bytes]", zstandard.open(file, "rb"))
        case ".xz":
            import lzma

            return lzma.open(file)
        case ".bz2":
            import bz2

            return bz2.open(file)
        case _:
            return file.open("rb")


def _entries(file: IO[bytes], names: Collection[bytes]) -> Iterator[bytes]:
    """The elements of packages that are called so."""
    rest = b""
    while block := file.read(_BLOCK):
        rest += block
        end = rest.rfind(_END)
        if end < 0:
            continue
        whole, rest = rest[: end + len(_END)], rest[end + len(_END) :]
        for match in _NAME.finditer(whole):
            if match[1] in names:
                yield whole[match.start() : whole.index(_END, match.end()) + len(_END)]


def _read(entry: bytes) -> tuple[Key, Location]:
    spaces = f'xmlns="{_COMMON[1:-1]}" xmlns:rpm="http://linux.duke.edu/metadata/rpm"'
    text = b"<of %s>" % spaces.encode() + entry + b"</of>"
    package = ElementTree.fromstring(text)[0]  # noqa: S314 - the signed repomd.xml has its digest

    def attributes(name: str) -> dict[str, str]:
        element = package.find(f"{_COMMON}{name}")
        return {} if element is None else element.attrib

    version, location, checksum = attributes("version"), attributes("location"), package.find(f"{_COMMON}checksum")
    edition = f"{version['ver']}-{version['rel']}"
    if version.get("epoch", "0") != "0":
        edition = f"{version['epoch']}:{edition}"
    sha256 = checksum.text or "" if checksum is not None and checksum.get("type") == "sha256" else ""
    key = (package.findtext(f"{_COMMON}name", ""), edition, package.findtext(f"{_COMMON}arch", ""))
    size = int(attributes("size").get("package", "0"))
    return key, Location(location["href"], location.get(_BASE, ""), sha256, size)
