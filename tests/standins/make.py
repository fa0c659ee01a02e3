"""Makes stand-ins below a cache, each once for a state of Debian's archive and of this code.

CACHE/standins/NAME-DIGEST/   what a web server shows: mirrors and keys at their real paths
CACHE/standins/payloads/      compressed payloads, which distributions share
CACHE/standins/keys/NAME/     the home of gpg with the key that signs
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.events import Events
from dibble.packages.debian_archive import DebianArchive
from dibble.packages.rpm_keys import fingerprints
from dibble.sandbox.tools import default_mirrors
from dibble.store.places import open_store
from tests.inside import with_tools
from tests.standins import debs, redhat
from tests.standins.payload import MTIME
from tests.standins.rpm_file import write_rpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dibble.sandbox.toolbox import Toolbox
    from tests.standins.redhat import Distribution

_GENERATOR = ("debs", "make", "payload", "redhat", "redhat_packages", "redhat_tables", "rpm_file", "suse")
"""The files of this directory that make RPM packages."""
_MADE_AT = "20231114T221320!"  # gpg's clock: the same signatures each time


def made(distribution: Distribution, cache: Path) -> Path:
    """The directory to be served, made where it is missing."""
    places = cache / "standins"
    (places / "payloads").mkdir(parents=True, exist_ok=True)
    place = places / f"{distribution.name}-{_digest(distribution, cache)}"
    with locked(places / f"{distribution.name}.lock"):
        if not place.is_dir():
            for old in places.glob(f"{distribution.name}-*"):
                shutil.rmtree(old)
            with_tools(cache, lambda toolbox, work: _make(distribution, cache, place, toolbox, work), "rpm")
    return place


def key_of(distribution: Distribution, place: Path) -> Path:
    """The file with the key that signs."""
    return place / distribution.key


def _digest(distribution: Distribution, cache: Path) -> str:
    release = DebianArchive(
        default_mirrors(), debs.SUITE, distribution.arch, blobs=open_store(cache).blobs, events=Events()
    ).release()
    index, _ = release.files[f"main/binary-{distribution.arch}/Packages.xz"]
    return hashlib.sha256(f"{index} {_generator()} {distribution}".encode()).hexdigest()[:16]


def _generator() -> str:
    """Names the state of this code."""
    texts = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in _GENERATOR]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _make(distribution: Distribution, cache: Path, place: Path, toolbox: Toolbox, work: Path) -> None:
    store = open_store(cache)
    home = cache / "standins/keys" / f"{distribution.system.name}-{distribution.system.version}"
    signer = Signer(toolbox, home, work, distribution.owner)
    payloads = cache / "standins/payloads"
    jobs = redhat.packages_of(distribution, store, payloads, _generator(), signer.certificate)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        largest_first = sorted(jobs, key=lambda job: -_weight(job[1]))
        running = {archive: pool.submit(redhat.packed, what, archive) for _, what, archive in largest_first}
        payload = {archive: future.result() for archive, future in running.items()}
    root = work / "root"
    mirror = root / distribution.mirror
    elsewhere = {name for one in distribution.repositories for name in one.names or ()}
    with ThreadPoolExecutor() as threads:
        for repository in distribution.repositories:
            directory = mirror / repository.path
            directory.mkdir(parents=True)
            writing = []
            for header, _, archive in jobs:
                inside = header.name in repository.names if repository.names is not None else True
                if not inside or (repository.names is None and header.name in elsewhere):
                    continue
                path = directory / repository.place_of(header)
                writing.append(threads.submit(write_rpm, path, header, payload[archive], signer.sign))
            for one in writing:
                one.result()
            groups = distribution.tables.groups
            text = groups(distribution.system.release_package) if groups else ""
            beside = _key_beside(directory, signer.certificate) if distribution.key_beside else ()
            describe(toolbox, directory, text, signer.sign, beside)
            if distribution.key_beside:
                (directory / "repodata/repomd.xml.key").write_text(signer.certificate)
    key = root / distribution.key
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_text(signer.certificate)
    signer.close()
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    root.rename(place)


def _weight(what: object) -> int:
    return sum((deb.place / "contents").stat().st_size for deb in what.debs) if isinstance(what, redhat.Job) else 0


def _key_beside(directory: Path, certificate: str) -> tuple[str, ...]:
    """Put the key into a repository as openSUSE's build service does: the words for its metadata."""
    fingerprint = next(iter(fingerprints([certificate])))
    name = f"gpg-pubkey-{fingerprint[-8:].lower()}-{MTIME:x}.asc"
    (directory / name).write_text(certificate)
    return (f"{name}?fpr={fingerprint}",)


def describe(
    toolbox: Toolbox,
    directory: Path,
    groups: str,
    sign: Callable[[bytes], bytes] | None,
    words: Sequence[str] = (),
) -> None:
    """Write a repository's metadata, with `words` in them, and with `sign` their signature."""
    file = directory / "comps.xml"
    shown = toolbox.path(directory)
    options = ["--quiet", "--general-compress-type", "gz", "--revision", "1", "--set-timestamp-to-revision"]
    if groups:
        file.write_text(groups)
        options += ["-g", "comps.xml"]
    toolbox.run(["createrepo_c", *options, *(f"--content={word}" for word in words), shown])
    file.unlink(missing_ok=True)
    if sign:
        top = directory / "repodata/repomd.xml"
        top.with_suffix(".xml.asc").write_bytes(armoured(sign(top.read_bytes())))


def armoured(signature: bytes) -> bytes:
    """A detached signature as text (RFC 9580, 6)."""
    import pysequoia

    return str(pysequoia.armor(signature, kind=pysequoia.ArmorKind.Signature)).encode()


class Signer:
    """gpg with one key, which is made where it is missing."""

    def __init__(self, toolbox: Toolbox, home: Path, work: Path, owner: str) -> None:
        self._toolbox = toolbox
        self._work = work
        self._count = 0
        self._gpg = ["gpg", "--homedir", toolbox.path(home), "--batch", "--quiet", "--faked-system-time", _MADE_AT]
        if not (home / "pubring.kbx").exists():
            home.mkdir(parents=True, exist_ok=True)
            home.chmod(0o700)
            toolbox.run([*self._gpg, "--passphrase", "", "--quick-generate-key", owner, "rsa2048", "sign", "never"])
        self.certificate = toolbox.run([*self._gpg, "--armor", "--export"]).output + "\n"

    def sign(self, data: bytes) -> bytes:
        """A binary detached signature."""
        file = self._work / f"signature-{hashlib.sha256(data).hexdigest()}"
        with file.open("wb") as output:
            self._toolbox.run([*self._gpg, "--digest-algo", "sha256", "--detach-sign"], stdin=data, stdout_file=output)
        signature = file.read_bytes()
        file.unlink()
        return signature

    def close(self) -> None:
        """End the agent that gpg has started."""
        self._toolbox.run(["gpgconf", "--homedir", self._gpg[2], "--kill", "all"])


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
