"""An archive for `docker load`, `podman load` and skopeo, with the tree as one layer.

The format is that of `docker save` (Docker Image Specification 1.2, "Combined Image JSON + Filesystem Changeset
Format"): a tar with the layer, the image's configuration and manifest.json. The layer comes first and is written
straight into the archive.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dibble.errors import OutputError
from dibble.outputs.base import MAIN_IMAGE, OutputInfo
from dibble.outputs.tar_file import TarWriter
from dibble.tree.ustar import BLOCK

if TYPE_CHECKING:
    from dibble.events import Events
    from dibble.outputs.base import Source
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox

# Debian's architecture → (GOARCH, variant), as images are told apart (OCI image-spec, "Platform")
_PLATFORMS = {
    "i386": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v5"),
    "arm64": ("arm64", "v8"),
    "ppc64el": ("ppc64le", ""),
    "mips64el": ("mips64le", ""),
    "loong64": ("loong64", ""),
}
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LAYER = "layer.tar"


class Docker:
    """`N.docker`."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="docker",
        reads="tree",
        summary="an archive for docker load",
        depends_on=lambda request: (reference(request),),
    )

    def write(
        self,
        source: Source,
        target_file: Path,
        request: Request,
        toolbox: Toolbox,
        events: Events,
        *,
        epoch: int,
        image: str = MAIN_IMAGE,
    ) -> None:
        descriptor = os.open(target_file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            with events.activity("docker") as activity:
                os.lseek(descriptor, BLOCK, os.SEEK_SET)  # the layer's header comes when its size is known
                TarWriter(lambda data: _write(descriptor, data), epoch, activity).write_tree(source.root)
            size = os.lseek(descriptor, 0, os.SEEK_CUR) - BLOCK
            os.pwrite(descriptor, _header(_LAYER, size, epoch), 0)
            config = _json(_configuration(source.root, request.arch, _digest(descriptor, size), epoch))
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            manifest = [{"Config": name, "RepoTags": [reference(request)], "Layers": [_LAYER]}]
            rest = bytearray()
            for file, data in ((name, config), ("manifest.json", _json(manifest))):
                rest += _header(file, len(data), epoch) + data + bytes(-len(data) % BLOCK)
            _write(descriptor, bytes(rest) + bytes(2 * BLOCK))
        finally:
            os.close(descriptor)


def reference(request: Request) -> str:
    """The name and tag that the image gets: what the user asked for, else one made of the image's name.

    A reference has no capitals, and its parts begin with a letter or a digit (distribution/reference, "Grammar").
    """
    if request.docker_target:
        asked = request.docker_target
        return asked if ":" in asked.rpartition("/")[2] else f"{asked}:latest"
    name = re.sub(r"[^a-z0-9._-]+", "-", Path(request.name).name.lower()).strip("._-")
    name = re.sub(r"([._-])[._-]+", r"\1", name)
    return f"{name or 'image'}:latest"


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


def _configuration(root: Path, arch: str, layer: str, epoch: int) -> dict[str, Any]:
    """The image's configuration (Docker Image Specification 1.2, "Image JSON Description")."""
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    platform, variant = _PLATFORMS.get(arch, (arch, ""))
    shell = next((shell for shell in ("/bin/bash", "/bin/sh") if os.path.lexists(f"{root}{shell}")), "/bin/sh")
    return {
        "architecture": platform,
        **({"variant": variant} if variant else {}),
        "os": "linux",
        "created": created,
        "config": {"Env": [_PATH], "Cmd": [shell]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        "history": [{"created": created, "created_by": "dibble"}],
    }


def _header(name: str, size: int, epoch: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, epoch, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)  # whose size field has no limit of 8 GiB


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(descriptor: int, size: int) -> str:
    """The sha256 of the layer; read again, because the writer fills in what it has written."""
    found = hashlib.sha256()
    position = BLOCK
    while position < BLOCK + size:
        data = os.pread(descriptor, min(4 << 20, BLOCK + size - position), position)
        if not data:
            raise OutputError("the archive became shorter while it was written")
        found.update(data)
        position += len(data)
    return found.hexdigest()


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
