"""The shipped elements: whole, lint-free, combinable, and not tied to what would spoil the cache."""

from __future__ import annotations

import re

import pytest

from dibble.elements.assemble import element_set
from dibble.elements.find import UNUSABLE, depends_of, unusable_because
from dibble.elements.model import Element
from dibble.elements.readers.package_installs import squash
from dibble.elements.readers.pkg_map import read_pkg_map
from dibble.errors import ElementError
from dibble.plan.key import DESCRIPTIVE
from dibble.run.prepare import CATALOGUE
from dibble.sandbox.process import run

pytestmark = pytest.mark.unit

ELEMENTS = CATALOGUE / "elements"
NAMES = sorted(path.name for path in ELEMENTS.iterdir() if path.is_dir())
UNUSABLE_NAMES = [name for name in NAMES if (ELEMENTS / name / UNUSABLE).exists()]
USABLE = [name for name in NAMES if name not in UNUSABLE_NAMES]
DIFFERENCES = CATALOGUE.parents[2] / "docs/differences.md"
# What some elements cannot do without.
GIVEN = {
    "containerfile": {"DISTRO_NAME": "debian", "DIB_RELEASE": "trixie", "DIB_INIT_SYSTEM": "systemd"},
    "replace-partition": {
        "DIB_LOCAL_IMAGE": "/image.qcow2",
        "DISTRO_NAME": "rhel",
        "DIB_RELEASE": "9",
        "DIB_INIT_SYSTEM": "systemd",
        "EFI_BOOT_DIR": "EFI/redhat",
    },
    "replace-partition-redhat": {"DIB_LOCAL_IMAGE": "/image.qcow2", "DISTRO_NAME": "rhel"},
}
HERE = (
    *(
        "base",
        "cache-url",
        "debian-minimal",
        "debootstrap",
        "dib-init-system",
        "dib-python",
        "dpkg",
        "element-manifest",
    ),
    *("install-bin", "install-static", "install-types", "manifests", "modprobe", "no-final-image", "package-installs"),
    *("pkg-map", "source-repositories", "svc-map", "sysctl", "sysprep"),
)
DEFAULTS = {  # contract.md 6
    "DISTRO_NAME": "debian",
    "DIB_RELEASE": "stable",
    "DIB_INIT_SYSTEM": "systemd",
    "EFI_BOOT_DIR": "EFI/debian",
    "DIB_DISTRIBUTION_MIRROR": "http://ftp.debian.org/debian",
    "DIB_DEBIAN_SECURITY_MIRROR": "http://security.debian.org/debian-security",
    "DIB_DEBIAN_COMPONENTS": "main",
    "DIB_DEBOOTSTRAP_DEFAULT_LOCALE": "C.UTF-8",
    "DIB_APT_MINIMAL_CREATE_INTERFACES": "1",
    "DIB_NETWORK_INTERFACE_NAMES": "eth0 eth1",
    "DIB_CONTAINER": "0",
    "DIB_AVOID_PACKAGES_UPDATE": "0",
    "DIB_SKIP_BASE_PACKAGE_INSTALL": "0",
    "DIB_APT_LOCAL_CACHE": "1",
    "DIB_DISABLE_APT_CLEANUP": "0",
    "DIB_MANIFEST_IMAGE_DIR": "/etc/dib-manifests",
    "DIB_ELEMENT_MANIFEST_PATH": "/etc/dib-manifests/dib-element-manifest",
    "DIB_PYTHON_VERSION": "3",
    "DIB_PYTHON": "python3",
}
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def provided(name: str) -> set[str]:
    file = ELEMENTS / name / "element-provides"
    return set(file.read_text().split()) if file.exists() else set()


