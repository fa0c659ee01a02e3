"""What Gentoo calls packages of Debian, what is in a stage, and what profiles and ebuilds say.

Nearly all that can be wrong in a stand-in is wrong here, and not in the code that reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.standins.redhat_tables import ADDITIONS as ADDITIONS_OF_FEDORA

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.standins.payload import Files

STAGE_ROOTS = tuple(
    """
    bash bzip2 ca-certificates coreutils cpio curl dbus diffutils e2fsprogs file findutils gawk gpg gpg-agent gpgv
    gpgconf grep gzip hostname iproute2 iputils-ping kmod less libc-bin libc6 libpam-modules libpam-runtime login
    login.defs mount ncurses-base openssh-server openssl passwd patch procps python3 rsync sed systemd systemd-sysv tar
    tzdata udev util-linux fdisk wget xz-utils zstd
    """.split()  # noqa: SIM905 - a table to be read
)
"""Debian's names of what Gentoo's `@system` set, and what that needs, has."""

# Gentoo's name → the package of Debian whose version it has; what Portage believes a stage to hold
INSTALLED = {
    "app-alternatives/cpio": "cpio",
    "app-arch/tar": "tar",
    "app-arch/xz-utils": "xz-utils",
    "app-arch/zstd": "zstd",
    "app-crypt/gnupg": "gpg",
    "app-misc/ca-certificates": "ca-certificates",
    "app-shells/bash": "bash",
    "dev-lang/python": "python3",
    "net-misc/openssh": "openssh-server",
    "net-misc/wget": "wget",
    "sys-apps/coreutils": "coreutils",
    "sys-apps/iproute2": "iproute2",
    "sys-apps/kmod": "kmod",
    "sys-apps/shadow": "passwd",
    "sys-apps/systemd": "systemd",
    "sys-apps/util-linux": "util-linux",
    "sys-fs/e2fsprogs": "e2fsprogs",
    "sys-libs/glibc": "libc6",
}
OWN_INSTALLED = {"app-portage/getuto": "1.16", "sec-keys/openpgp-keys-gentoo-release": "20240703"}


@dataclass(frozen=True, slots=True)
class Ebuild:
    """A package that is not in the stage: the packages of Debian in it, and Gentoo's names of what it needs.

    `is_built` says whether the mirror has it as a binary package, too; `phases` is more of its ebuild.
    """

    debs: str
    needs: str = ""
    is_built: bool = True
    phases: str = ""


_SUDO = 'src_install() {\n\tcp -a --no-preserve=ownership . "${ED}"/ || die\n\tfperms 4755 /usr/bin/sudo\n}\n'

EBUILDS = {
    "app-admin/sudo": Ebuild("sudo", phases=_SUDO),
    "app-text/tree": Ebuild("tree", is_built=False),
    "net-analyzer/tcpdump": Ebuild("tcpdump", "net-libs/libpcap"),
    "net-libs/libpcap": Ebuild("libpcap0.8t64"),
    "sys-block/open-iscsi": Ebuild("open-iscsi libopeniscsiusr libisns0t64"),
    "sys-apps/gptfdisk": Ebuild("gdisk"),
    "sys-boot/grub": Ebuild("grub-common grub2-common libfuse3-4 libfreetype6"),
    "sys-fs/dosfstools": Ebuild("dosfstools"),
    "sys-fs/growpart": Ebuild("cloud-guest-utils"),
    "sys-kernel/dracut": Ebuild("dracut-core"),
}
KERNEL = "sys-kernel/gentoo-kernel-bin"
FIRMWARE = {"amd64": "grub-pc-bin grub-efi-amd64-bin", "arm64": "grub-efi-arm64-bin"}

# What Gentoo's kernels do through installkernel and kernel-install.
KERNEL_PHASES = """pkg_postinst() {{
	depmod -a {kernel} || die
	cp /usr/lib/modules/{kernel}/vmlinuz /boot/vmlinuz-{kernel} || die
	cp /usr/lib/modules/{kernel}/System.map /boot/System.map-{kernel} || die
	dracut --quiet --force --reproducible /boot/initramfs-{kernel}.img {kernel} || die
	elog "the kernel {kernel} is in /boot"
}}
pkg_postrm() {{
	rm -f /boot/*-{kernel} /boot/initramfs-{kernel}.img
}}
"""
EBUILD = """EAPI=8
DESCRIPTION="{name}, made of packages of Debian"
HOMEPAGE="https://www.gentoo.org/"
SRC_URI="https://dev.gentoo.org/~stand-in/distfiles/{archive}"
S="${{WORKDIR}}"
LICENSE="MIT"
SLOT="0"
KEYWORDS="amd64 arm64"
RDEPEND="{needs}"
RESTRICT="strip"
QA_PREBUILT="*"
src_configure() {{ :; }}
src_compile() {{ :; }}
src_install() {{ cp -a --no-preserve=ownership . "${{ED}}"/ || die; }}
{phases}"""

_EXPANDED = "ARCH ELIBC KERNEL USERLAND"
PROFILES = {
    "repo_name": "gentoo\n",
    "eapi": "8\n",
    "arch.list": "amd64\narm64\n",
    "base/eapi": "8\n",
    "base/packages": "".join(f"*{name}\n" for name in (*INSTALLED, *OWN_INSTALLED, "sys-apps/portage")),
    "base/make.defaults": (
        'ELIBC="glibc"\nKERNEL="linux"\nUSERLAND="GNU"\nUSE_EXPAND="ELIBC KERNEL PYTHON_TARGETS USERLAND"\n'
        f'USE_EXPAND_IMPLICIT="{_EXPANDED}"\nUSE_EXPAND_UNPREFIXED="ARCH"\nUSE_EXPAND_VALUES_ARCH="amd64 arm64"\n'
        'USE_EXPAND_VALUES_ELIBC="glibc"\nUSE_EXPAND_VALUES_KERNEL="linux"\nUSE_EXPAND_VALUES_USERLAND="GNU"\n'
        'IUSE_IMPLICIT="prefix"\n'
    ),
}
CHOSTS = {"amd64": "x86_64-pc-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}
BINHOSTS = {"amd64": "x86-64", "arm64": "arm64"}
"""The directory of binary packages for any machine of an architecture."""

LAYOUT = (
    "masters =\nthin-manifests = true\nsign-manifests = false\nprofile-formats = portage-2\ncache-formats = md5-dict\n"
    "manifest-hashes = BLAKE2B SHA512\nmanifest-required-hashes = BLAKE2B\n"
)
MIRROR_LAYOUT = "[structure]\n0=filename-hash BLAKE2B 8\n1=flat\n"
"""Where distfiles lie on a mirror (GLEP 75)."""

GETUTO = """#!/bin/sh
# The keys that the stage trusts, for Portage to check binary packages with.
set -e
home=${PORTAGE_GNUPG_HOME:-/etc/portage/gnupg}
[ ! -f "$home/pubring.kbx" ] || exit 0
mkdir -p "$home"
chmod 755 "$home"
gpg --homedir "$home" --batch --quiet --import /usr/share/openpgp-keys/gentoo-release.asc
gpg --homedir "$home" --with-colons --list-keys | awk -F: '$1 == "fpr" { print $10 ":6:" }' |
    gpg --homedir "$home" --batch --quiet --import-ownertrust
gpg --homedir "$home" --batch --quiet --check-trustdb
gpgconf --homedir "$home" --kill all
chmod 644 "$home"/*.kbx "$home"/*.gpg
"""
MAKE_CONF = """# These settings were set by the catalyst build script that automatically built this stage.
COMMON_FLAGS="-O2 -pipe"
CFLAGS="${COMMON_FLAGS}"
LC_MESSAGES=C.utf8
# Of the stand-in: Gentoo's programs of these names are not in it.
FEATURES="-sandbox -usersandbox -news"
ACCEPT_LICENSE="*"
"""


def _links(files: Files) -> None:
    for name, goal in (("python", "python3"), ("gtar", "tar"), ("gsed", "sed"), ("gfind", "find"), ("gxargs", "xargs")):
        files.link(f"/usr/bin/{name}", goal)
    files.link("/usr/bin/gpatch", "patch")


def _ssh(files: Files) -> None:
    ADDITIONS_OF_FEDORA["openssh-server"](files)
    for path in list(files.entries):
        if path.endswith("/ssh.socket") or "/ssh@" in path:
            del files.entries[path]


ADDITIONS: tuple[Callable[[Files], None], ...] = (
    *(ADDITIONS_OF_FEDORA[name] for name in ("bash", "ca-certificates", "gawk", "glibc-common", "pam", "systemd")),
    _ssh,
    _links,
)
ADDITIONS_OF_PACKAGES: dict[str, Callable[[Files], None]] = {"sys-kernel/dracut": ADDITIONS_OF_FEDORA["dracut"]}
