"""The devices of a guest as an environment has them: the bus of its disks, its network card, what its board says it is.

QEMU has VMware's paravirtual controller and card; of Hyper-V and EC2 there is nothing that an image could not tell, so
the nearest common device stands in (`disk_bus` sata, `network` e1000e).
"""

from __future__ import annotations

from dataclasses import dataclass

from dibble.errors import UsageError

# disk bus → the controller, and the device that a drive is
_DISKS: dict[str, tuple[tuple[str, ...], str]] = {
    "virtio": ((), "virtio-blk-pci"),
    "virtio-scsi": (("-device", "virtio-scsi-pci,id=bus"), "scsi-hd,bus=bus.0"),
    "pvscsi": (("-device", "pvscsi,id=bus"), "scsi-hd,bus=bus.0"),
    "nvme": ((), "nvme,serial=dibble"),
    "sata": (("-device", "ich9-ahci,id=bus"), "ide-hd,bus=bus.0"),
}
_CARDS = {"virtio": "virtio-net-pci", "vmxnet3": "vmxnet3", "e1000e": "e1000e"}

METADATA_ADDRESS = "169.254.169.254"
"""Where clouds answer questions of their machines, by HTTP."""
GUEST_MAC = "52:54:00:12:34:56"
"""QEMU's first card has it."""
WIRE_SERVER = "168.63.129.16"
"""Where a machine of Azure's says that it is ready."""

# Only an address inside of its network is forwarded by QEMU; host, name server and guest are in the same one then.
_LINK_LOCAL = "net=169.254.0.0/16,host=169.254.0.2,dns=169.254.0.3,dhcpstart=169.254.0.15"
# The smallest network that has both addresses of Azure's.
_BOTH = "net=168.0.0.0/7,host=168.63.0.2,dns=168.63.0.3,dhcpstart=168.63.0.15"


@dataclass(frozen=True, slots=True)
class Hardware:
    """`smbios` has what follows -smbios; `drive` is a disk with settings, `disc` a CD with them, `service` the command
    that answers each connection to one of `addresses` on its standard input and output. They are named as the tools see
    them."""

    disk_bus: str = "virtio"
    network: str = "virtio"
    smbios: tuple[str, ...] = ()
    drive: str = ""
    disc: str = ""
    service: str = ""
    addresses: tuple[str, ...] = (METADATA_ADDRESS,)


PLAIN = Hardware()
"""virtio, and nothing told."""


def check_hardware(hardware: Hardware) -> None:
    """Raises UsageError for a device that QEMU is not asked for by any name here."""
    for what, name, known in (("disk bus", hardware.disk_bus, _DISKS), ("network card", hardware.network, _CARDS)):
        if name not in known:
            raise UsageError(f'no guest has the {what} "{name}"', hint=f"known are: {', '.join(known)}")


def disk_arguments(hardware: Hardware, *, is_cd: bool = False) -> tuple[str, ...]:
    """The device for the drive `disk`, from which the guest starts; a CD has one kind of drive, whatever disks have."""
    if is_cd:
        return ("-device", "ich9-ahci,id=bus", "-device", "ide-cd,bus=bus.0,drive=disk,bootindex=0")
    controller, device = _DISKS[hardware.disk_bus]
    return (*controller, "-device", f"{device},drive=disk,bootindex=0")


def another_disk_arguments(hardware: Hardware, drive: str, number: int) -> tuple[str, ...]:
    """The device for one more drive, the `number`th behind the first, on the controller that the first one has."""
    device = _DISKS[hardware.disk_bus][1].replace("bus.0", f"bus.{number}" if hardware.disk_bus == "sata" else "bus.0")
    return ("-device", f"{device.replace('serial=dibble', f'serial=dibble{number}')},drive={drive}")


def settings_arguments(hardware: Hardware) -> tuple[str, ...]:
    """The board's own words, and the disk or disc with settings."""
    words = [word for entry in hardware.smbios for word in ("-smbios", entry)]
    if hardware.drive:
        drive = hardware.drive.replace(",", ",,")
        words += ["-drive", f"if=none,id=settings,format=raw,readonly=on,file={drive}"]
        words += ["-device", "virtio-blk-pci,drive=settings"]
    if hardware.disc:
        disc = hardware.disc.replace(",", ",,")
        words += ["-drive", f"if=none,id=disc,format=raw,media=cdrom,readonly=on,file={disc}"]
        words += ["-device", "virtio-scsi-pci,id=discs", "-device", "scsi-cd,bus=discs.0,drive=disc"]
    return tuple(words)


def network_arguments(hardware: Hardware) -> tuple[str, ...]:
    """The network card, in QEMU's own network; without its program, which would look for something to boot there."""
    network = "user,id=network"
    if hardware.service:
        command = hardware.service.replace(",", ",,")
        network += f",{_BOTH if WIRE_SERVER in hardware.addresses else _LINK_LOCAL}"
        network += "".join(f",guestfwd=tcp:{address}:80-cmd:{command}" for address in hardware.addresses)
    return ("-netdev", network, "-device", f"{_CARDS[hardware.network]},netdev=network,romfile=")
