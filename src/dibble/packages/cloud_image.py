"""A distribution's image for clouds: found, its list of checksums checked, fetched as a blob and held against that.

    LOCATION/IMAGE              what is begun with
    LOCATION/SUMS               a list of checksums: `DIGEST  FILE` or `KIND (FILE) = DIGEST`, of SHA-256 or SHA-512
    LOCATION/SIGNATURE          the list's detached signature; another list holds its own
    RELEASES/                   a page that names the releases there are

A download that breaks goes on at its last byte, in the same build or in the next. What was checked once is not asked
for again as long as the list says the same.
"""

from __future__ import annotations

import html
import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from dibble.errors import FetchError, FileGone, NoSuchSuite, SignatureError, UsageError
from dibble.packages.distfiles import Distfile, Distfiles
from dibble.packages.signed import Signers
from dibble.packages.small_files import SmallFiles
from dibble.words import Words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dibble.events import Events
    from dibble.sandbox.toolbox import Toolbox
    from dibble.store.places import Store

_LINK = re.compile(r"""href\s*=\s*["']?(?:\./)?([^"'?#>\s]+)""", re.IGNORECASE)
_BSD = re.compile(r"^(SHA256|SHA512) \((.+)\) = ([0-9a-fA-F]+)$")
_GNU = re.compile(r"^([0-9a-fA-F]{64}|[0-9a-fA-F]{128})(?:\s+[ *]?(\S.*))?$")
_KIND = {64: "SHA256", 128: "SHA512"}
"""Digits of a digest → its kind."""
_LISTED = 12


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an element wants. `image` and `sums` are names at `location`, or patterns of names of which the last is
    meant; `sums` may be a URL. Without `keys` nobody has signed the list. `signature` is appended to the name of the
    list; empty, the list holds its own.

    `releases` is the URL of a page that lists releases, of which `release_pattern` are the names.
    """

    title: str
    release: str
    arch: str
    location: str
    image: str
    sums: str
    signature: str
    keys: tuple[str, ...]
    fingerprints: tuple[str, ...]
    key_hint: str
    releases: str
    release_pattern: str
    patterns: bool
    destination: str


def wanted_image(words: Sequence[str]) -> Wanted:
    """The words of `fetch-image`. Raises UsageError."""
    parser = Words("dib-engine fetch-image")
    for name in ("title", "release", "arch", "location", "image", "sums"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--patterns", action="store_true")
    parser.add_argument("--signature", default="")
    parser.add_argument("--key", action="append", default=[], metavar="FILE|URL")
    parser.add_argument("--fingerprint", action="append", default=[])
    parser.add_argument("--key-hint", default="")
    parser.add_argument("--releases", default="")
    parser.add_argument("--release-pattern", default=r"[a-z0-9][a-z0-9.-]*")
    parser.add_argument("directory")
    options = parser.parse_args(list(words))
    for pattern in (options.release_pattern, *((options.image, options.sums) if options.patterns else ())):
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{pattern!r} is not a regular expression: {error}") from error
    return Wanted(
        title=options.title,
        release=options.release,
        arch=options.arch,
        location=options.location.rstrip("/"),
        image=options.image,
        sums=options.sums,
        signature=options.signature,
        keys=tuple(options.key),
        fingerprints=tuple("".join(one.split()).upper() for one in options.fingerprint),
        key_hint=options.key_hint,
        releases=options.releases,
        release_pattern=options.release_pattern,
        patterns=options.patterns,
        destination=options.directory,
    )


class CloudImages:
    """The images that one build begins with. `scratch` is a directory of its own that the tools see; `file_of` gives
    the place of a file that the element names."""

    def __init__(
        self,
        store: Store,
        scratch: Path,
        toolbox: Toolbox,
        events: Events,
        *,
        offline: bool,
        file_of: Callable[[str], Path],
    ) -> None:
        place = store.repositories / "images"
        self.small = SmallFiles(place / "small", offline=offline, max_age_s=0)
        self._files = Distfiles(place / "files", store.blobs, events, offline=offline)
        self._scratch = scratch
        self._toolbox = toolbox
        self._file_of = file_of

    def fetch(self, wanted: Wanted) -> tuple[str, Path, str]:
        """The image's name, the blob that it is, and the URL of the list that says so.

        Raises NoSuchSuite for a release that there is not, SignatureError, FileGone, FetchError.
        """
        image, sums = self._names(wanted)
        text, digests = self._digests(wanted, image, sums)
        url = f"{wanted.location}/{image}"
        try:
            return image, self._received(image, url, digests), sums
        except FileGone as error:
            raise self._absent(wanted, error) from error
        except FetchError:
            # The image may have been replaced after its list was read: then there is another list.
            again, digests = self._digests(wanted, image, sums)
            if again == text:
                raise
            return image, self._received(image, url, digests), sums

    def _received(self, image: str, url: str, digests: dict[str, str]) -> Path:
        return self._files.fetch([Distfile(image, (url,), 0, digests)])[image]

    # --- names

    def _names(self, wanted: Wanted) -> tuple[str, str]:
        """The image's name and the URL of the list of checksums."""
        image, sums = wanted.image, wanted.sums
        if wanted.patterns:
            there = names_on_page(self._page(wanted))
            image = newest(there, image) or image
            sums = newest(there, sums) or sums
            for pattern, what in ((wanted.image, "image"), (wanted.sums, "list of checksums")):
                if not newest(there, pattern):
                    raise NoSuchSuite(
                        f"{wanted.location} lists no {what} of {wanted.title} {wanted.release} with a name like"
                        f" {pattern}; there are: {_some(there)}",
                        hint="name the image (BASE_IMAGE_FILE), or another place (DIB_CLOUD_IMAGES)",
                    )
        return image, sums if "://" in sums else f"{wanted.location}/{sums}"

    def _page(self, wanted: Wanted) -> str:
        try:
            return self.small.get(f"{wanted.location}/").decode("utf-8", "replace")
        except FileGone as error:
            raise self._absent(wanted, error) from error

    def _absent(self, wanted: Wanted, error: FetchError) -> FetchError:
        """The error for an image that is not where it should be: is there such a release, and for which machines?"""
        there: list[str] = []
        if wanted.releases:
            try:
                names = names_on_page(self.small.get(f"{wanted.releases.rstrip('/')}/").decode("utf-8", "replace"))
            except FetchError:
                names = []
            there = [name for name in names if re.fullmatch(wanted.release_pattern, name)]
        if not there:
            return NoSuchSuite(
                f"there is no image of {wanted.title} {wanted.release} for {wanted.arch}: {error.message}",
                hint="is it the right release (DIB_RELEASE), place (DIB_CLOUD_IMAGES) and name (BASE_IMAGE_FILE)?",
            )
        if wanted.release in there:
            return NoSuchSuite(
                f"{wanted.title} has no such image of its release {wanted.release} for {wanted.arch}: {error.message}",
                hint="build for another architecture (-a), or name the image (BASE_IMAGE_FILE)",
            )
        return NoSuchSuite(
            f"{wanted.title} has no images of a release {wanted.release}; at {wanted.releases} there are:"
            f" {_some(there)}",
            hint="choose one of these (DIB_RELEASE)",
        )

    # --- checksums and signatures

    def _digests(self, wanted: Wanted, image: str, sums: str) -> tuple[str, dict[str, str]]:
        """The list as it was signed, and what it says of the image."""
        try:
            listed = self.small.get(sums)
        except FileGone as error:
            raise self._absent(wanted, error) from error
        text = self._checked(wanted, sums, listed) if wanted.keys else listed.decode("utf-8", "replace")
        digests = checksums(text)
        found = digests.get(image) or (digests.get("") if len(digests) == 1 else None)
        if found is None and sums.startswith(f"{wanted.location}/{image}.") and len(digests) == 1:
            found = next(iter(digests.values()))  # a list of this image alone, by the name that it is a link to
        if found is None:
            raise FetchError(
                f"{sums} has no checksum of {image}, only of: {_some(list(digests))}",
                hint="name an image that it has (BASE_IMAGE_FILE)",
            )
        return text, found

    def _checked(self, wanted: Wanted, sums: str, listed: bytes) -> str:
        hint = wanted.key_hint
        texts = [self._key(one, hint) for one in wanted.keys]
        signers = Signers(texts, wanted.fingerprints, self._scratch, self._toolbox, hint=hint)
        beside = f"{sums}{wanted.signature}"
        try:
            if not wanted.signature:
                return signers.text(listed, sums)
            try:
                signature = self.small.get(beside)
            except FileGone as error:
                raise SignatureError(f"{sums} is not signed: {error.message}", hint=hint) from error
            file = self._scratch / "list"
            file.write_bytes(listed)
            signers.check(file, signature, sums)
        except SignatureError:
            for url in (sums, beside):
                self.small.forget(url)
            raise
        return listed.decode("utf-8", "replace")

    def _key(self, place: str, hint: str) -> bytes:
        if "://" in place:
            return self.small.get(place)
        try:
            return self._file_of(place).read_bytes()
        except OSError as error:
            raise SignatureError(
                f"the keys {place} cannot be read: {error.strerror}",
                hint=f"name it by its whole path; {hint}".removesuffix("; "),
            ) from error


