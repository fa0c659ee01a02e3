"""Times outputs of one tree beside the programs that one would call instead, and several formats beside one.

    benchmarks/formats.py [--rounds 3] [--tree /usr] [--gib 1] [--formats qcow2,vmdk] [--cache ~/.cache/dibble]

Disks are compared with `mke2fs -d` and `qemu-img convert` of its result to the same kind of image, compressed where
ours is; formats of the tree with tar and zstd, gensquashfs and mkfs.erofs. Each of ours is a whole run of what a build
does at its end, partition table and layout too, in a process of its own, whose memory is told with that of the greatest
program it runs. Programs take turns; all are those of the tools tree. Only ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.filesystems import fill  # noqa: E402
from tests.inside import with_tools  # noqa: E402
from tests.unit.output_values import EPOCH, request  # noqa: E402

from dibble.disk.graph import parse  # noqa: E402
from dibble.disk.layout import layout_of  # noqa: E402
from dibble.disk.model import Defaults  # noqa: E402
from dibble.disk.write import write_disk  # noqa: E402
from dibble.events import Events  # noqa: E402
from dibble.outputs.base import Source  # noqa: E402
from dibble.outputs.run import write_outputs  # noqa: E402
from dibble.tree.walk import content_size  # noqa: E402

if TYPE_CHECKING:
    from dibble.disk.model import Disk
    from dibble.outputs.run import Begun
    from dibble.sandbox.toolbox import Toolbox

DISK = """\
- local_loop: {name: image0}
- partitioning: {base: image0, label: mbr, partitions: [{name: root, size: 100%, flags: [boot, primary]}]}
- mkfs: {base: root, name: mkfs_root, type: ext4, label: root, mount: {mount_point: /}}
"""
MKE2FS = "mke2fs -q -F -t ext4 -d {tree} {out}.disk"
CONVERT = MKE2FS + " && qemu-img convert -f raw -O "
OTHERS = {
    "raw": MKE2FS,
    "qcow2": CONVERT + "qcow2 -c -o compression_type=zstd {out}.disk {out}",
    "vmdk": CONVERT + "vmdk -o subformat=streamOptimized {out}.disk {out}",
    "vhd": CONVERT + "vpc -o subformat=fixed,force_size=on {out}.disk {out}",
    "vhdx": CONVERT + "vhdx {out}.disk {out}",
    "vdi": CONVERT + "vdi {out}.disk {out}",
    "tar": "tar -C {tree} --format=posix --xattrs --acls --sort=name -cf {out} .",
    "tar.zst": "tar -C {tree} --format=posix --xattrs --acls --sort=name -cf - . | zstd -q -9 -T0 -o {out}",
    "squashfs": "gensquashfs -q -k -x -c zstd -D {tree} {out}",
    "erofs": "mkfs.erofs --quiet -zzstd,level=9 -C65536 {out} {tree}",
}
TOGETHER = ("raw,qcow2,vmdk", "qcow2,vmdk,tar.zst")


def ours(formats: tuple[str, ...], tree: Path, place: Path, toolbox: Toolbox) -> int:
    """Write the formats in a process of its own; returns the KiB that it or a program of its took at most."""
    child = os.fork()
    if not child:
        defaults = Defaults(UUID(int=1))
        graph = parse(DISK, source="disk", defaults=defaults)

        def make_disk(begun: Begun, events: Events) -> Disk:
            layout = layout_of(graph, content_size(tree, ["/"]), defaults)
            return write_disk(layout, tree, place, toolbox, events, begun, epoch=EPOCH)

        wanted = request(place, outputs=formats)
        write_outputs(Source(tree, None, work=place), wanted, toolbox, Events(), epoch=EPOCH, make_disk=make_disk)
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{formats} ended with {status}")
    return usage.ru_maxrss


def measure(arguments: argparse.Namespace) -> None:
    formats = arguments.formats.split(",") if arguments.formats else list(OTHERS)
    together = [group for group in TOGETHER if set(group.split(",")) <= set(formats)]

    def work(toolbox: Toolbox, directory: Path) -> str:
        tree = directory / "tree"
        tree.mkdir()
        size = fill(tree, Path(arguments.tree), int(arguments.gib * (1 << 30)))
        times: dict[tuple[str, str], list[float]] = {}
        memory: dict[str, int] = {}
        turns = [(who, name) for name in formats for who in ("ours", "other")] + [("ours", name) for name in together]
        for number in range(arguments.rounds):
            for who, name in turns if number % 2 else turns[::-1]:
                place = directory / "place"
                place.mkdir()
                with (place / "out.disk").open("wb") as file:
                    file.truncate(-(-size * 3 // 2 >> 20) + 256 << 20)
                began = time.monotonic()
                if who == "other":
                    line = OTHERS[name].format(tree=toolbox.path(tree), out=toolbox.path(place / "out"))
                    toolbox.run(["sh", "-ec", line])
                else:
                    memory[name] = max(ours(tuple(name.split(",")), tree, place, toolbox), memory.get(name, 0))
                times.setdefault((who, name), []).append(time.monotonic() - began)
                print(number, who, name, f"{times[who, name][-1]:.1f}", file=sys.stderr, flush=True)
                shutil.rmtree(place)
        median = {key: statistics.median(values) for key, values in times.items()}
        lines = [f"{size / (1 << 30):.2f} GiB, {arguments.rounds} rounds"]
        for name in formats:
            one, other = median["ours", name], median["other", name]
            lines.append(f"| {name} | {one:.1f} | {other:.1f} | {one / other:.2f}x | {memory[name] >> 10} |")
        for group in together:
            slowest = max(median["ours", name] for name in group.split(","))
            one = median["ours", group]
            lines.append(f"| {group} | {one:.1f} | {slowest:.1f} | {one / slowest:.2f}x | {memory[group] >> 10} |")
        return "\n".join(lines)

    print(with_tools(Path(arguments.cache), work, "filesystems"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tree", default="/usr")
    parser.add_argument("--gib", type=float, default=1)
    parser.add_argument("--formats", default="", help="default: all")
    parser.add_argument("--cache", default=str(Path.home() / ".cache" / "dibble"))
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
