"""Going through a build's steps: what the store has is taken from it, what it lacks is left to a function.

The steps of later phases depend on what earlier ones left in the hooks tree, so the list unfolds while it is walked.
The same walk makes the plan (the function then foresees what a step will leave) and carries it out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dibble.events import StepCached
from dibble.plan.key import key_of
from dibble.plan.manifest import content_of, fingerprint, link_goal
from dibble.plan.sequence import SEQUENCE, steps_of
from dibble.run.environment import for_phase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dibble.events import Events
    from dibble.plan.refresh import Refresh
    from dibble.plan.sequence import Engine
    from dibble.plan.step import Key, Step
    from dibble.run.state import State
    from dibble.store.layers import Input, LayerStore, Record

Moment = Literal["before", "after"]


@dataclass(slots=True)
class Walk:
    """One pass through the steps. `sources` says where a file of the merged hooks tree lies, by name; `element_files`
    holds package lists and maps by `ELEMENT/FILE`.

    `still_valid` tells whether what lies outside the key (repositories) is as it was when a layer was made. Steps that
    `refresh` names are not taken from the store.
    """

    layers: LayerStore
    environment: Mapping[str, str]
    late: Mapping[str, str]
    constants: Mapping[str, str]
    settings: Mapping[str, Mapping[str, str]]
    sources: Mapping[str, Path]
    element_files: Mapping[str, bytes]
    still_valid: Callable[[Sequence[Input]], bool]
    refresh: Refresh
    events: Events
    on_cached: Callable[[Step, Key, Record, State], None] | None = None
    around: Callable[[Moment, str, State], None] | None = None
    """Called before and after each phase (`install.d`), with the state then, whether or not it has scripts."""
    cached: int = 0
    ran: int = 0
    timings: list[tuple[str, float]] = field(default_factory=list)
    network: dict[str, tuple[tuple[str, ...], float]] = field(default_factory=dict)
    """By step: the servers that its result came from, and when (seconds since 1970)."""
    _texts: dict[str, bytes] = field(default_factory=dict)

    def go(
        self,
        state: State,
        run: Callable[[Step, Key, State], State],
        *,
        pending: bool,
        alone: bool = True,
        until: Callable[[Step], bool] = lambda step: False,
    ) -> State:
        """Walk all steps from `state` and return the last state, or that before the first step that `until` is for.

        `pending` says whether packages were asked for on the command line. With `alone` false, other builds may be
        making the same layers: each missing step is then made under the lock of its key.
        """
        for item in SEQUENCE:
            waiting = [name for name, is_so in (("packages", pending), ("initramfs", state.initramfs_pending)) if is_so]
            self._tell_phase("before", item, state)
            for step in steps_of(item, state.manifest, waiting, self.settings):
                if until(step):
                    return state
                state = self._take(step, state, run, alone)
            self._tell_phase("after", item, state)
        return state

    def _tell_phase(self, moment: Moment, item: str | Engine, state: State) -> None:
        if self.around and isinstance(item, str):
            self.around(moment, item, state)

    def _take(self, step: Step, state: State, run: Callable[[Step, Key, State], State], alone: bool) -> State:
        key = self.key(step, state)
        record = self.find(step, key)
        if record is None and not alone:
            with self.layers.making(key.value, lambda who: self._tell_waiting(step, str(who))):
                record = self.find(step, key)  # another build may just have made it
                if record is None:
                    return self._run(step, key, state, run)
        if record is None:
            return self._run(step, key, state, run)
        self.cached += 1
        age_s = max(0.0, time.time() - record.made)
        self.network[step.id] = (record.network, record.made)
        self.events.send(StepCached(step=step.id, phase=step.phase, network=record.network, age_s=age_s))
        if self.on_cached:
            self.on_cached(step, key, record, state)
        return state.after(record)

    def _run(self, step: Step, key: Key, state: State, run: Callable[[Step, Key, State], State]) -> State:
        began = time.monotonic()
        state = run(step, key, state)
        self.ran += 1
        self.timings.append((step.id, time.monotonic() - began))
        return state

    def _tell_waiting(self, step: Step, who: str) -> None:
        self.events.note(f"{step.id} is being made by another build ({who}); waiting for it")

    def key(self, step: Step, state: State) -> Key:
        return key_of(
            step,
            tree=state.tree,
            manifest=state.manifest,
            environment=for_phase(self.environment, self.late, step.phase),
            read=lambda name: self.read(name, state),
            constants=self.constants,
            element_files=self.element_files,
            beside=state.exports,
        )

    def find(self, step: Step, key: Key) -> Record | None:
        """The layer to take for a key; None when the step has to run."""
        if self.refresh.names(step):
            return None

        def fits(record: Record) -> bool:
            return self.still_valid(record.inputs)

        found = next(filter(fits, self.layers.candidates(key.value)), None)
        return found if found is not None else self.layers.elsewhere(key.value, fits)

    def read(self, name: str, state: State) -> bytes:
        """The content of a file of the hooks tree: from the topmost layer that has it, else from its element."""
        name = link_goal(name, state.manifest) or name
        mark = state.manifest.get(name, "")
        if mark not in self._texts:
            self._texts[mark] = self._find_text(name, state)
        return self._texts[mark]

    def part_text(self, part: str, state: State) -> bytes | None:
        """The content behind a part of a key that stands for a file, as it is now; None for any other part."""
        kind, _, name = part.partition(" ")
        if kind == "list":
            return self.element_files.get(name)
        if kind == "file":
            return self.read(name, state) if content_of(state.manifest.get(name, "")) else None
        return None

    def _find_text(self, name: str, state: State) -> bytes:
        source = self.sources.get(name)
        has_source = source is not None and source.is_file()
        # A layer of a remote cache is not here yet, unless it changed the hooks tree: look where the mark says.
        if source is not None and has_source and fingerprint(source) == state.manifest.get(name):
            return source.read_bytes()
        for entry in state.stack:
            if not entry.startswith(("@", "pkg-")):
                path = self.layers.path(entry) / "hooks" / name
                if path.is_file():
                    return path.read_bytes()
        return source.read_bytes() if source is not None and has_source else b""
