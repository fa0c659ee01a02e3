"""Ubuntu and Fedora out of stand-ins for their images for clouds, with packages of mirrors, boot and are whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.boot.booted import PASSWORD, boot
from tests.build.debian_trees import differences, of_tar
from tests.serving import served
from tests.standins import cloud_images, redhat, ubuntu
from tests.standins.make import made as made_packages

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the images are amd64's"),
]

USER = {"DIB_DEV_USER_USERNAME": "dev", "DIB_DEV_USER_PASSWORD": PASSWORD, "DIB_DEV_USER_PWDLESS_SUDO": "yes"}
COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "system": ". /etc/os-release; echo $ID $VERSION_ID",
    "kept": "stat --format='%u %g %a %h' /srv/kept/file",
}
OF_UBUNTU = {
    "kernel": "dpkg-query --show --showformat='${Status}' linux-image-generic",
    "audit": "dpkg --audit",
    "sources": "grep ^URIs /etc/apt/sources.list.d/ubuntu.sources",
}
OF_FEDORA = {
    "whole": "sudo rpm -Va --nomtime | grep -v ' c '",
    "repository": "grep ^baseurl /etc/yum.repos.d/fedora.repo",
}
# What scripts, elements and systemd change on purpose; times later than that of the build are set to that.
CHANGED = {"/etc/credstore", "/etc/credstore.encrypted", "/etc/machine-id", "/var/log/journal"}


def built(person: Person, image: cloud_images.CloudImage, packages: Path, mirror: str, *words: str, **env: str) -> Path:
    """The directory with the image's disk and tree; the mirror of `packages` is at the path `mirror` of a server."""
    place = person.directory(f"boot-cloud-{image.name}")
    key = cloud_images.key_for(image, (person.uid, person.gid), place)
    with served(image.web) as images, served(packages) as address:
        own = cloud_images.variables(image, images, key) | {"DIB_DISTRIBUTION_MIRROR": f"{address}/{mirror}"}
        variables = person.environment(**own, **USER, **env)
        argv = ("build", "-t", "qcow2,tar", "-o", "image", image.name, "vm", "devuser", *words)
        person.dibble(*argv, cwd=place, env=variables, timeout=1800)
    return place


def test_ubuntu_boots_with_a_kernel_of_its_mirror(ordinary_user: Person, test_cache: Path) -> None:
    image, archive = cloud_images.made("ubuntu", test_cache), ubuntu.made(test_cache)
    sources = {"DIB_CLOUD_INIT_DATASOURCES": "None"}
    place = built(ordinary_user, image, archive.place, archive.mirror, **sources)
    ours, theirs = of_tar(place / "image.tar"), of_tar(image.tree)
    kept = {path: entry for path, entry in theirs.items() if path.startswith(("srv/", "usr/lib/x86_64-linux-gnu/"))}
    assert differences({path: ours[path] for path in kept}, kept) == []

    _, printed = boot(ordinary_user, place / "image.qcow2", "dev", COMMANDS | OF_UBUNTU)
    assert printed["state"].strip() == "running", printed["failed"]
    assert printed["system"].strip() == "ubuntu 24.04"
    assert printed["kernel"] == "install ok installed"
    assert printed["audit"] == ""
    assert printed["kept"].strip() == "1234 65530 4755 2"
    assert set(printed["sources"].split()) == {"URIs:", printed["sources"].split()[1]}
    assert printed["sources"].split()[1].startswith("http://127.0.0.1:"), "the archive and its updates, one mirror"


def test_fedora_boots_with_the_kernel_of_its_image_and_its_packages_are_whole(
    ordinary_user: Person, test_cache: Path
) -> None:
    fedora = redhat.fedora()
    image = cloud_images.made("fedora", test_cache)
    place = built(ordinary_user, image, made_packages(fedora, test_cache), fedora.mirror, "openssh-server")
    ours, theirs = of_tar(place / "image.tar"), of_tar(image.tree)
    kept = {path: entry for path, entry in theirs.items() if path.startswith(("srv/", "usr/lib64/", "boot/vmlinuz"))}
    assert differences({path: ours[path] for path in kept}, kept) == []
    assert any(path.startswith("boot/vmlinuz") for path in kept), "out of the partition for /boot"

    _, printed = boot(ordinary_user, place / "image.qcow2", "dev", COMMANDS | OF_FEDORA)
    assert printed["state"].strip() == "running", printed["failed"]
    assert printed["system"].strip() == "fedora 44"
    assert {line.split()[-1] for line in printed["whole"].splitlines() if line.strip()} <= CHANGED
    assert printed["kept"].strip() == "1234 65530 4755 2"
    assert "127.0.0.1" in printed["repository"]
