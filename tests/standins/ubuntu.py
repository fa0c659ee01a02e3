"""A stand-in for Ubuntu's archives out of Debian's packages.

Names, paths, pockets, components and signatures are those of archive.ubuntu.com and ports.ubuntu.com, so that another
mirror is only a setting. What tells a system's name is Ubuntu's: base-files, apt's keyring, the kernel's metapackages.

    PLACE/ubuntu/…            the archive of amd64 and i386; PLACE/ubuntu-ports/… that of all others
    PLACE/archive.asc         the key that it is signed with, in place of Ubuntu's
    PLACE/other.asc           a key that it is not signed with
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

from pysequoia import Sig, SignatureMode, Tsk, sign

from dibble.packages.debian_sources import host_mirrors

if TYPE_CHECKING:
    from collections.abc import Sequence

RELEASE, VERSION, TITLE = "noble", "24.04", "Ubuntu 24.04 LTS"
COMPONENTS = ("main", "restricted", "universe", "multiverse")
POCKETS = ("", "-updates", "-security", "-backports")
_DEBIAN = "trixie"
_DEBIAN_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_EPOCH = 1_714_000_000  # seconds: a time of all that is made here
_IN_UNIVERSE = ("ifupdown", "isc-dhcp-", "dhcpcd")
"""Beginnings of the names of those that Ubuntu has in universe."""
_ROOTS = (
    "?essential",
    "?priority(required)",
    *("apt", "ca-certificates", "cloud-guest-utils", "cloud-init", "dbus", "fdisk", "gdisk", "ifupdown"),
    *("initramfs-tools", "iproute2", "isc-dhcp-client", "kmod", "locales", "lvm2", "netbase", "open-iscsi"),
    *("openssh-server", "parted", "sudo", "systemd-sysv", "tcpdump", "traceroute", "udev", "zstd"),
)
_OF_ARCH = {
    "amd64": ("linux-image-cloud-amd64", "grub-pc", "grub-efi-amd64", "grub-pc-bin", "grub-efi-amd64-bin"),
    "arm64": ("linux-image-cloud-arm64", "grub-efi-arm64", "grub-efi-arm64-bin"),
    "armhf": ("linux-image-armmp", "grub-efi-arm", "grub-efi-arm-bin"),
    "ppc64el": ("linux-image-powerpc64le", "grub-ieee1275", "grub-ieee1275-bin"),
    "riscv64": ("linux-image-riscv64", "grub-efi-riscv64", "grub-efi-riscv64-bin"),
    "s390x": ("linux-image-s390x",),
}
_KERNELS = ("linux-image-generic", "linux-image-virtual")


@dataclass(frozen=True, slots=True)
class UbuntuArchive:
    """A made archive: the directory to serve, the path of the mirror in it, the keys."""

    place: Path
    mirror: str
    key: Path
    other_key: Path

    @property
    def fingerprint(self) -> str:
        """Of the key that signed, in capitals: a subkey of the certificate."""
        signature = Sig.from_file(str(self.place / self.mirror / "dists" / RELEASE / "Release.gpg"))
        return str(signature.issuer_fingerprint).upper()


def made(cache: Path, arch: str = "amd64") -> UbuntuArchive:
    """The stand-in out of the cache, made when it is not there yet: half a minute and some 150 MB."""
    mirror = host_mirrors().archive
    with urllib.request.urlopen(f"{mirror}/dists/{_DEBIAN}/InRelease", timeout=60) as answer:
        state = answer.read()
    name = hashlib.sha256(Path(__file__).read_bytes() + state).hexdigest()[:16]
    place = cache / "standins" / f"ubuntu-{arch}-{name}"
    if not place.is_dir():
        building = place.with_suffix(".new")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        _make(building, mirror, arch)
        building.rename(place)
    path = "ubuntu" if arch in ("amd64", "i386") else "ubuntu-ports"
    return UbuntuArchive(place, path, place / "archive.asc", place / "other.asc")


def _make(place: Path, mirror: str, arch: str) -> None:
    debs = _debian_packages(place / "apt", mirror, arch)
    kernel = next(deb.name.partition("_")[0] for deb in debs if re.match(r"linux-image-\d", deb.name))
    key = Tsk.generate(user_id="Ubuntu Archive Automatic Signing Key (stand-in) <ftpmaster@ubuntu.com>")
    other = Tsk.generate(user_id="Somebody Else <else@example.org>")
    public = str(key.extract_certificate())
    (place / "archive.asc").write_text(public)
    (place / "other.asc").write_text(str(other.extract_certificate()))

    work = place / "work"
    work.mkdir()
    release: list[Path] = []
    updates: list[Path] = []
    for deb in debs:
        package = deb.name.partition("_")[0]
        if package == "base-files":
            release.append(_base_files(deb, work, "ubuntu10"))
            updates.append(_base_files(deb, work, "ubuntu10.1"))
        elif package == "apt":
            release.append(_apt(deb, work))
        elif package not in ("debian-archive-keyring", *_OF_ARCH[arch][:1]):
            release.append(deb)
    release.append(_keyring(work, public))
    release.append(_package(work, "dkms", "", {}, "all", "kernel"))  # which finds no modules to build
    release += [_package(work, name, f"Depends: {kernel}\n", {}, arch, "kernel") for name in _KERNELS]

    archive = place / ("ubuntu" if arch in ("amd64", "i386") else "ubuntu-ports")
    for pocket, members in zip(POCKETS, (release, updates, (), ()), strict=True):
        _suite(archive, RELEASE + pocket, members, arch, key)
    shutil.rmtree(place / "apt")
    shutil.rmtree(work)


def _debian_packages(state: Path, mirror: str, arch: str) -> list[Path]:
    """Download the packages and all that they depend on, by an apt that knows nothing of this machine's packages."""
    for folder in ("lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/trusted.gpg.d"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={_DEBIAN_KEYS}] {mirror} {_DEBIAN} main\n")
    settings = {
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Dir::State": str(state),
        "Dir::State::lists": str(state / "lists"),
        "Dir::State::status": str(state / "status"),
        "Dir::Cache": str(state / "cache"),
        "Dir::Etc": str(state / "etc"),
        "Dir::Etc::sourcelist": str(state / "sources.list"),
        "Dir::Etc::sourceparts": "/dev/null",
        "Debug::NoLocking": "true",
    }
    (state / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    environment = {**os.environ, "APT_CONFIG": str(state / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "-qq", "update"], environment)
    for choice in ([], list(_OF_ARCH[arch])[1:2], list(_OF_ARCH[arch])[2:3]):  # boot loaders exclude each other
        rest = [name for name in _OF_ARCH[arch] if name.endswith("-bin") or name.startswith("linux-")]
        argv = ["apt-get", "-qq", "--yes", "--download-only", "install", *_ROOTS, *rest, *choice]
        _run(argv, environment)
    return sorted((state / "cache/archives").glob("*.deb"))


def _base_files(deb: Path, work: Path, suffix: str) -> Path:
    """Debian's with Ubuntu's name in it (os-release(5), lsb_release(1), deb-origin(5))."""
    tree = _opened(deb, work)
    os_release = {
        "PRETTY_NAME": f'"{TITLE}"',
        "NAME": '"Ubuntu"',
        "VERSION_ID": f'"{VERSION}"',
        "VERSION": f'"{VERSION} LTS (Noble Numbat)"',
        "VERSION_CODENAME": RELEASE,
        "ID": "ubuntu",
        "ID_LIKE": "debian",
        "UBUNTU_CODENAME": RELEASE,
    }
    (tree / "usr/lib/os-release").write_text("".join(f"{name}={value}\n" for name, value in os_release.items()))
    (tree / "etc/lsb-release").write_text(
        f'DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE={VERSION}\nDISTRIB_CODENAME={RELEASE}\nDISTRIB_DESCRIPTION="{TITLE}"\n'
    )
    (tree / "etc/issue").write_text(f"{TITLE} \\n \\l\n\n")
    (tree / "etc/issue.net").write_text(f"{TITLE}\n")
    origins = tree / "etc/dpkg/origins"
    (origins / "ubuntu").write_text("Vendor: Ubuntu\nVendor-URL: https://www.ubuntu.com/\nParent: Debian\n")
    (origins / "default").unlink(missing_ok=True)
    (origins / "default").symlink_to("ubuntu")
    with (tree / "DEBIAN/conffiles").open("a") as file:
        file.write("/etc/lsb-release\n/etc/dpkg/origins/ubuntu\n")
    postinst = tree / "DEBIAN/postinst"
    text = postinst.read_text().replace("origins/debian", "origins/ubuntu").replace("ln -sf debian", "ln -sf ubuntu")
    postinst.write_text(text)
    return _closed(tree, work, suffix)


def _apt(deb: Path, work: Path) -> Path:
    tree = _opened(deb, work)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("debian-archive-keyring", "ubuntu-keyring"))
    return _closed(tree, work, "ubuntu1")


