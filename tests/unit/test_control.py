"""The channel between `dib-engine` in a script and the engine, with the real client."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dibble
from dibble.run.control import Call, ControlChannel

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

CLIENT = Path(dibble.__file__).parent / "catalogue" / "bin" / "dib-engine"


class Server:
    """Answers like an engine, and keeps the calls."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls: list[Call] = []
        self.channel = ControlChannel(directory, self.handle)

    def handle(self, call: Call) -> int:
        self.calls.append(call)
        if call.verb == "fail":
            raise ValueError("no such thing")
        call.output(f"did {call.verb}")
        call.errors("a word on the side")
        return int(call.arguments[0]) if call.arguments and call.arguments[0].isdigit() else 0

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "DIBBLE_ENGINE_DIR": str(self.directory), "PROBE": "two\nlines"}
        return subprocess.run([CLIENT, *arguments], env=env, capture_output=True, text=True, timeout=20, check=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.channel.close()


def test_arguments_environment_and_directory_arrive_and_output_and_status_come_back(server: Server) -> None:
    done = server.ask("install", "7", "a b", "", "new\nline")
    assert (done.returncode, done.stdout, done.stderr) == (7, "did install\n", "a word on the side\n")
    call = server.calls[0]
    assert call.arguments == ("7", "a b", "", "new\nline")
    assert call.environment["PROBE"] == "two\nlines"
    assert call.cwd == str(Path.cwd())


def test_a_failure_of_the_engine_is_status_1_and_kept_for_the_step(server: Server) -> None:
    assert server.ask("fail").returncode == 1
    assert str(server.channel.failure()) == "no such thing"
    assert server.channel.failure() is None


def test_many_clients_at_once_each_get_their_own_answer(server: Server) -> None:
    env = {**os.environ, "DIBBLE_ENGINE_DIR": str(server.directory)}
    running = [
        subprocess.Popen(
            [CLIENT, "install", str(number)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for number in range(12)
    ]
    assert [process.wait(timeout=30) for process in running] == list(range(12))


def test_the_client_says_that_it_needs_a_build(tmp_path: Path) -> None:
    env = {**os.environ, "DIBBLE_ENGINE_DIR": str(tmp_path / "nothing")}
    done = subprocess.run([CLIENT, "install", "x"], env=env, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "only works inside a dibble build" in done.stderr


def test_nothing_is_left_in_the_channel_directory(server: Server) -> None:
    server.ask("install")
    assert [path.name for path in server.directory.iterdir()] == ["request"]
