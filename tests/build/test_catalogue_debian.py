"""What the shipped elements do to a Debian: several in each image, every effect looked up in the tree."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.build.catalogue_images import CLOUD, CONTENT_LIMIT, Image, build, owned
from tests.build.small_elements import SmallElements
from tests.serving import served as served_from

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person


pytestmark = pytest.mark.build

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEw0 somebody@example"


# --- a machine of one's own


@pytest.fixture(scope="module")
def served(ordinary_user: Person) -> Iterator[tuple[Path, str]]:
    """Files on a web server, and its address."""
    place = ordinary_user.directory("catalogue-served")
    (place / "tool-1.0/bin").mkdir(parents=True)
    (place / "tool-1.0/bin/tool").write_text("#!/bin/sh\necho tool\n")
    with tarfile.open(place / "tool.tar.gz", "w:gz") as archive:
        archive.add(place / "tool-1.0", "tool-1.0")
    (place / "single").write_text("one file\n")
    (place / "cached").write_text("from the cache\n")
    owned(ordinary_user, place)
    with served_from(place) as address:
        yield place, address


@pytest.fixture(scope="module")
def home(ordinary_user: Person) -> Path:
    """The home directory that the first build sees, with nothing of the person's own."""
    return ordinary_user.directory("catalogue-home")


@pytest.fixture(scope="module")
def repository(ordinary_user: Person, home: Path) -> tuple[Path, str]:
    """A git repository of the person, and its commit."""
    place = home / "repository"
    place.mkdir()
    (place / "file").write_text("versioned\n")
    owned(ordinary_user, place)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    ordinary_user.run(["git", "-C", place, "init", "--quiet", "--initial-branch=main"])
    ordinary_user.run(["git", "-C", place, "add", "file"])
    ordinary_user.run(["git", "-C", place, *who, "commit", "--quiet", "-m", "first"])
    return place, ordinary_user.run(["git", "-C", place, "rev-parse", "HEAD"]).stdout.strip()


def write_probe(elements: SmallElements, web: str, git: Path) -> None:
    """An element that uses what the shipped ones offer."""
    needs = "cache-url install-bin install-static package-installs pkg-map select-boot-kernel-initrd svc-map sysctl"
    elements.write("probe/element-deps", "\n".join(sorted([*needs.split(), "modprobe", "source-repositories"])) + "\n")
    elements.write("probe/README.rst", "=====\nprobe\n=====\nUses what the shipped elements offer.\n")
    elements.write(
        "probe/package-installs.yaml",
        "greeting:\ned:\n  phase: post-install.d\nbc:\n  build-only: true\nnano:\n  arch: arm64, riscv64\n"
        "pv:\n  when: PROBE_PV = no\n",
    )
    elements.write("probe/pkg-map", json.dumps({"distro": {"debian": {"greeting": "hello"}}, "default": {"pv": "pv"}}))
    elements.write("probe/svc-map", "web:\n  debian: apache2\n  default: httpd\n")
    elements.write("probe/static/etc/motd", "Welcome\n")
    elements.write("probe/static/usr/local/bin/greet", "#!/bin/sh\n", 0o755)
    elements.write("probe/modprobe.d/probe.conf", "options loop max_loop=8\n")
    sum_of_single = hashlib.sha256(b"one file\n").hexdigest()
    elements.write(
        "probe/source-repository-probe",
        f"versioned git /opt/versioned {git} main\n"
        f"tool tar /opt/tool {web}/tool.tar.gz tool-1.0\n"
        f"single file /opt/single {web}/single sha256={sum_of_single}\n",
    )
    elements.script(
        "probe/extra-data.d/50-probe", f'"$TMP_HOOKS_PATH/bin/cache-url" {web}/cached "$TMP_MOUNT_PATH/etc/cached"'
    )
    elements.script(
        "probe/pre-install.d/05-probe", "mkdir -p /etc/selinux; echo SELINUX=enforcing > /etc/selinux/config"
    )
    elements.script(
        "probe/install.d/50-probe",
        "svc-map web nothing > /etc/services-of-probe\n"
        "command -v bc > /etc/bc-while-building\n"
        "sysctl-write-value net.ipv4.ip_forward 1 'a router'",
    )
    elements.script("probe/finalise.d/50-probe", "select-boot-kernel-initrd > /etc/kernel-of-probe")


