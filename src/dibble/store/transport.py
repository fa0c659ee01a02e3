"""Objects by name in a remote place: reading, writing and listing them, whatever the place is.

HTTP goes through `requests`, which dibble uses anyway: fsspec's own HTTP would bring aiohttp and nine packages more,
and an event loop in a thread, which does not survive the fork into a build's namespace. Everything else (directories,
S3, GCS, SSH …) is a file system of fsspec.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from typing import IO, TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import quote, urlsplit

from dibble.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import requests
    from fsspec import AbstractFileSystem

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0  # without a single byte
SMALL_LIMIT = 8 << 20
"""Bytes of an object that is read at once; a key's entries are some kilobytes."""
_HTTP = ("http", "https")
_EXTRAS = {"s3a": "s3", "gs": "gcs", "sftp": "ssh"}  # as pyproject.toml calls them
_RENAMING = frozenset({"file", "local", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs", "nfs"})
"""Places where a name appears before its content is complete; there an object is written aside and renamed. In object
stores a PUT is seen whole or not at all."""


class Missing(Exception):
    """There is no such object."""


class Unreachable(Exception):
    """The place does not answer or does not do what it is asked; the text says why."""


class Readable(Protocol):
    """What can be read of an object while it arrives. Raises Unreachable when the transfer breaks."""

    def read(self, size: int = ..., /) -> bytes: ...


class Transport(Protocol):
    """Names are relative, with `/`. Every method may be called from any thread, and raises Unreachable."""

    def get(self, name: str) -> bytes:
        """A small object. Raises Missing."""

    def open(self, name: str) -> contextlib.AbstractContextManager[Readable]:
        """A large object, as a stream. Raises Missing."""

    def exists(self, name: str) -> bool: ...

    def put(self, name: str, content: bytes | Path) -> None:
        """Write an object; a reader sees all of it or nothing."""

    def names(self, folder: str) -> list[str] | None:
        """The names of the objects right in a folder; None where the place cannot tell."""


def is_http(url: str) -> bool:
    return urlsplit(url).scheme in _HTTP


def is_local(url: str) -> bool:
    """Whether a URL names a directory of this machine."""
    return urlsplit(url).scheme in ("", "file", "local")


def shown(url: str) -> str:
    """The URL as it may stand in messages: without a password."""
    parts = urlsplit(url)
    if not (parts.username or parts.password):
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host).geturl()


def open_transport(url: str) -> Transport:
    """The place that a URL or a path names. Contacts nobody. Raises UsageError when it can never be used."""
    if is_http(url):
        return HttpTransport(url)
    import fsspec

    protocol = urlsplit(url).scheme or "file"
    try:
        file_system, root = fsspec.core.url_to_fs(url, **_options(protocol))
    except ImportError as error:
        raise UsageError(
            f"the remote cache {shown(url)} needs a library that is not installed: {error}",
            hint=f"pip install 'dibble[{_EXTRAS.get(protocol, protocol)}]', or fsspec's library for {protocol}",
        ) from error
    except ValueError as error:
        raise UsageError(
            f"the remote cache {shown(url)} cannot be used: {error}",
            hint="give a directory, or a URL such as https://…, s3://BUCKET/PREFIX, gs://… or ssh://…",
        ) from error
    return FsspecTransport(file_system, root, renames=protocol in _RENAMING)


def _options(protocol: str) -> dict[str, Any]:  # what each file system's class takes
    """Settings of ours; those of the user come from the environment (AWS_*, FSSPEC_S3_* …), as fsspec has it."""
    if protocol in ("s3", "s3a"):
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "retries": {"max_attempts": 2}}
        return {"config_kwargs": limits, "use_listings_cache": False, "skip_instance_cache": True}
    return {}


