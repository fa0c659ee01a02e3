"""Compressed kernel modules → files of the same names from which depmod(8) learns the same, in a tenth of the time.

depmod decompresses every module of a kernel, for Debian's some 500 MB, and so does that of an initramfs, to read a few
tables of each. kmod knows a compressed file by its first bytes, not by its name, so plain files under the compressed
names do (kmod 30 to 34, libkmod-file.c). Sections that hold code or data are left out: some 50 MB remain.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dibble.errors import DibbleError
from dibble.packages.unpack import xz

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

FOLDERS = ("usr/lib/modules", "lib/modules")
SUFFIXES = (".ko.xz", ".ko.zst", ".ko.gz")
_CODE = (
    b".text", b".init.text", b".exit.text", b".rodata", b".data", b".init.data", b".rel", b".debug", b".BTF", b".orc",
    b".altinstr", b".return_sites", b".retpoline_sites", b".call_sites", b".ibt_endbr_seal", b".smp_locks",
    b".static_call", b".eh_frame", b".printk_index", b"__mcount_loc", b"__bug_table", b"__jump_table", b"__ex_table",
    b"__tracepoint", b"_ftrace",
)  # fmt: skip
"""Beginnings of names of sections that are left out. depmod reads `.modinfo`, `__versions`, `.symtab`, `.strtab`,
`__ksymtab_strings` and what CRC symbols point to (kmod, libkmod-elf.c), all of which have other names."""
_ELF64_LITTLE = b"\x7fELF\x02\x01\x01"
_E_SIZE = 0x40
_E_SHOFF = 0x28
_E_SHENTSIZE = 0x3A
_SECTION = struct.Struct("<IIQQQQIIQQ")  # sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, …
_SHT_NOBITS = 8


SCRATCH_BYTES = 100 << 20
"""What the plain modules of one kernel take, at most, as Debian's have it."""
_PORTION = 4 << 20
"""Bytes of compressed modules that a worker takes at a time."""

