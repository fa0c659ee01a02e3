"""Everything about a build that is known before anything runs: what to build, from what, in which environment."""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dibble import __version__
from dibble.elements.assemble import element_set
from dibble.elements.find import tools_of
from dibble.elements.needs import check_needs
from dibble.errors import DiskLayoutError, ElementError, OutputError, Where
from dibble.events import Note
from dibble.outputs.base import BASE
from dibble.plan.manifest import LIBRARY, digest, manifest_of
from dibble.plan.refresh import Refresh
from dibble.registry import load
from dibble.run import host_files
from dibble.run.environment import COMMANDS, image_environment
from dibble.run.remote import remote_store
from dibble.run.secrets import read_secrets
from dibble.run.walk import Walk
from dibble.store.facts import Facts
from dibble.store.layers import LayerStore
from dibble.store.places import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dibble.boot.secure_boot import SigningKey
    from dibble.disk.model import Defaults, Graph
    from dibble.disk.system_files import SystemFiles
    from dibble.elements.model import ElementSet
    from dibble.events import Events
    from dibble.plan.manifest import Manifest
    from dibble.recipe.model import Request
    from dibble.run.state import State
    from dibble.store.layers import Input
    from dibble.store.places import Store
    from dibble.store.remote import RemoteStore

CATALOGUE = Path(__file__).resolve().parent.parent / "catalogue"
OUTPUTS_VERSION = "outputs.v2"
"""Part of every output's key; grows when what is written for the same tree and layout changes."""
DEFAULT_EPOCH = 1767225600
"""2026-01-01: the time of files that a build makes when SOURCE_DATE_EPOCH does not say another one."""
ENGINE_FILES = ("package-installs.yaml", "package-installs.json", "pkg-map", "svc-map")
_SEED = uuid.UUID("5a3f9cf6-6d4c-5f0e-9a55-7d1bb1e00001")
"""The namespace of all derived UUIDs (RFC 9562, 5.5); an arbitrary constant."""


