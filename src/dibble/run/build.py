"""One image from a request: elements → plan → layers → tree → disk → outputs.

The plan comes first. When it has nothing to run and the outputs are in the store, no namespace is entered; else its
steps are carried out, and what it did not foresee is said.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibble import __version__
from dibble.elements.materialise import write_tree
from dibble.errors import DibbleError
from dibble.events import BuildFinished, BuildStarted
from dibble.plan.manifest import content_of
from dibble.run.breaks import Breaks
from dibble.run.environment import COMMANDS
from dibble.run.images import make_outputs, place_exports, place_stored
from dibble.run.planner import make_plan
from dibble.run.prepare import CATALOGUE, prepare
from dibble.run.remote import RemoteSide
from dibble.run.state import State
from dibble.sandbox.mounts import unmount_all_below
from dibble.sandbox.process import find_helper
from dibble.store.condition import settled
from dibble.store.facts import BuildLog
from dibble.store.layers import LayerStore, OutputStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dibble.events import Events
    from dibble.plan.plan import Plan
    from dibble.plan.step import Key, Step
    from dibble.recipe.model import Request
    from dibble.run.executor import Executor
    from dibble.run.prepare import Build
    from dibble.run.walk import Walk
    from dibble.sandbox.tools import ToolsTree
    from dibble.sandbox.workspace import Workspace
    from dibble.store.locks import Holder
    from dibble.store.places import Session


@dataclass(frozen=True, slots=True)
class BuildResult:
    """`files` are the outputs at their final names; `output_seconds` is what writing them took, None when they were
    stored."""

    files: tuple[Path, ...]
    steps_run: int
    steps_cached: int
    seconds: float
    timings: tuple[tuple[str, float], ...] = ()
    output_seconds: float | None = None
    network: Mapping[str, tuple[tuple[str, ...], float]] = field(default_factory=dict)
    """By step: the servers that its result came from, and when (seconds since 1970)."""


def build(request: Request, events: Events) -> BuildResult:
    """Build the image that `request` asks for. Raises DibbleError; nothing stands at a final name then."""
    known = prepare(request, events)
    planning = make_plan(known)
    plan = planning.plan
    tell_start(known, plan, len(plan.to_run))
    for note in known.elements.notes:
        events.send(note)
    breaks = Breaks(known)
    result = None
    status = 1
    try:
        if plan.is_complete and not breaks.stops:
            result = _from_store(known, planning.walk, planning.state, "store")
        if result is None:
            from dibble.sandbox.enter import run_in_namespace

            with breaks.terminal_kept():
                result = run_in_namespace(lambda: _run(known, plan, breaks), network=not request.offline)
        status = 0
    except DibbleError as error:
        status = error.exit_status
        raise
    finally:
        BuildLog(known.store).add(_log_entry(known, plan, result, status))
    return result


def tell_start(known: Build, plan: Plan, steps_to_run: int) -> None:
    """Tell that steps of a plan are about to run."""
    known.events.send(
        BuildStarted(
            name=known.request.name,
            version=__version__,
            requested=known.request.elements,
            elements=plan.elements,
            steps=len(plan.steps),
            steps_to_run=steps_to_run,
            seconds=plan.seconds,
        )
    )


def _log_entry(known: Build, plan: Plan, result: BuildResult | None, status: int) -> dict[str, Any]:
    request = known.request
    timings = dict(result.timings) if result else {}
    network = {step: found for step, found in result.network.items() if found[0]} if result else {}
    return {
        "began": time.time() - (time.monotonic() - known.began),
        "seconds": time.monotonic() - known.began,
        "status": status,
        "name": request.name,
        "cwd": str(request.cwd),
        "arguments": request.arguments,
        "arch": request.arch,
        "elements": list(plan.elements),
        "outputs": list(request.outputs),
        "output_seconds": result.output_seconds if result else None,
        "steps": [
            {
                "step": planned.step.id,
                "element": planned.element,
                "status": planned.status,
                "seconds": timings.get(planned.step.id),
                "network": network.get(planned.step.id),
                "reasons": [[reason.text, str(reason.where), reason.old, reason.new] for reason in planned.reasons],
            }
            for planned in plan.steps
        ],
    }


def _from_store(known: Build, walk: Walk, state: State, where: str) -> BuildResult | None:
    """The whole result, of which the store has everything; `where` it comes from is told. None when it has not, as when
    it was removed since the plan was made."""
    placed = _place_stored(known, state)
    if placed is None:
        return None
    known.events.note(f"nothing has changed: all {walk.cached} steps and the outputs are in the {where}")
    place_exports(known, state)
    return _finished(known, walk, placed)


def _place_stored(known: Build, state: State) -> list[Path] | None:
    """Put the outputs in place from the store; None when it does not have them all."""
    outputs = OutputStore(known.store)
    if any(outputs.find(key) is None for key in known.output_keys(state).values()):
        return None
    return [path for paths in place_stored(known, state).values() for path in paths]


def _outputs_alone(known: Build, state: State, stack: contextlib.ExitStack) -> list[Path] | None:
    """Take the locks of all outputs; gives those that another build has made until then, in place, if it made all."""
    outputs = OutputStore(known.store)
    waited: list[Holder] = []
    for key in sorted(known.output_keys(state).values()):  # in one order, so that no two builds wait for each other
        stack.enter_context(outputs.making(key, waited.append))
    return _place_stored(known, state) if waited else None


def _finished(known: Build, walk: Walk, files: list[Path], output_seconds: float | None = None) -> BuildResult:
    seconds = time.monotonic() - known.began
    timings = tuple(walk.timings)
    known.events.send(
        BuildFinished(seconds=seconds, status=0, steps_run=walk.ran, steps_cached=walk.cached, timings=timings)
    )
    return BuildResult(tuple(files), walk.ran, walk.cached, seconds, timings, output_seconds, walk.network)


def _run(known: Build, plan: Plan, breaks: Breaks) -> BuildResult:
    """Inside the namespaces: run what is missing, then write the outputs."""
    with contextlib.ExitStack() as stack:
        session, walk, remote = stack.enter_context(at_work(known))
        if remote:
            seen = remote.look()
            if seen and not breaks.stops and (result := _from_store(known, *seen, "remote cache")):
                return result
        workspace = open_workspace(known, session)
        executor = open_executor(known, workspace, walk.layers)
        stack.callback(executor.close)
        breaks.watch(walk, executor)
        run = runner(known, plan, walk, executor)
        state = walk.go(State(manifest=known.manifest), run, pending=bool(known.request.packages), alone=False)
        if breaks.stops and walk.ran == 0 and (result := _from_store(known, walk, state, "store")):
            return result
        began = time.monotonic()
        with contextlib.ExitStack() as alone:
            files = _outputs_alone(known, state, alone)
            if files is None:
                files = make_outputs(known, session, workspace, executor.lower_directories(state), state)
        output_seconds = time.monotonic() - began
        walk.timings.append(("outputs", output_seconds))
        if remote:
            remote.finish(state)
        place_exports(known, state)
        return _finished(known, walk, files, output_seconds)


@contextlib.contextmanager
def at_work(known: Build) -> Iterator[tuple[Session, Walk, RemoteSide | None]]:
    """Inside the namespaces: a session in the store, and a walk over the layers of the store and of a remote cache."""
    with contextlib.ExitStack() as stack:
        stack.callback(known.events.close)  # displays that began in this process end in it, also when the build fails
        known.store = settled(known.store, lambda text: known.events.note(text, "warning"))
        known.store.sweep()
        session = stack.enter_context(known.store.session())
        stack.callback(unmount_all_below, session.path)
        walk = known.walk()
        remote = stack.enter_context(RemoteSide(known, known.remote, session.path)) if known.remote else None
        if remote:
            walk.layers = remote.layers
        yield session, walk, remote


def runner(known: Build, plan: Plan, walk: Walk, executor: Executor) -> Callable[[Step, Key, State], State]:
    """What runs a missing step of `walk`; what the plan did not foresee is said."""

    def run(step: Step, key: Key, state: State) -> State:
        after = executor.run(step, key, state)
        walk.network[step.id] = (executor.network, time.time())
        keep_texts(walk, step, key, state)
        if plan.find(step.id) is None and step.where != "engine":
            known.events.note(f"{step.id} was not in the plan: a step before it has put it there")
        return after

    return run


def keep_texts(walk: Walk, step: Step, key: Key, state: State) -> None:
    """Keep the texts that a key was made of: when one changes, the line can be named."""
    for part, mark in key.parts.items():
        name = f"file {step.phase}/{step.script}" if part == "script" else part
        digest = mark if part.startswith("list ") else content_of(mark)
        text = walk.part_text(name, state) if digest else None
        if digest and text is not None:
            walk.layers.keep_text(digest, text)


def open_workspace(plan: Build, session: Session) -> Workspace:
    from dibble.plan.key import shown_files
    from dibble.sandbox import binfmt
    from dibble.sandbox.memory import available_bytes, memory_for
    from dibble.sandbox.tools import ToolsTree
    from dibble.sandbox.workspace import ViewToolbox, Workspace, host_view, tools_view

    request = plan.request
    toolbox: ViewToolbox
    tree = None
    if request.tools != "host":
        tree = ToolsTree(plan.store.root, plan.events, offline=request.offline)
    if binfmt.is_foreign(request.arch):
        binfmt.enable(request.arch, _emulator(request, tree), session.path / "binfmt")
    memory = memory_for(
        available_bytes(),
        no_tmpfs=request.no_tmpfs,
        min_gib=request.min_tmpfs_gib,
        gentoo_profile=request.environment.get("GENTOO_PROFILE", ""),
    )
    if not memory.allowed:
        plan.events.note(f"temporary files are kept on disk: {memory.reason}")
    if tree is None:
        toolbox = host_view(session)
    else:
        lowers = tree.ensure("core", *plan.tool_groups())
        toolbox = tools_view(plan.store, session, lowers, plan.tools_identity, memory)
    assert toolbox.root is not None
    workspace = Workspace(session, toolbox.root, toolbox, memory)
    if tree is not None:
        home = Path(request.environment.get("HOME", "/nonexistent"))
        if home.is_dir() and home != Path("/"):
            workspace.show_writable(home)
        for path in (*request.element_path, CATALOGUE, request.cwd):
            if path.is_dir() and not path.is_relative_to(home) and path != Path("/"):
                workspace.show(path)
        workspace.show_files(shown_files(request.environment))
        workspace.show_store()
    return workspace


def _emulator(request: Request, tree: ToolsTree | None) -> Path:
    """qemu-user for the programs of the image, of the tools tree or, without one, of the host."""
    from dibble.sandbox.binfmt import known

    name = f"qemu-{known(request.arch).emulator}"
    if tree is None:
        return find_helper(f"{name}-static") or Path("/usr/bin") / f"{name}-static"
    return tree.ensure("qemu-user")[0] / "usr/bin" / name


def open_executor(plan: Build, workspace: Workspace, layers: LayerStore | None = None) -> Executor:
    import shutil

    from dibble.packages.apt import Apt
    from dibble.packages.apt_decide import AptSettings
    from dibble.packages.base import ManagerSettings
    from dibble.packages.kernel_modules import SCRATCH_BYTES
    from dibble.registry import load, names
    from dibble.run.executor import Executor
    from dibble.sandbox.binfmt import is_foreign
    from dibble.sandbox.tools import host_arch

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
        max_age_s=plan.request.max_age_s,
        epoch=plan.epoch,
        use=plan.store.use_packages,
        in_memory=workspace.memory.allowed,
        scratch=workspace.memory_directory("scratch", SCRATCH_BYTES),
        native=(host_arch(), workspace.new_directory("native")) if is_foreign(plan.request.arch) else None,
    )

    def settings_of(name: str) -> ManagerSettings:
        return ManagerSettings(
            root=workspace.target,
            arch=plan.request.arch,
            blobs_dir=plan.store.blobs,
            state_dir=plan.store.repositories,
            scratch=workspace.new_directory(name),
            offline=plan.request.offline,
            max_age_s=plan.request.max_age_s,
            epoch=plan.epoch,
        )

    others = [name for name in names("package_managers") if name != "apt"]
    return Executor(
        request=plan.request,
        element_set=plan.elements,
        workspace=workspace,
        layers=layers or LayerStore(plan.store),
        apt=Apt(settings, workspace.toolbox, plan.events),
        others={
            name: load("package_managers", name)(settings_of(name), workspace.toolbox, plan.events) for name in others
        },
        events=plan.events,
        environment=plan.environment,
        late=plan.late,
        base=base,
        fstab=plan.fstab,
        system_files=plan.system_files,
        epoch=plan.epoch,
    )
