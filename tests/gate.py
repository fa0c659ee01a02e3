"""Servers that a test publishes to: a gate that can cut the line to one, and Debian's registry of containers."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Gate(http.server.ThreadingHTTPServer):
    """Stands before a server and passes requests on. Of those that `counts` picks only `left` more are passed; then
    the line is cut."""

    daemon_threads = True

    def __init__(self, host: str, port: int, counts: Callable[[str, str], bool]) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = (host, port)
        self.counts = counts
        self.left = 1 << 30
        self.passed = 0
        self.forms: list[dict[str, list[str]]] = []
        """What was sent as a form, as EC2's requests are."""
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def lets(self, method: str, path: str) -> bool:
        with self.lock:
            if self.counts(method, path):
                if self.left == 0:
                    return False
                self.left -= 1
                self.passed += 1
            return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A line that was cut is what this is for."""


class _Passing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gate

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self._body()
        if not self.server.lets(self.command, self.path):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
            self.server.forms.append(urllib.parse.parse_qs(body.decode()))
        behind = http.client.HTTPConnection(*self.server.behind, timeout=60)
        behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for key, value in self.headers.items():  # a name may come twice
            if key.lower() not in _OWN:
                behind.putheader(key, value)
        behind.putheader("Content-Length", str(len(body)))
        behind.endheaders(body)
        answer = behind.getresponse()
        data = answer.read()
        self.send_response_only(answer.status, answer.reason)
        for key, value in answer.getheaders():
            if key.lower() not in _OWN or (self.command == "HEAD" and key.lower() == "content-length"):
                self.send_header(key, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        behind.close()

    def handle_expect_100(self) -> bool:
        self.send_response_only(100)
        self.end_headers()
        return True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data


_OWN = {"transfer-encoding", "content-length", "connection", "keep-alive", "expect"}


@contextlib.contextmanager
def gate_before(host: str, port: int, counts: Callable[[str, str], bool]) -> Iterator[Gate]:
    gate = Gate(host, port, counts)
    thread = threading.Thread(target=gate.serve_forever, daemon=True)
    thread.start()
    yield gate
    gate.shutdown()
    gate.server_close()


@contextlib.contextmanager
def registry(directory: Path) -> Iterator[Gate]:
    """Debian's docker-registry behind a gate; it keeps what it has in `directory`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (directory / "registry.yml").write_text(json.dumps(config))
    server = subprocess.Popen(["docker-registry", "serve", directory / "registry.yml"], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, server)
        with gate_before("127.0.0.1", port, lambda method, path: False) as gate:
            yield gate
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    pytest.fail("docker-registry does not answer")
