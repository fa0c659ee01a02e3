"""What a cloud tells a machine of its own: name, keys, user data; on a disk or disc, or by HTTP at 169.254.169.254.

Formats are those of the clouds' documentation: OpenStack's config drive and metadata service, EC2's with session tokens
(IMDSv2, which it insists on), GCE's, and the NoCloud disk of cloud-init; those of VMware and Azure stand in
`provisioning.py`. Nothing listens on this machine: QEMU starts
`serve_metadata.py` for each connection that its guest makes.
"""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.errors import UsageError
from dibble.evidence.hardware import GUEST_MAC, METADATA_ADDRESS, WIRE_SERVER
from dibble.evidence.provisioning import azure_disc, azure_services, ovf_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.evidence.hardware import Hardware
    from dibble.sandbox.toolbox import Toolbox

KINDS = ("nocloud", "config-drive", "openstack", "ec2", "gce", "ovf", "azure")
BY_NETWORK = ("openstack", "ec2", "gce", "azure")
"""Those for which the guest needs a network card."""
BY_DISC = ("ovf", "azure")
"""Those that are written as ISO 9660, by a program of the tools' group `iso`."""
INSTANCE_ID = "i-0d1bb1e0"
_UUID = "ec2d1bb1-e000-4000-8000-00000d1bb1e0"
"""Begins as EC2's do, by which cloud-init knows the cloud; elsewhere any will do."""

_BOARDS = {
    "openstack": ("type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova",),
    "ec2": (f"type=1,manufacturer=Amazon EC2,product=m5.large,uuid={_UUID},serial={_UUID}",),
    "gce": ("type=1,manufacturer=Google,product=Google Compute Engine,serial=GoogleCloud-D1BB1E",),
    # By the tag of its chassis a machine of Azure's is known, by that of its system which one it is.
    "azure": (
        f"type=1,manufacturer=Microsoft Corporation,product=Virtual Machine,uuid={_UUID}",
        "type=3,manufacturer=Microsoft Corporation,asset=7783-7084-3265-9085-8269-3286-77",
    ),
}
_IDENTITY = {
    "instanceId": INSTANCE_ID,
    "region": "eu-test-1",
    "availabilityZone": "eu-test-1a",
    "version": "2017-09-30",
}
_DRIVE_KIB = 2048


@dataclass(frozen=True, slots=True)
class Settings:
    """What the machine is told. `keys` are lines as in authorized_keys; `user_data` is handed over as it is."""

    kind: str
    hostname: str
    user_data: bytes
    keys: tuple[str, ...] = ()
    user: str = ""
    """Who gets the keys where the place itself has a name for them."""


def user_data_for(user: str, password: str | None, keys: tuple[str, ...] = ()) -> bytes:
    """A cloud-config with one user, who may become root; with `password`, that one opens the console and SSH too."""
    account: dict[str, object] = {"name": user, "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL"}
    if keys:
        account["ssh_authorized_keys"] = list(keys)
    if password is not None:
        account |= {"plain_text_passwd": password, "lock_passwd": False}
    return b"#cloud-config\n" + json.dumps({"users": [account]}).encode() + b"\n"  # JSON is YAML


def with_settings(hardware: Hardware, settings: Settings, toolbox: Toolbox, scratch: Path) -> Hardware:
    """The hardware with what carries the settings, made in `scratch`. Raises UsageError, ToolFailed."""
    if settings.kind not in KINDS:
        raise UsageError(f'no guest is told its settings by "{settings.kind}"', hint=f"known are: {', '.join(KINDS)}")
    board = _BOARDS.get(settings.kind, ())
    if settings.kind in ("nocloud", "config-drive"):
        label = "CIDATA" if settings.kind == "nocloud" else "CONFIG-2"
        files = nocloud(settings) if settings.kind == "nocloud" else openstack(settings)
        return replace(hardware, smbios=board, drive=_drive(label, files, toolbox, scratch))
    if settings.kind in BY_DISC:
        azure = settings.kind == "azure"
        files = azure_disc(settings) if azure else ovf_environment(settings, INSTANCE_ID)
        disc = _disc("PROVISIONING" if azure else "OVF ENV", files, toolbox, scratch)
        hardware = replace(hardware, smbios=board, disc=disc)
        if not azure:
            return hardware
    answers = answers_of(settings)
    program, data = scratch / "serve_metadata.py", scratch / "metadata.json"
    shutil.copyfile(Path(__file__).with_name("serve_metadata.py"), program)
    data.write_text(json.dumps({"kind": settings.kind, "answers": {k: v.decode() for k, v in answers.items()}}))
    words = ("/usr/bin/env", "python3", toolbox.path(program), toolbox.path(data))
    addresses = (METADATA_ADDRESS, WIRE_SERVER) if settings.kind == "azure" else (METADATA_ADDRESS,)
    return replace(hardware, smbios=board, service=shlex.join(words), addresses=addresses)


def answers_of(settings: Settings) -> dict[str, bytes]:
    """What the service of a kind that is asked by HTTP answers, by path."""
    services = {"openstack": openstack_service, "ec2": ec2, "gce": gce, "azure": azure_services}
    return services[settings.kind](settings)


def nocloud(settings: Settings) -> dict[str, bytes]:
    """The files of cloud-init's NoCloud disk."""
    about = {"instance-id": INSTANCE_ID, "local-hostname": settings.hostname, "public-keys": list(settings.keys)}
    return {"meta-data": json.dumps(about).encode(), "user-data": settings.user_data}


