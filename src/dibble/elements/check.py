"""What is wrong with the elements of a set, found before anything is built (docs/element-mistakes.md).

Names, links and dependencies are looked at where they are read (`find.py`, `resolve.py`, `hooks.py`); here it is what
is inside the files. What would only fail in the middle of a build is an error; what would silently do nothing is warned
of.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from dibble.elements.hooks import SCRIPT_NAME
from dibble.elements.phases import BY_DIRECTORY
from dibble.elements.readers import package_installs, pkg_map, source_repositories, svc_map
from dibble.elements.strange import misplaced
from dibble.errors import ElementError, Where
from dibble.events import Note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dibble.elements.model import Element, HookFile, HookTree

_LOOKS_LIKE_A_HOOK = re.compile(r"[0-9]+-")
_INSTALL_TYPE = re.compile(r"[^/]+-install/[^/]+")
"""Scripts of a kind of installation, which are linked beside their directory when it is chosen (contract.md 3.7)."""
_HEAD = 512  # bytes; an interpreter line is at most 256 long (BINPRM_BUF_SIZE, linux/binfmts.h)
_MARK = b"\xef\xbb\xbf"  # U+FEFF in UTF-8, which some editors of other systems put in front of a text
_READ_BY_BASH = ("environment.d", "init.d", "binary-deps.d", "dracut-drivers.d")
"""Directories whose files are sourced, joined to a script, or split into words."""


def check(elements: Sequence[Element], tree: HookTree) -> tuple[Note, ...]:
    """Warnings about these elements and their merged hook tree. Raises ElementError for the first real mistake."""
    notes: list[Note] = []
    for element in elements:
        notes += package_installs.check(element)
        notes += pkg_map.check(element)
        notes += source_repositories.check(element)
    svc_map.merged_services(elements, "")
    for name, file in tree.files.items():
        top, _, base = name.partition("/")
        if "/" in base:
            if top == "install.d" and _INSTALL_TYPE.fullmatch(base):
                notes += _check_script(file, base.rpartition("/")[2])
        elif base:
            notes += _check_file(tree, file, top, base)
        elif what := misplaced(name):
            raise ElementError(
                f"{name} {what}",
                hint=f"make it a directory and put the file into it, or rename {name}",
                where=Where(file=file.path, line=1, element=file.element),
            )
    return tuple(notes)


def _check_file(tree: HookTree, file: HookFile, top: str, base: str) -> Iterator[Note]:
    """A file right inside a directory."""
    runs = top in BY_DIRECTORY or top == "bin"
    if (runs or top == "environment.d") and file.path.is_symlink():
        yield from _check_link(tree, file)
    if runs:
        yield from _check_script(file, base)
    elif top in _READ_BY_BASH:
        _check_sourced(file)


def _warning(file: HookFile, message: str, line: int = 1) -> Note:
    """What is wrong with a file as a whole stands at its first line."""
    return Note(text=f"{Where(file.path, line, element=file.element)}: {message}", level="warning")


def _check_link(tree: HookTree, link: HookFile) -> Iterator[Note]:
    """A link has to lead to something in the merged tree: all else of an element is not there when it is used."""
    goal = os.readlink(link.path)  # noqa: PTH115 - the text, not a path of ours
    inside = os.path.normpath(os.path.join(os.path.dirname(link.name), goal))  # noqa: PTH118, PTH120
    if inside in tree.files or inside in tree.directories:
        if _leads_to_itself(tree, inside):
            yield _warning(link, f"the link leads to {goal}, and from there round in a circle: nothing is run")
        return
    if link.path.is_file():
        raise ElementError(
            f"the link {link.name} leads to {goal}, out of the element, where no build finds it",
            hint="put a copy of the file in its place, or a link to a file of the element",
            where=Where(file=link.path, line=1, element=link.element),
        )
    yield _warning(link, f"the link leads to {goal}, which is not in the element: nothing is run")


def _leads_to_itself(tree: HookTree, name: str) -> bool:
    """Whether links of the merged tree, followed from `name`, come to no end."""
    passed = set[str]()
    while name in tree.files and tree.files[name].path.is_symlink():
        if name in passed:
            return True
        passed.add(name)
        goal = os.readlink(tree.files[name].path)  # noqa: PTH115
        name = os.path.normpath(os.path.join(os.path.dirname(name), goal))  # noqa: PTH118, PTH120
    return False


def _check_script(file: HookFile, base: str) -> Iterator[Note]:
    if file.path.is_symlink():
        return  # what it leads to is looked at by itself
    with file.path.open("rb") as opened:
        head = opened.read(_HEAD)
    first = head.partition(b"\n")[0]
    is_script = head.startswith(b"#!")
    hook_like = _LOOKS_LIKE_A_HOOK.match(base) is not None
    if not file.executable:
        if is_script and hook_like:
            yield _warning(file, f"{file.name} does not run, because it is not executable (chmod +x)")
    elif not SCRIPT_NAME.fullmatch(base):
        if hook_like:
            yield _warning(file, f"{file.name} does not run: a script's name has letters, digits, - and _ only")
    elif is_script and first.endswith(b"\r"):
        raise _line_ends(file, 1)
    elif head.startswith(_MARK + b"#!"):
        raise ElementError(
            f"{file.name} begins with a byte order mark, which hides its interpreter line",
            hint=f"sed -i '1s/^\\xef\\xbb\\xbf//' {file.path}",
            where=Where(file=file.path, line=1, element=file.element),
        )
    elif not is_script and not head.startswith(b"\x7fELF"):
        if first.endswith(b"\r"):
            raise _line_ends(file, 1)
        yield _warning(file, f"{file.name} has no interpreter line (#!/bin/bash) and is run by bash", 1)


def _check_sourced(file: HookFile) -> None:
    try:
        lines = file.path.read_bytes().split(b"\n")
    except OSError:
        return  # a dangling link, which has been told of
    for number, line in enumerate(lines, start=1):
        if line.endswith(b"\r"):
            raise _line_ends(file, number)


def _line_ends(file: HookFile, line: int) -> ElementError:
    return ElementError(
        f"{file.name} has line ends of another system (CR LF), which bash takes for a part of the words",
        hint=f"sed -i 's/\\r$//' {file.path}",
        where=Where(file=file.path, line=line, element=file.element),
    )
