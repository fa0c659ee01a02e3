"""A tree with everything that a file system may lose, and what it holds as text, entry by entry."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

EPOCH = 1_700_000_000
ODD_NAMES = (
    b"two words",
    b"line\nend",
    b"tab\there",
    b"back\\slash",
    b'quo"te',
    b"caf\xe9",
    b"\xff\xfe",
    b"-rf",
    b"n" * 255,
)
CAPABILITY = bytes.fromhex("0100000200040000" + "00" * 12)  # cap_net_bind_service=ep, as chown's rules know it
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER, _ANY = 1, 2, 4, 16, 32, 0xFFFFFFFF  # linux/posix_acl.h
LOSSES = frozenset({"acls", "attributes", "early times", "fractions", "hard links", "fifos", "sockets", "long links"})
"""What some file systems have no place for."""
OLDEST = -100_000_000  # seconds: before 1970


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access control list of (tag, rights, id) as the attribute has it."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ACL = acl((_USER_OBJ, 7, _ANY), (_USER, 5, 1234), (_GROUP_OBJ, 5, _ANY), (_MASK, 7, _ANY), (_OTHER, 0, _ANY))


def make_torture(
    top: Path, *, many: int = 3000, largest_id: int = 65_000, without: Collection[str] = (), devices: bool = False
) -> Path:
    """Fill the directory `top`. `many` are the files of the large directory. `without` are words of LOSSES.

    Device nodes can only be made by the machine's own root.
    """
    top.chmod(0o755)
    (top / "empty").touch()
    (top / "hello").write_text("hello\n")
    (top / "empty-folder").mkdir()
    for mode in (0o4755, 0o2755, 0o1777, 0o6711, 0o7777, 0o000, 0o400):
        (top / f"file-{mode:04o}").write_bytes(b"x" * mode)
        (top / f"folder-{mode:04o}").mkdir()
    for number, owner in enumerate(((1, 2), (1000, 1000), (65_000, 64_999), (largest_id, largest_id - 1))):
        (top / f"owned-{number}").write_text("mine")
        os.chown(top / f"owned-{number}", *owner)
        (top / f"owned-link-{number}").symlink_to("hello")
        os.chown(top / f"owned-link-{number}", *owner, follow_symlinks=False)
    _make_names(top)
    _make_links(top, without)
    _make_special(top, without, devices=devices)
    if "attributes" not in without:
        _make_attributes(top, without)
    _make_sizes(top)
    folder = top / "large-folder"
    folder.mkdir()
    for number in range(many):
        (folder / f"a-file-with-a-name-of-some-length-{number}").write_bytes(b"%d" % number if number % 7 == 0 else b"")
    for mode in (0o4755, 0o2755, 0o1777, 0o6711, 0o7777, 0o000, 0o400):
        (top / f"file-{mode:04o}").chmod(mode)
        (top / f"folder-{mode:04o}").chmod(mode)
    _set_times(top, without)
    return top


def _make_names(top: Path) -> None:
    folder = top / "names"
    folder.mkdir()
    for name in ODD_NAMES:
        (folder / os.fsdecode(name)).write_bytes(name)
    deep = folder
    for level in range(60):
        deep /= f"level-{level}"
        deep.mkdir()
    (deep / "bottom").write_bytes(b"deep")
    # Directories of every size about the limits of a directory in an inode and in one block.
    for count in (1, 5, 10, 20, 40, 80, 120, 128, 160, 240, 600):
        place = top / f"folder-of-{count}"
        place.mkdir()
        for number in range(count):
            (place / f"name-{number:05d}").touch()


def _make_links(top: Path, without: Collection[str]) -> None:
    (top / "other").mkdir()
    for name in ("twin", "other/triplet") if "hard links" not in without else ():
        os.link(top / "hello", top / name)
    (top / "short-link").symlink_to("hello")
    (top / "broken-link").symlink_to("/no/where")
    for length in (59, 60, 155, 156, *((335, 336, 337, 800, 1023) if "long links" not in without else ())):
        (top / f"link-{length}").symlink_to("x/" * (length // 2) + "y" * (length % 2))
    if "hard links" not in without:
        os.link(top / "short-link", top / "twin-of-a-link", follow_symlinks=False)


def _make_special(top: Path, without: Collection[str], *, devices: bool) -> None:
    if "fifos" not in without:
        os.mkfifo(top / "pipe")
    if not {"fifos", "hard links"} & set(without):
        os.link(top / "pipe", top / "twin-of-a-pipe")
    if "sockets" not in without:
        os.mknod(top / "socket", 0o755 | stat.S_IFSOCK)
    if devices:
        os.mknod(top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(top / "far", 0o600 | stat.S_IFCHR, os.makedev(300, 70_000))
        os.mknod(top / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 1023))


def _make_attributes(top: Path, without: Collection[str]) -> None:
    def attributed(name: str, **values: bytes) -> None:
        (top / name).write_text(name)
        for key, value in values.items():
            os.setxattr(top / name, key.replace("__", "."), value)

    attributed("capable", security__capability=CAPABILITY)
    attributed("one-attribute", user__one=b"value")
    attributed("no-value", user__empty=b"")
    attributed("binary", user__binary=bytes(range(256))[:200])
    attributed("large-value", user__large=b"v" * 3300)
    attributed("two-large", user__a=b"v" * 1700, user__b=b"w" * 1700)
    attributed("long-name", **{"user__" + "n" * 250: b"value"})
    attributed("many-attributes", **{f"user__name{number}": b"value%d" % number for number in range(40)})
    (top / "listed-folder").mkdir()
    if "acls" not in without:
        attributed("listed", system__posix_acl_access=ACL)
        os.setxattr(top / "listed-folder", "system.posix_acl_access", ACL)
        os.setxattr(top / "listed-folder", "system.posix_acl_default", ACL)
    os.setxattr(top / "listed-folder", "user.folder", b"too")
    for number in range(10):
        (top / "listed-folder" / f"file-{number}").touch()
    os.setxattr(top, "user.top", b"the root's own")


def _make_sizes(top: Path) -> None:
    content = bytes(range(1, 256)) * 1100
    for size in (1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000, 280_000):
        (top / f"size-{size}").write_bytes(content[:size])
    with (top / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(3_000_000)
        file.write(b"middle")
        file.truncate(9_000_001)
    with (top / "only-a-hole").open("wb") as file:
        file.truncate(5_000_000)
    with (top / "in-pieces").open("wb") as file:  # as many extents as no inode holds
        for number in range(300):
            file.seek(number * 131_072)
            file.write(b"piece %d" % number)


def _set_times(top: Path, without: Collection[str]) -> None:
    second = 1_000_000_000
    moments = [0, 1, EPOCH * second - 1, 1_234_567_890_123_456_789, 946_684_799 * second + 999_999_999]
    if "early times" not in without:
        moments.append(OLDEST * second + 7)
    if "fractions" in without:
        moments = [moment // second * second for moment in moments]
    for number, path in enumerate(sorted(top.rglob("*"), key=os.fsencode, reverse=True)):
        os.utime(path, ns=(7 * second, moments[number % len(moments)]), follow_symlinks=False)
    os.utime(top, ns=(0, 1_600_000_000 * second))


def listing(top: Path) -> dict[str, str]:
    """What is at each name: kind, mode, owners, size, time, links, attributes and a digest of the content."""
    found = {}
    groups: dict[tuple[int, int], str] = {}
    paths = [b"."]
    root = os.fsencode(top)
    while paths:
        name = paths.pop()
        path = root + b"/" + name
        status = os.lstat(path)
        text = name.decode(errors="backslashreplace")
        if stat.S_ISDIR(status.st_mode):
            below = sorted(os.listdir(path))  # noqa: PTH208 - bytes
            content, size = f"{len(below)} entries", 0
            paths += [name + b"/" + child for child in below]
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()[:20]
            size = status.st_size
        elif stat.S_ISLNK(status.st_mode):
            content, size = repr(os.readlink(path)), status.st_size  # noqa: PTH115 - bytes
        else:
            content, size = f"{os.major(status.st_rdev)},{os.minor(status.st_rdev)}", 0
        attributes = [f"{key}={os.getxattr(path, key, follow_symlinks=False).hex()}" for key in _names(path)]
        first = groups.setdefault((status.st_dev, status.st_ino), text)
        found[text] = (
            f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {size} {status.st_mtime_ns} {content}"
            f" {status.st_nlink if not stat.S_ISDIR(status.st_mode) else ''} {'' if first == text else first}"
            f" {' '.join(attributes)}"
        )
    return found


def _names(path: bytes) -> list[str]:
    kept = ("user.", "security.capability", "system.posix_acl")
    return sorted(name for name in os.listxattr(path, follow_symlinks=False) if name.startswith(kept))


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """What is not as it was, entry by entry."""
    names = sorted(expected.keys() | found.keys())
    return [
        f"{name}: {expected.get(name)} != {found.get(name)}" for name in names if expected.get(name) != found.get(name)
    ]


def main() -> None:
    """`make DIRECTORY FILE WITHOUT…` fills a directory and notes in FILE what it holds; `compare DIRECTORY FILE`."""
    verb, directory, note, *without = sys.argv[1:]
    top = Path(directory)
    if verb == "make":
        assert not set(without) - LOSSES
        top.mkdir(parents=True, exist_ok=True)
        make_torture(top, many=1000, without=without)
        Path(note).write_text(json.dumps(listing(top)))
    else:
        found = differences(json.loads(Path(note).read_text()), listing(top))
        print("\n".join([f"{len(found)} differences", *found[:40]]))


if __name__ == "__main__":
    main()
