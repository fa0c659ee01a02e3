"""Scripts of the shipped elements that run outside a target, run here on directories, with dib-engine faked on PATH."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.unit import needed
from tests.unit.hook_build import ELEMENTS, SYSTEM, HookBuild

from dibble.sandbox.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.sandbox.process import Completed

pytestmark = pytest.mark.unit

BOOTSTRAP = {"ARCH": "amd64", "DIB_RELEASE": "trixie", "DIB_DISTRIBUTION_MIRROR": "http://mirror/debian"}
KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"


@pytest.fixture
def build(tmp_path: Path) -> HookBuild:
    return HookBuild(tmp_path)


# --- debootstrap


def request(build: HookBuild, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The options that the bootstrap asks the engine with."""
    build.fake("dib-engine")
    build.run("debootstrap/root.d/08-debootstrap", env={**BOOTSTRAP, **(env or {})})
    words = build.calls
    assert words[:3] == ["dib-engine", "bootstrap", "apt"]
    found: dict[str, str] = {}
    for word in words[3:]:
        if word.startswith("--"):
            found[word], last = "", word
        else:
            found[last] = word
    return found


def test_a_bootstrap_asks_for_minbase_of_the_release(build: HookBuild) -> None:
    assert request(build) == {
        "--suite": "trixie",
        "--arch": "amd64",
        "--mirror": "http://mirror/debian",
        "--components": "main",
        "--variant": "minbase",
    }


@pytest.mark.parametrize("form", ["--include=vim,less --variant=important", "--include vim,less --variant important"])
def test_extra_arguments_take_their_values_in_either_form(build: HookBuild, form: str) -> None:
    found = request(build, {"DIB_DEBOOTSTRAP_EXTRA_ARGS": form})
    assert (found["--include"], found["--variant"]) == ("vim,less", "important")


def test_extra_arguments_without_sense_here_are_refused_by_name(build: HookBuild) -> None:
    done = build.run(
        "debootstrap/root.d/08-debootstrap", status=1, env={**BOOTSTRAP, "DIB_DEBOOTSTRAP_EXTRA_ARGS": "--second-stage"}
    )
    assert "--second-stage" in done.output


@pytest.mark.parametrize("name", ["DIB_APT_KEYRING", "DIB_DEBIAN_KEYRING"])
def test_either_variable_names_the_keyring(build: HookBuild, name: str) -> None:
    assert request(build, {name: "/keys/ours.gpg"})["--keyring"] == "/keys/ours.gpg"


def test_signatures_are_left_out_only_when_asked(build: HookBuild) -> None:
    assert "--unsigned" in request(build, {"DIB_DEBOOTSTRAP_EXTRA_ARGS": "--no-check-gpg"})


def test_an_https_mirror_brings_the_certificates(build: HookBuild) -> None:
    build.fake("dib-engine")
    build.run(
        "debootstrap/root.d/08-debootstrap",
        env={**BOOTSTRAP, "DIB_DISTRIBUTION_MIRROR": "https://mirror.example/debian"},
    )
    assert "ca-certificates" in build.calls


def test_settings_left_in_the_root_count_and_vanish(build: HookBuild) -> None:
    (build.target / ".extra_settings").write_text('DIB_DEBOOTSTRAP_EXTRA_ARGS="--include=sysvinit-core"\n')
    assert request(build)["--include"] == "sysvinit-core"
    assert not (build.target / ".extra_settings").exists()


# --- debian-minimal, dpkg


def test_each_line_of_the_sources_goes_to_the_file_it_names(build: HookBuild) -> None:
    conf = "a:deb http://one x main\n\n  b:deb http://two y main\na:deb-src http://one x main"
    build.run("debian-minimal/root.d/75-debian-minimal-baseinstall", env={"DIB_APT_SOURCES_CONF": conf})
    folder = build.target / "etc/apt/sources.list.d"
    assert (folder / "a.list").read_text() == "deb http://one x main\ndeb-src http://one x main\n"
    assert (folder / "b.list").read_text() == "deb http://two y main\n"


def test_a_source_without_a_name_is_refused(build: HookBuild) -> None:
    script = "debian-minimal/root.d/75-debian-minimal-baseinstall"
    assert "NAME:SOURCE" in build.run(script, status=1, env={"DIB_APT_SOURCES_CONF": "deb http://one x main"}).output


