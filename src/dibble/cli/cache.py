"""`dibble cache`: what the cache holds, whether it is in order, and making it smaller."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import click

from dibble.errors import StoreError, UsageError
from dibble.recipe.load import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dibble.store.collection import Collected
    from dibble.store.entries import Entry, Usage
    from dibble.store.places import Store
    from dibble.store.verify import Verified

MADE_BY_BUILDS = ("layers", "keys", "outputs")
FETCHED = ("blobs", "packages", "repositories", "tools")
_SHOWN_NAME = 30
Value = TypeVar("Value")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(short_help="Show, check or shrink the cache of downloads, packages, tools and layers.")
def cache() -> None:
    """Show, check or shrink the cache of downloads, packages, tools and layers."""


@cache.command("list")
@_json
def list_entries(as_json: bool) -> None:
    """List what is in the cache, the last used first: kind, size on disk, ages, and what it is."""
    from dibble.sandbox.enter import run_in_namespace
    from dibble.wording import bytes_text

    store = _store()
    now = time.time()
    entries = run_in_namespace(lambda: _light(store)) if store.root.is_dir() else []
    entries.sort(key=lambda entry: (-entry.used, entry.name))
    in_use = {entry.name for entry in entries if store.uses.is_used(entry.name)}
    if as_json:
        listed = [_entry_json(entry, now) | {"in_use": entry.name in in_use} for entry in entries]
        click.echo(json.dumps({"path": str(store.root), "entries": listed}, indent=2))
        return
    click.echo(f"{'KIND':8}  {'SIZE':>7}  {'AGE':>7}  {'USED':>7}  {'NAME':{_SHOWN_NAME}}  WHAT")
    for entry in entries:
        name = entry.name if len(entry.name) <= _SHOWN_NAME else entry.name[: _SHOWN_NAME - 3] + "..."
        mark = " (in use)" if entry.name in in_use else ""
        click.echo(
            f"{entry.kind:8}  {bytes_text(entry.bytes):>7}  {_age_text(now - entry.made):>7}"
            f"  {_age_text(now - entry.used):>7}  {name:{_SHOWN_NAME}}  {entry.what}{mark}".rstrip()
        )


@cache.command()
@_json
def du(as_json: bool) -> None:
    """Show where the cache is and what each kind of entry takes on disk.

    A file that several entries have in common, by hard links, counts for the first of them; the others show it as
    shared.
    """
    from dibble.sandbox.enter import run_in_namespace
    from dibble.wording import bytes_text, counted

    store = _store()
    usages = run_in_namespace(lambda: _usages(store)) if store.root.is_dir() else []
    total = sum(usage.bytes for usage in usages)
    if as_json:
        parts = [asdict(usage) for usage in usages]
        click.echo(json.dumps({"path": str(store.root), "bytes": total, "parts": parts}, indent=2))
        return
    click.echo(f"{store.root}{'' if usages else ' does not exist yet'}")
    for usage in usages:
        shared = f", {bytes_text(usage.shared)} shared with those above" if usage.shared else ""
        number = counted(usage.entries, "entry").replace("entrys", "entries")
        click.echo(f"  {usage.kind:<8}  {bytes_text(usage.bytes):>7}  {number}{shared}")
    if usages:
        click.echo(f"  {'in all':<8}  {bytes_text(total):>7}")


cache.add_command(click.Command("show", params=du.params, callback=du.callback, help=du.help, hidden=True))


@cache.command()
@click.option("--max-size", metavar="SIZE", help="Keep at most so much, as 20GB; a bare number counts in GiB.")
@click.option("--older-than", metavar="AGE", help="Remove what was not used for so long, as 30d or 12h.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@_json
def gc(max_size: str | None, older_than: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove what was not used for long, the least recently used first, and what killed builds left.

    What a running build uses is never removed. Without --max-size and --older-than only what is of no use to anybody
    is removed.
    """
    from dibble.sandbox.enter import run_in_namespace
    from dibble.store.collection import Collected, collect

    size = _read("--max-size", max_size, _size)
    age = _read("--older-than", older_than, _age)
    store = _store()
    done = Collected()
    if store.root.is_dir():
        done = run_in_namespace(lambda: _lighter(collect(store, max_size=size, older_than=age, dry_run=dry_run)))
    if as_json:
        click.echo(json.dumps(_collected_json(store, done, dry_run=dry_run), indent=2))
    else:
        _tell_collected(done, size, dry_run=dry_run)


@cache.command()
@click.option("--repair", is_flag=True, help="Remove what is damaged and what depends on it.")
@_json
def verify(repair: bool, as_json: bool) -> int:
    """Compare everything in the cache with what was recorded when it was made, and name what is damaged.

    The exit status is 1 when something is damaged, unless it was removed with --repair: then the next build makes it
    anew.
    """
    from dibble.sandbox.enter import run_in_namespace
    from dibble.store.verify import Verified

    store = _store()
    found = Verified()
    if store.root.is_dir():
        found = run_in_namespace(lambda: _verified(store, repair=repair))
    if as_json:
        click.echo(json.dumps({"path": str(store.root), **asdict(found)}, indent=2))
    else:
        _tell_verified(found, repair=repair)
    return 1 if found.faults and not repair else 0


