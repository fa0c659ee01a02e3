"""`dibble shell`: to the place in a build that was asked for, with what is missing on the way built first."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dibble.errors import UsageError
from dibble.plan.find_step import step_named
from dibble.run.build import at_work, open_executor, open_workspace, runner, tell_start
from dibble.run.enter_tree import A_SHELL, Side, What, enter, place_of
from dibble.run.hooks import script_of
from dibble.run.mounted_tree import masks_of
from dibble.run.planner import make_plan
from dibble.run.prepare import prepare
from dibble.run.state import State
from dibble.sandbox.terminal import settings_kept

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import Events
    from dibble.plan.plan import Plan
    from dibble.plan.step import Key, Step
    from dibble.recipe.model import Request
    from dibble.run.executor import Executor
    from dibble.run.prepare import Build
    from dibble.run.walk import Walk


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where to go: before the step `at`, after the step `after`, or to what a `failed` step left; else to the end.

    Steps are named as in `step_named`. `side` overrides where the step runs.
    """

    at: str = ""
    after: str = ""
    failed: bool = False
    side: Side | None = None
    what: What = A_SHELL


@dataclass(frozen=True, slots=True)
class _Point:
    """A place in a build. `step` is the one whose surroundings it has, None at the end; `next` the one that would come;
    `lowers` are the directories of the tree, topmost first."""

    text: str
    step: Step | None
    next: Step | None
    state: State
    lowers: list[Path]


def shell(request: Request, events: Events, wanted: Wanted) -> int:
    """Run a shell, or a command, in the tree of a build; returns its status. Raises DibbleError.

    Nothing of what it changes is kept.
    """
    from dibble.sandbox.enter import run_in_namespace

    known = prepare(request, events)
    plan = make_plan(known).plan
    ids = [planned.step.id for planned in plan.steps]
    wanted = replace(
        wanted,
        at=step_named(wanted.at, ids) if wanted.at else "",
        after=step_named(wanted.after, ids) if wanted.after else "",
    )
    missing = _missing(plan, wanted)
    if missing:
        tell_start(known, plan, missing)
    with settings_kept():
        return run_in_namespace(lambda: _in_namespace(known, plan, wanted), network=not request.offline)


def _missing(plan: Plan, wanted: Wanted) -> int:
    """How many steps have to run first."""
    if wanted.failed:
        return 0
    count = 0
    for planned in plan.steps:
        if planned.step.id == wanted.at:
            break
        count += planned.status != "cached"
        if planned.step.id == wanted.after:
            break
    return count


def _in_namespace(known: Build, plan: Plan, wanted: Wanted) -> int:
    with at_work(known) as (session, walk, _):
        executor = open_executor(known, open_workspace(known, session), walk.layers)
        try:
            if wanted.failed:
                point = _failed_point(known, walk, executor)
            else:
                point = _point(known, plan, walk, executor, wanted)
            return _enter(known, walk, executor, point, wanted)
        finally:
            executor.close()


def _point(known: Build, plan: Plan, walk: Walk, executor: Executor, wanted: Wanted) -> _Point:
    """Walk there; raises what a step raises that has to run on the way, and UsageError when the step never comes."""
    passed: list[Step] = []
    following: list[Step] = []

    def until(step: Step) -> bool:
        arrived = step.id == wanted.at or bool(wanted.after and passed and passed[-1].id == wanted.after)
        (following if arrived else passed).append(step)
        return arrived

    run = runner(known, plan, walk, executor)
    pending = bool(known.request.packages)
    state = walk.go(State(manifest=known.manifest), run, pending=pending, alone=False, until=until)
    lowers = executor.lower_directories(state)
    if wanted.at:
        if not following:
            raise _never_came(wanted.at)
        return _Point(f"before {wanted.at}", following[0], following[0], state, lowers)
    if wanted.after:
        if passed[-1].id != wanted.after:
            raise _never_came(wanted.after)
        return _Point(f"after {wanted.after}", passed[-1], following[0] if following else None, state, lowers)
    return _Point("the finished tree", None, None, state, lowers)


def _never_came(step: str) -> UsageError:
    return UsageError(
        f"{step} is not among the steps any more: one before it has changed the hooks",
        hint="see `dibble plan` for those that there are now",
    )


class _Missing(Exception):
    """The first step that is not in the store."""

    def __init__(self, step: Step, key: Key, state: State) -> None:
        super().__init__(step.id)
        self.step, self.key, self.state = step, key, state


def _failed_point(known: Build, walk: Walk, executor: Executor) -> _Point:
    def stop(step: Step, key: Key, state: State) -> State:
        raise _Missing(step, key, state)

    try:
        walk.go(State(manifest=known.manifest), stop, pending=bool(known.request.packages))
    except _Missing as missing:
        step, state = missing.step, missing.state
        record = walk.layers.failed(step.id, missing.key.value, state.tree)
        if record is None:
            raise UsageError(
                f"nothing is kept of a failure of {step.id}, which is the first step that is not in the store",
                hint="build with --keep-on-failure until it fails",
            ) from None
        own = [walk.layers.path(entry) for entry in record.stack]
        return _Point(f"as {step.id} failed", step, step, state, own + executor.lower_directories(state))
    raise UsageError("no step has failed: all of them are in the store", hint="leave --failed out")


def _enter(known: Build, walk: Walk, executor: Executor, point: _Point, wanted: Wanted) -> int:
    place = place_of(point.step, wanted.side)
    masks: dict[str, list[str]] = {}
    if point.step is not None and point.step.script:
        masks = masks_of(point.step, walk.key(point.step, point.state), point.state)
        if point.next is not None and point.next.script and point.next.phase in masks:
            masks[point.next.phase] = sorted({*masks[point.next.phase], point.next.script})
    greeting = (
        f"dibble: {point.text}, {place.where} the target; what is changed in the tree here is dropped at the end."
        f" {_coming(point.next, place)}"
    )
    status, _ = enter(
        executor,
        known.events,
        place,
        point.state,
        point.lowers,
        what=wanted.what,
        masks=masks,
        point=point.text,
        greeting=[greeting],
    )
    return status


def _coming(step: Step | None, place: Step) -> str:
    """What comes next, and how to run it."""
    if step is None:
        return "No step comes after it."
    if step.where == "engine":
        return f"Next comes {step.id}, dibble's own work."
    if step.where != place.where:
        return f"Next comes {step.id}, {step.where} the target."
    return f"Next comes {shlex.quote(script_of(step))}"


def checked(wanted: Wanted) -> Wanted:
    """Raises UsageError when more than one place, or more than one thing to run, is named."""
    named = {"--at": wanted.at, "--after": wanted.after, "--failed": wanted.failed}
    places = [name for name, given in named.items() if given]
    if len(places) > 1:
        raise UsageError(f"{' and '.join(places)} name different places", hint="give one of them")
    if wanted.what.text is not None and wanted.what.words:
        raise UsageError("a command is given twice, by --command and behind --", hint="give it once")
    return wanted
