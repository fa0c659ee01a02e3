"""A pool in virtual time: workers, their stores, a remote store and deaths, as a discrete-event simulation."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dibble.fleet.cells import HOSTGEN
from dibble.fleet.model import Attempt, FailureClass, Outcome, OutputFile
from dibble.fleet.pool import Ended, Job, JobResult, Message, Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from benchmarks.scale_model.costs import Cluster, Cost, Costs, Layer

    from dibble.fleet.cells import Work

TREE_OF_A_HOST = 80_000_000
"""Bytes of a host's tree, compressed: a lean Debian."""
EVENT: Mapping[str, Any] = {"event": "StepFinished", "step": "install.d/01-package-installs", "seconds": 1.0}


@dataclass(frozen=True, slots=True)
class Busy:
    """A stretch of time in a job; `what` it counts as."""

    what: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes to or from the remote store."""

    size: float


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Until another job on the same worker has made a layer."""

    key: str


Stage = Busy | Transfer | WaitFor


@dataclass(eq=False, slots=True)
class Worker:
    name: str
    arch: str
    slots: int
    dies_at: float
    has: set[str] = field(default_factory=set)
    making: dict[str, list[Running]] = field(default_factory=dict)
    """Layer → jobs that wait for it."""
    running: set[Running] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class Running:
    job: Job
    worker: Worker
    began: float
    stages: Generator[Stage, None, None]
    since: float = 0.0
    what: str = ""
    dead: bool = False


