"""Stand-ins for the images for clouds of distributions, made by dibble out of the stand-ins for their packages.

Names, directories, lists of checksums, signatures and disks are laid out as the real ones are, so that another place is
only a setting (DIB_CLOUD_IMAGES):

    ubuntu     cloud-images.ubuntu.com         a squashfs without a kernel; SHA256SUMS, SHA256SUMS.gpg
    fedora     dl.fedoraproject.org            GPT, ESP, /boot on ext4, btrfs with subvolumes; a signed CHECKSUM
    centos     cloud.centos.org                GPT, ESP, /boot and / on xfs; IMAGE.SHA256SUM, which nobody signs
    opensuse   download.opensuse.org           GPT, ESP, btrfs with subvolumes; IMAGE.sha256, IMAGE.sha256.asc
    debian     cloud.debian.org                GPT, ext4; also as a disk in an archive; SHA512SUMS, which nobody signs
    rhel       wherever a customer keeps it    as CentOS's, without a list

Trees have what their elements need to install packages. Fedora's alone has a kernel, which its element does not
install.

    PLACE/web/…        what is to be served
    PLACE/key.asc      the key that signs; PLACE/other.asc one that does not
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pysequoia import SignatureMode, Tsk, sign

from dibble.packages.debian_sources import host_mirrors
from dibble.run.prepare import CATALOGUE
from tests.people import ourselves
from tests.serving import served
from tests.standins import redhat, suse, ubuntu
from tests.standins.make import key_of, locked
from tests.standins.make import made as made_packages

if TYPE_CHECKING:
    from collections.abc import Mapping

_ELEMENTS = CATALOGUE / "elements"
_HEAD = """
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions:
      - name: bios
        type: EF02
        size: 1MiB
      - name: esp
        type: EF00
        size: 100MiB
        mkfs: {type: vfat, label: EFI, mount: {mount_point: /boot/efi, fstab: {options: umask=0077}}}
"""
_BOOT = """\
      - name: boot
        type: EA00
        size: 400MiB
        mkfs: {{type: {kind}, label: {label}, mount: {{mount_point: /boot, fstab: {{options: defaults}}}}}}
"""
_ROOT = """\
      - name: root
        type: "{type}"
        size: 100%
        mkfs:
          type: {kind}
          label: {label}
          mount: {{mount_point: /, fstab: {{options: defaults}}}}
"""
_SUBVOLUMES = "          subvolumes: {names}\n"
_FEDORA_ROOT = _ROOT.format(type="8304", kind="btrfs", label="fedora")
_LEAP_ROOT = _ROOT.format(type="8300", kind="btrfs", label="ROOT")
LAYOUTS = {
    "fedora": _HEAD
    + _BOOT.format(kind="ext4", label="BOOT")
    + _FEDORA_ROOT
    + _SUBVOLUMES.format(names='["root:/", "home:/home", "var:/var"]'),
    "centos": _HEAD + _BOOT.format(kind="xfs", label="boot") + _ROOT.format(type="8304", kind="xfs", label="root"),
    "opensuse": _HEAD + _LEAP_ROOT + _SUBVOLUMES.format(names='["@:/", "@home:/home", "@var:/var", "@opt:/opt"]'),
}
LAYOUTS["rhel"] = LAYOUTS["centos"]
LAYOUTS["debian"] = _HEAD + _ROOT.format(type="8304", kind="ext4", label="cloudimg")
DIRECTORIES = {
    "ubuntu": f"{ubuntu.RELEASE}/current",
    "fedora": "pub/fedora/linux/releases/44/Cloud/x86_64/images",
    "centos": "centos/9-stream/x86_64/images",
    "opensuse": "distribution/leap/16.0/appliances",
    "rhel": "images",
    "debian": "images/cloud/trixie/latest",
}
IMAGES = {
    "ubuntu": f"{ubuntu.RELEASE}-server-cloudimg-amd64.squashfs",
    "fedora": "Fedora-Cloud-Base-Generic-44-1.14.x86_64.qcow2",
    "centos": "CentOS-Stream-GenericCloud-9-latest.x86_64.qcow2",
    "opensuse": "Leap-16.0-Minimal-VM.x86_64-Cloud.qcow2",
    "rhel": "rhel-9.6-x86_64-kvm.qcow2",
    "debian": "debian-13-generic-amd64.qcow2",
}
RELEASES = {
    "ubuntu": ubuntu.RELEASE,
    "fedora": "44",
    "centos": "9-stream",
    "opensuse": "16.0",
    "rhel": "9",
    "debian": "trixie",
}
FEDORA_LIST = "Fedora-Cloud-44-1.14-x86_64-CHECKSUM"
# What all kinds of trees hold that is easily lost on the way: owners, an attribute, twins, a link, a hole.
KEEPSAKES = """
cd "$TARGET_ROOT"
mkdir -p srv/kept/deep
echo first > srv/kept/file
ln srv/kept/file srv/kept/deep/twin
chown 1234:65530 srv/kept/file
chmod 4755 srv/kept/file
ln -s ../file srv/kept/link
truncate --size=3M srv/kept/sparse
echo end >> srv/kept/sparse
cp bin/true srv/kept/ping
python3 -c '
import os
os.setxattr("srv/kept/ping", "security.capability", bytes.fromhex("0100000200200000" + "00" * 12))
os.setxattr("srv/kept/file", "user.comment", b"of a cloud")
'
"""
_OF_UBUNTU = "systemd-sysv,dbus,udev,iproute2,netbase,openssh-server,sudo"
_UBUNTU_SOURCES = """
rm -f "$TARGET_ROOT/etc/apt/sources.list"
cat > "$TARGET_ROOT/etc/apt/sources.list.d/ubuntu.sources" << END
Types: deb
URIs: http://archive.ubuntu.com/ubuntu/
Suites: $DIB_RELEASE $DIB_RELEASE-updates $DIB_RELEASE-backports
Components: main universe restricted multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

