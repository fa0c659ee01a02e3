"""`verity`: a device whose content is checked by a tree of hashes (dm-verity); DIB has no such node."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from uuid import uuid5

from dibble.disk.nodes.base import NodeInfo
from dibble.disk.nodes.mapper import check_mapper_name
from dibble.disk.volumes.verity import Verity

if TYPE_CHECKING:
    from dibble.disk.nodes.base import Context, Entry


class VerityNode:
    info = NodeInfo("verity", level=1, device_keys=("hashes",))

    @staticmethod
    def parse(entry: Entry, context: Context) -> Verity:
        check_mapper_name(entry)
        hashes = entry.needed("hashes", "PARTITION")
        uuid = uuid5(context.defaults.seed, f"verity {entry.name}")
        salt = hashlib.sha256(b"dibble verity" + uuid.bytes).digest()
        base = context.device(entry)
        return Verity(entry.name, base, context.device(entry, "hashes", hashes), uuid, salt, entry.where)
