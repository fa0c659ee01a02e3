"""Gentoo, made of packages of Debian: a stage, the tree of ebuilds, distfiles and binary packages, all signed.

Names, paths and formats are those of https://distfiles.gentoo.org; Portage is the real one. Binary packages are built
and signed by it, in the stage.

    PLACE/releases/ARCH/autobuilds/   stages: latest-*.txt, and for each day a directory
    PLACE/releases/ARCH/binpackages/  binary packages
    PLACE/snapshots/                  the tree of ebuilds
    PLACE/distfiles/                  what ebuilds are made of
    PLACE/keys/gentoo-release.asc     the key that signs
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import os
import shutil
import stat
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dibble.events import Events
from dibble.packages.debian_archive import DebianArchive
from dibble.sandbox import mounts
from dibble.sandbox.process import run
from dibble.sandbox.tools import default_mirrors
from dibble.store.places import open_store
from tests.inside import with_tools
from tests.standins import debs
from tests.standins import gentoo_tables as tables
from tests.standins.make import Signer, armoured, locked
from tests.standins.payload import MTIME, Files, of_tree
from tests.standins.redhat import SKIPPED
from tests.standins.redhat_packages import GROUP_NAMES, filesystem, setup
from tests.standins.redhat_tables import LEFT_OUT

if TYPE_CHECKING:
    from dibble.sandbox.toolbox import Toolbox
    from tests.standins.debs import Deb

STAGE = "systemd"
_GENERATOR = ("debs", "gentoo", "gentoo_tables", "make", "payload", "redhat_packages", "redhat_tables")
_OWNER = "Gentoo ebuild repository signing key (stand-in) <infrastructure@gentoo.org>"
_PORTAGE_USER = ("portage:x:250:250:portage:/var/lib/portage/home:/bin/false\n", "portage:x:250:portage\n")
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Mirror:
    """A made mirror: the directory to be served, and in it the file with the key that signs."""

    place: Path
    key: Path


def made(cache: Path, arch: str = "amd64") -> Mirror:
    """The stand-in out of the cache, made where it is missing: most of a minute."""
    places = cache / "standins"
    places.mkdir(parents=True, exist_ok=True)
    place = places / f"gentoo-{arch}-{_digest(cache, arch)}"
    with locked(places / f"gentoo-{arch}.lock"):
        if not place.is_dir():
            for old in places.glob(f"gentoo-{arch}-*"):
                shutil.rmtree(old)
            home = places / "keys/gentoo"
            with_tools(cache, lambda toolbox, work: _Maker(cache, arch, toolbox, work, home).make(place), "rpm")
    return Mirror(place, place / "keys/gentoo-release.asc")


def _digest(cache: Path, arch: str) -> str:
    archive = DebianArchive(default_mirrors(), debs.SUITE, arch, blobs=open_store(cache).blobs, events=Events())
    index, _ = archive.release().files[f"main/binary-{arch}/Packages.xz"]
    texts = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in _GENERATOR]
    return hashlib.sha256(b"\0".join([index.encode(), *texts])).hexdigest()[:16]


class _Signer(Signer):
    """gpg as it signs what Gentoo has."""

    def clearsigned(self, text: str) -> bytes:
        file = self._work / "text.asc"
        with file.open("wb") as output:
            words = [*self._gpg, "--digest-algo", "sha512", "--clearsign"]
            self._toolbox.run(words, stdin=text.encode(), stdout_file=output)
        return file.read_bytes()

    def detached(self, file: Path) -> bytes:
        """The signature of a file, armoured."""
        return armoured(self.sign(file.read_bytes()))

    def secret(self) -> bytes:
        return self._toolbox.run([*self._gpg, "--armor", "--export-secret-keys"]).output.encode() + b"\n"


class _Maker:
    """Makes one mirror below `work`, in the namespace."""

    def __init__(self, cache: Path, arch: str, toolbox: Toolbox, work: Path, home: Path) -> None:
        self._arch = arch
        self._toolbox = toolbox
        self._work = work
        self._signer = _Signer(toolbox, home, work, _OWNER)
        self._root = work / "stage"
        self._tree = work / "tree"
        self._out = work / "mirror"
        packages = {name: one.debs for name, one in tables.EBUILDS.items()}
        packages["sys-boot/grub"] += f" {tables.FIRMWARE[arch]}"
        roots = [*tables.STAGE_ROOTS, f"linux-image-cloud-{arch}", *" ".join(packages.values()).split()]
        self._debs = debs.fetched(open_store(cache), arch, roots, LEFT_OUT)
        image = next(
            name for name in self._debs[roots[len(tables.STAGE_ROOTS)]].needs if name.startswith("linux-image")
        )
        self._kernel = image.removeprefix("linux-image-")
        self._ebuilds = {
            **tables.EBUILDS,
            tables.KERNEL: tables.Ebuild(
                image, "sys-kernel/dracut", phases=tables.KERNEL_PHASES.format(kernel=self._kernel)
            ),
        }
        self._contents = {**packages, tables.KERNEL: image}

    def make(self, place: Path) -> None:
        self._make_stage()
        self._make_tree()
        self._pack_stage()
        self._build_packages()
        key = self._out / "keys/gentoo-release.asc"
        key.parent.mkdir(parents=True)
        key.write_text(self._signer.certificate)
        self._signer.close()
        for path in (self._out, *self._out.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self._out.rename(place)

    # --- the stage

    def _make_stage(self) -> None:
        own = {name for names in self._contents.values() for name in names.split()}
        files = filesystem()
        files.entries |= setup().entries
        for deb in self._debs.values():
            if deb.name not in own and not deb.name.startswith("linux-image"):
                _take(files, deb)
        files.entries |= setup().entries
        for addition in tables.ADDITIONS:
            addition(files)
        files.file(
            "/usr/lib/os-release", 'NAME=Gentoo\nID=gentoo\nPRETTY_NAME="Gentoo Linux (Stand-in)"\nVERSION_ID=2.18\n'
        )
        files.link("/etc/os-release", "../usr/lib/os-release")
        files.file("/etc/gentoo-release", "Gentoo Base System release 2.18\n")
        for path, more in zip(("/etc/passwd", "/etc/group"), _PORTAGE_USER, strict=True):
            files.file(path, files.entries[path].content() + more.encode())
        presets = ("getty@.service", "systemd-networkd.service", "dbus.socket")
        text = "".join(f"enable {one}\n" for one in presets) + "disable *\n"
        files.file("/usr/lib/systemd/system-preset/90-default.preset", text)
        _take_portage(files)
        self._configure_portage(files)
        self._root.mkdir()
        _written(files, self._root)
        for words in (["systemd-sysusers"], ["systemctl", "preset-all"], ["ldconfig"], ["systemd-hwdb", "update"]):
            run(words, root=self._root, env=_ENVIRONMENT, check=False)
        (self._root / "etc/machine-id").write_text("")

    def _configure_portage(self, files: Files) -> None:
        arch = self._arch
        files.file("/usr/bin/getuto", tables.GETUTO, 0o755)
        files.file("/usr/share/openpgp-keys/gentoo-release.asc", self._signer.certificate)
        files.file("/etc/portage/make.conf", f'{tables.MAKE_CONF}CHOST="{tables.CHOSTS[arch]}"\n')
        files.link("/etc/portage/make.profile", f"../../var/db/repos/gentoo/profiles/{_profile(arch)}/{STAGE}")
        uri = f"https://distfiles.gentoo.org/{_binhost(arch)}"
        files.file(
            "/etc/portage/binrepos.conf/gentoobinhost.conf", f"[gentoobinhost]\npriority = 1\nsync-uri = {uri}\n"
        )
        for path in (
            "/etc/portage/repos.conf",
            "/etc/env.d",
            "/var/db/repos",
            "/var/cache/distfiles",
            "/var/log/portage",
        ):
            files.directory(path)
        versions = {name: _version(self._debs[deb].version) for name, deb in tables.INSTALLED.items()}
        versions |= {**tables.OWN_INSTALLED, "sys-apps/portage": importlib.metadata.version("portage")}
        for number, (name, version) in enumerate(sorted(versions.items()), 1):
            category, package = name.split("/")
            place = f"/var/db/pkg/{name}-{version}"
            for field, value in {
                **{"CATEGORY": category, "PF": f"{package}-{version}", "EAPI": "8", "SLOT": "0", "IUSE": "", "USE": ""},
                **{"KEYWORDS": arch, "repository": "gentoo", "COUNTER": str(number), "BUILD_TIME": str(MTIME)},
                **{"SIZE": "1", "DEFINED_PHASES": "-", "CONTENTS": ""},
            }.items():
                files.file(f"{place}/{field}", f"{value}\n" if value else "")
            files.file(f"{place}/{package}-{version}.ebuild", "EAPI=8\nSLOT=0\n")
        files.file("/var/cache/edb/counter", str(len(versions)))

    def _pack_stage(self) -> None:
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(MTIME))
        stage = f"stage3-{self._arch}-{STAGE}"
        builds = self._out / "releases" / self._arch / "autobuilds"
        archive = builds / at / f"{stage}-{at}.tar.xz"
        archive.parent.mkdir(parents=True)
        self._packed(self._root, archive, "--exclude=./dev/*")
        contents = archive.with_name(f"{archive.name}.CONTENTS.gz")
        listed = self._toolbox.run(["tar", "-tf", self._toolbox.path(archive)]).output
        contents.write_bytes(gzip.compress(listed.encode(), 1, mtime=0))
        lines = []
        for kind in ("blake2b", "sha512"):
            for file in (archive, contents):
                lines.append(f"# {kind.upper()} HASH\n{_hash(file, kind)}  {file.name}\n")
        self._clearsign(archive.with_name(f"{archive.name}.DIGESTS"), "".join(lines))
        self._clearsign(archive.with_name(f"{archive.name}.sha256"), f"{_hash(archive, 'sha256')}  {archive.name}\n")
        archive.with_name(f"{archive.name}.asc").write_bytes(self._signer.detached(archive))
        head = f"# Latest as of Tue, 14 Nov 2023 22:13:20 +0000\n# ts={MTIME}\n"
        line = f"{at}/{archive.name} {archive.stat().st_size}\n"
        self._clearsign(builds / f"latest-{stage}.txt", head + line)
        self._clearsign(builds / "latest-stage3.txt", head + line)

    def _packed(self, root: Path, archive: Path, *options: str) -> None:
        where = self._toolbox.path
        words = ["--xattrs", "--numeric-owner", "--sort=name", f"--mtime=@{MTIME}", *options]
        self._toolbox.run(
            ["tar", *words, "--use-compress-program=xz -T0 -0", "-cf", where(archive), "-C", where(root), "."]
        )

    def _clearsign(self, file: Path, text: str) -> None:
        file.write_bytes(self._signer.clearsigned(text))

    # --- the tree of ebuilds

    def _make_tree(self) -> None:
        arch, tree = self._arch, self._tree
        texts = {f"profiles/{name}": text for name, text in tables.PROFILES.items()}
        profile = f"profiles/{_profile(arch)}"
        texts |= {
            "metadata/layout.conf": tables.LAYOUT,
            "metadata/timestamp.chk": time.strftime("%a, %d %b %Y %H:%M:%S +0000\n", time.gmtime()),
            "metadata/timestamp.x": time.strftime(f"{int(time.time())} %a %b %d %H:%M:%S UTC %Y\n", time.gmtime()),
            "licenses/MIT": "MIT\n",
            "profiles/profiles.desc": f"{arch} {_profile(arch)} stable\n{arch} {_profile(arch)}/{STAGE} stable\n",
            f"{profile}/eapi": "8\n",
            f"{profile}/parent": "../../../../base\n",
            f"{profile}/make.defaults": (
                f'ARCH="{arch}"\nACCEPT_KEYWORDS="{arch}"\nCHOST="{tables.CHOSTS[arch]}"\nLIBDIR_{arch}="lib64"\n'
                f'DEFAULT_ABI="{arch}"\nABI="{arch}"\nMULTILIB_ABIS="{arch}"\n'
            ),
            f"{profile}/{STAGE}/eapi": "8\n",
            f"{profile}/{STAGE}/parent": "..\n",
            f"{profile}/{STAGE}/make.defaults": 'USE="systemd"\n',
        }
        categories = {name.partition("/")[0] for name in (*self._ebuilds, *tables.INSTALLED, *tables.OWN_INSTALLED)}
        texts["profiles/categories"] = "".join(f"{name}\n" for name in sorted(categories))
        for name, ebuild in self._ebuilds.items():
            texts |= self._ebuild(name, ebuild)
        for name, text in texts.items():
            file = tree / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (tree / "eclass").mkdir()
        distfiles = self._out / "distfiles"
        (distfiles / "layout.conf").write_text(tables.MIRROR_LAYOUT)
        shown = self._root / "var/db/repos/gentoo"
        shown.mkdir()
        with self._running():
            self._inside("egencache", "--update", "--repo", "gentoo", "--jobs", "2")
        day = time.strftime("%Y%m%d", time.gmtime(time.time() - 86400))
        archive = self._out / f"snapshots/gentoo-{day}.tar.xz"
        archive.parent.mkdir()
        self._packed(tree, archive, f"--transform=s,^\\.,gentoo-{day},", "--owner=250", "--group=250")
        archive.with_name(f"{archive.name}.gpgsig").write_bytes(self._signer.sign(archive.read_bytes()))
        archive.with_name(f"{archive.name}.md5sum").write_text(f"{_hash(archive, 'md5')}  {archive.name}\n")
        for suffix in ("", ".gpgsig", ".md5sum"):
            shutil.copy(f"{archive}{suffix}", archive.with_name(f"gentoo-latest.tar.xz{suffix}"))

    def _ebuild(self, name: str, ebuild: tables.Ebuild) -> dict[str, str]:
        """The ebuild and Manifest of a package, whose distfile is put on the mirror."""
        members = [self._debs[deb] for deb in self._contents[name].split()]
        package, version = name.partition("/")[2], _version(members[0].version)
        archive = f"{package}-{version}.tar.gz"
        files = Files()
        for deb in members:
            _take(files, deb, self._kernel if name == tables.KERNEL else "")
        if addition := tables.ADDITIONS_OF_PACKAGES.get(name):
            addition(files)
        data = _archived(files)
        digest = hashlib.blake2b(data).hexdigest()
        file = self._out / "distfiles" / hashlib.blake2b(archive.encode()).hexdigest()[:2] / archive
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        manifest = f"DIST {archive} {len(data)} BLAKE2B {digest} SHA512 {hashlib.sha512(data).hexdigest()}\n"
        text = tables.EBUILD.format(name=name, archive=archive, needs=ebuild.needs, phases=ebuild.phases)
        return {f"{name}/{package}-{version}.ebuild": text, f"{name}/Manifest": manifest}

    # --- binary packages

    def _build_packages(self) -> None:
        """Let Portage build and sign them, in the stage."""
        secret = self._root / "root/secret.asc"
        secret.write_bytes(self._signer.secret())
        with self._running():
            self._inside("getuto")
            home = "/root/signing"
            self._inside("mkdir", "-m", "700", home)
            self._inside("gpg", "--homedir", home, "--batch", "--import", "/root/secret.asc")
            (self._root / "run/lock").mkdir(parents=True, exist_ok=True)
            fingerprint = self._inside("gpg", "--homedir", home, "--with-colons", "--list-keys")
            key = next(line.split(":")[9] for line in fingerprint.splitlines() if line.startswith("fpr:"))
            built = [f"={name}-{self._version_of(name)}" for name, one in self._ebuilds.items() if one.is_built]
            self._inside(
                *("emerge", "--buildpkgonly", "--nodeps", "--quiet", "--quiet-build=y", "--color=n", *built),
                BINPKG_GPG_SIGNING_GPG_HOME=home,
                BINPKG_GPG_SIGNING_KEY=f"0x{key}",
                FEATURES="binpkg-signing -userpriv -network-sandbox -pid-sandbox -ipc-sandbox -mount-sandbox",
                BINPKG_COMPRESS_FLAGS_ZSTD="-1",
            )
            self._inside("gpgconf", "--homedir", home, "--kill", "all")
        place = self._out / _binhost(self._arch)
        place.parent.mkdir(parents=True)
        shutil.copytree(self._root / "var/cache/binpkgs", place)

    def _version_of(self, name: str) -> str:
        return _version(self._debs[self._contents[name].split()[0]].version)

    def _inside(self, *words: str, **environment: str) -> str:
        return run(words, root=self._root, env={**_ENVIRONMENT, **environment}).output

    def _running(self) -> _Running:
        return _Running(self._root, self._tree, self._out / "distfiles")


class _Running:
    """While it lasts, programs can run in the stage: with the tree, and the distfiles where Portage looks first."""

    def __init__(self, root: Path, tree: Path, distfiles: Path) -> None:
        self._root, self._tree, self._distfiles = root, tree, distfiles

    def __enter__(self) -> None:
        mounts.system(self._root)
        mounts.bind(self._tree, self._root / "var/db/repos/gentoo")
        kept = self._root / "var/cache/distfiles"
        mounts.tmpfs(kept)
        for file in self._distfiles.glob("*/*"):
            (kept / file.name).symlink_to(f"/.distfiles/{file.parent.name}/{file.name}")
        (self._root / ".distfiles").mkdir(exist_ok=True)
        mounts.bind(self._distfiles, self._root / ".distfiles")

    def __exit__(self, *_: object) -> None:
        mounts.unmount_all_below(self._root)
        (self._root / ".distfiles").rmdir()


def _profile(arch: str) -> str:
    return f"default/linux/{arch}/23.0"


def _binhost(arch: str) -> str:
    return f"releases/{arch}/binpackages/23.0/{tables.BINHOSTS[arch]}"


def _hash(file: Path, kind: str) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, kind).hexdigest()


def _version(text: str) -> str:
    """A version of Debian's as Gentoo may have it: numbers between dots."""
    plain = text.rpartition(":")[2]
    end = next((place for place, letter in enumerate(plain) if not (letter.isdigit() or letter == ".")), len(plain))
    return plain[:end].strip(".")


