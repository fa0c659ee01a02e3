"""The connection to a Dask scheduler: who works there, who is gone, and how they are asked."""

from __future__ import annotations

import contextlib
import json
import logging
import operator
import pkgutil
import threading
import time
from typing import TYPE_CHECKING, Any

from dibble import __version__
from dibble.errors import DibbleError, HostError, StoreError, UsageError
from dibble.fleet.place import Facts, unfit
from dibble.fleet.pool import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distributed import Client, Future

CONNECT_SECONDS = 10.0
RECONNECT_SECONDS = 60.0
"""How long a scheduler may be away: systemd, Slurm and Kubernetes start one again in less."""
LOOK_SECONDS = 0.5


PERFORM = "dibble.fleet.cluster_worker:perform"


class Lost(Exception):
    """A worker, or the scheduler, does not answer; the text says who."""


class Cluster:
    """One scheduler. `tell` takes what the user should know, `heard` messages of `topic`, `gone` addresses of workers
    that are no longer there. All of them are called from threads of ours or of Dask's.
    """

    def __init__(
        self,
        address: str,
        remote: str,
        *,
        topic: str,
        tell: Callable[[Notice], None],
        heard: Callable[[Mapping[str, Any]], None],
        gone: Callable[[str, str], None],
    ) -> None:
        self.address = address
        self._remote = remote
        self._topic = topic
        self._tell, self._heard, self._gone = tell, heard, gone
        self.workers: dict[str, Facts] = {}
        """By address: those that can be used. Replaced as a whole, never changed."""
        self.names: dict[str, str] = {}
        self.failure: DibbleError | None = None
        """Why nothing can be done any more."""
        self._unfit: dict[str, DibbleError] = {}
        self._performers: dict[str, Future[Any]] = {}
        self._greeting: set[str] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._waiting = False
        self._client = self._connected(CONNECT_SECONDS)
        try:
            present = set(self._client.nthreads())
            if present:
                self._greet(sorted(present), first=True)
                self._check_usable()
        except BaseException:
            self._client.close(timeout=2)
            raise
        self._watcher = threading.Thread(target=self._watch, name="workers", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        self._closing.set()
        self._watcher.join(timeout=CONNECT_SECONDS)
        with contextlib.suppress(OSError, RuntimeError):  # a scheduler that is gone needs no goodbye
            self._client.close(timeout=2)

    def ask(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of `cluster_worker` gives there. Raises Lost, and what it raises."""
        try:
            answer = self._client.run(function, *arguments, workers=[worker], on_error="return").get(worker)
        except Exception as error:  # whatever Dask raises for a connection that breaks, all over its layers
            raise Lost(f"the worker {self.name(worker)} does not answer: {error}") from error
        if isinstance(answer, DibbleError):
            raise answer
        if isinstance(answer, Exception):
            raise Lost(f"the worker {self.name(worker)} does not do what it is asked: {answer!r}") from answer
        return answer

    def submit(self, worker: str, key: str, *arguments: str) -> Future[str]:
        """Begin `cluster_worker.perform` as a task on that worker and no other. Raises Lost.

        A scheduler unpickles the functions of tasks and may have no dibble: its own image is often plain Dask. So the
        worker finds the function by its name, and the task is to call it; both are done by functions of Python's own.
        """
        from dibble.fleet.cluster_worker import BUILDS

        there = {"workers": [worker], "pure": False}
        try:
            if worker not in self._performers:
                self._performers[worker] = self._client.submit(pkgutil.resolve_name, PERFORM, **there)
            performer = self._performers[worker]
            return self._client.submit(operator.call, performer, *arguments, key=key, resources={BUILDS: 1}, **there)
        except Exception as error:  # see above
            raise Lost(f"the scheduler {self.address} does not answer: {error}") from error

    def name(self, worker: str) -> str:
        return self.names.get(worker, worker)

    # --- the connection

    def _connected(self, seconds: float) -> Client:
        """A client that listens. Raises HostError when the scheduler does not answer, UsageError for a bad address."""
        from distributed import Client

        for logger in ("distributed", "distributed.client"):  # all that they say is said by us, once
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        try:
            client = Client(self.address, timeout=seconds, set_as_default=False)
        except OSError as error:
            raise HostError(
                f"the scheduler {self.address} does not answer: {_in_words(error)}",
                hint="is `dask scheduler` running there, and can it be reached from here?",
            ) from error
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{self.address} is no address of a scheduler: {error}", hint="as in --scheduler tcp://HOST:8786"
            ) from error
        client.subscribe_topic(self._topic, lambda event: self._heard(event[1]))
        return client

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            try:
                if self._client.status != "running":
                    raise Lost(f"the scheduler {self.address} is gone")
                self._look(set(self._client.nthreads()))
            except Exception as error:  # noqa: BLE001 - see `ask`
                if not self._closing.is_set():
                    self._lose_all(error)
            if self.failure is not None:
                return

    def _look(self, present: set[str]) -> None:
        for address in set(self.workers) - present:
            name = self.name(address)
            self._without(address)
            self._gone(address, f"the worker {name} is gone")
        with self._lock:
            self._unfit = {address: error for address, error in self._unfit.items() if address in present}
            new = present - set(self.workers) - set(self._unfit) - self._greeting
            self._greeting |= new
        if new:
            threading.Thread(target=self._greet, args=(sorted(new),), daemon=True).start()
        if not self.workers and not self._greeting and not self._waiting:
            self._waiting = True
            self._tell(Notice(f"no worker at {self.address}: waiting for one (dask worker {self.address})", True))

    def _lose_all(self, error: Exception) -> None:
        """The scheduler is gone, and its workers end with it: wait for it to come back."""
        for address in list(self.workers):
            self._without(address)
            self._gone(address, f"the scheduler {self.address} is gone")
        self._tell(Notice(f"the scheduler {self.address} is gone; trying to reach it again", True))
        self._waiting = False
        with contextlib.suppress(OSError, RuntimeError):
            self._client.close(timeout=2)
        deadline = time.monotonic() + RECONNECT_SECONDS
        while not self._closing.is_set():
            try:
                self._client = self._connected(min(CONNECT_SECONDS, RECONNECT_SECONDS))
                self._tell(Notice(f"the scheduler {self.address} is back"))
                return
            except DibbleError:
                if time.monotonic() > deadline:
                    self.failure = HostError(
                        f"the scheduler {self.address} is gone: {_in_words(error)}",
                        hint="start it and its workers again; the same command goes on with what is not done",
                    )
                    return

    # --- workers

    def _without(self, address: str) -> None:
        self._performers.pop(address, None)
        with self._lock:
            self.workers = {other: facts for other, facts in self.workers.items() if other != address}

    def _greet(self, addresses: Sequence[str], *, first: bool = False) -> None:
        """Ask workers what they are, and take those that can be used."""
        from dibble.fleet.cluster_worker import greet

        try:
            answers = self._client.run(greet, self._remote, workers=list(addresses), on_error="return")
        except Exception as error:  # noqa: BLE001 - see `ask`; whoever is there yet is greeted again
            logging.getLogger(__name__).debug("greeting: %s", error)
            answers = {}
        for address, answer in answers.items():
            found = self._fit(address, answer)
            with self._lock:
                if isinstance(found, DibbleError):
                    self._unfit[address] = found
                else:
                    self.workers = {**self.workers, address: found}
                    self._waiting = False
            if isinstance(found, DibbleError) and not first:
                self._tell(Notice(f"not used: {found.message}", True))
        with self._lock:
            self._greeting -= set(addresses)

    def _fit(self, address: str, answer: object) -> Facts | DibbleError:
        """What a worker said of itself, or why it is not used."""
        hint = f"give all workers what is here: pip install 'dibble[fleet]=={__version__}'"
        if isinstance(answer, Exception):
            said = "has no dibble" if isinstance(answer, ModuleNotFoundError) else "does not know what it is asked"
            return HostError(f"the worker {address} {said}, and here is {__version__} ({answer})", hint=hint)
        data = json.loads(str(answer))
        name, refused = data.pop("name"), data.pop("refused")
        self.names[address] = name
        facts = Facts(**{**data, "native": tuple(data["native"]), "emulated": tuple(data["emulated"])})
        reason = unfit(facts, __version__)
        if reason:
            return HostError(f"the worker {name} {reason}", hint=hint)
        if refused:
            return StoreError(
                f"the remote store {self._remote} refuses what the worker {name} writes: {refused}",
                hint="workers meet there, so each must be able to write; or only read: DIBBLE_REMOTE_CACHE_PUSH=no",
            )
        return facts

    def _check_usable(self) -> None:
        """Raises the error of the first worker when none can be used, and else tells it."""
        if not self.workers and self._unfit:
            raise next(iter(self._unfit.values()))
        for error in self._unfit.values():
            self._tell(Notice(f"not used: {error.message}", True))


def _in_words(error: BaseException) -> str:
    """The innermost cause, which says most."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
