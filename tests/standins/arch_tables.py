"""What Arch Linux calls packages of Debian, what it adds to them, and packages of its own.

Nearly all that can be wrong in a stand-in is wrong here, and not in the code that reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.standins.payload import Files
from tests.standins.redhat_packages import filesystem, setup
from tests.standins.redhat_tables import ADDITIONS as ADDITIONS_OF_FEDORA
from tests.standins.redhat_tables import LEFT_OUT as LEFT_OUT_OF_FEDORA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOTS = tuple(
    """
    bash bzip2 ca-certificates cloud-guest-utils coreutils cpio curl dbus diffutils dracut-core e2fsprogs fdisk file
    findutils gawk gpg gpg-agent gpgconf gpgv grep gzip iproute2 iputils-ping kmod less libc-bin libc6
    libpam-modules libpam-runtime login login.defs lsof makepkg mount ncurses-base open-iscsi openssh-server openssl
    pacman-package-manager passwd procps sed sudo systemd systemd-resolved systemd-sysv tar tcpdump tzdata udev
    util-linux xz-utils zstd grub-common grub2-common
    """.split()  # noqa: SIM905 - a table to be read
)
FIRMWARE_ROOTS = {"amd64": ("grub-pc-bin", "grub-efi-amd64-bin"), "arm64": ("grub-efi-arm64-bin",)}
LEFT_OUT = LEFT_OUT_OF_FEDORA | set("debugedit fakeroot patch perl pkgconf texinfo".split())  # noqa: SIM905

# pacman's name → the packages of Debian that it is made of; others keep their names
MERGED = {
    "bzip2": "bzip2 libbz2-1.0",
    "curl": "curl libcurl4t64",
    "dbus": "dbus dbus-bin dbus-daemon dbus-session-bus-common dbus-system-bus-common libdbus-1-3",
    "device-mapper": "dmsetup libdevmapper1.02.1",
    "dracut": "dracut-core",
    "e2fsprogs": "e2fsprogs logsave libext2fs2t64 libss2 libcom-err2",
    "file": "file libmagic1t64 libmagic-mgc",
    "gcc-libs": "libgcc-s1 libstdc++6",
    "glibc": "libc6 libc-bin",
    "gnupg": "gpg gpg-agent gpgconf gpgsm gpgv pinentry-curses",
    "gpgme": "libgpgme11t64",
    "grub": "grub-common grub2-common grub-pc-bin grub-efi-amd64-bin grub-efi-amd64-unsigned grub-efi-arm64-bin"
    " grub-efi-arm64-unsigned",
    "iputils": "iputils-ping",
    "kmod": "kmod libkmod2",
    "krb5": "libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0",
    "libarchive": "libarchive13t64",
    "libpcap": "libpcap0.8t64",
    "ncurses": "ncurses-base libtinfo6 libncursesw6",
    "open-iscsi": "open-iscsi libopeniscsiusr libisns0t64",
    "openssh": "openssh-client openssh-server openssh-sftp-server",
    "openssl": "openssl libssl3t64 openssl-provider-legacy",
    "pacman": "pacman-package-manager libalpm15 makepkg",
    "pam": "libpam0g libpam-modules libpam-modules-bin libpam-runtime",
    "pcre2": "libpcre2-8-0",
    "procps-ng": "procps libproc2-0",
    "readline": "libreadline8t64 readline-common",
    "shadow": "passwd login.defs libsubid5",
    "systemd": "systemd systemd-resolved libsystemd-shared udev",
    "systemd-libs": "libsystemd0 libudev1",
    "systemd-sysvcompat": "systemd-sysv",
    "util-linux": "util-linux mount fdisk login",
    "util-linux-libs": "libblkid1 libmount1 libuuid1 libsmartcols1 libfdisk1",
    "xz": "xz-utils liblzma5",
    "zlib": "zlib1g",
    "zstd": "zstd libzstd1",
}
KERNEL = "linux"
IN_EXTRA = ("cloud-guest-utils", "dracut", "lsof", "open-iscsi", "tcpdump")

# Debian's dependencies take essential packages for granted
DEPENDS = {
    "bash": "glibc",
    "ca-certificates": "coreutils",
    "cloud-guest-utils": "gawk util-linux",
    "dracut": "findutils gzip cpio sed grep gawk util-linux tar coreutils systemd kmod xz zstd bash",
    "glibc": "filesystem",
    "grub": "coreutils grep sed gawk util-linux",
    "openssh": "pam shadow systemd",
    "pacman": "archlinux-keyring bash coreutils gawk gnupg pacman-mirrorlist",
    "pam": "util-linux",
    "systemd": "coreutils util-linux pam shadow bash systemd-libs",
    KERNEL: "coreutils initramfs kmod",
}
PROVIDES = {
    "bash": "sh",
    "glibc": "libc.so=6-64",
    "systemd-libs": "libudev libsystemd",
    "util-linux-libs": "libutil-linux",
    KERNEL: "LINUX-IMAGE",
}

_BASE = """
    bash bzip2 coreutils file filesystem findutils gawk gcc-libs glibc grep gzip iproute2 iputils pacman procps-ng sed
    shadow systemd systemd-sysvcompat tar util-linux xz
