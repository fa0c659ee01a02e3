"""The element set of an image, in one go: search path, resolution, hook tree, warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.elements.find import find_elements
from dibble.elements.hooks import merge
from dibble.elements.model import ElementSet
from dibble.elements.resolve import resolve_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def element_set(
    words: Sequence[str],
    search_path: Sequence[Path],
    *,
    ramdisk: bool = False,
    skip_base: bool = False,
    arch: str = "",
    environment: Mapping[str, str] | None = None,
    layout: str = "",
) -> ElementSet:
    """The elements that `resolve` gives for these words, with their hook tree.

    `notes` warns of elements that hide others and of files that replace others. Raises ElementError.
    """
    catalogue = find_elements(search_path)
    elements = resolve_in(
        catalogue,
        words,
        ramdisk=ramdisk,
        skip_base=skip_base,
        arch=arch,
        environment=environment,
        layout=layout,
    )
    hooks = merge(elements)
    return ElementSet(elements, tuple(words), hooks, (*catalogue.notes(elements), *hooks.notes))
