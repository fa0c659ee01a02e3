"""An OCI registry, by skopeo. A registry has each layer whole or not at all; one that it has is not sent again."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dibble.errors import ToolFailed, UsageError
from dibble.publish.base import Publication, Published, PublishError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dibble.sandbox.toolbox import Toolbox

_CREDENTIALS = ("XDG_RUNTIME_DIR containers/auth.json", "HOME .config/containers/auth.json", "HOME .docker/config.json")
"""Where `skopeo login`, `podman login` and `docker login` leave them (containers-auth.json(5))."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SKOPEO_CACHE = "var/lib/containers/cache"
"""Of root (containers/image, pkg/blobinfocache)."""
_PASSED = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class Docker:
    """`docker://HOST[:PORT]/NAME[:TAG]`; credentials are those of `docker login`, `podman login` or of
    REGISTRY_AUTH_FILE."""

    summary: ClassVar[str] = "a registry of containers (OCI), as `docker pull` takes them"
    place: ClassVar[str] = "HOST[:PORT]/NAME[:TAG]"

    def check(self, publication: Publication) -> None:
        if publication.properties.format not in ("docker", "oci"):
            raise UsageError(
                f"{publication.image} is {publication.properties.format}, no container", hint="build it so: -t docker"
            )
        if not re.fullmatch(r"[^/\s]+/[^\s]+", publication.place):
            raise UsageError(f'"docker://{publication.place}" names no repository', hint="say docker://HOST/NAME:TAG")

    def publish(self, publication: Publication) -> Published:
        from dibble.sandbox.enter import run_in_namespace

        return run_in_namespace(lambda: _in_tools_tree(publication))


def credentials_file(environ: Mapping[str, str]) -> Path | None:
    """The file with the registries' passwords. Raises UsageError for a named one that is not there."""
    named = environ.get("REGISTRY_AUTH_FILE")
    if named:
        path = Path(named).absolute()
        if not path.is_file():
            raise UsageError(f"REGISTRY_AUTH_FILE names {path}, which is no file", hint="mend or unset it")
        return path
    for place in _CREDENTIALS:
        variable, _, name = place.partition(" ")
        path = Path(environ.get(variable) or "/nonexistent") / name
        if path.is_file():
            return path
    return None


def _in_tools_tree(publication: Publication) -> Published:
    from dibble.sandbox import mounts
    from dibble.sandbox.workspace import tools_session
    from dibble.store.places import open_store

    store = open_store(publication.cache)
    with tools_session(store, publication.events, "containers") as (session, toolbox):
        assert toolbox.root is not None
        # Layers are compressed on their way; which a registry has is known by what skopeo remembers of that.
        known = store.facts / "blobs"
        known.mkdir(parents=True, exist_ok=True)
        cache = toolbox.root / _SKOPEO_CACHE
        cache.mkdir(parents=True, exist_ok=True)
        mounts.bind(known, cache)
        auth = credentials_file(publication.environ)
        for path in filter(None, (publication.image, auth)):
            mounts.bind_at(path, toolbox.root, read_only=True)
        return _copy(publication, toolbox, auth, session.path)


def _copy(publication: Publication, toolbox: Toolbox, auth: Path | None, scratch: Path) -> Published:
    kind = "docker-archive" if publication.properties.format == "docker" else "oci-archive"
    policy = scratch / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))  # it is our own image
    digest = scratch / "digest"
    argv = [
        "skopeo", "--policy", toolbox.path(policy), "copy", "--retry-times", "3", "--quiet",
        "--digestfile", toolbox.path(digest),
    ]  # fmt: skip
    if auth:
        argv += ["--authfile", toolbox.path(auth)]
    if publication.more.get("tls") == "no":
        argv.append("--dest-tls-verify=false")
    goal = f"docker://{publication.place}"
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    with publication.events.activity("upload"):
        try:
            toolbox.run([*argv, f"{kind}:{toolbox.path(publication.image)}", goal], env=env)
        except ToolFailed as error:
            said = error.output.strip().splitlines()
            raise PublishError(
                f"{goal} does not take the image: {said[-1] if said else f'skopeo ended with {error.status}'}",
                hint="is the registry there, and have you logged in (docker login)? For one without TLS: -p tls=no",
            ) from error
    found = _DIGEST.search(digest.read_text())
    return Published(goal, {"digest": found.group() if found else ""})
