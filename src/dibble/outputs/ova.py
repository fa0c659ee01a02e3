"""A virtual machine in one file: descriptor, checksums and disks in a tar (OVF 1.1, DMTF DSP0243, 5.4).

The disks are streamOptimized VMDKs, compressed straight into the archive. What comes before them tells their sizes and
digests, so it is written last; room for it is known before, since line ends fill the descriptor up.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dibble.disk.tables.gpt_types import type_guid
from dibble.errors import OutputError
from dibble.outputs.base import OutputInfo
from dibble.outputs.ovf import DiskFile, descriptor
from dibble.outputs.vmdk_file import append_vmdk
from dibble.recipe.model import Machine
from dibble.store.sparse import write_at

if TYPE_CHECKING:
    from dibble.disk.model import Graph
    from dibble.outputs.base import Writing
    from dibble.recipe.model import Request

_BLOCK = tarfile.BLOCKSIZE
_DESCRIPTOR, _EACH_DISK = 16 << 10, 2 << 10  # bytes kept for the descriptor, more than it ever takes
_READ = 4 << 20
_ESP, _BIOS_BOOT = type_guid("EF00"), type_guid("EF02")


class Ova:
    """`N.ova`, with all disks of the image."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="ova",
        reads="disk",
        summary="a virtual machine for VMware and VirtualBox: OVF and compressed disks",
        holds_all_disks=True,
        depends_on=lambda request: (_name(request), repr(_machine(request))),
    )

    def write(self, writing: Writing) -> None:
        name = _name(writing.request)
        images = {writing.image: writing.disk_file, **writing.disk.images}
        room = _DESCRIPTOR + _EACH_DISK * len(images)
        files = [f"{name}.ovf", *(f"{name}-disk{number + 1}.vmdk" for number in range(len(images)))]
        manifest_size = len(_manifest(dict.fromkeys(files, "0" * 64)))
        end = _BLOCK + room + _BLOCK + _whole(manifest_size)
        sink = os.open(writing.target_file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            disks, digests = [], {}
            with writing.events.activity("ova") as activity:
                for file, raw in zip(files[1:], images.values(), strict=True):
                    size, populated = append_vmdk(raw, sink, end + _BLOCK, activity)
                    write_at(sink, _header(file, size, writing.epoch), end)
                    digests[file] = _digest(sink, end + _BLOCK, size)
                    disks.append(DiskFile(file, size, _capacity(raw), populated))
                    end += _BLOCK + _whole(size)
            firmware = _firmware(writing.disk.layout.graph, writing.request.arch)
            text = descriptor(name, disks, _machine(writing.request), writing.request.arch, firmware).ljust(room, b"\n")
            if len(text) > room:
                raise OutputError(f"the descriptor of {name}.ova is too long", hint="give a shorter name with -o")
            digests = {files[0]: hashlib.sha256(text).hexdigest(), **digests}
            write_at(sink, _header(files[0], room, writing.epoch) + text, 0)
            manifest = _manifest(digests)
            write_at(sink, _header(f"{name}.mf", len(manifest), writing.epoch) + manifest, _BLOCK + room)
            os.ftruncate(sink, end + 2 * _BLOCK)  # two blocks of zeros end an archive
        finally:
            os.close(sink)


def _name(request: Request) -> str:
    """What the machine and the files in the archive are called: words that every reader takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(request.name).name)[:80].strip("-.") or "image"


def _machine(request: Request) -> Machine:
    return request.target.machine if request.target else Machine()


def _firmware(graph: Graph, arch: str) -> str:
    """UEFI for disks that have nothing for a BIOS to start."""
    types = {type_guid(part.type) for table in graph.tables if table.label == "gpt" for part in table.partitions}
    return "efi" if arch == "arm64" or (_ESP in types and _BIOS_BOOT not in types) else "bios"


def _capacity(raw: Path) -> int:
    """The size of the disk, in whole sectors as `append_vmdk` writes it."""
    size = raw.stat().st_size
    return size + -size % 512


def _manifest(digests: dict[str, str]) -> bytes:
    return "".join(f"SHA256({file})= {digest}\n" for file, digest in digests.items()).encode()


def _header(name: str, size: int, epoch: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, epoch, 0o644
    # The specification asks for ustar, whose sizes end at 8 GiB; GNU's longer ones are what readers know beyond.
    return info.tobuf(tarfile.USTAR_FORMAT if size < 8**11 else tarfile.GNU_FORMAT)


def _whole(size: int) -> int:
    return size + -size % _BLOCK


def _digest(descriptor: int, start: int, size: int) -> str:
    """Read again, because the head of a disk is written last."""
    found = hashlib.sha256()
    position, end = start, start + size
    while position < end:
        data = os.pread(descriptor, min(_READ, end - position), position)
        if not data:
            raise OutputError("the archive became shorter while it was written", hint="build again")
        found.update(data)
        position += len(data)
    return found.hexdigest()
