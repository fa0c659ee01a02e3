"""From the finished tree to files: boot files, disk, every format, and copies in the store for the next time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dibble.store.facts import Facts
from dibble.store.layers import OutputStore

if TYPE_CHECKING:
    from dibble.boot.base import BootFiles
    from dibble.disk.model import ContentSize, Disk
    from dibble.run.prepare import Build
    from dibble.run.state import State
    from dibble.sandbox.toolbox import Toolbox
    from dibble.sandbox.workspace import Workspace
    from dibble.store.places import Session


def make_outputs(plan: Build, session: Session, workspace: Workspace, lowers: list[Path], state: State) -> list[Path]:
    """Lay out and write the disk from the finished tree, then every format, and keep them for the next time."""
    from dibble.boot import grub
    from dibble.outputs.base import Source
    from dibble.outputs.run import write_outputs
    from dibble.registry import load

    request = plan.request
    workspace.mount_tree(lowers)
    toolbox: Toolbox = workspace.toolbox
    directory = workspace.new_directory("boot")
    boot = grub.install(plan.graph, workspace.target, request.arch, directory, toolbox, plan.events, epoch=plan.epoch)
    disk = None
    if any(load("outputs", name).info.reads == "disk" for name in request.outputs):
        disk = _write_disk(plan, workspace, boot, state)
    source = Source(workspace.target, disk)
    files = write_outputs(source, request, toolbox, plan.events, epoch=plan.epoch)
    _keep_outputs(plan, session, files, state)
    return files


def _write_disk(plan: Build, workspace: Workspace, boot: BootFiles, state: State) -> Disk:
    from dibble.boot.base import boot_image
    from dibble.boot.grub import write_boot_code
    from dibble.disk.layout import layout_of
    from dibble.disk.write import write_disk
    from dibble.tree.walk import content_size

    content = content_size(workspace.target, [mount.point for mount in plan.graph.mounts])
    _note_content(plan, content, state)
    layout = layout_of(plan.graph, content, plan.defaults)
    directory = workspace.new_directory("disk")
    disk = write_disk(layout, workspace.target, directory, workspace.toolbox, plan.events, epoch=plan.epoch)
    write_boot_code(layout, disk.images[boot_image(plan.graph)], boot)
    return disk


def _note_content(plan: Build, content: ContentSize, state: State) -> None:
    """Remember how much the tree holds: plans lay out disks with it."""
    facts = Facts(plan.store)
    data = {"allocated": dict(content.allocated), "files": dict(content.files)}
    facts.put(data, "content", state.tree)
    facts.put(data, "content-of", plan.request.arch, *(element.name for element in plan.elements.elements))


def _keep_outputs(plan: Build, session: Session, files: list[Path], state: State) -> None:
    """Keep copies of the outputs under the names `output.SUFFIX`, so that the same build can put them anywhere."""
    store = OutputStore(plan.store)
    stem = Path(plan.request.name).name
    for name, key in plan.output_keys(state).items():
        if store.find(key) is None:
            own = {f"output{path.name[len(stem) :]}": path for path in files if path.suffix == f".{name}"}
            if own:
                store.keep(key, own, session.path, tree=state.tree)


def place_exports(plan: Build, state: State) -> None:
    """Put the files that hooks left beside the image where the image is."""
    from dibble.outputs.place import place_tree

    directory = (plan.request.cwd / plan.request.name).parent
    for layer in state.exports:
        place_tree(plan.store.layers / layer / "exports", directory)