def openstack(settings: Settings) -> dict[str, bytes]:
    """The files of a config drive; Nova's service has the same (docs.openstack.org/nova, metadata)."""
    about = {
        "uuid": _UUID,
        "name": settings.hostname,
        "hostname": settings.hostname,
        "launch_index": 0,
        "public_keys": {f"key{number}": key for number, key in enumerate(settings.keys)},
    }
    return {
        "openstack/latest/meta_data.json": json.dumps(about).encode(),
        "openstack/latest/user_data": settings.user_data,
    }


def openstack_service(settings: Settings) -> dict[str, bytes]:
    files = {f"/{name}": content for name, content in openstack(settings).items()}
    return {"/openstack": b"latest", "/openstack/latest": b"meta_data.json\nuser_data", **files}


def ec2(settings: Settings) -> dict[str, bytes]:
    """EC2's tree, in the version that cloud-init asks for first and in the newest."""
    leaves: dict[str, str] = {
        "ami-id": "ami-0d1bb1e0",
        "hostname": settings.hostname,
        "local-hostname": settings.hostname,
        "instance-id": INSTANCE_ID,
        "instance-type": "m5.large",
        "local-ipv4": "169.254.0.15",
        "placement/availability-zone": "eu-test-1a",
        "placement/region": "eu-test-1",
    }
    card = {
        "device-number": "0",
        "interface-id": "eni-0d1bb1e0",
        "local-ipv4s": "169.254.0.15",
        "mac": GUEST_MAC,
        "subnet-ipv4-cidr-block": "169.254.0.0/16",
    }
    leaves |= {f"network/interfaces/macs/{GUEST_MAC}/{name}": text for name, text in card.items()}
    for number, key in enumerate(settings.keys):
        leaves[f"public-keys/{number}/openssh-key"] = key
    folders: dict[str, list[str]] = {}
    for path in leaves:
        parts = path.split("/")
        for depth, part in enumerate(parts):
            entry = part if depth == len(parts) - 1 else f"{part}/"
            known = folders.setdefault("/".join(parts[:depth]), [])
            if entry not in known:
                known.append(entry)
    if settings.keys:  # the list of keys has their names, not directories
        folders["public-keys"] = [f"{number}=key{number}" for number, _ in enumerate(settings.keys)]
    answers: dict[str, bytes] = {"/": b"2009-04-04\n2021-03-23\nlatest"}
    for version in ("2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest"):
        base = f"/{version}/meta-data"
        answers[f"/{version}"] = b"meta-data\nuser-data"
        answers |= {f"{base}/{path}": text.encode() for path, text in leaves.items()}
        answers |= {f"{base}/{folder}".rstrip("/"): "\n".join(names).encode() for folder, names in folders.items()}
        answers[f"/{version}/user-data"] = settings.user_data
        answers[f"/{version}/dynamic/instance-identity"] = b"document"
        answers[f"/{version}/dynamic/instance-identity/document"] = json.dumps(_IDENTITY).encode()
    return answers


def gce(settings: Settings) -> dict[str, bytes]:
    """GCE's tree; a question for a directory with ?recursive=true is answered with all below it, as JSON."""
    keys = "\n".join(f"debian:{key}" for key in settings.keys)
    attributes = {"ssh-keys": keys, "user-data": settings.user_data.decode("utf-8", "replace")}
    instance: Mapping[str, object] = {
        "id": 1234567890,
        "hostname": settings.hostname,
        "zone": "projects/1/zones/test1-a",
        "attributes": attributes,
    }
    project = {"projectId": "dibble", "attributes": {}}
    answers = {
        "/computeMetadata/v1/instance": json.dumps(instance).encode(),
        "/computeMetadata/v1/project": json.dumps(project).encode(),
    }
    for tree, part in (("instance", attributes), ("project", {})):
        answers[f"/computeMetadata/v1/{tree}/attributes"] = json.dumps(part).encode()
    for name in ("id", "hostname", "zone"):
        answers[f"/computeMetadata/v1/instance/{name}"] = str(instance[name]).encode()
    for name, text in attributes.items():
        answers[f"/computeMetadata/v1/instance/attributes/{name}"] = text.encode()
    return answers


def _written(files: Mapping[str, bytes], tree: Path) -> Path:
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tree


def _disc(label: str, files: Mapping[str, bytes], toolbox: Toolbox, scratch: Path) -> str:
    """A CD with these files."""
    image, tree = scratch / "settings.iso", _written(files, scratch / "disc")
    toolbox.run(
        ["xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-V", label, "-o", toolbox.path(image), toolbox.path(tree)]
    )
    return toolbox.path(image)


def _drive(label: str, files: Mapping[str, bytes], toolbox: Toolbox, scratch: Path) -> str:
    """A FAT file system with these files, made without a mount."""
    image, tree = scratch / f"{label}.img", _written(files, scratch / label)
    with image.open("wb") as file:
        file.truncate(_DRIVE_KIB << 10)
    toolbox.run(["mkfs.vfat", "-n", label, toolbox.path(image)])
    tops = [toolbox.path(path) for path in sorted(tree.iterdir())]
    toolbox.run(["mcopy", "-s", "-Q", "-i", toolbox.path(image), *tops, "::"])
    return toolbox.path(image)
