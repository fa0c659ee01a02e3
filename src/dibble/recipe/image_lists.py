"""The YAML files of `diskimage-builder`: lists of images, each a command line of disk-image-create.

Source: contract.md 1.6.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable  # noqa: TC003 - dataclass field type
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from dibble.elements.readers.documents import Document, Items, Scalar, Table, Value, read_document
from dibble.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Setting = str | bool | list[str] | dict[str, str]
Settings = dict[str, Setting]

DEFAULT_NAME = "image"
ARCHITECTURES = (
    "aarch64", "amd64", "arm64", "armhf", "powerpc", "ppc64", "ppc64el", "ppc64le", "s390x", "x86_64",
)  # fmt: skip
TYPES = ("aci", "docker", "qcow2", "raw", "squashfs", "tar", "tgz", "vhd")
INSTALL_TYPES = ("package", "source")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")  # what YAML 1.1 reads as truth values


@dataclass(frozen=True, slots=True)
class ImageCommand:
    """One image to build: `arguments` are those of disk-image-create, or of ramdisk-image-create."""

    name: str
    ramdisk: bool
    environment: dict[str, str]
    arguments: tuple[str, ...]

    @property
    def program(self) -> str:
        return "ramdisk-image-create" if self.ramdisk else "disk-image-create"

    def __str__(self) -> str:
        """The command as a shell takes it."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join([self.program, *self.arguments])])


def image_commands(files: Sequence[Path]) -> tuple[ImageCommand, ...]:
    """The images of all files, in the order of their first mention.

    An entry without a name belongs to the one before it; entries of one name are merged: lists grow, maps are updated,
    anything else is replaced. Raises RecipeError, with file and line, for whatever is not as it should be.
    """
    images: dict[str, Settings] = {}
    name = DEFAULT_NAME
    for file in files:
        for entry in _entries_of(file):
            found = entry.get("imagename", name)
            assert isinstance(found, str)
            name = found
            _merge(images.setdefault(name, {"imagename": name}), entry)
    return tuple(_command(name, settings) for name, settings in images.items())


def _merge(into: Settings, entry: Settings) -> None:
    for key, value in entry.items():
        before = into.get(key)
        if isinstance(before, list) and isinstance(value, list):
            into[key] = [*before, *value]
        elif isinstance(before, dict) and isinstance(value, dict):
            into[key] = {**before, **value}
        else:
            into[key] = value


# --- reading


def _entries_of(file: Path) -> list[Settings]:
    from dibble.errors import ElementError

    try:
        document = read_document(file)
        if not isinstance(document.root, Items):
            document.fail("the file is not a list of images", document.root, 'begin an image with "- imagename: …"')
        return [_entry(document, value) for value in document.root.values]
    except ElementError as error:  # the reader is that of elements' files
        raise RecipeError(error.message, hint=error.hint, where=error.where) from error


