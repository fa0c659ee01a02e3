"""What Fedora and its kin call things: packages of Debian by the names that they have there, and what those add.

Nearly all that can be wrong in a stand-in is wrong here, and not in the code that reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.standins.rpm_file import Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.standins.payload import Files

ROOTS = tuple(
    """
    bash busybox bzip2 ca-certificates cloud-guest-utils coreutils cpio cryptsetup curl dbus diffutils dnf
    dracut-core dracut-network e2fsprogs fail2ban fdisk file findutils gawk gdisk gpgv grep gzip hostname iproute2
    iputils-ping kmod less libc-bin libc6 libpam-modules libpam-runtime login login.defs lshw lsof lvm2 mdadm mount
    ncurses-base network-manager gnu-which open-iscsi openssh-server openssl passwd policycoreutils procps python3
    rpm sed sudo systemd systemd-cryptsetup systemd-sysv tar tcpdump traceroute tzdata udev util-linux wget xfsprogs
    xz-utils zstd grub-common grub2-common thin-provisioning-tools
""".split()  # noqa: SIM905 - a table to be read
)
FIRMWARE_ROOTS = {"amd64": ("grub-pc-bin", "grub-efi-amd64-bin"), "arm64": ("grub-efi-arm64-bin",)}

# Debian's own machinery, and choices that Debian leaves to its administrator
LEFT_OUT = frozenset(
    """
    adduser apt base-files base-passwd bsdutils cdebconf dash dbus-user-session debconf debianutils dpkg
    emacsen-common grub-gfxpayload-lists init-system-helpers initramfs-tools install-info iputils-arping
    isc-dhcp-client libdebconfclient0 libfile-find-rule-perl libicu76 libpam-systemd linux-base lsb-base media-types
    netbase os-prober perl perl-base polkitd publicsuffix python3-apt runit-helper sensible-utils sysvinit-utils ucf
    usr-is-merged usrmerge wpasupplicant
    """.split()  # noqa: SIM905 - a table to be read
)

# RPM's name → the packages of Debian that it is made of; others keep their names
MERGED = {
    "NetworkManager": "network-manager",
    "bzip2-libs": "libbz2-1.0",
    "cloud-utils-growpart": "cloud-guest-utils",
    "cryptsetup": "cryptsetup cryptsetup-bin",
    "cryptsetup-libs": "libcryptsetup12",
    "dbus": "dbus dbus-bin dbus-daemon dbus-session-bus-common dbus-system-bus-common",
    "dbus-libs": "libdbus-1-3",
    "device-mapper-persistent-data": "thin-provisioning-tools",
    "dracut": "dracut-core",
    "e2fsprogs": "e2fsprogs logsave",
    "e2fsprogs-libs": "libext2fs2t64 libss2 libcom-err2",
    "glib2": "libglib2.0-0t64",
    "glibc": "libc6",
    "glibc-common": "libc-bin",
    "grub2-efi-aa64-modules": "grub-efi-arm64-bin grub-efi-arm64-unsigned",
    "grub2-efi-x64-modules": "grub-efi-amd64-bin grub-efi-amd64-unsigned",
    "grub2-pc-modules": "grub-pc-bin",
    "grub2-tools": "grub-common grub2-common",
    "iproute": "iproute2",
    "iscsi-initiator-utils": "open-iscsi libopeniscsiusr libisns0t64",
    "iputils": "iputils-ping",
    "kmod": "kmod libkmod2",
    "krb5-libs": "libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0",
    "libdnf": "libdnf2t64 libdnf2-common",
    "libgcc": "libgcc-s1",
    "libselinux": "libselinux1 libsepol2",
    "libsolv": "libsolv1 libsolvext1",
    "libstdc++": "libstdc++6",
    "lvm2": "lvm2 dmeventd libdevmapper-event1.02.1 liblvm2cmd2.03",
    "ncurses-libs": "libtinfo6 libncursesw6",
    "openssh": "openssh-client",
    "openssh-server": "openssh-server openssh-sftp-server",
    "openssl-libs": "libssl3t64 openssl-provider-legacy",
    "pam": "libpam-modules libpam-modules-bin libpam-runtime",
    "pam-libs": "libpam0g",
    "pcre2": "libpcre2-8-0",
    "policycoreutils": "policycoreutils selinux-utils",
    "procps-ng": "procps libproc2-0",
    "python3": "python3 python3-minimal python3.13 python3.13-minimal",
    "python3-libs": "libpython3.13 libpython3.13-minimal libpython3.13-stdlib libpython3-stdlib",
    "readline": "libreadline8t64 readline-common",
    "rpm": "rpm rpm-common rpm2cpio rpm2archive",
    "rpm-libs": "librpm10 librpmio10",
    "rpm-build-libs": "librpmbuild10 librpmsign10",
    "shadow-utils": "passwd login login.defs libsubid5",
    "sqlite-libs": "libsqlite3-0",
    "systemd": "systemd systemd-sysv",
    "systemd-libs": "libsystemd0 libudev1 libsystemd-shared",
    "systemd-udev": "udev dmsetup libdevmapper1.02.1 systemd-cryptsetup",
    "util-linux": "util-linux mount fdisk",
    "util-linux-libs": "libblkid1 libmount1 libuuid1 libsmartcols1 libfdisk1",
    "which": "gnu-which",
    "xz": "xz-utils",
    "xz-libs": "liblzma5",
    "zlib": "zlib1g",
}
KERNEL = "kernel-core"

# Debian's dependencies take essential packages for granted
REQUIRES = {
    "NetworkManager": "dbus systemd",
    "bash": "basesystem glibc",
    "ca-certificates": "coreutils",
    "dnf": "rpm tar gzip",
    "cloud-utils-growpart": "gawk util-linux",
    "dracut": "findutils gzip cpio sed grep gawk util-linux tar coreutils systemd-udev kmod xz-libs zstd bash",
    "glibc": "basesystem glibc-common",
    "grub2-tools": "coreutils grep sed gawk util-linux",
    KERNEL: "dracut kmod coreutils bash",
    "pam": "util-linux",
    "openssh-server": "pam shadow-utils systemd",
    "systemd": "coreutils util-linux pam shadow-utils bash",
    "systemd-udev": "systemd",
}
PROVIDES = {
    "bash": "/bin/sh /bin/bash /usr/bin/sh /usr/bin/bash",
    "coreutils": "coreutils-single",
    "dnf": "yum",
    KERNEL: "kernel-modules kernel-modules-core",
    "openssh": "openssh-clients",
    "shadow-utils": "passwd",
    "systemd": "systemd-sysv",
    "util-linux": "util-linux-core",
}


def scripts(kernel: str) -> dict[str, dict[str, Script]]:
    """The scriptlets of packages; `kernel` is the kernel's version. glibc's run before there is a shell."""
    return {
        "glibc": {"post": Script('posix.mkdir("/var/cache/ldconfig")\n', "<lua>")},
        KERNEL: {
            "post": Script(f"depmod -a {kernel}\n"),
            "posttrans": Script(
                f"cp /usr/lib/modules/{kernel}/vmlinuz /boot/vmlinuz-{kernel}\n"
                f"cp /usr/lib/modules/{kernel}/System.map /boot/System.map-{kernel}\n"
                f"dracut --quiet --force /boot/initramfs-{kernel}.img {kernel}\n"
            ),
            "postun": Script(f"rm -f /boot/*-{kernel} /boot/initramfs-{kernel}.img\n"),
        },
        "systemd": {
            "post": Script(
                "systemd-sysusers\nsystemd-machine-id-setup > /dev/null 2>&1 || :\n"
                "systemctl preset-all > /dev/null 2>&1 || :\nsystemd-tmpfiles --create > /dev/null 2>&1 || :\n"
            )
        },
        "systemd-udev": {"post": Script("systemd-hwdb update > /dev/null 2>&1 || :\n")},
        "NetworkManager": {
            "post": Script("systemctl preset NetworkManager.service > /dev/null 2>&1 || :\n"),
            "preun": Script('[ "$1" != 0 ] || systemctl --no-reload disable NetworkManager.service || :\n'),
        },
    }


def _bash(files: Files) -> None:
    files.link("/usr/bin/sh", "bash")


def _gawk(files: Files) -> None:
    files.link("/usr/bin/awk", "gawk")


def _which(files: Files) -> None:
    files.link("/usr/bin/which", "which.gnu")


def _traceroute(files: Files) -> None:
    files.link("/usr/bin/traceroute", "traceroute.db")


def _glibc_common(files: Files) -> None:
    files.config("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")


def _pam(files: Files) -> None:
    stacks = {
        "account": "account required pam_unix.so\n",
        "auth": "auth sufficient pam_unix.so nullok\nauth required pam_deny.so\n",
        "password": "password required pam_unix.so obscure yescrypt\n",
        "session": "session required pam_unix.so\n",
        "session-noninteractive": "session required pam_unix.so\n",
    }
    for name, text in stacks.items():
        files.config(f"/etc/pam.d/common-{name}", text)


def _dnf(files: Files) -> None:
    for path in list(files.entries):
        if "automatic" in path:  # a package of its own
            del files.entries[path]


def _dracut(files: Files) -> None:
    # Where Fedora's own file says that things are; and what udev and kmod of Debian open while they run, which dracut
    # does not see: without, no module of the kernel is loaded.
    libraries = " ".join(f"/usr/lib/*-linux-gnu/{name}" for name in ("libkmod.so.2", "liblzma.so.5", "libzstd.so.1"))
    files.file(
        "/usr/lib/dracut/dracut.conf.d/01-dist.conf",
        'systemdutildir="/usr/lib/systemd"\nsystemdsystemunitdir="/usr/lib/systemd/system"\nudevdir="/usr/lib/udev"\n'
        f'install_items+=" $(echo {libraries}) "\n',
    )


def _systemd(files: Files) -> None:
    files.config("/etc/machine-id", "", 0o444)


def _ca_certificates(files: Files) -> None:
    texts = [entry.content() for path, entry in sorted(files.entries.items()) if path.endswith(".crt")]
    files.file("/etc/pki/tls/certs/ca-bundle.crt", b"".join(text.rstrip(b"\n") + b"\n" for text in texts))
    files.link("/etc/ssl/certs/ca-certificates.crt", "../../pki/tls/certs/ca-bundle.crt")


def _openssh_server(files: Files) -> None:
    unit = files.entries.pop("/usr/lib/systemd/system/ssh.service").content().decode()
    unit = unit.replace("Alias=sshd.service\n", "")
    unit = unit.replace("[Unit]\n", "[Unit]\nWants=sshd-keygen.service\nAfter=sshd-keygen.service\n")
    files.file("/usr/lib/systemd/system/sshd.service", unit)
    files.file(
        "/usr/lib/systemd/system/sshd-keygen.service",
        "[Unit]\nDescription=OpenSSH server keys\n[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A\n",
    )
    files.config("/etc/ssh/sshd_config", files.entries["/usr/share/openssh/sshd_config"].content().decode(), 0o600)


def _grub_tools(files: Files) -> None:
    for path in list(files.entries):
        folder, _, name = path.rpartition("/")
        if folder in ("/usr/bin", "/usr/sbin") and name.startswith("grub-"):
            files.link(f"{folder}/grub2-{name.removeprefix('grub-')}", name)
    files.config("/etc/default/grub", "GRUB_TIMEOUT=1\n")


ADDITIONS: dict[str, Callable[[Files], None]] = {
    "bash": _bash,
    "ca-certificates": _ca_certificates,
    "dnf": _dnf,
    "dnf-data": _dnf,
    "dracut": _dracut,
    "gawk": _gawk,
    "glibc-common": _glibc_common,
    "grub2-tools": _grub_tools,
    "openssh-server": _openssh_server,
    "pam": _pam,
    "systemd": _systemd,
    "traceroute": _traceroute,
    "which": _which,
}
