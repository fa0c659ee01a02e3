"""What every package manager is to the rest: the protocol and its values (design.md 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dibble.packages.apt_state import RepositoryState


@dataclass(frozen=True, slots=True)
class Package:
    """One exact package. `url`, `sha256` and `size` (bytes) are of the file to download."""

    name: str
    version: str
    arch: str
    url: str = ""
    sha256: str = ""
    size: int = 0

    @property
    def file_name(self) -> str:
        """Last part of the URL, as the archive names it."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Download:
    """One file to fetch and verify. `urls` are tried in order; `size` in bytes, 0 when unknown."""

    urls: tuple[str, ...]
    sha256: str
    size: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a request comes to: exact packages.

    `install` holds packages that are new to the root, in the resolver's order; `upgrade` those that replace another
    version; `remove` the names that go.
    """

    install: tuple[Package, ...] = ()
    upgrade: tuple[Package, ...] = ()
    remove: tuple[str, ...] = ()

    @property
    def downloads(self) -> tuple[Package, ...]:
        return self.install + self.upgrade

    def choice(self) -> dict[str, Any]:
        """What else a package manager keeps of a transaction, as plain JSON data."""
        return {}

    def as_json(self) -> dict[str, Any]:
        """The transaction as plain JSON data, in the form that all kinds share (`AptTransaction.from_json`)."""
        return as_data(self, ())

    def __bool__(self) -> bool:
        return bool(self.install or self.upgrade or self.remove)


def request_data(transaction: Transaction, verb: str, words: Sequence[str]) -> dict[str, Any]:
    """A request and what it came to, as plain JSON data: packages as [name, version, architecture, size, sha256]."""

    def rows(packages: Sequence[Package]) -> list[list[str | int]]:
        return [[package.name, package.version, package.arch, package.size, package.sha256] for package in packages]

    return {
        "verb": verb,
        "words": list(words),
        "install": rows(transaction.install),
        "upgrade": rows(transaction.upgrade),
        "remove": list(transaction.remove),
        **transaction.choice(),
    }


def as_data(transaction: Transaction, manual: Sequence[str]) -> dict[str, Any]:
    """A transaction as plain JSON data, in the form that all kinds share (`AptTransaction.from_json`)."""

    def rows(packages: Sequence[Package]) -> list[dict[str, Any]]:
        names = ("name", "version", "arch", "url", "sha256", "size")
        return [{name: getattr(package, name) for name in names} for package in packages]

    return {
        "install": rows(transaction.install),
        "upgrade": rows(transaction.upgrade),
        "remove": list(transaction.remove),
        "manual": list(manual),
        "marks": True,
        "local": [],
    }


@dataclass(frozen=True, slots=True)
class BootstrapRequest:
    """The first packages of an empty root.

    `suite` is the distribution's name for the release (`trixie`); `mirrors` are archive roots, best first;
    `components` in the archive's order; `include` extra packages; `keyrings` files that alone are trusted.
    """

    suite: str
    arch: str
    mirrors: tuple[str, ...]
    components: tuple[str, ...] = ("main",)
    variant: str = "minbase"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keyrings: tuple[Path, ...] = ()
    unsigned: bool = False
    sources: tuple[str, ...] = field(default=())
    """Further complete source lines, in the package manager's own syntax; for dnf and zypper, texts of .repo files."""
    variables: tuple[tuple[str, str], ...] = ()
    """What names in the sources stand for, besides those that the package manager knows."""
    keys: tuple[str, ...] = ()
    """Keys instead of those that the sources name: texts, or URLs."""
    fingerprints: tuple[str, ...] = ()
    """Of the keys that a repository publishes itself, those that count."""


class PackageManager(Protocol):
    """Resolves, fetches and applies packages to a root that is mounted in the sandbox."""

    def bootstrap(self, request: BootstrapRequest) -> Transaction: ...

    def resolve(self, install: Sequence[str], remove: Sequence[str] = ()) -> Transaction: ...

    def fetch(self, transaction: Transaction) -> None: ...

    def apply(self, transaction: Transaction) -> None: ...

    def installed(self) -> list[Package]: ...


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """`root` is the mounted target as our process sees it; `arch` Debian's name. Others as in `AptSettings`."""

    root: Path
    arch: str
    blobs_dir: Path
    state_dir: Path
    scratch: Path
    offline: bool = False
    max_age_s: int = 3600
    epoch: int | None = None


class TargetManager(PackageManager, Protocol):
    """What the engine asks of the package managers besides APT, whose work goes into layers of its own."""

    name: str
    kind: str
    """The kind of what a step's result depends on (`store.layers.Input`)."""

    @staticmethod
    def owns(root: Path) -> bool:
        """Whether a root's packages are for it to manage."""
        ...

    def upgrade(self) -> Transaction:
        """What bringing all packages to their newest versions comes to."""
        ...

    def foresee(
        self,
        earlier: Sequence[Transaction],
        install: Sequence[str] = (),
        remove: Sequence[str] = (),
        *,
        upgrade: bool = False,
    ) -> Transaction:
        """What a request comes to after `earlier`, without a root. Raises NotKnownYet where only a root can tell."""
        ...

    def apply(self, transaction: Transaction, on_line: Callable[[str], None] | None = None) -> None: ...

    def use_target_sources(self) -> None: ...

    def use_bootstrap_sources(self, request: BootstrapRequest) -> None: ...

    def repositories(self) -> tuple[RepositoryState, ...]:
        """What the last answer depends on."""
        ...
