"""The command that scripts ask about the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dibble.cli import dib_block_device

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

CONFIG = """\
- local_loop:
    name: image0
- partitioning:
    base: image0
    label: gpt
    partitions:
      - name: boot
        size: 100MiB
        mkfs: {type: ext4, label: the-boot, mount: {mount_point: /boot, fstab: {options: defaults}}}
      - name: root
        size: 100%
        mkfs: {mount: {mount_point: /, fstab: {options: rw, fsck-passno: 1}}}
"""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    file = tmp_path / "params.yaml"
    file.write_text(
        f"config: {tmp_path}/config.yaml\nimage-dir: {tmp_path}/image\nroot-fs-type: ext4\nroot-label:\n"
        f"mount-base: {tmp_path}/mnt\nbuild-dir: {tmp_path}/build\n"
    )
    return file


@pytest.mark.parametrize(
    ("symbol", "value"),
    [
        ("root-label", "cloudimg-rootfs"),
        ("root-fstype", "ext4"),
        ("boot-label", "the-boot"),
        ("mount-points", "/boot|/"),
        ("image-path", "{}/image/image0.raw"),
    ],
)
def test_it_tells_what_the_description_says(
    params: Path, symbol: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = value.format(params.parent) + "\n"
    assert dib_block_device.main(["--params", str(params), "getval", symbol]) == 0
    assert capsys.readouterr().out == expected
    monkeypatch.setattr("os.environ", {"DIB_BLOCK_DEVICE_PARAMS_YAML": str(params)})
    assert dib_block_device.main(["getval", symbol]) == 0
    assert capsys.readouterr().out == expected


def test_an_unknown_symbol_is_an_error(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dib_block_device.main(["--params", str(params), "getval", "root-labl"]) == 1
    assert "did you mean root-label" in capsys.readouterr().err
    assert dib_block_device.main(["--params", str(params), "getval", "image-block-device"]) == 1


def test_the_fstab_is_written(params: Path) -> None:
    assert dib_block_device.main(["--params", str(params), "init"]) == 0
    assert (params.parent / "build/states/block-device/config.yaml").read_text() == CONFIG
    assert dib_block_device.main(["--params", str(params), "writefstab"]) == 0
    lines = (params.parent / "build/built/etc/fstab").read_text().splitlines()[1:]
    assert lines == ["LABEL=cloudimg-rootfs / ext4 rw 0 1", "LABEL=the-boot /boot ext4 defaults 0 2"]


def test_nothing_is_created_and_nothing_to_undo(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dib_block_device.main(["--params", str(params), "create"]) == 1
    assert "dibble build" in capsys.readouterr().err
    for command in ("umount", "cleanup", "delete"):
        assert dib_block_device.main(["--params", str(params), command]) == 0


def test_a_wrong_description_is_told_with_its_place(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (params.parent / "config.yaml").write_text(CONFIG.replace("label: gpt", "label: gtp"))
    assert dib_block_device.main(["--params", str(params), "init"]) == 1
    assert "config.yaml:5" in capsys.readouterr().err
    assert dib_block_device.main(["--params", str(params.parent / "none"), "init"]) == 1


@pytest.mark.parametrize("words", [["init"], ["--params", "x", "nothing"], ["--params", "x", "getval"]])
def test_a_wrong_command_line_is_status_2(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIB_BLOCK_DEVICE_PARAMS_YAML", raising=False)
    with pytest.raises(SystemExit) as caught:
        dib_block_device.main(words)
    assert caught.value.code == 2
