"""An image for clouds from a mirror: which it is, whether it is what its list says, and what is told if it is not."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.serving import cutting, served

from dibble.errors import FetchError, NoSuchSuite, SignatureError, UsageError
from dibble.events import Events
from dibble.packages.cloud_image import CloudImages, checksums, names_on_page, newest, put_in_place, wanted_image
from dibble.sandbox.toolbox import HostToolbox
from dibble.store.places import open_store

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

IMAGE = b"image " * 40_000
NAME = "distro-9-cloud.x86_64.qcow2"


@pytest.fixture
def images(tmp_path: Path) -> CloudImages:
    return images_in(tmp_path)


def images_in(place: Path, *, offline: bool = False) -> CloudImages:
    scratch = place / "scratch"
    scratch.mkdir(exist_ok=True)
    store = open_store(place / "cache")
    return CloudImages(store, scratch, HostToolbox(), Events(), offline=offline, file_of=lambda name: place / name)


def put(place: Path, content: bytes = IMAGE, listed: bytes = IMAGE) -> Path:
    """An image of the release 9 and the list of its checksum; returns the directory to be served."""
    folder = place / "web/9/x86_64"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(content)
    (folder / "SUMS").write_text(f"SHA256 ({NAME}) = {hashlib.sha256(listed).hexdigest()}\n")
    return place / "web"


def words(address: str, release: str = "9", arch: str = "x86_64", *more: str) -> tuple[str, ...]:
    place = ("--title", "Distro", "--release", release, "--arch", arch, "--location", f"{address}/{release}/{arch}")
    names = ("--image", NAME, "--sums", "SUMS", "--releases", address, "--release-pattern", r"\d+")
    return (*place, *names, *more, "/cache")


def test_lists_of_checksums_are_read_in_both_forms() -> None:
    sha256, sha512 = "a" * 64, "b" * 128
    text = f"# c\nSHA256 (x.img) = {sha256}\n{sha512}  y.img\n{sha256} *./z.img\nMD5 (x.img) = 1\n"
    assert checksums(text) == {
        "x.img": {"SHA256": sha256},
        "y.img": {"SHA512": sha512},
        "z.img": {"SHA256": sha256},
    }
    assert checksums(f"{sha256}\n") == {"": {"SHA256": sha256}}


def test_names_of_a_page_are_its_own_directory_s() -> None:
    page = (
        '<a href="../">up</a> <a href="./a%2Bb/">x</a> <A HREF=\'c.img\'>x</A> <a href="?C=N">n</a> <a href="/x">t</a>'
    )
    assert names_on_page(page) == ["a+b", "c.img"]


def test_the_newest_name_is_found_by_its_numbers() -> None:
    assert newest(["i-1.9.img", "i-1.14.img", "i-1.14.img.sig"], r"i-[0-9.]+\.img") == "i-1.14.img"
    assert newest(["i-1.9.img"], "no") == ""


def test_an_image_is_fetched_when_it_is_what_its_list_says(images: CloudImages, tmp_path: Path) -> None:
    with served(put(tmp_path)) as address:
        name, blob, sums = images.fetch(wanted_image(words(address)))
    assert (name, sums) == (NAME, f"{address}/9/x86_64/SUMS")
    assert blob.read_bytes() == IMAGE
    # offline, what was fetched and checked serves again
    assert images_in(tmp_path, offline=True).fetch(wanted_image(words(address)))[1] == blob


def test_an_image_that_is_not_is_refused_and_fetched_anew_the_next_time(images: CloudImages, tmp_path: Path) -> None:
    with served(put(tmp_path, b"forged")) as address:
        with pytest.raises(FetchError, match=r"has the SHA256 .* where .* is expected") as caught:
            images.fetch(wanted_image(words(address)))
        assert "mid-sync or tampered" in caught.value.hint
        put(tmp_path)
        assert images.fetch(wanted_image(words(address)))[1].read_bytes() == IMAGE


def test_an_image_that_was_replaced_after_its_list_was_read_is_taken_with_its_new_list(
    images: CloudImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = put(tmp_path, listed=b"the one before")
    get = images.small.get
    asked = []

    def replaced(url: str) -> bytes:
        asked.append(url)
        found = get(url)
        put(tmp_path)
        return found

    monkeypatch.setattr(images.small, "get", replaced)
    with served(top) as address:
        assert images.fetch(wanted_image(words(address)))[1].read_bytes() == IMAGE
    assert len(asked) == 2


def test_a_list_that_does_not_name_the_image_says_what_it_names(images: CloudImages, tmp_path: Path) -> None:
    with served(put(tmp_path)) as address:
        other = words(address)
        other = tuple("other.img" if word == NAME else word for word in other)
        with pytest.raises(FetchError, match=f"SUMS has no checksum of other.img, only of: {NAME}"):
            images.fetch(wanted_image(other))


def test_a_release_that_there_is_not_tells_those_that_there_are(images: CloudImages, tmp_path: Path) -> None:
    top = put(tmp_path)
    (top / "10").mkdir()
    (top / "docs").mkdir()
    with served(top) as address:
        with pytest.raises(NoSuchSuite, match=f"Distro has no images of a release 7; at {address} there are: 10, 9\n"):
            images.fetch(wanted_image(words(address, "7")))
        with pytest.raises(NoSuchSuite, match="Distro has no such image of its release 9 for s390x") as caught:
            images.fetch(wanted_image(words(address, "9", "s390x")))
        assert "another architecture (-a)" in caught.value.hint
        # a page that is asked for the names of an image tells the same
        with pytest.raises(NoSuchSuite, match="there are: 10, 9\n"):
            images.fetch(wanted_image(words(address, "7", "x86_64", "--patterns")))


def test_a_list_without_its_signature_is_refused(images: CloudImages, tmp_path: Path) -> None:
    from pysequoia import Tsk

    key = Tsk.generate(user_id="Images <images@example.org>")
    (tmp_path / "key.asc").write_text(str(key.extract_certificate()))
    signed = ("--signature", ".gpg", "--key", "key.asc", "--key-hint", "trust it by KEYS=FILE")
    with served(put(tmp_path)) as address:
        with pytest.raises(SignatureError, match=r"SUMS is not signed: .*SUMS.gpg: 404") as caught:
            images.fetch(wanted_image(words(address, "9", "x86_64", *signed)))
        assert caught.value.hint == "trust it by KEYS=FILE"
        with pytest.raises(SignatureError, match=r"the keys nowhere.asc cannot be read: No such file"):
            images.fetch(wanted_image(words(address, "9", "x86_64", "--key", "nowhere.asc")))


def test_words_that_are_wrong_are_told() -> None:
    with pytest.raises(UsageError, match="required: --title"):
        wanted_image(["/cache"])
    with pytest.raises(UsageError, match="is not a regular expression"):
        wanted_image(words("http://mirror", "9", "x86_64", "--release-pattern", "("))


def test_a_download_that_breaks_goes_on_at_its_last_byte_in_the_next_build_too(
    images: CloudImages, tmp_path: Path
) -> None:
    fifth = len(IMAGE) // 5
    with cutting(put(tmp_path), NAME, fifth) as (address, begun):
        with pytest.raises(FetchError, match="breaks off"):
            images.fetch(wanted_image(words(address)))
        again = images_in(tmp_path)
        assert again.fetch(wanted_image(words(address)))[1].read_bytes() == IMAGE
    # Each build first asks, without reading on, by what a change would be seen.
    assert begun == [0, 0, fifth, 2 * fifth, 0, 3 * fifth, 4 * fifth]


def test_a_file_in_place_is_left_until_there_is_another(tmp_path: Path) -> None:
    blob, target = tmp_path / "blob", tmp_path / "folder/target"
    blob.write_bytes(b"one")
    put_in_place(blob, target)
    number = target.stat().st_ino
    put_in_place(blob, target)
    assert target.stat().st_ino == number
    blob.write_bytes(b"two and more")
    put_in_place(blob, target)
    assert target.read_bytes() == b"two and more"
    assert blob.stat().st_ino != target.stat().st_ino