@pytest.fixture(scope="module")
def machine(ordinary_user: Person, home: Path, served: tuple[Path, str], repository: tuple[Path, str]) -> Image:
    person = ordinary_user
    elements = SmallElements(person, person.directory("catalogue-machine"))
    write_probe(elements, served[1], repository[0])
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/authorized_keys").write_text(f"{KEY}\n")
    (home / "key.pub").write_text(KEY + "-2")
    (home / "apt.conf").write_text('Acquire::Retries "7";\n')
    (home / "updates.conf").write_text('Unattended-Upgrade::Automatic-Reboot "true";\n')
    owned(person, home)
    words = (
        "autoupdates apt-conf baremetal cleanup-kernel-initrd debian-minimal devuser dhcp-all-interfaces dib-run-parts"
    )
    words += " disable-nouveau dynamic-login element-manifest enable-serial-console fail2ban grub2 growroot growvols"
    words += " ibft-interfaces journal-to-console local-config manifests modprobe-blacklist openssh-server"
    words += " openstack-ci-mirrors probe selinux-permissive uboot"
    variables = {
        "HOME": str(home),
        "DIB_APT_CONF": str(home / "apt.conf"),
        "DIB_DEB_UPDATES_CONF": str(home / "updates.conf"),
        "DIB_DEV_USER_USERNAME": "alex",
        "DIB_DEV_USER_AUTHORIZED_KEYS": str(home / "key.pub"),
        "DIB_DEV_USER_PASSWORD": "secret",
        "DIB_DEV_USER_PWDLESS_SUDO": "yes",
        "DIB_DEV_USER_GROUPS": "games,users",
        "DIB_DEV_USER_SHELL": "/bin/sh",
        "DIB_DHCP_TIMEOUT": "12",
        "DIB_GROWVOLS_TRIGGER": "systemd",
        "DIB_GROWVOLS_ARGS": "/=50% /var=1GB",
        "DIB_MODPROBE_BLACKLIST": "pcspkr floppy",
        "PROBE_PV": "yes",
        "no_proxy": ",".join(filter(None, [os.environ.get("no_proxy"), "127.0.0.1", "nobody.example"])),
    }
    return build(elements, "machine", *words.split(), formats="tar,docker", **variables)


def test_apt_conf_is_the_builders(machine: Image) -> None:
    assert machine.text["etc/apt/apt.conf"] == 'Acquire::Retries "7";\n'


def test_autoupdates_runs_unattended_upgrades_as_the_builder_says(machine: Image) -> None:
    assert "unattended-upgrades" in machine.packages
    assert "Automatic-Reboot" in machine.text["etc/apt/apt.conf.d/50unattended-upgrades"]
    assert 'APT::Periodic::Unattended-Upgrade "1";' in machine.lines("etc/apt/apt.conf.d/20auto-upgrades")
    assert machine.enabled("apt-daily-upgrade.timer")


def test_baremetal_puts_kernel_and_ramdisk_beside_the_image(machine: Image) -> None:
    kernel, ramdisk = (machine.directory / f"machine.{end}" for end in ("vmlinuz", "initrd"))
    assert kernel.read_bytes()[0x202:0x206] == b"HdrS"  # Linux/x86 boot protocol
    assert ramdisk.stat().st_size > CONTENT_LIMIT
    assert kernel.stat().st_uid == machine.person.uid


def test_cleanup_kernel_initrd_leaves_the_kernel_that_is_booted(machine: Image) -> None:
    kernel, ramdisk = machine.text["etc/kernel-of-probe"].strip().split(":")
    in_boot = [path.removeprefix("boot/") for path in machine.modes if path.startswith("boot/")]
    assert [name for name in in_boot if name.startswith("vmlinuz-")] == [kernel]
    assert [name for name in in_boot if name.startswith("initrd.img-")] == [ramdisk]
    assert kernel.partition("-")[2] == ramdisk.partition("-")[2]


def test_the_command_that_names_the_kernel_does_not_stay(machine: Image) -> None:
    left = [path for path in machine.modes if "select-boot-kernel-initrd" in path]
    assert left == []


