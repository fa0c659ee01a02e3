"""QEMU's command lines, and what the first sectors of an image tell."""

from __future__ import annotations

import json
import socket
import struct
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

from dibble.errors import BootError
from dibble.evidence import image_head
from dibble.evidence.hardware import Hardware
from dibble.evidence.image_head import (
    BIOS_BOOT,
    ESP,
    Partitions,
    arch_for,
    files_of,
    firmware_for,
    format_of,
    partitions_of,
)
from dibble.evidence.qemu import (
    ARCHITECTURES,
    Accelerator,
    Direct,
    Flash,
    Guest,
    _end_when_stopped,
    can_accelerate,
    command_line,
    flash_for,
    kvm_arguments,
    probe_command_line,
    tools_group,
)
from dibble.sandbox.toolbox import HostToolbox
from dibble.sandbox.tools_lock import GROUPS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

TCG = Accelerator("tcg")
LINUX_DATA = "0fc63daf-8483-4772-8e79-3d69d8477de4"
PREP = "9e1a2d38-c612-4316-aa26-8b49521e5a8b"
ROOT_ARM64 = "b921b045-1df0-41c3-af44-4c6f280d3fae"
ROOT_ARMHF = "69dad710-2ce4-4e3c-b16c-21a1d49abed3"
ROOT_PPC64EL = "c31c45e6-3f39-412e-80fb-4809c4980599"
ROOT_RISCV64 = "72ec70a6-cf74-40e6-bd49-4bda08e8f224"


def guest(**changes: object) -> Guest:
    values: dict[str, object] = {
        "arch": "amd64",
        "image": "/a/image",
        "image_format": "qcow2",
        "accelerator": TCG,
        "memory_mib": 768,
        "cpus": 2,
        **changes,
    }
    return Guest(**values)  # type: ignore[arg-type]  # a test's shorthand


def line(**changes: object) -> str:
    return " ".join(command_line(guest(**changes), serial=7, control=8)) + " "


def mbr(types: list[int], code: bytes = b"") -> bytes:
    entries = b"".join(bytes([0, 0, 0, 0, kind]) + bytes(11) for kind in types).ljust(64, b"\0")
    return code.ljust(446, b"\0") + entries + b"\x55\xaa"


def gpt(types: list[str], sector: int = 512, entry_size: int = 128, code: bytes = b"") -> bytes:
    header = b"EFI PART" + bytes(64) + struct.pack("<QII", 2, 128, entry_size)
    entries = b"".join(uuid.UUID(kind).bytes_le.ljust(entry_size, b"\1") for kind in types)
    return mbr([0xEE], code).ljust(sector, b"\0") + header.ljust(sector, b"\0") + entries.ljust(128 * entry_size, b"\0")


def test_a_guest_gets_what_was_asked_for() -> None:
    found = line()
    assert found.startswith("qemu-system-x86_64 ")
    for words in ("-smp 2 ", "-m 768 ", "-no-reboot ", "-display none ", "-nodefaults ", "-accel tcg,thread=multi "):
        assert words in found
    assert "socket,id=serial,fd=7 -serial chardev:serial " in found
    assert "socket,id=control,fd=8 -mon chardev=control,mode=control " in found


def test_the_image_is_protected_unless_it_may_be_written_to() -> None:
    assert "-drive if=none,id=disk,format=qcow2,snapshot=on,file=/a/image " in line()
    assert "-drive if=none,id=disk,format=qcow2,file=/a/image " in line(writable=True)


def test_more_disks_come_behind_the_first_one_and_are_protected_too() -> None:
    disks = (("/b,c", "raw"), ("/d", "qcow2"))
    found = line(more_disks=disks)
    assert "if=none,id=disk1,format=raw,snapshot=on,file=/b,,c -device virtio-blk-pci,drive=disk1 " in found
    assert "id=disk2,format=qcow2,snapshot=on,file=/d " in found
    assert found.index("drive=disk,bootindex=0") < found.index("drive=disk1")
    assert "id=disk1,format=raw,file=" in line(more_disks=disks, writable=True)
    assert "ide-hd,bus=bus.1,drive=disk1" in line(more_disks=disks, hardware=Hardware("sata"))
    assert "nvme,serial=dibble2,drive=disk2" in line(more_disks=disks, hardware=Hardware("nvme"))


def test_the_format_is_always_named_so_that_a_guest_cannot_make_qemu_guess_another() -> None:
    assert "format=raw,snapshot=on" in line(image_format="raw")


