"""The keys that a repository of openSUSE publishes itself, held against the fingerprints that an element names.

openSUSE signs a repository with one key and its packages with several, and has all of them in the repository: the first
as repodata/repomd.xml.key, all as gpg-pubkey-*.asc, which repomd.xml names (libzypp, RepomdFileReader::keyhints).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dibble.errors import FileGone, SignatureError
from dibble.packages.fetch import get_small
from dibble.packages.rpm_keys import KEY_LIMIT
from dibble.packages.rpm_metadata import content_words
from dibble.packages.zypper_answers import listed

if TYPE_CHECKING:
    from collections.abc import Collection

    from pysequoia import Cert

_LIMIT = 1 << 20  # bytes, of repomd.xml
_HINT = re.compile(r"(gpg-pubkey[^?/]*)\?fpr=([0-9A-Fa-f]{40,})")


def published_keys(url: str, wanted: Collection[str], hint: str) -> str:
    """The certificates of those fingerprints that the repository publishes, as one text.

    Raises SignatureError where there are none, with what is there instead; FetchError.
    """
    beside = [name for name, key in _hints(get_small(f"{url}/repodata/repomd.xml", limit=_LIMIT)) if key in wanted]
    found: dict[str, Cert] = {}
    for name in dict.fromkeys(("repodata/repomd.xml.key", *beside)):
        try:
            text = get_small(f"{url}/{name}", limit=KEY_LIMIT)
        except FileGone:
            continue
        found |= _certificates(text, f"{url}/{name}")
    chosen = [str(certificate) for fingerprint, certificate in sorted(found.items()) if fingerprint in wanted]
    if not chosen:
        there = {fingerprint: _owner(certificate) for fingerprint, certificate in found.items()}
        raise SignatureError(
            f"the repository {url} publishes none of the keys that are known to be its own, which are:"
            f" {listed(dict.fromkeys(wanted, ''))}; it publishes: {listed(there)}",
            hint=hint,
        )
    return "".join(chosen)


def _hints(repomd: bytes) -> list[tuple[str, str]]:
    """File and fingerprint of each key that a repository says it has."""
    matches = (_HINT.fullmatch(word) for word in content_words(repomd))
    return [(match[1], match[2].upper()) for match in matches if match]


def _certificates(text: bytes, place: str) -> dict[str, Cert]:
    from pysequoia import Cert

    try:
        return {certificate.fingerprint.upper(): certificate for certificate in Cert.split_bytes(text)}
    except (ValueError, RuntimeError) as error:
        raise SignatureError(f"{place} is no key: {error}", hint="name another mirror") from error


def _owner(certificate: Cert) -> str:
    return next((str(owner) for owner in certificate.user_ids), "")
