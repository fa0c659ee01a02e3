"""zypper: the real one, of the tools tree, decides what to install and carries it out in the target.

Fetching and checking signatures is ours (`rpm.py`): packages are put where zypper looks before it downloads. Its
metadata are fetched by itself, with no keys but those that count (`zypper_metadata.py`).
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import re
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from dibble.errors import PackageError, ToolFailed
from dibble.packages.apt_state import RepositoryState
from dibble.packages.base import BootstrapRequest, Package, Transaction
from dibble.packages.bootstrap_words import bootstrap_words
from dibble.packages.rpm import GROUP, RpmManager, RpmTransaction, known
from dibble.packages.rpm_database import RpmDatabase, database_of, uses_zypper
from dibble.packages.rpm_metadata import Key, locations
from dibble.packages.zypper_answers import DONE, SCRIPTLET_FAILED, Answer, Reader, Repository, refusal, unreadable
from dibble.packages.zypper_metadata import Metadata, packages, raw
from dibble.sandbox import mounts
from dibble.sandbox.inside import resolve_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dibble.events import Events
    from dibble.packages.base import ManagerSettings
    from dibble.packages.rpm_keys import Keyring
    from dibble.packages.zypper_answers import Solvable
    from dibble.sandbox.toolbox import Toolbox

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64el": "ppc64le", "i386": "i586", "armhf": "armv7hl"}
_INSTALL = ("--no-recommends", "--auto-agree-with-licenses")
_OPTIONS = {
    "install": _INSTALL,
    "remove": ("--clean-deps",),
    "dist-upgrade": _INSTALL,
}
_TARGETS_OWN = ("multiversion", "rpm.", "solver.")
"""Beginnings of the settings in the target's zypp.conf that are about packages, and not about places."""
_MIRRORS = 8
_DAY_AND_TIME = re.compile(r"^((?:# )?)\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_AT_HOST = re.compile(r"\|root@[^|]*\|")
_COMMAND = re.compile(r"(\|command\|[^|]*\|)[^|]*\|")
_GENERATED = re.compile(r"^(# AutoInstalled generated ).*")


@dataclass(frozen=True, slots=True)
class _Sources:
    """Which repositories count, each with its keys; `files` is the directory with their .repo files."""

    files: Path
    release: str
    repositories: tuple[Repository, ...]
    keys: Mapping[str, tuple[str, ...]]
    fingerprints: Mapping[str, str]
    """Of all keys, with their owners."""
    key_root: Path
    """A root without packages, whose database has the keys."""
    cache: Path


class Zypper(RpmManager):
    """Of roots with RPM packages that have zypper."""

    name = "zypper"
    key_hint = (
        "give the key with DIB_ZYPPER_KEYS=FILE (for the first packages) or gpgkey= in the repository's file, if you"
        " trust it"
    )
    backend = "ndb"  # which openSUSE's rpm has

    def __init__(self, settings: ManagerSettings, toolbox: Toolbox, events: Events) -> None:
        super().__init__(settings, toolbox, events)
        place = settings.state_dir / "zypper"
        self._metadata = Metadata(place, offline=settings.offline, max_age_s=settings.max_age_s)

    @staticmethod
    def owns(root: Path) -> bool:
        """Whether a root's packages are for it to manage."""
        return database_of(root) is not None and uses_zypper(root)

    @staticmethod
    def bootstrap_request(words: Sequence[str]) -> BootstrapRequest:
        """`zypper --releasever …` as a request. Raises UsageError."""
        parser = bootstrap_words("zypper")
        parser.add_argument("--releasever", required=True)
        parser.add_argument("--arch", required=True)
        parser.add_argument("--repository", action="append", required=True, metavar="NAME=>URL")
        parser.add_argument("--key", action="append", default=[], metavar="TEXT|URL")
        parser.add_argument("--fingerprint", action="append", default=[])
        parser.add_argument("--include", action="append", default=[])
        options = parser.parse_args(list(words))
        repositories = [one.partition("=>") for one in options.repository]
        if wrong := next((name for name, _, url in repositories if not name or not url), None):
            parser.error(f"{wrong} is not of the form NAME=>URL")
        return BootstrapRequest(
            suite=options.releasever,
            arch=options.arch,
            mirrors=(),
            include=tuple(options.include),
            sources=tuple(
                f"[{name}]\nname={name}\nenabled=1\nautorefresh=0\nbaseurl={url}\ngpgcheck=1\n"
                for name, _, url in repositories
            ),
            keys=tuple(options.key),
            fingerprints=tuple("".join(one.split()).upper() for one in options.fingerprint),
        )

    # --- deciding

    def bootstrap(self, request: BootstrapRequest) -> RpmTransaction:
        """What the first packages of an empty root come to. Raises FetchError, SignatureError, PackageError."""
        self._request = request
        sources = self._sources(request)
        return self._decided("install", request.include, sources, sources.key_root)

    def resolve(self, install: Sequence[str], remove: Sequence[str] = ()) -> RpmTransaction:
        """What installing and removing these comes to, in the words of zypper(8): NAME, NAME=EDITION, pattern:NAME …

        Raises PackageError for a name that no repository has. What is to go and is not there is passed over. What only
        a removed package needed goes along, unless something is installed as well.
        """
        root, sources = self._settings.root, self._sources(None)
        there = {one.name for one in self.installed()} if remove else set()
        for name in remove:
            if name not in there:
                self._events.note(f"{name} is not installed", "info")
        going = [name for name in remove if name in there]
        if install:
            return self._decided("install", (*install, *(f"!{name}" for name in going)), sources, root)
        return self._decided("remove", going, sources, root) if going else RpmTransaction()

    def upgrade(self) -> RpmTransaction:
        """What bringing all packages to their newest versions comes to."""
        return self._decided("dist-upgrade", (), self._sources(None), self._settings.root)

    def _foreseen(
        self, request: BootstrapRequest, present: Sequence[Package], install: Sequence[str]
    ) -> RpmTransaction:
        sources = self._sources(request)
        exact = [f"{one.name}.{one.arch}={one.version}" for one in present]
        return self._decided("install", install, sources, sources.key_root, exact)

    def _decided(
        self, verb: str, words: Sequence[str], sources: _Sources, root: Path, present: Sequence[str] = ()
    ) -> RpmTransaction:
        """What a request comes to in `root`; with `present`, in one that has these packages."""
        with self._events.activity("resolve"):
            asked = [verb, *_OPTIONS[verb], *present, *(_capability(word) for word in words)]
            answer = self._asked(sources, root, asked, dry=True)
            rows = self._rows(answer, sources, set(present))
        self._repositories = tuple(
            RepositoryState(f"{url}/repodata/repomd.xml", "", _sha256(raw(sources.cache, one.alias)))
            for one in sources.repositories
            for url in one.urls[:1]
            if url.startswith(("http://", "https://"))
        )
        unchecked = [one.alias for one in sources.repositories if one.alias not in sources.keys]
        if unchecked:
            self._events.note(f"packages of {', '.join(unchecked)} are not checked: gpgcheck=0", "warning")
        upgraded = {_key(one) for one in answer.coming(new=False)}
        return RpmTransaction(
            tuple(row.package for row in rows if row.key not in upgraded),
            tuple(row.package for row in rows if row.key in upgraded),
            tuple(sorted(one.name for one in answer.going)),
            asked={"words": asked, "sources": sources, "paths": {row.package.sha256: row.path for row in rows}},
            urls={row.package.sha256: row.urls for row in rows},
            origins={row.package.sha256: row.alias for row in rows},
            nevras=tuple(sorted(row.nevra for row in rows)),
            keys=sources.keys,
            manual=tuple(word for word in words if not word.startswith("!")) if verb == "install" else (),
        )

    def _rows(self, answer: Answer, sources: _Sources, present: set[str]) -> list[_Row]:
        """The packages that come in, with where they are."""
        rows: list[_Row] = []
        coming = [*answer.coming(new=True), *answer.coming(new=False)]
        for repository in sources.repositories:
            ours = {_key(one) for one in coming if one.repository in (repository.alias, repository.name)}
            found = locations(raw(sources.cache, repository.alias), ours)
            for key in sorted(ours):
                name, edition, arch = key
                if f"{name}.{arch}={edition}" in present:
                    continue
                nevra = f"{name}-{edition}.{arch}"
                place = found.get(key)
                if place is None:
                    raise PackageError(f"the repository {repository.alias} does not say where {nevra} is")
                self._require_sha256(place.sha256, nevra, repository.alias)
                bases = [place.base.rstrip("/")] if place.base else repository.urls[:_MIRRORS]
                urls = tuple(f"{base}/{place.path}" for base in bases)
                package = Package(name, edition, arch, urls[0], place.sha256, place.size)
                rows.append(_Row(key, nevra, package, urls, repository.alias, place.path))
        return rows

    # --- doing

    def apply(self, transaction: Transaction, on_line: Callable[[str], None] | None = None) -> None:
        """Carry out a transaction in the root, whose /proc, /dev and /sys must be there.

        Raises PackageError where rpm refuses it. A scriptlet that fails is told as a warning.
        """
        ours = known(transaction)
        if not ours:
            return
        files, keyrings = self._fetched(ours)
        sources: _Sources = ours.asked["sources"]
        for package in ours.downloads:
            place = packages(sources.cache, ours.origins[package.sha256]) / ours.asked["paths"][package.sha256]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(self._toolbox.path(files[package.sha256]))
        begins = not self._database.is_there
        total = len(ours.downloads) + len(ours.remove)
        with self._events.activity("configure") as activity:
            for ring in keyrings:
                self._database.add_keys(ring)
            with self._quick_kernels(ours, files):
                answer = self._asked(
                    sources,
                    self._settings.root,
                    ours.asked["words"],
                    on_line=on_line,
                    on_progress=lambda done: activity.progress(min(done, total), total, "packages"),
                )
        shutil.rmtree(packages(sources.cache, ""), ignore_errors=True)
        came = sorted(_nevra(one) for one in (*answer.coming(new=True), *answer.coming(new=False)))
        if came != list(ours.nevras):
            changed = ", ".join(sorted(set(came) ^ set(ours.nevras)))
            raise PackageError(f"zypper has installed something else than it had decided: {changed}")
        if begins:
            self._database.settle()
        self._database.close()
        self._leave_no_time()
        for text in answer.failed_scriptlets:
            self._events.note(f"rpm: {text}", "warning")

    # --- repositories

    def _sources(self, request: BootstrapRequest | None) -> _Sources:
        """The repositories of a bootstrap, or of the target, with their metadata. Raises FetchError, SignatureError."""
        self._toolbox.ensure(GROUP)
        files = self._repository_files(request) if request else self._settings.root / "etc/zypp/repos.d"
        release = request.suite if request else self._release_of_target()
        listed = self._run(self._settings.root, files, release, ["repos", "--uri"])
        repositories = tuple(one for one in listed.repositories if one.enabled)
        if not repositories:
            raise PackageError("the target has no repositories", hint="give it one with zypper addrepo")
        keys = {one.alias: self._keys_of(one, request) for one in repositories if one.checked}
        rings = [self._keyring(alias, texts, f"keys-{alias}") for alias, texts in keys.items()]
        fingerprints = {key: owner for ring in rings for key, owner in ring.keys.items()}
        key_root = self._key_root(rings)

        def refresh(cache: Path) -> None:
            with self._events.activity("resolve"):
                reader, status = self._zypper(key_root, files, release, ["refresh"], cache=cache)
            if status not in DONE:
                raise unreadable(reader.answer, fingerprints, self.key_hint)

        cache = self._metadata.copy(repositories, fingerprints, self._settings.scratch / "cache", refresh)
        return _Sources(files, release, repositories, keys, fingerprints, key_root, cache)

    def _release_of_target(self) -> str:
        """What $releasever means in the target's repositories, which are read with another root; "" if it does not say.

        Source: libzypp, zypp/target/TargetImpl.cc, distributionVersion: the version of the base product.
        """
        try:
            text = resolve_inside(self._settings.root, "etc/products.d/baseproduct").read_bytes()
            return ElementTree.fromstring(text).findtext("version", "").strip()  # noqa: S314 - of the target that is built
        except (OSError, ElementTree.ParseError):
            return ""

    def _repository_files(self, request: BootstrapRequest) -> Path:
        place = self._settings.scratch / "repositories"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for number, text in enumerate(request.sources):
            (place / f"{number}.repo").write_text(text)
        return place

    def _keys_of(self, repository: Repository, request: BootstrapRequest | None) -> tuple[str, ...]:
        """The keys of a repository, as texts or places: of a target, also those that it trusts already."""
        if request is None:
            return (*repository.keys, *self._database.keys())
        if request.keys or not request.fingerprints:
            return request.keys
        return (self._metadata.published(repository.urls[0], request.fingerprints, self.key_hint),)

    def _key_root(self, rings: Sequence[Keyring]) -> Path:
        """A root without packages that trusts these keys."""
        place = self._settings.scratch / "key-root"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        database = RpmDatabase(place, self._toolbox, self._settings.epoch, self.backend)
        for ring in rings:
            database.add_keys(ring)
        return place

    # --- zypper itself

    def _asked(
        self,
        sources: _Sources,
        root: Path,
        words: Sequence[str],
        *,
        dry: bool = False,
        on_line: Callable[[str], None] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Answer:
        """Let zypper decide or, without `dry`, do something in a root. Raises PackageError."""
        verb, *rest = words
        argv = [verb, *(["--dry-run"] if dry else []), *rest]
        reader, status = self._zypper(
            root, sources.files, sources.release, argv, cache=sources.cache, on_line=on_line, on_progress=on_progress
        )
        if status not in DONE and (dry or status != SCRIPTLET_FAILED):
            raise refusal(status, reader.answer)
        return reader.answer

    def _run(self, root: Path, files: Path, release: str, words: Sequence[str]) -> Answer:
        reader, status = self._zypper(root, files, release, words, cache=self._settings.scratch / "no-cache")
        if status not in DONE and not reader.answer.repositories:
            raise refusal(status, reader.answer)
        return reader.answer

    def _zypper(
        self,
        root: Path,
        files: Path,
        release: str,
        words: Sequence[str],
        *,
        cache: Path,
        on_line: Callable[[str], None] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> tuple[Reader, int]:
        """Run it on a root: the target, which keeps nothing of the cache, or one of ours."""
        path, scratch = self._toolbox.path, self._settings.scratch
        database = RpmDatabase(root, self._toolbox, self._settings.epoch, self.backend)
        home = database.home(scratch / "home")
        environment = database.environment | {
            "HOME": path(home),
            "PATH": f"{path(self._programs(home))}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ZYPP_CONF": path(self._configuration(root)),
            "ZYPP_LOGFILE": "/dev/null",
        }
        argv = ["zypper", "--xmlout", "--non-interactive", "--root", path(root), "--reposd-dir", path(files)]
        argv += ["--releasever", release] if release else []
        argv += ["--no-refresh"] if words[0] != "refresh" else []
        reader = Reader(on_line, on_progress)
        if root != self._settings.root:
            argv += ["--cache-dir", path(cache)]
        with _cache_in(root, cache) if root == self._settings.root else contextlib.nullcontext():
            done = self._toolbox.run([*argv, *words], env=environment, on_line=reader, check=False)
        if not reader.is_whole:
            raise ToolFailed(("zypper", *words), done.status, done.output)
        return reader, done.status

    def _programs(self, home: Path) -> Path:
        """A directory with an rpm that has our settings, but runs scriptlets with the home of any system."""
        place = self._settings.scratch / "programs"
        place.mkdir(parents=True, exist_ok=True)
        macros = self._toolbox.path(home / ".rpmmacros")
        (place / "rpm").write_text(f'#!/bin/sh\nHOME=/root exec /usr/bin/rpm --load "{macros}" "$@"\n')
        (place / "rpm").chmod(0o755)
        return place

    def _configuration(self, root: Path) -> Path:
        """A zypp.conf with what the target's says about packages."""
        parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
        with contextlib.suppress(configparser.Error):
            parser.read([root / "usr/etc/zypp/zypp.conf", root / "etc/zypp/zypp.conf"], encoding="utf-8")
        own = parser["main"].items() if "main" in parser else ()
        settings = {name: value for name, value in own if name.startswith(tuple(one.lower() for one in _TARGETS_OWN))}
        settings |= {
            "arch": _ARCHITECTURES.get(self._settings.arch, self._settings.arch),
            "repo.refresh.delay": "0",
            "solver.onlyRequires": "true",
        }
        file = self._settings.scratch / "zypp.conf"
        file.write_text("[main]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
        return file

    def _leave_no_time(self) -> None:
        """Let zypper's own files say when the build's epoch is, and nothing of this machine."""
        epoch, root = self._settings.epoch, self._settings.root
        if epoch is None:
            return
        moment = time.gmtime(epoch)
        at = time.strftime("%Y-%m-%d %H:%M:%S", moment)
        history, marks = root / "var/log/zypp/history", root / "var/lib/zypp/AutoInstalled"
        if history.is_file():
            text = history.read_text("utf-8", "replace")
            lines = (_COMMAND.sub(r"\1'zypper'|", _DAY_AND_TIME.sub(rf"\g<1>{at}", line)) for line in text.splitlines())
            history.write_text("".join(f"{_AT_HOST.sub('|root@localhost|', line)}\n" for line in lines))
        if marks.is_file():
            text = marks.read_text("utf-8", "replace")
            marks.write_text(_GENERATED.sub(rf"\g<1>{time.strftime('%a %b %d %H:%M:%S %Y', moment)}", text))


@dataclass(frozen=True, slots=True)
class _Row:
    """One package that comes in; `path` is its place below the repository."""

    key: Key
    nevra: str
    package: Package
    urls: tuple[str, ...]
    alias: str
    path: str


@contextlib.contextmanager
def _cache_in(root: Path, cache: Path) -> Iterator[None]:
    """Show a cache where zypper looks for it in a root: there it writes what it knows of that root's packages, too."""
    place = root / "var/cache/zypp"
    place.mkdir(parents=True, exist_ok=True)
    if not place.resolve().is_relative_to(root.resolve()):
        raise PackageError("/var/cache/zypp of the target leads out of it")
    cache.mkdir(parents=True, exist_ok=True)
    mounts.bind(cache, place)
    try:
        yield
    finally:
        mounts.unmount_all(place)
        (root / "run/zypp.pid").unlink(missing_ok=True)


def _capability(word: str) -> str:
    """A word for zypper; one for a pattern as what its package provides, which zypper of the tools tree knows."""
    return f"pattern() = {word.removeprefix('pattern:')}" if word.startswith("pattern:") else word


def _key(one: Solvable) -> Key:
    return (one.name, one.edition, one.arch)


def _nevra(one: Solvable) -> str:
    return f"{one.name}-{one.edition}.{one.arch}"


def _sha256(repository: Path) -> str:
    return hashlib.sha256((repository / "repodata/repomd.xml").read_bytes()).hexdigest()
