"""What the scripts of kernels take their time for, in the target of one transaction: depmod and dracut.

rpm puts the programs and the kernel in place and runs the scripts in one go, so nothing can be mounted over a program
beforehand. Scriptlets find our depmod by rpm's own path for them; dracut's settings, which its shell reads, name the
others. All that lies in the private /dev of the target, but for a file of settings that goes away again.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.packages.depmod import PROGRAM as DEPMOD
from dibble.packages.depmod import Depmod
from dibble.packages.dracut_install import PROGRAM as DRACUT_INSTALL
from dibble.packages.dracut_install import Calls
from dibble.packages.kernel_modules import SCRATCH_BYTES, PlainModules
from dibble.packages.stand_in import script_of
from dibble.sandbox.memory import available_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dibble.events import Events
    from dibble.sandbox.toolbox import Toolbox

KERNEL = "kernel"
"""Names of packages with modules begin so: kernel-core, kernel-modules, kernel-default …"""
MEMORY = "dev/shm"
"""In the private /dev of a target."""
SCRIPTS_FIRST = script_of(DEPMOD).rpartition("/")[0]
"""Where scriptlets look for programs first: where the stand-in for depmod lies."""
_INITRAMFS_BYTES = 2 << 30
"""Of free memory, with which a tree of most modules and firmware, some 500 MB, and what is made of it have room."""
_ZSTD = """if command -v zstd >/dev/null 2>&1; then
    zstd() { command zstd "$@" -9; }
fi
"""
"""dracut says level 15, which takes nine times as long as level 9 for 0.6 % of the size: most of an initramfs are
modules, which are compressed already. The last level on the command line counts (zstd(1))."""
_PLAIN = """if [[ -x /{program} ]]; then
    DRACUT_INSTALL=/{program}
    /{program}() {{
        case " $* " in
            *" -m "*) "{script}" "$@" ;;
            *) command "/{program}" "$@" ;;
        esac
    }}
    if [[ -x /{depmod_program} ]]; then
        depmod() {{ "{depmod}" "$@"; }}
    fi
fi
"""
"""Most calls are for other files than modules. What xargs(1) calls by that name is no function, but the program."""


@contextlib.contextmanager
def same_initramfs(root: Path, more: str = "") -> Iterator[None]:
    """While a kernel's scripts run, dracut(8) writes the same bytes each time; dracut.conf(5), `reproducible`.

    It works in memory, too, where there is enough. That must not be said by `--tmpdir`: the words of its command line
    are kept in what it writes. Where it compresses by zstd(1), it does so at another level.
    """
    file = root / "etc/dracut.conf.d/zz-dibble.conf"
    ours = not file.parent.exists()
    if not file.parent.parent.is_dir():
        yield
        return
    file.parent.mkdir(exist_ok=True)
    in_memory = f'tmpdir="/{MEMORY}"\n' if (root / MEMORY).is_dir() and available_bytes() > _INITRAMFS_BYTES else ""
    file.write_text(f'reproducible="yes"\n{in_memory}{_ZSTD}{more}')
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        if ours and not (root / "usr/bin/dracut").exists():
            file.parent.rmdir()


@contextlib.contextmanager
def quick_kernels(
    root: Path, packages: Mapping[str, Path], scratch: Path, toolbox: Toolbox, events: Events
) -> Iterator[None]:
    """While the block runs, scripts of kernels take what is done ahead of their work; the same initramfs comes out.

    `packages` are the files of a transaction's packages by name. The modules of kernels among them are unpacked and
    decompressed meanwhile, below `scratch`.
    """
    with_modules = [file for name, file in sorted(packages.items()) if name.startswith(KERNEL)]
    if not with_modules or not (root / MEMORY).is_dir() or available_bytes() < _INITRAMFS_BYTES + SCRATCH_BYTES:
        with same_initramfs(root):
            yield
        return
    with (
        tempfile.TemporaryDirectory(dir=scratch, prefix="modules-") as name,
        ThreadPoolExecutor(os.cpu_count() or 1, "modules") as pool,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        modules = PlainModules(Path(name, "plain"), pool.submit)
        modules.expect(pool.submit(_unpacked, with_modules, Path(name, "packaged"), toolbox))
        depmod = Depmod(modules, events).stand_in(root, modules)
        calls = Calls(root, modules, events, None)
        stack.enter_context(depmod.beside(root))
        stack.enter_context(calls.beside())
        words = _PLAIN.format(
            program=DRACUT_INSTALL,
            script=script_of(DRACUT_INSTALL),
            depmod_program=DEPMOD,
            depmod=script_of(DEPMOD),
        )
        stack.enter_context(same_initramfs(root, words))
        yield


def _unpacked(packages: list[Path], place: Path, toolbox: Toolbox) -> Path:
    """A directory with the modules of packages, which may be parts of one kernel. Raises ToolFailed."""
    place.mkdir(parents=True, exist_ok=True)
    files = [toolbox.path(package) for package in packages]
    script = 'cd "$1" && shift && for file; do rpm2cpio "$file" | cpio -idm --quiet "*.ko.*" || exit 1; done'
    toolbox.run(["sh", "-c", script, "modules", toolbox.path(place), *files])
    return place
