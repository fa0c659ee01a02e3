"""The finished tree as an App Container Image (appc 0.8.11, spec/aci.md): an archive of `rootfs` and a manifest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar

from dibble.errors import OutputError
from dibble.outputs.base import MAIN_IMAGE, OutputInfo
from dibble.outputs.tar_file import TarWriter, walk

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import Events
    from dibble.outputs.base import Source
    from dibble.recipe.model import Request
    from dibble.sandbox.toolbox import Toolbox

VARIABLE = "ACI_MANIFEST"


class Aci:
    """`N.aci`, with the file that ACI_MANIFEST names as its manifest."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="aci",
        reads="tree",
        summary=f"an App Container Image, with the manifest of {VARIABLE}",
        depends_on=lambda request: (hashlib.sha256(_manifest(request) or b"").hexdigest(),),
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
        manifest = _manifest(request)
        if manifest is None:
            events.note(f"{target_file.name} has no manifest, which programs want: {VARIABLE} is not set", "warning")
        with target_file.open("wb") as file, events.activity(self.info.suffix) as activity:
            writer = TarWriter(file.write, epoch, activity)
            if manifest is not None:
                writer.write_file(b"manifest", manifest)
            writer.write_entries((b"rootfs" + name[1:], path, status) for name, path, status in walk(source.root))


def _manifest(request: Request) -> bytes | None:
    """The manifest's text. Raises OutputError where it cannot be read."""
    named = request.environment.get(VARIABLE)
    if not named:
        return None
    file = request.cwd / named
    try:
        return file.read_bytes()
    except OSError as error:
        raise OutputError(f"{VARIABLE}: {file} cannot be read: {error.strerror}") from error
