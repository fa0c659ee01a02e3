"""What a build does with a remote cache: look first, fetch what it needs, add what it made."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dibble.events import Events
from dibble.run.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.plan.step import Key, Step
    from dibble.recipe.model import Request
    from dibble.run.prepare import Build
    from dibble.run.walk import Walk
    from dibble.store.layers import LayerStore
    from dibble.store.remote import RemoteStore


def remote_store(request: Request, events: Events) -> RemoteStore | None:
    """The remote cache of a request. Contacts nobody. Raises UsageError for key files that hold no keys."""
    asked = request.remote_cache
    if asked is None:
        return None
    from dibble.store.remote import RemoteStore
    from dibble.store.signature import Signer, Trust
    from dibble.store.transport import is_local

    if request.offline and not is_local(asked.url):
        events.note("the remote cache is not used, because the build may use no network")
        return None
    signer = Signer(asked.key) if asked.key else None
    trust = Trust(asked.trust) if asked.trust else None
    return RemoteStore(asked.url, events, signer=signer, trust=trust)


class _Missing(Exception):
    """A step is nowhere; there is no need to look further."""


def _missing(step: Step, key: Key, state: State) -> State:
    raise _Missing(step.id)


class RemoteSide:
    """One build and its remote cache, inside the namespace. A context manager; `layers` are for the build to use."""

    def __init__(self, plan: Build, remote: RemoteStore, session: Path) -> None:
        from dibble.store.read_through import Outlook, ReadThrough
        from dibble.store.transfer import Fetching, Pushing
        from dibble.store.write_behind import WriteBehind

        asked = plan.request.remote_cache
        assert asked is not None
        self._plan = plan
        self._remote = remote
        self._fetching = Fetching(remote, plan.store, session, plan.events)

        def warn(text: str) -> None:
            plan.events.note(text, "warning")

        self._outlook = Outlook(plan.store, remote, self._fetching, warn)
        self._behind = None
        if asked.push:
            self._behind = WriteBehind(remote, Pushing(remote, plan.store, session), plan.events)
        self.layers: LayerStore = ReadThrough(plan.store, remote, self._fetching, self._behind, warn)

    def __enter__(self) -> RemoteSide:
        return self

    def __exit__(self, *_: object) -> None:
        if self._behind:
            self._behind.abandon()

    def look(self) -> tuple[Walk, State] | None:
        """The last state, when all steps and outputs are here or were fetched; else what can be had is fetched."""
        plan = self._plan
        walk = plan.walk()
        walk.events = Events()  # nothing is told twice
        walk.layers = self._outlook
        with contextlib.suppress(_Missing):
            state = walk.go(State(manifest=plan.manifest), _missing, pending=bool(plan.request.packages))
            if self._fetch_outputs(state) and all(map(self._outlook.fetch, state.exports)):
                return walk, state
        self._outlook.prefetch()
        return None

    def finish(self, state: State) -> None:
        """Copy the outputs too, and wait until everything is copied."""
        from dibble.store.layers import OutputStore

        if self._behind is None:
            return
        for key in self._plan.output_keys(state).values():
            folder = OutputStore(self._plan.store).find(key)
            if folder is not None:
                self._behind.output(key, folder)
        self._behind.finish()

    def _fetch_outputs(self, state: State) -> bool:
        from dibble.store.layers import OutputStore

        outputs = OutputStore(self._plan.store)
        missing = [key for key in self._plan.output_keys(state).values() if outputs.find(key) is None]
        entries = [self._remote.output(key) for key in missing]
        if None in entries:
            return False  # the disk has to be written anyway
        # All of them, also when one is refused: what is not looked at now would be refused in the next build.
        return all([self._fetching.output(entry, outputs) for entry in entries if entry is not None])
