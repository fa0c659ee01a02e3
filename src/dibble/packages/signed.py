"""Who signed a file, held against the keys that count. gpgv of the tools tree checks; it is told which keys there are.

A key that has expired, or was withdrawn, does not count, nor does a signature past its own end.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from dibble.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from pysequoia import Cert

    from dibble.sandbox.toolbox import Toolbox

_STATUS = "[GNUPG:] "
_LISTED = 8
_FINGERPRINT = re.compile(r"[0-9A-F]{40,}")
# What a line of gpgv's status says of a signature (GnuPG, doc/DETAILS), besides VALIDSIG.
_REFUSED = {
    "BADSIG": "does not fit: it is damaged or tampered with",
    "EXPSIG": "has expired",
    "EXPKEYSIG": "is by a key that has expired",
    "REVKEYSIG": "is by a key that was withdrawn",
}


class Signers:
    """The keys that count: those in `texts` (certificates, armoured), or of these the ones with `fingerprints`.

    `scratch` is a directory of its own that the tools see; `hint` says how to name other keys. Raises SignatureError
    where none is left.
    """

    def __init__(
        self, texts: Sequence[bytes], fingerprints: Collection[str], scratch: Path, toolbox: Toolbox, *, hint: str
    ) -> None:
        from pysequoia import Cert

        self._toolbox = toolbox
        self._scratch = scratch
        self._hint = hint
        found: dict[str, Cert] = {}
        for text in texts:
            try:
                found |= {one.fingerprint.upper(): one for one in Cert.split_bytes(text)}
            except (ValueError, RuntimeError) as error:
                raise SignatureError(f"the keys of releases cannot be read: {error}", hint=hint) from error
        chosen = {key: one for key, one in found.items() if not fingerprints or key in fingerprints}
        self.keys = {key: _owner(one) for key, one in chosen.items()}
        """Fingerprint → owner."""
        if not chosen:
            there = {key: _owner(one) for key, one in found.items()}
            wanted = ", ".join(fingerprints) or "any"
            raise SignatureError(f"none of these keys is there: {wanted}; there are: {listed(there)}", hint=hint)
        scratch.mkdir(parents=True, exist_ok=True)
        self._keyring = scratch / "keyring"
        self._keyring.write_bytes(b"".join(bytes(one) for one in chosen.values()))

    def text(self, signed: bytes, source: str) -> str:
        """What was signed of a text that holds its signature (`gpg --clearsign`). Raises SignatureError."""
        file, plain = self._scratch / "signed", self._scratch / "plain"
        file.write_bytes(signed)
        plain.unlink(missing_ok=True)
        self._check(["--output", self._toolbox.path(plain), self._toolbox.path(file)], source)
        return plain.read_text("utf-8", "replace")

    def check(self, file: Path, signature: bytes, source: str) -> None:
        """Check a file's detached signature. Raises SignatureError."""
        kept = self._scratch / f"signature-{hashlib.sha256(signature).hexdigest()}"  # of several threads' own
        kept.write_bytes(signature)
        self._check([self._toolbox.path(kept), self._toolbox.path(file)], source)

    def _check(self, words: Sequence[str], source: str) -> None:
        options = ["--homedir", self._toolbox.path(self._scratch), "--keyring", self._toolbox.path(self._keyring)]
        done = self._toolbox.run(["gpgv", *options, "--status-fd", "1", *words], check=False)
        if problem := refusal(done.output, self.keys):
            raise SignatureError(f"{source}{problem}; the keys that count are: {listed(self.keys)}", hint=self._hint)


def _owner(certificate: Cert) -> str:
    """Who a key is of; nobody where it says so no more: what it said may have expired."""
    try:
        return next((str(owner) for owner in certificate.user_ids), "")
    except RuntimeError:
        return ""


def refusal(status: str, keys: Collection[str]) -> str:
    """Why the status lines of gpgv hold no good signature by one of the keys, to follow the file's name; or ""."""
    signatures: list[dict[str, list[str]]] = []
    for line in status.splitlines():
        words = line.removeprefix(_STATUS).split() if line.startswith(_STATUS) else []
        if words[:1] == ["NEWSIG"]:
            signatures.append({})
        elif words and signatures:
            signatures[-1][words[0]] = words
    reasons = [_reason(one, keys) for one in signatures]
    return "" if "" in reasons else next(iter(reasons), " is not signed")


def _reason(words: dict[str, list[str]], keys: Collection[str]) -> str:
    """Why one signature is not good, of which gpgv said these words; or ""."""
    signer = words.get("VALIDSIG", [""])[-1]  # the last word is the primary key's fingerprint
    for word, what in _REFUSED.items():
        if word in words:
            return f": its signature, by {signer or words[word][1]}, {what}"
    if signer:
        return "" if signer in keys else f" is signed with the key {signer}, which is not trusted"
    if "ERRSIG" in words:
        known = [word for word in words["ERRSIG"] if _FINGERPRINT.fullmatch(word)]
        return f" is signed with the key {(known or words['ERRSIG'][1:2])[0]}, which is not trusted"
    return ": its signature cannot be read"


def listed(keys: dict[str, str]) -> str:
    """Fingerprints with their owners; of many the first ones."""
    first = [f"{key} ({owner})" if owner else key for key, owner in list(keys.items())[:_LISTED]]
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{', '.join(first) or 'none'}{more}"
