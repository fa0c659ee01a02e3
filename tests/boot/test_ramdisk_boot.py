"""Ramdisks start in QEMU, run the pieces of their init, and switch the machine off."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests import ramdisks

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the kernel is amd64's"),
]

EXPORTED = ("probe: target iqn.2026-01.example:probe", "probe: port 3260 listens", "probe: withdrawn")
"""What deploy-targetcli's functions have the kernel do."""
NEVER = "a text that nobody says"


def boot(name: str, *words: str, marker: str = NEVER, iso: bool = False) -> tuple[dict[str, Any], str]:
    """Boot a ramdisk until it says `marker`, or ends; the result, and all that it said."""
    made = ramdisks.ramdisk(name)
    image = [made.place / ramdisks.ISO] if iso else [made.kernel, "--initrd", made.initramfs]
    log = made.place / "serial.log"
    done = made.person.dibble(
        *("boot", *image, "--json", "--timeout", "600", "--serial-log", log),
        *("--marker", marker, *words),
        check=False,
        timeout=1200,
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    result: dict[str, Any] = json.loads(lines[-1])
    return result, log.read_text(errors="replace")


@pytest.mark.parametrize("name", ["busybox", "dracut"])
def test_the_pieces_of_init_run_and_the_memory_is_tested(name: str, debian_packages: None) -> None:
    append = "hwburnin_mib=64 ip=10.0.2.15::10.0.2.2:255.255.255.0 troubleshoot=0 panic=1"
    result, said = boot(name, "--append", append)
    assert "Kernel panic" not in said
    for line in (
        "probe: runs after 20-init-variables, troubleshoot=0",
        "probe: address 10.0.2.15",
        "probe: ba9c736f",  # of the SHA-256 of "probe"
        "probe: udev rule",
        *(["probe: installed"] if name == "busybox" else []),
        *(["probe: firmware installed with --silent", '"class" : "system"'] if name == "busybox" else []),
        "probe: module",
        *(EXPORTED if name == "dracut" else []),
        "hwburnin: pass 2 of 2, 64 MiB",
        "hwburnin: passed",
    ):
        assert line in said, said[-3000:]
    assert "ERROR" not in said
    # It switched itself off, while we waited for what does not come.
    assert result["error"]["message"].startswith("the guest ended"), said[-3000:]


def test_the_machine_is_told_to_a_server(debian_packages: None) -> None:
    """QEMU's own network shows the address 127.0.0.1 of the machine that tests as 10.0.2.2."""
    posted: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            # The first time the server is not ready.
            self.send_response(503 if len(posted) == 1 else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://10.0.2.2:{server.server_port}/"
        result, said = boot("busybox", "--append", f"HW_DISCOVERY_URL={address} panic=1")
        server.shutdown()
    assert f"hwdiscovery: told {address}" in said, said[-3000:]
    assert "network: " in said, "by DHCP"
    assert "probe: runs after" not in said, "it restarts before the pieces that follow"
    assert result["error"]["message"].startswith("the guest ended"), said[-3000:]
    assert len(posted) == 2
    machine = json.loads(base64.b64decode(posted[1], validate=True))
    assert (machine["class"], machine["vendor"]) == ("system", "QEMU")
    (memory,) = [one for one in parts(machine) if one["id"] == "memory"]
    assert memory["size"] == 1 << 30
    (card,) = [one for one in parts(machine) if one.get("logicalname") == "eth0"]
    assert (card["serial"], card["configuration"]["ip"]) == ("52:54:00:12:34:56", "10.0.2.15")  # QEMU's own address


def parts(machine: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What lshw lists below a node, and that itself."""
    yield machine
    for below in machine.get("children", []):
        yield from parts(below)


def test_a_kernel_starts_without_an_initial_ramdisk_and_gets_its_command_line(debian_packages: None) -> None:
    made = ramdisks.ramdisk("busybox")
    words = ("--append", "said.by=us panic=1", "--marker", "said.by=us", "--timeout", "600", "--json")
    done = made.person.dibble("boot", made.kernel, *words, check=False, timeout=1200)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ok"] is True, done.stdout[-2000:]


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_an_iso_starts_the_ramdisk(firmware: str, debian_packages: None) -> None:
    result, said = boot("busybox", "--firmware", firmware, marker="probe: module", iso=True)
    assert result["ok"] is True, said[-3000:]
    assert "probe: runs after 20-init-variables" in said


def test_a_whole_image_runs_from_memory(debian_packages: None) -> None:
    result, said = boot("whole", "--memory", "3072", marker="login:")
    assert result["ok"] is True, said[-3000:]
    assert "Debian GNU/Linux 13" in said
