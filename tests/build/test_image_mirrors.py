"""Images for clouds from a mirror with the names, lists of checksums and signatures that the real ones have.

The elements' own scripts fetch, check and unpack them; what the elements install afterwards is left out here.
"""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import pytest
from pysequoia import SignatureMode, Tsk, sign
from tests.build.debian_trees import differences, of_tar
from tests.build.small_elements import BASE, SmallElements
from tests.build.test_image_based import CONTENT
from tests.inside import with_tools
from tests.serving import served

from dibble.run.prepare import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.people import Person

    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.build

NAMES = {
    "centos": "CentOS-Stream-GenericCloud-9-latest.x86_64.qcow2",
    "fedora": "Fedora-Cloud-Base-Generic-44-1.14.x86_64.qcow2",
    "opensuse": "Leap-16.0-Minimal-VM.x86_64-Cloud.qcow2",
    "ubuntu": "noble-server-cloudimg-amd64.squashfs",
}
FILE_SYSTEMS = {"centos": "xfs", "fedora": "btrfs", "opensuse": "btrfs", "ubuntu": "squashfs"}
DISK = """
- local_loop: {{name: image0}}
- partitioning:
    base: image0
    label: gpt
    partitions:
      - name: ESP
        type: EF00
        size: 64MiB
        mkfs: {{type: vfat, label: efi, mount: {{mount_point: /boot/efi, fstab: {{options: defaults}}}}}}
      - name: root
        type: "8300"
        size: 100%
        mkfs: {{type: {kind}, label: rootfs, mount: {{mount_point: /, fstab: {{options: defaults}}}}}}
"""
LIST_OF_FEDORA = "Fedora-Cloud-44-1.14-x86_64-CHECKSUM"


@pytest.fixture(scope="module")
def elements(ordinary_user: Person) -> Iterator[SmallElements]:
    """`only-NAME` is what the element NAME does to get its image."""
    found = SmallElements(ordinary_user, ordinary_user.directory("image-mirrors"))
    found.write("filled/README.rst", "======\nfilled\n======\nAll kinds of files.\n")
    found.script("filled/root.d/20-filled", CONTENT)
    found.write("no-boot/element-provides", "bootloader\n")
    found.write("no-boot/README.rst", "=======\nno-boot\n=======\nNothing starts this image.\n")
    for name in NAMES:
        found.write(f"only-{name}/element-provides", "operating-system\n")
        found.write(f"only-{name}/element-deps", "sysprep\n")
        found.write(f"only-{name}/README.rst", f"{'=' * 20}\nonly-{name}\n{'=' * 20}\nAn image.\n")
        for command in ("cache-url", "signed-text"):  # of an element that installs packages
            text = (CATALOGUE / "elements/cache-url/bin" / command).read_text()
            found.write(f"only-{name}/bin/{command}", text, 0o755)
        script = f"root.d/10-{name}-cloud-image"
        found.write(f"only-{name}/{script}", (CATALOGUE / "elements" / name / script).read_text(), 0o755)
    yield found
    shutil.rmtree(found.place, ignore_errors=True)


@pytest.fixture(scope="module")
def images(elements: SmallElements, test_cache: Path) -> dict[str, Path]:
    """An image of the same tree for each kind of file system."""
    place = elements.place
    for kind in ("xfs", "btrfs"):
        words = ("-n", "-t", "qcow2,tar", "-o", kind, "small", "filled", "no-boot", "sysprep")
        env = elements.environment(DIB_BLOCK_DEVICE_CONFIG=DISK.format(kind=kind))
        elements.person.dibble("build", *words, cwd=place, env=env)
    packed = place / "packed.squashfs"

    def pack(toolbox: Toolbox, directory: Path) -> bytes:
        tree = (place / "xfs.tar").read_bytes()
        toolbox.run(["tar2sqfs", "-q", toolbox.path(directory / "tree.squashfs")], stdin=tree)
        return (directory / "tree.squashfs").read_bytes()

    packed.write_bytes(with_tools(test_cache, pack))
    return {"xfs": place / "xfs.qcow2", "btrfs": place / "btrfs.qcow2", "squashfs": packed}


@pytest.fixture(scope="module")
def mirror(elements: SmallElements, images: dict[str, Path]) -> Iterator[str]:
    """A directory for each distribution, as its mirrors have it; the key's public part lies beside them."""
    key = Tsk.generate(user_id="Images <images@example.org>")
    elements.write("key.asc", str(key.extract_certificate()))
    top = elements.place / "mirror"
    for name, file in NAMES.items():
        (top / name).mkdir(parents=True)
        image = top / name / file
        image.symlink_to(images[FILE_SYSTEMS[name]])
        digest = hashlib.sha256(image.read_bytes()).hexdigest()
        of_bsd = f"# {file}: {image.stat().st_size} bytes\nSHA256 ({file}) = {digest}\n"
        match name:
            case "centos":
                (top / name / f"{file}.SHA256SUM").write_text(of_bsd)
            case "fedora":
                signed = sign(key.signer(), of_bsd.encode(), mode=SignatureMode.CLEAR)
                (top / name / LIST_OF_FEDORA).write_bytes(signed)
            case "opensuse":
                (top / name / f"{file}.sha256").write_text(f"{digest}  {file}\n")
            case "ubuntu":
                text = f"{digest} *{file}\n"
                (top / name / "SHA256SUMS").write_text(text)
                signature = sign(key.signer(), text.encode(), mode=SignatureMode.DETACHED)
                (top / name / "SHA256SUMS.gpg").write_bytes(signature)
    with served(top) as address:
        yield address


def settings(elements: SmallElements, name: str, mirror: str, key: str = "key.asc") -> dict[str, str]:
    keys = str(elements.elements / key)
    return elements.environment(
        DIB_CLOUD_IMAGES=f"{mirror}/{name}",
        DIB_RELEASE={"centos": "9-stream", "fedora": "44", "opensuse": "16.0", "ubuntu": "noble"}[name],
        DIB_FLAVOR="GenericCloud",
        DIB_FEDORA_KEYS=keys,
        DIB_UBUNTU_IMAGE_KEYRING=keys,
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_fetched_checked_and_comes_out_as_it_went_in(
    elements: SmallElements, mirror: str, name: str
) -> None:
    env = settings(elements, name, mirror)
    done = elements.person.dibble("build", *BASE, "-o", name, f"only-{name}", cwd=elements.place, env=env)
    kind = FILE_SYSTEMS[name]
    assert kind == "squashfs" or f"/: partition 2 ({kind}, label rootfs)" in done.stdout + done.stderr
    ours, theirs = of_tar(elements.place / f"{name}.tar"), of_tar(elements.place / "xfs.tar")
    assert differences(ours, theirs, ("boot/efi", "etc/fstab", "lost+found")) == []


@pytest.mark.parametrize("name", ["fedora", "ubuntu"])
def test_a_list_of_checksums_by_somebody_else_is_refused(elements: SmallElements, mirror: str, name: str) -> None:
    other = Tsk.generate(user_id="Other <other@example.org>")
    elements.write("other.asc", str(other.extract_certificate()))
    env = settings(elements, name, mirror, "other.asc")
    words = ("build", *BASE, "-o", f"forged-{name}", f"only-{name}")
    done = elements.person.dibble(*words, cwd=elements.place, env=env, check=False)
    assert done.returncode != 0
    assert "signature" in done.stderr
    assert not (elements.place / f"forged-{name}.tar").exists()
