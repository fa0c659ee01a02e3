"""A block-device description as a graph of checked nodes (contract.md 5.4 to 5.8).

Both of DIB's forms are one here: nodes nested in each other (tree), and nodes one after another with bases (graph),
also mixed. First everything is flattened into entries, then each plug-in makes a value of its entries, level by level.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, NoReturn

from dibble import registry
from dibble.disk import model
from dibble.disk.document import Items, Map, Value, Word, read_description
from dibble.disk.nodes.base import Context, Entry, Node, NodeInfo, kind_of, nearest
from dibble.disk.nodes.mount import normal
from dibble.errors import DiskLayoutError, UsageError, Where

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dibble.disk.model import Defaults, Graph

MAIN_IMAGE = "image0"
"""The disk that boots, and that outputs are made of; hooks know it by this name."""


def parse(text: str, *, source: str, defaults: Defaults) -> Graph:
    """The graph that `text` describes; `source` is the file, variable or word that errors name.

    The same graph comes of the tree form and the graph form. Raises DiskLayoutError with file, line and column.
    """
    entries = list(_entries(read_description(text, source), source))
    kinds = _kinds(entries)
    context = Context(defaults, _root_of(entries, source), kinds)
    for entry in sorted(entries, key=lambda entry: _plugin(entry.kind, entry.where).info.level):
        value = _plugin(entry.kind, entry.where).parse(entry, context)
        context.values[entry.name] = value
        if isinstance(value, model.Table):
            context.values.update({partition.name: partition for partition in value.partitions})
    _check_one_on_each(entries)
    return _graph(context, source)


def _entries(document: Value, source: str) -> Iterable[Entry]:
    if isinstance(document, Word) and document.null:
        hint = "describe at least a local_loop, a mkfs and a mount at /"
        raise DiskLayoutError("the block-device description is empty", hint=hint, where=Where(source, 1))
    if not isinstance(document, Items):
        hint = 'begin each node with "- ", such as "- local_loop:"'
        message = f"the block-device description is a {kind_of(document)}, not a list of nodes"
        raise DiskLayoutError(message, hint=hint, where=document.where)
    for item in document.values:
        if not isinstance(item, Map):
            raise DiskLayoutError(
                f"a node is a {kind_of(item)}, not a map (not a dict)",
                hint='write the plug-in and a colon, such as "- local_loop:"',
                where=item.where,
            )
        if len(item.entries) != 1:
            raise DiskLayoutError(
                f"a node has {len(item.entries)} keys, {', '.join(item.entries)}; it should be a single dict",
                hint="indent the keys of a node below its plug-in, and begin each node with a dash of its own",
                where=item.where,
            )
        ((kind, content),) = item.entries.items()
        yield from _flat(kind, content, "", item.key_places[kind])


def _flat(kind: str, content: Value, parent: str, where: Where) -> Iterable[Entry]:
    """The entries of a node and of all that is nested in it; a nested one stands on it unless it says otherwise."""
    info = _plugin(kind, where).info
    keys = _map(content, kind)
    base = _name_at(keys, "base") or parent
    name = _name_at(keys, "name")
    if not name and not base:
        reason = "has no name" if info.level == 0 else "has neither name nor base"
        raise DiskLayoutError(f"{kind} {reason}", hint='add "name: NAME"', where=where)
    name = name or f"{kind}_{base}"
    allowed = ("name", "base", *info.keys, *([info.members] if info.members else ()))
    own, nested = _split(keys, allowed, kind, name)
    members: list[Entry] = []
    if info.members:
        for part in _parts(own, info.members, f'{kind} "{name}"'):
            member, below = _member(part, info, name)
            members.append(member)
            nested += below
    yield Entry(kind, name, base, own, where, tuple(members))
    for word, value, parent_name, place in nested:
        yield from _flat(word, value, parent_name, place)


_Nested = list[tuple[str, Value, str, Where]]
"""Plug-in, content, the name of the node or part in which it is nested, and where the plug-in's word stands."""


def _member(part: Map, info: NodeInfo, parent: str) -> tuple[Entry, _Nested]:
    singular = info.members.removesuffix("s")
    name = _name_at(part, "name")
    if not name:
        raise DiskLayoutError(f'a {singular} of "{parent}" has no name', hint='add "name: NAME"', where=part.where)
    what = f'{singular} "{name}"'
    own, nested = _split(part, ("name", "base", *info.member_keys), singular, name)
    base = _name_at(part, "base")
    if base not in ("", parent):
        message = f'{what} has the base "{base}", but belongs to "{parent}"'
        raise DiskLayoutError(message, hint='remove "base"', where=own.entries["base"].where)
    return Entry(singular, name, parent, own, part.where), nested


def _parts(keys: Map, word: str, what: str) -> Iterable[Map]:
    value = keys.entries.get(word)
    if value is None or (isinstance(value, Word) and value.null):
        return
    for part in value.values if isinstance(value, Items) else (value,):
        if not isinstance(value, Items) or not isinstance(part, Map):
            hint = 'begin each with "- name: NAME", and indent its other keys alike'
            raise DiskLayoutError(f'"{word}" of {what} is not a list of maps', hint=hint, where=part.where)
        yield part


