"""Executes a build's steps: each runs on an overlay of the layers so far and leaves a layer.

Runs inside the build's namespaces, in one process; the control channel answers scripts from a thread of its own.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.elements.phases import BY_DIRECTORY, READ_BY_NAME
from dibble.errors import DibbleError, HookFailed, HostError, StoreError, Where
from dibble.events import OutputLine, StepFinished, StepStarted
from dibble.plan.explain import different
from dibble.plan.key import shown_parts
from dibble.plan.manifest import digest, environment_files
from dibble.plan.refresh import Refresh
from dibble.plan.step import PACKAGES, Step
from dibble.run.engine import Engine
from dibble.run.enter_tree import is_program
from dibble.run.failure_evidence import look
from dibble.run.finish import finish_tree, restore_resolv_conf, set_resolv_conf_aside
from dibble.run.freeze import Frozen, freeze
from dibble.run.hooks import HookRunner, explain_refused
from dibble.run.host_files import Reads
from dibble.run.mounted_tree import MountedTree, masks_of, mounted
from dibble.run.reuse import trace_from, trace_of, unaffected
from dibble.run.state import RESOLV_CONF, State
from dibble.sandbox.inside import resolve_inside
from dibble.sandbox.opened import opened_below
from dibble.sandbox.workspace import BUILD_DIRECTORY, CHANNEL, Workspace, end_leftovers
from dibble.store.facts import Facts
from dibble.store.layers import SCHEMA, History, Record, failed_name
from dibble.store.places import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dibble.disk.system_files import SystemFiles
    from dibble.elements.model import ElementSet
    from dibble.events import Events
    from dibble.packages.apt import Apt
    from dibble.packages.base import TargetManager, Transaction
    from dibble.plan.step import Key
    from dibble.recipe.model import Request
    from dibble.run.mounted_tree import Masks
    from dibble.store.layers import LayerStore

TRACED = frozenset({"initramfs", "initramfs-again"})
"""The engine's own work that takes seconds and reads little of the tree."""
TRACE_FACT = "opened"
LOST = frozenset({"lost+found"})
INSTALL_PACKAGES = "/usr/local/bin/install-packages"
"""Where install-bin puts an operating system's own command (contract.md 4.2)."""
NEEDED = ("etc", "proc", "dev", "sys")
"""Directories of the target that files and file systems of the build are put into (contract.md 2.9)."""


