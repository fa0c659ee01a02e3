"""The variables that hooks see: the caller's, less what belongs to this machine only, plus what options stand for.

DIB hands its hooks the whole environment of the caller, and elements rely on reading any variable they document. So
this is a list of what stays behind, not of what passes; the less of the machine gets in, the more builds are equal.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# (pattern of names, why it does not reach the hooks)
HOST_ONLY: tuple[tuple[str, str], ...] = (
    ("IMAGE_ELEMENT", "the resolved elements are set by the build; a caller's value would add elements unseen (D26)"),
    ("IMAGE_ELEMENT_YAML", "set by the build"),
    ("TARGET_ROOT", "set by the build, and only in the phases that have it"),
    ("TMP_*", "set by the build; TMP_DIR has no meaning where no host directory is used"),
    ("TMPDIR", "names a directory of the host"),
    ("OUT_IMAGE_PATH", "set by the build"),
    ("IMAGE_BLOCK_DEVICE*", "set by the build"),
    ("MKFS_OPTS", "reset by DIB at its start; --mkfs-options is the way"),
    ("LOGFILE", "reset by DIB at its start; --logfile is the way"),
    ("DOCKER_TARGET", "reset by DIB at its start; --docker-target is the way"),
    ("_", "the last command of the caller's shell"),
    ("_LIB", "set by the build"),
    ("PS[0-9]", "prompts of the caller's shell"),
    ("PROMPT_COMMAND", "runs in the caller's shell"),
    ("PWD", "a host directory; the shell sets its own"),
    ("OLDPWD", "a host directory"),
    ("SHLVL", "depth of the caller's shells"),
    ("SHELLOPTS", "would switch options on in every bash script"),
    ("BASHOPTS", "would switch options on in every bash script"),
    ("BASH_ENV", "a host file that every bash script would run"),
    ("BASH_FUNC_*", "functions of the caller's shell; sudo drops them in DIB's chroot too"),
    ("ENV", "a host file that every sh would run"),
    ("CDPATH", "would change where cd goes"),
    ("SHELL", "the caller's login shell, which a target may not have"),
    ("HIST*", "history of the caller's shell"),
    ("LS_COLORS", "colours of the caller's terminal"),
    ("COLORTERM", "colours of the caller's terminal"),
    ("COLUMNS", "size of the caller's terminal"),
    ("LINES", "size of the caller's terminal"),
    ("TERM_PROGRAM*", "the caller's terminal"),
    ("WINDOWID", "the caller's terminal"),
    ("DISPLAY", "the caller's desktop"),
    ("WAYLAND_DISPLAY", "the caller's desktop"),
    ("DESKTOP_SESSION", "the caller's desktop"),
    ("DBUS_*", "sockets of the host"),
    ("XDG_*", "directories and session of the host"),
    ("SSH_*", "the caller's session and agent"),
    ("GPG_*", "the caller's agent"),
    ("SUDO_*", "how the caller became root"),
    ("INVOCATION_ID", "the host's service manager"),
    ("JOURNAL_STREAM", "the host's service manager"),
    ("NOTIFY_SOCKET", "the host's service manager"),
    ("DIBBLE_REFRESH", "what is built again; decides nothing of what it becomes"),
    ("DIBBLE_MAX_AGE", "how often repositories are asked; what they say counts"),
    ("DIBBLE_REMOTE_CACHE*", "where this machine shares its layers; decides nothing of what they are"),
    ("DIBBLE_KEEP_ON_FAILURE", "what is kept of a failure decides nothing of an image"),
    ("DIBBLE_ENVIRONMENT*", "the preset's elements, variables and settings count, not its name"),
    ("DIBBLE_SECRETS", "host files with secrets, which no hook needs"),
    ("DIB_SECURE_BOOT_*", "host files to sign with when all hooks are done"),
    ("DIBBLE_COMMAND", "how the caller calls dibble"),
    ("DIBBLE_HISTORY", "a file of this machine that every matrix writes to"),
    ("DIBBLE_UNPACKED", "where this machine keeps dibble itself"),
    ("DIBBLE_VENV", "where this machine keeps dibble itself"),
    ("FSSPEC_*", "settings of the remote cache, with credentials"),
    ("LISTEN_*", "descriptors of the host's service manager"),
    ("MAIL", "a host file"),
    ("EDITOR", "a host program"),
    ("VISUAL", "a host program"),
    ("PAGER", "a host program"),
    ("LESS*", "settings of a host program"),
    ("MAN*PATH", "directories of the host"),
    ("INFOPATH", "directories of the host"),
    ("VIRTUAL_ENV*", "dibble's own virtual environment"),
    ("CONDA_*", "a Python of the host"),
    ("PYENV_*", "a Python of the host"),
    ("PYTHON*", "would steer the Python of the tools and of the target"),
    ("PERL5*", "would steer the Perl of the tools and of the target"),
    ("RUBY*", "would steer the Ruby of the target"),
    ("LD_*", "would load host libraries into tools and target"),
    ("MALLOC_*", "would steer the C library of tools and target"),
    ("GIT_DIR", "a host directory, set inside git hooks"),
    ("GIT_WORK_TREE", "a host directory, set inside git hooks"),
    ("GIT_INDEX_FILE", "a host file, set inside git hooks"),
    ("LANG", "the build's locale is C"),
    ("LANGUAGE", "the build's locale is C"),
    ("LC_*", "the build's locale is C"),
)

# What --clear leaves: without these, programs do not run, find no network or have no terminal.
KEPT_WHEN_CLEARED: tuple[str, ...] = (
    "HOME",
    "LOGNAME",
    "PATH",
    "TERM",
    "TZ",
    "USER",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)

_OF_THIS_MACHINE = frozenset({"DIB_IMAGE_CACHE", "DIB_LOCKFILES"})
_FILE = "file://"
_PLACES = ("/", f"{_FILE}/", "http://", "https://")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@functools.lru_cache(maxsize=4096)  # every cell of a matrix asks for the same names
def is_host_only(name: str) -> bool:
    """Whether the caller's variable of this name stays behind. Names that no shell can export stay behind as well."""
    return not _NAME.fullmatch(name) or any(fnmatchcase(name, pattern) for pattern, _ in HOST_ONLY)


