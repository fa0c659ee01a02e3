"""Archives of containers, read with Python's tarfile: their layers, and the tree that these are one over another."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

Entries: TypeAlias = dict[str, tuple[Any, ...]]


def read(data: bytes) -> Entries:
    """What an archive tells of each entry, the content as its digest; names of one file have the same, whose last part
    is the first of the names."""
    found: Entries = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            content = hashlib.sha256(file.read()).hexdigest() if file else ""
            attributes = tuple(sorted((k, v) for k, v in info.pax_headers.items() if k.startswith("SCHILY")))
            if info.islnk():
                assert info.linkname in found, "a link leads out of its layer"
                found[info.name] = found[info.linkname]
                continue
            device = (info.devmajor, info.devminor)
            found[info.name] = (
                info.type, info.mode, info.uid, info.gid, info.mtime, info.linkname, attributes, device, content,
                info.name,
            )  # fmt: skip
    return found


def flattened(layers: list[bytes]) -> Entries:
    """One layer over another, as OCI image-spec 1.1, "Applying Changesets" says."""
    tree: Entries = {}
    for number, layer in enumerate(layers):
        for name, told in read(layer).items():
            entry = (*told, number)
            assert ".wh." not in name
            if entry[0] != tarfile.DIRTYPE and tree.get(name, entry)[0] == tarfile.DIRTYPE:
                tree = {other: rest for other, rest in tree.items() if not other.startswith(f"{name}/")}
            tree[name] = entry
    names: dict[Any, str] = {}
    return {name: (*entry[:-2], names.setdefault(entry[-2:], name)) for name, entry in sorted(tree.items())}


def of_docker(archive: Path) -> list[bytes]:
    """The layers, the lowest first."""
    with tarfile.open(archive) as tar:
        assert len(tar.getnames()) == len(set(tar.getnames())), "something is in the archive twice"
        [manifest] = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]  # it is a file
        return [tar.extractfile(name).read() for name in manifest["Layers"]]  # type: ignore[union-attr]


def of_oci(archive: Path) -> list[bytes]:
    """The layers, the lowest first; every size and digest on the way to them is checked."""
    with tarfile.open(archive) as tar:
        assert len(tar.getnames()) == len(set(tar.getnames())), "something is in the archive twice"

        def blob(descriptor: dict[str, Any]) -> bytes:
            data: bytes = tar.extractfile(f"blobs/sha256/{descriptor['digest'][7:]}").read()  # type: ignore[union-attr]
            assert (len(data), hashlib.sha256(data).hexdigest()) == (descriptor["size"], descriptor["digest"][7:])
            return data

        assert json.load(tar.extractfile("oci-layout")) == {"imageLayoutVersion": "1.0.0"}  # type: ignore[arg-type]
        [image] = json.load(tar.extractfile("index.json"))["manifests"]  # type: ignore[arg-type]
        manifest = json.loads(blob(image))
        layers = [gzip.decompress(blob(layer)) for layer in manifest["layers"]]
        config = json.loads(blob(manifest["config"]))
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    return layers
