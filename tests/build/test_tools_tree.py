"""The tools tree as it ships: fetched from a mirror, and every program in it started."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dibble.events import Events
from dibble.sandbox import mounts
from dibble.sandbox.enter import run_in_namespace
from dibble.sandbox.process import run
from dibble.sandbox.syscalls import MNT_DETACH, umount
from dibble.sandbox.toolbox import TOOL_ENVIRONMENT
from dibble.sandbox.tools import ToolsTree, default_mirrors, host_arch
from dibble.sandbox.tools_lock import read_lock
from dibble.store.places import open_store

pytestmark = pytest.mark.build

VERSION = """
    apt-get apt-cache bash bzip2 cmp cpio curl diff dpkg dpkg-deb fdisk file find gawk gensquashfs git gpgv grep
    grub-install grub-mkimage gzip hostname jq kmod ls lsblk lzma mawk mount perl ps python3 qemu-img qemu-io rsync
    run-parts sed setpriv sfdisk sgdisk tar xargs xz zstd
"""
STARTS = [
    *(f"{name} --version" for name in VERSION.split()),
    *(f"{name} -V" for name in ("blkid", "dumpe2fs", "e2fsck", "losetup", "mcopy", "mke2fs", "mkfs.ext4")),
    *("mkfs.vfat --help", "openssl version", "which bash", "awk 'BEGIN { print 1 }'", "sh -c 'echo $0'"),
    *("python3 -c 'import yaml, ssl, sqlite3, lzma'", "perl -MPOSIX -MFile::Temp -e 1", "locale", "pager /etc/passwd"),
    *("getent passwd _apt", "sudo -u nobody id", "sudo -iu nobody pwd", "su -c id", "runuser -u nobody id"),
    "git init -q /tmp/a && git -C /tmp/a -c user.name=a -c user.email=a@b commit -q --allow-empty -m x"
    " && git clone -q /tmp/a /tmp/b",
    "mke2fs -q -t ext4 /tmp/e 8M && e2fsck -fn /tmp/e",
    "mkfs.vfat -C /tmp/f 10240 && mcopy -i /tmp/f /etc/passwd :: && mdir -i /tmp/f ::",
    "truncate -s 16M /tmp/d && echo 'label: gpt\n,,L' | sfdisk -q /tmp/d && sfdisk --verify /tmp/d && sgdisk -p /tmp/d",
    "qemu-img create -f qcow2 /tmp/q 8M && qemu-img check /tmp/q",
    "rsync -a /etc/ /tmp/etc/ && diff -r /etc/apt /tmp/etc/apt",
    "tar cf - /etc | xz | zstd | zstd -d | xz -d | tar tf -",
    "openssl crl2pkcs7 -nocrl -certfile /etc/ssl/certs/ca-certificates.crt | openssl pkcs7 -print_certs -noout",
]

GRUB = {
    "amd64": ["i386-pc -p /boot/grub biosdisk part_msdos ext2 normal", "x86_64-efi -p /boot/grub part_gpt fat normal"],
    "arm64": ["arm64-efi -p /boot/grub part_gpt fat normal"],
}
STARTS += [f"grub-mkimage -o /tmp/core -O {words} && test -s /tmp/core" for words in GRUB[host_arch()]]
SYSTEM = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}[host_arch()]

APT = """\
mkdir -p /tmp/apt/lists/partial && touch /tmp/apt/status && cat > /tmp/apt/conf <<'end'
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::sourcelist "/tmp/apt/sources.list";
Dir::State::lists "/tmp/apt/lists";
Dir::State::status "/tmp/apt/status";
Dir::Cache "/tmp/apt";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
end
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} trixie main" > /tmp/apt/sources.list
export APT_CONFIG=/tmp/apt/conf
apt-get update && apt-get install --simulate --no-install-recommends hello
"""


def results_of(store_dir: Path, commands: list[str], *groups: str) -> dict[str, tuple[int, str]]:
    """Status and output of each command, run in the tools tree below a private upper directory."""

    def inside() -> dict[str, tuple[int, str]]:
        store = open_store(store_dir)
        lowers = ToolsTree(store_dir, Events()).ensure(*groups)
        with store.session() as session:
            upper, work, view = (session.path / name for name in ("upper", "work", "view"))
            for directory in (upper, work, view):
                directory.mkdir()
            mounts.overlay(lowers, upper, work, view)
            mounts.system(view)
            mounts.tmpfs(view / "tmp", mode=0o1777)
            (view / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
            try:
                return {command: _result(view, command) for command in commands}
            finally:
                umount(view, MNT_DETACH)

    return run_in_namespace(inside)


def _result(view: Path, command: str) -> tuple[int, str]:
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    done = run(["bash", "-c", command], env={**TOOL_ENVIRONMENT, **proxies}, root=view, check=False)
    return done.status, done.output


@pytest.fixture(scope="module")
def started(test_cache: Path) -> dict[str, tuple[int, str]]:
    return results_of(test_cache, STARTS, "core")


@pytest.mark.parametrize("command", STARTS, ids=[command[:40] for command in STARTS])
def test_a_tool_starts(started: dict[str, tuple[int, str]], command: str) -> None:
    status, output = started[command]
    assert status == 0, output
    assert "error while loading shared libraries" not in output
    assert "warning" not in output.lower()


def test_apt_reads_a_signed_mirror(test_cache: Path) -> None:
    failures = []
    for mirror in default_mirrors():
        command = APT.replace("{mirror}", mirror)
        status, output = results_of(test_cache, [command], "core")[command]
        if status == 0 and "Inst hello" in output:
            return
        failures.append(output)
    pytest.fail("\n".join(failures))


def test_qemu_system_has_what_guests_start_with(test_cache: Path) -> None:
    command = f"{SYSTEM} --version && ls /usr/share/OVMF/OVMF_CODE_4M.fd /usr/share/seabios/bios-256k.bin"
    if host_arch() != "amd64":
        command = f"{SYSTEM} --version && ls /usr/share/AAVMF/AAVMF_CODE.fd"
    status, output = results_of(test_cache, [command], "core", "qemu-system")[command]
    assert status == 0, output


def test_the_tree_is_made_from_downloads_alone(test_cache: Path, tmp_path: Path) -> None:
    for package in read_lock(host_arch()).group("core"):
        blob = tmp_path / "blobs" / package.sha256[:2] / package.sha256
        kept = test_cache / blob.relative_to(tmp_path)
        if kept.exists():  # else it is fetched: a collected cache keeps only what was unpacked
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept, blob)

    def download() -> None:
        ToolsTree(tmp_path, Events()).ensure("core")

    def make() -> list[str]:
        lowers = ToolsTree(tmp_path, Events(), offline=True).ensure("core")
        return [name for name in ("usr/bin/apt-get", "usr/sbin/mke2fs") if any((low / name).exists() for low in lowers)]

    def clear() -> None:
        for name in ("packages", "tools"):
            shutil.rmtree(tmp_path / name)

    try:
        run_in_namespace(download)
        run_in_namespace(clear)
        found = run_in_namespace(make)
    finally:
        run_in_namespace(clear)  # the files have owners that only the namespace knows
    assert found == ["usr/bin/apt-get", "usr/sbin/mke2fs"]
