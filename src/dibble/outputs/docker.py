"""An archive for `docker load`, `podman load` and skopeo, with the tree in layers.

The format is that of `docker save` (Docker Image Specification 1.2, "Combined Image JSON + Filesystem Changeset
Format"): a tar with the layers, the image's configuration and manifest.json. The layers come first and are written
straight into the archive.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, ClassVar

from dibble.outputs.base import OutputInfo
from dibble.outputs.container_image import configuration, json_bytes, member, reference
from dibble.outputs.container_layers import layers_of
from dibble.outputs.tar_file import TarWriter
from dibble.tree.ustar import BLOCK

if TYPE_CHECKING:
    from dibble.events import Events
    from dibble.outputs.base import Writing
    from dibble.recipe.model import Request


class Docker:
    """`N.docker`."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="docker",
        reads="tree",
        summary="an archive for docker load",
        depends_on=lambda request: (reference(request),),
        by_layer=True,
    )

    def write(self, writing: Writing) -> None:
        descriptor = os.open(writing.target_file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            layers: list[tuple[str, str]] = []
            with writing.events.activity("docker") as activity:
                for layer in layers_of(writing.source, writing.epoch):
                    start = os.lseek(descriptor, 0, os.SEEK_CUR)
                    os.lseek(descriptor, BLOCK, os.SEEK_CUR)  # the header comes when the size is known
                    found = hashlib.sha256()

                    def put(data: bytes | memoryview, found: Any = found) -> None:  # hashlib names no type
                        found.update(data)
                        _write(descriptor, data)

                    TarWriter(put, writing.epoch, activity).write_entries(layer.entries)
                    digest = found.hexdigest()
                    size = os.lseek(descriptor, 0, os.SEEK_CUR) - start - BLOCK
                    os.pwrite(descriptor, member(f"{digest}.tar", size, writing.epoch), start)
                    if any(digest == other for _, other in layers):  # it is in the archive already
                        os.lseek(descriptor, start, os.SEEK_SET)
                        os.ftruncate(descriptor, start)
                    layers.append((layer.name, digest))
            config = json_bytes(configuration(writing.root, writing.request.arch, layers, writing.epoch))
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            files = [f"{digest}.tar" for _, digest in layers]
            manifest = [{"Config": name, "RepoTags": [reference(writing.request)], "Layers": files}]
            rest = bytearray()
            for file, data in ((name, config), ("manifest.json", json_bytes(manifest))):
                rest += member(file, len(data), writing.epoch) + data + bytes(-len(data) % BLOCK)
            _write(descriptor, bytes(rest) + bytes(2 * BLOCK))
        finally:
            os.close(descriptor)


def load(request: Request, events: Events) -> None:
    """Give the finished archive to Docker or Podman on this machine, as DIB does with `--docker-target`.

    Without such a target, or where neither program takes it, the user is told the command: the archive is whole.
    """
    from dibble.sandbox.process import find_helper, host_environment, run

    file = f"{request.name}.{Docker.info.suffix}"
    program = next((found for name in ("docker", "podman") if (found := find_helper(name))), None)
    if not request.docker_target or program is None:
        events.note(f"load {reference(request)} with: docker load -i {file}")
        return
    argv = [str(program), "load", "--input", str(request.cwd / file)]
    done = run(argv, env=host_environment("HOME", "DOCKER_HOST", "XDG_RUNTIME_DIR"), check=False)
    if done.status:
        last = (done.output.strip().splitlines() or [f"status {done.status}"])[-1]
        events.note(
            f"{program.name} did not take {file} ({last}); load it later with: {program.name} load -i {file}", "warning"
        )
        return
    events.note(f"{program.name} has {reference(request)}")


def _write(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
