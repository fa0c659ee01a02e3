"""Entries for stores in tests: layers with records, downloads, packages and sets of them, outputs."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from dibble.store.contents import seal
from dibble.store.layers import LayerStore, OutputStore, Record

if TYPE_CHECKING:
    from dibble.store.places import Store


def layer_id(letter: str) -> str:
    return letter * 40


def keep_layer(
    store: Store, letter: str, *, after: str = "", content: str = "", packages: str = "", tree: str = ""
) -> Record:
    """A layer of one file that stands on the tree `after`, and leads to `tree`, else to one named as its letter."""
    name = layer_id(letter)
    stack = (f"{name}/0", *((f"pkg-{packages}/0",) if packages else ()))
    record = Record(
        id=name, key=f"key-{letter}", step=f"install.d/{letter}", tree=tree or letter, tree_before=after, stack=stack
    )
    with store.session() as session:
        upper = session.path / "upper"
        (upper / "mnt/etc").mkdir(parents=True)
        (upper / "mnt/etc/file").write_text(content or letter)
        LayerStore(store).keep(record, [upper], None, session.path)
    return record


def keep_blob(store: Store, data: bytes) -> str:
    """A download; returns its sha256."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = store.blobs / sha256[:2] / sha256
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return sha256


def keep_package(store: Store, data: bytes) -> str:
    """A download and the package unpacked from it, which holds its bytes as /usr/share/SHA256."""
    sha256 = keep_blob(store, data)
    place = store.packages / sha256[:2] / sha256
    (place / "root/usr/share").mkdir(parents=True)
    (place / "root/usr/share" / sha256).write_bytes(data)
    (place / "control").mkdir()
    (place / "control/control").write_text("Package: some\nVersion: 1.0\n")
    (place / "list").write_text("/.\n")
    seal(place)
    return sha256


def keep_set(store: Store, name: str, packages: list[str]) -> None:
    """A merged set of packages: hard links."""
    with store.session() as session:
        made = session.path / "packages"
        (made / "mnt/usr/share").mkdir(parents=True)
        (made / "mnt/status").write_text("Package: some\n")
        for sha256 in packages:
            source = store.packages / sha256[:2] / sha256 / "root/usr/share" / sha256
            os.link(source, made / "mnt/usr/share" / sha256)
        LayerStore(store).keep_packages(name, made, packages)


def keep_output(store: Store, key: str, data: bytes, tree: str) -> None:
    with store.session() as session:
        image = session.path / "image.qcow2"
        image.write_bytes(data)
        OutputStore(store).keep(key, {"output.qcow2": image}, session.path, tree=tree)


def used_at(store: Store, name: str, when: float) -> None:
    os.utime(store.root / name, (when, when))
