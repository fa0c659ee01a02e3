"""Gentoo out of a stage and packages: signed ones of a stand-in, put in place by an ordinary user's build, boot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.boot import announced
from tests.boot.booted import PASSWORD, boot
from tests.boot.containers import container
from tests.serving import served
from tests.standins import gentoo

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.boot

COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "system": ". /etc/os-release; echo $ID",
    "selected": "cat /var/lib/portage/world",
    "installed": "ls -d /var/db/pkg/sys-kernel/gentoo-kernel-bin-*",
}
IN_CONTAINER = "cat /etc/os-release; ls -d /var/db/pkg/*/* | wc -l; emerge --version"


def test_gentoo_boots_with_its_kernel_and_packages_and_its_container_runs(
    ordinary_user: Person, test_cache: Path
) -> None:
    mirror = gentoo.made(test_cache, host_arch())
    folder = ordinary_user.directory("gentoo")
    key = folder / "gentoo.asc"
    key.write_bytes(mirror.key.read_bytes())
    os.chown(key, ordinary_user.uid, ordinary_user.gid)
    with served(mirror.place) as url:
        env = ordinary_user.environment(
            DIB_DISTRIBUTION_MIRROR=url,
            GENTOO_RELEASE_KEYS=str(key),
            GENTOO_PROFILE=f"default/linux/{host_arch()}/23.0/{gentoo.STAGE}",
            GENTOO_PORTAGE_CLEANUP="False",
            DIB_DEV_USER_PASSWORD=PASSWORD,
        )
        recipe = str(ordinary_user.checkout / announced.RECIPE)
        words = ("-t", "qcow2,docker", recipe, "gentoo", "vm", "growroot")
        ordinary_user.dibble("build", "-o", "gen", *words, cwd=folder, env=env, timeout=1800)
    said = container(ordinary_user, folder / "gen.docker", ordinary_user.directory("gentoo-container"), IN_CONTAINER)
    assert "ID=gentoo" in said
    assert said.splitlines()[-1].startswith("Portage "), "it works in the container, with the tree of ebuilds"

    _, printed = boot(ordinary_user, folder / "gen.qcow2", announced.USER, COMMANDS | announced.COMMANDS)
    announced.check(printed, "Gentoo")
    assert printed["state"].strip() == "running", printed["failed"]
    assert printed["system"].strip() == "gentoo"
    assert {"app-admin/sudo", "sys-boot/grub", "sys-fs/growpart", "sys-kernel/gentoo-kernel-bin"} <= set(
        printed["selected"].split()
    )
    assert "No such file" not in printed["installed"]
