"""Images for clouds from mirrors with the names, disks, lists of checksums and signatures that the real ones have.

The elements' own scripts fetch, check and unpack them; what the elements install afterwards is left out here.
"""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.build.debian_trees import differences, of_tar
from tests.build.small_elements import BASE, SmallElements
from tests.build.test_image_based import CONTENT
from tests.serving import cutting, served
from tests.standins.cloud_images import IMAGES, LAYOUTS, CloudImage, describe, key_for, variables

from dibble.run.prepare import CATALOGUE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

    from tests.people import Person

pytestmark = pytest.mark.build

ELEMENTS = {
    name: {"debian": "debian-cloud-image"}.get(name, name)
    for name in ("centos", "debian", "fedora", "opensuse", "rhel", "ubuntu")
}
ROOTS = {
    "centos": "/: partition 4 (xfs, label root)",
    "debian": "/: partition 3 (ext, label cloudimg)",
    "fedora": "/: partition 4 (btrfs, label fedora)",
    "opensuse": "/: partition 3 (btrfs, label ROOT)",
    "rhel": "/: partition 4 (xfs, label root)",
}


@pytest.fixture(scope="module")
def elements(ordinary_user: Person) -> Iterator[SmallElements]:
    """`only-NAME` is what the element NAME does to get its image."""
    found = SmallElements(ordinary_user, ordinary_user.directory("image-mirrors"))
    found.write("filled/README.rst", "======\nfilled\n======\nAll kinds of files.\n")
    found.script("filled/root.d/20-filled", f"{CONTENT}\necho kernel > boot/vmlinuz-1\nmkdir -p home/someone var/cache")
    found.write("no-boot/element-provides", "bootloader\n")
    found.write("no-boot/README.rst", "=======\nno-boot\n=======\nNothing starts this image.\n")
    for name, element in ELEMENTS.items():
        found.write(f"only-{name}/element-provides", "operating-system\n")
        found.write(f"only-{name}/element-deps", "sysprep\n")
        found.write(f"only-{name}/README.rst", f"{'=' * 20}\nonly-{name}\n{'=' * 20}\nAn image.\n")
        (script,) = (CATALOGUE / "elements" / element / "root.d").glob("10-*")
        found.write(f"only-{name}/root.d/{script.name}", script.read_text(), 0o755)
        # of an element that installs packages
        command = (CATALOGUE / "elements/cache-url/bin/cache-url").read_text()
        found.write(f"only-{name}/bin/cache-url", command, 0o755)
    yield found
    shutil.rmtree(found.place, ignore_errors=True)


@pytest.fixture(scope="module")
def images(elements: SmallElements) -> Mapping[str, CloudImage]:
    """An image of the same tree for each distribution, laid out and described as its own are."""
    place = elements.place
    made = {}
    for name in ELEMENTS:
        image = made[name] = CloudImage(name, place / "mirrors" / name)
        image.file.parent.mkdir(parents=True)
        if name == "rhel":
            shutil.copyfile(made["centos"].file, image.file)
        else:
            form, suffix = ("squashfs", "squash") if name == "ubuntu" else ("qcow2", "qcow2")
            words = ("-n", "-t", f"{form},tar", "-o", f"of-{name}", "small", "filled", "no-boot", "sysprep")
            env = elements.environment(DIB_BLOCK_DEVICE_CONFIG=LAYOUTS.get(name, ""))
            elements.person.dibble("build", *words, cwd=place, env=env)
            shutil.copyfile(place / f"of-{name}.{suffix}", image.file)
        describe(image)
    return made


