"""What a build tells later readers of its images (`store/image_fact.py`): what they are and what they are made for."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from dibble.boot.base import BIOS_BOOT_TYPES, ESP_TYPES, is_type
from dibble.store.facts import Facts
from dibble.store.image_fact import remember_image

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dibble.disk.model import Graph
    from dibble.run.prepare import Build
    from dibble.run.state import State

_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")  # os-release(5)


def note_system(plan: Build, root: Path, state: State) -> None:
    """Remember which system the finished tree at `root` holds: an image of a stored tree is made without it."""
    for name in _OS_RELEASE:
        path = root / name
        if path.is_file() and not path.is_symlink():  # a link may lead out of the tree
            with suppress(OSError, UnicodeDecodeError):
                Facts(plan.store).put(os_release(path.read_text("utf-8")), "system", state.tree)
                return


def note_images(plan: Build, state: State, form: str, files: Iterable[Path]) -> None:
    """Remember what the files of one format are."""
    request = plan.request
    facts = Facts(plan.store)
    system = facts.get("system", state.tree) or {}
    fact = {
        "format": form,
        "arch": request.arch,
        "firmware": firmware(plan.graph),
        "distro": system.get("ID", ""),
        "release": system.get("VERSION_ID", ""),
    }
    if request.target:
        machine = request.target.machine
        fact |= {
            "disk_bus": machine.disk_bus,
            "network": machine.network,
            "min_memory_mib": machine.minimum_memory_mib,
        }
    for path in files:
        with suppress(OSError):  # moved away already
            remember_image(facts, path, fact)


def firmware(graph: Graph) -> str:
    """What the boot partitions are for: bios, uefi, both; empty for disks without a table."""
    partitions = [partition for table in graph.tables for partition in table.partitions]
    bios = any(table.label == "mbr" for table in graph.tables) or any(is_type(p, BIOS_BOOT_TYPES) for p in partitions)
    if any(is_type(partition, ESP_TYPES) for partition in partitions):
        return "both" if bios else "uefi"
    return "bios" if bios else ""


def os_release(text: str) -> dict[str, str]:
    """ID and VERSION_ID of an os-release file."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key in ("ID", "VERSION_ID"):
            found[key] = value.strip().strip("\"'")
    return found