def test_the_name_of_the_system_resolves(build: HookBuild) -> None:
    build.run(
        "debian-minimal/root.d/75-debian-minimal-baseinstall", env={"DIB_APT_SOURCES_CONF": "a:deb http://one x main"}
    )
    name = (build.target / "etc/hostname").read_text().strip()
    assert f"127.0.1.1 {name}" in (build.target / "etc/hosts").read_text().splitlines()


def test_the_image_trusts_the_keyring_it_was_bootstrapped_with(build: HookBuild) -> None:
    key = build.root / "ours.gpg"
    key.write_text(KEY)
    build.run(
        "debian-minimal/root.d/75-debian-minimal-baseinstall",
        env={"DIB_APT_SOURCES_CONF": "a:deb http://one x main", "DIB_DEBIAN_KEYRING": str(key)},
    )
    assert (build.target / "etc/apt/trusted.gpg.d/image-build.asc").read_text() == KEY


def test_added_keys_get_the_ending_that_apt_goes_by(build: HookBuild) -> None:
    keys = build.root / "keys"
    keys.mkdir()
    (keys / "armoured.key").write_text(KEY)
    (keys / "binary").write_bytes(b"\x99\x01")
    build.run("dpkg/root.d/09-dpkg-apt-keys", env={"DIB_ADD_APT_KEYS": str(keys)})
    folder = build.target / "etc/apt/trusted.gpg.d"
    assert sorted(path.name for path in folder.iterdir()) == ["armoured.asc", "binary.gpg"]


def test_the_policy_against_services_goes_when_it_is_the_builds(build: HookBuild) -> None:
    policy = build.target / "usr/sbin/policy-rc.d"
    policy.parent.mkdir(parents=True)
    build.run("dpkg/root.d/50-dpkg-no-services")
    assert run([str(policy)], env={"PATH": SYSTEM}, check=False).status == 101
    build.run("dpkg/cleanup.d/40-dpkg-services")
    assert not policy.exists()


def test_a_policy_of_the_image_itself_stays(build: HookBuild) -> None:
    policy = build.target / "usr/sbin/policy-rc.d"
    policy.parent.mkdir(parents=True)
    policy.write_text("#!/bin/sh\nexit 0\n")
    build.run("dpkg/root.d/50-dpkg-no-services")
    build.run("dpkg/cleanup.d/40-dpkg-services")
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        (["vim", "less=1"], ["dib-engine", "install", "vim", "less=1"]),
        (["-e", "vim"], ["dib-engine", "remove", "vim"]),
        (["-u"], ["dib-engine", "upgrade"]),
        ([], []),
    ],
)
def test_install_packages_hands_its_request_to_the_engine(
    build: HookBuild, arguments: list[str], calls: list[str]
) -> None:
    build.fake("dib-engine")
    build.run("dpkg/bin/install-packages", *arguments)
    assert build.calls == calls


def test_install_packages_maps_names_with_an_elements_map(build: HookBuild) -> None:
    build.fake("dib-engine")
    build.fake("pkg-map", "echo one two; echo three")
    build.run("dpkg/bin/install-packages", "-m", "base", "a", "b")
    assert build.calls[-5:] == ["dib-engine", "install", "one", "two", "three"]


def test_install_packages_fails_when_a_name_is_not_mapped(build: HookBuild) -> None:
    build.fake("dib-engine")
    build.fake("pkg-map", "exit 1")
    build.run("dpkg/bin/install-packages", "-m", "base", "a", status=1)
    assert "dib-engine" not in build.calls


def test_install_packages_cannot_only_download(build: HookBuild) -> None:
    build.run("dpkg/bin/install-packages", "-d", "x", status=1)


# --- package-installs, install-types, install-bin, modprobe


def test_packages_go_through_the_install_packages_of_the_image(build: HookBuild) -> None:
    build.fake("dib-engine", "echo install-packages vim less")
    build.fake("install-packages")
    build.run("package-installs/bin/package-installs-v2", "--phase", "install.d", "/tmp/x.json")
    assert build.calls == [
        *("dib-engine", "package-installs", "--noop", "--phase", "install.d", "/tmp/x.json"),
        *("install-packages", "vim", "less"),
    ]


def test_packages_are_only_shown_with_noop_and_not_asked_for_when_there_are_none(build: HookBuild) -> None:
    build.fake("install-packages")
    build.fake("dib-engine", "echo install-packages vim")
    done = build.run("package-installs/bin/package-installs-v2", "-n", "--phase", "install.d", "/tmp/x.json")
    assert done.output.strip() == "install-packages vim"
    build.fake("dib-engine", "echo Nothing to install in install.d")
    build.run("package-installs/bin/package-installs-v2", "--phase", "install.d", "/tmp/x.json")
    assert "vim" not in build.calls


