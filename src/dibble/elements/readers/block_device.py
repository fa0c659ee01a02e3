"""Which block-device description an image has (contract.md 5.2). What it says is for `disk/` to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dibble.elements.readers.documents import read_text
from dibble.errors import ElementError, UsageError
from dibble.events import Note

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from dibble.elements.model import Element

VARIABLE = "DIB_BLOCK_DEVICE_CONFIG"

# One file system over the whole disk, no partition table.
BARE_FILE_SYSTEM = """\
- local_loop:
    name: image0
- mkfs:
    name: mkfs_root
    base: image0
    mount:
      mount_point: /
      fstab:
        options: defaults
        fsck-passno: 1
"""


class BlockDeviceChoice(NamedTuple):
    """The YAML `text`, and where it comes from for error messages: a file, a variable, or a word."""

    text: str
    source: str
    notes: tuple[Note, ...] = ()


def choose_block_device(
    elements: Sequence[Element], arch: str, config: str | None = None, requested: Collection[str] = ()
) -> BlockDeviceChoice:
    """The description: of `config` (DIB_BLOCK_DEVICE_CONFIG), else of an element, else a bare file system.

    `config` is YAML text, or `file://` and an absolute path. Of several elements with a description one of the
    `requested` goes before others, then the last in the set, which may build upon the others; where the request
    does not decide, a note warns. Raises UsageError for a bad `config`, ElementError for a file that cannot be read.
    """
    if config and config.startswith("file://"):
        return _from_url(config)
    if config:
        return BlockDeviceChoice(config, VARIABLE)
    found = [(element, file) for element in elements if (file := _file_of(element, arch))]
    if not found:
        return BlockDeviceChoice(BARE_FILE_SYSTEM, "the built-in block device")
    candidates = [pair for pair in found if pair[0].name in requested] or found
    chosen, file = candidates[-1]
    others = " and ".join(element.name for element, _ in candidates if element != chosen)
    notes = (Note(text=f"block device of element {chosen.name}, not of {others}", level="warning"),) if others else ()
    return BlockDeviceChoice(read_text(file, chosen.name), str(file), notes)


def _file_of(element: Element, arch: str) -> Path | None:
    # Both spellings of little-endian Power share a file; big-endian ppc64 does not (D44).
    machine = "ppc64el" if arch in ("ppc64le", "ppc64el") else arch
    for name in (f"block-device-{machine}.yaml", "block-device-default.yaml"):
        if (element.path / name).is_file():
            return element.path / name
    return None


def _from_url(config: str) -> BlockDeviceChoice:
    from pathlib import Path

    file = Path(config.strip().removeprefix("file://"))
    if not file.is_absolute():
        raise UsageError(f"{VARIABLE} is {config}, which is not an absolute path", hint="write file:///…")
    try:
        return BlockDeviceChoice(read_text(file), str(file))
    except ElementError as error:
        raise UsageError(f"the file of {VARIABLE} {error.message}", where=error.where) from error
