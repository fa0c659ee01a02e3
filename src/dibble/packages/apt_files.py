"""The package files of one build: downloaded into blobs/, unpacked into packages/, each once, some ahead of need.

What is done ahead is done again in the foreground if it failed, so that its errors are met where they belong.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from typing import TYPE_CHECKING

from dibble.errors import DibbleError
from dibble.packages import apt_in_target
from dibble.packages.base import Download
from dibble.packages.dpkg_database import Unpacked
from dibble.packages.kernel_modules import PlainModules
from dibble.packages.unpack.pool import UnpackPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dibble.events import Events
    from dibble.packages.apt_decide import AptSettings
    from dibble.packages.base import Package

KERNEL = "linux-image-"
"""Names of packages with modules begin so."""


class PackageFiles:
    """`mirrors` have the same files at the same places; libraries of `tools_root` are taken where that makes sense."""

    def __init__(self, settings: AptSettings, events: Events, tools_root: Path | None) -> None:
        self.mirrors: tuple[str, ...] = ()
        self._settings = settings
        self._events = events
        self._pool = UnpackPool(settings.packages_dir, events, _liblzma(tools_root))
        self.modules: PlainModules | None = None
        if settings.scratch:  # modules are wanted as soon as the kernel is configured, before packages of later phases
            self.modules = PlainModules(settings.scratch, functools.partial(self._pool.submit, urgent=True))
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def entry(self, package: Package) -> Path:
        """Where the package lies, or will lie, unpacked."""
        return self._pool.place(package.sha256)

    def fetch(self, packages: Sequence[Package]) -> None:
        """Download what the store lacks and unpack each package there. Raises as `fetch_all` and `unpack`."""
        missing = self._missing(packages)
        if missing:
            self._pool.begin()
            self._pool.finish(self._download(missing))
        self._begin_modules(packages)

    def begin(self, decide: Callable[[], Sequence[Package]]) -> None:
        """Fetch, in the background, the packages that `decide` comes to, which may take its time and may fail."""

        def work() -> None:
            missing = self._missing(decide())
            kernels = [package for package in missing if package.name.startswith(KERNEL)]
            self._pool.start(self._download(missing))
            if kernels:
                self._work.put(functools.partial(finish, kernels))  # what was asked for in the meantime comes first

        def finish(kernels: Sequence[Package]) -> None:
            self._pool.finish(self._download(kernels))
            self._begin_modules(kernels)

        if self._thread is None:
            self._pool.begin()
            self._thread = threading.Thread(target=self._go, name="ahead", daemon=True)
            self._thread.start()
        self._work.put(work)

    def close(self) -> None:
        """End what is done in the background."""
        self._closed = True
        self._pool.close()
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()

    def _missing(self, packages: Sequence[Package]) -> list[Package]:
        self._settings.use(package.sha256 for package in packages)
        return [package for package in packages if not self.entry(package).exists()]

    def _go(self) -> None:
        while (work := self._work.get()) is not None and not self._closed:
            with contextlib.suppress(DibbleError, OSError):
                work()

    def _begin_modules(self, packages: Sequence[Package]) -> None:
        if self.modules is not None:
            self.modules.begin(self.entry(package) / "root" for package in packages if package.name.startswith(KERNEL))

    def unpacked(self, packages: Sequence[Package]) -> list[Unpacked]:
        return [Unpacked(package, self.entry(package)) for package in packages]

    def debs(self, packages: Sequence[Package]) -> dict[str, Path]:
        """The package files, by the names that apt gives them; those that are gone from the store are fetched again."""
        blobs = self._download(packages)
        return {apt_in_target.archive_name(package): blobs[package.sha256] for package in packages}

    def _download(self, packages: Sequence[Package]) -> dict[str, Path]:
        from dibble.packages.fetch import fetch_all

        downloads = [self._as_download(package) for package in packages]
        return fetch_all(downloads, self._settings.blobs_dir, self._events, offline=self._settings.offline)

    def _as_download(self, package: Package) -> Download:
        """The package's file, which each mirror has at the same place."""
        urls = [package.url]
        for mirror in self.mirrors:
            if package.url.startswith(mirror.rstrip("/") + "/"):
                rest = package.url[len(mirror.rstrip("/")) :]
                urls += [other.rstrip("/") + rest for other in self.mirrors if other != mirror]
                break
        return Download(tuple(urls), package.sha256, package.size, package.file_name)


def _liblzma(tools_root: Path | None) -> Path | None:
    """The library in a tree whose programs run on this machine."""
    return next(iter(sorted((tools_root / "usr/lib").glob("*/liblzma.so.5"))), None) if tools_root else None
