"""Programs that shipped elements bring onto machines or run outside the target, called here on canned input."""

from __future__ import annotations

import hashlib
import http.server
import importlib.machinery
import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import threading
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.hook_build import ELEMENTS, HookBuild

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import ModuleType

pytestmark = pytest.mark.unit

GIB = 1 << 30
SECTOR = 512


def load(path: Path) -> ModuleType:
    """A program as a module, whatever its file is called."""
    loader = importlib.machinery.SourceFileLoader(f"program_{path.stem}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # dataclasses look their module up
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


growvols = load(ELEMENTS / "growvols/static/usr/local/sbin/growvols")
container_image = load(ELEMENTS / "docker/root.d/container_image.py")


# --- growvols


def machine(
    *,
    disk: str = "/dev/vda",
    size: int = 60 * GIB,
    pool: str = "",
    label: str = "gpt",
    free: int = 0,
    parts: int = 2,
    container: int = 0,
) -> Any:  # a class of the program
    """A disk whose second partition holds the group `vg` with volumes for / (ext4) and /var (xfs).

    With `container`, the group lies in a LUKS container of that many bytes.
    """
    node = f"{disk}p" if disk[-1].isdigit() else disk
    volumes = [("/dev/mapper/vg-root", "ext4", "/"), ("/dev/mapper/vg-var", "xfs", "/var")]
    children = [
        {"name": name, "type": "lvm", "size": 5 * GIB, "fstype": kind, "mountpoint": mount}
        for name, kind, mount in volumes
    ]
    if container:
        vault = {"name": "/dev/mapper/vault", "type": "crypt", "size": container, "fstype": "LVM2_member"}
        children = [{**vault, "children": children}]
    listed = [
        {
            **{"name": disk, "type": "disk", "size": size, "fstype": None, "mountpoint": None},
            "children": [
                {"name": f"{node}1", "type": "part", "size": GIB, "fstype": "vfat", "mountpoint": "/boot/efi"},
                {"name": f"{node}2", "type": "part", "size": 10 * GIB, "fstype": "LVM2_member", "children": children},
            ],
        }
    ]
    table = {
        **{"label": label, "device": disk, "unit": "sectors", "sectorsize": SECTOR},
        "partitions": [
            {"node": f"{node}1", "start": 2048, "size": GIB // SECTOR},
            {"node": f"{node}2", "start": 2048 + GIB // SECTOR, "size": 10 * GIB // SECTOR},
            *({"node": f"{node}{number}", "start": 2048, "size": 1} for number in range(3, parts + 1)),
        ],
    }
    reports = {
        "lsblk": {"blockdevices": listed},
        "sfdisk": {"partitiontable": table},
        "vgs": [{"vg_name": "vg", "vg_extent_size": str(4 << 20), "vg_free_count": str(free)}],
        "pvs": [
            {
                **{"pv_name": "/dev/mapper/vault" if container else f"{node}2", "vg_name": "vg"},
                **{"dev_size": str(container or 10 * GIB), "pv_size": str(10 * GIB - (4 << 20))},
            }
        ],
        "lvs": [
            {"lv_dm_path": name, "lv_path": f"/dev/vg/{name.rpartition('-')[2]}", "vg_name": "vg", "pool_lv": pool}
            for name, _, _ in volumes
        ],
    }

    def run(program: str, *_: str) -> str:
        found = reports[program]
        return json.dumps({"report": [{program: found}]} if isinstance(found, list) else found)

    return growvols.Machine(run)


def planned(*words: str, **of: Any) -> list[str]:
    return [str(command) for command in growvols.plan(machine(**of), growvols.parse_shares(list(words)), "", "")]


def test_growvols_makes_a_partition_of_the_free_space_and_extends_volumes() -> None:
    start = (11 * GIB + (1 << 20)) // SECTOR
    size = (60 * GIB - (1 << 20)) // SECTOR - start
    free = (size * SECTOR - (1 << 20)) // (4 << 20)
    assert planned("/=50%", "/var=8GiB") == [
        "sfdisk --relocate gpt-bak-std --no-reread --force /dev/vda",
        f"sfdisk --append --no-reread --force --no-tell-kernel /dev/vda <<< 'start={start}, size={size}, type=V'",
        "partx --add --nr 3 /dev/vda",
        "udevadm settle",
        "pvcreate --yes /dev/vda3",
        "vgextend vg /dev/vda3",
        f"lvextend --extents +{free // 2} /dev/vg/root",
        "resize2fs /dev/vg/root",
        "lvextend --extents +2048 /dev/vg/var",
        "xfs_growfs /var",
    ]


def test_growvols_gives_the_root_everything_unless_told_otherwise() -> None:
    commands = planned()
    assert next(command for command in commands if command.startswith("lvextend")).endswith("/dev/vg/root")
    assert not [command for command in commands if "/var" in command]


@pytest.mark.parametrize(("disk", "partition"), [("/dev/nvme0n1", "/dev/nvme0n1p3"), ("/dev/sdb", "/dev/sdb3")])
def test_growvols_names_partitions_as_the_kernel_does(disk: str, partition: str) -> None:
    assert f"pvcreate --yes {partition}" in planned(disk=disk)


def test_growvols_extends_a_thin_pool_before_its_volumes() -> None:
    commands = [command for command in planned("/=100%", pool="pool") if command.startswith("lvextend")]
    assert commands[0].endswith("vg/pool")
    assert "--size" in commands[1]


def test_growvols_uses_what_the_group_has_left() -> None:
    assert planned("/=1GiB", size=11 * GIB, free=1000) == [
        "lvextend --extents +256 /dev/vg/root",
        "resize2fs /dev/vg/root",
    ]


def test_growvols_leaves_less_than_a_gibibyte_alone() -> None:
    with pytest.raises(growvols.NothingToGrow, match="less than 1 GiB"):
        planned(size=11 * GIB + 900 * (1 << 20))


def test_growvols_takes_what_a_container_below_has_grown_by() -> None:
    assert planned("/=2GiB", "/var=25%", container=14 * GIB) == [
        "pvresize /dev/mapper/vault",
        "lvextend --extents +512 /dev/vg/root",
        "resize2fs /dev/vg/root",
        "lvextend --extents +256 /dev/vg/var",
        "xfs_growfs /var",
    ]


def test_growvols_adds_no_plain_partition_to_a_group_in_a_container() -> None:
    with pytest.raises(growvols.NothingToGrow):
        planned(size=60 * GIB, container=10 * GIB)


def test_growvols_refuses_a_fifth_partition_of_an_mbr() -> None:
    with pytest.raises(growvols.GrowError, match="four partitions"):
        planned(label="dos", parts=4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["var=10%"], "MOUNT=SHARE"),
        (["/var=10"], "neither a percentage nor a size"),
        (["/var=0%"], "between 0 and 100"),
        (["/=60%", "/var=60%"], "more than 100"),
        (["/var=1%", "/var/=1%"], "twice"),
    ],
)
def test_growvols_refuses_shares_that_make_no_sense(words: list[str], said: str) -> None:
    with pytest.raises(growvols.GrowError, match=said):
        growvols.parse_shares(words)


@pytest.mark.parametrize(("word", "said"), [("/srv=1%", "/srv is not on a volume"), ("/var=900GB", "are asked for")])
def test_growvols_refuses_what_the_machine_does_not_have(word: str, said: str) -> None:
    with pytest.raises(growvols.GrowError, match=said):
        planned(word)


# --- uboot


def test_uboot_images_have_the_header_that_bootm_checks(tmp_path: Path) -> None:
    data = b"kernel" * 100
    (tmp_path / "in").write_bytes(data)
    program = ELEMENTS / "uboot/cleanup.d/uimage.py"
    words = ["kernel", "armhf", "a name longer than thirty-two letters", "0x8000", "0x8040", "in", "out"]
    subprocess.run([sys.executable, program, *words], cwd=tmp_path, check=True)
    found = (tmp_path / "out").read_bytes()
    assert found[64:] == data
    magic, checksum, _, size, load_at, entry, of_data = struct.unpack(">7I", found[:28])
    assert (magic, size, load_at, entry, of_data) == (0x27051956, len(data), 0x8000, 0x8040, zlib.crc32(data))
    assert zlib.crc32(found[:4] + bytes(4) + found[8:64]) == checksum
    assert found[28:32] == bytes([5, 2, 2, 0])  # Linux, ARM, kernel, not compressed


# --- docker


def layer(files: Mapping[str, str]) -> bytes:
    """A layer of files by name."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            member.uid, member.gid = os.getuid(), os.getgid()
            archive.addfile(member, io.BytesIO(text.encode()))
    return data.getvalue()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def registry() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A registry that wants a token, and what it gives by path."""
    content: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/token"):
                self.answer(200, b'{"token": "t"}')
            elif self.headers.get("Authorization") != "Bearer t":
                self.answer(401, b"", f'Bearer realm="http://{self.headers["Host"]}/token",service="s",scope="pull"')
            elif self.path in content:
                self.answer(200, content[self.path])
            else:
                self.answer(404, b"")

        def answer(self, status: int, data: bytes, challenge: str = "") -> None:
            self.send_response(status)
            if challenge:
                self.send_header("WWW-Authenticate", challenge)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", content
    server.shutdown()
    thread.join()
    server.server_close()


def publish(content: dict[str, bytes], *layers: bytes) -> None:
    """Put an image `a/b:1` for amd64 into the registry."""
    manifest = json.dumps({"layers": [{"digest": digest_of(data), "size": len(data)} for data in layers]}).encode()
    platform = {"os": "linux", "architecture": "amd64"}
    index = {"manifests": [{"digest": digest_of(manifest), "platform": platform}]}
    content["/v2/a/b/manifests/1"] = json.dumps(index).encode()
    content[f"/v2/a/b/manifests/{digest_of(manifest)}"] = manifest
    content.update({f"/v2/a/b/blobs/{digest_of(data)}": data for data in layers})


def pull(host: str, root: Path, cache: Path, *, offline: bool = False, architecture: str = "amd64") -> None:
    root.mkdir(exist_ok=True)
    container_image.from_registry(f"{host}/a/b:1", root, architecture, cache, offline=offline)


def test_layers_lie_on_one_another_and_take_away(registry: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    host, content = registry
    first = layer({"etc/one": "1", "etc/two": "1", "opt/old/a": "1", "opt/old/b": "1"})
    second = {"etc/one": "2", "etc/.wh.two": "", "opt/old/.wh..wh..opq": "", "opt/old/c": "2"}
    publish(content, first, layer(second))
    pull(host, tmp_path / "root", tmp_path / "cache")
    found = {
        str(p.relative_to(tmp_path / "root")): p.read_text() for p in (tmp_path / "root").rglob("*") if p.is_file()
    }
    assert found == {"etc/one": "2", "opt/old/c": "2"}


def test_an_image_in_the_cache_needs_no_registry(registry: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    host, content = registry
    publish(content, layer({"etc/one": "1"}))
    pull(host, tmp_path / "one", tmp_path / "cache")
    content.clear()
    pull(host, tmp_path / "two", tmp_path / "cache", offline=True)
    assert (tmp_path / "two/etc/one").read_text() == "1"


def test_a_layer_with_another_content_is_refused(registry: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    host, content = registry
    data = layer({"etc/one": "1"})
    publish(content, data)
    content[f"/v2/a/b/blobs/{digest_of(data)}"] = layer({"etc/one": "evil"})
    with pytest.raises(container_image.PullError, match="another content"):
        pull(host, tmp_path / "root", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name.startswith("sha256")] == []


def test_an_image_for_other_architectures_only_is_refused(
    registry: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    host, content = registry
    publish(content, layer({"etc/one": "1"}))
    with pytest.raises(container_image.PullError, match="for arm64"):
        pull(host, tmp_path / "root", tmp_path / "cache", architecture="arm64")


@pytest.mark.parametrize(
    ("text", "registry_", "repository", "version"),
    [
        ("debian:trixie", "registry-1.docker.io", "library/debian", "trixie"),
        ("debian", "registry-1.docker.io", "library/debian", "latest"),
        ("quay.io/centos/centos:stream9", "quay.io", "centos/centos", "stream9"),
        ("localhost:5000/a@sha256:0", "localhost:5000", "a", "sha256:0"),
    ],
)
def test_names_of_images_are_completed_as_docker_does(text: str, registry_: str, repository: str, version: str) -> None:
    found = container_image.Reference.parse(text)
    assert (found.registry, found.repository, found.version) == (registry_, repository, version)


# --- programs of the first boot


def test_dynamic_login_takes_a_key_with_blanks_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text('ro quiet sshkey="ssh-ed25519 AAAA me" xsshkey=no console=ttyS0\n')
    program = ELEMENTS / "dynamic-login/static/usr/local/sbin/dynamic-login"
    for _ in range(2):
        subprocess.run([program, tmp_path / "cmdline", tmp_path / "root"], check=True)
    file = tmp_path / "root/.ssh/authorized_keys"
    assert file.read_text() == "ssh-ed25519 AAAA me\n"
    assert file.stat().st_mode & 0o777 == 0o600


def ibft(root: Path, **fields: str) -> Path:
    """A machine with ifupdown, whose firmware has used its one interface."""
    table = root / "sys/firmware/ibft/ethernet0"
    interface = root / "sys/class/net/enp1s0"
    for path in (table, interface / "device", root / "etc/network"):
        path.mkdir(parents=True)
    (interface / "address").write_text("52:54:00:12:34:56\n")
    (root / "etc/network/interfaces").write_text("source /etc/network/interfaces.d/*\n")
    for name, value in {"flags": "3", "mac": "52:54:00:12:34:56", **fields}.items():
        (table / name.replace("_", "-")).write_text(f"{value}\n")
    subprocess.run([ELEMENTS / "ibft-interfaces/static/usr/local/sbin/ibft-interfaces", root], check=True)
    return root / "etc/network/interfaces.d"


def test_ibft_interfaces_take_the_firmwares_addresses(tmp_path: Path) -> None:
    folder = ibft(
        tmp_path, ip_addr="192.0.2.5", subnet_mask="255.255.252.0", gateway="192.0.2.1", primary_dns="0.0.0.0", vlan="7"
    )
    assert (folder / "enp1s0.7").read_text().splitlines() == [
        "auto enp1s0.7",
        "iface enp1s0.7 inet static",
        "    address 192.0.2.5/22",
        "    gateway 192.0.2.1",
        "    vlan-raw-device enp1s0",
    ]


def test_ibft_interfaces_that_had_dhcp_have_it_again(tmp_path: Path) -> None:
    folder = ibft(tmp_path, ip_addr="192.0.2.5", subnet_mask="255.255.255.0", dhcp="192.0.2.1")
    assert (folder / "enp1s0").read_text().splitlines() == ["auto enp1s0", "iface enp1s0 inet dhcp"]


# --- scripts that take a file of whoever builds


@pytest.mark.parametrize(
    ("script", "variable", "place"),
    [
        ("apt-conf/extra-data.d/99-apt-conf", "DIB_APT_CONF", "etc/apt/apt.conf"),
        ("apt-sources/extra-data.d/99-apt-sources", "DIB_APT_SOURCES", "etc/apt/sources.list"),
        ("fail2ban/root.d/60-fail2ban", "DIB_FAIL2BAN_CONF", "tmp/dib-jail.local"),
    ],
)
def test_a_file_of_the_builders_is_copied_when_named_and_has_to_exist(
    tmp_path: Path, script: str, variable: str, place: str
) -> None:
    build = HookBuild(tmp_path)
    build.run(script)
    assert not (build.target / place).exists()
    assert variable in build.run(script, status=1, env={variable: "/nowhere"}).output
    (tmp_path / "file").write_text("x\n")
    build.run(script, env={variable: str(tmp_path / "file")})
    assert (build.target / place).read_text() == "x\n"


def test_autoupdates_refuses_settings_for_another_distribution(tmp_path: Path) -> None:
    build = HookBuild(tmp_path)
    script = "autoupdates/root.d/61-autoupdates"
    both = {"DIB_DEB_UPDATES_CONF": "/a", "DIB_YUM_UPDATES_CONF": "/b", "DISTRO_NAME": "debian"}
    assert "both set" in build.run(script, status=1, env=both).output
    build.run(script, status=1, env={"DIB_YUM_UPDATES_CONF": "/b", "DISTRO_NAME": "debian"})
    build.run(script, status=1, env={"DISTRO_NAME": "gentoo"})


def test_baremetal_takes_both_patterns_or_none(tmp_path: Path) -> None:
    build = HookBuild(tmp_path)
    env = {"DIB_BAREMETAL_KERNEL_PATTERN": "k*", "IMAGE_NAME": "n"}
    assert "or none" in build.run("baremetal/cleanup.d/99-baremetal", status=1, env=env).output
    (build.target / "boot").mkdir()
    for name in ("k-1", "k-2", "r-1"):
        (build.target / "boot" / name).write_text(name)
    build.run("baremetal/cleanup.d/99-baremetal", env={**env, "DIB_BAREMETAL_INITRD_PATTERN": "r*"})
    assert ((build.out / "n.vmlinuz").read_text(), (build.out / "n.initrd").read_text()) == ("k-2", "r-1")
