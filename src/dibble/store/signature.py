"""Who made an entry of the remote cache: OpenPGP signatures over its descriptor.

OpenPGP, through the library that verifies repositories already: key files come from `gpg` or `sq`, may expire, may be
kept on a token until they are exported, and one file holds the certificates of a whole team.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dibble.errors import UsageError
from dibble.store.refused import EntryRefused

if TYPE_CHECKING:
    from pathlib import Path

    from pysequoia import Cert, PySigner


class Signer:
    """Signs with the secret key in a file, which must not be locked by a passphrase. Raises UsageError."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._signer = self._read()

    def _read(self) -> PySigner:
        from pysequoia import Tsk

        try:
            return Tsk.from_bytes(_content(self._file)).signer()
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"{self._file} holds no secret key that can sign: {_first_line(error)}",
                hint="export one without a passphrase: gpg --export-secret-keys --armor NAME",
            ) from error

    def sign(self, data: bytes) -> str:
        """An armored detached signature."""
        from pysequoia import SignatureMode, sign

        return bytes(sign(self._signer, data, mode=SignatureMode.DETACHED)).decode("ascii")


class Trust:
    """Accepts what a certificate of a file has signed; the file holds one or more. Raises UsageError."""

    def __init__(self, file: Path) -> None:
        from pysequoia import Cert

        self._certificates: list[Cert] = []
        with contextlib.suppress(RuntimeError, ValueError):  # told below
            self._certificates = Cert.split_bytes(_content(file))
        if not self._certificates:
            raise UsageError(f"{file} holds no OpenPGP certificate", hint="export it: gpg --export --armor NAME > FILE")

    def check(self, data: bytes, signature: str | None) -> None:
        """Raises EntryRefused, naming who is accepted, unless one of the certificates signed `data`."""
        from pysequoia import Sig, verify

        accepted = {certificate.fingerprint for certificate in self._certificates}
        if not signature:
            raise EntryRefused("is not signed")
        try:
            result = verify(
                bytes=data, store=lambda _: self._certificates, signature=Sig.from_bytes(signature.encode())
            )
        except (RuntimeError, ValueError) as error:
            names = ", ".join(sorted(accepted)).upper()
            raise EntryRefused(f"has no valid signature by {names}: {_first_line(error)}") from error
        if not any(found.certificate in accepted for found in result.valid_sigs):
            raise EntryRefused("has no valid signature")


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"the key file {file} cannot be read: {error.strerror}") from error


def _first_line(error: BaseException) -> str:
    """The library appends a back trace of its own."""
    return str(error).partition("\n")[0].rstrip(".")
