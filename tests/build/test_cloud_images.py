"""Distributions out of their images for clouds, whole: from stand-ins of those, and of the mirrors behind them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.build.catalogue_images import owned
from tests.build.debian_trees import Entry, differences, of_tar
from tests.serving import served
from tests.standins import cloud_images, redhat, suse
from tests.standins.make import made as made_packages

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.people import Person
    from tests.standins.redhat import Distribution

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(host_arch() != "amd64", reason="the images are amd64's"),
]

# What a build changes of the system that it begins with: the disk's fstab, sources of packages, lists of packages.
OF_DNF = ("etc/fstab", "etc/systemd/system-preset", "var/lib/dnf", "var/lib/rpm", "etc/dnf")
CHANGED = {
    "centos": (*OF_DNF, "etc/yum.repos.d/centos.repo"),
    "debian": (
        *("etc/fstab", "etc/ld.so.cache", "etc/systemd/system-preset", "etc/apt"),
        *("var/cache", "var/lib/dpkg", "var/lib/apt"),
    ),
    "opensuse": ("etc/fstab", "etc/systemd/system-preset", "etc/zypp", "usr/lib/sysimage/rpm", "var/lib/zypp"),
    "rhel": OF_DNF,
}
ADDED = {"centos": "usr/bin/traceroute", "opensuse": "usr/bin/less", "rhel": "usr/bin/traceroute"}
"""A program of a package that the element installs."""
OWN_REPOSITORY = "[{name}]\nname={name}\nbaseurl={url}\nenabled=1\ngpgcheck=1\ngpgkey=file://{key}\n"


@pytest.fixture(scope="module")
def mirrors(test_cache: Path) -> Iterator[Mapping[str, str]]:
    """The addresses of packages, by distribution."""
    packages: dict[str, Distribution] = {"centos": redhat.centos(), "opensuse": suse.leap()}
    centos, leap = (made_packages(one, test_cache) for one in packages.values())
    with served(centos) as of_centos, served(leap) as of_leap:
        yield {"centos": f"{of_centos}/{packages['centos'].mirror}", "opensuse": of_leap}


@pytest.fixture(scope="module")
def address(test_cache: Path) -> Iterator[Mapping[str, str]]:
    """The addresses of images: the same for everybody, as they stand in what is built."""
    with (
        served(cloud_images.made("centos", test_cache).web) as centos,
        served(cloud_images.made("debian", test_cache).web) as debian,
        served(cloud_images.made("opensuse", test_cache).web) as opensuse,
        served(cloud_images.made("rhel", test_cache).web) as rhel,
    ):
        yield {"centos": centos, "debian": debian, "opensuse": opensuse, "rhel": rhel}


def settings(
    person: Person, image: cloud_images.CloudImage, place: Path, address: str, mirrors: Mapping[str, str]
) -> dict[str, str]:
    key = cloud_images.key_for(image, (person.uid, person.gid), place)
    found = cloud_images.variables(image, address, key)
    if image.name in mirrors:
        found["DIB_DISTRIBUTION_MIRROR"] = mirrors[image.name]
    if image.name == "rhel":  # no subscription, but repositories of one's own
        system = redhat.centos()
        own = place / "own.repo"
        own.write_text(
            "".join(
                OWN_REPOSITORY.format(
                    name=one.path.split("/")[1], url=f"{mirrors['centos']}/{one.path}", key=system.system.key
                )
                for one in system.repositories[:2]
            )
        )
        owned(person, own)
        found["DIB_YUM_REPO_CONF"] = str(own)
    return found


def built(person: Person, image: cloud_images.CloudImage, address: str, mirrors: Mapping[str, str], *more: str) -> Path:
    """The directory with the image's tree, as the element makes it."""
    place = person.directory(f"cloud-image-{image.name}")
    env = person.environment(**settings(person, image, place, address, mirrors))
    element = {"debian": "debian-cloud-image"}.get(image.name, image.name)
    # Debian's own archive may be newer than the image.
    words = ("-n",) if image.name == "debian" else ()
    person.dibble("build", *words, *more, "-t", "tar", "-o", "image", element, cwd=place, env=env, timeout=1800)
    return place


def kept(tree: Mapping[str, Entry]) -> None:
    """What is easily lost on the way (`cloud_images.KEEPSAKES`)."""
    file = tree["srv/kept/file"]
    assert (file.owner, file.group, file.mode) == ("1234", "65530", 0o4755)
    assert file.twins == ("srv/kept/deep/twin", "srv/kept/file")
    assert dict(file.attributes) == {"user.comment": b"of a cloud"}
    assert dict(tree["srv/kept/ping"].attributes)["security.capability"][4:8] == bytes.fromhex("00200000")
    assert tree["srv/kept/link"].content == b"../file"


@pytest.mark.parametrize("name", CHANGED)
def test_the_system_is_the_image_s_with_what_its_element_adds(
    ordinary_user: Person, test_cache: Path, address: Mapping[str, str], mirrors: Mapping[str, str], name: str
) -> None:
    image = cloud_images.made(name, test_cache)
    place = built(ordinary_user, image, address[name], mirrors)
    ours, theirs = of_tar(place / "image.tar"), of_tar(image.tree)
    of_image = {path: entry for path, entry in ours.items() if path in theirs}
    assert differences(of_image, theirs, CHANGED[name]) == []
    kept(ours)
    if name in ADDED:
        assert ADDED[name] in ours.keys() - theirs.keys()


def test_root_builds_the_very_same_bytes_anew(
    ordinary_user: Person,
    ourselves: Person,
    test_cache: Path,
    address: Mapping[str, str],
    mirrors: Mapping[str, str],
) -> None:
    image = cloud_images.made("opensuse", test_cache)
    digests = set()
    for person in {ordinary_user, ourselves}:
        place = built(person, image, address["opensuse"], mirrors, "--refresh", "all")
        digests.add(hashlib.sha256((place / "image.tar").read_bytes()).hexdigest())
    assert len(digests) == 1
