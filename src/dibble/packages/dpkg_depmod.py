"""depmod without its long part: the modules of a kernel are decompressed ahead, once, by several processes.

While packages are configured and an initramfs is made, a stub stands over `depmod` by a mount, which leaves no trace in
the image. It passes each call on to us. The calls that Debian's kernels and initramfs-tools make are carried out by the
target's own depmod on plain files (`kernel_modules.py`); what it writes is the same, byte for byte. Any other call, or
one about modules that are not those of the package, is the program's own, as if nothing stood in between.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.packages.apt_sources import resolve_inside
from dibble.packages.dpkg_configure import ENVIRONMENT
from dibble.sandbox import mounts
from dibble.sandbox.process import run
from dibble.sandbox.syscalls import MNT_DETACH, mount_over, umount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dibble.events import Events
    from dibble.packages.kernel_modules import Plain, PlainModules

PROGRAM = "usr/sbin/depmod"
_PLACE = "dev/shm/.dibble-depmod"
"""In the private /dev of the target, so it never gets into an image."""
_STOP = "-"
_GIVEN = ("modules.order", "modules.builtin", "modules.builtin.modinfo")
"""What depmod reads beside the modules; all other files of that kind it makes."""
_NOT_SEARCHED = ("build", "source")
_CONFIGURATION = ("etc/depmod.d", "run/depmod.d", "usr/local/lib/depmod.d", "usr/lib/depmod.d", "lib/depmod.d")

# $0 of the real program must be depmod: kmod(8) goes by its name.
_STUB = f"""#!/bin/sh
place=/{_PLACE}
answer=$place/answer.$$
if mkfifo "$answer" 2>/dev/null; then
    mkdir "$place/call.$$"
    for word; do printf '%s\\0' "$word"; done >"$place/call.$$/words"
    echo "$$" >"$place/request"
    read -r said <"$answer"
    rm -rf "$answer" "$place/call.$$"
    if [ "$said" = done ]; then
        exit 0
    fi
fi
exec "$place/depmod" "$@"
"""


class Depmod:
    """Carries out depmod calls in one target. `modules` knows the plain modules of its kernels."""

    def __init__(self, modules: PlainModules | None, events: Events) -> None:
        self._modules = modules
        self._events = events

    @contextlib.contextmanager
    def around(self, root: Path) -> Iterator[None]:
        """Let the stub stand over the program while the block runs, once `root` has the program as a link to kmod."""
        program = root / PROGRAM
        modules = self._modules
        if modules is None or not modules.known or not program.is_symlink() or not (root / "usr/bin/kmod").is_file():
            yield
            return
        place = root / _PLACE
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / "depmod").symlink_to("/usr/bin/kmod")
        stub = place / "stub"
        stub.write_text(_STUB)
        stub.chmod(0o755)
        os.mkfifo(place / "request", 0o600)
        try:
            mount_over(stub, program)
        except OSError:  # Linux < 5.2
            shutil.rmtree(place)
            yield
            return
        requests = os.open(place / "request", os.O_RDWR | os.O_CLOEXEC)  # our own writer: no end of file in between
        server = threading.Thread(target=self._serve, args=(modules, root, place, requests), name="depmod", daemon=True)
        server.start()
        try:
            yield
        finally:
            os.write(requests, f"{_STOP}\n".encode())
            server.join()
            os.close(requests)
            umount(program, MNT_DETACH)
            shutil.rmtree(place)

    def _serve(self, modules: PlainModules, root: Path, place: Path, requests: int) -> None:
        with contextlib.ExitStack() as stack:
            for line in stack.enter_context(os.fdopen(os.dup(requests), "r", errors="replace")):
                name = line.strip()
                if name == _STOP:
                    return
                if not name.isdigit():
                    continue
                done = False
                with contextlib.suppress(OSError):  # the program itself shows what is wrong
                    words = (place / f"call.{name}/words").read_bytes().split(b"\0")[:-1]
                    done = self._carry_out(modules, root, place, [os.fsdecode(word) for word in words])
                with contextlib.suppress(OSError):  # the caller is gone
                    # neither opening nor writing waits for the caller, who may be gone; what is written stays until
                    # the last writer closes
                    answer = os.open(place / f"answer.{name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                    stack.callback(os.close, answer)
                    os.write(answer, b"done\n" if done else b"plain\n")

    def _carry_out(self, modules: PlainModules, root: Path, place: Path, words: Sequence[str]) -> bool:
        """Whether the call was one of ours, and all went as with the program itself."""
        if len(words) == 1:
            base, version = "/", words[0]
        elif len(words) == 4 and words[:2] == ["-a", "-b"]:
            base, version = words[2], words[3]
        else:
            return False
        if not base.startswith("/") or _has_external(root):
            return False
        plain = modules.find(version)
        if plain is None:
            return False
        return self._run(root, place, resolve_inside(root, f"{base}/lib/modules/{version}"), plain)

    def _run(self, root: Path, place: Path, real: Path, plain: Plain) -> bool:
        work = place / "work"
        stand_in = work / "lib/modules" / real.name
        shutil.rmtree(work, ignore_errors=True)
        stand_in.mkdir(parents=True)
        shown = place / "plain"
        shown.mkdir(exist_ok=True)
        if not _make_stand_in(real, stand_in, plain, f"/{_PLACE}/plain"):
            return False
        mounts.bind(plain.directory, shown, read_only=True)
        try:
            argv = [f"/{_PLACE}/depmod", "-b", f"/{_PLACE}/work", real.name]
            with self._events.activity("depmod"):
                done = run(argv, root=root, env=ENVIRONMENT, check=False)
        finally:
            umount(shown, MNT_DETACH)
        if done.status or done.output:
            return False
        for made in sorted(stand_in.iterdir()):
            if made.is_file() and made.name not in _GIVEN:
                new = real / f"{made.name}.new"
                shutil.copy(made, new)
                new.rename(real / made.name)
        return True


def _make_stand_in(real: Path, stand_in: Path, plain: Plain, shown: str) -> bool:
    """Make `stand_in` hold what depmod reads of `real`, with links to plain modules, shown at the path `shown`.

    False when `real` holds a module that is not the package's.
    """
    for directory, folders, names in os.walk(real):
        inside = os.path.relpath(directory, real).removeprefix(".")
        here = stand_in / inside
        here.mkdir(exist_ok=True)
        if any(Path(directory, name).is_symlink() for name in folders if name not in _NOT_SEARCHED):
            return False
        for name in names:
            if ".ko" not in name:
                continue
            path = f"{inside}/{name}".lstrip("/")
            file = Path(directory, name)
            if path not in plain.names or file.is_symlink() or not _same(file, plain.source / path):
                return False
            (here / name).symlink_to(f"{shown}/{path}")
    for name in _GIVEN:
        if (real / name).exists():
            shutil.copy(real / name, stand_in / name)
    return True


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def _has_external(root: Path) -> bool:
    """Whether depmod is told of modules in other directories (depmod.d(5))."""
    folders = (resolve_inside(root, folder) for folder in _CONFIGURATION)
    files = (file for folder in folders if folder.is_dir() for file in folder.iterdir() if file.is_file())
    return any("external" in file.read_text("utf-8", "replace") for file in files)