Types: deb
URIs: http://security.ubuntu.com/ubuntu/
Suites: $DIB_RELEASE-security
Components: main universe restricted multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
END
echo ubuntu > "$TARGET_ROOT/etc/hostname"
printf '127.0.0.1 localhost\\n' > "$TARGET_ROOT/etc/hosts"
"""
_LEAP_REPOSITORY = """
rm -f "$TARGET_ROOT"/etc/zypp/repos.d/*.repo
cat > "$TARGET_ROOT/etc/zypp/repos.d/openSUSE:repo-oss.repo" << 'END'
[openSUSE:repo-oss]
name=repo-oss
enabled=1
autorefresh=1
baseurl=http://download.opensuse.org/distribution/leap/$releasever/repo/oss/$basearch
gpgcheck=1
END
"""
_RHEL = r"""
sed -i -e 's/^ID=.*/ID="rhel"/' -e 's/^\(PRETTY_\)\?NAME=.*/\1NAME="Red Hat Enterprise Linux"/' \
    "$TARGET_ROOT/usr/lib/os-release"
rm -f "$TARGET_ROOT"/etc/yum.repos.d/*.repo
"""


@dataclass(frozen=True, slots=True)
class CloudImage:
    """A made image: the directory to serve, and where in it the image lies."""

    name: str
    place: Path

    @property
    def web(self) -> Path:
        return self.place / "web"

    @property
    def directory(self) -> str:
        return DIRECTORIES[self.name]

    @property
    def file(self) -> Path:
        return self.web / self.directory / IMAGES[self.name]

    @property
    def tree(self) -> Path:
        """The archive of the tree that was put into the image."""
        return self.place / "tree.tar"

    @property
    def key(self) -> Path:
        return self.place / "key.asc"

    @property
    def other_key(self) -> Path:
        return self.place / "other.asc"


def made(name: str, cache: Path) -> CloudImage:
    """The image out of the cache, made where it is missing: half a minute, twice that for Fedora's."""
    places = cache / "standins"
    places.mkdir(parents=True, exist_ok=True)
    with locked(places / f"cloud-{name}.lock"):
        web, variables = _packages(name, cache)
        parts = [Path(__file__).read_bytes(), web.name.encode()]
        place = places / f"cloud-{name}-{hashlib.sha256(b' '.join(parts)).hexdigest()[:16]}"
        image = CloudImage(name, place)
        if not place.is_dir():
            for old in places.glob(f"cloud-{name}-*"):
                shutil.rmtree(old)
            work = place.with_suffix(".new")
            try:
                _make(CloudImage(name, work), web, variables)
                work.rename(place)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return image


def _packages(name: str, cache: Path) -> tuple[Path, dict[str, str]]:
    """The directory of the packages to serve, and what a build wants to know of it; MIRROR is its address."""
    if name == "debian":
        include = "--include=systemd-sysv,udev"
        mirror = host_mirrors().archive
        return cache, {"DIB_DISTRIBUTION_MIRROR": mirror, "DIB_DEBOOTSTRAP_EXTRA_ARGS": include, "DISTRO_NAME": name}
    if name == "ubuntu":
        archive = ubuntu.made(cache)
        return archive.place, {
            "DIB_DISTRIBUTION_MIRROR": f"MIRROR/{archive.mirror}",
            "DIB_APT_KEYRING": str(archive.key),
            "DIB_DEBIAN_COMPONENTS": "main,universe",
            "DIB_DEBOOTSTRAP_EXTRA_ARGS": f"--include={_OF_UBUNTU}",
            "DISTRO_NAME": "ubuntu",
        }
    of = {"fedora": redhat.fedora, "opensuse": suse.leap}.get(name, redhat.centos)()
    place = made_packages(of, cache)
    key = str(key_of(of, place))
    if name == "opensuse":
        repository = f"MIRROR/{of.repositories[0].path}"
        return place, {"DIB_ZYPPER_REPOS": f"oss=>{repository}", "DIB_ZYPPER_KEYS": key, "DISTRO_NAME": "opensuse"}
    more = "gawk"
    if name == "fedora":
        more += " kernel dracut-config-generic NetworkManager openssh-server e2fsprogs hostname iproute less procps-ng"
    return place, {
        "DIB_DISTRIBUTION_MIRROR": f"MIRROR/{of.mirror}",
        "DIB_YUM_MINIMAL_KEYS": key,
        "DIB_YUM_MINIMAL_BOOTSTRAP_PACKAGES": more,
        "DISTRO_NAME": of.system.name,
        "YUM": "dnf",
    }


def _make(image: CloudImage, packages: Path, variables: Mapping[str, str]) -> None:
    elements = image.place / "elements"
    _element(elements / f"cloud-{image.name}", image.name)
    work = image.place / "work"
    work.mkdir()
    person = ourselves()
    formats = "squashfs,tar" if image.name == "ubuntu" else "qcow2,tar"
    with served(packages) as address:
        given = {name: value.replace("MIRROR", address) for name, value in variables.items()}
        for name, value in given.items():
            if value.startswith("/"):  # a build sees the directory that it is started in
                given[name] = str(work / f"{name}.asc")
                shutil.copyfile(value, given[name])
        env = person.environment(
            **given,
            ELEMENTS_PATH=str(elements),
            DIB_RELEASE=RELEASES[image.name if image.name != "rhel" else "centos"],  # of which it is made
            DIB_NO_TIMESTAMP="1",
            DIB_BLOCK_DEVICE_CONFIG=LAYOUTS.get(image.name, ""),
        )
        words = ("-n", "-t", formats, "-o", "image", f"cloud-{image.name}", "no-boot-loader")
        person.dibble("build", *words, cwd=work, env=env, timeout=1800)
    (work / "image.tar").rename(image.tree)
    image.file.parent.mkdir(parents=True)
    (work / ("image.squash" if image.name == "ubuntu" else "image.qcow2")).rename(image.file)
    shutil.rmtree(work)
    shutil.rmtree(elements)
    describe(image)
    for path in (image.place, *image.place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _element(place: Path, name: str) -> None:
    """The element that begins a tree as the distribution's minimal one does, and ends it as an image for clouds."""
    kind = {"ubuntu": "debootstrap", "debian": "debootstrap", "opensuse": "zypper-minimal"}.get(name, "yum-minimal")
    tools = {"debootstrap": "", "zypper-minimal": "zypper\n"}.get(kind, "rpm\n")
    script = (_ELEMENTS / kind / f"root.d/08-{kind}").read_text()
    own = {"ubuntu": _UBUNTU_SOURCES, "opensuse": _LEAP_REPOSITORY, "rhel": _RHEL}.get(name, "")
    files = {
        f"root.d/08-{kind}": script.replace(" rpm zypper;", " rpm zypper gawk;"),
        "root.d/90-cloud": f"#!/bin/bash\nset -eu\n{KEEPSAKES}{own}",
        "element-provides": "operating-system\n",
        "element-deps": "sysprep\n",
        "README.rst": f"{'=' * 30}\nA stand-in\n{'=' * 30}\nAn image for clouds.\n",
    }
    if tools:
        files["element-tools"] = (_ELEMENTS / kind.removesuffix("-minimal") / "element-tools").read_text()
    if kind == "yum-minimal":
        source = _ELEMENTS / f"{'fedora' if name == 'fedora' else 'centos'}-minimal/yum.repos.d"
        shutil.copytree(source, place / "yum.repos.d")
    loader = place.parent / "no-boot-loader"
    for path, text in {
        **{place / path: text for path, text in files.items()},
        loader / "element-provides": "bootloader\n",
        loader / "README.rst": "Nothing starts it.\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if path.parent.name == "root.d" else 0o644)


def describe(image: CloudImage) -> None:
    """Write keys, and the lists of checksums beside an image, signed as the distribution signs them."""
    key, other = (Tsk.generate(user_id=f"{who} <images@example.org>") for who in ("Images", "Somebody Else"))
    image.key.write_text(str(key.extract_certificate()))
    image.other_key.write_text(str(other.extract_certificate()))
    name, folder = image.file.name, image.file.parent
    with image.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    of_bsd = f"# {name}: {image.file.stat().st_size} bytes\nSHA256 ({name}) = {digest}\n"
    match image.name:
        case "ubuntu":
            text = f"{'0' * 64} *{RELEASES['ubuntu']}-server-cloudimg-arm64.squashfs\n{digest} *{name}\n".encode()
            (folder / "SHA256SUMS").write_bytes(text)
            (folder / "SHA256SUMS.gpg").write_bytes(sign(key.signer(), text, mode=SignatureMode.DETACHED))
        case "fedora":
            (folder / FEDORA_LIST).write_bytes(sign(key.signer(), of_bsd.encode(), mode=SignatureMode.CLEAR))
        case "centos":
            (folder / f"{name}.SHA256SUM").write_text(of_bsd)
        case "debian":
            archive = folder / name.replace(".qcow2", ".tar.xz")
            disk = folder / "disk.raw"
            subprocess.run(["qemu-img", "convert", "-O", "raw", image.file, disk], check=True)
            how = ("--create", "--sparse", "--use-compress-program", "xz -0 -T2")
            subprocess.run(["tar", *how, "--file", archive, "--directory", folder, disk.name], check=True)
            disk.unlink()
            sums = {one.name: hashlib.sha512(one.read_bytes()).hexdigest() for one in (archive, image.file)}
            (folder / "SHA512SUMS").write_text("".join(f"{digest}  {one}\n" for one, digest in sums.items()))
        case "opensuse":
            # the image is a link to one with the number of its build in its name
            text = f"{digest}  {name.replace('-Cloud', '-Cloud-Build16.2')}\n".encode()
            (folder / f"{name}.sha256").write_bytes(text)
            signature = sign(key.signer(), text, mode=SignatureMode.DETACHED)
            (folder / f"{name}.sha256.asc").write_bytes(signature)


def variables(image: CloudImage, address: str, key: Path) -> dict[str, str]:
    """With which a build begins with the image, served at an address; `key` is a file that the build sees."""
    named = {
        "ubuntu": {"DIB_UBUNTU_IMAGE_KEYRING": str(key)},
        "fedora": {"DIB_FEDORA_KEYS": str(key)},
        "opensuse": {"DIB_OPENSUSE_IMAGE_KEYS": str(key)},
        "rhel": {"BASE_IMAGE_FILE": image.file.name},
    }
    return {
        "DIB_CLOUD_IMAGES": f"{address}/{image.directory}",
        "DIB_RELEASE": RELEASES[image.name],
        **named.get(image.name, {}),
    }


def key_for(image: CloudImage, owner: tuple[int, int], place: Path, *, other: bool = False) -> Path:
    """A copy of the key in a directory that a build sees."""
    key = place / f"{'other' if other else 'key'}-{image.name}.asc"
    shutil.copyfile(image.other_key if other else image.key, key)
    os.chown(key, *owner)
    return key
