"""Partition types as block-device descriptions name them: four hexadecimal digits as sgdisk has them, or a GUID.

The GUIDs are those of UEFI 2.10 (5.3.3), of the Discoverable Partitions Specification, and of the systems named.
"""

from __future__ import annotations

import re
from uuid import UUID

TYPES: dict[str, UUID] = {
    code: UUID(guid)
    for code, guid in {
        "0700": "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",  # Microsoft basic data
        "0C01": "e3c9e316-0b5c-4db8-817d-f92df00215ae",  # Microsoft reserved
        "2700": "de94bba4-06d1-4d40-a16a-bfd50179d6ac",  # Windows recovery
        "4100": "9e1a2d38-c612-4316-aa26-8b49521e5a8b",  # PowerPC PReP boot
        "7F00": "fe3a2a5d-4f32-41a7-b725-accc3285a309",  # ChromeOS kernel
        "7F01": "3cb8e202-3b7e-47dd-8a3c-7ff2a13cfcec",  # ChromeOS root
        "8200": "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",  # Linux swap
        "8300": "0fc63daf-8483-4772-8e79-3d69d8477de4",  # Linux file system
        "8301": "8da63339-0007-60c0-c436-083ac8230908",  # Linux reserved
        "8302": "933ac7e1-2eb4-4f13-b844-0e14e2aef915",  # /home
        "8303": "44479540-f297-41b2-9af7-d131d5f0458a",  # / of x86
        "8304": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",  # / of x86-64
        "8305": "b921b045-1df0-41c3-af44-4c6f280d3fae",  # / of 64-bit Arm
        "8306": "3b8f8425-20e0-4f3b-907f-1a25a76f98e8",  # /srv
        "8307": "69dad710-2ce4-4e3c-b16c-21a1d49abed3",  # / of 32-bit Arm
        "8308": "7ffec5c9-2d00-49b7-8941-3ea10a5586b7",  # dm-crypt
        "8309": "ca7d7ccb-63ed-4c53-861c-1742536059cc",  # LUKS
        "830A": "993d8d3d-f80e-4225-855a-9daf8ed7ea97",  # / of Itanium
        "830B": "d13c5d3b-b5d1-422a-b29f-9454fdc89d76",  # verity of /, x86
        "830C": "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",  # verity of /, x86-64
        "830D": "7386cdf2-203c-47a9-a498-f2ecce45a2d6",  # verity of /, 32-bit Arm
        "830E": "df3300ce-d69f-4c92-978c-9bfb0f38d820",  # verity of /, 64-bit Arm
        "8310": "4d21b016-b534-45c2-a9fb-5c16e091fd2d",  # /var
        "8311": "7ec6f557-3bc5-4aca-b293-16ef5df639d1",  # /var/tmp
        "8312": "773f91ef-66d4-49b5-bd83-d683bf40ad16",  # the home of a user
        "8313": "75250d76-8cc6-458e-bd66-bd47cc81a812",  # /usr of x86
        "8314": "8484680c-9521-48c6-9c11-b0720656f69e",  # /usr of x86-64
        "8315": "7d0359a3-02b3-4f0a-865c-654403e70625",  # /usr of 32-bit Arm
        "8316": "b0e01050-ee5f-4390-949a-9101b17104e9",  # /usr of 64-bit Arm
        "8318": "8f461b0d-14ee-4e81-9aa9-049b6fb97abd",  # verity of /usr, x86
        "8319": "77ff5f63-e7b6-4633-acf4-1565b864c0e6",  # verity of /usr, x86-64
        "831A": "c215d751-7bcd-4649-be90-6627490a4c05",  # verity of /usr, 32-bit Arm
        "831B": "6e11a4e7-fbca-4ded-b9e9-e1a512bb664e",  # verity of /usr, 64-bit Arm
        "8E00": "e6d6d379-f507-44c2-a23c-238f2a3df928",  # LVM
        "A500": "516e7cb4-6ecf-11d6-8ff8-00022d09712b",  # FreeBSD
        "AF00": "48465300-0000-11aa-aa11-00306543ecac",  # Apple HFS+
        "B000": "3de21764-95bd-54bd-a5c3-4abe786f38a8",  # U-Boot environment
        "BB00": "4778ed65-bf42-45fa-9c5b-287a1dc4aab1",  # barebox environment
        "EA00": "bc13c2ff-59e6-4262-a352-b275fd6f7172",  # XBOOTLDR, the extended boot partition
        "EF00": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",  # EFI system partition
        "EF01": "024dee41-33e7-11d3-9d69-0008c781f39f",  # MBR partition scheme
        "EF02": "21686148-6449-6e6f-744e-656564454649",  # BIOS boot partition
        "FD00": "a19d880f-05fc-4d3b-a006-743f0f84911e",  # Linux RAID
    }.items()
}

_CODE = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{4})")
_GUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def type_guid(text: str) -> UUID | None:
    """The type GUID of `8300`, `0x8300` or a GUID as text; None for a text that is neither, or an unknown code."""
    if match := _CODE.fullmatch(text):
        return TYPES.get(match[1].upper())
    return UUID(text) if _GUID.fullmatch(text) else None
