"""A remote cache believes nobody: descriptors, signatures, indexes, and places that fail."""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysequoia import Cert, Tsk

from dibble.errors import UsageError
from dibble.events import Event, Events, Note
from dibble.store import descriptor as descriptors
from dibble.store import transport
from dibble.store.archive import Archive
from dibble.store.descriptor import Descriptor, enveloped, opened
from dibble.store.layers import Input, LayerStore, OutputStore, Record
from dibble.store.places import open_store
from dibble.store.refused import EntryRefused, OtherVersion
from dibble.store.remote import RemoteStore
from dibble.store.signature import Signer, Trust
from dibble.store.transfer import Fetching, Pushing
from dibble.store.transport import Missing, Unreachable, open_transport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.store.places import Store
    from dibble.store.transport import Transport

pytestmark = pytest.mark.unit

KEY = "ab" * 32
ID = "1" * 40
ARCHIVE = Archive("f" * 64, 100, 2048, 3)


def record(name: str = ID, key: str = KEY, **more: Any) -> Record:  # any field
    return Record(**{"id": name, "key": key, "step": "root.d/10-x", "tree": "t", "tree_before": "", **more})


LAYER = Descriptor(
    "layer",
    ID,
    ARCHIVE,
    ("0", "1", "exports"),
    record(
        stack=(f"{ID}/0", f"pkg-{'2' * 40}/0", f"{ID}/1", "@resolv-conf"),
        exports=("vmlinuz",),
        hooks={"bin/x": "x1", "gone": None},
        inputs=(Input("apt", "http://mirror trixie", "d1"),),
    ),
    {"script": "x1"},
)
PACKAGES = Descriptor("packages", f"pkg-{'2' * 40}", ARCHIVE, ("0",))
OUTPUT = Descriptor("output", "3" * 40, ARCHIVE, ("output.qcow2", "output.qcow2.sha256"))


class Listener:
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, Note) and event.level == "warning":
            self.warnings.append(event.text)

    def close(self) -> None:
        pass


@pytest.fixture
def heard() -> Listener:
    return Listener()


# --- descriptors


@pytest.mark.parametrize("entry", [LAYER, PACKAGES, OUTPUT, Descriptor("layer", ID, None, record=record())])
def test_a_descriptor_is_read_as_it_was_written(entry: Descriptor) -> None:
    assert opened(json.loads(json.dumps(enveloped(entry, None))), None) == entry


def test_every_field_of_a_record_has_a_check() -> None:
    assert {str(field.type) for field in dataclasses.fields(Record)} <= set(descriptors._IS)


def changed(entry: Descriptor, change: dict[str, Any]) -> dict[str, Any]:
    """The envelope of an entry with other fields; `record.x` is a field of its record, `archive.x` of its archive."""
    data = json.loads(str(enveloped(entry, None)["descriptor"]))
    for path, value in change.items():
        *outer, name = path.split(".")
        inner = data
        for part in outer:
            inner = inner[part]
        inner[name] = value
    return {"descriptor": json.dumps(data), "signature": None}


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        (LAYER, {"kind": "output"}),
        (LAYER, {"kind": "tool"}),
        (LAYER, {"name": "../../x"}),
        (LAYER, {"name": "2" * 40}),
        (LAYER, {"tops": ["0"]}),
        (LAYER, {"tops": ["0", "1", "exports", "record.json"]}),
        (LAYER, {"tops": ["0", "1", "exports", "exports"]}),
        (LAYER, {"archive": None}),
        (LAYER, {"archive.sha256": "../x"}),
        (LAYER, {"archive.size": -1}),
        (LAYER, {"archive.unpacked": 1 << 60}),
        (LAYER, {"archive.entries": True}),
        (LAYER, {"archive.more": 1}),
        (LAYER, {"more": 1}),
        (LAYER, {"parts": {"script": 1}}),
        (LAYER, {"record": None}),
        (LAYER, {"record": []}),
        (LAYER, {"record.key": "../../../etc"}),
        (LAYER, {"record.id": "2" * 40}),
        (LAYER, {"record.stack": ["../../../etc"]}),
        (LAYER, {"record.stack": [f"{ID}/0", f"{ID}/1", f"{'2' * 40}/0"]}),
        (LAYER, {"record.stack": [f"{ID}/1", f"{ID}/0"]}),
        (LAYER, {"record.stack": f"{ID}/0"}),
        (LAYER, {"record.hooks": {"../x": "-"}}),
        (LAYER, {"record.hooks": {"x": 1}}),
        (LAYER, {"record.inputs": [{"kind": "apt"}]}),
        (LAYER, {"record.seconds": "1"}),
        (LAYER, {"record.step": "\x1b[2J"}),
        (LAYER, {"record.initramfs_pending": 1}),
        (PACKAGES, {"name": "pkg-x"}),
        (PACKAGES, {"tops": ["0", "1"]}),
        (OUTPUT, {"tops": ["../../x"]}),
        (OUTPUT, {"tops": ["complete"]}),
        (OUTPUT, {"tops": []}),
    ],
)
def test_a_descriptor_that_contradicts_itself_is_refused(entry: Descriptor, change: dict[str, Any]) -> None:
    opened(changed(entry, {}), None)
    with pytest.raises(EntryRefused):
        opened(changed(entry, change), None)


