"""A machine is deployed: its ramdisk exports the disk over iSCSI, an image is written to it, and its kernel starts."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from tests import ramdisks
from tests.build.small_elements import SmallElements

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ramdisks import Ramdisk

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the kernel is amd64's"),
]

IQN = "iqn.2026-01.example:disk"
SERVER = "10.0.2.100"
"""The guest's name for the server that it reports to; QEMU's own network forwards it."""
PORT = 10000
"""Of the protocol: where the guest reports to, and where it waits for the end."""
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
exec > /dev/console 2>&1
echo "deployed: $(/bin/busybox cat /proc/cmdline)"
echo "that is all"
while :; do /bin/busybox sleep 60; done
"""
NEEDED = (
    *("bin/busybox", "lib64/ld-linux-x86-64.so.2"),
    *("lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libresolv.so.2"),
)
"""Of the ramdisk, for the one that is deployed."""
SYSTEM = """#!/bin/bash
set -eu
mkdir -p "$TARGET_ROOT"/{etc,proc,sys,dev,tmp,root,var/log,boot}
for version in 1-old 2-new; do
    cp "$(dirname "$0")/kernel" "$TARGET_ROOT/boot/vmlinuz-$version"
done
cp "$(dirname "$0")/initrd" "$TARGET_ROOT/boot/initrd.img-2-new"
"""


def image(made: Ramdisk) -> Path:
    """A disk with one partition; on it a kernel, that of the ramdisk, and an init that says how it was started."""
    elements = SmallElements(made.person, made.person.directory("deploy-image"))
    place = elements.place
    tree = place / "tree"
    for name in ("bin", "lib", "lib64", "proc", "sys", "dev"):
        (tree / name).mkdir(parents=True)
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    ramdisks.shell(f"gzip -dc {made.initramfs} | cpio --extract --make-directories --quiet {' '.join(NEEDED)}", tree)
    elements.write("deployed/element-provides", "operating-system\n")
    script = elements.script("deployed/root.d/10-deployed", SYSTEM, whole=True)
    ramdisks.shell(f"find . | cpio --create --format=newc --quiet | gzip -1 > {script.with_name('initrd')}", tree)
    script.with_name("kernel").write_bytes(made.kernel.read_bytes())
    elements.run("build", "-n", "-t", "raw", "-o", "disk", "deployed", "block-device-mbr")
    return place / "disk.raw"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def server() -> Iterator[tuple[int, threading.Event, dict[str, list[str]]]]:
    """What the ramdisk reports to: its port, whether it has, and the fields."""
    told, fields = threading.Event(), dict[str, list[str]]()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fields.update(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            told.set()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_port, told, fields
        running.shutdown()


@contextlib.contextmanager
def booted(made: Ramdisk, reports: int, iscsi: int, end: int) -> Iterator[subprocess.Popen[str]]:
    """The ramdisk on a machine with an empty disk, of which two ports of our own lead to the guest's."""
    network = f"user,id=deploy,guestfwd=tcp:{SERVER}:{PORT}-tcp:127.0.0.1:{reports}"
    network += f",hostfwd=tcp:127.0.0.1:{iscsi}-:3260,hostfwd=tcp:127.0.0.1:{end}-:{PORT}"
    more: tuple[str, ...] = ("-netdev", network, "-device", "virtio-net-pci,netdev=deploy,romfile=")
    more += ("-drive", "if=none,id=disk,snapshot=on,format=raw,file=null-co://,file.size=1G,file.read-zeroes=on")
    more += ("-device", "virtio-blk-pci,drive=disk")
    append = f"iscsi_target_iqn={IQN} deployment_id=7 deployment_key=secret boot_server={SERVER}"
    append += " hwburnin_mib=8 hwburnin_then=go-on deploy_kexec_append=console=ttyS0 panic=1"
    person = made.person
    env = person.environment(PYTHONPATH=f"{person.checkout}/src:{person.checkout}")
    argv = [person.checkout / ".venv/bin/python", "-m", "tests.boot.boot_with", json.dumps(more)]
    argv += ["boot", made.kernel, "--initrd", made.initramfs, "--no-network", "--json", "--timeout", "600"]
    argv += ["--serial-log", made.place / "serial.log", "--append", append, "--marker", "that is all"]
    same = os.getuid() == person.uid
    with subprocess.Popen(
        list(map(str, argv)),
        cwd=person.checkout,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=None if same else person.uid,
        group=None if same else person.gid,
        extra_groups=None if same else [],
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def say_done(port: int, process: subprocess.Popen[str]) -> None:
    """Say that all is written, until the guest has heard it: what nobody takes yet is refused, or lost."""
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"DONE\n")
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            if connection.recv(1) == b"":
                return
        time.sleep(0.5)


def test_a_machine_is_deployed_over_iscsi_and_its_kernel_starts_without_a_restart(debian_packages: None) -> None:
    made = ramdisks.ramdisk("busybox")
    disk = image(made)
    iscsi, end = free_port(), free_port()
    with server() as (reports, told, fields), booted(made, reports, iscsi, end) as process:
        log = made.place / "serial.log"
        while not told.wait(1):
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        assert fields == {"i": ["7"], "k": ["secret"], "a": ["10.0.2.15"], "n": [IQN]}
        target = f"iscsi://127.0.0.1:{iscsi}/{IQN}/1"
        subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", disk, target], check=True, timeout=300)
        say_done(end, process)
        printed = process.communicate(timeout=600)[0]
    said = log.read_text(errors="replace")
    result = json.loads(printed.splitlines()[-1])
    assert result["ok"] is True, said[-3000:]
    assert "starting /mnt/boot/vmlinuz-2-new of /dev/vda1" in said
    (started,) = [line for line in said.splitlines() if line.startswith("deployed: ")]
    assert started.split()[-3:] == [f"root=UUID={uuid_of(disk)}", "ro", "console=ttyS0"]


def uuid_of(disk: Path) -> str:
    """Of the ext4 in the first partition, whose superblock stands 1024 bytes in and has its UUID at 0x68."""
    with disk.open("rb") as file:
        file.seek(0x1BE + 8)
        start = int.from_bytes(file.read(4), "little") * 512
        file.seek(start + 1024 + 0x68)
        text = file.read(16).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
