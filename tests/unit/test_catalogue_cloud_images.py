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


SUM = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"  # of "hello\n"
CENTOS = "CentOS-Stream-GenericCloud-9-latest.x86_64.qcow2"
CENTOS_ENV = {"ARCH": "amd64", "DIB_RELEASE": "9-stream", "DIB_FLAVOR": "GenericCloud"}


def test_a_cloud_image_is_unpacked_when_it_is_what_its_checksum_says(build: HookBuild) -> None:
    downloads(build, {CENTOS: "hello\n", f"{CENTOS}.SHA256SUM": f"# c\nSHA256 ({CENTOS}) = {SUM}\n"})
    done = build.run("centos/root.d/10-centos-cloud-image", env=CENTOS_ENV)
    assert f"unpacking {build.cache}/{CENTOS}" in done.output
    assert any(call.startswith("https://cloud.centos.org/centos/9-stream/x86_64/images/") for call in build.calls)


def test_a_cloud_image_that_is_not_is_fetched_once_more_and_refused(build: HookBuild) -> None:
    downloads(build, {CENTOS: "bye\n", f"{CENTOS}.SHA256SUM": f"SHA256 ({CENTOS}) = {SUM}\n"})
    done = build.run("centos/root.d/10-centos-cloud-image", status=1, env=CENTOS_ENV)
    assert "is not what its checksum says" in done.output
    assert "unpacking" not in done.output
    assert build.calls.count("-f") == 2


def test_a_checksum_list_without_the_image_is_refused(build: HookBuild) -> None:
    downloads(build, {CENTOS: "hello\n", f"{CENTOS}.SHA256SUM": f"{SUM}  other.qcow2\n"})
    done = build.run("centos/root.d/10-centos-cloud-image", status=1, env=CENTOS_ENV)
    assert "does not name" in done.output


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


FEDORA = "Fedora-Cloud-Base-Generic-44-1.14.x86_64.qcow2"


def fedora(build: HookBuild) -> None:
    listing = f'<a href="{FEDORA}">x</a> <a href="{FEDORA.replace("1.14", "1.9")}">x</a>'
    listing += ' <a href="Fedora-Cloud-44-1.14-x86_64-CHECKSUM">x</a>'
    downloads(
        build,
        {
            FEDORA: "hello\n",
            "Fedora-Cloud-44-1.14-x86_64-CHECKSUM": f"SHA256 ({FEDORA}) = {SUM}\n",
            "fedora.gpg": "keys",
            "index": listing,
        },
    )
    # The address of the directory ends with a slash.
    script = build.hooks / "bin/cache-url"
    script.write_text(
        script.read_text().replace("cp ", f'case $1 in */) cp {build.root}/web/index "$2"; exit ;; esac\ncp ')
    )


def test_the_newest_compose_of_fedora_is_taken(build: HookBuild) -> None:
    fedora(build)
    done = build.run("fedora/root.d/10-fedora-cloud-image", env={"ARCH": "amd64", "DIB_RELEASE": "44"})
    assert f"unpacking {build.cache}/{FEDORA}" in done.output


def test_a_checksum_list_of_fedora_with_a_bad_signature_is_refused(build: HookBuild) -> None:
    fedora(build)
    (build.root / "forged").touch()
    done = build.run("fedora/root.d/10-fedora-cloud-image", status=1, env={"ARCH": "amd64", "DIB_RELEASE": "44"})
    assert "the signature of Fedora-Cloud-44-1.14-x86_64-CHECKSUM" in done.output


def test_an_ubuntu_image_needs_its_signed_checksum(build: HookBuild) -> None:
    name = "noble-server-cloudimg-amd64.squashfs"
    downloads(build, {name: "hello\n", "SHA256SUMS": f"{SUM} *{name}\n", "SHA256SUMS.gpg": ""})
    env = {"ARCH": "amd64", "DIB_RELEASE": "noble"}
    done = build.run("ubuntu/root.d/10-ubuntu-cloud-image", env=env)
    assert f"unpacking {build.cache}/{name}" in done.output
    assert after(build.calls, "-f")[0] == "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"
    (build.root / "forged").touch()
    build.run("ubuntu/root.d/10-ubuntu-cloud-image", status=1, env=env)


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
