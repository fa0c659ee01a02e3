"""Answers one HTTP request on standard input and output: `serve_metadata.py DATA.json`.

QEMU starts it, in the tools tree. It runs with the tools' own Python, without dibble. EC2's service wants a session
token with each question, GCE's and Azure's a header that no browser sends; without them the answers are theirs: 401,
403 and 400. What is said to a service (POST) is heard where it has an answer under `POST PATH`.
"""

import json
import sys
from http import HTTPStatus
from http.client import parse_headers
from pathlib import Path

TOKEN = "ZGliYmxl"  # noqa: S105 - a guest of ours gets it for the asking


def respond(method: str, target: str, header: dict[str, str], data: dict) -> tuple[int, bytes]:  # type: ignore[type-arg]
    """Status and body for a request; names in `header` are small."""
    kind, answers = data["kind"], data["answers"]
    path = target.partition("?")[0]
    path = path.rstrip("/") or "/"
    if kind == "ec2" and path == "/latest/api/token":
        return (200, TOKEN.encode()) if method == "PUT" else (405, b"")
    refused = _refused(kind, path, header)
    if refused:
        return refused, b""
    name = path if method in ("GET", "HEAD") else f"{method} {path}"
    found = answers.get(name)
    if found is None:
        return (404 if name == path else 405), b""
    return 200, found.encode()


def _refused(kind: str, path: str, header: dict[str, str]) -> int:
    """The status for a question without the header that the service wants, else 0."""
    if kind == "ec2" and header.get("x-aws-ec2-metadata-token") != TOKEN:
        return 401
    if kind == "gce" and header.get("metadata-flavor") != "Google":
        return 403
    if kind == "azure" and path.startswith("/metadata/") and header.get("metadata", "").lower() != "true":
        return 400
    return 0


def main() -> None:
    words = sys.stdin.buffer.readline(65536).decode("latin-1").split()
    if len(words) < 2:
        return
    header = {name.lower(): value for name, value in parse_headers(sys.stdin.buffer).items()}
    sys.stdin.buffer.read(int(header.get("content-length", 0)))  # a line with unread words is broken off, not closed
    data = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    status, body = respond(words[0], words[1], header, data)
    flavour = "Metadata-Flavor: Google\r\n" if data["kind"] == "gce" else ""
    kind = "application/json" if body[:1] in (b"{", b"[") else "text/xml" if body[:1] == b"<" else "text/plain"
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n{flavour}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    sys.stdout.buffer.write(head.encode() + (b"" if words[0] == "HEAD" else body))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
