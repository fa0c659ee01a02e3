"""dnf: what to install is decided by dnf's library, and rpm checks what is downloaded; both are of the tools tree.

Fetching is ours: in parallel, into the store, from any of a repository's mirrors. The transaction itself is dnf's and
rpm's, into the mounted target, so its database, scriptlets, file triggers and marks are theirs.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibble.errors import FetchError, PackageError, SignatureError, ToolFailed
from dibble.packages.apt_state import RepositoryState
from dibble.packages.base import BootstrapRequest, Download, Package, Transaction
from dibble.packages.rpm_keys import Keyring, key_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dibble.events import Events
    from dibble.sandbox.toolbox import Toolbox

GROUP = "rpm"
"""The group of tools."""
DATABASES = ("usr/lib/sysimage/rpm", "var/lib/rpm")
"""Where the database lies: today's place (Fedora since 36), and that of RHEL 9 and older."""
_FILE = "rpmdb.sqlite"
_MARK = "\x1edibble "
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64el": "ppc64le", "i386": "i686", "armhf": "armv7hl"}
_ENVIRONMENT = {"SYSTEMD_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_MACROS = {
    "_netsharedpath": "/proc:/sys:/dev",  # mounted while we work
    "_pkgverify_level": "all",
}


@dataclass(frozen=True, slots=True)
class DnfSettings:
    """`root` is the mounted target as our process sees it; `arch` Debian's name. Others as in `AptSettings`."""

    root: Path
    arch: str
    blobs_dir: Path
    state_dir: Path
    scratch: Path
    offline: bool = False
    max_age_s: int = 3600
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class DnfTransaction(Transaction):
    """`asked` is the request that it came of, to be made once more when it is carried out.

    `urls` (all mirrors) and `origins` (the repository) are by sha256; `keys` are a repository's, by its name.
    `missing` are names that no repository has, of a request that allows that.
    """

    asked: Mapping[str, Any] = field(default_factory=dict)
    urls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    nevras: tuple[str, ...] = ()
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The transaction as plain JSON data, in the form that all kinds share (`AptTransaction.from_json`)."""

        def rows(packages: Sequence[Package]) -> list[dict[str, Any]]:
            names = ("name", "version", "arch", "url", "sha256", "size")
            return [{name: getattr(package, name) for name in names} for package in packages]

        return {
            "install": rows(self.install),
            "upgrade": rows(self.upgrade),
            "remove": list(self.remove),
            "manual": list(self.asked.get("install", ())),
            "marks": True,
            "local": [],
        }


def database_of(root: Path) -> str | None:
    """Where the packages of a root are recorded, as a path inside it; None where it has no RPM packages."""
    return next((f"/{place}" for place in DATABASES if (root / place / _FILE).is_file()), None)


class Dnf:
    """One target root. Use from one thread at a time, inside the namespace."""

    kind = "rpm-md"
    """The kind of what a step's result depends on (`store.layers.Input`)."""

    def __init__(self, settings: DnfSettings, toolbox: Toolbox, events: Events) -> None:
        self._settings = settings
        self._toolbox = toolbox
        self._events = events
        self._request: BootstrapRequest | None = None
        self._repositories: tuple[RepositoryState, ...] = ()

    # --- deciding

    def bootstrap(self, request: BootstrapRequest) -> DnfTransaction:
        """What the first packages of an empty root come to. Raises FetchError, SignatureError, PackageError."""
        self._request = request
        return self._resolved(self._asked(request, install=request.include))

    def use_target_sources(self) -> None:
        """From now on take repositories, keys, variables and settings from the target's own files."""
        self._request = None

    def use_bootstrap_sources(self, request: BootstrapRequest) -> None:
        """Take the repositories that a bootstrap had, for `foresee`."""
        self._request = request

    def resolve(self, install: Sequence[str], remove: Sequence[str] = ()) -> DnfTransaction:
        """What installing and removing these come to, in the words of dnf(8): NAME, NAME-VERSION, a file …

        Of several names those that no repository has are `missing` (contract.md 4.2); a single one is an error.
        """
        return self._resolved(self._asked(None, install=install, remove=remove, strict=len(install) < 2))

    def upgrade(self) -> DnfTransaction:
        """What bringing all packages to their newest versions comes to."""
        return self._resolved(self._asked(None, upgrade=True))

    def foresee(
        self,
        earlier: Sequence[Transaction],
        install: Sequence[str] = (),
        remove: Sequence[str] = (),
        *,
        upgrade: bool = False,
    ) -> DnfTransaction:
        """What an installation comes to after `earlier`, from the repositories of the bootstrap; no root is looked at.

        Raises PackageError for what only the finished root can tell.
        """
        if upgrade:
            return DnfTransaction()  # the newest versions are what a bootstrap takes
        if self._request is None or remove:
            raise PackageError("what a removal comes to is not known before the packages are there")
        present = [
            f"{one.name}-{one.version.removeprefix('0:')}.{one.arch}" for done in earlier for one in done.downloads
        ]
        return self._resolved(self._asked(self._request, install=install, earlier=present, strict=len(install) < 2))

    def repositories(self) -> tuple[RepositoryState, ...]:
        """The repositories that were asked last, each with the sha256 of its top-level file."""
        return self._repositories

    # --- doing

    def fetch(self, transaction: Transaction) -> None:
        """Download what the store lacks, and check every signature. Raises FetchError, SignatureError."""
        self._fetched(_known(transaction))

    def apply(self, transaction: Transaction, on_line: Callable[[str], None] | None = None) -> None:
        """Carry out a transaction in the root, whose /proc, /dev and /sys must be there.

        Raises PackageError where rpm refuses it. A scriptlet that fails is told as a warning, as dnf does.
        """
        known = _known(transaction)
        if known.missing:
            self._events.note(f"no repository has {', '.join(known.missing)}: left out", "warning")
        if not known:
            return
        files, keyrings = self._fetched(known)
        root = self._settings.root
        begins = database_of(root) is None
        with tempfile.TemporaryDirectory(dir=self._settings.scratch, prefix="packages-") as name:
            place = Path(name)
            place.chmod(0o755)
            for package in known.downloads:
                # the library looks for a package by the last part of its location
                (place / package.file_name).symlink_to(self._toolbox.path(files[package.sha256]))
            asked = {
                **known.asked,
                "action": "apply",
                "cache_only": True,
                "expected": list(known.nevras),
                "packages": self._toolbox.path(place),
                "keys": [f"file://{self._toolbox.path(file)}" for ring in keyrings for file in ring.files],
            }
            with self._events.activity("configure") as activity:
                total = len(known.downloads) + len(known.remove)
                hear = _Listener(on_line, lambda done: activity.progress(min(done, total), total, "packages"))
                database = asked["database"]
                for ring in keyrings:
                    for file in ring.files:
                        self._toolbox.run(
                            ["rpmkeys", "--root", self._toolbox.path(root), "--dbpath", database, "--import",
                             self._toolbox.path(file)],
                            env=self._environment(),
                        )  # fmt: skip
                with _same_initramfs(root):
                    answer = self._worker(asked, hear)
        if begins:
            self._settle_database()
        self._close_databases()
        for text in answer["errors"]:
            self._events.note(f"rpm: {text}", "warning")

    def installed(self) -> list[Package]:
        """The packages of the root, sorted by name."""
        database = database_of(self._settings.root)
        if database is None:
            return []
        output = self._rpm(database, "-qa", "--queryformat", "%{NAME}\t%{EVR}\t%{ARCH}\n")
        rows = [line.split("\t") for line in output.splitlines() if line.count("\t") == 2]
        return sorted((Package(name, version, arch) for name, version, arch in rows), key=lambda package: package.name)

    # --- support

    def _asked(
        self,
        request: BootstrapRequest | None,
        *,
        install: Sequence[str] = (),
        remove: Sequence[str] = (),
        earlier: Sequence[str] = (),
        strict: bool = True,
        upgrade: bool = False,
    ) -> dict[str, Any]:
        """A request for the worker; with `request`, for its repositories and an empty root, else for the target."""
        root, path = self._settings.root, self._toolbox.path
        database = database_of(root) if request is None else None
        empty = self._settings.scratch / "empty-root"
        empty.mkdir(exist_ok=True, parents=True)
        return {
            "action": "resolve",
            "root": path(root if request is None or not earlier else empty),
            "database": database or f"/{DATABASES[0]}",
            "home": path(self._home(database or f"/{DATABASES[0]}")),
            "of_target": request is None,
            "cache": path(self._settings.state_dir / "dnf"),
            "cache_only": self._settings.offline,
            "max_age_s": self._settings.max_age_s,
            "strict": strict,
            "arch": _ARCHITECTURES.get(self._settings.arch, self._settings.arch),
            "releasever": request.suite if request else "",
            "variables": dict(request.variables) if request else {},
            "reposdirs": [path(self._repository_files(request) if request else root / "etc/yum.repos.d")],
            "unsigned": request.unsigned if request else False,
            "keys": [],
            "own_keys": list(request.keys) if request else [],
            "earlier": list(earlier),
            "install": list(install),
            "remove": list(remove),
            "upgrade": upgrade,
        }

    def _home(self, database: str) -> Path:
        """A home directory with rpm's settings: for rpm 4.20, and for older ones (`--tools=host`)."""
        place = self._settings.scratch / "home"
        text = "".join(f"%{name} {value}\n" for name, value in (*_MACROS.items(), ("_dbpath", database)))
        for file in (place / ".config/rpm/macros", place / ".rpmmacros"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return place

    def _repository_files(self, request: BootstrapRequest) -> Path:
        """A directory with the repositories of a bootstrap."""
        place = self._settings.scratch / "repositories"
        place.mkdir(exist_ok=True, parents=True)
        for old in place.iterdir():
            old.unlink()
        for number, text in enumerate(request.sources):
            (place / f"{number}.repo").write_text(text + "\n")
        return place

    def _resolved(self, asked: dict[str, Any]) -> DnfTransaction:
        with self._events.activity("resolve"):
            answer = self._worker(asked)
        rows = answer["install"] + answer["upgrade"]
        for row in rows:
            if row["urls"] and not row["sha256"]:
                raise PackageError(
                    f"the repository {row['repository']} has no sha256 of {row['nevra']}",
                    hint="such a repository is too old to be used safely",
                )
        self._repositories = tuple(
            RepositoryState(one["metalink"] or f"{one['place']}/repodata/repomd.xml", "", one["sha256"])
            for one in answer["repositories"]
            if one["sha256"] and not one["place"].startswith("/")
        )
        unsigned = [one["id"] for one in answer["repositories"] if not one["gpgcheck"]]
        if unsigned and asked["of_target"]:
            self._events.note(f"packages of {', '.join(unsigned)} are not checked: gpgcheck=0", "warning")
        return DnfTransaction(
            tuple(_package(row) for row in answer["install"] if row["urls"]),
            tuple(_package(row) for row in answer["upgrade"] if row["urls"]),
            tuple(answer["remove"]),
            asked=asked,
            urls={row["sha256"]: tuple(row["urls"]) for row in rows},
            origins={row["sha256"]: row["repository"] for row in rows},
            nevras=tuple(sorted(row["nevra"] for row in rows)),
            keys={
                one["id"]: tuple(asked["own_keys"] or one["keys"])
                for one in answer["repositories"]
                if one["gpgcheck"] and not asked["unsigned"]
            },
            missing=tuple(answer["missing"]),
        )

    def _fetched(self, transaction: DnfTransaction) -> tuple[dict[str, Path], list[Keyring]]:
        """The files of a transaction by sha256, and the keys that they were checked with."""
        from dibble.packages.fetch import fetch_all

        settings = self._settings
        downloads = [
            Download(transaction.urls[one.sha256], one.sha256, one.size, one.name) for one in transaction.downloads
        ]
        files = fetch_all(downloads, settings.blobs_dir, self._events, offline=settings.offline)
        return files, list(self._checked(transaction, files))

    def _checked(self, transaction: DnfTransaction, files: Mapping[str, Path]) -> Iterator[Keyring]:
        view = self._toolbox.root or Path("/")
        by_repository: dict[str, dict[str, Path]] = {}
        for package in transaction.downloads:
            origin = transaction.origins[package.sha256]
            by_repository.setdefault(origin, {})[package.file_name] = files[package.sha256]
        for number, (repository, packages) in enumerate(sorted(by_repository.items())):
            if repository not in transaction.keys:
                continue
            places = transaction.keys[repository]
            if not places:
                raise SignatureError(
                    f"the repository {repository} names no key",
                    hint="give it gpgkey=URL, or the first packages DIB_YUM_MINIMAL_KEYS=FILE",
                )
            texts = [key_texts(one, self._settings.root, view, offline=self._settings.offline) for one in places]
            ring = Keyring(texts, self._settings.scratch / f"keys-{number}", self._toolbox, repository)
            with self._events.activity("signatures"):
                ring.check(packages)
            yield ring

    def _worker(self, asked: Mapping[str, Any], on_line: Callable[[str], None] | None = None) -> dict[str, Any]:
        """Run the worker. Raises what its refusals mean."""
        self._toolbox.ensure(GROUP)
        (self._settings.state_dir / "dnf").mkdir(parents=True, exist_ok=True)
        answer: dict[str, Any] = {}

        def hear(line: str) -> None:
            if line.startswith(_MARK):
                answer.update(json.loads(line.removeprefix(_MARK)))
            elif on_line:
                on_line(line)

        argv = ["python3", "-c", Path(__file__).with_name("dnf_worker.py").read_text("utf-8")]
        done = self._toolbox.run(
            argv, env=self._environment(), stdin=json.dumps(asked).encode(), on_line=hear, check=False
        )
        if not answer:
            raise ToolFailed(("dnf",), done.status, done.output)
        if "refused" in answer:
            raise _refusal(answer)
        return answer

    def _environment(self) -> dict[str, str]:
        """The environment of what writes into rpm's database: times in it are the build's epoch."""
        epoch = self._settings.epoch
        return dict(_ENVIRONMENT) if epoch is None else {**_ENVIRONMENT, "SOURCE_DATE_EPOCH": str(epoch)}

    def _settle_database(self) -> None:
        """Move the database to where the new root's own rpm looks for it."""
        root = self._settings.root
        done = self._toolbox.run(
            ["chroot", self._toolbox.path(root), "rpm", "--eval", "%{_dbpath}"], env=_ENVIRONMENT, check=False
        )
        wanted = root / done.output.strip().splitlines()[-1].lstrip("/") if done.status == 0 and done.output else None
        current = root / DATABASES[0]
        if wanted is None or wanted.resolve() == current.resolve() or not (current / _FILE).is_file():
            return
        wanted.mkdir(parents=True, exist_ok=True)
        for file in list(current.iterdir()):
            file.rename(wanted / file.name)
        current.rmdir()

    def _close_databases(self) -> None:
        """Leave SQLite's databases as one file each, with no time of the build: these differ from build to build."""
        import sqlite3

        root, epoch = self._settings.root, self._settings.epoch
        history = root / "var/lib/dnf/history.sqlite"
        for file in [*(root / place / _FILE for place in DATABASES), history]:
            if not file.is_file():
                continue
            connection = sqlite3.connect(file)
            connection.execute("PRAGMA journal_mode=DELETE")
            if file == history and epoch is not None:  # libdnf asks the clock
                with connection:
                    connection.execute("UPDATE trans SET dt_begin = ?, dt_end = ?", (epoch, epoch))
            connection.close()

    def _rpm(self, database: str, *words: str) -> str:
        root = self._toolbox.path(self._settings.root)
        return self._toolbox.run(["rpm", "--root", root, "--dbpath", database, *words]).output


@contextlib.contextmanager
def _same_initramfs(root: Path) -> Iterator[None]:
    """While a kernel's scripts run, dracut(8) writes the same bytes each time; dracut.conf(5), `reproducible`."""
    file = root / "etc/dracut.conf.d/zz-dibble.conf"
    ours = not file.parent.exists()
    if not file.parent.parent.is_dir():
        yield
        return
    file.parent.mkdir(exist_ok=True)
    file.write_text('reproducible="yes"\n')
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        if ours and not (root / "usr/bin/dracut").exists():
            file.parent.rmdir()


class _Listener:
    """Passes lines on, and counts the packages that are begun."""

    def __init__(self, on_line: Callable[[str], None] | None, progress: Callable[[int], None]) -> None:
        self._on_line = on_line
        self._progress = progress
        self._count = 0

    def __call__(self, line: str) -> None:
        if line.endswith(")") and line.partition(" ")[0] in ("Installed", "Upgraded", "Erased", "Removed"):
            self._count += 1
            self._progress(self._count)
        if self._on_line:
            self._on_line(line)


def _package(row: Mapping[str, Any]) -> Package:
    return Package(row["name"], row["version"], row["arch"], row["urls"][0], row["sha256"], int(row["size"]))


def _known(transaction: Transaction) -> DnfTransaction:
    if not isinstance(transaction, DnfTransaction):
        raise PackageError("this is a transaction of another package manager")
    return transaction


_REFUSALS: dict[str, tuple[type[PackageError | FetchError], str, str]] = {
    "missing": (PackageError, "no repository has a package {names}", "is it called otherwise here (pkg-map)?"),
    "groups": (PackageError, "{names}: the engine knows no groups of packages", "name their packages"),
    "no-repositories": (
        PackageError,
        "the target has no repositories",
        "give it one with DIB_YUM_REPO_CONF=FILE",
    ),
    "repository": (
        FetchError,
        "a repository cannot be read: {text} ({names})",
        "check the release (DIB_RELEASE) and the mirror (DIB_DISTRIBUTION_MIRROR)",
    ),
    "conflict": (PackageError, "no choice of packages satisfies the request: {text}", ""),
    "changed": (FetchError, "the repositories have changed meanwhile: {names}", "build again"),
}
"""What a refusal of the worker's means: class, message and hint."""


def _refusal(answer: Mapping[str, Any]) -> PackageError | FetchError:
    known = (PackageError, "rpm cannot carry out the transaction: {text} {names}", "")
    kind, message, hint = _REFUSALS.get(answer["refused"], known)
    names = ", ".join(str(name) for name in answer["names"])
    return kind(message.format(text=str(answer["text"]).strip(), names=names).rstrip(), hint=hint)
