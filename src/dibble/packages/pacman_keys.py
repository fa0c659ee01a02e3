"""The keys that count for packages of pacman's: those of a request, or of keyrings as `pacman-key --populate` has them.

A keyring is three files: NAME.gpg, certificates; NAME-trusted, the keys that its owner vouches with, and how far each
is trusted; NAME-revoked, those that do not count any more. A packager's key counts when enough of the trusted ones have
signed it, which GnuPG works out (pacman-key(8), "Pacman keyring management").

STATE/pacman/keys/NAME.json   the fingerprints that count of keyrings, named by what is in these
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import FetchError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dibble.packages.small_files import SmallFiles
    from dibble.sandbox.toolbox import Toolbox

OF_TARGET = "usr/share/pacman/keyrings"
_OF_TOOLS = (OF_TARGET, "usr/share/keyrings")  # the second is Debian's place
IMAGE = "image"
"""The keyring of a system whose packages somebody else than its distribution has signed."""
HINT = "give the key with DIB_PACMAN_KEYS=FILE, if you trust it"
_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_VALID = "f"  # fully, as GnuPG calls it (doc/DETAILS, field 2)


@dataclass(frozen=True, slots=True)
class Keys:
    """Certificates, and the fingerprints of those that count."""

    texts: tuple[bytes, ...]
    fingerprints: tuple[str, ...]

    @property
    def name(self) -> str:
        """Names what counts."""
        return hashlib.sha256(" ".join(sorted(self.fingerprints)).encode()).hexdigest()[:32]


def given_keys(places: Sequence[str], small: SmallFiles, view: Path) -> Keys:
    """Keys given as texts, URLs or files that scripts see in `view`; all count. Raises FetchError, SignatureError."""
    texts = tuple(_text(place, small, view) for place in places)
    return Keys(texts, tuple(fingerprint for text in texts for fingerprint in _fingerprints(text)))


def _text(place: str, small: SmallFiles, view: Path) -> bytes:
    if _BEGIN in place:
        return place.encode()
    try:
        if place.startswith(("http://", "https://")):
            return small.get(place)
        return (view / place.lstrip("/")).read_bytes()
    except (FetchError, OSError) as error:
        raise FetchError(f"the keys {place} cannot be had: {error}", hint=HINT) from error


def _fingerprints(text: bytes) -> list[str]:
    from pysequoia import Cert

    try:
        return [one.fingerprint.upper() for one in Cert.split_bytes(text)]
    except (ValueError, RuntimeError) as error:
        raise SignatureError(f"the keys of packages cannot be read: {error}", hint=HINT) from error


def put_into_image(keys: Keys, root: Path) -> None:
    """Let a system trust keys as those of its distribution."""
    from pysequoia import Cert

    place = root / OF_TARGET
    place.mkdir(parents=True, exist_ok=True)
    certificates = [one for text in keys.texts for one in Cert.split_bytes(text)]
    (place / f"{IMAGE}.gpg").write_bytes(b"".join(bytes(one) for one in certificates))
    (place / f"{IMAGE}-trusted").write_text("".join(f"{one}:4:\n" for one in keys.fingerprints))
    (place / f"{IMAGE}-revoked").write_text("")


class Keyrings:
    """Works out what counts of keyrings; `state` is a directory of the store, `scratch` one that the tools see."""

    def __init__(self, state: Path, scratch: Path, toolbox: Toolbox) -> None:
        self._state = state
        self._scratch = scratch
        self._toolbox = toolbox

    def of_tools(self) -> Keys:
        """What Arch Linux' own keyring says, which the tools have. Raises SignatureError."""
        view = self._toolbox.root or Path("/")
        places = (view / name for name in _OF_TOOLS)
        place = next((one for one in places if (one / "archlinux.gpg").is_file()), None)
        if place is None:
            raise SignatureError("there is no keyring of Arch Linux", hint="install archlinux-keyring, or " + HINT)
        return self._counting([place / "archlinux.gpg"])

    def of_target(self, root: Path) -> Keys:
        """What the keyrings of a system say. Raises SignatureError."""
        found = sorted((root / OF_TARGET).glob("*.gpg"))
        if not found:
            raise SignatureError(f"the target has no keys in /{OF_TARGET}", hint="install archlinux-keyring there")
        return self._counting(found)

    def _counting(self, keyrings: Sequence[Path]) -> Keys:
        texts = tuple(one.read_bytes() for one in keyrings)
        trusted = [line for one in keyrings for line in _lines(one, "trusted")]
        revoked = {line.split(":")[0].upper() for one in keyrings for line in _lines(one, "revoked")}
        parts = [*texts, "\n".join(trusted).encode(), "\n".join(sorted(revoked)).encode()]
        name = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:32]
        kept = self._state / f"{name}.json"
        try:
            valid: list[str] = json.loads(kept.read_text())
        except (OSError, ValueError):
            valid = self._valid(keyrings, trusted)
            kept.parent.mkdir(parents=True, exist_ok=True)
            new = self._scratch / f"{name}.json"
            new.write_text(json.dumps(valid))
            shutil.move(new, kept)
        return Keys(texts, tuple(one for one in valid if one not in revoked))

    def _valid(self, keyrings: Sequence[Path], trusted: Sequence[str]) -> list[str]:
        """The fingerprints of keys that are trusted, or that enough trusted ones have signed."""
        home = self._scratch / "trust"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True, mode=0o700)
        path, run = self._toolbox.path, self._toolbox.run
        gpg = ["gpg", "--homedir", path(home), "--batch", "--yes", "--quiet", "--no-auto-check-trustdb"]
        try:
            for number, keyring in enumerate(keyrings):
                copy = home / f"keyring-{number}"
                shutil.copyfile(keyring, copy)
                run([*gpg, "--import", path(copy)], check=False)  # one key that it cannot use is none of our concern
            # somebody has to vouch for the keys that vouch for others: a key that is made here, and thrown away
            run([*gpg, "--passphrase", "", "--quick-generate-key", "dibble", "ed25519", "cert", "never"])
            for line in trusted:
                run([*gpg, "--quick-lsign-key", line.split(":")[0]], check=False)
            run([*gpg, "--import-ownertrust"], stdin="".join(f"{line}\n" for line in trusted).encode(), check=False)
            run([*gpg, "--check-trustdb"], check=False)
            listed = run([*gpg, "--with-colons", "--list-keys"]).output
        finally:
            run(["gpgconf", "--homedir", path(home), "--kill", "all"], check=False)
            shutil.rmtree(home, ignore_errors=True)
        return [fingerprint for fingerprint, validity in _validities(listed) if validity == _VALID]


def _validities(listed: str) -> Iterator[tuple[str, str]]:
    """Fingerprint and validity of each primary key in what `gpg --with-colons --list-keys` prints."""
    validity = ""
    for line in listed.splitlines():
        fields = line.split(":")
        if fields[0] == "pub":
            validity = fields[1]
        elif fields[0] == "fpr" and validity:
            yield fields[9].upper(), validity
            validity = ""


def _lines(keyring: Path, kind: str) -> list[str]:
    file = keyring.with_name(f"{keyring.stem}-{kind}")
    lines = file.read_text("ascii", "replace").splitlines() if file.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
