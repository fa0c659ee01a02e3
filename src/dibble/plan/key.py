"""The key of a step: a digest of everything that its result depends on (design.md 4).

Everything is in the key unless it stands here with a reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from dibble.elements.phases import BY_DIRECTORY
from dibble.plan.manifest import digest, visible
from dibble.plan.step import Key, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dibble.plan.manifest import Manifest

STEP_VERSION = "step.v2"
"""Grows when dibble itself runs steps in another way, so that older layers are not taken for new ones."""

VOLATILE = frozenset(
    {
        # Where the build runs; every path that scripts see is the same or leads to the same content.
        "TMP_BUILD_DIR", "TMP_IMAGE_DIR", "TMP_HOOKS_PATH", "TMP_MOUNT_PATH", "TARGET_ROOT", "OUT_IMAGE_PATH",
        "TMP_DIR", "DIB_IMAGE_CACHE", "DIB_LOCKFILES", "_LIB", "DIB_PYTHON_EXEC", "ELEMENTS_PATH",
        "DIB_BLOCK_DEVICE_PARAMS_YAML",
        # Who builds. Files that a script names below the home directory are in the key by content (`named_files`).
        "HOME", "USER", "LOGNAME", "PWD", "SHELL", "TERM", "COLORTERM", "MAIL", "LANG", "TZ", "EDITOR", "HOSTNAME",
        # How the build talks.
        "DIB_DEBUG_TRACE", "DIB_QUIET", "DIB_NO_TIMESTAMP", "DIB_SHOW_IMAGE_USAGE", "DIB_SHOW_IMAGE_USAGE_FULL",
        "DIB_PYTHON_LOGGING_CONFIG_FILE", "LOGFILE",
        # How it gets things and where it puts them; what it gets is in the key by digest.
        "DIB_OFFLINE", "DIB_NO_TMPFS", "DIB_MIN_TMPFS", "DIB_CHECKSUM", "OVERWRITE_OLD_IMAGE", "DIB_GZIP_BIN",
        "COMPRESS_IMAGE", "IMAGE_TYPE", "CLEAR_ENV", "QEMU_IMG_OPTIONS", "DOCKER_TARGET",
        "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy",
        "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
        # Stops of a debugging session.
        "break", "break_cmd", "break_outside_target",
    }
)  # fmt: skip

DESCRIPTIVE = frozenset(
    {
        "IMAGE_NAME", "IMAGE_ELEMENT", "IMAGE_ELEMENT_YAML", "BASH_FUNC_get_image_element_array%%", "DIB_ARGS",
        "DIB_ENV", "DIB_IMAGE_SIZE", "DIB_IMAGE_EXTRA_SIZE", "DIB_JOURNAL_SIZE", "MAX_ONLINE_RESIZE",
        "IMAGE_BLOCK_DEVICE", "IMAGE_BLOCK_DEVICES", "DIB_ROOT_LABEL", "DIB_ROOT_FSTYPE", "DIB_BOOT_LABEL",
        "DIB_MOUNTPOINTS", "FS_TYPE", "ROOT_LABEL", "DIB_BLOCK_DEVICE_CONFIG", "SKIP_BASE",
    }
)  # fmt: skip
"""Variables that describe the whole image. They count only for a step whose text, or that of a file it can source,
names them: otherwise another image name or one more element would rebuild what two images share."""

_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_HOME_FILE = re.compile(rb"(?:~|\$HOME|\$\{HOME\})(/[A-Za-z0-9_.+/-]+)")
_NAMED_FILE_LIMIT = 64 << 20


def key_of(
    step: Step,
    *,
    tree: str,
    manifest: Manifest,
    environment: Mapping[str, str],
    read: Callable[[str], bytes],
    constants: Mapping[str, str],
    element_files: Mapping[str, bytes] = MappingProxyType({}),
) -> Key:
    """The key of a step that runs on the target `tree` with the hooks tree `manifest`.

    `environment` is the environment before environment.d; `read` gives the content of a file of the hooks tree by
    name; `constants` are the tools, the architecture and the like. `element_files` (path → content) are what the
    engine reads for a script from every element, not only from the merged tree: package lists and maps.
    """
    parts: dict[str, str] = {"version": STEP_VERSION, "step": step.id, "where": step.where, "tree": tree, **constants}
    parts.update({f"setting {name}": value for name, value in step.settings.items()})
    if step.where != "engine":
        seen = visible(manifest, step.phase)
        parts["script"] = manifest[f"{step.phase}/{step.script}"]
        parts["hooks"] = digest(f"{name}={mark}" for name, mark in seen.items())
        texts = [read(f"{step.phase}/{step.script}")]
        texts += [read(n) for n in seen if n.startswith(("environment.d/", "bin/"))]
        if BY_DIRECTORY[step.phase].sees_all:
            # Here they are gathered and put into the target, where later steps find them.
            parts["elements"] = digest(f"{n}={hashlib.sha256(t).hexdigest()}" for n, t in sorted(element_files.items()))
            texts += element_files.values()
        parts["environment"] = digest(f"{name}={value}" for name, value in sorted(_counted(environment, texts).items()))
        parts["files"] = digest(named_files(environment, texts if step.where == "outside" else ()))
    return Key(digest(f"{name}={value}" for name, value in sorted(parts.items())), parts)


def _counted(environment: Mapping[str, str], texts: list[bytes]) -> dict[str, str]:
    words = {word for text in texts for word in _WORD.findall(text)}
    named = {name for name in DESCRIPTIVE if name.removeprefix("BASH_FUNC_").removesuffix("%%").encode() in words}
    return {
        name: value
        for name, value in environment.items()
        if name not in VOLATILE and (name not in DESCRIPTIVE or name in named)
    }


def named_files(environment: Mapping[str, str], texts: Iterable[bytes]) -> list[str]:
    """Content digests of the host files that a variable's value or a script's `~/…` names.

    Outside scripts may read the caller's files; those that they name plainly belong to the key. A directory in a
    variable of DIB's (`DIB_ADD_APT_KEYS`) counts with the files right in it.
    """
    paths = set()
    for name, value in environment.items():
        if name not in VOLATILE and value.startswith(("/", "file:///")):
            path = value.removeprefix("file://")
            paths.add(path)
            if name.startswith("DIB_") and os.path.isdir(path):  # noqa: PTH112 - text throughout
                with contextlib.suppress(OSError):
                    paths.update(entry.path for entry in os.scandir(path))
    home = environment.get("HOME", "")
    for text in texts:
        for match in _HOME_FILE.finditer(text):
            paths.add(home + os.fsdecode(match.group(1)))
    found = []
    for path in sorted(paths):
        file = Path(path)
        try:
            if file.is_file() and file.stat().st_size <= _NAMED_FILE_LIMIT:
                found.append(f"{path}={hashlib.sha256(file.read_bytes()).hexdigest()}")
        except OSError:
            continue  # what dibble cannot read, the script cannot either
    return found
