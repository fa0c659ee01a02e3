"""The key of a step: a digest of everything that its result depends on (design.md 4).

Everything is in the key unless it stands here with a reason.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from dibble.elements.phases import BY_DIRECTORY
from dibble.plan.manifest import LIBRARY, digest, visible
from dibble.plan.step import PACKAGES, Key, Step
from dibble.recipe.environment import paths_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dibble.plan.manifest import Manifest

STEP_VERSION = "step.v7"
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
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "GOOGLE_APPLICATION_CREDENTIALS",
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

LATE = frozenset(
    {
        "DIB_BOOTLOADER_DEFAULT_CMDLINE", "DIB_BOOTLOADER_USE_SERIAL_CONSOLE", "DIB_BOOTLOADER_VIRTUAL_TERMINAL",
        "DIB_GRUB_TIMEOUT", "DIB_GRUB_TIMEOUT_STYLE", "DIB_NO_TIMER_CHECK", "DIB_CLOUD_INIT_DATASOURCES",
    }
)  # fmt: skip
"""Variables that settle how the finished system boots and where it asks for settings. They count as DESCRIPTIVE ones
do, where a line of environment.d that only gives the variable itself a default does not count as naming it: so images
for several environments share all but their last steps."""

OF_A_RUN = (
    "CI", "CI_*", "GITHUB_*", "GITLAB_*", "RUNNER_*", "JENKINS_*", "HUDSON_*", "ZUUL_*", "BUILDKITE*", "CIRCLE*",
    "TRAVIS*", "BUILD_ID", "BUILD_NUMBER", "BUILD_TAG", "BUILD_URL", "BUILD_DISPLAY_NAME", "JOB_NAME", "JOB_BASE_NAME",
    "JOB_URL", "RUN_*URL", "NODE_NAME", "NODE_LABELS", "EXECUTOR_NUMBER", "WORKSPACE", "WORKSPACE_TMP", "TMUX*", "STY",
    "PYTEST_CURRENT_TEST", "FORCE_COLOR", "NO_COLOR",
)  # fmt: skip
"""Patterns of variables that CI systems and terminals set anew for each run. They count as DESCRIPTIVE ones do."""

_SECRET = re.compile(r"PASS(WORD|WD|PHRASE)?|SECRET|TOKEN|CREDENTIAL|PRIVATE|API_?KEY|AUTH", re.IGNORECASE)
_SHOWN_LIMIT = 400  # characters of a variable's value that are kept to explain a key

_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_COMMAND = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_OWN_DEFAULT = re.compile(rb"^[ \t]*export ([A-Za-z_][A-Za-z0-9_]*)=\$\{\1:?-[^$`\\}]*\}[ \t]*$", re.MULTILINE)
"""A line that reads one variable and sets that one alone, to a text that depends on no other."""
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
    beside: Sequence[str] = (),
) -> Key:
    """The key of a step that runs on the target `tree` with the hooks tree `manifest`.

    `environment` is the environment before environment.d; `read` gives the content of a file of the hooks tree by
    name; `constants` are the tools, the architecture and the like. `element_files` (path → content) are what the
    engine reads for a script from every element, not only from the merged tree: package lists and maps. `beside` names
    the layers with what earlier steps left beside the image, where scripts outside the target find it.
    The parts hold every file and variable one by one, so that a miss can be explained (`plan/explain.py`).
    """
    parts: dict[str, str] = {"version": STEP_VERSION, "step": step.id, "where": step.where, "tree": tree, **constants}
    parts.update({f"setting {name}": value for name, value in step.settings.items()})
    if step.where == "outside" and beside:
        parts["beside"] = digest(beside)
    if step.phase == PACKAGES and step.where == "engine":
        files = {name: mark for name, mark in manifest.items() if name.startswith("environment.d/")}
        parts.update({f"file {name}": mark for name, mark in files.items()})
        counted = _counted(environment, [read(name) for name in files])
        parts.update({f"variable {name}": value for name, value in counted.items()})
    if step.where != "engine":
        script = f"{step.phase}/{step.script}"
        text = read(script)
        named = [read(n) for n in manifest if n.startswith("bin/") and os.fsencode(n[4:]) in _commands(text)]
        seen = visible(manifest, step.phase, step.script, b"\n".join([text, *named]))
        parts["script"] = manifest[script]
        parts.update({f"file {name}": mark for name, mark in seen.items() if name != script})
        texts = [text]
        texts += [read(n) for n in seen if n.startswith(("environment.d/", "bin/", LIBRARY))]
        if BY_DIRECTORY[step.phase].sees_all:
            # Here they are gathered and put into the target, where later steps find them.
            parts.update({f"list {n}": hashlib.sha256(t).hexdigest() for n, t in element_files.items()})
            texts += element_files.values()
        counted = _counted(environment, texts)
        parts.update({f"variable {name}": value for name, value in counted.items()})
        host_files = named_files(counted, environment.get("HOME", ""), texts if step.where == "outside" else ())
        parts.update({f"host file {path}": mark for path, mark in host_files.items()})
    return Key(digest(f"{name}={value}" for name, value in sorted(parts.items())), parts)


def shown_parts(parts: Mapping[str, str]) -> dict[str, str]:
    """The parts of a key in a form that may be kept: without secrets, and without values of any length."""
    shown = {}
    for name, value in parts.items():
        if name.startswith("variable ") and (_SECRET.search(name) or len(value) > _SHOWN_LIMIT):
            shown[name] = f"sha256:{hashlib.sha256(value.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        else:
            shown[name] = value
    return shown


def _counted(environment: Mapping[str, str], texts: list[bytes]) -> dict[str, str]:
    words: set[bytes] = set().union(*map(_words, texts))

    def counts(name: str) -> bool:
        if name in VOLATILE:
            return False
        if name in LATE:
            return any(name.encode() in _words_but_defaults(text) for text in texts)
        if name in DESCRIPTIVE or _is_of_a_run(name):
            return name.removeprefix("BASH_FUNC_").removesuffix("%%").encode() in words
        return True

    return {name: value for name, value in environment.items() if counts(name)}


@functools.cache
def _is_of_a_run(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in OF_A_RUN)


@functools.lru_cache(maxsize=4096)
def _words(text: bytes) -> frozenset[bytes]:
    return frozenset(_WORD.findall(text))


@functools.lru_cache(maxsize=4096)
def _words_but_defaults(text: bytes) -> frozenset[bytes]:
    return _words(_OWN_DEFAULT.sub(b"", text))


@functools.lru_cache(maxsize=4096)
def _commands(text: bytes) -> frozenset[bytes]:
    return frozenset(_COMMAND.findall(text))


@functools.lru_cache(maxsize=4096)
def _home_files(text: bytes) -> tuple[str, ...]:
    return tuple(os.fsdecode(match.group(1)) for match in _HOME_FILE.finditer(text))


def shown_files(variables: Mapping[str, str]) -> list[Path]:
    """What outside scripts are shown of the host because a variable that counts names it, wherever it lies."""
    return [Path(path) for path in paths_in({n: v for n, v in variables.items() if n not in VOLATILE})]


def named_files(variables: Mapping[str, str], home: str, texts: Iterable[bytes]) -> dict[str, str]:
    """Content digests of the host files that a variable's value or a script's `~/…` names, by path.

    Outside scripts are shown the caller's files that variables name (`shown_files`) and may read those below the home
    directory; what is named plainly belongs to the key. Of what takes long to read, such as the image that a build
    begins with, size and time count instead.
    """
    paths = set(paths_in(variables))
    for text in texts:
        paths.update(home + path for path in _home_files(text))
    found = {}
    for path in sorted(paths):
        file = Path(path)
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_size <= _NAMED_FILE_LIMIT:
                found[path] = _content(path, status.st_ctime_ns, status.st_size)
            else:
                found[path] = f"{status.st_size} bytes of {status.st_mtime_ns}"
        except OSError:
            continue  # what dibble cannot read, the script cannot either
    return found


@functools.lru_cache(maxsize=4096)
def _content(path: str, _changed: int, _size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
