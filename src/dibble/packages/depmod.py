"""depmod without its long part: the modules of a kernel are decompressed ahead, once, by several processes.

The calls that kernels, initramfs-tools and dracut make (`stand_in.py`) are carried out by the target's own depmod
on plain files (`kernel_modules.py`); what it writes is the same, byte for byte. Any other call, or one about modules
that are not those of the package, is the program's own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.packages.dpkg_configure import ENVIRONMENT
from dibble.packages.stand_in import StandIn
from dibble.sandbox import mounts
from dibble.sandbox.inside import resolve_inside
from dibble.sandbox.process import run
from dibble.sandbox.syscalls import MNT_DETACH, umount

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from dibble.events import Events
    from dibble.packages.kernel_modules import Plain, PlainModules
    from dibble.packages.stand_in import Started

PROGRAM = "usr/sbin/depmod"
_GIVEN = ("modules.order", "modules.builtin", "modules.builtin.modinfo")
"""What depmod reads beside the modules; all other files of that kind it makes."""
_NOT_SEARCHED = ("build", "source")
_CONFIGURATION = ("etc/depmod.d", "run/depmod.d", "usr/local/lib/depmod.d", "usr/lib/depmod.d", "lib/depmod.d")


class Depmod:
    """Carries out depmod calls in one target. `modules` knows the plain modules of its kernels."""

    def __init__(self, modules: PlainModules | None, events: Events, started: Started | None = None) -> None:
        self._modules = modules
        self._events = events
        self._started = started

    def around(self, root: Path) -> AbstractContextManager[None]:
        """Carry out its calls while the block runs, once `root` has the program as a link to kmod."""
        modules = self._modules
        is_kmod = (root / PROGRAM).is_symlink() and (root / "usr/bin/kmod").is_file()
        if modules is None or not modules.known or not is_kmod:
            return contextlib.nullcontext()
        return self.stand_in(root, modules).around(root)

    def stand_in(self, root: Path, modules: PlainModules) -> StandIn:
        """What carries out the calls of a root, by its plain `modules`."""
        return StandIn(PROGRAM, lambda place, words: self._carry_out(modules, root, place, words))

    def placed(self, root: Path, package: Path) -> None:
        """Take note that the files of an unpacked package have just been copied into `root`."""
        if self._modules is not None:
            self._modules.placed(package, lambda version: resolve_inside(root, f"/lib/modules/{version}"))

    def _carry_out(self, modules: PlainModules, root: Path, place: Path, words: Sequence[str]) -> bool:
        """Whether the call was one of ours, and all went as with the program itself."""
        match list(words):
            case [version] | ["-a", version] if not version.startswith("-"):
                base = "/"
            case ["-a", "-b", base, version]:
                pass
            case _:
                return False
        if not base.startswith("/") or _has_external(root):
            return False
        plain = modules.find(version)
        if plain is None:
            return False
        return self._run(root, place, resolve_inside(root, f"{base}/lib/modules/{version}"), plain)

    def _run(self, root: Path, place: Path, real: Path, plain: Plain) -> bool:
        work = place / "work"
        stand_in = work / "lib/modules" / real.name
        shutil.rmtree(work, ignore_errors=True)
        stand_in.mkdir(parents=True)
        shown = place / "plain"
        shown.mkdir(exist_ok=True)
        seen = f"/{place.relative_to(root)}"
        if not _make_stand_in(real, stand_in, plain, f"{seen}/plain"):
            return False
        mounts.bind(plain.directory, shown, read_only=True)
        try:
            started = self._started(place, "usr/bin/kmod") if self._started else None
            if started:  # kmod(8) goes by its name
                started[1:1] = ["--argv0", "depmod"]
            argv = [*(started or [f"{seen}/depmod"]), "-b", f"{seen}/work", real.name]
            with self._events.activity("depmod"):
                done = run(argv, root=root, env=ENVIRONMENT, check=False)
        finally:
            umount(shown, MNT_DETACH)
        if done.status or done.output:
            return False
        for made in sorted(stand_in.iterdir()):
            if made.is_file() and made.name not in _GIVEN:
                new = real / f"{made.name}.new"
                shutil.copy(made, new)
                new.rename(real / made.name)
        return True


def _make_stand_in(real: Path, stand_in: Path, plain: Plain, shown: str) -> bool:
    """Make `stand_in` hold what depmod reads of `real`, with links to plain modules, shown at the path `shown`.

    False when `real` holds a module that is not the package's.
    """
    names = packaged_modules(real, plain)
    if names is None:
        return False
    for name in names:
        (stand_in / name).parent.mkdir(parents=True, exist_ok=True)
        (stand_in / name).symlink_to(f"{shown}/{name}")
    for name in _GIVEN:
        if (real / name).exists():
            shutil.copy(real / name, stand_in / name)
    return True


def packaged_modules(real: Path, plain: Plain) -> list[str] | None:
    """The names of the modules in `real`; None when there is another than the package's or a directory is a link."""
    found = []
    for directory, folders, names in os.walk(real):
        inside = os.path.relpath(directory, real).removeprefix(".")
        if any(Path(directory, name).is_symlink() for name in folders if name not in _NOT_SEARCHED):
            return None
        for name in names:
            if ".ko" not in name:
                continue
            path = f"{inside}/{name}".lstrip("/")
            file = Path(directory, name)
            if not plain.is_packaged(path, file):
                return None
            found.append(path)
    return found


def _has_external(root: Path) -> bool:
    """Whether depmod is told of modules in other directories (depmod.d(5))."""
    folders = (resolve_inside(root, folder) for folder in _CONFIGURATION)
    files = (file for folder in folders if folder.is_dir() for file in folder.iterdir() if file.is_file())
    return any("external" in file.read_text("utf-8", "replace") for file in files)
