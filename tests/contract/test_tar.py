"""The tar output as GNU tar reads it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.unit.output_values import EPOCH, request

from dibble.events import Events
from dibble.outputs.base import Source, Writing
from dibble.outputs.tar import Tar
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.contract

# vfs_cap_data, version 2, cap_net_raw permitted and effective; an ACL with a named user (version 2)
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACL = bytes.fromhex("0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000400ffffffff")


@pytest.mark.skipif(os.getuid() != 0, reason="only root sets owners and capabilities")
def test_gnu_tar_takes_everything_out_again_without_a_word(tmp_path: Path) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    (root / ("d" * 120)).mkdir(parents=True)
    out.mkdir()
    file = root / ("d" * 120) / "fïle"
    file.write_bytes(os.urandom(100_000))
    os.chown(file, 70_000, 3_000_000)
    file.chmod(0o4664)
    attributes = {"security.capability": CAPABILITY, "system.posix_acl_access": ACL, "user.bytes": b"\xff\n\0="}
    for name, value in attributes.items():
        os.setxattr(file, name, value)
    (root / "hard").hardlink_to(file)
    (root / "soft").symlink_to("x" * 150)
    os.utime(file, (EPOCH - 10, EPOCH - 10))
    mode = file.stat().st_mode  # as the ACL makes it

    Tar().write(Writing(Source(root, None), tmp_path / "N.tar", request(tmp_path), HostToolbox(), Events(), EPOCH))
    command = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "../N.tar"]
    done = subprocess.run(command, cwd=out, check=True, capture_output=True, text=True)

    assert done.stderr == ""
    found = out / file.relative_to(root)
    status = found.stat()
    assert found.read_bytes() == file.read_bytes()
    assert (status.st_uid, status.st_gid, status.st_mode, status.st_mtime) == (70_000, 3_000_000, mode, EPOCH - 10)
    assert {name: os.getxattr(found, name) for name in os.listxattr(found)} == attributes
    assert (out / "hard").stat().st_ino == status.st_ino
    assert str((out / "soft").readlink()) == "x" * 150
