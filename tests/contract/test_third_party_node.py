"""An installed package adds a kind of node to block-device descriptions: a volume behind a header of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from tests.inside import with_tools

import dibble
from dibble.disk.graph import parse
from dibble.disk.layout import layout_of
from dibble.disk.model import ContentSize, Defaults
from dibble.disk.system_files import system_files
from dibble.disk.write import write_disk
from dibble.events import Events

if TYPE_CHECKING:
    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract

MIB = 1 << 20
SOURCE = Path(dibble.__file__).parents[1]
DEFAULTS = Defaults(UUID("99999999-8888-7777-6666-555555555555"), journal_mib=4)
DESCRIPTION = """\
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions: [{name: part, size: 100%}]
- headed:
    name: inner
    base: part
    words: hello from outside
    mkfs: {type: ext4, mount: {mount_point: /}}
"""
MODULE = '''\
"""A device that begins 64 KiB into another one, behind a header with some words."""

from dataclasses import dataclass, field

from dibble.disk.nodes.base import NodeInfo
from dibble.disk.volumes.base import Placed, System
from dibble.disk.volumes.sparse import write_into
from dibble.errors import Where

HEADER = 64 << 10


@dataclass(frozen=True)
class Headed:
    name: str
    base: str
    words: str
    where: Where = field(compare=False, repr=False)

    kind = "headed"
    grub_modules = None
    system = System("headed-find", "headed", ("/etc/headed.conf",), "find all")

    @property
    def bases(self):
        return (self.base,)

    @property
    def devices(self):
        return (self.name,)

    def needed(self, wanted, fixed):
        return {self.base: HEADER + wanted.get(self.name, 0)}

    def place(self, sizes):
        return {self.name: Placed(sizes[self.base] - HEADER, self.base, HEADER)}

    def write(self, place):
        write_into(place.regions[self.base], 0, b"HEADED\\0" + self.words.encode())

    def path_of(self, device):
        return f"/dev/headed/{device}"


class HeadedNode:
    info = NodeInfo("headed", level=1, keys=("words",))

    @staticmethod
    def parse(entry, context):
        words = entry.needed("words", "a greeting")
        if len(words) > 100:
            entry.refuse("has too many words", "be brief", "words")
        return Headed(entry.name, context.device(entry), words, entry.where)
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory as pip would leave it, with the package in it."""
    place = tmp_path / "site"
    info = place / "headed-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: headed\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[dibble.disk_nodes]\nheaded = headed:HeadedNode\n")
    (place / "headed.py").write_text(MODULE)
    return place


def test_its_node_is_read_laid_out_and_written(site: Path, test_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    graph = parse(DESCRIPTION, source="disk.yaml", defaults=DEFAULTS)
    layout = layout_of(graph, ContentSize({"/": 5 * MIB}, {"/": 10}), DEFAULTS)
    part, inner = layout.extents["part"], layout.extents["inner"]
    assert (inner.image, inner.offset, inner.size) == ("image0", part.offset + (64 << 10), part.size - (64 << 10))
    found = system_files(graph)
    assert [(file.name, file.lines) for file in found.files] == [("headed.conf", ("find all",))]
    assert found.programs == {"headed-find": "headed"}

    def work(toolbox: Toolbox, directory: Path) -> None:
        root = directory / "root"
        root.mkdir()
        (root / "note").write_text("here\n")
        place = directory / "disk"
        place.mkdir()
        raw = write_disk(layout, root, place, toolbox, Events(), epoch=1_700_000_000).images["image0"].read_bytes()
        assert raw[part.offset :].startswith(b"HEADED\0hello from outside\0")
        alone = directory / "inner"
        alone.write_bytes(raw[inner.offset : inner.offset + inner.size])
        toolbox.run(["e2fsck", "-f", "-n", toolbox.path(alone)])
        assert "here" in toolbox.run(["debugfs", "-R", "cat /note", toolbox.path(alone)]).output

    with_tools(test_cache, work)


def planned(site: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What `dibble plan` says of a description, with the package beside it."""
    description = site.parent / "disk.yaml"
    description.write_text(text)
    element = site.parent / "elements" / "empty"
    element.mkdir(parents=True, exist_ok=True)
    (element / "element-provides").write_text("operating-system\n")
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SOURCE), str(site)]),
        "ELEMENTS_PATH": str(element.parent),
        "DIB_IMAGE_CACHE": str(site.parent / "cache"),
        "DIB_BLOCK_DEVICE_CONFIG": description.as_uri(),
    }
    argv = [sys.executable, "-m", "dibble", "plan", "--no-resolve", "-n", "-o", "image", *words, "empty"]
    return subprocess.run(argv, cwd=site.parent, env=env, capture_output=True, text=True, check=False)


def test_a_plan_shows_what_the_node_makes(site: Path) -> None:
    done = planned(site, DESCRIPTION, "--json")
    assert done.returncode == 0, done.stderr
    (volume,) = json.loads(done.stdout)["volumes"]
    assert (volume["kind"], volume["name"], volume["bases"]) == ("headed", "inner", ["part"])
    assert [(part["name"], part["filesystem"], part["mount"]) for part in volume["parts"]] == [("inner", "ext4", "/")]


def test_its_mistakes_are_told_like_our_own(site: Path) -> None:
    done = planned(site, DESCRIPTION.replace("hello from outside", "word " * 50))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert 'headed "inner" has too many words' in done.stderr
    assert "disk.yaml:9" in done.stderr
    assert "be brief" in done.stderr