def names_on_page(text: str) -> list[str]:
    """What a page of a directory links to: files and directories in it, these without their slash."""
    names = (unquote(html.unescape(name)).rstrip("/") for name in _LINK.findall(text))
    return list(dict.fromkeys(name for name in names if name and "/" not in name and name not in (".", "..")))


def newest(names: Sequence[str], pattern: str) -> str:
    """The last of the names that match, by their numbers; "" where none does."""
    return max((name for name in names if re.fullmatch(pattern, name)), key=_by_number, default="")


def _by_number(name: str) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name)]


def checksums(text: str) -> dict[str, dict[str, str]]:
    """File → kind → digest. A digest without a name stands for the only file, ""."""
    found: dict[str, dict[str, str]] = {}
    for line in map(str.rstrip, text.splitlines()):
        if match := _BSD.match(line):
            kind, name, digest = match.groups()
        elif match := _GNU.match(line):
            digest, name = match[1], match[2] or ""
            kind = _KIND[len(digest)]
        else:
            continue
        found.setdefault(name.rpartition("/")[2], {})[kind] = digest.lower()
    return found


def _some(names: Sequence[str]) -> str:
    first = ", ".join(sorted(names)[:_LISTED])
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{first}{more}" if first else "none"


def put_in_place(blob: Path, target: Path) -> None:
    """Make `target` a copy of a blob that scripts may change; one that is there already, by size and time, is left."""
    about = blob.stat()
    try:
        known = target.stat()
        if (known.st_size, known.st_mtime_ns) == (about.st_size, about.st_mtime_ns):
            return
    except OSError:
        target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        shutil.copyfile(blob, new)
        os.utime(new, ns=(about.st_atime_ns, about.st_mtime_ns))
        new.chmod(0o644)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
