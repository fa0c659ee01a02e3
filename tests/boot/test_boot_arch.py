"""Arch Linux out of packages: signed ones of a stand-in, put in place by a user's build, boot and are whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.boot import announced
from tests.boot.booted import PASSWORD, boot
from tests.boot.containers import container
from tests.serving import served
from tests.standins import arch
from tests.standins.redhat import ARCHITECTURES

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.boot

COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "system": ". /etc/os-release; echo $ID",
    "packages": "pacman -Q linux mkinitcpio grub openssh file",
    "asked for": "pacman -Qqe | tr '\\n' ' '",
    "whole": "sudo pacman -Qkk 2>&1 | grep '^warning: .*: /'",
    "network": "networkctl status --no-pager $(ls /sys/class/net | grep ^e) | grep 'Network File'",
    "server": "pacman-conf --repo core Server",
    "keyring": "systemctl show -P Result -P UnitFileState pacman-keyring-init",
}
# What systemd's scripts and units change on purpose
CHANGED = {"/etc/credstore", "/etc/credstore.encrypted", "/var/log/journal"}
# As the unit does on a machine, whose emulated processor would take minutes for it; then pacman checks for itself.
IN_CONTAINER = (
    "cat /etc/os-release; pacman -Qq 2> /dev/null | wc -l;"
    " pacman-key --init > /dev/null 2>&1; pacman-key --populate > /dev/null 2>&1;"
    " sed -i /CheckSpace/d /etc/pacman.conf; pacman --noconfirm -Sy lsof 2>&1 | tail -n 20;"
    " gpgconf --homedir /etc/pacman.d/gnupg --kill all; while pgrep gpg-agent > /dev/null; do sleep 0.2; done;"
    " lsof -v 2>&1 | grep revision:"
)


def test_arch_boots_its_packages_are_whole_and_its_container_runs(ordinary_user: Person, test_cache: Path) -> None:
    mirror = arch.made(test_cache, host_arch())
    folder = ordinary_user.directory("arch")
    key = folder / "arch.asc"
    key.write_bytes(mirror.key.read_bytes())
    os.chown(key, ordinary_user.uid, ordinary_user.gid)
    with served(mirror.place) as url:
        env = ordinary_user.environment(
            DIB_ARCH_NETWORK="False",  # dhcp-all-interfaces has networkd do it
            DIB_DISTRIBUTION_MIRROR=url,
            DIB_PACMAN_KEYS=str(key),
            DIB_DEV_USER_PASSWORD=PASSWORD,
        )
        recipe = str(ordinary_user.checkout / announced.RECIPE)
        words = ("-t", "qcow2,docker", "-p", "file,diffutils", recipe, "arch-minimal", "dhcp-all-interfaces", "vm")
        ordinary_user.dibble("build", "-o", "arch", *words, cwd=folder, env=env, timeout=1800)
        place = ordinary_user.directory("arch-container")
        said = container(ordinary_user, folder / "arch.docker", place, IN_CONTAINER).splitlines()
    assert "ID=arch" in said
    assert any(line.isdigit() and int(line) > 90 for line in said), "packages"
    assert "installing lsof..." in said, said
    assert "revision: " in said[-1], said

    _, printed = boot(ordinary_user, folder / "arch.qcow2", announced.USER, COMMANDS | announced.COMMANDS)
    announced.check(printed, "Arch Linux")
    assert printed["state"].strip() == "running", printed["failed"]
    assert printed["system"].strip() == "arch"
    assert "was not found" not in printed["packages"]
    assert printed["network"].endswith("90-dhcp-all-interfaces.network")
    wanted = printed["asked for"].split()
    assert {"base", "diffutils", "file", "grub", "linux", "openssh", "sudo"} <= set(wanted)
    assert "glibc" not in wanted
    assert {line.split()[2] for line in printed["whole"].splitlines() if line.strip()} <= CHANGED
    assert printed["server"].strip() == f"{url}/core/os/{ARCHITECTURES[host_arch()]}"
    assert printed["keyring"].split() == ["success", "enabled"], "the machine makes pacman's keyring beside its boot"
