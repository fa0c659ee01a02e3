"""Two machines and a remote cache: what one has built, the other only fetches; what is forged, it builds itself."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pysequoia import Tsk
from tests.people import left_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.people import Person

pytestmark = pytest.mark.build

SCRIPTS = {
    # Owners, a setuid bit, a hard link, a pipe, odd names and holes …
    "root.d/10-tree": r"""
        mkdir -p $TARGET_ROOT/{etc,proc,sys,dev,tmp,root,var/log,usr/bin}
        echo one > $TARGET_ROOT/etc/one
        ln $TARGET_ROOT/etc/one $TARGET_ROOT/etc/two
        echo gone > $TARGET_ROOT/etc/gone
        mkfifo $TARGET_ROOT/etc/pipe
        touch $TARGET_ROOT/etc/$'new\nline' $TARGET_ROOT/etc/$'\xff\xfe' "$TARGET_ROOT/etc/$(printf 'n%.0s' {1..255})"
        seq 300000 > $TARGET_ROOT/usr/bin/tool
        chown 1000:1001 $TARGET_ROOT/usr/bin/tool
        chmod 4755 $TARGET_ROOT/usr/bin/tool
        truncate -s 8M $TARGET_ROOT/etc/holes""",
    # … a whiteout and an opaque directory …
    "root.d/20-less": r"""
        rm $TARGET_ROOT/etc/gone
        rm -r $TARGET_ROOT/var/log
        mkdir $TARGET_ROOT/var/log""",
    # … and a script for a later phase, which has to be seen to know what that does.
    "extra-data.d/20-hook": r"""
        printf '#!/bin/bash\necho late > $TARGET_ROOT/etc/late\n' > $TMP_HOOKS_PATH/cleanup.d/30-late
        chmod +x $TMP_HOOKS_PATH/cleanup.d/30-late""",
    "cleanup.d/40-beside": "echo beside > ${IMAGE_NAME}.txt",
}
STEPS = 8  # these, the late one, and resolv-conf, fstab and finish of the engine


class Machine:
    """One computer: a cache of its own, and a directory for images."""

    def __init__(self, person: Person, place: Path, name: str, *, tools: bool = True) -> None:
        self.person = person
        self.place = place / name
        self.cache = self.place / "cache"
        self.elements = place / "elements"
        self.cache.mkdir(parents=True)
        if tools:  # they do not come from a remote cache
            for part in ("tools", "blobs", "packages"):
                (person.cache / part).mkdir(exist_ok=True)
                (self.cache / part).symlink_to(person.cache / part)
        for path in (self.place, self.cache, person.cache, *person.cache.iterdir()):
            if path.stat().st_uid == 0 and not path.is_symlink():
                os.chown(path, person.uid, person.gid)

    def build(self, remote: Path | str, *more: str, **variables: str) -> tuple[str, dict[str, bytes]]:
        """What the build says, and its files by name."""
        env = self.person.environment(
            ELEMENTS_PATH=str(self.elements),
            DIB_IMAGE_CACHE=str(self.cache),
            DIBBLE_REMOTE_CACHE=str(remote),
            **variables,
        )
        argv = ("build", "-n", "-t", "tar,qcow2", "--image-size", "0.3", "-o", "image", "tree", *more)
        done = self.person.dibble(*argv, cwd=self.place, env=env, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "Traceback" not in said
        assert not list(self.cache.glob("tmp/*/.alive")), "a session was left"
        files = {path.name: path.read_bytes() for path in self.place.iterdir() if path.is_file()}
        for name in files:
            (self.place / name).unlink()
        return said, files


@pytest.fixture(params=["ourselves", "ordinary_user"])
def person(request: pytest.FixtureRequest) -> Person:
    found: Person = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def place(person: Person) -> Iterator[Path]:
    """A directory with the element `tree`; emptied inside the namespace, which may remove what its owner may not."""
    path = person.directory("remote-cache")
    for name, text in SCRIPTS.items():
        script = path / "elements/tree" / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(f"#!/bin/bash\nset -eu\n{text}\n")
        script.chmod(0o755)
    (path / "elements/tree/element-provides").write_text("operating-system\n")
    (path / "shared").mkdir()
    for found in (path, *path.rglob("*")):
        os.chown(found, person.uid, person.gid)
    yield path
    assert left_sessions(person) == []
    shutil.rmtree(path, ignore_errors=True)


def summary(said: str) -> str:
    return next(line for line in said.splitlines() if "built after" in line).partition(": ")[2]


def warnings(said: str) -> list[str]:
    return [line for line in said.splitlines() if "remote cache /" in line or "remote cache http" in line]


def test_a_second_machine_with_an_empty_cache_only_fetches_the_image(person: Person, place: Path) -> None:
    one, files = Machine(person, place, "one").build(place / "shared")
    assert summary(one) == f"{STEPS} steps run, 0 cached"
    assert set(files) == {"image.tar", "image.qcow2", "image.txt"}
    other = Machine(person, place, "other", tools=False)
    two, same = other.build(place / "shared")
    assert summary(two) == f"0 steps run, {STEPS} cached"
    assert same == files
    assert not list((other.cache / "tools").iterdir()), "it needed no tools"
    records = [path.parent for path in (other.cache / "layers").glob("*/record.json")]
    assert len(records) == 2, "only the layers with a hook and with a file beside the image"
    assert warnings(one) + warnings(two) == []


def test_every_step_comes_from_the_cache_where_another_image_needs_it(person: Person, place: Path) -> None:
    one = Machine(person, place, "one")
    one.build(place / "shared")
    _, expected = Machine(person, place, "alone").build("", "-t", "raw")
    other = Machine(person, place, "other")
    said, files = other.build(place / "shared", "-t", "raw")
    assert summary(said) == f"0 steps run, {STEPS} cached"
    assert files == expected
    script = place / "elements/tree/cleanup.d/40-beside"
    script.write_text(script.read_text() + "# edited\n")
    said, files = Machine(person, place, "third").build(place / "shared")
    here, expected = one.build("")
    assert summary(said) == summary(here), "the remote cache is as good as the own one"
    assert not summary(said).startswith("0 steps")
    assert files == expected


class Web:
    """A web server over a directory; `break_at` is a part of the names that it sends half of."""

    def __init__(self, root: Path) -> None:
        web = self
        self.asked: list[str] = []
        self.break_at = ""

        class Handler(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __init__(self, *arguments: Any) -> None:  # as the base class
                super().__init__(*arguments, directory=str(root))

            def do_GET(self) -> None:
                web.asked.append(f"GET {self.path}")
                if not web.break_at or web.break_at not in self.path:
                    return super().do_GET()
                data = Path(self.translate_path(self.path)).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return None

            def do_PUT(self) -> None:
                web.asked.append(f"PUT {self.path}")
                self.send_error(403)

            def log_message(self, *_: Any) -> None:  # as the base class
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def web(place: Path) -> Iterator[Web]:
    found = Web(place / "shared")
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_a_web_server_is_read_and_not_written_to(person: Person, place: Path, web: Web) -> None:
    _, files = Machine(person, place, "one").build(place / "shared")
    said, same = Machine(person, place, "other", tools=False).build(web.url)
    assert summary(said) == f"0 steps run, {STEPS} cached"
    assert same == files
    shutil.rmtree(place / "shared/dibble-1/outputs")
    said, same = Machine(person, place, "third").build(web.url)
    assert summary(said) == f"0 steps run, {STEPS} cached"
    assert same == files
    assert not [line for line in web.asked if not line.startswith("GET")]
    assert warnings(said) == []


def test_a_server_that_stops_half_way_is_left_alone(person: Person, place: Path, web: Web) -> None:
    _, files = Machine(person, place, "one").build(place / "shared")
    web.break_at = "/archives/"
    said, same = Machine(person, place, "other").build(web.url)
    assert same == files
    assert len(warnings(said)) == 1, said
    assert f"the remote cache {web.url} cannot be used" in said


def test_a_cache_that_does_not_answer_is_told_once(ourselves: Person) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed = listener.getsockname()[1]
    place = ourselves.directory("remote-cache")
    element = place / "elements/tree/root.d/10-tree"
    element.parent.mkdir(parents=True)
    element.write_text("#!/bin/bash\nmkdir -p $TARGET_ROOT/{etc,proc,sys,dev,tmp}\n")
    element.chmod(0o755)
    (place / "elements/tree/element-provides").write_text("operating-system\n")
    said, files = Machine(ourselves, place, "one").build(f"http://127.0.0.1:{closed}", DIBBLE_REMOTE_CACHE_PUSH="yes")
    assert "image.tar" in files
    assert said.count("cannot be used") == 1
    shutil.rmtree(place)


@pytest.mark.parametrize("damage", ["truncated", "poisoned"])
def test_damaged_archives_are_refused_and_their_steps_built(person: Person, place: Path, damage: str) -> None:
    _, files = Machine(person, place, "one").build(place / "shared")
    for path in (place / "shared").rglob("*.tar.zst"):
        data = path.read_bytes()
        path.write_bytes(data[:-20] + (bytes(20) if damage == "poisoned" else b""))
    said, same = Machine(person, place, "other").build(place / "shared")
    assert same == files
    for entry in ("of root.d/10-tree", "of extra-data.d/20-hook"):
        assert any(entry in line and "it is not used" in line for line in warnings(said)), said
    # Who built them anew has put them there; the outputs it had not looked at, the next one does.
    said, same = Machine(person, place, "third").build(place / "shared")
    assert summary(said) == f"0 steps run, {STEPS} cached"
    assert same == files
    said, same = Machine(person, place, "fourth", tools=False).build(place / "shared")
    assert same == files
    assert warnings(said) == []


def test_only_signed_entries_are_used_where_signatures_are_asked_for(person: Person, place: Path) -> None:
    for name in ("us", "them"):
        secret = Tsk.generate(name)
        (place / f"{name}.key").write_bytes(bytes(secret))
        (place / f"{name}.asc").write_text(str(secret.extract_certificate()))
    trust = {"DIBBLE_REMOTE_CACHE_TRUST": str(place / "us.asc")}

    Machine(person, place, "unsigned").build(place / "shared")
    said, files = Machine(person, place, "one").build(place / "shared", **trust)
    assert summary(said).startswith(f"{STEPS} steps run")
    assert "is not signed" in said

    Machine(person, place, "wrong").build(place / "shared-2", DIBBLE_REMOTE_CACHE_KEY=str(place / "them.key"))
    said, same = Machine(person, place, "two").build(place / "shared-2", **trust)
    assert summary(said).startswith(f"{STEPS} steps run")
    assert "no valid signature" in said
    assert same == files

    Machine(person, place, "right").build(place / "shared-3", DIBBLE_REMOTE_CACHE_KEY=str(place / "us.key"))
    said, same = Machine(person, place, "three", tools=False).build(place / "shared-3", **trust)
    assert summary(said) == f"0 steps run, {STEPS} cached"
    assert same == files


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    """A server of the S3 protocol with an empty bucket `images`: the environment to reach it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="images")
    yield environment
    server.stop()


