"""What the steps that will run are going to ask of the package engine, and what that comes to, before a build.

A step in the store tells what it asked for. One of our own scripts that calls the engine is rehearsed: it runs in the
tools view with an engine that notes requests and carries none out. Of other scripts it is known what they asked for the
last time. The packages are then resolved one request after the other, each as if those before it were in place.

Answers are kept as facts; as long as scripts and repositories are the same, no namespace is entered at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dibble.errors import DibbleError, NotKnownYet
from dibble.packages.apt_foresee import automatic_after, installed_after
from dibble.packages.apt_resolve import AptTransaction, are_newest
from dibble.packages.base import Package, request_data
from dibble.plan.key import shown_parts
from dibble.plan.manifest import digest
from dibble.run.prepare import CATALOGUE
from dibble.run.state import State
from dibble.store.facts import Facts
from dibble.store.layers import Input, LayerStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dibble.plan.plan import Plan, PlannedStep
    from dibble.run.executor import Executor
    from dibble.run.planner import Foreseen
    from dibble.run.prepare import Build

Asked = tuple[str, tuple[str, ...]]
"""A request: its verb (bootstrap, install, remove, upgrade) and words."""

_CALLS_ENGINE = re.compile(rb"\b(dib-engine|install-packages|package-(?:un)?installs(?:-v2)?)\b")
_ASKED, _RESOLVED = "asked", "resolved"


def foresee(known: Build, plan: Plan) -> tuple[Foreseen, str]:
    """The requests of every step that runs, as in `History.requests`, and why those of later ones cannot be told yet.

    Raises FetchError where tools or package lists cannot be had, PackageError where a request cannot be met.
    """
    work = _Foresight(known, plan)
    if work.from_facts():
        return work.found, work.unknown
    from dibble.sandbox.enter import run_in_namespace

    return run_in_namespace(work.inside, network=not known.request.offline)


@dataclass(slots=True)
class _Foresight:
    """`earlier` are the transactions so far, `inputs` the repositories that they were resolved from, `bootstrap` the
    words of the request that began the root."""

    known: Build
    plan: Plan
    found: Foreseen = field(default_factory=dict)
    earlier: list[AptTransaction] = field(default_factory=list)
    inputs: tuple[Input, ...] = ()
    bootstrap: tuple[str, ...] = ()
    executor: Executor | None = None
    unknown: str = ""
    """Why there is no more in `found`: what follows, only the tree can tell that is not there yet."""

    @property
    def _facts(self) -> Facts:
        return Facts(self.known.store)

    def from_facts(self) -> bool:
        """Find everything among what is known; False as soon as something has to be found out."""
        return self._go()

    def inside(self) -> tuple[Foreseen, str]:
        """Find out what is missing, in the namespace."""
        import contextlib

        from dibble.run.build import open_executor, open_workspace
        from dibble.sandbox.mounts import unmount_all_below

        with contextlib.ExitStack() as stack:
            session = stack.enter_context(self.known.store.session())
            stack.callback(unmount_all_below, session.path)
            self.executor = open_executor(self.known, open_workspace(self.known, session))
            stack.callback(self.executor.close)
            self.found, self.earlier, self.inputs, self.bootstrap = {}, [], (), ()
            self._go()
        return self.found, self.unknown

    def _go(self) -> bool:
        for planned in self.plan.steps:
            if planned.status == "cached":
                self._take(planned)
                continue
            asked = self._asked(planned)
            if asked is None:
                if self.executor is None:
                    return False
                continue  # nobody can tell
            requests = []
            for verb, words in asked:
                try:
                    transaction = self._resolved(verb, words)
                except NotKnownYet as error:
                    self.unknown = str(error)
                    return True
                if transaction is None:
                    return False
                self.earlier.append(transaction)
                requests.append(request_data(transaction, verb, words))
            self.found[planned.step.id] = requests
        return True

    def _take(self, planned: PlannedStep) -> None:
        """What a step in the store has done to the target's packages."""
        layers = LayerStore(self.known.store)
        requests = layers.history(planned.layer).requests
        self.earlier += [transaction_of(request) for request in requests]
        for request in requests:
            if request["verb"] == "bootstrap":
                self.bootstrap = tuple(request["words"])
        record = layers.read(planned.layer)
        if requests and record is not None:
            self.inputs = tuple(entry for entry in record.inputs if entry.kind in ("apt", "rpm-md", "pacman"))

    # --- what is asked for

    def _asked(self, planned: PlannedStep) -> list[Asked] | None:
        """What a step will ask for; None when that is not known (without an executor: not known yet)."""
        step = planned.step
        if step.phase == "packages":
            return [("install", self.known.request.packages)]
        if step.where == "engine":
            return []
        source = self.known.sources.get(f"{step.phase}/{step.script}")
        text = source.read_bytes() if source is not None and source.is_file() else b""
        if not _CALLS_ENGINE.search(text):
            # It may call what does, but then it has done so before.
            return self._last_time(planned) or []
        assert source is not None
        if not source.is_relative_to(CATALOGUE):
            return self._last_time(planned)
        parts = [f"{name}={value}" for name, value in sorted(planned.key.parts.items()) if name != "tree"]
        lists = [f"{name}={text.decode('utf-8', 'replace')}" for name, text in self.known.element_files.items()]
        key = digest([*parts, *lists])
        kept = self._facts.get(_ASKED, key)
        if kept is None and self.executor is not None:
            kept = self.executor.rehearse(step, State(manifest=self.known.manifest))
            self._facts.put(kept, _ASKED, key)
        return None if kept is None else [(verb, tuple(words)) for verb, words in kept]

    def _last_time(self, planned: PlannedStep) -> list[Asked] | None:
        """What the step asked for when this very script ran last; None when it never did."""
        layers = LayerStore(self.known.store)
        script = shown_parts(planned.key.parts).get("script")
        for record in layers.of_step(planned.step.id):
            history = layers.history(record.id)
            if history.parts.get("script") == script:
                return [(str(request["verb"]), tuple(request["words"])) for request in history.requests]
        return None

    # --- what it comes to

    def _resolved(self, verb: str, words: Sequence[str]) -> AptTransaction | None:
        """What a request comes to after the earlier ones; None when that is not among the facts and nobody may ask."""
        if not words and verb != "upgrade":
            return AptTransaction()
        if verb == "bootstrap":
            self.bootstrap = tuple(words)
        key = [verb, *words, self.known.request.arch, self.known.tools_identity, _state_of(self.earlier)]
        kept = self._facts.get(_RESOLVED, *key)
        if kept is not None:
            inputs = tuple(Input(**entry) for entry in kept["inputs"])
            if self.known.are_current(inputs) and (verb == "bootstrap" or inputs == self.inputs):
                self.inputs = inputs
                return AptTransaction.from_json(kept["transaction"])
        if verb == "upgrade" and are_newest(self.earlier):
            return AptTransaction()
        if self.executor is None:
            return None
        engine = self.executor.engine
        transaction = engine.foreseen(verb, words, self.earlier, self.bootstrap)
        self.inputs = tuple(sorted(engine.inputs.values(), key=lambda entry: entry.name))
        fact = {
            "inputs": [{"kind": one.kind, "name": one.name, "digest": one.digest} for one in self.inputs],
            "transaction": transaction.as_json(),
        }
        self._facts.put(fact, _RESOLVED, *key)
        return AptTransaction.from_json(fact["transaction"])


