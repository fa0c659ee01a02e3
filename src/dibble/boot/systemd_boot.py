"""systemd-boot, with each kernel as a unified kernel image (UKI) on the EFI system partition.

A UKI is one PE file of kernel, initramfs, command line and os-release behind systemd's stub (the UAPI group's
specification "Unified Kernel Image"). systemd-boot offers what it finds in `EFI/Linux` by itself, the newest first
(the "Boot Loader Specification", type 2), so nothing has to list them. Stub and loader are the tree's own where it has
them, and the tools' otherwise.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from dibble.boot.base import EFI_LOADERS, NoCode, esp_directory, esp_point, filesystem_of
from dibble.boot.kernels import COMMAND_LINE, kernels
from dibble.boot.verity_root import NO_HASH, sealed_line, verity_root
from dibble.disk.write import Last
from dibble.errors import DiskLayoutError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.boot.base import BootSetup
    from dibble.boot.kernels import Kernel
    from dibble.disk.model import Layout
    from dibble.disk.volumes.verity import Verity

_EFI_NAMES = {"amd64": "x64", "arm64": "aa64", "i386": "ia32", "armhf": "arm", "riscv64": "riscv64"}
_PARTS = "usr/lib/systemd/boot/efi"
_MENU_SECONDS = 3  # systemd-boot's own default is not to show a menu; a key held down shows it all the same


class SystemdBoot:
    """`BootLoader` for a tree with a kernel and the command line for it."""

    tools: tuple[str, ...] = ("uki",)

    def is_set_up(self, root: Path) -> bool:
        return (root / COMMAND_LINE).is_file() and bool(kernels(root))

    def install(self, setup: BootSetup) -> NoCode | SealedCode:
        """Put the loader under the name that firmware starts by itself, and a UKI of each kernel in `EFI/Linux`.

        Of a root on verity, their command lines say the root hash: then UKIs with a hash of zeros, and not signed, hold
        the place of what is made when the root is written. Raises DiskLayoutError for a layout without an EFI system
        partition, or an architecture that has no EFI.
        """
        esp = esp_directory(setup.graph, setup.root)
        if esp is None:
            raise DiskLayoutError(
                "systemd-boot needs an EFI system partition that is mounted in the tree, and the layout has none",
                hint="add the element block-device-efi, or unset DIB_BOOTLOADER",
            )
        if setup.arch not in _EFI_NAMES:
            raise DiskLayoutError(
                f"there is no systemd-boot for {setup.arch}", hint=f"it is there for {', '.join(_EFI_NAMES)}"
            )
        name = _EFI_NAMES[setup.arch]
        maker = _Maker(setup, name, _part(setup, f"linux{name}.efi.stub"), _os_release(setup))
        loader = _signed(setup, _part(setup, f"systemd-boot{name}.efi").read_bytes())
        setup.put(esp / "EFI" / "BOOT" / EFI_LOADERS[setup.arch], loader)
        setup.put(esp / "EFI" / "systemd" / f"systemd-boot{name}.efi", loader)
        if not (esp / "loader/loader.conf").exists():
            setup.put(esp / "loader/loader.conf", f"timeout {_MENU_SECONDS}\n".encode())
        root = filesystem_of(setup.graph, "/")
        verity = verity_root(setup.graph, root) if root else None
        line = " ".join((setup.root / COMMAND_LINE).read_text("utf-8").split())
        for kernel in kernels(setup.root):
            if verity is None:
                image = _signed(setup, maker.image_of(kernel, line))
            else:
                image = maker.image_of(kernel, sealed_line(line, verity, NO_HASH, setup.graph, UUID(int=0)))
            setup.put(esp / maker.name_of(kernel), image)
        setup.clamp([*esp.rglob("*"), esp])
        return NoCode() if verity is None else SealedCode(_last(maker, line, verity))


@dataclass(frozen=True, slots=True)
class SealedCode:
    """UKIs that hold the root hash of the root."""

    last: Last

    def write(self, layout: Layout, image: Path) -> None:
        """All is in the file systems."""


def _last(maker: _Maker, line: str, verity: Verity) -> Last:
    setup = maker.setup
    esp = filesystem_of(setup.graph, esp_point(setup.graph))
    if esp is not None and setup.graph.volumes_below(esp.base):
        raise DiskLayoutError(
            "the EFI system partition stands on a volume, and the root's hash cannot be put into it",
            hint=f'make "{esp.base}" a partition',
            where=esp.where,
        )

    def files(layout: Layout, root_hashes: Mapping[str, bytes]) -> dict[str, bytes]:
        sealed = sealed_line(line, verity, root_hashes[verity.name], layout.graph, layout.seed)
        images = {maker.name_of(kernel): maker.image_of(kernel, sealed) for kernel in kernels(setup.root)}
        return {name: _signed(setup, image) for name, image in images.items()}

    return Last(esp_point(setup.graph), files)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes UKIs of one tree."""

    setup: BootSetup
    efi_name: str
    stub: Path
    os_release: str

    @property
    def system(self) -> str:
        """The system's ID, such as `debian` (os-release(5))."""
        for line in self.os_release.splitlines():
            if line.startswith("ID="):
                return line[3:].strip("\"'") or "linux"
        return "linux"

    def name_of(self, kernel: Kernel) -> str:
        """Its path on the EFI system partition."""
        return f"EFI/Linux/{self.system}-{kernel.release}.efi"

    def image_of(self, kernel: Kernel, line: str) -> bytes:
        """The UKI of a kernel with a command line: the same bytes for the same tree."""
        setup, see = self.setup, self.setup.toolbox.path
        if kernel.initrd is None:
            setup.events.note(f"{kernel.image.name} has no initramfs, without which it finds no root", "warning")
        parts = {"cmdline": setup.work / "cmdline", "os-release": setup.work / "os-release"}
        parts["cmdline"].write_text(line, "utf-8")
        parts["os-release"].write_text(self.os_release, "utf-8")
        result = setup.work / "linux.efi"
        argv = ["ukify", "build", "--efi-arch", self.efi_name, "--stub", see(self.stub), "--uname", kernel.release]
        argv += [word for name, path in parts.items() for word in (f"--{name}", f"@{see(path)}")]
        argv += ["--linux", see(self._program(kernel)), "--output", see(result)]
        if kernel.initrd is not None:
            argv += ["--initrd", see(kernel.initrd)]
        setup.toolbox.run(argv)
        content = result.read_bytes()
        result.unlink()
        return content

    def _program(self, kernel: Kernel) -> Path:
        """The kernel as a PE file, which the stub starts; on arm64 some distributions compress it."""
        with kernel.image.open("rb") as file:
            magic = file.read(2)
        if magic != b"\x1f\x8b":
            return kernel.image
        plain = self.setup.work / "linux"
        plain.write_bytes(gzip.decompress(kernel.image.read_bytes()))
        return plain


def _signed(setup: BootSetup, program: bytes) -> bytes:
    return setup.signing.signed(program, setup) if setup.signing else program


def _part(setup: BootSetup, name: str) -> Path:
    """A file of systemd-boot: the tree's own, or that of the tools. Raises DiskLayoutError where neither has it."""
    for base in (setup.root, setup.toolbox.root or Path("/")):
        if (base / _PARTS / name).is_file():
            return base / _PARTS / name
    raise DiskLayoutError(
        f"neither the image nor the tools have systemd-boot's {name}",
        hint="install the distribution's package with it into the image (Debian: systemd-boot-efi)",
    )


def _os_release(setup: BootSetup) -> str:
    for name in ("usr/lib/os-release", "etc/os-release"):
        path = setup.root / name
        if path.is_file() and not path.is_symlink():
            return path.read_text("utf-8")
    return "ID=linux\n"
