"""Files in the image by which the system finds the devices of volumes."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from dibble.disk.graph import parse
from dibble.disk.model import Defaults
from dibble.disk.system_files import SystemFile, SystemFiles, system_files
from dibble.plan.sequence import SEQUENCE, Engine, steps_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

NO_HOOKS: MappingProxyType[str, str] = MappingProxyType({})
DEFAULTS = Defaults(UUID("99999999-8888-7777-6666-555555555555"))
PLAIN = """\
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions: [{name: a, size: 50MiB}, {name: b, size: 50MiB}, {name: c, size: 9MiB}, {name: root, size: 100%}]
- mkfs: {base: root, type: ext4, mount: {mount_point: /}}
"""
RAID = "- raid: {name: data, base: [a, b], level: 1}\n"
LVM = """\
- lvm:
    name: lvm
    pvs: [{name: pv, base: data}]
    vgs: [{name: vg, base: pv}]
    lvs: [{name: lv, base: vg, extents: 100%FREE}]
"""
LINE = "ARRAY /dev/md/data metadata=1.2 UUID=1:2:3:4"
FILE = SystemFile(("/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"), (LINE,), "MAILADDR root\n")


def needed(text: str) -> SystemFiles:
    return system_files(parse(text, source="disk.yaml", defaults=DEFAULTS))


def test_a_disk_without_volumes_needs_nothing_and_its_build_has_no_step_for_it() -> None:
    assert needed(PLAIN).settings() == {}
    step = next(item for item in SEQUENCE if isinstance(item, Engine) and item.name == "volumes")
    assert steps_of(step, NO_HOOKS, [], {"volumes": {}}) == []


def test_an_array_has_a_line_with_its_identity() -> None:
    found = needed(PLAIN + RAID)
    (line,) = found.files[0].lines
    array, name, version, identity = line.split()
    assert (array, name, version) == ("ARRAY", "/dev/md/data", "metadata=1.2")
    words = identity.removeprefix("UUID=").split(":")
    assert [len(word) for word in words] == [8, 8, 8, 8]
    assert found.programs == {"mdadm": "mdadm"}


def test_every_volume_counts_and_the_step_that_writes_comes_before_the_initramfs() -> None:
    found = needed(PLAIN + RAID + LVM)
    assert found.programs == {"mdadm": "mdadm", "lvm": "lvm"}
    names = [item if isinstance(item, str) else item.name for item in SEQUENCE]
    assert names.index("packages") < names.index("volumes") < names.index("initramfs")
    step = SEQUENCE[names.index("volumes")]
    (made,) = steps_of(step, NO_HOOKS, [], {"volumes": found.settings()})
    assert made.settings["mdadm.conf"].startswith("ARRAY ")
    other = needed(PLAIN + RAID.replace("data", "other"))
    assert other.settings()["mdadm.conf"] != found.settings()["mdadm.conf"], "it belongs to the step's key"


def test_lines_of_packages_stay_and_ours_come_once() -> None:
    assert FILE.text("HOMEHOST <system>") == f"HOMEHOST <system>\n{LINE}\n"
    again = FILE.text(f"{LINE}\nMAILADDR me\n")
    assert again == f"{LINE}\nMAILADDR me\n"


def test_a_new_file_says_whom_the_monitor_tells() -> None:
    assert FILE.text(None).splitlines()[1:] == ["MAILADDR root", LINE]


def test_a_file_lies_where_the_distribution_has_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert FILE.path_in(tmp_path) == "/etc/mdadm.conf"
    (tmp_path / "etc" / "mdadm").mkdir()
    assert FILE.path_in(tmp_path) == "/etc/mdadm/mdadm.conf"


def test_dracut_is_told_what_root_stands_on_and_of_no_other_volume(tmp_path: Path) -> None:
    lines = "- lvm:\n    name: lvm\n    pvs: [{name: pv, base: data}]\n    vgs: [{name: vg, base: pv}]\n    lvs:\n"
    root = "mkfs: {name: mkfs_root, type: ext4, mount: {mount_point: /}}"
    lines += f"      - {{name: lv, base: vg, size: 9MiB, {root}}}\n      - {{name: spare, base: vg, size: 4MiB}}\n"
    parts = "name: b, size: 50MiB}, {name: c, size: 9MiB}, {name: d, size: 9MiB}]\n"
    other = RAID.replace("data", "other").replace("a, b", "c, d")
    found = needed(PLAIN[: PLAIN.index("name: b,")] + parts + RAID + other + lines)
    (identity,) = [line.split("UUID=")[1] for line in found.files[0].lines if "/data " in line]
    dracut = found.files[1]
    assert dracut.path_in(tmp_path) == "/etc/dracut.conf.d/60-volumes.conf"
    assert dracut.lines == (
        'add_dracutmodules+=" mdraid lvm "',
        'mdadmconf="yes"',
        f'kernel_cmdline+=" rd.md.uuid={identity} rd.lvm.lv=vg/lv "',
    )
    assert found.files[0].belongs_in(tmp_path)
    assert not dracut.belongs_in(tmp_path), "there is no dracut"
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "usr" / "bin" / "dracut").touch()
    assert dracut.belongs_in(tmp_path)
    assert len(needed(PLAIN + RAID + LVM).files) == 1, "no ramdisk has to find what only holds data"


def test_a_program_that_is_not_in_the_image_is_named_with_its_element(tmp_path: Path) -> None:
    found = needed(PLAIN + RAID + LVM)
    assert found.missing_from(tmp_path) == {"mdadm": "mdadm", "lvm": "lvm"}
    (tmp_path / "usr" / "sbin").mkdir(parents=True)
    (tmp_path / "usr" / "sbin" / "mdadm").write_text("")
    assert found.missing_from(tmp_path) == {"lvm": "lvm"}