@dataclass(slots=True)
class Build:
    """Everything about one build that is known before anything runs."""

    request: Request
    events: Events
    elements: ElementSet
    graph: Graph
    defaults: Defaults
    fstab: str
    system_files: SystemFiles
    environment: Mapping[str, str]
    late: Mapping[str, str]
    sources: Mapping[str, Path]
    element_files: Mapping[str, bytes]
    manifest: Manifest
    store: Store
    epoch: int
    tools_identity: str
    element_tools: tuple[str, ...] = ()
    disk_tools: tuple[str, ...] = ()
    """Groups of tools that the disk is made with, besides `core`."""
    signing: SigningKey | None = None
    """What programs for UEFI are signed with."""
    remote: RemoteStore | None = None
    began: float = field(default_factory=time.monotonic)
    _states: dict[tuple[str, str], str | None] = field(default_factory=dict)
    """What origins said in this build, by kind and name: with --max-age=0 they are asked once, not at each step."""

    def walk(self) -> Walk:
        request = self.request
        return Walk(
            layers=LayerStore(self.store, lambda text: self.events.note(text, "warning")),
            environment=self.environment,
            late=self.late,
            constants={"arch": request.arch, "tools": self.tools_identity, "epoch": str(self.epoch)},
            settings={
                "packages": {"packages": " ".join(request.packages)},
                "volumes": self.system_files.settings(),
                "fstab": {"text": self.fstab},
            },
            sources=self.sources,
            element_files=self.element_files,
            still_valid=self.are_current,
            refresh=Refresh(request.refresh),
            events=self.events,
        )

    def are_current(self, inputs: Sequence[Input]) -> bool:
        """Whether repositories, what else was fetched, and what scripts read of the caller's files are as they were.

        Each is asked at most once in the request's `max_age_s` seconds, and of what does not answer nothing is known.
        """
        if not host_files.are_current(self.request, inputs):
            return False
        inputs = [entry for entry in inputs if entry.kind not in host_files.KINDS]
        if not inputs:
            return True
        from dibble.packages.apt_release import repository_states
        from dibble.packages.origin import KINDS, origin_tokens

        places, offline, max_age_s = self.store.repositories, self.request.offline, self.request.max_age_s
        wanted = {(entry.kind, entry.name) for entry in inputs} - self._states.keys()
        origins = [origin for origin in wanted if origin[0] in KINDS]
        self._states.update(origin_tokens(origins, places, offline=offline, max_age_s=max_age_s))
        suites = {
            (uri, suite): kind for kind, name in wanted - set(origins) for uri, _, suite in [name.rpartition(" ")]
        }
        states = repository_states(suites, places, offline=offline, max_age_s=max_age_s)
        for (uri, suite), state in states.items():
            self._states[suites[uri, suite], f"{uri} {suite}"] = state
        return all(self._states[entry.kind, entry.name] in (None, entry.digest) for entry in inputs)

    def content_fact(self, *tree: str) -> tuple[str, ...]:
        """The name of the fact how much a tree holds, which is counted by mount point; without `tree`, the last one
        of these elements."""
        points = [mount.point for mount in self.graph.mounts]
        if tree:
            return ("content", *tree, *points)
        names = [element.name for element in self.elements.elements]
        return ("content-of", self.request.arch, *names, *points)

    def output_keys(self, state: State, request: Request | None = None) -> dict[str, str]:
        """The key of each output format for a finished tree; with `request`, of its formats, made as it says."""
        request = request or self.request
        common = [
            __version__, OUTPUTS_VERSION, request.arch, state.tree, repr(self.graph), repr(self.defaults),
            self.tools_identity, str(self.epoch), request.environment.get("DIB_BOOTLOADER", ""),
            *_gate_parts(request), *_tools_parts(self, self.disk_tools),
            *([self.signing.identity] if self.signing else ()),
        ]  # fmt: skip
        infos = {name: load("outputs", name).info for name in request.outputs}
        own = {name: (*info.depends_on(request), *_tools_parts(self, info.tools)) for name, info in infos.items()}
        own |= {name: (*own[name], *self.owners(state)) for name, info in infos.items() if info.by_layer}
        return {name: digest([*common, name, *parts])[:40] for name, parts in own.items()}

    def owners(self, state: State) -> tuple[str, ...]:
        """Whose the directories of a tree are, topmost first, as `outputs.base.Lower` says."""
        files = self.elements.hooks.files
        hooks = [(step, files.get(step)) for step in state.steps]
        return tuple(BASE if step.startswith("root.d/") else hook.element if hook else "" for step, hook in hooks)

    def tool_groups(self) -> tuple[str, ...]:
        """The groups of tools besides `core` that elements, the disk and the formats need."""
        groups = [group for name in self.request.outputs for group in load("outputs", name).info.tools]
        return tuple(dict.fromkeys((*self.element_tools, *self.disk_tools, *groups)))


def _tools_parts(build: Build, groups: Sequence[str]) -> tuple[str, ...]:
    """The programs of groups that scripts do not depend on, but disks or outputs."""
    if not groups or build.request.tools == "host":
        return ()
    from dibble.sandbox.tools import ToolsTree

    return (ToolsTree(build.store.root, build.events).identity_of(*groups),)


def _gate_parts(request: Request) -> tuple[str, ...]:
    """Outputs of one tree that has passed a gate count for no other gate."""
    gate = request.target.gate if request.target else None
    return (repr(gate),) if gate and (gate.present or gate.absent) else ()


