"""The menu that U-Boot gets of a tree, and what is told where that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from dibble.boot.base import BootSetup
from dibble.boot.choose import loader_of
from dibble.boot.extlinux import MENU, Extlinux
from dibble.disk.model import Filesystem, Graph, Image, Mount, Partition, Table
from dibble.errors import DiskLayoutError
from dibble.events import Events, Note

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import Event

pytestmark = pytest.mark.unit

EPOCH = 1_700_000_000
HEAD = "timeout 50\nmenu title U-Boot menu\n"
ROOT = Partition("root", 1, "8300", None, percent=100)
TREE = "usr/lib/linux-image-6.12.1-arm64"


class Listener:
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)

    def close(self) -> None:
        """Nothing is open."""


def graph(kind: str = "ext4", *, boot: str = "", bootable: bool = False) -> Graph:
    """A root on `kind`; with `boot`, behind a /boot of that type on the first partition."""
    root = Partition("root", 2 if boot else 1, "8300", None, percent=100, bootable=bootable)
    partitions = (Partition("boot", 1, "8300", 256 << 20), root) if boot else (root,)
    filesystems = [Filesystem("r", "root", kind, "rootfs", UUID(int=1))]
    mounts = [Mount("m1", "r", "/")]
    if boot:
        filesystems.append(Filesystem("b", "boot", boot, "boot", UUID(int=2)))
        mounts.append(Mount("m2", "b", "/boot"))
    tables = (Table("t", "image0", "gpt", partitions),)
    return Graph((Image("image0", None),), tables, tuple(filesystems), tuple(mounts), ())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in {
        "boot/vmlinuz-6.9.1-arm64": "old",
        "boot/vmlinuz-6.12.1-arm64": "new",
        "boot/initrd.img-6.12.1-arm64": "initrd",
        f"{TREE}/vendor/board.dtb": "tree",
        "etc/kernel/cmdline": "root=LABEL=rootfs ro \n console=ttyAMA0\n",
        MENU: HEAD,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def menu(root: Path, of: Graph, events: Events | None = None) -> str:
    setup = BootSetup(of, root, "arm64", root, None, events or Events(), EPOCH)  # type: ignore[arg-type]  # runs no tool
    code = Extlinux().install(setup)
    assert code.last is None
    return (root / MENU).read_text()


def test_the_menu_has_an_entry_of_each_kernel_the_newest_first(root: Path) -> None:
    assert menu(root, graph()) == HEAD + (
        "default linux-6.12.1-arm64\n"
        "\n"
        "label linux-6.12.1-arm64\n"
        "\tmenu label Linux 6.12.1-arm64\n"
        "\tlinux /boot/vmlinuz-6.12.1-arm64\n"
        "\tinitrd /boot/initrd.img-6.12.1-arm64\n"
        f"\tfdtdir /{TREE}/\n"
        "\tappend root=LABEL=rootfs ro console=ttyAMA0\n"
        "\n"
        "label linux-6.9.1-arm64\n"
        "\tmenu label Linux 6.9.1-arm64\n"
        "\tlinux /boot/vmlinuz-6.9.1-arm64\n"
        "\tappend root=LABEL=rootfs ro console=ttyAMA0\n"
    )
    assert (root / MENU).stat().st_mtime == EPOCH


def test_paths_begin_at_the_file_system_of_boot_and_device_trees_are_copied_to_it(root: Path) -> None:
    text = menu(root, graph(boot="vfat"))
    assert "\tlinux /vmlinuz-6.12.1-arm64\n" in text
    assert "\tinitrd /initrd.img-6.12.1-arm64\n" in text
    assert "\tfdtdir /dtbs/6.12.1-arm64/\n" in text
    copied = root / "boot/dtbs/6.12.1-arm64/vendor/board.dtb"
    assert copied.read_text() == "tree"
    assert copied.stat().st_mtime == EPOCH


def test_a_kernel_that_lies_on_another_file_system_takes_the_place_of_its_link(root: Path) -> None:
    modules = root / "usr/lib/modules/6.13.0-default"
    modules.mkdir(parents=True)
    (modules / "Image").write_text("kernel")
    link = root / "boot/Image-6.13.0-default"
    link.symlink_to("../usr/lib/modules/6.13.0-default/Image")
    assert "\tlinux /usr/lib/modules/6.13.0-default/Image\n" in menu(root, graph())
    assert link.is_symlink()
    (root / MENU).write_text(HEAD)
    assert "\tlinux /Image-6.13.0-default\n" in menu(root, graph(boot="ext4"))
    assert not link.is_symlink()
    assert link.read_text() == "kernel"
    assert {path.stat().st_mtime for path in (link, link.parent)} == {EPOCH}


@pytest.mark.parametrize(("of", "kind"), [(graph("xfs"), "xfs"), (graph(boot="btrfs"), "btrfs")])
def test_a_file_system_that_u_boot_does_not_read_is_refused(root: Path, of: Graph, kind: str) -> None:
    with pytest.raises(DiskLayoutError, match=f"cannot read /boot on {kind}"):
        menu(root, of)


def test_a_place_that_older_u_boots_do_not_look_at_is_told(root: Path) -> None:
    for of, told in ((graph(), 0), (graph(bootable=True), 0), (graph(boot="ext4"), 0)):
        assert len(notes_of(root, of)) == told
    (found,) = notes_of(root, graph(boot="ext4", bootable=True))
    assert '"boot" is neither the first partition nor has it the flag "boot"' in found


def notes_of(root: Path, of: Graph) -> list[str]:
    listener = Listener()
    (root / MENU).write_text(HEAD)
    menu(root, of, Events([listener]))
    return listener.notes


def test_a_menu_with_entries_is_left_to_whoever_wrote_it(root: Path) -> None:
    assert isinstance(loader_of(root, ""), Extlinux)
    (root / MENU).write_text(HEAD + "LABEL mine\n  linux /vmlinuz\n")
    assert loader_of(root, "") is None
    with pytest.raises(DiskLayoutError, match="not been made ready for the boot loader extlinux"):
        loader_of(root, "extlinux")
