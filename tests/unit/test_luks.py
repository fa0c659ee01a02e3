"""LUKS2: the header's format, keys that follow from secrets, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import XTS
from hypothesis import given, settings
from hypothesis import strategies as st

from dibble.disk.graph import parse
from dibble.disk.layout import layout_of
from dibble.disk.model import ContentSize, Defaults
from dibble.disk.secrets import Secret
from dibble.disk.system_files import system_files
from dibble.disk.volumes import luks_keys
from dibble.disk.volumes.base import Region, VolumePlace
from dibble.disk.volumes.luks import CIPHER, Key, Luks
from dibble.disk.volumes.luks_header import DATA_AT, STRIPES, split
from dibble.disk.volumes.luks_keys import Kdf
from dibble.disk.volumes.xts import digest_of_content, encrypt, encrypted
from dibble.errors import DiskLayoutError
from dibble.events import Events

if TYPE_CHECKING:
    from dibble.disk.model import Graph

pytestmark = pytest.mark.unit

MIB = 1 << 20
SECRETS = {
    name: Secret(name, f"mark of {name}", content) for name, content in (("disk", b"moon\n"), ("key", b"\x00\n"))
}
DEFAULTS = Defaults(UUID("99999999-8888-7777-6666-555555555555"), journal_mib=4, secrets=SECRETS)
HEAD = """\
- local_loop: {name: image0}
- partitioning:
    base: image0
    label: gpt
    partitions: [{name: boot, size: 90MiB, mkfs: {type: ext4, mount: {mount_point: /boot}}}, {name: a, size: 100%}]
"""
LUKS = """\
- luks:
    name: crypt
    base: a
    passphrase: disk
