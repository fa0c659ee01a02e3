"""All outputs of an image: order, names, events, and the same files out of the store."""

from __future__ import annotations

import errno
import os
import tarfile
from typing import TYPE_CHECKING, ClassVar

import pytest
from tests.unit.output_values import EPOCH, Remembered, disk, request

from dibble import registry
from dibble.errors import OutputError, ToolFailed
from dibble.events import ArtifactWritten
from dibble.outputs.base import OutputInfo, Source
from dibble.outputs.run import place_files, write_outputs
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.recipe.model import Request

pytestmark = pytest.mark.unit


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("tree")
    images = {}
    for name in ("data", "image0"):
        images[name] = tmp_path / f"{name}.raw"
        with images[name].open("wb") as file:
            file.write(name.encode())
            file.truncate(1 << 22)
    return Source(tmp_path / "root", disk(images))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def run(source: Source, wanted: Request) -> tuple[list[str], list[ArtifactWritten]]:
    events = Remembered()
    files = write_outputs(source, wanted, HostToolbox(), events, epoch=EPOCH)
    assert all(path.is_file() for path in files)
    written = [event for event in events.sent if isinstance(event, ArtifactWritten)]
    return [str(path.relative_to(wanted.cwd)) for path in files], written


def test_the_tree_comes_first_and_the_raw_disk_last(source: Source, out: Path) -> None:
    files, events = run(source, request(out, outputs=("raw", "qcow2", "tar")))
    assert files == ["N.tar", "N.qcow2", "N-data.qcow2", "N.raw", "N-data.raw"]
    assert [event.path for event in events] == files
    assert [event.format for event in events] == ["tar", "qcow2", "qcow2", "raw", "raw"]
    assert (out / "N.raw").read_bytes().startswith(b"image0")
    assert (out / "N-data.raw").read_bytes().startswith(b"data")
    assert (out / "N.qcow2").read_bytes().startswith(b"QFI\xfb")
    with tarfile.open(out / "N.tar") as tar:
        assert tar.getnames() == [".", "./file"]


def test_the_events_tell_size_and_room_of_each_file(source: Source, out: Path) -> None:
    _, [event, _] = run(source, request(out, outputs=("raw",)))
    assert event.size == 1 << 22
    assert event.allocated == (out / "N.raw").stat().st_blocks * 512 < event.size


def test_every_output_has_its_checksums(source: Source, out: Path) -> None:
    files, _ = run(source, request(out, outputs=("tar", "raw"), checksums=("md5", "sha256")))
    sides = [f"{name}{suffix}" for name in files for suffix in (".md5", ".sha256")]
    assert sorted(path.name for path in out.iterdir()) == sorted([*files, *sides])


def test_names_with_spaces_and_directories_are_taken_as_they_are(source: Source, out: Path) -> None:
    (out / "a dir").mkdir()
    files, _ = run(source, request(out, outputs=("tar", "raw"), name="a dir/my $image"))
    assert files == ["a dir/my $image.tar", "a dir/my $image.raw", "a dir/my $image-data.raw"]


def test_a_single_disk_of_another_name_is_the_image(source: Source, out: Path) -> None:
    assert source.disk is not None
    only = Source(source.root, disk({"data": source.disk.images["data"]}))
    files, _ = run(only, request(out, outputs=("raw",)))
    assert files == ["N.raw"]


def test_a_tree_without_a_disk_is_written(source: Source, out: Path) -> None:
    files, _ = run(Source(source.root, None), request(out, outputs=("tar",)))
    assert files == ["N.tar"]


class Failing:
    """An output that fails as told."""

    info: ClassVar[OutputInfo] = OutputInfo("failing", "tree", "fails")
    error: ClassVar[Exception]

    def write(self, _: Source, target_file: Path, *__: object, **___: object) -> None:
        target_file.write_text("half")
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ToolFailed(("qemu-img",), 1, "qemu-img: error while writing: No space left on device"),
    ],
)
def test_a_full_disk_is_told_and_leaves_no_part_of_a_file(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setitem(registry.BUILT_IN["outputs"], "failing", f"{__name__}:Failing")
    monkeypatch.setattr(Failing, "error", error, raising=False)
    with pytest.raises(OutputError, match=r"no room .*N\.failing") as caught:
        run(source, request(out, outputs=("failing",)))
    assert caught.value.hint.startswith("free space in")
    assert list(out.iterdir()) == []


def test_stored_files_are_copied_never_linked(source: Source, out: Path, tmp_path: Path) -> None:
    assert source.disk is not None
    stored = source.disk.images["image0"]
    events = Remembered()
    wanted = request(out, checksums=("sha256",))
    [file] = place_files({"N.raw": stored}, wanted, events)
    assert file == out / "N.raw"
    assert file.read_bytes() == stored.read_bytes()
    assert file.stat().st_ino != stored.stat().st_ino
    assert file.stat().st_nlink == 1
    assert file.stat().st_blocks <= stored.stat().st_blocks
    assert (out / "N.raw.sha256").is_file()
    [event] = [event for event in events.sent if isinstance(event, ArtifactWritten)]
    assert (event.path, event.format) == ("N.raw", "raw")
