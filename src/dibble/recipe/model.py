"""What the user asked for, as one value. It is all that the rest of dibble knows of the command line."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - dataclass field type
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - dataclass field type
from typing import Literal


@dataclass(frozen=True, slots=True)
class RemoteCache:
    """Where layers and outputs of other machines are. `url` is absolute: a directory, or a URL of any scheme.

    `push` says whether what is built here is added; `key` signs it; with `trust` only signed entries are used.
    """

    url: str
    push: bool
    key: Path | None = None
    trust: Path | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What an environment gives an image to run on; `dibble boot` and `dibble publish` take it from here.

    `disk_bus` and `network` are QEMU's and libosinfo's words; `minimum_memory_mib` is what the image needs to come up.
    """

    disk_bus: str = "virtio"
    network: str = "virtio"
    metadata: str = ""
    """How the machine's settings reach the image: a kind of `evidence/metadata.py`; empty: not at all."""
    minimum_memory_mib: int = 512


@dataclass(frozen=True, slots=True)
class Gate:
    """What has to hold of a finished tree: patterns of paths, some that must be there and some that must not."""

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """The environment that an image is for, and what its preset set.

    `set` has pairs of key and value in the preset's order, `overruled` those where the user's word won.
    """

    name: str
    summary: str
    source: str
    machine: Machine = Machine()
    gate: Gate = Gate()
    set: tuple[tuple[str, str], ...] = ()
    overruled: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One image to build. Complete: every default is filled in, nothing here looks at the host again.

    Paths are absolute, except `name`, which is as the user gave it and relative to `cwd`.
    """

    name: str
    """Output files begin with it; may hold directories (contract.md 1.4)."""
    arch: str
    """As Debian calls it: amd64, i386, arm64 … What the user typed stands in `environment["ARCH"]`."""
    elements: tuple[str, ...]
    """The words as requested, without `base`, `ramdisk` or a default block device."""
    outputs: tuple[str, ...]
    """Formats, each once, in the order given; every one is registered."""
    environment: Mapping[str, str]
    """What hooks see of the caller: its variables less the host-only ones, plus those that options stand for."""
    element_path: tuple[Path, ...]
    """Searched in this order; our own catalogue is the last."""
    packages: tuple[str, ...]
    skip_base: bool
    ramdisk: bool
    compress: bool
    checksums: tuple[str, ...]
    """Of "md5" and "sha256", in this order."""
    qemu_img_options: str
    """`k=v,k=v`, or empty."""
    image_size_bytes: int | None
    """Fixed size of the disk; None: computed from the content."""
    image_extra_size_bytes: int | None
    """Room beyond the content; None: a share of the content (contract.md 5.3)."""
    max_online_resize: int | None
    """Blocks the root file system may grow to while mounted (`mkfs -E resize=`)."""
    mkfs_options: str
    mkfs_journal_size_mib: int
    root_label: str | None
    """None: the default of the root file system's type."""
    fs_type: str
    offline: bool
    max_age_s: int
    """Seconds for which what is known of a repository counts as its present state."""
    refresh: tuple[str, ...]
    """Steps and phases to run again, as the user named them."""
    keep_on_failure: bool
    """Keep what a step that fails had written."""
    trace: int
    """0 none, 1 scripts trace, 2 the noisy ones too."""
    quiet: bool
    logfile: Path | None
    install_type: str
    cache_dir: Path
    remote_cache: RemoteCache | None
    docker_target: str | None
    no_tmpfs: bool
    min_tmpfs_gib: int
    block_device_config: str | None
    """YAML text, or `file://` and an absolute path; None: the elements' own."""
    block_device_source: str
    """Where that text stands, for messages: a recipe file or the variable's name. Lines in the text count as there."""
    secrets: Mapping[str, Path]
    """Files with secrets, by the names that descriptions use."""
    secure_boot_key: Path | None
    """A private key in PEM; programs for UEFI are signed with it. None: they are not signed."""
    secure_boot_cert: Path | None
    """The certificate of that key, in PEM."""
    tools: Literal["tree", "host"]
    cwd: Path
    overwrite: bool
    layout: str
    """The element that lays the disk out where no other one provides that; empty: the architecture's usual one."""
    target: Target | None
    """The environment that the image is for; None: none was named."""
    arguments: str
    """The command line, joined by spaces (DIB_ARGS)."""
