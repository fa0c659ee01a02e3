"""LUKS2 containers are written into files as cryptsetup reads, opens and decrypts them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.contract.written_disks import DEFAULTS, MIB, cut, partitions, same_as_root, written
from tests.inside import with_tools

from dibble.disk.secrets import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

pytestmark = pytest.mark.contract

PASSPHRASE, KEY = b"correct horse", bytes(range(256)) + b"\n"
SECRETS = {"disk": Secret("disk", "1", PASSPHRASE + b"\n"), "key": Secret("key", "2", KEY)}
SECRET = replace(DEFAULTS, secrets=SECRETS)
ROOT = "mkfs: {name: fs, type: ext4, mount: {mount_point: /}}"
ON_PARTITION = (
    partitions(a="100%") + f"- luks: {{name: crypt, base: a, passphrase: disk, key_file: key, label: moon, {ROOT}}}\n"
)
FAST = "pbkdf: pbkdf2, iterations: 1000"


def opens(toolbox: Toolbox, container: Path, secret: bytes) -> bool:
    """Whether cryptsetup finds the volume key with a secret."""
    argv = ["cryptsetup", "--disable-locks", "luksOpen", "--test-passphrase", "--key-file=-", toolbox.path(container)]
    done = toolbox.run(argv, stdin=secret, check=False)
    assert done.status == 0 or "No key available" in done.output, done.output
    return done.status == 0


def metadata(toolbox: Toolbox, container: Path) -> dict[str, dict[str, dict[str, object]]]:
    argv = ["cryptsetup", "--disable-locks", "luksDump", "--dump-json-metadata", toolbox.path(container)]
    found: dict[str, dict[str, dict[str, object]]] = json.loads(toolbox.run(argv).output)
    return found


def decrypt(toolbox: Toolbox, container: Path, size: int) -> Path:
    """The content as cryptsetup itself decrypts it, which it leaves at the beginning of the file."""
    key, header = container.with_suffix(".key"), container.with_suffix(".header")
    key.write_bytes(PASSPHRASE)
    argv = ["cryptsetup", "--disable-locks", "-q", "reencrypt", "--decrypt", "--force-offline-reencrypt", "--header"]
    toolbox.run([*argv, toolbox.path(header), "--key-file", toolbox.path(key), toolbox.path(container)])
    os.truncate(container, size)
    return container


def test_cryptsetup_reads_opens_and_decrypts_a_container(test_cache: Path) -> None:
    def work(toolbox: Toolbox, directory: Path) -> None:
        disk = written(toolbox, directory, ON_PARTITION, defaults=SECRET)
        size = disk.layout.extents["crypt"].size
        assert disk.layout.extents["a"].size - size == 16 * MIB
        container = cut(disk, "a")
        said = toolbox.run(["cryptsetup", "--disable-locks", "luksDump", toolbox.path(container)]).output
        lines = {line.split(":")[0].strip(): line.partition(":")[2].strip() for line in said.splitlines()}
        assert (lines["Version"], lines["Label"]) == ("2", "moon")
        assert (lines["PBKDF"], lines["Memory"], lines["Threads"]) == ("argon2id", "65536", "4")
        found = metadata(toolbox, container)
        assert list(found["keyslots"]) == ["0", "1"]
        assert found["segments"]["0"]["size"] == "dynamic"
        assert opens(toolbox, container, PASSPHRASE)
        assert opens(toolbox, container, KEY), "a key file counts as it is, with its newline"
        assert not opens(toolbox, container, PASSPHRASE + b"\n"), "what is typed has none"
        assert not opens(toolbox, container, KEY[:-1])
        # The second copy of the header is as good as the first.
        with container.open("r+b") as file:
            file.write(bytes(512))
        assert opens(toolbox, container, PASSPHRASE)
        assert same_as_root(toolbox, directory / "root", decrypt(toolbox, container, size))

    with_tools(test_cache, work, "volumes")


LVM = "vgs: [{name: vg, base: pv}], lvs: [{name: lv, base: vg, extents: 100%FREE"
NESTED = {
    "on a logical volume": (
        partitions(a="100%")
        + f"- lvm: {{name: lvm, pvs: [{{name: pv, base: a}}], {LVM}}}]}}\n"
        + f"- luks: {{name: crypt, base: lv, passphrase: disk, {FAST}, {ROOT}}}\n"
    ),
    "on a mirror, with large sectors and a short key": (
        partitions(a="80MiB", b="80MiB")
        + "- raid: {name: array, base: [a, b], level: 1}\n"
        + f"- luks: {{name: crypt, base: array, passphrase: disk, sector_size: 4096, key_size: 256, {FAST}, {ROOT}}}\n"
    ),
    "with large sectors on a disk of odd size": (
        f"- local_loop: {{name: image0, size: {80 * MIB + 512}B}}\n"
        + f"- luks: {{name: crypt, base: image0, passphrase: disk, sector_size: 4096, {FAST}, {ROOT}}}\n"
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_container_stands_on_whatever_is_a_device(test_cache: Path, name: str) -> None:
    def work(toolbox: Toolbox, directory: Path) -> None:
        disk = written(toolbox, directory, NESTED[name], defaults=SECRET)
        layout, device = disk.layout, {"on a l": "lv", "on a m": "a", "with l": "image0"}[name[:6]]
        container = cut(disk, device)
        if name.startswith("on a mirror"):  # what the array holds begins behind its superblock
            whole = container.read_bytes()
            container.write_bytes(whole[MIB : MIB + layout.extents["array"].size])
        assert opens(toolbox, container, PASSPHRASE)
        segment = metadata(toolbox, container)["segments"]["0"]
        size = layout.extents["crypt"].size
        assert segment["size"] == (str(size) if "odd" in name else "dynamic")
        assert size % 4096 == 0
        # cryptsetup decrypts a file of whole sectors only.
        os.truncate(container, 16 * MIB + size)
        assert same_as_root(toolbox, directory / "root", decrypt(toolbox, container, size))

    with_tools(test_cache, work, "volumes")


def test_volumes_stand_in_a_container(test_cache: Path) -> None:
    text = (
        partitions(a="100%")
        + f"- luks: {{name: crypt, base: a, passphrase: disk, {FAST}}}\n"
        + f"- lvm: {{name: lvm, pvs: [{{name: pv, base: crypt}}], {LVM}, {ROOT}}}]}}\n"
    )

    def work(toolbox: Toolbox, directory: Path) -> None:
        disk = written(toolbox, directory, text, defaults=SECRET)
        opened = decrypt(toolbox, cut(disk, "a"), disk.layout.extents["crypt"].size)
        said = toolbox.run(["lvm", "pvck", "--dump", "metadata", toolbox.path(opened)]).output
        assert "CHECK" not in said
        lv = disk.layout.extents["lv"]
        alone = directory / "lv"
        alone.write_bytes(opened.read_bytes()[lv.offset : lv.offset + lv.size])
        assert same_as_root(toolbox, directory / "root", alone)

    with_tools(test_cache, work, "volumes")


def test_the_same_secrets_and_content_give_the_same_bytes_and_others_share_nothing(test_cache: Path) -> None:
    text = ON_PARTITION.replace("label: moon", FAST)

    def work(toolbox: Toolbox, directory: Path) -> None:
        def container(number: int, text: str = text, passphrase: bytes = PASSPHRASE) -> bytes:
            secrets = {**SECRETS, "disk": Secret("disk", "1", passphrase)}
            disk = written(toolbox, directory, text, number, replace(DEFAULTS, secrets=secrets))
            return cut(disk, "a").read_bytes()

        first = container(0)
        assert container(1) == first
        chance = text.replace("key_file: key", "key_file: key, volume_key: random")
        others = [container(2, passphrase=b"other"), container(3, chance), container(4, chance)]
        (directory / "root" / "home" / "note").write_text("another\n")
        others.append(container(5))
        for other in others:
            same = sum(first[at : at + 512] == other[at : at + 512] for at in range(16 * MIB, len(first), 512))
            assert same == 0
            assert first[:4096] != other[:4096]
        assert others[1] != others[2]

    with_tools(test_cache, work, "volumes")