@pytest.mark.parametrize("change", [{"format": 2}, {"record.schema": 1000}])
def test_another_version_s_entry_is_told_apart(change: dict[str, Any]) -> None:
    with pytest.raises(OtherVersion):
        opened(changed(LAYER, change), None)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    st.sampled_from([LAYER, PACKAGES, OUTPUT]),
    st.sampled_from(["name", "kind", "format", "archive", "tops", "record"]) | st.sampled_from(
        [f"record.{field.name}" for field in dataclasses.fields(Record)]
    ),
    JSON,
)  # fmt: skip
def test_any_other_value_of_a_field_is_refused_or_is_still_one(entry: Descriptor, path: str, value: object) -> None:
    if path.startswith("record.") and entry.record is None:
        return
    try:
        found = opened(changed(entry, {path: value}), None)
    except EntryRefused:
        return
    assert opened(json.loads(json.dumps(enveloped(found, None))), None) == found


@given(JSON)
def test_what_is_no_envelope_is_refused(value: object) -> None:
    with pytest.raises(EntryRefused):
        opened(value, None)
    with pytest.raises(EntryRefused):
        opened({"descriptor": json.dumps(value), "signature": None}, None)


# --- signatures


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with NAME.key (secret) and NAME.asc (public) of two people."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("one", "two"):
        secret = Tsk.generate(name)
        (folder / f"{name}.key").write_bytes(bytes(secret))
        (folder / f"{name}.asc").write_text(str(secret.extract_certificate()))
    both = b"".join(bytes(Cert.from_file(str(folder / f"{name}.asc"))) for name in ("one", "two"))
    (folder / "both.pgp").write_bytes(both)
    return folder


@pytest.mark.parametrize(
    ("signer", "trust", "refusal"),
    [
        ("one", "one.asc", ""),
        ("two", "both.pgp", ""),
        ("two", "one.asc", "no valid signature by"),
        ("", "one.asc", "is not signed"),
    ],
)
def test_only_what_a_trusted_key_signed_is_believed(keys: Path, signer: str, trust: str, refusal: str) -> None:
    envelope = enveloped(LAYER, Signer(keys / f"{signer}.key").sign if signer else None)
    check = Trust(keys / trust).check
    if not refusal:
        assert opened(envelope, check) == LAYER
        return
    with pytest.raises(EntryRefused, match=refusal):
        opened(envelope, check)


def test_a_change_under_a_signature_is_refused(keys: Path) -> None:
    envelope = enveloped(LAYER, Signer(keys / "one.key").sign)
    forged = {**envelope, "descriptor": str(envelope["descriptor"]).replace("f" * 64, "e" * 64)}
    with pytest.raises(EntryRefused, match="no valid signature"):
        opened(forged, Trust(keys / "one.asc").check)
    with pytest.raises(EntryRefused, match="no valid signature"):
        opened({**envelope, "signature": "x"}, Trust(keys / "one.asc").check)


def test_files_that_hold_no_key_are_told(keys: Path, tmp_path: Path) -> None:
    for wrong in (keys / "one.asc", tmp_path / "missing"):
        with pytest.raises(UsageError):
            Signer(wrong)
    (tmp_path / "empty").write_text("")
    for wrong in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(UsageError):
            Trust(wrong)


