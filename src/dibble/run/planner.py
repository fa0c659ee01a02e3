"""Makes the plan of a build: walks its steps against the store and foresees what those that run will leave.

Nothing runs here and nothing but the state of repositories is asked of the network. What a step that has to run will
ask the package engine for is `run/foresee.py`'s part.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dibble.errors import Where
from dibble.events import Events
from dibble.plan.explain import Reason, Sources, different, nearest, reasons
from dibble.plan.key import shown_parts
from dibble.plan.manifest import content_of, digest
from dibble.plan.plan import Plan, PlannedOutput, PlannedPackage, PlannedStep
from dibble.run.host_files import KINDS
from dibble.run.planned_disks import planned_disks
from dibble.run.state import State
from dibble.store.facts import BuildLog
from dibble.store.layers import LayerStore, OutputStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dibble.plan.step import Key, Step
    from dibble.run.prepare import Build
    from dibble.run.walk import Walk
    from dibble.store.layers import Record

_COMPARED = 4  # stored layers that a step is compared with when it runs for the sake of an earlier one anyway
INITRAMFS_PACKAGES = frozenset({"initramfs-tools", "dracut"})

Foreseen = dict[str, list[dict[str, Any]]]
"""By step: the requests to the package engine that are expected, in the form of `History.requests`."""


@dataclass(slots=True)
class Planning:
    """A plan with what it was made from: the walk, and the state that the tree will have."""

    plan: Plan
    walk: Walk
    state: State


def make_plan(build: Build, *, details: bool = False, foreseen: Foreseen | None = None) -> Planning:
    """The plan of a build as the store is now. Raises UsageError for a --refresh that names nothing.

    With `details`, the packages of cached steps and the layout of disks are in it; `foreseen` adds the packages of
    steps that will run. Takes some 0.1 s for 40 steps.
    """
    walk = build.walk()
    walk.events = Events()  # what is only planned is not told as done
    foresight = _Foresight(build, walk, details, foreseen or {})
    walk.on_cached = foresight.cached
    state = walk.go(State(manifest=build.manifest), foresight.missing, pending=bool(build.request.packages))
    walk.on_cached = None
    walk.refresh.check(planned.step for planned in foresight.steps)
    request = build.request
    certain = foresight.first is None
    disks, volumes = planned_disks(build, state) if details else ((), ())
    plan = Plan(
        name=request.name,
        arch=request.arch,
        elements=tuple(element.name for element in build.elements.elements),
        requested=request.elements,
        steps=tuple(foresight.steps),
        outputs=_outputs(build, state if certain else None),
        disks=disks,
        volumes=volumes,
        output_seconds=_output_seconds(build),
        target=request.target,
    )
    return Planning(plan, walk, state)


def with_packages(build: Build, plan: Plan, foreseen: Foreseen) -> Plan:
    """The plan with the packages of steps that will run; made anew only where these bring a further step."""
    names = {name for requests in foreseen.values() for request in requests for name, *_ in request.get("install", ())}
    if names & INITRAMFS_PACKAGES and not any(planned.step.phase.startswith("initramfs") for planned in plan.steps):
        return make_plan(build, details=True, foreseen=foreseen).plan

    def told(planned: PlannedStep) -> PlannedStep:
        requests = None if planned.status == "cached" else foreseen.get(planned.step.id)
        return planned if requests is None else replace(planned, packages=_packages(requests, _held_by(build)))

    return replace(plan, steps=tuple(told(planned) for planned in plan.steps))


@dataclass(slots=True)
class _Foresight:
    """Notes each step of a walk. `first` is the first step that runs and may change the tree."""

    build: Build
    walk: Walk
    details: bool
    foreseen: Mapping[str, Sequence[Mapping[str, Any]]]
    steps: list[PlannedStep] = field(default_factory=list)
    first: str | None = None

    @property
    def _layers(self) -> LayerStore:
        return self.walk.layers

    def cached(self, step: Step, key: Key, record: Record, _: State) -> None:
        requests = self._layers.history(record.id).requests if self.details else ()
        self.steps.append(
            PlannedStep(
                step=step,
                element=self._element(step),
                key=key,
                certain=self.first is None,
                status="cached",
                layer=record.id,
                seconds=record.seconds,
                bytes=record.bytes,
                network=record.network,
                age_s=max(0.0, time.time() - record.made),
                packages=_packages(requests, lambda _: True),
            )
        )

    def missing(self, step: Step, key: Key, state: State) -> State:
        records = self._layers.of_step(step.id)[: None if self.first is None else _COMPARED]
        histories = [self._layers.history(record.id) for record in records]
        parts = [history.parts for history in histories]
        number = nearest(key, parts)
        old = records[number] if number is not None else None
        found = self._reasons(step, key, state, parts[number] if number is not None else None)
        own = tuple(reason for reason in found if reason.part != "tree")
        requests: Sequence[Mapping[str, Any]] | None = self.foreseen.get(step.id)
        if requests is None and old is not None and number is not None:
            same_script = "script" not in different(parts[number], shown_parts(key.parts))
            requests = histories[number].requests if same_script else None
        self.steps.append(
            PlannedStep(
                step=step,
                element=self._element(step),
                key=key,
                certain=self.first is None,
                status="run" if own or self.first is None else "follows",
                reasons=own or found,
                seconds=old.seconds if old else None,
                bytes=old.bytes if old else None,
                network=old.network if old else (),
                packages=_packages(requests, _held_by(self.build)) if requests is not None else None,
            )
        )
        changes_tree = old is None or old.tree != old.tree_before
        if changes_tree and self.first is None:
            self.first = step.id
        if old is not None and number is not None and self._as_before(key, state, old, parts[number]):
            return state.after(old)
        return self._expected(step, key, state, old, changes_tree, requests or ())

    def _as_before(self, key: Key, state: State, old: Record, parts: Mapping[str, str]) -> bool:
        """Whether a step will most likely leave what it left before: only files differ that are there for others."""
        names = different(parts, shown_parts(key.parts))
        stands = all(self._layers.path(entry).is_dir() for entry in old.stack if not entry.startswith("@"))
        return old.tree_before == state.tree and stands and all(name.startswith(("file ", "list ")) for name in names)

    def _expected(  # noqa: PLR0917 - internal, called once
        self,
        step: Step,
        key: Key,
        state: State,
        old: Record | None,
        changes_tree: bool,
        requests: Sequence[Mapping[str, Any]],
    ) -> State:
        """The state after a step that has not run, as far as its last run and what it asks for tell."""
        names = {name for request in requests for name, *_ in request.get("install", ())}
        pending = state.initramfs_pending or bool(old and old.initramfs_pending) or bool(names & INITRAMFS_PACKAGES)
        if step.phase.startswith("initramfs"):
            pending = False
        after = replace(state, initramfs_pending=pending)
        if changes_tree:
            after = replace(after, tree=f"expected-{digest([state.tree, key.value])}")
        if old and old.exports:
            after = replace(after, exports=(*after.exports, f"expected-{key.value}"))
        if old and old.hooks:
            from dibble.plan.manifest import changed

            after = replace(after, manifest=changed(after.manifest, old.hooks))
        return after

    def _element(self, step: Step) -> str:
        hook = self.build.elements.hooks.files.get(f"{step.phase}/{step.script}")
        return hook.element if hook else ""

    def _reasons(self, step: Step, key: Key, state: State, old: Mapping[str, str] | None) -> tuple[Reason, ...]:
        if self.walk.refresh.names(step):
            return (Reason("refresh", "--refresh asks for it"),)
        moved_on = [
            Reason("host file", f"the {entry.kind} {entry.name} has changed", Where(file=entry.name))
            if entry.kind in KINDS
            else Reason("repository", f"{entry.name} has changed", old=entry.digest)
            for record in self._layers.candidates(key.value)
            for entry in record.inputs
            if not self.walk.still_valid([entry])
        ]
        if moved_on:
            return tuple({reason.text: reason for reason in moved_on}.values())
        if old is None:
            return (Reason("store", "the store knows no earlier run of it"),)
        found = reasons(key, old, self._sources(step, state))
        if not found:
            return (Reason("store", "its layer is no longer in the store"),)
        if self.first is None:
            return found
        because = Reason("tree", f"{self.first} runs before it")
        return tuple(reason if reason.part != "tree" else because for reason in found)

    def _sources(self, step: Step, state: State) -> Sources:
        def named(part: str) -> str:
            return f"file {step.phase}/{step.script}" if part == "script" else part

        def place(part: str) -> str:
            kind, _, name = named(part).partition(" ")
            if kind == "list":
                element, _, file = name.partition("/")
                found = [one.path / file for one in self.build.elements.elements if one.name == element]
                return str(found[0]) if found else name
            path = self.build.sources.get(name)
            return str(path) if path else name

        return Sources(
            now=lambda part: self.walk.part_text(named(part), state),
            then=lambda mark: self.walk.layers.text(content_of(mark) or mark),
            place=place,
        )


def _held_by(build: Build) -> Callable[[str], bool]:
    """Whether a package, by its sha256, is in the store."""
    from dibble.packages.fetch import blob_path

    store = build.store
    return lambda sha256: (store.packages / sha256[:2] / sha256).exists() or blob_path(store.blobs, sha256).exists()


def _packages(requests: Sequence[Mapping[str, Any]], is_held: Callable[[str], bool]) -> tuple[PlannedPackage, ...]:
    found = []
    for request in requests:
        for action in ("install", "upgrade"):
            for name, version, arch, size, sha256 in request.get(action, ()):
                found.append(PlannedPackage(name, version, arch, size, action, is_held(sha256)))
        found += [PlannedPackage(name, "", "", 0, "remove", True) for name in request.get("remove", ())]
    return tuple(found)


def _outputs(build: Build, state: State | None) -> tuple[PlannedOutput, ...]:
    """`state` is that of the finished tree, None when it is not known yet."""
    from dibble.registry import load

    store = OutputStore(build.store)
    keys = build.output_keys(state) if state else {}
    found = []
    for name in build.request.outputs:
        folder = store.find(keys[name]) if name in keys else None
        files = [path for path in folder.iterdir() if path.name.startswith("output")] if folder else []
        size = sum(path.stat().st_size for path in files) if files else None
        suffix = load("outputs", name).info.suffix
        found.append(PlannedOutput(f"{build.request.name}.{suffix}", name, folder is not None, size))
    return tuple(found)


def _output_seconds(build: Build) -> float | None:
    """What the outputs of the last build with the same formats took, that of the same elements first."""
    wanted = list(build.request.outputs)
    elements = [element.name for element in build.elements.elements]
    seen = None
    for entry in BuildLog(build.store).entries():
        if entry.get("outputs") == wanted and isinstance(entry.get("output_seconds"), int | float):
            if entry.get("elements") == elements:
                return float(entry["output_seconds"])
            seen = seen if seen is not None else float(entry["output_seconds"])
    return seen