def _take(files: Files, deb: Deb, kernel: str = "") -> None:
    """Put what is in a package of Debian where Gentoo has it."""
    for path, entry in of_tree(deb.place / "root", set(), GROUP_NAMES):
        if kernel and path.startswith("/boot/"):
            path = f"/usr/lib/modules/{kernel}/{path.removeprefix('/boot/').removesuffix(f'-{kernel}')}"  # noqa: PLW2901
        if f"{path}/".startswith(SKIPPED) or path == "/":
            continue
        if path not in files.entries or not stat.S_ISDIR(entry.mode):
            files.entries[path] = entry


def _take_portage(files: Files) -> None:
    """Put Portage there as Gentoo has it: of the system, where its wheel is a module of a virtual environment."""
    places = {
        "portage": "/usr/lib/python3/dist-packages/portage",
        "_emerge": "/usr/lib/python3/dist-packages/_emerge",
        "../../portage": "/usr/lib/portage",
        "../../../share": "/usr/share",
        "../../../etc": "/etc",
        "../../../bin": "/usr/bin",
    }
    for one in importlib.metadata.files("portage") or ():
        source = Path(str(one.locate()))
        begin = next((begin for begin in places if str(one).startswith(f"{begin}/")), None)
        if begin is not None and not {"__pycache__", "tests"} & set(one.parts):
            place = f"{places[begin]}{str(one).removeprefix(begin)}"
            files.file(place, source.read_bytes(), 0o755 if "bin" in place.split("/") else 0o644)
    for name in ("ebuild", "egencache", "emaint", "emerge", "env-update", "gpkg-sign", "portageq", "quickpkg"):
        files.link(f"/usr/bin/{name}", f"../lib/portage/bin/{name}")
    library = "/usr/lib/python3/dist-packages/portage"
    _changed(files, f"{library}/installation.py", '"MODULE" ==', '"SYSTEM" ==')
    constants = f"{library}/const.py"
    _changed(files, constants, 'PORTAGE_BASE_PATH = """"""', 'PORTAGE_BASE_PATH = "/usr/lib/portage"')
    _changed(files, constants, 'PORTAGE_BIN_PATH = """"""', 'PORTAGE_BIN_PATH = "/usr/lib/portage/bin"')


