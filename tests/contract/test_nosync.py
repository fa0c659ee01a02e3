"""Programs that are not to wait for the disk do not, and all else that they do is done."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from dibble.sandbox.process import run

pytestmark = pytest.mark.contract

PROGRAM = """
import errno, os, sys
reader, writer = os.pipe()
for call in (os.fsync, os.fdatasync):
    try:
        call(writer)
        print(call.__name__, "done")
    except OSError as error:
        print(call.__name__, errno.errorcode[error.errno])
os.write(writer, b"x")
print(os.read(reader, 1).decode())
"""


@pytest.mark.parametrize(("durable", "said"), [(True, "EINVAL"), (False, "done")])
def test_syncs_of_a_program_and_its_children_are_made_only_when_they_are_wanted(durable: bool, said: str) -> None:
    """The kernel refuses to sync a pipe: so one sees whether it was asked."""
    if os.getuid() != 0:
        pytest.skip("the filter needs CAP_SYS_ADMIN, which builds have in their namespace")
    shell = shutil.which("sh")
    assert shell is not None
    python = sys.executable
    done = run([shell, "-c", '"$0" -c "$1"; exit 0', python, PROGRAM], env={"PATH": os.defpath}, durable=durable)
    assert done.output.split() == ["fsync", said, "fdatasync", said, "x"]
