"""The variables that hooks are guaranteed (contract.md 2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.elements.variables import element_variables
from dibble.sandbox.workspace import BUILD_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dibble.elements.model import Element
    from dibble.recipe.model import Request

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOOKS_IN_TARGET = "/tmp/in_target.d"  # noqa: S108 - contract.md 2.4
COMMANDS = ".dibble/bin"
"""Where our own commands stand in the hooks tree, so that both sides see them."""

_DIE = '() {  set +x;\n echo "ERROR: $*" 1>&2;\n exit 1\n}'
_OUTSIDE_ONLY = ("TARGET_ROOT", "BASH_FUNC_die%%", "BASH_FUNC_get_image_element_array%%")
_NOT_INSIDE = ("TMPDIR", "VIRTUAL_ENV")


def image_environment(
    request: Request,
    elements: Sequence[Element],
    *,
    library: Path,
    disk: Mapping[str, str],
    defaults: Mapping[str, str],
) -> dict[str, str]:
    """What every hook of the image sees, before environment.d.

    `library` is the directory of the shell libraries (`_LIB`), `disk` what the block-device configuration says
    (DIB_ROOT_LABEL …), `defaults` hold only where the caller has set nothing.
    """
    build = str(BUILD_DIRECTORY)
    env = {**defaults, **request.environment}
    env.update(
        {
            "TMP_BUILD_DIR": build,
            "TMP_IMAGE_DIR": "/tmp/dib_image.image",  # noqa: S108 - inside the view
            "TMP_HOOKS_PATH": f"{build}/hooks",
            "TMP_MOUNT_PATH": f"{build}/mnt",
            "IMAGE_NAME": request.name,
            "IMAGE_TYPE": request.environment.get("IMAGE_TYPE", "qcow2"),
            "OUT_IMAGE_PATH": "",
            **element_variables(elements),
            "BASH_FUNC_die%%": _DIE,
            "ELEMENTS_PATH": ":".join(str(path) for path in request.element_path),
            "ARCH": request.arch,
            "FS_TYPE": request.fs_type,
            "LC_ALL": "C",
            "_LIB": str(library),
            "DIB_PYTHON_EXEC": "/usr/bin/python3",
            "DIB_DEBUG_TRACE": str(request.trace),
            "DIB_OFFLINE": "1" if request.offline else "",
            "DIB_IMAGE_CACHE": str(request.cache_dir),
            "DIB_LOCKFILES": str(request.cache_dir / "locks"),
            "DIB_CHECKSUM": " ".join(request.checksums) or "0",
            "DIB_NO_TMPFS": "1" if request.no_tmpfs else "0",
            "DIB_MIN_TMPFS": str(request.min_tmpfs_gib),
            "DIB_ARGS": request.arguments,
            "DIB_BLOCK_DEVICE_PARAMS_YAML": f"{build}/block-device/params.yaml",
            **disk,
        }
    )
    return env


def for_outside(env: Mapping[str, str], phase: str) -> dict[str, str]:
    """The environment of a hook that runs in the tools view."""
    result = dict(env)
    result["PATH"] = f"{BUILD_DIRECTORY}/hooks/{COMMANDS}:{SYSTEM_PATH}"
    result.setdefault("HOME", "/root")
    if phase in {"root.d", "cleanup.d"}:
        result["TARGET_ROOT"] = result["TMP_MOUNT_PATH"]
    return result


def for_inside(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a hook that runs in the target."""
    result = {name: value for name, value in env.items() if name not in _OUTSIDE_ONLY + _NOT_INSIDE}
    result["PATH"] = f"{HOOKS_IN_TARGET}/{COMMANDS}:{SYSTEM_PATH}"
    result["HOME"] = "/root"
    return result


LATE = frozenset({"pre-finalise.d", "finalise.d", "cleanup.d"})
"""Phases for which the final file systems exist in DIB, and with them the names of block devices."""
SIZED = LATE | {"block-device.d"}
"""Phases in which a fixed DIB_IMAGE_SIZE counts KiB; it is GiB before (contract.md 2.5)."""


def for_phase(env: Mapping[str, str], late: Mapping[str, str], phase: str) -> dict[str, str]:
    """The environment with what only the last phases see."""
    if phase in LATE:
        return {**env, **late}
    if phase in SIZED and "DIB_IMAGE_SIZE" in late:
        return {**env, "DIB_IMAGE_SIZE": late["DIB_IMAGE_SIZE"]}
    return dict(env)
