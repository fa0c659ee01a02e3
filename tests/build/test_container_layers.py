"""Containers in layers: one over another they are the tree, and images with the same beginnings share layers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements
from tests.container_archives import Entries, flattened, of_docker, of_oci, read
from tests.gate import registry
from tests.people import ourselves

from dibble.sandbox.tools import host_arch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.people import Person

pytestmark = pytest.mark.build
TAG = "org.opencontainers.image.ref.name"
"""The annotation that names an image (OCI image-spec 1.1, "Pre-Defined Annotation Keys")."""

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


def small_elements(person: Person) -> SmallElements:
    made = SmallElements(person, person.directory("layers"))
    made.script("small/root.d/20-more", ROOT)
    for name in ("app", "other"):
        made.write(f"{name}/README.rst", f"{'=' * len(name)}\n{name}\n{'=' * len(name)}\nA program.\n")
    made.script("app/install.d/50-app", APP)
    made.script("other/install.d/60-other", "echo other > /opt/lib/twice; echo other > /opt/app-other")
    made.script("app/post-install.d/70-app", "echo last > /opt/lib/twice")
    return made


@pytest.fixture(params=["ourselves", "ordinary_user"])
def elements(request: pytest.FixtureRequest) -> SmallElements:
    return small_elements(request.getfixturevalue(request.param))


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
    validated(elements.place / "whole.oci", tree, tmp_path)
    published(elements, tmp_path)
    taken_by_docker(elements.place / "whole.docker", layers, tmp_path)


def validated(archive: Path, tree: Entries, work: Path) -> None:
    """umoci, a reader of its own, takes every layer out; what it then has is the tree."""
    layout, bundle = work / "layout", work / "bundle"
    layout.mkdir()
    with tarfile.open(archive) as tar:
        tar.extractall(layout, filter="data")
    (tag,) = (image["annotations"][TAG] for image in json.loads((layout / "index.json").read_text())["manifests"])
    subprocess.run(["umoci", "stat", "--image", f"{layout}:{tag}"], check=True, capture_output=True)
    whose = [] if os.getuid() == 0 else ["--rootless"]
    subprocess.run(["umoci", "unpack", *whose, "--image", f"{layout}:{tag}", bundle], check=True, capture_output=True)
    root = bundle / "rootfs"
    found = {f"./{path.relative_to(root)}" for path in root.rglob("*")}
    assert found == tree.keys() - {"."}
    for name, told in tree.items():
        status = (root / name).lstat()
        if os.getuid() == 0:
            assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == told[1:4] or told[0] == tarfile.SYMTYPE
        if told[0] == tarfile.REGTYPE:
            assert hashlib.sha256((root / name).read_bytes()).hexdigest() == told[8], name
            assert int(status.st_mtime) == told[4]


def published(elements: SmallElements, work: Path) -> None:
    """A registry gets each layer once, also when the first try breaks off, and gives back the same layers."""
    whole, less = (elements.place / f"{name}.oci" for name in ("whole", "less"))
    with registry(work) as gate:
        gate.counts = lambda method, path: method == "PUT" and "/blobs/" in path
        gate.left = 2
        target = f"docker://{gate.address}/web/app"
        words = ("-p", "tls=no")
        broken = elements.run("publish", str(whole), "--to", f"{target}:whole", *words, check=False)
        assert broken.returncode != 0
        assert "Traceback" not in broken.stderr
        assert gate.passed == 2
        gate.left, gate.passed = 1 << 30, 0
        elements.run("publish", str(whole), "--to", f"{target}:whole", *words)
        assert gate.passed == len(blobs(whole)) - 2
        gate.passed = 0
        elements.run("publish", str(less), "--to", f"{target}:less", *words)
        assert gate.passed == len(blobs(less) - blobs(whole)) < len(blobs(less)), "a layer was sent again"
        for name, archive in (("whole", whole), ("less", less)):
            back = work / f"{name}.oci"
            skopeo("copy", "--src-tls-verify=false", f"{target}:{name}", f"oci-archive:{back}")
            assert of_oci(back) == of_oci(archive)
            assert blobs(back) == blobs(archive), "the registry has other bytes"


def taken_by_docker(archive: Path, layers: list[bytes], work: Path) -> None:
    """skopeo reads what `docker load` does."""
    back = work / "back.oci"
    skopeo("copy", f"docker-archive:{archive}", f"oci-archive:{back}")
    assert of_oci(back) == layers
    assert json.loads(skopeo("inspect", f"docker-archive:{archive}"))["Architecture"] == host_arch()


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", "--insecure-policy", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def blobs(archive: Path) -> set[str]:
    """The digests of layers and configuration."""
    with tarfile.open(archive) as tar:
        [image] = json.load(tar.extractfile("index.json"))["manifests"]  # type: ignore[arg-type]  # it is a file
        manifest = json.load(tar.extractfile(f"blobs/sha256/{image['digest'][7:]}"))  # type: ignore[arg-type]
    return {blob["digest"] for blob in (*manifest["layers"], manifest["config"])}


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


@pytest.fixture
def docker() -> Iterator[tuple[str, ...]]:
    """The words that begin a command for a daemon of our own, without a network."""
    if os.getuid() != 0:
        pytest.skip("Docker's daemon runs as root")
    # a short path: its sockets have names of at most 104 bytes
    directory = tempfile.TemporaryDirectory(prefix="docker-", dir="/tmp")
    place = Path(directory.name)
    socket = f"unix://{place}/socket"
    own = [f"--{name}={place}/{name}" for name in ("data-root", "exec-root", "pidfile")]
    apart = ["--storage-driver=vfs", "--bridge=none", "--iptables=false", f"--host={socket}"]
    said = place / "said"
    with said.open("wb") as log:
        # in mounts of its own, which end with it
        daemon = subprocess.Popen(["unshare", "--mount", "dockerd", *own, *apart], stdout=log, stderr=log)
    words = ("docker", "--host", socket)
    try:
        for _ in range(120):
            if subprocess.run([*words, "version"], check=False, capture_output=True).returncode == 0:
                break
            assert daemon.poll() is None, said.read_text()[-2000:]
            time.sleep(0.5)
        yield words
    finally:
        daemon.terminate()
        daemon.wait(60)
        directory.cleanup()


def test_docker_loads_the_layers_and_gives_them_back(tmp_path: Path, docker: tuple[str, ...]) -> None:
    person = ourselves()
    elements = small_elements(person)
    elements.run(
        "build", "-n", "-t", "tar,docker", "-o", "image", "--docker-target", "example.org/web:1", "small", "app"
    )
    archive = elements.place / "image.docker"
    loaded = subprocess.run([*docker, "load", "--input", archive], check=True, capture_output=True, text=True)
    assert "example.org/web:1" in loaded.stdout
    subprocess.run([*docker, "save", "--output", tmp_path / "back", "example.org/web:1"], check=True)
    layers = of_docker(tmp_path / "back")
    assert layers == of_docker(archive)
    subprocess.run([*docker, "create", "--name", "web", "example.org/web:1"], check=True, capture_output=True)
    subprocess.run([*docker, "export", "--output", tmp_path / "tree", "web"], check=True)
    with tarfile.open(tmp_path / "tree") as tar:
        found = {f"./{name.rstrip('/')}" for name in tar.getnames()}
    wanted = flattened([(elements.place / "image.tar").read_bytes()]).keys() - {"."}
    assert not wanted - found
    assert all(name.split("/")[1] in ("dev", "etc", "proc", "sys", ".dockerenv") for name in found - wanted)
