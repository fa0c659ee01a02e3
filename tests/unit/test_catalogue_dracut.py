"""The element dracut-volumes: ramdisks of dracut hold what a root on volumes needs, or the build ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.hook_build import ELEMENTS, SYSTEM, HookBuild, run_inside

from dibble.sandbox.process import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

MODULE = "dracut-volumes/finalise.d/49-dracut-volumes-module"
LAST = "dracut-volumes/finalise.d/55-dracut-volumes"
SETTINGS = """\
add_dracutmodules+=" crypt lvm "
kernel_cmdline+=" rd.luks.uuid=1-2 rd.lvm.lv=vg/root "
"""
CRYPTTAB = """\
# a comment,initramfs
vault UUID=1-2 none luks,initramfs
data UUID=3-4 /etc/keys/data luks
other UUID=5-6 none x-initrd.attach,luks
"""
GENERATOR = "usr/lib/systemd/system-generators/systemd-cryptsetup-generator"
FILES = ("etc/crypttab", GENERATOR)
LINES = "etc/cmdline.d/01-default.conf"
LSINITRD = f"""
if [ "$1" = -f ]; then
    test "$2" = {LINES}
    sed '1,/^lines:/d' "$3"
else
    sed '/^lines:/,$d' "$1"
fi
"""


def listing(
    modules: str = "systemd crypt lvm base",
    words: str = "rd.luks.uuid=1-2 rd.lvm.lv=vg/root",
    files: tuple[str, ...] = FILES,
) -> str:
    """What lsinitrd prints of a ramdisk of dracut, and behind it the one file of it that is looked at."""
    lines = [
        "Image: /boot/x: 40M",
        "Arguments: --force --add 'crypt'",
        "",
        "dracut modules:",
        *modules.split(),
        "=====",
    ]
    lines += [f"-rw-r--r--   1 root     root           99 Nov 29  2026 {name}" for name in (LINES, *files)]
    return "\n".join((*lines, "lines:", f" {words} ", ""))


@pytest.fixture
def build(tmp_path: Path) -> HookBuild:
    build = HookBuild(tmp_path)
    (build.target / "boot").mkdir()
    (build.target / "etc/dracut.conf.d").mkdir()
    (build.target / "etc/dracut.conf.d/60-volumes.conf").write_text(SETTINGS)
    (build.target / "etc/crypttab").write_text(CRYPTTAB)
    build.fake("lsinitrd", LSINITRD)
    (tmp_path / "made").write_text(listing())
    build.fake("dracut", f'for image; do :; done; cp {tmp_path}/made "$image"')
    return build


def last(build: HookBuild, before: str, *, name: str = "initrd.img-6.1-x", status: int = 0) -> tuple[str, str]:
    """What the script says of a ramdisk, and what that is afterwards."""
    image = build.target / "boot" / name
    image.write_text(before)
    done = run_inside(build, LAST, status=status, instead={"boot=/boot": f"boot={build.target}/boot"})
    return done.output, image.read_text()


@pytest.mark.parametrize("name", ["initrd.img-6.1-x", "initramfs-6.1-x.img", "initrd-6.1-x"])
def test_a_ramdisk_that_packages_have_made_is_made_again_for_no_host_alone(build: HookBuild, name: str) -> None:
    _, after = last(build, listing(modules="systemd base", words="", files=()), name=name)
    assert after == listing()
    words = build.calls[build.calls.index("dracut") :]
    assert words[words.index("--kver") + 1] == "6.1-x"
    assert {"--no-hostonly", "--no-hostonly-cmdline", "--reproducible"} <= set(words)


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("initrd.img-6.1-x", listing()),
        ("initrd.img-6.1-x", "Image: /boot/x: 40M\ndracut modules:\n"),  # of initramfs-tools
        ("initramfs-0-rescue-1234.img", listing(modules="base")),
    ],
)
def test_one_that_has_it_all_or_is_not_started_is_left_alone(build: HookBuild, name: str, before: str) -> None:
    assert last(build, before, name=name)[1] == before
    assert "dracut" not in build.calls


def test_without_settings_there_is_nothing_to_look_for(build: HookBuild) -> None:
    (build.target / "etc/dracut.conf.d/60-volumes.conf").unlink()
    last(build, listing(modules="base", words="", files=()))
    assert build.calls == []


@pytest.mark.parametrize(
    ("made", "lacks", "mend"),
    [
        (listing(modules="systemd lvm base"), "dracut's module crypt", "add the element cryptsetup"),
        (listing(modules="crypt base"), "dracut's module lvm", "add the element lvm"),
        (listing(words="rd.luks.uuid=1-2"), "the word rd.lvm.lv=vg/root", "add the element dracut-volumes"),
        (listing(files=(GENERATOR,)), "the lines of crypttab", "add the element dracut-volumes"),
        (listing(files=("etc/crypttab",)), "the program systemd-cryptsetup", "Debian, since release 13"),
    ],
)
def test_what_it_still_lacks_ends_the_build_with_the_mend(build: HookBuild, made: str, lacks: str, mend: str) -> None:
    (build.root / "made").write_text(made)
    said, _ = last(build, listing(modules="base"), status=1)
    (line,) = [line for line in said.splitlines() if " lacks " in line]
    assert f"boot/initrd.img-6.1-x lacks {lacks}, and so does not find the root: " in line
    assert mend in line


def test_a_ramdisk_that_dracut_did_not_end_well_ends_the_build(build: HookBuild) -> None:
    build.fake("dracut", f'for image; do :; done; cp {build.root}/made "$image"; exit 3')
    said, _ = last(build, listing(modules="base"), status=1)
    assert "dracut ended with 3 while it made" in said


def test_a_ramdisk_without_systemd_opens_containers_by_itself(build: HookBuild) -> None:
    before = listing(modules="crypt lvm base", files=("etc/crypttab",))
    assert last(build, before)[1] == before
    assert "dracut" not in build.calls


def module(build: HookBuild, *, hostonly: str = "") -> str:
    """The crypttab of a ramdisk, made as dracut does; `no` where the module is not in it."""
    path = build.target / "usr/lib/dracut/modules.d"
    path.mkdir(parents=True)
    places = {"=/usr/lib/dracut": f"={path.parent}", '$(dirname "$0")': str(ELEMENTS / MODULE.rpartition("/")[0])}
    run_inside(build, MODULE, instead=places)
    script = path / "91root-crypttab/module-setup.sh"
    if not script.exists():
        return "not installed"
    commands = '. "$1"; check || { echo no; exit; }; depends; install; cat "$initdir/etc/crypttab"'
    variables = {"PATH": SYSTEM, "dracutsysrootdir": str(build.target), "initdir": str(build.root / "ramdisk")}
    env = {**variables, "hostonly": hostonly}
    return run(["bash", "-c", commands, "bash", str(script)], env=env, cwd=build.out).output


def test_a_ramdisk_gets_the_lines_of_crypttab_that_are_for_it(build: HookBuild) -> None:
    lines = CRYPTTAB.splitlines()
    assert module(build).splitlines() == ["crypt", lines[1], lines[3]]


def test_in_a_ramdisk_for_one_host_dracut_looks_for_itself(build: HookBuild) -> None:
    assert module(build, hostonly="-h").strip() == "no"


def test_a_system_without_containers_for_the_ramdisk_gets_no_module(build: HookBuild) -> None:
    (build.target / "etc/crypttab").write_text("data UUID=3-4 /etc/keys/data luks\n")
    assert module(build) == "not installed"
