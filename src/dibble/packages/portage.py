"""Portage: a system begins with a stage of Gentoo's and the tree of ebuilds; emerge of the target does the rest.

emerge decides what to install and carries it out; it runs in the target, since its version and that of the tree belong
together. Binary packages that are signed by a key the target trusts come before ebuilds. What emerge would download is
fetched into the store and shown to it where it looks; nothing of that stays in the image.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dibble.errors import NotKnownYet, PackageError
from dibble.packages import portage_answers as answers
from dibble.packages.apt_state import RepositoryState
from dibble.packages.base import BootstrapRequest, Download, Package, Transaction, as_data
from dibble.packages.bootstrap_words import bootstrap_words
from dibble.packages.distfiles import Distfile, Distfiles
from dibble.packages.origin import token_of_url
from dibble.packages.portage_mirror import Mirror
from dibble.packages.small_files import SmallFiles
from dibble.sandbox import mounts
from dibble.sandbox.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dibble.events import Events
    from dibble.packages.base import ManagerSettings
    from dibble.sandbox.process import Completed
    from dibble.sandbox.toolbox import Toolbox

TREE = "var/db/repos/gentoo"
_PROFILE = "etc/portage/make.profile"
_INSTALL = ("--noreplace", "--getbinpkg", "--usepkg", "--quiet-build=y")
_UPGRADE = ("--update", "--deep", "--newuse", "--with-bdeps=y", *_INSTALL[1:], "@world")
_ALWAYS = ("--color=n", "--nospinner", "--ask=n")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_OFFLINE": "1",
    "CLEAN_DELAY": "0",
    "EMERGE_WARNING_DELAY": "0",
}
_DISTFILES, _BINPKGS = "var/cache/distfiles", "var/cache/binpkgs"


@dataclass(frozen=True, slots=True)
class PortageTransaction(Transaction):
    """`files` are those that emerge will want, each with the place where it looks for it, and the time it must have.

    `words` are what emerge is called with to install, and `deselect` what is no longer wanted. `coming` are name and
    version of what will then be there.
    """

    words: tuple[str, ...] = ()
    deselect: tuple[str, ...] = ()
    coming: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[Distfile, str, int], ...] = ()
    manual: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The transaction as plain JSON data, in the form that all kinds share."""
        return as_data(self, self.manual)


@dataclass(slots=True)
class _Begun:
    """What a bootstrap came to, for `fetch` and `apply`."""

    request: BootstrapRequest
    mirror: Mirror
    stage: Package
    tree: Path
    files: Mapping[str, Path] = field(default_factory=dict)


