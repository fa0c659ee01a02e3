"""What dibble itself does to the target between and after the hooks (contract.md 2.1, steps 11, 25 and 26)."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ORIGINAL = "etc/resolv.conf.ORIG"


def set_resolv_conf_aside(root: Path) -> None:
    """Keep the target's own resolv.conf as .ORIG; the host's is shown instead by a lower directory of the overlay."""
    path = root / "etc" / "resolv.conf"
    if path.is_symlink() or path.exists():
        path.rename(root / ORIGINAL)


def restore_resolv_conf(root: Path) -> None:
    """Put the target's own resolv.conf back, unless a hook made it a link on purpose."""
    path, original = root / "etc" / "resolv.conf", root / ORIGINAL
    if path.is_symlink():
        original.unlink(missing_ok=True)
        return
    path.unlink(missing_ok=True)
    if original.is_symlink() or original.exists():
        original.rename(path)


def finish_tree(root: Path) -> None:
    """Empty /tmp, the log files and root's logs; what is missing is no fault (D16)."""
    for folder in (root / "tmp", root / "var/tmp"):
        if folder.is_dir() and not folder.is_symlink():
            for entry in folder.iterdir():
                remove(entry)
    logs = root / "var/log"
    if logs.is_dir() and not logs.is_symlink():
        for path in logs.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_size:
                with path.open("w"):
                    pass
    home = root / "root"
    if home.is_dir() and not home.is_symlink():
        for path in home.glob("*.log"):
            if path.is_file():
                path.unlink()


def remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
