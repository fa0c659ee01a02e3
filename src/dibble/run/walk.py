"""Going through a build's steps: what the store has is taken from it, what it lacks is left to a function.

The steps of later phases depend on what earlier ones left in the hooks tree, so the list unfolds while it is walked;
a walk without a function to run steps stops at the first one that is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.events import StepCached
from dibble.plan.key import key_of
from dibble.plan.sequence import SEQUENCE, steps_of
from dibble.run.environment import for_phase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dibble.events import Events
    from dibble.plan.step import Key, Step
    from dibble.run.state import State
    from dibble.store.layers import Input, LayerStore, Record


@dataclass(slots=True)
class Walk:
    """One pass through the steps. `sources` says where a file of the merged hooks tree lies, by name.

    `still_valid` tells whether something outside the key (a repository) is as it was when a layer was made.
    """

    layers: LayerStore
    environment: Mapping[str, str]
    late: Mapping[str, str]
    constants: Mapping[str, str]
    settings: Mapping[str, Mapping[str, str]]
    sources: Mapping[str, Path]
    element_files: Mapping[str, bytes]
    still_valid: Callable[[Input], bool]
    events: Events
    cached: int = 0
    ran: int = 0
    timings: list[tuple[str, float]] = field(default_factory=list)
    _texts: dict[str, bytes] = field(default_factory=dict)

    def go(self, state: State, run: Callable[[Step, Key, State], State] | None, *, pending: bool) -> State | None:
        """Walk all steps from `state`; returns the last state, or None where `run` is missing and a step too.

        `pending` says whether packages were asked for on the command line.
        """
        for item in SEQUENCE:
            waiting = [name for name, is_so in (("packages", pending), ("initramfs", state.initramfs_pending)) if is_so]
            for step in steps_of(item, state.manifest, waiting, self.settings):
                key = self.key(step, state)
                record = self.find(key)
                if record is not None:
                    self.cached += 1
                    self.events.send(StepCached(step=step.id, phase=step.phase))
                    state = state.after(record)
                elif run is None:
                    return None
                else:
                    import time

                    began = time.monotonic()
                    state = run(step, key, state)
                    self.ran += 1
                    self.timings.append((step.id, time.monotonic() - began))
        return state

    def key(self, step: Step, state: State) -> Key:
        return key_of(
            step,
            tree=state.tree,
            manifest=state.manifest,
            environment=for_phase(self.environment, self.late, step.phase),
            read=lambda name: self._read(name, state),
            constants=self.constants,
            element_files=self.element_files,
        )

    def find(self, key: Key) -> Record | None:
        for record in self.layers.candidates(key.value):
            if all(self.still_valid(entry) for entry in record.inputs):
                return record
        return None

    def _read(self, name: str, state: State) -> bytes:
        """The content of a file of the hooks tree: from the topmost layer that has it, else from its element."""
        mark = state.manifest.get(name, "")
        if mark not in self._texts:
            self._texts[mark] = self._find_text(name, state)
        return self._texts[mark]

    def _find_text(self, name: str, state: State) -> bytes:
        for entry in state.stack:
            if not entry.startswith(("@", "pkg-")):
                path = self.layers.path(entry) / "hooks" / name
                if path.is_file():
                    return path.read_bytes()
        source = self.sources.get(name)
        return source.read_bytes() if source is not None and source.is_file() else b""
