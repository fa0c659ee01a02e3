"""Files at fixed places of a disk: where they may stand, and what is written there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from dibble.disk.graph import parse
from dibble.disk.layout import check_for_any_content, layout_of
from dibble.disk.model import ContentSize, Defaults, Layout
from dibble.disk.raw import write_raws
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

KIB, MIB = 1 << 10, 1 << 20
DEFAULTS = Defaults(UUID("99999999-8888-7777-6666-555555555555"), journal_mib=4)
ROOT = "mkfs: {name: mkfs_root, type: ext4, mount: {mount_point: /}}"
TEXT = f"""\
- local_loop: {{name: image0, size: 64MiB}}
- partitioning:
    base: image0
    label: LABEL
    align: 4MiB
    partitions:
      - {{name: firmware, size: 4MiB, raw: {{file: /boot/itb}}}}
      - {{name: root, size: 100%, {ROOT}}}
- raw: {{name: spl, base: image0, file: /boot/spl, offset: 32KiB}}
- raw: {{name: env, base: image0, file: /boot/env, offset: 1MiB}}
"""


def layout(text: str, label: str = "gpt") -> Layout:
    graph = parse(text.replace("LABEL", label), source="disk.yaml", defaults=DEFAULTS)
    return layout_of(graph, ContentSize({"/": 4 * MIB}, {"/": 9}), DEFAULTS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/boot").mkdir(parents=True)
    for name, size in {"spl": 100 * KIB, "env": 10, "itb": 4 * MIB}.items():
        (tmp_path / "root/boot" / name).write_bytes(name.encode() * (size // len(name)))
    return tmp_path / "root"


@pytest.mark.parametrize("label", ["gpt", "mbr"])
def test_each_stands_where_it_was_asked_for_and_nowhere_else(root: Path, label: str) -> None:
    disk = root.parent / "disk"
    disk.write_bytes(bytes(64 * MIB))
    found = layout(TEXT, label)
    write_raws(found, root, {"image0": disk})
    content = disk.read_bytes()
    for name, at in {"spl": 32 * KIB, "env": MIB, "itb": found.extents["firmware"].offset}.items():
        own = (root / "boot" / name).read_bytes()
        assert content[at : at + len(own)] == own
        content = content[:at] + bytes(len(own)) + content[at + len(own) :]
    assert not content.strip(b"\0")


REFUSED = {
    "the table": ("gpt", "offset: 32KiB", "offset: 8KiB", "begins at 8 KiB, which is within the partition table"),
    "its copy": ("gpt", "offset: 32KiB", "offset: 65535KiB", "is within the copy of the partition table"),
    "the table of an MBR": ("mbr", "offset: 32KiB", "offset: 500", "is within the partition table"),
    "a partition": ("gpt", "offset: 32KiB", "offset: 9MiB", 'is within partition "root"'),
    "another one": ("gpt", "offset: 32KiB", "offset: 1MiB", 'is within raw "'),
    "the end": ("gpt", "offset: 32KiB", "offset: 1GiB", 'but "image0" ends at 64 MiB'),
    "a file system": ("gpt", "base: image0, file: /boot/spl", "base: root, file: /boot/spl", "stands already"),
    "a path": ("gpt", "file: /boot/spl", "file: boot/spl", 'has the file "boot/spl"'),
    "a way out": ("gpt", "file: /boot/spl", "file: /../spl", 'has the file "/../spl"'),
    "no file": ("gpt", "file: /boot/spl, ", "", 'needs "file"'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_place_of_something_else_is_refused_with_a_hint(name: str) -> None:
    label, old, new, message = REFUSED[name]
    assert old in TEXT
    with pytest.raises(DiskLayoutError) as caught:
        layout(TEXT.replace(old, new), label)
    assert message in caught.value.message
    assert caught.value.hint
    assert caught.value.where


@pytest.mark.parametrize(
    ("offset", "message"),
    [("9MiB", 'is within partition "root"'), ("1GiB", 'is within partition "root"'), ("8KiB", "the partition table")],
)
def test_a_place_that_no_size_of_the_image_leaves_free_is_refused_before_that_is_known(
    offset: str, message: str
) -> None:
    text = TEXT.replace(", size: 64MiB", "").replace("LABEL", "gpt")
    check_for_any_content(parse(text, source="disk.yaml", defaults=DEFAULTS), DEFAULTS)
    graph = parse(text.replace("offset: 32KiB", f"offset: {offset}"), source="disk.yaml", defaults=DEFAULTS)
    with pytest.raises(DiskLayoutError) as caught:
        check_for_any_content(graph, DEFAULTS)
    assert message in caught.value.message


def test_a_disk_with_an_mbr_has_room_right_behind_its_first_sector() -> None:
    assert layout(TEXT.replace("offset: 32KiB", "offset: 8KiB"), "mbr")
    assert layout(TEXT.replace("offset: 32KiB", "offset: 0"), "mbr"), "boot code"


@pytest.mark.parametrize(("name", "size"), [("spl", MIB), ("env", 3 * MIB + 1), ("itb", 4 * MIB + 1)])
def test_a_file_that_would_run_into_what_comes_next_is_refused(root: Path, name: str, size: int) -> None:
    (root / "boot" / name).write_bytes(bytes(size))
    disk = root.parent / "disk"
    disk.write_bytes(bytes(64 * MIB))
    with pytest.raises(DiskLayoutError, match=r"takes .* but there are"):
        write_raws(layout(TEXT), root, {"image0": disk})


def test_a_file_that_the_image_lacks_or_that_leads_out_of_it_is_refused(root: Path) -> None:
    (root / "boot/spl").unlink()
    (root / "boot/spl").symlink_to("/etc/hostname")
    disk = root.parent / "disk"
    disk.write_bytes(bytes(64 * MIB))
    with pytest.raises(DiskLayoutError, match="is to be /boot/spl, and the image has no such file"):
        write_raws(layout(TEXT), root, {"image0": disk})
