"""What a key for Secure Boot is read from and decides, and how a guest with such firmware is started."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from dibble.boot.secure_boot import SigningKey, signing_key
from dibble.errors import BootError, UsageError
from dibble.evidence.qemu import Accelerator, Flash, Guest, command_line, secure_flash_for
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

KEY = "-----BEGIN PRIVATE KEY-----\nsecret\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\npublic\n"
LOADER = "systemd-boot"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    key, certificate = tmp_path / "own.key", tmp_path / "own.pem"
    key.write_text(KEY)
    certificate.write_text(CERTIFICATE)
    return key, certificate


def test_a_key_is_what_its_files_hold_and_shows_nothing_of_it(files: tuple[Path, Path]) -> None:
    assert signing_key(None, None, "") is None
    found = signing_key(*files, LOADER)
    assert found == SigningKey(str(files[0]), KEY.encode(), CERTIFICATE.encode())
    assert "secret" not in repr(found)


def test_the_certificate_alone_stands_for_the_key(files: tuple[Path, Path]) -> None:
    found = signing_key(*files, LOADER)
    assert found is not None
    assert replace(found, key=b"other").identity == found.identity
    assert replace(found, certificate=b"other").identity != found.identity


def test_one_file_without_the_other_is_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="--secure-boot-key is given without --secure-boot-cert"):
        signing_key(files[0], None, LOADER)
    with pytest.raises(UsageError, match="--secure-boot-cert is given without --secure-boot-key"):
        signing_key(None, files[1], LOADER)


@pytest.mark.parametrize("loader", ["", "grub", "none"])
def test_only_what_systemd_boot_starts_is_signed(files: tuple[Path, Path], loader: str) -> None:
    with pytest.raises(UsageError, match="only what DIB_BOOTLOADER=systemd-boot puts in place is signed"):
        signing_key(*files, loader)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "locked by a passphrase"),
        ("own.key", "Proc-Type: 4,ENCRYPTED\n", "locked by a passphrase"),
        ("own.key", "\x30\x82", "is no private key in PEM"),
        ("own.pem", "\x30\x82", "is no certificate in PEM"),
        ("own.key", None, "own.key, given by --secure-boot-key, cannot be read: No such file"),
        ("own.pem", None, "own.pem, given by --secure-boot-cert, cannot be read: No such file"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_refused(
    files: tuple[Path, Path], name: str, content: str | None, message: str
) -> None:
    path = files[0].with_name(name)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(UsageError, match=message) as raised:
        signing_key(*files, LOADER)
    assert raised.value.hint


def guest(flash: Flash) -> str:
    accelerator = Accelerator("tcg")
    made = Guest("amd64", "/image", "raw", accelerator, memory_mib=512, cpus=1, flash=flash)
    return " ".join(command_line(made, serial=7, control=8))


def test_variables_that_hold_keys_are_written_in_management_mode_alone() -> None:
    secure = guest(Flash("/code", "/vars", secure=True))
    assert "-machine q35,graphics=off,smm=on " in secure
    assert "-global driver=cfi.pflash01,property=secure,value=on " in secure
    plain = guest(Flash("/code", "/vars"))
    assert "smm" not in plain
    assert "-global" not in plain


class Tools(HostToolbox):
    """Tools that stand in a directory of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root


def test_a_guest_gets_firmware_that_checks_and_a_copy_of_the_variables(tmp_path: Path) -> None:
    variables, scratch = tmp_path / "mine.fd", tmp_path / "scratch"
    scratch.mkdir()
    variables.write_bytes(b"variables")
    variables.chmod(0o400)
    tools = Tools(tmp_path)
    with pytest.raises(BootError, match="no UEFI firmware with Secure Boot for amd64 among the tools"):
        secure_flash_for("amd64", variables, tools, scratch)
    for name in ("OVMF_CODE_4M.secboot.fd", "OVMF_CODE_4M.fd"):
        code = tmp_path / "usr/share/OVMF" / name
        code.parent.mkdir(parents=True, exist_ok=True)
        code.write_bytes(b"code")
    flash = secure_flash_for("amd64", variables, tools, scratch)
    assert flash == Flash("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", str(scratch / "uefi-variables"), secure=True)
    assert (scratch / "uefi-variables").read_bytes() == b"variables"
    assert (scratch / "uefi-variables").stat().st_mode & 0o200, "the guest writes its own"
    with pytest.raises(BootError, match="for arm64"):
        secure_flash_for("arm64", variables, tools, scratch)
    with pytest.raises(BootError, match="cannot read the UEFI variables"):
        secure_flash_for("amd64", tmp_path / "none", tools, scratch)
