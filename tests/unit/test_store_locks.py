"""Locks of the store: one makes and the others wait; what is used is not removed; the dead hold nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dibble.store import locks
from dibble.store.layers import LayerStore
from dibble.store.places import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from dibble.store.locks import Holder
    from dibble.store.places import Store

pytestmark = pytest.mark.unit


class Child:
    """A forked process that enters something, says so, and then waits to be killed."""

    def __init__(self, *entered: AbstractContextManager[object]) -> None:
        ready, say = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for manager in entered:
                    manager.__enter__()
                os.write(say, b"r")
                signal.pause()
            finally:
                os._exit(1)
        os.close(say)
        assert os.read(ready, 1) == b"r"
        os.close(ready)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@contextlib.contextmanager
def holding(store: Store, *names: str) -> Iterator[None]:
    for name in names:
        store.uses.hold(name)
    yield


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_of_two_that_need_the_same_step_one_makes_it_and_the_other_finds_it(tmp_path: Path) -> None:
    layers = LayerStore(open_store(tmp_path))
    made: list[str] = []
    waited: list[Holder] = []
    inside = threading.Event()

    def build(name: str, on_wait: Callable[[Holder], None]) -> None:
        with layers.making("key", on_wait):
            if not made:
                inside.set()
                while not waited:  # the other one is told before it waits
                    inside.wait(0.01)
                made.append(name)

    first = threading.Thread(target=build, args=("first", lambda _: None))
    first.start()
    inside.wait()
    build("second", waited.append)
    first.join()
    assert made == ["first"]
    assert [holder.pid for holder in waited] == [os.getpid()]
    assert waited[0].command == " ".join(sys.argv)[:200]


def test_different_steps_are_made_at_the_same_time(tmp_path: Path) -> None:
    layers = LayerStore(open_store(tmp_path))
    told: list[Holder] = []
    with layers.making("one", told.append), layers.making("two", told.append), layers.making_packages("one"):
        pass
    assert told == []


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    child = Child(store.locked("step-key"))
    told: list[Holder] = []

    def kill(holder: Holder) -> None:
        told.append(holder)
        child.kill()

    with store.locked("step-key", kill):
        assert len(told) == 1
    (tmp_path / "locks/step-dead.lock").write_text(json.dumps({"pid": child.pid, "command": "dibble", "since": 0}))
    with store.locked("step-dead", told.append):
        pass
    assert len(told) == 1, "a file that names a dead process is not a lock"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "\0" * 10])
def test_a_lock_file_may_say_anything(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.lock").write_text(text)
    assert locks.holder_of(tmp_path / "x.lock") == locks.UNKNOWN
    assert str(locks.UNKNOWN) == "another process"
    with locks.locked(tmp_path / "x.lock"):
        assert locks.holder_of(tmp_path / "x.lock").pid == os.getpid()


def test_a_lock_file_is_removed_only_while_nobody_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with locks.locked(path):
        assert not locks.is_free(path, remove=True)
        assert path.exists()
    assert locks.is_free(path, remove=True)
    assert not path.exists()
    assert locks.is_free(path, remove=True)


def test_who_waits_for_a_lock_file_that_is_removed_still_is_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    waiting = threading.Event()
    was_free: list[bool] = []

    def wait() -> None:
        with locks.locked(path, lambda _: waiting.set()):
            was_free.append(locks.is_free(path, remove=True))

    thread = threading.Thread(target=wait)
    with locks.locked(path):
        thread.start()
        waiting.wait()
        path.unlink()
        with locks.locked(path):  # a third one made it anew
            assert was_free == []
    thread.join()
    assert was_free == [False]


def test_what_is_used_cannot_be_had_alone_until_its_user_is_dead(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    child = Child(holding(store, "layers/a", "packages/b"))
    for name in ("layers/a", "packages/b"):
        with store.uses.alone(name) as free:
            assert not free
    with store.uses.alone("layers/c") as free:
        assert free
    store.uses.hold("layers/a")  # together with the child
    child.kill()
    with store.uses.alone("packages/b") as free:
        assert free
    with store.uses.alone("layers/a") as free:
        assert not free, "we use it too"
    store.uses.release()
    with store.uses.alone("layers/a") as free:
        assert free


def test_two_thousand_entries_can_be_held_with_one_open_file(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    before = open_files()
    for number in range(2000):
        store.uses.hold(f"packages/{number}")
    assert open_files() == before + 1
    with store.uses.alone("packages/1999") as free:
        assert not free
