"""Scripts of the elements of distributions that cannot be reached from here, run on directories, programs faked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.hook_build import ELEMENTS, SYSTEM, HookBuild, run_inside

from dibble.sandbox.process import run

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.unit


@pytest.fixture
def build(tmp_path: Path) -> HookBuild:
    return HookBuild(tmp_path)


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
        ({"DIB_RHSM_USER": "u"}, "DIB_RHSM_USER is not read any more"),
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
