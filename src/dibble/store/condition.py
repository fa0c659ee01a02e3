"""Whether a store can be used as it is, and what is used instead: found out when it is opened, told in one sentence.

A store says in `store.json` which version of dibble made it and with which ids. One that is not ours is left alone; one
that cannot be written, or not hold layers, is read through a second store, private to the user, which begins as links
to what the first one has and takes what is new.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibble.errors import NO_ROOM, DibbleError, HostError, StoreError
from dibble.store.places import Store, open_places, remove_tree, store_error, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = 1
"""Grows when an older dibble could no longer read the store. Layers have a version of their own (`layers.SCHEMA`)."""
FILE = "store.json"
IDS = 65536  # as sandbox.idmap.NEEDED: so many ids exist in a target
_OTHER = "give a directory of your own with --image-cache or the variable DIB_IMAGE_CACHE"
_opened: dict[Path, Store] = {}

Ranges = tuple[tuple[int, int, int], ...]
"""Lines of uid_map: first id inside, first id outside, how many."""


@dataclass(frozen=True, slots=True)
class Description:
    """What `store.json` holds. Without ids it is not known whose files they are. `instead_of` names the store that
    this one stands in for, `because` why, and `device` where that one was then (st_dev)."""

    schema: int = SCHEMA
    uids: Ranges = ()
    gids: Ranges = ()
    instead_of: str = ""
    because: str = ""
    device: int = 0


def opened(root: Path, warn: Callable[[str], None] = lambda text: None) -> Store:
    """The store at `root`, made where it is missing, or the one to use instead; `warn` is told why.

    Opened once in a process and what it forks, so that all parts of a build use the same. Raises StoreError when there
    is no way to go on.
    """
    known = _opened.get(root)
    if known is not None and known.tmp.is_dir():
        return known
    store = Store(root)
    description = read_description(root)
    if description is not None and description.schema > SCHEMA:
        raise StoreError(
            f"the cache {root} was made by a newer dibble (its version is {description.schema}, ours {SCHEMA})",
            hint=f"update dibble, or {_OTHER}",
        )
    if other := foreign(root, description):
        store = _instead(root, f"the cache {root} {other}", "owner", warn)
    else:
        refused = _refusal(store, description)
        if refused is None:
            store = _earlier_instead(root, warn) or store
        elif not store.layers.is_dir():
            raise store_error(refused, root) from refused
        else:
            store = _instead(root, f"the cache {root} cannot be written ({refused.strerror})", "read-only", warn)
    _opened[root] = _opened[store.root] = store
    return store


def settled(store: Store, warn: Callable[[str], None]) -> Store:
    """The store for a build that is about to run steps: `store`, or another where it cannot hold layers.

    Run it inside the namespace. Really mounts an overlay and makes a hard link.
    """
    if (refused := overlay_refusal(store)) is not None:
        text = f"the file system of the cache {store.root} cannot hold layers ({refused})"
        store = _instead(store.root, text, "overlay", warn)
        _opened[store.root] = store
        if (again := overlay_refusal(store)) is not None:
            raise HostError(f"no overlay can be mounted here: {again}", hint="run `dibble doctor`; it names the reason")
    elif (refused := link_refusal(store)) is not None:
        warn(
            f"the file system of the cache {store.root} has no hard links ({refused}): packages are copied, which"
            " takes more time and room"
        )
    store.use("repositories")
    return store


def read_description(root: Path) -> Description | None:
    """What a store says of itself; None when it says nothing that can be read (before version 1, or damaged)."""
    try:
        data: Any = json.loads((root / FILE).read_text("utf-8"))
        ranges = {name: tuple((int(a), int(b), int(c)) for a, b, c in data[name]) for name in ("uids", "gids")}
        return Description(
            int(data["schema"]), **ranges, instead_of=str(data["instead_of"]), because=str(data["because"]),
            device=int(data["device"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def foreign(root: Path, description: Description | None) -> str:
    """Why the files of a store are not ours, continuing a sentence about it; empty when they are."""
    from dibble.sandbox.idmap import user_name

    try:
        owner = root.stat().st_uid
    except OSError:
        return ""  # not made yet
    ours = _ids()
    if description is not None and description.uids and ours is not None:
        if (description.uids, description.gids) != ours:
            return f"was made by {user_name(description.uids[0][1])} with other user and group ids than ours"
        return ""
    if owner != os.geteuid() and (root / "layers").is_dir():
        return f"belongs to {user_name(owner)}"
    return ""


def overlay_refusal(store: Store) -> str | None:
    """Why no overlay can have its upper directory in the store; None when it can. Run it inside the namespace."""
    from dibble.sandbox.mounts import overlay
    from dibble.sandbox.syscalls import umount

    with store.session() as session:
        lower, upper, work, target = (session.path / name for name in ("lower", "upper", "work", "target"))
        try:
            for path in (lower, upper, work, target):
                path.mkdir()
            (lower / "file").touch()
            overlay([lower], upper, work, target)
            try:
                (target / "file").unlink()
                os.chown(target, 1, 1)
            finally:
                umount(target)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise store_error(error, store.root) from error
            return error.strerror
        except DibbleError as error:
            return error.message
    return None


def link_refusal(store: Store) -> str | None:
    """Why files in the store cannot have two names; None when they can."""
    with store.session() as session:
        try:
            (session.path / "one").touch()
            os.link(session.path / "one", session.path / "two")
        except OSError as error:
            if error.errno in NO_ROOM:
                raise store_error(error, store.root) from error
            return error.strerror
    return None


def problem_of(root: Path) -> str:
    """What `opened` would warn of, without making anything; empty when nothing is wrong. For `dibble doctor`."""
    description = read_description(root)
    if description is not None and description.schema > SCHEMA:
        return f"{root} was made by a newer dibble"
    if other := foreign(root, description):
        return f"{root} {other}"
    if root.is_dir() and not os.access(root, os.W_OK | os.X_OK):
        return f"{root} cannot be written"
    return ""


def place_instead(root: Path) -> Path:
    """Where the store lies that is used instead of `root`: below TMP_DIR or /var/tmp, one for each user."""
    base = Path(os.environ.get("TMP_DIR") or "/var/tmp")  # noqa: S108 - private, see _instead
    return base / f"dibble-{_own_id()}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:12]}"


def _refusal(store: Store, description: Description | None) -> OSError | None:
    """Why nothing can be written into a store, whose places are made where they are missing.

    Some file systems take directories but not what a file of ours needs, as a mode. Raises StoreError on a full one.
    """
    try:
        open_places(store)
        _describe(store.root, description)
    except StoreError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno in NO_ROOM:
            raise
        return cause
    return None


def _earlier_instead(root: Path, warn: Callable[[str], None]) -> Store | None:
    """The store that an earlier build had to take instead because `root` cannot hold layers, and still must."""
    place = place_instead(root)
    description = read_description(place)
    if description is None or description.because != "overlay" or description.instead_of != str(root):
        return None
    if description.device != root.stat().st_dev:
        return None  # it lies elsewhere now: the next build tries it
    return _instead(root, f"the file system of the cache {root} cannot hold layers", "overlay", warn)


def _instead(root: Path, text: str, because: str, warn: Callable[[str], None]) -> Store:
    """Make or find the private store that is used instead, with links to what can be read of `root`."""
    place = place_instead(root)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PermissionError(errno.EACCES, "it is not a directory that is private to us")
        readable = because != "owner"
        store = Store(place, behind=root if readable else None)
        open_places(store)
        if readable:
            _link_all(root, store)
        _describe(place, None, Description(instead_of=str(root), because=because, device=root.stat().st_dev))
    except OSError as error:
        raise StoreError(f"{text}, and {place} cannot be used instead: {error.strerror}", hint=_OTHER) from error
    taken = "what is new goes there, what is in the cache is used" if readable else "nothing of the cache is used"
    warn(f"{text}; using {place} instead: {taken}")
    return store


def _describe(root: Path, known: Description | None, new: Description | None = None) -> None:
    """Write `store.json` where it is missing, damaged or of an older version."""
    if known is not None and known.schema == SCHEMA and known.uids:
        return
    ids = _ids() or ((), ())
    fields = asdict(new or Description()) | {"uids": ids[0], "gids": ids[1]}
    try:
        write_whole(root / FILE, json.dumps(fields).encode())
    except OSError as error:
        raise store_error(error, root) from error


def _link_all(root: Path, store: Store) -> None:
    """Make the second store show what the first one has: links to entries that it lacks, and lists of keys."""
    for name in ("layers", "outputs", "tools", "blobs", "packages"):
        pairs = [(root / name, store.root / name)]
        if name in ("blobs", "packages"):
            pairs = [(folder, store.root / name / folder.name) for folder in _listed(root / name)]
        for there, here in pairs:
            here.mkdir(exist_ok=True)
            present = {path.name: path for path in here.iterdir()}
            names = {path.name for path in _listed(there)}
            for gone in present.keys() - names:
                if present[gone].is_symlink():
                    remove_tree(present[gone])
            for missing in names - present.keys():
                (here / missing).symlink_to(there / missing)
    for path in _listed(root / "keys"):
        if not (store.keys / path.name).exists():
            with contextlib.suppress(OSError):  # then the step is run again
                write_whole(store.keys / path.name, path.read_bytes())


def _listed(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []


def _ids() -> tuple[Ranges, Ranges] | None:
    """Which ids stand for the first 65536 in our namespaces; None when we may not have any."""
    from dibble.sandbox import idmap

    try:
        maps = idmap.maps_for_current_user()
    except DibbleError:
        return None
    return _first(maps.uids), _first(maps.gids)


def _first(ranges: Any) -> Ranges:  # sandbox.idmap.IdRange
    return tuple((one.inside, one.outside, min(one.count, IDS - one.inside)) for one in ranges if one.inside < IDS)


def _own_id() -> int:
    ids = _ids()
    return ids[0][0][1] if ids else os.getuid()
