"""Debian's archive, read without any Debian program: signed release file → package index.

The certificates that are trusted ship with dibble, one file each, and are held against the fingerprints written here.
Valid-Until is not looked at: the clock of a build host may be years off, and what is used here is either named by hash
in our lock or told to the user as not locked.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import FetchError, SignatureError
from dibble.packages.base import Download
from dibble.packages.fetch import fetch_all, get_small
from dibble.packages.packages_index import PackagesIndex

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pysequoia import Cert

    from dibble.events import Events

_KEYS = Path(__file__).parent / "keys"


@dataclass(frozen=True, slots=True)
class ArchiveKey:
    """A certificate that signs releases. `archive` is "debian" or "debian-security"."""

    fingerprint: str
    purpose: str
    archive: str


# Source: https://ftp-master.debian.org/keys.html and the package debian-archive-keyring 2025.1
KEYS = (
    ArchiveKey(
        "B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8", "Debian Archive Automatic Signing Key (12/bookworm)", "debian"
    ),
    ArchiveKey("4D64FEC119C2029067D6E791F8D2585B8783D481", "Debian Stable Release Key (12/bookworm)", "debian"),
    ArchiveKey(
        "04B54C3CDCA79751B16BC6B5225629DF75B188BD", "Debian Archive Automatic Signing Key (13/trixie)", "debian"
    ),
    ArchiveKey("41587F7DB8C774BCCF131416762F67A0B2C39DE4", "Debian Stable Release Key (13/trixie)", "debian"),
    ArchiveKey(
        "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0",
        "Debian Security Archive Automatic Signing Key (12/bookworm)",
        "debian-security",
    ),
    ArchiveKey(
        "5E04A1E3223A19A20706E20F9904613D4CCE68C6",
        "Debian Security Archive Automatic Signing Key (13/trixie)",
        "debian-security",
    ),
)


def certificates(archive: str = "debian", *, folder: Path = _KEYS) -> list[Cert]:
    """The certificates that may sign `archive`. Raises SignatureError when a file is not the one its name says."""
    from pysequoia import Cert

    found = []
    for key in KEYS:
        if key.archive != archive:
            continue
        path = folder / f"{key.fingerprint}.asc"
        try:
            cert = Cert.from_bytes(path.read_bytes())
        except (OSError, ValueError, RuntimeError) as error:
            raise SignatureError(f"{path} cannot be read as a certificate", hint="install dibble anew") from error
        if cert.fingerprint.upper() != key.fingerprint:
            raise SignatureError(
                f"{path} holds the certificate {cert.fingerprint.upper()}, not the {key.purpose}",
                hint="install dibble anew",
            )
        found.append(cert)
    return found


def verified(signed: bytes, accepted: Sequence[Cert], *, source: str) -> bytes:
    """The text that one of the accepted certificates signed, and nothing of what stands around it.

    `signed` is a cleartext-signed file; `source` names it in errors. Raises SignatureError, naming who signed and who
    would be accepted.
    """
    import pysequoia

    signers: list[str] = []

    def asked(ids: list[str]) -> list[Cert]:
        signers.extend(signer.upper() for signer in ids)
        return list(accepted)

    try:
        result = pysequoia.verify(bytes=signed, store=asked)
    except (RuntimeError, ValueError) as error:
        names = ", ".join(_named(cert) for cert in accepted)
        if not signers:
            raise SignatureError(
                f"{source} is not signed", hint=f"is the mirror's address right? accepted are signatures by {names}"
            ) from error
        raise SignatureError(
            f"{source}: no valid signature, it says to be signed by {', '.join(signers)}",
            hint=f"accepted are {names}; is the clock of this machine right? else the mirror is tampered with",
        ) from error
    trusted = {cert.fingerprint for cert in accepted}
    if result.bytes is None or not any(signature.certificate in trusted for signature in result.valid_sigs):
        raise SignatureError(f"{source}: no valid signature by an accepted certificate", hint="name another mirror")
    return bytes(result.bytes)


def _named(cert: Cert) -> str:
    fingerprint = cert.fingerprint.upper()
    purpose = next((key.purpose for key in KEYS if key.fingerprint == fingerprint), "")
    return f"{fingerprint} ({purpose})" if purpose else fingerprint


@dataclass(frozen=True, slots=True)
class Release:
    """A release file. `files` is path below the suite's directory → (sha256, size in bytes); `date` is in UTC."""

    suite: str
    codename: str
    version: str
    date: datetime
    by_hash: bool
    files: dict[str, tuple[str, int]]


