"""What apt says when something is wrong → one of our errors, that says what to do.

The texts are those of apt 2.6 to 3.0 in the C locale (apt-pkg/acquire-item.cc, apt-pkg/acquire-worker.cc,
methods/gpgv.cc, methods/sqv.cc, apt-private/private-install.cc).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from dibble.errors import FetchError, MidSync, NoSuchPackage, NoSuchSuite, PackageError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PLACE = re.compile(
    r"(?:repository|GPG error:|verification failed:|Failed to fetch)"
    r" '?((?:https?|ftp|file|copy|mirror)[^\s']*)(?: ([^\s']+))?"
)
_MISSING_KEY = re.compile(r"NO_PUBKEY ([0-9A-F]{8,40})|[Mm]issing key ([0-9A-F]{8,40})")

_OTHER_MIRROR = "use another mirror (DIB_DISTRIBUTION_MIRROR)"
_TAMPERED = (
    f"the mirror, or something between, changes data: {_OTHER_MIRROR}; for an archive that is not signed at all, give"
    " --unsigned"
)
_WAIT = f"try again in some minutes, or {_OTHER_MIRROR}"


@dataclass(frozen=True, slots=True)
class _Cause:
    """One kind of failure; `message` knows {mirror}, {suite} and {reason}, which is the line that fits `pattern`."""

    pattern: re.Pattern[str]
    kind: type[FetchError]
    message: str
    hint: str


# Tried in order: what says more comes first.
_CAUSES = (
    _Cause(
        re.compile(r"NOSPLIT|NODATA|does the network require authentication"),
        FetchError,
        "what {mirror} answers for {suite} is no package archive's",
        "does the network ask for a login, or does a proxy answer in the mirror's place?",
    ),
    _Cause(
        re.compile(
            r"BADSIG|EXPKEYSIG|REVKEYSIG|EXPSIG|ERRSIG|[Bb]ad signature|sqv returned an error|Splitting up .* failed"
            r"|following signatures were invalid|OpenPGP signature verification failed"
        ),
        SignatureError,
        "the signature of {mirror} {suite} does not verify: {reason}",
        _TAMPERED,
    ),
    _Cause(re.compile(r"is not signed"), SignatureError, "{mirror} {suite} is not signed", _TAMPERED),
    _Cause(
        re.compile(r"Hash Sum mismatch|unexpected size|Mirror sync in progress"),
        MidSync,
        "{mirror} {suite} is mid-sync: {reason}",
        _WAIT,
    ),
    _Cause(
        re.compile(r"E: Failed to fetch \S+/(Packages|Contents|Translation)\S* +40[34]"),
        MidSync,
        "{mirror} {suite} is mid-sync: its Packages file is not there",
        _WAIT,
    ),
    _Cause(
        re.compile(
            r"Could not resolve|Temporary failure resolving|Could not connect|Unable to connect"
            r"|Cannot initiate the connection|Connection (failed|refused|timed out)|timed out|Could not handshake"
            r"|Network is unreachable|No route to host|certificate"
        ),
        FetchError,
        "{mirror} does not answer: {reason}",
        f"check the network and the proxy variables, or {_OTHER_MIRROR}",
    ),
    _Cause(
        re.compile(r"does not have a Release file|no longer has a Release file"),
        NoSuchSuite,
        '{mirror} has no suite "{suite}"',
        "check the release (DIB_RELEASE) and the mirror (DIB_DISTRIBUTION_MIRROR)",
    ),
    _Cause(
        re.compile(r"^E: |", re.MULTILINE),
        FetchError,
        "the package lists of {mirror} {suite} cannot be fetched: {reason}",
        "",
    ),
)


def update_failure(output: str, where: Sequence[tuple[str, str]]) -> FetchError:
    """The error behind a failed `apt-get update`; `where` are the repositories asked, as (uri, suite)."""
    cause = next(cause for cause in _CAUSES if cause.pattern.search(output))
    telling = [line for line in output.splitlines() if cause.pattern.search(line)]
    mirror, suite = _place("\n".join([*telling, output]), where)
    keys = list(dict.fromkeys(first or second for first, second in _MISSING_KEY.findall(output)))
    if keys:
        return SignatureError(
            f"{mirror} {suite} is signed with a key that is not trusted: {', '.join(keys)}",
            hint="give the archive's keyring with DIB_APT_KEYRING=FILE if you trust that key,"
            " or --unsigned to use the mirror without any check (the report will say so)",
        )
    reason = _reason(output, cause.pattern)
    return cause.kind(cause.message.format(mirror=mirror, suite=suite, reason=reason), hint=cause.hint)


def resolve_failure(output: str, asked: Sequence[str], suites: Iterable[str], known: Iterable[str]) -> PackageError:
    """The error behind a failed resolution of `asked`; `known` are all package names, for the nearest ones."""
    errors = [line[3:] for line in output.splitlines() if line.startswith("E: ")]
    searched = ", ".join(dict.fromkeys(suites)) or "none"
    unknown = []
    for error in errors:
        for pattern in (r"Unable to locate package (\S+)", r"Couldn't find any package by (?:glob|regex) '([^']+)'"):
            unknown += re.findall(pattern, error)
    if unknown := list(dict.fromkeys(unknown)):
        return NoSuchPackage(
            f"{_listed(unknown)} in the suites {searched}",
            hint=_nearest(unknown, known) or "is a component or suite missing?",
        )
    for error in errors:
        if match := re.match(r"Package '([^']+)' has no installation candidate", error):
            instead = re.findall(
                r"^  (\S+)(?: \S+)?$", output.partition("However the following packages replace it:")[2], re.M
            )
            hint = f"{' or '.join(instead)} replaces it" if instead else _nearest([match[1]], known)
            return NoSuchPackage(
                f'package "{match[1]}" is known, but not to be had in the suites {searched}', hint=hint
            )
        if match := re.match(r"(?:Version|Release) '([^']+)' for '([^']+)' was not found", error):
            return NoSuchPackage(f'package "{match[2]}" has no version or suite "{match[1]}" in {searched}')
    explanation = _explanation(output)
    if explanation:
        lines = "\n".join("    " + line for line in explanation)
        return PackageError(f"no choice of packages satisfies {' '.join(asked) or 'the request'}:\n{lines}")
    return PackageError(f"apt cannot resolve {' '.join(asked)}: {' / '.join(errors) or output.strip()[-400:]}")


def _explanation(output: str) -> list[str]:
    """Apt's own lines on unmet dependencies: those of the old solver, or the numbered ones of the new (apt 3)."""
    lines = output.splitlines()
    found: list[str] = []
    taking = False
    for line in lines:
        if line.startswith("The following packages have unmet dependencies") or "Reached two conflicting" in line:
            taking = True
        elif taking and line.startswith(" "):
            found.append(line.strip())
        elif line.startswith("E: "):
            taking = "conflicting" in line
        else:
            taking = False
    return found


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return f'there is no package "{names[0]}"'
    return "there are no packages " + ", ".join(f'"{name}"' for name in names)


