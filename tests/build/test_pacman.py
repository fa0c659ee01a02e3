"""Packages of Arch Linux by pacman, from a stand-in for its mirrors: roots without a kernel."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements, cached, printed, ran
from tests.serving import served
from tests.standins import arch
from tests.standins.redhat import ARCHITECTURES

from dibble.packages.rpm_keys import fingerprints
from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person
    from tests.standins.arch import Mirror

pytestmark = pytest.mark.build

PLACE = f"core/os/{ARCHITECTURES[host_arch()]}"
LOOK = """
pacman -Q bash systemd tcpdump lsof 2> /dev/null
pacman -Qqe 2> /dev/null | tr '\\n' ' '
echo
pacman -Qkk 2>&1 | grep '^warning: .*: /' || true
"""
REMOVE = """
install-packages -e tcpdump never-there
pacman -Q tcpdump libpcap 2>&1 | grep '^error' || true
"""
# What systemd's scripts and units change on purpose
CHANGED = {"/etc/credstore", "/etc/credstore.encrypted", "/var/log/journal"}
MOUNTED = {"/dev", "/proc", "/sys"}
NEVER_SIGNED = "4D64FEC119C2029067D6E791F8D2585B8783D481"


@pytest.fixture(scope="module")
def mirror(test_cache: Path) -> Mirror:
    return arch.made(test_cache, host_arch())


@pytest.fixture(scope="module")
def address(mirror: Mirror) -> Iterator[str]:
    with served(mirror.place) as url:
        yield url


def elements_of(person: Person, name: str, address: str, mirror: Mirror) -> tuple[SmallElements, dict[str, str]]:
    """The element `arch-minimal` without a kernel, one with packages, and the variables that their builds want."""
    elements = SmallElements(person, person.directory(name))
    elements.copy("arch-minimal")
    elements.write("more/README.rst", "====\nmore\n====\nSome packages.\n")
    elements.write("more/package-installs.yaml", "sudo:\n")
    elements.script("more/install.d/50-install", "install-packages tcpdump extra/lsof")
    elements.script("more/install.d/60-look", LOOK)
    elements.script("more/install.d/70-remove", REMOVE)
    elements.script("more/post-install.d/50-log", "cat /var/log/pacman.log")
    elements.script("more/post-install.d/60-upgrade", "install-packages -u")
    key = elements.write("key.asc", mirror.key.read_text())
    return elements, {"DIB_DISTRIBUTION_MIRROR": address, "DIB_PACMAN_KEYS": str(key)}


@pytest.fixture(params=["ourselves", "ordinary_user"])
def person(request: pytest.FixtureRequest) -> Person:
    found: Person = request.getfixturevalue(request.param)
    return found


def test_packages_are_put_in_place_by_pacman_and_are_whole(person: Person, mirror: Mirror, address: str) -> None:
    elements, variables = elements_of(person, "pacman", address, mirror)
    events = elements.build("-o", "arch", "arch-minimal", "more", check=True, **variables)
    looked = printed(events, "install.d/60-look")
    assert [line.split()[0] for line in looked[:4]] == ["bash", "systemd", "tcpdump", "lsof"]
    assert {"base", "lsof", "sudo", "tcpdump"} <= set(looked[4].split())
    assert not {"bash", "glibc", "libpcap"} & set(looked[4].split()), "what only others need is not asked for"
    assert {line.split()[2] for line in looked[5:]} <= CHANGED | MOUNTED
    assert "tcpdump can be used" in printed(events, "install.d/50-install"), "scripts of packages run"
    gone = printed(events, "install.d/70-remove")
    assert gone[-2:] == ["error: package 'tcpdump' was not found", "error: package 'libpcap' was not found"]
    assert any("never-there is not installed" in str(event) for event in events)
    log = printed(events, "post-install.d/50-log")
    assert any("[ALPM] installed bash (" in line for line in log)
    assert len({line.split()[0] for line in log}) == 1, "as late as the build's epoch"
    assert not [line for line in log if "/tmp/" in line or "--root" in line], "no directory of the build"

    with tarfile.open(elements.place / "arch.tar") as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
        servers = tar.extractfile("./etc/pacman.d/mirrorlist") or pytest.fail("no mirrorlist")
        assert servers.read().decode().splitlines()[1:] == [f"Server = {address}/$repo/os/$arch"]
    assert "usr/share/pacman/keyrings/image.gpg" in names
    left = (
        "var/cache/ldconfig/aux-cache",
        "var/lib/pacman/sync",
        "var/cache/pacman/pkg/",
        "var/lib/pacman/db.lck",
        "etc/pacman.d/gnupg",
    )
    assert not {name for name in names if name.startswith(left)}

    checked = elements.run("check", "--json", "-n", "-t", "tar", "arch-minimal", "more", check=True, **variables)
    could_go = {row["package"]: row for row in json.loads(checked.stdout)["unneeded"]}
    assert not {"bash", "glibc", "lsof", "sudo", "systemd"} & set(could_go), "asked for, or needed by such"

    elements.script("more/finalise.d/50-more", "true")
    again = elements.build("-o", "arch", "arch-minimal", "more", check=True, **variables)
    assert "install.d/50-install" in cached(again)
    assert ran(again) == [step for step in ran(again) if step > "finalise.d/50"]

    elements.script("more/install.d/50-install", "install-packages lsof tcpdump")
    offline = elements.build("-o", "arch", "--offline", "arch-minimal", "more", check=True, **variables)
    assert "install.d/50-install" in ran(offline), "what it needs was downloaded"
    assert "root.d/08-arch-minimal" in cached(offline)


def test_a_plan_tells_what_will_be_installed_and_removed_before_it_is(
    ourselves: Person, mirror: Mirror, address: str
) -> None:
    elements, variables = elements_of(ourselves, "pacman", address, mirror)  # as another test does: much is cached
    elements.build("-o", "arch", "arch-minimal", "more", check=True, **variables)  # so it is known what scripts ask for
    # Otherwise than it was built: then no layer tells of its packages.
    plan = elements.plan(
        "-p", "bash,less", "arch-minimal", "more", **variables | {"DIB_ARCH_REPOSITORIES": "extra core"}
    )
    told = {step["step"]: {row["name"]: row["action"] for row in step["packages"] or ()} for step in plan["steps"]}
    assert {"bash", "filesystem", "pacman"} <= set(told["root.d/08-arch-minimal"])
    assert told["install.d/50-install"] == dict.fromkeys(("liblsof0", "libpcap", "lsof", "tcpdump"), "install")
    assert told["install.d/70-remove"] == {"libpcap": "remove", "tcpdump": "remove"}
    (asked,) = (packages for packages in told.values() if "less" in packages)
    assert asked["less"] == "install"
    assert not set(asked) & set(told["root.d/08-arch-minimal"]), "these are there already"


def test_a_key_that_did_not_sign_is_an_error_with_both_keys(ourselves: Person, mirror: Mirror, address: str) -> None:
    elements, variables = elements_of(ourselves, "pacman-key", address, mirror)
    (own,) = fingerprints([mirror.key.read_text()])
    distrusted = next((ourselves.checkout / "src/dibble/packages/keys").glob(f"{NEVER_SIGNED[:7]}*.asc"))
    elements.write("key.asc", distrusted.read_text())
    said = elements.refused("arch-minimal", **variables)
    assert f"core.db is signed with the key {own}, which is not trusted" in said
    assert f"{NEVER_SIGNED} (Debian Stable Release Key" in said
    assert "DIB_PACMAN_KEYS=FILE" in said

    said = elements.refused("arch-minimal", **variables | {"DIB_PACMAN_KEYS": ""})
    assert f"is signed with the key {own}, which is not trusted" in said
    assert "(Arch Linux Master Key)" not in said
    assert "archlinux.org>" in said, "Arch's own keys are those that count unless others are named"


def test_packages_that_are_not_signed_or_have_changed_are_refused(
    ourselves: Person, mirror: Mirror, tmp_path: Path
) -> None:
    changed = tmp_path / "mirror"
    changed.mkdir()
    for path in mirror.place.rglob("*"):
        place = changed / path.relative_to(mirror.place)
        place.mkdir() if path.is_dir() else place.symlink_to(path)
    (signature,) = changed.glob(f"{PLACE}/less-*.sig")
    (package,) = changed.glob(f"{PLACE}/cpio-*.zst")
    signature.unlink()
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 1
    package.unlink()
    package.write_bytes(bytes(data))
    with served(changed) as url:
        elements, variables = elements_of(ourselves, "pacman-unsigned", url, mirror)
        # packages that no other test has fetched
        elements.write("more/package-installs.yaml", "less:\n")
        said = elements.refused("arch-minimal", "more", **variables)
        assert f"{signature.stem} is not signed: there is no {url}/{PLACE}/{signature.name}" in said
        (other,) = mirror.place.glob(f"{PLACE}/gzip-*.sig")
        signature.write_bytes(other.read_bytes())
        said = elements.refused("arch-minimal", "more", **variables)
        assert f"{signature.stem}: its signature, by" in said
        assert "does not fit" in said
        elements.write("more/package-installs.yaml", "cpio:\n")
        assert "sends a file with sha256" in elements.refused("arch-minimal", "more", **variables)


def test_what_is_nowhere_is_an_error_that_says_where_to_look(ourselves: Person, mirror: Mirror, address: str) -> None:
    elements, variables = elements_of(ourselves, "pacman-missing", address, mirror)
    elements.write("more/package-installs.yaml", "no-such-package:\n")
    assert "no repository has a package no-such-package" in elements.refused("arch-minimal", "more", **variables)
    said = elements.refused("arch-minimal", **variables | {"DIB_ARCH_SNAPSHOT": "2026-11-01"})
    assert "there is no repository core" in said
    assert f"{address}/repos/2026/11/01/{PLACE}/core.db" in said
    assert "DIB_ARCH_SNAPSHOT" in said
    assert "Arch Linux has no release 2026" in elements.refused("arch-minimal", **variables | {"DIB_RELEASE": "2026"})
