"""All outputs of one image: those of the tree beside those of the disk, which begin while the disk is being filled."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from dibble.errors import OutputError, ToolFailed
from dibble.events import Activity, ArtifactWritten, Events
from dibble.outputs.base import MAIN_IMAGE, Writing
from dibble.outputs.place import placing
from dibble.registry import load
from dibble.store.sparse import copy_sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dibble.disk.model import Disk
    from dibble.events import Event
    from dibble.outputs.base import Output, Source
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox

    Begun: TypeAlias = Callable[[Mapping[str, Path]], None]
    """Called with the disk's files (image → raw file) when they are there but empty."""


def write_outputs(
    source: Source,
    request: Request,
    toolbox: Toolbox,
    events: Events,
    *,
    epoch: int,
    make_disk: Callable[[Begun, Events], Disk] | None = None,
    written: Callable[[str, Sequence[Path]], None] = lambda name, files: None,
) -> list[Path]:
    """Write every requested format and return the files, without their checksum files, those of the tree first.

    `make_disk` fills the disk when `source` has none and a format reads it. Formats of the tree are written one after
    another in a thread meanwhile; those of the disk follow in the order in which they were given, and what uses the
    disk up is last. `written` is told of each complete format (name, files), in yet another thread.

    The disk image0 gives N.SUFFIX, another one, D, N-D.SUFFIX, unless a format holds all disks in one file. Raises
    OutputError or ToolFailed, the first one that happened: nothing is begun after it, and what goes on ends at its next
    sign of progress. What was complete stays.
    """
    formats: dict[str, Output] = {name: load("outputs", name)() for name in request.outputs}
    of_tree = {name: output for name, output in formats.items() if output.info.reads == "tree"}
    of_disk = {name: output for name, output in formats.items() if output.info.reads == "disk"}
    with _Run(request, toolbox, events, epoch, written) as run:
        if not of_disk:
            return run.write_all(of_tree, source, [_main(source)])
        tree = run.beside(lambda: run.write_all(of_tree, source, [_main(source)])) if of_tree else None
        with contextlib.ExitStack() as stack:
            if make_disk is not None and source.disk is None:
                source = _with_disk(source, make_disk, run, stack)
            last_of_all = sorted(of_disk, key=lambda name: of_disk[name].info.uses_up_the_disk)
            files = run.write_all({name: of_disk[name] for name in last_of_all}, source, _images(source))
        return [*(tree.result() if tree else []), *files]


def place_files(form: str, files: Mapping[str, Path], request: Request, events: Events) -> list[Path]:
    """Put copies of a format's stored files at their final names (relative to `request.cwd` → stored); in that order.

    Never hard links: what the user does to an image must not reach the store.
    """
    placed = []
    suffix = load("outputs", form).info.suffix
    for name, stored in files.items():
        began = time.monotonic()
        with placing(name, request, events, suffix=suffix) as fresh:
            copy_sparse(stored, fresh)
        placed.append(_written(name, form, request, events, began))
    return placed


class _Stopped(Exception):
    """Another output has failed: this one need not go on."""


class _Stoppable(Events):
    """Passes everything on to `events`; once stopped, whoever says that it goes on is told to end.

    Ends of activities are still passed on, so that each one that began has its end.
    """

    def __init__(self, events: Events) -> None:
        super().__init__()
        self._events = events
        self.stopped = threading.Event()

    def send(self, event: Event) -> None:
        if self.stopped.is_set() and isinstance(event, Activity) and not event.finished:
            raise _Stopped
        self._events.send(event)


@dataclass
class _Run:
    """The outputs of one build. As a context manager it waits for all threads and raises the first error."""

    request: Request
    toolbox: Toolbox
    real_events: Events
    epoch: int
    told: Callable[[str, Sequence[Path]], None]

    def __enter__(self) -> _Run:
        self.events = _Stoppable(self.real_events)
        self._lock = threading.Lock()
        self._first: BaseException | None = None
        self._pending: list[Future[None]] = []
        self._beside = ThreadPoolExecutor(1, "outputs of the tree")
        self._afterwards = ThreadPoolExecutor(1, "written outputs")
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            self._fail(error)
        self._beside.shutdown()
        self._afterwards.shutdown()
        for future in self._pending:
            if (later := future.exception()) is not None:
                self._fail(later)
        if self._first is not None and self._first is not error:
            raise self._first

    def beside(self, work: Callable[[], list[Path]]) -> Future[list[Path]]:
        """Do a piece of work in another thread."""

        def run() -> list[Path]:
            try:
                return work()
            except BaseException as error:
                self._fail(error)
                raise

        return self._beside.submit(run)

    def write_all(self, formats: Mapping[str, Output], source: Source, images: Sequence[str]) -> list[Path]:
        """Write formats one after another, each for all images, the main one first."""
        written = []
        for name, output in formats.items():
            wanted = images[:1] if output.info.holds_all_disks else images
            files = [self._write(name, output, source, image) for image in wanted]
            self._pending.append(self._afterwards.submit(self.told, name, files))
            written += files
        return written

    def _write(self, name: str, output: Output, source: Source, image: str) -> Path:
        if self.events.stopped.is_set():
            raise _Stopped
        more = "" if image == _main(source) else f"-{image}"
        file = f"{self.request.name}{more}.{output.info.suffix}"
        began = time.monotonic()
        with placing(file, self.request, self.events, suffix=output.info.suffix) as fresh:
            try:
                output.write(Writing(source, fresh, self.request, self.toolbox, self.events, self.epoch, image))
            except ToolFailed as error:
                if "No space left on device" not in error.output:
                    raise
                raise _no_room(file) from error
            if self.events.stopped.is_set():
                raise _Stopped
        return _written(file, name, self.request, self.events, began)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._first is None and not isinstance(error, _Stopped):
                self._first = error
        self.events.stopped.set()


def _with_disk(
    source: Source, make_disk: Callable[[Begun, Events], Disk], run: _Run, stack: contextlib.ExitStack
) -> Source:
    """The source with its disk. Clusters for qcow2 are compressed while the disk is filled; `stack` ends that."""
    from dibble.outputs.qcow2 import is_ours
    from dibble.outputs.qcow2_ahead import Ahead

    ahead: dict[str, Ahead] = {}

    def begun(images: Mapping[str, Path]) -> None:
        if "qcow2" in run.request.outputs and is_ours(run.request):
            ahead.update({name: stack.enter_context(Ahead(raw, raw.parent)) for name, raw in images.items()})

    disk = make_disk(begun, run.events)
    return replace(source, disk=disk, ahead=ahead)


def _main(source: Source) -> str:
    images = list(source.disk.images) if source.disk else []
    return MAIN_IMAGE if MAIN_IMAGE in images or not images else images[0]


def _images(source: Source) -> list[str]:
    """The disks to write, the main one first."""
    assert source.disk is not None
    main = _main(source)
    return [main, *(name for name in source.disk.images if name != main)]


def _written(file: str, name: str, request: Request, events: Events, began: float) -> Path:
    final = request.cwd / file
    status = final.stat()
    events.send(
        ArtifactWritten(
            path=file,
            format=name,
            size=status.st_size,
            allocated=status.st_blocks * 512,
            seconds=time.monotonic() - began,
        )
    )
    return final


def _no_room(file: str) -> OutputError:
    return OutputError(
        f"no room to convert the disk to {file}",
        hint="free space in the cache, or give another directory with --image-cache or the variable DIB_IMAGE_CACHE",
    )
