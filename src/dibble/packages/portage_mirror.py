"""What a mirror of Gentoo has for the beginning of a system: stages and the tree of ebuilds, all of it signed.

    releases/ARCH/autobuilds/latest-STAGE.txt      signed: the newest one's path below autobuilds, and its size
    releases/ARCH/autobuilds/latest-stage3.txt     the same of all stages
    releases/ARCH/autobuilds/DAY/FILE              beside it FILE.sha256 and FILE.DIGESTS, both signed, and FILE.asc
    snapshots/gentoo-latest.tar.xz.md5sum          names the newest snapshot, gentoo-DAY.tar.xz
    snapshots/gentoo-DAY.tar.xz                    beside it .gpgsig
Source: https://wiki.gentoo.org/wiki/Project:RelEng, misc/emerge-webrsync of Portage.

STATE/portage/small           small files as they came (`small_files.py`)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import FetchError, FileGone, PackageError, SignatureError
from dibble.packages.base import Package
from dibble.packages.distfiles import Distfile, require_digests
from dibble.packages.signed import Signers

if TYPE_CHECKING:
    from dibble.packages.base import BootstrapRequest
    from dibble.packages.distfiles import Distfiles
    from dibble.packages.small_files import SmallFiles
    from dibble.sandbox.toolbox import Toolbox

KEY_HINT = "give the key with GENTOO_RELEASE_KEYS=FILE, if you trust it"
_MIRROR_HINT = "name another mirror (DIB_DISTRIBUTION_MIRROR)"
_TREE = "gentoo"
_SNAPSHOT = re.compile(r"\b([0-9a-f]{32})\s+\*?gentoo-(\d{8}|latest)\.tar\.xz\b")
_STAGE_FILE = re.compile(r"^(\S*/)?((stage3-\S+?)-(\d{8}T\d{6}Z)\.tar\.\w+)\s+(\d+)\s*$", re.MULTILINE)
_DIGEST_HEAD = re.compile(r"^# (\w+) HASH$")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage in a list of the newest: `name` without its time, which is `version`; `path` below autobuilds."""

    name: str
    version: str
    path: str
    size: int

    @property
    def file_name(self) -> str:
        return self.path.rpartition("/")[2]


