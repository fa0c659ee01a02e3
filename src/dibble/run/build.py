"""One image from a request: elements → plan → layers → tree → disk → outputs.

What the store has already is taken from it; when that is everything, no namespace is entered and nothing runs.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dibble import __version__
from dibble.elements.assemble import element_set
from dibble.elements.materialise import write_tree
from dibble.errors import DiskLayoutError, OutputError
from dibble.events import BuildFinished, BuildStarted
from dibble.plan.manifest import digest, manifest_of
from dibble.run.environment import COMMANDS, image_environment
from dibble.run.state import State
from dibble.run.walk import Walk
from dibble.sandbox.mounts import unmount_all_below
from dibble.store.layers import LayerStore, OutputStore
from dibble.store.places import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.boot.base import BootFiles
    from dibble.disk.model import Defaults, Disk, Graph
    from dibble.elements.model import ElementSet
    from dibble.events import Events
    from dibble.plan.manifest import Manifest
    from dibble.recipe.model import Request
    from dibble.run.executor import Executor
    from dibble.sandbox.toolbox import Toolbox
    from dibble.sandbox.workspace import Workspace
    from dibble.store.layers import Input
    from dibble.store.places import Session

CATALOGUE = Path(__file__).resolve().parent.parent / "catalogue"
DEFAULT_EPOCH = 1767225600
"""2026-01-01: the time of files that a build makes when SOURCE_DATE_EPOCH does not say another one."""
MAX_AGE_S = 3600
ENGINE_FILES = ("package-installs.yaml", "package-installs.json", "pkg-map", "svc-map")
_SEED = uuid.UUID("5a3f9cf6-6d4c-5f0e-9a55-7d1bb1e00001")
"""The namespace of all derived UUIDs (RFC 9562, 5.5); an arbitrary constant."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """`files` are the outputs at their final names."""

    files: tuple[Path, ...]
    steps_run: int
    steps_cached: int
    seconds: float


@dataclass(slots=True)
class Build:
    """Everything about one build that is known before anything runs."""

    request: Request
    events: Events
    elements: ElementSet
    graph: Graph
    defaults: Defaults
    fstab: str
    environment: Mapping[str, str]
    late: Mapping[str, str]
    sources: Mapping[str, Path]
    element_files: Mapping[str, bytes]
    manifest: Manifest
    store: Store
    epoch: int
    tools_identity: str
    began: float = field(default_factory=time.monotonic)

    def walk(self) -> Walk:
        request = self.request
        return Walk(
            layers=LayerStore(self.store),
            environment=self.environment,
            late=self.late,
            constants={"arch": request.arch, "tools": self.tools_identity, "epoch": str(self.epoch)},
            settings={"packages": {"packages": " ".join(request.packages)}, "fstab": {"text": self.fstab}},
            sources=self.sources,
            element_files=self.element_files,
            still_valid=self.is_current,
            events=self.events,
        )

    def is_current(self, entry: Input) -> bool:
        """Whether a repository is as it was; asked of the mirror at most once in MAX_AGE_S seconds."""
        from dibble.packages.apt_release import repository_state

        uri, _, suite = entry.name.rpartition(" ")
        now = repository_state(uri, suite, self.store.repositories, offline=self.request.offline, max_age_s=MAX_AGE_S)
        return now is None or now == entry.digest

    def output_keys(self, state: State) -> dict[str, str]:
        """The key of each output format for a finished tree."""
        request = self.request
        common = [
            __version__, request.arch, state.tree, repr(self.graph), repr(self.defaults), self.tools_identity,
            str(self.epoch),
        ]  # fmt: skip
        own = {"qcow2": [request.qemu_img_options, str(request.compress)]}
        return {name: digest([*common, name, *own.get(name, [])])[:40] for name in request.outputs}


def build(request: Request, events: Events) -> BuildResult:
    """Build the image that `request` asks for. Raises DibbleError; nothing stands at a final name then."""
    plan = prepare(request, events)
    events.send(
        BuildStarted(
            name=request.name,
            version=__version__,
            requested=request.elements,
            elements=tuple(element.name for element in plan.elements.elements),
            steps=sum(1 for name in plan.manifest if name.split("/")[0].endswith(".d")),
        )
    )
    for note in (*plan.elements.notes,):
        events.send(note)
    result = _from_store(plan)
    if result is None:
        from dibble.sandbox.enter import run_in_namespace

        result = run_in_namespace(lambda: _run(plan))
    return result


def prepare(request: Request, events: Events) -> Build:
    """Resolve, merge and check everything that can be checked without running anything."""
    from dibble.disk.fstab import fstab_text, getval
    from dibble.disk.graph import parse
    from dibble.disk.model import Defaults
    from dibble.elements.readers.block_device import VARIABLE, choose_block_device
    from dibble.packages.debian_sources import host_mirrors

    directory = (request.cwd / request.name).parent
    if not directory.is_dir():
        raise OutputError(f"the directory {directory} for the image does not exist", hint=f"mkdir -p {directory}")
    store = open_store(request.cache_dir)
    elements = element_set(
        request.elements,
        request.element_path,
        ramdisk=request.ramdisk,
        skip_base=request.skip_base,
        arch=request.arch,
        environment=request.environment,
    )
    names = tuple(element.name for element in elements.elements)
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
    )
    graph = parse(choice.text, source=source, defaults=defaults)
    mirrors = host_mirrors()
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
            "DIBBLE_DEBIAN_MIRROR": mirrors.archive,
            "DIBBLE_DEBIAN_SECURITY_MIRROR": mirrors.security,
            "DIB_DEFAULT_INSTALLTYPE": request.install_type,
            "SOURCE_DATE_EPOCH": str(epoch),
        },
    )
    sources = {name: hook.path for name, hook in elements.hooks.files.items()}
    commands = {f"{COMMANDS}/{path.name}": path for path in sorted((CATALOGUE / "bin").iterdir())}
    return Build(
        request=request,
        events=events,
        elements=elements,
        graph=graph,
        defaults=defaults,
        fstab=fstab_text(graph),
        environment=environment,
        late=_device_names(graph),
        sources={**sources, **commands},
        element_files=_element_files(elements),
        manifest=manifest_of(elements.hooks, commands),
        store=store,
        epoch=epoch,
        tools_identity=_tools_identity(request, store, events),
    )


def _element_files(elements: ElementSet) -> dict[str, bytes]:
    """The files that the engine reads from each element's own directory."""
    found = {}
    for element in elements.elements:
        for name in ENGINE_FILES:
            path = element.path / name
            if path.is_file():
                found[str(path)] = path.read_bytes()
    return found


