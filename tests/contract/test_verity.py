"""dm-verity's hashes are written as veritysetup reads and verifies them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.contract.written_disks import DEFAULTS, EPOCH, MIB, cut, partitions, same_as_root, tree
from tests.inside import with_tools

from dibble.disk.graph import parse
from dibble.disk.layout import layout_of
from dibble.disk.model import ContentSize
from dibble.disk.write import write_disk
from dibble.events import Event, Events, Note

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract

FILE_SYSTEM = "mkfs: {name: fs, type: ext4, mount: {mount_point: /}}"
LAYOUTS = {
    "on partitions": partitions(data="90%", tree="100%")
    + f"- verity: {{name: sealed, base: data, hashes: tree, {FILE_SYSTEM}}}\n",
    "with hashes for a part only": partitions(data="190MiB", tree="1MiB")
    + f"- verity: {{name: sealed, base: data, hashes: tree, {FILE_SYSTEM}}}\n",
}


class Notes:
    """What a build says."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, Note):
            self.texts.append(event.text)

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_veritysetup_finds_every_block_as_its_root_hash_says(test_cache: Path, name: str) -> None:
    def work(toolbox: Toolbox, directory: Path) -> None:
        graph = parse(LAYOUTS[name], source="disk.yaml", defaults=DEFAULTS)
        layout = layout_of(graph, ContentSize({"/": 20 * MIB}, {"/": 100}), DEFAULTS)
        notes = Notes()
        root, place = tree(directory), directory / "disk-0"
        place.mkdir()
        disk = write_disk(layout, root, place, toolbox, Events([notes]), epoch=EPOCH)
        (note,) = notes.texts
        hash_of_root = note.split()[-1]
        data, hashes = cut(disk, "data"), cut(disk, "tree")
        size = layout.extents["sealed"].size
        argv = ["veritysetup", "verify", toolbox.path(data), toolbox.path(hashes)]
        toolbox.run([*argv, hash_of_root])
        said = toolbox.run(["veritysetup", "dump", toolbox.path(hashes)]).output
        told = {line.split(":")[0]: line.partition(":")[2].strip() for line in said.splitlines()}
        assert told["Data blocks"].split()[0] == str(size // 4096)
        assert told["Hash algorithm"] == "sha256"
        wrong = hash_of_root.translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
        assert toolbox.run([*argv, wrong], check=False).status != 0
        with data.open("r+b") as file:  # one bit of the last block that counts
            file.seek(size - 1)
            byte = file.read(1)
            file.seek(size - 1)
            file.write(bytes([byte[0] ^ 1]))
        assert toolbox.run([*argv, hash_of_root], check=False).status != 0
        assert same_as_root(toolbox, root, cut(disk, "sealed"))

    with_tools(test_cache, work, "volumes")
