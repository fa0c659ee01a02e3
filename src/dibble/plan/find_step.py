"""The step that a user's word means."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from dibble.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def step_named(word: str, steps: Sequence[str]) -> str:
    """The id of the step that `word` names: a whole id, a script's whole name, or the beginning or end of one alone.

    Raises UsageError for a word that names none, with the nearest, or several.
    """
    scripts = {step: step.partition("/")[2] for step in steps}
    for found in (
        [step for step in steps if step == word],
        [step for step in steps if scripts[step] == word],
        [step for step in steps if step.startswith(word) or step.endswith(word) or scripts[step].startswith(word)],
    ):
        if len(found) == 1:
            return found[0]
        if found and word:
            raise UsageError(f'several steps are meant by "{word}"', hint=f"say one of: {', '.join(found)}")
    meant = {name: step for step in steps for name in (step, scripts[step])}
    near = list(dict.fromkeys(meant[name] for name in get_close_matches(word, meant, n=3, cutoff=0.6)))
    hint = f"did you mean {' or '.join(near)}?" if near else f"the steps are: {', '.join(steps)}"
    raise UsageError(f'unknown step "{word}"', hint=hint)
