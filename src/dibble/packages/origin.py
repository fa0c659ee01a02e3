"""What scripts fetch that is no package: a download for them, and whether its origin has changed since.

    STATE/origins/NAME.json   what an origin said last, and when it was asked

An origin is a URL, a reference of a git repository, a repository of RPM packages or the database of one of pacman's.
Its *token* is short and changes with what is there: time and size or the entity tag that a server tells, the digest of
a file, a commit. It is kept with the layer of the step that fetched (`Input.digest`), so whoever has the layer can ask
whether it is still the newest, without fetching anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from dibble.errors import FetchError, FileGone
from dibble.packages.http import CONNECT_SECONDS, READ_SECONDS, Failure, Reason, new_session, opened

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import BufferedRandom

    import requests

KINDS = ("url", "git", "rpm-md", "pacman")
TRIES = 3
WITHOUT_VALIDATORS_LIMIT = 4 << 20  # bytes; of a server that tells neither time nor tag a larger file is not compared
ALL_REFS = "*"


def download(url: str, target: BufferedRandom) -> str:
    """Write what `url` holds to `target`, which is empty, and return the origin's token.

    A transfer that breaks goes on from its last byte. Raises FileGone where the server has no such file, FetchError for
    anything else. The token is asked for first: a file that changes in between counts as changed at the next look.
    """
    session = new_session()
    try:
        token = _token_of_server(session, url) if _is_web(url) else None
        for attempt in range(TRIES):
            try:
                _receive(session, url, target)
                break
            except Failure as failure:
                if failure.reason != Reason.NO_ANSWER or attempt == TRIES - 1:
                    kind = FileGone if failure.reason == Reason.GONE else FetchError
                    raise kind(f"{urlsplit(url).netloc or url} did not deliver {url}: {failure.text}") from failure
    finally:
        session.close()
    if token is None:
        target.seek(0)
        token = f"sha256 {hashlib.file_digest(target, 'sha256').hexdigest()}"
    return token


def _receive(session: requests.Session, url: str, target: BufferedRandom) -> None:
    with opened(session, url, target.seek(0, os.SEEK_END)) as answer:
        target.seek(answer.offset)
        target.truncate()
        for chunk in answer.chunks:
            target.write(chunk)


def origin_tokens(
    origins: Iterable[tuple[str, str]], state_dir: Path, *, offline: bool, max_age_s: int
) -> dict[tuple[str, str], str | None]:
    """The present token of each (kind, name), asked at the same time; None where nobody can tell.

    What an origin said less than `max_age_s` seconds ago is not asked again; offline, what it said last counts. The
    name of a git origin is its location, a blank and the reference (`*`: all branches and tags).
    """
    from concurrent.futures import ThreadPoolExecutor

    wanted = list(dict.fromkeys(origins))
    if not wanted:
        return {}

    def ask(origin: tuple[str, str]) -> str | None:
        return _present_token(*origin, state_dir, offline=offline, max_age_s=max_age_s)

    with ThreadPoolExecutor(min(8, len(wanted))) as pool:
        return dict(zip(wanted, pool.map(ask, wanted), strict=True))


def note_origin(kind: str, name: str, token: str, state_dir: Path) -> None:
    """Remember what an origin has just said."""
    path = _file(state_dir, kind, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"token": token, "checked": time.time()}, file)
    Path(new).replace(path)


def _present_token(kind: str, name: str, state_dir: Path, *, offline: bool, max_age_s: int) -> str | None:
    local = kind == "url" and not _is_web(name)
    if not local:
        known = _recall(state_dir, kind, name)
        if known and (offline or abs(time.time() - known[1]) < max_age_s):
            return known[0]
        if offline:
            return None
    if kind == "rpm-md":
        token = token_of_rpm_repository(name)
    else:
        token = token_of_repository(*_split(name)) if kind == "git" else token_of_url(name)
    if token is not None and not local:
        note_origin(kind, name, token, state_dir)
    return token


def _split(name: str) -> tuple[str, str]:
    location, _, ref = name.rpartition(" ")
    return location, ref


def _file(state_dir: Path, kind: str, name: str) -> Path:
    return state_dir / "origins" / (hashlib.sha256(f"{kind} {name}".encode()).hexdigest()[:32] + ".json")


def _recall(state_dir: Path, kind: str, name: str) -> tuple[str, float] | None:
    try:
        data = json.loads(_file(state_dir, kind, name).read_text("utf-8"))
        return str(data["token"]), float(data["checked"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


# --- URLs


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def token_of_url(url: str) -> str | None:
    """The token of a URL now; None when the server does not answer, or has nothing by which a change could be seen."""
    if not _is_web(url):
        try:
            with Path(unquote(urlsplit(url).path)).open("rb") as file:
                return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
        except OSError:
            return None  # the step's layer is then all that is left of it
    session = new_session()
    try:
        return _token_of_server(session, url)
    finally:
        session.close()


def _token_of_server(session: requests.Session, url: str) -> str | None:
    """What the headers of an answer tell. The body is left alone unless it is small and they tell nothing."""
    import requests
    import urllib3.exceptions

    try:
        # HEAD would do, but not every server answers it.
        with session.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as answer:
            if answer.status_code != 200:
                return None
            headers = answer.headers
            # Mirrors of one file agree on its time and size rather than on a tag.
            if "Last-Modified" in headers and "Content-Length" in headers:
                return f"modified {headers['Last-Modified']}, {headers['Content-Length']} bytes"
            if "ETag" in headers:
                return f"tag {headers['ETag']}"
            body = answer.raw.read(WITHOUT_VALIDATORS_LIMIT + 1, decode_content=False)
            return f"sha256 {hashlib.sha256(body).hexdigest()}" if len(body) <= WITHOUT_VALIDATORS_LIMIT else None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
        return None


# --- RPM packages


def token_of_rpm_repository(url: str) -> str | None:
    """The sha256 of a repository's newest repomd.xml, whose address, or that of a metalink, is given.

    None when nobody can tell. Source: RFC 5854; a metalink lists older files, too, so the first hash is the newest.
    """
    from dibble.packages.fetch import get_small

    try:
        body = get_small(url, limit=WITHOUT_VALIDATORS_LIMIT)
    except FetchError:
        return None
    if not url.endswith("/repomd.xml"):
        hashes = re.findall(rb'<hash type="sha256">([0-9a-f]{64})</hash>', body)
        return hashes[0].decode() if hashes else None
    return hashlib.sha256(body).hexdigest()


# --- git


def local_repository(kind: str, name: str) -> Path | None:
    """The directory on the host that a git origin is; None for an origin of another kind or on another machine."""
    location = name.rpartition(" ")[0] if kind == "git" else ""
    if location.startswith("file://"):
        location = unquote(urlsplit(location).path)
    return Path(location) if location.startswith("/") else None


def token_of_repository(location: str, ref: str) -> str | None:
    """The commit that a reference of a git repository leads to now; for `*` a digest of all branches and tags.

    None when the server does not answer or has no such reference. Repositories that are not reached by HTTP are asked
    by the host's git; where that is missing nobody can tell.
    """
    refs = _refs_over_http(location) if _is_web(location) else _refs_by_git(location)
    if refs is None:
        return None
    if ref == ALL_REFS:
        shown = sorted(
            f"{name} {commit}" for name, commit in refs.items() if name.startswith(("refs/heads/", "refs/tags/"))
        )
        return hashlib.sha256("\n".join(shown).encode()).hexdigest()
    # The order of gitrevisions(7); ^{} is the commit that an annotated tag stands for.
    for name in (ref, f"refs/{ref}", f"refs/tags/{ref}", f"refs/heads/{ref}"):
        commit = refs.get(f"{name}^{{}}") or refs.get(name)
        if commit:
            return commit
    return None


def _refs_over_http(location: str) -> dict[str, str] | None:
    """What a server advertises: gitprotocol-http(5), smart and dumb."""
    import requests

    session = new_session()
    url = f"{location.rstrip('/')}/info/refs?service=git-upload-pack"
    try:
        answer = session.get(url, timeout=(CONNECT_SECONDS, READ_SECONDS))
    except requests.RequestException:
        return None
    finally:
        session.close()
    if answer.status_code != 200:
        return None
    if answer.headers.get("Content-Type", "").startswith("application/x-git-upload-pack-advertisement"):
        return advertised_refs(answer.content)
    return listed_refs(answer.text)


def advertised_refs(data: bytes) -> dict[str, str] | None:
    """Reference → commit from the pkt-lines of an upload-pack advertisement; None when it is none.

    Source: gitprotocol-common(5), gitprotocol-pack(5).
    """
    refs: dict[str, str] = {}
    at = 0
    while at + 4 <= len(data):
        try:
            length = int(data[at : at + 4], 16)
        except ValueError:
            return None
        line = data[at + 4 : at + max(length, 4)]
        at += max(length, 4)  # 0000 is a flush packet
        if length > 4 and not line.startswith(b"#"):
            commit, _, name = line.partition(b"\0")[0].strip().partition(b" ")
            refs[os.fsdecode(name)] = commit.decode("ascii", "replace")
    return refs


def listed_refs(text: str) -> dict[str, str]:
    """Reference → commit from lines of commit, tab and name, as a dumb server and `git ls-remote` give them."""
    pairs = [line.split("\t", 1) for line in text.splitlines() if "\t" in line]
    return {name: commit for commit, name in pairs}


def _refs_by_git(location: str) -> dict[str, str] | None:
    from dibble.sandbox.process import find_helper, host_environment, run

    git = find_helper("git")
    if git is None:
        return None
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="dibble-git-") as config:
        # Repositories of other owners are only listed here, nothing of them runs. In a file, because git takes
        # variables with settings from the programs that it starts.
        config.write("[safe]\n\tdirectory = *\n")
        config.flush()
        env = {
            **host_environment("HOME", "SSH_AUTH_SOCK"),
            "GIT_CONFIG_SYSTEM": config.name,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": f"ssh -o BatchMode=yes -o ConnectTimeout={CONNECT_SECONDS:.0f}",
        }
        done = run([str(git), "ls-remote", "--quiet", "--", location], env=env, check=False)
    return None if done.status else listed_refs(done.output)
