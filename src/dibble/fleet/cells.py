"""A matrix → its cells, each with the recipe that `dibble build` makes it from. Nothing runs here."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from dibble import __version__
from dibble.errors import DibbleError, RecipeError, Where
from dibble.fleet.model import Cell
from dibble.fleet.order import check_order, needs_of
from dibble.fleet.spec import HOST, LOCAL, HostTree, Include, Policy, Spec, Value, merged
from dibble.fleet.support import unsupported
from dibble.recipe.load import request_of_asked
from dibble.recipe.merge import Asked
from dibble.recipe.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dibble.recipe.merge import Host
    from dibble.recipe.model import Request

HOSTGEN, TOX = "hostgen", "tox"
Kind = Literal["build", "hostgen", "tox"]
_BASE_AXES = ("architecture", "arch", "distribution", "elements", "release", "variant")
"""Cells that have the same values of these, on the same host, begin with the same layers."""
_NOT_IN_NAME = (HOST, "format", "outputs")
_DEFAULT_POLICY = Policy(retries=0, boot=False, allow_failure=False)


@dataclass(frozen=True, slots=True)
class Work:
    """A cell, and all that building it needs to know."""

    cell: Cell
    kind: Kind = "build"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    host: HostTree = field(default_factory=HostTree)
    policy: Policy = _DEFAULT_POLICY
    base: str = ""
    """Equal for cells that begin with the same layers in the same store."""
    tree: str = ""
    """Equal for cells that share all layers, and differ in what is made of them."""
    unsupported: str = ""
    """Why it cannot be built; empty when it can."""
    image: str = "image"
    """What the files of the image are called: without the format, which is their suffix. The name gets into images
    (dib-manifests), so cells that differ only in format could not share the layers of another name."""
    tests: Path | None = None
    """For the row tox: the checkout whose unit tests are run."""


def cells_of(
    spec: Spec, environ: Mapping[str, str], host: Host, *, max_cells: int | None = None, here: bool = True
) -> list[Work]:
    """All cells, host by host and in the order of the file's axes. `here`: this machine builds them.

    Raises RecipeError for a matrix that is too big, empty, or contradicts itself, and what a cell's recipe raises, with
    the cell named.
    """
    limit = spec.max_cells if max_cells is None else max_cells
    count = len(spec.include)
    product = 1
    for values in spec.axes.values():
        product *= len(values)
    count += product
    if count > limit:
        counts = " x ".join(f"{len(values)} {axis}" for axis, values in spec.axes.items())
        raise RecipeError(
            f"the matrix has {count} cells ({counts}); more than {limit} are taken for a mistake",
            hint=f"if it is meant: dibble matrix --max-cells {count}, or max-cells: {count} in the file",
            where=Where(spec.shown),
        )
    context = _Context(spec, environ, host, here=here)
    works = [context.work(values, ()) for values in _kept(spec)]
    for include in spec.include:
        works += [context.work(values, (include,)) for values in _included(spec, include)]
    if not works:
        raise RecipeError("no cell is left", hint="exclude fewer", where=Where(spec.shown))
    works = [*context.hosts(works), *works]
    _check_names(works, spec)
    needs = needs_of(spec, [work.cell for work in works])
    works = [_with_needs(work, needs[work.cell.name]) for work in works]
    check_order([work.cell for work in works], spec.shown)
    return works


def _with_needs(work: Work, needs: Sequence[str]) -> Work:
    every = tuple(dict.fromkeys((*work.cell.needs, *needs)))
    return replace(work, cell=replace(work.cell, needs=every))


def _kept(spec: Spec) -> Iterator[tuple[Value, ...]]:
    """The product less what is excluded. Raises RecipeError for an exclusion that fits nothing."""
    products = list(itertools.product(*spec.axes.values()))
    gone: set[int] = set()
    for selection in spec.exclude:
        fitting = {i for i, values in enumerate(products) if selection.fits({v.axis: v.name for v in values})}
        if not fitting and not any(selection.fits(_names(one)) for inc in spec.include for one in _included(spec, inc)):
            raise RecipeError(
                f"there is no cell with {selection} to exclude",
                hint="take it out, or correct it",
                where=selection.where,
            )
        gone |= fitting
    return (values for i, values in enumerate(products) if i not in gone)


def _included(spec: Spec, include: Include) -> Iterator[tuple[Value, ...]]:
    """The cells of an entry. Raises RecipeError where one of them is excluded as well."""
    choices = [(include.values[axis],) if axis in include.values else values for axis, values in spec.axes.items()]
    for values in itertools.product(*choices):
        for selection in spec.exclude:
            if selection.fits(_names(values)):
                raise RecipeError(
                    f"the cell {_cell_name(values)[0]} is included, and excluded in line {selection.where.line}",
                    hint="take one of the two out",
                    where=include.where,
                )
        yield values


def _names(values: Sequence[Value]) -> dict[str, str]:
    return {value.axis: value.name for value in values}


def _cell_name(values: Sequence[Value]) -> tuple[str, str, str]:
    """(name, host, target) of a cell."""
    host = next((value.name for value in values if value.axis == HOST), LOCAL)
    target = "-".join(value.name for value in values if value.axis != HOST) or "image"
    return f"{host}/{target}", host, target


def _check_names(works: Sequence[Work], spec: Spec) -> None:
    seen: set[str] = set()
    for work in works:
        if work.cell.name in seen:
            raise RecipeError(
                f"two cells are named {work.cell.name}",
                hint="give values names that differ, or take the second of them out",
                where=Where(spec.shown),
            )
        seen.add(work.cell.name)


class _Context:
    """What all cells of one matrix are made with."""

    def __init__(self, spec: Spec, environ: Mapping[str, str], host: Host, *, here: bool) -> None:
        self._spec = spec
        self._environ = environ
        self._host = host
        self._here = here
        self._content: dict[Path, str] = {}
        self._said = sorted(
            (name, value)
            for name, value in environ.items()
            if name.startswith(("DIB_", "ELEMENTS_PATH")) or name in {option.variable for option in OPTIONS}
        )

    def work(self, values: Sequence[Value], includes: Sequence[Include]) -> Work:
        spec = self._spec
        name, host, target = _cell_name(values)
        axes = {HOST: host, **_names(values)}
        data = merged(spec.base, *(value.data for value in values), *(include.data for include in includes))
        policy = _DEFAULT_POLICY
        for part in (spec.policy, *(value.policy for value in values), *(include.policy for include in includes)):
            policy = part.over(policy)
        if any(selection.fits(axes) for selection in spec.allow_failure):
            policy = replace(policy, allow_failure=True)
        tree = next((value.host for value in values if value.axis == HOST), HostTree())
        where = includes[0].where if includes else values[-1].where
        request = self._request(data, name, where)
        architectures = tuple(arch for value in values for arch in value.architectures)
        own = {key: value for key, value in data.items() if key != "outputs"}
        return Work(
            Cell(
                name, host, target, self._key("build", data, request, tree, policy), axes,
                needs=(f"{host}/{HOSTGEN}",) if tree.build else (),
                allow_failure=bool(policy.allow_failure),
            ),
            "build", data, tree, policy,
            base=_digest([host, {axis: axes[axis] for axis in _BASE_AXES if axis in axes}]),
            tree=_digest([host, own]),
            unsupported=unsupported(request, architectures, where, here=self._here),
            image="-".join(value.name for value in values if value.axis not in _NOT_IN_NAME) or "image",
        )  # fmt: skip

    def hosts(self, works: Sequence[Work]) -> list[Work]:
        """The rows hostgen and tox of the hosts that cells are built on."""
        found = []
        for value in self._spec.axes.get(HOST, (Value(HOST, LOCAL),)):
            if not any(work.cell.host == value.name for work in works):
                continue
            policy = value.policy.over(self._spec.policy).over(_DEFAULT_POLICY)
            policy = replace(policy, boot=False)
            allow = bool(policy.allow_failure)
            needs: tuple[str, ...] = ()
            if value.host.build is not None:
                data = {**value.host.build, "outputs": ["tar"]}
                name = f"{value.name}/{HOSTGEN}"
                request = self._request(data, name, value.where)
                cell = Cell(
                    name, value.name, HOSTGEN, self._key(HOSTGEN, data, request, HostTree(), policy),
                    {HOST: value.name}, allow_failure=allow,
                )  # fmt: skip
                reason = unsupported(request, (), value.where, here=self._here)
                base = _digest([LOCAL, data])
                found.append(Work(cell, "hostgen", data, HostTree(), policy, base, base, reason))
                needs = (name,)
            if self._spec.tests is not None:
                key = self._key(TOX, {}, None, value.host, policy)
                cell = Cell(f"{value.name}/{TOX}", value.name, TOX, key, {HOST: value.name}, needs, allow_failure=allow)
                found.append(Work(cell, "tox", {}, value.host, policy, tests=self._spec.tests))
        return found

    def _request(self, data: Mapping[str, Any], name: str, where: Where) -> Request:
        """What the recipe of a cell asks for. What is wrong with it is said of the cell."""
        from dibble.recipe.read import asked_of, dumped
        from dibble.recipe.schema import Recipe

        recipe = Recipe.model_validate(dict(data), by_alias=True, by_name=False)
        disk = data.get("block-device")
        text = disk if isinstance(disk, str) else dumped(disk) if disk is not None else ""
        try:
            asked = asked_of(recipe, self._spec.folder, self._spec.shown, block_device=text)
            return request_of_asked(Asked(), asked, self._environ, self._host)
        except DibbleError as error:
            raise RecipeError(f"cell {name}: {error.message}", hint=error.hint, where=where) from error

    def _key(self, kind: str, data: Mapping[str, Any], request: Request | None, tree: HostTree, policy: Policy) -> str:
        """The digest of what decides a cell's result, as far as it is known before anything runs."""
        paths = request.element_path if request else ()
        host = [str(tree.tree), _mark(tree.tree), tree.build]
        return _digest(
            [__version__, kind, data, self._said, host, repr(policy.boot), [self._content_of(path) for path in paths]]
        )

    def _content_of(self, folder: Path) -> str:
        """The digest of the elements in a directory."""
        if folder not in self._content:
            digest = hashlib.sha256()
            for path in sorted(folder.rglob("*")):
                if "__pycache__" in path.parts or not (path.is_file() or path.is_symlink()):
                    continue
                digest.update(f"{path.relative_to(folder)}\0{path.lstat().st_mode}\0".encode())
                if path.is_file():
                    with path.open("rb") as file:
                        digest.update(hashlib.file_digest(file, "sha256").digest())
            self._content[folder] = digest.hexdigest()
        return self._content[folder]


def _mark(path: Path | None) -> str:
    """Of a host's tree: size and time of a file; a directory may change below, which is the user's affair."""
    if path is None or not path.is_file():
        return ""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
