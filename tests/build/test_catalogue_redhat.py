"""What the shipped elements do to Fedora and to CentOS Stream, out of stand-ins of both; every effect in the tree."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard
from tests.build.catalogue_images import CONTENT_LIMIT, Image, build, owned
from tests.build.small_elements import SmallElements
from tests.ramdisks import names_in
from tests.standins import redhat
from tests.standins.mirror import key_beside, mirror

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEw0 somebody@example"
FEDORA, CENTOS = redhat.fedora(arch=host_arch()), redhat.centos(arch=host_arch())


def release(image: Image) -> dict[str, str]:
    return {
        name: value.strip('"') for name, _, value in (line.partition("=") for line in image.lines("usr/lib/os-release"))
    }


# --- Fedora, by an ordinary user, and once more by root


@pytest.fixture(scope="module")
def fedora_mirror(ordinary_user: Person, ourselves: Person, test_cache: Path) -> Iterator[dict[str, str]]:
    with mirror(FEDORA, test_cache, ordinary_user, ourselves) as variables:
        yield variables


def built_fedora(person: Person, variables: dict[str, str], *options: str) -> Image:
    """An image of elements that any machine may have, and one of ours that uses what they offer."""
    elements = SmallElements(person, person.directory("catalogue-fedora"), mark="the same for both")
    needs = "install-static modprobe package-installs pkg-map select-boot-kernel-initrd svc-map sysctl"
    elements.write("probe/element-deps", "\n".join(sorted(needs.split())) + "\n")
    elements.write("probe/README.rst", "=====\nprobe\n=====\nUses what the shipped elements offer.\n")
    elements.write(
        "probe/package-installs.yaml",
        "greeting:\nlshw:\n  phase: post-install.d\nwget:\n  build-only: true\ngdisk:\n  arch: s390x\n"
        "mdadm:\n  uninstall: true\n",
    )
    of_release = {"fedora": {FEDORA.system.version: {"greeting": "busybox"}}}
    names = {"release": of_release, "family": {"redhat": {"greeting": "no-such-package"}}}
    elements.write("probe/pkg-map", json.dumps(names))
    elements.write("probe/svc-map", "web:\n  redhat: httpd\n  default: apache2\nssh:\n  fedora: sshd\n")
    elements.write("probe/static/etc/motd", "Welcome\n")
    elements.write("probe/modprobe.d/probe.conf", "options loop max_loop=8\n")
    elements.script(
        "probe/install.d/50-probe",
        "svc-map web ssh other > /etc/services-of-probe\n"
        "command -v wget > /etc/wget-while-building\n"
        "install-packages mdadm fail2ban\n"
        "install-packages -e fail2ban\n"
        "sysctl-write-value net.ipv4.ip_forward 1",
    )
    elements.script("probe/finalise.d/50-probe", "select-boot-kernel-initrd > /etc/kernel-of-probe")
    key = elements.place / "key.pub"
    key.write_text(f"{KEY}\n")
    owned(person, key)
    words = "autoupdates baremetal cleanup-kernel-initrd devuser dhcp-all-interfaces disable-nouveau dynamic-login"
    words += " enable-serial-console ensure-venv fedora-minimal growroot growvols ibft-interfaces journal-to-console"
    words += " openssh-server probe"
    return build(
        elements,
        "fedora",
        *options,
        *words.split(),
        **variables | {"DIB_YUM_MINIMAL_KEYS": str(key_beside(person, FEDORA))},
        DIB_RELEASE=FEDORA.system.version,
        DIB_DEV_USER_USERNAME="alex",
        DIB_DEV_USER_GROUPS="wheel,users",
        DIB_DEV_USER_PWDLESS_SUDO="yes",
        DIB_DEV_USER_AUTHORIZED_KEYS=str(key),
        DIB_GROWVOLS_TRIGGER="systemd",
        DIB_MODPROBE_BLACKLIST="pcspkr",
    )


@pytest.fixture(scope="module")
def fedora(ordinary_user: Person, fedora_mirror: dict[str, str]) -> Image:
    return built_fedora(ordinary_user, fedora_mirror)


def test_the_system_is_fedora_of_its_packages(fedora: Image) -> None:
    assert (release(fedora)["ID"], release(fedora)["VERSION_ID"]) == ("fedora", FEDORA.system.version)
    assert "usr/lib/sysimage/rpm/rpmdb.sqlite" in fedora.modes
    assert "etc/yum.repos.d/fedora.repo" in fedora.modes
    left = [path for path in fedora.modes if path.endswith((".rpm.lock", "rpmdb_lock.pid", "etc/shadow-"))]
    assert left == []
    assert [path for path in fedora.modes if path.startswith("var/cache/dnf/")] == []


def test_rpm_distro_leaves_the_metadata_services_network_alone(fedora: Image) -> None:
    assert fedora.lines("etc/sysconfig/network") == ["NOZEROCONF=yes"]


def test_redhat_common_brings_its_packages(fedora: Image) -> None:
    for command in ("lsof", "tar", "tcpdump", "traceroute", "which"):
        assert f"usr/bin/{command}" in fedora.modes, command


def test_check_tells_what_a_removed_package_had_brought_and_nothing_else(fedora: Image) -> None:
    could_go = fedora.could_go()
    assert could_go["python3-systemd"]["why"] == "left", "it came with fail2ban"
    assert could_go["python3-systemd"]["bytes"]
    assert {"bash", "busybox", "kernel-core", "libpcap0.8t64", "lshw", "openssh-server"}.isdisjoint(could_go)


def test_sudo_finds_the_commands_of_elements_while_they_build(fedora: Image) -> None:
    (line,) = [line for line in fedora.lines("etc/sudoers") if line.startswith("Defaults") and "secure_path" in line]
    assert "/usr/local/bin" in line


def test_package_installs_and_its_map_know_fedora(fedora: Image) -> None:
    assert "usr/bin/busybox" in fedora.modes, "greeting, of the release"
    assert "usr/bin/lshw" in fedora.modes or "usr/sbin/lshw" in fedora.modes
    assert fedora.lines("etc/wget-while-building") == ["/usr/bin/wget"]
    assert "usr/bin/wget" not in fedora.modes, "only while building"
    assert "usr/sbin/mdadm" not in fedora.modes, "a removal"
    assert [path for path in fedora.modes if path.startswith(("usr/share/pkg-map", "usr/share/svc-map"))] == []


def test_svc_map_knows_the_distribution_and_its_family(fedora: Image) -> None:
    assert fedora.lines("etc/services-of-probe") == ["httpd", "sshd", "other"]


def test_autoupdates_says_what_dnf5_is_to_do(fedora: Image) -> None:
    assert fedora.lines("etc/dnf/automatic.conf") == ["[commands]", "apply_updates = yes"]
    assert fedora.enabled("dnf5-automatic.timer")


def test_the_kernel_is_beside_the_image_and_no_other_in_it(fedora: Image) -> None:
    kernel, ramdisk = fedora.text["etc/kernel-of-probe"].strip().split(":")
    in_boot = {path.removeprefix("boot/") for path in fedora.modes if path.startswith("boot/")}
    assert {name for name in in_boot if name.startswith(("vmlinuz-", "initramfs-"))} == {kernel, ramdisk}
    assert (fedora.directory / "fedora.vmlinuz").read_bytes()[0x202:0x206] == b"HdrS"  # Linux/x86 boot protocol
    assert (fedora.directory / "fedora.initrd").stat().st_size > CONTENT_LIMIT


def test_devuser_has_an_account_a_key_and_sudo(fedora: Image) -> None:
    _, _, uid, gid, _, home, _ = fedora.passwd("alex")
    assert home == "/home/alex"
    assert fedora.lines("home/alex/.ssh/authorized_keys") == [KEY]
    assert fedora.owners["home/alex/.ssh/authorized_keys"] == (int(uid), int(gid))
    assert fedora.lines("etc/sudoers.d/alex") == ["alex ALL=(ALL:ALL) NOPASSWD:ALL"]
    groups = {line.split(":")[0]: line.split(":")[3].split(",") for line in fedora.lines("etc/group")}
    assert "alex" in groups["wheel"]
    assert "alex" in groups["users"]


def test_dhcp_all_interfaces_is_a_profile_of_networkmanager(fedora: Image) -> None:
    profile = "etc/NetworkManager/system-connections/dhcp-all-interfaces.nmconnection"
    assert "multi-connect=3" in fedora.lines(profile)
    assert fedora.modes[profile] == 0o600
    assert fedora.enabled("NetworkManager.service")


def test_modules_are_set_up_and_kept_away(fedora: Image) -> None:
    assert "blacklist nouveau" in fedora.lines("etc/modprobe.d/disable-nouveau.conf")
    assert fedora.lines("etc/modprobe.d/dib-blacklist.conf") == ["blacklist pcspkr"]
    assert fedora.lines("etc/modprobe.d/probe.conf") == ["options loop max_loop=8"]
    assert fedora.lines("etc/sysctl.d/net.ipv4.ip_forward.conf")[-1] == "net.ipv4.ip_forward = 1"


def test_services_of_elements_are_enabled_and_host_keys_left_to_fedoras_own(fedora: Image) -> None:
    units = ("dynamic-login", "ibft-interfaces", "growroot", "growvols", "sshd")
    assert [unit for unit in units if not fedora.enabled(f"{unit}.service")] == []
    assert not fedora.enabled("runtime-ssh-host-keys.service")
    assert [path for path in fedora.modes if "ssh_host_" in path] == []
    for path in ("usr/bin/growpart", "usr/sbin/lvm", "usr/sbin/mkfs.xfs", "usr/sbin/iscsid", "usr/bin/python3"):
        assert path in fedora.modes, path
    assert "PermitEmptyPasswords no" in fedora.lines("etc/ssh/sshd_config.d/40-hardening.conf")
    assert "ForwardToConsole=yes" in fedora.lines("etc/systemd/journald.conf.d/50-journal-to-console.conf")
    assert "serial-getty@%k.service" in fedora.text["etc/udev/rules.d/99-serial-console.rules"]
    assert fedora.lines("etc/motd") == ["Welcome"]


def test_root_builds_the_very_same_bytes_anew(ourselves: Person, fedora: Image, fedora_mirror: dict[str, str]) -> None:
    again = built_fedora(ourselves, fedora_mirror, "--refresh", "all")
    ours, theirs = (image.directory / "fedora.tar" for image in (again, fedora))
    same = hashlib.sha256(ours.read_bytes()).digest() == hashlib.sha256(theirs.read_bytes()).digest()
    different = sorted(path for path in fedora.text if again.text.get(path) != fedora.text[path])
    assert same, f"{different}; {sorted(set(fedora.modes) ^ set(again.modes))}"


# --- CentOS Stream


@pytest.fixture(scope="module")
def centos_mirror(ordinary_user: Person, test_cache: Path) -> Iterator[dict[str, str]]:
    with mirror(CENTOS, test_cache, ordinary_user) as variables:
        epel = variables["DIB_DISTRIBUTION_MIRROR"] + "/epel"
        yield variables | {"DIB_RELEASE": "9-stream", "DIB_EPEL_MIRROR": epel}


def test_packages_that_another_key_has_signed_are_refused_with_both_keys(
    ordinary_user: Person, centos_mirror: dict[str, str]
) -> None:
    place = ordinary_user.directory("catalogue-centos-refused")
    wrong = place / "wrong.asc"
    wrong.write_bytes(next((ordinary_user.checkout / "src/dibble/packages/keys").glob("4D64FEC*.asc")).read_bytes())
    env = ordinary_user.environment(**centos_mirror | {"DIB_YUM_MINIMAL_KEYS": str(wrong)})
    done = ordinary_user.dibble("build", "-t", "tar", "-o", "never", "centos-minimal", cwd=place, env=env, check=False)
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if "not trusted" in line]
    assert len(said) == 1
    assert "4D64FEC119C2029067D6E791F8D2585B8783D481 (Debian Stable Release Key" in said[0]
    signer = re.search(r"is signed with the key ([0-9A-F]{16}|[0-9A-F]{8}),", said[0])
    assert signer
    assert fingerprint(key_beside(ordinary_user, CENTOS)).endswith(signer[1])
    assert not (place / "never.tar").exists()


def fingerprint(key: Path) -> str:
    shown = subprocess.run(
        ["gpg", "--show-keys", "--with-colons", key], check=True, capture_output=True, text=True
    ).stdout
    return next(line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr:"))


@pytest.fixture(scope="module")
def centos(ordinary_user: Person, centos_mirror: dict[str, str]) -> Image:
    """A machine, and in the same build a ramdisk by dracut."""
    person = ordinary_user
    elements = SmallElements(person, person.directory("catalogue-centos"))
    home = elements.place
    (home / ".ssh").mkdir()
    (home / ".ssh/authorized_keys").write_text(f"{KEY}\n")
    (home / "centos.gpg").write_bytes(key_beside(person, CENTOS).read_bytes())
    owned(person, home)
    words = "autoupdates centos-minimal disable-nouveau dracut-regenerate element-manifest epel fail2ban hwburnin"
    words += " iscsi-boot local-config manifests mdadm selinux-permissive"
    env = elements.environment(**centos_mirror | {"HOME": str(home), "DIB_YUM_MINIMAL_KEYS": str(home / "centos.gpg")})
    options = ("-t", "tar", "-o", "centos", "--ramdisk-element", "dracut-ramdisk", "-p", "selinux-policy-targeted")
    done = person.dibble("ramdisk-image-create", *options, *words.split(), cwd=home, env=env, timeout=1800)
    return Image(person, home, "centos", done.stdout + done.stderr)


def test_the_system_is_centos_with_its_database_where_that_has_it(centos: Image) -> None:
    assert (release(centos)["ID"], release(centos)["VERSION_ID"]) == ("centos", "9")
    assert "var/lib/rpm/rpmdb.sqlite" in centos.modes
    assert "usr/bin/traceroute" in centos.modes, "of AppStream"


def test_epel_is_there_with_its_mirror_and_its_packages(centos: Image, centos_mirror: dict[str, str]) -> None:
    lines = centos.lines("etc/yum.repos.d/epel.repo")
    assert f"baseurl={centos_mirror['DIB_EPEL_MIRROR']}/9/Everything/$basearch/" in lines
    assert [line for line in lines if line.startswith("metalink=")] == []
    assert centos.lines("etc/crb-was-asked-to") == ["enable"]
    assert "usr/bin/fail2ban-server" in centos.modes
    assert "[sshd]" in centos.lines("etc/fail2ban/jail.local")
    assert centos.enabled("fail2ban.service")


def test_autoupdates_changes_the_settings_of_dnf4(centos: Image) -> None:
    assert "apply_updates = yes" in centos.lines("etc/dnf/automatic.conf")
    assert "upgrade_type = default" in centos.lines("etc/dnf/automatic.conf")
    assert centos.enabled("dnf-automatic.timer")


def test_selinux_is_permissive_and_labels_files_at_the_first_boot(centos: Image) -> None:
    assert centos.lines("etc/selinux/config") == ["SELINUX=permissive", "SELINUXTYPE=targeted"]
    assert ".autorelabel" in centos.modes


def test_the_initramfs_has_what_a_root_on_iscsi_and_in_volumes_needs(centos: Image) -> None:
    (name,) = [path for path in centos.modes if path.startswith("boot/initramfs-")]
    with tarfile.open(centos.directory / "centos.tar") as archive:
        content = archive_in(archive.extractfile(f"./{name}").read())  # type: ignore[union-attr]
    # dracut's own list of the modules in it, a line each
    wanted = (b"crypt", b"iscsi", b"lvm", b"mdraid", b"network")
    assert [name for name in wanted if b"\n%s\n" % name not in content] == []
    assert 'omit_drivers+=" nouveau "' in centos.lines("etc/dracut.conf.d/disable-nouveau.conf")


def archive_in(initramfs: bytes) -> bytes:
    """The archive (cpio) behind that of the processor's microcode, decompressed."""
    start = initramfs.index(b"\x28\xb5\x2f\xfd")  # RFC 8878, 3.1.1
    with zstandard.ZstdDecompressor().stream_reader(initramfs[start:]) as reader:
        return reader.read()


def test_manifests_tell_elements_and_variables_for_root_only(centos: Image) -> None:
    listed = centos.lines("etc/dib-manifests/dib-element-manifest")
    assert listed == sorted(listed)
    assert {"base", "dracut-ramdisk", "epel", "rpm-distro", "yum-minimal"} <= set(listed)
    assert centos.modes["etc/dib-manifests/dib_environment"] == 0o600
    assert (centos.directory / "centos.d/dib-manifests/dib-element-manifest").read_text().splitlines() == listed


def test_local_config_copies_the_builders_keys(centos: Image) -> None:
    assert centos.lines("root/.ssh/authorized_keys") == [KEY]


def test_the_ramdisk_of_dracut_has_the_scripts_of_its_elements(centos: Image) -> None:
    kernel, ramdisk = (centos.directory / f"centos.{end}" for end in ("kernel", "initramfs"))
    assert kernel.read_bytes()[0x202:0x206] == b"HdrS"
    assert ramdisk.stat().st_uid == centos.person.uid
    names = names_in(ramdisk)
    assert any("hooks/pre-mount/50-" in name for name in names)
    assert {"cmp", "busybox", "init-func"} <= {name.rpartition("/")[2] for name in names}