def depended_on(name: str) -> set[str]:
    """An element and all that it leads to."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in found and one in NAMES:
            found.add(one)
            waiting += [listed.name for listed in depends_of(Element(one, ELEMENTS / one))]
    return found


def words_with(name: str) -> list[str]:
    """What to ask for to get an image with this element in it: with a system whose packages it installs."""
    reached = depended_on(name)
    if any("operating-system" in provided(other) for other in reached):
        return [name]
    for glue, system in (
        ("yum", "centos-minimal"),
        ("redhat-common", "centos-minimal"),
        ("pacman", "arch-minimal"),
        ("zypper", "opensuse-minimal"),
    ):
        if glue in reached:
            return [name, system]
    return [name, "debian-minimal"]


def environment_after(names: list[str], **given: str) -> dict[str, str]:
    """The variables that environment.d of these elements leaves, in the order in which a build sources them."""
    files = {path.name: path for name in names for path in (ELEMENTS / name / "environment.d").glob("*")}
    lines = ["set -eu -o pipefail", *(f"source {files[name]}" for name in sorted(files)), "env -0"]
    done = run(["bash", "-c", "\n".join(lines)], env={"PATH": PATH, **given})
    return dict(entry.split("=", 1) for entry in done.output.split("\0") if "=" in entry)


def test_every_expected_element_ships() -> None:
    assert set(HERE) <= set(NAMES)


@pytest.mark.parametrize("name", USABLE)
def test_a_shipped_element_resolves_to_an_image(name: str) -> None:
    found = element_set(words_with(name), [ELEMENTS], arch="amd64", environment={})
    assert name in {element.name for element in found.elements}
    assert not found.hooks.notes


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_element_has_documentation_that_begins_with_its_name(name: str) -> None:
    lines = (ELEMENTS / name / "README.rst").read_text("utf-8").splitlines()
    assert lines[1] == name
    assert lines[0] == lines[2] == "=" * len(name)


def test_the_elements_that_cannot_be_used_are_listed_with_their_reasons() -> None:
    """The sentence that a user is told and the one in docs/differences.md are the same."""
    rows = re.findall(
        r"^\| (\S+) \| (.*) \|$", DIFFERENCES.read_text().partition("## Elements that cannot be used")[2], re.M
    )
    reasons = [(name, unusable_because(Element(name, ELEMENTS / name))) for name in UNUSABLE_NAMES]
    assert rows[1:] == reasons


@pytest.mark.parametrize("name", UNUSABLE_NAMES)
def test_an_element_that_cannot_be_used_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(ElementError) as caught:
        element_set(words_with(name), [ELEMENTS], arch="amd64", environment={})
    assert caught.value.message.endswith(unusable_because(Element(name, ELEMENTS / name)))


def test_no_hook_name_is_in_two_elements_that_can_be_together() -> None:
    owners: dict[str, list[str]] = {}
    for name in NAMES:
        for path in (ELEMENTS / name).glob("*/*"):
            if path.is_file() and path.parent.name not in ("tests", "test-elements"):
                owners.setdefault(f"{path.parent.name}/{path.name}", []).append(name)
    del owners["bin/install-packages"]  # of each package manager, and there is one in an image
    reached = {name: frozenset().union(*map(provided, depended_on(name))) for name in NAMES}
    for hook, names in owners.items():
        for other in names[1:]:
            assert reached[names[0]] & reached[other], f"{hook} is in {names[0]} and {other}"


def test_nothing_that_every_step_sees_names_what_differs_from_image_to_image() -> None:
    """environment.d and bin count for the keys of all steps: with IMAGE_NAME there, -o would rebuild everything."""
    files = [*ELEMENTS.glob("*/environment.d/*"), *ELEMENTS.glob("*/bin/*")]
    mine = [path for path in files if path.parts[-3] in HERE]
    assert mine
    for path in mine:
        words = set(re.findall(r"\w+", path.read_text()))
        named = [name for name in DESCRIPTIVE if name.removeprefix("BASH_FUNC_").rstrip("%") in words]
        assert named == [], f"{path} names {named}"


def test_defaults_are_those_that_elements_rely_on() -> None:
    names = [element.name for element in element_set(["debian-minimal", "element-manifest"], [ELEMENTS]).elements]
    found = environment_after([*names, "dib-python"])
    assert {name: found.get(name) for name in DEFAULTS} == DEFAULTS


def test_environment_files_give_the_same_when_sourced_again() -> None:
    names = ["debian-minimal", "debootstrap", "dpkg", "base", "dib-init-system", "dib-python", "manifests"]
    once = environment_after(names)
    again = environment_after(names, **{name: value for name, value in once.items() if name != "PATH"})
    drop = ("_", "SHLVL", "PWD", "OLDPWD")
    assert {n: v for n, v in once.items() if n not in drop} == {n: v for n, v in again.items() if n not in drop}


def sources(**given: str) -> list[str]:
    return environment_after(["debian-minimal"], **given)["DIB_APT_SOURCES_CONF"].splitlines()


def test_the_hosts_mirrors_become_the_images() -> None:
    found = environment_after(
        ["debian-minimal"],
        DIBBLE_DEBIAN_MIRROR="http://near.example/debian",
        DIBBLE_DEBIAN_SECURITY_MIRROR="http://near.example/debian-security",
    )
    assert found["DIB_DISTRIBUTION_MIRROR"] == "http://near.example/debian"
    assert found["DIB_DEBIAN_SECURITY_MIRROR"] == "http://near.example/debian-security"


def test_the_general_mirror_goes_before_debians_own_variable_and_the_hosts() -> None:
    found = environment_after(
        ["debian-minimal"],
        DIB_DISTRIBUTION_MIRROR="http://one/debian",
        DIB_DEBIAN_DISTRIBUTION_MIRROR="http://two/debian",
        DIBBLE_DEBIAN_MIRROR="http://three/debian",
    )
    assert found["DIB_DISTRIBUTION_MIRROR"] == "http://one/debian"


@pytest.mark.parametrize(
    ("arch", "mirror"),
    [
        ("amd64", "http://archive.ubuntu.com/ubuntu"),
        ("i386", "http://archive.ubuntu.com/ubuntu"),
        ("arm64", "http://ports.ubuntu.com/ubuntu-ports"),
        ("riscv64", "http://ports.ubuntu.com/ubuntu-ports"),
    ],
)
def test_ubuntu_has_an_archive_of_its_own_for_other_machines_than_pcs(arch: str, mirror: str) -> None:
    found = environment_after(["ubuntu-common", "ubuntu-minimal"], ARCH=arch)
    assert found["DIB_DISTRIBUTION_MIRROR"] == mirror
    assert found["DIB_DEBOOTSTRAP_SOURCES"].splitlines() == [
        f"deb {mirror} noble-{pocket} main universe" for pocket in ("updates", "security")
    ]
    own = environment_after(
        ["ubuntu-common", "ubuntu-minimal"], ARCH=arch, DIB_DISTRIBUTION_MIRROR="http://near.example/mine"
    )
    assert own["DIB_DISTRIBUTION_MIRROR"] == "http://near.example/mine"


def test_a_release_has_updates_and_security_updates() -> None:
    names = [line.partition(":")[0] for line in sources(DIB_RELEASE="trixie")]
    assert names == ["default", "updates", "security"]
    assert sources(DIB_RELEASE="trixie")[2].endswith("debian-security trixie-security main")


def test_unstable_has_no_updates_of_its_own() -> None:
    assert len(sources(DIB_RELEASE="sid")) == 1


def test_components_are_written_with_blanks_in_apt_sources() -> None:
    assert sources(DIB_DEBIAN_COMPONENTS="main,contrib")[0].endswith(" stable main contrib")


def test_sources_name_debians_keyring_unless_there_is_another() -> None:
    assert "signed-by" in sources()[0]
    assert "signed-by" not in sources(DIB_DEBIAN_KEYRING="/keys/ours.gpg")[0]


def test_an_operating_system_without_an_init_system_is_refused() -> None:
    file = ELEMENTS / "dib-init-system/environment.d/99-dib-init-system"
    done = run(["bash", "-eu", "-c", f"source {file}"], env={"PATH": PATH}, check=False)
    assert done.status == 1
    assert "DIB_INIT_SYSTEM" in done.output


@pytest.mark.parametrize(
    ("arch", "release", "kernels"),
    [
        ("amd64", "stable", ["linux-image-amd64"]),
        ("arm64", "stable", ["linux-image-arm64"]),
        ("ppc64el", "stable", ["linux-image-powerpc64le"]),
        ("i386", "bookworm", ["linux-image-686-pae"]),
        ("i386", "trixie", []),
    ],
)
def test_each_architecture_gets_its_kernel(arch: str, release: str, kernels: list[str]) -> None:
    elements = element_set(["debian-minimal"], [ELEMENTS]).elements
    wanted = squash(elements, {**DEFAULTS, "DIB_RELEASE": release}, arch)["install.d"]["install"]
    assert [package for package, _ in wanted if package.startswith("linux-image")] == kernels


@pytest.mark.parametrize(
    ("locale", "locales"), [("C.UTF-8", False), ("C", False), ("POSIX", False), ("en_GB.UTF-8", True)]
)
def test_locales_are_installed_for_a_locale_that_needs_them(locale: str, locales: bool) -> None:
    elements = element_set(["debian-minimal"], [ELEMENTS]).elements
    wanted = squash(elements, {**DEFAULTS, "DIB_DEBOOTSTRAP_DEFAULT_LOCALE": locale}, "amd64")["install.d"]["install"]
    assert (["locales", "debootstrap"] in wanted) is locales


@pytest.mark.parametrize(
    ("release", "package"),
    [("bookworm", "isc-dhcp-client"), ("oldstable", "isc-dhcp-client"), ("stable", "dhcpcd-base")]
    + [(release, "dhcpcd-base") for release in ("trixie", "forky", "testing", "sid")],
)
def test_a_release_gets_the_dhcp_client_that_it_has(release: str, package: str) -> None:
    assert read_pkg_map(ELEMENTS / "debootstrap/pkg-map").lookup("dhcp-client", "debian", release) == package


@pytest.mark.parametrize("name", USABLE)
def test_conditions_of_package_lists_ask_only_for_variables_that_have_a_default(name: str) -> None:
    elements = element_set(words_with(name), [ELEMENTS], arch="amd64").elements
    given = {"DIB_BLOCK_DEVICE_CONFIG": "", **GIVEN.get(name, {})}
    found = environment_after([element.name for element in elements], **given)
    squash(elements, found, "amd64")