def test_a_failing_installation_is_status_1(build: HookBuild) -> None:
    build.fake("dib-engine", "echo install-packages vim")
    build.fake("install-packages", "exit 7")
    build.run("package-installs/bin/package-installs-v2", "--phase", "install.d", "/tmp/x.json", status=1)


def installed_kinds(build: HookBuild, env: Mapping[str, str]) -> list[str]:
    for kind in ("source", "package"):
        folder = build.hooks / f"install.d/my-tool-{kind}-install"
        folder.mkdir(parents=True)
        (folder / f"20-{kind}").write_text("")
    build.run("install-types/extra-data.d/99-install-types", env=env)
    links = [path for path in (build.hooks / "install.d").iterdir() if path.is_symlink()]
    assert all(path.exists() for path in links)
    return sorted(path.name for path in links)


@pytest.mark.parametrize(
    ("variables", "scripts"),
    [
        ({}, ["20-source"]),
        ({"DIB_DEFAULT_INSTALLTYPE": "package"}, ["20-package"]),
        ({"DIB_INSTALLTYPE_my_tool": "package"}, ["20-package"]),
        ({"DIB_INSTALLTYPE_my_tool": "other"}, []),
        ({"DIB_INSTALLTYPE_else": "package"}, ["20-source"]),
    ],
)
def test_only_the_chosen_kind_of_installation_runs(
    build: HookBuild, variables: dict[str, str], scripts: list[str]
) -> None:
    assert installed_kinds(build, variables) == scripts


@needed.programs("cmp")
def test_build_commands_leave_the_image_and_others_stay(build: HookBuild) -> None:
    place = build.target / "usr/local/bin"
    place.mkdir(parents=True)
    shutil.copy2(ELEMENTS / "dpkg/bin/install-packages", place)
    (place / "pkg-map").write_text("somebody else's\n")
    (place / "tool").write_text("")
    build.run("install-bin/cleanup.d/99-install-bin")
    assert sorted(path.name for path in place.iterdir()) == ["pkg-map", "tool"]


def test_modprobe_files_of_elements_reach_the_image(build: HookBuild) -> None:
    (build.hooks / "modprobe.d").mkdir()
    (build.hooks / "modprobe.d/x.conf").write_text("options x y=1\n")
    (build.hooks / "modprobe.d/README").write_text("")
    build.run("modprobe/extra-data.d/50-modprobe")
    assert [path.name for path in (build.target / "etc/modprobe.d").iterdir()] == ["x.conf"]


# --- manifests


def manifests(build: HookBuild, more: Mapping[str, str] | None = None) -> Completed:
    (build.target / "etc/dib-manifests").mkdir()
    (build.target / "etc/dib-manifests/list").write_text("x\n")
    env = {"DIB_MANIFEST_IMAGE_DIR": "/etc/dib-manifests", "IMAGE_NAME": "img", "DIB_ARGS": "-o img", **(more or {})}
    return build.run("manifests/cleanup.d/01-copy-manifests-dir", env=env)


def test_manifests_are_copied_beside_the_image_readable_by_all(build: HookBuild) -> None:
    manifests(build)
    copy = build.out / "img.d/dib-manifests"
    assert (copy / "dib_arguments").read_text() == "-o img\n"
    assert (copy / "list").stat().st_mode & 0o044 == 0o044
    assert (build.target / "etc/dib-manifests/list").stat().st_mode & 0o777 == 0o600


def test_secrets_do_not_get_into_the_manifests(build: HookBuild) -> None:
    variables = 'declare -x DIB_DEV_USER_PASSWORD="line one\nline two"\ndeclare -x DIB_RELEASE="sid"'
    manifests(build, {"DIB_ENV": variables})
    text = (build.out / "img.d/dib-manifests/dib_environment").read_text()
    assert text == 'declare -x DIB_DEV_USER_PASSWORD="***"\ndeclare -x DIB_RELEASE="sid"\n'


def test_a_place_for_manifests_away_from_the_image_is_warned_of(build: HookBuild) -> None:
    assert "WARNING" in manifests(build, {"DIB_MANIFEST_SAVE_DIR": str(build.root / "elsewhere")}).output
