"""Elements that begin with an image of a distribution: which one they take, and when they refuse it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.hook_build import HookBuild, after, downloads

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.unit


@pytest.fixture
def build(tmp_path: Path) -> HookBuild:
    return HookBuild(tmp_path)


CENTOS_ENV = {"DIB_RELEASE": "9-stream", "DIB_FLAVOR": "GenericCloud"}
ENGINE = 'echo "${@: -1}/the image"'
"""The engine puts the image into the directory that is its last word, and tells the name."""


@pytest.mark.parametrize(
    "script",
    [
        "centos/root.d/10-centos-cloud-image",
        "fedora/root.d/10-fedora-cloud-image",
        "rhel/root.d/10-rhel-cloud-image",
        "opensuse/root.d/10-opensuse-cloud-image",
        "ubuntu/root.d/10-ubuntu-cloud-image",
    ],
)
def test_an_image_of_ones_own_is_taken_as_it_is(build: HookBuild, script: str) -> None:
    downloads(build, {})
    done = build.run(script, env={"ARCH": "amd64", "DIB_LOCAL_IMAGE": "/own.qcow2", "DIB_RELEASE": "9"})
    assert done.output.splitlines()[-1] == "unpacking /own.qcow2"


def asked(build: HookBuild, script: str, **env: str) -> dict[str, list[str]]:
    """What the engine is asked for, by option; what it gives is unpacked."""
    downloads(build, {})
    build.fake("dib-engine", ENGINE)
    done = build.run(script, env={"ARCH": "amd64", **env})
    assert done.output.splitlines()[-1] == f"unpacking {build.cache}/the image"
    assert build.calls[:2] == ["dib-engine", "fetch-image"]
    options = ("location", "image", "sums", "signature", "key", "fingerprint", "releases")
    return {option: found for option in options if (found := after(build.calls, f"--{option}"))}


def test_where_the_image_of_centos_is(build: HookBuild) -> None:
    name = "CentOS-Stream-GenericCloud-9-latest.x86_64.qcow2"
    assert asked(build, "centos/root.d/10-centos-cloud-image", **CENTOS_ENV) == {
        "location": ["https://cloud.centos.org/centos/9-stream/x86_64/images"],
        "image": [name],
        "sums": [f"{name}.SHA256SUM"],
        "releases": ["https://cloud.centos.org/centos"],
    }


def test_where_the_image_of_fedora_is_whose_name_has_the_number_of_the_compose(build: HookBuild) -> None:
    found = asked(build, "fedora/root.d/10-fedora-cloud-image", DIB_RELEASE="44")
    assert "--patterns" in build.calls
    assert found == {
        "location": ["https://dl.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/x86_64/images"],
        "image": [r"Fedora-Cloud-Base-Generic-44-[0-9]+\.[0-9]+\.x86_64\.qcow2"],
        "sums": ["Fedora-Cloud-.*CHECKSUM"],
        "key": ["https://fedoraproject.org/fedora.gpg"],
        "releases": ["https://dl.fedoraproject.org/pub/fedora/linux/releases"],
    }


def test_an_image_of_ubuntu_needs_its_own_key(build: HookBuild) -> None:
    key = "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"
    assert asked(build, "ubuntu/root.d/10-ubuntu-cloud-image", DIB_RELEASE="noble") == {
        "location": ["https://cloud-images.ubuntu.com/noble/current"],
        "image": ["noble-server-cloudimg-amd64.squashfs"],
        "sums": ["SHA256SUMS"],
        "signature": [".gpg"],
        "key": [f"https://keyserver.ubuntu.com/pks/lookup?op=get&options=mr&search=0x{key}"],
        "fingerprint": [key],
        "releases": ["https://cloud-images.ubuntu.com"],
    }


def test_an_image_of_opensuse_needs_a_key_of_its_repository(build: HookBuild) -> None:
    found = asked(build, "opensuse/root.d/10-opensuse-cloud-image", DIB_RELEASE="16.0")
    top = "https://download.opensuse.org/distribution/leap"
    assert found["image"] == ["Leap-16.0-Minimal-VM.x86_64-Cloud.qcow2"]
    assert found["sums"] == ["Leap-16.0-Minimal-VM.x86_64-Cloud.qcow2.sha256"]
    assert found["signature"] == [".asc"]
    assert found["key"] == [f"{top}/16.0/repo/oss/x86_64/repodata/repomd.xml.key"]
    assert "AD485664E901B867051AB15F35A2F86E29B700A4" in found["fingerprint"]
    assert found["releases"] == [top]


@pytest.mark.parametrize(
    ("script", "variable", "release"),
    [
        ("centos/root.d/10-centos-cloud-image", "DIB_CENTOS_IMAGE_KEYS", "9-stream"),
        ("fedora/root.d/10-fedora-cloud-image", "DIB_FEDORA_KEYS", "44"),
        ("opensuse/root.d/10-opensuse-cloud-image", "DIB_OPENSUSE_IMAGE_KEYS", "16.0"),
        ("ubuntu/root.d/10-ubuntu-cloud-image", "DIB_UBUNTU_IMAGE_KEYRING", "noble"),
    ],
)
def test_keys_and_a_place_of_ones_own_count_instead(build: HookBuild, script: str, variable: str, release: str) -> None:
    place = f"http://mirror/images/{release}/x86_64"
    own = {variable: "/own.asc", "DIB_CLOUD_IMAGES": place, "DIB_RELEASE": release, "DIB_FLAVOR": "GenericCloud"}
    found = asked(build, script, **own)
    assert found["key"] == ["/own.asc"]
    assert "fingerprint" not in found
    assert (found["location"], found["releases"]) == ([place], ["http://mirror/images"])


def test_offline_an_image_that_is_there_is_taken_as_it_is(build: HookBuild) -> None:
    downloads(build, {})
    name = "noble-server-cloudimg-amd64.squashfs"
    (build.cache / name).touch()
    env = {"ARCH": "amd64", "DIB_RELEASE": "noble", "DIB_OFFLINE": "1"}
    done = build.run("ubuntu/root.d/10-ubuntu-cloud-image", env=env)
    assert done.output.splitlines()[-1] == f"unpacking {build.cache}/{name}"


def test_rhel_says_which_image_it_wants(build: HookBuild) -> None:
    downloads(build, {})
    assert "DIB_LOCAL_IMAGE" in build.run("rhel/root.d/10-rhel-cloud-image", status=1).output


@pytest.mark.parametrize(
    ("profile", "init", "stage"),
    [
        ("default/linux/amd64/23.0", "openrc", "stage3-amd64-openrc"),
        ("default/linux/amd64/23.0/systemd", "systemd", "stage3-amd64-systemd"),
        ("default/linux/amd64/23.0/hardened/systemd", "systemd", "stage3-amd64-hardened-systemd"),
        ("default/linux/amd64/23.0/no-multilib", "openrc", "stage3-amd64-nomultilib-openrc"),
        ("default/linux/amd64/23.0/no-multilib/hardened", "openrc", "stage3-amd64-hardened-nomultilib-openrc"),
    ],
)
def test_a_profile_of_gentoo_has_its_stage(build: HookBuild, profile: str, init: str, stage: str) -> None:
    build.fake("dib-engine")
    build.run(
        "gentoo/root.d/10-gentoo-image", env={"ARCH": "amd64", "GENTOO_PROFILE": profile, "DIB_INIT_SYSTEM": init}
    )
    assert build.calls[:3] == ["dib-engine", "bootstrap", "portage"]
    asked = {
        option: after(build.calls, f"--{option}") for option in ("stage", "profile", "mirror", "key", "fingerprint")
    }
    assert asked == {
        "stage": [stage],
        "profile": [profile],
        "mirror": ["https://distfiles.gentoo.org"],
        "key": ["https://qa-reports.gentoo.org/output/service-keys.gpg"],
        "fingerprint": ["13EBBDBEDE7A12775DFDB1BABB572E0E2D182910", "DCD05B71EAB94199527F44ACDB6B8C1F96D8BF6D"],
    }


def test_gentoo_trusts_the_keys_it_is_given_and_keeps_the_mirror(build: HookBuild) -> None:
    build.fake("dib-engine")
    hosts = build.target / "etc/portage/binrepos.conf/gentoobinhost.conf"
    hosts.parent.mkdir(parents=True)
    hosts.write_text(
        "[gentoobinhost]\nsync-uri = https://distfiles.gentoo.org/releases/amd64/binpackages/23.0/x86-64\n"
    )
    key = build.root / "key.asc"
    key.write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    env = {"ARCH": "arm64", "GENTOO_PROFILE": "default/linux/arm64/23.0", "DIB_INIT_SYSTEM": "openrc"}
    own = {"GENTOO_RELEASE_KEYS": str(key), "DIB_DISTRIBUTION_MIRROR": "http://mirror/gentoo"}
    build.run("gentoo/root.d/10-gentoo-image", env=env | own)
    assert after(build.calls, "--key") == ["-----BEGIN PGP PUBLIC KEY BLOCK-----"]
    assert "--fingerprint" not in build.calls
    assert "http://mirror/gentoo/releases/amd64/binpackages" in hosts.read_text()
    assert (build.target / "etc/portage/make.conf").read_text() == '\nGENTOO_MIRRORS="http://mirror/gentoo"\n'

    done = build.run("gentoo/root.d/10-gentoo-image", status=1, env=env | {"GENTOO_RELEASE_KEYS": "/nowhere.asc"})
    assert "/nowhere.asc is not a file that the build can see" in done.output
