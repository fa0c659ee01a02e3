"""The signatures of packages of pacman's: in the database of a repository (PGPSIG), or beside the package (.sig).

STATE/pacman/signatures/SHA256    one that lay beside the package with that sha256
"""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.errors import FetchError, FileGone, SignatureError
from dibble.packages.fetch import get_small
from dibble.packages.pacman_conf import Check
from dibble.packages.pacman_database import descriptions, sections
from dibble.packages.pacman_keys import HINT
from dibble.packages.signed import Signers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dibble.packages.pacman_keys import Keys
    from dibble.sandbox.toolbox import Toolbox

_LIMIT = 64 << 10  # bytes
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Signed:
    """A downloaded package that is to be checked: `file_name` is the repository's, `urls` all its addresses.

    `inside` is the signature that the database holds, if any.
    """

    file: Path
    file_name: str
    sha256: str
    urls: tuple[str, ...]
    check: Check
    inside: bytes = b""


class Signatures:
    """Checks packages; `place` is a directory in the store, `scratch` one of its own that the tools see."""

    def __init__(self, place: Path, scratch: Path, toolbox: Toolbox, *, offline: bool) -> None:
        self._place = place
        self._scratch = scratch
        self._toolbox = toolbox
        self._offline = offline

    def signers(self, keys: Keys) -> Signers:
        """What checks with those keys. Raises SignatureError where there are none."""
        if not keys.fingerprints:
            raise SignatureError("no key counts for packages", hint=HINT)
        return Signers(keys.texts, keys.fingerprints, self._scratch / keys.name, self._toolbox, hint=HINT)

    def check(self, packages: Sequence[Signed], keys: Keys) -> None:
        """Check packages, several at a time. Raises SignatureError, FetchError."""
        signers = self.signers(keys)
        with ThreadPoolExecutor(_THREADS) as pool:
            for future in [pool.submit(self._check, one, signers) for one in packages]:
                future.result()

    def _check(self, one: Signed, signers: Signers) -> None:
        if one.check is Check.NEVER:
            return
        kept = self._place / one.sha256
        signature = one.inside or (kept.read_bytes() if kept.exists() else self._beside(one))
        if not signature:
            return
        signers.check(one.file, signature, one.file_name)
        if not one.inside:
            kept.parent.mkdir(parents=True, exist_ok=True)
            new = kept.with_name(f".{kept.name}.{os.getpid()}")
            new.write_bytes(signature)
            new.replace(kept)

    def _beside(self, one: Signed) -> bytes:
        """The signature that a server has; nothing where it need not have any."""
        errors: list[FetchError] = []
        for url in one.urls:
            try:
                return get_small(f"{url}.sig", offline=self._offline, limit=_LIMIT)
            except FetchError as error:
                errors.append(error)
        if not all(isinstance(error, FileGone) for error in errors):
            raise errors[0]
        if one.check is Check.OPTIONAL:
            return b""
        raise SignatureError(
            f"{one.file_name} is not signed: there is no {one.urls[0]}.sig", hint="name another mirror or repository"
        )


def signatures_inside(database: Path, packages: Sequence[str]) -> dict[str, bytes]:
    """NAME-VERSION → signature, as far as a repository's database holds it. Raises PackageError, SignatureError."""
    found = {}
    for place, text in descriptions(database, packages).items() if packages else ():
        held = "".join(sections(text).get("PGPSIG", ()))
        try:
            found[place] = base64.b64decode(held, validate=True)
        except ValueError as error:
            raise SignatureError(f"the signature of {place} cannot be read: {error}") from error
    return found
