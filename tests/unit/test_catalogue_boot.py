"""The shipped elements that make a disk boot: layouts, GRUB's packages and menu, and what a first login needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import dibble
from dibble.elements.find import find_elements
from dibble.elements.readers.package_installs import squash
from dibble.elements.readers.pkg_map import read_pkg_map

pytestmark = pytest.mark.unit

ELEMENTS = Path(dibble.__file__).parent / "catalogue" / "elements"
GRUB_CFG = ELEMENTS / "bootloader" / "finalise.d" / "grub-cfg.bash"


def bash(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euc", script],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"} | environment,
    )


# --- layouts


def partitions(element: str, file: str = "block-device-default.yaml") -> list[tuple[str, str, str, str, str]]:
    """Table, and of each partition: name, type, size, mount point."""
    nodes: list[dict[str, Any]] = YAML(typ="safe").load((ELEMENTS / element / file).read_text())  # YAML is untyped
    (table,) = [node["partitioning"] for node in nodes if "partitioning" in node]
    assert nodes[0] == {"local_loop": {"name": "image0"}}
    assert table["base"] == "image0"
    found = []
    for entry in table["partitions"]:
        mount = entry.get("mkfs", {}).get("mount", {})
        found.append(
            (table["label"], entry["name"], entry.get("type", ""), entry["size"], mount.get("mount_point", ""))
        )
    return found


def test_mbr_has_one_partition() -> None:
    assert partitions("block-device-mbr") == [("mbr", "root", "", "100%", "/")]


def test_gpt_has_a_place_for_the_core_image() -> None:
    assert partitions("block-device-gpt") == [("gpt", "BSP", "EF02", "8MiB", ""), ("gpt", "root", "", "100%", "/")]


def test_efi_has_a_system_partition_and_boots_from_a_bios_too() -> None:
    assert partitions("block-device-efi") == [
        ("gpt", "ESP", "EF00", "550MiB", "/boot/efi"),
        ("gpt", "BSP", "EF02", "8MiB", ""),
        ("gpt", "root", "8300", "100%", "/"),
    ]


@pytest.mark.parametrize(("element", "kind"), [("block-device-mbr", "0x41"), ("block-device-gpt", "4100")])
def test_power_has_a_prep_partition(element: str, kind: str) -> None:
    first, root = partitions(element, "block-device-ppc64el.yaml")
    assert first[1:] == ("boot", kind, "8MiB", "")
    assert root[1:] == ("root", "", "100%", "/")


@pytest.mark.parametrize(
    ("kind", "arch", "accepted"),
    [
        ("mbr", "amd64", True),
        ("mbr", "arm64", False),
        ("gpt", "aarch64", False),
        ("gpt", "ppc64el", True),
        ("gpt", "riscv64", False),
        ("mbr", "riscv64", False),
        ("efi", "arm64", True),
        ("efi", "ppc64le", False),
    ],
)
def test_a_layout_that_cannot_boot_is_refused(kind: str, arch: str, accepted: bool) -> None:
    file = ELEMENTS / f"block-device-{kind}" / "environment.d" / "15-block-device.bash"
    done = bash(f'source "{file}"; printf "%s" "$DIB_BLOCK_DEVICE"', ARCH=arch)
    assert (done.returncode == 0) is accepted
    if accepted:
        assert done.stdout == kind
    else:
        assert arch in done.stderr


# --- GRUB's packages


def grub_packages(arch: str, distro: str = "debian", **environment: str) -> set[str]:
    """What is installed, with the variables as bootloader's environment file leaves them."""
    file = ELEMENTS / "bootloader" / "environment.d" / "10-bootloader.bash"
    done = bash(f'source "{file}"; env -0', ARCH=arch, **environment)
    variables = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    element = find_elements([ELEMENTS]).elements["bootloader"]
    wanted = squash([element], variables, arch).get("install.d", {}).get("install", [])
    packages = read_pkg_map(ELEMENTS / "bootloader" / "pkg-map")
    found: set[str] = set()
    for name, _ in wanted:
        mapped = packages.lookup(name, distro)
        assert mapped is not None, name
        found.update(mapped.split())
    return found


def test_a_pc_has_the_bios_package_unless_it_boots_from_uefi() -> None:
    assert grub_packages("amd64", DIB_BLOCK_DEVICE="mbr") == {"grub-pc"}
    assert grub_packages("amd64", DIB_BLOCK_DEVICE="gpt") == {"grub-pc"}
    assert grub_packages("amd64", DIB_BLOCK_DEVICE="efi") == {"grub-efi-amd64", "grub-pc-bin"}
    assert grub_packages("i386", DIB_BLOCK_DEVICE="efi") == {"grub-efi-ia32", "grub-pc-bin"}