Mark = tuple[int, int, int]
"""Inode number, size in bytes, and time of the last change in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Plain:
    """The modules of one kernel, by `names` below `source` as packaged, and below `directory` plain.

    They are there once `parts` are done. `known` marks files elsewhere, by name, that were found to be packaged ones.
    """

    source: Path
    directory: Path
    names: frozenset[str]
    parts: tuple[Future[None], ...]
    known: set[tuple[str, Mark]] = field(default_factory=set)

    def is_packaged(self, name: str, file: Path) -> bool:
        """Whether a file is the packaged module of that name: at once when it is as it was when that was last seen."""
        status = file.lstat()
        mark = _mark(status)
        if (name, mark) in self.known:
            return True
        if name not in self.names or not stat.S_ISREG(status.st_mode):
            return False
        packaged = self.source / name
        if status.st_size != packaged.stat().st_size or file.read_bytes() != packaged.read_bytes():
            return False
        self.known.add((name, mark))
        return True

    def placed(self, directory: Path) -> None:
        """Take note that the packaged modules have just been copied into `directory`."""
        with contextlib.suppress(FileNotFoundError):
            self.known.update((name, _mark((directory / name).lstat())) for name in self.names)


def _mark(status: os.stat_result) -> Mark:
    """What changes with every change to a file: no program can set the time of its last change back."""
    return status.st_ino, status.st_size, status.st_ctime_ns


class PlainModules:
    """The kernels whose modules are being made plain, below `scratch`, by `submit` (as of an executor's)."""

    def __init__(self, scratch: Path, submit: Callable[..., Future[None]]) -> None:
        self._scratch = scratch
        self._submit = submit
        self._kernels: dict[str, Plain] = {}
        self._coming: Future[Path] | None = None
        self._lock = threading.Lock()

    @property
    def known(self) -> bool:
        """Whether there is any kernel, or may be one."""
        return bool(self._kernels or self._coming)

    def expect(self, coming: Future[Path]) -> None:
        """Begin, when one is asked for at the latest, with the kernels in a directory that is still being filled."""
        self._coming = coming
        coming.add_done_callback(self._came)

    def _came(self, coming: Future[Path]) -> None:
        with contextlib.suppress(DibbleError, OSError, RuntimeError, CancelledError):  # `find` meets it again
            self.begin([coming.result()])

    def begin(self, roots: Iterable[Path]) -> None:
        """Begin with the kernels in the files of unpacked packages, each once, whichever thread is first."""
        for root in roots:
            with self._lock:
                for source, names in kernels(root):
                    if source.name in self._kernels:
                        continue
                    place = self._scratch / source.name
                    parts = tuple(self._submit(make_plain, source, place, some) for some in _portions(source, names))
                    self._kernels[source.name] = Plain(source, place, frozenset(names), parts)

    def placed(self, package: Path, modules_of: Callable[[str], Path]) -> None:
        """Take note that the files of an unpacked package have just been copied into a root.

        `modules_of` gives the directory of a kernel's modules there.
        """
        for plain in self._kernels.values():
            if plain.source.is_relative_to(package):
                plain.placed(modules_of(plain.source.name))

    def find(self, version: str) -> Plain | None:
        """A kernel's plain modules, all of them made; None when it is not known or could not be done."""
        try:
            if self._coming:
                self.begin([self._coming.result()])
            plain = self._kernels.get(version)
            if plain is None:
                return None
            for part in plain.parts:
                part.result()
        except (DibbleError, OSError, ValueError, RuntimeError, CancelledError):
            return None
        return plain


def _portions(source: Path, names: Sequence[str]) -> Iterator[list[str]]:
    some: list[str] = []
    size = 0
    for name in names:
        some.append(name)
        size += (source / name).stat().st_size
        if size >= _PORTION:
            yield some
            some, size = [], 0
    if some:
        yield some


def kernels(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """(directory of a kernel's modules, names of compressed modules in it) for each kernel in a package's files."""
    for folder in FOLDERS:
        if (root / folder).is_dir() and not (root / folder).parent.is_symlink():
            for place in sorted((root / folder).iterdir()):
                names = [name for name in _files(place) if name.endswith(SUFFIXES)]
                if names and not place.is_symlink():
                    yield place, names


def _files(place: Path) -> Iterator[str]:
    for directory, _, names in os.walk(place):
        inside = os.path.relpath(directory, place)
        yield from (name if inside == "." else f"{inside}/{name}" for name in names)


def make_plain(source: Path, destination: Path, names: Sequence[str]) -> None:
    """Make the named modules of `source`, plain, at the same names in `destination`.

    Raises OSError, and ValueError for a file that is not what its name says.
    """
    for name in names:
        module = _decompressed((source / name).read_bytes(), name)
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_tables(module))


def _decompressed(data: bytes, name: str) -> bytes:
    if name.endswith(".xz"):
        try:
            return xz.decompress(data)
        except xz.FAULTS as error:
            raise ValueError(f"{name} does not decompress: {error}") from error
    if name.endswith(".zst"):
        import zstandard

        try:
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        except zstandard.ZstdError as error:
            raise ValueError(f"{name} does not decompress: {error}") from error
    import gzip
    import zlib

    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name} does not decompress: {error}") from error


def _tables(module: bytes) -> bytes:
    """The object file without the content of the sections that are left out, which then look as if they had none.

    A file in a form that is not known is returned as it is. Source: elf(5), struct Elf64_Ehdr and Elf64_Shdr.
    """
    if not module.startswith(_ELF64_LITTLE):
        return module
    try:
        (table,) = struct.unpack_from("<Q", module, _E_SHOFF)
        size, count, names_at = struct.unpack_from("<HHH", module, _E_SHENTSIZE)
        if size != _SECTION.size or not count or names_at >= count or len(module) < table + size * count:
            return module
        headers = [list(_SECTION.unpack_from(module, table + size * number)) for number in range(count)]
        names, names_size = headers[names_at][4:6]
        parts = [module[:_E_SIZE]]
        at = _E_SIZE
        for header in headers:
            name, kind, _, _, offset, length = header[:6]
            title = module[names + name : module.index(b"\0", names + name, names + names_size)]
            if kind == _SHT_NOBITS or title.startswith(_CODE):
                header[1] = _SHT_NOBITS if kind else kind
                header[4] = at
                continue
            if offset + length > len(module):
                return module
            parts.append(module[offset : offset + length])
            header[4] = at
            at += length
    except (struct.error, ValueError):
        return module
    parts += [_SECTION.pack(*header) for header in headers]
    parts[0] = parts[0][:_E_SHOFF] + struct.pack("<Q", at) + parts[0][_E_SHOFF + 8 :]
    return b"".join(parts)