def prepare(request: Request, events: Events) -> Build:
    """Resolve, merge and check everything that can be checked without running anything."""
    from dibble.boot.choose import tools_of
    from dibble.boot.secure_boot import signing_key
    from dibble.disk.fstab import fstab_text, getval, read_only_root
    from dibble.disk.graph import parse, tool_groups
    from dibble.disk.model import Defaults
    from dibble.disk.system_files import system_files
    from dibble.elements.readers.block_device import VARIABLE, choose_block_device
    from dibble.sandbox.tools import near_mirrors

    check_architecture(request)
    directory = (request.cwd / request.name).parent
    if not directory.is_dir():
        raise OutputError(f"the directory {directory} for the image does not exist", hint=f"mkdir -p {directory}")
    store = open_store(request.cache_dir, lambda text: events.note(text, "warning"))
    elements = element_set(
        request.elements,
        request.element_path,
        ramdisk=request.ramdisk,
        skip_base=request.skip_base,
        arch=request.arch,
        environment=request.environment,
        layout=request.layout,
    )
    check_needs(elements.elements, request.environment)
    names = tuple(element.name for element in elements.elements)
    request = replace(request, outputs=formats_to_write(request, names, events))
    choice = choose_block_device(elements.elements, request.arch, request.block_device_config, request.elements)
    # Text from a recipe stands in that file; a file that either names is its own place.
    source = choice.source if choice.source != VARIABLE else request.block_device_source or VARIABLE
    defaults = Defaults(
        seed=uuid.uuid5(_SEED, " ".join((request.arch, *sorted(names)))),
        root_fs_type=request.fs_type,
        root_label=request.root_label,
        image_size_bytes=request.image_size_bytes,
        image_extra_size_bytes=request.image_extra_size_bytes,
        mkfs_options=request.mkfs_options,
        journal_mib=request.mkfs_journal_size_mib,
        max_online_resize=request.max_online_resize,
        sector_size=_sector_size(request.environment.get("DIB_BLOCK_SIZE", "")),
        secrets=read_secrets(request.secrets, store),
    )
    graph = parse(choice.text, source=source, defaults=defaults)
    if any(load("outputs", name).info.reads == "disk" for name in request.outputs):
        reason = read_only_root(graph)
        more = (Note(text=reason, level="warning"),) if reason else ()
        elements = replace(elements, notes=(*elements.notes, *choice.notes, *more))
    asked = request.environment.get("SOURCE_DATE_EPOCH", "")
    epoch = int(asked) if asked.isdigit() else DEFAULT_EPOCH
    environment = image_environment(
        request,
        elements.elements,
        library=CATALOGUE / "lib",
        disk={
            "DIB_ROOT_LABEL": getval(graph, "root-label"),
            "DIB_ROOT_FSTYPE": getval(graph, "root-fstype"),
            "DIB_BOOT_LABEL": getval(graph, "boot-label"),
            "DIB_MOUNTPOINTS": getval(graph, "mount-points"),
        },
        defaults={
            **near_mirrors(request.environment),
            "DIB_DEFAULT_INSTALLTYPE": request.install_type,
            "SOURCE_DATE_EPOCH": str(epoch),
        },
    )
    sources = {name: hook.path for name, hook in elements.hooks.files.items()}
    own = {f"{COMMANDS}/{path.name}": path for path in sorted((CATALOGUE / "bin").iterdir())}
    own.update({f"{LIBRARY}{path.name}": path for path in sorted((CATALOGUE / "lib").iterdir())})
    manifest = manifest_of(elements.hooks, own)
    element_tools = _element_tools(elements, request)
    element_files = _element_files(elements)
    elements = _checked(elements, manifest, element_files, Facts(store))
    return Build(
        request=request,
        events=events,
        elements=elements,
        graph=graph,
        defaults=defaults,
        fstab=fstab_text(graph),
        system_files=system_files(graph),
        environment=environment,
        late={**_device_names(graph), **_size_in_kib(request)},
        sources={**sources, **own},
        element_files=element_files,
        manifest=manifest,
        store=store,
        epoch=epoch,
        tools_identity=_tools_identity(request, store, events, element_tools),
        element_tools=element_tools,
        disk_tools=tuple(sorted({*tool_groups(graph), *tools_of(request.environment.get("DIB_BOOTLOADER", ""))})),
        signing=signing_key(
            request.secure_boot_key, request.secure_boot_cert, request.environment.get("DIB_BOOTLOADER", "")
        ),
        remote=remote_store(request, events),
    )


NO_FINAL_IMAGE = "no-final-image"


def formats_to_write(request: Request, names: Sequence[str], events: Events) -> tuple[str, ...]:
    """The formats to write: none that is made of a disk for a ramdisk, or where an element's name has `no-final-image`
    in it (contract.md 1.4); what such a build is for, its hooks leave beside the image."""
    marks = [name for name in names if NO_FINAL_IMAGE in name]
    if not request.ramdisk and not marks:
        return request.outputs
    kept = tuple(name for name in request.outputs if load("outputs", name).info.reads == "tree")
    left_out = [name for name in request.outputs if name not in kept]
    if left_out and not request.ramdisk:
        events.note(f"no {' or '.join(left_out)} is made: {' and '.join(marks)} is among the elements")
    return kept


