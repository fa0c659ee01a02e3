"""Ramdisks without building one: the command, what is written, and the shell functions of the shipped elements."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from tests.unit import needed
from tests.unit.test_request import compatible

from dibble.cli import disk_image_create
from dibble.events import Events
from dibble.plan.manifest import LIBRARY, Manifest, visible
from dibble.registry import load
from dibble.run.prepare import CATALOGUE, formats_to_write
from dibble.sandbox.process import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.unit

ELEMENTS = CATALOGUE / "elements"
INIT_FUNCTIONS = ELEMENTS / "ramdisk-base/extra-data.d/ramdisk-build/d/init-func"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def shell(*lines: str, status: int = 0, **variables: str) -> str:
    done = run(["bash", "-eu", "-o", "pipefail", "-c", "\n".join(lines)], env={"PATH": PATH, **variables}, check=False)
    assert done.status == status, done.output
    return done.output


# --- the command


@pytest.mark.parametrize(
    ("program", "verb"),
    [("/usr/bin/ramdisk-image-create", "ramdisk-image-create"), ("disk-image-create", "disk-image-create")],
)
def test_the_name_of_the_program_says_what_is_made(program: str, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def verb_of(name: str) -> int:
        called.append(name)
        return 0

    monkeypatch.setattr(disk_image_create, "run_verb", verb_of)
    monkeypatch.setattr(sys, "argv", [program])
    disk_image_create.main()
    assert called == [verb]


def test_both_commands_take_the_same_options() -> None:
    one, other = (load("verbs", name).params for name in ("disk-image-create", "ramdisk-image-create"))
    assert [param.opts for param in one] == [param.opts for param in other]


@pytest.mark.parametrize(
    ("ramdisk", "names", "asked", "written"),
    [
        (False, ["debian-minimal"], "qcow2,tar", ("qcow2", "tar")),
        (True, ["debian-minimal"], "qcow2,tar", ("tar",)),
        (True, ["debian-minimal"], "qcow2", ()),
        (False, ["x-no-final-image-y"], "raw,docker", ("docker",)),
    ],
)
def test_no_disk_is_made_for_a_ramdisk_or_beside_the_mark(
    ramdisk: bool, names: Sequence[str], asked: str, written: tuple[str, ...]
) -> None:
    request = compatible("-t", asked, "debian-minimal", ramdisk=ramdisk)
    assert formats_to_write(request, names, Events([])) == written


# --- what a step depends on


def shown(text: bytes) -> set[str]:
    names = ["init.d/20-x", "binary-deps.d/x", "static/x", "own/x", f"{LIBRARY}img-functions", "install.d/10-a"]
    return set(visible(Manifest(dict.fromkeys(names, "-0")), "install.d", "10-a", text)) - {"install.d/10-a"}


def test_pieces_of_a_ramdisk_static_files_and_the_libraries_count_for_scripts_that_name_them() -> None:
    assert shown(b"install-packages vim") == {"own/x"}
    assert shown(b'cat "$(dirname "$0")/../init.d/20-x"') == {"own/x", "init.d/20-x"}
    assert shown(b"rsync /tmp/in_target.d/static/ /") >= {"own/x", "static/x"}
    assert shown(b'"$TMP_HOOKS_PATH/bin/cache-url" x; [ -z "${TMP_HOOKS_PATH:-}" ]') == {"own/x"}
    assert "init.d/20-x" in shown(b'ls "$TMP_HOOKS_PATH"')
    assert "init.d/20-x" in shown(b"ls $(dirname $0)/..")
    assert "init.d/20-x" not in shown(b'for one in "$(dirname "$0")"/../bin/*; do :; done; ls /etc/init.d')
    assert f"{LIBRARY}img-functions" in shown(b'source "$_LIB/img-functions"')


# --- functions of the ramdisk


def function(call: str, status: int = 0) -> str:
    return shell(f"source {INIT_FUNCTIONS}", call, status=status).strip()


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("partition_name /dev/sda 1", "/dev/sda1"),
        ("partition_name /dev/nvme0n1 2", "/dev/nvme0n1p2"),
        ("whole_disk_name /dev/sda12", "/dev/sda"),
        ("whole_disk_name /dev/mmcblk0p3", "/dev/mmcblk0"),
        ("_mac 01-52-54-00-AB-cd-ef", "52:54:00:ab:cd:ef"),
        ("_mac 52:54:00:AB:CD:EF", "52:54:00:ab:cd:ef"),
        ("_prefix 255.255.255.0", "24"),
        ("_prefix 255.255.240.0", "20"),
        ("wait_for 5 true && echo yes", "yes"),
    ],
)
def test_names_and_addresses_are_read_and_written(call: str, answer: str) -> None:
    assert function(call) == answer


@pytest.mark.parametrize(
    ("name", "value"),
    [("disk", "vda"), ("quiet", "quiet"), ("is", ""), ("text", "a b"), ("twice", "2")],
)
def test_a_parameter_is_the_value_of_a_whole_word(name: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "parameters"
    file.write_text("disk=vda quiet mydisk=sda\ntwice=1 twice=2\ntext='a-b'\n")
    assert function(f"find_parameter_from_file {name} {file}") == value.replace(" ", "-")


def test_waiting_ends_with_the_time_that_was_given() -> None:
    assert "not within 0 seconds: false" in function("wait_for 0 false", status=1)


# --- functions that make a ramdisk


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("mnt", "hooks/init.d", "lib/d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lib/init").write_text("echo beginning\n")
    (tmp_path / "lib/init-end").write_text("echo end\n")
    (tmp_path / "lib/d/init-func").write_text("reboot() { echo restarted; }\n")
    return tmp_path


def making(tree: Path, *lines: str, status: int = 0) -> str:
    return shell(
        "source $_LIB/common-functions; source $_LIB/ramdisk-defaults; source $_LIB/ramdisk-functions",
        *lines,
        status=status,
        _LIB=str(CATALOGUE / "lib"),
        TMP_MOUNT_PATH=str(tree / "mnt"),
        TMP_HOOKS_PATH=str(tree / "hooks"),
        INIT=str(tree / "lib/init"),
        INIT_END=str(tree / "lib/init-end"),
        FUNCTIONS_D=str(tree / "lib/d"),
    )


def test_init_is_the_pieces_by_name_between_beginning_and_end(tree: Path) -> None:
    for name in ("20-b", "10-a", "100-c"):
        (tree / "hooks/init.d" / name).write_text(f"echo {name}\n")
    making(tree, "create_ramdisk_base", "populate_init")
    init = tree / "mnt/init"
    assert shell(str(init)).split() == ["beginning", "10-a", "100-c", "20-b", "end"]
    assert "### init.d/10-a" in init.read_text()


def test_a_program_runs_from_the_ramdisk_with_its_libraries(tree: Path) -> None:
    making(tree, "create_ramdisk_base", "copy_program bash", "copy_program env")
    libraries = [path for path in tree.rglob("mnt/**/libc.so.6") if path.is_file()]
    assert libraries, "the C library is there"
    assert {path.name for path in (tree / "mnt/bin").iterdir()} == {"bash", "env"}
    assert "not in the image" in making(tree, "copy_program no-such-program", status=1)


def test_the_newest_kernel_is_taken_unless_one_is_asked_for(tree: Path) -> None:
    assert making(tree, "DIB_KERNEL_VERSION=6.1 find_kernel_version").strip() == "6.1"


@needed.programs("cpio")
def test_the_same_tree_gives_the_same_ramdisk(tree: Path) -> None:
    for number in ("1", "2"):
        shutil.rmtree(tree / "mnt")
        (tree / "mnt").mkdir()
        making(tree, "create_ramdisk_base", "populate_init", f"finalise_image {tree}/ramdisk{number}")
    assert (tree / "ramdisk1").read_bytes() == (tree / "ramdisk2").read_bytes()
    names = shell(f"gzip -dc {tree}/ramdisk1 | cpio --list --quiet").split()
    assert {"init", "init-func", "bin/reboot"} <= set(names)
