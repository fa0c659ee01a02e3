"""The build tree as it is mounted for one script, or for a person who looks at it: what is written, and where."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.elements.phases import BY_DIRECTORY, READ_BY_NAME
from dibble.plan.manifest import digest
from dibble.run.beside import laid_over, written
from dibble.sandbox.mounts import unmount_all
from dibble.sandbox.workspace import end_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dibble.packages.base import Transaction
    from dibble.plan.step import Key, Step
    from dibble.run.beside import Exports
    from dibble.run.state import State
    from dibble.sandbox.workspace import Workspace
    from dibble.store.layers import LayerStore

    Masks = Mapping[str, Sequence[str]]


@dataclass(slots=True)
class MountedTree:
    """An overlay of layers with a new upper directory. A context manager makes it (`mounted`).

    `lowers` are the directories below, topmost first; `uppers` what is written, the oldest first, as (kind, path): a
    set of packages that came half-way has its stack entry for its kind, what scripts wrote has "upper". After the end,
    `left` names processes that were left in it, and `exports` holds what was written beside the image.
    """

    workspace: Workspace
    layers: LayerStore
    lowers: list[Path]
    uppers: list[tuple[str, Path]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    exports: Exports | None = None

    @property
    def directories(self) -> list[Path]:
        """All directories of the overlay, topmost first."""
        return [path for _, path in reversed(self.uppers)] + self.below

    @property
    def below(self) -> list[Path]:
        """Those that were there before anything was written."""
        return self.lowers[max(len(self.uppers) - 1, 0) :]

    def put_packages_below(self, transaction: Transaction, merge: Callable[[Path], None]) -> None:
        """Freeze what has been written so far, and go on over it with a layer of merged packages."""
        name = digest(sorted(f"{p.name} {p.arch} {p.sha256}" for p in transaction.install))[:40]
        with self.layers.making_packages(name):
            entry = self.layers.packages_entry(name)
            if entry is None:
                made = self.workspace.new_directory("packages")
                (made / "mnt").mkdir()
                merge(made / "mnt")
                entry = self.layers.keep_packages(name, made, [package.sha256 for package in transaction.install])
        unmount_all(self.workspace.build_dir)
        packages = self.layers.path(entry)
        self.lowers = [packages, self.uppers[-1][1], *self.lowers]
        self.uppers.append((entry, packages))
        self.uppers.append(("upper", self.workspace.mount_tree(self.lowers)))

    @contextlib.contextmanager
    def surrounded(self, step: Step, masks: Masks, *, system: bool) -> Iterator[None]:
        """Show what a script on the side of `step` sees: its hooks and, with `system`, /proc, /dev and /sys."""
        if system:
            if step.where != "outside":
                self.workspace.make_target_a_mount()
            self.workspace.mount_system_in_target()
        try:
            if step.where == "inside":
                self.workspace.show_hooks_in_target(masks)
            elif step.where == "outside":
                self.workspace.mask(self.workspace.hooks, masks)
            yield
        finally:
            if system:
                self.workspace.unmount_target()


@contextlib.contextmanager
def mounted(tree: MountedTree, beside: Path | None, left: Sequence[Path] = ()) -> Iterator[MountedTree]:
    """Mount a tree, and show the directory `beside` of the host so that it can be written to.

    What earlier steps have `left` beside the image (directories, in their order) is there as well.
    At the end, what still runs in there is killed.
    """
    workspace = tree.workspace
    tree.uppers.append(("upper", workspace.mount_tree(tree.lowers)))
    scratch, above = None, list[Path]()
    try:
        if beside is not None:
            above = laid_over(beside, left, workspace)
            scratch = workspace.show_writable(beside, above)
            if workspace.session.store.root.is_relative_to(beside):
                workspace.show_store()
        yield tree
    finally:
        tree.left = end_leftovers(set())
        workspace.unmount_tree()
        if scratch:
            tree.exports = written(scratch, above, workspace)
            workspace.hide_scratch(scratch)


def masks_of(step: Step, key: Key, state: State) -> dict[str, list[str]]:
    """The phase directories of which a script does not see everything, with the names below each that it does see.

    What it sees is what its key has. The engine's own work needs no hooks.
    """
    if step.where == "engine":
        return {}
    masks: dict[str, list[str]] = {}
    hidden: set[str] = set()
    own = f"{step.phase}/{step.script}"
    for name in state.manifest:
        top, slash, rest = name.partition("/")
        if slash and (top in BY_DIRECTORY or top in READ_BY_NAME):
            shown = masks.setdefault(top, [])
            if name == own or f"file {name}" in key.parts:
                shown.append(rest)
            else:
                hidden.add(top)
    return {top: shown for top, shown in masks.items() if top in hidden}