def _sector_size(text: str) -> int | None:
    """DIB_BLOCK_SIZE: the size in bytes of every disk's sectors, whatever its description says (contract.md 1.2)."""
    if not text:
        return None
    if text not in ("512", "4096"):
        raise DiskLayoutError(f'DIB_BLOCK_SIZE is "{text}"', hint="write 512 or 4096, or leave it unset")
    return int(text)


def _tools_identity(request: Request, store: Store, events: Events) -> str:
    if request.tools == "host":
        return "host"
    from dibble.sandbox.tools import ToolsTree

    return ToolsTree(store.root, events).identity


def _device_names(graph: Graph) -> dict[str, str]:
    """IMAGE_BLOCK_DEVICE and IMAGE_BLOCK_DEVICES as DIB names them; no such device exists here."""
    devices = {}
    for number, image in enumerate(graph.images):
        devices[image.name] = f"/dev/loop{number}"
        for table in graph.tables:
            if table.base == image.name:
                devices.update({p.name: f"/dev/mapper/loop{number}p{p.number}" for p in table.partitions})
    literal = " ".join(f"[{name}]={path}" for name, path in devices.items())
    return {"IMAGE_BLOCK_DEVICE": devices.get("image0", ""), "IMAGE_BLOCK_DEVICES": f" {literal} "}


def _from_store(plan: Build) -> BuildResult | None:
    """The whole result from the store, or None when something has to run."""
    from dibble.events import Events

    silent = plan.walk()
    silent.events = Events()
    state = silent.go(State(manifest=plan.manifest), None, pending=bool(plan.request.packages))
    if state is None:
        return None
    outputs = OutputStore(plan.store)
    found = {name: outputs.find(key) for name, key in plan.output_keys(state).items()}
    kept = {name: path for name, path in found.items() if path is not None}
    if len(kept) != len(found):
        return None
    from dibble.outputs.run import place_files

    plan.events.note(f"nothing has changed: all {silent.cached} steps and the outputs are in the store")
    files = {
        f"{plan.request.name}{path.name.removeprefix('output')}": path
        for folder in kept.values()
        for path in folder.iterdir()
        if path.name.startswith("output")
    }
    placed = place_files(files, plan.request, plan.events)
    _place_exports(plan, state)
    return _finished(plan, silent, placed)


def _finished(plan: Build, walk: Walk, files: list[Path]) -> BuildResult:
    seconds = time.monotonic() - plan.began
    plan.events.send(
        BuildFinished(
            seconds=seconds, status=0, steps_run=walk.ran, steps_cached=walk.cached, timings=tuple(walk.timings)
        )
    )
    return BuildResult(tuple(files), walk.ran, walk.cached, seconds)


def _run(plan: Build) -> BuildResult:
    """Inside the namespaces: run what is missing, then write the outputs."""
    with contextlib.ExitStack() as stack:
        stack.callback(plan.events.close)  # displays that began in this process end in it, also when the build fails
        plan.store.sweep()
        session = stack.enter_context(plan.store.session())
        stack.callback(unmount_all_below, session.path)
        workspace = _workspace(plan, session)
        executor = _executor(plan, workspace)
        stack.callback(executor.close)
        walk = plan.walk()
        state = walk.go(State(manifest=plan.manifest), executor.run, pending=bool(plan.request.packages))
        assert state is not None
        began = time.monotonic()
        files = _outputs(plan, session, workspace, executor.lower_directories(state), state)
        walk.timings.append(("outputs", time.monotonic() - began))
        _place_exports(plan, state)
        return _finished(plan, walk, files)


