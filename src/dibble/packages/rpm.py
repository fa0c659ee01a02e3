"""What the managers of RPM packages have in common: values, fetching into the store, and checking signatures.

Deciding and carrying out is a manager's own; what the packages are signed with, rpm checks (`rpm_keys.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dibble.errors import PackageError, SignatureError
from dibble.packages.base import Download, Package, Transaction, as_data
from dibble.packages.kernel_scripts import quick_kernels
from dibble.packages.rpm_database import RpmDatabase
from dibble.packages.rpm_keys import Keyring, key_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from dibble.events import Events
    from dibble.packages.apt_state import RepositoryState
    from dibble.packages.base import BootstrapRequest, ManagerSettings
    from dibble.sandbox.toolbox import Toolbox

GROUP = "rpm"
"""The group of tools."""


@dataclass(frozen=True, slots=True)
class RpmTransaction(Transaction):
    """`asked` is the request that it came of, to be made once more when it is carried out.

    `urls` (all mirrors) and `origins` (the repository) are by sha256; `keys` are a repository's, by its name.
    `nevras` are all packages that come in, sorted. `missing` are names that no repository has, of a request that
    allows that. `manual` are names as the request gave them.
    """

    asked: Mapping[str, Any] = field(default_factory=dict)
    urls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    nevras: tuple[str, ...] = ()
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    manual: tuple[str, ...] = ()

    def choice(self) -> dict[str, Any]:
        """What was asked for by name."""
        return {"manual": list(self.manual)}

    def as_json(self) -> dict[str, Any]:
        return as_data(self, self.manual)


class RpmManager(ABC):
    """One target root. Use from one thread at a time, inside the namespace."""

    kind = "rpm-md"
    """The kind of what a step's result depends on (`store.layers.Input`)."""
    name: str
    key_hint: ClassVar[str]
    """What to do about a key that is missing or not trusted."""
    backend: ClassVar[str] = "sqlite"
    """The kind of database that a bootstrap begins."""

    def __init__(self, settings: ManagerSettings, toolbox: Toolbox, events: Events) -> None:
        self._settings = settings
        self._toolbox = toolbox
        self._events = events
        self._request: BootstrapRequest | None = None
        self._repositories: tuple[RepositoryState, ...] = ()
        self._ready: tuple[RpmTransaction, dict[str, Path], list[Keyring]] | None = None
        self._database = RpmDatabase(settings.root, toolbox, settings.epoch, self.backend)

    @staticmethod
    @abstractmethod
    def owns(root: Path) -> bool:
        """Whether a root's packages are for it to manage."""

    @staticmethod
    @abstractmethod
    def bootstrap_request(words: Sequence[str]) -> BootstrapRequest:
        """The words of `bootstrap KIND …` as a request. Raises UsageError."""

    # --- deciding

    @abstractmethod
    def bootstrap(self, request: BootstrapRequest) -> RpmTransaction:
        """What the first packages of an empty root come to. Raises FetchError, SignatureError, PackageError."""

    @abstractmethod
    def resolve(self, install: Sequence[str], remove: Sequence[str] = ()) -> RpmTransaction:
        """What installing and removing these come to, in the package manager's own words."""

    @abstractmethod
    def upgrade(self) -> RpmTransaction:
        """What bringing all packages to their newest versions comes to."""

    def foresee(
        self,
        earlier: Sequence[Transaction],
        install: Sequence[str] = (),
        remove: Sequence[str] = (),
        *,
        upgrade: bool = False,
    ) -> RpmTransaction:
        """What an installation comes to after `earlier`, from the repositories of the bootstrap; no root is looked at.

        Raises PackageError for what only the finished root can tell.
        """
        if upgrade:
            return RpmTransaction()  # the newest versions are what a bootstrap takes
        if self._request is None or remove:
            raise PackageError("what a removal comes to is not known before the packages are there")
        return self._foreseen(self._request, [one for done in earlier for one in done.downloads], install)

    @abstractmethod
    def _foreseen(
        self, request: BootstrapRequest, present: Sequence[Package], install: Sequence[str]
    ) -> RpmTransaction:
        """What `install` comes to in a root that has the packages `present`."""

    def use_target_sources(self) -> None:
        """From now on take repositories, keys, variables and settings from the target's own files."""
        self._request = None

    def use_bootstrap_sources(self, request: BootstrapRequest) -> None:
        """Take the repositories that a bootstrap had, for `foresee`."""
        self._request = request

    def repositories(self) -> tuple[RepositoryState, ...]:
        """The repositories that were asked last, each with the sha256 of its top-level file."""
        return self._repositories

    # --- doing

    def fetch(self, transaction: Transaction) -> None:
        """Download what the store lacks, and check every signature. Raises FetchError, SignatureError."""
        self._fetched(known(transaction))

    @abstractmethod
    def apply(self, transaction: Transaction, on_line: Callable[[str], None] | None = None) -> None:
        """Carry out a transaction in the root, whose /proc, /dev and /sys must be there.

        Raises PackageError where rpm refuses it. A scriptlet that fails is told as a warning.
        """

    def installed(self) -> list[Package]:
        """The packages of the root, sorted by name."""
        return self._database.installed()

    # --- support

    def _fetched(self, transaction: RpmTransaction) -> tuple[dict[str, Path], list[Keyring]]:
        """The files of a transaction by sha256, and the keys that they were checked with, once."""
        from dibble.packages.fetch import fetch_all

        if self._ready and self._ready[0] is transaction:
            return self._ready[1:]
        settings = self._settings
        downloads = [
            Download(transaction.urls[one.sha256], one.sha256, one.size, one.name) for one in transaction.downloads
        ]
        files = fetch_all(downloads, settings.blobs_dir, self._events, offline=settings.offline)
        self._ready = (transaction, files, list(self._checked(transaction, files)))
        return self._ready[1:]

    def _quick_kernels(self, transaction: RpmTransaction, files: Mapping[str, Path]) -> AbstractContextManager[None]:
        """While the block runs, the scripts of a transaction's kernels are quick; `files` are by sha256."""
        settings = self._settings
        packages = {package.name: files[package.sha256] for package in transaction.downloads}
        return quick_kernels(settings.root, packages, settings.scratch, self._toolbox, self._events)

    def _checked(self, transaction: RpmTransaction, files: Mapping[str, Path]) -> Iterator[Keyring]:
        by_repository: dict[str, dict[str, Path]] = {}
        for package in transaction.downloads:
            origin = transaction.origins[package.sha256]
            by_repository.setdefault(origin, {})[package.file_name] = files[package.sha256]
        for number, (repository, packages) in enumerate(sorted(by_repository.items())):
            if repository not in transaction.keys:
                continue
            ring = self._keyring(repository, transaction.keys[repository], f"keys-{number}")
            with self._events.activity("signatures"):
                ring.check(packages)
            yield ring

    def _keyring(self, repository: str, places: Sequence[str], name: str) -> Keyring:
        """The keys of a repository, given as texts, URLs or paths. Raises SignatureError, FetchError."""
        settings = self._settings
        if not places:
            raise SignatureError(f"the repository {repository} names no key", hint=self.key_hint)
        view = self._toolbox.root or Path("/")
        texts = [key_texts(one, settings.root, view, offline=settings.offline, hint=self.key_hint) for one in places]
        return Keyring(texts, settings.scratch / name, self._toolbox, repository, hint=self.key_hint)

    def _require_sha256(self, sha256: str, package: str, repository: str) -> None:
        if not sha256:
            raise PackageError(
                f"the repository {repository} has no sha256 of {package}",
                hint="such a repository is too old to be used safely",
            )


def known(transaction: Transaction) -> RpmTransaction:
    """The transaction as one of ours."""
    if not isinstance(transaction, RpmTransaction):
        raise PackageError("this is a transaction of another package manager")
    return transaction
