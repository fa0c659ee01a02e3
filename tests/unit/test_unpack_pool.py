"""Worker processes that unpack packages, some ahead of need."""

from __future__ import annotations

import multiprocessing
import os
import time
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from tests.unit.debs import ROOT, File, deb_of

from dibble.errors import HostError, PackageError
from dibble.events import Events
from dibble.packages.unpack.pool import UnpackPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[UnpackPool]:
    pool = UnpackPool(tmp_path / "packages", Events())
    yield pool
    pool.close()


def debs(folder: Path, *contents: bytes) -> dict[str, Path]:
    found = {}
    for content in contents:
        data = deb_of([ROOT, File("./a", content)]) if content else b"damaged"
        name = sha256(data).hexdigest()
        (folder / name).write_bytes(data)
        found[name] = folder / name
    return found


def test_what_was_begun_ahead_is_there_when_it_is_needed(tmp_path: Path, pool: UnpackPool) -> None:
    files = debs(tmp_path, b"one", b"two", b"three")
    pool.start(files)
    pool.start(files)
    pool.finish(files)
    assert {(pool.place(name) / "root/a").read_bytes() for name in files} == {b"one", b"two", b"three"}


def test_a_fault_is_met_where_the_package_is_needed_each_time(tmp_path: Path, pool: UnpackPool) -> None:
    good, bad = debs(tmp_path, b"one"), debs(tmp_path, b"")
    pool.start({**good, **bad})
    pool.finish(good)
    for _ in range(2):
        with pytest.raises(PackageError, match="not an ar archive"):
            pool.finish(bad)


def test_a_worker_that_is_killed_is_told(tmp_path: Path, pool: UnpackPool) -> None:
    before = set(multiprocessing.active_children())
    pool.begin()
    workers = set(multiprocessing.active_children()) - before
    for worker in workers:
        worker.kill()
    with pytest.raises(HostError, match="killed"):
        pool.finish(debs(tmp_path, b"one"))


def test_the_end_waits_for_no_worker(tmp_path: Path, pool: UnpackPool) -> None:
    before = set(multiprocessing.active_children())
    pool.begin()
    workers = set(multiprocessing.active_children()) - before
    assert workers
    for _ in workers:
        pool.submit(time.sleep, 3600)
    pool.close()
    assert not any(worker.is_alive() for worker in workers)
    with pytest.raises(PackageError, match="over"):
        pool.finish(debs(tmp_path, b"one"))


def _wait_for(gate: Path) -> None:
    with gate.open("rb") as file:  # a FIFO: until somebody opens it to write
        file.read()


def _note(place: Path, word: str) -> None:
    with place.open("a") as file:
        file.write(f"{word} ")


def test_what_is_urgent_overtakes_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    os.mkfifo(tmp_path / "gate")
    pool = UnpackPool(tmp_path / "packages", Events())
    try:
        tasks = [pool.submit(_wait_for, tmp_path / "gate")]
        tasks += [pool.submit(_note, tmp_path / "order", word) for word in ("next", "last")]
        tasks.append(pool.submit(_note, tmp_path / "order", "urgent", urgent=True))
        (tmp_path / "gate").write_bytes(b"")
        for task in tasks:
            task.result()
    finally:
        pool.close()
    assert (tmp_path / "order").read_text() == "next urgent last "
