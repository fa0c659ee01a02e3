"""Scripts of the elements of distributions that cannot be reached from here, run on directories, programs faked."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.unit.hook_build import ELEMENTS, SYSTEM, HookBuild

from dibble.sandbox.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.sandbox.process import Completed

pytestmark = pytest.mark.unit


@pytest.fixture
def build(tmp_path: Path) -> HookBuild:
    return HookBuild(tmp_path)


def run_inside(
    build: HookBuild, script: str, *arguments: str, status: int = 0, env: Mapping[str, str] | None = None
) -> Completed:
    """Run a script that works inside the target on the target's directory: it has no other root here."""
    text = (ELEMENTS / script).read_text()
    for top in ("/etc/", "/boot/", "/usr/lib/modules", "/tmp/yum"):
        text = text.replace(f" {top}", f" {build.target}{top}").replace(f"={top}", f"={build.target}{top}")
    copy = build.root / "inside"
    copy.write_text(text)
    copy.chmod(0o755)
    variables = {"PATH": f"{build.bin}:{SYSTEM}", "HOME": str(build.root), **(env or {})}
    done = run([str(copy), *arguments], env=variables, cwd=build.out, check=False)
    assert done.status == status, done.output
    return done


def after(words: list[str], option: str) -> list[str]:
    """The values of an option that may be repeated."""
    return [words[number + 1] for number, word in enumerate(words) if word == option]


# --- cache-url: signed-text


