"""Images are published to servers of each protocol: whole, with their properties, and a broken upload goes on."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from tests.contract.glance import Glance
from tests.gate import Gate, gate_before, registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.contract

SIZE = 100 << 20
DATA_AT = (3 << 20, 17 << 20, 18 << 20, 55 << 20, (99 << 20) - 4096)
SECRET = "dont-tell-anybody"
Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk of 100 MiB with a little data, for BIOS and UEFI, whose root partition tells amd64."""
    path = tmp_path_factory.mktemp("image") / "moon.raw"
    content = random.Random(5)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for place in DATA_AT:
            file.seek(place)
            file.write(content.randbytes(4096))
    parts = ["-n1:2048:4095", "-t1:ef02", "-n2:4096:6143", "-t2:ef00", "-n3:6144:200000", "-t3:8304"]
    subprocess.run(["sgdisk", *parts, path], check=True, capture_output=True)
    return path


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Run]:
    def run(image: Path, target: str, *more: str, environment: dict[str, str], works: bool = True) -> Run:
        base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DIB_IMAGE_CACHE": str(tmp_path / "cache")}
        tools = os.environ.get("DIBBLE_TEST_CACHE")
        if target.startswith("docker") and tools:
            base["DIB_IMAGE_CACHE"] = tools
        argv = [sys.executable, "-m", "dibble", "publish", str(image), "--to", target, *more]
        passed = {key: value for key, value in os.environ.items() if key.startswith(("PYTHON", "DIB_DISTRIBUTION"))}
        done = subprocess.run(
            argv,
            env={**passed, **base, "PYTHONPATH": "src", **environment},
            text=True,
            capture_output=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert (done.returncode == 0) is works, said
        assert "Traceback" not in said
        assert SECRET not in said
        return done

    return run


# --- Amazon's protocols


def is_piece(method: str, path: str) -> bool:
    """A part of an upload to S3, or a block of a snapshot."""
    return method == "PUT" and ("partNumber=" in path or "/blocks/" in path)


@pytest.fixture
def amazon() -> Iterator[tuple[Gate, dict[str, str]]]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with gate_before(host, port, is_piece) as gate:
        yield (
            gate,
            {
                "AWS_ENDPOINT_URL": f"http://{gate.address}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_MAX_ATTEMPTS": "1",
            },
        )
    server.stop()


def client(service: str, environment: dict[str, str]) -> Any:
    import boto3

    return boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )


def test_a_bucket_gets_the_image_with_its_properties_and_only_the_missing_parts_again(
    image: Path, publish: Callable[..., Run], amazon: tuple[Gate, dict[str, str]]
) -> None:
    gate, environment = amazon
    store = client("s3", environment)
    store.create_bucket(Bucket="images")
    gate.left = 2
    words = ("s3://images/web/", "-p", "owner=me")
    broken = publish(image, *words, environment=environment, works=False)
    assert "publish again" in broken.stderr
    gate.left, gate.passed = 1 << 30, 0
    done = publish(image, *words, environment=environment)
    assert done.stdout == "s3://images/web/moon.raw\n"
    assert "2 parts are there" in done.stderr
    assert gate.passed == 7 - 2
    found = store.get_object(Bucket="images", Key="web/moon.raw")
    assert found["Body"].read() == image.read_bytes()
    assert found["Metadata"]["architecture"] == "amd64"
    assert found["Metadata"]["firmware"] == "both"
    assert found["Metadata"]["owner"] == "me"
    assert not store.list_multipart_uploads(Bucket="images").get("Uploads")


def test_ec2_gets_a_snapshot_of_the_blocks_with_data_and_an_image_of_it(
    image: Path, publish: Callable[..., Run], amazon: tuple[Gate, dict[str, str]]
) -> None:
    gate, environment = amazon
    blocks = {place // (512 << 10) for place in DATA_AT} | {0, (SIZE - 1) // (512 << 10)}
    gate.left = 3
    publish(image, "ec2", "--name", "moon-1", environment=environment, works=False)
    gate.left, gate.passed = 1 << 30, 0
    done = publish(image, "ec2", "--name", "moon-1", "--json", environment=environment)
    result = json.loads(done.stdout.splitlines()[-1])
    assert "3 blocks are there" in done.stdout
    assert gate.passed == len(blocks) - 3
    machines = client("ec2", environment)
    (registered,) = machines.describe_images(ImageIds=[result["ids"]["image"]])["Images"]
    assert registered["Name"] == "moon-1"
    (asked,) = [form for form in gate.forms if form["Action"] == ["RegisterImage"]]  # moto keeps less than it is told
    assert asked["Architecture"] == ["x86_64"]
    assert asked["BootMode"] == ["uefi-preferred"]
    assert asked["BlockDeviceMapping.1.Ebs.SnapshotId"] == [result["ids"]["snapshot"]]
    assert content_of(client("ebs", environment), result["ids"]["snapshot"]) == image.read_bytes()
    ours = [{"Name": "tag:Name", "Values": ["moon-1"]}]
    assert len(machines.describe_snapshots(Filters=ours)["Snapshots"]) == 1, "the second try began another one"


def content_of(ebs: Any, snapshot: str) -> bytes:
    data = bytearray(SIZE)
    for block in ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]:
        found = ebs.get_snapshot_block(
            SnapshotId=snapshot, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"]
        )
        piece = found["BlockData"].read()
        start = block["BlockIndex"] * (512 << 10)
        data[start : start + len(piece)] = piece
    return bytes(data)


