"""Where a build stands between two steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from dibble.plan.manifest import changed
from dibble.run.host_files import KINDS

if TYPE_CHECKING:
    from dibble.plan.manifest import Manifest
    from dibble.store.layers import Record

RESOLV_CONF = "@resolv-conf"
"""Stands in the stack for a lower directory that holds the host's resolv.conf: never kept, so that no layer has it."""


@dataclass(frozen=True, slots=True)
class State:
    """What the next step starts from.

    `tree` identifies the target tree, `stack` names the overlay's lower directories (topmost first) above the merged
    elements, `manifest` is the hooks tree, `exports` are layers that left files beside the image, in order.
    """

    tree: str = ""
    stack: tuple[str, ...] = ()
    manifest: Manifest = field(default_factory=lambda: MappingProxyType({}))
    initramfs_pending: bool = False
    exports: tuple[str, ...] = ()
    used_network: bool = False
    steps: tuple[str, ...] = ()
    """The steps whose results the entries of `stack` are, one for each."""

    def after(self, record: Record) -> State:
        return replace(
            self,
            tree=record.tree,
            stack=(*record.stack, *self.stack),
            manifest=changed(self.manifest, record.hooks),
            initramfs_pending=record.initramfs_pending,
            exports=(*self.exports, record.id) if record.exports else self.exports,
            steps=(*(record.step,) * len(record.stack), *self.steps),
            used_network=self.used_network or any(entry.kind not in KINDS for entry in record.inputs),
        )
