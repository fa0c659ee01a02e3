"""What is done again although the store has it: `--refresh PHASE|STEP|all`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dibble.registry import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dibble.plan.step import Step

ALL = "all"


@dataclass(frozen=True, slots=True)
class Refresh:
    """`words` as the user gave them: `all`, a phase (`install.d`, `install`), a step's id, or its script alone."""

    words: tuple[str, ...] = ()

    def names(self, step: Step) -> bool:
        """Whether the step is to be run again."""
        return any(word in self.words for word in (ALL, *_names_of(step)))

    def check(self, steps: Iterable[Step]) -> None:
        """Raises UsageError for a word that names none of the build's steps."""
        known = {name for step in steps for name in _names_of(step)} | {ALL}
        for word in self.words:
            if word not in known:
                raise unknown("step or phase", word, sorted(known))


def _names_of(step: Step) -> tuple[str, ...]:
    names = (step.id, step.phase, step.phase.removesuffix(".d"))
    return (*names, step.script) if step.script else names
