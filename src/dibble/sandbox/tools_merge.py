"""Unpacked packages → one directory that works as a root without any maintainer script having run.

Files are hard links into the package store, so the directory must only ever be seen read-only or below an overlay. What
a script would have made is made here, as files of the directory's own.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from dibble.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VERSION = 1
"""Part of the tree's name in the store: to be raised with every change to what this file makes."""

# Debian's merged /usr: a package may still ship these as directories (base-files 13.8, UsrMerge in the Debian wiki).
_MERGED = frozenset((b"bin", b"sbin", b"lib", b"lib64", b"lib32", b"libx32", b"libo32"))

# A third of all files, and nothing that a program reads.
_LEFT_OUT = frozenset(b"usr/share/" + name for name in (b"doc", b"man", b"info", b"locale", b"lintian", b"bug"))

# What the packages' postinst scripts choose by update-alternatives, highest priority first; taken when nothing else has
# the name. Directly linked: nobody will change the choice.
_ALTERNATIVES = (
    ("usr/bin/awk", "gawk"),
    ("usr/bin/awk", "mawk"),
    ("usr/bin/nawk", "gawk"),
    ("usr/bin/which", "which.debianutils"),
    ("usr/bin/pager", "more"),
    ("usr/bin/mt", "mt-gnu"),
    ("usr/bin/lzma", "xz"),
    ("usr/bin/unlzma", "xz"),
    ("usr/bin/lzcat", "xz"),
    ("usr/sbin/rmt", "rmt-tar"),
)

_PAM_SERVICES = ("account", "auth", "password", "session", "session-noninteractive")

SUDO = r"""#!/bin/sh
# dibble: who runs here is root in a namespace already. Understands what elements write: sudo [-EHnkKvis] [-u USER]
# [-g GROUP] [VAR=VALUE ...] [--] COMMAND [ARGUMENT ...]
user=root group= shell= login=
fail() { echo "sudo: $1" >&2; exit 1; }
while [ $# -gt 0 ]; do
    case $1 in
        --) shift; break ;;
        --user=*) user=${1#*=} ;;
        --group=*) group=${1#*=} ;;
        --preserve-env*|--set-home|--non-interactive|--reset-timestamp|--stdin|--background) ;;
        --validate) exit 0 ;;
        --login) login=1 ;;
        --shell) shell=1 ;;
        --user) [ $# -gt 1 ] || fail "$1 needs a user"; user=$2; shift ;;
        --group) [ $# -gt 1 ] || fail "$1 needs a group"; group=$2; shift ;;
        --*) fail "option $1 is not known to dibble's sudo" ;;
        -?*)
            letters=${1#-}
            while [ -n "$letters" ]; do
                rest=${letters#?}
                case $letters in
                    [EHnkKSAPB]*) ;;
                    v*) exit 0 ;;
                    l*) exit 0 ;;
                    i*) login=1 ;;
                    s*) shell=1 ;;
                    [ugpCDhRrTtU]*)
                        letter=${letters%"$rest"}
                        if [ -n "$rest" ]; then value=$rest; rest=
                        else [ $# -gt 1 ] || fail "-$letter needs a value"; value=$2; shift
                        fi
                        case $letter in
                            u) user=$value ;;
                            g) group=$value ;;
                            D) cd "$value" || exit 1 ;;
                        esac ;;
                    *) fail "option -${letters%"$rest"} is not known to dibble's sudo" ;;
                esac
                letters=$rest
            done ;;
        [!=]*=*)
            case ${1%%=*} in *[!A-Za-z0-9_]*|[0-9]*) break ;; esac
            export "$1" ;;
        *) break ;;
    esac
    shift
done
# assignments may also follow "--"
while [ $# -gt 0 ]; do
    case $1 in [!=]*=*) ;; *) break ;; esac
    case ${1%%=*} in *[!A-Za-z0-9_]*|[0-9]*) break ;; esac
    export "$1"
    shift
done
user=${user#\#}
home=$(getent passwd "$user" | cut -d: -f6)
SUDO_USER=root SUDO_UID=0 SUDO_GID=0 USER=$user LOGNAME=$user
export SUDO_USER SUDO_UID SUDO_GID USER LOGNAME
if [ -n "$login" ]; then
    HOME=${home:-/}; export HOME
    cd "$HOME" 2>/dev/null || cd /
    shell=1
fi
if [ -n "$shell" ]; then
    if [ $# -gt 0 ]; then set -- /bin/sh -c '"$@"' sh "$@"; else set -- "${SHELL:-/bin/bash}"; fi
elif [ $# -eq 0 ]; then
    exit 0
fi
[ -n "$group" ] || { [ "$user" != root ] && [ "$user" != 0 ]; } || exec "$@"
HOME=${home:-/}; export HOME
if [ -n "$group" ]; then
    exec setpriv --reuid="$user" --regid="${group#\#}" --clear-groups -- "$@"
fi
exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups -- "$@"
"""


