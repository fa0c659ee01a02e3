"""Descriptions that are refused: each with file, line, what is wrong and what to do (contract.md 5.8, D3, D30)."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibble.disk.graph import parse
from dibble.disk.model import Defaults
from dibble.elements.readers.block_device import BARE_FILE_SYSTEM
from dibble.errors import DiskLayoutError

pytestmark = pytest.mark.unit

SEED = uuid.UUID("99999999-8888-7777-6666-555555555555")
FILE = "disk.yaml"


def refusal_of(text: str, defaults: Defaults | None = None) -> DiskLayoutError:
    with pytest.raises(DiskLayoutError) as caught:
        parse(text, source=FILE, defaults=defaults or Defaults(SEED))
    return caught.value


def partitioned(table: str, partitions: str) -> str:
    """A description whose partitions begin in line 6; root is the last."""
    return (
        "- local_loop:\n    name: image0\n"
        f"    partitioning:\n      {table}\n      partitions:\n{partitions}"
        "        - {name: root, size: 100%, mkfs: {mount: {mount_point: /}}}\n"
    )


def disk_and(line: str) -> str:
    """A valid description with one more node in line 10."""
    return f"{BARE_FILE_SYSTEM}{line}\n"


assert BARE_FILE_SYSTEM.count("\n") == 10, "the lines below count on it"

REFUSED: dict[str, tuple[str, int | None, str]] = {
    # the form
    "nothing": ("", 1, "description is empty"),
    "only a comment": ("# nothing\n", 1, "description is empty"),
    "a word": ("image0\n", 1, "is a word, not a list of nodes"),
    "a map": ("local_loop:\n  name: image0\n", 1, "is a map, not a list of nodes"),
    "no YAML": ("- local_loop: {name: image0\n- mkfs:\n", 2, "not YAML"),
    "a tab": ("- local_loop:\n\tname: image0\n", 2, "not YAML"),
    "an item that is a word": (disk_and("- mkfs"), 11, "a node is a word, not a map (not a dict)"),
    "an item that is a list": (disk_and("- [mkfs]"), 11, "a node is a list, not a map"),
    "a node with two keys": (
        disk_and("- mkfs: {base: image0}\n  mount: {mount_point: /}"),
        11,
        "a node has 2 keys, mkfs, mount; it should be a single dict",
    ),
    "a node whose keys are not indented": ("- local_loop:\n  name: image0\n", 1, "a node has 2 keys, local_loop, name"),
    "an empty map": ("- {}\n", 1, "a node has 0 keys"),
    "a list instead of keys": (disk_and("- mkfs: [base]"), 11, "mkfs is a list, not a map"),
    "a key that stands twice": (disk_and("- mkfs: {base: a, base: b}"), 11, 'the key "base" stands here twice'),
    "a key that is a list": (disk_and("- ? [a]\n  : b"), 11, "a key is not a single word"),
    "an alias inside itself": ("- local_loop: &a {name: image0, mkfs: *a}\n", 1, "an alias stands inside"),
    "an unknown plug-in": (disk_and("- zfs: {name: zfs}"), 11, 'unknown disk node "zfs" (not a plugin value)'),
    "an unknown key": (disk_and("- mkfs: {base: image0, lable: x}"), 11, 'mkfs "mkfs_image0" has the unknown key'),
    "an unknown key of a partition": (
        partitioned("label: mbr", "        - {name: a, size: 1MiB, flag: boot}\n"),
        6,
        'partition "a" has the unknown key "flag"',
    ),
    # subvolumes and labels
    "subvolumes of something else": (
        disk_and("- local_loop: {name: image1, mkfs: {type: ext4, subvolumes: ['@:/']}}"),
        11,
        "has subvolumes, but ext4 knows none",
    ),
    "a subvolume without a path": (
        disk_and("- local_loop: {name: image1, mkfs: {type: btrfs, subvolumes: ['@']}}"),
        11,
        'has the subvolume "@"',
    ),
    "no subvolume for the rest": (
        disk_and("- local_loop: {name: image1, mkfs: {type: btrfs, subvolumes: ['@home:/home']}}"),
        11,
        "none for what lies in no other",
    ),
    "a subvolume given twice": (
        disk_and("- local_loop: {name: image1, mkfs: {type: btrfs, subvolumes: ['@:/', '@:/home']}}"),
        11,
        'the subvolume "@:/home" twice',
    ),
    "a label where there is none": (
        disk_and("- local_loop: {name: image1, mkfs: {type: squashfs, label: x}}"),
        11,
        "has a label, for which squashfs has no place",
    ),
    "a line of fstab for a file system without a label": (
        disk_and("- local_loop: {name: image1, mkfs: {type: squashfs, mount: {mount_point: /x, fstab: {}}}}"),
        11,
        "squashfs has no label to find it by",
    ),
    "a label too long for xfs": (
        disk_and("- local_loop: {name: image1, mkfs: {type: xfs, label: thirteen-byte}}"),
        11,
        "too long for the file system xfs",
    ),
    "a misspelt type": (
        disk_and("- local_loop: {name: image1, mkfs: {type: btfrs}}"),
        11,
        'unknown filesystem "btfrs"',
    ),
    # names and bases
    "neither name nor base": (disk_and("- mkfs: {type: ext4}"), 11, "mkfs has neither name nor base"),
    "a disk without a name": ("- local_loop:\n", 1, "local_loop has no name"),
    "a name that is a list": (disk_and("- mkfs: {name: [a]}"), 11, '"name" is not a name'),
    "a name that is empty": (disk_and("- mkfs: {name: }"), 11, '"name" is not a name'),
    "a name given twice": (
        disk_and("- local_loop: {name: mkfs_root}"),
        11,
        "used more than once (duplicate node name)",
    ),
    "a partition with the name of a disk": (
        partitioned("label: mbr", "        - {name: image0, size: 1MiB}\n"),
        6,
        'partition "image0" has a name that is used more than once',
    ),
    "an unknown base": (disk_and("- mkfs: {base: image1, type: ext4}"), 11, 'base "image1", which does not exist'),
    "no base": (disk_and("- mkfs: {name: x, type: ext4}"), 11, 'mkfs "x" has no "base"'),
    "a mount on a disk": (
        disk_and("- mount: {base: image0, mount_point: /x}"),
        11,
        'has the base "image0", which is a local_loop and no filesystem',
    ),
    "a cycle": (
        disk_and("- mkfs: {name: a, base: b, type: ext4}\n- mkfs: {name: b, base: a, type: ext4}"),
        11,
        'has the base "b", which is a mkfs and no partition or image',
    ),
    "a node that stands on itself": (disk_and("- mkfs: {name: a, base: a, type: ext4}"), 11, "which is a mkfs and no"),
    "two file systems on one disk": (
        disk_and("- mkfs: {name: a, base: image0, type: ext4}"),
        11,
        'mkfs "a" stands on "image0", on which mkfs "mkfs_root" of line 3 stands already',
    ),
    "a table and a file system on one disk": (
        disk_and("- partitioning: {base: image0, label: mbr, partitions: [{name: a, size: 1MiB}]}"),
        11,
        "stands already",
    ),
    # disks
    "no image0": (BARE_FILE_SYSTEM.replace("image0", "sda"), 1, "no local_loop is called image0; there is sda"),
    "a disk with a base": (disk_and("- local_loop: {name: b, base: image0}"), 11, "a disk stands on nothing"),
    "a disk of a percentage": (disk_and("- local_loop: {name: b, size: 50%}"), 11, '"50%" is not a size'),
    "a disk of half a sector": (disk_and("- local_loop: {name: b, size: 1000}"), 11, "size of 1000 bytes"),
    "odd sectors": (disk_and("- local_loop: {name: b, block_size: 520}"), 11, "has sectors of 520 bytes"),
    # tables
    "a table without a base": (
        disk_and("- partitioning: {name: p, label: mbr, partitions: [{name: a, size: 1MiB}]}"),
        11,
        'partitioning "p" has no "base"',
    ),
    "a table without a label": (
        disk_and("- local_loop: {name: b, partitioning: {partitions: [{name: a, size: 1MiB}]}}"),
        11,
        'needs "label"',
    ),
    "a table with an unknown label": (partitioned("label: bsd", ""), 4, 'has the label "bsd"'),
    "a table without partitions": (
        disk_and("- local_loop: {name: b, partitioning: {label: mbr}}"),
        11,
        'needs "partitions"',
    ),
    "partitions that are no list": (
        disk_and("- local_loop: {name: b, partitioning: {label: mbr, partitions: {name: a}}}"),
        11,
        "is not a list of maps",
    ),
    "a table on a partition": (
        partitioned("label: mbr", "        - {name: a, size: 1MiB, partitioning: {label: mbr}}\n"),
        6,
        'has the base "a", which is a partition and no image',
    ),
    "a bad alignment": (partitioned("label: mbr\n      align: 1000", ""), 5, 'has the alignment "1000"'),
    # partitions
    "a partition without a name": (
        partitioned("label: mbr", "        - {size: 1MiB}\n"),
        6,
        'a partition of "partitioning_image0" has no name',
    ),
    "a partition without a size": (partitioned("label: mbr", "        - {name: a}\n"), 6, 'partition "a" needs "size"'),
    "an unknown unit": (partitioned("label: mbr", "        - {name: a, size: 1mb}\n"), 6, 'unknown unit "mb"'),
    "a size that is none": (partitioned("label: mbr", "        - {name: a, size: big one}\n"), 6, "is not a size"),
    "more than all": (partitioned("label: mbr", "        - {name: a, size: 120%}\n"), 6, "not between 0% and 100%"),
    "an unknown flag": (
        partitioned("label: mbr", "        - {name: a, size: 1MiB, flags: [prime]}\n"),
        6,
        'partition "a" has the unknown flag "prime"',
    ),
    "flags that are no list": (
        partitioned("label: mbr", "        - {name: a, size: 1MiB, flags: boot}\n"),
        6,
        'needs a list of words as "flags"',
    ),
    "primary on GPT": (
        partitioned("label: gpt", "        - {name: a, size: 1MiB, flags: [primary]}\n"),
        6,
        "has the flag primary, which only an MBR knows",
    ),
    "primary after logical": (
        partitioned(
            "label: mbr", "        - {name: a, size: 1MiB}\n        - {name: b, size: 1MiB, flags: [primary]}\n"
        ),
        7,
        'partition "b" is primary, but comes after the logical partition "a"',
    ),
    "four primary and a logical one": (
        partitioned(
            "label: mbr", "".join(f"        - {{name: p{n}, size: 1MiB, flags: [primary]}}\n" for n in range(4))
        ),
        10,
        'partition "root" is logical, after four primary partitions',
    ),
    "an MBR type of two bytes": (
        partitioned("label: mbr", "        - {name: a, size: 1MiB, type: 0x183}\n"),
        6,
        "has the type 0x183",
    ),
    "an unknown GPT type": (
        partitioned("label: gpt", "        - {name: a, size: 1MiB, type: 83}\n"),
        6,
        "has the unknown type 83",
    ),
    "a GPT name that is too long": (
        partitioned("label: gpt", f"        - {{name: {'x' * 37}, size: 1MiB}}\n"),
        6,
        "has a name of 37 characters",
    ),
    "a partition of another table": (
        partitioned("label: gpt", "        - {name: a, size: 1MiB, base: other}\n"),
        6,
        'has the base "other", but belongs to "partitioning_image0"',
    ),
    # file systems
    "a file system without a type": (
        disk_and("- local_loop: {name: b, mkfs: {mount: {mount_point: /b}}}"),
        11,
        'mkfs "mkfs_b" needs "type"',
    ),
    "an unknown type": (
        disk_and("- local_loop: {name: b, mkfs: {type: etx4, mount: {mount_point: /b}}}"),
        11,
        'unknown filesystem "etx4"',
    ),
    "a label used twice": (
        disk_and("- local_loop: {name: b, mkfs: {type: ext4, label: cloudimg-rootfs}}"),
        11,
        'has the label "cloudimg-rootfs", which is used more than once: mkfs_root has it too',
    ),
    "a label that is too long": (
        disk_and("- local_loop: {name: b, mkfs: {type: ext4, label: seventeen-letters}}"),
        11,
        "of 17 characters, too long for the file system ext4",
    ),
    "a label that is too long for vfat": (
        disk_and("- local_loop: {name: b, mkfs: {type: vfat, label: twelve-chars}}"),
        11,
        'has the label "TWELVE-CHARS" of 12 characters, too long for the file system vfat',
    ),
    "a label of two lines": (
        disk_and('- local_loop: {name: b, mkfs: {type: ext4, label: "a\\nb"}}'),
        11,
        "label with control characters",
    ),
    "a label that is empty": (disk_and("- local_loop: {name: b, mkfs: {type: ext4, label: }}"), 11, "says nothing for"),
    "a uuid that is none": (disk_and("- local_loop: {name: b, mkfs: {type: ext4, uuid: 1-2}}"), 11, 'the uuid "1-2"'),
    "an open quotation mark": (
        disk_and('- local_loop: {name: b, mkfs: {type: ext4, opts: "-E \'a"}}'),
        11,
        "open quotation mark",
    ),
    # mounts
    "nothing at /": (
        BARE_FILE_SYSTEM.replace("mount_point: /", "mount_point: /srv"),
        1,
        "no file system is mounted at /",
    ),
    "a mount without a point": (
        disk_and("- local_loop: {name: b, mkfs: {type: ext4, mount: }}"),
        11,
        'mount "mount_mkfs_b" needs "mount_point"',
    ),
    "a point used twice": (
        disk_and("- local_loop: {name: b, mkfs: {type: ext4, mount: {mount_point: //}}}"),
        11,
        "has the mount point /, which is specified more than once: mount_mkfs_root has it too",
    ),
    "a point that is relative": (
        disk_and("- local_loop: {name: b, mkfs: {type: ext4, mount: {mount_point: srv}}}"),
        11,
        "not an absolute path",
    ),
    "a point that leads upwards": (
        disk_and("- local_loop: {name: b, mkfs: {type: ext4, mount: {mount_point: /../etc}}}"),
        11,
        "not an absolute path",
    ),
    # fstab
    "fstab without a base": (disk_and("- fstab: {options: ro}"), 11, "fstab has neither name nor base"),
    "fstab on a file system": (disk_and("- fstab: {base: mkfs_root}"), 11, "which is a mkfs and no mount"),
    "options with blanks": (
        BARE_FILE_SYSTEM.replace("options: defaults", "options: ro, noatime"),
        9,
        'has the options "ro, noatime" with blanks',
    ),
    "a pass that is no number": (
        BARE_FILE_SYSTEM.replace("passno: 1", "passno: first"),
        10,
        'has "first" as "fsck-passno"',
    ),
    "options that are a list": (
        BARE_FILE_SYSTEM.replace("options: defaults", "options: [ro]"),
        9,
        'a list as "options"',
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_bad_description_is_refused_with_its_place_and_a_hint(case: str) -> None:
    text, line, message = REFUSED[case]
    error = refusal_of(text)
    assert message in error.message
    assert (error.where.file, error.where.line) == (FILE, line)
    assert error.hint
    assert error.exit_status == 2


def test_the_column_is_that_of_the_value_which_is_wrong() -> None:
    error = refusal_of(partitioned("label: gpt", "        - {name: a, size: 1mb}\n"))
    assert str(error).startswith(f'{FILE}:6:27: "1mb": unknown unit "mb"')


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (disk_and("- mkfss: {base: image0}"), "did you mean mkfs"),
        (disk_and("- mkfs: {base: image0, lable: x}"), "did you mean label"),
        (disk_and("- mkfs: {base: imag0, type: ext4}"), "did you mean image0"),
        (disk_and("- bcache: {name: c}"), "known are: fstab, "),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest(text: str, hint: str) -> None:
    assert hint in refusal_of(text).hint


def test_open_quotation_marks_in_the_asked_options_are_refused() -> None:
    error = refusal_of(BARE_FILE_SYSTEM, Defaults(SEED, mkfs_options="-L 'a"))
    assert "open quotation mark" in error.message


def test_a_description_nested_beyond_reason_is_refused() -> None:
    assert "nested too deeply" in refusal_of("[" * 5000 + "]" * 5000).message


words = st.sampled_from(
    [
        "local_loop",
        "partitioning",
        "partitions",
        "mkfs",
        "mount",
        "fstab",
        "name",
        "base",
        "size",
        "label",
        "type",
        "flags",
        "mount_point",
        "image0",
        "root",
        "/",
        "100%",
        "1GiB",
        "mbr",
        "gpt",
        "ext4",
        "swap",
        "",
        "0",
    ]
)
documents = st.recursive(
    words | st.none() | st.integers(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(words, below, max_size=4),
    max_leaves=20,
)


@given(documents)
def test_any_document_gives_a_graph_or_a_layout_error_with_a_hint(document: object) -> None:
    try:
        parse(json.dumps(document), source=FILE, defaults=Defaults(SEED))
    except DiskLayoutError as error:
        assert (bool(error.hint), error.where.file) == (True, FILE)  # noqa: PT017 - most documents are bad, not all


@given(st.text(alphabet="-[]{}:,&*?|>!%@'\"\n\t ab", max_size=40))
def test_any_text_gives_a_graph_or_a_layout_error(text: str) -> None:
    try:
        parse(text, source=FILE, defaults=Defaults(SEED))
    except DiskLayoutError as error:
        assert error.where.file == FILE  # noqa: PT017 - most texts are bad, not all


def test_a_second_table_of_a_disk_is_told_as_such_and_not_as_a_name_that_nobody_gave() -> None:
    second = "- partitioning: {base: image0, label: mbr, partitions: [{name: other, size: 1MiB}]}"
    root = "{name: root, size: 100%, mkfs: {mount: {mount_point: /}}}"
    first = f"- partitioning: {{base: image0, label: gpt, partitions: [{root}]}}"
    error = refusal_of(f"- local_loop: {{name: image0}}\n{first}\n{second}\n")
    assert 'stands on "image0", on which partitioning "partitioning_image0" of line 2 stands already' in error.message
    assert error.where is not None
    assert error.where.line == 3


def test_an_unknown_type_is_told_with_the_nearest_code() -> None:
    error = refusal_of(partitioned("label: gpt", "        - {name: esp, type: EF0, size: 1MiB}\n"))
    assert "EF00" in (error.hint or "")
    assert "8300" not in (error.hint or "")
