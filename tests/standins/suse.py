"""openSUSE Leap, made of packages of Debian: signed, with the names, paths, places and patterns of the real one.

What is the same as in Fedora's stand-in is taken from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.standins.payload import Files
from tests.standins.redhat import ARCHITECTURES, Distribution, Repository, Tables
from tests.standins.redhat_packages import Made, System, filesystem, setup
from tests.standins.redhat_tables import ADDITIONS, FIRMWARE_ROOTS, LEFT_OUT, MERGED, PROVIDES, REQUIRES, ROOTS
from tests.standins.redhat_tables import scripts as scripts_of_fedora
from tests.standins.rpm_file import EQUAL, Dependency, Header, Script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KERNEL = "kernel-default"
# what no test wants from openSUSE
_NOT_WANTED = """
    busybox cloud-guest-utils dnf dracut-network fail2ban gdisk lshw policycoreutils python3 wget
    xfsprogs
""".split()  # noqa: SIM905 - a table to be read
_ROOTS = (*(name for name in ROOTS if name not in _NOT_WANTED), "gpg", "zypper")

# what Fedora's table calls otherwise
_NOT_HERE = """
    dbus-libs device-mapper-persistent-data glibc glibc-common grub2-efi-aa64-modules grub2-efi-x64-modules
    grub2-pc-modules grub2-tools iproute iscsi-initiator-utils libdnf procps-ng python3 python3-libs shadow-utils
    systemd-libs systemd-udev
""".split()  # noqa: SIM905 - a table to be read
_MERGED = {name: debs for name, debs in MERGED.items() if name not in _NOT_HERE} | {
    "glibc": "libc6 libc-bin",
    "gpg2": "gpg gpgv gpgconf",
    "grub2": "grub-common grub2-common",
    "grub2-arm64-efi": "grub-efi-arm64-bin grub-efi-arm64-unsigned",
    "grub2-i386-pc": "grub-pc-bin",
    "grub2-x86_64-efi": "grub-efi-amd64-bin grub-efi-amd64-unsigned",
    "libdbus-1-3": "libdbus-1-3",
    "libsystemd0": "libsystemd0 libsystemd-shared",
    "libudev1": "libudev1",
    "libzypp": "libzypp1735",
    "open-iscsi": "open-iscsi libopeniscsiusr libisns0t64",
    "procps": "procps libproc2-0",
    "shadow": "passwd login login.defs libsubid5",
    "udev": "udev dmsetup libdevmapper1.02.1 systemd-cryptsetup",
    "zypper": "zypper zypper-common",
}
# Debian's dependencies take essential packages for granted
_REQUIRES = {
    "NetworkManager": REQUIRES["NetworkManager"],
    "bash": "filesystem glibc",
    "ca-certificates": "coreutils",
    "dracut": "findutils gzip cpio sed grep gawk util-linux tar coreutils udev kmod xz-libs zstd bash",
    "glibc": "filesystem",
    "grub2": "coreutils grep sed gawk util-linux",
    "libzypp": "rpm gpg2",
    KERNEL: "dracut kmod coreutils bash",
    "pam": "util-linux",
    "systemd": "coreutils util-linux pam shadow bash",
    "udev": "systemd",
}
_PROVIDES = {"bash": PROVIDES["bash"], KERNEL: "kernel"}

# pattern(s) → the packages that they want
_PATTERNS = {
    "base": "bash coreutils diffutils filesystem less openSUSE-release procps rpm systemd util-linux zypper",
    "sw_management": "zypper",
}
_DESCRIPTION = """<?xml version="1.0" encoding="UTF-8"?>
<product schemeversion="0">
  <vendor>openSUSE</vendor>
  <name>Leap</name>
  <version>{version}</version>
  <release>1</release>
  <arch>{arch}</arch>
  <cpeid>cpe:/o:opensuse:leap:{version}</cpeid>
  <productline>Leap</productline>
  <register>
    <target/>
  </register>
  <summary>openSUSE Leap {version}</summary>
  <runtimeconfig/>