def test_devuser_has_an_account_a_key_and_sudo(machine: Image) -> None:
    _, _, uid, gid, _, home, shell = machine.passwd("alex")
    assert (home, shell) == ("/home/alex", "/bin/sh")
    assert machine.lines("home/alex/.ssh/authorized_keys") == [KEY + "-2"]
    assert machine.modes["home/alex/.ssh/authorized_keys"] == 0o600
    assert machine.owners["home/alex/.ssh/authorized_keys"] == (int(uid), int(gid))
    assert machine.lines("etc/sudoers.d/alex") == ["alex ALL=(ALL:ALL) NOPASSWD:ALL"]
    assert machine.modes["etc/sudoers.d/alex"] == 0o440
    (shadow,) = [line for line in machine.lines("etc/shadow") if line.startswith("alex:")]
    assert shadow.split(":")[1].startswith("$")
    groups = {line.split(":")[0]: line.split(":")[3].split(",") for line in machine.lines("etc/group")}
    assert "alex" in groups["games"]
    assert "alex" in groups["users"]


def test_dhcp_all_interfaces_waits_for_whatever_interface_there_is(machine: Image) -> None:
    unit = machine.text["usr/lib/systemd/system/dhcp-interface@.service"]
    assert "timeout 12 ifup" in unit
    assert "@" not in re.sub(r"%i|dhcp-interface@|ifup@", "", unit)
    assert (
        'SYSTEMD_WANTS}+="dhcp-interface@$name.service"'
        in machine.text["etc/udev/rules.d/99-dhcp-all-interfaces.rules"]
    )
    assert machine.modes["usr/local/sbin/dhcp-all-interfaces.sh"] == 0o755
    assert machine.lines("etc/default/dhcp-all-interfaces") == ["TIMEOUT=12"]
    assert [path for path in machine.modes if path.startswith("etc/network/interfaces.d/")] == []
    assert "dhcpcd-base" in machine.packages or "isc-dhcp-client" in machine.packages


def test_disable_nouveau_and_the_blacklist_are_both_there(machine: Image) -> None:
    assert "blacklist nouveau" in machine.lines("etc/modprobe.d/disable-nouveau.conf")
    assert machine.lines("etc/modprobe.d/dib-blacklist.conf") == ["blacklist pcspkr", "blacklist floppy"]


def test_modprobe_brings_the_files_of_elements(machine: Image) -> None:
    assert machine.lines("etc/modprobe.d/probe.conf") == ["options loop max_loop=8"]


def test_dynamic_login_and_the_services_of_first_boots_are_enabled(machine: Image) -> None:
    units = ("dynamic-login", "ibft-interfaces", "growroot", "growvols", "runtime-ssh-host-keys", "ssh", "fail2ban")
    assert [unit for unit in units if not machine.enabled(f"{unit}.service")] == []
    for name in ("dynamic-login", "ibft-interfaces", "growroot", "growvols", "runtime-ssh-host-keys"):
        assert machine.modes[f"usr/local/sbin/{name}"] == 0o755


def test_element_manifest_lists_the_elements(machine: Image) -> None:
    listed = machine.lines("etc/dib-manifests/dib-element-manifest")
    assert listed == sorted(listed)
    assert {"base", "debian-minimal", "probe", "uboot"} <= set(listed)


def test_enable_serial_console_offers_a_login_on_ports_as_they_turn_up(machine: Image) -> None:
    assert "serial-getty@%k.service" in machine.text["etc/udev/rules.d/99-serial-console.rules"]


def test_fail2ban_watches_the_ssh_server(machine: Image) -> None:
    assert "[sshd]" in machine.lines("etc/fail2ban/jail.local")
    assert "fail2ban" in machine.packages


def test_grub2_brings_grub_for_both_kinds_of_firmware_and_no_environment(machine: Image) -> None:
    assert {"grub-pc-bin", "grub-efi-amd64-bin", "grub2-common"} <= set(machine.packages)
    assert "boot/grub/grubenv" not in machine.modes


def test_growroot_has_its_tools(machine: Image) -> None:
    assert {"cloud-guest-utils", "e2fsprogs", "fdisk"} <= set(machine.packages)


