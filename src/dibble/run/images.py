"""From the finished tree to files: boot files, disk, every format, and copies in the store for the next time."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.outputs.base import BASE, Lower, Source
from dibble.run.image_facts import note_images, note_system
from dibble.store.facts import Facts
from dibble.store.layers import OutputStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dibble.boot.base import BootCode
    from dibble.disk.model import ContentSize, Disk
    from dibble.events import Events
    from dibble.outputs.run import Begun
    from dibble.run.prepare import Build
    from dibble.run.state import State
    from dibble.sandbox.workspace import Workspace
    from dibble.store.places import Session


def make_outputs(plan: Build, session: Session, workspace: Workspace, lowers: list[Path], state: State) -> list[Path]:
    """Every requested format at its name: those that the store has are put there, the others made and kept.

    When the store has the disk in another format, that is converted. Else the disk is laid out and written from the
    finished tree.
    """
    from dibble.outputs.run import write_outputs
    from dibble.run.convert import stored_disk

    files = place_stored(plan, state)
    missing = tuple(name for name in plan.request.outputs if name not in files)
    placed = [path for paths in files.values() for path in paths]
    if not missing:
        return placed
    request = replace(plan.request, outputs=missing)
    disk = stored_disk(plan, workspace, state, missing)
    store = OutputStore(plan.store)
    keys = plan.output_keys(state)
    stem = Path(request.name).name
    work = workspace.new_directory("outputs")

    def keep(name: str, paths: Sequence[Path]) -> None:
        note_images(plan, state, name, paths)
        # Under the names `output.SUFFIX`, so that the same build can put them anywhere.
        if store.find(keys[name]) is None:
            own = {f"output{path.name.removeprefix(stem)}": path for path in paths}
            store.keep(keys[name], own, session.path, tree=state.tree)

    def write(source: Source, make_disk: Callable[[Begun, Events], Disk] | None = None) -> list[Path]:
        return write_outputs(
            source, request, workspace.toolbox, plan.events, epoch=plan.epoch, make_disk=make_disk, written=keep
        )

    if disk is not None and all(_reads_disk(name) for name in missing):
        return placed + write(Source(workspace.target, disk, work=work))
    with _tree(plan, workspace, lowers, state) as (root, boot, below):
        note_system(plan, root, state)
        return placed + write(
            Source(root, disk, work=work, lowers=below),
            lambda begun, events: _write_disk(plan, workspace, boot, state, begun=begun, events=events),
        )


def place_stored(plan: Build, state: State) -> dict[str, list[Path]]:
    """Put the formats that the store has at their names; their files by format."""
    from dibble.outputs.run import place_files

    outputs = OutputStore(plan.store)
    placed = {}
    for name, key in plan.output_keys(state).items():
        folder = outputs.find(key)
        if folder is not None:
            files = {
                f"{plan.request.name}{path.name.removeprefix('output')}": path
                for path in sorted(folder.iterdir())
                if path.name.startswith("output")
            }
            placed[name] = place_files(name, files, plan.request, plan.events)
            note_images(plan, state, name, placed[name])
    return placed


def _reads_disk(name: str) -> bool:
    from dibble.registry import load

    return bool(load("outputs", name).info.reads == "disk")


@contextlib.contextmanager
def _tree(
    plan: Build, workspace: Workspace, lowers: list[Path], state: State
) -> Iterator[tuple[Path, BootCode, tuple[Lower, ...]]]:
    """The finished tree with the boot loader and all mount points in it, as a directory that nothing is mounted in, and
    the directories that it lies in.

    File systems are filled from the workspace's own mount, where the mount points are hidden at times.
    """
    from dibble.boot.base import BootSetup, NoCode
    from dibble.boot.choose import loader_of
    from dibble.disk.write import make_mount_points
    from dibble.sandbox import mounts
    from dibble.tree.usage import report

    upper = workspace.mount_tree(lowers)
    if plan.request.target:
        from dibble.tree.gate import check_gate

        check_gate(workspace.target, plan.request.target)
    loader = loader_of(workspace.target, plan.request.environment.get("DIB_BOOTLOADER", ""))
    setup = BootSetup(
        graph=plan.graph,
        root=workspace.target,
        arch=plan.request.arch,
        work=workspace.new_directory("boot"),
        toolbox=workspace.toolbox,
        events=plan.events,
        epoch=plan.epoch,
        signing=plan.signing,
    )
    boot = loader.install(setup) if loader else NoCode()
    for line in report(workspace.target, plan.request.environment):
        plan.events.note(line)
    make_mount_points(plan.graph, workspace.target)
    root = workspace.new_directory("tree")
    mounts.bind(workspace.target, root, read_only=True, recursive=False)
    try:
        owners = ("", *plan.owners(state), BASE)
        yield (
            root,
            boot,
            tuple(
                Lower(path / workspace.target.name, owner) for path, owner in zip((upper, *lowers), owners, strict=True)
            ),
        )
    finally:
        mounts.unmount_all(root)


def _write_disk(
    plan: Build, workspace: Workspace, boot: BootCode, state: State, *, begun: Begun, events: Events
) -> Disk:
    from dibble.boot.base import boot_image
    from dibble.disk.layout import layout_of
    from dibble.disk.write import write_disk
    from dibble.tree.walk import content_size

    content = content_size(workspace.target, [mount.point for mount in plan.graph.mounts])
    _note_content(plan, content, state)
    layout = layout_of(plan.graph, content, plan.defaults)
    directory = workspace.new_directory("disk")
    disk = write_disk(
        layout, workspace.target, directory, workspace.toolbox, events, begun, epoch=plan.epoch, last=boot.last
    )
    boot.write(layout, disk.images[boot_image(plan.graph)])
    return disk


def _note_content(plan: Build, content: ContentSize, state: State) -> None:
    """Remember how much the tree holds: plans lay out disks with it."""
    facts = Facts(plan.store)
    data = {"allocated": dict(content.allocated), "files": dict(content.files)}
    facts.put(data, *plan.content_fact(state.tree))
    facts.put(data, *plan.content_fact())


def place_exports(plan: Build, state: State) -> None:
    """Put the files that hooks left beside the image where the image is."""
    from dibble.outputs.place import place_trees

    directory = (plan.request.cwd / plan.request.name).parent
    place_trees([plan.store.layers / layer / "exports" for layer in state.exports], directory)
