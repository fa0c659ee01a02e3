"""The element lvm has LVM put into the initial ramdisk, by initramfs-tools, by dracut, or by both."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.unit.hook_build import HookBuild, run_inside

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

SETTINGS = "lvm/install.d/10-lvm-initramfs"
LAST = "lvm/finalise.d/60-lvm-initramfs"
MODULES = ["dm-mod", "dm-thin-pool", "dm-snapshot"]
DRACUT = 'add_dracutmodules+=" lvm "\nadd_drivers+=" dm-mod dm-thin-pool dm-snapshot "\n'


def tools_without(tmp_path: Path, missing: str) -> Path:
    """A directory with the programs of this machine but one."""
    place = tmp_path / "tools"
    place.mkdir()
    for name in ("bash", "grep", "env", "mkdir"):
        (place / name).symlink_to(shutil.which(name) or "")
    assert not (place / missing).exists()
    return place


def build_with(tmp_path: Path, *, initramfs_tools: bool, dracut: bool) -> HookBuild:
    build = HookBuild(tmp_path)
    (build.target / "boot").mkdir()
    if initramfs_tools:
        (build.target / "etc/initramfs-tools").mkdir()
        (build.target / "etc/initramfs-tools/modules").write_text("# none\n")
    if dracut:
        build.fake("dracut", 'for image; do :; done; echo usr/sbin/lvm > "$image"')
    return build


@pytest.mark.parametrize(("initramfs_tools", "dracut"), [(True, False), (False, True), (True, True)])
def test_settings_are_written_for_whatever_makes_the_ramdisk(
    tmp_path: Path, initramfs_tools: bool, dracut: bool
) -> None:
    build = build_with(tmp_path, initramfs_tools=initramfs_tools, dracut=dracut)
    env = {"PATH": f"{build.bin}:{tools_without(tmp_path, 'dracut')}"}
    run_inside(build, SETTINGS, env=env)
    run_inside(build, SETTINGS, env=env)  # once more changes nothing
    modules = build.target / "etc/initramfs-tools/modules"
    settings = build.target / "etc/dracut.conf.d/60-lvm.conf"
    assert (modules.read_text().split("\n")[1:-1] if initramfs_tools else MODULES) == MODULES
    assert (settings.read_text() if dracut else DRACUT) == DRACUT
    assert (modules.exists(), settings.exists()) == (initramfs_tools, dracut)


def test_an_image_that_has_neither_is_refused(tmp_path: Path) -> None:
    build = build_with(tmp_path, initramfs_tools=False, dracut=False)
    done = run_inside(build, SETTINGS, status=1, env={"PATH": f"{build.bin}:{tools_without(tmp_path, 'dracut')}"})
    assert "neither initramfs-tools nor dracut" in done.output


@pytest.mark.parametrize(
    ("before", "remade"),
    [
        ("usr/sbin/lvm\n", False),
        ("usr/bin/sh\n", True),
        ("usr/lib/dracut/build-parameter.txt\n", False),
    ],
)
def test_a_ramdisk_of_initramfs_tools_without_lvm_is_made_again(tmp_path: Path, before: str, remade: bool) -> None:
    build = build_with(tmp_path, initramfs_tools=True, dracut=True)
    file = build.target / "boot/initrd.img-6.1-x"
    file.write_text(before)
    build.fake("lsinitramfs", 'cat "$1"')
    build.fake("update-initramfs", f'echo usr/sbin/lvm > {build.target}/boot/initrd.img-"$3"')
    run_inside(build, LAST)
    assert ("update-initramfs" in build.calls) is remade
    assert file.read_text() == ("usr/sbin/lvm\n" if remade else before)


def test_where_there_is_no_initramfs_tools_another_element_looks(tmp_path: Path) -> None:
    build = build_with(tmp_path, initramfs_tools=False, dracut=True)
    (build.target / "etc/initramfs-tools/hooks").mkdir(parents=True)  # as cryptsetup's package does for either
    (build.target / "boot/initrd.img-6.1-x").write_text("usr/bin/sh\n")
    run_inside(build, LAST, env={"PATH": f"{build.bin}:{tools_without(tmp_path, 'lsinitramfs')}"})
    assert build.calls == []


def test_a_ramdisk_that_stays_without_lvm_ends_the_build(tmp_path: Path) -> None:
    build = build_with(tmp_path, initramfs_tools=True, dracut=False)
    (build.target / "boot/initrd.img-6.1-x").write_text("usr/bin/sh\n")
    build.fake("lsinitramfs", 'cat "$1"')
    build.fake("update-initramfs")
    done = run_inside(build, LAST, status=1)
    assert "still has no LVM" in done.output