# --- one cache


def remote(place: Path | str, heard: Listener, **more: Any) -> RemoteStore:  # signer, trust
    return RemoteStore(str(place), Events([heard]), **more)


def with_layer(store: Store, name: str = ID, text: str = "x", **more: Any) -> Record:  # fields of the record
    """Put a layer with one file into a store."""
    kept = record(name, stack=(f"{name}/0",), **more)
    with store.session() as session:
        (session.path / "upper").mkdir()
        (session.path / "upper/file").write_text(text)
        LayerStore(store).keep(kept, [session.path / "upper"], None, session.path)
    return kept


def push(store: Store, to: RemoteStore, kept: Record) -> int:
    with store.session() as session:
        return Pushing(to, store, session.path).layer(kept)


def fetch(store: Store, source: RemoteStore, heard: Listener, key: str = KEY) -> list[bool]:
    with store.session() as session:
        fetching = Fetching(source, store, session.path, Events([heard]))
        return [fetching.layer(entry, LayerStore(store)) for entry in source.layers(key)]


@pytest.fixture
def ours(tmp_path: Path) -> Store:
    return open_store(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Store:
    return open_store(tmp_path / "theirs")


def test_a_layer_goes_to_a_remote_cache_and_comes_to_another_store(
    tmp_path: Path, ours: Store, theirs: Store, heard: Listener
) -> None:
    kept = with_layer(ours)
    assert not remote(tmp_path / "c", heard).has(KEY)
    assert push(ours, remote(tmp_path / "c", heard), kept) > 0
    assert push(ours, remote(tmp_path / "c", heard), kept) == 0, "it is there already"
    assert remote(tmp_path / "c", heard).has(KEY)
    assert fetch(theirs, remote(tmp_path / "c", heard), heard) == [True]
    found = LayerStore(theirs).candidates(KEY)
    assert [entry.id for entry in found] == [ID]
    assert (LayerStore(theirs).path(found[0].stack[0]) / "file").read_text() == "x"
    assert heard.warnings == []
    assert list(theirs.tmp.iterdir()) == []


def test_a_layer_that_borrows_a_directory_travels_with_it_and_is_not_sent_twice(
    tmp_path: Path, ours: Store, theirs: Store, heard: Listener
) -> None:
    first = with_layer(ours)
    second = record("2" * 40, "cd" * 32, stack=(f"{ID}/0",))
    with ours.session() as session:
        LayerStore(ours).keep(second, [], None, session.path)
    for kept in (first, second):
        push(ours, remote(tmp_path / "c", heard), kept)
    assert len(list((tmp_path / "c").rglob("*.tar.zst"))) == 1
    assert fetch(theirs, remote(tmp_path / "c", heard), heard, second.key) == [True]
    (found,) = LayerStore(theirs).candidates(second.key)
    assert (LayerStore(theirs).path(found.stack[0]) / "file").read_text() == "x"
    assert heard.warnings == []


def test_outputs_go_and_come_with_their_holes(tmp_path: Path, ours: Store, theirs: Store, heard: Listener) -> None:
    with (tmp_path / "x.raw").open("wb") as file:
        file.truncate(64 << 20)
        file.write(b"boot")
    key = "3" * 40
    with ours.session() as session:
        OutputStore(ours).keep(key, {"output.raw": tmp_path / "x.raw"}, session.path)
        folder = OutputStore(ours).find(key)
        assert folder is not None
        assert Pushing(remote(tmp_path / "c", heard), ours, session.path).output(key, folder) < 1 << 16
    source = remote(tmp_path / "c", heard)
    entry = source.output(key)
    assert entry is not None
    with theirs.session() as session:
        assert Fetching(source, theirs, session.path, Events()).output(entry, OutputStore(theirs))
    found = OutputStore(theirs).find(key)
    assert found is not None
    assert (found / "output.raw").read_bytes() == (tmp_path / "x.raw").read_bytes()
    assert (found / "output.raw").stat().st_blocks * 512 < 1 << 20


def test_several_layers_of_a_key_are_all_found(tmp_path: Path, ours: Store, heard: Listener) -> None:
    names = [letter * 40 for letter in "123"]
    for name in names:
        push(ours, remote(tmp_path / "c", heard), with_layer(ours, name))
    assert {entry.name for entry in remote(tmp_path / "c", heard).layers(KEY)} == set(names)


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path, ours: Store, heard: Listener) -> None:
    names = [letter * 40 for letter in "1234"]
    kept = [with_layer(ours, name, name) for name in names]
    together = threading.Barrier(len(kept))

    def write(one: Record) -> None:
        target = remote(tmp_path / "c", heard)
        assert target.layers(KEY) == []
        together.wait()
        push(ours, target, one)

    threads = [threading.Thread(target=write, args=(one,)) for one in kept]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.name for entry in remote(tmp_path / "c", heard).layers(KEY)} == set(names)
    assert not list((tmp_path / "c").rglob("*.part"))


