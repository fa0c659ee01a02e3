"""Where packages of pacman's come from: repositories, with their databases and the keys that count.

STATE/pacman/small      databases as they came (`small_files.py`)
STATE/pacman/checked    an empty file for each database that was checked with certain keys
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import FetchError, FileGone, PackageError, SignatureError
from dibble.packages.apt_state import RepositoryState
from dibble.packages.pacman_conf import Check, Configuration, Repository, read_configuration, servers_of
from dibble.packages.pacman_keys import Keyrings, Keys, given_keys
from dibble.packages.small_files import SmallFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.events import Events
    from dibble.packages.base import BootstrapRequest, ManagerSettings
    from dibble.packages.pacman_signatures import Signatures
    from dibble.sandbox.toolbox import Toolbox

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7h", "i386": "i686"}
_LIMIT = 128 << 20  # bytes, of a database
WHERE = (
    "check the mirror (DIB_DISTRIBUTION_MIRROR), the day of a snapshot (DIB_ARCH_SNAPSHOT) and the architecture (-a)"
)


@dataclass(frozen=True, slots=True)
class Sources:
    """`databases` are files by the names of repositories; `keys` is None where nothing is to be checked."""

    configuration: Configuration
    databases: Mapping[str, Path]
    keys: Keys | None

    def repository(self, name: str) -> Repository:
        return next(one for one in self.configuration.repositories if one.name == name)


class Finder:
    """Finds the sources of one target root. `place` is a directory in the store."""

    def __init__(
        self, settings: ManagerSettings, place: Path, signatures: Signatures, toolbox: Toolbox, events: Events
    ) -> None:
        self._settings = settings
        self._place = place
        self._signatures = signatures
        self._toolbox = toolbox
        self._events = events
        self._keyrings = Keyrings(place / "keys", settings.scratch, toolbox)
        self._small = SmallFiles(place / "small", offline=settings.offline, max_age_s=settings.max_age_s, limit=_LIMIT)
        self.states: tuple[RepositoryState, ...] = ()
        """The databases that were found last, each with the token by which a change is seen."""

    @property
    def arch(self) -> str:
        """pacman's name for the machine."""
        return _ARCHITECTURES.get(self._settings.arch, self._settings.arch)

    def of_bootstrap(self, request: BootstrapRequest) -> Sources:
        """Those of a request. Raises FetchError, SignatureError, PackageError."""
        repositories = (
            Repository(name, servers_of(request.mirrors, name, request.arch)) for name in request.components
        )
        with self._events.activity("signatures"):
            if request.keys:
                keys = given_keys(request.keys, self._small, self._toolbox.root or Path("/"))
            else:
                keys = self._keyrings.of_tools()
        return self._found(Configuration(tuple(repositories)), keys)

    def of_target(self) -> Sources:
        """Those of the target's own settings. Raises FetchError, SignatureError, PackageError."""
        configuration = read_configuration(self._settings.root, self.arch)
        if not configuration.repositories:
            raise PackageError("the target has no repositories", hint="name some in its /etc/pacman.conf")
        for one in configuration.repositories:
            if not one.servers:
                raise PackageError(
                    f"the target's repository {one.name} has no server",
                    hint="name one in its /etc/pacman.d/mirrorlist, or in /etc/pacman.conf",
                )
        if all(one.check is Check.NEVER for one in configuration.repositories):
            return self._found(configuration, None)
        with self._events.activity("signatures"):
            keys = self._keyrings.of_target(self._settings.root)
        return self._found(configuration, keys)

    def _found(self, configuration: Configuration, keys: Keys | None) -> Sources:
        self.states = ()
        with self._events.activity("resolve"):
            databases = {one.name: self._database(one, keys) for one in configuration.repositories}
        return Sources(configuration, databases, keys)

    def _database(self, repository: Repository, keys: Keys | None) -> Path:
        """A file with what a repository has. Of its signature, which most have not, `DatabaseOptional` holds."""
        url, data = self._from_a_server(repository)
        place = self._settings.scratch / "databases" / f"{repository.name}.db"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        if repository.check is not Check.NEVER and keys is not None:
            self._check(url, data, place, keys)
        if token := self._small.tokens.get(url, ""):
            self.states = (*self.states, RepositoryState(url, "", token))
        return place

    def _from_a_server(self, repository: Repository) -> tuple[str, bytes]:
        errors: list[FetchError] = []
        for url in repository.urls(f"{repository.name}.db"):
            try:
                return url, self._small.get(url)
            except FetchError as error:
                errors.append(error)
        if all(isinstance(error, FileGone) for error in errors):
            raise FileGone(f"there is no repository {repository.name}: {errors[0].message}", hint=WHERE)
        raise errors[0]

    def _check(self, url: str, data: bytes, file: Path, keys: Keys) -> None:
        mark = self._place / "checked" / hashlib.sha256(data + keys.name.encode()).hexdigest()
        if mark.exists():
            return
        try:
            signature = self._small.get(f"{url}.sig")
        except FileGone:
            signature = b""
        except FetchError:
            if not self._settings.offline:
                raise
            signature = b""  # nor was there one when the database was fetched
        if signature:
            try:
                self._signatures.signers(keys).check(file, signature, url)
            except SignatureError:
                self._small.forget(url)
                self._small.forget(f"{url}.sig")
                raise
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
