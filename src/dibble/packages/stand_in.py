"""A program of the target whose calls are passed to us while a block runs, of which the image has no trace.

What is called instead is a script that tells us its words and waits. Where we have carried the call out it ends well;
else it becomes the program itself, as if nothing stood in between. The script is mounted over the program where that is
there from the start, and else lies beside it, for the caller to be pointed to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.sandbox import mounts
from dibble.sandbox.syscalls import MNT_DETACH, mount_over, umount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STOP = "-"
_BIN = "bin"
NATIVE = "native"
"""Where, in the directory of a stand-in, programs of this machine are shown for a foreign target."""

Started = Callable[[Path, str], list[str] | None]
"""(directory in the target, path of a program) → the words that start this machine's own build of it, or None."""

_STUB = """#!/bin/sh
place=/{place}
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
exec "$place/{name}" "$@"
"""


class StandIn:
    """Stands for `program`, a path relative to the root.

    `carry_out` gets the directory `place` and the words of a call; it says whether all went as with the program, which
    it finds in that directory by its own name.
    """

    def __init__(self, program: str, carry_out: Callable[[Path, Sequence[str]], bool]) -> None:
        self._program = program
        self._name = program.rpartition("/")[2]
        self._carry_out = carry_out

    def shown(self) -> str:
        """The directory as the target sees it, from /; in the private /dev, so it never gets into an image."""
        return _shown(self._name)

    @contextlib.contextmanager
    def around(self, root: Path) -> Iterator[None]:
        """Let the script stand over the program of `root`, which must be there, while the block runs."""
        with self._place(root) as (place, stack):
            if self._stand(root / self._program, place, stack):
                self._listen(place, stack)
            yield

    @contextlib.contextmanager
    def beside(self, root: Path) -> Iterator[None]:
        """Let the script be at `script_of(program)` while the block runs. The program need not be there yet."""
        with self._place(root) as (place, stack):
            (place / self._name).symlink_to(f"/{self._program}")
            (place / _BIN).mkdir()
            self._write(place / _BIN / self._name)
            self._listen(place, stack)
            yield

    @contextlib.contextmanager
    def _place(self, root: Path) -> Iterator[tuple[Path, contextlib.ExitStack]]:
        place = root / self.shown()
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, place)
            stack.callback(_hide, place / NATIVE)
            yield place, stack

    def _listen(self, place: Path, stack: contextlib.ExitStack) -> None:
        """Carry out calls until the end of the stack."""
        os.mkfifo(place / "request", 0o600)
        requests = os.open(place / "request", os.O_RDWR | os.O_CLOEXEC)  # our own writer: no end of file in between
        stack.callback(os.close, requests)
        server = threading.Thread(target=self._serve, args=(place, requests), name=self._name, daemon=True)
        server.start()
        stack.callback(server.join)
        stack.callback(os.write, requests, f"{_STOP}\n".encode())

    def _write(self, script: Path) -> None:
        script.write_text(_STUB.format(place=self.shown(), name=self._name))
        script.chmod(0o755)

    def _stand(self, program: Path, place: Path, stack: contextlib.ExitStack) -> bool:
        """Put the script over the program; False on Linux < 5.2."""
        own = place / self._name
        if program.is_symlink():
            # $0 must be the program's name: kmod(8) and busybox(1) go by it
            own.symlink_to(f"/{program.resolve().relative_to(program.parents[self._program.count('/')].resolve())}")
        else:
            own.touch()
            mounts.bind(program, own)
            stack.callback(umount, own, MNT_DETACH)
        script = place / "script"
        self._write(script)
        try:
            mount_over(script, program)
        except OSError:
            return False
        stack.callback(umount, program, MNT_DETACH)
        return True

    def _serve(self, place: Path, requests: int) -> None:
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
                    done = self._carry_out(place, [os.fsdecode(word) for word in words])
                with contextlib.suppress(OSError):  # the caller is gone
                    # neither opening nor writing waits for the caller, who may be gone; what is written stays until
                    # the last writer closes
                    answer = os.open(place / f"answer.{name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                    stack.callback(os.close, answer)
                    os.write(answer, b"done\n" if done else b"plain\n")


def script_of(program: str) -> str:
    """Where the script for `program`, a path relative to the root, lies while `beside` runs, as the target sees it."""
    name = program.rpartition("/")[2]
    return f"/{_shown(name)}/{_BIN}/{name}"


def _shown(name: str) -> str:
    return f"dev/shm/.dibble-{name}"


def _hide(shown: Path) -> None:
    with contextlib.suppress(OSError):  # it was never shown
        umount(shown, MNT_DETACH)
