"""Whether what a script fetched has changed where it came from."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import subprocess
import threading
from typing import IO, TYPE_CHECKING, Any, cast

import pytest

from dibble.errors import FetchError, FileGone
from dibble.packages.origin import (
    advertised_refs,
    download,
    listed_refs,
    note_origin,
    origin_tokens,
    token_of_repository,
    token_of_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit


class Web:
    """A server that answers `status`, `headers` and `body`; after `cut` bytes it breaks the first transfer off."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 200, dict[str, str](), b"one"
        self.cut = 0
        self.asked: list[str] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                web.asked.append(self.path)
                wanted = self.headers.get("Range")
                begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
                self.send_response(206 if wanted else web.status)
                if wanted:
                    self.send_header("Content-Range", f"bytes {begin}-{len(web.body) - 1}/{len(web.body)}")
                for name, value in web.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(web.body) - begin))
                self.end_headers()
                end = web.cut or len(web.body)
                cast("IO[bytes]", self.wfile).write(web.body[begin:end])
                if len(web.asked) > 1:  # the first request is the one for the token
                    web.cut = 0

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/f"


@pytest.fixture
def web() -> Iterator[Web]:
    found = Web()
    yield found
    found.server.shutdown()


def fetched(tmp_path: Path, url: str) -> tuple[bytes, str]:
    with (tmp_path / "got").open("w+b") as file:
        token = download(url, file)
        file.seek(0)
        return file.read(), token


@pytest.mark.parametrize(
    ("headers", "changed"),
    [
        ({"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, {"Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"}),
        ({"ETag": '"a"'}, {"ETag": '"b"'}),
    ],
)
def test_another_time_or_tag_is_another_state(
    tmp_path: Path, web: Web, headers: dict[str, str], changed: dict[str, str]
) -> None:
    web.headers = headers
    content, token = fetched(tmp_path, web.url)
    assert content == b"one"
    assert token_of_url(web.url) == token
    web.headers = changed
    assert token_of_url(web.url) not in (token, None)


def test_without_time_and_tag_the_content_tells(tmp_path: Path, web: Web) -> None:
    _, token = fetched(tmp_path, web.url)
    assert token == f"sha256 {hashlib.sha256(b'one').hexdigest()}" == token_of_url(web.url)
    web.body = b"two"
    assert token_of_url(web.url) != token


def test_a_broken_transfer_goes_on_from_its_last_byte(tmp_path: Path, web: Web) -> None:
    web.body, web.cut = bytes(range(256)) * 100, 1000
    assert fetched(tmp_path, web.url)[0] == web.body
    assert len(web.asked) == 3


def test_a_missing_file_is_told_from_other_failures(tmp_path: Path, web: Web) -> None:
    web.status = 404
    with pytest.raises(FileGone):
        fetched(tmp_path, web.url)
    web.status = 403
    with pytest.raises(FetchError) as caught:
        fetched(tmp_path, web.url)
    assert not isinstance(caught.value, FileGone)
    assert "403" in caught.value.message
    assert token_of_url(web.url) is None


def test_a_file_of_the_host_is_its_content(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"one")
    url = f"file://{tmp_path}/a%20b"
    assert fetched(tmp_path, url) == (b"one", token_of_url(url))
    (tmp_path / "a b").write_bytes(b"two")
    assert token_of_url(url) == f"sha256 {hashlib.sha256(b'two').hexdigest()}"
    assert token_of_url(f"file://{tmp_path}/none") is None


@pytest.mark.parametrize(("offline", "max_age_s", "asks"), [(True, 0, False), (False, 3600, False), (False, 0, True)])
def test_what_an_origin_said_a_moment_ago_is_not_asked_again(
    tmp_path: Path, web: Web, offline: bool, max_age_s: int, asks: bool
) -> None:
    web.headers = {"ETag": "new"}
    note_origin("url", web.url, "tag old", tmp_path)
    found = origin_tokens([("url", web.url)], tmp_path, offline=offline, max_age_s=max_age_s)
    assert found == {("url", web.url): "tag new" if asks else "tag old"}
    assert bool(web.asked) is asks


def test_offline_nothing_is_known_of_what_was_never_asked(tmp_path: Path, web: Web) -> None:
    assert origin_tokens([("url", web.url)], tmp_path, offline=True, max_age_s=0) == {("url", web.url): None}
    assert web.asked == []


# --- git


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., str]:
    """Runs git in the repository tmp_path/repository, which has one commit on `main`."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    where = tmp_path / "repository"
    where.mkdir()
    who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def call(*arguments: str) -> str:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **who}
        done = subprocess.run(
            ["git", "-C", where, *arguments], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    call("init", "-q", "-b", "main")
    call("commit", "-q", "--allow-empty", "-m", "one")
    return call


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_branch_is_the_commit_that_it_leads_to(tmp_path: Path, git: Callable[..., str], form: str) -> None:
    location = form.format(tmp_path / "repository")
    assert token_of_repository(location, "main") == git("rev-parse", "HEAD") == token_of_repository(location, "HEAD")
    git("commit", "-q", "--allow-empty", "-m", "two")
    assert token_of_repository(location, "main") == git("rev-parse", "HEAD")
    assert token_of_repository(location, "none") is None
    assert token_of_repository(f"{location}-none", "main") is None


def test_a_tag_is_the_commit_that_it_stands_for(tmp_path: Path, git: Callable[..., str]) -> None:
    git("tag", "-a", "-m", "note", "v1")
    assert token_of_repository(str(tmp_path / "repository"), "v1") == git("rev-parse", "HEAD")


def test_all_references_change_with_each(tmp_path: Path, git: Callable[..., str]) -> None:
    location = str(tmp_path / "repository")
    seen = [token_of_repository(location, "*")]
    git("branch", "other")
    seen.append(token_of_repository(location, "*"))
    git("tag", "v1")
    seen.append(token_of_repository(location, "*"))
    assert len(set(seen)) == 3
    assert token_of_repository(location, "*") == seen[2]


def test_a_repository_over_http_is_asked_without_git(tmp_path: Path, web: Web, git: Callable[..., str]) -> None:
    """The server answers with what git itself advertises."""
    git("branch", "other")
    advertisement = subprocess.run(
        ["git", "upload-pack", "--http-backend-info-refs", tmp_path / "repository"], check=True, capture_output=True
    ).stdout
    web.body = b"001e# service=git-upload-pack\n0000" + advertisement
    web.headers = {"Content-Type": "application/x-git-upload-pack-advertisement"}
    location = web.url.removesuffix("/f") + "/r.git"
    assert token_of_repository(location, "other") == git("rev-parse", "HEAD")
    assert token_of_repository(location, "none") is None
    assert web.asked[0] == "/r.git/info/refs?service=git-upload-pack"


def test_a_dumb_server_lists_its_references(web: Web) -> None:
    web.body = b"1234\trefs/heads/main\n5678\trefs/tags/v1\n9abc\trefs/tags/v1^{}\n"
    assert token_of_repository(web.url, "main") == "1234"
    assert token_of_repository(web.url, "v1") == "9abc"


def test_what_is_no_advertisement_is_none() -> None:
    assert advertised_refs(b"<html>") is None
    assert listed_refs("<html>\n") == {}