</product>
"""


@dataclass(frozen=True, slots=True)
class _ByArchitecture(Repository):
    """Packages lie in a directory for their architecture."""

    def place_of(self, header: Header) -> str:
        return f"{header.arch}/{header.file_name}"


def leap(release: str = "16.0", arch: str = "amd64") -> Distribution:
    """openSUSE Leap, as https://download.opensuse.org has it: one repository for each architecture."""
    basearch = ARCHITECTURES[arch]
    system = System(
        name="opensuse",
        version=release,
        pretty=f"openSUSE Leap {release} (Stand-in)",
        release_package="openSUSE-release",
        repos_package="openSUSE-build-key",
        like="suse opensuse",
        platform="",
        database="/usr/lib/sysimage/rpm",
        key="/usr/lib/rpm/gnupg/keys/gpg-pubkey-stand-in.asc",
        repos={},
        variables={},
    )
    return Distribution(
        system,
        arch,
        suffix="",
        mirror="",
        key="keys/opensuse.asc",
        owner="openSUSE Project Signing Key <opensuse@opensuse.org>",
        repositories=(_ByArchitecture(f"distribution/leap/{release}/repo/oss/{basearch}"),),
        tables=Tables(
            _ROOTS,
            FIRMWARE_ROOTS,
            LEFT_OUT,
            _MERGED,
            KERNEL,
            _REQUIRES,
            _PROVIDES,
            _ADDITIONS,
            _scripts,
            lambda system, key: _own(system, key, basearch),
        ),
        key_beside=True,
    )


def _own(system: System, key: str, arch: str) -> dict[str, Made]:
    keys = Files()
    keys.file(system.key, key)
    return {
        "filesystem": Made(filesystem(), ("system-user-root",), noarch=False),
        "system-user-root": Made(setup()),
        "aaa_base": Made(Files(), ("filesystem",)),
        "openSUSE-release": Made(
            _release(system, arch),
            ("openSUSE-build-key", "aaa_base"),
            (
                Dependency("product()", EQUAL, "Leap"),
                Dependency("product(Leap)", EQUAL, f"{system.version}-1"),
                Dependency("distribution-release"),
            ),
            noarch=False,
        ),
        "openSUSE-build-key": Made(keys),
        "ca-certificates-mozilla": Made(Files(), ("ca-certificates",)),
        "shim": Made(Files()),
        **{f"patterns-base-{name}": _pattern(name, wanted) for name, wanted in _PATTERNS.items()},
    }


def _pattern(name: str, wanted: str) -> Made:
    """What `pattern:NAME` of zypper stands for: libzypp finds it by what the package provides."""
    provides = (
        Dependency("pattern()", EQUAL, name),
        Dependency("pattern-category()", EQUAL, "Base%20Technologies"),
        Dependency("pattern-visible()"),
    )
    return Made(Files(), tuple(wanted.split()), provides)


def _release(system: System, arch: str) -> Files:
    files = Files()
    files.file(
        "/usr/lib/os-release",
        f'NAME="openSUSE Leap"\nVERSION="{system.version}"\nID="opensuse-leap"\nID_LIKE="{system.like}"\n'
        f'VERSION_ID="{system.version}"\nPRETTY_NAME="{system.pretty}"\n',
    )
    files.link("/etc/os-release", "../usr/lib/os-release")
    files.file("/etc/products.d/Leap.prod", _DESCRIPTION.format(version=system.version, arch=arch))
    files.link("/etc/products.d/baseproduct", "Leap.prod")
    presets = ("NetworkManager.service", "dbus.socket", "getty@.service")
    files.file(
        "/usr/lib/systemd/system-preset/90-default-openSUSE.preset", "".join(f"enable {one}\n" for one in presets)
    )
    files.file("/usr/lib/systemd/system-preset/99-default-disable.preset", "disable *\n")
    return files


def _scripts(kernel: str) -> dict[str, dict[str, Script]]:
    found = scripts_of_fedora(kernel)
    del found["kernel-core"]
    found["udev"] = found.pop("systemd-udev")
    found[KERNEL] = {
        "post": Script(
            f"depmod -a {kernel}\n"
            "if mountpoint -q /boot || mountpoint -q /usr; then bring='cp -a'; else bring='ln -sf'; fi\n"
            f"cd /boot && $bring ../usr/lib/modules/{kernel}/vmlinuz vmlinuz-{kernel}\n"
            f"ln -sf vmlinuz-{kernel} /boot/vmlinuz\nln -sf initrd-{kernel} /boot/initrd\n"
        ),
        "posttrans": Script(f"dracut --quiet --force /boot/initrd-{kernel} {kernel}\n"),
        "postun": Script(f"rm -f /boot/*-{kernel}\n"),
    }
    return found


def _rpm(files: Files) -> None:
    files.file("/usr/lib/rpm/macros.d/macros.backend", "%_db_backend ndb\n")


def _grub2(files: Files) -> None:
    ADDITIONS["grub2-tools"](files)


_ADDITIONS: Mapping[str, Callable[[Files], None]] = {
    **{name: addition for name, addition in ADDITIONS.items() if name not in ("glibc-common", "grub2-tools")},
    "glibc": ADDITIONS["glibc-common"],
    "grub2": _grub2,
    "rpm": _rpm,
}
