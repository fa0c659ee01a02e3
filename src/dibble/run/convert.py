"""The disk of a finished tree out of another format that the store has, instead of from the tree."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dibble.errors import ToolFailed
from dibble.store.facts import Facts
from dibble.store.layers import OutputStore
from dibble.store.sparse import copy_sparse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dibble.disk.model import Disk, Layout
    from dibble.run.prepare import Build
    from dibble.run.state import State
    from dibble.sandbox.workspace import Workspace

_CARRIERS = ("raw", "qcow2")
"""Formats that hold the whole disk, and which qemu-img reads; the one that costs nothing first."""


def stored_disk(plan: Build, workspace: Workspace, state: State, missing: Sequence[str]) -> Disk | None:
    """The disk that the formats `missing` are to be made of, with the content that it would have if it were written.

    None when none of them reads a disk, or the store has none; one that cannot be read is told of.
    """
    from dibble.disk.model import Disk
    from dibble.outputs.base import MAIN_IMAGE
    from dibble.registry import load

    infos = [load("outputs", name).info for name in missing]
    layout = _layout(plan, state)
    if layout is None or all(info.reads != "disk" for info in infos):
        return None
    names = [image.name for image in plan.graph.images]
    main = MAIN_IMAGE if MAIN_IMAGE in names else names[0]
    for form, folder in _stored(plan, state):
        files = {name: folder / f"output{'' if name == main else f'-{name}'}.{form}" for name in names}
        if not all(path.is_file() for path in files.values()):
            continue
        directory = workspace.new_directory("disk")
        images = {name: directory / f"{name}.raw" for name in names}
        try:
            with plan.events.activity(f"disk out of the stored {form}"):
                for name in names:
                    if form != "raw":
                        _convert(files[name], images[name], form, workspace)
                    elif any(info.uses_up_the_disk for info in infos):
                        copy_sparse(files[name], images[name])
                    else:
                        images[name].symlink_to(files[name].resolve())
        except ToolFailed as error:
            reason = error.output.strip().splitlines()[-1:] or ["?"]
            plan.events.note(f"the stored {form} {folder} cannot be read ({reason[0]}); it is not used", "warning")
            continue
        return Disk(images, layout)
    return None


def _stored(plan: Build, state: State) -> Iterator[tuple[str, Path]]:
    """The stored formats that hold the disk of this tree: (format, directory)."""
    store = OutputStore(plan.store)
    asked = replace(plan.request, outputs=_CARRIERS)
    for request in (asked, replace(asked, compress=True, qemu_img_options="")):
        for form, key in plan.output_keys(state, request).items():
            folder = store.find(key)
            if folder is not None:
                yield form, folder


def _layout(plan: Build, state: State) -> Layout | None:
    """How the disk was laid out; None when nobody has noted how much the tree holds."""
    from dibble.disk.layout import layout_of
    from dibble.disk.model import ContentSize

    known = Facts(plan.store).get(*plan.content_fact(state.tree))
    if not known:
        return None
    return layout_of(plan.graph, ContentSize(known["allocated"], known["files"]), plan.defaults)


def _convert(stored: Path, raw: Path, form: str, workspace: Workspace) -> None:
    toolbox = workspace.toolbox
    toolbox.ensure("core")
    toolbox.run(["qemu-img", "convert", "-f", form, "-O", "raw", toolbox.path(stored.resolve()), toolbox.path(raw)])
