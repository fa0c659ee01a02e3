"""What a guest is told of itself, and the devices that it has."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

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
from dibble.evidence.provisioning import azure_disc, ovf_environment
from dibble.evidence.serve_metadata import respond
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


def respond_to(kind: str, answers: dict[str, bytes], method: str, target: str, **header: str) -> tuple[int, bytes]:
    data = {"kind": kind, "answers": {path: text.decode() for path, text in answers.items()}}
    return respond(method, target, header, data)


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
    path = "/2021-03-23/meta-data/network/interfaces/macs/"
    assert asked(tmp_path, "ec2", get(path, header)) == (200, b"52:54:00:12:34:56/")
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
    google = {"metadata-flavor": "Google"}
    answers = metadata.answers_of(Settings("gce", "moon", USER_DATA, (KEY,)))
    data = {"kind": "gce", "answers": {path: text.decode() for path, text in answers.items()}}
    path = "/computeMetadata/v1/instance/attributes/?recursive=True"
    assert json.loads(respond("GET", path, google, data)[1])["user-data"] == USER_DATA.decode(), "cloud-init asks so"


def test_azure_s_two_services_answer_and_the_machine_says_that_it_is_ready(tmp_path: Path) -> None:
    words = metadata.answers_of(Settings("azure", "moon", USER_DATA, (KEY,)))
    ask = partial(respond_to, "azure", words)
    assert ask("GET", "/metadata/instance?api-version=2021-08-01")[0] == 400
    status, text = ask("GET", "/metadata/instance?api-version=2021-08-01", metadata="true")
    found = json.loads(text)["compute"]
    assert (status, found["osProfile"]["computerName"]) == (200, "moon")
    assert found["publicKeys"] == [{"keyData": KEY, "path": ""}]
    status, text = ask("GET", "/machine/?comp=goalstate")
    assert status == 200
    assert ElementTree.fromstring(text).findtext("./Container/RoleInstanceList/RoleInstance/InstanceId") == "dibble-0"
    assert ask("POST", "/machine?comp=health")[0] == 200
    assert ask("POST", "/metadata/instance", metadata="true")[0] == 405


def test_the_discs_of_azure_and_vmware_have_name_key_and_user_data() -> None:
    settings = Settings("ovf", 'moon & "sun"', USER_DATA, (KEY,))
    data = base64.b64encode(USER_DATA).decode()
    azure = ElementTree.fromstring(azure_disc(settings)["ovf-env.xml"])
    place = "{http://schemas.microsoft.com/windowsazure}"
    assert azure.findtext(f".//{place}HostName") == 'moon & "sun"'
    assert azure.findtext(f".//{place}CustomData") == data
    assert azure.findtext(f".//{place}UserName") == "azureuser", "cloud-init insists on one"
    ovf = ElementTree.fromstring(ovf_environment(settings, "i-1")["ovf-env.xml"])
    name = "{http://schemas.dmtf.org/ovf/environment/1}"
    found = {p.get(f"{name}key"): p.get(f"{name}value") for p in ovf.iter(f"{name}Property")}
    assert found == {"instance-id": "i-1", "hostname": 'moon & "sun"', "public-keys": KEY, "user-data": data}


def test_both_addresses_of_azure_are_forwarded_in_one_network() -> None:
    found = network_arguments(Hardware(service="/p", addresses=("169.254.169.254", "168.63.129.16")))[1]
    assert "guestfwd=tcp:169.254.169.254:80-cmd:/p,guestfwd=tcp:168.63.129.16:80-cmd:/p" in found
    assert "net=168.0.0.0/7" in found
    assert "scsi-cd,bus=discs.0,drive=disc" in settings_arguments(Hardware(disc="/d"))


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
