"""Several architectures of one request, and formats that share what was built."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.build.small_elements import SmallElements, cached, ran

if TYPE_CHECKING:
    from pathlib import Path

    from tests.people import Person

pytestmark = pytest.mark.build


@pytest.fixture(params=["ourselves", "ordinary_user"])
def elements(request: pytest.FixtureRequest) -> SmallElements:
    person: Person = request.getfixturevalue(request.param)
    made = SmallElements(person, person.directory("several"))
    made.script("small/install.d/50-arch", "echo $ARCH > /etc/arch")
    return made


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def content(tar: Path, name: str) -> str:
    return subprocess.check_output(["tar", "xOf", tar, name], text=True)


def test_each_architecture_gets_an_image_of_its_own(elements: SmallElements) -> None:
    events = elements.build("-a", "amd64,i386", "small")
    for arch in ("amd64", "i386"):
        own = [event for event in events if event.get("arch") == arch]
        assert own[0]["event"] == "BuildStarted"
        assert own[0]["name"] == f"small-{arch}"
        assert "install.d/50-arch" in ran(own)
        assert content(elements.place / f"small-{arch}.tar", "./etc/arch") == f"{arch}\n"
    assert not (elements.place / "small.tar").exists()
    plans = json.loads(elements.run("plan", "-n", "-t", "tar", "--json", "-a", "amd64,i386", "small").stdout)
    assert [(plan["name"], plan["arch"]) for plan in plans] == [("small-amd64", "amd64"), ("small-i386", "i386")]


def test_one_that_fails_leaves_the_others_to_finish_and_gives_its_status(elements: SmallElements) -> None:
    elements.script("small/install.d/60-fails", '[ "$ARCH" != amd64 ] || exit 7')
    done = elements.run("build", "-n", "-t", "tar", "-a", "amd64,i386", "small", check=False)
    assert done.returncode == 7
    assert re.search(r"^amd64: .*60-fails ended with status 7", done.stdout, re.MULTILINE)
    assert {path.name for path in elements.place.glob("*.tar")} == {"small-i386.tar"}


def test_a_recipe_lists_architectures(elements: SmallElements) -> None:
    elements.write("../svc.yaml", "arch: [amd64, i386]\nelements: [small]\noutputs: [tar]\nskip-base: true\n")
    elements.run("build", "svc.yaml")
    assert {path.name for path in elements.place.glob("*.tar")} == {"svc-amd64.tar", "svc-i386.tar"}


def test_an_architecture_that_does_not_run_here_is_told_before_anything_is_built(elements: SmallElements) -> None:
    done = elements.run("build", "-n", "-t", "tar", "-a", "amd64,arm46", "small", check=False)
    assert not list(elements.place.glob("*.tar"))
    assert done.returncode == 2
    assert 'unknown architecture "arm46"' in done.stderr
    assert "did you mean arm64" in done.stderr


def test_an_interruption_ends_all_of_them(elements: SmallElements) -> None:
    person = elements.person
    elements.script("small/install.d/60-waits", "touch /dev/dibble/here\nsleep 300")
    process = subprocess.Popen(
        [person.checkout / "dibble", "build", "-n", "-t", "tar", "-a", "amd64,i386", "small"],
        cwd=elements.place,
        env=elements.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=None if os.getuid() == person.uid else person.uid,
        group=None if os.getuid() == person.uid else person.gid,
        extra_groups=None if os.getuid() == person.uid else [],
        # a shell that starts the tests in the background has SIGINT ignored, which children would inherit
        preexec_fn=_heed_interrupts,  # noqa: PLW1509
    )
    assert process.stdout is not None
    waiting = set()
    for line in process.stdout:
        if "Running install.d/60-waits" in line:
            waiting.add(line.split(":")[0])
            if len(waiting) == 2:
                break
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait() == 130, rest
    assert not list(elements.place.glob("*.tar"))


def test_a_docker_archive_shares_every_step_and_is_taken_by_skopeo(elements: SmallElements, tmp_path: Path) -> None:
    elements.build("small")
    done = elements.run("build", "-n", "-t", "docker", "--json", "small")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert ran(events) == []
    assert cached(events)
    archive = elements.place / "small.docker"
    with tarfile.open(archive) as found:
        names = found.getnames()
        manifest = json.load(found.extractfile("manifest.json"))  # type: ignore[arg-type]  # it is a file
        config = json.load(found.extractfile(manifest[0]["Config"]))  # type: ignore[arg-type]
        layers = manifest[0]["Layers"]
        digests = [hashlib.sha256(found.extractfile(name).read()).hexdigest() for name in layers]  # type: ignore[union-attr]
    assert names == [*layers, manifest[0]["Config"], "manifest.json"]
    assert manifest[0]["RepoTags"] == ["small:latest"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in digests]
    assert [entry["created_by"] for entry in config["history"]] == ["dibble: base", "dibble: small", "dibble: state"]
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    oci = tmp_path / "oci"
    subprocess.run(["skopeo", "copy", f"docker-archive:{archive}", f"oci:{oci}:x"], check=True, capture_output=True)
    back = tmp_path / "back.tar"
    subprocess.run(
        ["skopeo", "copy", f"oci:{oci}:x", f"docker-archive:{back}:small:x"], check=True, capture_output=True
    )
    inspected = json.loads(subprocess.check_output(["skopeo", "inspect", f"docker-archive:{back}"]))
    assert inspected["Architecture"] == "amd64"


def test_a_docker_archive_is_the_same_bytes_again_and_named_as_asked(elements: SmallElements) -> None:
    sums = set()
    for name in ("one", "two"):
        words = ("-n", "-t", "docker", "-o", name, "--docker-target", "example.org/web:1", "--refresh", "10-small")
        elements.run("build", *words, "small")
        sums.add(hashlib.sha256((elements.place / f"{name}.docker").read_bytes()).hexdigest())
    assert len(sums) == 1
    inspected = subprocess.check_output(["tar", "xOf", elements.place / "two.docker", "manifest.json"])
    assert json.loads(inspected)[0]["RepoTags"] == ["example.org/web:1"]
    elements.run("build", "-n", "-t", "docker", "-o", "two", "--docker-target", "example.org/other:2", "small")
    inspected = subprocess.check_output(["tar", "xOf", elements.place / "two.docker", "manifest.json"])
    assert json.loads(inspected)[0]["RepoTags"] == ["example.org/other:2"], "the stored archive has another tag"
