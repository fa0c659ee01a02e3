"""openSUSE out of packages: signed ones of a stand-in, put in place by an ordinary user's build, boot and are whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.boot import announced
from tests.boot.booted import PASSWORD, boot
from tests.boot.containers import container
from tests.serving import served
from tests.standins import suse
from tests.standins.make import key_of, made

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.boot

COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "system": ". /etc/os-release; echo $ID $VERSION_ID",
    "packages": "rpm -q kernel-default zypper NetworkManager patterns-base-base file",
    "keys": "rpm -qa gpg-pubkey | wc -l",
    "whole": "sudo rpm -Va --nomtime | grep -v ' c '",
    "repositories": "zypper --no-refresh repos --uri",
}
# What scripts, elements and systemd change on purpose; times later than that of the build are set to that.
CHANGED = {"/etc/credstore", "/etc/credstore.encrypted", "/etc/machine-id", "/var/log/journal"}
IN_CONTAINER = "cat /etc/os-release; rpm -qa | wc -l; zypper --no-refresh repos | grep -c oss"


def test_leap_boots_its_packages_are_whole_and_its_container_runs(ordinary_user: Person, test_cache: Path) -> None:
    distribution = suse.leap(arch=host_arch())
    place = made(distribution, test_cache)
    folder = ordinary_user.directory("opensuse")
    key = folder / "opensuse.asc"
    key.write_bytes(key_of(distribution, place).read_bytes())
    os.chown(key, ordinary_user.uid, ordinary_user.gid)
    with served(place) as url:
        env = ordinary_user.environment(
            DIB_DISTRIBUTION_MIRROR=url,
            DIB_ZYPPER_KEYS=str(key),
            DIB_RELEASE=distribution.system.version,
            DIB_DEV_USER_PASSWORD=PASSWORD,
        )
        recipe = str(ordinary_user.checkout / announced.RECIPE)
        words = ("-t", "qcow2,docker", "-p", "file,diffutils", recipe, "opensuse-minimal", "vm")
        ordinary_user.dibble("build", "-o", "leap", *words, cwd=folder, env=env, timeout=1800)
    said = container(ordinary_user, folder / "leap.docker", ordinary_user.directory("opensuse-container"), IN_CONTAINER)
    assert 'ID="opensuse-leap"' in said
    assert int(said.splitlines()[-2]) > 100, "packages"
    assert said.splitlines()[-1] == "1", "repositories"

    _, printed = boot(ordinary_user, folder / "leap.qcow2", announced.USER, COMMANDS | announced.COMMANDS)
    announced.check(printed, "openSUSE")
    assert printed["state"].strip() == "running", printed["failed"]
    assert printed["system"].strip() == "opensuse-leap 16.0"
    assert "is not installed" not in printed["packages"]
    assert printed["keys"].strip() == "1"
    assert {line.split()[-1] for line in printed["whole"].splitlines() if line.strip()} <= CHANGED
    assert f"{url}/{distribution.repositories[0].path}" in printed["repositories"]
