"""A Python that brings its own C library, for machines whose Python is too old or that have none.

It is the tools tree's, with the loader and every shared library that it was made for, so that it runs on any Linux of
the architecture whatever C library that has (ld.so(8): `--library-path`, `--argv0`):

    bin/python           a shell script, which is `sys.executable`, and so starts children in the same way
    libs/                the loader, the program and its shared libraries
    lib/python3.N/       the standard library, compiled
    local/lib/python3.N/dist-packages   where Debian's Python looks for libraries that were added
"""

from __future__ import annotations

import fcntl
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import HostError
from dibble.sandbox.process import run
from dibble.store.places import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterable

_PYTHON = re.compile(r"python3\.(\d+)")
_FOUND = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
"""A line of `ld.so --list`: `libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x…)`."""
# What extension modules from a package index may want besides (PEP 600): the rest of the C library, of which each part
# must be of the same version, and compilers' runtimes.
_EXPECTED = (
    *("libanl.so.1", "libdl.so.2", "libm.so.6", "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libutil.so.1"),
    *("libgcc_s.so.1", "libstdc++.so.6"),
)
_LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "config-3.*", "ensurepip", "idlelib", "pydoc_data", "test", "tkinter", "turtle*", "sitecustomize.py"
)
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
_STARTER = """\
#!/bin/sh
here=${{0%/*}}/..
exec "$here/libs/{loader}" --inhibit-cache --argv0 "$0" --library-path "$here/libs" "$here/libs/{python}" "$@"
"""


def portable_python(tools: Path, directory: Path) -> tuple[int, int]:
    """Make it in `directory` unless it is there; its version. `tools` is the tree of the group `core`.

    Call it inside the namespace, as uid 0. Raises HostError where the tree has no Python.
    """
    name = _python_of(tools)
    version = 3, int(name.rpartition(".")[2])
    done = directory / ".complete"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f".{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            remove_tree(directory)
            _make(tools, name, directory)
            done.touch()
    return version


def added(directory: Path, version: tuple[int, int]) -> Path:
    """Where libraries go that it shall find."""
    return directory / f"local/lib/python{version[0]}.{version[1]}/dist-packages"


def compile_all(directory: Path, *folders: Path) -> None:
    """Compile what is in the folders by the Python in `directory`; whoever runs it later may not write there.

    Some libraries hold examples of what cannot be compiled, which is no matter.
    """
    words = ("-I", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash")
    run([str(directory / "bin/python"), *words, *map(str, folders)], env=_ENVIRONMENT, check=False)


def _python_of(tools: Path) -> str:
    found = [path.name for path in (tools / "usr/bin").glob("python3.*") if _PYTHON.fullmatch(path.name)]
    if not found:
        raise HostError(f"the tools tree {tools} has no Python", hint="dibble tools fetch core makes it anew")
    return max(found, key=lambda name: int(name.rpartition(".")[2]))


def _make(tools: Path, name: str, directory: Path) -> None:
    library = directory / "lib" / name
    shutil.copytree(tools / "usr/lib" / name, library, symlinks=True, ignore=_LEFT_OUT)
    libs = directory / "libs"
    libs.mkdir()
    loader = next(path for path in sorted((tools / "usr").glob("lib*/**/ld-linux-*.so.*")))
    extensions = sorted((library / "lib-dynload").glob("*.so"))
    wanted = [f"/usr/bin/{name}", *(f"/usr/lib/{name}/lib-dynload/{path.name}" for path in extensions)]
    for path in _libraries(tools, loader.name, wanted):
        shutil.copy2((tools / path.lstrip("/")).resolve(), libs / Path(path).name)
    shutil.copy2(tools / "usr/bin" / name, libs / name)
    starter = directory / "bin/python"
    starter.parent.mkdir()
    starter.write_text(_STARTER.format(loader=loader.name, python=name))
    starter.chmod(0o755)
    added(directory, (3, int(name.rpartition(".")[2]))).mkdir(parents=True)
    compile_all(directory, library)


def _libraries(tools: Path, loader: str, programs: Iterable[str]) -> list[str]:
    """Paths in the tree of the loader and of all that the programs are linked with, each file name once."""
    folders = sorted({path.parent for path in (tools / "usr/lib").glob("*-linux-gnu*/libc.so.6")})
    own = [f"/{path.relative_to(tools)}" for folder in folders for path in map(folder.joinpath, _EXPECTED)]
    found = {path.rpartition("/")[2]: path for path in own if (tools / path[1:]).exists()}
    place = next(f"/{path.relative_to(tools)}" for path in sorted((tools / "usr").glob(f"lib*/**/{loader}")))
    found[loader] = place
    for program in programs:
        listed = run([place, "--list", program], env=_ENVIRONMENT, root=tools)
        found |= {path.rpartition("/")[2]: path for path in _FOUND.findall(listed.output)}
    return [found[name] for name in sorted(found)]