def test_a_comma_in_a_name_is_doubled() -> None:
    assert "file=/a,,b/c,,d " in line(image="/a,b/c,d")
    assert "file=/x,,y/vars " in line(flash=Flash("/code", "/x,y/vars"))


def test_uefi_is_two_flash_parts_of_which_the_code_is_only_read() -> None:
    found = line(flash=Flash("/code", "/vars"))
    assert "if=pflash,unit=0,format=raw,readonly=on,file=/code " in found
    assert "if=pflash,unit=1,format=raw,file=/vars " in found
    assert "IPv4PXESupport,string=n " in found


def test_the_bios_needs_no_flash() -> None:
    assert "pflash" not in line()


def test_a_guest_without_a_network_has_no_card() -> None:
    assert "-nic none " in line(network=False)
    assert "virtio-net" not in line(network=False)
    assert "-netdev user," in line()


def test_kvm_is_opened_by_a_descriptor_where_one_is_given() -> None:
    accelerator = Accelerator("kvm", device="/dev/fdset/1")
    assert "-accel kvm,device=/dev/fdset/1 -cpu host " in line(accelerator=accelerator)
    assert kvm_arguments(9) == ("-add-fd", "fd=9,set=1")
    assert "-accel kvm -cpu host " in line(accelerator=Accelerator("kvm"))
    assert kvm_arguments(None) == ()


def test_arm64_runs_on_virt_with_the_cpu_that_is_quick_to_emulate() -> None:
    found = line(arch="arm64", flash=Flash("/code", "/vars"))
    assert found.startswith("qemu-system-aarch64 ")
    assert "-machine virt " in found
    assert "-cpu cortex-a57 " in found


def test_armhf_runs_on_virt_with_all_devices_where_a_kernel_without_lpae_reaches_them() -> None:
    found = line(arch="armhf", flash=Flash("/code", "/vars"))
    assert found.startswith("qemu-system-arm ")
    assert "-machine virt,highmem=off " in found
    assert "-cpu cortex-a15 " in found
    assert "file=/code " in found
    assert "-bios /u-boot.bin " in line(arch="armhf", u_boot="/u-boot.bin")
    kernel = line(arch="armhf", image="/zImage", direct=Direct(append="quiet"))
    assert "-kernel /zImage -append console=ttyAMA0 quiet " in kernel


def test_riscv64_runs_on_virt_by_uefi_or_a_kernel_of_its_own() -> None:
    found = line(arch="riscv64", flash=Flash("/code", "/vars"))
    assert found.startswith("qemu-system-riscv64 ")
    assert "-machine virt" in found
    assert "file=/code " in found
    kernel = line(arch="riscv64", image="/Image", direct=Direct(append="quiet"))
    assert "-kernel /Image -append console=ttyS0,115200 quiet " in kernel


def test_i386_runs_on_the_program_for_amd64() -> None:
    assert line(arch="i386").startswith("qemu-system-x86_64 ")


@pytest.mark.parametrize(
    ("guest_arch", "host_arch", "possible"),
    [
        ("amd64", "amd64", True),
        ("i386", "amd64", True),
        ("arm64", "amd64", False),
        ("amd64", "arm64", False),
        ("armhf", "arm64", False),
        ("arm64", "arm64", True),
        ("amd64", "riscv64", False),
    ],
)
def test_kvm_runs_the_machines_own_kind_only(guest_arch: str, host_arch: str, possible: bool) -> None:
    assert can_accelerate(guest_arch, host_arch) is possible


def test_every_guest_has_a_group_of_tools_on_every_machine() -> None:
    for host_arch, groups in GROUPS.items():
        for arch in ARCHITECTURES:
            packages = groups[tools_group(arch, host_arch)]
            program, firmware = {
                "arm64": ("qemu-system-arm", "qemu-efi-aarch64"),
                "armhf": ("qemu-system-arm", "qemu-efi-arm"),
                "ppc64el": ("qemu-system-ppc", "qemu-system-ppc"),
                "riscv64": ("qemu-system-riscv", "qemu-efi-riscv64"),
            }.get(arch, ("qemu-system-x86", "ovmf"))
            assert program in packages
            assert firmware in packages


def test_the_probe_has_a_kernel_or_firmware_that_speaks_and_no_disk() -> None:
    found = " ".join(probe_command_line("amd64", Accelerator("kvm"), output=5, kernel="/kernel"))
    assert "-accel kvm " in found
    assert "isa-debugcon,iobase=0xe9,chardev=output -kernel /kernel" in found
    assert "drive" not in found
    arm = " ".join(probe_command_line("arm64", Accelerator("kvm"), output=5, code="/code"))
    assert "readonly=on,file=/code -serial chardev:output" in arm