def _nearest(names: list[str], known: Iterable[str]) -> str:
    pool = list(known)
    found = {name: get_close_matches(name.partition(":")[0], pool, n=3, cutoff=0.7) for name in names[:5]}
    said = [f"{' or '.join(near)}" + (f" for {name}" if len(names) > 1 else "") for name, near in found.items() if near]
    return f"did you mean {', '.join(said)}?" if said else ""


def _place(output: str, where: Sequence[tuple[str, str]]) -> tuple[str, str]:
    for line in output.splitlines():
        match = _PLACE.search(line) if line[:3] in ("E: ", "W: ", "Err") else None
        if not match:
            continue
        uri, suite = match[1], match[2] or ""
        for mirror, name in where:  # a "Failed to fetch" line has one URL instead of the pair
            if uri == mirror and (name == suite or not suite):
                return mirror, name
            if uri.startswith((f"{mirror}/dists/{name}/", f"{mirror}/{name}")):
                return mirror, name
        for mirror, name in where:
            if uri.startswith(mirror):
                return mirror, suite or name
    return where[0] if where else ("the mirror", "")


def _reason(output: str, pattern: re.Pattern[str]) -> str:
    """The part of apt's output that says most: the last line that the pattern fits, without what we say ourselves."""
    for line in reversed(output.splitlines()):
        if pattern.search(line):
            text = re.sub(r"^[EW]: ", "", line.strip())
            text = re.sub(r"^(Failed to fetch|GPG error:) \S+ +", "", text)
            text = re.sub(r"^.*(error message is|InRelease|Release): ", "", text)
            text = re.sub(r"\s+", " ", re.sub(r"\[IP: [^]]*\]", "", text)).strip().rstrip(":")
            return re.sub(r"\b(.{12,}?)(?: \1)+$", r"\1", text)  # said once for each accepted key
    return "apt gives no reason"