def test_arm_has_uefi_also_when_no_layout_says_so() -> None:
    assert grub_packages("arm64") == {"grub-efi-arm64"}


def test_so_has_riscv() -> None:
    assert grub_packages("riscv64") == {"grub-efi-riscv64"}


def test_power_has_open_firmware() -> None:
    assert grub_packages("ppc64el", DIB_BLOCK_DEVICE="mbr") == {"grub-ieee1275"}


def test_no_grub_package_is_installed_when_told_so() -> None:
    assert grub_packages("amd64", DIB_SKIP_GRUB_PACKAGE_INSTALL="True") == set()


def test_systemd_boot_takes_the_place_of_grub() -> None:
    for arch, kind in (("amd64", "efi"), ("arm64", "efi"), ("amd64", "gpt")):
        found = grub_packages(arch, DIB_BLOCK_DEVICE=kind, DIB_BOOTLOADER="systemd-boot")
        assert found == {"systemd-boot-efi"}, (arch, kind)
    assert grub_packages("amd64", "fedora", DIB_BOOTLOADER="systemd-boot") == {"systemd-boot-unsigned"}


def test_u_boot_needs_no_package_in_the_image() -> None:
    assert grub_packages("arm64", DIB_BOOTLOADER="extlinux") == set()


def test_every_grub_package_has_a_name_in_every_family() -> None:
    for distro in ("debian", "ubuntu", "fedora", "rocky", "opensuse", "gentoo"):
        for arch, kind in (("amd64", "mbr"), ("amd64", "efi"), ("arm64", "efi"), ("ppc64le", "gpt")):
            assert grub_packages(arch, distro, DIB_BLOCK_DEVICE=kind), (distro, arch, kind)


# --- the menu


