"""The aci output: the tree below `rootfs`, behind the manifest that a variable names."""

from __future__ import annotations

import hashlib
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.unit.output_values import EPOCH, Remembered, request

from dibble.errors import OutputError
from dibble.events import Note
from dibble.outputs.aci import Aci
from dibble.outputs.base import Source, Writing
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    (path / "usr/bin").mkdir(parents=True)
    (path / "proc/1").mkdir(parents=True)
    (path / "usr/bin/sh").write_bytes(b"shell")
    os.link(path / "usr/bin/sh", path / "usr/bin/twin")
    (path / "bin").symlink_to("usr/bin")
    return path


def written(root: Path, **variables: str) -> tuple[Path, list[str]]:
    target, events = root.parent / "N.aci", Remembered()
    asked = request(root.parent, environment=variables)
    Aci().write(Writing(Source(root, None), target, asked, HostToolbox(), events, EPOCH))
    return target, [event.text for event in events.sent if isinstance(event, Note)]


def test_the_tree_stands_below_rootfs_and_the_manifest_before_it(root: Path) -> None:
    (root.parent / "m.json").write_text('{"acKind": "ImageManifest"}\n')
    target, notes = written(root, ACI_MANIFEST="m.json")
    assert notes == []
    with tarfile.open(target) as archive:
        members = {member.name: member for member in archive}
        assert archive.extractfile("manifest").read() == b'{"acKind": "ImageManifest"}\n'  # type: ignore[union-attr]
    assert list(members) == [
        "manifest", "rootfs", "rootfs/bin", "rootfs/proc", "rootfs/usr", "rootfs/usr/bin", "rootfs/usr/bin/sh",
        "rootfs/usr/bin/twin",
    ]  # fmt: skip
    manifest = members["manifest"]
    assert (manifest.uid, manifest.gid, manifest.mode, manifest.mtime) == (0, 0, 0o644, 0)
    assert members["rootfs/bin"].linkname == "usr/bin"
    assert members["rootfs/usr/bin/twin"].linkname == "rootfs/usr/bin/sh"
    first = hashlib.sha256(target.read_bytes()).digest()
    os.utime(root.parent / "m.json", (5, 5))
    assert hashlib.sha256(written(root, ACI_MANIFEST="m.json")[0].read_bytes()).digest() == first


def test_without_a_manifest_there_is_a_warning(root: Path) -> None:
    target, notes = written(root)
    assert notes == ["N.aci has no manifest, which programs want: ACI_MANIFEST is not set"]
    with tarfile.open(target) as archive:
        assert archive.getnames()[0] == "rootfs"


def test_another_manifest_is_another_output_and_a_missing_one_is_told_before_the_build(tmp_path: Path) -> None:
    def part(text: str) -> tuple[str, ...]:
        (tmp_path / "m.json").write_text(text)
        return Aci.info.depends_on(request(tmp_path, environment={"ACI_MANIFEST": "m.json"}))

    assert part("{}") != part("[]")
    with pytest.raises(OutputError, match=r"ACI_MANIFEST: .*/none cannot be read: No such file"):
        Aci.info.depends_on(request(tmp_path, environment={"ACI_MANIFEST": "none"}))
