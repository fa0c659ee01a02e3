"""Writes RPM packages (format 4) directly: no rpmbuild, and the same bytes each time.

Source: https://rpm-software-management.github.io/rpm/manual/format_v4.html, …/format_header.html and rpm's
include/rpm/rpmtag.h, rpmds.h.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.standins.payload import Packed

LESS, GREATER, EQUAL = 2, 4, 8
_INTERPRETER, _RPMLIB = 1 << 8, 1 << 24
_LUA = "<lua>"

# script → (tag of its text, tag of its interpreter, flag of the dependency on that)
_SCRIPTS = {
    "pre": (1023, 1085, 1 << 9),
    "post": (1024, 1086, 1 << 10),
    "preun": (1025, 1087, 1 << 11),
    "postun": (1026, 1088, 1 << 12),
    "posttrans": (1152, 1154, 1 << 5),
}
_INT16, _INT32, _STRING, _BINARY, _STRINGS, _I18N = 3, 4, 6, 7, 8, 9
_SIGNATURES, _IMMUTABLE = 62, 63  # tags of the regions
_MAGIC = b"\x8e\xad\xe8\x01\0\0\0\0"
_SHA256 = 8  # RFC 4880, 9.4

Tags = dict[int, tuple[int, "str | bytes | Sequence[int] | Sequence[str]"]]


@dataclass(frozen=True, slots=True)
class Dependency:
    """A name and, with `flags`, the versions of it that count."""

    name: str
    flags: int = 0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """`interpreter` is a program in the package's system, or rpm's own Lua."""

    text: str
    interpreter: str = "/bin/sh"


@dataclass(frozen=True, slots=True)
class Header:
    """What a package says about itself. `epoch` is empty where there is none."""

    name: str
    version: str
    release: str
    arch: str
    epoch: str = ""
    requires: tuple[Dependency, ...] = ()
    provides: tuple[Dependency, ...] = ()
    scripts: Mapping[str, Script] = field(default_factory=dict)

    @property
    def evr(self) -> str:
        plain = f"{self.version}-{self.release}"
        return f"{self.epoch}:{plain}" if self.epoch else plain

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}-{self.release}.{self.arch}.rpm"


def write_rpm(path: Path, header: Header, packed: Packed, sign: Callable[[bytes], bytes] | None) -> None:
    """Write a package. `sign` makes a binary detached OpenPGP signature by an RSA key; None leaves it unsigned."""
    main = _blob(_tags(header, packed), _IMMUTABLE)
    archive = packed.archive.read_bytes()
    signatures: Tags = {
        269: (_STRING, hashlib.sha1(main).hexdigest()),
        273: (_STRING, hashlib.sha256(main).hexdigest()),
        1000: (_INT32, [len(main) + len(archive)]),
        1007: (_INT32, [packed.size]),
    }
    if sign:
        signatures[268] = (_BINARY, sign(main))
    front = _blob(signatures, _SIGNATURES)
    front += bytes(-len(front) % 8)
    lead = struct.pack(
        ">4sBBHH66sHH16s", b"\xed\xab\xee\xdb", 3, 0, 0, 1, os.fsencode(header.file_name)[:65], 1, 5, b""
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lead + front + main + archive)


def _tags(header: Header, packed: Packed) -> Tags:
    tags: Tags = {
        100: (_STRINGS, ["C"]),
        1000: (_STRING, header.name),
        1001: (_STRING, header.version),
        1002: (_STRING, header.release),
        1004: (_I18N, [header.name]),
        1005: (_I18N, [f"A stand-in for {header.name}, made of packages of Debian."]),
        1006: (_INT32, [1_700_000_000]),
        1007: (_STRING, "standin.invalid"),
        1009: (_INT32, [sum(one.size for one in packed.files)]),
        1011: (_STRING, "Stand-in"),
        1014: (_STRING, "various"),
        1016: (_I18N, ["Unspecified"]),
        1021: (_STRING, "linux"),
        1022: (_STRING, header.arch),
        1044: (_STRING, f"{header.name}-{header.version}-{header.release}.src.rpm"),
        1064: (_STRING, "4.18.0"),
        1124: (_STRING, "cpio"),
        1125: (_STRING, "gzip"),
        1126: (_STRING, "1"),
        5062: (_STRING, "utf-8"),
        5092: (_STRINGS, [packed.digest]),
        5093: (_INT32, [_SHA256]),
        5097: (_STRINGS, [packed.plain_digest]),
    }
    if header.epoch:
        tags[1003] = (_INT32, [int(header.epoch)])
    tags |= _file_tags(packed)
    requires = {(one.name, one.version): one for one in header.requires}
    for kind, script in header.scripts.items():
        text, interpreter, flag = _SCRIPTS[kind]
        tags[text] = (_STRING, script.text)
        tags[interpreter] = (_STRING, script.interpreter)
        if script.interpreter != _LUA:
            old = requires.get((script.interpreter, ""))
            flags = flag | _INTERPRETER | (old.flags if old else 0)
            requires[script.interpreter, ""] = Dependency(script.interpreter, flags)
    for name, version in (
        ("CompressedFileNames", "3.0.4-1"),
        ("FileDigests", "4.6.0-1"),
        ("PayloadFilesHavePrefix", "4.0-1"),
    ):
        requires[f"rpmlib({name})", version] = Dependency(f"rpmlib({name})", _RPMLIB | LESS | EQUAL, version)
    provides = (
        Dependency(header.name, EQUAL, header.evr),
        Dependency(f"{header.name}({header.arch.replace('_', '-')})", EQUAL, header.evr),
        *header.provides,
    )
    for dependencies, numbers in ((requires.values(), (1049, 1048, 1050)), (provides, (1047, 1112, 1113))):
        rows = sorted(dependencies, key=lambda one: (one.name, one.version))
        tags[numbers[0]] = (_STRINGS, [one.name for one in rows])
        tags[numbers[1]] = (_INT32, [one.flags for one in rows])
        tags[numbers[2]] = (_STRINGS, [one.version for one in rows])
    return tags


def _file_tags(packed: Packed) -> Tags:
    files = packed.files
    if not files:
        return {}
    folders: dict[str, int] = {}
    indexes = [folders.setdefault(f"{one.path.rpartition('/')[0]}/", len(folders)) for one in files]
    return {
        1028: (_INT32, [one.size for one in files]),
        1030: (_INT16, [one.mode for one in files]),
        1033: (_INT16, [0] * len(files)),
        1034: (_INT32, [one.mtime for one in files]),
        1035: (_STRINGS, [one.digest for one in files]),
        1036: (_STRINGS, [one.goal for one in files]),
        1037: (_INT32, [one.flags for one in files]),
        1039: (_STRINGS, [one.user for one in files]),
        1040: (_STRINGS, [one.group for one in files]),
        1045: (_INT32, [0xFFFFFFFF] * len(files)),
        1095: (_INT32, [1] * len(files)),
        1096: (_INT32, list(range(1, len(files) + 1))),
        1097: (_STRINGS, [""] * len(files)),
        1116: (_INT32, indexes),
        1117: (_STRINGS, [one.path.rpartition("/")[2] for one in files]),
        1118: (_STRINGS, list(folders)),
        5011: (_INT32, [_SHA256]),
    }


def _blob(tags: Tags, region: int) -> bytes:
    """A header: magic, index sorted by tag, store; `region` marks all of it as one unchangeable piece."""
    store = b""
    index = []
    for tag in sorted(tags):
        kind, value = tags[tag]
        align, count, raw = _raw(kind, value)
        store += bytes(-len(store) % align)
        index.append((tag, kind, len(store), count))
        store += raw
    entries = [(region, _BINARY, len(store), 16), *index]
    store += struct.pack(">IIiI", region, _BINARY, -16 * len(entries), 16)
    rows = b"".join(struct.pack(">IIII", *entry) for entry in entries)
    return _MAGIC + struct.pack(">II", len(entries), len(store)) + rows + store


def _raw(kind: int, value: str | bytes | Sequence[int] | Sequence[str]) -> tuple[int, int, bytes]:
    """Alignment, number of values and bytes of one tag."""
    if isinstance(value, bytes):
        return 1, len(value), value
    if isinstance(value, str):
        return 1, 1, value.encode() + b"\0"
    if kind in (_INT16, _INT32):
        size, letter = (2, "H") if kind == _INT16 else (4, "I")
        return size, len(value), struct.pack(f">{len(value)}{letter}", *value)
    return 1, len(value), b"".join(os.fsencode(str(one)) + b"\0" for one in value)