def check_architecture(request: Request) -> None:
    """Raises UsageError or HostError for an architecture whose scripts cannot run here, before anything is built."""
    from dibble.sandbox import binfmt

    if binfmt.is_foreign(request.arch):
        binfmt.check_can_run(request.arch)


def _checked(elements: ElementSet, manifest: Manifest, element_files: Mapping[str, bytes], facts: Facts) -> ElementSet:
    """The elements with warnings about what is in them. Raises ElementError.

    Elements that passed are not read again as long as nothing in them changes.
    """
    names = (f"{element.name} {element.path}" for element in elements.elements)
    lists = (f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in element_files.items())
    key = digest([__version__, *names, *lists, *(f"{name} {mark}" for name, mark in manifest.items())])
    texts = facts.get("checked", key)
    if texts is None:
        from dibble.elements.check import check

        texts = [note.text for note in check(elements.elements, elements.hooks)]
        facts.put(texts, "checked", key)
    notes = (Note(text=text, level="warning") for text in texts)
    return replace(elements, notes=(*elements.notes, *notes))


def _element_files(elements: ElementSet) -> dict[str, bytes]:
    """The files that the engine reads from each element's own directory, by `ELEMENT/FILE`."""
    found = {}
    for element in elements.elements:
        for name in ENGINE_FILES:
            path = element.path / name
            if path.is_file():
                found[f"{element.name}/{name}"] = path.read_bytes()
    return found


def _sector_size(text: str) -> int | None:
    """DIB_BLOCK_SIZE: the size in bytes of every disk's sectors, whatever its description says (contract.md 1.2)."""
    if not text:
        return None
    if text not in ("512", "4096"):
        raise DiskLayoutError(f'DIB_BLOCK_SIZE is "{text}"', hint="write 512 or 4096, or leave it unset")
    return int(text)


def _element_tools(elements: ElementSet, request: Request) -> tuple[str, ...]:
    """The groups of tools that elements want beside `core`. Raises ElementError for one that is not known."""
    named = [name for element in elements.elements for name in tools_of(element)]
    if not named or request.tools == "host":
        return ()
    from dibble.sandbox.tools import host_arch
    from dibble.sandbox.tools_lock import read_lock

    known = read_lock(host_arch()).groups
    for name in named:
        if name.name not in known:
            where = Where(file=name.file, line=name.line)
            hint = f"known are: {', '.join(known)}"
            raise ElementError(f'there is no group of tools "{name.name}"', where=where, hint=hint)
    return tuple(sorted({name.name for name in named}))


def _tools_identity(request: Request, store: Store, events: Events, groups: Sequence[str]) -> str:
    if request.tools == "host":
        return "host"
    from dibble.sandbox.tools import ToolsTree

    return ToolsTree(store.root, events).identity_of(*groups)


def _size_in_kib(request: Request) -> dict[str, str]:
    """DIB_IMAGE_SIZE as the last phases see it: KiB, a multiple of 64 (contract.md 5.3)."""
    if request.image_size_bytes is None:
        return {}
    return {"DIB_IMAGE_SIZE": str(-(-request.image_size_bytes // (64 << 10)) * 64)}


def _device_names(graph: Graph) -> dict[str, str]:
    """IMAGE_BLOCK_DEVICE and IMAGE_BLOCK_DEVICES as DIB names them; no such device exists here."""
    devices = {}
    for number, image in enumerate(graph.images):
        devices[image.name] = f"/dev/loop{number}"
        for table in graph.tables:
            if table.base == image.name:
                devices.update({p.name: f"/dev/mapper/loop{number}p{p.number}" for p in table.partitions})
    devices.update({name: volume.path_of(name) for volume in graph.volumes for name in volume.devices})
    literal = " ".join(f"[{name}]={path}" for name, path in devices.items())
    return {"IMAGE_BLOCK_DEVICE": devices.get("image0", ""), "IMAGE_BLOCK_DEVICES": f" {literal} "}
