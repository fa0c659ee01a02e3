"""An OVA as independent readers find it: Python's tarfile, sha256, xmllint, and qemu-img for the disks."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
import tarfile
from typing import TYPE_CHECKING
from uuid import UUID
from xml.etree import ElementTree

import pytest
from tests.unit.output_values import EPOCH, disk, request

from dibble.disk.model import Disk, Graph, Layout, Partition, Table
from dibble.events import Events
from dibble.outputs.base import Source, Writing
from dibble.outputs.ova import Ova
from dibble.outputs.run import write_outputs
from dibble.recipe.model import Machine, Target
from dibble.sandbox.toolbox import HostToolbox

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dibble.recipe.model import Request

pytestmark = pytest.mark.contract

MIB = 1 << 20
OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
VMW = "{http://www.vmware.com/schema/ovf}"


def raws(place: Path) -> dict[str, Path]:
    found = {}
    for name, size in (("data", 3 * MIB + 512), ("image0", 40 * MIB)):
        found[name] = place / f"{name}.raw"
        with found[name].open("wb") as file:
            file.truncate(size)
            file.seek(2 * MIB)
            file.write(name.encode() * 30_000)
    return found


def on(machine: Machine, wanted: Request) -> Request:
    return dataclasses.replace(wanted, target=Target("x", "x", "x", machine=machine))


def written(place: Path, images: Mapping[str, Path], wanted: Request) -> Path:
    [file] = write_outputs(Source(place, disk(images)), wanted, HostToolbox(), Events(), epoch=EPOCH)
    return file


def items(file: Path) -> list[dict[str, str]]:
    with tarfile.open(file) as archive:
        member = archive.extractfile(archive.getmembers()[0])
        assert member is not None
        tree = ElementTree.fromstring(member.read())
    return [{entry.tag.removeprefix(RASD): entry.text or "" for entry in item} for item in tree.iter(f"{OVF}Item")]


def test_all_disks_are_in_one_archive_whose_manifest_is_right(tmp_path: Path) -> None:
    images = raws(tmp_path)
    file = written(tmp_path, images, request(tmp_path, outputs=("ova",), name="my web"))
    assert file.name == "my web.ova"
    out = tmp_path / "out"
    with tarfile.open(file) as archive:
        names = archive.getnames()
        archive.extractall(out, filter="data")
    assert names == ["my-web.ovf", "my-web.mf", "my-web-disk1.vmdk", "my-web-disk2.vmdk"]
    said = dict(re.findall(r"SHA256\((.*)\)= ([0-9a-f]{64})\n", (out / "my-web.mf").read_text()))
    assert said == {
        name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names if not name.endswith(".mf")
    }
    for number, name in enumerate(("image0", "data"), 1):
        vmdk = out / f"my-web-disk{number}.vmdk"
        subprocess.run(["qemu-img", "check", "-f", "vmdk", vmdk], check=True, capture_output=True)
        subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "vmdk", images[name], vmdk], check=True)


def test_the_descriptor_tells_the_truth_about_its_files(tmp_path: Path) -> None:
    images = raws(tmp_path)
    file = written(tmp_path, images, request(tmp_path, outputs=("ova",)))
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    subprocess.run(["xmllint", "--noout", tmp_path / "out" / "N.ovf"], check=True)
    tree = ElementTree.parse(tmp_path / "out" / "N.ovf")
    parts = {entry.get(f"{OVF}id"): entry for entry in tree.iter(f"{OVF}File")}
    disks = list(tree.iter(f"{OVF}Disk"))
    assert len(disks) == len(parts) == 2
    for entry, image in zip(disks, ("image0", "data"), strict=True):
        part = parts[entry.get(f"{OVF}fileRef")]
        assert int(part.get(f"{OVF}size", "")) == (tmp_path / "out" / part.get(f"{OVF}href", "")).stat().st_size
        assert int(entry.get(f"{OVF}capacity", "")) == images[image].stat().st_size
        assert 0 < int(entry.get(f"{OVF}populatedSize", "")) < MIB
    hosts = [item["HostResource"] for item in items(file) if "HostResource" in item]
    assert hosts == [f"ovf:/disk/{entry.get(f'{OVF}diskId')}" for entry in disks]


@pytest.mark.parametrize(
    ("machine", "controller", "card", "memory"),
    [
        (Machine(), ("6", "lsilogic"), "E1000", "1024"),
        (Machine("pvscsi", "vmxnet3"), ("6", "VirtualSCSI"), "VmxNet3", "1024"),
        (Machine("sata", "e1000e"), ("20", "vmware.sata.ahci"), "E1000e", "1024"),
        (Machine("nvme", minimum_memory_mib=2048), ("20", "vmware.nvme.controller"), "E1000", "2048"),
    ],
)
def test_the_hardware_is_that_of_the_environment(
    tmp_path: Path, machine: Machine, controller: tuple[str, str], card: str, memory: str
) -> None:
    file = written(tmp_path, raws(tmp_path), on(machine, request(tmp_path, outputs=("ova",))))
    found = items(file)
    kinds = {item["InstanceID"]: item for item in found}
    assert len(kinds) == len(found)
    disks = [item for item in found if item["ResourceType"] == "17"]
    assert {item["Parent"] for item in disks} == {"3"}
    assert (kinds["3"]["ResourceType"], kinds["3"]["ResourceSubType"]) == controller
    assert [item["ResourceSubType"] for item in found if item["ResourceType"] == "10"] == [card]
    assert [item["VirtualQuantity"] for item in found if item["ResourceType"] == "4"] == [memory]
    assert all(list(item) == sorted(item) for item in found)  # as the schema has them


@pytest.mark.parametrize(
    ("types", "arch", "expected"),
    [
        (("EF00", "8300"), "amd64", "efi"),
        (("EF00", "EF02", "8300"), "amd64", "bios"),
        ((), "amd64", "bios"),
        ((), "arm64", "efi"),
    ],
)
def test_a_disk_with_nothing_for_a_bios_is_started_by_uefi(
    tmp_path: Path, types: tuple[str, ...], arch: str, expected: str
) -> None:
    images = {"image0": raws(tmp_path)["image0"]}
    partitions = tuple(Partition(f"p{number}", number, kind, MIB) for number, kind in enumerate(types, 1))
    graph = Graph((), (Table("t", "image0", "gpt", partitions),), (), (), ())
    source = Source(tmp_path, Disk(images, Layout(graph, {}, {}, UUID(int=0))))
    target = tmp_path / "N.ova"
    Ova().write(Writing(source, target, request(tmp_path, arch=arch), HostToolbox(), Events(), EPOCH))
    with tarfile.open(target) as archive:
        text = archive.extractfile("N.ovf")
        assert text is not None
        tree = ElementTree.fromstring(text.read())
    [config] = tree.iter(f"{VMW}Config")
    assert (config.get(f"{VMW}key"), config.get(f"{VMW}value")) == ("firmware", expected)


def test_the_same_disk_gives_the_same_archive(tmp_path: Path) -> None:
    wanted = request(tmp_path, outputs=("ova",), overwrite=True)
    first = written(tmp_path, raws(tmp_path), wanted).read_bytes()
    assert written(tmp_path, raws(tmp_path), wanted).read_bytes() == first