class Portage:
    """One target root. Use from one thread at a time, inside the namespace."""

    kind = "url"
    """The kind of what a step's result depends on (`store.layers.Input`)."""
    name = "portage"

    def __init__(self, settings: ManagerSettings, toolbox: Toolbox, events: Events) -> None:
        self._settings = settings
        self._toolbox = toolbox
        self._events = events
        self._place = settings.state_dir / "portage"
        self._small = SmallFiles(self._place / "small", offline=settings.offline, max_age_s=settings.max_age_s)
        self._files = Distfiles(self._place / "files", settings.blobs_dir, events, offline=settings.offline)
        self._repositories: tuple[RepositoryState, ...] = ()
        self._begun: _Begun | None = None

    @staticmethod
    def owns(root: Path) -> bool:
        """Whether a root's packages are for it to manage."""
        return (root / "var/db/pkg").is_dir() and any(
            (root / f"usr/{name}/emerge").exists() for name in ("bin", "sbin")
        )

    @staticmethod
    def bootstrap_request(words: Sequence[str]) -> BootstrapRequest:
        """`portage --stage …` as a request. Raises UsageError."""
        parser = bootstrap_words("portage")
        parser.add_argument("--stage", required=True)
        parser.add_argument("--arch", required=True)
        parser.add_argument("--profile", required=True)
        parser.add_argument("--mirror", required=True)
        parser.add_argument("--latest", default="", metavar="URL")
        parser.add_argument("--key", action="append", required=True, metavar="TEXT|URL")
        parser.add_argument("--fingerprint", action="append", default=[])
        options = parser.parse_args(list(words))
        return BootstrapRequest(
            suite=options.stage,
            arch=options.arch,
            mirrors=(options.mirror,),
            variables=(("profile", options.profile), ("latest", options.latest)),
            keys=tuple(options.key),
            fingerprints=tuple("".join(one.split()).upper() for one in options.fingerprint),
        )

    # --- the beginning

    def bootstrap(self, request: BootstrapRequest) -> PortageTransaction:
        """The stage and the tree of ebuilds, as packages. Raises FetchError, SignatureError, PackageError."""
        mirror = Mirror(request, self._small, self._files, self._settings.scratch / "keys", self._toolbox)
        with self._events.activity("resolve"):
            stage, stages = mirror.stage()
            tree, file, trees = mirror.tree()
        tokens = self._small.tokens
        self._repositories = tuple(RepositoryState(url, "", tokens[url]) for url in (stages, trees) if tokens[url])
        self._begun = _Begun(request, mirror, stage, file)
        return PortageTransaction((stage, tree), manual=(stage.name,))

    def fetch(self, transaction: Transaction) -> None:
        """Download what the store lacks, and check it. Raises FetchError, SignatureError."""
        ours = _known(transaction)
        if self._begun and self._begun.stage in ours.install:
            self._stage_file(self._begun)
        self._files.fetch([one for one, _, _ in ours.files])

    def _stage_file(self, begun: _Begun) -> Path:
        from dibble.packages.fetch import fetch_all

        stage, settings = begun.stage, self._settings
        if stage.sha256 not in begun.files:
            wanted = [Download((stage.url,), stage.sha256, stage.size, stage.file_name)]
            begun.files = fetch_all(wanted, settings.blobs_dir, self._events, offline=settings.offline)
            with self._events.activity("signatures"):
                begun.mirror.check_stage(stage, begun.files[stage.sha256])
        return begun.files[stage.sha256]

    def _begin(self, begun: _Begun) -> None:
        """Unpack the stage and the tree into the empty root, and choose the profile. Raises PackageError."""
        root = self._settings.root
        # Extended attributes: capabilities of programs. What is mounted is not the stage's to fill, and device nodes
        # cannot be made here: every system makes its own.
        mounted = ("--anchored", *(f"--exclude=./{name}" for name in ("dev", "proc", "sys")))
        options = ("--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*")
        with self._events.activity("unpack"):
            self._unpack(self._stage_file(begun), root, *options, *mounted)
            place = root / TREE
            place.mkdir(parents=True, exist_ok=True)
            self._unpack(begun.tree, place, *options, "--strip-components=1")
        profile = dict(begun.request.variables)["profile"]
        if not (place / "profiles" / profile).is_dir():
            known = answers.profiles_of(root, begun.request.arch)
            raise PackageError(
                f"Gentoo has no profile {profile} for {begun.request.arch}, only {', '.join(known) or 'none'}",
                hint="choose another one (GENTOO_PROFILE)",
            )
        link = root / _PROFILE
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../{TREE}/profiles/{profile}")

    def _unpack(self, archive: Path, place: Path, *options: str) -> None:
        path = self._toolbox.path
        # a blob's name says nothing of how it is compressed; --auto-compress looks at names only, reading does not
        self._toolbox.run(["tar", "--extract", *options, "--file", path(archive), "--directory", path(place)])

    # --- deciding

    def resolve(self, install: Sequence[str], remove: Sequence[str] = ()) -> PortageTransaction:
        """What installing and removing these comes to, in the words of emerge(1). Raises PackageError, FetchError.

        Removing is deselecting: a package goes when nothing else needs it, and with it what only it needed.
        """
        with self._events.activity("resolve"):
            going = self._going(remove) if remove else ()
            coming = self._coming((*_INSTALL, *install)) if install else PortageTransaction()
        names = [name for name in install if not name.startswith("-")]
        return PortageTransaction(
            coming.install,
            coming.upgrade,
            tuple(name for name, _ in going),
            words=coming.words,
            deselect=tuple(remove),
            coming=coming.coming,
            files=coming.files,
            manual=tuple(names),
        )

    def upgrade(self) -> PortageTransaction:
        """What bringing all packages to their newest versions comes to."""
        with self._events.activity("resolve"):
            return self._coming(_UPGRADE)

    def foresee(
        self,
        earlier: Sequence[Transaction],
        install: Sequence[str] = (),
        remove: Sequence[str] = (),
        *,
        upgrade: bool = False,
    ) -> PortageTransaction:
        """Only emerge of the finished root can tell. Raises NotKnownYet."""
        raise NotKnownYet("what emerge installs besides the stage is known when the stage is in place")

    def use_target_sources(self) -> None:
        """From now on the target's own settings count; emerge knows no others."""
        self._begun = None

    def use_bootstrap_sources(self, request: BootstrapRequest) -> None:
        """Nothing is foreseen."""

    def repositories(self) -> tuple[RepositoryState, ...]:
        """What the answer of the last request depends on, each with the token by which a change is seen."""
        return self._repositories

    def _coming(self, words: Sequence[str]) -> PortageTransaction:
        root = self._settings.root
        hosts = answers.binhosts(root)
        if not hosts:
            words = [word for word in words if word != "--getbinpkg"]
        self._bring_indices(hosts)
        with self._caches(()):
            output = self._emerge("--pretend", *words).output
            rows = answers.rows_of(output)
            sources = [row for row in rows if not row.is_binary]
            addresses: dict[str, tuple[str, ...]] = {}
            if sources:
                said = self._emerge("--pretend", "--fetchonly", "--nodeps", *(f"={row.cpv}" for row in sources)).output
                addresses = answers.uris_in(said)
        kept = self._keep_indices(hosts)
        self._repositories = tuple(
            RepositoryState(url, "", token)
            for url in (f"{host.url}/Packages" for host in kept if not self._settings.offline)
            if (token := token_of_url(url))
        )
        files = [*self._binary_files(rows, hosts), *self._source_files(sources, addresses)]
        by_row = {one.name: one for one, _, _ in files}
        packages = [(row, _package(row, self._settings.arch, by_row.get(_binary_name(row)))) for row in rows]
        return PortageTransaction(
            tuple(package for row, package in packages if row.is_new),
            tuple(package for row, package in packages if not row.is_new),
            words=tuple(words),
            coming=tuple((row.name, row.version) for row in rows),
            files=tuple(files),
        )

    def _going(self, names: Sequence[str]) -> Sequence[tuple[str, str]]:
        """What goes when these are deselected; the list of what was selected is as before after it."""
        world = self._settings.root / "var/lib/portage/world"
        before = world.read_bytes() if world.exists() else b""
        there = {name for name, _ in answers.versions(self._settings.root)}
        for name in names:
            if "/" in name and name not in there and not name.startswith(("=", "<", ">", "~", "@")):
                self._events.note(f"{name} is not installed", "info")
        try:
            self._emerge("--deselect", *names)
            return answers.removed_in(self._emerge("--pretend", "--depclean").output)
        finally:
            world.write_bytes(before)

    def _binary_files(
        self, rows: Sequence[answers.Row], hosts: Sequence[answers.Binhost]
    ) -> Iterator[tuple[Distfile, str, int]]:
        """The binary packages that emerge will fetch, as the list that it has just read tells of them."""
        wanted = {(row.cpv, row.build): row for row in rows if row.is_binary}
        for host in hosts:
            index = self._settings.root / host.index
            text = index.read_text("utf-8", "replace") if index.is_file() and wanted else ""
            for entry in answers.index_entries(text):
                row = wanted.get((entry["CPV"], entry.get("BUILD_ID", "")))
                if row is None or "PATH" not in entry or not entry.get("SIZE", "").isdigit():
                    continue
                del wanted[row.cpv, row.build]
                digests = {kind: text for kind, text in entry.items() if kind in ("MD5", "SHA1")}
                url = f"{host.url}/{entry['PATH']}"
                file = Distfile(_binary_name(row), (url,), int(entry["SIZE"]), digests)
                yield file, f"{host.location}/{entry['PATH']}", int(entry.get("MTIME", "0"))

    def _source_files(
        self, rows: Sequence[answers.Row], addresses: Mapping[str, tuple[str, ...]]
    ) -> Iterator[tuple[Distfile, str, int]]:
        """The distfiles that emerge will fetch, with the digests of the Manifests."""
        for row in rows:
            manifest = self._settings.root / TREE / row.name / "Manifest"
            text = manifest.read_text("utf-8", "replace") if manifest.is_file() else ""
            for name, (size, digests) in answers.manifest_entries(text).items():
                if name in addresses:
                    yield Distfile(name, addresses[name], size, digests), f"/{_DISTFILES}/{name}", 0

    def _bring_indices(self, hosts: Sequence[answers.Binhost]) -> None:
        """Offline, let emerge find the lists of binary packages as they were last, and take them for new."""
        for host in hosts if self._settings.offline else ():
            kept, place = self._index(host), self._settings.root / host.index
            if kept.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(answers.as_new(kept.read_text("utf-8", "replace"), time.time()))

    def _keep_indices(self, hosts: Sequence[answers.Binhost]) -> list[answers.Binhost]:
        there = [host for host in hosts if (self._settings.root / host.index).is_file()]
        for host in there:
            kept = self._index(host)
            kept.parent.mkdir(parents=True, exist_ok=True)
            new = kept.with_suffix(f".{os.getpid()}")
            shutil.copyfile(self._settings.root / host.index, new)
            new.replace(kept)
        return there

    def _index(self, host: answers.Binhost) -> Path:
        return self._place / "binhosts" / host.url.replace("/", "_")

    # --- doing

    def apply(self, transaction: Transaction, on_line: Callable[[str], None] | None = None) -> None:
        """Carry out a transaction in the root, whose /proc, /dev and /sys must be there.

        Raises PackageError where emerge refuses it, or does something else than it had decided.
        """
        ours = _known(transaction)
        if self._begun and self._begun.stage in ours.install:
            self._begin(self._begun)
            return
        if ours.deselect:
            with self._events.activity("configure"):
                self._emerge("--deselect", *ours.deselect, on_line=on_line)
                self._emerge("--depclean", "--quiet", on_line=on_line)
            self._require_gone(ours.remove)
        if ours.coming or not self._are_selected(ours.manual):
            self._install(ours, on_line)
        if ours.words == _UPGRADE:
            self._emerge("--depclean", "--quiet", on_line=on_line)

    def _install(self, ours: PortageTransaction, on_line: Callable[[str], None] | None) -> None:
        with self._caches(ours.files), self._events.activity("configure") as activity:
            there, total = set(ours.coming), len(ours.coming)

            def heard(line: str) -> None:
                if line.startswith(">>> Completed") or (line.startswith(">>> ") and " merged." in line):
                    done = len(there & set(answers.versions(self._settings.root)))
                    activity.progress(done, total, "packages")
                if on_line and not line.startswith(">>> Jobs: "):
                    on_line(line)

            self._emerge(*ours.words, on_line=heard)
        if missing := there - set(answers.versions(self._settings.root)):
            names = ", ".join(f"{name}-{version}" for name, version in sorted(missing))
            raise PackageError(f"emerge has installed something else than it had decided: {names} is not there")

    def _are_selected(self, names: Sequence[str]) -> bool:
        """Whether what is there already is wanted for its own sake, so that removing others does not take it along."""
        file = self._settings.root / "var/lib/portage/world"
        return set(names) <= set(file.read_text().split() if file.exists() else ())

    def _require_gone(self, names: Sequence[str]) -> None:
        if left := sorted(set(names) & {name for name, _ in answers.versions(self._settings.root)}):
            self._events.note(f"{', '.join(left)} stays, since something needs it", "info")

    def installed(self) -> list[Package]:
        """The packages of the root, sorted by name."""
        return [Package(name, version, self._settings.arch) for name, version in answers.versions(self._settings.root)]

    # --- emerge itself

    def _emerge(self, *words: str, on_line: Callable[[str], None] | None = None) -> Completed:
        """Run it in the target. Raises PackageError."""
        root = self._settings.root
        (root / "run/lock").mkdir(parents=True, exist_ok=True)  # where it locks its keys; a system makes it at boot
        done = run(["emerge", *_ALWAYS, *words], root=root, env=_ENVIRONMENT, on_line=on_line, check=False)
        if done.status:
            raise answers.refusal(done.output, done.status)
        return done

    @contextlib.contextmanager
    def _caches(self, files: Sequence[tuple[Distfile, str, int]]) -> Iterator[None]:
        """Show files where emerge looks before it downloads; what it puts there itself is gone afterwards."""
        root = self._settings.root
        there = self._files.fetch([one for one, _, _ in files])
        places = {_DISTFILES, _BINPKGS, *(host.location.strip("/") for host in answers.binhosts(root))}
        points = []
        for number, name in enumerate(sorted(places)):
            directory, point = self._settings.scratch / f"cache-{number}", root / name
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            for one, shown, mtime in files:
                if shown.startswith(f"/{name}/"):
                    copy = directory / shown.removeprefix(f"/{name}/")
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(there[one.name], copy)  # emerge changes owners and modes of what it finds
                    if mtime:
                        os.utime(copy, (mtime, mtime))  # else it takes the file for another one
            point.mkdir(parents=True, exist_ok=True)
            if not point.resolve().is_relative_to(root.resolve()):
                raise PackageError(f"/{name} of the target leads out of it")
            mounts.bind(directory, point)
            points.append((point, directory))
        try:
            yield
        finally:
            for point, directory in points:
                mounts.unmount_all(point)
                shutil.rmtree(directory, ignore_errors=True)


def _known(transaction: Transaction) -> PortageTransaction:
    """The transaction as one of ours."""
    if not isinstance(transaction, PortageTransaction):
        raise PackageError("this is a transaction of another package manager")
    return transaction


def _binary_name(row: answers.Row) -> str:
    return f"{row.cpv}-{row.build}" if row.build else row.cpv


def _package(row: answers.Row, arch: str, file: Distfile | None) -> Package:
    """A package as plans and manifests show it; of a binary one the version has its number, as Portage writes it."""
    version = f"{row.version}-{row.build}" if row.build else row.version
    return Package(row.name, version, arch, file.urls[0] if file else "", "", file.size if file else 0)