def test_growvols_reads_its_settings_on_the_machine(machine: Image) -> None:
    assert 'GROWVOLS_ARGS="/=50% /var=1GB"' in machine.lines("etc/default/growvols")
    assert "lvm2" in machine.packages


def test_journal_to_console_forwards(machine: Image) -> None:
    assert "ForwardToConsole=yes" in machine.lines("etc/systemd/journald.conf.d/50-journal-to-console.conf")


def test_local_config_copies_keys_and_proxies(machine: Image) -> None:
    assert machine.lines("root/.ssh/authorized_keys") == [KEY]
    assert machine.modes["root/.ssh/authorized_keys"] == 0o600
    assert "nobody.example" in machine.text["etc/environment"]
    assert "export no_proxy=" in machine.text["etc/profile.d/proxy.sh"]


def test_manifests_are_in_the_image_for_root_and_beside_it_for_all(machine: Image) -> None:
    beside = machine.directory / "machine.d/dib-manifests"
    inside = {
        path.removeprefix("etc/dib-manifests/") for path in machine.modes if path.startswith("etc/dib-manifests/")
    }
    assert {path.name for path in beside.iterdir()} == inside
    assert {"dib_arguments", "dib_environment", "dib-manifest-dpkg-machine", "dib-manifest-git-machine"} <= inside
    assert {machine.modes[f"etc/dib-manifests/{name}"] for name in inside} == {0o600}
    assert "secret" not in (beside / "dib_environment").read_text()
    listed = json.loads((beside / "dib-manifest-dpkg-machine").read_text())["packages"]
    assert {
        entry["package"]: entry["version"] for entry in listed if entry["status"] == "installed"
    } == machine.packages


def test_openssh_server_is_hardened_and_has_no_host_keys(machine: Image) -> None:
    assert "PermitEmptyPasswords no" in machine.lines("etc/ssh/sshd_config.d/40-hardening.conf")
    assert [path for path in machine.modes if "ssh_host_" in path] == []


def test_package_installs_goes_by_phase_architecture_condition_and_map(machine: Image) -> None:
    assert {"hello", "ed"} <= set(machine.packages)
    assert {"bc", "nano", "pv"} & set(machine.packages) == set()
    assert machine.lines("etc/bc-while-building") == ["/usr/bin/bc"]


def test_maps_and_commands_of_the_build_do_not_stay(machine: Image) -> None:
    stay = [path for path in machine.modes if path.startswith(("usr/share/pkg-map", "usr/share/svc-map"))]
    assert stay == []
    commands = {path for path in machine.modes if path.startswith("usr/local/bin/")}
    assert commands == {"usr/local/bin/greet"}


def test_svc_map_names_the_service_of_the_distribution(machine: Image) -> None:
    assert machine.lines("etc/services-of-probe") == ["apache2", "nothing"]


def test_selinux_permissive_changes_the_mode(machine: Image) -> None:
    assert machine.lines("etc/selinux/config") == ["SELINUX=permissive"]


def test_sources_come_from_git_a_tarball_and_a_file(machine: Image, repository: tuple[Path, str]) -> None:
    assert machine.text["opt/versioned/file"] == "versioned\n"
    assert machine.lines("opt/tool/bin/tool")[1] == "echo tool"
    assert machine.text["opt/single"] == "one file\n"
    listed = machine.lines("etc/dib-manifests/dib-manifest-git-machine")
    assert listed == [f"versioned git /opt/versioned {repository[0]} {repository[1]}"]


def test_cache_url_downloads_into_the_target(machine: Image) -> None:
    assert machine.text["etc/cached"] == "from the cache\n"


def test_static_files_keep_their_modes(machine: Image) -> None:
    assert machine.text["etc/motd"] == "Welcome\n"
    assert machine.modes["usr/local/bin/greet"] == 0o755


def test_sysctl_settings_are_made_at_boot(machine: Image) -> None:
    assert machine.lines("etc/sysctl.d/net.ipv4.ip_forward.conf") == ["# a router", "net.ipv4.ip_forward = 1"]


def test_uboot_has_nothing_to_do_on_a_pc(machine: Image) -> None:
    assert not list(machine.directory.glob("machine.u*"))


