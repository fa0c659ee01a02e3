"""dm-verity: the tree of hashes, what it takes, and what is refused."""

from __future__ import annotations

import hashlib
import struct
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dibble.disk.graph import parse
from dibble.disk.layout import layout_of
from dibble.disk.model import ContentSize, Defaults, Graph
from dibble.disk.volumes.base import Region
from dibble.disk.volumes.verity import BLOCK, Verity, hashes_bytes
from dibble.errors import DiskLayoutError

pytestmark = pytest.mark.unit

MIB = 1 << 20
DEFAULTS = Defaults(UUID("99999999-8888-7777-6666-555555555555"), journal_mib=4)
TEXT = """\
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions: [{name: data, size: 90%}, {name: tree, size: 100%}]
- verity:
    name: sealed
    base: data
    hashes: tree
    mkfs: {type: ext4, mount: {mount_point: /}}
"""


def graph_of(text: str) -> Graph:
    return parse(text, source="disk.yaml", defaults=DEFAULTS)


def root_of(raw: bytes, blocks: int, salt: bytes) -> tuple[bytes, list[bytes]]:
    """The root hash and the levels from the top, by the words of the kernel's documentation."""
    level = [hashlib.sha256(salt + raw[at : at + BLOCK]).digest() for at in range(0, blocks * BLOCK, BLOCK)]
    levels: list[bytes] = []
    while len(level) > 1:
        joined = [b"".join(level[at : at + 128]).ljust(BLOCK, b"\0") for at in range(0, len(level), 128)]
        levels.insert(0, b"".join(joined))
        level = [hashlib.sha256(salt + block).digest() for block in joined]
    return level[0], levels


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([1, 2, 127, 128, 129, 300, 128 * 128 // 8]), st.binary(max_size=64), st.integers(0, 3))
def test_every_block_is_below_the_root_hash(
    tmp_path_factory: pytest.TempPathFactory, blocks: int, salt: bytes, offset: int
) -> None:
    directory = tmp_path_factory.mktemp("verity")
    content = hashlib.shake_256(salt).digest(3 * BLOCK).ljust(blocks * BLOCK, b"\0")[: blocks * BLOCK]
    start, room = offset * BLOCK, hashes_bytes(blocks)
    (directory / "data").write_bytes(bytes(start) + content)
    with (directory / "tree").open("wb") as file:
        file.truncate(start + room + BLOCK)
    verity = Verity("sealed", "data", "tree", UUID(int=7), salt)
    data, target = Region(directory / "data", start, len(content)), Region(directory / "tree", start, room)
    root = verity.write_hashes(data, target)
    expected, levels = root_of(content, blocks, salt)
    assert root == expected
    raw = (directory / "tree").read_bytes()
    assert raw[:start] == bytes(start)
    assert raw[start + BLOCK : start + room] == b"".join(levels), "they take just the room that was planned"
    assert raw[start + room :] == bytes(BLOCK)
    fields = struct.unpack_from("<8sII16s32sIIQH6x256s", raw, start)
    assert fields[:3] == (b"verity\0\0", 1, 1)
    assert fields[3] == verity.uuid.bytes
    assert fields[4].rstrip(b"\0") == b"sha256"
    assert fields[5:9] == (BLOCK, BLOCK, blocks, len(salt))
    assert fields[9][: len(salt)] == salt


@given(st.integers(BLOCK, 400 * MIB), st.integers(2 * BLOCK, 4 * MIB))
def test_the_device_is_as_large_as_its_base_or_as_its_hashes_have_room_for(base: int, room: int) -> None:
    verity = Verity("sealed", "data", "tree", UUID(int=7), b"")
    size = verity.place({"data": base, "tree": room})["sealed"].size
    assert size % BLOCK == 0
    assert size <= base
    assert hashes_bytes(size // BLOCK) <= room
    assert size == base // BLOCK * BLOCK or hashes_bytes(size // BLOCK + 1) > room


def test_a_disk_of_open_size_has_room_for_content_and_hashes() -> None:
    layout = layout_of(graph_of(TEXT), ContentSize({"/": 30 * MIB}, {"/": 9}), DEFAULTS)
    data, sealed, tree = (layout.extents[name] for name in ("data", "sealed", "tree"))
    assert (sealed.image, sealed.offset) == ("image0", data.offset), "it lies as it is in its base"
    assert hashes_bytes(sealed.size // BLOCK) <= tree.size
    assert sealed.size >= 50 * MIB


def test_a_salt_belongs_to_the_recipe() -> None:
    (one,), (same,) = graph_of(TEXT).volumes, graph_of(TEXT).volumes
    (other,) = parse(TEXT, source="", defaults=Defaults(UUID(int=1))).volumes
    assert repr(one) == repr(same) != repr(other)


REFUSED = {
    "no device for the hashes": ("    hashes: tree\n", "", 'needs "hashes"'),
    "an unknown one": ("hashes: tree", "hashes: three", 'has the "hashes" "three", which does not exist'),
    "the data itself": ("hashes: tree", "hashes: data", 'names "data" twice'),
    "a name with a slash": ("name: sealed", "name: a/b", "has a name that the device mapper does not take"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_node_is_refused_with_its_place_and_a_hint(name: str) -> None:
    old, new, message = REFUSED[name]
    assert old in TEXT
    with pytest.raises(DiskLayoutError) as caught:
        graph_of(TEXT.replace(old, new))
    assert message in caught.value.message
    assert caught.value.hint
    assert caught.value.where
    assert caught.value.where.line


def test_a_device_with_no_room_for_hashes_is_refused() -> None:
    verity = Verity("sealed", "data", "tree", UUID(int=7), b"")
    with pytest.raises(DiskLayoutError, match="for the hashes of 40 MiB"):
        verity.place({"data": 40 * MIB, "tree": 512})
