"""Packages that Debian has nothing like: the directories, the accounts, what says which system this is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.standins.payload import Files
from tests.standins.rpm_file import EQUAL, Dependency

if TYPE_CHECKING:
    from collections.abc import Mapping

_DIRECTORIES = """
    /boot /dev /etc /etc/skel /home /media /mnt /opt /run /srv /usr /usr/bin /usr/lib /usr/lib64 /usr/libexec /usr/local
    /usr/local/bin /usr/local/sbin /usr/sbin /usr/share /usr/src /var /var/cache /var/lib /var/log /var/spool
""".split()  # noqa: SIM905 - a table to be read

_USERS = {
    "root": "0:0:/root:/bin/bash",
    "bin": "1:1:/bin:/usr/sbin/nologin",
    "daemon": "2:2:/sbin:/usr/sbin/nologin",
    "adm": "3:4:/var/adm:/usr/sbin/nologin",
    "mail": "8:12:/var/spool/mail:/usr/sbin/nologin",
    "messagebus": "81:81:/:/usr/sbin/nologin",
    "systemd-network": "192:192:/:/usr/sbin/nologin",
    "sshd": "74:74:/run/sshd:/usr/sbin/nologin",
    "tcpdump": "72:72:/:/usr/sbin/nologin",
    "nobody": "65534:65534:/:/usr/sbin/nologin",
}
_GROUPS = """
    root:0 bin:1 daemon:2 sys:3 adm:4 tty:5 disk:6 lp:7 mem:8 kmem:9 wheel:10 cdrom:11 mail:12 man:15 dialout:18
    floppy:19 utmp:22 utempter:35 kvm:36 video:39 shadow:42 staff:50 audio:63 tcpdump:72 sshd:74 messagebus:81 users:100
    input:104 render:105 sgx:106 systemd-journal:190 systemd-network:192 nobody:65534
""".split()  # noqa: SIM905 - a table to be read
GROUP_NAMES = {5: "tty", 8: "mail", 12: "man", 42: "shadow", 43: "utmp", 50: "staff"}
"""The numbers that groups have in Debian's packages (base-passwd)."""


@dataclass(frozen=True, slots=True)
class Made:
    """A package of ours: its files and what its header says."""

    files: Files
    requires: tuple[str, ...] = ()
    provides: tuple[Dependency, ...] = ()
    noarch: bool = True


@dataclass(frozen=True, slots=True)
class System:
    """Which distribution a stand-in stands for. `key` is the path of its key in the image, `repos` file → text."""

    name: str
    version: str
    pretty: str
    release_package: str
    repos_package: str
    like: str
    platform: str
    database: str
    """Where the database of packages lies."""
    key: str
    repos: Mapping[str, str]
    variables: Mapping[str, str]
    dnf5: bool = False
    """Whether packages beside dnf are those of the newer one; the program is the older one everywhere."""
    epel: str = ""
    """The text of epel.repo, where the distribution has that package."""


def own_packages(system: System, key: str) -> dict[str, Made]:
    """The packages by name; `key` is the certificate that signs them, armoured."""
    release, repos = system.release_package, system.repos_package
    generic = Files()
    generic.file("/usr/lib/dracut/dracut.conf.d/02-generic-image.conf", 'hostonly="no"\n')
    return {
        "filesystem": Made(filesystem(), ("setup",), noarch=False),
        "setup": Made(setup()),
        "basesystem": Made(Files(), ("filesystem", "setup")),
        release: Made(
            _release(system),
            (repos,),
            (
                Dependency("system-release", EQUAL, system.version),
                Dependency("system-release(releasever)", EQUAL, system.version),
                Dependency(f"base-module(platform:{system.platform})"),
                Dependency("fedora-release-cloud"),
            ),
        ),
        repos: Made(_repos(system, key)),
        "glibc-minimal-langpack": Made(Files(), ("glibc-common",)),
        "dracut-config-generic": Made(generic, ("dracut",)),
        "kernel": Made(Files(), ("kernel-core",)),
        "dkms": Made(Files()),  # which finds no modules to build
        "grub2-pc": Made(Files(), ("grub2-pc-modules", "grub2-tools")),
        "grub2-efi-x64": Made(Files(), ("grub2-tools",)),
        "shim-x64": Made(Files()),
        "selinux-policy-targeted": Made(_selinux_policy(), ("policycoreutils",)),
        **_automatic_updates(system),
        **({"epel-release": Made(_epel(system.epel))} if system.epel else {}),
    }