def test_uefi_firmware_is_found_and_its_variables_copied(tmp_path: Path) -> None:
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    folder = root / "usr/share/OVMF"
    folder.mkdir(parents=True)
    scratch.mkdir()
    (folder / "OVMF_CODE_4M.fd").write_bytes(b"code")
    (folder / "OVMF_VARS_4M.fd").write_bytes(b"variables")
    toolbox = HostToolbox()
    toolbox.root = root
    flash = flash_for("amd64", toolbox, scratch)
    assert flash == Flash("/usr/share/OVMF/OVMF_CODE_4M.fd", str(scratch / "uefi-variables"))
    assert (scratch / "uefi-variables").read_bytes() == b"variables"


def test_firmware_that_is_not_there_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    toolbox = HostToolbox()
    toolbox.root = tmp_path
    with pytest.raises(BootError, match="no UEFI firmware for arm64") as caught:
        flash_for("arm64", toolbox, tmp_path)
    assert "qemu-efi-aarch64" in caught.value.hint
    with pytest.raises(BootError, match="no UEFI firmware for i386") as caught:
        flash_for("i386", toolbox, tmp_path)
    assert "--firmware bios" in caught.value.hint
    with pytest.raises(BootError, match="no UEFI firmware for armhf") as caught:
        flash_for("armhf", toolbox, tmp_path)
    assert "qemu-efi-arm" in caught.value.hint
    assert "--firmware u-boot" in caught.value.hint


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"QFI\xfb\0\0\0\3", "qcow2"),
        (b"KDMV\1\0\0\0", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vpc"),
        (bytes(512) + b"conectix".ljust(512, b"\0"), "vpc"),
        (mbr([0x83]), "raw"),
        (b"", "raw"),
    ],
)
def test_the_format_is_told_by_content(tmp_path: Path, head: bytes, name: str) -> None:
    image = tmp_path / "image.anything"
    image.write_bytes(head)
    assert format_of(head, image) == name


@pytest.mark.parametrize(
    ("head", "command"), [(b"\x1f\x8b\x08", "gunzip"), (b"\xfd7zXZ\0\0", "unxz"), (b"\x28\xb5\x2f\xfd", "unzstd")]
)
def test_a_packed_image_is_refused_with_the_command_that_unpacks_it(tmp_path: Path, head: bytes, command: str) -> None:
    with pytest.raises(BootError, match="packed") as caught:
        format_of(head, tmp_path / "image")
    assert caught.value.hint == f"unpack it first: {command} {tmp_path / 'image'}"


def test_an_mbr_is_read() -> None:
    assert partitions_of(mbr([0x83, 0xEF])) == Partitions("mbr", ("83", "ef"))
    assert partitions_of(mbr([0x83], b"\xeb\x63")) == Partitions("mbr", ("83",), boot_code=True)


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("entry_size", [128, 256])
def test_a_gpt_is_read(sector: int, entry_size: int) -> None:
    assert partitions_of(gpt([ESP, LINUX_DATA], sector, entry_size)) == Partitions("gpt", (ESP, LINUX_DATA))


@pytest.mark.parametrize("head", [b"", b"x" * 100, bytes(4096), gpt([ESP])[:700]])
def test_what_is_no_table_or_cut_off_has_no_partitions(head: bytes) -> None:
    assert partitions_of(head).types in ((), ("ee",))


def test_a_gpt_with_senseless_numbers_is_none() -> None:
    damaged = bytearray(gpt([ESP]))
    struct.pack_into("<QII", damaged, 512 + 72, 2**63, 2**32 - 1, 0)
    assert partitions_of(bytes(damaged)).types == ()


@pytest.mark.parametrize(
    ("head", "firmware"),
    [
        (gpt([ESP, LINUX_DATA]), "uefi"),
        (gpt([BIOS_BOOT, ESP, LINUX_DATA]), "bios"),
        (gpt([BIOS_BOOT, LINUX_DATA]), "bios"),
        (gpt([LINUX_DATA]), "bios"),
        (mbr([0x83], b"\xeb\x63"), "bios"),
        (mbr([0xEF, 0x83]), "uefi"),
        (mbr([0xEF, 0x83], b"\xeb\x63"), "bios"),
        (bytes(1024), "bios"),
    ],
)
def test_the_firmware_is_the_one_that_the_disk_is_made_for(head: bytes, firmware: str) -> None:
    assert firmware_for(partitions_of(head), "amd64") == firmware


