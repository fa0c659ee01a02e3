"""Which exact packages the tools tree is made of: `tools.ARCH.lock` beside this file, read and written.

    # dibble tools lock …
    # suite: trixie
    # arch: amd64
    # snapshot: 20261122T091544Z

    [core]
    apt 3.0.3 SHA256 SIZE pool/main/a/apt/apt_3.0.3_amd64.deb

A group holds what is not in `core` already. Lines are sorted by name, so that a refreshed lock reads well as a diff.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import HostError, UsageError, Where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dibble.events import Events

CORE = "core"
SUITE = "trixie"

_CORE = (
    # a shell's usual company
    *("base-files", "base-passwd", "bash", "dash", "coreutils", "debianutils", "diffutils", "file", "findutils"),
    *("gawk", "grep", "hostname", "libc-bin", "mawk", "ncurses-base", "procps", "sed", "util-linux"),
    # archives
    *("bzip2", "cpio", "gzip", "squashfs-tools-ng", "tar", "xz-utils", "zstd"),
    # what elements call outside the target
    *("ca-certificates", "curl", "git", "jq", "openssl", "perl-base", "python3", "python3-yaml", "rsync"),
    # packages of Debian and its kin
    *("apt", "debian-archive-keyring", "gpgv"),
    # disks
    *("dosfstools", "e2fsprogs", "fdisk", "gdisk", "grub-common", "grub2-common", "kmod", "mount", "mtools"),
    "qemu-utils",
)

# Groups that every machine has alike.
_COMMON = {
    "containers": ("buildah", "netavark", "skopeo"),
    "filesystems": ("btrfs-progs", "erofs-utils", "f2fs-tools", "xfsprogs"),
    "iscsi": ("qemu-block-extra",),
    "iso": ("xorriso",),
    "pacman": ("archlinux-keyring", "gpg", "gpg-agent", "pacman-package-manager"),
    "qemu-user": ("qemu-user",),
    "rpm": ("createrepo-c", "dnf", "gpg", "rpm", "zypper"),
    "u-boot": ("u-boot-qemu",),
    "uki": ("efitools", "osslsigncode", "sbsigntool", "systemd-boot-efi", "systemd-ukify"),
    "volumes": ("cryptsetup-bin", "lvm2", "mdadm"),
}

GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "amd64": {
        CORE: (*_CORE, "grub-efi-amd64-bin", "grub-pc-bin"),
        **_COMMON,
        "qemu-system": ("ovmf", "qemu-system-x86", "seabios"),
        "qemu-system-arm64": ("qemu-efi-aarch64", "qemu-system-arm"),
        "qemu-system-armhf": ("qemu-efi-arm", "qemu-system-arm"),
        "qemu-system-ppc64el": ("qemu-system-ppc",),
        "qemu-system-riscv64": ("qemu-efi-riscv64", "qemu-system-riscv"),
    },
    "arm64": {
        CORE: (*_CORE, "grub-efi-arm64-bin"),
        **_COMMON,
        "qemu-system": ("qemu-efi-aarch64", "qemu-system-arm"),
        "qemu-system-amd64": ("ovmf", "qemu-system-x86", "seabios"),
        "qemu-system-armhf": ("qemu-efi-arm", "qemu-system-arm"),
        "qemu-system-ppc64el": ("qemu-system-ppc",),
        "qemu-system-riscv64": ("qemu-efi-riscv64", "qemu-system-riscv"),
    },
}
"""Architecture of the machine that builds → group → the packages wanted; their dependencies are found by `update`."""

_LINE = re.compile(r"(\S+) (\S+) ([0-9a-f]{64}) (\d+) (pool(?:/(?!\.\.?(?:/|$))[^\s/]+)+)")
_HEADER = re.compile(r"# (suite|arch|snapshot): (\S+)")


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One line of the lock. `size` in bytes; `path` below an archive's root."""

    name: str
    version: str
    sha256: str
    size: int
    path: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.sha256} {self.size} {self.path}"


