"""Ubuntu out of packages, from a stand-in for its archive: one build gives a disk and a container's image."""

from __future__ import annotations

import json
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from tests.boot import announced
from tests.boot.booted import PASSWORD, boot
from tests.serving import served
from tests.standins import ubuntu

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(host_arch() != "amd64", reason="the packages are amd64's"),
]

COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend --plain",
    "system": ". /etc/os-release; echo $ID $VERSION_CODENAME",
    "kernel": "dpkg-query --show --showformat='${Status}' linux-image-virtual",
    "base": "dpkg-query --show --showformat='${Version}' base-files",
    "audit": "dpkg --audit",
    "keyring": "dpkg-query --search /etc/apt/trusted.gpg.d/ubuntu-keyring-2018-archive.gpg",
}
ELEMENTS = ("ubuntu-minimal", "vm")


@pytest.fixture(scope="module")
def archive(test_cache: Path, debian_packages: None) -> Iterator[tuple[ubuntu.UbuntuArchive, str]]:
    """The stand-in, and the address of its mirror."""
    made = ubuntu.made(test_cache)
    with served(made.place) as address:
        yield made, f"{address}/{made.mirror}"


def settings(person: Person, place: Path, mirror: str, key: Path) -> dict[str, str]:
    """The environment of a build. A build sees the directory that it is started in, so the key goes there."""
    shutil.copyfile(key, place / key.name)
    (place / key.name).chmod(0o644)
    return person.environment(
        DIB_DISTRIBUTION_MIRROR=mirror,
        DIB_APT_KEYRING=str(place / key.name),
        DIB_UBUNTU_KERNEL="linux-image-virtual",
        DIB_DEV_USER_PASSWORD=PASSWORD,
    )


def test_a_disk_boots_and_a_container_s_image_holds_the_same_system(
    ordinary_user: Person, archive: tuple[ubuntu.UbuntuArchive, str]
) -> None:
    made, mirror = archive
    place = ordinary_user.directory("boot-ubuntu")
    env = settings(ordinary_user, place, mirror, made.key)
    recipe = str(ordinary_user.checkout / announced.RECIPE)
    ordinary_user.dibble(
        "build", "-t", "qcow2,docker", "-o", "image", recipe, *ELEMENTS, cwd=place, env=env, timeout=1800
    )

    with tarfile.open(place / "image.docker") as docker:
        manifest: list[dict[str, Any]] = json.load(docker.extractfile("manifest.json") or pytest.fail("no manifest"))
        names: set[str] = set()
        for layer in manifest[0]["Layers"]:
            with tarfile.open(fileobj=docker.extractfile(layer)) as tree:
                names |= {name.removeprefix("./") for name in tree.getnames()}
    assert {"usr/lib/os-release", "etc/lsb-release", "etc/apt/sources.list"} <= names

    _, output = boot(ordinary_user, place / "image.qcow2", announced.USER, COMMANDS | announced.COMMANDS)
    announced.check(output, "Ubuntu")
    assert output["failed"] == "", "failed units"
    assert output["state"] == "running"
    assert output["system"] == "ubuntu noble"
    assert output["kernel"] == "install ok installed"
    assert output["base"].endswith("ubuntu10.1"), "the one of noble-updates"
    assert output["audit"] == ""
    assert output["keyring"].startswith("ubuntu-keyring:")


def test_another_key_is_an_error_that_names_the_one_that_signed(
    ordinary_user: Person, archive: tuple[ubuntu.UbuntuArchive, str]
) -> None:
    made, mirror = archive
    place = ordinary_user.directory("ubuntu-other-key")
    env = settings(ordinary_user, place, mirror, made.other_key)
    done = ordinary_user.dibble("build", "-t", "tar", "-o", "image", *ELEMENTS, cwd=place, env=env, check=False)
    assert done.returncode != 0
    assert "is signed with a key that is not trusted" in done.stderr
    assert made.fingerprint[-16:] in done.stderr, "as much of the fingerprint as apt tells"
    assert "Traceback" not in done.stderr
    assert not (place / "image.tar").exists()


def test_a_keyring_that_is_not_there_is_an_error_that_names_it(
    ordinary_user: Person, archive: tuple[ubuntu.UbuntuArchive, str]
) -> None:
    made, mirror = archive
    place = ordinary_user.directory("ubuntu-no-key")
    env = settings(ordinary_user, place, mirror, made.key) | {"DIB_APT_KEYRING": str(place / "none.asc")}
    done = ordinary_user.dibble("build", "-t", "tar", "-o", "image", *ELEMENTS, cwd=place, env=env, check=False)
    assert done.returncode != 0
    assert "none.asc" in done.stderr
    assert "Traceback" not in done.stderr
