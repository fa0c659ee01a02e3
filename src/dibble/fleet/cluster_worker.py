"""What runs on a Dask worker: a greeting, inputs that arrive, cells, and their files on the way back.

Any `dask worker` whose Python has this dibble is one: the client calls these functions by name, and nothing of ours has
to be started or preloaded, so that every way in which Dask's users start workers will do. Arguments and results are
plain values, mostly JSON, because the two sides may differ in their Python.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Worker, WorkerPlugin, get_worker

from dibble.errors import HostError
from dibble.fleet import inputs
from dibble.fleet.orders import job_of
from dibble.fleet.pieces import piece, put_piece
from dibble.fleet.work import INTERRUPTED, LOG, RECIPE, Stop, run_job
from dibble.recipe.load import cache_dir
from dibble.sandbox.memory import MEMORY_OF_A_BUILD, builds_at_once
from dibble.sandbox.process import run
from dibble.store.places import remove_tree
from dibble.store.transport import Unreachable, open_transport

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILDS = "dibble-builds"
"""The resource of Dask that counts builds: of several clients too, no more run on a worker than it takes."""
PLUGIN = "dibble"
SEND_SECONDS = 0.25
"""Events and lines of a log are sent together, after so long."""
_MESSAGE = 256 << 10  # bytes of a log in one message
_PROBE = "dibble-1/probe.json"


def place_of(worker: Worker) -> Path:
    """Our directory in the worker's own (`--local-directory`), which Dask removes with it."""
    return Path(worker.local_directory) / "dibble"


async def greet(remote: str, dask_worker: Worker) -> str:
    """What this worker is (`place.Facts` as JSON), and why it cannot write to the remote store.

    It is told to the scheduler as well, as resources: for Dask's dashboard, and so that builds are counted.
    """
    found = await asyncio.to_thread(_facts)
    limit = dask_worker.memory_manager.memory_limit or found["memory"]
    builds = min(dask_worker.state.nthreads, builds_at_once(found["cores"], min(limit, found["memory"])))
    builds = int(dask_worker.state.total_resources.get(BUILDS, builds))  # as it was started with, or greeted before
    await dask_worker.set_resources(
        **{
            BUILDS: builds,
            "dibble-kvm": int(found["kvm"]),
            "dibble-memory": builds * MEMORY_OF_A_BUILD,
            **{f"dibble-{arch}": builds for arch in found["native"]},
        }
    )
    if PLUGIN not in dask_worker.plugins:
        await dask_worker.plugin_add(Cells(place_of(dask_worker)), name=PLUGIN)
    (place_of(dask_worker) / "inputs").mkdir(parents=True, exist_ok=True)
    refused = await asyncio.to_thread(_refused, remote) if remote else ""
    return json.dumps({**found, "builds": builds, "name": str(dask_worker.name), "refused": refused})


def _facts() -> dict[str, Any]:
    done = run([sys.executable, "-P", "-s", "-m", "dibble.fleet.facts"], env=os.environ)
    found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    return found


def _refused(remote: str) -> str:
    try:
        open_transport(remote).put(_PROBE, b"{}")
    except Unreachable as error:
        return str(error)
    return ""


