"""What apt decides: which packages a request comes to, from which sources, in a root as it is or as it will be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import FetchError, PackageError, SignatureError
from dibble.packages.apt_answers import AptAnswers, key_of
from dibble.packages.apt_failures import resolve_failure
from dibble.packages.apt_foresee import installed_after, written
from dibble.packages.apt_index import reachable
from dibble.packages.apt_marks import STATES
from dibble.packages.apt_release import repository_state
from dibble.packages.apt_resolve import (
    PRINT,
    AptTransaction,
    are_newest,
    kept_back,
    parse_transaction,
    variant_patterns,
)
from dibble.packages.apt_sources import (
    bootstrap_sources,
    foreign_architectures,
    foreign_hooks,
    target_sources,
)
from dibble.packages.apt_state import AptState, RepositoryState, target_settings
from dibble.packages.dpkg_database import DATABASE, packages_in, read_status
from dibble.sandbox.inside import resolve_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dibble.events import Events
    from dibble.packages.apt_sources import SourceSet
    from dibble.packages.base import BootstrapRequest, Package
    from dibble.sandbox.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class AptSettings:
    """`root` is the mounted target as our process sees it, empty before a bootstrap; `arch` Debian's name.

    `state_dir` holds lists and caches; lists younger than `max_age_s` seconds are not asked for again.
    """

    root: Path
    arch: str
    packages_dir: Path
    blobs_dir: Path
    state_dir: Path
    offline: bool = False
    in_memory: bool = True
    """Whether temporary files may be kept in memory."""
    max_age_s: int = 3600
    epoch: int | None = None
    """For maintainer scripts, as SOURCE_DATE_EPOCH: useradd(8) and others write the day into files."""
    use: Callable[[Iterable[str]], None] = lambda digests: None
    """Told the sha256 of packages before they are looked for, so that nobody removes them (`Store.use_packages`)."""
    native: tuple[str, Path] | None = None
    """For a root whose programs are emulated: this machine's architecture, and a new directory on the store's file
    system for programs of it (`native_tools`)."""
    scratch: Path | None = None
    """A directory for what lives no longer than the build; kernel modules are decompressed into it, ahead."""


class AptDecisions:
    """For one target root. Use from one thread at a time, inside the namespace."""

    kind = "apt"
    """The kind of what a step's result depends on (`store.layers.Input`)."""

    def __init__(self, settings: AptSettings, toolbox: Toolbox, events: Events) -> None:
        self._settings = settings
        self._toolbox = toolbox
        self._events = events
        self._state: AptState | None = None
        self._of_target = False
        self._hooks: tuple[str, ...] = ()
        self._answers = AptAnswers(settings.state_dir / "answers")

    def bootstrap(self, request: BootstrapRequest) -> AptTransaction:
        """What a new root of this variant holds; later calls keep to these sources until `use_target_sources`.

        The mirrors are tried in order. Raises FetchError, SignatureError, PackageError.
        """
        asked = variant_patterns(request.variant, request.include, request.exclude)
        sources = bootstrap_sources(request, self._toolbox.root or Path("/"))
        self._of_target = False
        self._state = self._reachable(sources, request.mirrors)
        chosen = parse_transaction(self._ask("install", asked, None), {}, ()).install
        if "usrmerge" in {package.name for package in chosen}.difference(request.include):
            # it brings all of Perl to convert a root; ours has a merged /usr from the start (as with debootstrap)
            chosen = parse_transaction(self._ask("install", [*asked, "usr-is-merged"], None), {}, ()).install
        newest = not any(sign in word for word in asked for sign in "=/")
        return AptTransaction(chosen, marks=False, newest=newest)

    def use_target_sources(self) -> None:
        """From now on take sources, keys, pins and settings from the target's own /etc/apt, as it is at each call.

        Raises PackageError or SignatureError when they cannot be read.
        """
        self._of_target = True
        self._current()

    def resolve(self, install: Sequence[str], remove: Sequence[str] = ()) -> AptTransaction:
        """What installing and removing these come to, in the words of apt-get(8): NAME, NAME=VERSION, NAME/SUITE …

        A word that begins with "/" or "./" is a package file in the target. Raises PackageError for what is unknown or
        cannot be together, FetchError and SignatureError for lists that cannot be had.
        """
        local = tuple(word for word in install if word.startswith(("/", "./")))
        asked = [word for word in install if word not in local]
        files = [self._toolbox.path(resolve_inside(self._settings.root, word)) for word in local]
        verb = "install" if install else "remove"
        gone = [f"{name}-" for name in remove] if install else list(remove)
        output = self._ask(verb, [*asked, *files, *gone], self._status_file())
        return replace(self._parsed(output, asked), local=local)

    def upgrade(self) -> AptTransaction:
        """What bringing all packages to their newest versions comes to (dist-upgrade)."""
        output = self._ask("dist-upgrade", [], self._status_file())
        if kept := kept_back(output):
            self._events.note(f"kept at their versions: {', '.join(kept)}", "warning")
        return self._parsed(output, ())

    def foresee(
        self,
        earlier: Sequence[AptTransaction],
        install: Sequence[str] = (),
        remove: Sequence[str] = (),
        *,
        upgrade: bool = False,
    ) -> AptTransaction:
        """What `resolve`, or `upgrade`, will come to when `earlier` have been carried out on an empty root.

        No root is looked at; the sources are those last used or set. With the same sources, what comes later is exactly
        this. Raises as `resolve`, and PackageError for a package file in the target.
        """
        if local := [word for word in install if word.startswith(("/", "./"))]:
            raise PackageError(f"{local[0]} is a file in the target, which is not known before it is there")
        state = self._state
        if state is None:
            raise PackageError("no sources are known yet", hint="bootstrap, or use the target's")
        newest = are_newest(earlier)
        if upgrade and newest:
            return AptTransaction()
        verb = "dist-upgrade" if upgrade else "install" if install else "remove"
        asked = [] if upgrade else [*install, *(f"{name}-" if install else name for name in remove)]
        present = installed_after(earlier)
        names = sorted({name for name, _ in present})
        with (
            state.reading() as lists,
            reachable(lists, names, None, state.sources.settings, state.index) as part,
            written(
                earlier, sorted(part.iterdir()) if part else lists, self._settings.arch, self._settings.state_dir
            ) as files,
        ):
            if newest and (key := key_of(self._toolbox.identity, state, ["dist-upgrade"], *files)):
                self._answers.put(key, "")
            output = self._answer(state, verb, asked, *files, activity="resolve ahead")
        installed = {key: package.version for key, package in present.items()}
        return parse_transaction(output, installed, install)

    @property
    def state(self) -> AptState | None:
        """The apt that was asked last."""
        return self._state

    @property
    def sources(self) -> SourceSet | None:
        """The sources last used."""
        return self._state.sources if self._state else None

    def use_sources(self, sources: SourceSet) -> None:
        """Take these sources, for `foresee`, and for later calls until `bootstrap` or `use_target_sources`."""
        self._of_target = False
        if self._state is None or self._state.sources.digest != sources.digest:
            self._state = self._new_state(sources)

    def use_bootstrap_sources(self, request: BootstrapRequest) -> None:
        """Take the sources that a bootstrap had, as `use_sources` does."""
        self.use_sources(bootstrap_sources(request, self._toolbox.root or Path("/")))

    def _parsed(self, output: str, asked: Sequence[str]) -> AptTransaction:
        installed = {(package.name, package.arch): package.version for package in self.installed()}
        # files in the target, in whose place the tools see another path than we
        here, there = f"file:{self._toolbox.path(self._settings.root)}/", f"file:{self._settings.root}/"
        return parse_transaction(output.replace(f"'{here}", f"'{there}"), installed, asked)

    def _status_file(self) -> Path | None:
        path = self._settings.root / DATABASE / "status"
        return path if path.exists() else None

    def _current(self) -> AptState:
        """The state to ask now; a target's sources may have changed since the last call."""
        if not self._of_target:
            if self._state is None:
                raise PackageError("no sources are known yet", hint="bootstrap, or use the target's")
            return self._state
        settings = self._settings
        dump = target_settings(settings.root, settings.state_dir, self._toolbox)
        self._hooks = foreign_hooks(dump)
        foreign = foreign_architectures(settings.root, settings.arch)
        shown = self._toolbox.path(settings.root)
        sources = target_sources(settings.root, settings.arch, foreign, dump, shown=shown)
        if not sources.sources:
            raise PackageError(
                "the target has no apt sources", hint="write its /etc/apt/sources.list in a pre-install.d script"
            )
        if self._state is None or self._state.sources.digest != sources.digest:
            self._state = self._new_state(sources)
        return self._state

    def _reachable(self, sources: SourceSet, mirrors: Sequence[str]) -> AptState:
        """The state for the first mirror whose lists can be had."""
        errors: list[FetchError] = []
        for mirror in mirrors:
            state = self._new_state(sources.with_mirror(mirrors[0], mirror))
            try:
                state.refresh()
            except SignatureError:
                raise
            except FetchError as error:
                errors.append(error)
            else:
                return state
        raise errors[0]

    def _new_state(self, sources: SourceSet) -> AptState:
        return AptState(
            sources,
            self._settings.state_dir,
            self._toolbox,
            self._events,
            offline=self._settings.offline,
            max_age_s=self._settings.max_age_s,
        )

    def _ask(self, verb: str, asked: Sequence[str], status: Path | None) -> str:
        """Apt's answer to a request. Raises PackageError when it has none."""
        return self._answer(self._current(), verb, asked, status, self._settings.root / STATES if status else None)

    def _answer(
        self,
        state: AptState,
        verb: str,
        asked: Sequence[str],
        status: Path | None,
        extended: Path | None,
        *,
        activity: str = "resolve",
    ) -> str:
        """Apt's answer, perhaps one that it gave before."""
        with state.reading() as lists:
            key = key_of(self._toolbox.identity, state, [verb, *asked], status, extended)
            if key and (kept := self._answers.get(key)) is not None:
                return kept
            argv = ["apt-get", verb, *PRINT, *asked]
            with (
                self._events.activity(activity),
                reachable(lists, asked, status, state.sources.settings, state.index) as part,
            ):
                done = state.run(argv, status, extended, part)
                if part and done.status:  # the whole lists say more
                    done = state.run(argv, status, extended)
        if done.status:
            suites = [suite for _, suite in state.sources.places]
            known = state.run(["apt-cache", "pkgnames"], status).output.splitlines()
            raise resolve_failure(done.output, asked, suites, known)
        if key:
            self._answers.put(key, done.output)
        return done.output

    def installed(self) -> list[Package]:
        """The packages whose files are in the root, sorted by name as in dpkg's status file."""
        return packages_in(read_status(self._settings.root))

    def repository_state(self, uri: str, suite: str) -> str | None:
        """The sha256 of a repository's newest top-level file, without apt; None when nobody can tell."""
        settings = self._settings
        return repository_state(uri, suite, settings.state_dir, offline=settings.offline, max_age_s=settings.max_age_s)

    def repositories(self) -> tuple[RepositoryState, ...]:
        """The repositories of the sources in use and the sha256 of what apt used of each."""
        from hashlib import sha256

        if self._state is None:
            return ()
        found = self._state.release_files().items()
        return tuple(RepositoryState(uri, suite, sha256(path.read_bytes()).hexdigest()) for (uri, suite), path in found)
