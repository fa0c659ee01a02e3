"""The one table of options. Command lines, environment twins, recipe keys, schema and reference are derived from it.

It stands here and not in `cli/`, because the merge and the recipe schema need it too and nothing imports `cli/`.
Names, units and defaults are those of contract.md 1.2.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - dataclass field type
from dataclasses import dataclass
from typing import Literal

from dibble.recipe import kinds
from dibble.recipe.kinds import Kind  # noqa: TC001 - dataclass field type

Command = Literal["build", "disk-image-create", "ramdisk-image-create"]


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be asked for.

    `flags` are understood by every command; `own_flags` by `dibble build` alone, so that the compatible command keeps
    the very set of long names on which its abbreviations depend. `variable` is the environment twin; `of_variable`
    reads it where that differs from the command line. `recipe_key` is the key in a recipe, empty where there is none.
    """

    key: str
    kind: Kind
    help: str
    flags: tuple[str, ...] = ()
    own_flags: tuple[str, ...] = ()
    variable: str = ""
    of_variable: Callable[[str], object] | None = None
    recipe_key: str = ""

    def flags_for(self, command: Command) -> tuple[str, ...]:
        return self.flags + self.own_flags if command == "build" else self.flags


def _not_zero(text: str) -> bool:
    return text != "0"


def _not_empty(text: str) -> bool:
    return bool(text)


TOOLS = kinds.one_of("tree", "host")

