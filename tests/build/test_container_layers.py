"""Containers in layers: one over another they are the tree, and images with the same beginnings share layers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from tests.build.small_elements import SmallElements

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build
Entries: TypeAlias = dict[str, tuple[Any, ...]]

ROOT = """
cd "$TARGET_ROOT/opt"
mkdir -p lib plain turned/deep closed empty
echo old > lib/replaced; echo old > lib/twice; echo old > gone; echo old > turned/deep/file; echo old > becomes
echo kept > lib/kept; ln lib/kept lib/again; echo linked > lib/first; ln lib/first lib/second
ln -s kept lib/link; echo "$RANDOM" > "$TARGET_ROOT/etc/chance"
"""
APP = """
cd /opt
echo new > lib/replaced; rm -r gone turned becomes; echo file > turned; mkdir becomes; echo deep > becomes/file
chmod 700 closed; echo one > app; cp -l app app-again; mkfifo pipe; chmod 4755 app; echo app > /etc/app
echo more >> lib/first; echo app > lib/twice; echo fixed > /etc/chance
"""


@pytest.fixture(params=["ourselves", "ordinary_user"])
def elements(request: pytest.FixtureRequest) -> SmallElements:
    person: Person = request.getfixturevalue(request.param)
    made = SmallElements(person, person.directory("layers"))
    made.script("small/root.d/20-more", ROOT)
    for name in ("app", "other"):
        made.write(f"{name}/README.rst", f"{'=' * len(name)}\n{name}\n{'=' * len(name)}\nA program.\n")
    made.script("app/install.d/50-app", APP)
    made.script("other/install.d/60-other", "echo other > /opt/lib/twice; echo other > /opt/app-other")
    made.script("app/post-install.d/70-app", "echo last > /opt/lib/twice")
    return made


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
    with tarfile.open(archive) as tar:
        [manifest] = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]  # it is a file
        return [tar.extractfile(name).read() for name in manifest["Layers"]]  # type: ignore[union-attr]


def of_oci(archive: Path) -> list[bytes]:
    with tarfile.open(archive) as tar:

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


def test_the_layers_are_the_tree_and_the_base_is_shared(elements: SmallElements, tmp_path: Path) -> None:
    for name, words in (("less", ["small", "app"]), ("whole", ["small", "app", "other"])):
        elements.run("build", "-n", "-t", "tar,docker,oci", "-o", name, *words)
        tree = flattened([(elements.place / f"{name}.tar").read_bytes()])
        layers = of_docker(elements.place / f"{name}.docker")
        assert flattened(layers) == tree
        assert of_oci(elements.place / f"{name}.oci") == layers
    less = of_docker(elements.place / "less.docker")
    assert "./usr/bin/bash" in read(layers[0])
    assert layers[0] == less[0]
    base, app, other, state = (read(layer) for layer in layers)
    assert all(not name.startswith(("./etc", "./root", "./var")) for name in base)
    assert "./etc/mark" in state
    assert {"./etc/app", "./opt/app", "./opt/app-again", "./opt/pipe", "./opt/becomes/file"} <= set(app)
    assert {name for name in other if name.startswith("./opt/app")} == {"./opt/app-other"}
    copied = tmp_path / "copied"
    words = ["skopeo", "--insecure-policy", "copy", f"oci-archive:{elements.place}/whole.oci", f"dir:{copied}"]
    subprocess.run(words, check=True, capture_output=True)
    inspected = subprocess.check_output(["skopeo", "inspect", f"oci-archive:{elements.place}/whole.oci"])
    assert len(json.loads(inspected)["Layers"]) == 4


def test_an_image_layout_is_the_same_bytes_again(elements: SmallElements) -> None:
    sums = set()
    for name in ("one", "two"):
        words = ("-t", "oci", "-o", name, "--docker-target", "example.org/web:1", "--refresh", "20-more")
        elements.run("build", "-n", *words, "small", "app")
        sums.add(hashlib.sha256((elements.place / f"{name}.oci").read_bytes()).hexdigest())
    assert len(sums) == 1
    with tarfile.open(elements.place / "two.oci") as tar:
        [image] = json.load(tar.extractfile("index.json"))["manifests"]  # type: ignore[arg-type]  # it is a file
    assert image["annotations"] == {"org.opencontainers.image.ref.name": "example.org/web:1"}