"""
_SYSTEMD = """
systemd-sysusers
systemd-machine-id-setup > /dev/null 2>&1 || :
systemctl preset-all > /dev/null 2>&1 || :
systemctl enable getty@tty1.service > /dev/null 2>&1 || :
systemd-hwdb update > /dev/null 2>&1 || :
systemd-tmpfiles --create > /dev/null 2>&1 || :
"""
SCRIPTS = {"systemd": {"post_install": _SYSTEMD}, "tcpdump": {"post_install": "echo 'tcpdump can be used'\n"}}
"""The functions of packages' .INSTALL files."""

_CONF = """# See the pacman.conf(5) manpage for option and repository directives
[options]
HoldPkg     = pacman glibc
Architecture = auto
CheckSpace
ParallelDownloads = 5
SigLevel    = Required DatabaseOptional
LocalFileSigLevel = Optional

[core]
Include = /etc/pacman.d/mirrorlist

[extra]
Include = /etc/pacman.d/mirrorlist
"""
_DEPMOD_HOOK = """[Trigger]
Type = Path
Operation = Install
Operation = Upgrade
Target = usr/lib/modules/*/
Target = usr/lib/modules/*/kernel/*

[Action]
Description = Updating module dependencies...
When = PostTransaction
Exec = /bin/sh -c 'for place in /usr/lib/modules/*/; do depmod -a "$(basename "$place")"; done'
"""
_SYSUSERS_HOOK = """[Trigger]
Type = Path
Operation = Install
Operation = Upgrade
Target = usr/lib/sysusers.d/*.conf

[Action]
Description = Creating system user accounts...
When = PostTransaction
Exec = /usr/bin/systemd-sysusers
"""
_INITRAMFS_HOOK = """[Trigger]
Type = Path
Operation = Install
Operation = Upgrade
Target = usr/lib/modules/*/vmlinuz

[Action]
Description = Updating linux initcpios...
When = PostTransaction
Exec = /usr/share/libalpm/scripts/mkinitcpio
"""
_INITRAMFS_SCRIPT = """#!/bin/bash
# Puts kernels where they boot from, each with a preset, and makes their initial ramdisks.
set -eu
for file in /usr/lib/modules/*/pkgbase; do
    name=$(< "$file")
    install -Dm644 "${file%/*}/vmlinuz" "/boot/vmlinuz-$name"
    mkdir -p /etc/mkinitcpio.d
    {
        echo "ALL_kver=/boot/vmlinuz-$name"
        echo "PRESETS=(default)"
        echo "default_image=/boot/initramfs-$name.img"
    } > "/etc/mkinitcpio.d/$name.preset"
done
exec /usr/bin/mkinitcpio -P
"""
_MKINITCPIO = """#!/bin/bash
# dracut under the name and with the presets of mkinitcpio.
set -eu
[ "${1:-}" = -P ] || { echo "this mkinitcpio knows -P only" >&2; exit 1; }
for file in /etc/mkinitcpio.conf /etc/mkinitcpio.conf.d/*.conf; do
    [ ! -f "$file" ] || . "$file"
done
case " ${HOOKS[*]} " in
    *" autodetect "*) mode=--hostonly ;;
    *) mode=--no-hostonly ;;
esac
for preset in /etc/mkinitcpio.d/*.preset; do
    . "$preset"
    for base in /usr/lib/modules/*/pkgbase; do
        if [ "/boot/vmlinuz-$(< "$base")" = "$ALL_kver" ]; then
            version=$(basename "${base%/*}")
            echo "==> Building image from preset: $preset"
            dracut --quiet --force --reproducible "$mode" "$default_image" "$version"
        fi
    done
done
"""


