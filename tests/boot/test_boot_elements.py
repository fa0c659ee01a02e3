"""Elements that do their work when a machine starts: several in one image, which is booted once."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from tests.people import ourselves

from dibble.sandbox.tools import host_arch

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the firmware and kernel are amd64's"),
]

PASSWORD = "correct horse"
# openssl passwd -6 -salt serialline 'correct horse'
HASH = "$6$serialline$kBEho61j0S4MxlhGs1dOY4SI3/oYUys6LYixdqUVT2LBFG5BaSgzrv9ODyECVHBHDf.KGe9KRz2dFiQ.pZVst."
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEw0 somebody@example"
ELEMENTS = [
    *("debian-minimal", "vm", "dhcp-all-interfaces", "dynamic-login", "enable-serial-console"),
    *("growroot", "runtime-ssh-host-keys"),
]
ROOT_MIB = 3500  # the disk is made larger than the image before it boots
COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "consoles": "cat /sys/class/tty/console/active",
    "user": "id -un",
    "authorized": "cat /root/.ssh/authorized_keys",
    "keys of root": "stat -c %a /root/.ssh/authorized_keys",
    "root size": "findmnt --noheadings --output SIZE --bytes /",
    # An interface that is plugged in is set up beside the boot, which does not wait for it.
    "address": "timeout 90 sh -c 'until ip -4 -o address show scope global | grep .; do sleep 1; done'",
    "by": "systemctl is-active 'dhcp-interface@*.service'",
    "route": "ip -4 route show default",
    "host key": "ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key",
    "ssh": "systemctl is-active ssh",
}


@pytest.fixture(scope="module")
def found(debian_packages: None) -> dict[str, str]:
    """What each command printed in the guest.

    The kernel does not talk on the serial line, so that whoever logs in there owes it to an element.
    """
    person = ourselves()
    directory = person.directory("boot-elements")
    env = person.environment(
        DIB_RELEASE="trixie",
        DIB_BOOTLOADER_USE_SERIAL_CONSOLE="False",
        DIB_BOOTLOADER_DEFAULT_CMDLINE=f'nomodeset rootpwd={HASH} sshkey="{KEY}"'.replace("$", r"\$"),
    )
    person.dibble("build", "-o", "image", *ELEMENTS, cwd=directory, env=env, timeout=1800)
    image = directory / "image.qcow2"
    subprocess.run(["qemu-img", "resize", "-q", image, "5G"], check=True)
    log = directory / "serial.log"
    words = [word for command in COMMANDS.values() for word in ("--command", command)]
    done = person.dibble(
        *("boot", image, "--json", "--timeout", "900", "--serial-log", log),
        *("--login", "root", "--password", PASSWORD, *words),
        check=False,
        timeout=2400,
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    result: dict[str, Any] = json.loads(lines[-1])
    assert result["error"] is None, f"{result['error']}\n{done.stderr[-2000:]}\n{log.read_text()[-4000:]}"
    printed = {entry["command"]: str(entry["output"]) for entry in result["commands"]}
    return {name: printed[command] for name, command in COMMANDS.items()}


def test_the_machine_comes_up_whole(found: dict[str, str]) -> None:
    assert found["failed"] == ""
    assert found["state"] == "running"


def test_enable_serial_console_offers_a_login_where_the_kernel_says_nothing(found: dict[str, str]) -> None:
    assert "ttyS0" not in found["consoles"]
    assert found["user"] == "root"


def test_dynamic_login_takes_password_and_key_from_the_command_line(found: dict[str, str]) -> None:
    """The password let us in."""
    assert found["authorized"] == KEY
    assert found["keys of root"] == "600"


def test_growroot_takes_the_whole_disk(found: dict[str, str]) -> None:
    assert int(found["root size"]) > ROOT_MIB << 20


def test_dhcp_all_interfaces_gets_an_address_and_a_route(found: dict[str, str]) -> None:
    assert "10.0.2.15/24" in found["address"]
    assert found["by"] == "active"
    assert found["route"].startswith("default via 10.0.2.2")


def test_runtime_ssh_host_keys_are_made_at_the_boot(found: dict[str, str]) -> None:
    assert "(ED25519)" in found["host key"]
    assert found["ssh"] == "active"
