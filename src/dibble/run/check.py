"""`dibble check`: what a finished tree holds that nobody asked for or needs, with who asked for the rest."""

from __future__ import annotations

import itertools
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dibble.elements.chroot_path import within
from dibble.errors import UsageError
from dibble.packages import dpkg_needs, pacman_needs, rpm_needs
from dibble.packages.needs import Unneeded, unneeded
from dibble.packages.rpm import GROUP
from dibble.packages.rpm_database import database_of
from dibble.run.build import at_work, open_executor, open_workspace, runner, tell_start
from dibble.run.enter_tree import place_of
from dibble.run.planner import make_plan
from dibble.run.prepare import prepare
from dibble.run.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dibble.events import Events
    from dibble.packages.needs import Identity, Inventory
    from dibble.plan.plan import Plan
    from dibble.plan.step import Key, Step
    from dibble.recipe.model import Request
    from dibble.run.prepare import Build
    from dibble.sandbox.toolbox import Toolbox
    from dibble.store.layers import Record


@dataclass(frozen=True, slots=True)
class Found:
    """A package that could go, and the bytes that it takes in the tree."""

    unneeded: Unneeded
    size: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a check has found: the largest first. `packages` counts all, which take `size` bytes together."""

    found: tuple[Found, ...]
    packages: int
    size: int

    @property
    def found_size(self) -> int:
        return sum(one.size for one in self.found)


def check(request: Request, events: Events) -> Report:
    """Look through the finished tree of a build. Raises DibbleError.

    Steps that are not in the store are run first.
    """
    from dibble.sandbox.enter import run_in_namespace

    known = prepare(request, events)
    plan = make_plan(known).plan
    if plan.to_run:
        tell_start(known, plan, len(plan.to_run))
    return run_in_namespace(lambda: _in_namespace(known, plan), network=not request.offline)


def _in_namespace(known: Build, plan: Plan) -> Report:
    requests: list[Any] = []  # JSON of History.requests
    with at_work(known) as (session, walk, _):
        executor = open_executor(known, open_workspace(known, session), walk.layers)
        run = runner(known, plan, walk, executor)

        def take(step: Step, key: Key, record: Record, state: State) -> None:
            requests.extend(walk.layers.history(record.id).requests)

        def run_and_take(step: Step, key: Key, state: State) -> State:
            after = run(step, key, state)
            requests.extend(executor.engine.requests)
            return after

        walk.on_cached = take
        try:
            state = walk.go(
                State(manifest=known.manifest), run_and_take, pending=bool(known.request.packages), alone=False
            )
            with executor.visited(place_of(None), state, executor.lower_directories(state), {}):
                workspace = executor.workspace
                return report_of(inventory_of(workspace.target, workspace.toolbox), workspace.target, requests)
        finally:
            executor.close()


def inventory_of(root: Path, toolbox: Toolbox) -> Inventory:
    """The packages of a root, of whatever kind they are. Raises UsageError for a root without any."""
    found = dpkg_needs.inventory(root)
    if not found.installed and database_of(root) is not None:
        toolbox.ensure(GROUP)
        found = rpm_needs.inventory(root, toolbox)
    if not found.installed:
        found = pacman_needs.inventory(root)
    if not found.installed:
        raise UsageError(
            "there are no packages of dpkg, rpm or pacman in the finished tree", hint="only those can be checked today"
        )
    return found


def report_of(inventory: Inventory, root: Path, requests: Sequence[Any]) -> Report:
    """The report on the packages of a root, where `requests` (`History.requests`) were made in this order.

    What is not marked as having only come along counts as asked for, by whatever way, unless the root began with it.
    """
    installed = inventory.installed
    base: set[str] = set()
    asked: set[str] = set()
    for request in requests:
        if request["verb"] == "bootstrap":
            base |= {row[0] for row in request["install"]}
            asked |= _included(request["words"])
        else:
            asked |= set(request.get("manual", ()))
    asked |= {package.name for package in installed} - inventory.automatic - base
    taken = _sizes(root, inventory.files)
    found = [Found(one, taken[one.package.identity]) for one in unneeded(installed, asked, base)]
    found.sort(key=lambda one: (-one.size, one.unneeded.package.name))
    return Report(tuple(found), len(installed), sum(taken.values()))


def _included(words: Sequence[str]) -> set[str]:
    """The packages that a bootstrap was asked for by name."""
    found: set[str] = set()
    for word, following in itertools.pairwise([*words, ""]):
        option, _, value = word.partition("=")
        if option == "--include":
            found |= set((value or following).replace(",", " ").split())
    return found


def _sizes(root: Path, files: Mapping[Identity, Sequence[str]]) -> dict[Identity, int]:
    """Bytes of the regular files of each package that are in `root`.

    What was left out or removed after installing does not count, so this is what the package costs an image.
    """
    folders: dict[str, Path] = {}
    found = {}
    for package, paths in files.items():
        total = 0
        for path in paths:
            folder, _, name = path.rpartition("/")
            if folder not in folders:
                folders[folder] = within(root, folder)
            try:
                status = (folders[folder] / name).lstat()
            except OSError:  # left out, or gone
                continue
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
        found[package] = total
    return found
