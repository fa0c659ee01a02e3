"""Ramdisks of Debian that tests build and boot: one for each way of making one, built once, then taken from the cache.

An element `probe` brings a piece for each part of a ramdisk, and says on the console that all of them are there.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.people import ordinary_user, ourselves

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.people import Person

PROBE = {
    "probe/README.rst": "=====\nprobe\n=====\nTells what a ramdisk has.\n",
    "probe/binary-deps.d/probe": "# for the test\nsha256sum\n",
    "probe/dracut-drivers.d/probe": "brd\ndummy\n",
    "probe/udev.d/95-probe.rules": 'SUBSYSTEM=="mem", KERNEL=="zero", SYMLINK+="probe-zero"\n',
    "probe/ramdisk-install.d/50-probe": '#!/bin/bash\nset -eu\necho installed > "$TMP_MOUNT_PATH/probe-installed"\n',
    "probe/init.d/65-probe": """# shellcheck shell=bash
echo "probe: runs after 20-init-variables, troubleshoot=$TROUBLESHOOT"
echo "probe: address $BOOT_IP_ADDRESS"
echo "probe: $(echo -n probe | sha256sum | head -c 8)"
[ -e /dev/probe-zero ] && echo "probe: udev rule"
[ -e /probe-installed ] && echo "probe: $(cat /probe-installed)"
modprobe dummy && [ -d /sys/module/dummy ] && echo "probe: module"
if declare -f export_disk | grep -q np/; then # by the kernel itself
    iqn=iqn.2026-01.example:probe
    if modprobe brd rd_nr=1 rd_size=4096 && export_disk "$iqn" /dev/ram0; then
        target=/sys/kernel/config/target
        echo "probe: target $(ls "$target/iscsi" | grep example)"
        grep -q ' 00000000:0CBC [0-9A-F:]* 0A ' /proc/net/tcp && echo "probe: port 3260 listens"
        withdraw_disk "$iqn" && ! [ -d "$target/iscsi/$iqn" ] && echo "probe: withdrawn"
    fi
fi
""",
    # The whole image becomes the ramdisk, as that of ironic-python-agent-builder.
    "whole/README.rst": "=====\nwhole\n=====\nThe image as a ramdisk.\n",
    "whole/element-deps": "no-final-image\n",
    "whole/cleanup.d/99-whole": """#!/bin/bash
set -eux
set -o pipefail
version=$(cd "$TARGET_ROOT/boot" && ls -v vmlinuz-* | tail -n 1)
sudo cp "$TARGET_ROOT/boot/$version" "$IMAGE_NAME.kernel"
sudo chmod a+r "$IMAGE_NAME.kernel"
cd "$TARGET_ROOT"
sudo ln -sf ./sbin/init "$TARGET_ROOT/init"
sudo find . -xdev -path './boot/*' -prune -o -path './tmp/*' -prune -o -print | sudo cpio --quiet -o -H newc |
    gzip -1 > "$OLDPWD/$IMAGE_NAME.initramfs"
""",
}
FIRMWARE = '#!/bin/sh\necho "probe: firmware installed with $*"\n'
"""Stands in for a program of HP's: it says what it is called with."""
FOR_HARDWARE = ("deploy-kexec", "hwdiscovery", "ilo")
OUTPUTS = ("ramdisk.kernel", "ramdisk.initramfs")
ISO = "ramdisk.iso"
"""Of the kind busybox."""


@dataclass(frozen=True)
class Kind:
    """A way to make a ramdisk: the command line, and who builds."""

    name: str
    who: Callable[[], Person]
    words: tuple[str, ...]


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "busybox",
            ordinary_user,
            ("ramdisk-image-create", "debian-minimal", "hwburnin", "iso", "probe", *FOR_HARDWARE),
        ),
        Kind(
            "dracut",
            ourselves,
            ("ramdisk-image-create", "--ramdisk-element", "dracut-ramdisk", "debian-minimal", "hwburnin", "probe"),
        ),
        Kind("whole", ourselves, ("disk-image-create", "debian-minimal", "whole")),
    )
}


@dataclass(frozen=True)
class Ramdisk:
    """What a build has left in `place`, and what it printed."""

    person: Person
    place: Path
    printed: str

    @property
    def kernel(self) -> Path:
        return self.place / "ramdisk.kernel"

    @property
    def initramfs(self) -> Path:
        return self.place / "ramdisk.initramfs"


def shell(command: str, cwd: Path) -> str:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=cwd, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names_in(initramfs: Path) -> set[str]:
    listed = shell(f"gzip -dc {initramfs.name} | cpio --list --quiet", initramfs.parent)
    return {name.removeprefix("./") for name in listed.splitlines()}


def write(person: Person, place: Path, files: dict[str, str]) -> None:
    """Elements below `place`; what begins with an interpreter line can be executed."""
    for name, text in files.items():
        path = place / "elements" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    for path in [place / "elements", *(place / "elements").rglob("*")]:
        os.chown(path, person.uid, person.gid)


def build(person: Person, place: Path, *words: str) -> Ramdisk:
    """Build `ramdisk` in `place`, with the elements that are there."""
    env = person.environment(
        ELEMENTS_PATH=str(place / "elements"),
        DIB_RELEASE="trixie",
        OVERWRITE_OLD_IMAGE="1",
        DIB_ILO_FIRMWARE_PATH=str(place / "firmware"),
    )
    done = person.dibble(words[0], "-o", "ramdisk", *words[1:], cwd=place, env=env, timeout=1800)
    return Ramdisk(person, place, done.stdout)


def ramdisk(name: str) -> Ramdisk:
    """The ramdisk of a kind."""
    kind = KINDS[name]
    person = kind.who()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")  # files that are tested side by side have their own
    place = person.directory(f"ramdisk-{name}{worker}")
    write(person, place, PROBE)
    firmware = place / "firmware" / "CP000001.scexe"
    firmware.parent.mkdir(exist_ok=True)
    firmware.write_text(FIRMWARE)
    firmware.chmod(0o755)
    return build(person, place, *kind.words)
