"""Sizes: from the content where nobody says any, exactly what was asked otherwise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.disk.layout import layout_of
from dibble.disk.model import ContentSize, Defaults, Filesystem, Graph, Image, Mount, Partition, Table
from dibble.errors import DiskLayoutError
from dibble.tree.walk import content_size

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

MIB = 1 << 20
SEED = UUID("0d1bb1e0-1234-5678-9abc-def012345678")


def defaults(**values: int) -> Defaults:
    return Defaults(SEED, **values)  # type: ignore[arg-type]


def content(root_mib: int, files: int = 1000) -> ContentSize:
    return ContentSize({"/": root_mib * MIB, "/boot/efi": 0}, {"/": files, "/boot/efi": 1})


def root(base: str = "root", kind: str = "ext4") -> Filesystem:
    return Filesystem("mkfs_root", base, kind, "cloudimg-rootfs", SEED)


def efi_graph(size: int | None = None) -> Graph:
    partitions = (
        Partition("ESP", 1, "EF00", 550 * MIB),
        Partition("BSP", 2, "EF02", 8 * MIB),
        Partition("root", 3, "8300", None, percent=100),
    )
    return Graph(
        (Image("image0", size),),
        (Table("table", "image0", "gpt", partitions),),
        (Filesystem("mkfs_ESP", "ESP", "vfat", "MKFS_ESP", SEED), root()),
        (Mount("m1", "mkfs_root", "/"), Mount("m2", "mkfs_ESP", "/boot/efi")),
        (),
    )


def bare_graph(size: int | None = None) -> Graph:
    return Graph((Image("image0", size),), (), (root("image0"),), (Mount("m", "mkfs_root", "/"),), ())


def mbr_graph() -> Graph:
    table = Table("table", "image0", "mbr", (Partition("root", 1, "0x83", None, percent=100, primary=True),))
    return Graph((Image("image0", None),), (table,), (root(),), (Mount("m", "mkfs_root", "/"),), ())


def test_an_open_image_has_room_for_two_thirds_more_and_the_journal() -> None:
    layout = layout_of(bare_graph(), content(600), defaults())
    assert layout.image_sizes["image0"] == (1000 + 64) * MIB


def test_a_partitioned_one_has_that_room_in_the_root_partition() -> None:
    layout = layout_of(efi_graph(), content(600), defaults())
    assert 1064 * MIB <= layout.extents["root"].size < 1066 * MIB
    assert layout.extents["ESP"].size == 550 * MIB
    assert layout.image_sizes["image0"] < (1064 + 550 + 8 + 4) * MIB


def test_a_size_that_was_asked_for_is_exact_with_an_esp_too() -> None:
    layout = layout_of(efi_graph(), content(600), defaults(image_size_bytes=5000 * MIB))
    assert layout.image_sizes["image0"] == 5000 * MIB


def test_the_configuration_says_a_size_before_the_command_line() -> None:
    layout = layout_of(efi_graph(3000 * MIB), content(600), defaults(image_size_bytes=5000 * MIB))
    assert layout.image_sizes["image0"] == 3000 * MIB


def test_extra_space_is_added_to_the_content() -> None:
    layout = layout_of(bare_graph(), content(600), defaults(image_extra_size_bytes=500 * MIB))
    assert layout.image_sizes["image0"] == (600 + 500 + 64) * MIB


def test_what_cannot_fit_is_told_before_anything_is_written() -> None:
    with pytest.raises(
        DiskLayoutError, match=r"/ needs at least .* but root has .* are missing; 600 MiB are"
    ) as caught:
        layout_of(efi_graph(), content(600), defaults(image_size_bytes=1000 * MIB))
    assert "--image-size" in caught.value.hint


def test_a_size_is_whole_sectors() -> None:
    with pytest.raises(DiskLayoutError, match="no multiple of its sectors"):
        layout_of(bare_graph(), content(1), defaults(image_size_bytes=1000 * MIB + 5))


@given(st.integers(0, 20000), st.integers(1, 300000), st.sampled_from(["bare", "mbr", "efi"]))
def test_open_sizes_always_hold_the_content_and_lie_within_the_disk(mib: int, files: int, which: str) -> None:
    graph = {"bare": bare_graph, "mbr": mbr_graph, "efi": efi_graph}[which]()
    layout = layout_of(graph, content(mib, files), defaults())
    size = layout.image_sizes["image0"]
    assert size % 65536 == 0
    ends = 0
    for table in graph.tables:
        for partition in table.partitions:
            extent = layout.extents[partition.name]
            assert extent.offset >= ends
            assert extent.offset % MIB == 0
            ends = extent.offset + extent.size
    assert ends <= size
    assert layout.filesystem_extent(graph.filesystems[-1]).size >= mib * MIB


def test_a_tree_is_counted_by_mount_point_and_hard_links_once(tmp_path: Path) -> None:
    (tmp_path / "boot" / "efi").mkdir(parents=True)
    (tmp_path / "boot" / "efi" / "loader").write_bytes(b"x" * 5000)
    (tmp_path / "one").write_bytes(b"x" * 4097)
    os.link(tmp_path / "one", tmp_path / "two")
    (tmp_path / "short").symlink_to("one")
    (tmp_path / "long").symlink_to("x" * 100)
    (tmp_path / "empty").write_bytes(b"")
    size = content_size(tmp_path, ["/", "/boot/efi", "none"])
    # /: itself, boot, a file of two blocks, a long link of one block; short link and empty file take none
    assert size.allocated == {"/": (1 + 1 + 2 + 1) * 4096, "/boot/efi": (1 + 2) * 4096}
    assert size.files == {"/": 6, "/boot/efi": 2}
