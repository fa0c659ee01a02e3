"""Running one hook script, outside or in the target, as dib-run-parts would (contract.md 1.8, 2.4)."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.errors import HookFailed, HookOutput, Where
from dibble.run.environment import HOOKS_IN_TARGET, for_inside, for_outside, for_phase
from dibble.sandbox.netwatch import Listener
from dibble.sandbox.process import run
from dibble.sandbox.workspace import BUILD_DIRECTORY, CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from dibble.plan.step import Step

LINES_KEPT = 15
# How programs tell of EROFS: coreutils, bash (quoted or not), Python.
_REFUSED = re.compile(r"""(/[^'"`:\u2019]+)['"`\u2019]?: Read-only file system|Read-only file system: ['"](/[^'"]+)""")

_SOURCE_ENVIRONMENT = r"""
set -eu -o pipefail
if [ "${DIB_DEBUG_TRACE:-0}" -gt 0 ]; then set -x; fi
for _dibble_file in "$@"; do source "$_dibble_file"; done
set +x
unset _dibble_file
env -0 > /dev/dibble/environment
"""

# Bash reads this before every script (BASH_ENV): a command that fails leaves its file and line, so that the error can
# name them. It changes neither options nor output, and the traps of functions stay as they are.
_BASH_ENV = r"""trap '[ "$BASH_SUBSHELL" -gt 0 ] || printf "%s:%s\n" "${BASH_SOURCE[0]:-}" "$LINENO" >> /dev/dibble/failed-at' ERR
"""  # noqa: E501


def hooks_of(step: Step) -> str:
    """The hooks tree as the step sees it."""
    return HOOKS_IN_TARGET if step.where == "inside" else f"{BUILD_DIRECTORY}/hooks"


def script_of(step: Step) -> str:
    """The step's script, at the path by which it is run."""
    return f"{hooks_of(step)}/{step.phase}/{step.script}"


def explain_refused(step: Step, paths: Sequence[str]) -> str:
    """Why a script could not write to these paths, and where it can; empty without any."""
    if not paths:
        return ""
    shown = " and ".join(dict.fromkeys(paths))
    if step.where == "inside":
        return f"{shown} cannot be written to in the target: the hooks (under {HOOKS_IN_TARGET}) and /sys are read-only"
    return (
        f"{shown} is not of the image and cannot be written to: a script outside the target writes below $TARGET_ROOT"
        " (or $TMP_MOUNT_PATH), $TMP_HOOKS_PATH, /tmp, $DIB_IMAGE_CACHE, and beside the image"
    )


@dataclass(slots=True)
class HookRunner:
    """Runs the hooks of one build. `view` and `target` are roots as our process sees them."""

    view: Path
    target: Path
    environment: Mapping[str, str]
    late: Mapping[str, str]
    cwd: str
    on_line: Callable[[str, str], None]
    """Called with the step's id and a line of its output."""
    reached: tuple[str, ...] = ()
    """The servers that the last script connected to, as `ADDRESS:PORT`."""
    refused: list[str] = field(default_factory=list)
    """The read-only paths that the last script tried to write to, as far as its output names them."""
    _phases: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def prepare(self) -> None:
        (self._channel / "bash-env").write_text(_BASH_ENV)

    def run(
        self, step: Step, environment_files: Sequence[str], *, commands: str = "", words: Sequence[str] = ()
    ) -> None:
        """Run a script; raises HookFailed with its status, line and last output. `reached` then tells of its network.

        `commands` is a directory that PATH begins with, besides our own. `words` are a command that is run as a script
        of the step's phase would be, in the place of one.
        """
        env = self.environment_of(step, environment_files)
        if commands:
            env = {**env, "PATH": f"{commands}:{env['PATH']}"}
        (self._channel / "failed-at").write_text("")
        (self._channel / "failed-at").chmod(0o666)
        last: deque[str] = deque(maxlen=LINES_KEPT)
        self.refused = []

        def line(text: str) -> None:
            last.append(text)
            if "Read-only file system" in text and (found := _REFUSED.search(text)):
                self.refused.append(found.group(1) or found.group(2))
            self.on_line(step.id, text)

        # Through bash, because a script without an interpreter line runs as a shell script there.
        argv = ["/bin/bash", "-c", '"$0" "$@"', *(words or [script_of(step)])]
        listener = Listener()
        try:
            done = self._execute(step, argv, env, line, listener)
        finally:
            self.reached = listener.close()
        if done:
            place = Where(step=step.id)
            if not words:
                place = Where(f"{step.phase}/{step.script}", self._line_of(step, done, last), step=step.id)
            raise HookFailed(
                f"{words[0] if words else step.script} ended with status {done}",
                status=done,
                output=HookOutput(tuple(last)),
                hint=explain_refused(step, self.refused),
                where=place,
            )

    @property
    def _channel(self) -> Path:
        return self.view / CHANNEL.relative_to("/")

    def _execute(
        self,
        step: Step,
        argv: list[str],
        env: Mapping[str, str],
        line: Callable[[str], None],
        listener: Listener | None = None,
    ) -> int:
        inside = step.where == "inside"
        return run(
            argv,
            env=env,
            root=self.target if inside else self.view,
            cwd="/" if inside else self.cwd,
            on_line=line,
            check=False,
            listener=listener,
        ).status

    def environment_of(self, step: Step, files: Sequence[str]) -> dict[str, str]:
        """The environment after environment.d (`files` of it), made once for each side of a phase.

        The step's hooks tree must be mounted. Raises HookFailed.
        """
        place = (step.phase, step.where)
        if place in self._phases:
            return self._phases[place]
        given = for_phase(self.environment, self.late, step.phase)
        env = for_inside(given) if step.where == "inside" else for_outside(given, step.phase)
        if files:
            folder = f"{hooks_of(step)}/environment.d"
            last: deque[str] = deque(maxlen=LINES_KEPT)

            def line(text: str) -> None:
                last.append(text)
                self.on_line(step.id, text)

            argv = ["/bin/bash", "-c", _SOURCE_ENVIRONMENT, "environment.d", *(f"{folder}/{name}" for name in files)]
            (self._channel / "failed-at").write_text("")
            status = self._execute(step, argv, {**env, "BASH_ENV": f"{CHANNEL}/bash-env"}, line)
            if status:
                raise HookFailed(
                    f"an environment.d file ended with status {status} in phase {step.phase}",
                    status=status,
                    output=HookOutput(tuple(last)),
                    hint="an environment.d file must be safe under `set -eu`; see the last lines of its output",
                    where=self._failed_place(folder, step, last),
                )
            env = dict(
                entry.decode("utf-8", "surrogateescape").split("=", 1)
                for entry in (self._channel / "environment").read_bytes().split(b"\0")[:-1]
            )
            for name in ("_", "SHLVL", "OLDPWD", "PWD"):
                env.pop(name, None)
        env["BASH_ENV"] = f"{CHANNEL}/bash-env"
        self._phases[place] = env
        return env

    def _failed_lines(self) -> list[tuple[str, int]]:
        places = []
        for text in (self._channel / "failed-at").read_text(errors="replace").splitlines():
            file, _, number = text.rpartition(":")
            if number.isdigit():
                places.append((file, int(number)))
        return places

    def _line_of(self, step: Step, status: int, last: Iterable[str]) -> int | None:
        """The line at which a script failed, as far as can be told.

        bash has noted a command that failed; interpreters name the line of what they cannot run, at the end of the
        output; of an `exit` only its status is known, which may stand in one line alone.
        """
        script = script_of(step)
        for file, number in reversed(self._failed_lines()):
            if file == script:
                return number
        named = re.compile(rf"{re.escape(script)}(?:: line |\", line |:)([0-9]+)")
        for text in reversed(tuple(last)):
            if found := named.search(text):
                return int(found.group(1))
        root = self.target if step.where == "inside" else self.view
        try:
            lines = (root / script.lstrip("/")).read_text("utf-8", "replace").splitlines()
        except OSError:
            return None
        leaves = re.compile(rf"^[^#]*\bexit {status}\b")
        numbers = [number for number, line in enumerate(lines, start=1) if leaves.match(line)]
        return numbers[0] if len(numbers) == 1 else None

    def _failed_place(self, folder: str, step: Step, last: Iterable[str]) -> Where:
        """The line of an environment.d file: where a command failed, or what bash said that it cannot read."""
        said = [
            (found[1], int(found[2]))
            for text in reversed(tuple(last))
            if (found := re.match(rf"({re.escape(folder)}/[^:]+): line ([0-9]+):", text))
        ]
        for file, number in (*reversed(self._failed_lines()), *said):
            if file.startswith(folder):
                return Where(file=file.removeprefix(folder.removesuffix("environment.d")), line=number, step=step.id)
        return Where(step=step.id)
