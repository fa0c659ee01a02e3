"""`svc-map`: from an element's logical service names to those of a distribution (contract.md 3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dibble.elements.distros import family_of
from dibble.elements.readers.documents import read_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dibble.elements.model import Element


def merged_services(elements: Sequence[Element], distro: str) -> dict[str, str]:
    """The services of all elements with their names in a distribution, sorted by logical name.

    A service is called as its map says for the distribution, else for its family, else by default, else as it is.
    Raises ElementError for a service that two elements map, naming both, and for a file that is not such a map.
    """
    found: dict[str, str] = {}
    owner: dict[str, str] = {}
    for element in elements:
        file = element.path / "svc-map"
        if not file.exists():
            continue
        document = read_document(file, element.name)
        for service, value in document.table(document.root, "the file").entries:
            name = service.text
            if name in owner:
                document.fail(
                    f'service "{name}" is mapped by the elements {owner[name]} and {element.name}',
                    service,
                    "take it out of one of them",
                )
            owner[name] = element.name
            names = {
                key.text: document.text(below, f'the name of service "{name}" for {key.text}')
                for key, below in document.table(value, f'what is said of service "{name}"').entries
            }
            choices = (names.get(key) for key in (distro, family_of(distro) or "", "default"))
            found[name] = next((choice for choice in choices if choice), name)
    return {name: found[name] for name in sorted(found)}


def read_services(file: Path) -> dict[str, str]:
    """The flat map that a build leaves in /usr/share/svc-map/services. Raises ElementError for anything else."""
    document = read_document(file)
    return {
        service.text: document.text(value, f'the name of service "{service.text}"')
        for service, value in document.table(document.root, "the file").entries
    }


def service_names(names: Sequence[str], services: Mapping[str, str], installed: Sequence[str]) -> list[str]:
    """One for each of `names`: itself where it is among the `installed` units and jobs, else as mapped, else itself."""
    return [name if name in installed else services.get(name, name) for name in names]
