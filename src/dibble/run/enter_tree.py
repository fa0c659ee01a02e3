"""Being in a build's tree: a shell or a command, on the side and with the surroundings that a script has there."""

from __future__ import annotations

import stat
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from dibble.elements.chroot_path import within
from dibble.elements.phases import BY_DIRECTORY
from dibble.errors import HostError
from dibble.events import ShellClosed, ShellOpened
from dibble.plan.manifest import environment_files
from dibble.plan.sequence import SEQUENCE
from dibble.plan.step import Step
from dibble.sandbox.process import run
from dibble.sandbox.terminal import is_terminal, run_on_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dibble.events import Events
    from dibble.run.beside import Exports
    from dibble.run.executor import Executor
    from dibble.run.mounted_tree import Masks
    from dibble.run.state import State

Side = Literal["inside", "outside"]
SHELLS = ("/bin/bash", "/bin/sh")
"""Taken in this order."""
_FINISHED = "finalise.d"
"""Whose environment a shell in the finished tree has: the last phase inside the target."""


@dataclass(frozen=True, slots=True)
class What:
    """What runs in the tree: the text of a command, or its words; neither: a shell, for a person or from a pipe."""

    text: str | None = None
    words: tuple[str, ...] = ()

    @property
    def is_shell(self) -> bool:
        return self.text is None and not self.words

    def argv(self, shell: str) -> list[str]:
        if self.text is not None:
            return [shell, "-c", self.text]
        if self.words:
            return [shell, "-c", 'exec "$@"', shell, *self.words]  # it says so itself when there is no such program
        return [shell, "--norc"] if shell.endswith("bash") else [shell]


A_SHELL = What()


def place_of(step: Step | None, side: Side | None = None) -> Step:
    """The step with whose surroundings to stand in the tree; None stands for the finished tree.

    The engine's own work has no script: for it, it is the nearest phase inside the target.
    """
    if step is None:
        step = Step("the finished tree", _FINISHED, "inside")
    elif step.where == "engine":
        step = replace(step, where="inside", phase=_phase_near(step.phase), script="")
    return replace(step, where=side) if side else step


def _phase_near(work: str) -> str:
    """The phase inside the target that comes right before a piece of the engine's work, else the first one after it."""
    names = [item if isinstance(item, str) else item.name for item in SEQUENCE]
    position = names.index(work)
    inside = [name for name, phase in BY_DIRECTORY.items() if phase.where == "inside"]
    before = [name for name in names[:position] if name in inside]
    return before[-1] if before else inside[0]


def enter(
    executor: Executor,
    events: Events,
    step: Step,
    state: State,
    lowers: list[Path],
    *,
    what: What,
    masks: Masks | None = None,
    point: str,
    greeting: Sequence[str] = (),
    on_line: Callable[[str], None] | None = None,
) -> tuple[int, Exports | None]:
    """Run `what` in the tree of `lowers`, where `step` says (`place_of`); returns its status, and what it left beside
    the image.

    On a terminal it gets one of its own. Elsewhere it has our standard input and output, or none and `on_line` is
    called with each line that it prints. `greeting` is shown first, on standard error. Raises HostError where there is
    no shell in the target.
    """
    workspace = executor.workspace
    inside = step.where == "inside"
    root = workspace.target if inside else workspace.view
    with executor.visited(step, state, lowers, masks or {}) as tree:
        shell = next((path for path in SHELLS if is_program(root, path)), None)
        if shell is None:
            raise HostError(
                f"there is no shell in the target ({point})",
                hint="look at it from outside: --outside, or break_outside_target=1 for a break point",
            )
        # Files of environment.d are for bash; a target without it has no script that runs with them.
        files = environment_files(state.manifest) if shell == SHELLS[0] else []
        env = {**executor.hooks.environment_of(step, files), "PS1": _prompt(point, shell)}
        argv = what.argv(shell)
        cwd = "/" if inside else executor.hooks.cwd
        if is_terminal():
            events.send(ShellOpened(point=point, inside=inside))
            say(*greeting)
            status = 1
            try:
                status = run_on_terminal(argv, env=env, root=root, cwd=cwd, devpts=workspace.view / "dev/pts")
            finally:
                events.send(ShellClosed(point=point, status=status))
        else:
            say(*greeting)
            own = on_line is None
            status = run(argv, env=env, root=root, cwd=cwd, interactive=own, on_line=on_line, check=False).status
    return status, tree.exports


def say(*lines: str) -> None:
    """To whoever sits there: on standard error, as DIB does."""
    for line in lines:
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _prompt(point: str, shell: str) -> str:
    return f"[{point}] " + (r"\w\$ " if shell.endswith("bash") else "# ")


def is_program(root: Path, path: str) -> bool:
    """Whether a process chrooted to `root` can run `path`."""
    try:
        status = within(root, path).stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)
