"""A disk that another machine exports over iSCSI, written by QEMU's own initiator: no kernel module, no root."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, ClassVar

from dibble.errors import ToolFailed, UsageError
from dibble.publish.base import Publication, Published, PublishError
from dibble.publish.held import EDGE, held, refuse, too_small

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.sandbox.toolbox import Toolbox

_FORMATS = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc", "vhdx": "vhdx", "vdi": "vdi"}
"""Name of the output → QEMU's name."""
_PLACE = re.compile(r"(?P<portal>[^/@%\s]+)/(?P<target>[^/%\s]+)/(?P<lun>\d+)")
_CHAP = ("LIBISCSI_CHAP_USERNAME", "LIBISCSI_CHAP_PASSWORD")


class Iscsi:
    """`iscsi://HOST[:PORT]/TARGET/LUN`; user and password from the variables that libiscsi's programs take."""

    summary: ClassVar[str] = "a disk exported over iSCSI: the bytes of the raw disk"
    place: ClassVar[str] = "HOST[:PORT]/TARGET/LUN"
    overwrites: ClassVar[bool] = True

    def check(self, publication: Publication) -> None:
        if publication.properties.format not in _FORMATS:
            raise UsageError(
                f"{publication.image} is {publication.properties.format}, no disk", hint="build it so: -t raw"
            )
        if "@" in publication.place:
            raise UsageError(
                "a password in the target is seen by everybody on this machine",
                hint=f"put user and password into the environment: {' and '.join(_CHAP)}",
            )
        if not _PLACE.fullmatch(publication.place):
            raise UsageError(
                f'"iscsi://{publication.place}" names no disk',
                hint="say iscsi://HOST:3260/iqn.2026-01.example:disk/1, the last being the LUN",
            )

    def publish(self, publication: Publication) -> Published:
        from dibble.sandbox.enter import run_in_namespace

        published = run_in_namespace(lambda: _in_tools_tree(publication))
        publication.progress.finish()
        return published


def _in_tools_tree(publication: Publication) -> Published:
    from dibble.evidence.image_head import files_of
    from dibble.sandbox import mounts
    from dibble.sandbox.workspace import tools_session
    from dibble.store.places import open_store

    store = open_store(publication.cache)
    with tools_session(store, publication.events, "iscsi") as (session, toolbox):
        assert toolbox.root is not None
        for path in files_of(publication.image):
            mounts.bind_at(path, toolbox.root, read_only=True)
        return _Target(publication, toolbox, session.path).write()


class _Target:
    def __init__(self, publication: Publication, toolbox: Toolbox, scratch: Path) -> None:
        self._publication = publication
        self._toolbox = toolbox
        self._scratch = scratch
        self._url = f"iscsi://{publication.place}"
        self._image = toolbox.path(publication.image)
        self._format = _FORMATS[publication.properties.format]
        found = _PLACE.fullmatch(publication.place)
        assert found is not None  # checked
        self._disk = {"driver": "iscsi", "transport": "tcp", **found.groupdict()}
        self._secret: list[str] = []
        user, password = (publication.environ.get(name) for name in _CHAP)
        if user and password:
            key = scratch / "chap"
            key.touch(0o600)
            key.write_text(password)
            self._disk |= {"user": user, "password-secret": "chap"}
            self._secret = ["--object", f"secret,id=chap,file={toolbox.path(key)}"]

    def write(self) -> Published:
        publication, url = self._publication, self._url
        size = self._size(self._image, self._format)
        room = self._size(self._part(), "raw")
        if room < size:
            raise too_small(url, room, size)
        what = held(self._read, room)
        if what and not publication.force:
            raise refuse(url, what)
        with publication.events.activity("write"):
            self._run("qemu-img", "convert", "-n", "-f", self._format, "-O", "raw", self._image, self._part())
            if room > size:  # a table that stood there would be found beside the new one
                start = max(size, room - EDGE)
                self._run("qemu-io", "-c", f"write -z -u {start} {room - start}", self._part())
        with publication.events.activity("read back"):
            # Of the target what was written; behind that may be more.
            self._run("qemu-img", "compare", "-f", self._format, "-F", "raw", self._image, self._part(0, size))
        return Published(url, {})

    def _size(self, image: str, kind: str) -> int:
        form = () if image.startswith("json:") else ("-f", kind)
        found: int = json.loads(self._run("qemu-img", "info", "--output=json", *form, image))["virtual-size"]
        return found

    def _part(self, offset: int = 0, length: int = 0) -> str:
        """Bytes of the target, named as QEMU takes them; without a length, all."""
        part = {"offset": offset, "size": length} if length else {}
        return "json:" + json.dumps({"driver": "raw", **part, "file": self._disk})

    def _read(self, offset: int, length: int) -> bytes:
        part = self._scratch / "part"
        self._run("qemu-img", "convert", "-O", "raw", self._part(offset, length), self._toolbox.path(part))
        return part.read_bytes()

    def _run(self, program: str, *argv: str) -> str:
        command, rest = (argv[:1], argv[1:]) if program == "qemu-img" else ((), argv)
        try:
            return self._toolbox.run([program, *command, *self._secret, *rest]).output
        except ToolFailed as error:
            said = error.output.strip().splitlines()
            last = re.sub(r"'?json:\{.*?\}\}'?(: )?", "", said[-1]) if said else f"{program} ended with {error.status}"
            raise PublishError(
                f"{self._url} cannot be used: {last}",
                hint="is the target there, is its name right, and does it let you in? User and password come from"
                f" {' and '.join(_CHAP)}",
            ) from error
