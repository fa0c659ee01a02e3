"""How the elements of distributions that cannot be reached from here begin a system, and whose mirrors it has."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.unit.hook_build import ELEMENTS, SYSTEM, HookBuild, after, downloads, run_inside

from dibble.sandbox.process import run

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.unit


@pytest.fixture
def build(tmp_path: Path) -> HookBuild:
    return HookBuild(tmp_path)


# --- first packages


RPM = {"ARCH": "amd64", "DISTRO_NAME": "centos", "DIB_RELEASE": "9-stream", "YUM": "dnf"}


def test_a_bootstrap_names_release_machine_mirror_and_the_repositories_of_the_release(build: HookBuild) -> None:
    build.fake("dib-engine")
    for release in ("9-stream", "10-stream"):
        folder = build.hooks / "yum.repos.d" / release
        folder.mkdir(parents=True)
        (folder / "x.repo").write_text(f"[{release}]\n")
    build.run("yum-minimal/root.d/08-yum-minimal", env={**RPM, "DIB_DISTRIBUTION_MIRROR": "http://m"})
    words = build.calls
    assert words[:3] == ["dib-engine", "bootstrap", "dnf"]
    assert (after(words, "--releasever"), after(words, "--arch")) == (["9"], ["x86_64"])
    assert after(words, "--variable") == ["stream=9-stream", "mirror=http://m"]
    assert after(words, "--repositories") == ["[9-stream]"]
    assert {"dnf", "rpm", "bash", "centos-stream-release"} <= set(after(words, "--include"))


def test_a_bootstrap_without_repositories_is_refused(build: HookBuild) -> None:
    assert "no .repo file" in build.run("yum-minimal/root.d/08-yum-minimal", status=1, env=RPM).output


def test_settings_left_in_the_root_count_for_rpm_too(build: HookBuild) -> None:
    build.fake("dib-engine")
    (build.root / "more.repo").write_text("[more]\n")
    (build.target / ".extra_settings").write_text("DIB_YUM_MINIMAL_BOOTSTRAP_PACKAGES=strace\n")
    env = {**RPM, "DIB_YUM_MINIMAL_EXTRA_REPOS": f"{build.root}/more.repo"}
    build.run("yum-minimal/root.d/08-yum-minimal", env=env)
    assert "strace" in after(build.calls, "--include")
    assert after(build.calls, "--repositories") == ["[more]"]
    assert not (build.target / ".extra_settings").exists()


def test_a_bootstrap_of_opensuse_names_its_repositories_and_the_image_keeps_them(build: HookBuild) -> None:
    build.fake("dib-engine")
    env = {"ARCH": "arm64", "DIB_RELEASE": "16.0", "DIB_ZYPPER_REPOS": "oss=>http://m/oss update=>http://m/up"}
    build.run("zypper-minimal/root.d/08-zypper-minimal", env=env)
    words = build.calls
    assert words[:3] == ["dib-engine", "bootstrap", "zypper"]
    assert after(words, "--arch") == ["aarch64"]
    assert after(words, "--repository") == ["oss=>http://m/oss", "update=>http://m/up"]
    repo = (build.target / "etc/zypp/repos.d/update.repo").read_text()
    assert "baseurl=http://m/up\n" in repo
    assert "gpgcheck=1" in repo


def test_a_bootstrap_of_opensuse_names_the_keys_that_count(build: HookBuild) -> None:
    build.fake("dib-engine")
    (build.root / "key.asc").write_text("a key\n")
    env = {"ARCH": "amd64", "DIB_RELEASE": "16.0", "DIB_ZYPPER_REPOS": "oss=>http://m/oss"}
    keys = f"{build.root}/key.asc https://m/key"
    script = "zypper-minimal/root.d/08-zypper-minimal"
    build.run(script, env={**env, "DIB_ZYPPER_KEYS": keys, "DIB_ZYPPER_FINGERPRINTS": "AB CD"})
    assert after(build.calls, "--key") == ["a key", "https://m/key"]
    assert after(build.calls, "--fingerprint") == ["AB", "CD"]
    done = build.run(script, status=1, env={**env, "DIB_ZYPPER_KEYS": "/none.asc"})
    assert "DIB_ZYPPER_KEYS: /none.asc is not a file that the build can see" in done.output


def test_a_repository_without_a_name_is_refused(build: HookBuild) -> None:
    env = {"ARCH": "amd64", "DIB_RELEASE": "16.0", "DIB_ZYPPER_REPOS": "http://m/oss"}
    done = build.run("zypper-minimal/root.d/08-zypper-minimal", status=1, env=env)
    assert "NAME=>URL" in done.output


@pytest.mark.parametrize(
    ("release", "arch", "first"),
    [
        ("16.0", "amd64", "oss=>https://download.opensuse.org/distribution/leap/16.0/repo/oss/x86_64"),
        ("15.6", "amd64", "oss=>https://download.opensuse.org/distribution/leap/15.6/repo/oss"),
        ("15.6", "arm64", "oss=>https://download.opensuse.org/ports/aarch64/distribution/leap/15.6/repo/oss"),
    ],
)
def test_the_repositories_of_a_leap_are_where_its_project_has_them(release: str, arch: str, first: str) -> None:
    file = ELEMENTS / "opensuse-minimal/environment.d/10-opensuse-minimal.bash"
    text = f'set -eu; source {file}; echo "$DIB_ZYPPER_REPOS"'
    done = run(["bash", "-c", text], env={"PATH": SYSTEM, "ARCH": arch, "DIB_RELEASE": release})
    assert done.output.split()[0] == first


# --- containerfile


def podman(build: HookBuild) -> None:
    tree = build.root / "container"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/os-release").write_text("ID=x\n")
    (tree / ".dockerenv").touch()
    build.fake(
        "podman",
        'while [ $# -gt 0 ]; do case "$1" in',
        "build) verb=build ;; create) echo the-container; exit ;;",
        f'export) exec tar --create --directory {tree} . ;; --iidfile) echo the-image > "$2" ;; esac; shift; done',
    )


def test_a_recipe_of_the_release_becomes_the_root_and_nothing_is_left(build: HookBuild) -> None:
    podman(build)
    (build.hooks / "containerfiles").mkdir()
    (build.hooks / "containerfiles/9").touch()
    env = {"DIB_RELEASE": "9", "DIB_CONTAINERFILE_BUILDOPTS": "--pull --no-cache"}
    build.run("containerfile/root.d/08-containerfile", env=env)
    assert (build.target / "etc/os-release").read_text() == "ID=x\n"
    assert not (build.target / ".dockerenv").exists()
    words = build.calls
    assert after(words, "--file") == [f"{build.hooks}/containerfiles/9"]
    assert after(words, "--network") == ["host"]
    assert {"--pull", "--no-cache", str(build.cache / "containerfile")} <= set(words)
    assert words[-4:] == ["podman", "rmi", "the-image"] or words[-3:] == ["podman", "rmi", "the-image"]


def test_a_release_without_a_recipe_is_told_with_those_that_have_one(build: HookBuild) -> None:
    podman(build)
    (build.hooks / "containerfiles").mkdir()
    (build.hooks / "containerfiles/9").touch()
    done = build.run("containerfile/root.d/08-containerfile", status=1, env={"DIB_RELEASE": "7"})
    assert "the release 7; there is: 9" in done.output


@pytest.mark.parametrize(("runtime", "what"), [("podman", "--tools=host"), ("rkt", "neither podman nor docker")])
def test_a_runtime_that_is_not_there_is_told(build: HookBuild, runtime: str, what: str) -> None:
    (build.root / "recipe").touch()
    env = {
        "DIB_CONTAINERFILE_DOCKERFILE": f"{build.root}/recipe",
        "DIB_CONTAINERFILE_RUNTIME": runtime,
        "PATH": str(build.bin) + ":/usr/bin:/bin",
    }
    if runtime == "podman" and shutil.which("podman"):
        pytest.skip("podman is installed")
    assert what in build.run("containerfile/root.d/08-containerfile", status=1, env=env).output


# --- mirrors


@pytest.mark.parametrize(
    "script", ["centos/pre-install.d/00-centos-mirror", "centos-minimal/pre-install.d/02-centos-minimal-mirror"]
)
def test_a_mirror_of_centos_takes_the_place_of_the_list_of_mirrors(build: HookBuild, script: str) -> None:
    folder = build.target / "etc/yum.repos.d"
    folder.mkdir()
    (folder / "centos.repo").write_text(
        "[baseos]\nname=x\nmetalink=https://mirrors/metalink?repo=centos-baseos-$stream&arch=$basearch\n"
        "[baseos-debug]\nmetalink=https://mirrors/metalink?repo=centos-baseos-debug-$stream&arch=$basearch\n"
    )
    run_inside(build, script, env={"DIB_DISTRIBUTION_MIRROR": "http://m"})
    lines = (folder / "centos.repo").read_text().splitlines()
    assert sorted(lines[2:4]) == [
        "#metalink=https://mirrors/metalink?repo=centos-baseos-$stream&arch=$basearch",
        "baseurl=http://m/$stream/BaseOS/$basearch/os/",
    ]
    assert lines[-1].startswith("metalink=")


def test_a_mirror_of_fedora_takes_the_place_of_the_list_of_mirrors(build: HookBuild) -> None:
    folder = build.target / "etc/yum.repos.d"
    folder.mkdir()
    for name, repo in (("fedora", "fedora-$releasever"), ("fedora-updates", "updates-released-f$releasever")):
        source = repo.replace("-", "-source-", 1)
        (folder / f"{name}.repo").write_text(
            f"[{name}]\nmetalink=https://mirrors/metalink?repo={repo}&arch=$basearch\n"
            f"[{name}-source]\nmetalink=https://mirrors/metalink?repo={source}&arch=$basearch\n"
        )
    script = "fedora-minimal/pre-install.d/02-fedora-minimal-mirror"
    run_inside(build, script, env={"DIB_DISTRIBUTION_MIRROR": "http://m/"})
    places = {
        "fedora": "http://m/releases/$releasever/Everything/$basearch/os/",
        "fedora-updates": "http://m/updates/$releasever/Everything/$basearch/",
    }
    for name, place in places.items():
        lines = (folder / f"{name}.repo").read_text().splitlines()
        assert lines[1] == f"baseurl={place}"
        assert lines[-1].startswith("metalink=")


def test_a_mirror_of_ubuntu_takes_the_place_of_ubuntus_servers(build: HookBuild) -> None:
    apt = build.target / "etc/apt"
    (apt / "sources.list.d").mkdir(parents=True)
    (apt / "sources.list").write_text(
        "deb http://archive.ubuntu.com/ubuntu noble main\ndeb http://ppa.example/x noble main\n"
    )
    (apt / "sources.list.d/ubuntu.sources").write_text(
        "Types: deb\nURIs: http://security.ubuntu.com/ubuntu/\nSigned-By: /usr/share/keyrings/a.gpg\n"
    )
    env = {
        "DIB_UBUNTU_OWN_MIRROR": "http://m/ubuntu",
        "DIB_DISTRIBUTION_MIRROR_UBUNTU_SIGNED_BY": "/etc/own.gpg",
    }
    run_inside(build, "ubuntu/pre-install.d/00-ubuntu-mirror", env=env)
    assert (apt / "sources.list").read_text().splitlines() == [
        "deb [signed-by=/etc/own.gpg] http://m/ubuntu noble main",
        "deb http://ppa.example/x noble main",
    ]
    assert (apt / "sources.list.d/ubuntu.sources").read_text().splitlines()[1:] == [
        "URIs: http://m/ubuntu",
        "Signed-By: /etc/own.gpg",
    ]


def test_an_ubuntu_has_its_sources_and_a_name(build: HookBuild) -> None:
    env = {
        "DIB_DISTRIBUTION_MIRROR": "http://m/ubuntu",
        "DIB_RELEASE": "noble",
        "DIB_DEBIAN_COMPONENTS": "main,universe",
        "DIB_UBUNTU_MIRROR_DISTS": "updates,security",
    }
    build.run("ubuntu-minimal/root.d/75-ubuntu-minimal-baseinstall", env=env)
    assert (build.target / "etc/apt/sources.list").read_text().splitlines() == [
        "deb http://m/ubuntu noble main universe",
        "deb http://m/ubuntu noble-updates main universe",
        "deb http://m/ubuntu noble-security main universe",
    ]
    assert (build.target / "etc/hostname").read_text() == "ubuntu\n"


@pytest.mark.parametrize("element", ["ubuntu-minimal", "ubuntu-systemd-container"])
def test_ubuntus_key_is_handed_to_the_bootstrap_once_its_fingerprint_is_right(build: HookBuild, element: str) -> None:
    downloads(build, {"InRelease": "signed\n"})
    env = {"DIB_RELEASE": "noble", "DIB_DISTRIBUTION_MIRROR": "http://m/ubuntu"}
    script = f"{element}/root.d/05-{element}-key"
    build.run(script, env=env)
    fingerprint = "F6ECB3762474EDA9D21B7022871920D1991BC93C"
    assert (build.target / ".extra_settings").read_text() == (
        f"DIB_APT_KEYRING={build.cache}/ubuntu-archive-{fingerprint}.asc\n"
    )
    assert after(build.calls, "-f") == [fingerprint]
    (build.target / ".extra_settings").unlink()
    build.run(script, env={**env, "DIB_APT_KEYRING": "/own.gpg"})
    (build.root / "forged").touch()
    build.run(script, status=1, env=env)
    assert not (build.target / ".extra_settings").exists()
