"""One build's private place: the view in which tools and outside hooks run, and the layered build tree.

    SESSION/view                      root of the tools view: the tools tree with a private upper directory
    SESSION/view/tmp/dib_build.image  the build tree (TMP_BUILD_DIR): an overlay of the layers so far
        mnt/  hooks/  block-device/   the target root, the hooks tree, the block-device state

With the host's own tools the view is the host's root and the build tree is mounted in the session directory.
Everything here runs inside the build's namespaces.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dibble.errors import HostError
from dibble.sandbox import mounts
from dibble.sandbox.memory import Memory, available_bytes
from dibble.sandbox.process import Completed, Running, run, spawn
from dibble.sandbox.syscalls import MNT_DETACH, make_read_only, set_read_only, umount
from dibble.sandbox.toolbox import TOOL_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dibble.events import Events
    from dibble.store.places import Session, Store

BUILD_DIRECTORY = Path("/tmp/dib_build.image")  # noqa: S108 - inside the view; a fixed name, so that results are the same
CHANNEL = Path("/dev/dibble")
UNLIMITED = Memory(True)
_HOST_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")


class ViewToolbox:
    """The programs of a tools view (`Toolbox`)."""

    def __init__(self, view: Path, identity: str, environment: Mapping[str, str]) -> None:
        self.root: Path | None = view
        self.identity = identity
        self._view = view
        self._environment = dict(environment)

    def path(self, path: Path) -> str:
        text = str(path)
        prefix = str(self._view).rstrip("/")  # nothing for the host's own root
        return text[len(prefix) :] or "/" if text == prefix or text.startswith(prefix + "/") else text

    def ensure(self, *groups: str) -> None:
        """The view was made with every group that its work needs."""

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        stdout_file: IO[bytes] | None = None,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
    ) -> Completed:
        return run(
            argv,
            env={**self._environment, **(env or {})},
            root=self._view,
            cwd=self.path(cwd) if cwd else None,
            stdin=stdin,
            stdout_file=stdout_file,
            on_line=on_line,
            check=check,
            durable=False,
        )

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bool = False,
        output_file: IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
        durable: bool = True,
    ) -> Running:
        return spawn(
            argv,
            env={**self._environment, **(env or {})},
            root=self._view,
            cwd=self.path(cwd) if cwd else None,
            stdin=stdin,
            output_file=output_file,
            pass_fds=pass_fds,
            durable=durable,
        )


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables, in both spellings, that tools must see."""
    names = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    return {n: environment[n] for name in names for n in (name, name.upper()) if n in environment}


@contextlib.contextmanager
def tools_session(
    store: Store, events: Events, *groups: str, offline: bool = False
) -> Iterator[tuple[Session, ViewToolbox]]:
    """A session of its own with the tools of some groups, for verbs that build nothing.

    What dead processes have left in the store is removed first. Raises FetchError, PackageError, StoreError.
    """
    from dibble.sandbox.tools import ToolsTree

    store.sweep()
    tree = ToolsTree(store.root, events, offline=offline)
    lowers = tree.ensure(*groups)
    with store.session() as session, contextlib.ExitStack() as stack:
        stack.callback(mounts.unmount_all_below, session.path)
        yield session, tools_view(store, session, lowers, tree.identity_of(*groups))


def tools_view(
    store: Store, session: Session, lowers: Sequence[Path], identity: str, memory: Memory = UNLIMITED
) -> ViewToolbox:
    """Mount the tools tree with a private upper directory, /proc, /dev, /sys and the store at its own path.

    `memory` says whether /tmp, where outside scripts put what they download, is kept in memory.
    """
    view, upper, work = (session.path / name for name in ("view", "view-upper", "view-work"))
    for path in (view, upper, work):
        path.mkdir()
    mounts.overlay(lowers, upper, work, view)
    mounts.system(view)
    for name in ("tmp", "run"):
        (view / name).mkdir(exist_ok=True)
    mounts.tmpfs(view / "run", mode=0o755)
    if memory.allowed:
        mounts.tmpfs(view / "tmp", mode=0o1777, size=str(memory.limit) if memory.limit else "")
    else:
        on_disk = session.path / "view-tmp"
        on_disk.mkdir()
        on_disk.chmod(0o1777)
        mounts.bind(on_disk, view / "tmp")
    # The other place for temporary files; the rest of the view is read-only for scripts.
    (view / "var/tmp").mkdir(parents=True, exist_ok=True)
    mounts.bind(view / "tmp", view / "var/tmp", recursive=False)
    for name in _HOST_FILES:
        source = Path(name)
        with contextlib.suppress(OSError):  # a host without one
            content = source.read_bytes()
            target = view / name.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_symlink():
                target.unlink()
            target.write_bytes(content)
    for root in store.roots:
        mounts.bind_at(root, view)
    return ViewToolbox(view, identity, {**TOOL_ENVIRONMENT, **proxies(os.environ)})


