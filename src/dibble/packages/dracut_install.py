"""dracut-install, with which dracut and initramfs-tools (>= 0.143) choose and copy modules, reads plain modules.

It decompresses every module that it looks at, for filters all of a kernel's, to learn what it needs. Its calls for
modules (`stand_in.py`) are carried out by the target's own program on the files that depmod gets, too
(`kernel_modules.py`); then each file that it has copied is replaced by the packaged one. The same files come out.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from typing import TYPE_CHECKING

from dibble.packages.depmod import packaged_modules
from dibble.packages.dpkg_configure import ENVIRONMENT
from dibble.packages.stand_in import StandIn
from dibble.sandbox import mounts
from dibble.sandbox.inside import resolve_inside
from dibble.sandbox.process import run
from dibble.sandbox.syscalls import MNT_DETACH, umount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from dibble.events import Events
    from dibble.packages.kernel_modules import Plain, PlainModules
    from dibble.packages.stand_in import Started

PROGRAM = "usr/lib/dracut/dracut-install"
_MODULES = "lib/modules/"


class DracutInstall:
    """Carries out calls in one target, whose modules must not change while it does."""

    def __init__(self, modules: PlainModules | None, events: Events, started: Started | None = None) -> None:
        self._modules = modules
        self._events = events
        self._started = started

    def around(self, root: Path) -> AbstractContextManager[None]:
        """Carry out its calls for modules while the block runs, if `root` has the program."""
        modules = self._modules
        program = root / PROGRAM
        if modules is None or not modules.known or program.is_symlink() or not program.is_file():
            return contextlib.nullcontext()
        return Calls(root, modules, self._events, self._started).around()


class Calls:
    """The calls of one target, carried out by its plain `modules`."""

    def __init__(self, root: Path, modules: PlainModules, events: Events, started: Started | None) -> None:
        self._root = root
        self._started = started
        self._events = events
        self._modules = modules
        self._shown: dict[str, tuple[Path, Path] | None] = {}
        """By version: the real directory of modules, and where its plain ones are shown; None when that cannot be."""

        self._stand_in = StandIn(PROGRAM, self._carry_out)

    def around(self) -> AbstractContextManager[None]:
        """Carry them out while the block runs, whoever calls the program."""
        return self._during(self._stand_in.around(self._root))

    def beside(self) -> AbstractContextManager[None]:
        """Carry out those of who calls the script beside the program while the block runs."""
        return self._during(self._stand_in.beside(self._root))

    @contextlib.contextmanager
    def _during(self, stand_in: AbstractContextManager[None]) -> Iterator[None]:
        with stand_in:
            try:
                yield
            finally:
                self._close()

    def _close(self) -> None:
        for found in self._shown.values():
            if found is not None:
                with contextlib.suppress(OSError):
                    umount(found[1], MNT_DETACH)

    def _carry_out(self, place: Path, words: Sequence[str]) -> bool:
        """Whether the call was one of ours, and all went as with the program itself."""
        values = dict(itertools.pairwise(words))
        target, directory = values.get("-D", ""), values.get("--kerneldir", "")
        version = directory.rstrip("/").removeprefix(f"/{_MODULES}")
        if "-m" not in words or not target.startswith("/") or "/" in version or not version:
            return False
        if version not in self._shown:
            self._shown[version] = self._show(place, version)
        shown = self._shown[version]
        if shown is None:
            return False
        real, there = shown
        seen = f"/{there.relative_to(self._root)}"
        copied = resolve_inside(self._root, f"{target}/{_MODULES}{version}")
        before = set(_modules_in(copied))
        own = [f"/{place.relative_to(self._root)}/dracut-install"]
        argv = (self._started(place, PROGRAM) if self._started else None) or own
        argv += [seen if word == directory else word for word in words]
        with self._events.activity("modules"):
            done = run(argv, root=self._root, env=ENVIRONMENT, check=False)
            new = [name for name in _modules_in(copied) if name not in before]
            try:
                if done.status or done.output:
                    raise OSError(done.output)
                for name in new:
                    _copy(real / name, copied / name)
            except OSError:
                for name in new:
                    (copied / name).unlink(missing_ok=True)
                return False
        return True

    def _show(self, place: Path, version: str) -> tuple[Path, Path] | None:
        """Show a kernel's plain modules with the real tables of depmod, where the program can see them."""
        real = resolve_inside(self._root, f"/{_MODULES}{version}")
        plain = self._modules.find(version)
        if plain is None or packaged_modules(real, plain) is None:
            return None
        there = place / _MODULES / version
        there.mkdir(parents=True)
        _take_tables(real, plain)
        mounts.bind(plain.directory, there, read_only=True)
        return real, there


def _take_tables(real: Path, plain: Plain) -> None:
    for table in sorted(real.glob("modules.*")):
        shutil.copyfile(table, plain.directory / table.name)


def _modules_in(directory: Path) -> Iterator[str]:
    for folder, _, names in os.walk(directory):
        inside = os.path.relpath(folder, directory)
        for name in names:
            if ".ko" in name:
                yield name if inside == "." else f"{inside}/{name}"


def _copy(source: Path, target: Path) -> None:
    """Write the content of `source`, with its mode and time, into a file that is there, as cp(1) does."""
    status = source.stat()
    with source.open("rb") as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    target.chmod(status.st_mode & 0o7777)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
