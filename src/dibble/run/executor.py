"""Executes a build's steps: each runs on an overlay of the layers so far and leaves a layer.

Runs inside the build's namespaces, in one process; the control channel answers scripts from a thread of its own.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.elements.phases import BY_DIRECTORY
from dibble.errors import DibbleError, HookFailed, HostError, Where
from dibble.events import OutputLine, StepFinished, StepStarted
from dibble.plan.explain import different
from dibble.plan.key import shown_parts
from dibble.plan.manifest import digest, environment_files
from dibble.plan.refresh import Refresh
from dibble.run.engine import Engine
from dibble.run.finish import finish_tree, restore_resolv_conf, set_resolv_conf_aside
from dibble.run.freeze import Frozen, freeze
from dibble.run.hooks import HookRunner
from dibble.run.reuse import trace_from, trace_of, unaffected
from dibble.run.state import RESOLV_CONF, State
from dibble.sandbox.mounts import unmount_all
from dibble.sandbox.opened import opened_below
from dibble.sandbox.workspace import BUILD_DIRECTORY, CHANNEL, Workspace, end_leftovers
from dibble.store.facts import Facts
from dibble.store.layers import SCHEMA, History, Record
from dibble.store.places import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dibble.elements.model import ElementSet
    from dibble.events import Events
    from dibble.packages.apt import Apt
    from dibble.packages.base import Transaction
    from dibble.plan.step import Key, Step
    from dibble.recipe.model import Request
    from dibble.sandbox.workspace import Scratch
    from dibble.store.layers import LayerStore

TRACED = frozenset({"initramfs", "initramfs-again"})
"""The engine's own work that takes seconds and reads little of the tree."""
TRACE_FACT = "opened"
LOST = frozenset({"lost+found"})
Exports = tuple[Path, tuple[str, ...]]
"""A directory with files for beside the image, and their names."""


