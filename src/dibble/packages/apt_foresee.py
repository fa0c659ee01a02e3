"""What a root will hold after some transactions, as the files from which apt knows it, made without that root.

A package's paragraph in dpkg's status file is that of the package lists, less what only downloads need; apt takes both
for the same version and decides as it would in the finished root.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import PackageError
from dibble.packages.apt_marks import marks_after, marks_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dibble.packages.apt_resolve import AptTransaction
    from dibble.packages.base import Package

Installed = dict[tuple[str, str], "Package"]
"""Packages by (name, architecture)."""

_NAME = re.compile(rb"\nPackage: ([^\n]+)\n")
_ONLY_IN_LISTS = re.compile(
    rb"^(?:Filename|Size|MD5sum|SHA1|SHA256|SHA512|Description(?:-md5)?|Tag|Homepage):.*\n(?:[ \t].*\n)*", re.MULTILINE
)


def installed_after(transactions: Iterable[AptTransaction]) -> Installed:
    """The packages of a root that began empty, after `transactions` in their order."""
    found: Installed = {}
    for transaction in transactions:
        for word in transaction.remove:
            name, _, arch = word.partition(":")
            for key in [key for key in found if key[0] == name and arch in ("", key[1])]:
                del found[key]
        for package in transaction.upgrade:  # an architecture may change to "all" or back
            for key in [key for key in found if key[0] == package.name and "all" in (key[1], package.arch)]:
                del found[key]
        found.update({(package.name, package.arch): package for package in transaction.downloads})
    return found


def automatic_after(transactions: Iterable[AptTransaction], arch: str) -> set[tuple[str, str]]:
    """(name, architecture) of each package that is then marked as automatically installed."""
    marks: set[tuple[str, str]] = set()
    for transaction in transactions:
        if transaction.marks:
            marks = marks_after(marks, transaction, arch)
    return marks


def stanzas(packages: Iterable[Package], lists: Iterable[Path]) -> Mapping[str, bytes]:
    """The paragraph of each package in the `Packages` files, by the sha256 of its .deb.

    Raises PackageError for a package that none of them has.
    """
    wanted: dict[bytes, list[Package]] = {}
    missing: dict[str, Package] = {}
    for package in packages:
        wanted.setdefault(package.name.encode(), []).append(package)
        missing[package.sha256] = package
    found: dict[str, bytes] = {}
    for path in lists:
        if not missing:
            break
        text = b"\n" + path.read_bytes()
        for match in _NAME.finditer(text):
            for package in wanted.get(match[1], ()):
                end = text.find(b"\n\n", match.end() - 1)
                stanza = text[match.start() + 1 : end if end >= 0 else len(text)].rstrip(b"\n") + b"\n"
                if package.sha256 in missing and f"\nSHA256: {package.sha256}\n".encode() in stanza:
                    found[package.sha256] = stanza
                    del missing[package.sha256]
    if missing:
        lost = next(iter(missing.values()))
        raise PackageError(
            f"the package lists do not have {lost.name} {lost.version} (any more)", hint="they have changed: begin anew"
        )
    return found


@contextlib.contextmanager
def written(
    transactions: Sequence[AptTransaction], lists: Iterable[Path], arch: str, directory: Path
) -> Iterator[tuple[Path, Path]]:
    """dpkg's status file and apt's extended_states after `transactions`, for the time of the block.

    They lie in a directory of their own below `directory`, where the tools can see them.
    """
    place = Path(tempfile.mkdtemp(prefix=".foreseen-", dir=directory))
    try:
        place.chmod(0o755)
        status, extended = place / "status", place / "extended_states"
        status.write_bytes(status_text(installed_after(transactions), lists))
        extended.write_text(marks_text(automatic_after(transactions, arch)), "utf-8")
        yield status, extended
    finally:
        shutil.rmtree(place, ignore_errors=True)


def status_text(installed: Installed, lists: Iterable[Path]) -> bytes:
    """A status file of these packages, all of them configured."""
    found = stanzas(installed.values(), lists)
    texts = []
    for _, package in sorted(installed.items()):
        first, _, rest = _ONLY_IN_LISTS.sub(b"", found[package.sha256]).partition(b"\n")
        texts.append(first + b"\nStatus: install ok installed\n" + rest)
    return b"\n".join(texts)
