"""Layers of containers, from directories as an overlay has them."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.container_archives import flattened, of_docker, of_oci, read
from tests.unit.output_values import EPOCH, request

from dibble.events import Events
from dibble.outputs.base import BASE, Lower, Source, Writing
from dibble.outputs.container_layers import layers_of
from dibble.outputs.tar_file import TarWriter, walk
from dibble.registry import load
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
LARGEST = 8 << 30  # the first size that has no room in a header of ustar: 11 octal digits


class Overlay:
    """Directories one over another, and `root`, what an overlay of them shows; its own rules, so that the code under
    test is compared with something."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.lowers: list[Lower] = []
        self.root = place / "root"

    def layer(self, owner: str) -> Path:
        """A new topmost directory."""
        path = self.place / f"lower-{len(self.lowers)}"
        path.mkdir(parents=True)
        self.lowers.insert(0, Lower(path, owner))
        return path

    def write(self, name: str, text: str, mtime: int = 1000) -> None:
        """A file in the topmost directory, with the directories above it."""
        path = self.lowers[0].path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (mtime, mtime))

    def remove(self, name: str) -> None:
        path = self.lowers[0].path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(0, 0))

    def empty(self, name: str) -> None:
        """A directory that hides those below it."""
        path = self.lowers[0].path / name
        path.mkdir(parents=True)
        os.setxattr(path, "user.overlay.opaque", b"y")

    def source(self) -> Source:
        """With `root` as the overlay now is; names of one file stay so."""
        shutil.rmtree(self.root, ignore_errors=True)
        self._merge([lower.path for lower in self.lowers], self.root)
        return Source(self.root, None, lowers=tuple(self.lowers))

    def _merge(self, folders: list[Path], target: Path) -> None:
        target.mkdir()
        names = {path.name for folder in folders for path in folder.iterdir()}
        for name in names:
            found: list[Path] = []
            for folder in folders:
                path = folder / name
                if not os.path.lexists(path):
                    continue
                status = path.lstat()
                if not stat.S_ISDIR(status.st_mode):
                    if not found and not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):
                        os.link(path, target / name, follow_symlinks=False)
                    break
                found.append(path)
                if "user.overlay.opaque" in os.listxattr(path):
                    break
            if found:
                self._merge(found, target / name)
        status = folders[0].stat()
        target.chmod(stat.S_IMODE(status.st_mode))
        os.utime(target, (status.st_mtime, status.st_mtime))


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    return Overlay(tmp_path)


def archives(source: Source) -> dict[str, bytes]:
    """Each layer by its name, the lowest first."""
    found = {}
    for layer in layers_of(source, EPOCH):
        data = bytearray()
        TarWriter(data.extend, EPOCH).write_entries(layer.entries)
        found[layer.name] = bytes(data)
    return found


def files(layers: dict[str, bytes]) -> dict[str, set[str]]:
    """What of each layer is no directory."""
    return {
        name: {path for path, told in read(layer).items() if told[0] != tarfile.DIRTYPE}
        for name, layer in layers.items()
    }


def whole(source: Source) -> bytes:
    data = bytearray()
    TarWriter(data.extend, EPOCH).write_entries(walk(source.root))
    return bytes(data)


def write(form: str, source: Source, work: Path, name: str = "N") -> Path:
    target = work / f"{name}.{form}"
    asked = dataclasses.replace(request(work), docker_target="example.org/web:1")
    load("outputs", form)().write(Writing(source, target, asked, HostToolbox(), Events(), EPOCH))
    return target


def test_what_was_removed_is_in_no_layer_and_what_came_again_only_in_its_own(overlay: Overlay) -> None:
    overlay.layer(BASE)
    for name in ("usr/gone", "usr/again", "usr/dir/gone", "usr/emptied/again", "usr/turned/gone", "usr/kept"):
        overlay.write(name, "base")
    overlay.layer("app")
    for name in ("usr/gone", "usr/again", "usr/dir"):
        overlay.remove(name)
    overlay.empty("usr/emptied")
    overlay.write("usr/emptied/again", "app")
    overlay.write("usr/turned", "a file now")
    overlay.layer("last")
    overlay.write("usr/again", "last")
    overlay.write("usr/dir/last", "last")
    layers = archives(overlay.source())
    assert files(layers) == {
        "base": {"./usr/kept"},
        "app": {"./usr/emptied/again", "./usr/turned"},
        "last": {"./usr/again", "./usr/dir/last"},
    }
    assert flattened(list(layers.values())) == flattened([whole(overlay.source())])


def test_a_program_that_was_replaced_is_in_both_layers_but_state_only_once(overlay: Overlay) -> None:
    overlay.layer(BASE)
    for name in ("usr/program", "etc/setting"):
        overlay.write(name, "base")
    overlay.layer("app")
    for name in ("usr/program", "etc/setting", "etc/app"):
        overlay.write(name, "app")
    overlay.layer("")
    overlay.write("usr/program", "dibble")
    overlay.write("etc/setting", "dibble")
    layers = archives(overlay.source())
    assert files(layers) == {
        "base": {"./usr/program"},
        "app": {"./usr/program", "./etc/app"},
        "state": {"./usr/program", "./etc/setting"},
    }
    assert flattened(list(layers.values())) == flattened([whole(overlay.source())])


def test_all_names_of_a_file_are_in_one_layer(overlay: Overlay) -> None:
    below = overlay.layer(BASE)
    overlay.write("usr/a", "linked")
    (below / "usr/b").hardlink_to(below / "usr/a")
    (below / "etc").mkdir()
    (below / "etc/c").hardlink_to(below / "usr/a")
    layers = archives(overlay.source())
    assert files(layers) == {"base": set(), "state": {"./usr/a", "./usr/b", "./etc/c"}}
    assert flattened(list(layers.values())) == flattened([whole(overlay.source())])


