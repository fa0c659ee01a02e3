"""All outputs of an image: order, names, events, and the same files out of the store."""

from __future__ import annotations

import errno
import os
import tarfile
import threading
from typing import TYPE_CHECKING, ClassVar

import pytest
from tests.unit.output_values import EPOCH, Remembered, disk, request

from dibble import registry
from dibble.errors import OutputError, ToolFailed
from dibble.events import Activity, ArtifactWritten
from dibble.outputs.base import OutputInfo, Source, Writing
from dibble.outputs.run import place_files, write_outputs
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dibble.disk.model import Disk
    from dibble.events import Events
    from dibble.outputs.run import Begun
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
    of_disk = [event for event in events if event.format != "tar"]  # the tar is written meanwhile
    assert [event.path for event in of_disk] == files[1:]
    assert [event.format for event in of_disk] == ["qcow2", "qcow2", "raw", "raw"]
    assert len(events) == len(files)
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

    def write(self, writing: Writing) -> None:
        writing.target_file.write_text("half")
        raise self.error


def test_a_stored_file_keeps_the_name_of_its_format(source: Source, out: Path, tmp_path: Path) -> None:
    stored = tmp_path / "output.squash"
    stored.write_text("x")
    events = Remembered()
    place_files("squashfs", {"N.squash": stored}, request(out), events)
    assert [event.format for event in events.sent if isinstance(event, ArtifactWritten)] == ["squashfs"]


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
    [file] = place_files("raw", {"N.raw": stored}, wanted, events)
    assert file == out / "N.raw"
    assert file.read_bytes() == stored.read_bytes()
    assert file.stat().st_ino != stored.stat().st_ino
    assert file.stat().st_nlink == 1
    assert file.stat().st_blocks <= stored.stat().st_blocks
    assert (out / "N.raw.sha256").is_file()
    [event] = [event for event in events.sent if isinstance(event, ArtifactWritten)]
    assert (event.path, event.format) == ("N.raw", "raw")


def test_outputs_of_the_tree_are_written_while_the_disk_is_filled(source: Source, out: Path) -> None:
    assert source.disk is not None
    disk_of_it = source.disk
    told = []
    tar_is_there = threading.Event()

    def make_disk(begun: Begun, events: Events) -> Disk:
        begun({name: path for name, path in disk_of_it.images.items()})
        assert tar_is_there.wait(60)
        return disk_of_it

    def written(name: str, files: Sequence[Path]) -> None:
        told.append((name, [path.name for path in files]))
        tar_is_there.set()

    wanted = request(out, outputs=("qcow2", "tar"))
    plain = Source(source.root, None)
    write_outputs(plain, wanted, HostToolbox(), Remembered(), epoch=EPOCH, make_disk=make_disk, written=written)
    assert told == [("tar", ["N.tar"]), ("qcow2", ["N.qcow2", "N-data.qcow2"])]


class Endless:
    """An output of the tree that goes on until it is told to end."""

    info: ClassVar[OutputInfo] = OutputInfo("endless", "tree", "never ends")
    began: ClassVar[threading.Event]

    def write(self, writing: Writing) -> None:
        writing.target_file.write_text("half")
        with writing.events.activity("endless") as activity:
            self.began.set()
            while True:
                activity.progress(1)


def test_the_first_error_ends_the_other_outputs_and_their_activities(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.BUILT_IN["outputs"], "endless", f"{__name__}:Endless")
    monkeypatch.setattr(Endless, "began", threading.Event(), raising=False)
    events = Remembered()

    def make_disk(begun: Begun, _: Events) -> Disk:
        assert Endless.began.wait(60)
        raise OutputError("too small")

    wanted = request(out, outputs=("endless", "qcow2"))
    with pytest.raises(OutputError, match="too small"):
        write_outputs(Source(source.root, None), wanted, HostToolbox(), events, epoch=EPOCH, make_disk=make_disk)
    assert list(out.iterdir()) == []
    activities = [event for event in events.sent if isinstance(event, Activity)]
    assert activities[0].name == "endless"
    assert not activities[0].finished
    assert [event.finished for event in activities].count(True) == 1
    assert activities[-1].finished


def test_an_error_of_an_output_of_the_tree_ends_those_of_the_disk(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.BUILT_IN["outputs"], "failing", f"{__name__}:Failing")
    monkeypatch.setattr(Failing, "error", OutputError("it is broken"), raising=False)
    assert source.disk is not None
    disk_of_it = source.disk

    def make_disk(begun: Begun, events: Events) -> Disk:
        with events.activity("file system") as activity:
            while True:
                activity.progress(1)

    wanted = request(out, outputs=("failing", "raw"))
    with pytest.raises(OutputError, match="it is broken"):
        write_outputs(Source(source.root, None), wanted, HostToolbox(), Remembered(), epoch=EPOCH, make_disk=make_disk)
    assert list(out.iterdir()) == []
    assert all(path.is_file() for path in disk_of_it.images.values())


def test_an_output_that_cannot_be_kept_is_an_error(source: Source, out: Path) -> None:
    def written(name: str, files: Sequence[Path]) -> None:
        raise OutputError(f"no room for {name}")

    wanted = request(out, outputs=("tar", "raw"))
    with pytest.raises(OutputError, match="no room for"):
        write_outputs(source, wanted, HostToolbox(), Remembered(), epoch=EPOCH, written=written)