def _workspace(plan: Build, session: Session) -> Workspace:
    from dibble.sandbox.workspace import ViewToolbox, Workspace, host_view, tools_view

    request = plan.request
    toolbox: ViewToolbox
    if request.tools == "host":
        toolbox = host_view(session)
    else:
        from dibble.sandbox.tools import ToolsTree

        tree = ToolsTree(plan.store.root, plan.events, offline=request.offline)
        lowers = tree.ensure("core")
        toolbox = tools_view(plan.store, session, lowers, tree.identity)
    assert toolbox.root is not None
    workspace = Workspace(session, toolbox.root, toolbox)
    if request.tools != "host":
        home = Path(request.environment.get("HOME", "/nonexistent"))
        if home.is_dir() and home != Path("/"):
            workspace.show_writable(home)
        for path in (*request.element_path, CATALOGUE, request.cwd):
            if path.is_dir() and not path.is_relative_to(home) and path != Path("/"):
                workspace.show(path)
        workspace.show_store()
    return workspace


def _executor(plan: Build, workspace: Workspace) -> Executor:
    import shutil

    from dibble.packages.apt import Apt, AptSettings
    from dibble.run.executor import Executor

    base = workspace.new_directory("base")
    (base / "mnt").mkdir()
    (base / "mnt").chmod(0o755)
    write_tree(plan.elements.hooks, base / "hooks")
    place = base / "hooks" / COMMANDS
    place.mkdir(parents=True)
    for path in (CATALOGUE / "bin").iterdir():
        shutil.copy2(path, place / path.name)
    settings = AptSettings(
        root=workspace.target,
        arch=plan.request.arch,
        packages_dir=plan.store.packages,
        blobs_dir=plan.store.blobs,
        state_dir=plan.store.repositories,
        offline=plan.request.offline,
        max_age_s=MAX_AGE_S,
        epoch=plan.epoch,
    )
    return Executor(
        request=plan.request,
        element_set=plan.elements,
        workspace=workspace,
        layers=LayerStore(plan.store),
        apt=Apt(settings, workspace.toolbox, plan.events),
        events=plan.events,
        environment=plan.environment,
        late=plan.late,
        base=base,
        fstab=plan.fstab,
        epoch=plan.epoch,
    )


def _outputs(plan: Build, session: Session, workspace: Workspace, lowers: list[Path], state: State) -> list[Path]:
    """Lay out and write the disk from the finished tree, then every format, and keep them for the next time."""
    from dibble.boot import grub
    from dibble.outputs.base import Source
    from dibble.outputs.run import write_outputs
    from dibble.registry import load

    request = plan.request
    workspace.mount_tree(lowers)
    toolbox: Toolbox = workspace.toolbox
    directory = workspace.new_directory("boot")
    boot = grub.install(plan.graph, workspace.target, request.arch, directory, toolbox, plan.events, epoch=plan.epoch)
    disk = None
    if any(load("outputs", name).info.reads == "disk" for name in request.outputs):
        disk = _write_disk(plan, workspace, boot)
    source = Source(workspace.target, disk)
    files = write_outputs(source, request, toolbox, plan.events, epoch=plan.epoch)
    _keep_outputs(plan, session, files, state)
    return files


def _write_disk(plan: Build, workspace: Workspace, boot: BootFiles) -> Disk:
    from dibble.boot.base import boot_image
    from dibble.boot.grub import write_boot_code
    from dibble.disk.layout import layout_of
    from dibble.disk.write import write_disk
    from dibble.tree.walk import content_size

    content = content_size(workspace.target, [mount.point for mount in plan.graph.mounts])
    layout = layout_of(plan.graph, content, plan.defaults)
    directory = workspace.new_directory("disk")
    disk = write_disk(layout, workspace.target, directory, workspace.toolbox, plan.events, epoch=plan.epoch)
    write_boot_code(layout, disk.images[boot_image(plan.graph)], boot)
    return disk


def _keep_outputs(plan: Build, session: Session, files: list[Path], state: State) -> None:
    """Keep copies of the outputs under the names `output.SUFFIX`, so that the same build can put them anywhere."""
    store = OutputStore(plan.store)
    stem = Path(plan.request.name).name
    for name, key in plan.output_keys(state).items():
        if store.find(key) is None:
            own = {f"output{path.name[len(stem) :]}": path for path in files if path.suffix == f".{name}"}
            if own:
                store.keep(key, own, session.path)


def _place_exports(plan: Build, state: State) -> None:
    """Put the files that hooks left beside the image where the image is."""
    from dibble.outputs.place import place_tree

    directory = (plan.request.cwd / plan.request.name).parent
    for layer in state.exports:
        place_tree(plan.store.layers / layer / "exports", directory)
