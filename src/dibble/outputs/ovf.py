"""The descriptor of a virtual machine that comes as an archive: OVF 1.1 (DMTF DSP0243), for VMware and VirtualBox.

The order of elements in an item of hardware is alphabetical, which the schema of CIM_ResourceAllocationSettingData asks
for. Numbers of resource types are those of CIM; names of subtypes and of hardware versions are VMware's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dibble.recipe.model import Machine

_NAMESPACES = {
    "": "http://schemas.dmtf.org/ovf/envelope/1",
    ":ovf": "http://schemas.dmtf.org/ovf/envelope/1",
    ":rasd": "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData",
    ":vssd": "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData",
    ":vmw": "http://www.vmware.com/schema/ovf",
}
_VMDK = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_CPU, _MEMORY, _SCSI, _NETWORK, _DISK, _OTHER_STORAGE = 3, 4, 6, 10, 17, 20  # CIM: ResourceType
# What a preset calls a bus → its controller: resource type and VMware's subtype. Those of QEMU alone get the one that
# every reader knows and Linux has had a driver for since long.
_CONTROLLERS = {
    "pvscsi": (_SCSI, "VirtualSCSI"),
    "sata": (_OTHER_STORAGE, "vmware.sata.ahci"),
    "nvme": (_OTHER_STORAGE, "vmware.nvme.controller"),
}
_USUAL_CONTROLLER = (_SCSI, "lsilogic")
_CARDS = {"vmxnet3": "VmxNet3", "e1000e": "E1000e"}
_USUAL_CARD = "E1000"
# Debian's architecture → CIM's number of the operating system and VMware's guest id
_SYSTEMS = {
    "amd64": (101, "otherLinux64Guest"),
    "i386": (36, "otherLinuxGuest"),
    "arm64": (101, "arm-other6xLinux64Guest"),
}
_NETWORK_NAME = "VM Network"
_LEAST_MEMORY_MIB = 1024  # what a preset names is only what the image needs to come up


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A disk of the machine: its file's name and size, the size of the disk, and how much of it is content; bytes."""

    name: str
    size: int
    capacity: int
    populated: int


def descriptor(name: str, disks: Sequence[DiskFile], machine: Machine, arch: str, firmware: str) -> bytes:
    """The XML. `firmware` is "bios" or "efi"; `arch` is Debian's word."""
    return "\n".join(_lines(name, disks, machine, arch, firmware)).encode()


def _lines(name: str, disks: Sequence[DiskFile], machine: Machine, arch: str, firmware: str) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    spaces = " ".join(f"xmlns{key}={quoteattr(value)}" for key, value in _NAMESPACES.items())
    yield f'<Envelope ovf:version="1.0" {spaces}>'
    yield "  <References>"
    for number, disk in enumerate(disks, 1):
        yield f'    <File ovf:href={quoteattr(disk.name)} ovf:id="file{number}" ovf:size="{disk.size}"/>'
    yield "  </References>"
    yield "  <DiskSection>"
    yield "    <Info>The disks</Info>"
    for number, disk in enumerate(disks, 1):
        yield (
            f'    <Disk ovf:capacity="{disk.capacity}" ovf:capacityAllocationUnits="byte" ovf:diskId="disk{number}"'
            f' ovf:fileRef="file{number}" ovf:format="{_VMDK}" ovf:populatedSize="{disk.populated}"/>'
        )
    yield "  </DiskSection>"
    yield "  <NetworkSection>"
    yield "    <Info>The networks</Info>"
    yield f'    <Network ovf:name="{_NETWORK_NAME}">'
    yield "      <Description>Any network</Description>"
    yield "    </Network>"
    yield "  </NetworkSection>"
    yield f"  <VirtualSystem ovf:id={quoteattr(name)}>"
    yield "    <Info>A virtual machine</Info>"
    yield f"    <Name>{escape(name)}</Name>"
    system, guest = _SYSTEMS.get(arch, (1, "otherGuest"))
    yield f'    <OperatingSystemSection ovf:id="{system}" vmw:osType="{guest}">'
    yield "      <Info>The operating system</Info>"
    yield "    </OperatingSystemSection>"
    yield "    <VirtualHardwareSection>"
    yield "      <Info>The hardware</Info>"
    yield "      <System>"
    yield "        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>"
    yield "        <vssd:InstanceID>0</vssd:InstanceID>"
    yield f"        <vssd:VirtualSystemIdentifier>{escape(name)}</vssd:VirtualSystemIdentifier>"
    yield f"        <vssd:VirtualSystemType>{_hardware_version(machine, arch)}</vssd:VirtualSystemType>"
    yield "      </System>"
    for item in _items(disks, machine):
        yield "      <Item>"
        for key, value in sorted(item.items()):
            yield f"        <rasd:{key}>{escape(str(value))}</rasd:{key}>"
        yield "      </Item>"
    yield f'      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{firmware}"/>'
    yield "    </VirtualHardwareSection>"
    yield "  </VirtualSystem>"
    yield "</Envelope>"
    yield ""


def _items(disks: Sequence[DiskFile], machine: Machine) -> Iterator[Mapping[str, object]]:
    memory = max(machine.minimum_memory_mib, _LEAST_MEMORY_MIB)
    yield {
        "AllocationUnits": "hertz * 10^6", "ElementName": "1 virtual CPU", "InstanceID": 1,
        "ResourceType": _CPU, "VirtualQuantity": 1,
    }  # fmt: skip
    yield {
        "AllocationUnits": "byte * 2^20", "ElementName": f"{memory} MiB of memory", "InstanceID": 2,
        "ResourceType": _MEMORY, "VirtualQuantity": memory,
    }  # fmt: skip
    kind, subtype = _CONTROLLERS.get(machine.disk_bus, _USUAL_CONTROLLER)
    yield {
        "Address": 0, "ElementName": "Disk controller", "InstanceID": 3,
        "ResourceSubType": subtype, "ResourceType": kind,
    }  # fmt: skip
    yield {
        "AddressOnParent": 7, "AutomaticAllocation": "true", "Connection": _NETWORK_NAME,
        "ElementName": "Network card", "InstanceID": 4,
        "ResourceSubType": _CARDS.get(machine.network, _USUAL_CARD), "ResourceType": _NETWORK,
    }  # fmt: skip
    for number, _ in enumerate(disks):
        # 7 is the controller's own address on a SCSI bus
        yield {
            "AddressOnParent": number if number < 7 or kind != _SCSI else number + 1,
            "ElementName": f"Disk {number + 1}", "HostResource": f"ovf:/disk/disk{number + 1}",
            "InstanceID": 5 + number, "Parent": 3, "ResourceType": _DISK,
        }  # fmt: skip


def _hardware_version(machine: Machine, arch: str) -> str:
    """The oldest that has the controller; ESXi for Arm begins with 17."""
    if arch == "arm64":
        return "vmx-17"
    return "vmx-13" if machine.disk_bus == "nvme" else "vmx-10"
