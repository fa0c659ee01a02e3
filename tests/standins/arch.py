"""Arch Linux, made of packages of Debian: signed, with the names, paths and formats of the real one.

Some databases hold the signatures of packages, others do not, and one is signed itself: all of this is in use.

    PLACE/REPOSITORY/os/ARCH/   packages, each with .sig beside it, and REPOSITORY.db
    PLACE/keys/arch.asc         the key that signs
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import multiprocessing
import os
import re
import shutil
import stat
import tarfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import zstandard

from dibble.events import Events
from dibble.packages.debian_archive import DebianArchive
from dibble.packages.rpm_keys import fingerprints
from dibble.sandbox.tools import default_mirrors
from dibble.store.places import open_store
from tests.inside import with_tools
from tests.standins import arch_tables as tables
from tests.standins import debs
from tests.standins.make import Signer, locked
from tests.standins.payload import KEPT_CONFIG, MTIME, Entry, Files, of_tree
from tests.standins.redhat import ARCHITECTURES, SKIPPED
from tests.standins.redhat_packages import GROUP_NAMES, setup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dibble.sandbox.toolbox import Toolbox

_GENERATOR = ("arch", "arch_tables", "debs", "make", "payload", "redhat", "redhat_packages", "redhat_tables")
_OWNER = "Arch Linux Master Key (stand-in) <master-key@archlinux.org>"
REPOSITORIES = ("core", "extra")
_PACKAGER = "Stand-in <nobody@archlinux.org>"
_LEVEL = 1  # of zstd


@dataclass(frozen=True, slots=True)
class Mirror:
    """A made mirror: the directory to be served, and in it the file with the key that signs."""

    place: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Job:
    """One package to be made; `debs` and `kernel` are of those that Debian has, `files` of those of ours."""

    name: str
    version: str
    arch: str
    depends: tuple[str, ...]
    provides: tuple[str, ...]
    debs: tuple[debs.Deb, ...] = ()
    kernel: str = ""
    files: Files | None = None

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}-{self.arch}.pkg.tar.zst"


@dataclass(frozen=True, slots=True)
class Packed:
    """A package on disk. `size` in bytes, of its files."""

    job: Job
    file: Path
    size: int


def made(cache: Path, arch: str = "amd64") -> Mirror:
    """The stand-in out of the cache, made where it is missing: some 20 s."""
    places = cache / "standins"
    places.mkdir(parents=True, exist_ok=True)
    place = places / f"arch-{arch}-{_digest(cache, arch)}"
    with locked(places / f"arch-{arch}.lock"):
        if not place.is_dir():
            for old in places.glob(f"arch-{arch}-*"):
                shutil.rmtree(old)
            home = places / "keys/arch"
            with_tools(cache, lambda toolbox, work: _make(cache, arch, place, toolbox, work, home), "pacman")
    return Mirror(place, place / "keys/arch.asc")


def _digest(cache: Path, arch: str) -> str:
    archive = DebianArchive(default_mirrors(), debs.SUITE, arch, blobs=open_store(cache).blobs, events=Events())
    index, _ = archive.release().files[f"main/binary-{arch}/Packages.xz"]
    texts = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in _GENERATOR]
    return hashlib.sha256(b"\0".join([index.encode(), *texts])).hexdigest()[:16]


def _make(cache: Path, arch: str, place: Path, toolbox: Toolbox, work: Path, home: Path) -> None:
    signer = Signer(toolbox, home, work, _OWNER)
    jobs = _jobs(cache, arch, signer.certificate)
    out = work / "mirror"
    directories = {name: out / name / "os" / ARCHITECTURES[arch] for name in REPOSITORIES}
    for directory in directories.values():
        directory.mkdir(parents=True)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        largest_first = sorted(jobs, key=lambda job: -_weight(job))
        running = [pool.submit(_packed, job, directories[_repository(job)]) for job in largest_first]
        packages = [future.result() for future in running]
    with ThreadPoolExecutor() as threads:
        signatures = list(threads.map(lambda one: signer.sign(one.file.read_bytes()), packages))
    for one, signature in zip(packages, signatures, strict=True):
        one.file.with_name(f"{one.file.name}.sig").write_bytes(signature)
    for name, directory in directories.items():
        held = name == "extra"
        rows = [
            (one, signature if held else b"")
            for one, signature in zip(packages, signatures, strict=True)
            if one.file.parent == directory
        ]
        database = directory / f"{name}.db"
        database.write_bytes(_database(rows))
        if not held:
            database.with_name(f"{database.name}.sig").write_bytes(signer.sign(database.read_bytes()))
    key = out / "keys/arch.asc"
    key.parent.mkdir()
    key.write_text(signer.certificate)
    signer.close()
    for path in (out, *out.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    out.rename(place)


def _repository(job: Job) -> str:
    return "extra" if job.name in tables.IN_EXTRA else "core"


def _weight(job: Job) -> int:
    return sum((deb.place / "contents").stat().st_size for deb in job.debs)


# --- which packages


def _jobs(cache: Path, arch: str, certificate: str) -> list[Job]:
    image_root = f"linux-image-cloud-{arch}"
    roots = [*tables.ROOTS, image_root, *tables.FIRMWARE_ROOTS[arch]]
    found = debs.fetched(open_store(cache), arch, roots, tables.LEFT_OUT)
    image = next(name for name in found.pop(image_root).needs if name.startswith("linux-image-"))
    merged = {**tables.MERGED, tables.KERNEL: image}
    name_of = {deb: name for name, members in merged.items() for deb in members.split()}
    parts: dict[str, list[debs.Deb]] = {}
    for deb in found.values():
        parts.setdefault(name_of.get(deb.name, deb.name), []).append(deb)
    (fingerprint,) = fingerprints([certificate])
    ours = tables.own_packages(_binary(certificate), fingerprint)
    known = {*parts, *ours, "initramfs"}
    jobs = [
        Job(name, one.version, "any", one.depends, one.provides, files=one.files) for name, one in sorted(ours.items())
    ]
    for name, members in sorted(parts.items()):
        order = merged.get(name, name).split()
        first = min(members, key=lambda deb: order.index(deb.name))
        needs = {name_of.get(need, need) for deb in members for need in deb.needs if need in found}
        needs |= set(tables.DEPENDS.get(name, "").split())
        jobs.append(
            Job(
                name,
                _version(first.version),
                "any" if all(deb.arch == "all" for deb in members) else ARCHITECTURES[arch],
                tuple(sorted((needs - {name}) & known)),
                tuple(tables.PROVIDES.get(name, "").split()),
                tuple(members),
                image.removeprefix("linux-image-") if name == tables.KERNEL else "",
            )
        )
    return jobs


def _version(text: str) -> str:
    """A version of Debian's as pacman has it: [EPOCH:]VERSION-NUMBER."""
    epoch, _, rest = text.rpartition(":")
    version, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "1")
    number = re.match(r"\d+", release)
    return f"{f'{epoch}:' if epoch else ''}{version.replace('-', '_')}-{number[0] if number else 1}"


