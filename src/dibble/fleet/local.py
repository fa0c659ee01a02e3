"""The pool of this machine: as many processes at a time as its cores and its memory allow."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING

from dibble.fleet.pool import Ended, Progress, come
from dibble.fleet.work import INTERRUPTED, Stop, run_job
from dibble.sandbox.memory import MEMORY_OF_A_BUILD, available_bytes, builds_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from dibble.fleet.cells import Work
    from dibble.fleet.pool import Job, JobResult, Message

    Run = Callable[[Job, Callable[[Mapping[str, Any]], None], Stop], JobResult]


class LocalPool:
    """Each job is a thread that waits for its process. `run` does a job; another one serves measurements."""

    def __init__(self, slots: int | None = None, run: Run = run_job) -> None:
        self._fixed = slots is not None
        self.slots = slots or builds_at_once(os.cpu_count() or 1, available_bytes())
        self._run = run
        self._messages: queue.SimpleQueue[Message | BaseException] = queue.SimpleQueue()
        self._running: dict[str, tuple[threading.Thread, Stop]] = {}

    def free(self) -> int:
        room = self.slots - len(self._running)
        if room > 0 and self._running and not self._fixed and available_bytes() < MEMORY_OF_A_BUILD:
            return 0  # what runs has grown; a build more would push all of them out of memory
        return max(0, room)

    def takes(self, work: Work) -> bool:
        return True

    def start(self, job: Job) -> None:
        stop = Stop()
        thread = threading.Thread(target=self._work, args=(job, stop), name=f"cell {job.name}", daemon=True)
        self._running[job.name] = (thread, stop)
        thread.start()

    def wait(self, timeout_s: float) -> Sequence[Message]:
        return [self._taken(message) for message in come(self._messages, timeout_s)]

    def stop(self) -> Sequence[Message]:
        for _, stop in self._running.values():
            stop.now(INTERRUPTED)
        found: list[Message] = []
        while self._running:
            found += self.wait(1.0)
        return found

    def close(self) -> None:
        self.stop()

    def _work(self, job: Job, stop: Stop) -> None:
        try:
            result = self._run(job, lambda event: self._messages.put(Progress(job.name, event)), stop)
        except BaseException as error:  # noqa: BLE001 - a fault of dibble, raised by the thread that waits
            self._messages.put(error)
        else:
            self._messages.put(Ended(job.name, result))

    def _taken(self, message: Message | BaseException) -> Message:
        if isinstance(message, BaseException):
            self._running.clear()
            raise message
        if isinstance(message, Ended):
            del self._running[message.cell]
        return message
