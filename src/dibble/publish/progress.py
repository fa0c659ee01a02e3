"""How far an upload came, on disk, so that the next try goes on there: one small file an image and target.

The first line is JSON: what the place called the upload. Each further line is a piece that the place has confirmed.
The file is locked while it is used, and removed when the image is published.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
from typing import TYPE_CHECKING

from dibble.publish.base import PublishError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Progress:
    """Of one image to one target. Methods may be called from any thread."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path
        self._lock = threading.Lock()
        text = path.read_text("utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # a crash cut the last line off; the next one must not be joined to it
            os.ftruncate(descriptor, len(whole.encode()))
        head, _, rest = whole.partition("\n")
        self.upload: dict[str, str] = {}
        with contextlib.suppress(ValueError):
            found = json.loads(head)
            if isinstance(found, dict):
                self.upload = found
        self.done: set[str] = set(rest.split()) if self.upload else set()

    def begin(self, **upload: str) -> None:
        """An upload has begun; what an earlier one had done does not count for it."""
        with self._lock:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"{json.dumps(upload)}\n".encode())
            self.upload, self.done = upload, set()

    def add(self, piece: str) -> None:
        """The place has this piece."""
        with self._lock:
            os.write(self._descriptor, f"{piece}\n".encode())
            self.done.add(piece)

    def forget(self) -> None:
        with self._lock:
            os.ftruncate(self._descriptor, 0)
            self.upload, self.done = {}, set()

    def finish(self) -> None:
        self.forget()
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def progress_of(folder: Path, image: Path, target: str, mark: str) -> Iterator[Progress]:
    """The progress of `image` to `target`. `mark` changes with the image's content. Raises PublishError when another
    process is sending the same."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256("\0".join((target, mark)).encode("utf-8", "surrogateescape")).hexdigest()[:40]
    path = folder / name
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PublishError(
                f"{image} is being published to {target} by another process", hint="wait for that one"
            ) from error
        yield Progress(descriptor, path)
    finally:
        os.close(descriptor)
