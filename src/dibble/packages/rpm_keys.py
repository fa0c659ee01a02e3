"""Who signed an RPM package, held against the keys that its repository names. rpm itself checks."""

from __future__ import annotations

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from dibble.errors import FetchError, SignatureError
from dibble.packages.fetch import get_small

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from dibble.sandbox.process import Completed
    from dibble.sandbox.toolbox import Toolbox

KEY_LIMIT = 4 << 20  # bytes; a distribution's keys are some kilobytes
_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
# rpm 4.20, lib/rpmvs.c: "Header V4 RSA/SHA256 Signature, key ID 1a2b3c4d5e6f7081: NOKEY"
_UNKNOWN = re.compile(r"[Ss]ignature, key (?:ID|fingerprint:?) ([0-9a-fA-F]+): NOKEY")
_BAD = re.compile(r"^ +(.+): BAD\b", re.MULTILINE)
_SIGNED = re.compile(r"[Ss]ignature, key (?:ID|fingerprint:?) [0-9a-fA-F]+: OK")
_AT_ONCE = 200  # packages for one call of rpmkeys


def key_texts(place: str, root: Path, view: Path, *, offline: bool, hint: str) -> str:
    """The text of a key that a repository names: a URL, a file of the target, or of the view that scripts see.

    Raises SignatureError where there is none, FetchError for a server that does not answer.
    """
    if _BEGIN in place:
        return place
    if place.startswith(("http://", "https://")):
        try:
            return get_small(place, offline=offline, limit=KEY_LIMIT).decode("ascii", "replace")
        except FetchError as error:
            raise FetchError(f"the key {place} cannot be had: {error}", hint=hint) from error
    path = unquote(urlsplit(place).path)
    for base in (root, view):
        file = base / path.lstrip("/")
        if file.is_file():
            return file.read_text("ascii", "replace")
    raise SignatureError(f"there is no key {place}, which a repository names", hint=hint)


def fingerprints(texts: Sequence[str], hint: str = "") -> dict[str, str]:
    """Fingerprint → owner of the certificates in armoured texts. Raises SignatureError for what is none."""
    from pysequoia import Cert

    found: dict[str, str] = {}
    for text in texts:
        try:
            certificates = Cert.split_bytes(text.encode())
        except (ValueError, RuntimeError) as error:
            raise SignatureError(f"a repository's key cannot be read: {error}", hint=hint) from error
        for certificate in certificates:
            owners = [str(owner) for owner in certificate.user_ids]
            found[certificate.fingerprint.upper()] = owners[0] if owners else ""
    return found


def _by_file(output: str, paths: Collection[str]) -> dict[str, str]:
    """What rpmkeys says of each file: a line `PATH:` and, indented, its findings."""
    found: dict[str, str] = {}
    path = ""
    for line in output.splitlines():
        if line.removesuffix(":") in paths:
            path = line.removesuffix(":")
        elif line.startswith(" "):
            found[path] = f"{found.get(path, '')}{line}\n"
    return found


class Keyring:
    """The keys of one repository, as a database of rpm's in `directory`."""

    def __init__(self, texts: Sequence[str], directory: Path, toolbox: Toolbox, repository: str, *, hint: str) -> None:
        self._toolbox = toolbox
        self._repository = repository
        self._hint = hint
        self.keys = fingerprints(texts, hint)
        self.files: list[Path] = []
        self._database = directory / "database"
        shutil.rmtree(directory, ignore_errors=True)
        self._database.mkdir(parents=True)
        for number, text in enumerate(texts):
            file = directory / f"{number}.asc"
            file.write_text(text)
            self.files.append(file)
            self._rpmkeys("--import", toolbox.path(file))

    def check(self, packages: Mapping[str, Path]) -> None:
        """Check packages (name → file): digests of header and content, and a signature by one of the keys.

        Raises SignatureError that names the package, who signed it and whose signature would do.
        """
        waiting = [(name, self._toolbox.path(file)) for name, file in packages.items()]
        workers = os.cpu_count() or 1
        portion = min(_AT_ONCE, -(-len(waiting) // workers) or 1)
        portions = [waiting[start : start + portion] for start in range(0, len(waiting), portion)]
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(self._check_some, portions):
                continue

    def _check_some(self, packages: Sequence[tuple[str, str]]) -> None:
        done = self._rpmkeys("--checksig", "--verbose", *(path for _, path in packages), check=False)
        said = _by_file(done.output, {path for _, path in packages})
        if done.status == 0 and all(_SIGNED.search(said.get(path, "")) for _, path in packages):
            return
        for name, path in packages:
            one = self._rpmkeys("--checksig", "--verbose", path, check=False)
            if one.status != 0 or not _SIGNED.search(one.output):
                raise self._refusal(name, one.output)

    def _refusal(self, name: str, output: str) -> SignatureError:
        known = ", ".join(f"{fingerprint} ({owner})" for fingerprint, owner in self.keys.items()) or "none"
        accepted = f"the keys of the repository {self._repository} are: {known}"
        if match := _UNKNOWN.search(output):
            return SignatureError(
                f"{name} is signed with the key {match[1].upper()}, which is not trusted; {accepted}", hint=self._hint
            )
        if match := _BAD.search(output):
            return SignatureError(
                f"{name} is damaged or tampered with: {match[1]}", hint="name another mirror (DIB_DISTRIBUTION_MIRROR)"
            )
        return SignatureError(f"{name} is not signed; {accepted}", hint="name another mirror or repository")

    def _rpmkeys(self, *words: str, check: bool = True) -> Completed:
        database = self._toolbox.path(self._database)
        options = ["--define", "_pkgverify_level all", "--dbpath", database]
        return self._toolbox.run(["rpmkeys", *options, *words], check=check)
