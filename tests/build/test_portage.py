"""Gentoo by Portage, from a stand-in for its mirror: trees without a kernel."""

from __future__ import annotations

import json
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements, cached, printed, ran
from tests.serving import served
from tests.standins import gentoo

from dibble.packages.rpm_keys import fingerprints
from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person
    from tests.standins.gentoo import Mirror

pytestmark = pytest.mark.build

PROFILE = f"default/linux/{host_arch()}/23.0/systemd"
STAGE = f"stage3-{host_arch()}-systemd"
RELEASES = f"releases/{host_arch()}/autobuilds"
LOOK = """
cat /var/lib/portage/world
ls -d /var/db/pkg/*/{tree,tcpdump,libpcap}*
stat -c '%a %U %n' /usr/bin/sudo
test -x /usr/bin/tree -a -x /usr/bin/tcpdump
emerge --version
"""
REMOVE = """
install-packages -e net-analyzer/tcpdump app-misc/never-there
ls -d /var/db/pkg/net-{libs,analyzer}/* || true
! test -e /usr/bin/tcpdump
"""


@pytest.fixture(scope="module")
def mirror(test_cache: Path) -> Mirror:
    return gentoo.made(test_cache, host_arch())


@pytest.fixture(scope="module")
def address(mirror: Mirror) -> Iterator[str]:
    with served(mirror.place) as url:
        yield url


def elements_of(person: Person, name: str, address: str, mirror: Mirror) -> tuple[SmallElements, dict[str, str]]:
    """The element `gentoo` without a kernel, one with packages, and the variables that their builds want."""
    elements = SmallElements(person, person.directory(name))
    elements.copy("gentoo")
    elements.write("more/README.rst", "====\nmore\n====\nSome packages.\n")
    elements.write("more/package-installs.yaml", "app-admin/sudo:\n")
    elements.script("more/install.d/50-install", "install-packages app-text/tree net-analyzer/tcpdump")
    elements.script("more/install.d/60-look", LOOK)
    elements.script("more/install.d/70-remove", REMOVE)
    key = elements.write("key.asc", mirror.key.read_text())
    return elements, {"DIB_DISTRIBUTION_MIRROR": address, "GENTOO_RELEASE_KEYS": str(key), "GENTOO_PROFILE": PROFILE}


def test_emerge_installs_binary_packages_and_ebuilds_and_removes_what_nothing_needs(
    ourselves: Person, mirror: Mirror, address: str
) -> None:
    elements, variables = elements_of(ourselves, "portage", address, mirror)
    events = elements.build("-o", "gen", "gentoo", "more", check=True, **variables)
    looked = printed(events, "install.d/60-look")
    assert looked[:3] == ["app-admin/sudo", "app-text/tree", "net-analyzer/tcpdump"], "what was asked for is selected"
    assert len([line for line in looked if line.startswith("/var/db/pkg/")]) == 3
    assert "4755 root /usr/bin/sudo" in looked
    installed = printed(events, "install.d/50-install")
    assert any("Emerging binary" in line and "net-libs/libpcap" in line for line in installed)
    assert any("Emerging (" in line and "app-text/tree" in line for line in installed), "it is built from source"
    assert any("app-misc/never-there is not installed" in str(event) for event in events)
    assert not [line for line in printed(events, "install.d/70-remove") if line.startswith("/var/db/pkg/")]

    with tarfile.open(elements.place / "gen.tar") as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
        conf = (tar.extractfile("./etc/portage/make.conf") or pytest.fail("no make.conf")).read().decode()
        hosts = tar.extractfile("./etc/portage/binrepos.conf/gentoobinhost.conf") or pytest.fail("no binrepos.conf")
        assert f"{address}/releases/{host_arch()}/binpackages" in hosts.read().decode()
    assert f'GENTOO_MIRRORS="{address}"' in conf
    assert "of the image build" not in conf
    assert "etc/portage/make.profile" in names
    of_build = (
        "var/cache/distfiles/",
        "var/cache/binhost/",
        "var/cache/binpkgs/",
        "var/db/repos/gentoo",
        "var/log/emerge",
    )
    assert not {name for name in names if name.startswith(of_build)}

    elements.script("more/finalise.d/50-more", "true")
    again = elements.build("-o", "gen", "gentoo", "more", check=True, **variables)
    assert "install.d/50-install" in cached(again)
    assert ran(again) == [step for step in ran(again) if step > "finalise.d/50"]

    elements.script("more/install.d/50-install", "install-packages net-analyzer/tcpdump app-text/tree")
    offline = elements.build("-o", "gen", "--offline", "gentoo", "more", check=True, **variables)
    assert "install.d/50-install" in ran(offline), "what it needs was downloaded"