# --- OpenStack


@pytest.fixture
def cloud() -> Iterator[tuple[Glance, dict[str, str]]]:
    with Glance.serving("moon", SECRET) as glance:
        yield (
            glance,
            {
                "OS_AUTH_URL": f"{glance.url}/v3",
                "OS_USERNAME": "moon",
                "OS_PASSWORD": SECRET,
                "OS_PROJECT_NAME": "moon",
                "OS_USER_DOMAIN_NAME": "Default",
                "OS_PROJECT_DOMAIN_NAME": "Default",
            },
        )


def test_glance_gets_the_data_again_for_the_same_image_and_knows_its_properties(
    image: Path, publish: Callable[..., Run], cloud: tuple[Glance, dict[str, str]]
) -> None:
    glance, environment = cloud
    glance.cut_after = 5 << 20
    words = ("openstack", "-p", "hw_disk_bus=scsi", "-p", "min_ram=512")
    publish(image, *words, environment=environment, works=False)
    assert not glance.data
    glance.cut_after = None
    done = publish(image, *words, environment=environment)
    (found,) = glance.images.values()
    assert done.stdout == f"{found['id']}\n"
    assert glance.data[found["id"]] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert found["status"] == "active"
    expected = {
        "name": "moon", "disk_format": "raw", "container_format": "bare", "min_disk": 1, "min_ram": 512,
        "architecture": "x86_64", "hw_disk_bus": "scsi",
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected
    assert "hw_firmware_type" not in found, "the image boots by both"


def test_a_cloud_of_clouds_yaml_is_found_and_a_wrong_password_is_told_without_it(
    image: Path, publish: Callable[..., Run], cloud: tuple[Glance, dict[str, str]], tmp_path: Path
) -> None:
    glance, environment = cloud
    auth = {key.removeprefix("OS_").lower(): value for key, value in environment.items()}
    clouds = tmp_path / "clouds.yaml"
    config = {"OS_CLIENT_CONFIG_FILE": str(clouds)}
    clouds.write_text(json.dumps({"clouds": {"bergen": {"auth": auth}}}))
    publish(image, "openstack://bergen", environment=config)
    assert len(glance.data) == 1
    glance.password = "another"
    image.touch()
    refused = publish(image, "openstack://bergen", environment=config, works=False)
    assert "the cloud bergen" in refused.stderr
    unknown = publish(image, "openstack://oslo", environment=config, works=False)
    assert "oslo" in unknown.stderr


# --- registries


class Archive:
    """What `docker save` writes, of one layer."""

    layer: ClassVar[bytes] = b""

    @staticmethod
    def write(path: Path) -> str:
        """Gives the digest of the layer."""
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w") as tar:
            add(tar, "etc/moon", random.Random(6).randbytes(1 << 20))
        layer = inner.getvalue()
        digest = hashlib.sha256(layer).hexdigest()
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            }
        ).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        with tarfile.open(path, "w") as tar:
            add(tar, "layer.tar", layer)
            add(tar, name, config)
            manifest = [{"Config": name, "RepoTags": ["moon:latest"], "Layers": ["layer.tar"]}]
            add(tar, "manifest.json", json.dumps(manifest).encode())
        return digest


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Gate]:
    """Debian's docker-registry."""
    with registry(tmp_path) as gate:
        gate.counts = lambda method, path: method == "PUT" and "/manifests/" in path
        yield gate


def test_a_registry_gets_a_container_and_no_layer_twice(
    tmp_path: Path, publish: Callable[..., Run], containers: Gate
) -> None:
    archive = tmp_path / "moon.docker"
    digest = Archive.write(archive)
    target = f"docker://{containers.address}/web/moon:1"
    login = tmp_path / "auth.json"
    entry = base64.b64encode(f"me:{SECRET}".encode()).decode()
    login.write_text(json.dumps({"auths": {containers.address: {"auth": entry}}}))
    environment = {"REGISTRY_AUTH_FILE": str(login)}
    containers.left = 0
    publish(archive, target, "-p", "tls=no", environment=environment, works=False)
    containers.left = 1 << 30
    containers.counts = lambda method, path: method == "PATCH" or (method == "PUT" and "/blobs/" in path)
    done = publish(archive, target, "-p", "tls=no", "--json", environment=environment)
    assert containers.passed == 0, "a layer was sent again"
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["where"] == target
    back = tmp_path / "back"
    words = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", target, f"dir:{back}"]
    copied = subprocess.run(words, text=True, capture_output=True, check=False)
    assert copied.returncode == 0, copied.stderr
    manifest = (back / "manifest.json").read_bytes()
    assert result["ids"]["digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    config = json.loads((back / json.loads(manifest)["config"]["digest"].partition(":")[2]).read_text())
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]


# --- bad input


@pytest.mark.parametrize(
    ("target", "more", "expected"),
    [
        ("ec3", (), "unknown publisher"),
        ("s3://", (), "names no bucket"),
        ("docker://registry/x", (), "no container"),
        ("openstack", ("-p", "min_disk"), "has no value"),
        ("ec2", ("--arch", "s390x"), "no machines of the architecture s390x"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_mend(
    image: Path, publish: Callable[..., Run], target: str, more: tuple[str, ...], expected: str
) -> None:
    done = publish(image, target, *more, environment={}, works=False)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "hint:" in done.stderr
