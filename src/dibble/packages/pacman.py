"""pacman: the real one, of the tools tree, decides what to install and carries it out in the target.

Databases and packages are fetched into the store by us, and each signature is checked by gpgv with the keys that count
(`pacman_sources.py`, `pacman_signatures.py`); pacman is given files that have been checked, and no server. A request
that is foreseen is decided in a database made of what those of the repositories say.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dibble.errors import NotKnownYet, PackageError
from dibble.packages import pacman_answers as answers
from dibble.packages import pacman_database as database
from dibble.packages.base import BootstrapRequest, Download, Package, Transaction, as_data
from dibble.packages.bootstrap_words import bootstrap_words
from dibble.packages.fetch import fetch_all
from dibble.packages.kernel_scripts import same_initramfs
from dibble.packages.pacman_conf import Check
from dibble.packages.pacman_keys import put_into_image
from dibble.packages.pacman_signatures import Signatures, Signed, signatures_inside
from dibble.packages.pacman_sources import Finder, Sources
from dibble.sandbox import mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dibble.events import Events
    from dibble.packages.apt_state import RepositoryState
    from dibble.packages.base import ManagerSettings
    from dibble.sandbox.process import Completed
    from dibble.sandbox.toolbox import Toolbox

GROUP = "pacman"
"""The group of tools."""
_LOG = "var/log/pacman.log"


@dataclass(frozen=True, slots=True)
class PacmanTransaction(Transaction):
    """`words` are what pacman is called with, once for removing and once for installing.

    `urls` (all mirrors) and `origins` (the repository) are by sha256. `manual` are names as the request gave them.
    """

    sources: Sources | None = None
    words: tuple[tuple[str, ...], ...] = ()
    urls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    manual: tuple[str, ...] = ()

    def choice(self) -> dict[str, Any]:
        """What was asked for by name."""
        return {"manual": list(self.manual)}

    def as_json(self) -> dict[str, Any]:
        """The transaction as plain JSON data, in the form that all kinds share."""
        return as_data(self, self.manual)


class Pacman:
    """One target root. Use from one thread at a time, inside the namespace."""

    kind = "pacman"
    """The kind of what a step's result depends on (`store.layers.Input`)."""
    name = "pacman"

    def __init__(self, settings: ManagerSettings, toolbox: Toolbox, events: Events) -> None:
        self._settings = settings
        self._toolbox = toolbox
        self._events = events
        place = settings.state_dir / "pacman"
        self._signatures = Signatures(
            place / "signatures", settings.scratch / "signers", toolbox, offline=settings.offline
        )
        self._finder = Finder(settings, place, self._signatures, toolbox, events)
        self._request: BootstrapRequest | None = None
        self._ready: tuple[PacmanTransaction, dict[str, Path]] | None = None

    @staticmethod
    def owns(root: Path) -> bool:
        """Whether a root's packages are for it to manage."""
        return (root / database.LOCAL).is_dir()

    @staticmethod
    def bootstrap_request(words: Sequence[str]) -> BootstrapRequest:
        """`pacman --arch …` as a request: its mirrors are servers of pacman.conf(5). Raises UsageError."""
        parser = bootstrap_words("pacman")
        parser.add_argument("--release", default="rolling")
        parser.add_argument("--arch", required=True)
        parser.add_argument("--server", action="append", required=True, metavar="URL")
        parser.add_argument("--repository", action="append", required=True, metavar="NAME")
        parser.add_argument("--include", action="append", required=True)
        parser.add_argument("--key", action="append", default=[], metavar="TEXT|URL|FILE")
        options = parser.parse_args(list(words))
        return BootstrapRequest(
            suite=options.release,
            arch=options.arch,
            mirrors=tuple(options.server),
            components=tuple(options.repository),
            include=tuple(options.include),
            keys=tuple(options.key),
        )

    # --- deciding

    def bootstrap(self, request: BootstrapRequest) -> PacmanTransaction:
        """What the first packages of an empty root come to. Raises FetchError, SignatureError, PackageError."""
        self._request = request
        sources = self._sources(request)
        return self._coming(request.include, sources, self._synthetic({}, sources, ()), {})

    def resolve(self, install: Sequence[str], remove: Sequence[str] = ()) -> PacmanTransaction:
        """What installing and removing these comes to, in the words of pacman(8): NAME, REPOSITORY/NAME, a group …

        Raises NoSuchPackage for a name that no repository has. What is to go and is not there is passed over; what only
        it needed goes along. Removing comes first.
        """
        sources = self._sources(None)
        there = {one.name: one.version for one in self.installed()}
        for name in remove:
            if name not in there:
                self._events.note(f"{name} is not installed", "info")
        return self._both(install, [name for name in remove if name in there], sources, self._real(), there)

    def upgrade(self) -> PacmanTransaction:
        """What bringing all packages to their newest versions comes to."""
        there = {one.name: one.version for one in self.installed()}
        return self._coming((), self._sources(None), self._real(), there)

    def foresee(
        self,
        earlier: Sequence[Transaction],
        install: Sequence[str] = (),
        remove: Sequence[str] = (),
        *,
        upgrade: bool = False,
    ) -> PacmanTransaction:
        """What a request comes to after `earlier`, from the repositories of the bootstrap; no root is looked at."""
        if upgrade:
            return PacmanTransaction()  # the newest versions are what a bootstrap takes
        if self._request is None:
            raise NotKnownYet("which repositories the target has is known when it is there")
        sources = self._sources(self._request)
        there: dict[str, str] = {}
        asked: set[str] = set()
        for done in earlier:
            there = {name: version for name, version in there.items() if name not in done.remove}
            there |= {one.name: one.version for one in done.downloads}
            asked |= set(getattr(done, "manual", ()))
        going = [name for name in remove if name in there]
        return self._both(install, going, sources, self._synthetic(there, sources, asked), there)

    def use_target_sources(self) -> None:
        """From now on take repositories, keys and settings from the target's own files."""
        self._request = None

    def use_bootstrap_sources(self, request: BootstrapRequest) -> None:
        """Take the repositories that a bootstrap had, for `foresee`."""
        self._request = request

    def repositories(self) -> tuple[RepositoryState, ...]:
        """The databases that the last answer depends on, each with the token by which a change is seen."""
        return self._finder.states

    def _sources(self, request: BootstrapRequest | None) -> Sources:
        """The repositories of a bootstrap, or of the target. Raises FetchError, SignatureError, PackageError."""
        self._toolbox.ensure(GROUP)
        return self._finder.of_bootstrap(request) if request else self._finder.of_target()

    def _both(
        self, install: Sequence[str], remove: Sequence[str], sources: Sources, local: Path, there: Mapping[str, str]
    ) -> PacmanTransaction:
        going = self._going(remove, sources, local) if remove else PacmanTransaction()
        if not install:
            return going
        coming = self._coming(install, sources, local, there)
        return PacmanTransaction(
            coming.install,
            coming.upgrade,
            going.remove + coming.remove,
            sources=sources,
            words=going.words + coming.words,
            urls=coming.urls,
            origins=coming.origins,
            manual=coming.manual,
        )

    def _coming(
        self, names: Sequence[str], sources: Sources, local: Path, there: Mapping[str, str]
    ) -> PacmanTransaction:
        """What installing names, or without any upgrading all, comes to in a system with the database `local`.

        `there` are the packages that it has (name → version).
        """
        argv = ("-S", "--needed", "--", *names) if names else ("-S", "--needed", "--sysupgrade")
        with self._events.activity("resolve"):
            output = self._pacman(sources, local, ("-S", "--print-format", answers.FORMAT, *argv[1:])).output
            rows = [row for row in answers.rows_of(output) if there.get(row.name) != row.version]
        unchecked = sorted({row.repository for row in rows if sources.repository(row.repository).check is Check.NEVER})
        if unchecked:
            self._events.note(f"packages of {', '.join(unchecked)} are not checked: SigLevel = Never", "warning")
        packages = [(row, self._package(row, sources)) for row in rows]
        replaced = {name for row in rows for name in row.replaces if name in there} if not names else set()
        return PacmanTransaction(
            tuple(package for row, package in packages if row.name not in there),
            tuple(package for row, package in packages if row.name in there),
            tuple(sorted(replaced)),
            sources=sources,
            words=(argv,),
            urls={row.sha256: sources.repository(row.repository).urls(row.file) for row in rows},
            origins={row.sha256: row.repository for row in rows},
            manual=tuple(names),
        )

    def _package(self, row: answers.Row, sources: Sources) -> Package:
        url = sources.repository(row.repository).urls(row.file)[0]
        return Package(row.name, row.version, row.arch, url, row.sha256, row.size)

    def _going(self, names: Sequence[str], sources: Sources, local: Path) -> PacmanTransaction:
        words = ("-R", "--recursive", "--", *names)
        with self._events.activity("resolve"):
            output = self._pacman(sources, local, ("-R", "--print-format", "gone\t%n", *words[1:])).output
        gone = [line.partition("\t")[2] for line in output.splitlines() if line.startswith("gone\t")]
        return PacmanTransaction((), (), tuple(sorted(gone)), sources=sources, words=(("-R", "--nosave", *words[1:]),))

    # --- doing

    def fetch(self, transaction: Transaction) -> None:
        """Download what the store lacks, and check every signature. Raises FetchError, SignatureError."""
        self._fetched(_known(transaction))

    def _fetched(self, transaction: PacmanTransaction) -> dict[str, Path]:
        if self._ready and self._ready[0] is transaction:
            return self._ready[1]
        settings, sources = self._settings, transaction.sources
        downloads = [
            Download(transaction.urls[one.sha256], one.sha256, one.size, one.name) for one in transaction.downloads
        ]
        files = fetch_all(downloads, settings.blobs_dir, self._events, offline=settings.offline)
        if sources and sources.keys and downloads:
            with self._events.activity("signatures"):
                self._signatures.check(list(_signed(transaction, sources, files)), sources.keys)
        self._ready = (transaction, files)
        return files

    def apply(self, transaction: Transaction, on_line: Callable[[str], None] | None = None) -> None:
        """Carry out a transaction in the root, whose /proc, /dev and /sys must be there.

        Raises PackageError where pacman refuses it. A script that fails is told as a warning.
        """
        ours, root = _known(transaction), self._settings.root
        if ours.sources is None:
            return
        begins = not self.owns(root)
        cache = self._cache(ours)
        (root / database.LOCAL).mkdir(parents=True, exist_ok=True)
        before = {(one.name, one.version) for one in self.installed()}
        total = len(ours.downloads) + len(ours.remove)
        done = 0
        with self._events.activity("configure") as activity, same_initramfs(root):

            def heard(line: str) -> None:
                nonlocal done
                if answers.is_step(line):
                    done = min(done + 1, total)
                    activity.progress(done, total, "packages")
                if on_line:
                    on_line(line)

            for words in ours.words if ours else ():
                output = self._pacman(ours.sources, self._real(), words, cache=cache, on_line=heard).output
                for text in answers.warnings_in(output):
                    self._events.note(f"pacman: {text}", "warning")
        after = {(one.name, one.version) for one in self.installed()}
        self._require_decided(ours, before, after)
        self._mark(ours)
        if self._settings.epoch is not None:
            database.set_times(root, self._settings.epoch, after - before)
        if begins and self._request and self._request.keys and ours.sources.keys:
            put_into_image(ours.sources.keys, root)

    def _cache(self, transaction: PacmanTransaction) -> Path:
        """A directory in which pacman finds the packages, so that it downloads nothing."""
        cache = self._settings.scratch / "packages"
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir(parents=True)
        for sha256, file in self._fetched(transaction).items():
            name = transaction.urls[sha256][0].rpartition("/")[2]
            (cache / name).symlink_to(self._toolbox.path(file))
        return cache

    def _require_decided(
        self, transaction: PacmanTransaction, before: set[tuple[str, str]], after: set[tuple[str, str]]
    ) -> None:
        wanted = {(one.name, one.version) for one in transaction.downloads}
        gone = {name for name, _ in before} - {name for name, _ in after}
        changed = {name for name, _ in (after - before) ^ wanted} | (gone ^ set(transaction.remove))
        if changed:
            raise PackageError(f"pacman has done something else than it had decided: {', '.join(sorted(changed))}")

    def _mark(self, transaction: PacmanTransaction) -> None:
        """Let packages that are asked for now, and were there for others' sake, be wanted for their own."""
        names = sorted(set(transaction.manual) & database.automatic(self._settings.root))
        if names and transaction.sources:
            self._pacman(transaction.sources, self._real(), ("-D", "--asexplicit", "--", *names))

    def installed(self) -> list[Package]:
        """The packages of the root, sorted by name."""
        return database.installed(self._settings.root)

    # --- pacman itself

    def _real(self) -> Path:
        """The target's own directory of databases."""
        return (self._settings.root / database.LOCAL).parent

    def _synthetic(self, there: Mapping[str, str], sources: Sources, asked: set[str] | tuple[str, ...]) -> Path:
        """A directory of databases for a system that has these packages (name → version)."""
        place = self._empty("foreseen")
        database.write_local(place / "local", there, list(sources.databases.values()), asked)
        return place

    def _empty(self, name: str) -> Path:
        place = self._settings.scratch / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place

    def _pacman(
        self,
        sources: Sources,
        local: Path,
        words: Sequence[str],
        *,
        cache: Path | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Let it decide or, with a cache of packages, do something. Raises PackageError."""
        path, scratch = self._toolbox.path, self._settings.scratch
        root = self._settings.root if local == self._real() else self._empty("no-root")
        configuration, log = scratch / "pacman.conf", scratch / "pacman.log"
        configuration.write_text(sources.configuration.text(self._finder.arch, f"{path(root)}/etc/pacman.d/hooks/"))
        log.write_text("")
        argv = ["pacman", words[0], "--noconfirm", "--color", "never"]
        argv += ["--noprogressbar"] if words[0] != "-D" else []
        argv += ["--config", path(configuration), "--root", path(root), "--dbpath", path(local), "--logfile", path(log)]
        argv += ["--cachedir", path(cache or self._empty("no-packages")), "--gpgdir", path(self._empty("no-keys"))]
        environment = {"SYSTEMD_OFFLINE": "1"}
        if self._settings.epoch is not None:
            environment["SOURCE_DATE_EPOCH"] = str(self._settings.epoch)
        with self._shown(sources, local):
            done = self._toolbox.run([*argv, *words[1:]], env=environment, on_line=on_line, check=False)
        if done.status:
            raise answers.refusal(done.output, done.status)
        if cache:
            self._log(log)
        return done

    @contextlib.contextmanager
    def _shown(self, sources: Sources, local: Path) -> Iterator[None]:
        """Show the databases of repositories where pacman looks for them; nothing of that stays in the target."""
        is_ours = local != self._real()
        point = local / "sync"
        databases = point if is_ours else self._empty("sync")
        databases.mkdir(exist_ok=True)
        for name, file in sources.databases.items():
            shutil.copyfile(file, databases / f"{name}.db")
        if is_ours:
            yield
            return
        was_there = point.is_dir()
        point.mkdir(parents=True, exist_ok=True)
        if not point.resolve().is_relative_to(local.resolve()):
            raise PackageError("/var/lib/pacman/sync of the target leads out of it")
        mounts.bind(databases, point)
        try:
            yield
        finally:
            mounts.unmount_all(point)
            (local / "db.lck").unlink(missing_ok=True)
            if not was_there:
                point.rmdir()

    def _log(self, log: Path) -> None:
        """Put what pacman has logged into the target's log."""
        epoch = time.time() if self._settings.epoch is None else self._settings.epoch
        moment = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(epoch))
        lines = answers.log_lines(log.read_text("utf-8", "replace"), moment)
        goal = self._settings.root / _LOG
        goal.parent.mkdir(parents=True, exist_ok=True)
        with goal.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


def _known(transaction: Transaction) -> PacmanTransaction:
    """The transaction as one of ours."""
    if not isinstance(transaction, PacmanTransaction):
        raise PackageError("this is a transaction of another package manager")
    return transaction


def _signed(transaction: PacmanTransaction, sources: Sources, files: Mapping[str, Path]) -> Iterator[Signed]:
    """The packages of a transaction as they are to be checked."""
    for repository in sources.configuration.repositories:
        ours = [one for one in transaction.downloads if transaction.origins[one.sha256] == repository.name]
        inside = signatures_inside(sources.databases[repository.name], [f"{one.name}-{one.version}" for one in ours])
        for one in ours:
            urls = transaction.urls[one.sha256]
            signature = inside.get(f"{one.name}-{one.version}", b"")
            yield Signed(files[one.sha256], one.file_name, one.sha256, urls, repository.check, signature)
