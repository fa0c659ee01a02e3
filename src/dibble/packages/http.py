"""One request, answered or failed for a stated reason: time limits, retries, ranges, `file:` addresses.

What to do about a failure (another try, another server, give up) is decided in `fetch.py`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from dibble import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

CONNECT_SECONDS = 5.0  # for each address of a host, tried twice: a dead mirror is named within some 10 s
READ_SECONDS = 15.0  # without a single byte
CHUNK = 1 << 18
BUSY = (429, 500, 502, 503, 504)  # statuses that pass by themselves; asked again after 0, 1, 2 s or Retry-After


class Reason(Enum):
    """Why a server did not deliver; decides what the user is told."""

    NO_ANSWER = "no answer"
    GONE = "404"
    REFUSED = "refused"  # any other HTTP status
    WRONG = "wrong content"
    STOPPED = "stopped"  # another download failed for good


class Failure(Exception):
    """One server did not deliver one file. `text` continues a sentence that begins with the server's name."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of a file from `offset` on; reading `chunks` raises Failure when the transfer breaks."""

    offset: int
    chunks: Iterator[bytes]


def new_session() -> requests.Session:
    """A session that keeps connections open, for one thread."""
    import logging

    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    # Its warnings about each retry would go to standard error, in the middle of the display.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    retry = Retry(
        total=3,
        connect=1,
        read=0,  # `fetch.py` goes on from the last byte instead
        redirect=5,
        status=3,
        status_forcelist=BUSY,
        backoff_factor=0.5,
        backoff_max=5,
        raise_on_status=False,
        raise_on_redirect=False,
    )
    session = requests.Session()
    # identity: a .gz or .xz file must come as it is, or sizes and ranges mean nothing
    session.headers.update({"User-Agent": f"dibble/{__version__}", "Accept-Encoding": "identity"})
    adapter = HTTPAdapter(max_retries=retry)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


@contextmanager
def opened(session: requests.Session, url: str, offset: int) -> Iterator[Answer]:
    """Ask for a file from byte `offset` on; the answer may begin at 0 all the same. Raises Failure."""
    if urlsplit(url).scheme in ("file", "copy"):  # `copy` is apt's word for a file: address that may vanish
        with _local_file(url) as file:
            file.seek(offset)
            yield Answer(offset, iter(lambda: file.read(CHUNK), b""))
        return
    import requests

    headers = {"Range": f"bytes={offset}-"} if offset else {}
    try:
        response = session.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))
    except requests.ConnectionError as error:
        raise Failure(Reason.NO_ANSWER, _cause(error)) from error
    except requests.Timeout as error:
        raise Failure(Reason.NO_ANSWER, f"silent for {READ_SECONDS:.0f} s") from error
    except (requests.RequestException, ValueError) as error:
        raise Failure(Reason.REFUSED, f"cannot be asked ({error})") from error
    with response:
        yield Answer(_offset_of(response, offset), _chunks(response))


def _offset_of(response: requests.Response, asked: int) -> int:
    """Where the body begins. Raises Failure for every answer that holds no part of the file."""
    status = response.status_code
    if status == 200:
        return 0
    if status == 206 and asked:
        begin = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if begin.strip() != str(asked):
            raise Failure(Reason.WRONG, f"answers bytes {begin or '?'} where {asked} on were asked for")
        return asked
    if status == 416:
        raise Failure(Reason.WRONG, f"has fewer than {asked} bytes of the file")
    if status in (404, 410):
        raise Failure(Reason.GONE, f"{status} {response.reason}")
    if status in BUSY:
        raise Failure(Reason.NO_ANSWER, f"{status} {response.reason}, several times")
    raise Failure(Reason.REFUSED, f"{status} {response.reason}")


def _chunks(response: requests.Response) -> Iterator[bytes]:
    import urllib3.exceptions

    try:
        yield from response.raw.stream(CHUNK, decode_content=False)
    except urllib3.exceptions.ReadTimeoutError as error:
        raise Failure(Reason.NO_ANSWER, f"silent for {READ_SECONDS:.0f} s") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Failure(Reason.NO_ANSWER, f"breaks off ({error})") from error


def _cause(error: BaseException) -> str:
    """The innermost cause of requests' nested errors, in words."""
    import urllib3.exceptions

    reason: object = error.args[0] if error.args else error
    while isinstance(inner := getattr(reason, "reason", None), BaseException):
        reason = inner
    if isinstance(reason, urllib3.exceptions.NameResolutionError):
        return "its name is not known (DNS)"
    if isinstance(reason, urllib3.exceptions.NewConnectionError):  # a kind of ConnectTimeoutError in urllib3 1 and 2
        return str(reason).rpartition(": ")[2].rpartition("] ")[2]  # …: [Errno 111] Connection refused
    if isinstance(reason, urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {CONNECT_SECONDS:.0f} s"
    if isinstance(reason, urllib3.exceptions.ReadTimeoutError):
        return f"silent for {READ_SECONDS:.0f} s"
    return str(reason) or type(reason).__name__


@contextmanager
def _local_file(url: str) -> Iterator[IO[bytes]]:
    path = unquote(urlsplit(url).path)
    try:
        file = open(path, "rb")  # noqa: SIM115, PTH123 - closed below; only the opening may fail this way
    except OSError as error:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise Failure(Reason.GONE if gone else Reason.REFUSED, os.strerror(error.errno or 0)) from error
    with file:
        yield file
