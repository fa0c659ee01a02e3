"""Logging in and running commands: a login of our own making in front of a real shell on a real terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import termios
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from dibble.errors import BootError, UsageError
from dibble.evidence.guest_shell import LOGIN_PROMPT, GuestShell, Login, check_command, log_in
from dibble.evidence.serial import Console, SerialClosed, SerialTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit

# What the fake guest must not do to the machine that runs the tests.
STAND_INS = {
    "id": "echo 1000",
    "sudo": 'echo "$@" >> "$HOME/sudo"; exit "$(cat "$HOME/may-sudo" 2>/dev/null || echo 1)"',
    "dmesg": "exit 1",
    "poweroff": "exit 1",
    "systemctl": "exit 1",
}


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the guest lets in. `noise` comes right after the login; `late` swallows so many first lines."""

    user: str = "devuser"
    password: str | None = "secret"
    noise: str = ""
    swallowed: int = 0


class FakeGuest(threading.Thread):
    """getty, login and a shell at the other end of the line."""

    def __init__(self, line: socket.socket, home: Path, account: Account, shell: list[str]) -> None:
        super().__init__(daemon=True)
        self._line = line
        self._home = home
        self._account = account
        self._shell = shell

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                self._say("\r\nDebian GNU/Linux 13 host ttyS0\r\n\r\nhost login: ")
                user = self._read_line(echo=True)
                password = None
                if self._account.password is not None:
                    self._say("Password: ")
                    password = self._read_line(echo=False)
                    self._say("\r\n")
                if (user, password) == (self._account.user, self._account.password):
                    break
                self._say("\r\nLogin incorrect\r\n")
            self._say(f"Linux host 6.12 x86_64\r\nLast login: Mon on ttyS0\r\n{self._account.noise}")
            for _ in range(self._account.swallowed):
                self._read_line(echo=False)
            self._serve()
        self._line.close()

    def _say(self, text: str) -> None:
        self._line.sendall(text.encode())

    def _read_line(self, *, echo: bool) -> str:
        text = b""
        while not text.endswith((b"\n", b"\r")):
            key = self._line.recv(1)
            if not key:
                raise EOFError
            text += key
            if echo:
                self._line.sendall(b"\r\n" if key == b"\n" else key)
        return text[:-1].decode()

    def _serve(self) -> None:
        """A real shell on a pseudo terminal, which echoes and edits lines as a guest's does."""
        ours, its = pty.openpty()
        attributes = termios.tcgetattr(its)
        attributes[3] |= termios.ECHO
        termios.tcsetattr(its, termios.TCSANOW, attributes)
        environment = {"PATH": f"{self._home}/bin:/usr/bin:/bin", "HOME": str(self._home), "PS1": "$ ", "TERM": "vt220"}
        process = subprocess.Popen(
            self._shell, stdin=its, stdout=its, stderr=its, env=environment, cwd=self._home, start_new_session=True
        )
        os.close(its)
        try:
            while True:
                ready, _, _ = select.select([self._line.fileno(), ours], [], [])
                if self._line.fileno() in ready:
                    data = self._line.recv(4096)
                    if not data:
                        return
                    os.write(ours, data)
                if ours in ready:
                    self._line.sendall(os.read(ours, 4096))
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def soon() -> float:
    return time.monotonic() + 30


@pytest.fixture(params=["sh -i", "bash --norc -i"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Account], Console]]:
    """Starts a guest and gives its console, with the login prompt seen."""
    shell = request.param.split()
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]}")
    (tmp_path / "bin").mkdir()
    for name, text in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    with contextlib.ExitStack() as stack:

        def start(account: Account) -> Console:
            ours, guests = socket.socketpair()
            stack.enter_context(ours)
            guest = FakeGuest(guests, tmp_path, account, shell)
            guest.start()
            stack.callback(guest.join, 20)
            stack.callback(ours.shutdown, socket.SHUT_RDWR)
            console = Console(ours)
            console.expect([re.compile(LOGIN_PROMPT)], soon())
            return console

        yield start


@pytest.fixture
def shell(connect: Callable[[Account], Console]) -> GuestShell:
    return log_in(connect(Account()), Login("devuser", "secret"), soon())


def test_a_user_without_a_password_gets_in(connect: Callable[[Account], Console]) -> None:
    shell = log_in(connect(Account(password=None)), Login("devuser"), soon())
    assert shell.run("echo in", 20).output == "in"