def transaction_of(request: Any) -> AptTransaction:  # JSON of History.requests
    """The transaction that a kept request came to; the addresses of its files are not kept."""

    def packages(rows: Iterable[Sequence[Any]]) -> tuple[Package, ...]:
        return tuple(Package(name, version, arch, "", sha256, size) for name, version, arch, size, sha256 in rows)

    return AptTransaction(
        packages(request["install"]),
        packages(request["upgrade"]),
        tuple(request["remove"]),
        tuple(request.get("manual", ())),
        bool(request.get("marks", True)),
        newest=bool(request.get("newest", False)),
    )


def _state_of(transactions: Sequence[AptTransaction]) -> str:
    """Names the packages of a root after some transactions, with their marks."""
    installed = sorted(installed_after(transactions).items())
    rows = [f"{name} {arch} {package.version}" for (name, arch), package in installed]
    marks = sorted(" ".join(mark) for mark in automatic_after(transactions, ""))
    return digest([*rows, "", *marks])


def foreseen_or_reason(known: Build, plan: Plan) -> tuple[Foreseen, str]:
    """What is foreseen and, where that cannot be had, why; the rest of a plan stands without it."""
    try:
        return foresee(known, plan)
    except DibbleError as error:
        return {}, str(error).splitlines()[0]