def _binary(certificate: str) -> bytes:
    import pysequoia

    return bytes(pysequoia.Cert.from_bytes(certificate.encode()))


# --- one package


def _packed(job: Job, directory: Path) -> Packed:
    files = job.files or _of_debs(job)
    if job.debs and (addition := tables.ADDITIONS.get(job.name)):
        addition(files)
    groups = dict(line.split(":")[::2] for line in setup().entries["/etc/group"].content().decode().splitlines())
    entries = _with_parents(files, own_root=job.name == "filesystem")
    contents = {path: entry.content() if stat.S_ISREG(entry.mode) else entry.data for path, entry in entries.items()}
    size = sum(len(data) for path, data in contents.items() if stat.S_ISREG(entries[path].mode))
    meta = {".PKGINFO": _pkginfo(job, files, size).encode(), ".MTREE": _mtree(entries, contents, groups)}
    if scripts := tables.SCRIPTS.get(job.name):
        text = "".join(f"{name}() {{\n{body}}}\n\n" for name, body in scripts.items())
        meta[".INSTALL"] = text.encode()
    file = directory / job.file_name
    with (
        file.open("wb") as raw,
        zstandard.ZstdCompressor(_LEVEL).stream_writer(raw, closefd=False) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, data in meta.items():
            tar.addfile(_info(name, Entry(stat.S_IFREG | 0o644), len(data), 0), io.BytesIO(data))
        for path, entry in sorted(entries.items()):
            is_file = stat.S_ISREG(entry.mode)
            info = _info(path.lstrip("/"), entry, len(contents[path]) if is_file else 0, int(groups[entry.group]))
            tar.addfile(info, io.BytesIO(contents[path]) if is_file else None)
    return Packed(job, file, size)


def _of_debs(job: Job) -> Files:
    files = Files()
    for deb in job.debs:
        for found, entry in of_tree(deb.place / "root", deb.conffiles, GROUP_NAMES):
            path = found
            if job.kernel and path.startswith("/boot/"):
                path = f"/usr/lib/modules/{job.kernel}/{path.removeprefix('/boot/').removesuffix(f'-{job.kernel}')}"
            path = re.sub(r"^/usr/sbin(?=/|$)", "/usr/bin", re.sub(r"^/usr/lib64(?=/|$)", "/usr/lib", path))
            if f"{path}/".startswith(SKIPPED) or path in ("/", "/boot"):
                continue
            if stat.S_ISLNK(entry.mode) and _leads_to_itself(path, os.fsdecode(entry.data)):
                continue
            if path not in files.entries or stat.S_ISDIR(files.entries[path].mode):
                files.entries[path] = entry
    if job.kernel:
        files.file(f"/usr/lib/modules/{job.kernel}/pkgbase", f"{job.name}\n")
    return files


def _leads_to_itself(path: str, goal: str) -> bool:
    """Whether a link from a directory for the administrator's programs leads to what now has its own name."""
    in_bin = re.sub(r"(^|/)s?bin/", r"\1bin/", goal)
    place = in_bin if goal.startswith("/") else os.path.normpath(PurePosixPath(path).parent / in_bin)
    return re.sub(r"^/bin/", "/usr/bin/", place) == path


def _with_parents(files: Files, *, own_root: bool) -> dict[str, Entry]:
    """The entries, with the directories that they are in; those that every system has are `filesystem`'s to say."""
    entries = dict(files.entries)
    for path in files.entries:
        for parent in PurePosixPath(path).parents:
            if str(parent) != "/":
                entries.setdefault(str(parent), Entry(stat.S_IFDIR | 0o755))
    if own_root:
        return entries
    told = tables.own_packages(b"", "")["filesystem"].files.entries
    return {path: entry for path, entry in entries.items() if not (stat.S_ISDIR(entry.mode) and path in told)}


def _info(name: str, entry: Entry, size: int, group: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mtime, info.mode, info.gid, info.size = MTIME, stat.S_IMODE(entry.mode), group, size
    if stat.S_ISDIR(entry.mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(entry.mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(entry.data)
    return info


def _pkginfo(job: Job, files: Files, size: int) -> str:
    """PKGINFO(5)."""
    rows = [("pkgname", job.name), ("pkgbase", job.name), ("xdata", "pkgtype=pkg"), ("pkgver", job.version)]
    rows += [("pkgdesc", f"{job.name}, made of packages of Debian"), ("url", "https://archlinux.org/")]
    rows += [("builddate", str(MTIME)), ("packager", _PACKAGER), ("size", str(size)), ("arch", job.arch)]
    rows += [("license", "custom")]
    rows += [("backup", path.lstrip("/")) for path, one in sorted(files.entries.items()) if one.flags == KEPT_CONFIG]
    rows += [("provides", one) for one in job.provides] + [("depend", one) for one in job.depends]
    return "# Generated by makepkg 7.0.0\n" + "".join(f"{name} = {value}\n" for name, value in rows)


def _mtree(entries: dict[str, Entry], contents: dict[str, bytes], groups: dict[str, str]) -> bytes:
    """What `pacman -Qkk` holds a system against: mtree(5), compressed."""
    lines = ["#mtree", "/set type=file uid=0 gid=0 mode=644"]
    for path, entry in sorted(entries.items()):
        name = "".join(letter if letter.isalnum() or letter in "/._-+" else f"\\{ord(letter):03o}" for letter in path)
        words = [f".{name}", f"time={MTIME}.0", f"gid={groups[entry.group]}"]
        if stat.S_ISDIR(entry.mode):
            words += [f"mode={stat.S_IMODE(entry.mode):o}", "type=dir"]
        elif stat.S_ISLNK(entry.mode):
            words += ["mode=777", "type=link", f"link={os.fsdecode(entry.data)}"]
        else:
            digest = hashlib.sha256(contents[path]).hexdigest()
            words += [f"mode={stat.S_IMODE(entry.mode):o}", f"size={len(contents[path])}", f"sha256digest={digest}"]
        lines.append(" ".join(words))
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), 1, mtime=0)


# --- the database


def _database(rows: Iterable[tuple[Packed, bytes]]) -> bytes:
    """What repo-add(8) writes; with the signatures of packages that have one here."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=MTIME) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for one, signature in sorted(rows, key=lambda row: row[0].job.name):
            data = _desc(one, signature).encode()
            place = f"{one.job.name}-{one.job.version}"
            tar.addfile(_info(place, Entry(stat.S_IFDIR | 0o755), 0, 0))
            tar.addfile(_info(f"{place}/desc", Entry(stat.S_IFREG | 0o644), len(data), 0), io.BytesIO(data))
    return packed.getvalue()


def _desc(one: Packed, signature: bytes) -> str:
    job = one.job
    data = one.file.read_bytes()
    fields = {
        "FILENAME": [job.file_name],
        "NAME": [job.name],
        "BASE": [job.name],
        "VERSION": [job.version],
        "DESC": [f"{job.name}, made of packages of Debian"],
        "CSIZE": [str(len(data))],
        "ISIZE": [str(one.size)],
        "SHA256SUM": [hashlib.sha256(data).hexdigest()],
        "PGPSIG": [base64.b64encode(signature).decode()] if signature else [],
        "URL": ["https://archlinux.org/"],
        "LICENSE": ["custom"],
        "ARCH": [job.arch],
        "BUILDDATE": [str(MTIME)],
        "PACKAGER": [_PACKAGER],
        "PROVIDES": job.provides,
        "DEPENDS": job.depends,
    }
    found = ((name, "".join(f"{line}\n" for line in lines)) for name, lines in fields.items() if lines)
    return "".join(f"%{name}%\n{text}\n" for name, text in found)