"""
ROOT = "    mkfs: {type: ext4, mount: {mount_point: /}}\n"
QUICK = Kdf("pbkdf2", 1000)


def graph_of(text: str, defaults: Defaults = DEFAULTS) -> Graph:
    return parse(text, source="disk.yaml", defaults=defaults)


def node(text: str = HEAD + LUKS + ROOT) -> Luks:
    (volume,) = graph_of(text).volumes
    assert isinstance(volume, Luks)
    return volume


def merged(material: bytes, size: int) -> bytes:
    """The key that was split into stripes, as the specification says to get it back."""
    block = bytes(size)
    for at in range(0, len(material) - size, size):
        block = bytes(one ^ other for one, other in zip(block, material[at : at + size], strict=True))
        pieces = [block[start : start + 32] for start in range(0, size, 32)]
        hashes = (hashlib.sha256(struct.pack(">I", number) + piece) for number, piece in enumerate(pieces))
        block = b"".join(each.digest() for each in hashes)[:size]
    return bytes(one ^ other for one, other in zip(block, material[-size:], strict=True))


def decrypted(key: bytes, data: bytes, sector_size: int) -> bytes:
    out = b""
    for at in range(0, len(data), sector_size):
        cipher = Cipher(AES(key), XTS((at // 512).to_bytes(16, "little"))).decryptor()
        out += cipher.update(data[at : at + sector_size])
    return out


@pytest.mark.parametrize("size", [16, 32, 48, 64])
def test_a_split_key_is_got_back_from_all_of_its_stripes_only(size: int) -> None:
    key, noise = bytes(range(size)), hashlib.shake_256(b"noise").digest(size * (STRIPES - 1))
    material = split(key, noise)
    assert len(material) == size * STRIPES
    assert merged(material, size) == key
    assert merged(bytes([material[0] ^ 1]) + material[1:], size) != key


def read_copy(raw: bytes, at: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """One copy of a header: its JSON and its binary fields, whose checksum is right."""
    fields = struct.unpack_from(">6sHQQ48s32s64s40s48sQ", raw, at)
    magic, version, size, seqid, label, algorithm, salt, uuid, _, offset = fields
    assert (version, seqid, offset) == (2, 1, at)
    assert algorithm.rstrip(b"\0") == b"sha256"
    block = bytearray(raw[at : at + size])
    found, block[448:512] = bytes(block[448:512]), bytes(64)
    assert found == hashlib.sha256(block).digest() + bytes(32)
    text = bytes(block[4096:])
    assert text.endswith(b"\0")
    return json.loads(text.rstrip(b"\0")), {"magic": magic, "label": label, "salt": salt, "uuid": uuid}


volumes = st.builds(
    Luks,
    name=st.just("crypt"),
    base=st.just("a"),
    keys=st.lists(
        st.builds(
            Key, st.builds(Secret, st.just("s"), st.just("m"), st.binary(min_size=1, max_size=99)), st.booleans()
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    kdf=st.sampled_from([QUICK, Kdf("argon2id", 1, 32 << 10, 1)]),
    uuid=st.uuids(),
    label=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=47),
    sector_size=st.sampled_from([512, 4096]),
    key_bytes=st.sampled_from([32, 64]),
    derived=st.booleans(),
)


@settings(max_examples=15, deadline=None)
@given(volumes, st.integers(1, 9), st.integers(0, 3))
def test_whoever_has_a_secret_gets_the_content_out_of_any_container(
    tmp_path_factory: pytest.TempPathFactory, luks: Luks, sectors: int, odd: int
) -> None:
    directory = tmp_path_factory.mktemp("luks")
    content = hashlib.shake_256(str(sectors).encode()).digest(4096 * sectors)
    (directory / "plain").write_bytes(content)
    start, size = 4096, DATA_AT + len(content) + 512 * odd
    with (directory / "disk").open("wb") as file:
        file.truncate(start + size + 512)
    sizes = luks.place({"a": size})["crypt"].size
    content += bytes(sizes - len(content))
    with (directory / "plain").open("r+b") as file:
        file.truncate(sizes)
    regions = {"a": Region(directory / "disk", start, size), "crypt": Region(directory / "plain", 0, sizes)}
    luks.write(place_of(regions))
    raw = (directory / "disk").read_bytes()
    assert raw[:start] == bytes(start)
    assert raw[start + size :] == bytes(512)
    container = raw[start : start + size]
    first, second = read_copy(container, 0), read_copy(container, 16384)
    assert first[0] == second[0]
    assert (first[1]["magic"], second[1]["magic"]) == (b"LUKS\xba\xbe", b"SKUL\xba\xbe")
    assert first[1]["salt"] != second[1]["salt"]
    assert first[1]["label"].rstrip(b"\0").decode() == luks.label
    assert first[1]["uuid"].rstrip(b"\0").decode() == str(luks.uuid)
    found = first[0]
    assert sorted(found["keyslots"]) == [str(number) for number in range(len(luks.keys))]
    (segment,), (digest,) = found["segments"].values(), found["digests"].values()
    assert segment["encryption"] == CIPHER
    assert int(segment["offset"]) == DATA_AT
    assert segment["size"] == ("dynamic" if (size - DATA_AT) % luks.sector_size == 0 else str(sizes))
    for number, key in enumerate(luks.keys):
        slot = found["keyslots"][str(number)]
        salt = base64.b64decode(slot["kdf"]["salt"])
        area = int(slot["area"]["offset"])
        assert 32768 <= area < area + int(slot["area"]["size"]) <= DATA_AT
        material = container[area : area + luks.key_bytes * STRIPES]
        derived = luks.kdf.key_of(key.content, salt, luks.key_bytes)
        volume_key = merged(decrypted(derived, material, 512), luks.key_bytes)
        salt = base64.b64decode(digest["salt"])
        assert hashlib.pbkdf2_hmac("sha256", volume_key, salt, digest["iterations"], 32) == base64.b64decode(
            digest["digest"]
        )
        assert decrypted(volume_key, container[DATA_AT : DATA_AT + sizes], luks.sector_size) == content


def place_of(regions: dict[str, Region]) -> VolumePlace:
    nobody: Any = None  # no program is run
    return VolumePlace(regions, Path("/nowhere"), nobody, Events(), 0)


def test_a_vector_of_the_standard_is_encrypted_as_it_says() -> None:
    # IEEE 1619-2007, annex B, vector 10: AES-256, data unit 0xff.
    key = bytes.fromhex(
        "2718281828459045235360287471352662497757247093699959574966967627"
        "3141592653589793238462643383279502884197169399375105820974944592"
    )
    data = bytes(range(256)) * 2
    assert encrypted(key, data, 0xFF, 512)[:16].hex() == "1c3b3a102f770386e4836c99e370cf9b"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 7))
def test_the_digest_of_a_content_tells_contents_apart_and_not_where_holes_are(
    tmp_path_factory: pytest.TempPathFactory, places: list[int], offset: int
) -> None:
    directory = tmp_path_factory.mktemp("digest")
    size, start = 3 * MIB + 4096, offset * 4096
    whole, sparse = directory / "whole", directory / "sparse"
    content = bytearray(size)
    with sparse.open("wb") as file:
        file.write(b"x" * start)
        file.truncate(start + size)
        for place in places:
            content[place * 65536] = place + 1
            file.seek(start + place * 65536)
            file.write(bytes([place + 1]))
    whole.write_bytes(content)
    digest = digest_of_content(Region(whole, 0, size))
    assert digest_of_content(Region(sparse, start, size)) == digest
    content[-1] = 1
    whole.write_bytes(content)
    assert digest_of_content(Region(whole, 0, size)) != digest
    with whole.open("r+b") as file:
        file.truncate(size - 512)
    assert digest_of_content(Region(whole, 0, size - 512)) != digest


def test_holes_are_encrypted_too(tmp_path: Path) -> None:
    for name in ("plain", "disk"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2 * MIB)
    encrypt(Region(tmp_path / "plain", 0, MIB + 512), Region(tmp_path / "disk", 512, MIB + 512), bytes(range(64)), 512)
    raw = (tmp_path / "disk").read_bytes()
    sectors = {raw[at : at + 512] for at in range(512, MIB + 1024, 512)}
    assert len(sectors) == 2049, "no two are alike, and none is empty"
    assert bytes(512) not in sectors
    assert raw[MIB + 1024 :] == bytes(MIB - 1024)


def test_keys_need_every_secret_and_differ_for_each_content_purpose_and_container() -> None:
    def key(*secrets: bytes, uuid: int = 1, content: bytes = b"c" * 32, purpose: str = "volume key") -> bytes:
        return luks_keys.derived(secrets, QUICK, UUID(int=uuid), content)(purpose, 32)

    assert key(b"a", b"b") == key(b"a", b"b")
    others = [key(b"a"), key(b"b"), key(b"b", b"a"), key(b"a", b"b", uuid=2), key(b"a", b"b", content=b"d" * 32)]
    others += [key(b"a", b"b", purpose="salt"), key(b"a", b"b")]
    assert len(set(others)) == len(others)


def test_a_secret_is_in_no_text_that_a_node_makes_but_its_mark_is() -> None:
    text = (
        repr(graph_of(HEAD + LUKS + ROOT))
        + repr(DEFAULTS)
        + json.dumps(system_files(graph_of(HEAD + LUKS + ROOT)).settings())
    )
    assert "moon" not in text
    assert "mark of disk" in text
    assert node().keys[0].content == b"moon"


def test_the_container_is_as_large_as_its_content_needs() -> None:
    layout = layout_of(graph_of(HEAD + LUKS + ROOT), ContentSize({"/": 30 * MIB, "/boot": MIB}, {"/": 9}), DEFAULTS)
    assert layout.extents["a"].size == layout.extents["crypt"].size + DATA_AT
    assert layout.extents["crypt"].image == "crypt", "it is written apart"
    assert layout.extents["crypt"].size >= 50 * MIB
    small = HEAD.replace("{name: image0}", "{name: image0, size: 100MiB}")
    with pytest.raises(DiskLayoutError, match="of which its header takes 16 MiB"):
        layout_of(graph_of(small + LUKS + ROOT), ContentSize({"/": MIB}, {"/": 9}), DEFAULTS)


def test_what_stands_on_large_sectors_has_them_too() -> None:
    text = HEAD + LUKS + "    sector_size: 4096\n" + ROOT
    layout = layout_of(graph_of(text), ContentSize({"/": MIB}, {"/": 9}), DEFAULTS)
    assert layout.sector_size_of("crypt") == 4096
    assert layout.sector_size_of("a") == 512
    assert layout.sector_size_of("boot") == 512
    assert node().sector_size == 512
    large = replace(DEFAULTS, sector_size=4096)
    (volume,) = graph_of(HEAD + LUKS + ROOT, large).volumes
    assert isinstance(volume, Luks)
    assert volume.sector_size == 4096


def test_crypttab_opens_the_root_in_the_initramfs_and_other_data_later() -> None:
    file, dracut = system_files(graph_of(HEAD + LUKS + ROOT)).files
    assert dracut.lines == ('add_dracutmodules+=" crypt "', f'kernel_cmdline+=" rd.luks.uuid={node().uuid} "')
    assert file.paths == ("/etc/crypttab",)
    assert file.lines == (f"crypt UUID={node().uuid} none luks,initramfs",)
    data = HEAD.replace("/boot", "/") + LUKS + "    crypttab_key: /etc/keys/data\n    crypttab_options: [discard]\n"
    found = system_files(graph_of(data + ROOT.replace("mount_point: /", "mount_point: /data")))
    (file,) = found.files
    assert file.lines == (f"crypt UUID={node().uuid} /etc/keys/data luks,discard",)
    assert found.programs == {"cryptsetup": "cryptsetup"}


def test_where_nothing_is_written_no_secret_is_asked_for() -> None:
    assert graph_of(HEAD + LUKS + ROOT, replace(DEFAULTS, secrets=None)).volumes


REFUSED = {
    "no key at all": ("passphrase: disk", "label: x", 'has neither "passphrase" nor "key_file"'),
    "a secret that is not given": ("passphrase: disk", "passphrase: disc", 'needs the secret "disc"'),
    "a passphrase of two lines": ("passphrase: disk", "passphrase: lines", "has a passphrase of several lines"),
    "another cipher": ("base: a", "base: a\n    cipher: aes-cbc-plain", 'has the cipher "aes-cbc-plain"'),
    "a key of odd size": ("base: a", "base: a\n    key_size: 384", "has 384 as key_size"),
    "sectors of odd size": ("base: a", "base: a\n    sector_size: 8192", "has 8192 as sector_size"),
    "a label too long": ("base: a", f"base: a\n    label: {'l' * 48}", "has a label that LUKS2 has no room for"),
    "an unknown pbkdf": ("base: a", "base: a\n    pbkdf: scrypt", 'has the pbkdf "scrypt"'),
    "memory of pbkdf2": ("base: a", "base: a\n    pbkdf: pbkdf2\n    memory: 1MiB", 'has "memory", but pbkdf2'),
    "too little memory": ("base: a", "base: a\n    memory: 1KiB", "has 1 KiB of memory"),
    "too many threads": ("base: a", "base: a\n    parallel: 5", "has 5 parallel threads"),
    "no iterations": ("base: a", "base: a\n    iterations: 0", "has 0 iterations"),
    "few iterations": ("base: a", "base: a\n    pbkdf: pbkdf2\n    iterations: 10", "has 10 iterations"),
    "an unknown volume key": ("base: a", "base: a\n    volume_key: new", 'has the volume_key "new"'),
    "a key with a blank": ("base: a", 'base: a\n    crypttab_key: "/a b"', "has a crypttab_key with blanks"),
    "two options in one": ("base: a", 'base: a\n    crypttab_options: ["a,b"]', 'has the option "a,b"'),
    "a name that is no file's": ("name: crypt", "name: a/b", "has a name that the device mapper does not take"),
    "a name that is taken": ("name: crypt", "name: control", "has a name that the device mapper does not take"),
    "an unknown base": ("base: a", "base: b", 'has the base "b", which does not exist'),
    "an unknown key": ("base: a", "base: a\n    pasphrase: disk", 'has the unknown key "pasphrase"'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_node_is_refused_with_its_place_and_a_hint(name: str) -> None:
    old, new, message = REFUSED[name]
    assert old in LUKS
    secrets = {**SECRETS, "lines": Secret("lines", "", b"one\ntwo\n")}
    with pytest.raises(DiskLayoutError) as caught:
        graph_of(HEAD + LUKS.replace(old, new) + ROOT, replace(DEFAULTS, secrets=secrets))
    error = caught.value
    assert message in error.message
    assert error.hint
    assert error.where
    assert error.where.line is not None
    assert error.where.line > HEAD.count("\n")
