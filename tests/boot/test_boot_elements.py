"""Elements that do their work when a machine starts: several in each image, which is booted once."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from tests.boot.booted import ADDRESS, PASSWORD, ROOT_MIB, boot, grow
from tests.people import ourselves

from dibble.sandbox.tools import host_arch

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the firmware and kernel are amd64's"),
]

# openssl passwd -6 -salt serialline 'correct horse'
HASH = "$6$serialline$kBEho61j0S4MxlhGs1dOY4SI3/oYUys6LYixdqUVT2LBFG5BaSgzrv9ODyECVHBHDf.KGe9KRz2dFiQ.pZVst."
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEw0 somebody@example"
WELL = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "root size": "findmnt --noheadings --output SIZE --bytes /",
    "address": ADDRESS,
    "route": "ip -4 route show default",
    "host key": "ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub",
    "ssh": "systemctl is-active ssh",
}


def built_and_booted(name: str, elements: str, user: str, commands: dict[str, str], **variables: str) -> dict[str, str]:
    """Build a Debian with `elements`, boot it on a larger disk and return what `WELL` and `commands` print there."""
    person = ourselves()
    directory = person.directory(f"boot-{name}")
    env = person.environment(DIB_RELEASE="trixie", **variables)
    words = ("build", "-u", "-o", "image", "debian-minimal", "vm", "growroot", *elements.split())
    person.dibble(*words, cwd=directory, env=env, timeout=1800)
    image = directory / "image.qcow2"
    grow(image)
    return boot(person, image, user, {**WELL, **commands})[1]


@pytest.fixture(scope="module")
def by_ifupdown(debian_packages: None) -> dict[str, str]:
    """The kernel does not talk on the serial line, so that whoever logs in there owes it to an element."""
    return built_and_booted(
        "ifupdown",
        "dhcp-all-interfaces dynamic-login enable-serial-console runtime-ssh-host-keys",
        "root",
        {
            "consoles": "cat /sys/class/tty/console/active",
            "user": "id -un",
            "authorized": "cat /root/.ssh/authorized_keys",
            "keys of root": "stat -c %a /root/.ssh/authorized_keys",
            "dhcp": "systemctl is-active 'dhcp-interface@*.service'",
        },
        DIB_BOOTLOADER_USE_SERIAL_CONSOLE="False",
        DIB_BOOTLOADER_DEFAULT_CMDLINE=f'nomodeset rootpwd={HASH} sshkey="{KEY}"'.replace("$", r"\$"),
    )


@pytest.fixture(scope="module")
def by_glean(debian_packages: None) -> dict[str, str]:
    """glean out of a mirror beside the cache, which we fill: a machine may reach PyPI where an image does not."""
    mirror = ourselves().cache / "pypi/mirror/glean"
    mirror.mkdir(parents=True, exist_ok=True)
    if not list(mirror.glob("glean-1.25.1-*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(mirror)]
        subprocess.run([*pip, "glean==1.25.1"], check=True)
    links = "".join(f'<a href="{wheel.name}">{wheel.name}</a>\n' for wheel in mirror.glob("*.whl"))
    (mirror / "index.html").write_text(links)
    return built_and_booted(
        "glean",
        "devuser openssh-server pypi simple-init block-device-gpt",
        "devuser",
        {"interfaces": "grep -rhs 'inet dhcp' /etc/network"},
        DIB_INSTALLTYPE_simple_init="package",
        DIB_NO_PYPI_PIP="1",
        DIB_DEV_USER_PASSWORD=PASSWORD,
    )


@pytest.fixture(scope="module", params=["by_ifupdown", "by_glean"])
def machine(request: pytest.FixtureRequest) -> dict[str, str]:
    found: dict[str, str] = request.getfixturevalue(request.param)
    return found


def test_a_machine_comes_up_whole(machine: dict[str, str]) -> None:
    assert machine["failed"] == ""
    assert machine["state"] == "running"


def test_growroot_takes_the_whole_disk(machine: dict[str, str]) -> None:
    assert int(machine["root size"]) > ROOT_MIB << 20


def test_the_network_is_up_by_dhcp(machine: dict[str, str]) -> None:
    assert "10.0.2.15/24" in machine["address"]
    assert machine["route"].startswith("default via 10.0.2.2")


def test_runtime_ssh_host_keys_are_made_at_the_boot(machine: dict[str, str]) -> None:
    assert "(ED25519)" in machine["host key"]
    assert machine["ssh"] == "active"


def test_enable_serial_console_offers_a_login_where_the_kernel_says_nothing(by_ifupdown: dict[str, str]) -> None:
    assert "ttyS0" not in by_ifupdown["consoles"]
    assert by_ifupdown["user"] == "root"


def test_dynamic_login_takes_password_and_key_from_the_command_line(by_ifupdown: dict[str, str]) -> None:
    """The password let us in."""
    assert by_ifupdown["authorized"] == KEY
    assert by_ifupdown["keys of root"] == "600"


def test_dhcp_all_interfaces_runs_for_the_interface(by_ifupdown: dict[str, str]) -> None:
    assert by_ifupdown["dhcp"] == "active"


def test_simple_init_has_glean_set_up_the_interface(by_glean: dict[str, str]) -> None:
    """By the name that systemd gives it: nothing in the image keeps the kernel's."""
    assert re.search(r"^iface en\w+ inet dhcp$", by_glean["interfaces"], re.MULTILINE)