def _keyring(work: Path, key: str) -> Path:
    binary = _dearmoured(key)
    files = {
        "usr/share/keyrings/ubuntu-archive-keyring.gpg": binary,
        "etc/apt/trusted.gpg.d/ubuntu-keyring-2018-archive.gpg": binary,
    }
    return _package(work, "ubuntu-keyring", "Priority: important\n", files, "all", "misc")


def _dearmoured(text: str) -> bytes:
    """RFC 9580, 6.2: headers, an empty line, Base64, a checksum after `=`."""
    lines = text.strip().splitlines()
    body = lines[lines.index("") + 1 : -1]
    return base64.b64decode("".join(line for line in body if not line.startswith("=")))


def _opened(deb: Path, work: Path) -> Path:
    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    _run(["dpkg-deb", "--raw-extract", str(deb), str(tree)])
    return tree


def _closed(tree: Path, work: Path, suffix: str) -> Path:
    control = tree / "DEBIAN/control"
    if suffix:
        control.write_text(re.sub(r"(?m)^(Version: .*)$", rf"\g<1>{suffix}", control.read_text()))
    sums = "".join(
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n"
        for path in sorted(tree.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.relative_to(tree).parts[0] not in ("DEBIAN", "etc")
    )
    (tree / "DEBIAN/md5sums").write_text(sums)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(_EPOCH)}
    argv = ["dpkg-deb", "--root-owner-group", "-Zzstd", "--build", str(tree), str(work)]
    said = _run(argv, environment)
    return Path(re.findall(r"'([^']*\.deb)'", said)[0])


