"""The beginning of a new element: it resolves, passes lint and builds as it is, and shows where things go."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dibble.errors import ElementError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SCRIPT = """\
#!/bin/bash
# {about}

if [ "${{DIB_DEBUG_TRACE:-0}}" -gt 0 ]; then
    set -x
fi
set -eu
set -o pipefail

{commands}
"""
_README = """\
{rule}
{name}
{rule}

Writes a greeting into ``/etc/{name}``. Say here in a sentence what the element does to an image, then when to use it::

    disk-image-create -o image debian-minimal vm {name}

Environment variables
---------------------

{variable}
  The greeting, ``hello`` unless set.
"""
_PACKAGES = """\
# The packages that the element needs, by the names in pkg-map. What else can be said of one stands in the README of
# package-installs.
file-tool:
"""
_PKG_MAP = """\
{
  "default": {
    "file-tool": "file"
  }
}
"""


def variable_of(name: str) -> str:
    """The variable of a new element's greeting."""
    return f"DIB_{name.upper().replace('-', '_')}_GREETING"


def write_skeleton(name: str, directory: Path) -> tuple[Path, ...]:
    """Write a new element into `directory`, which is made where it is missing; returns its files, sorted.

    Raises UsageError for a name that is none, ElementError when there is something of that name or it cannot be
    written; then what was written stays.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f'"{name}" is no name for an element',
            hint="use small letters, digits and single hyphens, beginning with a letter",
        )
    place = directory / name
    variable = variable_of(name)
    files = {
        "README.rst": _README.format(rule="=" * len(name), name=name, variable=variable),
        "element-deps": "package-installs\npkg-map\n",
        f"environment.d/50-{name}.bash": "# shellcheck shell=bash\n"
        "# Read before each phase, so it must give the same when it is read again.\n"
        f"export {variable}=${{{variable}:-hello}}\n",
        "package-installs.yaml": _PACKAGES,
        "pkg-map": _PKG_MAP,
        "test-elements/build-succeeds/README.rst": "The element builds: run `dibble elements test`.\n",
        "test-elements/build-succeeds/element-deps": f"{name}\n",
    }
    scripts = {
        f"install.d/50-{name}": _SCRIPT.format(
            about="Runs in the image, when the packages of package-installs.yaml are there.",
            commands=f'echo "${variable}" > /etc/{name}',
        ),
        f"test-elements/build-succeeds/post-install.d/90-check-{name}": _SCRIPT.format(
            about="Ends with a status other than 0, and thereby the test, when the image is not as it should be.",
            commands=f'grep -q -x -F "${variable}" /etc/{name}',
        ),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        place.mkdir()
        for path, text in {**files, **scripts}.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
            (place / path).chmod(0o755 if path in scripts else 0o644)
    except FileExistsError as error:
        raise ElementError(f"{error.filename} is there already", hint="choose another name") from error
    except OSError as error:
        raise ElementError(
            f"{error.filename} cannot be written: {error.strerror}", hint="name another directory with --directory"
        ) from error
    return tuple(place / path for path in sorted({**files, **scripts}))
