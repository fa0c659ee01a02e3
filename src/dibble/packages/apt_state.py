"""The apt that runs outside the target: private configuration, lists and caches for one set of sources.

    STATE/SET/apt.conf, etc/, cache/   the configuration of a set of sources, by its digest; never changed once made
    STATE/SET/updated                  names of the signed files of the last successful update, whose time it has
    STATE/lists-TRUST/                 lists of all sets that trust the same keys, so a suite is fetched once
    STATE/unsigned-TRUST/              lists of sets that do without signatures for some source

Nothing of the host's apt configuration is read: the file named by APT_CONFIG comes first and names other places for all
parts (apt.conf(5)). Parallel builds share the state: lists change under an exclusive lock and are read under a shared
one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import FetchError, PackageError
from dibble.packages.apt_failures import update_failure
from dibble.packages.apt_release import note_release
from dibble.packages.apt_sources import SourceSet, proxies
from dibble.packages.debian_sources import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dibble.events import Events
    from dibble.sandbox.process import Completed
    from dibble.sandbox.toolbox import Toolbox

_SHORT = 16  # hexadecimal digits of a digest that tell directories apart

_OPTIONS = (
    'APT::Sandbox::User "root";',  # the user of a namespace cannot become _apt for files of the cache
    'Acquire::Languages "none";',
    'Acquire::Check-Valid-Until "false";',  # the clock may be ahead of an archive, as with snapshots
    'Acquire::Check-Date "false";',
    'Acquire::Retries "3";',
    'Acquire::http::Timeout "15";',  # seconds
    'Acquire::https::Timeout "15";',
    'APT::Update::Error-Mode "any";',  # a suite that is not to be had is an error, not a warning (apt >= 2.1.8)
    'APT::Get::List-Cleanup "false";',  # the lists of other sets lie beside ours
    'APT::Get::Assume-Yes "true";',
    'APT::Get::AutomaticRemove "false";',
    'Debug::NoLocking "true";',
)


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """`sha256` is that of the signed top-level file (InRelease, or Release where there is none)."""

    uri: str
    suite: str
    sha256: str


class AptState:
    """Runs apt tools of a toolbox on one set of sources."""

    def __init__(
        self, sources: SourceSet, state_dir: Path, toolbox: Toolbox, events: Events, *, offline: bool, max_age_s: int
    ) -> None:
        self.sources = sources
        self._toolbox = toolbox
        self._events = events
        self._offline = offline
        self._max_age_s = max_age_s
        kind = "unsigned" if sources.is_insecure else "lists"
        self.lists = state_dir / f"{kind}-{sources.trust[:_SHORT]}"
        # the paths in the configuration are those the tools see, and caches are for one build of apt
        name = f"{sources.digest} {toolbox.path(state_dir)} {toolbox.identity} {self._configuration('')}"
        self._home = state_dir / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:_SHORT]
        self._fresh = False

    def refresh(self) -> None:
        """Make the lists at most `max_age_s` old. Raises FetchError or SignatureError."""
        if self._fresh:
            return
        self._make()
        if not self._is_fresh():
            if self._offline:
                raise FetchError(
                    f"the package lists of {_said(self.sources)} are not in the cache, and --offline forbids to fetch",
                    hint="run once without --offline",
                )
            with self._locked(fcntl.LOCK_EX):
                if not self._is_fresh():  # another build was first
                    self._update()
        self._fresh = True

    def run(
        self,
        argv: Sequence[str],
        status: Path | None = None,
        extended: Path | None = None,
        lists: Path | None = None,
    ) -> Completed:
        """Run an apt tool on these sources; the caller looks at its status.

        `status` is the dpkg status file of the root in question, none for an empty root; `extended` its
        extended_states; `lists` a directory to take lists from that hold a part of ours.
        """
        self.refresh()
        with self._locked(fcntl.LOCK_SH):
            return self._run(argv, status, extended, lists)

    def release_files(self) -> dict[tuple[str, str], Path]:
        """The signed top-level file of each repository, as apt has it, by (uri, suite)."""
        found = {}
        for uri, suite in self.sources.places:
            for name in ("InRelease", "Release"):
                path = self.lists / list_name(uri, suite, name)
                if path.exists():
                    found[uri, suite] = path
                    break
        return found

    @contextlib.contextmanager
    def reading(self) -> Iterator[list[Path]]:
        """The files of the lists of these sources; while the block runs, no other build changes them."""
        self.refresh()
        prefixes = tuple(list_name(uri, suite, "") for uri, suite in self.sources.places)
        with self._locked(fcntl.LOCK_SH):
            yield sorted(path for path in self.lists.iterdir() if path.is_file() and path.name.startswith(prefixes))

    @property
    def index(self) -> Path:
        """A directory for what is known of the lists."""
        return self.lists.with_name(self.lists.name + ".index")

    def _run(
        self, argv: Sequence[str], status: Path | None, extended: Path | None, lists: Path | None = None
    ) -> Completed:
        shown = self._toolbox.path
        options = [
            "-o",
            f"Dir::State::status={shown(status or self._home / 'etc/status')}",
            "-o",
            f"Dir::State::extended_states={shown(extended or self._home / 'etc/extended_states')}",
        ]
        if lists:
            options += ["-o", f"Dir::State::lists={shown(lists)}", "-o", "Dir::Cache::srcpkgcache="]
        if status or lists:
            # With packages installed, the second cache changes with each root; the first holds all that is slow.
            options += ["-o", "Dir::Cache::pkgcache="]
        environment = {**proxies(os.environ), "LC_ALL": "C", "APT_CONFIG": shown(self._home / "apt.conf")}
        return self._toolbox.run([*argv, *options], env=environment, check=False)

    def _update(self) -> None:
        with self._events.activity("package lists"):
            if not self.lists.exists():
                self._seed()
            (self.lists / "partial").mkdir(parents=True, exist_ok=True)
            done = self._run(["apt-get", "update", "-q"], None, None)
        if done.status:
            raise update_failure(done.output, self.sources.places)
        for line in done.output.splitlines():
            if line.startswith("W: "):
                self._events.note(line[3:], "warning")
        for (uri, suite), file in self.release_files().items():
            note_release(uri, suite, file, self._home.parent)
        names = "".join(f"{file.name}\n" for file in self.release_files().values())
        (self._home / "updated").write_text(names)

    def _seed(self) -> None:
        """Begin with lists that other keys vouched for, so that the same suite is not fetched again.

        apt asks whether they are the newest, and verifies the signature with the new keys even if so; what the signed
        file names was verified when it was fetched (never true of unsigned lists, which are not taken).
        """
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self.lists.parent))
        try:
            new.chmod(0o755)
            prefixes = tuple(list_name(uri, suite, "") for uri, suite in self.sources.places)
            for file in self.lists.parent.glob("lists-*/*"):
                if file.name.startswith(prefixes) and not (new / file.name).exists():
                    with contextlib.suppress(OSError):
                        os.link(file, new / file.name)
            with contextlib.suppress(OSError):
                new.rename(self.lists)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _is_fresh(self) -> bool:
        try:
            updated = (self._home / "updated").stat().st_mtime
            names = (self._home / "updated").read_text().splitlines()
        except FileNotFoundError:
            return False
        if not all((self.lists / name).exists() for name in names):
            return False
        if any(source.is_local for source in self.sources.sources) and not self._offline:
            return False  # its files may have changed since, by the script before this one
        return self._offline or abs(time.time() - updated) < self._max_age_s

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        descriptor = os.open(f"{self.lists}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)

    def _make(self) -> None:
        """Write the configuration, whole or not at all."""
        if self._home.exists():
            return
        self._home.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self._home.parent))
        try:
            new.chmod(0o755)
            for folder in (
                "etc/parts",
                "etc/preferences.d",
                "etc/sources.d",
                "etc/trusted",
                "etc/keys",
                "cache/archives/partial",
            ):
                (new / folder).mkdir(parents=True)
            for file in ("etc/status", "etc/extended_states"):
                (new / file).touch()
            for folder, files in (
                ("etc/keys", self.sources.keys),
                ("etc/trusted", self.sources.trusted),
                ("etc/preferences.d", self.sources.preferences),
            ):
                for name, data in files:
                    (new / folder / name).write_bytes(data)
                    (new / folder / name).chmod(0o644)
            (new / "etc/sources.d/all.sources").write_text(self._rendered(), "utf-8", "surrogateescape")
            (new / "apt.conf").write_text(
                self._configuration(self._toolbox.path(self._home)), "utf-8", "surrogateescape"
            )
            with contextlib.suppress(OSError):  # another process was first; its is the same
                new.rename(self._home)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _rendered(self) -> str:
        names = {name for name, _ in self.sources.keys}
        folder = self._toolbox.path(self._home / "etc/keys")
        rewritten = []
        for source in self.sources.sources:
            words = source.signed_by.split()
            if names & set(words):
                signed_by = " ".join(f"{folder}/{word}" if word in names else word for word in words)
                rewritten.append(dataclasses.replace(source, signed_by=signed_by))
            else:
                rewritten.append(source)
        return render(rewritten)

    def _configuration(self, home: str) -> str:
        places = {
            "Dir": "/",
            "Dir::Etc": f"{home}/etc",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": f"{home}/etc/parts",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": f"{home}/etc/sources.d",
            "Dir::Etc::trustedparts": f"{home}/etc/trusted",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": f"{home}/etc/preferences.d",
            "Dir::Etc::netrc": "/dev/null",
            "Dir::Etc::netrcparts": "/nonexistent",
            "Dir::State": f"{home}/cache",
            "Dir::State::lists": self._toolbox.path(self.lists),
            "Dir::Cache": f"{home}/cache",
            "Dir::Log": f"{home}/cache",
        }
        lines = [f'{name} "{value}";' for name, value in places.items()]
        arches = " ".join(f'"{arch}";' for arch in (self.sources.arch, *self.sources.foreign))
        lines += [f'APT::Architecture "{self.sources.arch}";', f"APT::Architectures {{ {arches} }};"]
        return "\n".join((*lines, *_OPTIONS, *self.sources.settings)) + "\n"


def list_name(uri: str, suite: str, name: str) -> str:
    """The file name under which apt keeps a suite's file (apt-pkg/contrib/strutl.cc, URItoFileName).

    Access method and user are left out, odd characters quoted, slashes become underscores.
    """
    rest = uri.partition(":")[2]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        rest = re.sub(r"^\[(.*)\]", r"\1", host.rpartition("@")[2]) + slash + path
    rest = rest.rstrip("/") + "/" + (suite.lstrip("/") if suite.endswith("/") else f"dists/{suite}/") + name
    odd = b'\\|{}[]<>"^~_=!@#$%^&*'
    quoted = "".join(f"%{byte:02x}" if byte in odd or not 0x20 < byte < 0x7F else chr(byte) for byte in rest.encode())
    return quoted.replace("/", "_")


def target_settings(root: Path, state_dir: Path, toolbox: Toolbox) -> tuple[str, ...]:
    """All settings in the apt configuration of the system in `root`, as `apt-config dump` prints them."""
    state_dir.mkdir(parents=True, exist_ok=True)
    etc = toolbox.path(root / "etc/apt")
    text = f'Dir::Etc::main "{etc}/apt.conf";\nDir::Etc::parts "{etc}/apt.conf.d";\n'
    file = state_dir / f"target-{hashlib.sha256(etc.encode()).hexdigest()[:_SHORT]}.conf"
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    done = toolbox.run(["apt-config", "dump"], env={"LC_ALL": "C", "APT_CONFIG": toolbox.path(file)}, check=False)
    if done.status:
        raise PackageError(
            f"apt cannot read the target's configuration: {done.output.strip()}", hint="look at its /etc/apt/apt.conf.d"
        )
    return tuple(line for line in done.output.splitlines() if line.endswith(";"))


def _said(sources: SourceSet) -> str:
    return ", ".join(f"{uri} {suite}" for uri, suite in sources.places) or "the target's sources"
