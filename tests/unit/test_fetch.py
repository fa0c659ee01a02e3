"""Downloads from a server that misbehaves in every way a mirror can."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from dibble.errors import FetchError, FileGone, StoreError
from dibble.events import Activity, Event, Events
from dibble.packages import http
from dibble.packages.base import Download
from dibble.packages.fetch import THREADS, blob_path, fetch_all, get_small

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

BODY = os.urandom(700_001)
DIGEST = hashlib.sha256(BODY).hexdigest()


@dataclass
class Served:
    """What the server does for one path: the body, and faults that are used up one a request."""

    body: bytes = BODY
    statuses: list[int] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    ranges: bool = True


@dataclass
class Server:
    url: str
    files: dict[str, Served]
    requests: list[tuple[str, str]]

    def download(self, *names: str, body: bytes = BODY) -> Download:
        return Download(
            tuple(f"{self.url}/{name}" for name in names), hashlib.sha256(body).hexdigest(), len(body), "it"
        )


@pytest.fixture
def server() -> Iterator[Server]:
    files: dict[str, Served] = {}
    requests: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        served: ClassVar = files

        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            requests.append((name, self.headers.get("Range", "")))
            entry = files.get(name)
            status = entry.statuses.pop(0) if entry and entry.statuses else 200 if entry else 404
            if entry is None or status != 200:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            begin = 0
            if entry.ranges and (wanted := self.headers.get("Range")):
                begin = int(wanted.removeprefix("bytes=").rstrip("-"))
                if begin >= len(entry.body):
                    self.send_response(416)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{len(entry.body) - 1}/{len(entry.body)}")
            else:
                self.send_response(200)
            body = entry.body[begin:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if entry.cut_after:
                self.wfile.write(body[: entry.cut_after.pop(0)])
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield Server(f"http://127.0.0.1:{running.server_port}", files, requests)
    running.shutdown()
    running.server_close()


def refused_address() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_file_lands_under_its_sha256(server: Server, tmp_path: Path) -> None:
    server.files["a.deb"] = Served()
    found = fetch_all([server.download("a.deb")], tmp_path, Events())
    assert found == {DIGEST: tmp_path / DIGEST[:2] / DIGEST}
    assert found[DIGEST].read_bytes() == BODY
    assert [path.name for path in found[DIGEST].parent.iterdir()] == [DIGEST]


def test_what_is_there_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.files["a.deb"] = Served()
    fetch_all([server.download("a.deb")], tmp_path, Events())
    fetch_all([server.download("a.deb")], tmp_path, Events(), offline=True)
    assert len(server.requests) == 1


def test_a_blob_of_the_wrong_size_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.files["a.deb"] = Served()
    path = blob_path(tmp_path, DIGEST)
    path.parent.mkdir()
    path.write_bytes(b"half")
    fetch_all([server.download("a.deb")], tmp_path, Events())
    assert path.read_bytes() == BODY


def test_many_files_arrive_and_the_bytes_are_counted(server: Server, tmp_path: Path) -> None:
    bodies = {f"{number}.deb": os.urandom(1000 + number) for number in range(40)}
    server.files.update({name: Served(body) for name, body in bodies.items()})
    seen: list[Event] = []

    class Listener:
        def handle(self, event: Event) -> None:
            seen.append(event)

        def close(self) -> None:
            """Nothing to close."""

    found = fetch_all([server.download(n, body=b) for n, b in bodies.items()], tmp_path, Events([Listener()]))
    assert {path.read_bytes() for path in found.values()} == set(bodies.values())
    last = seen[-1]
    assert isinstance(last, Activity)
    total = sum(map(len, bodies.values()))
    assert (last.name, last.done, last.total, last.unit, last.finished) == ("download", total, total, "bytes", True)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_breaks_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.files["a.deb"] = Served(cut_after=[300_000], ranges=ranges)
    found = fetch_all([server.download("a.deb")], tmp_path, Events())
    assert found[DIGEST].read_bytes() == BODY
    assert len(server.requests) == 2
    assert server.requests[1][1].startswith("bytes=")


def test_a_killed_download_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.files["a.deb"] = Served()
    part = blob_path(tmp_path, DIGEST).with_name(f".{DIGEST}.part")
    part.parent.mkdir()
    part.write_bytes(BODY[:500_000])
    found = fetch_all([server.download("a.deb")], tmp_path, Events())
    assert found[DIGEST].read_bytes() == BODY
    assert server.requests == [("a.deb", "bytes=500000-")]


@pytest.mark.parametrize("old", [b"x" * 1000, b"y" * 800_000, b"z" * len(BODY)], ids=["less", "more", "as much"])
def test_a_wrong_beginning_is_thrown_away(server: Server, tmp_path: Path, old: bytes) -> None:
    server.files["a.deb"] = Served()
    part = blob_path(tmp_path, DIGEST).with_name(f".{DIGEST}.part")
    part.parent.mkdir()
    part.write_bytes(old)
    assert fetch_all([server.download("a.deb")], tmp_path, Events())[DIGEST].read_bytes() == BODY


@pytest.mark.parametrize(
    "served", [BODY[:-1] + bytes([BODY[-1] ^ 1]), BODY[:-5], BODY + b"more"], ids=["a bit flipped", "short", "long"]
)
def test_other_bytes_than_promised_are_refused(server: Server, tmp_path: Path, served: bytes) -> None:
    server.files["a.deb"] = Served(served)
    with pytest.raises(FetchError) as caught:
        fetch_all([server.download("a.deb")], tmp_path, Events())
    assert "mid-sync or tampered" in caught.value.hint
    assert not isinstance(caught.value, FileGone)
    assert not blob_path(tmp_path, DIGEST).exists()


def test_the_second_server_is_asked_when_the_first_has_it_not(server: Server, tmp_path: Path) -> None:
    server.files["right/a.deb"] = Served()
    server.files["wrong/a.deb"] = Served(BODY[::-1])
    download = server.download("none/a.deb", "wrong/a.deb", "right/a.deb")
    assert fetch_all([download], tmp_path, Events())[DIGEST].read_bytes() == BODY


def test_a_file_that_is_gone_is_told_from_other_faults(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileGone, match="it is not on the mirror"):
        fetch_all([server.download("a.deb", "b/a.deb")], tmp_path, Events())


def test_all_files_that_are_gone_are_named(server: Server, tmp_path: Path) -> None:
    wanted = [
        Download((f"{server.url}/{name}",), hashlib.sha256(name.encode()).hexdigest(), 1, name) for name in ("b", "a")
    ]
    with pytest.raises(FileGone, match=r"^a, b: not on the mirror"):
        fetch_all(wanted, tmp_path, Events())


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.files["a.deb"] = Served(statuses=[503])
    assert fetch_all([server.download("a.deb")], tmp_path, Events())[DIGEST].read_bytes() == BODY


def test_a_forbidden_file_names_the_status(server: Server, tmp_path: Path) -> None:
    server.files["a.deb"] = Served(statuses=[403])
    with pytest.raises(FetchError, match=r"was refused: .*403 Forbidden"):
        fetch_all([server.download("a.deb")], tmp_path, Events())


def test_a_dead_mirror_is_named(tmp_path: Path) -> None:
    address = refused_address()
    wanted = [Download((f"{address}/{n}",), hashlib.sha256(bytes([n])).hexdigest(), 1, str(n)) for n in range(50)]
    with pytest.raises(FetchError) as caught:
        fetch_all(wanted, tmp_path, Events())
    assert caught.value.message == address.removeprefix("http://") + " does not answer: Connection refused"
    assert "network" in caught.value.hint


def test_an_unknown_name_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"mirror\.invalid does not answer: .*DNS"):
        fetch_all([Download(("http://mirror.invalid/a",), DIGEST, 1)], tmp_path, Events())


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(FetchError, match="does not answer: silent"):
            fetch_all([Download((f"http://127.0.0.1:{silent.getsockname()[1]}/a",), DIGEST, 1)], tmp_path, Events())


def test_a_mirror_that_failed_once_is_not_asked_for_every_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "READ_SECONDS", 0.5)
    bodies = [os.urandom(100) for _ in range(60)]
    server.files.update({str(number): Served(body) for number, body in enumerate(bodies)})
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"

        def accept() -> None:
            with suppress(OSError):
                while True:
                    accepted.append(silent.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        wanted = [
            Download((f"{address}/{n}", f"{server.url}/{n}"), hashlib.sha256(body).hexdigest(), 100)
            for n, body in enumerate(bodies)
        ]
        found = fetch_all(wanted, tmp_path, Events())
        silent.shutdown(socket.SHUT_RDWR)
    assert {path.read_bytes() for path in found.values()} == set(bodies)
    assert 0 < len(accepted) <= THREADS
    for connection in accepted:
        connection.close()


def test_offline_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"linux-image.*--offline"):
        fetch_all([Download(("http://127.0.0.1:9/a",), DIGEST, 1, "linux-image")], tmp_path, Events(), offline=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_directory_and_keeps_what_came(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    server.files["a.deb"] = Served()
    real_write = os.write
    room = [300_000]

    def write(descriptor: int, data: memoryview) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".part":
            if not room[0]:
                raise OSError(number, os.strerror(number))
            data = data[: room[0]]
            room[0] -= len(data)
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StoreError) as caught:
        fetch_all([server.download("a.deb")], tmp_path, Events())
    assert str(tmp_path) in caught.value.message
    assert "DIB_IMAGE_CACHE" in caught.value.hint
    monkeypatch.undo()
    assert fetch_all([server.download("a.deb")], tmp_path, Events())[DIGEST].read_bytes() == BODY
    assert server.requests[-1] == ("a.deb", "bytes=300000-")


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_limit_of_the_kernel_counts_as_a_full_disk(server: Server, tmp_path: Path) -> None:
    server.files["a.deb"] = Served()
    with file_size_limit(100_000), pytest.raises(StoreError, match="no room left"):
        fetch_all([server.download("a.deb")], tmp_path, Events())


def test_a_store_that_is_a_file_is_an_error_of_the_store(server: Server, tmp_path: Path) -> None:
    server.files["a.deb"] = Served()
    (tmp_path / "blobs").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        fetch_all([server.download("a.deb")], tmp_path / "blobs", Events())


def test_two_that_want_the_same_fetch_it_once(server: Server, tmp_path: Path) -> None:
    server.files["a.deb"] = Served()
    threads = [
        threading.Thread(target=fetch_all, args=([server.download("a.deb")], tmp_path, Events())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert [path.name for path in (tmp_path / DIGEST[:2]).iterdir()] == [DIGEST]


def test_a_file_address_is_copied(tmp_path: Path) -> None:
    (tmp_path / "a b.deb").write_bytes(BODY)
    download = Download((f"file:{tmp_path}/a%20b.deb",), DIGEST, len(BODY))
    assert fetch_all([download], tmp_path / "blobs", Events())[DIGEST].read_bytes() == BODY
    with pytest.raises(FileGone):
        fetch_all([Download((f"file:{tmp_path}/none",), "0" * 64, 1)], tmp_path / "blobs", Events())


def test_metadata_comes_as_bytes(server: Server) -> None:
    server.files["InRelease"] = Served(b"Suite: x\n")
    assert get_small(f"{server.url}/InRelease") == b"Suite: x\n"
    with pytest.raises(FileGone):
        get_small(f"{server.url}/none")
    with pytest.raises(FetchError, match="--offline"):
        get_small(f"{server.url}/InRelease", offline=True)
    with pytest.raises(FetchError, match="more than 3 bytes"):
        get_small(f"{server.url}/InRelease", limit=3)
