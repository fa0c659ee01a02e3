"""The finished tree as an App Container Image (appc 0.8.11, spec/aci.md): an archive of `rootfs` and a manifest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar

from dibble.errors import OutputError
from dibble.outputs.base import OutputInfo
from dibble.outputs.tar_file import TarWriter, walk

if TYPE_CHECKING:
    from dibble.outputs.base import Writing
    from dibble.recipe.model import Request

VARIABLE = "ACI_MANIFEST"


class Aci:
    """`N.aci`, with the file that ACI_MANIFEST names as its manifest."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="aci",
        reads="tree",
        summary=f"an App Container Image, with the manifest of {VARIABLE}",
        depends_on=lambda request: (hashlib.sha256(_manifest(request) or b"").hexdigest(),),
    )

    def write(self, writing: Writing) -> None:
        manifest = _manifest(writing.request)
        if manifest is None:
            writing.events.note(
                f"{writing.target_file.name} has no manifest, which programs want: {VARIABLE} is not set", "warning"
            )
        with writing.target_file.open("wb") as file, writing.events.activity(self.info.suffix) as activity:
            writer = TarWriter(file.write, writing.epoch, activity)
            if manifest is not None:
                writer.write_file(b"manifest", manifest)
            writer.write_entries((b"rootfs" + name[1:], path, status) for name, path, status in walk(writing.root))


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
