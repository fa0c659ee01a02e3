"""Elements made for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.elements.model import Element

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def make_element(
    root: Path,
    name: str,
    files: Mapping[str, str] | None = None,
    *,
    deps: Iterable[str] = (),
    provides: Iterable[str] = (),
    scripts: Iterable[str] = (),
) -> Element:
    """An element below `root`: `files` by relative path, and `scripts`, executable, that say their own name."""
    directory = root / name
    directory.mkdir(parents=True)
    contents = dict(files or {})
    if deps:
        contents["element-deps"] = "".join(f"{dependency}\n" for dependency in deps)
    if provides:
        contents["element-provides"] = "".join(f"{virtual}\n" for virtual in provides)
    for path, content in contents.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(content)
    for path in scripts:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(f"#!/bin/bash\necho {path}\n")
        (directory / path).chmod(0o755)
    return Element(name, directory)


def make_system(root: Path, name: str = "system", **more: Iterable[str]) -> Element:
    """An element that provides an operating system."""
    return make_element(root, name, provides=("operating-system", *more.get("provides", ())), deps=more.get("deps", ()))