class SharedLink:
    """The remote store: all transfers get the same rate, at most what one worker's link has.

    As all rates are equal at any time, one clock counts the bytes that each transfer has got since the beginning; it
    ends when that clock has gone on by its size. A transfer more or less costs a logarithm.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._served = 0.0
        self._at = 0.0
        self._ends: list[tuple[float, int, Running]] = []
        self._gone: set[int] = set()
        self._of: dict[Running, int] = {}
        self._number = itertools.count()

    def _rate(self) -> float:
        return min(self._cluster.link, self._cluster.store / max(1, len(self._of)))

    def _go_to(self, now: float) -> None:
        self._served += (now - self._at) * self._rate() if self._of else 0.0
        self._at = now

    def add(self, running: Running, size: float, now: float) -> None:
        self._go_to(now)
        number = self._of[running] = next(self._number)
        heapq.heappush(self._ends, (self._served + size, number, running))

    def drop(self, running: Running, now: float) -> None:
        """Its worker died."""
        if running in self._of:
            self._go_to(now)
            self._gone.add(self._of.pop(running))

    def next_end(self) -> float:
        """When the next transfer ends if none begins before; infinite when there is none."""
        while self._ends and self._ends[0][1] in self._gone:
            self._gone.remove(heapq.heappop(self._ends)[1])
        return self._at + max(0.0, self._ends[0][0] - self._served) / self._rate() if self._ends else float("inf")

    def take(self, now: float) -> Running:
        """The transfer that ends now."""
        self._go_to(now)
        served, _, running = heapq.heappop(self._ends)
        self._served = served
        del self._of[running]
        return running


class SimulatedPool:
    """`events` progress messages come from each cell. `spent` sums up, over all slots, what the seconds went to."""

    def __init__(self, cluster: Cluster, costs: Costs, *, events: int = 0, seed: int = 1) -> None:
        self.now = 0.0
        self.slots = cluster.workers * cluster.slots
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.moved = 0.0
        """Bytes to and from the remote store."""
        self.from_mirrors = 0.0
        self.made_again = 0
        """Layers that were made though another worker had made them or was making them."""
        self.deaths = 0
        self._cluster = cluster
        self._costs = costs
        self._events = events
        self._random = random.Random(f"{seed} deaths")
        self._number = itertools.count()
        self._heap: list[tuple[float, int, Running | Worker | str]] = []
        self._link = SharedLink(cluster)
        self._remote: set[str] = set()
        self._begun: set[str] = set()
        self._pending: list[tuple[Job, str]] = []
        self._messages: deque[Message] = deque()
        self._room: dict[str, dict[Worker, None]] = {"amd64": {}, "arm64": {}}
        """By architecture: workers with a free slot, the one that has been so for longest first."""
        self._free: Counter[str] = Counter()
        """Slots by architecture, those of pending jobs not counted."""
        self._has = {cluster.architecture(number) for number in range(cluster.workers)}
        self._done_trees: set[str] = set()
        self._has_come = False
        for number in range(cluster.workers):
            self._new_worker(cluster.architecture(number))

    # --- the protocol of pools

    def free(self) -> int:
        return self._free.total()

    def takes(self, work: Work) -> bool:
        return self._where(work) is not None

    def start(self, job: Job) -> None:
        arch = self._where(job.work)
        assert arch is not None
        self._free[arch] -= 1
        self._pending.append((job, arch))  # placed when time goes on: that is the pool's and not the scheduler's work

    def wait(self, timeout_s: float) -> Sequence[Message]:
        """The next message, however long it takes, or none when a worker came: then there is more room.

        Nobody needs to be woken for anything else in virtual time.
        """
        for job, arch in self._pending:
            self._place(job, arch)
        self._pending.clear()
        self._has_come = False
        while not self._messages and not self._has_come:
            self._step()
        return [self._messages.popleft()] if self._messages else []

    def stop(self) -> Sequence[Message]:
        return []

    def close(self) -> None:
        pass

    # --- workers

    def _new_worker(self, arch: str) -> None:
        life = self._cluster.mean_life
        dies_at = self.now + self._random.expovariate(1 / life) if life else float("inf")
        number = next(self._number)
        worker = Worker(f"worker-{number}", arch, self._cluster.slots, dies_at)
        self._room[arch][worker] = None
        self._free[arch] += worker.slots
        self._has_come = True
        if life:
            heapq.heappush(self._heap, (dies_at, number, worker))

    def _where(self, work: Work) -> str | None:
        """The architecture of the workers that take the cell now, if any does."""
        own = self._costs.of(work).arch
        if self._free[own]:
            return own
        is_done = self._cluster.cross == "images" and work.tree in self._done_trees
        if own in self._has and self._cluster.cross != "always" and not is_done:
            return None
        return next((arch for arch, free in self._free.items() if free), None)

    def _place(self, job: Job, arch: str) -> None:
        """On the worker that has most of what the cell needs."""
        cost = self._costs.of(job.work)

        def lacking(worker: Worker) -> float:
            return sum(layer.size for layer in cost.layers if layer.key not in worker.has)

        worker = min(self._room[arch], key=lacking)
        running = Running(job, worker, self.now, self._stages(job, cost, worker))
        worker.running.add(running)
        if len(worker.running) == worker.slots:
            del self._room[arch][worker]
        self._advance(running)

    def _stages(self, job: Job, cost: Cost, worker: Worker) -> Generator[Stage, None, None]:
        yield Busy("begin", cost.begin)
        if "tools" not in worker.has:
            worker.has.add("tools")
            yield Busy("begin", self._costs.tools)
        if job.tree is not None:
            yield from self._fetched(f"tree of {job.work.cell.host}", TREE_OF_A_HOST, worker)
        for layer in cost.layers:
            yield from self._layer(layer, cost, worker)
        yield Busy("images", cost.format)
        yield Transfer(cost.output)
        if job.work.kind == HOSTGEN:
            self._remote.add(f"tree of {job.work.cell.host}")

    def _fetched(self, key: str, size: float, worker: Worker) -> Generator[Stage, None, None]:
        while key in worker.making:
            yield WaitFor(key)
        if key not in worker.has:
            worker.making[key] = []
            yield Transfer(size)
            self._is_there(key, worker)

    def _layer(self, layer: Layer, cost: Cost, worker: Worker) -> Generator[Stage, None, None]:
        """As stores do: one job makes it, others on this worker wait; the remote store is asked first."""
        if layer.key in self._remote or layer.key in worker.making or layer.key in worker.has:
            yield from self._fetched(layer.key, layer.size, worker)
            return
        worker.making[layer.key] = []
        again = layer.key in self._begun
        self.made_again += again
        self._begun.add(layer.key)
        downloads = f"packages of {layer.packages}"
        if layer.packages and downloads not in worker.has:
            worker.has.add(downloads)
            self.from_mirrors += layer.size
            yield Busy("downloads", layer.size / self._cluster.link)
        native = worker.arch == cost.arch
        seconds = layer.seconds if native else layer.seconds * cost.foreign
        yield Busy("made again" if again else "layers" if native else "layers, cross-built", seconds)
        self._is_there(layer.key, worker)
        yield Transfer(layer.size)
        self._remote.add(layer.key)

    def _is_there(self, key: str, worker: Worker) -> None:
        worker.has.add(key)
        for waiting in worker.making.pop(key):
            self._resume(waiting)

    # --- time

    def _step(self) -> None:
        at = self._heap[0][0] if self._heap else float("inf")
        if self._link.next_end() <= at:
            self.now = self._link.next_end()
            self._resume(self._link.take(self.now))
            return
        self.now, _, what = heapq.heappop(self._heap)
        if isinstance(what, Worker):
            self._die(what)
        elif isinstance(what, str):
            self._new_worker(what)
        elif not what.dead:
            self._resume(what)

    def _resume(self, running: Running) -> None:
        self.spent[running.what] += self.now - running.since
        self._advance(running)

    def _advance(self, running: Running) -> None:
        running.since = self.now
        try:
            stage = next(running.stages)
        except StopIteration:
            self._end(running, Attempt(running.worker.name, running.began, self.now - running.began, Outcome.SUCCESS))
            return
        match stage:
            case Busy(what, seconds):
                running.what = what
                heapq.heappush(self._heap, (self.now + seconds, next(self._number), running))
            case Transfer(size):
                running.what = "transfers"
                self.moved += size
                self._link.add(running, size, self.now)
            case WaitFor(key):
                running.what = "waiting for layers"
                running.worker.making[key].append(running)

    def _end(self, running: Running, attempt: Attempt) -> None:
        worker, name = running.worker, running.job.name
        worker.running.discard(running)
        self._free[worker.arch] += 1
        self._room[worker.arch][worker] = None
        if attempt.outcome is Outcome.SUCCESS:
            self._done_trees.add(running.job.work.tree)
        self._messages.extend(Progress(name, EVENT) for _ in range(self._events))
        tar = (OutputFile("image.tar", "tar", TREE_OF_A_HOST, TREE_OF_A_HOST),)
        lost = attempt.failure is FailureClass.WORKER_LOST
        self._messages.append(Ended(name, JobResult(attempt, outputs=() if lost else tar, lost=lost)))

    def _die(self, worker: Worker) -> None:
        self.deaths += 1
        for running in sorted(worker.running, key=lambda one: one.job.name):
            running.dead = True
            running.stages.close()
            self._link.drop(running, self.now)
            self.spent["lost with workers"] += self.now - running.since
            lost = Attempt(
                worker.name, running.began, self.now - running.began, Outcome.FAILED, FailureClass.WORKER_LOST,
                "the worker is gone", status=1,
            )  # fmt: skip
            self._end(running, lost)
        self._free[worker.arch] -= worker.slots
        self._room[worker.arch].pop(worker, None)
        heapq.heappush(self._heap, (self.now + self._cluster.replaced_after, next(self._number), worker.arch))
