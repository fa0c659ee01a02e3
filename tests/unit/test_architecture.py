"""Imports follow the way of the data (design.md 2): a later room never reaches back, and nothing imports `cli`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

SOURCE = Path(__file__).resolve().parents[2] / "src" / "dibble"
EVERYWHERE = {"errors", "events", "registry", "wording", "words", "__version__"}
# Room → the rooms that it may import at all; `values` of earlier rooms (model, step …) count like the room.
ALLOWED: dict[str, set[str]] = {
    "sandbox": {"store", "packages"},  # the tools tree is fetched and unpacked from packages
    "store": {"sandbox"},
    "recipe": {"store", "elements"},
    "elements": {"recipe"},
    "packages": {"sandbox", "store"},
    "plan": {"elements", "recipe", "store"},
    "run": {
        "elements", "recipe", "plan", "sandbox", "store", "packages", "tree", "disk", "boot", "outputs", "read",
    },
    "read": {"sandbox", "disk"},  # checksums of blocks
    "tree": {"disk", "recipe", "store"},
    "disk": {"sandbox", "store", "elements", "tree"},
    "boot": {"disk", "sandbox"},
    "outputs": {"boot", "disk", "recipe", "sandbox", "store", "tree"},  # an ISO and a kernel beside it are started
    "evidence": {"sandbox", "store", "disk"},
    "publish": {"evidence", "read", "sandbox", "store"},
    "fleet": {"elements", "recipe", "sandbox", "store"},
}  # fmt: skip


def imports_of(path: Path) -> set[tuple[str, int]]:
    """(room, line) of each import of our own package."""
    found: set[tuple[str, int]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dibble":
            parts = node.module.split(".")
            rooms = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            found.update((room, node.lineno) for room in rooms)
        elif isinstance(node, ast.Import):
            found.update(
                (alias.name.split(".")[1], node.lineno) for alias in node.names if alias.name.startswith("dibble.")
            )
    return found


def test_rooms_import_only_what_flows_into_them() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).parts
        if len(parts) == 1 or parts[0] in ("cli", "catalogue"):
            continue
        room = parts[0]
        for other, line in imports_of(path):
            if other != room and other not in EVERYWHERE | ALLOWED.get(room, set()):
                wrong.append(f"{path.relative_to(SOURCE)}:{line} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_command_line() -> None:
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0] not in ("cli", "__main__.py"):
            assert not any(room == "cli" for room, _ in imports_of(path)), path


def test_only_one_file_starts_programs() -> None:
    users = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] != "catalogue"  # programs of elements run in a build, not in dibble
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(alias.name == "subprocess" for alias in node.names)
    }
    assert users <= {"sandbox/process.py"}


def test_nothing_that_is_kept_is_a_pickle() -> None:
    """Objects of Python go through a pipe between two processes of one build; what outlives a build is JSON."""
    users = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if re.search(r"^\s*(import|from) (c?pickle|marshal|shelve|dill)\b", path.read_text(), re.MULTILINE)
    }
    assert users == {"sandbox/enter.py"}


@pytest.mark.parametrize(
    "kind", ["verbs", "package_managers", "filesystems", "disk_nodes", "outputs", "boot_loaders", "publishers", "pools"]
)
def test_every_name_of_the_registry_can_be_loaded(kind: str) -> None:
    from dibble import registry

    for name in registry.BUILT_IN[kind]:
        assert registry.load(kind, name)
