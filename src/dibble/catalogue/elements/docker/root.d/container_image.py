#!/usr/bin/env python3
"""Unpacks an image of a container registry, or of a `docker save` archive, into a directory.

Sources: OCI distribution specification 1.1 (pull, tokens), OCI image specification 1.1 (indices, whiteouts); for
archives the manifest.json that Docker writes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INDICES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
CHUNK = 1 << 20


class PullError(Exception):
    """What went wrong, as a sentence for the user."""


@dataclass
class Reference:
    """The parts of NAME[:TAG][@DIGEST], as `docker pull` completes them."""

    registry: str
    repository: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        name, _, digest = text.partition("@")
        first, slash, rest = name.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            registry, path = first, rest
        else:
            registry, path = "registry-1.docker.io", name
        head, colon, tag = path.rpartition(":")
        repository = head if colon else path
        if registry == "registry-1.docker.io" and "/" not in repository:
            repository = f"library/{repository}"
        if not re.fullmatch(r"[a-z0-9]+([._/-]+[a-z0-9]+)*", repository):
            raise PullError(f"{text} is not the name of an image")
        return cls(registry, repository, digest or (tag if colon else "latest"))


@dataclass
class Registry:
    """One repository of a registry; asks for a token when told to."""

    reference: Reference
    _token: str = field(default="", repr=False)

    @property
    def _base(self) -> str:
        # As Docker does: only a registry of this machine is trusted without https.
        host = self.reference.registry.partition(":")[0]
        scheme = "http" if host in ("localhost", "127.0.0.1") else "https"
        return f"{scheme}://{self.reference.registry}/v2/{self.reference.repository}"

    def open(self, path: str, accept: tuple[str, ...] = ()) -> Any:
        """The answer to a request, as a readable; raises PullError."""
        url = f"{self._base}/{path}"
        for attempt in (1, 2):
            request = urllib.request.Request(url, headers={"Accept": ", ".join(accept)} if accept else {})
            if self._token:
                # Not on to the servers that a registry refers to for content.
                request.add_unredirected_header("Authorization", f"Bearer {self._token}")
            try:
                return urllib.request.urlopen(request, timeout=60)
            except urllib.error.HTTPError as error:
                challenge = error.headers.get("WWW-Authenticate", "")
                if error.code == 401 and attempt == 1 and challenge.lower().startswith("bearer "):
                    self._token = _token_of(challenge)
                    continue
                raise PullError(f"{url}: {error.code} {error.reason}") from error
            except OSError as error:
                raise PullError(f"{url} cannot be reached: {error}") from error
        raise PullError(f"{self.reference.registry} does not accept its own token for {url}")


def _token_of(challenge: str) -> str:
    """Get the token that a registry's challenge says where to get."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    query = urllib.parse.urlencode({name: fields[name] for name in ("service", "scope") if name in fields})
    try:
        with urllib.request.urlopen(f"{fields['realm']}?{query}", timeout=60) as answer:
            data = json.load(answer)
        return str(data.get("token") or data["access_token"])
    except (OSError, KeyError, ValueError) as error:
        raise PullError(f"no token can be had from {fields.get('realm', 'the registry')}: {error}") from error