@pytest.mark.parametrize("person", ["ourselves"], indirect=True)  # whose environment has s3fs
def test_a_bucket_is_read_and_written(person: Person, place: Path, bucket: dict[str, str]) -> None:
    one, files = Machine(person, place, "one").build("s3://images/cache", **bucket)
    assert summary(one) == f"{STEPS} steps run, 0 cached"
    assert "remote cache s3" not in one, one
    two, same = Machine(person, place, "two", tools=False).build("s3://images/cache", **bucket)
    assert summary(two) == f"0 steps run, {STEPS} cached"
    assert same == files
    said, _ = Machine(person, place, "three").build("s3://no-such-bucket/cache", **bucket)
    assert said.count("the remote cache s3://no-such-bucket/cache") == 1


@pytest.mark.parametrize("person", ["ordinary_user"], indirect=True)
def test_a_real_system_with_its_packages_comes_out_the_same(person: Person, place: Path) -> None:
    """A set of packages is a layer that builds share; its files have every owner, mode and capability."""
    last = place / "elements/last/cleanup.d/50-last"
    last.parent.mkdir(parents=True)

    def build(cache: Path, text: str, remote: str) -> tuple[str, bytes]:
        last.write_text(f"#!/bin/bash\necho {text} > $TARGET_ROOT/etc/last\n")
        last.chmod(0o755)
        env = person.environment(
            ELEMENTS_PATH=str(place / "elements"), DIB_IMAGE_CACHE=str(cache), DIBBLE_REMOTE_CACHE=remote
        )
        done = person.dibble("build", "-t", "tar", "-o", "image", "debian-minimal", "last", cwd=place, env=env)
        data = (place / "image.tar").read_bytes()
        (place / "image.tar").unlink()
        return done.stdout, data

    build(person.cache, f"first {os.urandom(8).hex()}", str(place / "shared"))
    other = Machine(person, place, "other")
    said, fetched = build(other.cache, "second", str(place / "shared"))
    here, built = build(person.cache, "second", "")
    assert summary(said) == summary(here), "the remote cache is as good as the own one"
    assert fetched == built