def _package(work: Path, name: str, fields: str, files: dict[str, bytes], arch: str, section: str) -> Path:
    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {VERSION}.1\nArchitecture: {arch}\nSection: {section}\n"
        f"Maintainer: Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>\n{fields}"
        f"Description: stand-in for Ubuntu's {name}\n"
    )
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    return _closed(tree, work, "")


def _suite(archive: Path, suite: str, debs: Sequence[Path], arch: str, key: Tsk) -> None:
    """One pocket: the pool's files, indexes by component, and the signed Release."""
    stanzas: dict[str, list[str]] = {component: [] for component in COMPONENTS}
    for deb in debs:
        package, component = deb.name.partition("_")[0], "main"
        if package.startswith(_IN_UNIVERSE):
            component = "universe"
        letter = package[:4] if package.startswith("lib") else package[:1]
        # no epoch in names of the pool: a server would take its %3a for a colon
        path = f"pool/{component}/{letter}/{package}/{re.sub('%3a', '-', re.sub('_[0-9]+%3a', '_', deb.name))}"
        goal = archive / path
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(deb, goal)
        control = _run(["dpkg-deb", "--field", str(deb)]).rstrip("\n")
        digest = hashlib.sha256(goal.read_bytes()).hexdigest()
        stanzas[component].append(f"{control}\nFilename: {path}\nSize: {goal.stat().st_size}\nSHA256: {digest}\n")
    top = archive / "dists" / suite
    listed: list[tuple[str, bytes]] = []
    for component, texts in stanzas.items():
        data = "\n".join(texts).encode()
        folder = f"{component}/binary-{arch}"
        packed = {"": data, ".gz": gzip.compress(data, mtime=0), ".xz": lzma.compress(data, preset=1)}
        listed += [(f"{folder}/Packages{ending}", content) for ending, content in packed.items()]
    rows = []
    for name, content in listed:
        digest = hashlib.sha256(content).hexdigest()
        rows.append(f" {digest} {len(content):>16} {name}\n")
        by_hash = top / Path(name).parent / "by-hash/SHA256" / digest
        by_hash.parent.mkdir(parents=True, exist_ok=True)
        by_hash.write_bytes(content)
        (top / name).write_bytes(content)
    text = (
        f"Origin: Ubuntu\nLabel: Ubuntu\nSuite: {suite}\nVersion: {VERSION}\nCodename: {RELEASE}\n"
        f"Date: {formatdate(_EPOCH, usegmt=True)}\nArchitectures: {arch}\nComponents: {' '.join(COMPONENTS)}\n"
        f"Description: Ubuntu Noble {VERSION}\nAcquire-By-Hash: yes\nSHA256:\n{''.join(rows)}"
    )
    (top / "Release").write_text(text)
    (top / "InRelease").write_bytes(bytes(sign(key.signer(), text.encode(), mode=SignatureMode.CLEAR)))
    (top / "Release.gpg").write_bytes(bytes(sign(key.signer(), text.encode(), mode=SignatureMode.DETACHED)))


def _run(argv: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{argv} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout
