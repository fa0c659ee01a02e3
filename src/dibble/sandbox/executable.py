"""dibble in one file, which runs on a Linux that has a shell, tar and gzip, and no Python.

The file is a shell script with a tar.gz behind it. At first use it unpacks that into the caller's caches, beside other
versions, and from then on starts what lies there.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
from typing import TYPE_CHECKING

from dibble.sandbox.own_code import code, fetched_libraries
from dibble.sandbox.portable_python import added, compile_all, portable_python
from dibble.store.places import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".complete")
_DIBBLE = """\
#!/bin/sh
# -P keeps the caller's directory out of Python's search path, -s the caller's own packages.
here=${0%/*}/..
unset PYTHONHOME
PYTHONPATH=$here/src
export PYTHONPATH
exec "$here/bin/python" -P -s -m dibble "$@"
"""
_HEAD = """\
#!/bin/sh
# dibble with the Python and the libraries that it runs on. Unpacked at first use: DIBBLE_UNPACKED names another place.
set -eu
caches=${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}
place=${DIBBLE_UNPACKED:-$caches/dibble-executable}/@DIGEST@
if [ ! -x "$place/bin/dibble" ]; then
    new=$place.$$
    trap 'rm -rf "$new"' EXIT
    trap 'exit 130' INT TERM
    mkdir -p "$new" && tail -c +@BEGIN@ "$0" | gzip -dc | tar -xf - -C "$new" || {
        echo "dibble: cannot unpack itself to $new" >&2
        echo "  hint: is there room? DIBBLE_UNPACKED names another directory" >&2
        exit 1
    }
    [ -e "$place" ] || mv "$new" "$place"
    rm -rf "$new" "$place/${new##*/}"  # where somebody else was quicker
    trap - EXIT INT TERM
fi
DIBBLE_COMMAND=$0
export DIBBLE_COMMAND
exec "$place/bin/dibble" "$@"
"""
_BEGIN_DIGITS = 6


def write_executable(file: Path, tools: Path, work: Path, environment: Mapping[str, str]) -> None:
    """Write the file. `tools` is the tree of the group `core`, `work` an empty directory, `environment` pip's.

    Call it inside the namespace, as uid 0. The same code, libraries and tools give the same bytes, except for what
    Python's compiler does differently. Raises HostError where the libraries cannot be had.
    """
    place = work / "dibble"
    version = portable_python(tools, place)
    own = added(place, version)
    shutil.copytree(fetched_libraries(version, work, environment), own, dirs_exist_ok=True, ignore=_LEFT_OUT)
    shutil.rmtree(own / "bin", ignore_errors=True)  # programs that pip made for the Python that it ran on
    shutil.copytree(code() / "dibble", place / "src/dibble", symlinks=True, ignore=_LEFT_OUT)
    compile_all(place, own, place / "src")
    start = place / "bin/dibble"
    start.write_text(_DIBBLE)
    start.chmod(0o755)
    content = _packed(place)
    head = _HEAD.replace("@DIGEST@", hashlib.sha256(content).hexdigest()[:16])
    begin = len(head) - len("@BEGIN@") + _BEGIN_DIGITS + 1  # tail(1) counts from 1
    head = head.replace("@BEGIN@", f"{begin:0{_BEGIN_DIGITS}d}")
    write_whole(file, head.encode() + content)
    file.chmod(0o755)


def _packed(directory: Path) -> bytes:
    """A tar.gz of the directory that tells nothing of who made it, or when."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for path in sorted(directory.rglob("*")):
            member = archive.gettarinfo(path, str(path.relative_to(directory)))
            member.uid = member.gid = member.mtime = 0
            member.uname = member.gname = ""
            if member.isreg():
                with path.open("rb") as file:
                    archive.addfile(member, file)
            else:
                archive.addfile(member)
    return packed.getvalue()
