"""Ordering a dependency graph that may have cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def dependencies_first(names: Sequence[str], needs: Mapping[str, Sequence[str]]) -> Iterator[frozenset[str]]:
    """All names that `names` lead to, those that need one another in one group, each group behind what it needs.

    The groups come in the order of `names`, each with what it needs, in the order of `needs`, right in front. Linear
    in the size of the graph. Source: Tarjan, "Depth-first search and linear graph algorithms" (1972), section 4, with
    an explicit stack, so that the length of a chain does not matter.
    """
    number: dict[str, int] = {}  # in the order of discovery
    lowest: dict[str, int] = {}  # the smallest number known to be reachable and not yet in a group
    path: list[tuple[str, Iterator[str]]] = []
    open_names: dict[str, None] = {}  # discovered, not yet in a group; kept in the order of discovery

    def enter(name: str) -> None:
        number[name] = lowest[name] = len(number)
        open_names[name] = None
        path.append((name, iter(needs[name])))

    for start in names:
        if start not in number:
            enter(start)
        while path:
            name, rest = path[-1]
            following = next(rest, None)
            if following is None:
                path.pop()
                if path:
                    parent = path[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[name])
                if lowest[name] == number[name]:
                    group: list[str] = []
                    while not group or group[-1] != name:
                        group.append(open_names.popitem()[0])
                    yield frozenset(group)
            elif following not in number:
                enter(following)
            elif following in open_names:
                lowest[name] = min(lowest[name], number[following])