class Cells(WorkerPlugin):
    """The cells that run on this worker, and the files of those that are done.

    Both last as long as somebody holds the task's future: Dask lets a task that nobody wants any more run to its end,
    and knows nothing of its files. So neither a client that is killed nor one that stops leaves anything behind.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.stops: dict[str, Stop] = {}

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        if finish not in ("released", "forgotten"):
            return
        stop = self.stops.get(key)
        directory = directory_of(self.place, str(key))
        if stop is not None:
            stop.now(INTERRUPTED)
        elif directory.exists():
            threading.Thread(target=remove_tree, args=(directory,), daemon=True).start()

    def teardown(self, worker: Worker) -> None:
        for stop in list(self.stops.values()):
            stop.now(INTERRUPTED)


def perform(key: str, text: str, topic: str) -> str:
    """The task: build the cell of an order. What it says goes to `topic` meanwhile; the result is JSON.

    Its files stay in the worker's directory as long as the task's result does.
    """
    worker = get_worker()
    place = place_of(worker)
    directory = directory_of(place, key)
    remove_tree(directory)
    directory.mkdir(parents=True)
    job = job_of(text, directory, place, os.environ, cache_dir(os.environ))
    cells = worker.plugins[PLUGIN]
    assert isinstance(cells, Cells)
    stop = cells.stops[key] = Stop()
    try:
        with Telling(worker, topic, key, directory / LOG) as telling:
            result = run_job(job, telling.event, stop)
    finally:
        del cells.stops[key]
    if result.interrupted:
        remove_tree(directory)
    attempt = result.attempt
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink()]
    return json.dumps(
        {
            "attempt": {name: getattr(attempt, name) for name in type(attempt).__dataclass_fields__},
            "steps_run": result.steps_run,
            "steps_cached": result.steps_cached,
            "timings": result.timings,
            "outputs": [
                {name: getattr(one, name) for name in type(one).__dataclass_fields__} for one in result.outputs
            ],
            "boot": result.boot,
            "interrupted": result.interrupted,
            "messages": telling.count,
            "files": [
                {
                    "name": str(path.relative_to(directory)),
                    "size": path.stat().st_size,
                    "mode": path.stat().st_mode & 0o777,
                    "sha256": inputs.digest_of(path),
                }
                for path in files
                if path.name != RECIPE
            ],
        }
    )


def directory_of(place: Path, key: str) -> Path:
    return place / "cells" / key.replace("/", "_")


class Telling:
    """Sends events and the growth of the log to the client, in order and several together."""

    def __init__(self, worker: Worker, topic: str, key: str, log: Path) -> None:
        self._worker, self._topic, self._key, self._log = worker, topic, key, log
        self.count = 0
        self._events: list[Mapping[str, Any]] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._told = 0
        self._thread = threading.Thread(target=self._tell, name=f"telling {key}", daemon=True)

    def event(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            self._events.append(event)

    def __enter__(self) -> Telling:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _tell(self) -> None:
        last = False
        while not last:
            last = self._done.wait(SEND_SECONDS)
            while self._send() and last:
                pass

    def _send(self) -> bool:
        """Send what there is, at most one message; whether there was anything."""
        with self._lock:
            events, self._events = self._events, []
        text = b""
        if self._log.exists():
            with self._log.open("rb") as file:
                file.seek(self._told)
                text = file.read(_MESSAGE)
            self._told += len(text)
        if not events and not text:
            return False
        message = {"cell": self._key, "number": self.count, "events": json.dumps(events), "log": text}
        self.count += 1
        self._worker.log_event(self._topic, message)
        return True


# --- files


async def lacking(names: list[str], dask_worker: Worker) -> list[str]:
    """Those of the inputs that this worker has not been sent."""
    return await asyncio.to_thread(inputs.missing, place_of(dask_worker), names)


async def take(upload: str, offset: int, data: bytes, dask_worker: Worker) -> int:
    """A piece of an input; returns its size."""
    return await asyncio.to_thread(put_piece, _arriving(dask_worker, upload), offset, data)


async def taken(upload: str, name: str, dask_worker: Worker) -> None:
    """All pieces are there. Raises ReadError where the input is not what it is called."""
    await asyncio.to_thread(inputs.receive, place_of(dask_worker), name, _arriving(dask_worker, upload))


def _arriving(worker: Worker, upload: str) -> Path:
    return place_of(worker) / "inputs" / f"{uuid.UUID(upload)}.part"


async def give(key: str, name: str, offset: int, dask_worker: Worker) -> bytes:
    """A piece of a file of a cell, compressed. Raises HostError for one that is none of the cell's."""
    directory = directory_of(place_of(dask_worker), key).resolve()
    path = (directory / name).resolve()
    if not path.is_relative_to(directory):
        raise HostError(f"{name} is no file of the cell {key}")
    return await asyncio.to_thread(piece, path, offset)