def test_the_elements_beyond_a_hundred_are_folded_into_the_last_layer(overlay: Overlay) -> None:
    overlay.layer(BASE)
    overlay.write("usr/base", "base")
    for number in range(103):
        overlay.layer(f"element-{number}")
        overlay.write(f"usr/{number}", "x")
    layers = archives(overlay.source())
    assert list(layers) == ["base", *(f"element-{number}" for number in range(100)), "state"]
    assert files(layers)["element-99"] == {"./usr/99"}
    assert files(layers)["state"] == {"./usr/100", "./usr/101", "./usr/102"}
    assert flattened(list(layers.values())) == flattened([whole(overlay.source())])


def test_a_tree_of_which_nothing_is_known_is_one_layer(overlay: Overlay) -> None:
    overlay.layer(BASE)
    overlay.write("usr/base", "base")
    source = dataclasses.replace(overlay.source(), lowers=())
    assert archives(source) == {"the whole tree": whole(source)}


@pytest.mark.parametrize("seed", range(25))
def test_layers_of_any_history_are_the_tree_one_over_another(overlay: Overlay, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(chance.randint(1, 6)):
        below = overlay.layer(chance.choice((BASE, "", "one", "two", "three")))
        for _ in range(chance.randint(1, 12)):
            name = "/".join((chance.choice(("usr", "etc")), *chance.choices("abc", k=chance.randint(1, 3))))
            path = below / name
            if any(parent.exists() and not parent.is_dir() for parent in path.parents) or os.path.lexists(path):
                continue
            match chance.randint(1, 4):
                case 1:
                    overlay.remove(name)
                case 2:
                    overlay.empty(name)
                case _:
                    overlay.write(name, f"{number}", chance.randint(1, 5))
        for path in sorted(below.rglob("*"), reverse=True):
            if path.is_dir():
                path.chmod(chance.choice((0o755, 0o750, 0o700)))
                os.utime(path, (chance.randint(1, 3),) * 2)
            elif path.is_file() and chance.random() < 0.2:
                path.with_name("link").hardlink_to(path) if not path.with_name("link").exists() else None
    source = overlay.source()
    assert flattened(list(archives(source).values())) == flattened([whole(source)])


def test_images_of_the_same_beginnings_share_layers_by_their_digests(tmp_path: Path) -> None:
    blobs = {}
    for name in ("web", "database"):
        overlay = Overlay(tmp_path / name)
        for owner in (BASE, "common", name):
            overlay.layer(owner)
            overlay.write(f"usr/{owner}", owner)
        source = overlay.source()
        for form, layers in (("docker", of_docker), ("oci", of_oci)):
            archive = write(form, source, tmp_path, name)
            blobs[name, form] = layers(archive)
            with tarfile.open(archive) as tar:
                blobs[name, f"{form} names"] = [entry.encode() for entry in tar.getnames()]
    for form in ("docker", "oci"):
        web, database = blobs["web", form], blobs["database", form]
        assert web[:2] == database[:2]
        assert web[2] != database[2]
        # What a registry or Docker compares is the name of the blob.
        shared = set(blobs["web", f"{form} names"]) & set(blobs["database", f"{form} names"])
        assert len([name for name in shared if b"sha256/" in name or name.endswith(b".tar")]) == 2


def test_two_layers_of_the_same_bytes_are_stored_once(overlay: Overlay, tmp_path: Path) -> None:
    for owner in ("one", "two"):
        below = overlay.layer(owner)
        overlay.write("usr/same", "the same")
        for path in (below / "usr", below):
            os.utime(path, (5, 5))
    source = overlay.source()
    for form, layers in (("docker", of_docker), ("oci", of_oci)):
        one, two = layers(write(form, source, tmp_path))  # which finds names that are there twice
        assert one == two


class _Enough(Exception):
    """The beginning of an archive is there."""


def test_a_file_beyond_8_gib_has_its_size_in_a_record_before_it(overlay: Overlay) -> None:
    overlay.layer("app")
    for name, size in (("usr/a-smaller", 0), ("usr/large", LARGEST)):
        overlay.write(name, "")
        os.truncate(overlay.lowers[0].path / name, size)
    (layer,) = layers_of(overlay.source(), EPOCH)
    head = bytearray()

    def put(data: bytes | memoryview) -> None:
        head.extend(data)
        raise _Enough

    with pytest.raises(_Enough):
        TarWriter(put, EPOCH).write_entries(layer.entries)
    found = {}
    with tarfile.open(fileobj=_Sparse(bytes(head), LARGEST + (1 << 20))) as tar:  # type: ignore[call-overload]
        for info in tar:
            found[info.name] = (info.size, info.pax_headers.get("size"))
            if info.size:
                break
    assert found == {
        ".": (0, None), "./usr": (0, None), "./usr/a-smaller": (0, None), "./usr/large": (LARGEST, str(LARGEST)),
    }  # fmt: skip


class _Sparse:
    """A file that begins so and goes on with zeros."""

    def __init__(self, head: bytes, size: int) -> None:
        self._head, self._size, self._at = head, size, 0

    def read(self, size: int) -> bytes:
        data = self._head[self._at : self._at + size].ljust(min(size, self._size - self._at), b"\0")
        self._at += len(data)
        return data

    def seek(self, place: int) -> None:
        self._at = place

    def tell(self) -> int:
        return self._at


def test_an_archive_takes_a_layer_beyond_8_gib() -> None:
    from dibble.outputs.container_image import member

    header = member(f"{'0' * 64}.tar", LARGEST, EPOCH)
    info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    assert (len(header), info.size) == (512, LARGEST)
