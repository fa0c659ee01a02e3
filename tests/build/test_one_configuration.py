"""examples/one-configuration on a distribution and an architecture that no test boots: what is in the tree.

Debian, Ubuntu, Fedora, openSUSE, Arch Linux and Gentoo for amd64 are booted with it (tests/boot/announced.py).
"""

from __future__ import annotations

import re
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.boot.announced import RECIPE, USER
from tests.build.catalogue_images import Image
from tests.standins import redhat
from tests.standins.mirror import mirror

from dibble.packages.debian_sources import host_mirrors
from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

EM_X86_64, EM_AARCH64, EM_RISCV = 62, 183, 243
"""e_machine of ELF's head, at offset 18 (elf.h)."""


def built(person: Person, name: str, *words: str, **variables: str) -> Image:
    place = person.directory(f"one-{name}")
    env = person.environment(**variables)
    recipe = str(person.checkout / RECIPE)
    done = person.dibble("build", "-t", "tar", "-o", "one", recipe, *words, cwd=place, env=env, timeout=1800)
    return Image(person, place, "one", done.stdout)


def check(image: Image, ssh: str, machine: int) -> None:
    """What all distributions have in common; `ssh` is what the unit of the SSH server is called."""
    assert image.passwd(USER)[6] == "/bin/bash"
    home = image.passwd(USER)[5].lstrip("/")
    assert image.owners[home] == tuple(map(int, image.passwd(USER)[2:4]))
    assert image.text[f"etc/sudoers.d/{USER}"] == f"{USER} ALL=(ALL:ALL) NOPASSWD:ALL\n"
    assert image.modes["usr/local/bin/announce"] == 0o755
    assert image.enabled("announce.service")
    assert image.enabled(f"{ssh}.service")
    assert {"usr/bin/ip", "usr/sbin/ip"} & {*image.modes, *image.links}
    assert not [path for path in image.modes if re.match(r"etc/ssh/ssh_host_.*_key$", path)], (
        "each machine makes its own"
    )
    with tarfile.open(image.directory / "one.tar") as archive:
        server = archive.extractfile("./usr/sbin/sshd")
        assert server
        assert int.from_bytes(server.read(20)[18:], "little") == machine


def recorded(image: Image, path: str, name: bytes) -> bool:
    """Whether the database of packages names one; in rpm's the headers of packages are as they came."""
    with tarfile.open(image.directory / "one.tar") as archive:
        database = archive.extractfile(f"./{path}")
        assert database
        return name in database.read()


@pytest.mark.skipif(host_arch() != "amd64", reason="arm64 is no foreign architecture")
@pytest.mark.parametrize(("arch", "machine"), [("arm64", EM_AARCH64), ("riscv64", EM_RISCV)])
def test_debian_for_another_machine(ordinary_user: Person, debian_packages: None, arch: str, machine: int) -> None:
    # Security updates of less usual architectures reach some mirrors in parts; then nothing can be installed from them.
    sources = f"default:deb {host_mirrors().archive} trixie main"
    given = {"DIB_APT_SOURCES_CONF": sources} if arch == "riscv64" else {}
    image = built(ordinary_user, arch, "-a", arch, "debian-minimal", DIB_RELEASE="trixie", **given)
    check(image, "ssh", machine)
    assert {"iproute2", "openssh-server", "sudo"} <= image.packages.keys()
    assert f"Architecture: {arch}\n" in image.text_of_dpkg


@pytest.fixture
def centos(ordinary_user: Person, test_cache: Path) -> Iterator[dict[str, str]]:
    distribution = redhat.centos(arch=host_arch())
    with mirror(distribution, test_cache, ordinary_user) as variables:
        yield variables | {"DIB_RELEASE": "9-stream"}


def test_centos(ordinary_user: Person, centos: dict[str, str]) -> None:
    image = built(ordinary_user, "centos", "centos-minimal", **centos)
    check(image, "sshd", EM_X86_64 if host_arch() == "amd64" else EM_AARCH64)
    for name in (b"iproute", b"openssh-server", b"sudo"):
        assert recorded(image, "var/lib/rpm/rpmdb.sqlite", b"\0%s\0" % name), name
