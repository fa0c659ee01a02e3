"""A plan shows the volumes on its disks, as text and as a drawing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dibble.cli.plan_svg import svg
from dibble.cli.plan_text import lines
from dibble.plan.plan import Plan, PlannedDisk, PlannedPart, PlannedRaw, PlannedVolume

pytestmark = pytest.mark.unit

MIB = 1 << 20
SVG = "{http://www.w3.org/2000/svg}"


def part(name: str, mib: int | None, filesystem: str = "", mount: str = "") -> PlannedPart:
    return PlannedPart(name, "", None, mib * MIB if mib else None, filesystem, "", mount)


def disk(name: str, *parts: PlannedPart) -> PlannedDisk:
    return PlannedDisk(name, "gpt", 1000 * MIB, parts, estimated=False)


PLAN = Plan(
    "image",
    "amd64",
    ("vm",),
    ("vm",),
    (),
    (),
    disks=(
        disk("image0", part("boot", 1, "ext4", "/boot"), part("a", 700)),
        disk("more", part("b", 500), part("<odd> & long name", 1)),
    ),
    volumes=(
        PlannedVolume("array", "RAID 1", ("a", "b"), (part("array", 499),)),
        PlannedVolume("lvm", "LVM", ("array",), (part("root", 300, "ext4", "/"), part("home", None, "xfs", "/home"))),
    ),
)


def boxes(text: str) -> dict[str, tuple[float, float, float]]:
    """x, y and width of each named box."""
    found = {}
    for group in ElementTree.fromstring(text).iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert title.text
        assert rect is not None
        x, y, width = (float(rect.attrib[key]) for key in ("x", "y", "width"))
        found[title.text.splitlines()[0]] = (x, y, width)
    return found


def test_the_text_names_each_volume_with_its_bases_and_devices() -> None:
    text = "\n".join(lines(PLAN, Path("/")))
    assert "RAID 1 array on a, b" in text
    assert "LVM lvm on array" in text
    assert "root: 315 MB, ext4, on /" in text
    assert "home: the rest, xfs, on /home" in text
    assert text.index("disk more") < text.index("RAID 1 array") < text.index("LVM lvm")


def test_the_drawing_has_a_box_for_each_device_once_on_top_of_its_bases() -> None:
    found = boxes(svg(PLAN))
    assert set(found) == {"boot", "a", "b", "<odd> & long name", "array", "root", "home"}
    y = {name: place[1] for name, place in found.items()}
    assert y["root"] == y["home"] < y["array"] < y["b"]
    assert y["boot"] == y["a"] < y["b"], "one disk below the other"


def test_boxes_of_a_row_do_not_overlap_and_lie_within_the_drawing() -> None:
    text = svg(PLAN)
    width = float(ElementTree.fromstring(text).attrib["width"])
    places = sorted(boxes(text).values(), key=lambda place: (place[1], place[0]))
    for (x, y, w), (other_x, other_y, _) in pairwise(places):
        assert x + w <= width
        assert y != other_y or x + w <= other_x + 0.11
    found = boxes(text)
    assert found["a"][2] > found["boot"][2] >= 100, "in proportion, yet wide enough for words"


BOARD = Plan(
    *("board", "arm64", ("vm",), ("vm",), (), ()),
    disks=(
        PlannedDisk(
            *("image0", "gpt", 1000 * MIB, (part("first", 100), part("root", 800, "ext4", "/")), False),
            raws=(
                PlannedRaw("spl", "image0", "/usr/lib/u-boot/b/idbloader.img", 32 << 10),
                PlannedRaw("itb", "root", "/usr/lib/u-boot/b/u-boot.itb", 8 * MIB),
            ),
        ),
        disk("more", part("data", 100)),
    ),
)


def test_the_text_names_files_outside_of_file_systems_and_where_they_lie() -> None:
    text = "\n".join(lines(BOARD, Path("/")))
    assert "  spl: /usr/lib/u-boot/b/idbloader.img, at 33 kB, outside of file systems" in text
    assert "  itb: /usr/lib/u-boot/b/u-boot.itb, at 8.4 MB of root, outside of file systems" in text
    assert text.index("spl:") < text.index("disk more")


def test_the_drawing_has_files_outside_of_file_systems_below_their_disk() -> None:
    found = boxes(svg(BOARD))
    assert set(found) == {"first", "root", "spl", "itb", "data"}
    y = {name: place[1] for name, place in found.items()}
    assert y["root"] < y["spl"] == y["itb"] < y["data"]
    assert found["spl"][0] + found["spl"][2] <= found["itb"][0] + 0.11