def begun(
    elements: SmallElements, image: CloudImage, output: str, more: Mapping[str, str], *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """A build that begins with the image."""
    env = elements.environment(**more)
    words = ("build", *BASE, "-o", output, f"only-{image.name}")
    return elements.person.dibble(*words, cwd=elements.place, env=env, check=check)


def settings(elements: SmallElements, image: CloudImage, address: str, *, other: bool = False) -> dict[str, str]:
    person = elements.person
    key = key_for(image, (person.uid, person.gid), elements.place, other=other)
    return {"DIB_FLAVOR": "generic" if image.name == "debian" else "GenericCloud", **variables(image, address, key)}


@pytest.mark.parametrize("name", ELEMENTS)
def test_an_image_is_fetched_checked_and_comes_out_as_it_went_in(
    elements: SmallElements, images: Mapping[str, CloudImage], name: str
) -> None:
    image = images[name]
    with served(image.web) as address:
        done = begun(elements, image, f"from-{name}", settings(elements, image, address))
    said = done.stdout + done.stderr
    if name in ROOTS:
        assert ROOTS[name] in said
        assert "/boot/efi: partition 2 (vfat, label EFI)" in said
    if name in ("centos", "fedora", "rhel"):
        assert "/boot: partition 3" in said
    source = "centos" if name == "rhel" else name
    ours, theirs = (of_tar(elements.place / f"{one}.tar") for one in (f"from-{name}", f"of-{source}"))
    # FAT knows no owner and no mode, and each layout has its own fstab
    assert differences(ours, theirs, ("boot/efi", "etc/fstab", "lost+found")) == []
    assert ours["opt/large"].attributes
    assert ours["boot/efi/loader.cfg"].content == b"loader\n"


def test_a_disk_in_an_archive_is_read_too(elements: SmallElements, images: Mapping[str, CloudImage]) -> None:
    image = images["debian"]
    archive = IMAGES["debian"].replace(".qcow2", ".tar.xz")
    with served(image.web) as address:
        own = settings(elements, image, address) | {"BASE_IMAGE_FILE": archive}
        begun(elements, image, "of-archive", own)
    ours, theirs = (of_tar(elements.place / f"{one}.tar") for one in ("of-archive", "of-debian"))
    assert differences(ours, theirs, ("boot/efi", "etc/fstab", "lost+found")) == []


@pytest.mark.parametrize("name", ["fedora", "opensuse", "ubuntu"])
def test_a_list_of_checksums_by_somebody_else_is_refused_with_both_keys(
    elements: SmallElements, images: Mapping[str, CloudImage], name: str
) -> None:
    from pysequoia import Cert

    image = images[name]
    with served(image.web) as address:
        own = settings(elements, image, address, other=True)
        done = begun(elements, image, f"forged-{name}", own, check=False)
    assert done.returncode != 0
    trusted = Cert.from_file(str(image.other_key))
    assert "which is not trusted" in done.stderr
    assert trusted.fingerprint.upper() in done.stderr
    assert "Somebody Else" in done.stderr
    hint = next(line for line in done.stderr.splitlines() if "hint: name the file with the key in DIB_" in line)
    assert "if you trust it" in hint
    assert "Traceback" not in done.stderr
    assert not (elements.place / f"forged-{name}.tar").exists()


def test_an_image_that_is_not_what_its_list_says_is_refused(
    elements: SmallElements, images: Mapping[str, CloudImage]
) -> None:
    image = images["centos"]
    wrong = CloudImage("centos", elements.place / "mirrors/wrong")
    shutil.copytree(image.web, wrong.web)
    shutil.copyfile(image.key, wrong.key)
    listed = wrong.file.with_name(f"{wrong.file.name}.SHA256SUM")
    expected, found = "a" * 64, hashlib.sha256(image.file.read_bytes()).hexdigest()
    listed.write_text(listed.read_text().replace(found, expected))
    with served(wrong.web) as address:
        done = begun(elements, image, "wrong", settings(elements, wrong, address), check=False)
    assert done.returncode != 0
    assert f"{image.file.name} has the SHA256 {found} where {expected} is expected" in done.stderr
    assert "mid-sync or tampered with" in done.stderr
    assert not (elements.place / "wrong.tar").exists()


@pytest.mark.parametrize(
    ("name", "release", "there"), [("fedora", "43", "44"), ("ubuntu", "warty", "noble"), ("centos", "7", "9-stream")]
)
def test_a_release_that_there_is_not_is_told_with_those_that_there_are(
    elements: SmallElements, images: Mapping[str, CloudImage], name: str, release: str, there: str
) -> None:
    image = images[name]
    with served(image.web) as address:
        own = settings(elements, image, address)
        own |= {"DIB_RELEASE": release, "DIB_CLOUD_IMAGES": f"{address}/{image.directory.replace(there, release)}"}
        done = begun(elements, image, "no-release", own, check=False)
    assert done.returncode != 0
    assert f"has no images of a release {release}; at " in done.stderr
    assert f"there are: {there}\n" in done.stderr
    assert "choose one of these (DIB_RELEASE)" in done.stderr


def test_what_came_before_a_cut_is_kept_for_the_next_build(
    elements: SmallElements, images: Mapping[str, CloudImage]
) -> None:
    image = images["ubuntu"]
    # Nothing of the same image in the cache: another list is another image.
    again = CloudImage("ubuntu", elements.place / "mirrors/cut")
    shutil.copytree(image.web, again.web)
    with again.file.open("ab") as file:
        file.write(bytes(4096))  # behind what the file system says is its end
    describe(again)
    piece = again.file.stat().st_size // 5 + 1
    with cutting(again.web, again.file.name, piece) as (address, begun_at):
        own = settings(elements, again, address)
        done = begun(elements, again, "cut", own, check=False)
        assert done.returncode != 0
        assert "breaks off" in done.stderr
        assert not (elements.place / "cut.tar").exists()
        first = len(begun_at)
        begun(elements, again, "cut", own)
    assert [begin for begin in begun_at if begin] == [piece, 2 * piece, 3 * piece, 4 * piece]
    assert 0 < first < len(begun_at)
    assert (
        differences(of_tar(elements.place / "cut.tar"), of_tar(elements.place / "of-ubuntu.tar"), ("etc/fstab",)) == []
    )
