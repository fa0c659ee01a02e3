"""What `zypper --xmlout` prints, read line by line. Format: /usr/share/zypper/xml/xmlout.rnc."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from xml.etree import ElementTree

from dibble.errors import FetchError, NoSuchPackage, PackageError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DONE = (0, 102, 103)
"""zypper(8), end statuses: it has worked; 102 and 103 say that a restart of something is due."""
SCRIPTLET_FAILED = 107
_NO_REPOSITORIES, _NOT_FOUND = 6, 104
_STEP = re.compile(r"\((\d+)/(\d+)\) .+")
_SCRIPTLET = re.compile(r"(%\w+\(\S+\) scriptlet failed, exit status \d+)")
_NOT_FOUND_NAME = re.compile(r"'(.+)'")
_FINGERPRINT = re.compile(r"<key-fingerprint>(\w+)</key-fingerprint>")
_OWNER = re.compile(r"<key-name>(.+?)</key-name>")


@dataclass(frozen=True, slots=True)
class Solvable:
    """A package of a summary. `repository` is what the repository is called, which need not be its alias."""

    name: str
    edition: str
    arch: str
    repository: str


@dataclass(frozen=True, slots=True)
class Repository:
    """One of the list: `urls` are its mirrors, `keys` the places of its keys."""

    alias: str
    name: str
    enabled: bool
    checked: bool
    urls: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(slots=True)
class Answer:
    """What has been read. `changes` are by the kind of change, as `to-install`."""

    changes: dict[str, list[Solvable]] = field(default_factory=dict)
    repositories: list[Repository] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    """Kind (`info`, `warning`, `error`) and text."""
    prompts: list[str] = field(default_factory=list)

    def coming(self, *, new: bool) -> list[Solvable]:
        """Packages that come in: new ones, or those that replace another version."""
        return [
            one
            for kind, found in self.changes.items()
            if kind != "to-remove" and (kind == "to-install") == new
            for one in found
        ]

    @property
    def going(self) -> list[Solvable]:
        return self.changes.get("to-remove", [])

    @property
    def errors(self) -> list[str]:
        return [text for kind, text in self.messages if kind == "error"]

    @property
    def failed_scriptlets(self) -> list[str]:
        """What rpm says of each, the package's name in it."""
        found = [match for _, text in self.messages for match in _SCRIPTLET.findall(text)]
        return list(dict.fromkeys(found))


class Reader:
    """Takes lines. Those that are for a user go to `on_line`, and how many packages are done to `on_progress`."""

    def __init__(
        self, on_line: Callable[[str], None] | None = None, on_progress: Callable[[int], None] | None = None
    ) -> None:
        self.answer = Answer()
        self.is_whole = False
        """Whether the document has come to its end."""
        self._parser: ElementTree.XMLPullParser[ElementTree.Element] = ElementTree.XMLPullParser(("start", "end"))
        self._on_line = on_line
        self._on_progress = on_progress
        self._change = ""
        self._shown = ""
        self._broken = False

    def __call__(self, line: str) -> None:
        if self._broken:
            return
        try:
            self._parser.feed(f"{line}\n")
            events = cast("Iterable[tuple[str, ElementTree.Element]]", self._parser.read_events())
            for event, element in events:
                if event == "start":
                    self._change = element.tag if element.tag.startswith("to-") else self._change
                else:
                    self._ended(element)
        except ElementTree.ParseError:
            self._broken = True

    def _ended(self, element: ElementTree.Element) -> None:
        attributes, text = element.attrib, (element.text or "").strip()
        match element.tag:
            case "stream":
                self.is_whole = True
            case "solvable" if attributes.get("type") == "package":
                names = ("name", "edition", "arch", "repository")
                one = Solvable(*(attributes.get(name, "") for name in names))
                self.answer.changes.setdefault(self._change, []).append(one)
            case "repo":
                self.answer.repositories.append(_repository(element))
            case "message":
                self.answer.messages.append((attributes.get("type", ""), text))
                self._show(text)
            case "text":
                self.answer.prompts.append(text)
            case "progress":
                self._progress(attributes)

    def _progress(self, attributes: Mapping[str, str]) -> None:
        step = _STEP.fullmatch(attributes.get("name", ""))
        if step is None:
            return
        if step[0] != self._shown:
            self._shown = step[0]
            self._show(step[0])
        if "done" in attributes and self._on_progress:
            self._on_progress(int(step[1]))

    def _show(self, text: str) -> None:
        if self._on_line:
            for line in text.splitlines():
                self._on_line(line)


def refusal(status: int, answer: Answer) -> PackageError:
    """What an end status other than `DONE` means for a transaction."""
    text = "\n".join(answer.errors or [text for _, text in answer.messages[-8:]] + answer.prompts)
    if status == _NOT_FOUND:
        names = [match[1] for error in answer.errors if (match := _NOT_FOUND_NAME.search(error))]
        return NoSuchPackage(
            f"no repository has a package {', '.join(names) or text}", hint="is it called otherwise here (pkg-map)?"
        )
    if status == _NO_REPOSITORIES:
        return PackageError("the target has no repositories", hint="give it one with zypper addrepo")
    return PackageError(f"zypper cannot carry out the transaction: {text}")


def unreadable(answer: Answer, keys: Mapping[str, str], hint: str) -> FetchError:
    """Why metadata could not be had; `keys` are those that count, fingerprint → owner."""
    signed = next((text for _, text in answer.messages if _FINGERPRINT.search(text)), "")
    if signed:
        key, owner = _FINGERPRINT.findall(signed)[0], _OWNER.search(signed)
        signer = listed({key: owner[1] if owner else ""})
        return SignatureError(
            f"the metadata of a repository are signed with the key {signer}, which is not trusted; its keys are:"
            f" {listed(keys)}",
            hint=hint,
        )
    if any("is unsigned" in prompt for prompt in answer.prompts):
        return SignatureError("the metadata of a repository are not signed", hint="name another mirror or repository")
    return FetchError(
        f"a repository cannot be read: {' '.join(answer.errors)}",
        hint="check the release (DIB_RELEASE) and the mirror (DIB_DISTRIBUTION_MIRROR)",
    )


def listed(keys: Mapping[str, str]) -> str:
    """Keys as fingerprints with their owners."""
    return (
        ", ".join(f"{fingerprint} ({owner})" if owner else fingerprint for fingerprint, owner in keys.items()) or "none"
    )


def _repository(element: ElementTree.Element) -> Repository:
    attributes = element.attrib
    return Repository(
        alias=attributes.get("alias", ""),
        name=attributes.get("name", ""),
        enabled=attributes.get("enabled") == "1",
        checked=attributes.get("gpgcheck") != "0",
        urls=_words(one.text for one in element.iter("url")),
        keys=tuple(attributes.get("gpgkey", "").split()),
    )


def _words(texts: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(text.strip().rstrip("/") for text in texts if text and text.strip())
