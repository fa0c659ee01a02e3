"""What `dibble boot` types when a guest asks for the passphrase of an encrypted disk."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from dibble.errors import BootError
from dibble.evidence.boot_test import BootRequest, _Boot
from dibble.evidence.serial import Console

pytestmark = pytest.mark.unit

ASKS = {
    "Debian's initramfs": "Please unlock disk vault: ",
    "cryptsetup": "Enter passphrase for /dev/vda3: ",
    "systemd": "Please enter passphrase for disk QEMU_HARDDISK (vault): (press TAB for no echo)",
}


def typed(said: str, passphrase: str | None = "moon") -> str:
    """What was typed until the guest had said all, which ends with the marker."""
    ours, guests = socket.socketpair()
    with ours, guests:
        guests.sendall(said.replace("\n", "\r\n").encode())
        request = BootRequest(Path("image"), marker="it is up", passphrase=passphrase, timeout_s=5)
        running: Any = None  # nothing is asked of QEMU
        _Boot(request, running, Console(ours), None).go()
        guests.setblocking(False)
        try:
            return guests.recv(4096).decode()
        except BlockingIOError:
            return ""


@pytest.mark.parametrize("name", ASKS)
def test_each_question_is_answered_once(name: str) -> None:
    assert typed(f"Linux version 6\n{ASKS[name]}\n{ASKS[name].replace('vault', 'data')}\nit is up\n") == "moon\nmoon\n"


def test_who_asks_for_nothing_gets_nothing() -> None:
    assert typed("Linux version 6\nLUKS: disk vault is set up\nit is up\n") == ""


def test_a_passphrase_that_is_needed_or_wrong_is_told_and_not_shown() -> None:
    with pytest.raises(BootError, match="asks for the passphrase of an encrypted disk") as caught:
        typed("Please unlock disk vault: ", None)
    assert "--passphrase-file" in caught.value.hint
    with pytest.raises(BootError, match="does not open with the passphrase") as caught:
        typed("Please unlock disk vault: \nNo key available with this passphrase.\n")
    assert "moon" not in caught.value.message
    assert "moon" not in repr(BootRequest(Path("image"), passphrase="moon"))
