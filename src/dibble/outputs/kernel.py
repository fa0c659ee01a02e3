"""The finished tree's newest kernel and its initramfs beside the image, for machines and emulators that start a kernel
without a boot loader. They are called as the element `baremetal` of diskimage-builder calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dibble.boot.kernels import kernels
from dibble.errors import OutputError
from dibble.outputs.base import OutputInfo
from dibble.store.sparse import copy_sparse

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.boot.kernels import Kernel
    from dibble.outputs.base import Writing


class Vmlinuz:
    """`N.vmlinuz`."""

    info: ClassVar[OutputInfo] = OutputInfo(suffix="vmlinuz", reads="tree", summary="the newest kernel of the tree")

    def write(self, writing: Writing) -> None:
        copy_sparse(self._file(_newest(writing.root)), writing.target_file)

    def _file(self, kernel: Kernel) -> Path:
        return kernel.image


class Initrd(Vmlinuz):
    """`N.initrd`."""

    info = OutputInfo(suffix="initrd", reads="tree", summary="the initramfs of that kernel")

    def _file(self, kernel: Kernel) -> Path:
        assert kernel.initrd is not None
        return kernel.initrd


def _newest(root: Path) -> Kernel:
    """The newest kernel that has an initramfs, as the element `baremetal` takes it. Raises OutputError."""
    found = next((kernel for kernel in kernels(root) if kernel.initrd is not None), None)
    if found is None:
        raise OutputError(
            "the image has no kernel with an initramfs in /boot",
            hint="add the distribution's kernel package (-p linux-image-amd64), or an element that has it",
        )
    return found
