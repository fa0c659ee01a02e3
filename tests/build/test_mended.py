"""What goes wrong in builds of diskimage-builder and not here (docs/differences.md), in trees that cost a second."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from tests.build.small_elements import SmallElements, printed
from tests.people import left_sessions, ordinary_user, ourselves

from dibble import registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.build

OF_KERNELS = {"initrd", "iso", "vmlinuz"}
FORMATS = sorted(
    registry.BUILT_IN["outputs"].keys() - OF_KERNELS, key=lambda name: (name == "qcow2", name == "raw", name)
)
"""Every format that a tree without a kernel has, those that end badly in diskimage-builder last: behind a tar it
forgets to compress a qcow2."""

LAYOUT = """
- local_loop: {name: image0, size: 260MiB, mkfs: {name: mkfs_root, type: ext4, mount: {mount_point: /}}}
- local_loop: {name: data, size: 160MiB, mkfs: {name: of_data, type: ext4, mount: {mount_point: /srv}}}
"""

INSTALL_PACKAGES = """#!/bin/bash
set -eu
printf '%s|' "$@" "$OF_THE_ELEMENT" > /etc/asked
unshare --mount id -u >> /etc/on-their-own
"""
LINES = ["+ set +o errexit", "set +o xtrace", "the word xtrace", "+ xtrace", "  with blanks ", "the last line"]
SAYS = "\n".join(f"echo '{line}'" for line in LINES)

SCRIPTS = {
    # A target with neither logs nor a home of root.
    "root.d/20-odd": f"""rm -r "$TARGET_ROOT/root" "$TARGET_ROOT/var/log"
mkdir -p "$TARGET_ROOT/usr/local/bin" "$TARGET_ROOT/srv"
echo data > "$TARGET_ROOT/srv/file"
cat > "$TARGET_ROOT/usr/local/bin/install-packages" << 'END'
{INSTALL_PACKAGES}END
chmod +x "$TARGET_ROOT/usr/local/bin/install-packages\"""",
    "extra-data.d/50-odd": 'env > "$TMP_MOUNT_PATH/etc/seen-outside"',
    "install.d/50-odd": (
        f"env > /etc/seen-inside\necho x > '/tmp/left over'\n{SAYS}\nunshare --mount id -u > /etc/on-their-own"
    ),
    "block-device.d/50-odd": 'echo IMAGE_BLOCK_DEVICE=/dev/zero\necho yes > "$TMP_MOUNT_PATH/etc/in-block-device"',
    "finalise.d/50-odd": 'echo "$IMAGE_BLOCK_DEVICE" > /etc/block-device',
    # Still in use when everything is unmounted.
    "cleanup.d/50-odd": """mount -t tmpfs none "$TARGET_ROOT/opt"
echo x > "$TARGET_ROOT/opt/in-memory"
(cd "$TARGET_ROOT/opt"; exec sleep 1000 < in-memory > /dev/null 2>&1) &""",
}
CALLER = {
    "DIB_BLOCK_DEVICE": "gpt",
    "DIB_RELEASE": "trusty",
    "IMAGE_ELEMENT": "no-such-element",
    "LANG": "de_DE.UTF-8",
    "LC_ALL": "de_DE.UTF-8",
    "LC_CTYPE": "de_DE.UTF-8",
    "ROOT_LABEL": "of-caller",
}


@dataclass
class Odd:
    """A build of all that at once, in places with blanks in their names."""

    small: SmallElements
    events: list[dict[str, Any]]

    def text(self, name: str) -> str:
        with tarfile.open(self.small.place / "my image.tar") as tar:
            file = tar.extractfile(f"./{name}")
            assert file is not None
            return file.read().decode()

    def seen(self, side: str) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.text(f"etc/seen-{side}").splitlines() if "=" in line)

    def debugfs(self, image: str, command: str) -> str:
        done = subprocess.run(
            ["debugfs", "-R", command, self.small.place / image], check=True, capture_output=True, text=True
        )
        return done.stdout

    def notes(self) -> list[str]:
        return [event["text"] for event in self.events if event["event"] == "Note"]


@pytest.fixture(scope="module", params=[ourselves, ordinary_user])
def odd(request: pytest.FixtureRequest) -> Iterator[Odd]:
    person = request.param()
    place = person.directory("mended things") / "of one build"
    place.mkdir()
    os.chown(place, person.uid, person.gid)
    small = SmallElements(person, place)
    small.write("odd/README.rst", "===\nodd\n===\nOddities.\n")
    small.write("odd/environment.d/50-odd", "export OF_THE_ELEMENT=yes DIB_RELEASE=2\nexport LC_TIME=C.UTF-8\n")
    for name, text in SCRIPTS.items():
        small.script(f"odd/{name}", text)
    # With the tools that are there, which else would have to be fetched and unpacked.
    cache = person.cache.with_name("a cache of blanks")
    shutil.rmtree(cache, ignore_errors=True)
    person.run(["mkdir", "-p", cache])
    if (person.cache / "tools").is_dir():
        person.run(["cp", "-al", person.cache / "tools", cache])
    words = ("-t", "raw,tar", "-o", "my image", "-p", "one,two words", "small", "odd")
    env = {**CALLER, "DIB_BLOCK_DEVICE_CONFIG": LAYOUT, "DIB_IMAGE_CACHE": str(cache)}
    yield Odd(small, small.build(*words, check=True, **env))
    shutil.rmtree(cache, ignore_errors=True)