# --- a machine in a cloud


@pytest.fixture(scope="module")
def cloud(ourselves: Person, machine: Image) -> Image:
    person = ourselves
    elements = SmallElements(person, person.directory("catalogue-cloud"))
    elements.write("hello-module/element-deps", "dkms\n")
    elements.write("hello-module/README.rst", "============\nhello-module\n============\nA kernel module.\n")
    elements.write("hello-module/package-installs.yaml", "linux-headers-amd64:\n")
    source = "hello-module/static/usr/src/hello-1.0"
    elements.write(
        f"{source}/dkms.conf",
        'PACKAGE_NAME="hello"\nPACKAGE_VERSION="1.0"\nBUILT_MODULE_NAME[0]="hello"\nDEST_MODULE_LOCATION[0]="/updates"\n'
        'AUTOINSTALL="yes"\n',
    )
    elements.write(f"{source}/Makefile", "obj-m := hello.o\n")
    elements.write(f"{source}/hello.c", '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n')
    elements.script(
        "hello-module/pre-install.d/05-selinux", "mkdir -p /etc/selinux\necho SELINUX=1 > /etc/selinux/config"
    )
    elements.write("hello-module/element-deps", "dkms\ninstall-static\n")
    manifest = elements.place / "manifest"
    shutil.copyfile(machine.directory / "machine.d/dib-manifests/dib-manifest-dpkg-machine", manifest)
    apt_sources = elements.place / "sources.list"
    apt_sources.write_text("# none of its own\n")
    words = "apt-preferences apt-sources cloud-init-datasources cloud-init-growpart debian-systemd disable-selinux"
    words += " hello-module stable-interface-names"
    return build(
        elements,
        "cloud",
        *words.split(),
        DIB_APT_SOURCES=str(apt_sources),
        DIB_CLOUD_INIT_ALLOW_SSH_PWAUTH="yes",
        DIB_CLOUD_INIT_DATASOURCES="ConfigDrive, Ec2",
        DIB_CLOUD_INIT_ETC_HOSTS="localhost",
        DIB_CLOUD_INIT_GROWPART_DEVICES="/, /dev/vdb1",
        DIB_DPKG_MANIFEST=str(manifest),
    )


def test_apt_preferences_pin_what_another_image_has(cloud: Image, machine: Image) -> None:
    pins = cloud.text["etc/apt/preferences"].split("\n\n")
    assert f"Package: hello\nPin: version {machine.packages['hello']}\nPin-Priority: 1001" in pins
    common = set(cloud.packages) & set(machine.packages)
    assert {name: cloud.packages[name] for name in common} == {name: machine.packages[name] for name in common}


def test_apt_sources_are_the_builders(cloud: Image) -> None:
    assert cloud.text["etc/apt/sources.list"] == "# none of its own\n"


def test_cloud_init_is_enabled_with_its_settings(cloud: Image) -> None:
    assert cloud.enabled("cloud-final.service")
    assert cloud.lines(f"{CLOUD}/50-dib-ssh-password.cfg") == ["ssh_pwauth: true"]
    assert "ed25519" in cloud.text[f"{CLOUD}/50-dib-ssh-host-keys.cfg"]
    assert cloud.lines(f"{CLOUD}/10_etc_hosts.cfg") == ["manage_etc_hosts: localhost"]


def test_cloud_init_looks_at_the_sources_that_were_named(cloud: Image) -> None:
    assert cloud.lines(f"{CLOUD}/91-dib-cloud-init-datasources.cfg") == ["datasource_list: [ConfigDrive, Ec2]"]
    assert "dsmode: local" in cloud.text[f"{CLOUD}/92-dib-cloud-init-datasources-configdrive.cfg"]
    assert "strict_id: false" in cloud.text[f"{CLOUD}/92-dib-cloud-init-datasources-ec2.cfg"]


def test_cloud_init_grows_the_partitions_that_were_named(cloud: Image) -> None:
    assert cloud.lines(f"{CLOUD}/55-growpart.cfg")[2:] == ["  devices:", '    - "/"', '    - "/dev/vdb1"']
    assert "cloud-guest-utils" in cloud.packages


