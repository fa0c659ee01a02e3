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
from dibble.disk.nodes.base import Context, Entry, Members, Node, kind_of, nearest
from dibble.disk.nodes.mount import normal
from dibble.errors import DiskLayoutError, UsageError, Where

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dibble.disk.model import Defaults, Graph
    from dibble.disk.volumes.base import Volume

MAIN_IMAGE = "image0"
"""The disk that boots, and that outputs are made of; hooks know it by this name."""
_PLAIN = (model.Image, model.Table, model.Raw, model.Filesystem, model.Mount, model.FstabEntry)
"""What nodes are that are no volumes."""


def parse(text: str, *, source: str, defaults: Defaults) -> Graph:
    """The graph that `text` describes; `source` is the file, variable or word that errors name.

    The same graph comes of the tree form and the graph form. Raises DiskLayoutError with file, line and column.
    """
    entries = list(_entries(read_description(text, source), source))
    kinds = _kinds(entries)
    context = Context(defaults, _root_of(entries, source), kinds)
    for entry in _in_order(entries):
        value = _plugin(entry.kind, entry.where).parse(entry, context)
        if not isinstance(value, _PLAIN):
            context.volumes.append(value)
            context.values.update({name: model.Device(name, value.name) for name in value.devices})
            continue
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
    bases = _names_at(keys, "base", several=info.several) or ((parent,) if parent else ())
    name = _name_at(keys, "name")
    if not name and not bases:
        reason = "has no name" if info.level == 0 else "has neither name nor base"
        raise DiskLayoutError(f"{kind} {reason}", hint='add "name: NAME"', where=where)
    name = name or f"{kind}_{bases[0]}"
    own, nested = _split(
        keys,
        ("name", "base", *info.keys, *info.device_keys, *(group.word for group in info.members)),
        kind,
        name,
    )
    members: list[Entry] = []
    outside = [base for key in info.device_keys for base in _names_at(own, key, several=True)]
    for group in info.members:
        for part in _parts(own, group.word, f'{kind} "{name}"'):
            member, below = _member(part, group, name, bases)
            members.append(member)
            nested += below
            outside += [member.base] if group.base == "outside" else []
    own_bases = () if any(group.base == "outside" for group in info.members) else bases
    stands_on = tuple(base for base in (*own_bases, *outside) if base)
    yield Entry(kind, name, bases[0] if bases else "", own, where, tuple(members), stands_on)
    for word, value, parent_name, place in nested:
        yield from _flat(word, value, parent_name, place)


_Nested = list[tuple[str, Value, str, Where]]
"""Plug-in, content, the name of the node or part in which it is nested, and where the plug-in's word stands."""


def _member(part: Map, group: Members, parent: str, bases: tuple[str, ...]) -> tuple[Entry, _Nested]:
    """A part of the node `parent`, which stands on `bases`."""
    name = _name_at(part, "name")
    if not name:
        raise DiskLayoutError(
            f'a {group.singular} of "{parent}" has no name', hint='add "name: NAME"', where=part.where
        )
    what = f'{group.singular} "{name}"'
    own, nested = _split(part, ("name", "base", *group.keys), group.singular, name)
    given = _names_at(part, "base", several=group.base == "inside")
    if group.base == "node":
        if given not in ((), (parent,)):
            message = f'{what} has the base "{given[0]}", but belongs to "{parent}"'
            raise DiskLayoutError(message, hint='remove "base"', where=own.entries["base"].where)
        given = (parent,)
    elif group.base == "outside" and not given and len(bases) == 1:
        given = bases
    return Entry(group.singular, name, given[0] if given else "", own, part.where), nested


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


def _names_at(keys: Map, word: str, *, several: bool) -> tuple[str, ...]:
    """The names of nodes under `word`: one, or with `several` a list too; none when the key is missing."""
    value = keys.entries.get(word)
    if not isinstance(value, Items) or not several:
        name = _name_at(keys, word)
        return (name,) if name else ()
    for item in value.values:
        if not isinstance(item, Word) or item.null or not item.text.split():
            raise DiskLayoutError(
                f'"{word}" has something in it that is no name', hint="write [NAME, NAME]", where=item.where
            )
    return tuple(item.text for item in value.values if isinstance(item, Word))


def _plugin(kind: str, where: Where) -> type[Node]:
    try:
        plugin: type[Node] = registry.load("disk_nodes", kind)
    except UsageError as error:
        message = f"{error.message} (not a plugin value)"
        raise DiskLayoutError(message, hint=error.hint, where=where) from error
    return plugin


