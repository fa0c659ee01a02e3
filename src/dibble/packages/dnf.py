"""dnf: what to install is decided by dnf's library, which also carries it out; it is the tools tree's.

Fetching and checking signatures is ours (`rpm.py`). The transaction itself is dnf's and rpm's, into the mounted target,
so its database, scriptlets, file triggers and marks are theirs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibble.errors import FetchError, NoSuchPackage, PackageError
from dibble.packages.apt_state import RepositoryState
from dibble.packages.base import BootstrapRequest, Package, Transaction
from dibble.packages.bootstrap_words import bootstrap_words
from dibble.packages.dnf_process import DnfProcess
from dibble.packages.rpm import GROUP, RpmManager, RpmTransaction, known
from dibble.packages.rpm_database import close_sqlite, database_of, uses_zypper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dibble.events import Events
    from dibble.packages.base import ManagerSettings
    from dibble.sandbox.toolbox import Toolbox

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64el": "ppc64le", "i386": "i686", "armhf": "armv7hl"}


class Dnf(RpmManager):
    """Of roots with RPM packages that no other manager keeps."""

    name = "dnf"
    key_hint = (
        "give the key with DIB_YUM_MINIMAL_KEYS=FILE (for the first packages) or gpgkey= in the repository's file, if"
        " you trust it"
    )

    @staticmethod
    def owns(root: Path) -> bool:
        """Whether a root's packages are for it to manage."""
        return database_of(root) is not None and not uses_zypper(root)

    @staticmethod
    def bootstrap_request(words: Sequence[str]) -> BootstrapRequest:
        """`dnf --releasever …` as a request: the .repo files and keys are given as texts. Raises UsageError."""
        parser = bootstrap_words("dnf")
        parser.add_argument("--releasever", required=True)
        parser.add_argument("--arch", required=True)
        parser.add_argument("--variable", action="append", default=[], metavar="NAME=VALUE")
        parser.add_argument("--repositories", action="append", required=True, metavar="TEXT")
        parser.add_argument("--key", action="append", default=[], metavar="TEXT|URL")
        parser.add_argument("--include", action="append", default=[])
        parser.add_argument("--unsigned", action="store_true")
        options = parser.parse_args(list(words))
        return BootstrapRequest(
            suite=options.releasever,
            arch=options.arch,
            mirrors=(),
            include=tuple(options.include),
            unsigned=options.unsigned,
            sources=tuple(options.repositories),
            variables=tuple((name, value) for name, _, value in (one.partition("=") for one in options.variable)),
            keys=tuple(options.key),
        )

    def __init__(self, settings: ManagerSettings, toolbox: Toolbox, events: Events) -> None:
        super().__init__(settings, toolbox, events)
        self._process = DnfProcess(toolbox)

    # --- deciding

    def bootstrap(self, request: BootstrapRequest) -> RpmTransaction:
        """What the first packages of an empty root come to. Raises FetchError, SignatureError, PackageError."""
        self._request = request
        return self._resolved(self._asked(request, install=request.include))

    def resolve(self, install: Sequence[str], remove: Sequence[str] = ()) -> RpmTransaction:
        """What installing and removing these come to, in the words of dnf(8): NAME, NAME-VERSION, a file …

        Of several names those that no repository has are `missing` (contract.md 4.2); a single one is an error.
        """
        return self._resolved(self._asked(None, install=install, remove=remove, strict=len(install) < 2))

    def upgrade(self) -> RpmTransaction:
        """What bringing all packages to their newest versions comes to."""
        return self._resolved(self._asked(None, upgrade=True))

    def _foreseen(
        self, request: BootstrapRequest, present: Sequence[Package], install: Sequence[str]
    ) -> RpmTransaction:
        earlier = [f"{one.name}-{one.version.removeprefix('0:')}.{one.arch}" for one in present]
        return self._resolved(self._asked(request, install=install, earlier=earlier, strict=len(install) < 2))

    # --- doing

    def apply(self, transaction: Transaction, on_line: Callable[[str], None] | None = None) -> None:
        """Carry out a transaction in the root, whose /proc, /dev and /sys must be there.

        Raises PackageError where rpm refuses it. A scriptlet that fails is told as a warning, as dnf does.
        """
        ours = known(transaction)
        if ours.missing:
            self._events.note(f"no repository has {', '.join(ours.missing)}: left out", "warning")
        if not ours:
            self._ready_for_the_next()
            return
        begins = not self._database.is_there
        try:
            answer = self._carried_out(ours, on_line)
        finally:
            self._process.close()
        if begins:
            self._database.settle()
            self._ready_for_the_next()
        self._close()
        for text in answer["errors"]:
            self._events.note(f"rpm: {text}", "warning")

    def _carried_out(self, ours: RpmTransaction, on_line: Callable[[str], None] | None) -> dict[str, Any]:
        files, keyrings = self._fetched(ours)
        with tempfile.TemporaryDirectory(dir=self._settings.scratch, prefix="packages-") as name:
            place = Path(name)
            place.chmod(0o755)
            for package in ours.downloads:
                # the library looks for a package by the last part of its location
                (place / package.file_name).symlink_to(self._toolbox.path(files[package.sha256]))
            doing = {
                "action": "apply",
                "expected": list(ours.nevras),
                "packages": self._toolbox.path(place),
                "keys": [f"file://{self._toolbox.path(file)}" for ring in keyrings for file in ring.files],
            }
            with self._events.activity("configure") as activity:
                total = len(ours.downloads) + len(ours.remove)
                hear = _Listener(on_line, lambda done: activity.progress(min(done, total), total, "packages"))
                for ring in keyrings:
                    self._database.add_keys(ring)
                if not self._process.has_decided(ours.asked):
                    self._decided({**ours.asked, "cache_only": True})
                with self._quick_kernels(ours, files):
                    return _unless_refused(self._process.apply(doing, hear))

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
        empty = self._settings.scratch / "empty-root"
        empty.mkdir(exist_ok=True, parents=True)
        return {
            "action": "resolve",
            "root": path(root if request is None or not earlier else empty),
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

    def _repository_files(self, request: BootstrapRequest) -> Path:
        """A directory with the repositories of a bootstrap."""
        place = self._settings.scratch / "repositories"
        place.mkdir(exist_ok=True, parents=True)
        for old in place.iterdir():
            old.unlink()
        for number, text in enumerate(request.sources):
            (place / f"{number}.repo").write_text(text + "\n")
        return place

    def _resolved(self, asked: dict[str, Any]) -> RpmTransaction:
        with self._events.activity("resolve"):
            answer = self._decided(asked)
        rows = answer["install"] + answer["upgrade"]
        for row in rows:
            if row["urls"]:
                self._require_sha256(row["sha256"], row["nevra"], row["repository"])
        self._repositories = tuple(
            RepositoryState(one["metalink"] or f"{one['place']}/repodata/repomd.xml", "", one["sha256"])
            for one in answer["repositories"]
            if one["sha256"] and not one["place"].startswith("/")
        )
        unsigned = [one["id"] for one in answer["repositories"] if not one["gpgcheck"]]
        if unsigned and asked["of_target"]:
            self._events.note(f"packages of {', '.join(unsigned)} are not checked: gpgcheck=0", "warning")
        return RpmTransaction(
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
            manual=tuple(asked["install"]),
        )

    def _decided(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a request comes to, by a process that can then carry it out. Raises what its refusals mean."""
        self._toolbox.ensure(GROUP)
        (self._settings.state_dir / "dnf").mkdir(parents=True, exist_ok=True)
        self._start()
        return _unless_refused(self._process.decide(asked))

    def _ready_for_the_next(self) -> None:
        """Let the process for the next request begin: after the first packages, and a search for newer ones, one comes.

        Loading the library takes half a second, in which scripts run.
        """
        self._process.close()
        self._start()

    def _start(self) -> None:
        self._process.start(self._database.environment, self._database.home(self._settings.scratch / "home"))

    def _close(self) -> None:
        """Leave databases with no time of the build: these differ from build to build."""
        root, epoch = self._settings.root, self._settings.epoch
        self._database.close()
        times = [] if epoch is None else [("UPDATE trans SET dt_begin = ?, dt_end = ?", (epoch, epoch))]
        close_sqlite(root / "var/lib/dnf/history.sqlite", self._toolbox, *times)  # libdnf asks the clock


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


_REFUSALS: dict[str, tuple[type[PackageError | FetchError], str, str]] = {
    "missing": (NoSuchPackage, "no repository has a package {names}", "is it called otherwise here (pkg-map)?"),
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


def _unless_refused(answer: dict[str, Any]) -> dict[str, Any]:
    if "refused" in answer:
        raise _refusal(answer)
    return answer


def _refusal(answer: Mapping[str, Any]) -> PackageError | FetchError:
    known = (PackageError, "rpm cannot carry out the transaction: {text} {names}", "")
    kind, message, hint = _REFUSALS.get(answer["refused"], known)
    names = ", ".join(str(name) for name in answer["names"])
    return kind(message.format(text=str(answer["text"]).strip(), names=names).rstrip(), hint=hint)