def archive_of(cache: Path) -> Path:
    (found,) = cache.rglob("*.tar.zst")
    return found


@pytest.mark.parametrize("damage", ["truncated", "poisoned", "gone", "empty"])
def test_a_damaged_archive_is_refused_by_name_and_replaced_by_the_next_who_builds(
    tmp_path: Path, ours: Store, theirs: Store, heard: Listener, damage: str
) -> None:
    kept = with_layer(ours)
    push(ours, remote(tmp_path / "c", heard), kept)
    path = archive_of(tmp_path / "c")
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"truncated": whole[:-9], "poisoned": whole[:-9] + bytes(9), "empty": b""}[damage])
    source = remote(tmp_path / "c", heard)
    assert fetch(theirs, source, heard) == [False]
    assert len(heard.warnings) == 1
    assert f"the layer {ID} of root.d/10-x" in heard.warnings[0]
    assert LayerStore(theirs).candidates(KEY) == []
    assert list(theirs.tmp.iterdir()) == []
    assert not source.has(KEY), "a refused entry is not offered again"
    push(ours, source, kept)
    assert fetch(theirs, remote(tmp_path / "c", heard), heard) == [True]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"entries": 1}', '{"entries": [1]}', "\x00", "[" * 100_000])
def test_a_damaged_index_is_refused_by_name(tmp_path: Path, ours: Store, heard: Listener, content: str) -> None:
    push(ours, remote(tmp_path / "c", heard), with_layer(ours))
    (index,) = (tmp_path / "c").rglob("index.json")
    index.write_text(content)
    assert not remote(tmp_path / "c", heard).has(KEY)
    assert len(heard.warnings) == 1
    assert "index.json" in heard.warnings[0]


def test_an_entry_of_another_key_is_refused(tmp_path: Path, ours: Store, heard: Listener, keys: Path) -> None:
    signer, trust = Signer(keys / "one.key"), Trust(keys / "one.asc")
    push(ours, remote(tmp_path / "c", heard, signer=signer), with_layer(ours))
    (index,) = (tmp_path / "c").rglob("index.json")
    other = "cd" * 32
    place = index.parent.parent.parent / other[:2] / other
    place.mkdir(parents=True)
    (place / "index.json").write_bytes(index.read_bytes())
    assert not remote(tmp_path / "c", heard, trust=trust).has(other), "its signature is valid, for another step"
    assert "made for another place" in heard.warnings[0]


def test_unsigned_entries_are_refused_and_replaced_by_signed_ones(
    tmp_path: Path, ours: Store, heard: Listener, keys: Path
) -> None:
    kept = with_layer(ours)
    push(ours, remote(tmp_path / "c", heard), kept)
    careful = remote(tmp_path / "c", heard, signer=Signer(keys / "one.key"), trust=Trust(keys / "one.asc"))
    assert not careful.has(KEY)
    assert "is not signed" in heard.warnings[0]
    push(ours, careful, kept)
    assert remote(tmp_path / "c", heard, trust=Trust(keys / "one.asc")).has(KEY)