def _changed(files: Files, path: str, old: str, new: str) -> None:
    text = files.entries[path].content().decode()
    assert old in text, f"{path} has no {old}"
    files.file(path, text.replace(old, new))


def _written(files: Files, root: Path) -> None:
    """Write the files into an empty directory."""
    groups = dict(line.split(":")[::2] for line in files.entries["/etc/group"].content().decode().splitlines())
    for path, entry in sorted(files.entries.items()):
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(entry.mode):
            place.mkdir(exist_ok=True)
        elif stat.S_ISLNK(entry.mode):
            place.symlink_to(os.fsdecode(entry.data))
            continue
        elif entry.source:
            shutil.copyfile(entry.source, place)
        else:
            place.write_bytes(entry.data)
        if entry.group != "root":
            os.chown(place, 0, int(groups[entry.group]))
        place.chmod(stat.S_IMODE(entry.mode))


def _archived(files: Files) -> bytes:
    """A tar archive of files, compressed at the quickest."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=MTIME) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path, entry in sorted(files.entries.items()):
            info = tarfile.TarInfo(f".{path}")
            info.mtime, info.mode = MTIME, stat.S_IMODE(entry.mode)
            data = b""
            if stat.S_ISDIR(entry.mode):
                info.type = tarfile.DIRTYPE
            elif stat.S_ISLNK(entry.mode):
                info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(entry.data)
            else:
                data = entry.content()
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()
