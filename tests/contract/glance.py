"""A small Keystone and Glance: as much of Identity v3 and Image v2 as a client meets who uploads an image."""

from __future__ import annotations

import hashlib
import socket
import threading
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, jsonify, request

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWN = {"id", "status", "size"}


class Glance:
    """`images` by id, `data` the sha256 of what was uploaded. `cut_after`: bytes of an upload after which the line is
    cut."""

    def __init__(self, user: str, password: str) -> None:
        self.user = user
        self.password = password
        self.images: dict[str, dict[str, Any]] = {}
        self.data: dict[str, str] = {}
        self.cut_after: int | None = None
        self.url = ""
        self._tokens: set[str] = set()

    @classmethod
    @contextmanager
    def serving(cls, user: str, password: str) -> Iterator[Glance]:
        from werkzeug.serving import make_server

        glance = cls(user, password)
        server = make_server("127.0.0.1", 0, glance.app(), threaded=True)
        glance.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield glance
        server.shutdown()
        thread.join()
        server.server_close()

    def app(self) -> Flask:
        app = Flask("glance")
        app.add_url_rule("/v3", "identity", self._identity)
        app.add_url_rule("/v3/", "identity/", self._identity)
        app.add_url_rule("/v3/auth/tokens", "tokens", self._token, methods=["POST"])
        for path in ("/image", "/image/"):
            app.add_url_rule(path, path, self._versions)
        app.add_url_rule("/image/v2/images", "create", self._create, methods=["POST"])
        app.add_url_rule("/image/v2/images/<name>", "show", self._show)
        app.add_url_rule("/image/v2/images/<name>/file", "upload", self._upload, methods=["PUT"])
        return app

    def _identity(self) -> Response:
        links = [{"rel": "self", "href": f"{self.url}/v3/"}]
        return jsonify({"version": {"id": "v3.14", "status": "stable", "links": links}})

    def _token(self) -> Response | tuple[str, int]:
        asked = request.get_json()["auth"]["identity"]["password"]["user"]
        if (asked["name"], asked["password"]) != (self.user, self.password):
            return "", 401
        token = uuid.uuid4().hex
        self._tokens.add(token)
        point = {"interface": "public", "region": "R", "region_id": "R", "url": f"{self.url}/image", "id": "1"}
        answer = jsonify(
            {
                "token": {
                    "methods": ["password"],
                    "issued_at": "2020-01-01T00:00:00.000000Z",
                    "expires_at": "2099-01-01T00:00:00.000000Z",
                    "user": {"id": "u", "name": self.user, "domain": {"id": "default", "name": "Default"}},
                    "project": {"id": "p", "name": "moon", "domain": {"id": "default", "name": "Default"}},
                    "roles": [],
                    "catalog": [{"type": "image", "name": "glance", "id": "g", "endpoints": [point]}],
                }
            }
        )
        answer.status_code = 201
        answer.headers["X-Subject-Token"] = token
        return answer

    def _versions(self) -> Response:
        links = [{"rel": "self", "href": f"{self.url}/image/v2/"}]
        return jsonify({"versions": [{"id": "v2.9", "status": "CURRENT", "links": links}]})

    def _create(self) -> Response | tuple[str, int]:
        if not self._known():
            return "", 401
        asked = request.get_json()
        if _OWN & asked.keys() or any(not isinstance(asked[key], int) for key in ("min_disk", "min_ram")):
            return "", 400
        wrong = [key for key, value in asked.items() if key.startswith(("hw_", "os_")) and not isinstance(value, str)]
        if wrong:
            return "", 400
        name = str(uuid.uuid4())
        self.images[name] = {**asked, "id": name, "status": "queued"}
        answer = jsonify(self.images[name])
        answer.status_code = 201
        return answer

    def _show(self, name: str) -> Response | tuple[str, int]:
        if not self._known():
            return "", 401
        return jsonify(self.images[name]) if name in self.images else ("", 404)

    def _upload(self, name: str) -> tuple[str, int]:
        if not self._known():
            return "", 401
        if self.images.get(name, {}).get("status") != "queued":
            return "", 409
        if request.headers["Content-Type"] != "application/octet-stream":
            return "", 415
        digest = hashlib.sha256()
        count = 0
        while piece := request.stream.read(1 << 20):
            digest.update(piece)
            count += len(piece)
            if self.cut_after is not None and count >= self.cut_after:
                request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                return "", 500
        self.data[name] = digest.hexdigest()
        self.images[name] |= {"status": "active", "size": count}
        return "", 204

    def _known(self) -> bool:
        return request.headers.get("X-Auth-Token") in self._tokens