class Keys:
    """A GnuPG of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)

    def gpg(self, *arguments: str) -> str:
        options = ["--homedir", str(self.home), "--batch", "--yes", "--quiet", "--passphrase", ""]
        return run(["gpg", *options, *arguments], env={"PATH": SYSTEM}).output

    def make(self, name: str) -> str:
        """Makes a key and returns its fingerprint."""
        self.gpg("--quick-generate-key", name, "ed25519", "sign", "never")
        lines = self.gpg("--with-colons", "--list-keys", name).splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    if not shutil.which("gpg") or not shutil.which("gpgv"):
        pytest.skip("gpg is not installed")
    return Keys(tmp_path_factory.mktemp("gnupg") / "home")


@pytest.mark.parametrize("armour", [True, False])
@pytest.mark.parametrize("detached", [True, False])
def test_signed_text_is_printed_when_a_key_of_the_keyring_signed_it(
    build: HookBuild, keys: Keys, armour: bool, detached: bool
) -> None:
    fingerprint = keys.make(f"good-{armour}-{detached}")
    other = keys.make(f"other-{armour}-{detached}")
    keyring, text, signed = build.root / "keys", build.root / "text", build.root / "signed"
    keys.gpg(*(["--armor"] if armour else []), "--output", str(keyring), "--export", fingerprint)
    text.write_text("what is signed\n")
    how = "--detach-sign" if detached else "--clearsign"
    keys.gpg("--local-user", fingerprint, "--output", str(signed), how, str(text))
    words = [str(keyring), str(text), str(signed)] if detached else [str(keyring), str(signed)]
    assert build.run("cache-url/bin/signed-text", *words).output.splitlines()[-1] == "what is signed"
    build.run("cache-url/bin/signed-text", "-f", fingerprint, *words)
    refused = build.run("cache-url/bin/signed-text", "-f", other, *words, status=1)
    assert "another key" in refused.output
    (text if detached else signed).write_text((text if detached else signed).read_text().replace("what", "that"))
    assert "that is signed" not in build.run("cache-url/bin/signed-text", *words, status=1).output.replace(
        "BAD signature", ""
    )


def test_a_signature_by_a_key_that_is_not_in_the_keyring_is_none(build: HookBuild, keys: Keys) -> None:
    one, two = keys.make("one"), keys.make("two")
    keyring, text, signed = build.root / "keys", build.root / "text", build.root / "signed"
    keys.gpg("--output", str(keyring), "--export", one)
    text.write_text("what is signed\n")
    keys.gpg("--local-user", two, "--output", str(signed), "--clearsign", str(text))
    assert "what is signed" not in build.run("cache-url/bin/signed-text", str(keyring), str(signed), status=2).output


def test_an_absent_keyring_is_told(build: HookBuild) -> None:
    assert "does not exist" in build.run("cache-url/bin/signed-text", "/no/keys", "/no/file", status=1).output


# --- yum, zypper, gentoo: install-packages


def dnf(build: HookBuild, version: str = "4.14.0") -> None:
    build.fake("dnf", f'if [ "$1" = --version ]; then echo "{version}"; fi')
    build.fake("rpm", 'name="${@: -1}"; [ "$name" != absent ] && echo "$name-real"')


def asked(build: HookBuild) -> list[str]:
    """The calls so far, each as one line, without questions for versions and installed packages."""
    calls: list[list[str]] = []
    for word in build.calls:
        if word in ("dnf", "yum", "rpm", "zypper", "emerge", "pkg-map", "map-packages", "emerge-webrsync"):
            calls.append([])
        calls[-1].append(word)
    return [
        " ".join(call)
        for call in calls
        if call[0] not in ("rpm", "pkg-map", "map-packages") and call[1:] != ["--version"]
    ]


def test_dnf_installs_and_marks_what_was_asked_for(build: HookBuild) -> None:
    dnf(build)
    done = build.run("yum/bin/install-packages", "vim", "absent", "@core", env={"YUM": "dnf"})
    assert asked(build) == [
        "dnf -y -v install --setopt=strict=0 vim absent @core",
        "dnf -q mark install vim-real",
    ]
    assert "WARNING: no repository has a package absent" in done.output


def test_one_package_that_is_not_there_is_not_passed_over(build: HookBuild) -> None:
    dnf(build)
    build.run("yum/bin/install-packages", "vim", env={"YUM": "dnf"})
    assert asked(build)[0] == "dnf -y -v install vim"


def test_dnf5_is_asked_in_its_own_words(build: HookBuild) -> None:
    dnf(build, "dnf5 version 5.2.8")
    build.run("yum/bin/install-packages", "a", "b", env={"YUM": "dnf", "YUM_FLAGS": "-y -v --nobest"})
    assert asked(build) == [
        "dnf -y --nobest install --skip-unavailable a b",
        "dnf -y mark user a-real b-real",
    ]


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["-u"], "dnf -y -v upgrade"),
        (["-e", "vim"], "dnf -y -v remove vim"),
        (["-d", "down", "vim"], "dnf -y -v install --downloadonly --downloaddir=down vim"),
    ],
)
def test_dnf_upgrades_removes_and_downloads(build: HookBuild, words: list[str], call: str) -> None:
    dnf(build)
    build.run("yum/bin/install-packages", *words, env={"YUM": "dnf"})
    assert asked(build) == [call]


def test_names_go_through_the_map_of_an_element_else_through_map_packages(build: HookBuild) -> None:
    dnf(build)
    build.fake("pkg-map", "echo mapped")
    build.fake("map-packages", "echo old-mapped")
    build.run("yum/bin/install-packages", "-m", "web", "x", env={"YUM": "dnf"})
    build.run("yum/bin/install-packages", "x", env={"YUM": "dnf"})
    assert [call for call in asked(build) if "-v install" in call] == [
        "dnf -y -v install mapped",
        "dnf -y -v install old-mapped",
    ]


def test_packages_on_the_blacklist_are_left_out(build: HookBuild) -> None:
    dnf(build)
    (build.target / "tmp").mkdir()
    (build.target / "tmp/yum-blacklist").write_text("dkms\n")
    done = run_inside(build, "yum/bin/install-packages", "dkms", env={"YUM": "dnf"})
    assert "dkms is in" in done.output
    assert asked(build) == []


@pytest.mark.parametrize("element", ["yum", "zypper", "gentoo"])
def test_nothing_to_install_is_no_failure_and_a_map_that_fails_is_one(build: HookBuild, element: str) -> None:
    dnf(build)
    build.fake("emerge-webrsync")
    script = f"{element}/bin/install-packages"
    assert "No packages to install" in build.run(script).output
    build.fake("pkg-map", "exit 1")
    build.run(script, "-m", "web", "x", status=1)
    assert "Usage:" in build.run(script, "-h").output
    build.run(script, "-x", status=1)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["vim"], "install --no-recommends --auto-agree-with-licenses vim"),
        (["-d", "vim"], "install --no-recommends --download-only --auto-agree-with-licenses vim"),
        (["-e", "vim"], "remove --clean-deps vim"),
        (["-u"], "dist-upgrade --no-recommends --auto-agree-with-licenses"),
    ],
)
def test_zypper_asks_nobody(build: HookBuild, words: list[str], call: str) -> None:
    build.fake("zypper")
    build.run("zypper/bin/install-packages", *words)
    assert asked(build) == [f"zypper --non-interactive --gpg-auto-import-keys {call}"]


@pytest.mark.parametrize(("status", "expected"), [(102, 0), (103, 0), (104, 104), (4, 4)])
def test_only_a_zypper_that_did_its_work_counts_as_done(build: HookBuild, status: int, expected: int) -> None:
    build.fake("zypper", f"exit {status}")
    build.run("zypper/bin/install-packages", "vim", status=expected)


def test_portage_fetches_its_tree_first_and_cleans_up_after_removing(build: HookBuild) -> None:
    build.fake("emerge")
    build.fake("emerge-webrsync")
    build.run("gentoo/bin/install-packages", "-e", "app/x")
    calls = " ".join(build.calls)
    assert calls.index("emerge-webrsync") < calls.index("--deselect app/x") < calls.index("--depclean")


def test_debians_names_are_mapped_with_a_warning(build: HookBuild) -> None:
    done = build.run("redhat-common/bin/map-packages", "git-core", "libfoo-dev", "vlan", "less")
    lines = done.output.splitlines()
    assert lines[-1] == "git libfoo-devel less"
    assert len(lines) == 4


# --- first packages


RPM = {"ARCH": "amd64", "DISTRO_NAME": "centos", "DIB_RELEASE": "9-stream", "YUM": "dnf"}


def test_a_bootstrap_names_release_machine_mirror_and_the_repositories_of_the_release(build: HookBuild) -> None:
    build.fake("dib-engine")
    for release in ("9-stream", "10-stream"):
        folder = build.hooks / "yum.repos.d" / release
        folder.mkdir(parents=True)
        (folder / "x.repo").touch()
    build.run("yum-minimal/root.d/08-yum-minimal", env={**RPM, "DIB_DISTRIBUTION_MIRROR": "http://m"})
    words = build.calls
    assert words[:3] == ["dib-engine", "bootstrap", "dnf"]
    assert (after(words, "--releasever"), after(words, "--arch")) == (["9"], ["x86_64"])
    assert after(words, "--variable") == ["stream=9-stream", "mirror=http://m"]
    assert after(words, "--repositories") == [f"{build.hooks}/yum.repos.d/9-stream/x.repo"]
    assert {"dnf", "rpm", "bash", "centos-stream-release"} <= set(after(words, "--include"))


def test_a_bootstrap_without_repositories_is_refused(build: HookBuild) -> None:
    assert "no .repo file" in build.run("yum-minimal/root.d/08-yum-minimal", status=1, env=RPM).output


def test_settings_left_in_the_root_count_for_rpm_too(build: HookBuild) -> None:
    build.fake("dib-engine")
    (build.root / "more.repo").touch()
    (build.target / ".extra_settings").write_text("DIB_YUM_MINIMAL_BOOTSTRAP_PACKAGES=strace\n")
    env = {**RPM, "DIB_YUM_MINIMAL_EXTRA_REPOS": f"{build.root}/more.repo"}
    build.run("yum-minimal/root.d/08-yum-minimal", env=env)
    assert "strace" in after(build.calls, "--include")
    assert after(build.calls, "--repositories") == [f"{build.root}/more.repo"]
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


# --- cloud images


def downloads(build: HookBuild, files: Mapping[str, str]) -> None:
    """A `cache-url` that knows these files by the last part of their address, and an `extract-image`."""
    web = build.root / "web"
    web.mkdir()
    for name, text in files.items():
        (web / name).write_text(text)
    for name, lines in {
        "cache-url": ['[ "$1" != -f ] || shift', f'cp "{web}/${{1##*/}}" "$2"'],
        "extract-image": ['echo "unpacking $DIB_LOCAL_IMAGE"'],
        "signed-text": ['[ "$1" != -f ] || shift 2', f"[ ! -e {build.root}/forged ] || exit 1", 'cat "$2"'],
        "ubuntu-key": ['echo key > "$2"'],
    }.items():
        build.fake(name, *lines)
        shutil.move(build.bin / name, build.hooks / "bin" / name)


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
    listing = f"# Latest\n20261101T000000Z/{stage}-20261101T000000Z.tar.xz 300\n"
    downloads(
        build, {f"latest-{stage}.txt": listing, "service-keys.gpg": "x", f"{stage}-20261101T000000Z.tar.xz.asc": "x"}
    )
    (build.root / "web/etc").mkdir()
    run(
        ["tar", "-cJf", f"{build.root}/web/{stage}-20261101T000000Z.tar.xz", "-C", f"{build.root}/web", "./etc"],
        env={"PATH": SYSTEM},
    )
    build.run(
        "gentoo/root.d/10-gentoo-image", env={"ARCH": "amd64", "GENTOO_PROFILE": profile, "DIB_INIT_SYSTEM": init}
    )
    assert set(after(build.calls, "-f")) == {"13EBBDBEDE7A12775DFDB1BABB572E0E2D182910"}


def test_a_stage_with_a_bad_signature_is_not_unpacked(build: HookBuild) -> None:
    downloads(build, {"latest-stage3-amd64-openrc.txt": "x/stage3.tar.xz 1\n", "service-keys.gpg": "x"})
    (build.root / "forged").touch()
    env = {"ARCH": "amd64", "GENTOO_PROFILE": "default/linux/amd64/23.0", "DIB_INIT_SYSTEM": "openrc"}
    build.run("gentoo/root.d/10-gentoo-image", status=1, env=env)
    assert [path.name for path in build.target.iterdir()] == ["etc"]


# --- mirrors


def test_a_mirror_of_centos_takes_the_place_of_the_list_of_mirrors(build: HookBuild) -> None:
    folder = build.target / "etc/yum.repos.d"
    folder.mkdir()
    (folder / "centos.repo").write_text(
        "[baseos]\nname=x\nmetalink=https://mirrors/metalink?repo=centos-baseos-$stream\n"
        "[baseos-debug]\nmetalink=https://mirrors/metalink?repo=centos-baseos-debug-$stream\n"
    )
    for script in ("centos/pre-install.d/00-centos-mirror", "centos-minimal/pre-install.d/02-centos-minimal-mirror"):
        run_inside(build, script, env={"DIB_DISTRIBUTION_MIRROR": "http://m"})
        lines = (folder / "centos.repo").read_text().splitlines()
        assert lines[2:4] == [
            "#metalink=https://mirrors/metalink?repo=centos-baseos-$stream",
            "baseurl=http://m/$stream/BaseOS/$basearch/os/",
        ]
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


# --- what is asked of the user


@pytest.mark.parametrize("missing", ["DIB_LOCAL_IMAGE", "DISTRO_NAME", "EFI_BOOT_DIR", "DIB_INIT_SYSTEM"])
def test_an_image_with_another_layout_needs_to_be_told_what_it_is(missing: str) -> None:
    file = ELEMENTS / "replace-partition/environment.d/10-replace-partition.bash"
    given = {
        "DIB_LOCAL_IMAGE": "/x",
        "DISTRO_NAME": "rhel",
        "DIB_RELEASE": "9",
        "EFI_BOOT_DIR": "EFI/redhat",
        "DIB_INIT_SYSTEM": "systemd",
    }
    run(["bash", "-euc", f"source {file}"], env={"PATH": SYSTEM, **given})
    del given[missing]
    done = run(["bash", "-euc", f"source {file}"], env={"PATH": SYSTEM, **given}, check=False)
    assert done.status == 1
    assert missing in done.output


REGISTRATION = "rhel-common/pre-install.d/00-rhel-registration"


def test_a_registration_passes_on_what_is_set(build: HookBuild) -> None:
    build.fake("subscription-manager")
    env = {"REG_METHOD": "portal", "REG_ACTIVATION_KEY": "k", "REG_ORG": "1", "REG_REPOS": "a,b", "REG_RELEASE": "9.4"}
    build.run(REGISTRATION, env=env)
    calls = " ".join(build.calls)
    assert "register --activationkey=k --org=1" in calls
    assert "release --set=9.4" in calls
    assert "repos --enable=a --enable=b" in calls


def test_a_password_is_not_traced(build: HookBuild) -> None:
    build.fake("subscription-manager")
    env = {"REG_METHOD": "portal", "REG_USER": "u", "REG_PASSWORD": "very-secret", "DIB_DEBUG_TRACE": "1"}
    assert "very-secret" not in build.run(REGISTRATION, env=env).output


@pytest.mark.parametrize(
    ("env", "what"),
    [
        ({"REG_METHOD": "pigeon"}, "pigeon"),
        ({"REG_METHOD": "portal"}, "REG_USER"),
        ({"REG_METHOD": "portal", "REG_ACTIVATION_KEY": "k"}, "REG_ORG"),
        ({"REG_METHOD": "satellite", "REG_USER": "u", "REG_PASSWORD": "p"}, "REG_SAT_URL"),
    ],
)
def test_a_registration_says_what_it_lacks(build: HookBuild, env: dict[str, str], what: str) -> None:
    assert what in build.run(REGISTRATION, status=1, env=env).output


def test_without_a_method_nothing_is_registered(build: HookBuild) -> None:
    build.fake("subscription-manager")
    build.run(REGISTRATION)
    assert build.calls == []


def test_epel_has_nothing_to_do_on_debian(build: HookBuild) -> None:
    build.fake("install-packages")
    done = run_inside(build, "epel/pre-install.d/05-epel", env={"DISTRO_NAME": "debian"})
    assert "nothing to do for debian" in done.output
    assert build.calls == []


@pytest.mark.parametrize("element", ["elrepo/pre-install.d/01-zz-elrepo", "fips/pre-install.d/15-fips"])
def test_what_is_for_red_hats_kin_alone_says_so_elsewhere(build: HookBuild, element: str) -> None:
    assert "debian" in run_inside(build, element, status=1, env={"DISTRO_NAME": "debian"}).output


# --- SELinux


def test_an_image_without_a_policy_gets_no_labels(build: HookBuild) -> None:
    build.fake("chroot")
    build.run("selinux-fixfiles-restore/cleanup.d/99-selinux-fixfiles-restore")
    assert build.calls == []
    assert not (build.target / ".autorelabel").exists()


def policy(build: HookBuild, mode: str = "enforcing") -> None:
    (build.target / "etc/selinux/targeted/contexts/files").mkdir(parents=True)
    (build.target / "etc/selinux/targeted/contexts/files/file_contexts").touch()
    (build.target / "etc/selinux/config").write_text(f"SELINUX={mode}\nSELINUXTYPE=targeted\n")
    (build.target / "tmp").mkdir()
    (build.target / "usr/sbin").mkdir(parents=True)


def test_a_policy_without_setfiles_ends_the_build(build: HookBuild) -> None:
    policy(build)
    done = build.run("selinux-fixfiles-restore/cleanup.d/99-selinux-fixfiles-restore", status=1)
    assert "policycoreutils" in done.output


def test_where_labels_cannot_be_written_the_first_boot_does_it(build: HookBuild) -> None:
    policy(build)
    (build.target / "usr/sbin/setfiles").touch(0o755)
    build.fake("chroot")
    build.fake("getfattr", "exit 1")
    build.run("selinux-fixfiles-restore/cleanup.d/99-selinux-fixfiles-restore")
    assert (build.target / ".autorelabel").exists()
    assert list((build.target / "tmp").iterdir()) == []


def test_every_file_system_but_the_firmwares_gets_labels(build: HookBuild) -> None:
    policy(build)
    (build.target / "usr/sbin/setfiles").touch(0o755)
    build.fake("chroot")
    build.fake("getfattr", "echo system_u:object_r:user_tmp_t:s0")
    env = {"DIB_MOUNTPOINTS": "/|/boot/efi|/var|none"}
    build.run("selinux-fixfiles-restore/cleanup.d/99-selinux-fixfiles-restore", env=env)
    points = [word for word in build.calls if word in ("/", "/boot/efi", "/var", "none")]
    assert points == ["/", "/var"]
    assert not (build.target / ".autorelabel").exists()
