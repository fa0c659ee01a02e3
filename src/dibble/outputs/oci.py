"""A container as an image layout of the Open Container Initiative, in one archive, with layers in gzip.

Sources: OCI image-spec 1.1, "Image Layout", "Image Manifest", "Image Layer Filesystem Changeset". skopeo, podman and
buildah call the file an oci-archive.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

from dibble.outputs.base import OutputInfo
from dibble.outputs.container_image import configuration, json_bytes, member, platform_of, reference
from dibble.outputs.container_layers import layers_of
from dibble.outputs.tar_file import TarWriter
from dibble.tree.ustar import BLOCK

if TYPE_CHECKING:
    from typing import BinaryIO

    from dibble.outputs.base import Writing

_TYPE = "application/vnd.oci.image."


class Oci:
    """`N.oci`."""

    info: ClassVar[OutputInfo] = OutputInfo(
        suffix="oci",
        reads="tree",
        summary="an OCI image layout as an archive",
        depends_on=lambda request: (reference(request),),
        by_layer=True,
    )

    def write(self, writing: Writing) -> None:
        from dibble.outputs.compressed import Gzip

        with writing.target_file.open("wb") as file, writing.events.activity("oci") as activity:
            blobs = _Blobs(file, writing.epoch)
            blobs.add_file("oci-layout", json_bytes({"imageLayoutVersion": "1.0.0"}))
            told, layers = [], []
            for layer in layers_of(writing.source, writing.epoch):
                plain = hashlib.sha256()
                blobs.begin()
                with Gzip(blobs.put) as stream:

                    def put(
                        data: bytes | memoryview, stream: Gzip = stream, plain: Any = plain
                    ) -> None:  # hashlib names no type
                        plain.update(data)
                        stream.write(data)

                    TarWriter(put, writing.epoch, activity).write_entries(layer.entries)
                    stream.finish()
                layers.append(blobs.end("layer.v1.tar+gzip"))
                told.append((layer.name, plain.hexdigest()))
            config = blobs.add("config.v1+json", configuration(writing.root, writing.request.arch, told, writing.epoch))
            manifest = blobs.add("manifest.v1+json", {
                "schemaVersion": 2, "mediaType": f"{_TYPE}manifest.v1+json", "config": config, "layers": layers,
            })  # fmt: skip
            manifest["platform"] = platform_of(writing.request.arch)
            manifest["annotations"] = {"org.opencontainers.image.ref.name": reference(writing.request)}
            index = {"schemaVersion": 2, "mediaType": f"{_TYPE}index.v1+json", "manifests": [manifest]}
            blobs.add_file("index.json", json_bytes(index))
            file.write(bytes(2 * BLOCK))


class _Blobs:
    """The files of the archive. One whose size is not known before gets its header when it is complete."""

    def __init__(self, file: BinaryIO, epoch: int) -> None:
        self._file = file
        self._epoch = epoch
        self._there: set[str] = set()

    def begin(self) -> None:
        self._start = self._file.tell()
        self._size = 0
        self._digest = hashlib.sha256()
        self._file.write(bytes(BLOCK))

    def put(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    def end(self, kind: str) -> dict[str, Any]:
        """The descriptor of what was put since `begin` (OCI image-spec, "Content Descriptors")."""
        digest = self._digest.hexdigest()
        if digest in self._there:
            self._file.seek(self._start)
            self._file.truncate()
        else:
            self._there.add(digest)
            self._file.write(bytes(-self._size % BLOCK))
            end = self._file.tell()
            self._file.seek(self._start)
            self._file.write(member(f"blobs/sha256/{digest}", self._size, self._epoch))
            self._file.seek(end)
        return {"mediaType": f"{_TYPE}{kind}", "digest": f"sha256:{digest}", "size": self._size}

    def add(self, kind: str, value: object) -> dict[str, Any]:
        self.begin()
        self.put(json_bytes(value))
        return self.end(kind)

    def add_file(self, name: str, data: bytes) -> None:
        self._file.write(member(name, len(data), self._epoch) + data + bytes(-len(data) % BLOCK))
