"""What a guest is told of itself, and the devices that it has."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dibble.errors import UsageError
from dibble.evidence import metadata
from dibble.evidence.hardware import (
    Hardware,
    check_hardware,
    disk_arguments,
    network_arguments,
    settings_arguments,
)
from dibble.evidence.metadata import Settings, with_settings
from dibble.recipe.presets import preset_names, read_preset
from dibble.sandbox.toolbox import HostToolbox

pytestmark = pytest.mark.unit

KEY = "ssh-ed25519 AAAA somebody"
USER_DATA = metadata.user_data_for("me", "secret", (KEY,))


def asked(tmp_path: Path, kind: str, request: str) -> tuple[int, bytes]:
    """Status and body of the answer to a request, from the program that QEMU starts."""
    settings = Settings(kind, "moon", USER_DATA, (KEY,))
    hardware = with_settings(Hardware(), settings, HostToolbox(), tmp_path)
    _, _, *words = shlex.split(hardware.service)
    done = subprocess.run([sys.executable, *words], input=request.encode(), capture_output=True, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def get(path: str, *header: str) -> str:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: 169.254.169.254", *header, "", ""))


def test_ec2_answers_those_who_have_a_token_only(tmp_path: Path) -> None:
    assert asked(tmp_path, "ec2", get("/latest/meta-data/hostname"))[0] == 401
    status, token = asked(tmp_path, "ec2", get("/latest/api/token").replace("GET", "PUT"))
    assert status == 200
    header = f"X-aws-ec2-metadata-token: {token.decode()}"
    assert asked(tmp_path, "ec2", get("/2021-03-23/meta-data/local-hostname", header)) == (200, b"moon")
    status, names = asked(tmp_path, "ec2", get("/latest/meta-data/", header))
    assert {"local-hostname", "placement/", "public-keys/"} <= set(names.decode().splitlines())
    assert asked(tmp_path, "ec2", get("/latest/meta-data/public-keys/", header)) == (200, b"0=key0")
    assert asked(tmp_path, "ec2", get("/latest/meta-data/public-keys/0/openssh-key", header)) == (200, KEY.encode())
    assert asked(tmp_path, "ec2", get("/latest/user-data", header)) == (200, USER_DATA)
    status, text = asked(tmp_path, "ec2", get("/2021-03-23/dynamic/instance-identity/document", header))
    assert (status, json.loads(text)["region"]) == (200, "eu-test-1"), "without it cloud-init asks for minutes"
    assert asked(tmp_path, "ec2", get("/latest/nothing", header))[0] == 404


def test_openstack_and_gce_tell_name_and_user_data(tmp_path: Path) -> None:
    status, text = asked(tmp_path, "openstack", get("/openstack/latest/meta_data.json"))
    assert (status, json.loads(text)["hostname"]) == (200, "moon")
    assert asked(tmp_path, "openstack", get("/openstack/latest/user_data")) == (200, USER_DATA)
    path = "/computeMetadata/v1/instance/?recursive=true"
    assert asked(tmp_path, "gce", get(path))[0] == 403
    status, text = asked(tmp_path, "gce", get(path, "Metadata-Flavor: Google"))
    assert json.loads(text)["hostname"] == "moon"
    assert json.loads(text)["attributes"]["user-data"] == USER_DATA.decode()


def test_the_metadata_address_is_forwarded_to_the_program_and_commas_are_doubled() -> None:
    found = network_arguments(Hardware(network="vmxnet3", service="/usr/bin/env python3 /a,b"))
    assert "guestfwd=tcp:169.254.169.254:80-cmd:/usr/bin/env python3 /a,,b" in found[1]
    assert "net=169.254.0.0/16" in found[1]
    assert found[3].startswith("vmxnet3,")
    assert "guestfwd" not in network_arguments(Hardware())[1]


def test_devices_are_those_of_the_environment() -> None:
    assert disk_arguments(Hardware()) == ("-device", "virtio-blk-pci,drive=disk,bootindex=0")
    assert "pvscsi,id=bus" in disk_arguments(Hardware(disk_bus="pvscsi"))
    assert "file=/a,,b" in settings_arguments(Hardware(drive="/a,b"))[1]


@pytest.mark.parametrize("name", preset_names({}, Path("/")))
def test_a_shipped_environment_has_devices_and_a_source_of_settings_that_there_are(name: str) -> None:
    machine = read_preset(name, {}, Path("/")).target.machine
    check_hardware(Hardware(machine.disk_bus, machine.network))
    assert machine.metadata in ("", *metadata.KINDS)


def test_unknown_devices_and_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='disk bus "floppy"'):
        check_hardware(Hardware(disk_bus="floppy"))
    with pytest.raises(UsageError, match='settings by "smoke"'):
        with_settings(Hardware(), Settings("smoke", "moon", b""), HostToolbox(), tmp_path)
