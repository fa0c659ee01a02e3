"""The pool of a Dask cluster: each cell is a task for one worker, chosen here, and its files come back over Dask.

We choose the worker and not Dask's scheduler, which knows no "rather": the own architecture before emulation, KVM for
boots, a worker that has the layers. It counts the builds of all clients (a resource) and tells who is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import tempfile
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibble.errors import DibbleError, OutputError, UsageError
from dibble.fleet.classify import classify
from dibble.fleet.inputs import Inputs, digest_of
from dibble.fleet.model import Attempt, FailureClass, Outcome, OutputFile
from dibble.fleet.orders import arch_of, order_of
from dibble.fleet.pieces import PIECE, piece, put_piece
from dibble.fleet.place import Need, can_any, chosen, room
from dibble.fleet.pool import Ended, JobResult, Notice, Progress, come
from dibble.fleet.state import attempt_of
from dibble.fleet.work import LOG, RECIPE, recipe_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distributed import Future

    from dibble.fleet.cells import Work
    from dibble.fleet.cluster import Cluster
    from dibble.fleet.inputs import Input
    from dibble.fleet.place import Facts
    from dibble.fleet.pool import Job, Message

_LOOK_SECONDS = 1.0
_LAST_WORDS_SECONDS = 5.0
"""How long messages of a cell are waited for when its result is there. Its log comes whole in any case."""


class _Interrupted(Exception):
    """The pool is stopped."""


class _Task:
    """A job on its way. The threads of the pool, of the cluster and of Dask meet here."""

    def __init__(self, job: Job, worker: str, key: str) -> None:
        self.job, self.worker, self.key = job, worker, key
        self.began = time.time()
        self.log = job.directory / LOG
        self.log_start = 0
        """Where the log of this try begins; what stands before is of earlier ones."""
        self.future: Future[str] | None = None
        self.lost = ""
        """Why it is over without a result."""
        self.stopped = False
        self.heard = 0
        self.changed = threading.Condition()

    def change(self, *, lost: str = "", stopped: bool = False, heard: int = 0) -> None:
        with self.changed:
            self.lost = self.lost or lost
            self.stopped = self.stopped or stopped
            self.heard += heard
            self.changed.notify_all()

    def check(self) -> None:
        """Raises what ends it from outside."""
        from dibble.fleet.cluster import Lost

        if self.stopped:
            raise _Interrupted
        if self.lost:
            raise Lost(self.lost)


class DaskPool:
    """Each job is a thread that sends, waits and fetches. `slots` limits how many run at a time on all workers.

    `remote` is a remote cache that every worker must be able to write to. `is_cold`: workers have none to read either.
    """

    def __init__(self, slots: int | None = None, *, address: str = "", remote: str = "", is_cold: bool = True) -> None:
        try:
            import distributed  # noqa: F401 - whether it is there
        except ImportError as error:
            raise UsageError(
                "--scheduler needs a library that is not installed: distributed", hint="pip install 'dibble[fleet]'"
            ) from error
        from dibble.fleet.cluster import Cluster

        self._limit = slots
        self._messages: queue.SimpleQueue[Message | BaseException] = queue.SimpleQueue()
        self._tasks: dict[str, _Task] = {}  # by the cell's name
        self._by_key: dict[str, _Task] = {}
        self._run = uuid.uuid4().hex[:8]
        self._count = 0
        self._lost_on: dict[str, set[str]] = {}  # cell → hosts of workers that were lost with it
        self._warm: dict[str, set[str]] = {}  # base → workers that have built cells with it
        self._answers: dict[Need, bool] = {}
        self._answered_for: Mapping[str, Facts] = {}
        self._sending: dict[tuple[str, str], threading.Lock] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="dibble-inputs-")
        self._inputs = Inputs(Path(self._scratch.name))
        if is_cold:
            self._messages.put(
                Notice("no remote store is given (--remote URL): each worker makes all layers itself", warning=True)
            )
        try:
            self._cluster: Cluster = Cluster(
                address, remote, topic=f"dibble-{self._run}", tell=self._messages.put, heard=self._hear, gone=self._lose
            )
        except BaseException:
            self._scratch.cleanup()
            raise

    @property
    def slots(self) -> int:
        fit = room(self._cluster.workers, {})
        return min(fit, self._limit) if self._limit else fit

    def free(self) -> int:
        found = room(self._cluster.workers, self._busy())
        return found if self._limit is None else min(found, self._limit - len(self._tasks))

    def takes(self, work: Work) -> bool:
        """Of ten thousand cells most need the same: it is found out once, until something starts, ends or joins."""
        need, workers = self._need(work, os.environ), self._cluster.workers
        if self._answered_for is not workers:
            self._answered_for = workers
            self._answers.clear()
        if need not in self._answers:
            hopeless = bool(workers) and not can_any(workers, need)  # it is started, and told why it fails
            self._answers[need] = hopeless or chosen(workers, self._busy(), need) is not None
        return self._answers[need]

    def start(self, job: Job) -> None:
        need = self._need(job.work, job.environment)
        worker = self._choose(job.work, need)
        if worker is None:
            self._messages.put(Ended(job.name, self._nowhere(need)))
            return
        self._count += 1
        self._answers.clear()
        task = _Task(job, worker, f"{job.name}-{self._run}.{self._count}")
        self._tasks[job.name] = self._by_key[task.key] = task
        threading.Thread(target=self._work, args=(task,), name=f"cell {job.name}", daemon=True).start()

    def wait(self, timeout_s: float) -> Sequence[Message]:
        if self._cluster.failure is not None:
            raise self._cluster.failure
        return [self._taken(message) for message in come(self._messages, timeout_s)]

    def stop(self) -> Sequence[Message]:
        for task in self._tasks.values():
            task.change(stopped=True)
        found: list[Message] = []
        while self._tasks:
            with contextlib.suppress(queue.Empty):
                found.append(self._taken(self._messages.get(timeout=1.0)))
        return found

    def close(self) -> None:
        self.stop()
        self._cluster.close()
        self._scratch.cleanup()

    # --- where

    def _busy(self) -> Counter[str]:
        return Counter(task.worker for task in self._tasks.values())

    def _need(self, work: Work, environment: Mapping[str, str]) -> Need:
        return Need(arch_of(work.recipe, environment), boots=bool(work.policy.boot))

    def _choose(self, work: Work, need: Need) -> str | None:
        workers = self._cluster.workers
        hosts = self._lost_on.get(work.cell.name, set())
        avoided = {address for address in workers if _host(address) in hosts}
        return chosen(workers, self._busy(), need, avoided=avoided, warm=self._warm.get(work.base, set()))

    def _nowhere(self, need: Need) -> JobResult:
        workers = self._cluster.workers
        if not workers or can_any(workers, need):  # it went away in this moment
            return JobResult(_failed("", time.time(), "no worker is free"), interrupted=True)
        reason = f"no worker of {self._cluster.address} runs programs for {need.arch}, itself or by qemu-user"
        hint = f"add a worker of that architecture, or register qemu-user for {need.arch} on one"
        return JobResult(_failed("", time.time(), reason, FailureClass.UNSUPPORTED, hint=hint))

    # --- what Dask says, in its threads

    def _hear(self, message: Mapping[str, Any]) -> None:
        task = self._by_key.get(message["cell"])
        if task is None:
            return
        if message["log"]:
            with contextlib.suppress(OSError), task.log.open("ab") as log:  # it comes whole at the end
                log.write(message["log"])
        for event in json.loads(message["events"]):
            self._messages.put(Progress(task.job.name, event))
        task.change(heard=1)

    def _lose(self, worker: str, reason: str) -> None:
        for task in list(self._tasks.values()):
            if task.worker == worker:
                task.change(lost=reason)

    def _taken(self, message: Message | BaseException) -> Message:
        if isinstance(message, BaseException):
            self._tasks.clear()
            raise message
        if isinstance(message, Ended):
            self._answers.clear()
            task = self._tasks.pop(message.cell, None)
            if task is not None:
                self._by_key.pop(task.key, None)
                self._remember(task, message.result)
        return message

    def _remember(self, task: _Task, result: JobResult) -> None:
        if result.lost:
            self._lost_on.setdefault(task.job.name, set()).add(_host(task.worker))
        elif not result.interrupted:
            self._warm.setdefault(task.job.work.base, set()).add(task.worker)

    # --- a job, in its thread

    def _work(self, task: _Task) -> None:
        from dibble.fleet.cluster import Lost

        name = self._cluster.name(task.worker)
        from distributed.client import ClosedClientError

        try:
            result = self._done(task, name)
        except _Interrupted:
            result = JobResult(_failed(name, task.began, "the run was stopped"), interrupted=True)
        except Lost as error:
            reason = task.lost or str(error)
            with contextlib.suppress(OSError), task.log.open("a", encoding="utf-8") as log:
                log.write(f"dibble: {reason}\n")
            result = JobResult(_failed(name, task.began, reason, FailureClass.WORKER_LOST), lost=True)
        except DibbleError as error:
            attempt = _failed(
                name, task.began, error.message, classify(error), hint=error.hint, status=error.exit_status
            )
            result = JobResult(attempt)
        except BaseException as error:  # noqa: BLE001 - a fault of dibble, raised by the thread that waits
            self._messages.put(error)
            return
        finally:
            if task.future is not None:
                # the scheduler, or our own client, may be gone, and with it all that is to be ended
                with contextlib.suppress(ClosedClientError, OSError, RuntimeError):
                    task.future.cancel()
        self._messages.put(Ended(task.job.name, result))

    def _done(self, task: _Task, name: str) -> JobResult:
        from dibble.fleet.cluster import Lost

        job = task.job
        try:
            job.directory.mkdir(parents=True, exist_ok=True)
            if job.attempt == 1:
                task.log.unlink(missing_ok=True)
            task.log_start = task.log.stat().st_size if task.log.exists() else 0
            (job.directory / RECIPE).write_text(recipe_text(job), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{job.directory} cannot be written: {error.strerror}", hint="see --out") from error
        text, needed = order_of(job, self._inputs)
        self._send(task, needed)
        task.check()
        task.future = self._cluster.submit(task.worker, task.key, task.key, text, f"dibble-{self._run}")
        data = json.loads(self._result_of(task, task.future))
        if data["interrupted"]:  # it ended in good order: the time of its job is over, its pod moves
            raise Lost(f"the worker {name} was stopped")
        with task.changed:
            task.changed.wait_for(lambda: task.heard >= data["messages"] or task.lost, _LAST_WORDS_SECONDS)
        for file in data["files"]:
            self._fetch(task, file)
        attempt = attempt_of({**data["attempt"], "worker": name})
        digests = {file["name"]: file["sha256"] for file in data["files"]}
        return JobResult(
            attempt,
            data["steps_run"],
            data["steps_cached"],
            tuple((str(what), float(seconds)) for what, seconds in data["timings"]),
            tuple(OutputFile(**{**one, "sha256": digests.get(one["name"], "")}) for one in data["outputs"]),
            data["boot"],
        )

    def _result_of(self, task: _Task, future: Future[str]) -> str:
        """What the task returned. Raises Lost, _Interrupted, and what is a fault in dibble."""
        from dibble.fleet.cluster import Lost

        future.add_done_callback(lambda _: task.change())
        while not future.done():
            with task.changed:
                task.changed.wait(_LOOK_SECONDS)
            task.check()
            if task.worker not in self._cluster.workers:  # it went before it had the task
                raise Lost(f"the worker {self._cluster.name(task.worker)} is gone")
        if future.status == "error":
            error = future.exception()
            if type(error).__module__.startswith("distributed"):  # KilledWorker and its like
                raise Lost(f"the worker {self._cluster.name(task.worker)} is gone: {error}") from error
            raise error or RuntimeError(task.key)
        if future.status != "finished":
            raise Lost(f"the worker {self._cluster.name(task.worker)} is gone")
        return future.result()

    def _send(self, task: _Task, needed: Sequence[Input]) -> None:
        """Give the worker the inputs that it lacks. Of cells that begin at once, one sends."""
        from dibble.fleet.cluster_worker import lacking, take, taken

        for one in needed:
            lock = self._sending.setdefault((task.worker, one.name), threading.Lock())
            with lock:
                if not self._cluster.ask(task.worker, lacking, [one.name]):
                    continue
                upload = str(uuid.uuid4())
                offset, size = 0, one.file.stat().st_size
                while offset < size or offset == 0:
                    task.check()
                    self._cluster.ask(task.worker, take, upload, offset, piece(one.file, offset))
                    offset += PIECE
                self._cluster.ask(task.worker, taken, upload, one.name)

    def _fetch(self, task: _Task, file: Mapping[str, Any]) -> None:
        """Bring a file of the cell here, and compare it with what the worker said it is."""
        from dibble.fleet.cluster_worker import give

        directory = task.job.directory.resolve()
        goal = (directory / file["name"]).resolve()
        if not goal.is_relative_to(directory):
            raise OutputError(f"the worker names a file outside the cell, {file['name']}", hint="whose cluster is it?")
        aside = goal.with_name(f".{goal.name}.{self._run}.part")
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            aside.unlink(missing_ok=True)
            aside.touch()
            for offset in range(0, file["size"], PIECE):
                task.check()
                put_piece(aside, offset, self._cluster.ask(task.worker, give, task.key, file["name"], offset))
            if digest_of(aside) != file["sha256"]:
                raise OutputError(f"{file['name']} arrived damaged", hint="is the network sound? build the cell again")
            if file["name"] == LOG:
                _replace_end(task.log, task.log_start, aside)
            else:
                aside.chmod(file["mode"])
                aside.rename(goal)
        except OSError as error:
            raise OutputError(f"{goal} cannot be written: {error.strerror}", hint="see --out") from error
        finally:
            aside.unlink(missing_ok=True)


def _replace_end(log: Path, start: int, whole: Path) -> None:
    """What came of a log while it was written is replaced by all of it."""
    with log.open("ab") as file, whole.open("rb") as source:
        file.truncate(start)
        while data := source.read(1 << 20):
            file.write(data)


def _failed(
    worker: str, began: float, reason: str, failure: FailureClass | None = None, *, hint: str = "", status: int = 1
) -> Attempt:
    return Attempt(worker, began, time.time() - began, Outcome.FAILED, failure, reason, hint, status)


def _host(address: str) -> str:
    return address.rpartition(":")[0]