OPTIONS: tuple[Option, ...] = (
    Option(
        "arch",
        kinds.ARCHITECTURES,
        "Architecture of the image (amd64, i386 …); that of this machine unless given. Several make an image each.",
        ("-a",),
        ("--arch",),
        variable="ARCH",
        recipe_key="arch",
    ),
    Option(
        "name",
        kinds.PATH,
        "Name or path that the output files begin with.",
        ("-o",),
        ("--name",),
        variable="IMAGE_NAME",
        recipe_key="name",
    ),
    Option(
        "outputs",
        kinds.FORMATS,
        "Output formats, joined by commas (default: qcow2).",
        ("-t",),
        ("--outputs",),
        recipe_key="outputs",
    ),
    Option(
        "target",
        kinds.TEXT,
        "Where the image will run: a preset of elements, disk, formats and settings (docs/environments.md).",
        (),
        ("--environment",),
        variable="DIBBLE_ENVIRONMENT",
        recipe_key="preset",
    ),
    Option(
        "trace",
        kinds.COUNT,
        "Trace the scripts; twice: the noisy ones too. Adds to DIB_DEBUG_TRACE.",
        ("-x",),
        ("--trace",),
        variable="DIB_DEBUG_TRACE",
        recipe_key="trace",
    ),
    Option(
        "uncompressed",
        kinds.FLAG,
        "Do not compress the qcow2 image.",
        ("-u",),
        ("--uncompressed",),
        recipe_key="uncompressed",
    ),
    Option(
        "clear",
        kinds.FLAG,
        "Give hooks none of the caller's variables but the few that every program needs.",
        ("-c",),
        ("--clear",),
        variable="CLEAR_ENV",
        recipe_key="clear",
    ),
    Option(
        "skip_base",
        kinds.FLAG,
        "Do not put the element base in front.",
        ("-n",),
        ("--skip-base",),
        variable="SKIP_BASE",
        recipe_key="skip-base",
    ),
    Option(
        "packages",
        kinds.WORDS,
        "More packages to install, joined by commas or blanks. May be repeated.",
        ("-p",),
        ("--packages",),
        recipe_key="packages",
    ),
    Option(
        "checksums",
        kinds.CHECKSUM,
        "Write .md5 and .sha256 beside every output.",
        ("--checksum",),
        variable="DIB_CHECKSUM",
        recipe_key="checksum",
    ),
    Option(
        "image_size",
        kinds.SIZE_GIB,
        "Size of the disk in GiB; computed from the content unless given.",
        ("--image-size",),
        variable="DIB_IMAGE_SIZE",
        recipe_key="size",
    ),
    Option(
        "image_extra_size",
        kinds.SIZE_MIB,
        "Room beyond the content in MiB.",
        ("--image-extra-size",),
        variable="DIB_IMAGE_EXTRA_SIZE",
        recipe_key="extra-size",
    ),
    Option(
        "cache_dir",
        kinds.PATH,
        "Where downloads, layers and tools are kept.",
        ("--image-cache",),
        ("--cache-dir",),
        variable="DIB_IMAGE_CACHE",
        recipe_key="cache-dir",
    ),
    Option(
        "max_online_resize",
        kinds.WHOLE,
        "File system blocks that the root may grow to while mounted.",
        ("--max-online-resize",),
        variable="MAX_ONLINE_RESIZE",
        recipe_key="max-online-resize",
    ),
    Option(
        "min_tmpfs",
        kinds.WHOLE,
        "Memory in GiB that a build in memory needs (default: 2).",
        ("--min-tmpfs",),
        variable="DIB_MIN_TMPFS",
        recipe_key="min-tmpfs",
    ),
    Option(
        "mkfs_journal_size",
        kinds.WHOLE,
        "Journal of the root file system in MiB (default: 64).",
        ("--mkfs-journal-size",),
        variable="DIB_JOURNAL_SIZE",
        recipe_key="mkfs-journal-size",
    ),
    Option(
        "mkfs_options",
        kinds.TEXT,
        "More options for mkfs of the root file system, in one argument.",
        ("--mkfs-options",),
        recipe_key="mkfs-options",
    ),
    Option(
        "no_tmpfs",
        kinds.FLAG,
        "Do not build in memory.",
        ("--no-tmpfs",),
        variable="DIB_NO_TMPFS",
        of_variable=_not_zero,
        recipe_key="no-tmpfs",
    ),
    Option(
        "offline",
        kinds.FLAG,
        "Use no network; everything must be cached.",
        ("--offline",),
        variable="DIB_OFFLINE",
        of_variable=_not_empty,
        recipe_key="offline",
    ),
    Option(
        "max_age",
        kinds.DURATION,
        "How old what is known of a repository may be before it is asked again (default: 1h; 0: always ask).",
        (),
        ("--max-age",),
        variable="DIBBLE_MAX_AGE",
        recipe_key="max-age",
    ),
    Option(
        "refresh",
        kinds.WORDS,
        "Run these again although the store has them: a phase, a step, or all. May be repeated.",
        (),
        ("--refresh",),
        variable="DIBBLE_REFRESH",
    ),
    Option(
        "keep_on_failure",
        kinds.FLAG,
        "Keep what a failing step had written, for `dibble shell --failed`.",
        (),
        ("--keep-on-failure",),
        variable="DIBBLE_KEEP_ON_FAILURE",
        of_variable=_not_zero,
    ),
    Option(
        "qemu_img_options",
        kinds.PAIRS,
        "Options of the qemu-img conversion, as k=v,k=v.",
        ("--qemu-img-options",),
        variable="QEMU_IMG_OPTIONS",
        recipe_key="qemu-img-options",
    ),
    Option(
        "root_label",
        kinds.TEXT,
        "Label of the root file system (default: cloudimg-rootfs; on xfs: img-rootfs).",
        ("--root-label",),
        variable="ROOT_LABEL",
        recipe_key="root-label",
    ),
    Option(
        "ramdisk_element",
        kinds.TEXT,
        "Element that makes the ramdisk (default: ramdisk); only for ramdisk-image-create.",
        ("--ramdisk-element",),
        variable="RAMDISK_ELEMENT",
        recipe_key="ramdisk-element",
    ),
    Option(
        "install_type",
        kinds.TEXT,
        "Default install type of elements that have several: source or package (default: source).",
        ("--install-type",),
        variable="DIB_DEFAULT_INSTALLTYPE",
        recipe_key="install-type",
    ),
    Option(
        "docker_target",
        kinds.TEXT,
        "Repository and tag under which docker imports the image.",
        ("--docker-target",),
        recipe_key="docker-target",
    ),
    Option(
        "logfile",
        kinds.PATH,
        "Append the full log to this file; standard output then only names it, unless DIB_QUIET=0.",
        ("--logfile",),
        recipe_key="logfile",
    ),
    Option(
        "tools",
        TOOLS,
        "Programs that the build uses: dibble's own tree of tools, or this machine's (default: tree).",
        (),
        ("--tools",),
        variable="DIBBLE_TOOLS",
        recipe_key="tools",
    ),
    Option(
        "remote_cache",
        kinds.TEXT,
        "Directory or URL (https, s3, gs, ssh …) with layers and images that other machines have built.",
        (),
        ("--remote-cache",),
        variable="DIBBLE_REMOTE_CACHE",
        recipe_key="remote-cache",
    ),
    Option(
        "remote_cache_push",
        kinds.one_of("yes", "no"),
        "Add to the remote cache what is built here (default: yes, but no for http and https).",
        (),
        ("--remote-cache-push",),
        variable="DIBBLE_REMOTE_CACHE_PUSH",
        recipe_key="remote-cache-push",
    ),
    Option(
        "remote_cache_key",
        kinds.PATH,
        "Secret OpenPGP key, without a passphrase, that signs what is added to the remote cache.",
        (),
        ("--remote-cache-key",),
        variable="DIBBLE_REMOTE_CACHE_KEY",
        recipe_key="remote-cache-key",
    ),
    Option(
        "remote_cache_trust",
        kinds.PATH,
        "OpenPGP certificates; entries of the remote cache that none of them has signed are refused.",
        (),
        ("--remote-cache-trust",),
        variable="DIBBLE_REMOTE_CACHE_TRUST",
        recipe_key="remote-cache-trust",
    ),
    Option(
        "secrets",
        kinds.NAMED_FILES,
        "File with a secret that the disk's description names (docs/volumes.md). May be repeated.",
        (),
        ("--secret",),
        variable="DIBBLE_SECRETS",
        of_variable=kinds.named_files_of_list,
        recipe_key="secrets",
    ),
    Option(
        "secure_boot_key",
        kinds.PATH,
        "RSA key in PEM that programs for UEFI are signed with; needs --secure-boot-cert (element bootloader).",
        (),
        ("--secure-boot-key",),
        variable="DIB_SECURE_BOOT_KEY",
        recipe_key="secure-boot-key",
    ),
    Option(
        "secure_boot_cert",
        kinds.PATH,
        "Certificate in PEM of that key, which the firmware has among its own.",
        (),
        ("--secure-boot-cert",),
        variable="DIB_SECURE_BOOT_CERT",
        recipe_key="secure-boot-cert",
    ),
    # Without a place on the command line:
    Option(
        "fs_type", kinds.TEXT, "Type of the root file system (default: ext4).", variable="FS_TYPE", recipe_key="fs-type"
    ),
    Option(
        "element_path",
        kinds.PATHS,
        "Directories that hold elements; our own catalogue is always the last.",
        variable="ELEMENTS_PATH",
        recipe_key="elements-path",
    ),
    Option(
        "overwrite",
        kinds.FLAG,
        "Overwrite an existing image instead of renaming it.",
        variable="OVERWRITE_OLD_IMAGE",
        of_variable=_not_zero,
        recipe_key="overwrite",
    ),
    Option(
        "block_device_config",
        kinds.TEXT,
        "The disk: a YAML description, or file:// and the absolute path of one.",
        variable="DIB_BLOCK_DEVICE_CONFIG",
    ),
    Option("quiet", kinds.FLAG, "1: nothing on standard output.", variable="DIB_QUIET"),
)

BY_KEY: dict[str, Option] = {option.key: option for option in OPTIONS}
