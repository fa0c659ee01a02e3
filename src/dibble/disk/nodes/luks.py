"""`luks`: a LUKS2 container; DIB has no such node. Keys are called as cryptsetup(8) calls its options."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import uuid5

from dibble.disk.nodes.base import NodeInfo, nearest
from dibble.disk.nodes.mapper import check_mapper_name
from dibble.disk.secrets import Secret
from dibble.disk.sizes import human, parse_size
from dibble.disk.volumes.luks import CIPHER, Key, Luks
from dibble.disk.volumes.luks_header import LABEL_BYTES
from dibble.disk.volumes.luks_keys import Kdf

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Context, Entry

_KEY_BITS = {512: 64, 256: 32}
"""Bits of the volume key, half of which are AES's own in XTS → bytes."""
SECTOR_SIZES = (512, 1024, 2048, 4096)
_ARGON2 = Kdf("argon2id", iterations=3, memory=64 << 20, lanes=4)
"""RFC 9106, section 4: the second recommended option, which a small machine can afford in its initramfs."""
_PBKDF2 = Kdf("pbkdf2", iterations=600_000)
"""OWASP's Password Storage Cheat Sheet, for PBKDF2 with SHA-256."""
_LEAST_PBKDF2 = 1000
_ARGON2_LIMITS = (32 << 10, 4 << 30)
"""Bytes of memory that cryptsetup takes (its LUKS2 keyslots)."""
_MOST_LANES = 4
_WORD = re.compile(r"[^\s,#]+")
_PLACE = re.compile(r"none|[^\s#]+")


class LuksNode:
    info = NodeInfo(
        "luks",
        level=1,
        keys=(
            "passphrase", "key_file", "cipher", "key_size", "sector_size", "label", "pbkdf", "iterations", "memory",
            "parallel", "volume_key", "crypttab_key", "crypttab_options",
        ),
    )  # fmt: skip

    @staticmethod
    def parse(entry: Entry, context: Context) -> Luks:
        check_mapper_name(entry)
        if (cipher := entry.text("cipher") or CIPHER) != CIPHER:
            entry.refuse(f'has the cipher "{cipher}"', f'remove "cipher", or write {CIPHER}', "cipher")
        label = entry.text("label") or ""
        if len(label.encode()) > LABEL_BYTES or not label.isprintable():
            entry.refuse("has a label that LUKS2 has no room for", f"use at most {LABEL_BYTES} characters", "label")
        return Luks(
            entry.name,
            context.device(entry),
            _keys(entry, context),
            _kdf(entry),
            uuid5(context.defaults.seed, f"luks {entry.name}"),
            label,
            _one_of(entry, "sector_size", context.defaults.sector_size or SECTOR_SIZES[0], SECTOR_SIZES),
            _KEY_BITS[_one_of(entry, "key_size", 512, tuple(_KEY_BITS))],
            _is_derived(entry),
            _key_place(entry),
            _options(entry),
            entry.where,
        )


def _keys(entry: Entry, context: Context) -> tuple[Key, ...]:
    found = []
    for word in ("passphrase", "key_file"):
        name = entry.text(word)
        if name is not None:
            found.append(Key(_secret(entry, word, name, context), typed=word == "passphrase"))
    if not found:
        entry.refuse(
            'has neither "passphrase" nor "key_file"',
            'add "passphrase: NAME", and give the build --secret NAME=FILE',
        )
    return tuple(found)


def _secret(entry: Entry, word: str, name: str, context: Context) -> Secret:
    known = context.defaults.secrets
    if known is None:  # nothing is going to be written
        return Secret(name, "", b"")
    if name not in known:
        hint = nearest(name, list(known)) or f"give the build --secret {name}=FILE"
        entry.refuse(f'needs the secret "{name}", which was not given', hint, word)
    if word == "passphrase" and b"\n" in known[name].content.removesuffix(b"\n"):
        entry.refuse(
            f'has a passphrase of several lines in the secret "{name}", which nobody can type',
            'write one line into the file, or use it as "key_file"',
            word,
        )
    return known[name]


def _kdf(entry: Entry) -> Kdf:
    name = entry.text("pbkdf") or _ARGON2.name
    if name not in (_ARGON2.name, _PBKDF2.name):
        entry.refuse(f'has the pbkdf "{name}"', f"write {_ARGON2.name} or {_PBKDF2.name}", "pbkdf")
    if name == _PBKDF2.name:
        for word in ("memory", "parallel"):
            if entry.text(word) is not None:
                entry.refuse(f'has "{word}", but pbkdf2 knows none', f'remove "{word}"', word)
        iterations = entry.number("iterations", _PBKDF2.iterations)
        if not _LEAST_PBKDF2 <= iterations < 1 << 32:
            entry.refuse(f"has {iterations} iterations", f"write {_LEAST_PBKDF2} at least", "iterations")
        return Kdf(name, iterations)
    iterations = entry.number("iterations", _ARGON2.iterations)
    if not 1 <= iterations < 1 << 32:
        entry.refuse(f"has {iterations} iterations", 'write a number such as "iterations: 4"', "iterations")
    lanes = entry.number("parallel", _ARGON2.lanes)
    if not 1 <= lanes <= _MOST_LANES:
        entry.refuse(f"has {lanes} parallel threads", f"write a number from 1 to {_MOST_LANES}", "parallel")
    text = entry.text("memory")
    memory = _ARGON2.memory if text is None else parse_size(text, entry.place_of("memory")) >> 10 << 10
    least, most = _ARGON2_LIMITS
    if not least <= memory <= most:
        entry.refuse(f"has {human(memory)} of memory", f"write a size from {human(least)} to {human(most)}", "memory")
    return Kdf(name, iterations, memory, lanes)


def _one_of(entry: Entry, word: str, default: int, known: tuple[int, ...]) -> int:
    number = entry.number(word, default)
    if number not in known:
        entry.refuse(f"has {number} as {word}", f"write one of {', '.join(map(str, known))}", word)
    return number


def _is_derived(entry: Entry) -> bool:
    text = entry.text("volume_key") or "derived"
    if text not in ("derived", "random"):
        entry.refuse(f'has the volume_key "{text}"', "write derived or random", "volume_key")
    return text == "derived"


def _key_place(entry: Entry) -> str:
    text = entry.text("crypttab_key") or "none"
    if not _PLACE.fullmatch(text):
        entry.refuse("has a crypttab_key with blanks or # in it", "write a path, or none", "crypttab_key")
    return text


def _options(entry: Entry) -> tuple[str, ...]:
    options = entry.words("crypttab_options")
    for option in options:
        if not _WORD.fullmatch(option):
            hint = "write one option of crypttab(5) for each word, such as [discard, tries=3]"
            entry.refuse(f'has the option "{option}"', hint, "crypttab_options")
    return options