@dataclass(frozen=True, slots=True)
class ToolsLock:
    """`snapshot` is a moment (YYYYMMDDTHHMMSSZ) at which the archive had all of it; groups are sorted by name."""

    suite: str
    arch: str
    snapshot: str
    groups: Mapping[str, tuple[LockedPackage, ...]]

    def group(self, name: str) -> tuple[LockedPackage, ...]:
        """The packages of a group. Raises UsageError for an unknown one."""
        try:
            return self.groups[name]
        except KeyError as error:
            raise UsageError(
                f'there is no group of tools "{name}"', hint=f"known are: {', '.join(self.groups)}"
            ) from error

    def digest(self, group: str) -> str:
        """Names the content of a group: sha256 of its lines."""
        return hashlib.sha256("".join(f"{package}\n" for package in self.group(group)).encode()).hexdigest()

    def __str__(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# The tools tree's packages, written by `dibble tools update` from signed metadata; not to be edited."
        yield f"# suite: {self.suite}"
        yield f"# arch: {self.arch}"
        yield f"# snapshot: {self.snapshot}"
        for name in sorted(self.groups):
            yield ""
            yield f"[{name}]"
            yield from map(str, self.groups[name])


def lock_path(arch: str, folder: Path = Path(__file__).parent) -> Path:
    return folder / f"tools.{arch}.lock"


def read_lock(arch: str) -> ToolsLock:
    """The lock shipped for machines of `arch`. Raises HostError when there is none."""
    path = lock_path(arch)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        known = ", ".join(sorted(GROUPS))
        raise HostError(
            f"there is no tools tree for {arch} machines (there is for {known})",
            hint="build with --tools=host, which uses the programs of this machine",
        ) from error
    return parse_lock(text, source=path)


def parse_lock(text: str, *, source: Path | str) -> ToolsLock:
    """The lock from its text. Raises UsageError with file and line for what is not one."""
    headers: dict[str, str] = {}
    groups: dict[str, list[LockedPackage]] = {}
    lines: list[LockedPackage] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if match := _HEADER.fullmatch(line):
            headers[match[1]] = match[2]
        elif not line or line.startswith("#"):
            continue
        elif (match := re.fullmatch(r"\[([a-z0-9-]+)\]", line)) and match[1] not in groups:
            lines = groups[match[1]] = []
        elif lines is not None and (match := _LINE.fullmatch(line)):
            lines.append(LockedPackage(match[1], match[2], match[3], int(match[4]), match[5]))
        else:
            raise _damaged(f'"{line[:60]}" is no line of a tools lock', source, number)
    for wanted in ("suite", "arch", "snapshot"):
        if wanted not in headers:
            raise _damaged(f'the line "# {wanted}: …" is missing', source, 1)
    return ToolsLock(
        suite=headers["suite"],
        arch=headers["arch"],
        snapshot=headers["snapshot"],
        groups={name: tuple(groups[name]) for name in sorted(groups)},
    )


def _damaged(message: str, source: Path | str, line: int) -> UsageError:
    return UsageError(message, hint="write the lock anew: dibble tools update", where=Where(file=source, line=line))


def resolve(
    wanted: Mapping[str, Sequence[str]], *, suite: str, arch: str, mirrors: Sequence[str], blobs: Path, events: Events
) -> ToolsLock:
    """A new lock for groups of package names, from the archive's signed metadata. Raises FetchError, PackageError."""
    from datetime import timedelta

    from dibble.packages.debian_archive import DebianArchive
    from dibble.packages.packages_index import closure

    archive = DebianArchive(mirrors, suite, arch, blobs=blobs, events=events)
    index = archive.packages()
    groups: dict[str, tuple[LockedPackage, ...]] = {}
    for group in sorted(wanted, key=lambda name: name != CORE):
        core = [package.name for package in groups[CORE]] if group != CORE else []
        groups[group] = tuple(
            LockedPackage(
                name=stanza.name,
                version=stanza["Version"],
                sha256=stanza["SHA256"],
                size=int(stanza["Size"]),
                path=stanza["Filename"],
            )
            for stanza in closure(index, wanted[group], core)
        )
    # The snapshot service takes the archive's state some hours after the archive's own date.
    moment = archive.release().date + timedelta(days=1)
    return ToolsLock(suite, arch, moment.strftime("%Y%m%dT%H%M%SZ"), dict(sorted(groups.items())))
