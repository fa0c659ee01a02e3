"""A disk is written to a block device and to an iSCSI target: byte for byte, sparse, never over what is there."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.contract

MIB = 1 << 20
SIZE = 64 * MIB
ROOM = 96 * MIB
DATA_AT = (0, 5 * MIB, 33 * MIB + 4096, SIZE - 4096)
TARGET = "iqn.2026-01.example:disk"
PASSWORD = "correcthorse12"
Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with data at both ends and between, the first sector as one with a partition table."""
    path = tmp_path_factory.mktemp("disk") / "moon.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for place in DATA_AT:
            file.seek(place)
            file.write(bytes(range(256)) * 16)
        file.seek(510)
        file.write(b"\x55\xaa")
    return path


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Run]:
    def run(image: Path, target: object, *more: str, works: bool = True, **environment: str) -> Run:
        cache = os.environ.get("DIBBLE_TEST_CACHE") or str(tmp_path / "cache")
        base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DIB_IMAGE_CACHE": cache, "PYTHONPATH": "src"}
        passed = {key: value for key, value in os.environ.items() if key.startswith("DIB_DISTRIBUTION")}
        argv = [sys.executable, "-m", "dibble", "publish", str(image), "--to", str(target), *more]
        done = subprocess.run(argv, env={**passed, **base, **environment}, text=True, capture_output=True, check=False)
        said = done.stdout + done.stderr
        assert (done.returncode == 0) is works, said
        assert "Traceback" not in said
        assert PASSWORD not in said
        return done

    return run


