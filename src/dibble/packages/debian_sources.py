"""APT source lists as values: read in both of their forms, written in one; the mirrors that the host uses.

Source: sources.list(5) of apt 3.0. What a source means to a build (keys, isolation) is decided in `apt_sources.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import PackageError, Where
from dibble.packages.deb822 import paragraphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ARCHIVE = "http://ftp.debian.org/debian"
SECURITY = "http://security.debian.org/debian-security"

ALIASES = {
    "oldoldstable": "bullseye",
    "oldstable": "bookworm",
    "stable": "trixie",
    "testing": "forky",
    "unstable": "sid",
}
"""Since the release of Debian 13 in August 2025; an InRelease file knows better."""

CODENAMES = ("buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid")
_DEBIAN_SUITES = frozenset((*ALIASES, *CODENAMES, "experimental", "rc-buggy"))

# Options of the one-line form and the fields that they are in deb822 form (sources.list(5), "options").
_FIELD_OF_OPTION = {
    "arch": "Architectures",
    "lang": "Languages",
    "target": "Targets",
    "pdiffs": "PDiffs",
    "by-hash": "By-Hash",
    "signed-by": "Signed-By",
    "trusted": "Trusted",
    "allow-insecure": "Allow-Insecure",
    "allow-weak": "Allow-Weak",
    "allow-downgrade-to-insecure": "Allow-Downgrade-To-Insecure",
    "check-valid-until": "Check-Valid-Until",
    "valid-until-min": "Valid-Until-Min",
    "valid-until-max": "Valid-Until-Max",
    "check-date": "Check-Date",
    "date-max-future": "Date-Max-Future",
    "inrelease-path": "InRelease-Path",
    "snapshot": "Snapshot",
}
_FIELD_NAMES = {field.lower(): field for field in _FIELD_OF_OPTION.values()}
_YES = frozenset(("yes", "true", "1", "on", "with", "enable"))
_NO = frozenset(("no", "false", "0", "off", "without", "disable"))


@dataclass(frozen=True, slots=True)
class Source:
    """Binary packages from each suite of each URI; `fields` are the further deb822 fields, in order.

    An exact path as suite ends in "/" and has no components. `signed_by` is the field's value: paths, fingerprints, or
    an armoured key (its lines without the deb822 indentation).
    """

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...] = ()
    signed_by: str = ""
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether a URI names files of the machine that apt runs on."""
        return any(uri.partition(":")[0] in ("file", "copy", "cdrom", "mirror+file") for uri in self.uris)

    def stanza(self) -> str:
        """The source as one deb822 paragraph, with its final newline."""
        rows = [("Types", "deb"), ("URIs", " ".join(self.uris)), ("Suites", " ".join(self.suites))]
        if self.components:
            rows.append(("Components", " ".join(self.components)))
        if self.signed_by:
            rows.append(("Signed-By", _folded(self.signed_by)))
        return "".join(f"{name}: {value}\n" for name, value in (*rows, *self.fields))


