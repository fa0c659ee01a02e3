"""LUKS2: a device that lies encrypted in another one, behind a header with the keyslots."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import UUID  # noqa: TC003 - dataclass field type

from dibble.disk.secrets import Secret  # noqa: TC001 - dataclass field type
from dibble.disk.sizes import human, round_down, round_up
from dibble.disk.volumes import luks_keys
from dibble.disk.volumes.base import Dracut, Placed, Spot, System
from dibble.disk.volumes.luks_header import (
    COPY_SALT_BYTES,
    DATA_AT,
    SALT_BYTES,
    STRIPES,
    Header,
    Slot,
    digest_of,
    split,
)
from dibble.disk.volumes.luks_keys import Kdf  # noqa: TC001 - dataclass field type
from dibble.disk.volumes.sparse import write_into
from dibble.errors import Where

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.disk.volumes.base import VolumePlace
    from dibble.disk.volumes.luks_keys import Chance

CIPHER = "aes-xts-plain64"
_UNIT = 512  # sectors of a keyslot's area


@dataclass(frozen=True, slots=True)
class Key:
    """What opens the container: a secret, and whether it is typed, so that a newline at its end is none of it."""

    secret: Secret
    typed: bool

    @property
    def content(self) -> bytes:
        return self.secret.content.removesuffix(b"\n") if self.typed else self.secret.content


@dataclass(frozen=True, slots=True)
class Luks:
    """One `luks` node. `keys` open it, each by a keyslot of its own; `key_bytes` are of the volume key.

    With `derived` the volume key and all else follow from the keys and the content, else they are random.
    `key_place` and `options` are what crypttab(5) says of the key and the rest.
    """

    name: str
    base: str
    keys: tuple[Key, ...]
    kdf: Kdf
    uuid: UUID
    label: str = ""
    sector_size: int = _UNIT
    key_bytes: int = 64
    derived: bool = True
    key_place: str = "none"
    options: tuple[str, ...] = ()
    where: Where = field(default_factory=Where, compare=False, repr=False)

    @property
    def kind(self) -> str:
        return "LUKS2"

    @property
    def bases(self) -> tuple[str, ...]:
        return (self.base,)

    @property
    def devices(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def grub_modules(self) -> None:
        """None: GRUB knows no argon2id, and would ask for the passphrase before its menu."""

    @property
    def system(self) -> System:
        """A line of crypttab(5). Debian's initramfs opens what has the option `initramfs`; others ignore the word."""

        def line(*more: str) -> str:
            return f"{self.name} UUID={self.uuid} {self.key_place} {','.join(('luks', *more, *self.options))}"

        dracut = Dracut("crypt", ((self.name, f"rd.luks.uuid={self.uuid}"),))
        early = line("initramfs")
        return System("cryptsetup", "cryptsetup", ("/etc/crypttab",), line(), early_line=early, dracut=dracut)

    def path_of(self, device: str) -> str:
        return f"/dev/mapper/{device}"

    def needed(self, wanted: Mapping[str, int], fixed: Mapping[str, int]) -> dict[str, int]:
        return {self.base: DATA_AT + max(round_up(wanted.get(self.name, 0), self.sector_size), self.sector_size)}

    def place(self, sizes: Mapping[str, int]) -> dict[str, Placed]:
        size = round_down(sizes[self.base] - DATA_AT, self.sector_size)
        if size < self.sector_size:
            Spot(f'luks "{self.name}"', self.where).refuse(
                f'has {human(sizes[self.base])} on "{self.base}", of which its header takes {human(DATA_AT)}',
                f'make "{self.base}" larger',
            )
        return {self.name: Placed(size, sector_size=self.sector_size)}

    def write(self, place: VolumePlace) -> None:
        from dibble.disk.volumes.xts import digest_of_content, encrypt

        base, content = place.regions[self.base], place.regions[self.name]
        chance: Chance = luks_keys.random
        if self.derived:
            secrets = [key.content for key in self.keys]
            chance = luks_keys.derived(secrets, self.kdf, self.uuid, digest_of_content(content))
        purpose = f"volume key of {self.key_bytes} bytes for sectors of {self.sector_size}"
        volume_key = chance(purpose, self.key_bytes)
        # A device whose size is no multiple of the sectors is opened only where the header says how much to take.
        grows = (base.size - DATA_AT) % self.sector_size == 0
        for offset, data in self.header(volume_key, chance, None if grows else content.size).pieces():
            write_into(base, offset, data)
        target = replace(base, offset=base.offset + DATA_AT, size=content.size)
        encrypt(content, target, volume_key, self.sector_size)

    def header(self, volume_key: bytes, chance: Chance, data_bytes: int | None) -> Header:
        digest_salt = chance("salt of the digest", SALT_BYTES)
        return Header(
            uuid=self.uuid,
            label=self.label,
            cipher=CIPHER,
            sector_size=self.sector_size,
            key_bytes=self.key_bytes,
            data_bytes=data_bytes,
            slots=[self._slot(number, volume_key, chance) for number in range(len(self.keys))],
            digest_salt=digest_salt,
            digest=digest_of(volume_key, digest_salt),
            copy_salts=(chance("salt of copy 0", COPY_SALT_BYTES), chance("salt of copy 1", COPY_SALT_BYTES)),
        )

    def _slot(self, number: int, volume_key: bytes, chance: Chance) -> Slot:
        from dibble.disk.volumes.xts import encrypted

        salt = chance(f"salt of slot {number}", SALT_BYTES)
        key = self.kdf.key_of(self.keys[number].content, salt, self.key_bytes)
        noise = chance(f"stripes of slot {number}", self.key_bytes * (STRIPES - 1))
        return Slot(self.kdf.described(), salt, encrypted(key, split(volume_key, noise), 0, _UNIT))
