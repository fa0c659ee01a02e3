"""What apt decides → a transaction.

One run tells everything: `apt-get install --print-uris` with one -q lists what is removed, then each file to fetch, in
the order of unpacking, with hash and size. For all of Debian, with warm caches, it takes 0.4 s; a simulation (-s) takes
2 to 3 s.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dibble.errors import PackageError
from dibble.packages.base import Package, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Hashes other than this one do not name blobs; apt prints the strongest that an index has unless told.
PRINT = ("-q", "--print-uris", "-o", "Acquire::ForceHash=SHA256")

_FILE = re.compile(r"'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+) (?P<hash>\S*)")
_SELECTING = re.compile(r"Note, selecting '([^']+)' (?:instead of|for (?:glob|regex|task)) '([^']+)'")

REQUIRED = ("?essential", "?priority(required)", "apt")
_VARIANTS: dict[str, tuple[str, ...]] = {
    "custom": (),
    "extract": (),
    "essential": ("?essential",),
    "apt": ("?essential", "apt"),
    "required": REQUIRED,
    "minbase": REQUIRED,
    "buildd": (*REQUIRED, "build-essential"),
    "important": (*REQUIRED, "?priority(important)"),
    "debootstrap": (*REQUIRED, "?priority(important)"),
    "-": (*REQUIRED, "?priority(important)"),
    "standard": (*REQUIRED, "?priority(important)", "?priority(standard)"),
}


@dataclass(frozen=True, slots=True)
class AptTransaction(Transaction):
    """`manual` are the names that were asked for; what comes with them is marked as automatically installed.

    With `marks` false no marks are kept at all, as after a bootstrap, where everything counts as asked for. `local` are
    package files in the target, by their paths there. `newest` says that the sources had no newer version of any.
    """

    manual: tuple[str, ...] = ()
    marks: bool = True
    local: tuple[str, ...] = ()
    newest: bool = False

    def __bool__(self) -> bool:
        return bool(self.install or self.upgrade or self.remove or self.local)

    def choice(self) -> dict[str, Any]:
        """What was asked for by name, whether marks are kept, and whether all is the newest."""
        return {"manual": list(self.manual), "marks": self.marks, "newest": self.newest}

    def as_json(self) -> dict[str, Any]:
        """The transaction as plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> AptTransaction:
        """What `as_json` gave. Raises PackageError for anything else."""
        try:
            install, upgrade = (tuple(_package_from(row) for row in data[kind]) for kind in ("install", "upgrade"))
            remove, manual, local = (tuple(map(str, data[kind])) for kind in ("remove", "manual", "local"))
            return cls(install, upgrade, remove, manual, bool(data["marks"]), local, bool(data.get("newest", False)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PackageError(f"this is not a transaction of packages: {error}") from error


def are_newest(transactions: Sequence[AptTransaction]) -> bool:
    """Whether a root after these, which began empty, leaves an upgrade from the same sources nothing to do."""
    return len(transactions) == 1 and transactions[0].newest


def variant_patterns(variant: str, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The arguments to `apt-get install` for a variant as mmdebstrap(1) and debootstrap(8) know it.

    Raises PackageError for an unknown variant.
    """
    patterns = _VARIANTS.get(variant or "-")
    if patterns is None:
        raise PackageError(f'there is no variant "{variant}"', hint=f"known are: {', '.join(_VARIANTS)}")
    return [*patterns, *include, *(f"{name}-" for name in exclude)]


def parse_transaction(output: str, installed: Mapping[tuple[str, str], str], asked: Iterable[str]) -> AptTransaction:
    """The transaction in the output of `apt-get … PRINT`.

    `installed` maps (name, architecture) to the version in the root. Raises PackageError for a file without sha256.
    """
    install: list[Package] = []
    upgrade: list[Package] = []
    names = {name for name, _ in installed}
    for line in output.splitlines():
        if match := _FILE.fullmatch(line.rstrip()):
            package = _package(match)
            # a package may change between an architecture and "all"
            known = (package.name, package.arch) in installed or (
                package.name in names and (package.arch == "all" or (package.name, "all") in installed)
            )
            (upgrade if known else install).append(package)
    chosen = dict((wanted, real) for real, wanted in _SELECTING.findall(output))
    manual = dict.fromkeys(real for real, _ in _SELECTING.findall(output))
    for word in asked:
        name = re.split(r"[=/]", word)[0].removesuffix("+")
        if not word.endswith("-") or word in names:
            manual[chosen.get(name, name)] = None
    return AptTransaction(tuple(install), tuple(upgrade), tuple(_removed(output)), tuple(manual))


def kept_back(output: str) -> list[str]:
    """Packages that an upgrade leaves at their old version."""
    return _section(output, "The following packages have been kept back:")


def _package(match: re.Match[str]) -> Package:
    name, version, arch = (unquote(part) for part in match["file"].removesuffix(".deb").split("_"))
    kind, _, digest = match["hash"].partition(":")
    if kind != "SHA256":
        raise PackageError(
            f"the index of {match['url']} has no sha256 for it", hint="such an archive is too old to be used safely"
        )
    return Package(name, version, arch, match["url"], digest, int(match["size"]))


def _package_from(row: Mapping[str, Any]) -> Package:
    texts = {name: str(row[name]) for name in ("name", "version", "arch", "url", "sha256")}
    return Package(**texts, size=int(row["size"]))


def _removed(output: str) -> list[str]:
    return [name.rstrip("*") for name in _section(output, "The following packages will be REMOVED:")]


def _section(output: str, title: str) -> list[str]:
    names: list[str] = []
    inside = False
    for line in output.splitlines():
        if line.strip() == title:
            inside = True
        elif inside and line.startswith("  "):
            names += [word for word in line.split() if not word.startswith("(")]
        else:
            inside = False
    return names