def merge(packages: Sequence[Path], destination: Path) -> None:
    """Hard-link the files of unpacked packages (their `root` directories) into `destination`, a new directory.

    The first package that has a directory gives its owner, mode and time. Raises PackageError when two have the same
    file: then they were not meant to be together.
    """
    destination.mkdir()
    destination.chmod(0o755)
    target = os.fsencode(destination) + b"/"
    # base-files has /bin and its like as links, which must be there before anything is put through them
    for package in sorted(packages, key=lambda path: not (path / "usr/share/base-files").is_dir()):
        _merge_directory(os.fsencode(package), b"", target)


def _merge_directory(source: bytes, below: bytes, target: bytes) -> None:
    with os.scandir(source) as found:
        for entry in found:
            name = below + b"/" + entry.name if below else entry.name
            directory = entry.is_dir(follow_symlinks=False)
            if not directory:
                try:
                    os.link(entry.path, target + name, follow_symlinks=False)
                except FileExistsError as error:
                    raise PackageError(
                        f"two packages of the tools tree have /{os.fsdecode(name)}, one is {os.fsdecode(source)}",
                        hint="choose other packages and run: dibble tools update",
                    ) from error
                continue
            if name in _LEFT_OUT:
                continue
            if name in _MERGED:
                name = b"usr/" + name
                os.makedirs(target + b"usr", 0o755, exist_ok=True)  # noqa: PTH103 - bytes
            status = entry.stat(follow_symlinks=False)
            try:
                os.mkdir(target + name, 0o700)  # noqa: PTH102 - bytes
            except FileExistsError:
                _merge_directory(entry.path, name, target)
                continue
            _merge_directory(entry.path, name, target)
            os.chown(target + name, status.st_uid, status.st_gid)
            os.chmod(target + name, status.st_mode & 0o7777)  # noqa: PTH101 - bytes
            os.utime(target + name, ns=(status.st_mtime_ns, status.st_mtime_ns))


def finish(root: Path) -> None:
    """Make what the maintainer scripts would have made, as far as programs need it. For the group `core`."""
    _accounts(root)
    for link, target in _ALTERNATIVES:
        path = root / link
        if (path.parent / target).exists() and not path.is_symlink() and not path.exists():
            path.symlink_to(target)
    _certificates(root)
    for service in _PAM_SERVICES:  # su and runuser want them; all are root here
        kind = service.partition("-")[0]
        _write(root / f"etc/pam.d/common-{service}", f"{kind} required pam_permit.so\n")
    _write(root / "etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
    _write(root / "etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
    _write(root / "etc/hostname", "dibble\n")
    _link(root / "etc/mtab", "../proc/self/mounts")
    _link(root / "var/run", "/run")
    _link(root / "var/lock", "/run/lock")
    for directory in ("dev", "proc", "sys", "run", "root", "mnt", "tmp", "var/tmp", "usr/local/bin", "usr/local/sbin"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    for directory in ("tmp", "var/tmp"):
        (root / directory).chmod(0o1777)
    _write(root / "var/lib/dpkg/status", "")
    _write(root / "usr/local/bin/sudo", SUDO, 0o755)


def _accounts(root: Path) -> None:
    """As base-passwd's postinst does in an empty root. "*" as password: no way in."""
    masters = root / "usr/share/base-passwd"
    for name in ("passwd", "group"):
        _write(root / "etc" / name, (masters / f"{name}.master").read_text("ascii"))
    users = [line.split(":")[0] for line in (masters / "passwd.master").read_text("ascii").splitlines()]
    _write(root / "etc/shadow", "".join(f"{user}:*:20000:0:99999:7:::\n" for user in users), 0o640)


def _certificates(root: Path) -> None:
    """One file of all certificates of authorities, as update-ca-certificates makes it; programs look nowhere else."""
    folder = root / "usr/share/ca-certificates"
    texts = [path.read_text("ascii").strip() + "\n" for path in sorted(folder.rglob("*.crt"), key=_name_of)]
    _write(root / "etc/ssl/certs/ca-certificates.crt", "".join(texts))


def _name_of(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", path.name)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    """A new file: never one that is written through a hard link into the store."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(mode)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        path.rmdir()
    if not path.is_symlink() and not path.exists():
        path.symlink_to(target)
