"""`dibble tools`: the programs that dibble runs, which come in groups of locked Debian packages."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dibble.recipe.load import cache_dir
from dibble.wording import bytes_text

if TYPE_CHECKING:
    from dibble.events import Events


@click.group(short_help="Show, fetch or pack the programs that dibble runs.")
def tools() -> None:
    """Show, fetch, update or pack the programs that dibble runs."""


@tools.command("list")
@click.argument("groups", nargs=-1, metavar="[GROUP]...")
@click.option("--arch", help="Of the machine that builds; default: this one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_tools(groups: tuple[str, ...], arch: str | None, as_json: bool) -> None:
    """List the groups; with GROUP, its packages and their versions."""
    from dibble.sandbox.tools import host_arch
    from dibble.sandbox.tools_lock import read_lock
    from dibble.wording import counted

    lock = read_lock(arch or host_arch())
    chosen = {name: lock.group(name) for name in groups or lock.groups}
    if as_json:
        found = {name: [asdict(package) for package in packages] for name, packages in chosen.items()}
        click.echo(json.dumps({"suite": lock.suite, "arch": lock.arch, "groups": found}, indent=2))
        return
    click.echo(f"Debian {lock.suite} for {lock.arch}, as of {lock.snapshot}")
    for name, packages in chosen.items():
        size = bytes_text(sum(package.size for package in packages))
        click.echo(f"{name:<14} {counted(len(packages), 'package'):>13} {size:>10}")
        if groups:
            width = max(len(package.name) for package in packages)
            for package in packages:
                click.echo(f"  {package.name:<{width}}  {package.version}")


@tools.command()
@click.argument("groups", nargs=-1, metavar="[GROUP]...")
@click.option("--offline", is_flag=True, help="Use only what is in the cache.")
def fetch(groups: tuple[str, ...], offline: bool) -> None:
    """Fetch and unpack groups of tools, so that a later build need not; without GROUP, all of them."""
    from dibble.sandbox.enter import run_in_namespace
    from dibble.sandbox.tools import host_arch
    from dibble.sandbox.tools_lock import read_lock

    names = groups or tuple(read_lock(host_arch()).groups)
    store = cache_dir(os.environ)

    def make() -> list[Path]:
        from dibble.sandbox.tools import ToolsTree

        events = _events()
        try:
            return list(ToolsTree(store, events, offline=offline).ensure(*names))
        finally:
            events.close()

    for path in run_in_namespace(make):
        click.echo(path)


@tools.command()
@click.option("--arch", "arches", multiple=True, help="Architecture; several allowed; default: all that have tools.")
@click.option("--mirror", "mirrors", multiple=True, help="Archive root to ask; default: the host's, then Debian's own.")
def update(arches: tuple[str, ...], mirrors: tuple[str, ...]) -> None:
    """Write the locks anew from the archive's signed metadata (for developers of dibble)."""
    from dibble.sandbox.tools import update as update_lock
    from dibble.sandbox.tools_lock import GROUPS, lock_path, parse_lock

    events = _events()
    try:
        for arch in arches or tuple(GROUPS):
            path = lock_path(arch)
            old = parse_lock(path.read_text("utf-8"), source=path) if path.exists() else None
            lock = update_lock(arch, store_dir=cache_dir(os.environ), events=events, mirrors=mirrors or None)
            before = (
                {package.name: package.version for group in old.groups.values() for package in group} if old else {}
            )
            after = {package.name: package.version for group in lock.groups.values() for package in group}
            changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            click.echo(f"{path}: {len(after)} packages, {len(changed)} changed")
            for name in changed if old else ():
                click.echo(f"  {name} {before.get(name, '(new)')} -> {after.get(name, '(gone)')}")
    finally:
        events.close()


@tools.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def executable(file: Path) -> None:
    """Write dibble into one file with the Python and the libraries that it runs on.

    It runs on every Linux of this machine's architecture that has a shell, tar and gzip, whatever Python that has.
    """
    from dibble.sandbox.enter import run_in_namespace
    from dibble.sandbox.executable import write_executable
    from dibble.sandbox.tools import ToolsTree
    from dibble.store.places import open_store

    store = cache_dir(os.environ)

    def make() -> None:
        events = _events()
        try:
            (core,) = ToolsTree(store, events).ensure()
            with open_store(store).session() as session:
                work = session.path / "executable"
                work.mkdir()
                write_executable(file.absolute(), core, work, os.environ)
        finally:
            events.close()

    run_in_namespace(make)
    click.echo(f"{file}: {bytes_text(file.stat().st_size)}")


def _events() -> Events:
    from dibble.cli.display_plain import PlainReporter
    from dibble.events import Events

    return Events([PlainReporter(sys.stderr, timestamps=False)])
