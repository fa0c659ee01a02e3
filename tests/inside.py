"""Running a piece of a test inside the namespaces, with the programs of the tools tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from dibble.events import Events
from dibble.sandbox.enter import run_in_namespace
from dibble.sandbox.mounts import unmount_all_below
from dibble.sandbox.tools import ToolsTree
from dibble.sandbox.workspace import tools_view
from dibble.store.places import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

T = TypeVar("T")


def with_tools(cache: Path, work: Callable[[Toolbox, Path], T], *groups: str) -> T:
    """Call `work` with a toolbox and an empty directory that it sees; what it returns must be picklable."""

    def inside() -> T:
        store = open_store(cache)
        tree = ToolsTree(cache, Events())
        lowers = tree.ensure("core", *groups)
        with store.session() as session:
            try:
                toolbox = tools_view(store, session, lowers, tree.identity)
                directory = session.path / "work-of-test"
                directory.mkdir()
                return work(toolbox, directory)
            finally:
                unmount_all_below(session.path)

    return run_in_namespace(inside)