def filesystem() -> Files:
    """The directories that every system has."""
    files = Files()
    for path in _DIRECTORIES:
        files.directory(path)
    for path, mode in (("/proc", 0o555), ("/sys", 0o555), ("/root", 0o550), ("/tmp", 0o1777), ("/var/tmp", 0o1777)):
        files.directory(path, mode)
    for name in ("bin", "lib", "lib64", "sbin"):
        files.link(f"/{name}", f"usr/{name}")
    files.link("/var/lock", "../run/lock")
    files.link("/var/run", "../run")
    return files


def setup() -> Files:
    """The accounts, and the settings that every system has."""
    files = Files()
    accounts = [f"{name}:x:{rest.replace(':/', f':{name}:/', 1)}\n" for name, rest in _USERS.items()]
    files.config("/etc/passwd", "".join(accounts))
    files.config("/etc/group", "".join(f"{group.replace(':', ':x:')}:\n" for group in _GROUPS))
    files.config("/etc/shadow", "".join(f"{name}:*:19000:0:99999:7:::\n" for name in _USERS), 0)
    files.config("/etc/gshadow", "".join(f"{group.partition(':')[0]}:::\n" for group in _GROUPS), 0)
    files.config("/etc/fstab", "")
    files.config("/etc/host.conf", "multi on\n")
    files.config("/etc/hosts", "127.0.0.1 localhost localhost.localdomain\n::1 localhost localhost.localdomain\n")
    files.config("/etc/profile", "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin\n")
    files.config("/etc/protocols", "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\n")
    files.config("/etc/services", "ssh 22/tcp\ndomain 53/tcp\ndomain 53/udp\nhttp 80/tcp\nhttps 443/tcp\n")
    files.config("/etc/shells", "/bin/sh\n/bin/bash\n/usr/bin/bash\n")
    return files


def _release(system: System) -> Files:
    files = Files()
    like = f'ID_LIKE="{system.like}"\n' if system.like else ""
    files.file(
        "/usr/lib/os-release",
        f'NAME="{system.pretty.partition(" (")[0]}"\nVERSION="{system.version}"\nID={system.name}\n{like}'
        f'VERSION_ID={system.version}\nPLATFORM_ID="platform:{system.platform}"\nPRETTY_NAME="{system.pretty}"\n',
    )
    files.link("/etc/os-release", "../usr/lib/os-release")
    files.file("/etc/system-release", f"{system.pretty}\n")
    for name in {system.name, "redhat"}:
        files.link(f"/etc/{name}-release", "system-release")
    files.file(
        "/usr/lib/systemd/system-preset/90-default.preset",
        "".join(
            f"enable {unit}\n" for unit in ("NetworkManager.service", "dbus.socket", "getty@.service", "sshd.service")
        ),
    )
    files.file("/usr/lib/systemd/system-preset/99-default-disable.preset", "disable *\n")
    return files


def _selinux_policy() -> Files:
    """As much of a policy as elements look at."""
    files = Files()
    files.config("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
    contexts = "/.*\tsystem_u:object_r:default_t:s0\n/etc(/.*)?\tsystem_u:object_r:etc_t:s0\n"
    files.config("/etc/selinux/targeted/contexts/files/file_contexts", contexts)
    return files


def _automatic_updates(system: System) -> dict[str, Made]:
    """dnf-automatic of either dnf: the newer one's settings lie in /usr, and /etc/dnf/automatic.conf is the user's."""
    files = Files()
    name = "dnf5-automatic" if system.dnf5 else "dnf-automatic"
    settings = "/usr/share/dnf5/dnf5-plugins/automatic.conf" if system.dnf5 else "/etc/dnf/automatic.conf"
    files.config(settings, "[commands]\nupgrade_type = default\napply_updates = no\n")
    files.file(f"/usr/lib/systemd/system/{name}.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/true\n")
    timer = "[Timer]\nOnCalendar=*-*-* 6:00\n\n[Install]\nWantedBy=timers.target\n"
    files.file(f"/usr/lib/systemd/system/{name}.timer", timer)
    if system.dnf5:
        return {"dnf5-plugin-automatic": Made(files, ("dnf",), (Dependency("dnf-automatic"),))}
    return {"dnf-automatic": Made(files, ("dnf",))}


def _epel(text: str) -> Files:
    files = Files()
    files.config("/etc/yum.repos.d/epel.repo", text)
    files.file("/usr/bin/crb", '#!/bin/sh\necho "$1" > /etc/crb-was-asked-to\n', 0o755)
    return files


def _repos(system: System, key: str) -> Files:
    files = Files()
    files.file(system.key, key)
    for name, text in system.repos.items():
        files.config(f"/etc/yum.repos.d/{name}", text)
    for name, value in system.variables.items():
        files.config(f"/etc/dnf/vars/{name}", f"{value}\n")
    return files