def test_debian_has_what_one_expects_on_a_server(cloud: Image) -> None:
    assert {"cloud-init", "curl", "openssh-server", "rsync", "sudo", "systemd-sysv", "vim"} <= set(cloud.packages)
    assert cloud.enabled("ssh.service")


def test_disable_selinux_changes_the_mode(cloud: Image) -> None:
    assert cloud.lines("etc/selinux/config") == ["SELINUX=disabled"]


def test_dkms_builds_modules_for_the_kernel_of_the_image(cloud: Image) -> None:
    (kernel,) = {path.removeprefix("boot/vmlinuz-") for path in cloud.modes if path.startswith("boot/vmlinuz-")}
    assert [
        path for path in cloud.modes if re.fullmatch(rf"usr/lib/modules/{re.escape(kernel)}/.*/hello\.ko(\.\w+)?", path)
    ]


def test_stable_interface_names_leave_naming_to_systemd(cloud: Image) -> None:
    assert "etc/systemd/network/99-default.link" not in cloud.modes
    assert [path for path in cloud.modes if path.startswith("etc/network/interfaces.d/")] == []


# --- without a cloud, out of an image of another kind


@pytest.fixture(scope="module")
def posix(ourselves: Person, machine: Image) -> Image:
    """Begins with the archive that the first image was written as."""
    person = ourselves
    elements = SmallElements(person, person.directory("catalogue-posix"))
    archive = elements.place / "machine.docker"
    shutil.move(machine.directory / "machine.docker", archive)
    words = "cloud-init cloud-init-disable-resizefs cloud-init-nocloud docker dpkg lean-container modprobe posix"
    return build(
        elements,
        "posix",
        *words.split(),
        DISTRO_NAME="debian",
        DIB_RELEASE="stable",
        DIB_LEAN_KEEP="locales",
        DIB_LOCAL_IMAGE=str(archive),
    )


def test_an_image_of_a_container_archive_is_built_on(posix: Image, machine: Image) -> None:
    assert posix.text["opt/single"] == "one file\n"
    assert posix.owners["home/alex"] == machine.owners["home/alex"]
    assert posix.modes["etc/sudoers.d/alex"] == 0o440
    assert {name for name in machine.packages if name not in posix.packages} == set()


def test_posix_brings_the_utilities(posix: Image) -> None:
    for command in ("at", "bc", "crontab", "ed", "m4", "make", "man", "pax", "patch", "time", "uuencode", "vi", "gcc"):
        assert f"usr/bin/{command}" in posix.modes, command


def test_a_lean_container_has_no_kernel_and_of_the_documentation_the_licences(posix: Image, machine: Image) -> None:
    assert [path for path in machine.modes if path.startswith("boot/vmlinuz-")] != []
    assert [path for path in posix.modes if path.startswith(("boot/vmlinuz-", "boot/initrd", "vmlinuz"))] == []
    assert [path for path in posix.modes if path.startswith(("usr/lib/modules/", "usr/lib/firmware/"))] == []
    assert [path for path in posix.modes if path.startswith(("usr/share/man/", "usr/share/info/"))] == []
    assert {path.rpartition("/")[2] for path in posix.text if path.startswith("usr/share/doc/")} == {"copyright"}
    assert [path for path in posix.modes if path.startswith("var/lib/apt/lists/")] == []
    kept = posix.lines("etc/dpkg/dpkg.cfg.d/lean-container")
    assert "path-exclude=/usr/share/man/*" in kept
    assert [line for line in kept if "locale" in line] == [], "which DIB_LEAN_KEEP names"
    assert [path for path in posix.modes if path.endswith("/LC_MESSAGES/cpio.mo")] != []


def test_cloud_init_without_a_cloud_has_a_seed_and_grows_nothing(posix: Image) -> None:
    assert posix.text["var/lib/cloud/seed/nocloud/meta-data"] == ""
    assert posix.lines(f"{CLOUD}/91-dib-cloud-init-datasources.cfg") == ["datasource_list: [NoCloud]"]
    modules = posix.text["etc/cloud/cloud.cfg"]
    assert not re.search(r"^\s*- *(growpart|resizefs)", modules, re.M)
    assert re.search(r"^\s*- *(set_hostname|ssh)", modules, re.M)
