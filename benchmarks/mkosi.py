"""mkosi as a contender: Debian's newest version, in a root of its own, building the same packages to a qcow2.

mkosi runs from a checkout, but where only Debian's archive is reached its package has to do. It needs a newer systemd
than Debian 12 has, so it runs in a root of sid (else of the suite that is built), made once with mmdebstrap and entered
with pivot_root: mkosi's own sandbox wants a root that is a mount point.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

TOOLS = (
    "mkosi", "systemd-repart", "e2fsprogs", "dosfstools", "mtools", "qemu-utils", "kmod", "udev", "zstd", "xz-utils",
    "tar", "cpio", "mount", "util-linux", "procps", "python3", "debian-archive-keyring", "ca-certificates",
)  # fmt: skip
_ENTER = r"""
set -e
root=$1 work=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
for place in proc sys dev; do mount --rbind "/$place" "$root/$place"; done
mkdir -p "$root/work" "$root/.old"
mount --bind "$work" "$root/work"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd "$root"
pivot_root . .old
hash -r
cd /work
umount -l /.old
exec "$@"
"""
_CONFIG = """\
[Distribution]
Distribution=debian
Release={suite}

[Output]
Format=disk
Output=mkosi

[Content]
Bootable=no
WithRecommends=no
PostInstallationScripts=last.sh
Packages=
{packages}

[Build]
Incremental=yes
CacheDirectory=cache
PackageCacheDirectory=packages
"""
_SOURCES = """\
Types: deb
URIs: {mirror}
Suites: {suite} {suite}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {security}
Suites: {suite}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
# mkosi 27 asks for an El Torito catalogue, which wants an ESP.
_PARTITIONS = {
    "00-esp.conf": "[Partition]\nType=esp\nFormat=vfat\nSizeMinBytes=64M\nSizeMaxBytes=64M\n",
    "10-root.conf": "[Partition]\nType=root\nFormat=ext4\nCopyFiles=/\nMinimize=off\nSizeMinBytes=1400M\n",
}


class MkosiMissing(Exception):
    """It cannot be had or does not run here; the text says why."""


class Mkosi:
    """`work` holds its root and its project; `environment` is that of all contenders (with the caching proxy)."""

    def __init__(self, work: Path, suite: str, mirrors: tuple[str, str], environment: dict[str, str]) -> None:
        self.root = work / "mkosi-root"
        self.project = work / "mkosi"
        self._suite = suite
        self._mirror, self._security = mirrors
        self._environment = environment
        self.version = ""

    def install(self, keyring: Path) -> None:
        """Make the root, of the newest suite that works. Raises MkosiMissing."""
        said = []
        for suite in ("sid", self._suite):
            if not (self.root / "usr/bin/mkosi").exists():
                shutil.rmtree(self.root, ignore_errors=True)
                argv = ["mmdebstrap", "--variant=apt", f"--keyring={keyring}", f"--include={','.join(TOOLS)}"]
                # Clocks of machines that build may be ahead of the archive's.
                argv += ['--aptopt=Acquire::Check-Valid-Until "false"', suite, str(self.root), self._mirror]
                done = self._call(argv)
                if done.returncode:
                    said.append(f"no root of {suite}: {done.stdout.strip().splitlines()[-1]}")
                    continue
            self.project.mkdir(exist_ok=True)
            done = self.inside("mkosi", "--version")
            if not done.returncode:
                self.version = done.stdout.strip().removeprefix("mkosi ")
                return
            said.append(f"mkosi of {suite} does not start: {done.stdout.strip().splitlines()[-1]}")
            shutil.rmtree(self.root, ignore_errors=True)
        raise MkosiMissing("; ".join(said))

    def configure(self, packages: list[str]) -> None:
        """Write the project: these packages, nothing recommended, one script at the end."""
        listed = "\n".join(f"    {name}" for name in packages)
        (self.project / "mkosi.conf").write_text(_CONFIG.format(suite=self._suite, packages=listed))
        sources = self.project / "mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources"
        sources.parent.mkdir(parents=True, exist_ok=True)
        sources.write_text(_SOURCES.format(mirror=self._mirror, security=self._security, suite=self._suite))
        definitions = self.project / "mkosi.repart"
        definitions.mkdir(exist_ok=True)
        for name, text in _PARTITIONS.items():
            (definitions / name).write_text(text)
        for name in ("cache", "packages"):
            (self.project / name).mkdir(exist_ok=True)
        self.edit("one")

    def edit(self, text: str) -> None:
        """Another line in the script at the end."""
        script = self.project / "last.sh"
        script.write_text(f'#!/bin/bash\necho {text} > "$BUILDROOT/etc/web"\n')
        script.chmod(0o755)

    def forget(self) -> None:
        """Leave downloads alone."""
        for path in (self.project / "cache").iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def build(self) -> None:
        """Build, and make a qcow2 of it. Raises MkosiMissing when that fails."""
        command = (
            "mkosi -f build && rm -f mkosi.qcow2 &&"
            " qemu-img convert -c -m 4 -W -O qcow2 -o compression_type=zstd mkosi.raw mkosi.qcow2"
        )
        done = self.inside("bash", "-c", command)
        if done.returncode:
            raise MkosiMissing("\n".join(done.stdout.strip().splitlines()[-5:]))

    @property
    def image(self) -> Path:
        return self.project / "mkosi.qcow2"

    def inside(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self._call(
            ["unshare", "--mount", "bash", "-c", _ENTER, "enter", str(self.root), str(self.project), *argv]
        )

    def _call(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            env={**self._environment, "DEBIAN_FRONTEND": "noninteractive", "SOURCE_DATE_EPOCH": "1767225600"},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=os.fspath(Path("/")),
        )