def host_view(session: Session) -> ViewToolbox:
    """The host's own root as the view, with a private /dev and /tmp/dib_build.image (`--tools=host`)."""
    private = session.path / "dev"
    private.mkdir()
    mounts.devices(private)
    mounts.bind(private, Path("/dev"))
    return ViewToolbox(Path("/"), "host", {**TOOL_ENVIRONMENT, **proxies(os.environ)})


@dataclass(frozen=True, slots=True)
class Scratch:
    """A directory of the host shown writable, with what is written kept apart, in memory, below `place`.

    `uppers` holds the written files of `shown` and of directories below it, by their paths relative to `shown`; of the
    names in `stand_ins` (relative to `shown`, too) there are only mount points in them.
    """

    shown: Path
    place: Path
    uppers: dict[str, Path]
    stand_ins: set[str]


class Workspace:
    """The tools view plus the build tree of one build."""

    def __init__(self, session: Session, view: Path, toolbox: ViewToolbox, memory: Memory = UNLIMITED) -> None:
        self.session = session
        self.memory = memory
        self.view = view
        self.toolbox = toolbox
        self.build_dir = view / BUILD_DIRECTORY.relative_to("/")
        self.target = self.build_dir / "mnt"
        self.hooks = self.build_dir / "hooks"
        self._count = 0
        self._scratch = session.path / "scratch"
        self._scratch.mkdir()
        # Always in memory, as the upper side of an overlay over the home directory must not lie in that directory; a
        # script leaves little there.
        mounts.tmpfs(self._scratch, mode=0o755)
        self.build_dir.mkdir(parents=True, exist_ok=True)
        (view / CHANNEL.relative_to("/")).mkdir(parents=True, exist_ok=True)

    def inside(self, path: Path) -> str:
        """A path as outside hooks and tools see it."""
        return self.toolbox.path(path)

    def new_directory(self, name: str) -> Path:
        """An empty directory of the session, on the store's file system."""
        self._count += 1
        path = self.session.path / f"{self._count:03d}-{name}"
        path.mkdir()
        path.chmod(0o755)
        return path

    def memory_directory(self, name: str, size: int) -> Path:
        """An empty directory in memory where that is allowed and has `size` bytes to spare three times over, else on
        disk."""
        if not self.memory.allowed or available_bytes() < 3 * size:
            return self.new_directory(name)
        self._count += 1
        path = self._scratch / f"{self._count:03d}-{name}"
        path.mkdir()
        return path

    def show(self, path: Path, *, read_only: bool = True) -> None:
        """Show a host path to outside hooks at its own path."""
        mounts.bind_at(path, self.view, read_only=read_only)

    def show_files(self, files: Iterable[Path]) -> None:
        """Show files of the host to outside hooks at their own paths, where the tools have nothing of these names."""
        mounts.show_files(files, self.view)

    def memory_place(self, name: str) -> Path:
        """A place in memory for a directory of that name, for as long as the session lasts."""
        return self._scratch / name

    def show_writable(self, path: Path, above: Sequence[Path] = ()) -> Scratch:
        """Show a host directory to outside hooks; what they write goes to memory, not to the host.

        The directories `above` (topmost first) are laid over it. None of them may lie in it.
        """
        self._count += 1
        target = self.view / path.relative_to("/")
        target.mkdir(parents=True, exist_ok=True)
        scratch = Scratch(target, self._scratch / f"{self._count:03d}", {}, set())
        self._lay_over(path, "", scratch, above)
        return scratch

    def _lay_over(self, path: Path, name: str, scratch: Scratch, above: Sequence[Path]) -> None:
        """Show `path` at `name` below the scratch's directory, with an upper directory of its own."""
        number = len(scratch.uppers)
        upper, work = (scratch.place / f"{number:03d}" / kind for kind in ("upper", "work"))
        upper.mkdir(parents=True)
        work.mkdir()
        os.chmod(upper, path.stat().st_mode & 0o7777)  # noqa: PTH101
        scratch.uppers[name] = upper
        target = scratch.shown / name
        try:
            mounts.overlay([*above, path], upper, work, target)
        except HostError:
            # The kernel lays nothing over a directory of the host that has other mounts in it (`has_locked_children`,
            # fs/namespace.c). Then each of its entries is shown by itself, and the mounts as they are.
            if not (below := mounts.mounted_below(path)):
                raise
            if above:
                empty, again = (scratch.place / f"{number:03d}" / kind for kind in ("empty", "again"))
                empty.mkdir()
                again.mkdir()
                mounts.overlay([*above, empty], upper, again, target)
            else:
                mounts.bind(upper, target)
            points = {point.path for point in below if not point.path.is_relative_to(self.session.path)} - {path}
            for entry in sorted(path.iterdir()):
                shown = f"{name}/{entry.name}" if name else entry.name
                self._show_entry(entry, shown, points, scratch, [lower / entry.name for lower in above])

    def _show_entry(self, entry: Path, name: str, points: set[Path], scratch: Scratch, over: Sequence[Path]) -> None:
        """Show an entry of the host, unless something else than a directory for a directory lies `over` it."""
        target = scratch.shown / name
        over = [path for path in over if os.path.lexists(path)]
        if over and not (entry.is_dir() and all(path.is_dir() for path in over)):
            return
        if entry.is_symlink():
            target.symlink_to(entry.readlink())
        elif entry.is_dir() and os.access(entry, os.R_OK | os.X_OK):
            target.mkdir(exist_ok=True)
            if entry in points:
                mounts.bind(entry, target, read_only=True)
            else:
                self._lay_over(entry, name, scratch, over)
        elif entry.is_file():
            target.touch()
            mounts.bind(entry, target, read_only=True)
        else:
            return  # a socket, a device, or what we may not enter: no script could use it
        scratch.stand_ins.add(name)

    def hide_scratch(self, scratch: Scratch) -> None:
        umount(scratch.shown, MNT_DETACH)  # and with it what is mounted on it, but nothing that was there before
        shutil.rmtree(scratch.place, ignore_errors=True)

    def mount_tree(self, lowers: Sequence[Path]) -> Path:
        """Mount the build tree over the layers (topmost first); returns the new upper directory."""
        upper = self.new_directory("upper")
        work = self.new_directory("work")
        mounts.overlay(lowers, upper, work, self.build_dir)
        return upper

    def unmount_tree(self) -> None:
        mounts.unmount_all(self.build_dir)

    def make_target_a_mount(self) -> None:
        """Let `/` of a script inside be a mount point: rpm's plugin unshare and unshare(1) change how mounts spread
        from there, which anything else refuses (mount(2), EINVAL)."""
        mounts.bind(self.target, self.target, recursive=False)

    def mount_system_in_target(self) -> None:
        """The view's /proc, /dev and /sys in the target (contract.md 2.1, step 12)."""
        for name in ("proc", "dev", "sys"):
            mounts.bind(self.view / name, self.target / name)

    def show_hooks_in_target(self, masks: Mapping[str, Sequence[str]]) -> None:
        """The hooks tree read-only at /tmp/in_target.d, masked as by `mask` (contract.md 2.4)."""
        point = self.target / "tmp" / "in_target.d"
        point.mkdir(parents=True, exist_ok=True)
        mounts.bind(self.hooks, point)
        self.mask(point, masks)
        make_read_only(point)

    def mask(self, hooks: Path, masks: Mapping[str, Sequence[str]]) -> None:
        """Let directories of the hooks tree appear with nothing but the names below them that `masks` gives."""
        for name, shown in masks.items():
            if (hooks / name).is_dir():
                mounts.only_show(hooks / name, shown)

    @contextlib.contextmanager
    def tools_read_only(self) -> Iterator[None]:
        """Let nothing be written to the tools view itself: its places for files are mounts of their own."""
        if self.view == Path("/"):  # the host's own root: what is to be written there is the host's business
            yield
            return
        set_read_only(self.view, True)
        try:
            yield
        finally:
            set_read_only(self.view, False)

    def show_store(self) -> None:
        """The store at its own path, again after something was mounted above it."""
        for root in self.session.store.roots:
            mounts.bind_at(root, self.view)

    def unmount_target(self) -> None:
        """Take away what was mounted on and in the target, and the mount point of the hooks."""
        mounts.unmount_all(self.target)
        with contextlib.suppress(OSError):  # a script may have used it as its own
            (self.target / "tmp" / "in_target.d").rmdir()


def end_leftovers(keep: set[int]) -> list[str]:
    """Kill processes that a hook left in the background (reparented to pid 1); returns their names.

    `keep` holds pids that belong to the build.
    """
    named = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in keep | {1, os.getpid()}:
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            state, parent = fields[0], int(fields[1])
            if parent == 1 and state != "Z":
                named.append((entry / "comm").read_text().strip())
                os.kill(int(entry.name), 9)
    return named