def test_a_command_gives_its_output_and_its_status(shell: GuestShell) -> None:
    result = shell.run("echo one; echo two >&2; exit 7", 20)
    assert (result.output, result.status) == ("one\ntwo", 7)
    assert shell.run("true", 20).status == 0


def test_the_output_of_one_command_is_not_in_the_next(shell: GuestShell) -> None:
    assert shell.run("printf 'no line end'", 20).output == "no line end"
    assert shell.run("echo next", 20).output == "next"


def test_quotes_dollars_and_lines_arrive_as_they_are(shell: GuestShell) -> None:
    command = "a='it'\"'\"'s'\nfor x in 1 2; do\n\techo \"$a $x\" '$x' \\\\ !!; done"
    assert shell.run(command, 20).output == "it's 1 $x \\ !!\nit's 2 $x \\ !!"


def test_a_command_with_a_tab_does_not_ask_for_completion(shell: GuestShell) -> None:
    assert shell.run("printf '%s' 'a\t\tb'", 20).output == "a\t\tb"


def test_a_long_output_is_whole(shell: GuestShell) -> None:
    assert shell.run("seq 20000", 20).output.splitlines() == [str(number) for number in range(1, 20001)]


def test_a_long_command_is_whole(shell: GuestShell) -> None:
    words = "x" * 3500
    assert shell.run(f"echo {words}", 20).output == words


def test_a_command_that_reads_finds_nothing_to_read(shell: GuestShell) -> None:
    assert shell.run("cat; echo done", 20).output == "done"


def test_an_output_that_looks_like_a_prompt_or_a_marker_is_output(shell: GuestShell) -> None:
    assert shell.run("echo 'host login: '; echo 0000e 0; echo '$ '", 20).output == "host login: \n0000e 0\n$ "


def test_a_command_that_takes_too_long_is_given_up(shell: GuestShell) -> None:
    with pytest.raises(SerialTimeout):
        shell.run("sleep 60", 0.3)


def test_a_guest_that_ends_meanwhile_is_told(connect: Callable[[Account], Console]) -> None:
    shell = log_in(connect(Account()), Login("devuser", "secret"), soon())
    with pytest.raises(SerialClosed):
        shell.run("kill -9 $PPID", 20)


def test_a_wrong_password_is_told_as_the_guests_refusal(connect: Callable[[Account], Console]) -> None:
    with pytest.raises(BootError, match="the guest refused the login of devuser"):
        log_in(connect(Account()), Login("devuser", "wrong"), soon())


def test_an_unknown_user_without_a_password_is_told(connect: Callable[[Account], Console]) -> None:
    with pytest.raises(BootError, match="refused the login of nobody"):
        log_in(connect(Account(password=None)), Login("nobody"), soon())


def test_a_password_that_was_not_given_is_asked_for_by_the_error(connect: Callable[[Account], Console]) -> None:
    with pytest.raises(BootError, match="asks for a password for devuser") as caught:
        log_in(connect(Account()), Login("devuser"), soon())
    assert caught.value.hint == "give it with --password"


def test_messages_between_login_and_prompt_do_not_matter(connect: Callable[[Account], Console]) -> None:
    noise = "\x1b[32m[  OK  ]\x1b[0m Reached target\r\n[   12.3] random: crng init done\r\n# not a prompt\r\n"
    shell = log_in(connect(Account(noise=noise)), Login("devuser", "secret"), soon())
    assert shell.run("echo in", 20).output == "in"


def test_what_the_shell_was_too_late_to_read_is_sent_again(
    connect: Callable[[Account], Console], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dibble.evidence.guest_shell._ANSWER_S", 0.1)
    shell = log_in(connect(Account(swallowed=2)), Login("devuser", "secret"), soon())
    assert shell.run("echo in", 20).output == "in"


def test_a_user_who_may_is_heard_when_asking_for_power_off(shell: GuestShell, tmp_path: Path) -> None:
    (tmp_path / "may-sudo").write_text("0")
    assert shell.power_off(20)
    assert "systemctl poweroff" in (tmp_path / "sudo").read_text()


def test_a_user_who_may_not_power_off_is_told_so(shell: GuestShell) -> None:
    assert not shell.power_off(20)


def test_commands_that_no_line_can_carry_are_refused_before_the_boot() -> None:
    check_command("echo 'a\nb\tc'")
    with pytest.raises(UsageError, match="too many for the serial line"):
        check_command("x" * 4000)
    with pytest.raises(UsageError, match="control characters"):
        check_command("echo \x03")
