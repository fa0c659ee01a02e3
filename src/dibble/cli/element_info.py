"""`element-info`: which elements a list of elements comes to (contract.md 1.9)."""

from __future__ import annotations

import argparse
import os
import sys

from dibble.elements.find import find_elements, search_path
from dibble.elements.resolve import resolve_in
from dibble.elements.variables import image_element, shell_definitions
from dibble.errors import DibbleError


def main(argv: list[str] | None = None) -> int:
    """Print the resolved names on one line or, with `--env`, bash text that defines them. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="element-info",
        description="Resolve elements with all that they depend on. ELEMENTS_PATH says where they are.",
    )
    parser.add_argument(
        "-e",
        "--env",
        action="store_true",
        help="print shell text that defines IMAGE_ELEMENT, IMAGE_ELEMENT_YAML and get_image_element_array",
    )
    parser.add_argument("elements", nargs="+", metavar="ELEMENT")
    options = parser.parse_args(argv)
    try:
        catalogue = find_elements(search_path(os.environ))
        elements = resolve_in(
            catalogue,
            options.elements,
            skip_base=True,
            arch=os.environ.get("ARCH") or os.uname().machine,
            environment=os.environ,
        )
    except DibbleError as error:
        print(error, file=sys.stderr)
        return 1
    for note in catalogue.notes(elements):
        print(note.text, file=sys.stderr)
    print(shell_definitions(elements) if options.env else image_element(elements), end="" if options.env else "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
