"""`dibble cache`: what the cache holds, and emptying it."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from dibble.errors import StoreError
from dibble.recipe.load import cache_dir

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.store.places import Store

MADE_BY_BUILDS = ("layers", "keys", "outputs")
FETCHED = ("blobs", "packages", "repositories", "tools")


@dataclass(frozen=True, slots=True)
class Holding:
    """One part of the cache: how many entries, and the bytes on disk of their files, each counted once."""

    part: str
    entries: int
    bytes: int


@click.group(short_help="Show or empty the cache of downloads, packages, tools and layers.")
def cache() -> None:
    """Show or empty the cache of downloads, packages, tools and layers."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(as_json: bool) -> None:
    """Show where the cache is and what it holds."""
    from dibble.cli.display_text import bytes_text, counted
    from dibble.sandbox.enter import run_in_namespace
    from dibble.store.places import Store

    store = Store(cache_dir(os.environ))
    # Files in the cache belong to subordinate ids, some in directories that only those may enter.
    holdings = run_in_namespace(lambda: holdings_of(store)) if store.root.is_dir() else []
    if as_json:
        found = {"path": str(store.root), "parts": [asdict(holding) for holding in holdings]}
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{store.root}{'' if holdings else ' does not exist yet'}")
    for holding in holdings:
        click.echo(f"  {holding.part:<13} {bytes_text(holding.bytes):>7}  {counted(holding.entries, 'file')}")


@cache.command()
@click.option("--all", "everything", is_flag=True, help="Downloads, unpacked packages and tools as well.")
def clear(everything: bool) -> None:
    """Remove what builds have made; the next build runs every step again.

    Downloads, packages and tools stay, unless --all is given.
    """
    from dibble.sandbox.enter import run_in_namespace
    from dibble.store.places import Store

    store = Store(cache_dir(os.environ))
    if store.root.is_dir():
        run_in_namespace(lambda: empty(store, MADE_BY_BUILDS + (FETCHED if everything else ())))


def holdings_of(store: Store) -> list[Holding]:
    """What each part holds. A file with several names counts once, in the first part that has it."""
    seen: set[tuple[int, int]] = set()
    return [_holding(store.root / part, seen) for part in FETCHED + MADE_BY_BUILDS]


def _holding(place: Path, seen: set[tuple[int, int]]) -> Holding:
    entries = total = 0
    for folder, _, files in os.walk(place):
        for name in files:
            try:
                status = os.lstat(f"{folder}/{name}")
            except FileNotFoundError:
                continue  # a build moved it meanwhile
            identity = (status.st_dev, status.st_ino)
            if identity not in seen:
                seen.add(identity)
                entries += 1
                total += status.st_blocks * 512  # stat(2): of 512 bytes, whatever the file system
    return Holding(place.name, entries, total)


def empty(store: Store, parts: tuple[str, ...]) -> None:
    """Remove the content of these parts. Raises StoreError while a build uses the cache."""
    from dibble.store.places import remove_tree

    if store.tmp.is_dir():
        busy = [session.name for session in store.tmp.iterdir() if _is_alive(session)]
        if busy:
            raise StoreError(
                f"the cache {store.root} is in use by {len(busy)} running build(s)",
                hint="wait until they are done, or stop them",
            )
    for part in parts:
        place = store.root / part
        if place.is_dir():
            # Renamed first: a reader finds a part whole or not at all.
            doomed = store.root / f".{part}.removed"
            if doomed.exists():
                remove_tree(doomed)
            place.rename(doomed)
            remove_tree(doomed)


def _is_alive(session: Path) -> bool:
    """Whether a process holds the session's lock (`store.places.Session`)."""
    try:
        descriptor = os.open(session / ".alive", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
