"""One image from a request: elements → plan → layers → tree → disk → outputs.

What the store has already is taken from it; when that is everything, no namespace is entered and nothing runs.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble import __version__
from dibble.elements.materialise import write_tree
from dibble.events import BuildFinished, BuildStarted
from dibble.run.environment import COMMANDS
from dibble.run.images import make_outputs, place_exports
from dibble.run.prepare import CATALOGUE, MAX_AGE_S, prepare
from dibble.run.state import State
from dibble.sandbox.mounts import unmount_all_below
from dibble.store.layers import LayerStore, OutputStore

if TYPE_CHECKING:
    from dibble.events import Events
    from dibble.recipe.model import Request
    from dibble.run.executor import Executor
    from dibble.run.prepare import Build
    from dibble.run.walk import Walk
    from dibble.sandbox.workspace import Workspace
    from dibble.store.places import Session


@dataclass(frozen=True, slots=True)
class BuildResult:
    """`files` are the outputs at their final names."""

    files: tuple[Path, ...]
    steps_run: int
    steps_cached: int
    seconds: float


def build(request: Request, events: Events) -> BuildResult:
    """Build the image that `request` asks for. Raises DibbleError; nothing stands at a final name then."""
    plan = prepare(request, events)
    events.send(
        BuildStarted(
            name=request.name,
            version=__version__,
            requested=request.elements,
            elements=tuple(element.name for element in plan.elements.elements),
            steps=sum(1 for name in plan.manifest if name.split("/")[0].endswith(".d")),
        )
    )
    for note in (*plan.elements.notes,):
        events.send(note)
    result = _from_store(plan)
    if result is None:
        from dibble.sandbox.enter import run_in_namespace

        result = run_in_namespace(lambda: _run(plan))
    return result


def _from_store(plan: Build) -> BuildResult | None:
    """The whole result from the store, or None when something has to run."""
    from dibble.events import Events

    silent = plan.walk()
    silent.events = Events()
    state = silent.go(State(manifest=plan.manifest), None, pending=bool(plan.request.packages))
    if state is None:
        return None
    outputs = OutputStore(plan.store)
    found = {name: outputs.find(key) for name, key in plan.output_keys(state).items()}
    kept = {name: path for name, path in found.items() if path is not None}
    if len(kept) != len(found):
        return None
    from dibble.outputs.run import place_files

    plan.events.note(f"nothing has changed: all {silent.cached} steps and the outputs are in the store")
    files = {
        f"{plan.request.name}{path.name.removeprefix('output')}": path
        for folder in kept.values()
        for path in folder.iterdir()
        if path.name.startswith("output")
    }
    placed = place_files(files, plan.request, plan.events)
    place_exports(plan, state)
    return _finished(plan, silent, placed)


def _finished(plan: Build, walk: Walk, files: list[Path]) -> BuildResult:
    seconds = time.monotonic() - plan.began
    plan.events.send(
        BuildFinished(
            seconds=seconds, status=0, steps_run=walk.ran, steps_cached=walk.cached, timings=tuple(walk.timings)
        )
    )
    return BuildResult(tuple(files), walk.ran, walk.cached, seconds)


def _run(plan: Build) -> BuildResult:
    """Inside the namespaces: run what is missing, then write the outputs."""
    with contextlib.ExitStack() as stack:
        stack.callback(plan.events.close)  # displays that began in this process end in it, also when the build fails
        plan.store.sweep()
        session = stack.enter_context(plan.store.session())
        stack.callback(unmount_all_below, session.path)
        workspace = _workspace(plan, session)
        executor = _executor(plan, workspace)
        stack.callback(executor.close)
        walk = plan.walk()
        state = walk.go(State(manifest=plan.manifest), executor.run, pending=bool(plan.request.packages))
        assert state is not None
        began = time.monotonic()
        files = make_outputs(plan, session, workspace, executor.lower_directories(state), state)
        walk.timings.append(("outputs", time.monotonic() - began))
        place_exports(plan, state)
        return _finished(plan, walk, files)


def _workspace(plan: Build, session: Session) -> Workspace:
    from dibble.sandbox.workspace import ViewToolbox, Workspace, host_view, tools_view

    request = plan.request
    toolbox: ViewToolbox
    if request.tools == "host":
        toolbox = host_view(session)
    else:
        from dibble.sandbox.tools import ToolsTree

        tree = ToolsTree(plan.store.root, plan.events, offline=request.offline)
        lowers = tree.ensure("core")
        toolbox = tools_view(plan.store, session, lowers, tree.identity)
    assert toolbox.root is not None
    workspace = Workspace(session, toolbox.root, toolbox)
    if request.tools != "host":
        home = Path(request.environment.get("HOME", "/nonexistent"))
        if home.is_dir() and home != Path("/"):
            workspace.show_writable(home)
        for path in (*request.element_path, CATALOGUE, request.cwd):
            if path.is_dir() and not path.is_relative_to(home) and path != Path("/"):
                workspace.show(path)
        workspace.show_store()
    return workspace


def _executor(plan: Build, workspace: Workspace) -> Executor:
    import shutil

    from dibble.packages.apt import Apt, AptSettings
    from dibble.run.executor import Executor

    base = workspace.new_directory("base")
    (base / "mnt").mkdir()
    (base / "mnt").chmod(0o755)
    write_tree(plan.elements.hooks, base / "hooks")
    place = base / "hooks" / COMMANDS
    place.mkdir(parents=True)
    for path in (CATALOGUE / "bin").iterdir():
        shutil.copy2(path, place / path.name)
    settings = AptSettings(
        root=workspace.target,
        arch=plan.request.arch,
        packages_dir=plan.store.packages,
        blobs_dir=plan.store.blobs,
        state_dir=plan.store.repositories,
        offline=plan.request.offline,
        max_age_s=MAX_AGE_S,
        epoch=plan.epoch,
    )
    return Executor(
        request=plan.request,
        element_set=plan.elements,
        workspace=workspace,
        layers=LayerStore(plan.store),
        apt=Apt(settings, workspace.toolbox, plan.events),
        events=plan.events,
        environment=plan.environment,
        late=plan.late,
        base=base,
        fstab=plan.fstab,
        epoch=plan.epoch,
    )