@pytest.mark.parametrize("arch", ["arm64", "armhf", "riscv64"])
def test_some_have_uefi_whatever_is_on_the_disk(arch: str) -> None:
    assert firmware_for(Partitions("none"), arch) == "uefi"


def test_the_architecture_is_told_by_the_type_of_the_root_partition() -> None:
    assert arch_for(partitions_of(gpt([ESP, ROOT_ARM64]))) == "arm64"
    assert arch_for(partitions_of(gpt([ESP, ROOT_ARMHF]))) == "armhf"
    assert arch_for(partitions_of(gpt([ROOT_PPC64EL]))) == "ppc64el"
    assert arch_for(partitions_of(gpt([ESP, ROOT_RISCV64]))) == "riscv64"
    assert arch_for(partitions_of(gpt([ESP, LINUX_DATA]))) is None


def qcow2(path: Path, backing: str = "") -> Path:
    name = backing.encode()
    path.write_bytes(struct.pack(">4sIQI", b"QFI\xfb", 3, 512 if name else 0, len(name)).ljust(512, b"\0") + name)
    return path


def test_the_files_that_an_image_is_based_on_are_found(tmp_path: Path) -> None:
    (tmp_path / "base.raw").write_bytes(bytes(512))
    middle = qcow2(tmp_path / "middle", "base.raw")
    top = qcow2(tmp_path / "top", str(middle))
    assert files_of(top) == [top, middle, tmp_path / "base.raw"]
    assert files_of(tmp_path / "base.raw") == [tmp_path / "base.raw"]


def test_a_broken_chain_of_images_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(BootError, match=r"based on .*/gone, which does not exist"):
        files_of(qcow2(tmp_path / "top", "gone"))
    with pytest.raises(BootError, match="or on itself"):
        files_of(qcow2(tmp_path / "self", "self"))
    with pytest.raises(BootError, match="not a file"):
        files_of(qcow2(tmp_path / "net", "nbd://server/disk"))


def test_an_image_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BootError, match=r"cannot read the image .*: Is a directory"):
        image_head.read_head(tmp_path)


def test_power_machines_have_their_firmware_from_qemu() -> None:
    found = line(arch="ppc64el")
    assert found.startswith("qemu-system-ppc64 ")
    assert "-machine pseries," in found
    assert "-cpu power9 " in found
    assert "pflash" not in found
    assert guest(arch="ppc64el").firmware == "slof"
    assert (guest().firmware, guest(flash=Flash("/code", "/vars")).firmware) == ("bios", "uefi")


@pytest.mark.parametrize("head", [mbr([0x41, 0x83]), gpt([PREP, LINUX_DATA])])
def test_a_prep_partition_tells_of_power(head: bytes) -> None:
    assert arch_for(partitions_of(head)) == "ppc64el"
    assert firmware_for(partitions_of(head), "ppc64el") == "slof"


@pytest.mark.parametrize(
    "head", [bytes(0x202) + b"HdrS", bytes(56) + b"ARM\x64", bytes(56) + b"RSC\x05", bytes(0x24) + b"\x18\x28\x6f\x01"]
)
def test_a_kernel_is_told_by_its_head(head: bytes) -> None:
    assert image_head.is_kernel(head + bytes(512))
    assert not image_head.is_kernel(head[:-1] + bytes(512))


def test_an_iso_is_a_cd_which_is_only_read() -> None:
    words = command_line(guest(image="/a/x.iso", image_format="raw", is_cd=True), serial=3, control=4)
    assert "if=none,id=disk,format=raw,media=cdrom,readonly=on,file=/a/x.iso" in words
    assert "ide-cd,bus=bus.0,drive=disk,bootindex=0" in words
    assert image_head.is_cd(bytes(0x8001) + b"CD001")
    assert not image_head.is_cd(b"CD001")


def test_a_guest_that_qemu_has_stopped_is_ended() -> None:
    control, theirs = socket.socketpair()
    theirs.settimeout(60)
    with control, theirs, theirs.makefile("rw") as qemu_side:
        threading.Thread(target=_end_when_stopped, args=(control,), daemon=True).start()
        assert json.loads(qemu_side.readline()) == {"execute": "qmp_capabilities"}
        for said in ('{"QMP": {}}', '{"return": {}}', '{"event": "RESUME"}', '{"event": "STOP"}'):
            print(said, file=qemu_side, flush=True)
        assert json.loads(qemu_side.readline()) == {"execute": "quit"}
