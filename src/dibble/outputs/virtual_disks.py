"""The disk formats that hypervisors read besides qcow2: written by ourselves, by qemu-img when the user has options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dibble.outputs.base import OutputInfo
from dibble.outputs.qemu_img import convert, options_of
from dibble.outputs.vdi_file import write_vdi
from dibble.outputs.vhd_file import write_dynamic, write_fixed
from dibble.outputs.vhdx_file import write_vhdx
from dibble.outputs.vmdk_file import write_vmdk

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from dibble.events import RunningActivity
    from dibble.outputs.base import Writing


def _info(suffix: str, summary: str) -> OutputInfo:
    return OutputInfo(
        suffix=suffix, reads="disk", summary=summary, depends_on=lambda request: (request.qemu_img_options,)
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """One file to write; `options` are those of qemu-img that the user gave."""

    raw: Path
    target: Path
    seed: UUID
    options: dict[str, str]
    epoch: int
    activity: RunningActivity


class _DiskFormat(ABC):
    """What these formats have in common. `_name` is qemu-img's; a writer of ours says which options it knows."""

    info: ClassVar[OutputInfo]
    _name: ClassVar[str]

    def write(self, writing: Writing) -> None:
        options = options_of(writing.request)
        raw = writing.disk_file
        with writing.events.activity(self.info.suffix) as activity:
            if self._knows(options):
                self._write(_Work(raw, writing.target_file, writing.disk.layout.seed, options, writing.epoch, activity))
            else:
                convert(raw, writing.target_file, self._name, writing.request, writing.toolbox)

    def _knows(self, options: dict[str, str]) -> bool:
        return not options

    @abstractmethod
    def _write(self, work: _Work) -> None: ...


class Vmdk(_DiskFormat):
    """`N.vmdk`."""

    info = _info("vmdk", "the disk for VMware, compressed (streamOptimized)")
    _name = "vmdk"

    def _write(self, work: _Work) -> None:
        write_vmdk(work.raw, work.target, work.activity)


class Vhd(_DiskFormat):
    """`N.vhd`: of fixed size, as Azure wants it; growing with `--qemu-img-options subformat=dynamic`."""

    info = _info("vhd", "the disk for Azure and older Hyper-V, of fixed size")
    _name = "vpc"

    def _knows(self, options: dict[str, str]) -> bool:
        # Ours always has the size of the disk, which is what force_size asks of qemu-img.
        return not options.keys() - {"subformat", "force_size"} and options.get("subformat", "fixed") in _SUBFORMATS

    def _write(self, work: _Work) -> None:
        write = _SUBFORMATS[work.options.get("subformat", "fixed")]
        write(work.raw, work.target, work.seed, epoch=work.epoch, activity=work.activity)


_SUBFORMATS = {"fixed": write_fixed, "dynamic": write_dynamic}


class Vhdx(_DiskFormat):
    """`N.vhdx`."""

    info = _info("vhdx", "the disk for Hyper-V, growing")
    _name = "vhdx"

    def _write(self, work: _Work) -> None:
        write_vhdx(work.raw, work.target, work.seed, work.activity)


class Vdi(_DiskFormat):
    """`N.vdi`."""

    info = _info("vdi", "the disk for VirtualBox, growing")
    _name = "vdi"

    def _write(self, work: _Work) -> None:
        write_vdi(work.raw, work.target, work.seed, work.activity)
