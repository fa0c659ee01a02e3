"""Break points: `break=before-install,after-error …` opens a shell there (contract.md 2.7).

`break_cmd` runs instead of the shell, `break_outside_target` stands outside where the phase is inside. The shell sees
the tree as it is; since no key knows of what is done there, it is dropped. Only what is left beside the image stays.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from dibble.elements.phases import BY_DIRECTORY, PHASES
from dibble.errors import DibbleError
from dibble.events import OutputLine
from dibble.plan.step import Step
from dibble.run.enter_tree import A_SHELL, What, enter, place_of, say
from dibble.sandbox.terminal import is_terminal, settings_kept

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from dibble.run.executor import Executor
    from dibble.run.prepare import Build
    from dibble.run.state import State
    from dibble.run.walk import Moment, Walk

AFTER_ERROR = "after-error"
POINTS = tuple(f"{moment}-{phase.name}" for phase in PHASES for moment in ("before", "after"))


class Breaks:
    """The break points of one build. Words that name none are told once."""

    def __init__(self, build: Build) -> None:
        self._build = build
        environment = build.request.environment
        words = [word.strip() for word in environment.get("break", "").split(",")]
        self._points = frozenset(words) & {*POINTS, AFTER_ERROR}
        self._command = environment.get("break_cmd", "")
        self._outside = bool(environment.get("break_outside_target"))
        self._executor: Executor | None = None
        for word in words:
            if word and word not in self._points:
                from dibble.registry import unknown

                error = unknown("break point", word, [*POINTS, AFTER_ERROR])
                build.events.note(f"{error.message}: {error.hint}", "warning")

    @property
    def stops(self) -> bool:
        """Whether a build that goes well stops somewhere."""
        return bool(self._points - {AFTER_ERROR})

    def terminal_kept(self) -> AbstractContextManager[None]:
        """For the process that waits for the build: leaves the terminal as it was, also when the build is killed."""
        return settings_kept() if self._points else contextlib.nullcontext()

    def watch(self, walk: Walk, executor: Executor) -> None:
        """Stop at the points of this walk."""
        self._executor = executor
        if self.stops:
            walk.around = self._at_phase
        if AFTER_ERROR in self._points:
            executor.on_failure = self._after_error

    def _at_phase(self, moment: Moment, directory: str, state: State) -> None:
        phase = BY_DIRECTORY[directory]
        point = f"{moment}-{phase.name}"
        has_files = any(name.startswith(f"{directory}/") for name in state.manifest)
        if point in self._points and (phase.where == "outside" or has_files):
            assert self._executor is not None
            step = Step(point, directory, phase.where)
            self._stop(point, step, state, self._executor.lower_directories(state))

    def _after_error(self, step: Step, state: State, directories: Sequence[Path]) -> None:
        try:
            self._stop(AFTER_ERROR, replace(place_of(step), id=AFTER_ERROR), state, list(directories))
        except DibbleError as error:  # the one that we are here for is to be told
            self._build.events.note(f"no shell after the error: {error}", "warning")

    def _stop(self, point: str, step: Step, state: State, lowers: list[Path]) -> None:
        assert self._executor is not None
        events = self._build.events
        if not self._command and not is_terminal():
            events.note(
                f"break point {point}: there is no terminal for a shell, so the build goes on; break_cmd names a"
                " command to run there",
                "warning",
            )
            return
        if self._outside:
            step = replace(step, where="outside")
        what = What(text=self._command) if self._command else A_SHELL
        greeting = ["Starting debug shell.  Exit to resume building.", f"At stage {point}"]
        if not self._command:
            greeting.append(f"You are {step.where} the target. What is changed in the tree here is dropped.")
        status, exports = enter(
            self._executor,
            events,
            step,
            state,
            lowers,
            what=what,
            point=point,
            greeting=greeting,
            on_line=lambda text: events.send(OutputLine(text=text, step=point)),
        )
        if exports:
            from dibble.outputs.place import place_trees

            request = self._build.request
            place_trees([exports[0]], (request.cwd / request.name).parent)
        if status and self._command:
            events.note(f"break point {point}: break_cmd ended with status {status}", "warning")
        say("Resuming")