@contextlib.contextmanager
def looped(file: Path) -> Iterator[Path]:
    """A block device whose bytes are the file's."""
    made = subprocess.run(["losetup", "--find", "--show", file], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"there are no loop devices here: {made.stderr}")
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A device of 96 MiB, and the file behind it."""
    file = tmp_path / "device"
    with file.open("wb") as made:
        made.truncate(ROOM)
    with looped(file) as found:
        yield found, file


def same(image: Path, written: Path) -> bool:
    """Whether the beginning is the image, and the end, where an older table may have stood, is clear."""
    subprocess.run(["sync", written], check=True)
    data = written.read_bytes()
    return data[:SIZE] == image.read_bytes() and not data[-4 * MIB :].strip(b"\0")


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="root alone makes loop devices")


@needs_root
def test_a_blank_device_gets_the_disk_and_its_holes_stay_holes(
    image: Path, device: tuple[Path, Path], publish: Callable[..., Run]
) -> None:
    path, file = device
    assert publish(image, path).stdout.split() == [str(path)]
    assert same(image, file)
    assert file.stat().st_blocks * 512 < MIB
    done = publish(image, path, works=False)
    assert f"{path} is not empty: it holds partitions or a boot sector" in done.stderr
    assert "--force" in done.stderr


@needs_root
def test_what_a_device_holds_is_named_and_written_over_by_force_alone(
    image: Path, device: tuple[Path, Path], publish: Callable[..., Run], tmp_path: Path
) -> None:
    path, file = device
    table = tmp_path / "table"
    shutil.copyfile(file, table)
    subprocess.run(["sgdisk", "-n1:2048:4095", table], check=True, capture_output=True)
    end = table.read_bytes()[-MIB:]
    cases: list[tuple[list[str], str]] = [
        (["mkfs.ext4", "-q", "-F", str(path)], "a file system (ext2, ext3 or ext4)"),
        (["mkswap", str(path)], "swap space"),
    ]
    before = b""
    for argv, what in cases:
        subprocess.run(argv, check=True, capture_output=True)
        before = file.read_bytes()
        assert f"it holds {what}" in publish(image, path, works=False).stderr
        assert file.read_bytes() == before, "nothing was written"
    with path.open("r+b") as disk:  # all that an old table has left
        disk.seek(ROOM - MIB)
        disk.write(end)
        disk.seek(SIZE - 8192)
        disk.write(b"x" * 4096)
    publish(image, f"device://{path}", "--force")
    assert same(image, file)


@needs_root
def test_a_device_in_use_is_never_written(
    image: Path, device: tuple[Path, Path], publish: Callable[..., Run], tmp_path: Path
) -> None:
    path, _ = device
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    subprocess.run(["mount", path, place], check=True)
    try:
        done = publish(image, path, "--force", works=False)
        assert f"{path} is in use: {path} is mounted at {place}" in done.stderr
        assert (place / "lost+found").is_dir()
    finally:
        subprocess.run(["umount", place], check=True)
    subprocess.run(["mkswap", path], check=True, capture_output=True)
    if subprocess.run(["swapon", path], check=False, capture_output=True).returncode == 0:
        try:
            assert f"{path} is swap space" in publish(image, path, "--force", works=False).stderr
        finally:
            subprocess.run(["swapoff", path], check=True)


@needs_root
def test_a_device_that_is_too_small_is_told_by_how_much(
    image: Path, publish: Callable[..., Run], tmp_path: Path
) -> None:
    file = tmp_path / "small"
    file.write_bytes(bytes(SIZE - 3 * MIB))
    with looped(file) as path:
        done = publish(image, path, works=False)
    assert f"{path} has {SIZE - 3 * MIB} bytes, the disk needs {SIZE}" in done.stderr
    assert "3 MiB are missing" in done.stderr


@contextlib.contextmanager
def exported(file: Path, place: Path) -> Iterator[str]:
    """tgt's own daemon in user space, which exports the file; gives host and port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    control = str(20000 + port % 10000)  # the number of its control socket
    environment = {**os.environ, "TGT_IPC_SOCKET": str(place / "control")}
    argv = ["tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"]
    server = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def say(*words: str, check: bool = True) -> bool:
        argv = ["tgtadm", "-C", control, "--lld", "iscsi", *words]
        return subprocess.run(argv, env=environment, check=check, capture_output=True).returncode == 0

    try:
        new = ("--op", "new", "--mode")
        until = time.monotonic() + 30
        while not say(*new, "target", "--tid", "1", "-T", TARGET, check=False):
            assert time.monotonic() < until, "tgtd does not answer"
            assert server.poll() is None, "tgtd has ended"
            time.sleep(0.1)
        lun = ("--tid", "1", "--lun", "1")
        say(*new, "logicalunit", *lun, "-b", str(file))
        say("--op", "update", "--mode", "logicalunit", *lun, "--params", "thin_provisioning=1")
        say(*new, "account", "--user", "ada", "--password", PASSWORD)
        say("--op", "bind", "--mode", "account", "--tid", "1", "--user", "ada")
        say("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.mark.skipif(os.getuid() != 0, reason="tgtd wants to be root")
def test_an_iscsi_target_gets_the_disk_from_any_format(
    image: Path, publish: Callable[..., Run], tmp_path: Path
) -> None:
    file, qcow2 = tmp_path / "lun", tmp_path / "moon.qcow2"
    with file.open("wb") as made:
        made.truncate(ROOM)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, qcow2], check=True)
    login = {"LIBISCSI_CHAP_USERNAME": "ada", "LIBISCSI_CHAP_PASSWORD": PASSWORD}
    with exported(file, tmp_path) as portal:
        target = f"iscsi://{portal}/{TARGET}/1"
        assert "Authentication failure" in publish(image, target, works=False).stderr
        assert publish(image, target, **login).stdout.split() == [target]
        assert same(image, file)
        assert file.stat().st_blocks * 512 < 8 * MIB, "what is zero was given back, not written"
        assert "is not empty: it holds partitions" in publish(qcow2, target, works=False, **login).stderr
        with file.open("r+b") as disk:
            disk.seek(SIZE - 8192)
            disk.write(b"x" * 16384)
        publish(qcow2, target, "--force", **login)
        assert same(image, file)
        none = publish(image, f"iscsi://{portal}/{TARGET}x/1", works=False, **login)
        assert "Target not found" in none.stderr


@pytest.mark.parametrize(
    ("target", "more", "expected"),
    [
        ("/dev/there-is-none", (), "there is no device /dev/there-is-none"),
        ("/dev/null", (), "/dev/null is no block device"),
        (__file__, (), "is no block device"),
        ("iscsi://portal/iqn.x", (), "names no disk"),
        ("iscsi://me%secret@portal/iqn.x/1", (), "a password in the target"),
        ("s3://bucket", ("--force",), "s3 overwrites nothing"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_mend(
    image: Path, publish: Callable[..., Run], target: str, more: tuple[str, ...], expected: str
) -> None:
    done = publish(image, target, *more, works=False)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "hint:" in done.stderr