def _split(keys: Map, allowed: tuple[str, ...], kind: str, name: str) -> tuple[Map, _Nested]:
    """The keys that are the node's own, and the plug-ins nested in it. Refuses any other key."""
    own: dict[str, Value] = {}
    nested: _Nested = []
    for word, value in keys.entries.items():
        if word in allowed:
            own[word] = value
            continue
        # Only for a word that is not built in are installed packages looked at, which takes time.
        if word not in registry.names("disk_nodes", installed=False):
            plugins = registry.names("disk_nodes")
            if word not in plugins:
                known = f"known are: {', '.join(allowed)}; nodes to nest: {', '.join(plugins)}"
                hint = nearest(word, [*allowed, *plugins]) or known
                message = f'{kind} "{name}" has the unknown key "{word}"'
                raise DiskLayoutError(message, hint=hint, where=keys.key_places[word])
        nested.append((word, value, name, keys.key_places[word]))
    return replace(keys, entries=own), nested


def _map(content: Value, kind: str) -> Map:
    if isinstance(content, Map):
        return content
    if isinstance(content, Word) and content.null:
        return Map({}, {}, content.where)
    hint = 'write its keys below it, indented, such as "name: NAME"'
    raise DiskLayoutError(f"{kind} is a {kind_of(content)}, not a map", hint=hint, where=content.where)


def _name_at(keys: Map, word: str) -> str:
    """The name of a node under `word`; empty when there is none."""
    value = keys.entries.get(word)
    if value is None:
        return ""
    if not isinstance(value, Word) or value.null or len(value.text.split()) == 0:
        raise DiskLayoutError(f'"{word}" is not a name', hint=f'write "{word}: NAME"', where=value.where)
    return value.text


def _plugin(kind: str, where: Where) -> type[Node]:
    try:
        plugin: type[Node] = registry.load("disk_nodes", kind)
    except UsageError as error:
        message = f"{error.message} (not a plugin value)"
        raise DiskLayoutError(message, hint=error.hint, where=where) from error
    return plugin


def _kinds(entries: list[Entry]) -> dict[str, str]:
    """What each name is. Raises DiskLayoutError for a name that is given twice."""
    places: dict[str, Where] = {}
    kinds: dict[str, str] = {}
    for entry in chain.from_iterable((each, *each.members) for each in entries):
        if entry.name in kinds:
            entry.refuse(
                f"has a name that is used more than once (duplicate node name): a {kinds[entry.name]} has it too",
                f"give one of the two another name; the first stands in line {places[entry.name].line}",
                "name",
            )
        kinds[entry.name], places[entry.name] = entry.kind, entry.where
    return kinds


def _root_of(entries: list[Entry], source: str) -> str:
    """The name of the file system that is mounted at `/`, found before file systems are read (D13)."""
    for entry in entries:
        if entry.kind == "mount" and normal(entry.text("mount_point") or "") == "/":
            return entry.base
    hint = 'add to one file system: "mount: {mount_point: /}"'
    raise DiskLayoutError("no file system is mounted at /", hint=hint, where=Where(source, 1))


def _check_one_on_each(entries: list[Entry]) -> None:
    """Refuse two nodes on one base: two file systems on a partition, a table and a file system on a disk."""
    standing: dict[str, Entry] = {}
    for entry in entries:
        if entry.base and entry.base in standing:
            _refuse_second(entry, standing[entry.base])
        standing[entry.base] = entry


def _refuse_second(entry: Entry, first: Entry) -> NoReturn:
    entry.refuse(
        f'stands on "{entry.base}", on which {first} of line {first.where.line} stands already',
        "remove one of the two, or give it another base",
        "base",
    )


def _graph(context: Context, source: str) -> Graph:
    images = tuple(context.all(model.Image))
    if all(image.name != MAIN_IMAGE for image in images):
        names = ", ".join(image.name for image in images)
        hint = f'write "name: {MAIN_IMAGE}" for the disk that boots, and "base: {MAIN_IMAGE}" for what stands on it'
        message = f"no local_loop is called {MAIN_IMAGE}; there is {names}"
        raise DiskLayoutError(message, hint=hint, where=images[0].where)
    on_image = {table.base: table for table in context.all(model.Table)}
    tables = tuple(on_image[image.name] for image in images if image.name in on_image)
    devices = [device for image in images for device in _devices(image, on_image.get(image.name))]
    mounts = sorted(context.all(model.Mount), key=mount_order)
    points = [mount.name for mount in mounts]
    return model.Graph(
        images,
        tables,
        tuple(sorted(context.all(model.Filesystem), key=lambda filesystem: devices.index(filesystem.base))),
        tuple(mounts),
        tuple(sorted(context.all(model.FstabEntry), key=lambda line: points.index(line.base))),
        source,
    )


def _devices(image: model.Image, table: model.Table | None) -> list[str]:
    return [image.name, *(partition.name for partition in table.partitions)] if table else [image.name]


def mount_order(mount: model.Mount) -> tuple[bytes, str]:
    """A key for sorting: what must be mounted first comes first; swap last, as its point begins with no slash."""
    return (mount.point.encode(), mount.name)