class Executor:
    """Runs steps for one build.

    `base` is the lowest directory of the overlay: the merged hooks and an empty `mnt`. `fstab` is the text to write,
    `system_files` what else the disk needs in the tree.
    """

    def __init__(
        self,
        *,
        request: Request,
        element_set: ElementSet,
        workspace: Workspace,
        layers: LayerStore,
        apt: Apt,
        others: Mapping[str, TargetManager],
        events: Events,
        environment: Mapping[str, str],
        late: Mapping[str, str],
        base: Path,
        fstab: str,
        system_files: SystemFiles,
        epoch: int,
    ) -> None:
        from dibble.run.control import ControlChannel

        self._request = request
        self.workspace = workspace
        self._layers = layers
        self.network: tuple[str, ...] = ()
        """The servers that the last step reached."""
        self._reads = Reads(request, workspace.view, tuple(workspace.session.store.roots))
        self._facts = Facts(workspace.session.store)
        self._events = events
        self._base = base
        self._fstab = fstab
        self._system_files = system_files
        self._epoch = epoch
        self._refresh = Refresh(request.refresh)
        self._elements_of = {name: hook.element for name, hook in element_set.hooks.files.items()}
        self._resolv_conf = self._host_resolv_conf()
        self._mounted: MountedTree | None = None  # the last one
        self.on_failure: Callable[[Step, State, list[Path]], None] | None = None
        """Called with a step that failed, the state before it, and the directories of the tree as it left it."""
        self.engine = Engine(
            (apt, others),
            element_set.elements,
            workspace,
            events,
            self._put_packages_below,
            packages=request.packages,
        )
        channel_directory = workspace.view / CHANNEL.relative_to("/")
        self._channel = ControlChannel(channel_directory, self.engine.handle)
        self.hooks = HookRunner(
            view=workspace.view,
            target=workspace.target,
            environment=environment,
            late=late,
            cwd=str(request.cwd),
            on_line=self._show,
        )
        self.hooks.prepare()
        self._work: dict[str, Callable[[State], None]] = {
            "resolv-conf": lambda _: set_resolv_conf_aside(workspace.target),
            PACKAGES: self._extra_packages,
            "volumes": lambda _: self._write_system_files(),
            "initramfs": lambda _: self._initramfs(),
            "initramfs-again": lambda _: self._initramfs(),
            "fstab": lambda _: self._write_fstab(),
            "finish": lambda _: self._finish(),
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
        self._events.send(StepStarted(step=step.id, phase=step.phase, element=self._element(step)))
        self.hooks.reached = ()
        began = time.time()
        if step.phase in TRACED and (adopted := self._adopted(step, key, state)):
            self._events.note(f"{step.id}: nothing that it reads has changed; its earlier result is taken")
            self._events.send(StepFinished(step=step.id, seconds=time.time() - began))
            return state.after(adopted)
        trace = None
        tree = self._tree(self.lower_directories(state))
        try:
            with mounted(tree, self._beside(step), self._left(state)):
                with contextlib.ExitStack() as stack:
                    opened = stack.enter_context(opened_below(self.workspace.target)) if step.phase in TRACED else None
                    self._reads.forget()
                    if step.where == "outside" and self.workspace.view != Path("/"):
                        stack.enter_context(self._reads.heard())
                    self._run_mounted(tree, step, key, state)
                trace = trace_of(opened, self.workspace.target, state.stack) if opened else None
        except DibbleError as error:
            error.failed_step = step.id
            look(error, self._written(), self.hooks.reached, self.engine.unreachable)
            status = error.exit_status
            self._events.send(StepFinished(step=step.id, seconds=time.time() - began, status=status))
            self._failed(tree, step, key, state)
            raise
        if tree.left:
            names = ", ".join(tree.left)
            self._events.note(f"{step.id} left processes behind, which were ended: {names}", "warning")
        record = self._keep(tree, step, key, state, began)
        self._layers.forget_failed(step.id, state.tree)
        if trace is not None:
            self._facts.put(trace.data(), TRACE_FACT, record.id)
        self.network = record.network
        self._events.send(
            StepFinished(step=step.id, seconds=time.time() - began, bytes=record.bytes, network=record.network)
        )
        return state.after(record)

    def _written(self) -> list[Path]:
        """Directories of the file systems that a step writes to."""
        return [self.workspace.session.path, self.workspace.view / "tmp"]

    def rehearse(self, step: Step, state: State) -> list[tuple[str, list[str]]]:
        """What a script asks of the package engine, found out by running it in the tools view without carrying it out.

        Meant for scripts that do nothing else of note; what it writes is thrown away, its failure is no fault.
        """
        self.workspace.mount_tree([self._base])
        asked: list[tuple[str, list[str]]] = []
        self.engine.begin(step.id, inside=False)
        self.engine.rehearsal = asked
        try:
            commands = f"{BUILD_DIRECTORY}/hooks/bin"  # where a target has them in its own PATH
            self.hooks.run(replace(step, where="outside"), environment_files(state.manifest), commands=commands)
        except HookFailed:
            self._channel.failure()  # it has missed what is not there; what it asked for until then counts
        finally:
            self.engine.rehearsal = None
            end_leftovers(set())
            self.workspace.unmount_tree()
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
            self._layers.keep(record, [], None, self.workspace.session.path, history)
            return record
        return None

    # --- a tree to look at

    @contextlib.contextmanager
    def visited(self, step: Step, state: State, lowers: list[Path], masks: Masks) -> Iterator[MountedTree]:
        """Mount a tree as the script of `step` would find it, for something else to run there.

        Commands of the engine work, and tell of their failures themselves. What is written goes with the session.
        """
        tree = self._tree(lowers)
        with mounted(tree, self._beside(step), self._left(state)):
            # Scripts of root.d find nothing mounted; before they have run, there is no place for it either.
            can = all((self.workspace.target / name).is_dir() for name in ("proc", "dev", "sys"))
            own = step.phase == "root.d" and step.where == "outside"
            with self._surrounded(tree, step, masks, system=can and not own):
                self._channel.tells_failures = True
                try:
                    yield tree
                finally:
                    self._channel.tells_failures = False

    def _tree(self, lowers: list[Path]) -> MountedTree:
        self._mounted = MountedTree(self.workspace, self._layers, lowers)
        return self._mounted

    def _beside(self, step: Step) -> Path | None:
        """The directory that a script may leave files for the user in."""
        return (self._request.cwd / self._request.name).parent.resolve() if step.where == "outside" else None

    def _left(self, state: State) -> list[Path]:
        """The directories of what earlier steps have left there."""
        return [self._layers.path(f"{layer}/exports") for layer in state.exports]

    @contextlib.contextmanager
    def _surrounded(self, tree: MountedTree, step: Step, masks: Masks, *, system: bool) -> Iterator[None]:
        self.engine.begin(step.id, inside=step.where == "inside")
        with tree.surrounded(step, masks, system=system):
            yield

    # --- one step

    def _run_mounted(self, tree: MountedTree, step: Step, key: Key, state: State) -> None:
        with self._surrounded(tree, step, masks_of(step, key, state), system=step.phase != "root.d"):
            if step.where == "engine":
                self._work[step.phase](state)
            else:
                self._run_hook(step, state)
        if step.phase == "root.d" and self._is_last_of_root(step, state):
            self._check_root()

    def _run_hook(self, step: Step, state: State, words: Sequence[str] = ()) -> None:
        try:
            with self.workspace.tools_read_only():
                self.hooks.run(step, environment_files(state.manifest), words=words)
        except HookFailed as error:
            cause = self._channel.failure()
            place = error.where
            element = self._elements_of.get(str(place.file)) or self._element(step)
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
        if self.hooks.refused:
            self._events.note(f"{step.id} went on: {explain_refused(step, self.hooks.refused)}", "warning")

    def _show(self, step: str, text: str) -> None:
        self._events.send(OutputLine(text=text, step=step))
        name, _, device = text.partition("=")
        if name == "IMAGE_BLOCK_DEVICE" and step.startswith("block-device.d/"):
            self._events.note(
                f"{step} says that the image is on {device}, which counts for nothing: a disk is what its description"
                " says (DIB_BLOCK_DEVICE_CONFIG, or block-device-default.yaml of an element)",
                "warning",
            )

    def _element(self, step: Step) -> str:
        return self._elements_of.get(f"{step.phase}/{step.script}", "")

    def _is_last_of_root(self, step: Step, state: State) -> bool:
        from dibble.plan.manifest import scripts

        return scripts(state.manifest, "root.d")[-1] == step.script

    def _check_root(self) -> None:
        names = {path.name for path in self.workspace.target.iterdir()}
        if not {name for name in names - LOST if not name.endswith("tmp")}:
            raise DibbleError(
                "the root.d scripts left the root tree empty",
                hint="is an operating-system element among the elements, such as debian-minimal?",
            )
        missing = [name for name in NEEDED if not (self.workspace.target / name).is_dir()]
        if missing:
            raise DibbleError(
                f"the root.d scripts made no /{', no /'.join(missing)} in the root tree, which every phase needs",
                hint=f"in root.d: mkdir -p {' '.join(f'$TARGET_ROOT/{name}' for name in missing)}",
            )

    def _put_packages_below(self, transaction: Transaction, merge: Callable[[Path], None]) -> None:
        assert self._mounted is not None
        self._mounted.put_packages_below(transaction, merge)

    def _keep(self, tree: MountedTree, step: Step, key: Key, state: State, began: float) -> Record:
        """Freeze the step's upper directories and put them into the store."""
        fetched = tuple(sorted(self.engine.inputs.values(), key=lambda entry: entry.name))
        written = [*self._left(state), *([tree.exports[0]] if tree.exports else [])]
        inputs = (*fetched, *self._reads.inputs(written, fetched))
        # A step that is run again on purpose leaves a layer beside the older one.
        again = [str(time.time())] if self._refresh.names(step) else []
        identity = digest(
            [f"schema {SCHEMA}", key.value, *(f"{entry.name}={entry.digest}" for entry in inputs), *again]
        )[:40]
        stack: list[str] = []
        kept: list[Path] = []
        hooks: dict[str, str | None] = {}
        marks: list[str] = []
        total = 0
        directories = tree.directories
        for position, (kind, path) in enumerate(reversed(tree.uppers)):
            if kind != "upper":
                stack.append(kind)
                marks.append(kind)
                continue
            frozen = freeze(path, directories[position + 1 :], began=began, epoch=self._epoch)
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
            exports=tree.exports[1] if tree.exports else (),
            inputs=inputs,
            marks=tuple(marks),
            network=tuple(sorted({*(entry.name for entry in fetched), *self.engine.reached, *self.hooks.reached})),
            initramfs_pending=self._pending_after(step, state),
            seconds=time.time() - began,
            bytes=total,
            made=time.time(),
        )
        history = History(shown_parts(key.parts), tuple(self.engine.requests))
        exports = tree.exports[0] if tree.exports else None
        self._layers.keep(record, kept, exports, self.workspace.session.path, history)
        return record

    def _failed(self, tree: MountedTree, step: Step, key: Key, state: State) -> None:
        """Let a break point show what the failed step has written, and keep that if it is asked for."""
        if not tree.uppers:
            return  # it could not even be mounted
        if self.on_failure:
            self.on_failure(step, state, tree.directories)
        if not self._request.keep_on_failure:
            return
        name = failed_name(key.value)
        stack: list[str] = []
        kept: list[Path] = []
        for kind, path in reversed(tree.uppers):
            stack.append(f"{name}/{len(kept)}" if kind == "upper" else kind)
            kept += [path] if kind == "upper" else []
        record = Record(name, key.value, step.id, state.tree, state.tree, tuple(stack), made=time.time())
        try:
            self._layers.keep_failed(record, kept, self.workspace.session.path)
        except StoreError as error:
            self._events.note(f"what {step.id} had written is not kept: {error}", "warning")

    def _pending_after(self, step: Step, state: State) -> bool:
        if step.phase.startswith("initramfs"):
            return False
        return state.initramfs_pending or self.engine.apt.initramfs_pending

    # --- the engine's own work

    def _host_resolv_conf(self) -> Path:
        """A lower directory with the host's resolv.conf at etc/, as the target's while hooks run."""
        place = self.workspace.new_directory("resolv-conf")
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

    def _extra_packages(self, state: State) -> None:
        """The packages of the command line, by the target's own `install-packages` with what environment.d says.

        A target that no element has given that command is left to the engine.
        """
        packages = self._request.packages
        if not is_program(self.workspace.target, INSTALL_PACKAGES):
            self.engine.install(packages, self._line(f"engine/{PACKAGES}"))
            return
        self.workspace.show_hooks_in_target(dict.fromkeys((*BY_DIRECTORY, *READ_BY_NAME), ()))
        self._run_hook(Step(f"engine/{PACKAGES}", "install.d", "inside"), state, (INSTALL_PACKAGES, *packages))

    def _initramfs(self) -> None:
        self.engine.apt.update_initramfs(self._line("engine/initramfs"))

    def _write_fstab(self) -> None:
        path = self.workspace.target / "etc" / "fstab"
        try:
            path.write_text(self._fstab)
            path.chmod(0o644)
        except OSError as error:
            raise HostError(f"cannot write the target's /etc/fstab: {error.strerror}") from error

    def _write_system_files(self) -> None:
        root = self.workspace.target
        for program, element in self._system_files.missing_from(root).items():
            self._events.note(
                f"the disk needs {program} in the image, which is not there: add the element {element}", "warning"
            )
        for file in self._system_files.files:
            if not file.belongs_in(root):
                continue
            shown = file.path_in(root)
            path = resolve_inside(root, shown)
            try:
                path.parent.mkdir(exist_ok=True)
                path.write_text(file.text(path.read_text() if path.exists() else None))
                path.chmod(0o644)
            except OSError as error:
                raise HostError(f"cannot write the target's {shown}: {error.strerror}") from error

    def _finish(self) -> None:
        self.workspace.unmount_target()
        restore_resolv_conf(self.workspace.target)
        finish_tree(self.workspace.target)


def _is_empty(upper: Path, frozen: Frozen) -> bool:
    """Whether an upper directory changes nothing at all: directories that were only copied up do not count."""
    if frozen.changes_target or frozen.hooks or frozen.hooks_replaced:
        return False
    return not any(path.name not in {"mnt", "hooks"} for path in upper.iterdir())
