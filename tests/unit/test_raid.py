"""RAID: where each byte of an array lies, how large its members must be, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.disk.graph import parse
from dibble.disk.model import Defaults
from dibble.disk.volumes.md import DATA_AT, Array
from dibble.errors import DiskLayoutError

pytestmark = pytest.mark.unit

SEED = UUID("99999999-8888-7777-6666-555555555555")
CHUNK = 4096
HEAD = """\
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions: [{name: a, size: 50MiB}, {name: b, size: 50MiB}, {name: root, size: 100%}]
- mkfs: {base: root, type: ext4, mount: {mount_point: /}}
"""


def array(level: int, members: int) -> Array:
    return Array("array", tuple(f"m{n}" for n in range(members)), level, 0 if level == 1 else CHUNK, SEED)


arrays = st.builds(array, st.sampled_from([0, 1, 10]), st.integers(2, 5))


@given(made=arrays, wanted=st.integers(0, 1 << 22))
def test_what_is_said_to_be_needed_is_enough(made: Array, wanted: int) -> None:
    needed = made.needed({made.name: wanted}, {})
    assert made.place(needed)[made.name].size >= wanted


@given(made=arrays, member=st.integers(1, 30), data=st.data())
def test_every_byte_has_as_many_places_as_there_are_copies(made: Array, member: int, data: st.DataObject) -> None:
    size = made.size_of(member * CHUNK)
    at = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - at))
    pieces = list(made.pieces(at, length))
    copies = {0: 1, 10: 2, 1: len(made.bases)}[made.level]
    assert sum(piece[3] for piece in pieces) == copies * length
    for base, offset, start, count in pieces:
        assert at <= start
        assert start + count <= at + length
        assert offset >= DATA_AT
        assert offset + count <= DATA_AT + member * CHUNK
        twins = {other for other, _, first, _ in pieces if first == start}
        assert base in twins
        assert len(twins) == copies, "copies lie on different members"
    spots = sorted((base, offset, count) for base, offset, _, count in pieces)
    assert all(one[0] != two[0] or one[1] + one[2] <= two[1] for one, two in pairwise(spots))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("{name: r, base: [a, b]}", 'raid "r" needs "level"'),
        ("{name: r, base: [a, b], level: 5}", 'has the level "5"'),
        ("{name: r, base: [a], level: 1}", "of level 1 has 1 members"),
        ("{name: r, base: [a, a], level: 1}", 'names "a" twice'),
        ("{name: r, base: [a, c], level: 1}", 'has the base "c", which does not exist'),
        ("{name: r, base: [a, r], level: 1}", "stands on itself"),
        ("{name: r, base: [a, root], level: 1}", 'stands on "root", on which'),
        ("{name: r, base: [a, mkfs_root], level: 1}", "which is a mkfs and no"),
        ("{name: r, base: [a, b], level: 1, chunk: 64KiB}", "has a chunk, but nothing is striped"),
        ("{name: r, base: [a, b], level: 0, chunk: 5KiB}", "has a chunk of 5 KiB"),
        ("{name: 'r,s', base: [a, b], level: 1}", "has a name that a RAID does not take"),
        (f"{{name: {'r' * 33}, base: [a, b], level: 1}}", "has a name that a RAID does not take"),
    ],
)
def test_a_bad_node_is_refused_at_its_line_with_a_hint(node: str, message: str) -> None:
    with pytest.raises(DiskLayoutError) as caught:
        parse(f"{HEAD}- raid: {node}\n", source="disk.yaml", defaults=Defaults(SEED))
    assert message in caught.value.message
    assert caught.value.hint
    assert caught.value.where
    assert caught.value.where.line == 7


def test_members_too_small_for_a_chunk_are_refused() -> None:
    with pytest.raises(DiskLayoutError, match='the member "m1" of 1 MiB'):
        array(0, 2).place({"m0": 4 << 20, "m1": 1 << 20})