def parse_list(text: str, where: Path | str = "sources.list") -> list[Source]:
    """The `deb` lines of a file in one-line form, in order; `deb-src` lines bring nothing to an image.

    Raises PackageError with the line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        content = re.sub(r"(^|\s)#.*", "", line).strip()
        if not content:
            continue
        place = Where(file=where, line=number)
        match = re.fullmatch(r"(deb|deb-src)\s+(?:\[([^]]*)\]\s*)?(\S.*)", content)
        if not match:
            raise PackageError(
                f"this is no apt source: {content}", hint='it has the form "deb URI SUITE COMPONENT…"', where=place
            )
        words = match[3].split()
        if len(words) < 2 or (len(words) == 2) != words[1].endswith("/"):
            raise PackageError(
                f"an apt source has a URI, a suite and components: {content}",
                hint='a suite that is an exact path ends in "/" and has no components',
                where=place,
            )
        if match[1] == "deb":
            options = dict(_options(match[2] or "", place))
            signed_by = options.pop("Signed-By", "")
            found.append(Source((words[0],), (words[1],), tuple(words[2:]), signed_by, tuple(options.items())))
    return found


def parse_deb822(text: str, where: Path | str = "debian.sources") -> list[Source]:
    """The enabled sources of binary packages in a file in deb822 form, in order. Raises PackageError with the line."""
    found = []
    for paragraph in paragraphs(text.encode(), where):
        fields = {name.lower(): value for name, value in paragraph.fields.items()}
        place = Where(file=where, line=paragraph.line)
        if fields.get("enabled", "yes").strip().lower() in _NO:
            continue
        if missing := [name for name in ("Types", "URIs", "Suites") if not fields.get(name.lower(), "").strip()]:
            raise PackageError(f"an apt source lacks the field {missing[0]}", where=place)
        if "deb" not in fields["types"].split():
            continue
        extra = tuple((_FIELD_NAMES[name], value) for name, value in fields.items() if name in _FIELD_NAMES)
        found.append(
            Source(
                tuple(fields["uris"].split()),
                tuple(fields["suites"].split()),
                tuple(fields.get("components", "").split()),
                _unfolded(fields.get("signed-by", "")),
                tuple((name, value) for name, value in extra if name != "Signed-By"),
            )
        )
    return found


def read_sources(etc_apt: Path) -> list[Source]:
    """All sources of a system, in apt's order: sources.list, then sources.list.d by name. Raises PackageError."""
    files = [etc_apt / "sources.list"]
    parts = etc_apt / "sources.list.d"
    if parts.is_dir():
        files += sorted(parts.iterdir())
    found = []
    for file in files:
        # apt reads names of [A-Za-z0-9_.-] with these endings only (apt_preferences(5) has the same rule)
        if not file.is_file() or not re.fullmatch(r"[\w.-]+\.(list|sources)", file.name, re.ASCII):
            continue
        parse = parse_list if file.suffix == ".list" else parse_deb822
        found += parse(file.read_text("utf-8", "replace"), file)
    return found


@dataclass(frozen=True, slots=True)
class HostMirrors:
    """Where the host gets Debian from; the shipped defaults where it does not say."""

    archive: str = ARCHIVE
    security: str = SECURITY


def host_mirrors(etc_apt: Path = Path("/etc/apt")) -> HostMirrors:
    """The first Debian archive and the first security archive in the host's apt sources, without final slash.

    Only entries for Debian suites whose path ends in /debian or /debian-security count: anything else (a derivative, a
    vendor) is no mirror of what we build. Files that cannot be read or parsed do not count either.
    """
    try:
        sources = read_sources(etc_apt)
    except (PackageError, OSError):
        return HostMirrors()
    mirrors = HostMirrors()
    for source in sources:
        suites = {suite.partition("-")[0].partition("/")[0] for suite in source.suites}
        if not suites <= _DEBIAN_SUITES or source.is_local:
            continue
        for uri in (uri.rstrip("/") for uri in source.uris):
            if not uri.startswith(("http:", "https:")):
                continue
            if uri.endswith("/debian") and mirrors.archive == ARCHIVE:
                mirrors = replace(mirrors, archive=uri)
            elif uri.endswith("/debian-security") and mirrors.security == SECURITY:
                mirrors = replace(mirrors, security=uri)
    return mirrors


def codename(suite: str, release: bytes = b"") -> str:
    """The codename behind a suite's name: from the text of its (In)Release file if given, else from our table."""
    if match := re.search(rb"^Codename: *(\S+)", release, re.MULTILINE):
        return match[1].decode("ascii", "replace")
    return ALIASES.get(suite, suite)


def render(sources: Iterable[Source]) -> str:
    """A file in deb822 form."""
    return "\n".join(source.stanza() for source in sources)


def _options(text: str, place: Where) -> Iterator[tuple[str, str]]:
    for name, _, plain, quoted in re.findall(r'([\w-]+)(\+|-)?=(?:"([^"]*)"|(\S*))', text):
        value = plain or quoted
        field = _FIELD_OF_OPTION.get(name.lower())
        if field is None:
            raise PackageError(
                f'an apt source has no option "{name}"', hint=f"known are: {', '.join(_FIELD_OF_OPTION)}", where=place
            )
        yield field, value if name.lower() == "signed-by" else value.replace(",", " ")


def _folded(value: str) -> str:
    lines = value.split("\n")
    if len(lines) == 1:
        return value
    return "\n" + "\n".join(f" {line}" if line else " ." for line in lines)


def _unfolded(value: str) -> str:
    lines = [line.strip() for line in value.strip().split("\n")]
    return "\n".join("" if line == "." else line for line in lines)
