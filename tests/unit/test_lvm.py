"""LVM: which extents each volume gets, how large its partitions must be, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.disk.graph import parse
from dibble.disk.layout import layout_of
from dibble.disk.model import ContentSize, Defaults, Extent, Graph
from dibble.disk.volumes import lvm_metadata
from dibble.disk.volumes.lvm import Group, LogicalVolume, Lvm, PhysicalVolume, Segment, Spread, mapper_name
from dibble.errors import DiskLayoutError

pytestmark = pytest.mark.unit

MIB = 1 << 20
EXTENT = 4 * MIB
SEED = UUID("99999999-8888-7777-6666-555555555555")
DEFAULTS = Defaults(SEED, journal_mib=4)

HEAD = """\
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions:
      - {name: a, size: 101MiB}
      - {name: b, size: 100%}
"""
LVM = """\
- lvm:
    name: lvm
    base: [a, b]
    pvs:
      - {name: pv_a, base: a, options: ["--force"]}
      - {name: pv_b, base: b}
    vgs:
      - {name: vg, base: [pv_a, pv_b], options: ["--force", "-s", "4m"]}
    lvs:
      - {name: root, base: vg, extents: 50%VG}
      - {name: rest, base: vg, extents: 100%FREE}
- mkfs: {name: fs, base: root, type: ext4, mount: {mount_point: /}}
"""


def graph_of(text: str) -> Graph:
    return parse(text, source="disk.yaml", defaults=DEFAULTS)


def lvm_of(text: str) -> Lvm:
    (volume,) = graph_of(text).volumes
    assert isinstance(volume, Lvm)
    return volume


def simple(lvs: tuple[LogicalVolume, ...], pvs: int = 2) -> tuple[Lvm, Group]:
    names = tuple(f"pv{number}" for number in range(pvs))
    group = Group("vg", names)
    return Lvm("lvm", tuple(PhysicalVolume(name, f"on-{name}") for name in names), (group,), lvs, SEED), group


def sizes(*extents: int) -> dict[str, int]:
    return {f"on-pv{number}": MIB + count * EXTENT for number, count in enumerate(extents)}


def test_the_tree_form_gives_the_same_graph_as_the_graph_form() -> None:
    tree = """\
- local_loop:
    name: image0
    partitioning:
      label: gpt
      partitions:
        - name: system
          size: 100%
          lvm:
            name: lvm
            pvs: [{name: pv}]
            vgs: [{name: vg, base: pv}]
            lvs:
              - {name: root, base: vg, extents: 100%FREE, mkfs: {name: fs, type: ext4, mount: {mount_point: /}}}
"""
    graph = """\
- mkfs: {name: fs, base: root, type: ext4, mount: {mount_point: /}}
- lvm:
    name: lvm
    base: [system]
    pvs: [{name: pv, base: system}]
    vgs: [{name: vg, base: [pv]}]
    lvs: [{name: root, base: vg, extents: 100%FREE}]