def test_a_plan_tells_which_stage_and_tree_it_begins_with_and_what_it_cannot_tell(
    ourselves: Person, mirror: Mirror, address: str
) -> None:
    elements, variables = elements_of(ourselves, "portage-plan", address, mirror)
    shutil.rmtree(elements.elements / "gentoo")  # the shipped one is rehearsed, others are known when they have run
    words = ("-n", "-t", "tar", "--json", "gentoo", "more")
    done = elements.run("plan", *words, check=True, **variables)
    steps = {step["step"]: step["packages"] for step in json.loads(done.stdout)["steps"]}
    (stage, tree) = steps["root.d/10-gentoo-image"]
    assert (stage["name"], stage["version"]) == (STAGE, "20231114T221320Z")
    assert tree["name"] == "gentoo"
    assert "known when the stage is in place" in done.stderr


def test_a_key_that_did_not_sign_is_an_error_with_both_keys(ourselves: Person, mirror: Mirror, address: str) -> None:
    elements, variables = elements_of(ourselves, "portage-key", address, mirror)
    distrusted = next((ourselves.checkout / "src/dibble/packages/keys").glob("4D64FEC*.asc"))
    elements.write("key.asc", distrusted.read_text())
    (own,) = fingerprints([mirror.key.read_text()])
    said = elements.refused("gentoo", **variables)
    assert f"latest-{STAGE}.txt is signed with the key {own}, which is not trusted" in said
    assert "4D64FEC119C2029067D6E791F8D2585B8783D481 (Debian Stable Release Key" in said
    assert "GENTOO_RELEASE_KEYS=FILE" in said


def test_a_profile_or_stage_that_there_is_not_is_an_error_that_names_those_there_are(
    ourselves: Person, mirror: Mirror, address: str
) -> None:
    elements, variables = elements_of(ourselves, "portage-profile", address, mirror)
    base = PROFILE.removesuffix("/systemd")
    said = elements.refused("gentoo", **variables | {"GENTOO_PROFILE": base})
    assert f"Gentoo has no stage3-{host_arch()}-openrc, only {STAGE}" in said
    said = elements.refused("gentoo", **variables | {"GENTOO_PROFILE": f"{base}/desktop/systemd"})
    assert f"no profile {base}/desktop/systemd for {host_arch()}, only {base}, {base}/systemd" in said


def test_what_a_mirror_has_changed_is_refused(ourselves: Person, mirror: Mirror, tmp_path: Path) -> None:
    changed = tmp_path / "mirror"
    changed.mkdir()
    for path in mirror.place.rglob("*"):
        place = changed / path.relative_to(mirror.place)
        place.mkdir() if path.is_dir() else place.symlink_to(path)
    (digests,) = changed.glob(f"{RELEASES}/*/*.xz.DIGESTS")
    text = digests.read_text()
    digests.unlink()
    digests.write_text(text.replace("SHA512 HASH", "SHA512  HASH"))
    with served(changed) as url:
        elements, variables = elements_of(ourselves, "portage-changed", url, mirror)
        said = elements.refused("gentoo", **variables)
        assert "DIGESTS: its signature, by" in said
        assert "does not fit: it is damaged or tampered with" in said

        digests.write_text(text)
        elements.write("more/package-installs.yaml", "sys-fs/growpart:\n")  # which no other test has fetched
        (package,) = changed.glob("releases/*/binpackages/**/growpart-*.gpkg.tar")
        data = bytearray(package.read_bytes())
        data[len(data) // 2] ^= 1
        package.unlink()
        package.write_bytes(bytes(data))
        done = elements.run("build", "-n", "-t", "tar", "-o", "never", "gentoo", "more", check=False, **variables)
        assert done.returncode == 1
        assert "has the MD5" in done.stdout + done.stderr