def test_an_index_without_its_archive_yet_does_no_harm(
    tmp_path: Path, ours: Store, heard: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that is interrupted at any of its writes leaves nothing that is taken for whole."""
    kept = with_layer(ours)
    for count in range(3):
        target = remote(tmp_path / f"c{count}", heard)
        place = target._place()
        whole, left = place.put, [count]

        def put(name: str, content: bytes | Path, whole: Any = whole, left: list[int] = left) -> None:  # as `put`
            if not left[0]:
                raise Unreachable("interrupted")
            left[0] -= 1
            whole(name, content)

        monkeypatch.setattr(place, "put", put)
        with pytest.raises(Unreachable):
            push(ours, target, kept)
        assert not remote(tmp_path / f"c{count}", heard).has(KEY)


# --- places that fail


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server over tmp_path/web that takes PUT, and the list of its requests. What `/503` names is busy."""
    asked: list[str] = []
    root = tmp_path / "web"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *arguments: Any) -> None:  # as the base class
            super().__init__(*arguments, directory=str(root))

        def do_PUT(self) -> None:
            path = Path(self.translate_path(self.path))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            if "/503/" in self.path:
                self.send_error(503)
            elif "/half/" in self.path:
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"x" * 500)
                self.close_connection = True
            else:
                super().do_GET()

        def log_request(self, *_: Any) -> None:  # as the base class
            asked.append(f"{self.command} {self.path}")

        def log_message(self, *_: Any) -> None:  # as the base class
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{found.server_address[1]}", asked
    found.shutdown()
    found.server_close()


@pytest.fixture(params=["directory", "file", "memory", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path, server: tuple[str, list[str]]) -> Transport:
    urls = {
        "directory": str(tmp_path / "place"),
        "file": f"file://{tmp_path}/place",
        "memory": f"memory://place-{os.getpid()}",
        "http": f"{server[0]}/place",
    }
    return open_transport(urls[request.param])


def test_every_place_reads_what_was_written(place: Transport, tmp_path: Path) -> None:
    with pytest.raises(Missing):
        place.get("a/b/index.json")
    with pytest.raises(Missing), place.open("a/b/file"):
        pass
    assert not place.exists("a/b/file")
    place.put("a/b/index.json", b"{}")
    (tmp_path / "big").write_bytes(b"big" * 1_000_000)
    place.put("a/b/file", tmp_path / "big")
    place.put("a/b/file", tmp_path / "big")
    assert place.get("a/b/index.json") == b"{}"
    assert place.exists("a/b/file")
    with place.open("a/b/file") as source:
        found = b""
        while data := source.read(1 << 16):
            found += data
    assert found == b"big" * 1_000_000
    assert place.names("a/b") in (None, ["file", "index.json"], ["index.json", "file"])
    assert place.names("nothing") in (None, [])


def test_a_layer_goes_through_a_web_server(
    ours: Store, theirs: Store, heard: Listener, server: tuple[str, list[str]]
) -> None:
    url, asked = server
    push(ours, remote(url, heard), with_layer(ours))
    push(ours, remote(url, heard), with_layer(ours, "2" * 40, "y"))
    asked.clear()
    source = remote(url, heard)
    assert fetch(theirs, source, heard) == [True, True]
    assert len(asked) == 3, "one request for the key, one for each archive"
    assert not source.has("cd" * 32)
    assert not source.has("cd" * 32)
    assert len(asked) == 4, "what is not there is asked for once"
    assert heard.warnings == []


@pytest.mark.parametrize("kind", ["refused", "503", "half", "no place"])
def test_a_place_that_fails_is_told_once_and_left_alone(
    tmp_path: Path, heard: Listener, server: tuple[str, list[str]], kind: str
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed = listener.getsockname()[1]
    (tmp_path / "file").write_text("")
    url = {"refused": f"http://127.0.0.1:{closed}", "no place": "http://no-such-host.invalid"}.get(
        kind, f"{server[0]}/{kind}"
    )
    source = remote(url, heard)
    assert not source.has(KEY)
    assert not source.has("cd" * 32)
    assert not source.is_up
    assert len(heard.warnings) == 1
    assert "the build goes on without it" in heard.warnings[0]
    assert len(server[1]) <= 2, "at most one more try"


@pytest.mark.parametrize(
    ("url", "said"), [("nosuch://x/y", "cannot be used"), ("gs://bucket/x", "pip install 'dibble[gcs]'")]
)
def test_a_url_that_can_never_be_used_is_told(url: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_transport(url)
    assert said in str(caught.value)


def test_a_password_in_a_url_is_not_shown() -> None:
    assert transport.shown("https://me:secret@host:81/cache") == "https://host:81/cache"
    assert transport.shown("/plain/path") == "/plain/path"