class FsspecTransport:
    """A file system of fsspec, below `root`."""

    def __init__(self, file_system: AbstractFileSystem, root: str, *, renames: bool) -> None:
        self._fs = file_system
        self._root = root.rstrip("/")
        self._renames = renames

    def get(self, name: str) -> bytes:
        try:
            found: bytes = self._fs.cat_file(self._path(name), end=SMALL_LIMIT if self._renames else None)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Missing(name) from error
        except Exception as error:  # noqa: BLE001 - a file system raises whatever its library does
            _unreachable(error)
        return found

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Readable]:
        try:
            file = self._fs.open(self._path(name), "rb")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Missing(name) from error
        except Exception as error:  # noqa: BLE001 - see above
            _unreachable(error)
        with file:
            yield _Translating(file)

    def exists(self, name: str) -> bool:
        try:
            return bool(self._fs.exists(self._path(name)))
        except Exception as error:  # noqa: BLE001 - see above
            _unreachable(error)

    def put(self, name: str, content: bytes | Path) -> None:
        final = self._path(name)
        path = f"{final}.{uuid.uuid4().hex}.part" if self._renames else final
        try:
            if self._renames:
                self._fs.makedirs(final.rpartition("/")[0], exist_ok=True)
            try:
                if isinstance(content, bytes):
                    self._fs.pipe_file(path, content)
                else:
                    self._fs.put_file(str(content), path)
                if path != final:
                    self._fs.mv(path, final)
            except BaseException:
                if path != final:
                    with contextlib.suppress(Exception):  # the first error counts
                        self._fs.rm_file(path)
                raise
        except Exception as error:  # noqa: BLE001 - see above
            _unreachable(error)

    def names(self, folder: str) -> list[str] | None:
        path = self._path(folder)
        try:
            self._fs.invalidate_cache(path)
            found = self._fs.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except Exception as error:  # noqa: BLE001 - see above
            _unreachable(error)
        return [str(entry).rpartition("/")[2] for entry in found if not str(entry).endswith(".part")]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class _Translating:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:  # noqa: BLE001 - see above
            _unreachable(error)


def _unreachable(error: Exception) -> NoReturn:
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    raise Unreachable(text or type(error).__name__) from error


class HttpTransport:
    """A web server; it is written to with PUT."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._local = threading.local()  # a session keeps its connection open, and is for one thread

    def get(self, name: str) -> bytes:
        with self.open(name) as source:
            found = b""
            while len(found) <= SMALL_LIMIT and (data := source.read(1 << 16)):
                found += data
        return found

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Readable]:
        with self._asked("GET", name, stream=True) as response:
            yield _Body(response)

    def exists(self, name: str) -> bool:
        try:
            with self._asked("HEAD", name, allow_redirects=True):
                return True
        except Missing:
            return False

    def put(self, name: str, content: bytes | Path) -> None:
        if isinstance(content, bytes):
            with self._asked("PUT", name, data=content):
                return
        with content.open("rb") as file, self._asked("PUT", name, data=file):
            return

    def names(self, folder: str) -> list[str] | None:
        return None

    @contextlib.contextmanager
    def _asked(self, method: str, name: str, **more: Any) -> Iterator[requests.Response]:  # arguments of requests
        import requests

        try:
            response = self._session().request(
                method, f"{self._url}/{quote(name)}", timeout=(CONNECT_SECONDS, READ_SECONDS), **more
            )
        except requests.Timeout as error:
            raise Unreachable(f"silent for {READ_SECONDS:.0f} s") from error
        except (requests.RequestException, OSError, ValueError) as error:
            raise Unreachable(_cause(error)) from error
        with response:
            if response.status_code in (404, 410) and method != "PUT":
                raise Missing(name)
            if not response.ok:
                raise Unreachable(f"{response.status_code} {response.reason}")
            yield response

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None or self._local.pid != os.getpid():  # a connection must not be shared with a parent
            import requests
            from requests.adapters import HTTPAdapter
            from urllib3.util.retry import Retry

            # One more try for what passes by itself; then the build goes on without the cache.
            retry = Retry(
                total=1,
                status_forcelist=(429, 502, 503, 504),
                allowed_methods=None,
                backoff_factor=0.3,
                raise_on_status=False,
            )
            session = requests.Session()
            session.headers["Accept-Encoding"] = "identity"  # the bytes as they are, so that their digest is known
            for scheme in _HTTP:
                session.mount(f"{scheme}://", HTTPAdapter(max_retries=retry))
            self._local.session, self._local.pid = session, os.getpid()
        return session


class _Body:
    def __init__(self, response: requests.Response) -> None:
        self._raw = response.raw

    def read(self, size: int = 1 << 18, /) -> bytes:
        import urllib3.exceptions

        try:
            data: bytes = self._raw.read(size, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"the transfer breaks off ({error})") from error
        return data


def _cause(error: BaseException) -> str:
    """The innermost cause of requests' nested errors, in words."""
    reason: object = error.args[0] if error.args else error
    while isinstance(inner := getattr(reason, "reason", None), BaseException):
        reason = inner
    return str(reason).rpartition(": ")[2].rpartition("] ")[2] or str(reason) or type(error).__name__
