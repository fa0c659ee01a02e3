"""What systemd-boot gets of a tree, and what is told where that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from dibble.boot.base import BootSetup
from dibble.boot.choose import loader_of, tools_of
from dibble.boot.kernels import kernels
from dibble.boot.systemd_boot import SystemdBoot
from dibble.disk.model import Filesystem, Graph, Image, Layout, Mount, Partition, Table
from dibble.disk.volumes.verity import Verity
from dibble.errors import DiskLayoutError, UsageError
from dibble.events import Events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.boot.base import BootCode
    from dibble.sandbox.process import Completed

pytestmark = pytest.mark.unit

EPOCH = 1_700_000_000
ESP = Partition("ESP", 1, "EF00", 64 << 20)
ROOT = Partition("root", 2, "8300", None, percent=100)
PARTS = "usr/lib/systemd/boot/efi"


def layout(*partitions: Partition) -> Graph:
    names = {partition.name for partition in partitions}
    filesystems = (
        Filesystem("r", "root", "ext4", "rootfs", UUID(int=1)),
        Filesystem("e", "ESP", "vfat", "", UUID(int=2)),
    )
    mounts = (Mount("m1", "r", "/"), Mount("m2", "e", "/boot/efi"))
    used = tuple(one for one in filesystems if one.base in names)
    return Graph((Image("image0", None),), (Table("t", "image0", "gpt", partitions),), used, mounts[: len(used)], ())


class FakeUkify:
    """Stands for the tools: the image that it makes is its command line, and the content of the files in it."""

    identity = "fake"

    def __init__(self, root: Path) -> None:
        self.root: Path | None = root
        self.calls: list[list[str]] = []

    def path(self, path: Path) -> str:
        return str(path)

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        from dibble.sandbox.process import Completed

        words = list(argv)
        self.calls.append(words)
        content = "".join(Path(word[1:]).read_text() + "\n" for word in words if word.startswith("@"))
        Path(words[words.index("--output") + 1]).write_text(content)
        return Completed(tuple(words), 0, "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name, content in {
        "boot/vmlinuz-6.9.1-amd64": "MZ9",
        "boot/vmlinuz-6.12.1-amd64": "MZ12",
        "boot/initrd.img-6.12.1-amd64": "initrd",
        "boot/initrd.img-6.9.1-amd64": "initrd",
        "boot/config-6.12.1-amd64": "CONFIG",
        "boot/vmlinuz-6.12.1-amd64.dpkg-new": "half",
        "boot/vmlinuz-0-rescue-1": "rescue",
        "etc/kernel/cmdline": "root=LABEL=rootfs ro \n quiet\n",
        "usr/lib/os-release": 'PRETTY_NAME="Debian"\nID=debian\n',
        f"{PARTS}/systemd-bootx64.efi": "loader",
        f"{PARTS}/linuxx64.efi.stub": "stub",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def install(graph: Graph, root: Path, arch: str = "amd64") -> FakeUkify:
    return installed(graph, root, arch)[0]


def installed(graph: Graph, root: Path, arch: str = "amd64") -> tuple[FakeUkify, BootCode]:
    work = root.parent / "work"
    work.mkdir(exist_ok=True)
    tools = FakeUkify(root.parent / "tools")
    setup = BootSetup(graph, root, arch, work, tools, Events(), EPOCH)  # type: ignore[arg-type]
    return tools, SystemdBoot().install(setup)


def test_kernels_come_newest_first_by_number_and_without_what_is_none(root: Path) -> None:
    (root / "boot/vmlinuz-link").symlink_to("vmlinuz-6.9.1-amd64")
    found = kernels(root)
    assert [kernel.release for kernel in found] == ["6.12.1-amd64", "6.9.1-amd64"]
    assert found[0].initrd == root / "boot/initrd.img-6.12.1-amd64"


def test_a_kernel_beside_its_modules_is_found_by_its_link(root: Path) -> None:
    modules = root / "usr/lib/modules/6.13.0-1-default"
    modules.mkdir(parents=True)
    (modules / "vmlinuz").write_text("MZ13")
    (root / "boot/vmlinuz-6.13.0-1-default").symlink_to("../usr/lib/modules/6.13.0-1-default/vmlinuz")
    (root / "boot/Image-6.14.0-1-default").symlink_to("/usr/lib/modules/6.14.0-1-default/Image")  # which is gone
    (root / "boot/initrd-6.13.0-1-default").write_text("initrd")
    found = kernels(root)[0]
    assert (found.release, found.image) == ("6.13.0-1-default", modules / "vmlinuz")
    assert found.initrd == root / "boot/initrd-6.13.0-1-default"


def test_the_esp_gets_the_loader_and_an_image_of_each_kernel(root: Path) -> None:
    tools = install(layout(ESP, ROOT), root)
    esp = root / "boot/efi"
    files = {str(path.relative_to(esp)) for path in esp.rglob("*") if path.is_file()}
    assert files == {
        "EFI/BOOT/BOOTX64.EFI",
        "EFI/systemd/systemd-bootx64.efi",
        "EFI/Linux/debian-6.12.1-amd64.efi",
        "EFI/Linux/debian-6.9.1-amd64.efi",
        "loader/loader.conf",
    }
    assert (esp / "EFI/BOOT/BOOTX64.EFI").read_text() == "loader"
    image = (esp / "EFI/Linux/debian-6.12.1-amd64.efi").read_text()
    assert "root=LABEL=rootfs ro quiet\n" in image
    assert "ID=debian" in image
    call = tools.calls[0]
    assert call[call.index("--uname") + 1] == "6.12.1-amd64"
    assert call[call.index("--stub") + 1].endswith("root/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
    assert call[call.index("--initrd") + 1].endswith("initrd.img-6.12.1-amd64")
    assert all(path.stat().st_mtime == EPOCH for path in [esp, *esp.rglob("*")])


def test_the_hash_of_a_root_gets_into_the_images_when_it_is_known(root: Path) -> None:
    plain = layout(ESP, replace(ROOT, name="data"), replace(ROOT, name="tree", number=3))
    verity = Verity("root", "data", "tree", UUID(int=3), b"")
    filesystems = (Filesystem("r", "root", "ext4", "rootfs", UUID(int=1)), plain.filesystems[-1])
    mounts = (Mount("m1", "r", "/"), Mount("m2", filesystems[-1].name, "/boot/efi"))
    graph = replace(plain, filesystems=filesystems, mounts=mounts, volumes=(verity,))
    _, code = installed(graph, root)
    before = (root / "boot/efi/EFI/Linux/debian-6.12.1-amd64.efi").read_text()
    assert f"root=/dev/mapper/root roothash={'0' * 64} " in before
    assert code.last is not None
    assert code.last.point == "/boot/efi"
    made = code.last.files(Layout(graph, {}, {}, UUID(int=9)), {"root": b"\xab" * 32})
    assert set(made) == {f"EFI/Linux/debian-{release}-amd64.efi" for release in ("6.9.1", "6.12.1")}
    for content in made.values():
        assert f"root=/dev/mapper/root roothash={'ab' * 32} " in content.decode()
        assert len(content) == len(before), "what the layout had room for is what is written"
    assert (root / "boot/efi/EFI/Linux/debian-6.12.1-amd64.efi").read_text() == before, "others may be reading it"


def test_a_menu_that_the_tree_has_set_up_stays(root: Path) -> None:
    (root / "boot/efi/loader").mkdir(parents=True)
    (root / "boot/efi/loader/loader.conf").write_text("timeout 9\n")
    install(layout(ESP, ROOT), root)
    assert (root / "boot/efi/loader/loader.conf").read_text() == "timeout 9\n"


def test_a_packed_kernel_is_unpacked_for_the_stub(root: Path) -> None:
    import gzip

    for name in ("systemd-bootaa64.efi", "linuxaa64.efi.stub"):
        (root / PARTS / name).write_text(name)
    (root / "boot/vmlinuz-6.12.1-amd64").write_bytes(gzip.compress(b"MZ plain"))
    tools = install(layout(ESP, ROOT), root, "arm64")
    plain = Path(tools.calls[0][tools.calls[0].index("--linux") + 1])
    assert plain.read_bytes() == b"MZ plain"
    assert (root / "boot/efi/EFI/BOOT/BOOTAA64.EFI").exists()


def test_the_parts_of_the_tools_serve_a_tree_that_has_none(root: Path) -> None:
    (root.parent / "tools" / PARTS).parent.mkdir(parents=True)
    (root / PARTS).rename(root.parent / "tools" / PARTS)
    tools = install(layout(ESP, ROOT), root)
    assert "tools/usr/lib" in tools.calls[0][tools.calls[0].index("--stub") + 1]


def test_what_systemd_boot_cannot_do_is_refused(root: Path) -> None:
    with pytest.raises(DiskLayoutError, match="needs an EFI system partition"):
        install(layout(ROOT), root)
    with pytest.raises(DiskLayoutError, match="no systemd-boot for ppc64el"):
        install(layout(ESP, ROOT), root, "ppc64el")
    (root / PARTS / "linuxx64.efi.stub").unlink()
    with pytest.raises(DiskLayoutError, match=r"have systemd-boot's linuxx64\.efi\.stub"):
        install(layout(ESP, ROOT), root)


def test_it_is_used_only_where_it_is_named_since_its_tools_are_needed(root: Path) -> None:
    assert isinstance(loader_of(root, "systemd-boot"), SystemdBoot)
    assert loader_of(root, "") is None
    (root / "etc/kernel/cmdline").unlink()
    with pytest.raises(DiskLayoutError, match="not been made ready for the boot loader systemd-boot"):
        loader_of(root, "systemd-boot")
    assert tools_of("systemd-boot") == ("uki",)
    assert tools_of("") == tools_of("none") == tools_of("grub") == ()
    with pytest.raises(UsageError, match='unknown boot loader "systemdboot"'):
        tools_of("systemdboot")