@cache.command()
@click.option("--all", "everything", is_flag=True, help="Downloads, unpacked packages and tools as well.")
def clear(everything: bool) -> None:
    """Remove what builds have made; the next build runs every step again.

    Downloads, packages and tools stay, unless --all is given.
    """
    from dibble.sandbox.enter import run_in_namespace

    store = _store()
    if store.root.is_dir():
        run_in_namespace(lambda: empty(store, MADE_BY_BUILDS + (FETCHED if everything else ())))


def _store() -> Store:
    """The store that a build would use; when there is none yet, none is made."""
    from dibble.store.places import Store, open_store

    root = cache_dir(os.environ)
    if not root.is_dir():
        return Store(root)
    return open_store(root, lambda text: click.echo(f"WARNING: {text}", err=True))


def _light(store: Store) -> list[Entry]:
    """The entries without their lists of files, which need not travel out of the namespace."""
    from dibble.store.entries import entries_of

    return [_without_files(entry) for entry in entries_of(store)]


def _without_files(entry: Entry) -> Entry:
    del entry.inodes[:], entry.sizes[:]
    return entry


def _lighter(done: Collected) -> Collected:
    for entry in (*done.removed, *done.in_use):
        _without_files(entry)
    return done


def _usages(store: Store) -> list[Usage]:
    from dibble.store.entries import entries_of, usage_of

    return usage_of(entries_of(store))


def _verified(store: Store, *, repair: bool) -> Verified:
    from dibble.store import verify as checking
    from dibble.store.places import store_error

    shown = sys.stderr.isatty()

    def progress(done: int, total: int) -> None:
        if shown and (done % 10 == 0 or done == total):
            click.echo(f"\rverify: {done} of {total} entries{' ' * 10}", err=True, nl=done == total)

    found = checking.verify(store, progress)
    if repair and found.faults:
        try:
            checking.repair(store, found)
        except OSError as error:
            raise store_error(error, store.root) from error
    return found


def _entry_json(entry: Entry, now: float) -> dict[str, object]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "what": entry.what,
        "bytes": entry.bytes,
        "age": max(0.0, now - entry.made),
        "since_use": max(0.0, now - entry.used),
    }


def _collected_json(store: Store, done: Collected, *, dry_run: bool) -> dict[str, object]:
    now = time.time()
    return {
        "path": str(store.root),
        "dry_run": dry_run,
        "bytes_before": done.before,
        "bytes_after": done.after,
        "removed": [_entry_json(entry, now) for entry in done.removed],
        "in_use": [entry.name for entry in done.in_use],
        "rubbish": done.rubbish,
    }


def _tell_collected(done: Collected, size: int | None, *, dry_run: bool) -> None:
    from dibble.wording import bytes_text

    now = time.time()
    verb = "would remove" if dry_run else "removed"
    for entry in done.removed:
        what = f", {entry.what}" if entry.what else ""
        click.echo(f"{verb} {entry.name} ({entry.kind}{what}), last used {_age_text(now - entry.used)} ago")
    if done.rubbish:
        click.echo(f"{verb} {len(done.rubbish)} leftovers: lock files, keys, downloads that broke off")
    if done.in_use:
        click.echo(f"{len(done.in_use)} more are in use, or needed by what is, and stay")
    click.echo(f"{bytes_text(done.before)} before, {bytes_text(done.after)} {'then' if dry_run else 'now'}")
    if size is not None and done.after > size:
        click.echo(f"more than the {bytes_text(size)} asked for: the rest is in use; run it again later")


def _tell_verified(found: Verified, *, repair: bool) -> None:
    for fault in found.faults:
        click.echo(f"damaged: {fault}")
    if found.unrecorded:
        click.echo(f"{len(found.unrecorded)} entries have no record to compare with; an older dibble made them")
    checked = ", ".join(f"{number} {place}" for place, number in found.checked.items())
    click.echo(f"checked {checked or 'nothing'}: {len(found.faults) or 'no'} faults")
    if found.removed:
        click.echo(f"removed {len(found.removed)} entries: the damaged ones and what depends on them")
    elif found.faults and not repair:
        click.echo("`dibble cache verify --repair` removes them, and the next build makes them anew")


def _read(option: str, text: str | None, reader: Callable[[str], Value]) -> Value | None:
    if text is None:
        return None
    try:
        return reader(text)
    except ValueError as error:
        raise UsageError(f"{option} {error}", hint=f"see `dibble cache gc --help` for {option}") from None


def _size(text: str) -> int:
    from dibble.recipe.kinds import GIB, size_in_bytes

    return 0 if text.strip() == "0" else size_in_bytes(text, GIB)


def _age(text: str) -> float:
    from dibble.recipe.kinds import seconds_of

    return seconds_of(text)


def _age_text(seconds: float) -> str:
    """`40 s`, `12 min`, `5 h`, `3 d`: the largest unit alone."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


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
