"""Times the writing of each file system beside its own mkfs, on one tree, and prints ratios and the memory taken.

    benchmarks/filesystems.py [--rounds 3] [--tree /usr] [--gib 1] [--cache ~/.cache/dibble]

The tree is copied until it has the wished size. ext4 is compared with `mke2fs -d`, btrfs with `mkfs.btrfs --rootdir`,
xfs with `mkfs.xfs -p` (which loses hard links and times), erofs and squashfs with mkfs.erofs and gensquashfs on the
directory. Programs take turns; all are those of the tools tree. Only ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.inside import with_tools  # noqa: E402

from dibble.disk.filesystems.base import Place  # noqa: E402
from dibble.disk.model import Extent, Filesystem  # noqa: E402
from dibble.events import Events  # noqa: E402
from dibble.registry import load  # noqa: E402

if TYPE_CHECKING:
    from dibble.sandbox.toolbox import Toolbox

OTHERS = {
    "ext4": "mke2fs -q -F -t ext4 -d {tree} {image}",
    "xfs": "xfs_protofile {tree} > {image}.proto && mkfs.xfs -q -f -p {image}.proto {image}",
    "btrfs": "mkfs.btrfs -q -f -K --rootdir {tree} {image}",
    "erofs": "rm {image}; mkfs.erofs --quiet {image} {tree}",
    "squashfs": "rm {image}; gensquashfs -q -k -x -c zstd -D {tree} {image}",
}


def fill(tree: Path, source: Path, size: int) -> int:
    """Copy regular files and directories of `source` until the copies have `size` bytes; return how many they have."""
    done = number = 0
    while done < size:
        for folder, _, names in os.walk(source):
            goal = tree / str(number) / Path(folder).relative_to(source)
            for name in names:
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink() and " " not in str(path) and done < size:
                    goal.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, goal / name)
                    done += path.stat().st_size
        number += 1
    return done


def measure(arguments: argparse.Namespace) -> None:
    def work(toolbox: Toolbox, directory: Path) -> str:
        tree = directory / "tree"
        tree.mkdir()
        size = fill(tree, Path(arguments.tree), int(arguments.gib * (1 << 30)))
        room = -(-size * 2 >> 20) + 512 << 20
        times: dict[tuple[str, str], list[float]] = {}
        memory: dict[str, int] = {}
        for number in range(arguments.rounds):
            for kind, other in OTHERS.items():
                turns = ["dibble", "own"] if number % 2 else ["own", "dibble"]
                for who in turns:
                    image = directory / "image"
                    with image.open("wb") as file:
                        file.truncate(room)
                    began = time.monotonic()
                    if who == "own":
                        line = other.format(tree=toolbox.path(tree), image=toolbox.path(image))
                        toolbox.run(["sh", "-ec", line])
                    else:
                        label = "" if kind == "squashfs" else "bench"
                        node = Filesystem("bench", "image0", kind, label, UUID(int=1))
                        place = Place(image, Extent("image0", 0, room), tree, toolbox, Events(), int(time.time()))
                        load("filesystems", kind)().write(node, place)
                        memory[kind] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                    times.setdefault((kind, who), []).append(time.monotonic() - began)
                    image.unlink()
        lines = [f"{size / (1 << 30):.2f} GiB"]
        for kind in OTHERS:
            ours, own = (statistics.median(times[kind, who]) for who in ("dibble", "own"))
            lines.append(f"{kind:9} {ours:6.2f} s  own mkfs {own:6.2f} s  x{ours / own:.2f}  {memory[kind] >> 10} MiB")
        return "\n".join(lines)

    print(with_tools(Path(arguments.cache), work, "filesystems"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tree", default="/usr")
    parser.add_argument("--gib", type=float, default=1)
    parser.add_argument("--cache", default=str(Path.home() / ".cache" / "dibble"))
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
