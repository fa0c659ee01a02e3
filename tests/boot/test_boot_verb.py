"""`dibble boot` from end to end, with disks of a few bytes: tools, sandbox, QEMU, serial line and exit status."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from tests.boot.tiny_disks import RESTART, WRITE, disk
from tests.inside import with_tools
from tests.people import left_sessions

from dibble.evidence import kvm_probe, qemu
from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

    from dibble.sandbox.toolbox import Toolbox

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the boot sectors are for amd64 and its QEMU"),
]

HELLO = "\r\nhello login: "


@pytest.fixture(params=["ourselves", "ordinary_user"])
def person(request: pytest.FixtureRequest) -> Person:
    """Both who run the tests, root in CI, and an ordinary user."""
    found: Person = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def place(person: Person) -> Path:
    return person.directory("boot-verb")


def result_of(stdout: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return found


def test_a_disk_that_says_login_is_up(person: Person, place: Path) -> None:
    image = place / "hello, disk.img"  # a comma separates QEMU's options
    image.write_bytes(disk(HELLO))
    done = person.dibble("boot", image, "--json", "--serial-log", place / "log", timeout=600)
    result = result_of(done.stdout)
    assert result["ok"] is True
    assert (result["arch"], result["firmware"], result["error"]) == ("amd64", "bios", None)
    assert result["accelerator"] == "kvm" or result["accelerator_reason"]
    assert result["last_lines"][-1] == "hello login:"
    assert 0 < result["seconds"]["output"] <= result["seconds"]["prompt"] <= result["seconds"]["end"]
    assert (place / "log").read_bytes().rstrip().endswith(HELLO.rstrip().encode())


@pytest.mark.parametrize("cpu", ["max", "qemu64", "qemu32"])
def test_the_kernel_that_tries_kvm_runs_to_its_end_with_and_without_64_bits(ourselves: Person, cpu: str) -> None:
    def work(toolbox: Toolbox, directory: Path) -> bytes:
        kernel = directory / "kernel"
        kernel.write_bytes(kvm_probe.KERNEL)
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        with ours, theirs:
            path = toolbox.path(kernel)
            words = qemu.probe_command_line("amd64", qemu.Accelerator("tcg"), output=theirs.fileno(), kernel=path)
            argv = [cpu if word == "host" else word for word in words]
            with toolbox.spawn(argv, pass_fds=[theirs.fileno()]):
                theirs.close()
                return ours.recv(16)

    assert with_tools(ourselves.cache, work, "qemu-system") == kvm_probe.SAID


def test_a_qcow2_on_top_of_another_file_boots(ourselves: Person) -> None:
    qemu_img = shutil.which("qemu-img")
    assert qemu_img
    place = ourselves.directory("boot-verb")
    (place / "base").mkdir()
    (place / "base/disk.raw").write_bytes(disk(HELLO))
    image = place / "top.qcow2"
    ourselves.run([qemu_img, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base/disk.raw", image])
    assert result_of(ourselves.dibble("boot", image, "--json").stdout)["ok"] is True


def test_a_silent_disk_ends_with_1_and_says_what_may_be_wrong(person: Person, place: Path) -> None:
    image = place / "silent.img"
    image.write_bytes(disk(""))
    done = person.dibble("boot", image, "--timeout", "2", check=False, timeout=600)
    assert done.returncode == 1
    assert "dibble: the login prompt did not come within 2 s" in done.stderr
    assert "Booting from Hard Disk" in done.stderr
    assert "console=ttyS0" in done.stderr
    assert "--timeout" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_without_a_boot_loader_is_told_at_once(ourselves: Person) -> None:
    image = ourselves.directory("boot-verb") / "empty.img"
    image.write_bytes(bytes(1 << 20))
    done = ourselves.dibble("boot", image, "--json", check=False)
    assert done.returncode == 1
    result = result_of(done.stdout)
    assert result["ok"] is False
    assert result["error"]["message"].startswith("the BIOS finds nothing to boot on the disk")
    assert "--firmware uefi" in result["error"]["hint"]


def test_uefi_without_anything_to_boot_is_told(ourselves: Person) -> None:
    image = ourselves.directory("boot-verb") / "empty.img"
    image.write_bytes(bytes(1 << 20))
    done = ourselves.dibble("boot", image, "--firmware", "uefi", check=False)
    assert done.returncode == 1
    assert "the UEFI firmware finds nothing to boot on the disk" in done.stderr


def test_a_qcow2_for_another_architecture_gets_the_tools_for_that(ourselves: Person) -> None:
    place = ourselves.directory("boot-verb")
    root = uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae").bytes_le  # Discoverable Partitions: root of arm64
    header = b"EFI PART" + bytes(64) + struct.pack("<QII", 2, 128, 128)
    raw = place / "disk.raw"
    raw.write_bytes((disk("")[:512] + header.ljust(512, b"\0") + root).ljust(1 << 20, b"\0"))
    ourselves.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, place / "disk.qcow2"])
    done = ourselves.dibble("boot", place / "disk.qcow2", "--json", check=False)
    result = result_of(done.stdout)
    assert (result["arch"], result["firmware"], result["accelerator"]) == ("arm64", "uefi", "tcg")
    assert result["error"]["message"].startswith("the UEFI firmware finds nothing to boot")


def test_a_guest_that_restarts_itself_is_told(ourselves: Person) -> None:
    image = ourselves.directory("boot-verb") / "restart.img"
    image.write_bytes(disk("giving up\r\n", RESTART))
    done = ourselves.dibble("boot", image, check=False)
    assert done.returncode == 1
    assert "the guest ended or restarted itself while dibble waited for the login prompt" in done.stderr
    assert "giving up" in done.stderr


def test_a_marker_stands_for_the_prompt(ourselves: Person) -> None:
    image = ourselves.directory("boot-verb") / "marker.img"
    image.write_bytes(disk("all [is] well\r\n"))
    assert ourselves.dibble("boot", image, "--marker", "[is]").returncode == 0
    assert ourselves.dibble("boot", image, "--marker", "[was]", "--timeout", "2", check=False).returncode == 1


@pytest.mark.parametrize(("options", "changed"), [((), False), (("--writable",), True)])
def test_what_the_guest_writes_stays_only_if_it_may(
    person: Person, place: Path, options: tuple[str, ...], changed: bool
) -> None:
    image = place / "writes.img"
    image.write_bytes(disk("written\r\nhello login: ", RESTART, first=WRITE))
    if changed:
        shutil.chown(image, person.uid, person.gid)
    before = hashlib.sha256(image.read_bytes()).digest()
    done = person.dibble("boot", image, *options, "--marker", "hello", "--json", timeout=600)
    assert "written" in result_of(done.stdout)["last_lines"][-2]
    assert (hashlib.sha256(image.read_bytes()).digest() != before) is changed


def test_what_the_guest_refuses_is_told_as_such(ourselves: Person) -> None:
    image = ourselves.directory("boot-verb") / "deaf.img"
    image.write_bytes(disk(HELLO))
    done = ourselves.dibble("boot", image, "--login", "root", "--password", "x", "--timeout", "3", check=False)
    assert done.returncode == 1
    assert "a shell for root did not come within 3 s" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no-such-image",), "there is no image"),
        (("IMAGE", "--command", "true"), "commands need somebody who runs them"),
        (("IMAGE", "--password", "x"), "a password without a user"),
        (("IMAGE", "--interactive"), "--interactive needs a terminal"),
        (("IMAGE", "--login", "a", "--command", "x" * 4000), "too many for the serial line"),
    ],
)
def test_what_has_no_sense_is_refused_before_anything_runs(
    ourselves: Person, arguments: tuple[str, ...], message: str
) -> None:
    image = ourselves.directory("boot-verb") / "hello.img"
    image.write_bytes(disk(HELLO))
    words = [str(image) if word == "IMAGE" else word for word in arguments]
    done = ourselves.dibble("boot", *words, check=False)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_interrupted_boot_leaves_nothing(ourselves: Person) -> None:
    image = ourselves.directory("boot-verb") / "silent.img"
    image.write_bytes(disk("first words\r\n"))
    process = subprocess.Popen(
        [ourselves.checkout / "dibble", "boot", image, "--verbose"],
        env=ourselves.environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        # a shell's background has it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one system call
    )
    assert process.stderr is not None
    with process:
        lines = iter(process.stderr)
        assert any("first words" in line for line in lines)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        rest = "".join(lines)
        assert process.wait(60) == 130, rest
    assert "stopped by the user" in rest
    assert "Traceback" not in rest
    running = subprocess.run(["pgrep", "-f", str(image)], check=False, capture_output=True, text=True)
    assert running.stdout == ""
    assert not [session for session in left_sessions(ourselves) if (session / "boot").exists()]