def _blob(cache: Path, digest: str, registry: Registry | None) -> Path:
    """A blob in the cache, fetched when it is not there; `registry` is None offline."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise PullError(f"{digest} is not a digest that can be checked")
    path = cache / digest.replace(":", "-")
    if path.exists():
        return path
    if registry is None:
        raise PullError(f"{digest} is not in the cache, and the build is offline")
    with tempfile.NamedTemporaryFile(dir=cache, delete=False) as new:
        try:
            found = hashlib.sha256()
            with registry.open(f"blobs/{digest}") as answer:
                while chunk := answer.read(CHUNK):
                    found.update(chunk)
                    new.write(chunk)
            if f"sha256:{found.hexdigest()}" != digest:
                raise PullError(f"{digest} arrived with another content")
            Path(new.name).rename(path)
        except BaseException:
            Path(new.name).unlink(missing_ok=True)
            raise
    return path


def _manifest(registry: Registry | None, reference: Reference, architecture: str, cache: Path) -> dict[str, Any]:
    """The manifest of the image for an architecture. Offline it is the one that was seen last."""
    name = hashlib.sha256(f"{reference} {architecture}".encode()).hexdigest()
    kept = cache / f"manifest-{name}"
    if registry is None:
        if not kept.exists():
            raise PullError(f"{reference.repository}:{reference.version} is not in the cache, and the build is offline")
        seen: dict[str, Any] = json.loads(kept.read_bytes())
        return seen
    version = reference.version
    for _ in range(3):
        with registry.open(f"manifests/{version}", (*INDICES, *MANIFESTS)) as answer:
            text = answer.read()
        if version.startswith("sha256:") and f"sha256:{hashlib.sha256(text).hexdigest()}" != version:
            raise PullError(f"the manifest {version} arrived with another content")
        manifest: dict[str, Any] = json.loads(text)
        if "layers" in manifest:
            kept.write_bytes(text)
            return manifest
        fitting = [
            entry["digest"]
            for entry in manifest.get("manifests", ())
            if entry.get("platform", {}).get("os") == "linux" and entry["platform"].get("architecture") == architecture
        ]
        if not fitting:
            break
        version = fitting[0]
    raise PullError(f"there is no {reference.repository}:{reference.version} for {architecture}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _inside(root: Path, name: str) -> Path:
    """The path in the tree that a name in an archive means; raises PullError for one that leads out of it."""
    parent = os.path.realpath(root / os.path.dirname(name))
    if os.path.commonpath([parent, os.path.realpath(root)]) != os.path.realpath(root):
        raise PullError(f"a layer names {name}, which is outside the image")
    return Path(parent) / os.path.basename(name)


def unpack(layer: Path, root: Path) -> None:
    """Put a layer onto the tree: first what it takes away, then what it brings."""
    with tarfile.open(layer) as archive:
        marks = [os.path.normpath(name) for name in archive.getnames() if os.path.basename(name).startswith(WHITEOUT)]
    for mark in marks:
        folder, name = os.path.split(mark)
        if name == OPAQUE:
            directory = _inside(root, f"{folder}/.").parent if not folder else _inside(root, folder)
            for path in directory.iterdir() if directory.is_dir() else ():
                _remove(path)
        else:
            _remove(_inside(root, os.path.join(folder, name.removeprefix(WHITEOUT))))
    options = ["--numeric-owner", "--same-permissions", "--same-owner", "--xattrs", "--xattrs-include=*"]
    options += ["--exclude=.wh.*", "--keep-directory-symlink"]
    # Devices are made by the system that boots.
    options += ["--exclude=dev/*", "--exclude=./dev/*"]
    subprocess.run(["tar", "--extract", "--file", str(layer), "--directory", str(root), *options], check=True)


def from_registry(image: str, root: Path, architecture: str, cache: Path, *, offline: bool) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    reference = Reference.parse(image)
    registry = None if offline else Registry(reference)
    manifest = _manifest(registry, reference, architecture, cache)
    for layer in manifest["layers"]:
        print(f"docker: {layer['digest']}, {layer['size'] / 1e6:.1f} MB", flush=True)
        unpack(_blob(cache, layer["digest"], registry), root)


def from_archive(file: Path, root: Path) -> None:
    with tempfile.TemporaryDirectory() as place, tarfile.open(file) as archive:
        try:
            listed = archive.extractfile("manifest.json")
            layers = json.loads(listed.read())[0]["Layers"] if listed else []
        except (KeyError, ValueError) as error:
            raise PullError(f"{file} is not an archive that docker save has written") from error
        for name in layers:
            layer = Path(place) / "layer"
            content = archive.extractfile(name)
            if content is None:
                raise PullError(f"{file} has no {name}")
            with layer.open("wb") as target:
                shutil.copyfileobj(content, target, CHUNK)
            unpack(layer, root)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="amd64")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--archive", action="store_true", help="IMAGE is a file")
    parser.add_argument("image")
    parser.add_argument("root", type=Path)
    options = parser.parse_args()
    try:
        if options.archive:
            from_archive(Path(options.image), options.root)
        else:
            from_registry(options.image, options.root, options.architecture, options.cache, offline=options.offline)
    except (PullError, tarfile.TarError, subprocess.CalledProcessError) as error:
        print(f"docker: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