class Tree:
    """A root tree with kernels, enough to write a menu for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings("")
        (root / "etc/os-release").write_text('PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nNAME="Debian GNU/Linux"\n')

    def settings(self, text: str, file: str = "etc/default/grub") -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def kernel(self, version: str, initrd: str | None = "initrd.img-{}") -> None:
        (self.root / "boot").mkdir(exist_ok=True)
        (self.root / "boot" / f"vmlinuz-{version}").touch()
        if initrd:
            (self.root / "boot" / initrd.format(version)).touch()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return bash(f'"{GRUB_CFG}" "$@"'.replace('"$@"', " ".join([str(self.root), *arguments])))

    def menu(self, *arguments: str) -> str:
        done = self.run(*(arguments or ("img-root", "ext4")))
        assert done.returncode == 0, done.stderr
        checker = shutil.which("grub-script-check")
        if checker:
            checked = subprocess.run([checker], check=False, input=done.stdout, text=True, capture_output=True)
            assert checked.returncode == 0, checked.stderr
        return done.stdout

    def linux_lines(self) -> list[str]:
        return [line.strip() for line in self.menu().splitlines() if line.strip().startswith("linux ")]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_the_newest_kernel_comes_first(tree: Tree) -> None:
    for version in ("6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.0-10-amd64.old"):
        tree.kernel(version)
    kernels = [line.split()[1] for line in tree.linux_lines()]
    new, old = "/boot/vmlinuz-6.1.0-10-amd64", "/boot/vmlinuz-6.1.0-9-amd64"
    assert kernels == [new, new, new, old, old]  # one entry, and in the submenu each with one for recovery


def test_an_entry_names_root_by_label_and_takes_the_settings(tree: Tree) -> None:
    tree.kernel("6.12")
    tree.settings('GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"\nGRUB_CMDLINE_LINUX_DEFAULT="a  b"\n')
    first, _, recovery = tree.linux_lines()
    arguments = "console=tty0 console=ttyS0,115200"
    assert first == f"linux /boot/vmlinuz-6.12 root=LABEL=img-root ro {arguments} a b"
    assert recovery == f"linux /boot/vmlinuz-6.12 root=LABEL=img-root ro single {arguments}"
    assert "    initrd /boot/initrd.img-6.12\n" in tree.menu()


def test_files_beside_the_settings_have_the_last_word(tree: Tree) -> None:
    tree.kernel("6.12")
    tree.settings("GRUB_TIMEOUT=5\nGRUB_DISABLE_RECOVERY=true\n")
    tree.settings("GRUB_TIMEOUT=1\n", "etc/default/grub.d/50-site.cfg")
    menu = tree.menu()
    assert "set timeout=1\n" in menu
    assert "recovery" not in menu


def test_a_boot_partition_has_the_kernels_at_its_top(tree: Tree) -> None:
    tree.kernel("6.12")
    menu = tree.menu("img-root", "xfs", "img-boot")
    assert "linux /vmlinuz-6.12 root=LABEL=img-root " in menu
    assert "search --no-floppy --label --set=root 'img-boot'" in menu
    assert "if [ ! -f /vmlinuz-6.12 ]; then" in menu


@pytest.mark.parametrize(
    ("lines", "arguments", "kernel", "flags"),
    [
        (["LABEL=r / btrfs defaults,subvol=@ 0 0"], ("r", "btrfs"), "/@/boot/vmlinuz-6.12", "rootflags=subvol=@"),
        (["LABEL=r / btrfs subvol=/@,ro 0 0"], ("r", "btrfs", "b"), "/vmlinuz-6.12", "rootflags=subvol=@"),
        (["LABEL=r / btrfs subvol=@", "LABEL=r /boot btrfs subvol=@k 0 0"], ("r", "btrfs"), "/@k/vmlinuz-6.12",
         "rootflags=subvol=@"),
        (["#LABEL=r / btrfs subvol=@", "LABEL=r / btrfs defaults 0 0"], ("r", "btrfs"), "/boot/vmlinuz-6.12", ""),
    ],
)  # fmt: skip
def test_paths_on_btrfs_begin_above_all_subvolumes(
    lines: list[str], arguments: tuple[str, ...], kernel: str, flags: str, tree: Tree
) -> None:
    tree.kernel("6.12")
    (tree.root / "etc" / "fstab").write_text("\n".join(lines) + "\n")
    assert f"    linux {kernel} root=LABEL=r ro {flags}" in tree.menu(*arguments)
    assert ("rootflags" in tree.menu(*arguments)) == bool(flags)


def test_the_label_is_searched_for_only_where_the_kernel_is_not_at_hand(tree: Tree) -> None:
    tree.kernel("6.12")
    lines = tree.menu().splitlines()
    search = lines.index("    search --no-floppy --label --set=root 'img-root'")
    assert lines[search - 1] == "if [ ! -f /boot/vmlinuz-6.12 ]; then"


def test_a_serial_port_is_used_where_it_is_wanted_and_there(tree: Tree) -> None:
    tree.kernel("6.12")
    assert "serial" not in tree.menu()
    tree.settings('GRUB_TERMINAL="serial console"\nGRUB_SERIAL_COMMAND="serial --unit=1 --speed=9600"\n')
    assert "if serial --unit=1 --speed=9600; then\n    terminal_input console serial\n" in tree.menu()


def test_other_names_of_an_initramfs_are_known(tree: Tree) -> None:
    tree.kernel("6.12-fedora", "initramfs-{}.img")
    tree.kernel("6.4-suse", "initrd-{}")
    menu = tree.menu()
    assert "initrd /boot/initramfs-6.12-fedora.img" in menu
    assert "initrd /boot/initrd-6.4-suse" in menu


def test_a_kernel_without_initramfs_is_pointed_out(tree: Tree) -> None:
    tree.kernel("6.12", initrd=None)
    done = tree.run("img-root")
    assert "vmlinuz-6.12 has no initramfs" in done.stderr
    assert "initrd" not in done.stdout


def test_a_tree_without_kernel_is_an_error(tree: Tree) -> None:
    done = tree.run("img-root")
    assert done.returncode == 1
    assert "no kernel in /boot" in done.stderr


def test_names_are_quoted_for_grub(tree: Tree) -> None:
    tree.kernel("6.12")
    (tree.root / "etc/os-release").write_text('NAME="Bob; reboot"\n')
    assert "menuentry 'Bob; reboot' " in tree.menu()


def test_boot_entries_in_files_are_shown_where_grub_can(tree: Tree) -> None:
    tree.kernel("6.12")
    entries = tree.root / "boot/loader/entries"
    entries.mkdir(parents=True)
    (entries / "id-6.12.conf").write_text("title x\n")
    menu = tree.menu()
    assert "if insmod blscfg; then\n    blscfg\nelse\n" in menu
    assert menu.rstrip().endswith("}\nfi")


def test_the_same_tree_gives_the_same_menu_anywhere(tmp_path: Path) -> None:
    menus = []
    for name, order in (("a", ("6.1", "6.12", "6.2")), ("b", ("6.2", "6.12", "6.1"))):
        (tmp_path / name / "etc").mkdir(parents=True)
        tree = Tree(tmp_path / name)
        for version in order:
            tree.kernel(version)
        menus.append(tree.menu())
    assert menus[0] == menus[1]


# --- consoles and settings of the boot loader


def test_consoles_follow_the_architecture() -> None:
    file = ELEMENTS / "bootloader" / "environment.d" / "10-bootloader.bash"
    show = f'source "{file}"; printf "%s %s" "$DIB_BOOTLOADER_SERIAL_CONSOLE" "$DIB_BOOTLOADER_VIRTUAL_TERMINAL"'
    assert bash(show, ARCH="amd64").stdout == "ttyS0,115200 tty0"
    assert bash(show, ARCH="arm64").stdout == "ttyAMA0 tty0"
    assert bash(show, ARCH="armhf").stdout == "ttyAMA0 tty0"
    assert bash(show, ARCH="ppc64el").stdout == "hvc0 tty0"
    assert bash(show, ARCH="riscv64").stdout == "ttyS0,115200 tty0"
    given = bash(show, ARCH="amd64", DIB_BOOTLOADER_SERIAL_CONSOLE="ttyS1", DIB_BOOTLOADER_VIRTUAL_TERMINAL="")
    assert given.stdout == "ttyS1 "


# --- what a first login needs


def in_a_tree(script: Path, root: Path, directory: str) -> str:
    """The text of a script with a directory of the target put below `root`."""
    return script.read_text().replace(directory, f"{root}{directory}")


def test_cloud_init_no_longer_grows_anything(tmp_path: Path) -> None:
    config = tmp_path / "etc/cloud/cloud.cfg"
    config.parent.mkdir(parents=True)
    config.write_text(
        "cloud_init_modules:\n  - seed_random\n  - growpart\n  - resizefs\n"
        " - [resizefs, always]\n  - resizefs_x\nresize_rootfs: true\n"
    )
    for name in ("50-disable-resizefs", "51-disable-growpart"):
        script = ELEMENTS / "cloud-init-disable-resizefs" / "post-install.d" / name
        done = bash(in_a_tree(script, tmp_path, "/etc/cloud"))
        assert done.returncode == 0, done.stderr
    assert config.read_text() == "cloud_init_modules:\n  - seed_random\n  - resizefs_x\nresize_rootfs: true\n"


def datasources(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    script = ELEMENTS / "cloud-init-datasources" / "install.d" / "05-set-cloud-init-sources"
    return bash(in_a_tree(script, root, "/etc/cloud"), **environment)


def test_data_sources_are_listed_in_order(tmp_path: Path) -> None:
    done = datasources(tmp_path, DIB_CLOUD_INIT_DATASOURCES="Ec2,ConfigDrive, None")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "etc/cloud/cloud.cfg.d"
    merged: dict[str, Any] = {}  # YAML is untyped
    for file in sorted(folder.iterdir()):
        merged |= YAML(typ="safe").load(file.read_text())
    # cloud-init's own word for "none" has to stay a text
    assert YAML(typ="safe").load((folder / "91-dib-cloud-init-datasources.cfg").read_text()) == {
        "datasource_list": ["Ec2", "ConfigDrive", "None"]
    }
    assert "datasource" in merged


@pytest.mark.parametrize("value", ["", "Ec2; rm -rf /"])
def test_data_sources_have_to_be_named(tmp_path: Path, value: str) -> None:
    done = datasources(tmp_path, DIB_CLOUD_INIT_DATASOURCES=value)
    assert done.returncode == 1
    assert "DIB_CLOUD_INIT_DATASOURCES" in done.stderr


class Caller:
    """The one who builds: a home directory, and the hooks that devuser's outer script writes into."""

    def __init__(self, root: Path) -> None:
        self.home, self.hooks = root / "home", root / "hooks"
        (self.home / ".ssh").mkdir(parents=True)
        self.hooks.mkdir()

    def keys(self, **environment: str) -> str | None:
        element = ELEMENTS / "devuser"
        variables = element / "environment.d" / "50-devuser.bash"
        done = bash(
            f'source "{variables}"; "{element}/extra-data.d/50-devuser"',
            HOME=str(self.home),
            TMP_HOOKS_PATH=str(self.hooks),
            **environment,
        )
        assert done.returncode == 0, done.stderr
        file = self.hooks / "devuser-authorized-keys"
        return file.read_text() if file.exists() else None


