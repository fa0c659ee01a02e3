"""What scripts are told of the elements: IMAGE_ELEMENT and its like (contract.md 1.9, 2.5)."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.elements.model import Element

# Plain YAML scalars that no reader of any YAML version takes for anything but text.
_PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)$)[A-Za-z/][A-Za-z0-9_./-]*", re.IGNORECASE)


def image_element(elements: Sequence[Element]) -> str:
    """IMAGE_ELEMENT: the names, separated by one space, in the order of the set."""
    return " ".join(element.name for element in elements)


def image_element_yaml(elements: Sequence[Element]) -> str:
    """IMAGE_ELEMENT_YAML: a YAML map from name to directory, sorted by name, one line each."""
    by_name = sorted(elements, key=lambda element: element.name)
    return "".join(f"{_scalar(element.name)}: {_scalar(str(element.path))}\n" for element in by_name)


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def image_element_array(elements: Sequence[Element]) -> str:
    """What `get_image_element_array` prints: the inside of a bash array literal, `[name]=directory ` for each."""
    by_name = sorted(elements, key=lambda element: element.name)
    return "".join(f"[{shlex.quote(element.name)}]={shlex.quote(str(element.path))} " for element in by_name)


def element_variables(elements: Sequence[Element]) -> dict[str, str]:
    """The variables, ready for a process's environment.

    BASH_FUNC_…%% is how bash 4.4 and later import an exported function; other shells ignore it.
    """
    array = shlex.quote(image_element_array(elements))
    return {
        "IMAGE_ELEMENT": image_element(elements),
        "IMAGE_ELEMENT_YAML": image_element_yaml(elements),
        "BASH_FUNC_get_image_element_array%%": f"() {{ echo {array}; }}",
    }


def shell_definitions(elements: Sequence[Element]) -> str:
    """Bash text that exports the variables and the function; for `eval`."""
    array = shlex.quote(image_element_array(elements))
    return (
        f"export IMAGE_ELEMENT={shlex.quote(image_element(elements))}\n"
        f"export IMAGE_ELEMENT_YAML={shlex.quote(image_element_yaml(elements))}\n"
        f"get_image_element_array() {{ echo {array}; }}\n"
        "export -f get_image_element_array\n"
    )
