"""`python -m dibble.fleet.nested FILE`: enter a host's tree and run dibble there (`hosts.py` writes the file).

It is a process of its own because it enters a namespace. The tree becomes the root of its mount namespace and is not
entered by chroot(2): the kernel makes no user namespace for a process in a chroot (unshare(2), EPERM), and the dibble
in the tree makes one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sys
import tarfile
import time
from pathlib import Path
from typing import IO

from dibble.errors import DibbleError, HostError, ReadError, ToolMissing
from dibble.events import Events
from dibble.fleet.classify import classify
from dibble.fleet.hosts import CHECKOUT, CODE, LIBRARIES, OLDEST_PYTHON, PYTHON, Visit
from dibble.sandbox import mounts
from dibble.sandbox.enter import run_in_namespace
from dibble.sandbox.own_code import code, libraries
from dibble.sandbox.portable_python import portable_python
from dibble.sandbox.process import run
from dibble.sandbox.syscalls import MS_MOVE, mount
from dibble.sandbox.tools import ToolsTree
from dibble.store.places import remove_tree

_HOST_FILES = ("/etc/resolv.conf", "/etc/hosts")
_PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
_SHA256 = 64
"""Characters of a name that is the digest of a whole download."""
_FOLDERS = ("/usr/local/bin", "/usr/bin")


def main() -> int:
    """Run the command; its status. An error is told as `dibble build --json` tells it."""
    try:
        data = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        lists = {name: tuple(data[name]) for name in ("words", "shown", "named")}
        visit = Visit(**{**data, **lists})
        stores = Path(visit.store) / "blobs", Path(visit.environment["DIB_IMAGE_CACHE"]) / "blobs"
        share(*stores)
        try:
            status = run_in_namespace(lambda: _visit(visit))
        finally:
            with contextlib.suppress(OSError):  # the next visit of this cell removes what is left
                remove_tree(_scratch(visit))
        share(*reversed(stores))
        return status
    except DibbleError as error:
        print(json.dumps(_told(error)), flush=True)
        return error.exit_status
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT


def _scratch(visit: Visit) -> Path:
    """What is written to the tree in this visit."""
    return Path(visit.host_directory) / "scratch" / Path(visit.directory).name


def share(source: Path, target: Path) -> None:
    """Give `target` the downloads of `source`, as hard links: a mount within a store would be locked in the tree's
    namespace, where the store is mounted once more. On another file system they are downloaded again.
    """
    with contextlib.suppress(OSError):
        for folder in source.iterdir():
            for blob in folder.iterdir():
                link = target / folder.name / blob.name
                if len(blob.name) == _SHA256 and not link.exists():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(FileExistsError):
                        link.hardlink_to(blob)


def _told(error: DibbleError) -> dict[str, object]:
    return {
        "event": "Failed",
        "time": time.time(),
        "class": type(error).__name__,
        "failure": classify(error),
        "message": error.message,
        "hint": error.hint,
        "status": error.exit_status,
    }


def _visit(visit: Visit) -> int:
    """In the namespace: mount the tree with all that is shown in it, make it the root, and run the command."""
    place = Path(visit.host_directory)
    tree = unpacked(Path(visit.tree), place, visit.name)
    scratch = _scratch(visit)
    remove_tree(scratch)
    root, upper, work = (scratch / name for name in ("root", "upper", "work"))
    for path in (root, upper, work):
        path.mkdir(parents=True)
    try:
        mounts.overlay([tree], upper, work, root)
        python, version, brought = _python(root, visit)
        own = libraries(version, place.parent, visit.environment, visit.checkout)
        _furnish(root, visit, own, brought)
        _make_root(root)
        return run(
            [python, *visit.words], env=visit.environment, cwd=visit.directory, check=False, interactive=True
        ).status
    finally:
        os.chdir("/")


def _furnish(root: Path, visit: Visit, own: Path, python: Path) -> None:
    """Put into the tree what a host has, and what is ours."""
    mounts.system(root)
    for name in ("tmp", "run", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    mounts.tmpfs(root / "run")
    mounts.tmpfs(root / "tmp", mode=0o1777)
    (root / "root").mkdir(exist_ok=True)
    for name in _HOST_FILES:
        target = root / name.lstrip("/")
        target.unlink(missing_ok=True)  # it may be a link to what is not there
        target.write_bytes(Path(name).read_bytes() if Path(name).exists() else b"")
    ours = {CODE: code(), LIBRARIES: own, CHECKOUT: Path(visit.checkout), PYTHON: python}
    for target, source in ours.items():
        if source != Path():
            goal = root / target.relative_to("/")
            goal.mkdir(parents=True, exist_ok=True)
            mounts.bind(source, goal, read_only=True, recursive=False)
    for path in map(Path, visit.shown):
        if path.exists():
            mounts.bind_at(path.absolute(), root, read_only=True)
    mounts.show_files(map(Path, visit.named), root)
    store = Path(visit.environment["DIB_IMAGE_CACHE"])
    store.mkdir(parents=True, exist_ok=True)
    mounts.bind_at(store, root)
    mounts.bind_at(Path(visit.directory), root)


def _make_root(root: Path) -> None:
    """Make the mount at `root` that of `/`, as switch_root(8) does; what was there stays below, out of reach."""
    os.chdir(root)
    mount(".", "/", flags=MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def _python(root: Path, visit: Visit) -> tuple[str, tuple[int, int], Path]:
    """(path in the tree, version, what to bring to the tree for it) of the first of the tree's Pythons that is new
    enough, else of one that we bring."""
    for path in (f"{folder}/{python}" for python in _PYTHONS for folder in _FOLDERS):
        if not os.path.lexists(root / path.lstrip("/")):
            continue
        argv = [path, "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            done = run(argv, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, root=root, check=False)
        except HostError:
            continue
        match = re.fullmatch(r"(\d+)\.(\d+)", done.output.strip())
        if done.status == 0 and match:
            version = int(match[1]), int(match[2])
            if version >= OLDEST_PYTHON:
                return path, version, Path()
    if not os.path.lexists(root / "bin/sh"):
        raise ToolMissing(
            f"the host {visit.name} has no Python 3.11 or newer, and no /bin/sh that one of ours could be started by",
            hint="is it the tree of a system? Else add to its build what it lacks (packages: [python3])",
        )
    tools = ToolsTree(Path(visit.store), Events())
    (core,) = tools.ensure()
    brought = Path(visit.host_directory).parent / f"python-{tools.identity[:16]}"
    return f"{PYTHON}/bin/python", portable_python(core, brought), brought


def unpacked(tree: Path, place: Path, name: str) -> Path:
    """The directory of the tree; an archive is unpacked once. All files then belong to the caller, and can be removed
    without a namespace."""
    if tree.is_dir():
        return tree
    if not tree.is_file():
        raise ReadError(f"the tree of the host {name}, {tree}, is neither a directory nor a tar", hint="check its path")
    place.mkdir(parents=True, exist_ok=True)
    folder, mark = place / "tree", place / "tree.mark"
    status = tree.stat()
    wanted = f"{status.st_size} {status.st_mtime_ns} {tree}"
    with (place / "tree.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if mark.exists() and mark.read_text() == wanted:
            return folder
        mark.unlink(missing_ok=True)
        remove_tree(folder)
        folder.mkdir(mode=0o755)
        _extract(tree, folder)
        mark.write_text(wanted)
    return folder


def _extract(tree: Path, folder: Path) -> None:
    try:
        with tree.open("rb") as file, _archive(file, tree.name) as archive:
            archive.extraction_filter = lambda member, _: (
                member
            )  # we have looked; Pythons before 3.11.4 have no filters
            for member in archive:
                if member.isdev():
                    continue  # a namespace cannot make devices, and has its own
                _check_stays(member, folder, tree)
                member.uid, member.gid, member.uname, member.gname = 0, 0, "", ""
                archive.extract(member, folder)
    except (tarfile.TarError, EOFError) as error:
        raise ReadError(f"{tree} is no tar that can be read: {error}", hint="make it anew, or name another") from error
    except OSError as error:
        raise HostError(f"{tree} cannot be unpacked to {folder}: {error}", hint="is there room?") from error


def _check_stays(member: tarfile.TarInfo, folder: Path, tree: Path) -> None:
    """Raises ReadError for a member that would be written, or linked to, outside the directory."""
    names = [member.name, member.linkname] if member.islnk() else [member.name]
    for name in names:
        place = folder / name.lstrip("/")
        if place == folder:
            continue
        if ".." in place.parts or not place.parent.resolve().is_relative_to(folder.resolve()):
            raise ReadError(f"{tree} holds {name}, which leads out of it", hint="is it the tar of a root tree?")


def _archive(file: IO[bytes], name: str) -> tarfile.TarFile:
    if name.endswith((".zst", ".tzst")):
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(file)
        return tarfile.open(fileobj=reader, mode="r|")
    return tarfile.open(fileobj=file, mode="r:*")


if __name__ == "__main__":
    sys.exit(main())