@dataclass(frozen=True, slots=True)
class Made:
    """A package of ours."""

    files: Files
    depends: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    version: str = "20260401-1"


def own_packages(keyring: bytes, fingerprint: str) -> Mapping[str, Made]:
    """Packages that Debian has nothing like; `keyring` holds the certificate that signs all of them."""
    return {
        "archlinux-keyring": Made(_keyring(keyring, fingerprint), ("pacman",)),
        "base": Made(Files(), tuple(_BASE.split()), version="3-2"),
        "filesystem": Made(_filesystem(), version="2025.10.12-1"),
        "mkinitcpio": Made(_mkinitcpio(), ("dracut", "kmod"), ("initramfs",), version="40-3"),
        "pacman-mirrorlist": Made(_mirrorlist()),
    }


def _filesystem() -> Files:
    files = filesystem()
    files.entries |= setup().entries
    for path in ("/usr/lib64", "/usr/sbin"):
        del files.entries[path]
    files.link("/usr/lib64", "lib")
    files.link("/usr/sbin", "bin")
    for name in ("bin", "sbin"):
        files.link(f"/{name}", "usr/bin")
    for name in ("lib", "lib64"):
        files.link(f"/{name}", "usr/lib")
    files.file(
        "/usr/lib/os-release",
        'NAME="Arch Linux"\nPRETTY_NAME="Arch Linux (Stand-in)"\nID=arch\nBUILD_ID=rolling\n'
        'HOME_URL="https://archlinux.org/"\n',
    )
    files.link("/etc/os-release", "../usr/lib/os-release")
    files.file("/etc/arch-release", "")
    files.file("/usr/lib/systemd/system-preset/99-default.preset", "disable *\n")
    return files


def _keyring(keyring: bytes, fingerprint: str) -> Files:
    files = Files()
    files.file("/usr/share/pacman/keyrings/archlinux.gpg", keyring)
    files.file("/usr/share/pacman/keyrings/archlinux-trusted", f"{fingerprint}:4:\n")
    files.file("/usr/share/pacman/keyrings/archlinux-revoked", "")
    return files


def _mirrorlist() -> Files:
    files = Files()
    files.config(
        "/etc/pacman.d/mirrorlist", "## Arch Linux repository mirrorlist\n#Server = https://x/$repo/os/$arch\n"
    )
    return files


def _mkinitcpio() -> Files:
    files = Files()
    files.config(
        "/etc/mkinitcpio.conf",
        "HOOKS=(base systemd autodetect microcode modconf kms keyboard block filesystems fsck)\n",
    )
    files.file("/usr/bin/mkinitcpio", _MKINITCPIO, 0o755)
    files.file("/usr/share/libalpm/hooks/90-mkinitcpio-install.hook", _INITRAMFS_HOOK)
    files.file("/usr/share/libalpm/scripts/mkinitcpio", _INITRAMFS_SCRIPT, 0o755)
    return files


def _kmod(files: Files) -> None:
    files.file("/usr/share/libalpm/hooks/60-depmod.hook", _DEPMOD_HOOK)


def _systemd(files: Files) -> None:
    ADDITIONS_OF_FEDORA["systemd"](files)
    files.file("/usr/share/libalpm/hooks/20-systemd-sysusers.hook", _SYSUSERS_HOOK)


def _pacman(files: Files) -> None:
    files.config("/etc/pacman.conf", _CONF)
    program = files.entries["/usr/bin/pacman-key"]
    text = program.content().decode()
    assert "/usr/share/keyrings" in text, "where Debian has keyrings"
    files.file("/usr/bin/pacman-key", text.replace("/usr/share/keyrings", "/usr/share/pacman/keyrings"), 0o755)
    files.directory("/var/lib/pacman")
    files.directory("/var/cache/pacman/pkg")


def _grub(files: Files) -> None:
    files.config("/etc/default/grub", "GRUB_TIMEOUT=1\n")


ADDITIONS: Mapping[str, Callable[[Files], None]] = {
    **{name: ADDITIONS_OF_FEDORA[name] for name in ("bash", "ca-certificates", "dracut", "gawk", "pam")},
    "glibc": ADDITIONS_OF_FEDORA["glibc-common"],
    "grub": _grub,
    "kmod": _kmod,
    "openssh": ADDITIONS_OF_FEDORA["openssh-server"],
    "pacman": _pacman,
    "systemd": _systemd,
}