class Mirror:
    """One mirror, for one bootstrap. `scratch` is a directory of its own that the tools see."""

    def __init__(
        self, request: BootstrapRequest, small: SmallFiles, files: Distfiles, scratch: Path, toolbox: Toolbox
    ) -> None:
        self._request = request
        self._small = small
        self._files = files
        self._toolbox = toolbox
        self._base = request.mirrors[0].rstrip("/")
        texts = [self._key(one) for one in request.keys]
        self._signers = Signers(texts, request.fingerprints, scratch, toolbox, hint=KEY_HINT)

    def _key(self, place: str) -> bytes:
        """The certificates in a text, at a URL, or in a file that scripts see."""
        if "-----BEGIN PGP PUBLIC KEY BLOCK-----" in place:
            return place.encode()
        try:
            if place.startswith(("http://", "https://")):
                return self._small.get(place)
            return ((self._toolbox.root or Path("/")) / place.lstrip("/")).read_bytes()
        except (FetchError, OSError) as error:
            raise FetchError(f"the keys {place} cannot be had: {error}", hint=KEY_HINT) from error

    # --- stages

    def stage(self) -> tuple[Package, str]:
        """The newest stage of the request, and the list that says so.

        Raises PackageError for one that there is not, with those that there are; FetchError, SignatureError.
        """
        name, arch = self._request.suite, self._request.arch
        builds = f"{self._base}/releases/{arch}/autobuilds"
        latest = dict(self._request.variables).get("latest") or f"{builds}/latest-{name}.txt"
        try:
            text = self._signed(latest)
        except FileGone as error:
            raise self._no_stage(builds, error) from error
        found = [one for one in listed_stages(text) if one.name == name]
        if not found:
            raise PackageError(f"{latest} names no {name}", hint=_MIRROR_HINT)
        url = f"{latest.rpartition('/')[0]}/{found[0].path}"
        sums = self._signed(f"{url}.sha256")
        sha256 = digests_of(sums, found[0].file_name, "SHA256").get("SHA256", "")
        if not sha256:
            raise PackageError(f"{url}.sha256 has no sha256 of {found[0].file_name}", hint=_MIRROR_HINT)
        return Package(name, found[0].version, arch, url, sha256, found[0].size), latest

    def _no_stage(self, builds: str, error: FileGone) -> PackageError | FileGone:
        """The error for a stage that there is not."""
        url = f"{builds}/latest-stage3.txt"
        try:
            there = sorted({one.name for one in listed_stages(self._signed(url))})
        except FileGone:
            return FileGone(
                f"there are no stages of Gentoo for {self._request.arch}: {error.message}",
                hint="is the mirror right (DIB_DISTRIBUTION_MIRROR)? else build for another architecture (-a)",
            )
        return PackageError(
            f"Gentoo has no {self._request.suite}, only {', '.join(there)}",
            hint="choose another profile (GENTOO_PROFILE)",
        )

    def check_stage(self, stage: Package, file: Path) -> None:
        """Hold what was downloaded against its digests and its own signature. Raises FetchError, SignatureError."""
        digests = f"{stage.url}.DIGESTS"
        found = digests_of(self._signed(digests), stage.file_name)
        if not found:
            raise SignatureError(f"{digests} has no digest of {stage.file_name}", hint=_MIRROR_HINT)
        require_digests(file, found, stage.file_name, _MIRROR_HINT)
        self._check(file, f"{stage.url}.asc", stage.file_name)

    # --- the tree of ebuilds

    def tree(self) -> tuple[Package, Path, str]:
        """The newest snapshot of the tree, fetched and checked, and what says which that is.

        It is what later requests are resolved with, so it is had as soon as a plan is made.
        """
        latest = f"{self._base}/snapshots/gentoo-latest.tar.xz.md5sum"
        match = _SNAPSHOT.search(self._small.get(latest).decode("ascii", "replace"))
        if match is None:
            raise PackageError(f"{latest} names no snapshot", hint=_MIRROR_HINT)
        name = f"gentoo-{match[2]}.tar.xz"
        url = f"{self._base}/snapshots/{name}"
        file = self._files.fetch([Distfile(name, (url,), 0, {"MD5": match[1]})])[name]
        self._check(file, f"{url}.gpgsig", name)
        return Package(_TREE, match[2], "all", url, file.name, file.stat().st_size), file, latest

    # --- what is signed

    def _signed(self, url: str) -> str:
        """What was signed of a small file that holds its signature. Raises SignatureError, FetchError."""
        try:
            return self._signers.text(self._small.get(url), url)
        except SignatureError:
            self._small.forget(url)
            raise

    def _check(self, file: Path, url: str, name: str) -> None:
        """Check a file's signature, which lies beside it. Raises SignatureError, FetchError."""
        try:
            self._signers.check(file, self._small.get(url), name)
        except SignatureError:
            self._small.forget(url)
            raise


def listed_stages(text: str) -> list[Stage]:
    """The stages in a list of the newest ones."""
    return [Stage(row[2], row[3], f"{row[0]}{row[1]}", int(row[4])) for row in _STAGE_FILE.findall(text)]


def digests_of(text: str, name: str, kind: str = "") -> dict[str, str]:
    """Kind → digest of a file in a list of digests: lines `DIGEST  FILE`, below `# KIND HASH`, or all of one kind."""
    found = {}
    for line in text.splitlines():
        if head := _DIGEST_HEAD.match(line):
            kind = head[1]
        words = line.split()
        if len(words) == 2 and words[1].rpartition("/")[2] == name and kind:
            found[kind] = words[0].lower()
    return found