def _kinds(entries: list[Entry]) -> dict[str, str]:
    """What each name is. Raises DiskLayoutError for a name that is given twice."""
    named: dict[str, Entry] = {}
    for entry in chain.from_iterable((each, *each.members) for each in entries):
        if (first := named.get(entry.name)) is not None:
            if entry.kind == first.kind and entry.text("name") is None and first.text("name") is None:
                _refuse_second(entry, first, entry.base)  # both are called after what they stand on
            entry.refuse(
                f"has a name that is used more than once (duplicate node name): a {first.kind} has it too",
                f"give one of the two another name; the first stands in line {first.where.line}",
                "name",
            )
        named[entry.name] = entry
    return {name: entry.kind for name, entry in named.items()}


def _root_of(entries: list[Entry], source: str) -> str:
    """The name of the file system that is mounted at `/`, found before file systems are read (D13)."""
    for entry in entries:
        if entry.kind == "mount" and normal(entry.text("mount_point") or "") == "/":
            return entry.base
    hint = 'add to one file system: "mount: {mount_point: /}"'
    raise DiskLayoutError("no file system is mounted at /", hint=hint, where=Where(source, 1))


def _in_order(entries: list[Entry]) -> Iterable[Entry]:
    """By level; tables and volumes each after those that they stand on. Raises DiskLayoutError for a loop of these."""
    from graphlib import CycleError, TopologicalSorter

    levels = {entry.name: _plugin(entry.kind, entry.where).info.level for entry in entries}
    devices = {entry.name: entry for entry in entries if levels[entry.name] == 1}
    makers = {each.name: entry.name for entry in devices.values() for each in (entry, *entry.members)}
    below = {name: [makers[base] for base in entry.stands_on if base in makers] for name, entry in devices.items()}
    try:
        order = list(TopologicalSorter(below).static_order())
    except CycleError as error:
        loop = error.args[1]
        devices[loop[0]].refuse(
            f"stands on itself: {' on '.join(reversed(loop))}", "give one of them another base", "base"
        )
    rank = {name: number for number, name in enumerate(order)}
    return sorted(entries, key=lambda entry: (levels[entry.name], rank.get(entry.name, 0)))


def _check_one_on_each(entries: list[Entry]) -> None:
    """Refuse two nodes on one base: two file systems on a partition, a table and a file system on a disk."""
    standing: dict[str, Entry] = {}
    beside = [entry for entry in entries if _plugin(entry.kind, entry.where).info.beside]
    for entry in entries:
        for base in entry.stands_on if entry not in beside else ():
            if base in standing:
                _refuse_second(entry, standing[base], base)
            standing[base] = entry
    for entry in beside:
        for base in entry.stands_on:
            if base in standing and standing[base].kind != "partitioning":
                _refuse_second(entry, standing[base], base)


def _refuse_second(entry: Entry, first: Entry, base: str) -> NoReturn:
    if entry is first:
        entry.refuse(f'names "{base}" twice', "name each device once", "base")
    entry.refuse(
        f'stands on "{base}", on which {first} of line {first.where.line} stands already',
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
    volumes = _by_depth(context.volumes)
    devices += [device for volume in volumes for device in volume.devices]
    mounts = sorted(context.all(model.Mount), key=mount_order)
    points = [mount.name for mount in mounts]
    return model.Graph(
        images,
        tables,
        tuple(sorted(context.all(model.Filesystem), key=lambda filesystem: devices.index(filesystem.base))),
        tuple(mounts),
        tuple(sorted(context.all(model.FstabEntry), key=lambda line: points.index(line.base))),
        source,
        volumes,
        tuple(sorted(context.all(model.Raw), key=lambda raw: (raw.base, raw.offset, raw.name))),
    )


def _by_depth(volumes: list[Volume]) -> tuple[Volume, ...]:
    """Each after those that it stands on, and otherwise by name, so that the form of the description changes nothing.

    `volumes` are in such an order already.
    """
    depths: dict[str, int] = {}
    for volume in volumes:
        depth = 1 + max((depths.get(base, 0) for base in volume.bases), default=0)
        depths.update(dict.fromkeys(volume.devices, depth))
    order = {volume.name: max((depths[name] for name in volume.devices), default=0) for volume in volumes}
    return tuple(sorted(volumes, key=lambda volume: (order[volume.name], volume.name)))


def _devices(image: model.Image, table: model.Table | None) -> list[str]:
    return [image.name, *(partition.name for partition in table.partitions)] if table else [image.name]


def mount_order(mount: model.Mount) -> tuple[bytes, str]:
    """A key for sorting: what must be mounted first comes first; swap last, as its point begins with no slash."""
    return (mount.point.encode(), mount.name)


def tool_groups(graph: Graph) -> tuple[str, ...]:
    """The groups of tools, besides `core`, that file systems of the graph are made with."""
    groups = {group for filesystem in graph.filesystems for group in _tools_of(filesystem.type)}
    return tuple(sorted(groups))


def _tools_of(kind: str) -> tuple[str, ...]:
    tools: tuple[str, ...] = registry.load("filesystems", kind).info.tools
    return tools
