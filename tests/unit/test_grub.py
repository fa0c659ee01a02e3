"""Where GRUB's parts go: files of the tree, the boot sector, and the space for its core image."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from dibble.boot import grub
from dibble.boot.base import BootSetup, boot_image, esp_directory, filesystem_of
from dibble.boot.grub import Grub, GrubCode
from dibble.disk.layout import layout_of
from dibble.disk.model import ContentSize, Defaults, Filesystem, Graph, Image, Mount, Partition, Subvolume, Table
from dibble.errors import DiskLayoutError
from dibble.events import Events

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dibble.sandbox.process import Completed

pytestmark = pytest.mark.unit

MIB = 1 << 20
SEED = UUID("0d1bb1e0-1234-5678-9abc-def012345678")
EPOCH = 1_700_000_000
CONTENT = ContentSize({"/": 100 * MIB}, {"/": 100})

ESP = Partition("ESP", 1, "EF00", 64 * MIB)
BSP = Partition("BSP", 2, "EF02", 8 * MIB)
ROOT = Partition("root", 3, "8300", None, percent=100)
FILESYSTEMS = (Filesystem("mkfs_root", "root", "ext4", "rootfs", SEED), Filesystem("esp", "ESP", "vfat", "ESP", SEED))
MOUNTS = (Mount("m1", "mkfs_root", "/"), Mount("m2", "esp", "/boot/efi"))


def gpt(*partitions: Partition) -> Graph:
    names = {partition.name for partition in partitions}
    filesystems = tuple(one for one in FILESYSTEMS if one.base in names)
    mounts = tuple(one for one in MOUNTS if one.base in {filesystem.name for filesystem in filesystems})
    table = Table("table", "image0", "gpt", partitions)
    return Graph((Image("image0", None),), (table,), filesystems, mounts, ())


def mbr(size: int | None = None) -> Graph:
    root = Partition("root", 1, "0x83", size, percent=None if size else 100, primary=True)
    table = Table("table", "image0", "mbr", (root,))
    return Graph((Image("image0", None),), (table,), FILESYSTEMS[:1], MOUNTS[:1], ())


class FakeMkimage:
    """Stands for the tools: writes what it was asked for as the image."""

    identity = "fake"

    def __init__(self, root: Path) -> None:
        self.root: Path | None = root
        self.calls: list[list[str]] = []

    def path(self, path: Path) -> str:
        return str(path)

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        from pathlib import Path

        from dibble.sandbox.process import Completed

        words = list(argv)
        self.calls.append(words)
        early = Path(words[words.index("-c") + 1]).read_text()
        Path(words[words.index("-o") + 1]).write_text(early)
        return Completed(tuple(words), 0, "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "boot/grub").mkdir(parents=True)
    (root / "boot/grub/grub.cfg").write_text("menuentry\n")
    for form in ("i386-pc", "x86_64-efi"):
        modules = root / "usr/lib/grub" / form
        modules.mkdir(parents=True)
        for name in ("kernel.img", "normal.mod", "ext2.mod", "moddep.lst", "config.h", "boot.img"):
            (modules / name).write_bytes(name.encode().ljust(512, b"\1"))
    return root


def install(graph: Graph, root: Path, arch: str = "amd64") -> tuple[GrubCode, FakeMkimage]:
    work = root.parent / "work"
    work.mkdir(exist_ok=True)
    tools = FakeMkimage(root.parent)
    setup = BootSetup(graph, root, arch, work, tools, Events(), EPOCH)  # type: ignore[arg-type]
    return Grub().install(setup), tools


def test_a_tree_without_a_menu_gets_nothing(root: Path) -> None:
    (root / "boot/grub/grub.cfg").unlink()
    assert Grub().is_set_up(root) is False
    assert install(mbr(), root)[0] == GrubCode()


def test_bios_gets_modules_and_a_core_image_that_finds_its_file_system(root: Path) -> None:
    files, _ = install(mbr(), root)
    assert f"search.fs_uuid {SEED} root" in files.core.decode()
    assert "set prefix=($root)/boot/grub" in files.core.decode()
    present = {path.name for path in (root / "boot/grub/i386-pc").iterdir()}
    assert present == {"normal.mod", "ext2.mod", "moddep.lst", "boot.img", "core.img"}
    assert not (root / "boot/efi").exists()
    for path in (root / "boot/grub", root / "boot/grub/i386-pc/normal.mod"):
        assert path.stat().st_mtime == EPOCH


def test_an_esp_gets_the_loader_that_firmware_starts_and_one_beside_each_vendors_menu(root: Path) -> None:
    (root / "boot/efi/EFI/debian").mkdir(parents=True)
    (root / "boot/efi/EFI/debian/grub.cfg").write_text("configfile\n")
    files, tools = install(gpt(ESP, BSP, ROOT), root)
    assert files.core, "the BIOS boot partition makes it start by BIOS too"
    assert (root / "boot/efi/EFI/BOOT/BOOTX64.EFI").read_bytes() == (
        root / "boot/efi/EFI/debian/grubx64.efi"
    ).read_bytes()
    assert [call[call.index("-O") + 1] for call in tools.calls] == ["i386-pc", "x86_64-efi"]


def test_without_a_bios_boot_partition_a_gpt_disk_starts_by_uefi_only(root: Path) -> None:
    files, _ = install(gpt(ESP, ROOT), root)
    assert files == GrubCode()
    assert (root / "boot/efi/EFI/BOOT/BOOTX64.EFI").exists()


def test_a_separate_boot_file_system_has_another_prefix(root: Path) -> None:
    graph = gpt(BSP, ROOT)
    boot = Filesystem("mkfs_boot", "boot", "ext4", "boot", UUID(int=7))
    graph = dataclasses.replace(
        graph, filesystems=(*graph.filesystems, boot), mounts=(*graph.mounts, Mount("m", "mkfs_boot", "/boot"))
    )
    core = install(graph, root)[0].core.decode()
    assert f"search.fs_uuid {UUID(int=7)} root" in core
    assert "set prefix=($root)/grub" in core


def test_grub_that_is_nowhere_is_told(root: Path) -> None:
    (root / "usr/lib/grub/i386-pc/kernel.img").unlink()
    with pytest.raises(DiskLayoutError, match="neither the image nor the tools have GRUB for i386-pc"):
        install(mbr(), root)


def written(graph: Graph, tmp_path: Path, core_bytes: int = 3000) -> bytes:
    layout = layout_of(graph, CONTENT, Defaults(SEED))
    image = tmp_path / "image0.raw"
    image.write_bytes(bytes(440) + b"TABLE-AND-SIGNATURE".ljust(72, b"T") + bytes(20 * MIB + 64 * MIB))
    files = GrubCode(b"B" * 512, b"C" * core_bytes)
    files.write(layout, image)
    return image.read_bytes()


def test_on_mbr_the_core_stands_behind_the_table_and_the_table_stays(tmp_path: Path) -> None:
    data = written(mbr(), tmp_path)
    assert data[440:459] == b"TABLE-AND-SIGNATURE"
    assert struct.unpack_from("<Q", data, 0x5C) == (1,)
    assert data[0x64] == 0xFF
    assert data[0x66:0x68] == b"\x90\x90"
    # 3000 bytes are 6 sectors: the first, and 5 from sector 2 on, loaded at 0x8200
    assert struct.unpack_from("<QHH", data, 512 + 0x1F4) == (2, 5, 0x0820)
    assert data[1024 : 512 + 3000] == b"C" * (3000 - 512)
    assert not any(data[512 + 3000 : MIB])


def test_on_gpt_the_core_stands_in_its_partition(tmp_path: Path) -> None:
    data = written(gpt(BSP, ROOT), tmp_path)
    sector = MIB // 512
    assert struct.unpack_from("<Q", data, 0x5C) == (sector,)
    assert struct.unpack_from("<QHH", data, MIB + 0x1F4) == (sector + 1, 5, 0x0820)


def test_power_gets_an_image_in_its_prep_partition(root: Path, tmp_path: Path) -> None:
    modules = root / "usr/lib/grub/powerpc-ieee1275"
    modules.mkdir()
    for name in ("kernel.img", "normal.mod", "moddep.lst"):
        (modules / name).write_bytes(b"")
    table = Table("table", "image0", "mbr", (_primary(BSP, 1, "0x41"), _primary(ROOT, 2, "0x83")))
    graph = dataclasses.replace(mbr(), tables=(table,))
    code, tools = install(graph, root, "ppc64el")
    assert tools.calls[0][tools.calls[0].index("-O") + 1] == "powerpc-ieee1275"
    assert (root / "boot/grub/powerpc-ieee1275/core.elf").read_bytes() == code.prep
    layout = layout_of(graph, CONTENT, Defaults(SEED))
    image = tmp_path / "image0.raw"
    image.write_bytes(bytes(16 * MIB))
    code.write(layout, image)
    data = image.read_bytes()
    assert data[MIB:].startswith(code.prep)
    assert not any(data[:MIB]), "a BIOS would find nothing there"
    with pytest.raises(DiskLayoutError, match="the PReP partition has 8 MiB"):
        GrubCode(prep=bytes(9 * MIB)).write(layout, image)


def _primary(partition: Partition, number: int, kind: str) -> Partition:
    return dataclasses.replace(partition, number=number, type=kind, primary=True)


def test_a_core_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiskLayoutError, match="GRUB's core image takes"):
        written(mbr(), tmp_path, MIB)


def test_the_deepest_mount_holds_a_path(tmp_path: Path) -> None:
    graph = gpt(ESP, BSP, ROOT)
    names = {filesystem.name: filesystem for filesystem in graph.filesystems}
    assert filesystem_of(graph, "/boot/efi/EFI") == names["esp"]
    assert filesystem_of(graph, "/boot/efix") == names["mkfs_root"]
    assert boot_image(graph) == "image0"
    assert esp_directory(graph, tmp_path) == tmp_path / "boot/efi"
    assert esp_directory(mbr(), tmp_path) is None


@pytest.mark.parametrize(
    ("subvolumes", "prefix"),
    [
        ((), "/boot/grub"),
        ((("@", "/"),), "/@/boot/grub"),
        ((("@", "/"), ("@boot", "/boot")), "/@boot/grub"),
        ((("@", "/"), ("@home", "/home")), "/@/boot/grub"),
    ],
)
def test_paths_on_btrfs_begin_above_all_subvolumes(subvolumes: tuple[tuple[str, str], ...], prefix: str) -> None:
    graph = gpt(BSP, ROOT)
    root = dataclasses.replace(FILESYSTEMS[0], type="btrfs", subvolumes=tuple(Subvolume(*one) for one in subvolumes))
    assert grub._on_filesystem(dataclasses.replace(graph, filesystems=(root,)), root, "/boot/grub") == prefix