def test_devuser_takes_all_public_keys_of_the_caller(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    assert caller.keys() is None
    (caller.home / ".ssh/id_rsa.pub").write_text("ssh-rsa AA a")
    (caller.home / ".ssh/id_ed25519.pub").write_text("ssh-ed25519 BB b\n")
    assert caller.keys() == "ssh-ed25519 BB b\nssh-rsa AA a\n"


def test_devuser_takes_the_given_keys_alone(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    (caller.home / ".ssh/id_rsa.pub").write_text("ssh-rsa AA a\n")
    (tmp_path / "keys").write_text("ssh-ed25519 CC c\n")
    assert caller.keys(DIB_DEV_USER_AUTHORIZED_KEYS=str(tmp_path / "keys")) == "ssh-ed25519 CC c\n"


def test_devuser_keeps_the_password_out_of_a_traced_log(tmp_path: Path) -> None:
    element = ELEMENTS / "devuser"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"getent": "exit 2", "useradd": "true", "chpasswd": f"cat > {tmp_path}/passed"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    done = bash(
        f'set -x; source "{element}/environment.d/50-devuser.bash"; '
        f'"{element}/extra-data.d/50-devuser"; "{element}/install.d/50-devuser"',
        PATH=f"{programs}:{os.environ['PATH']}",
        HOME=str(tmp_path),
        TMP_HOOKS_PATH=str(tmp_path),
        DIB_DEBUG_TRACE="1",
        DIB_DEV_USER_PASSWORD="secret:w0rd $x",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "passed").read_text() == "devuser:secret:w0rd $x\n"
    assert "useradd" in done.stderr
    assert "w0rd" not in done.stderr + done.stdout


def test_host_keys_are_not_in_the_image(tmp_path: Path) -> None:
    ssh = tmp_path / "etc/ssh"
    ssh.mkdir(parents=True)
    for name in ("ssh_host_rsa_key", "ssh_host_rsa_key.pub", "ssh_host_ed25519_key", "sshd_config"):
        (ssh / name).touch()
    script = ELEMENTS / "runtime-ssh-host-keys" / "cleanup.d" / "90-remove-ssh-host-keys"
    assert bash(str(script), TARGET_ROOT=str(tmp_path)).returncode == 0
    assert [path.name for path in ssh.iterdir()] == ["sshd_config"]


def growing(tmp_path: Path, growpart: str) -> subprocess.CompletedProcess[str]:
    """growroot on a machine whose programs are pretended: root is /dev/vda2, and growpart does as told."""
    programs = tmp_path / "bin"
    programs.mkdir()
    device = tmp_path / "sys/devices/vda/vda2"
    device.mkdir(parents=True)
    (device / "partition").write_text("2\n")
    (tmp_path / "sys/class/block").mkdir(parents=True)
    (tmp_path / "sys/class/block/vda2").symlink_to(device)
    stubs = {
        "findmnt": 'case "$*" in *FSTYPE*) echo ext4;; *MAJ*) echo 254:2;; *) echo /dev/vda2;; esac',
        "growpart": growpart,
        "resize2fs": 'echo "resize2fs $*"',
        "udevadm": "true",
        "readlink": 'case "$2" in /dev/*) echo "$2";; *) exec /usr/bin/readlink "$@";; esac',
    }
    for name, text in stubs.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    script = (ELEMENTS / "growroot/static/usr/local/sbin/growroot").read_text()
    for old, new in (("PATH=/usr/local/sbin", f"PATH={programs}:/usr/local/sbin"), ("/sys/", f"{tmp_path}/sys/")):
        assert old in script
        script = script.replace(old, new)
    return bash(script.replace("[ ! -b ", "[ ! -n "))


def test_growroot_grows_the_partition_and_then_the_file_system(tmp_path: Path) -> None:
    done = growing(tmp_path, 'echo "CHANGED: $*"')
    assert done.returncode == 0, done.stderr
    assert done.stdout == "growroot: CHANGED: /dev/vda 2\nresize2fs /dev/vda2\n"


def test_growroot_succeeds_when_there_is_nothing_to_gain(tmp_path: Path) -> None:
    done = growing(tmp_path, 'echo "NOCHANGE: partition 2 could only be grown by 33"; exit 1')
    assert done.returncode == 0, done.stderr
    assert "resize2fs /dev/vda2" in done.stdout


SLAVE_SECTORS = 9852895


def growing_on(tmp_path: Path, device: str, slaves: list[str], marks: dict[str, str], **stubs: str) -> str:
    """What growroot prints where the root lies on a device that is made of partitions, one a disk."""
    top = tmp_path / "sys/devices" / device
    for name, text in marks.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "slaves").mkdir(parents=True)
    (tmp_path / "sys/class/block").mkdir(parents=True)
    (tmp_path / "sys/class/block" / device).symlink_to(top)
    for slave in slaves:
        place = tmp_path / "sys/devices" / slave[:-1] / slave
        place.mkdir(parents=True)
        (place / "size").write_text(f"{SLAVE_SECTORS}\n")
        (place / "partition").write_text(f"{slave[-1]}\n")
        (tmp_path / "sys/class/block" / slave).symlink_to(place)
        (top / "slaves" / slave).symlink_to(place)
    (tmp_path / "bin").mkdir()
    programs = {
        "findmnt": f'case "$*" in *FSTYPE*) echo ext4;; *) echo /dev/{device};; esac',
        "growpart": 'echo "CHANGED: $*"',
        "resize2fs": 'echo "resize2fs $*"',
        "udevadm": "true",
        "readlink": 'case "$2" in /dev/*) echo "$2";; *) exec /usr/bin/readlink "$@";; esac',
        **stubs,
    }
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    script = (ELEMENTS / "growroot/static/usr/local/sbin/growroot").read_text()
    script = script.replace("PATH=/usr/local/sbin", f"PATH={tmp_path}/bin:/usr/local/sbin")
    done = bash(script.replace("/sys/", f"{tmp_path}/sys/").replace("[ ! -b ", "[ ! -n "))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_growroot_grows_the_partitions_of_an_array_and_then_the_array(tmp_path: Path) -> None:
    said = growing_on(tmp_path, "md127", ["vda3", "vdb1"], {"md/level": "raid1"}, mdadm='echo "mdadm $*"')
    assert said.splitlines() == [
        "growroot: CHANGED: /dev/vda 3",
        "growroot: CHANGED: /dev/vdb 1",
        "mdadm --grow /dev/md127 --size=max",
        "resize2fs /dev/md127",
    ]


def test_growroot_leaves_an_array_alone_whose_members_share_a_disk(tmp_path: Path) -> None:
    said = growing_on(tmp_path, "md127", ["vda3", "vda4"], {"md/level": "raid1"}, mdadm='echo "mdadm $*"')
    assert said.splitlines() == [
        "growroot: members of the array /dev/md127 lie on one disk; it keeps its size",
        "resize2fs /dev/md127",
    ]


def test_growroot_asks_nothing_of_a_container_that_has_the_size_of_its_partition(tmp_path: Path) -> None:
    marks = {"dm/uuid": "CRYPT-LUKS2-0-vault", "dm/name": "vault\n", "size": f"{SLAVE_SECTORS - 32768}\n"}
    said = growing_on(tmp_path, "dm-0", ["vda3"], marks, cryptsetup="exit 2")
    assert said.splitlines() == ["growroot: CHANGED: /dev/vda 3", "resize2fs /dev/dm-0"]


@pytest.mark.parametrize("has_key", [True, False])
def test_growroot_grows_the_partition_of_a_container_and_the_container_if_it_has_the_key(
    tmp_path: Path, has_key: bool
) -> None:
    marks = {"dm/uuid": "CRYPT-LUKS2-0-vault", "dm/name": "vault\n", "size": "1470464\n"}
    program = 'echo "cryptsetup $*"' if has_key else "exit 2"
    first, second, last = growing_on(tmp_path, "dm-0", ["vda3"], marks, cryptsetup=program).splitlines()
    assert (first, last) == ("growroot: CHANGED: /dev/vda 3", "resize2fs /dev/dm-0")
    if has_key:
        assert second == "cryptsetup resize --batch-mode vault"
    else:
        assert second.endswith("the container vault takes the size of its partition when it is opened the next time")


def test_growroot_leaves_a_logical_volume_alone(tmp_path: Path) -> None:
    said = growing_on(tmp_path, "dm-0", ["vda3"], {"dm/uuid": "LVM-abc", "dm/name": "vg-root\n"})
    assert said.splitlines() == [
        "growroot: /dev/dm-0 is not a partition; its size is left alone",
        "resize2fs /dev/dm-0",
    ]


def test_growroot_fails_when_growpart_does(tmp_path: Path) -> None:
    done = growing(tmp_path, 'echo "FAILED: no sfdisk"; exit 2')
    assert done.returncode == 2
    assert "no sfdisk" in done.stdout