def cleared(environ: Mapping[str, str]) -> dict[str, str]:
    """What --clear leaves of the caller's environment."""
    return {name: environ[name] for name in KEPT_WHEN_CLEARED if name in environ}


def for_hooks(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's variables that hooks see."""
    return {name: value for name, value in environ.items() if not is_host_only(name)}


def declared(variables: Mapping[str, str]) -> str:
    """The DIB_* variables as bash's `declare -p` prints them, one a line, sorted (DIB_ENV, contract.md 1.3).

    Without where this machine keeps things: the text lands in images, which are the same wherever they are made.
    """
    names = (name for name in sorted(variables) if name.startswith("DIB_") and name not in _OF_THIS_MACHINE)
    return "\n".join(f'declare -x {name}="{_escaped(variables[name])}"' for name in names)


def paths_in(variables: Mapping[str, str]) -> list[str]:
    """The paths that values name, sorted: a value that is one, or the words of one that is a list of paths and URLs.

    A directory in a variable of DIB's (`DIB_ADD_APT_KEYS`) stands for itself and for what lies right in it.
    """
    found: set[str] = set()
    for name, value in variables.items():
        if not value.startswith(_PLACES):
            continue
        words = value.split()
        one = os.path.lexists(value.removeprefix(_FILE)) or not all(word.startswith(_PLACES) for word in words)
        named = [word.removeprefix(_FILE) for word in ([value] if one else words)]
        paths = [path for path in named if path.startswith("/")]
        found.update(paths)
        for path in paths if name.startswith("DIB_") else ():
            if os.path.isdir(path):  # noqa: PTH112 - text throughout
                with contextlib.suppress(OSError):
                    found.update(entry.path for entry in os.scandir(path))
    return sorted(found)


def _escaped(value: str) -> str:
    """Inside double quotes bash reads `\\`, `"`, `$` and a back-tick specially."""
    return re.sub(r'([\\"$`])', r"\\\1", value)