- partitioning: {name: partitioning_image0, base: image0, label: gpt, partitions: [{name: system, size: 100%}]}
- local_loop: {name: image0}
"""
    assert graph_of(tree) == graph_of(graph)
    assert graph_of(tree).image_of("root") == "image0"


def test_a_linear_volume_lies_in_its_partition_and_needs_no_file_of_its_own() -> None:
    layout = layout_of(graph_of(HEAD + LVM), ContentSize({"/": 10 * MIB}, {"/": 10}), DEFAULTS)
    start = layout.extents["a"].offset + lvm_metadata.DATA_AT
    assert layout.extents["root"] == Extent("image0", start, layout.extents["root"].size)
    assert layout.extents["rest"].image == "rest", "it goes over both partitions"


def test_percentages_are_rounded_down_to_extents() -> None:
    lvs = (LogicalVolume("a", "vg", percent=23, of="VG"), LogicalVolume("b", "vg", percent=50, of="FREE"))
    lvm, group = simple(lvs, 1)
    found = lvm.allocate(group, sizes(10))
    assert found == {"a": [Segment(0, 2, (("pv0", 0),))], "b": [Segment(0, 4, (("pv0", 2),))]}


def test_a_size_is_rounded_down_to_extents_as_in_dib() -> None:
    text = HEAD + LVM.replace("extents: 50%VG", "size: 1800M")
    (root, _) = (
        lvm_of(text.replace("101MiB", "3GiB"))
        .allocate(lvm_of(text).groups[0], {"a": 3 << 30, "b": 0 + (9 << 20)})
        .values()
    )
    assert root[0].count * EXTENT == 1799356416, "the bytes that contract.md names"


def test_stripes_are_whole_and_lie_on_different_volumes() -> None:
    lvm, group = simple((LogicalVolume("a", "vg", extents=5, stripes=2),))
    assert lvm.allocate(group, sizes(10, 4)) == {"a": [Segment(0, 6, (("pv0", 0), ("pv1", 0)))]}


def test_an_open_disk_becomes_as_large_as_the_share_of_a_volume_needs() -> None:
    text = HEAD + LVM.replace("50%VG", "10%VG")
    layout = layout_of(graph_of(text), ContentSize({"/": 100 * MIB}, {"/": 10}), DEFAULTS)
    needs = int(100 * MIB / 0.6) + 4 * MIB
    total = sum((layout.extents[name].size - MIB) // EXTENT for name in "ab")
    assert layout.extents["root"].size >= needs
    assert (total - 1) // 10 * EXTENT < needs + EXTENT, "no larger than needed"


def test_an_open_disk_has_room_for_volumes_of_given_sizes() -> None:
    text = HEAD + LVM.replace("50%VG", "100").replace("100%FREE", "3")
    layout = layout_of(graph_of(text), ContentSize({"/": MIB}, {"/": 10}), DEFAULTS)
    assert layout.extents["b"].size == (103 - 25) * EXTENT + MIB


def test_names_and_ids_are_the_same_every_time_and_differ_between_things() -> None:
    lvm = lvm_of(HEAD + LVM)
    ids = {lvm.uuid_of(kind, name) for kind in ("pv", "vg", "lv") for name in ("vg", "pv_a", "root")}
    assert len(ids) == 9
    assert all(re.fullmatch("[0-9A-Za-z]{32}", uuid) for uuid in ids)
    assert lvm_of(HEAD + LVM).uuid_of("pv", "pv_a") == lvm.uuid_of("pv", "pv_a")
    assert replace(lvm, seed=UUID(int=1)).uuid_of("pv", "pv_a") != lvm.uuid_of("pv", "pv_a")


def test_the_mapper_doubles_hyphens() -> None:
    assert mapper_name("my-vg", "a-b") == "my--vg-a--b"
    assert lvm_of(HEAD + LVM).path_of("root") == "/dev/mapper/vg-root"


@given(
    extents=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    asked=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 3)), min_size=1, max_size=5),
)
def test_no_two_volumes_share_an_extent_and_none_is_outside(extents: list[int], asked: list[tuple[int, int]]) -> None:
    lvs = tuple(
        LogicalVolume(f"lv{number}", "vg", extents=count, stripes=min(stripes, len(extents)))
        for number, (count, stripes) in enumerate(asked)
    )
    lvm, group = simple(lvs, len(extents))
    try:
        found = lvm.allocate(group, sizes(*extents))
    except DiskLayoutError:
        return
    taken: set[tuple[str, int]] = set()
    for lv in lvs:
        at = 0
        for segment in found[lv.name]:
            assert segment.first == at
            assert len(segment.areas) == lv.stripes
            assert len({pv for pv, _ in segment.areas}) == lv.stripes
            at += segment.count
            each = segment.count // lv.stripes
            mine = {(pv, first + number) for pv, first in segment.areas for number in range(each)}
            assert not mine & taken
            assert all(number < extents[int(pv[2:])] for pv, number in mine)
            taken |= mine
        assert lv.extents is not None
        assert at == -(-lv.extents // lv.stripes) * lv.stripes


@given(
    wanted=st.lists(st.integers(0, 900), min_size=1, max_size=4),
    share=st.integers(1, 100),
    fixed=st.booleans(),
)
def test_what_is_said_to_be_needed_is_enough(wanted: list[int], share: int, fixed: bool) -> None:
    lvs = tuple(
        LogicalVolume(f"lv{number}", "vg", percent=max(1, share // len(wanted)), of="VG")
        for number in range(len(wanted))
    )
    lvm, group = simple(lvs)
    wishes = {lv.name: size * MIB for lv, size in zip(lvs, wanted, strict=True)}
    known = sizes(7) if fixed else {}
    needed = {**known, **lvm.needed(wishes, known)}
    found = lvm.allocate(group, needed)
    assert all(sum(s.count for s in found[name]) * EXTENT >= size for name, size in wishes.items())
    open_bases = [base for base in needed if base not in known]
    if all(needed[base] > MIB + EXTENT for base in open_bases):
        try:
            less = lvm.allocate(group, {**needed, **{base: needed[base] - EXTENT for base in open_bases}})
        except DiskLayoutError:
            return
        assert any(sum(s.count for s in less[name]) * EXTENT < size for name, size in wishes.items()), (
            "no more than that"
        )


@given(
    segments=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=4),
    at=st.integers(0, 40 * 1024),
    size=st.integers(1, 20 * 1024),
)
def test_every_byte_of_a_spread_volume_has_one_place(segments: list[tuple[int, int]], at: int, size: int) -> None:
    extent, stripe = 4096, 1024
    first, made, used = 0, [], dict.fromkeys("xyz", 0)
    for stripes, each in segments:
        areas = tuple((pv, used[pv]) for pv in "xyz"[:stripes])
        made.append(Segment(first, each * stripes, areas))
        first += each * stripes
        for pv, _ in areas:
            used[pv] += each
    size = max(0, min(size, first * extent - at))
    pieces = list(Spread(tuple(made), extent, stripe).pieces(at, size))
    place = at
    for _, _, start, length in pieces:
        assert start == place
        assert length > 0
        place += length
    assert place == at + max(0, size)
    spots = sorted((pv, offset, length) for pv, offset, _, length in pieces)
    for (pv, offset, length), (other, following, _) in pairwise(spots):
        assert pv != other or offset + length <= following


REFUSED = {
    "no pvs": (
        '    pvs:\n      - {name: pv_a, base: a, options: ["--force"]}\n      - {name: pv_b, base: b}\n',
        "",
        'needs "pvs"',
    ),
    "a group on nothing": ("base: [pv_a, pv_b]", "base: []", 'vg "vg" has no "base"'),
    "an unknown physical volume": (
        "base: [pv_a, pv_b]",
        "base: [pv_a, pv_c]",
        'has the base "pv_c", which is no physical',
    ),
    "a physical volume twice": ("base: [pv_a, pv_b]", "base: [pv_a, pv_a]", "which belongs to"),
    "an unknown group": (
        "{name: root, base: vg",
        "{name: root, base: vgg",
        'has the base "vgg", which is no volume group',
    ),
    "neither size nor extents": (", extents: 50%VG", "", 'has neither "size" nor "extents"'),
    "extents that are none": ("50%VG", "50%XY", 'has "50%XY" as "extents"'),
    "more than all": ("50%VG", "101%VG", 'has "101%VG" as "extents"'),
    "a thin volume": ("50%VG", "50%VG, type: thin", "is thin"),
    "an unknown type": ("50%VG", "50%VG, type: raid9", 'has the type "raid9"'),
    "an unknown option": ("50%VG", "50%VG, options: [--mirrors, 1]", 'has the option "--mirrors"'),
    "an option without a value": ("50%VG", "50%VG, options: [--stripes]", 'has the option "--stripes" without a value'),
    "too many stripes": ("50%VG", "50%VG, options: [--stripes, 3]", "has 3 stripes"),
    "a stripe that is no power of two": ("50%VG", "50%VG, options: [-i, 2, -I, 5k]", "has stripes of 5 KiB"),
    "a name that LVM reserves": ("name: rest,", "name: rest_tmeta,", "has a name that LVM does not take"),
    "a name with a hyphen first": ("name: rest,", "name: -rest,", "has a name that LVM does not take"),
    "a name too long": ("name: rest,", f"name: {'n' * 126},", "has a name too long for LVM"),
    "an extent of odd size": ('"4m"', '"5m"', "has extents of 5 MiB"),
    "a missing base": (
        "{name: pv_b, base: b}",
        "{name: pv_b, base: c}",
        'pv "pv_b" has the base "c", which does not exist',
    ),
    "a physical volume without a base": ("{name: pv_b, base: b}", "{name: pv_b}", 'pv "pv_b" has no "base"'),
    "a physical volume on a file system": ("{name: pv_b, base: b}", "{name: pv_b, base: fs}", "which is a mkfs and no"),
    "a physical volume on its own volume": (
        "{name: pv_b, base: b}",
        "{name: pv_b, base: rest}",
        "stands on itself: lvm on lvm",
    ),
    "two on one partition": ("{name: pv_b, base: b}", "{name: pv_b, base: a}", 'lvm "lvm" names "a" twice'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_node_is_refused_with_its_place_and_a_hint(name: str) -> None:
    old, new, message = REFUSED[name]
    assert old in LVM
    text = HEAD + LVM.replace(old, new)
    with pytest.raises(DiskLayoutError) as caught:
        graph_of(text)
    error = caught.value
    assert message in error.message
    assert error.hint
    assert error.where
    assert error.where.file == "disk.yaml"
    assert error.where.line is not None
    assert error.where.line >= HEAD.count("\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("50%VG", "1000", 'lv "root" takes 3.91 GiB, but "vg" has 200 MiB left for it'),
        ("50%VG", "1%VG", 'lv "root" has less than one extent of 4 MiB'),
        ("size: 101MiB", "size: 3MiB", 'pv "pv_a" has 3 MiB on "a"'),
        ("50%VG", "10%VG", "needs at least"),
    ],
)
def test_what_does_not_fit_on_a_disk_is_refused_at_its_line(old: str, new: str, message: str) -> None:
    text = (HEAD + LVM).replace("{name: image0}", "{name: image0, size: 206MiB}").replace(old, new)
    with pytest.raises(DiskLayoutError) as caught:
        layout_of(graph_of(text), ContentSize({"/": 30 * MIB}, {"/": 10}), DEFAULTS)
    assert message in caught.value.message
    assert caught.value.where
    assert caught.value.where.line


def test_lvms_checksum_is_the_one_that_lvm_writes() -> None:
    # The area header that pvcreate of lvm2 2.03 writes for an area of 1 MiB less 4 KiB, whatever the disk.
    header = lvm_metadata.sectors("x" * 32, 10 << 20, "")[1][1]
    assert int.from_bytes(header[:4], "little") == lvm_metadata.crc(header[4:512])
    assert lvm_metadata.crc(b"") == 0xF597A6CF


def test_a_text_too_long_for_its_place_is_refused() -> None:
    with pytest.raises(DiskLayoutError, match="LVM's description of its volumes takes"):
        lvm_metadata.sectors("x" * 32, 10 << 20, "n" * (600 << 10))
