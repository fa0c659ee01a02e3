"""What the formats of containers have in common: layers as archives, the configuration, the name.

Sources: OCI image-spec 1.1 ("Image Configuration"), which took it over from Docker's Image Specification 1.2.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dibble.recipe.model import Request

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


def platform_of(arch: str) -> dict[str, str]:
    name, variant = _PLATFORMS.get(arch, (arch, ""))
    return {"architecture": name, "os": "linux", **({"variant": variant} if variant else {})}


def configuration(root: Path, arch: str, layers: Sequence[tuple[str, str]], epoch: int) -> dict[str, Any]:
    """The image's configuration; `layers` as (name, sha256 of the archive before it is compressed), lowest first."""
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shell = next((shell for shell in ("/bin/bash", "/bin/sh") if os.path.lexists(f"{root}{shell}")), "/bin/sh")
    return {
        **platform_of(arch),
        "created": created,
        "config": {"Env": [_PATH], "Cmd": [shell]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for _, digest in layers]},
        "history": [{"created": created, "created_by": f"dibble: {name}"} for name, _ in layers],
    }


def member(name: str, size: int, epoch: int) -> bytes:
    """The header of a file of the archive that holds the image."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, epoch, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)  # whose size field has no limit of 8 GiB


def json_bytes(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
