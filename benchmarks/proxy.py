"""A caching HTTP proxy for benchmarks: after a first run nobody waits for a mirror, whatever tool asks."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import threading
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KEPT = ("Content-Length", "Content-Type", "Last-Modified", "ETag")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory: Path

    def do_GET(self) -> None:
        name = self.directory / hashlib.sha256(self.path.encode()).hexdigest()
        if not name.exists() and not self._fetch(name):
            return
        headers = dict(line.split(": ", 1) for line in name.with_suffix(".head").read_text().splitlines())
        since = self.headers.get("If-Modified-Since")
        if since and since == headers.get("Last-Modified"):
            self.send_response(304)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        headers["Content-Length"] = str(name.stat().st_size)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            with name.open("rb") as file:
                shutil.copyfileobj(file, self.wfile, 1 << 20)

    do_HEAD = do_GET

    def _fetch(self, name: Path) -> bool:
        try:
            with urllib.request.urlopen(urllib.request.Request(self.path), timeout=60) as answer:
                part = name.with_suffix(f".{threading.get_ident()}")
                with part.open("wb") as file:
                    shutil.copyfileobj(answer, file, 1 << 20)
                kept = [f"{key}: {answer.headers[key]}" for key in _KEPT if answer.headers.get(key)]
        except urllib.error.HTTPError as error:
            self.send_error(error.code)
            return False
        except OSError as error:
            self.send_error(502, str(error))
            return False
        name.with_suffix(".head").write_text("\n".join(kept))
        part.rename(name)
        return True

    def log_message(self, format: str, *args: object) -> None:
        """Benchmarks print their own lines."""


@contextmanager
def caching_proxy(directory: Path) -> Iterator[str]:
    """The proxy's URL, for `http_proxy`. What it fetched stays in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    handler = type("Handler", (_Handler,), {"directory": directory})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