def read_release(text: bytes, *, source: str) -> Release:
    """Parse the (verified) text of a release file. Raises FetchError."""
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    from debian.deb822 import Release as Deb822Release

    fields = Deb822Release(text)
    try:
        files = {entry["name"]: (entry["sha256"], int(entry["size"])) for entry in fields["SHA256"]}
        date = parsedate_to_datetime(fields["Date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError) as error:
        raise FetchError(f"{source} is no release file ({error})", hint="is the mirror's address right?") from error
    return Release(
        suite=fields.get("Suite", ""),
        codename=fields.get("Codename", ""),
        version=fields.get("Version", ""),
        date=date,
        by_hash=fields.get("Acquire-By-Hash", "no").lower() == "yes",
        files=files,
    )


class DebianArchive:
    """One suite for one architecture, from the first mirror that has it. Index files are kept as blobs."""

    def __init__(
        self,
        mirrors: Sequence[str],
        suite: str,
        arch: str,
        *,
        blobs: Path,
        events: Events,
        accepted: Sequence[Cert] | None = None,
        offline: bool = False,
    ) -> None:
        self._mirrors = [mirror.rstrip("/") for mirror in mirrors]
        self._suite = suite
        self._arch = arch
        self._blobs = blobs
        self._events = events
        self._accepted = accepted
        self._offline = offline
        self._release: Release | None = None

    def release(self) -> Release:
        """The verified release file. Raises SignatureError, FetchError."""
        if self._release is None:
            self._release = self._fetch_release()
        return self._release

    def packages(self, component: str = "main") -> PackagesIndex:
        """The verified index of a component. Raises as `release`."""
        release = self.release()
        path = f"{component}/binary-{self._arch}/Packages.xz"
        if path not in release.files:
            raise FetchError(
                f"{self._suite} has no packages for {self._arch} in {component}",
                hint="ask for another architecture or component",
            )
        sha256, size = release.files[path]
        by_hash = f"{path.rpartition('/')[0]}/by-hash/SHA256/{sha256}"
        wanted = (by_hash, path) if release.by_hash else (path,)
        download = Download(
            urls=tuple(f"{mirror}/dists/{self._suite}/{one}" for mirror in self._mirrors for one in wanted),
            sha256=sha256,
            size=size,
            name=f"the package index of {self._suite}",
        )
        blob = fetch_all([download], self._blobs, self._events, offline=self._offline)[sha256]
        return PackagesIndex(lzma.decompress(blob.read_bytes()))

    def _fetch_release(self) -> Release:
        accepted = certificates() if self._accepted is None else self._accepted
        problem: FetchError | None = None
        for mirror in self._mirrors:
            url = f"{mirror}/dists/{self._suite}/InRelease"
            try:
                signed = get_small(url, offline=self._offline)
            except FetchError as error:
                problem = problem or error
                continue
            release = read_release(verified(signed, accepted, source=url), source=url)
            if self._suite not in (release.suite, release.codename):
                raise SignatureError(
                    f"{url} is signed, but it is the release file of {release.codename or release.suite}",
                    hint="the mirror is wrongly set up or tampered with: name another one",
                )
            return release
        raise problem or FetchError("no mirror to fetch the release file from", hint="name one")
