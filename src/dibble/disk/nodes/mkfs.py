"""`mkfs`: a file system, or swap, on a disk, a partition or a volume."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from dibble.disk import model
from dibble.disk.nodes.base import NodeInfo
from dibble.disk.nodes.mount import normal
from dibble.errors import DiskLayoutError, UsageError
from dibble.registry import load

if TYPE_CHECKING:
    from dibble.disk.filesystems.base import FilesystemInfo
    from dibble.disk.model import Defaults
    from dibble.disk.nodes.base import Context, Entry

# cloud-init and boot loaders look for the first; xfs takes 12 characters only (contract.md 5.5).
_ROOT_LABEL = {"xfs": "img-rootfs"}
_ANY_ROOT_LABEL = "cloudimg-rootfs"


class Mkfs:
    info = NodeInfo("mkfs", level=2, keys=("type", "label", "opts", "uuid", "subvolumes"))

    @staticmethod
    def parse(entry: Entry, context: Context) -> model.Filesystem:
        device = context.device(entry)
        is_root = entry.name == context.root
        kind = entry.text("type") or (context.defaults.root_fs_type if is_root else entry.needed("type", "ext4"))
        info = _info(kind, entry)
        return model.Filesystem(
            entry.name,
            device,
            kind,
            _label(entry, info, context, is_root=is_root),
            _uuid(entry, context.defaults),
            _options(entry, kind, context.defaults, is_root=is_root),
            entry.where,
            _subvolumes(entry, info),
        )


def _info(kind: str, entry: Entry) -> FilesystemInfo:
    try:
        info: FilesystemInfo = load("filesystems", kind).info
    except UsageError as error:
        raise DiskLayoutError(f"{entry}: {error.message}", hint=error.hint, where=entry.place_of("type")) from error
    return info


def _label(entry: Entry, info: FilesystemInfo, context: Context, *, is_root: bool) -> str:
    label = entry.text("label")
    if not info.label_length:
        if label:
            entry.refuse(f"has a label, for which {info.name} has no place", 'remove "label"', "label")
        return ""
    if label is None and is_root:
        label = context.defaults.root_label or _ROOT_LABEL.get(info.name, _ANY_ROOT_LABEL)
    label = label or entry.name
    if info.upper_case_label:
        label = label.upper()
    length = len(label.encode())
    if length > info.label_length:
        entry.refuse(
            f'has the label "{label}" of {length} characters, too long for the file system {info.name}',
            f'give it a "label" of at most {info.label_length} characters',
            "label",
        )
    if not label.isprintable():
        entry.refuse("has a label with control characters", "use letters, digits, - and _", "label")
    for other in context.all(model.Filesystem):
        if other.label == label:
            entry.refuse(
                f'has the label "{label}", which is used more than once: {other.name} has it too',
                'give each a "label" of its own; systems find their file systems by it',
                "label",
            )
    return label


def _subvolumes(entry: Entry, info: FilesystemInfo) -> tuple[model.Subvolume, ...]:
    """`NAME:/PATH` words: subvolumes at the top, each with what the file system has at and below a path."""
    words = entry.words("subvolumes")
    if words and not info.has_subvolumes:
        entry.refuse(f"has subvolumes, but {info.name} knows none", 'write "type: btrfs"', "subvolumes")
    found: dict[str, model.Subvolume] = {}
    for word in words:
        name, _, path = word.partition(":")
        if not name or "/" in name or not normal(path):
            entry.refuse(f'has the subvolume "{word}"', 'write "NAME:/PATH", such as "@home:/home"', "subvolumes")
        one = model.Subvolume(name, normal(path))
        if one.name in found or any(one.path == other.path for other in found.values()):
            entry.refuse(f'has the name or the path of the subvolume "{word}" twice', "remove one", "subvolumes")
        found[one.name] = one
    if found and not any(one.path == "/" for one in found.values()):
        entry.refuse(
            "has subvolumes, but none for what lies in no other", 'add one with the path /, such as "@:/"', "subvolumes"
        )
    return tuple(found.values())


def _uuid(entry: Entry, defaults: Defaults) -> UUID:
    text = entry.text("uuid")
    if text is None:
        return uuid5(defaults.seed, f"mkfs {entry.name}")
    try:
        return UUID(text)
    except ValueError as error:
        raise DiskLayoutError(
            f'{entry} has the uuid "{text}", which is none',
            hint='remove "uuid", or write 8-4-4-4-12 hexadecimal digits',
            where=entry.place_of("uuid"),
        ) from error


def _options(entry: Entry, kind: str, defaults: Defaults, *, is_root: bool) -> tuple[str, ...]:
    """Options for mkfs: the node's, else for the root those of the request (contract.md 5.3). Swap has none."""
    if kind == "swap":
        return ()
    text = entry.text("opts")
    if text is not None:
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            raise DiskLayoutError(
                f'{entry} has "opts" with an open quotation mark', hint="close it", where=entry.place_of("opts")
            ) from error
    if not is_root:
        return ()
    options: list[str] = []
    if defaults.max_online_resize is not None and kind in ("ext2", "ext3", "ext4"):
        options += ["-E", f"resize={defaults.max_online_resize}"]
    if kind == "ext4":
        options += ["-i", "4096", "-J", f"size={defaults.journal_mib}"]
    try:
        return (*options, *shlex.split(defaults.mkfs_options))
    except ValueError as error:
        raise DiskLayoutError("the mkfs options have an open quotation mark", hint="close it") from error
