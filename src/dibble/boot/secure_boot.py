"""Secure Boot with keys of the user's own: programs for UEFI are signed after all hooks, when the disk is written.

The private key is read before any namespace is entered and handed to the signer in memory, through a file without a
name: hooks are not told where it is, and nothing of it is written anywhere. The signature has the build's time in it,
so the same tree, key and certificate give the same bytes. RSA with PKCS #1 v1.5 is what UEFI knows (2.10, 32.2.4), and
has no random part.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dibble.boot.base import BootSetup

KEY = "--secure-boot-key"
CERTIFICATE = "--secure-boot-cert"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key without a passphrase, and the certificate that the firmware has enrolled; both in PEM.

    `name` is what the user calls the key's file.
    """

    name: str
    key: bytes = field(repr=False, compare=False)
    certificate: bytes

    @property
    def identity(self) -> str:
        """For keys of outputs: a digest of the certificate, which belongs to one private key."""
        return hashlib.sha256(self.certificate).hexdigest()

    def signed(self, program: bytes, setup: BootSetup) -> bytes:
        """The PE program with a signature. Raises UsageError where key and certificate do not belong together."""
        plain, certificate, result = (setup.work / name for name in ("plain.efi", "certificate.pem", "signed.efi"))
        plain.write_bytes(program)
        certificate.write_bytes(self.certificate)
        see = setup.toolbox.path
        argv = ["osslsigncode", "sign", "-h", "sha256", "-st", str(setup.epoch), "-certs", see(certificate)]
        argv += ["-in", see(plain), "-out", see(result), "-key"]
        with _in_memory(self.key) as key:
            # The program opens its own descriptor: a path of ours would need the right to look into our process.
            argv.append(f"/proc/self/fd/{key}")
            with setup.toolbox.spawn(argv, pass_fds=[key]) as running:
                said = running.stdout.read() if running.stdout else b""
                status = running.wait()
        if status:
            raise UsageError(
                f"{self.name} and the certificate of {CERTIFICATE} make no signature together"
                + "".join(f"\n    {line}" for line in said.decode("utf-8", "replace").splitlines()[:3]),
                hint="give an RSA key in PEM, and its certificate, as of openssl req -new -x509 -key KEY",
            )
        content = result.read_bytes()
        for path in (plain, certificate, result):
            path.unlink()
        return content


def signing_key(key: Path | None, certificate: Path | None, loader: str) -> SigningKey | None:
    """What two files hold; None where neither was given. `loader` is what DIB_BOOTLOADER says.

    Raises UsageError for one file without the other, a file that cannot be read or is not what it should be, and a
    boot loader whose files are not signed.
    """
    if key is None and certificate is None:
        return None
    if key is None or certificate is None:
        given, missing = (CERTIFICATE, KEY) if key is None else (KEY, CERTIFICATE)
        raise UsageError(f"{given} is given without {missing}", hint="Secure Boot needs a key and its certificate")
    if loader != "systemd-boot":
        raise UsageError(
            f"{KEY} is given, and only what DIB_BOOTLOADER=systemd-boot puts in place is signed",
            hint="set DIB_BOOTLOADER=systemd-boot; GRUB would start what is not signed",
        )
    text = _read(key, KEY)
    if b"ENCRYPTED" in text:
        raise UsageError(
            f"the private key {key} is locked by a passphrase, for which nobody can be asked",
            hint=f"openssl rsa -in {key} writes it without one; keep that where only you can read it",
        )
    if b"PRIVATE KEY-----" not in text:
        raise UsageError(f"{key}, given by {KEY}, is no private key in PEM", hint="give a file with BEGIN PRIVATE KEY")
    found = _read(certificate, CERTIFICATE)
    if b"-----BEGIN CERTIFICATE-----" not in found:
        raise UsageError(
            f"{certificate}, given by {CERTIFICATE}, is no certificate in PEM",
            hint=f"if it is in DER: openssl x509 -inform der -in {certificate} -out cert.pem",
        )
    return SigningKey(str(key), text, found)


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path}, given by {option}, cannot be read: {error.strerror}", hint="give the path of a file in PEM"
        ) from error


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """A descriptor of a file without a name that holds `content`, while it is needed."""
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield descriptor
    finally:
        os.close(descriptor)
