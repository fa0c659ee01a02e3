"""What a test needs of its host and not every host has: unit tests run on all kinds of them (the row `tox`)."""

from __future__ import annotations

import functools
import os
import shutil
import stat
import tempfile

import pytest


def programs(*names: str) -> pytest.MarkDecorator:
    """Skips a test where one of the programs is missing."""
    missing = [name for name in names if not shutil.which(name)]
    return pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not installed")


@functools.cache
def _makes_devices() -> bool:
    with tempfile.TemporaryDirectory() as place:
        try:
            os.mknod(f"{place}/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            return False
    return True


def devices() -> pytest.MarkDecorator:
    """Skips a test where no devices can be made: an ordinary user cannot, nor can the root of a user namespace."""
    return pytest.mark.skipif(not _makes_devices(), reason="devices cannot be made here")
