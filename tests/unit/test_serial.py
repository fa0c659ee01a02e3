"""The serial line: reading, waiting, and the keys of whoever sits at it."""

from __future__ import annotations

import io
import os
import pty
import re
import socket
import termios
import threading
import time
from typing import TYPE_CHECKING

import pytest

from dibble.evidence.guest_shell import LOGIN_PROMPT
from dibble.evidence.interactive import Keys, connect
from dibble.evidence.serial import Console, SerialClosed, SerialTimeout
from dibble.evidence.terminal import TerminalText

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

PROMPT = re.compile(LOGIN_PROMPT)


def soon() -> float:
    """A deadline that only a test that fails meets."""
    return time.monotonic() + 20


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, guests = socket.socketpair()
    with ours, guests:
        yield ours, guests


def heard(console: Console, *words: str) -> int:
    return console.expect([re.compile(word) for word in words], soon()).index


def test_what_is_waited_for_may_come_in_pieces(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, guests = pair
    console = Console(ours)
    for piece in (b"boot", b"ing\r", b"\nhost lo", b"gin: "):
        guests.sendall(piece)
        console.read(soon())
    assert console.expect([PROMPT], soon()).before == "booting\n"


def test_the_first_match_in_the_text_wins_whatever_the_order_of_the_patterns(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[1].sendall(b"first second\n")
    assert heard(Console(pair[0]), "second", "first") == 1


def test_matching_goes_on_after_the_last_match(pair: tuple[socket.socket, socket.socket]) -> None:
    console = Console(pair[0])
    pair[1].sendall(b"one two one\n")
    assert heard(console, "one") == 0
    found = console.expect([re.compile("one")], soon())
    assert found.before == " two "


def test_a_deadline_that_passes_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    console = Console(pair[0])
    pair[1].sendall(b"something else\n")
    with pytest.raises(SerialTimeout):
        console.expect([PROMPT], time.monotonic() + 0.05)
    assert console.last_lines(5) == ["something else"]


def test_the_end_of_the_guest_is_told_and_its_last_words_kept(pair: tuple[socket.socket, socket.socket]) -> None:
    lines: list[str] = []
    console = Console(pair[0], on_line=lines.append)
    pair[1].sendall(b"panic\r\nlast words\r")
    pair[1].close()
    with pytest.raises(SerialClosed):
        console.expect([PROMPT], soon())
    assert lines == ["panic", "last words"]
    with pytest.raises(SerialClosed):
        console.send("x")


def test_the_log_has_every_byte_and_the_lines_have_the_text(pair: tuple[socket.socket, socket.socket]) -> None:
    log = io.BytesIO()
    lines: list[str] = []
    console = Console(pair[0], on_line=lines.append, log=log)
    sent = b"\x1b[1;32m[  OK  ]\x1b[0m Started\r\n\x1b[2J\x1b[H\xff\r\nhost login: "
    pair[1].sendall(sent)
    console.expect([PROMPT], soon())
    console.show_rest()
    assert log.getvalue() == sent
    assert lines == ["[  OK  ] Started", "\ufffd", "host login:"]


def test_the_moment_of_the_first_byte_is_kept(pair: tuple[socket.socket, socket.socket]) -> None:
    console = Console(pair[0])
    assert console.first_byte_at is None
    pair[1].sendall(b"x")
    console.read(soon())
    assert console.first_byte_at is not None


@pytest.mark.parametrize("text", ["login: ", "host login: ", "debian login: ", "x\nhost.example.org login: "])
def test_a_login_prompt_is_known(text: str) -> None:
    assert PROMPT.search(text)


@pytest.mark.parametrize(
    "text", ["Last login: Mon", "[ OK ] Started User Login Management", "systemd-logind: new login: x", "a: b login: "]
)
def test_what_only_resembles_a_login_prompt_is_none(text: str) -> None:
    assert not PROMPT.search(text)


@pytest.mark.parametrize("cut", range(1, 40))
def test_control_sequences_vanish_however_they_are_cut(cut: int) -> None:
    data = b"a\x1b[31;1mb\x1b]0;title\x07c\x1b(Bd\r\ne\xc3\xa9\x1bMf"
    text = TerminalText()
    assert text.feed(data[:cut]) + text.feed(data[cut:]) + text.rest() == "abcd\ne\xe9f"


@pytest.mark.parametrize(
    ("typed", "sent", "leaving"),
    [
        (b"ls\r", b"ls\r", False),
        (b"\x03", b"\x03", False),
        (b"ab\x1dcd", b"ab", True),
        (b"ab\x01xcd", b"ab", True),
        (b"\x01\x01", b"\x01", False),
        (b"\x01a", b"\x01", False),
        (b"\x01q", b"\x01q", False),
    ],
)
def test_every_key_goes_to_the_guest_but_those_to_leave(typed: bytes, sent: bytes, leaving: bool) -> None:
    keys = Keys()
    assert keys.feed(typed) == sent
    assert keys.leaving is leaving


def test_a_prefix_and_its_key_may_come_in_two_reads() -> None:
    keys = Keys()
    assert keys.feed(b"a\x01") == b"a"
    assert keys.feed(b"x") == b""
    assert keys.leaving


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    user, program = pty.openpty()
    yield user, program
    os.close(user)
    os.close(program)


def test_the_users_terminal_is_connected_and_left_as_it_was(
    pair: tuple[socket.socket, socket.socket], terminal: tuple[int, int]
) -> None:
    ours, guests = pair
    user, program = terminal
    before = termios.tcgetattr(program)
    log = io.BytesIO()
    left: list[bool] = []
    thread = threading.Thread(target=lambda: left.append(connect(ours, program, program, log)))
    thread.start()
    guests.sendall(b"host login: ")
    assert os.read(user, 100) == b"host login: "  # so the terminal is raw by now
    os.write(user, b"root\x03\r")
    assert _exactly(guests, 6) == b"root\x03\r"
    os.write(user, b"\x1d")
    thread.join(20)
    assert left == [True]
    assert log.getvalue() == b"host login: "
    assert termios.tcgetattr(program) == before


def test_the_end_of_the_guest_gives_the_terminal_back(
    pair: tuple[socket.socket, socket.socket], terminal: tuple[int, int]
) -> None:
    pair[1].close()
    before = termios.tcgetattr(terminal[1])
    assert connect(pair[0], terminal[1], terminal[1]) is False
    assert termios.tcgetattr(terminal[1]) == before


def _exactly(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += line.recv(count - len(data))
    return data