def _entry(document: Document, value: Value) -> Settings:
    settings: Settings = {}
    for key, below in document.table(value, "an image").entries:
        option = OPTIONS.get(key.text)
        if option is None:
            near = get_close_matches(key.text, OPTIONS, n=2, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known keys are: {', '.join(OPTIONS)}"
            document.fail(f'unknown key "{key.text}"', key, hint)
        settings[key.text] = option.read(document, below, key.text)
    return settings


def _text(document: Document, value: Value, key: str) -> Setting:
    return document.text(value, key)


def _flag(document: Document, value: Value, key: str) -> Setting:
    word = document.text(value, key).lower()
    if word not in _TRUE + _FALSE:
        document.fail(f'{key} is "{word}", neither true nor false', value, f"write {key}: true")
    return word in _TRUE


def _number(least: int, most: int | None = None) -> Callable[[Document, Value, str], Setting]:
    def read(document: Document, value: Value, key: str) -> Setting:
        word = document.text(value, key)
        if not word.isascii() or not word.isdigit() or int(word) < least or (most is not None and int(word) > most):
            bound = f"from {least} to {most}" if most is not None else f"of at least {least}"
            document.fail(f'{key} is "{word}", not a whole number {bound}', value)
        return str(int(word))

    return read


def _word_of(words: Sequence[str]) -> Callable[[Document, Value, str], Setting]:
    def read(document: Document, value: Value, key: str) -> Setting:
        word = document.text(value, key)
        if word not in words:
            document.fail(f'{key} is "{word}"', value, f"known are: {', '.join(words)}")
        return word

    return read


def _list(words: Sequence[str] = ()) -> Callable[[Document, Value, str], Setting]:
    def read(document: Document, value: Value, key: str) -> Setting:
        if not isinstance(value, Items):
            document.fail(f"{key} is not a list", value, f"write {key}: [ … ]")
        found = [document.text(item, f"an entry of {key}") for item in value.values]
        for word, item in zip(found, value.values, strict=True):
            if words and word not in words:
                document.fail(f'{key} has "{word}"', item, f"known are: {', '.join(words)}")
        return found

    return read


def _map(document: Document, value: Value, key: str) -> Setting:
    if not isinstance(value, Table):
        document.fail(f"{key} is not a map", value)
    return {name.text: _as_written(document, below, f"{key}: {name.text}") for name, below in value.entries}


def _as_written(document: Document, value: Value, what: str) -> str:
    return "" if isinstance(value, Scalar) and value.null else document.text(value, what)


# --- the command line


def _short(letter: str) -> Callable[[Setting, str], list[str]]:
    def words(value: Setting, _: str) -> list[str]:
        if isinstance(value, bool):
            return [f"-{letter}"] if value else []
        text = ",".join(value) if isinstance(value, list) else str(value)
        return [f"-{letter}", text] if text else []

    return words


def _long(value: Setting, key: str) -> list[str]:
    if isinstance(value, bool):
        return [f"--{key}"] if value else []
    text = ",".join(f"{name}={below}" for name, below in value.items()) if isinstance(value, dict) else str(value)
    return [f"--{key}", text] if text else []


def _nothing(_value: Setting, _key: str) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class _Option:
    """A key: how its value is read, and what it becomes."""

    read: Callable[[Document, Value, str], Setting]
    words: Callable[[Setting, str], list[str]] = _long


OPTIONS: dict[str, _Option] = {
    "imagename": _Option(_text, _short("o")),
    "arch": _Option(_word_of(ARCHITECTURES), _short("a")),
    "types": _Option(_list(TYPES), _short("t")),
    "debug-trace": _Option(_number(0, 2), lambda value, _: ["-x"] * int(str(value))),
    "uncompressed": _Option(_flag, _short("u")),
    "clear": _Option(_flag, _short("c")),
    "logfile": _Option(_text),
    "checksum": _Option(_flag),
    "image-size": _Option(_number(1)),
    "image-extra-size": _Option(_number(1)),
    "image-cache": _Option(_text),
    "max-online-resize": _Option(_number(1)),
    "min-tmpfs": _Option(_number(1)),
    "mkfs-journal-size": _Option(_number(1)),
    "mkfs-options": _Option(_text),
    "no-tmpfs": _Option(_flag),
    "offline": _Option(_flag),
    "qemu-img-options": _Option(_map),
    "root-label": _Option(_text),
    "ramdisk-element": _Option(_text),
    "install-type": _Option(_word_of(INSTALL_TYPES)),
    "docker-target": _Option(_text),
    "packages": _Option(_list(), _short("p")),
    "skip-base": _Option(_flag, _short("n")),
    "environment": _Option(_map, _nothing),
    "ramdisk": _Option(_flag, _nothing),
    "elements": _Option(_list(), lambda value, _: list(value) if isinstance(value, list) else []),
}
"""In the order in which they stand on the command line; -o comes first and the elements last."""


def _command(name: str, settings: Settings) -> ImageCommand:
    arguments = [
        word for key, option in OPTIONS.items() if key in settings for word in option.words(settings[key], key)
    ]
    environment = settings.get("environment", {})
    assert isinstance(environment, dict)
    return ImageCommand(name, settings.get("ramdisk") is True, environment, tuple(arguments))