def test_every_disk_of_a_description_is_written(odd: Odd) -> None:
    names = {path.name for path in odd.small.place.iterdir() if path.is_file()}
    assert names == {"my image.raw", "my image-data.raw", "my image.tar"}
    assert odd.debugfs("my image-data.raw", "cat /file") == "data\n"
    assert "file" not in odd.debugfs("my image.raw", "ls -p /srv").split("/")


def test_a_description_alone_decides_of_the_disk_whatever_a_script_of_block_device_d_prints(odd: Odd) -> None:
    assert odd.text("etc/block-device") == "/dev/loop0\n"
    assert odd.text("etc/in-block-device") == "yes\n", "the tree is where it is in the phases around"
    assert any("block-device.d/50-odd" in note and "/dev/zero" in note for note in odd.notes())


def test_a_target_without_logs_and_home_of_root_is_built(odd: Odd) -> None:
    with tarfile.open(odd.small.place / "my image.tar") as tar:
        names = tar.getnames()
    assert not {"./root", "./var/log", "./tmp/left over"} & set(names)


def test_packages_of_the_command_line_are_installed_with_what_elements_set(odd: Odd) -> None:
    assert odd.text("etc/asked") == "one|two|words|yes|"


def test_programs_inside_may_have_mounts_of_their_own(odd: Odd) -> None:
    """rpm runs scriptlets so, and they fail where the target is no mount point."""
    assert odd.text("etc/on-their-own").split() == ["0", "0"]


def test_output_of_scripts_is_whole_whatever_words_are_in_it(odd: Odd) -> None:
    assert printed(odd.events, "install.d/50-odd") == LINES


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_the_locale_is_neither_the_callers_nor_that_of_the_tools(odd: Odd, side: str) -> None:
    seen = odd.seen(side)
    found = {name: value for name, value in seen.items() if name.startswith(("LC_", "LANG"))}
    assert found == {"LC_ALL": "C", "LC_TIME": "C.UTF-8"}


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_variables_of_the_caller_mean_what_they_say(odd: Odd, side: str) -> None:
    seen = odd.seen(side)
    assert seen["DIB_BLOCK_DEVICE"] == "gpt"
    assert seen["IMAGE_ELEMENT"] == "small odd"
    assert (seen["ROOT_LABEL"], seen["DIB_ROOT_LABEL"]) == ("of-caller", "of-caller")
    assert seen["DIB_RELEASE"] == "2", "the element's"


def test_the_disk_is_made_for_the_release_of_the_image_not_for_that_of_the_caller(odd: Odd) -> None:
    """For trusty, diskimage-builder leaves checksums out of the file system."""
    assert "metadata_csum" in odd.debugfs("my image.raw", "features")


def test_a_mount_that_is_in_use_ends_with_its_script(odd: Odd) -> None:
    assert any("cleanup.d/50-odd left processes behind" in note and "sleep" in note for note in odd.notes())
    with tarfile.open(odd.small.place / "my image.tar") as tar:
        assert "./opt/in-memory" not in tar.getnames()
    assert left_sessions(odd.small.person) == []


def test_names_with_blanks_are_taken_as_they_are(odd: Odd) -> None:
    seen = odd.seen("outside")
    assert seen["DIB_IMAGE_CACHE"].endswith("/a cache of blanks")
    assert seen["ELEMENTS_PATH"].startswith(str(odd.small.elements))
    assert seen["IMAGE_NAME"] == "my image"


# --- all formats


@pytest.fixture(scope="module")
def formats() -> SmallElements:
    """A build of every format, with checksums."""
    person = ourselves()
    small = SmallElements(person, person.directory("mended-formats"))
    small.build("-t", ",".join(FORMATS), "--checksum", "-o", "all", "small")
    return small


def files_of(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_file())


def test_every_format_is_written_wherever_it_stands_and_nothing_else(formats: SmallElements) -> None:
    names = [f"all.{registry.load('outputs', name).info.suffix}" for name in FORMATS]
    expected = {name + side for name in names for side in ("", ".md5", ".sha256")}
    assert {path.name for path in files_of(formats.place)} == expected


def test_a_qcow2_is_compressed_behind_whatever_other_formats(formats: SmallElements) -> None:
    argv = ["qemu-img", "check", "--output=json", str(formats.place / "all.qcow2")]
    found = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert found["compressed-clusters"] == found["allocated-clusters"] > 0


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_the_checksum_of_every_format_is_that_of_its_file(formats: SmallElements, kind: str) -> None:
    sums = [path.name for path in files_of(formats.place) if path.suffix == f".{kind}"]
    assert len(sums) == len(FORMATS)
    subprocess.run([f"{kind}sum", "--check", "--strict", *sums], cwd=formats.place, check=True, capture_output=True)