class Executor:
    """Runs steps for one build.

    `base` is the lowest directory of the overlay: the merged hooks and an empty `mnt`. `fstab` is the text to write.
    """

    def __init__(
        self,
        *,
        request: Request,
        element_set: ElementSet,
        workspace: Workspace,
        layers: LayerStore,
        apt: Apt,
        events: Events,
        environment: Mapping[str, str],
        late: Mapping[str, str],
        base: Path,
        fstab: str,
        epoch: int,
    ) -> None:
        from dibble.run.control import ControlChannel

        self._request = request
        self._workspace = workspace
        self._layers = layers
        self.network: tuple[str, ...] = ()
        """The servers that the last step reached."""
        self._facts = Facts(workspace.session.store)
        self._events = events
        self._base = base
        self._fstab = fstab
        self._epoch = epoch
        self._refresh = Refresh(request.refresh)
        self._elements_of = {name: hook.element for name, hook in element_set.hooks.files.items()}
        self._resolv_conf = self._host_resolv_conf()
        self._uppers: list[tuple[str, Path]] = []  # of the running step, oldest first: ("upper" | stack entry, path)
        self._lowers: list[Path] = []
        self.engine = Engine(
            apt, element_set.elements, workspace, events, self._put_packages_below, packages=request.packages
        )
        channel_directory = workspace.view / CHANNEL.relative_to("/")
        self._channel = ControlChannel(channel_directory, self.engine.handle)
        self._hooks = HookRunner(
            view=workspace.view,
            target=workspace.target,
            environment=environment,
            late=late,
            cwd=str(request.cwd),
            on_line=lambda step, text: events.send(OutputLine(text=text, step=step)),
        )
        self._hooks.prepare()
        self._work: dict[str, Callable[[], None]] = {
            "resolv-conf": lambda: set_resolv_conf_aside(workspace.target),
            "packages": self._extra_packages,
            "initramfs": self._initramfs,
            "initramfs-again": self._initramfs,
            "fstab": self._write_fstab,
            "finish": self._finish,
        }

    def close(self) -> None:
        self.engine.apt.close()
        self._channel.close()

    def lower_directories(self, state: State) -> list[Path]:
        """The overlay's lower directories for a state, topmost first."""
        named = {RESOLV_CONF: self._resolv_conf}
        return [named.get(entry) or self._layers.path(entry) for entry in state.stack] + [self._base]

    def run(self, step: Step, key: Key, state: State) -> State:
        """Run a step on a state and keep its layer. Raises HookFailed, or what the engine met."""
        element = self._elements_of.get(f"{step.phase}/{step.script}", "")
        self._events.send(StepStarted(step=step.id, phase=step.phase, element=element))
        began = time.time()
        if step.phase in TRACED and (adopted := self._adopted(step, key, state)):
            self._events.note(f"{step.id}: nothing that it reads has changed; its earlier result is taken")
            self._events.send(StepFinished(step=step.id, seconds=time.time() - began))
            return state.after(adopted)
        self._lowers = self.lower_directories(state)
        upper = self._workspace.mount_tree(self._lowers)
        self._uppers = [("upper", upper)]
        scratch = None
        try:
            if step.where == "outside":
                scratch = self._workspace.show_writable(self._output_directory())
                if self._workspace.session.store.root.is_relative_to(self._output_directory()):
                    self._workspace.show_store()
            with contextlib.ExitStack() as stack:
                opened = stack.enter_context(opened_below(self._workspace.target)) if step.phase in TRACED else None
                self._run_mounted(step, key, state, element)
            trace = trace_of(opened, self._workspace.target, state.stack) if opened else None
        except DibbleError as error:
            status = error.exit_status
            self._events.send(StepFinished(step=step.id, seconds=time.time() - began, status=status))
            raise
        finally:
            left = end_leftovers(set())
            self._workspace.unmount_tree()
            exports = self._take_exports(scratch) if scratch else None
            if scratch:
                self._workspace.hide_scratch(scratch)
        if left:
            self._events.note(f"{step.id} left processes behind, which were ended: {', '.join(left)}", "warning")
        record = self._keep(step, key, state, began, exports)
        if trace is not None:
            self._facts.put(trace.data(), TRACE_FACT, record.id)
        self.network = record.network
        self._events.send(
            StepFinished(step=step.id, seconds=time.time() - began, bytes=record.bytes, network=record.network)
        )
        return state.after(record)

    def rehearse(self, step: Step, state: State) -> list[tuple[str, list[str]]]:
        """What a script asks of the package engine, found out by running it in the tools view without carrying it out.

        Meant for scripts that do nothing else of note; what it writes is thrown away, its failure is no fault.
        """
        self._workspace.mount_tree([self._base])
        asked: list[tuple[str, list[str]]] = []
        self.engine.begin(step.id, inside=False)
        self.engine.rehearsal = asked
        try:
            commands = f"{BUILD_DIRECTORY}/hooks/bin"  # where a target has them in its own PATH
            self._hooks.run(replace(step, where="outside"), environment_files(state.manifest), commands=commands)
        except HookFailed:
            self._channel.failure()  # it has missed what is not there; what it asked for until then counts
        finally:
            self.engine.rehearsal = None
            end_leftovers(set())
            self._workspace.unmount_tree()
        return asked

    # --- a result that serves another tree

    def _adopted(self, step: Step, key: Key, state: State) -> Record | None:
        """The record of an earlier result that this run would come to again, kept for the new key; None without one."""
        if self._refresh.names(step):
            return None
        for old in self._layers.of_step(step.id):
            trace = trace_from(self._facts.get(TRACE_FACT, old.id))
            parts = different(self._layers.history(old.id).parts, shown_parts(key.parts))
            own = [entry for entry in old.stack if not entry.startswith("@")]
            entries = [entry for entry in (*own, *(trace.stack if trace else ())) if not entry.startswith("@")]
            if trace is None or parts != ["tree"] or not all(self._layers.path(entry).is_dir() for entry in entries):
                continue
            if unaffected(trace, state.stack, self._layers.path, own) is not None:
                continue
            record = replace(
                old,
                id=digest([f"schema {SCHEMA}", key.value, "as", old.id])[:40],
                key=key.value,
                tree=digest([state.tree, *old.marks]) if old.marks else state.tree,
                tree_before=state.tree,
                made=time.time(),
            )
            self._facts.put({**trace.data(), "stack": list(state.stack)}, TRACE_FACT, record.id)
            history = History(shown_parts(key.parts))
            self._layers.keep(record, [], None, self._workspace.session.path, history)
            return record
        return None

    # --- one step

    def _run_mounted(self, step: Step, key: Key, state: State, element: str) -> None:
        workspace = self._workspace
        self.engine.begin(step.id, inside=step.where == "inside")
        system = step.phase != "root.d"
        if system:
            workspace.mount_system_in_target()
        try:
            if step.where == "engine":
                self._work[step.phase]()
                return
            masks = _masks(step, key, state)
            if step.where == "inside":
                workspace.show_hooks_in_target(masks)
            else:
                workspace.mask(workspace.hooks, masks)
            self._run_hook(step, state, element)
        finally:
            if system:
                workspace.unmount_target()
        if step.phase == "root.d" and self._is_last_of_root(step, state):
            self._check_root()

    def _run_hook(self, step: Step, state: State, element: str) -> None:
        try:
            self._hooks.run(step, environment_files(state.manifest))
        except HookFailed as error:
            cause = self._channel.failure()
            place = error.where
            error.where = Where(place.file, place.line, place.column, element or None, step.id)
            if isinstance(cause, DibbleError):
                cause.where = cause.where if cause.where.file else error.where
                cause.exit_status = error.exit_status
                raise cause from error
            if cause is not None:
                raise cause from error
            raise
        if (cause := self._channel.failure()) is not None:
            self._events.note(f"{step.id} went on after the engine refused it something: {cause}", "warning")

    def _is_last_of_root(self, step: Step, state: State) -> bool:
        from dibble.plan.manifest import scripts

        return scripts(state.manifest, "root.d")[-1] == step.script

    def _check_root(self) -> None:
        names = {path.name for path in self._workspace.target.iterdir()}
        if not {name for name in names - LOST if not name.endswith("tmp")}:
            raise DibbleError(
                "the root.d scripts left the root tree empty",
                hint="is an operating-system element among the elements, such as debian-minimal?",
            )

    def _put_packages_below(self, transaction: Transaction, merge: Callable[[Path], None]) -> None:
        """Freeze what the running step has written so far, and go on over it with a layer of merged packages."""
        name = digest(sorted(f"{p.name} {p.arch} {p.sha256}" for p in transaction.install))[:40]
        with self._layers.making_packages(name):
            entry = self._layers.packages_entry(name)
            if entry is None:
                made = self._workspace.new_directory("packages")
                (made / "mnt").mkdir()
                merge(made / "mnt")
                entry = self._layers.keep_packages(name, made, [package.sha256 for package in transaction.install])
        unmount_all(self._workspace.build_dir)
        packages = self._layers.path(entry)
        self._lowers = [packages, self._uppers[-1][1], *self._lowers]
        self._uppers.append((entry, packages))
        self._uppers.append(("upper", self._workspace.mount_tree(self._lowers)))

    def _keep(
        self, step: Step, key: Key, state: State, began: float, exports: tuple[Path, tuple[str, ...]] | None
    ) -> Record:
        """Freeze the step's upper directories and put them into the store."""
        inputs = tuple(sorted(self.engine.inputs.values(), key=lambda entry: entry.name))
        # A step that is run again on purpose leaves a layer beside the older one.
        again = [str(time.time())] if self._refresh.names(step) else []
        identity = digest(
            [f"schema {SCHEMA}", key.value, *(f"{entry.name}={entry.digest}" for entry in inputs), *again]
        )[:40]
        reached = self._hooks.reached if step.where != "engine" else ()
        stack: list[str] = []
        kept: list[Path] = []
        hooks: dict[str, str | None] = {}
        marks: list[str] = []
        total = 0
        layers = [path for _, path in reversed(self._uppers)]
        below = self._lowers[len(self._uppers) - 1 :]
        for position, (kind, path) in enumerate(reversed(self._uppers)):
            if kind != "upper":
                stack.append(kind)
                marks.append(kind)
                continue
            frozen = freeze(path, layers[position + 1 :] + below, began=began, epoch=self._epoch)
            total += frozen.bytes
            hooks = {**frozen.hooks, **hooks}
            if _is_empty(path, frozen):
                remove_tree(path)
                continue
            stack.append(f"{identity}/{len(kept)}")
            kept.append(path)
            if frozen.changes_target:
                marks.append(frozen.digest or identity)
        record = Record(
            id=identity,
            key=key.value,
            step=step.id,
            tree=digest([state.tree, *marks]) if marks else state.tree,
            tree_before=state.tree,
            stack=((RESOLV_CONF,) if step.phase == "resolv-conf" else ()) + tuple(stack),
            hooks=hooks,
            exports=exports[1] if exports else (),
            inputs=inputs,
            marks=tuple(marks),
            network=tuple(sorted({*(entry.name for entry in inputs), *self.engine.reached, *reached})),
            initramfs_pending=self._pending_after(step, state),
            seconds=time.time() - began,
            bytes=total,
            made=time.time(),
        )
        history = History(shown_parts(key.parts), tuple(self.engine.requests))
        self._layers.keep(record, kept, exports[0] if exports else None, self._workspace.session.path, history)
        return record

    def _pending_after(self, step: Step, state: State) -> bool:
        if step.phase.startswith("initramfs"):
            return False
        return state.initramfs_pending or self.engine.apt.initramfs_pending

    # --- files beside the image

    def _output_directory(self) -> Path:
        return (self._request.cwd / self._request.name).parent.resolve()

    def _take_exports(self, scratch: Scratch) -> Exports | None:
        """Copy what an outside hook wrote into the output directory; it is placed there when the build is done."""
        found = {
            f"{name}/{path.name}" if name else path.name: path
            for name, upper in scratch.uppers.items()
            for path in upper.iterdir()
            if path.is_dir() or path.is_file() or path.is_symlink()
        }
        written = {name: path for name, path in found.items() if name not in scratch.stand_ins}
        if not written:
            return None
        place = self._workspace.new_directory("exports")
        for name, path in written.items():
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy2(path, target, follow_symlinks=False)
        return place, tuple(sorted({name.partition("/")[0] for name in written}))

    # --- the engine's own work

    def _host_resolv_conf(self) -> Path:
        """A lower directory with the host's resolv.conf at etc/, as the target's while hooks run."""
        place = self._workspace.new_directory("resolv-conf")
        etc = place / "mnt" / "etc"
        etc.mkdir(parents=True)
        file = etc / "resolv.conf"
        try:
            file.write_bytes(Path("/etc/resolv.conf").read_bytes())
        except OSError:
            file.write_text("")  # a host without one has its names in /etc/hosts, or no network
        file.chmod(0o644)
        return place

    def _line(self, step: str) -> Callable[[str], None]:
        return lambda text: self._events.send(OutputLine(text=text, step=step))

    def _extra_packages(self) -> None:
        self.engine.install(self._request.packages, self._line("engine/packages"))

    def _initramfs(self) -> None:
        self.engine.apt.update_initramfs(self._line("engine/initramfs"))

    def _write_fstab(self) -> None:
        path = self._workspace.target / "etc" / "fstab"
        try:
            path.write_text(self._fstab)
            path.chmod(0o644)
        except OSError as error:
            raise HostError(f"cannot write the target's /etc/fstab: {error.strerror}") from error

    def _finish(self) -> None:
        self._workspace.unmount_target()
        restore_resolv_conf(self._workspace.target)
        finish_tree(self._workspace.target)


def _masks(step: Step, key: Key, state: State) -> dict[str, list[str]]:
    """The phase directories of which a script does not see everything, with the names below each that it does see.

    What it sees is what its key has.
    """
    masks: dict[str, list[str]] = {}
    hidden: set[str] = set()
    own = f"{step.phase}/{step.script}"
    for name in state.manifest:
        top, slash, rest = name.partition("/")
        if slash and top in BY_DIRECTORY:
            shown = masks.setdefault(top, [])
            if name == own or f"file {name}" in key.parts:
                shown.append(rest)
            else:
                hidden.add(top)
    return {top: shown for top, shown in masks.items() if top in hidden}


def _is_empty(upper: Path, frozen: Frozen) -> bool:
    """Whether an upper directory changes nothing at all: directories that were only copied up do not count."""
    if frozen.changes_target or frozen.hooks or frozen.hooks_replaced:
        return False
    return not any(path.name not in {"mnt", "hooks"} for path in upper.iterdir())
