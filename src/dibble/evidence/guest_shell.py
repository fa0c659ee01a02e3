"""Logging in over the serial line and running commands there, each with its own output and exit status.

Everything sent is safe to send twice or to be echoed: markers are typed in two pieces, so that only their being
printed, never their being typed, looks like one.
"""

from __future__ import annotations

import re
import secrets
import shlex
import time
from dataclasses import dataclass

from dibble.errors import BootError, UsageError
from dibble.evidence.serial import Console, SerialTimeout

LOGIN_PROMPT = r"(?m)^(?!Last )[^\s:]* ?login: ?"
"""What getty(8) and its like print: `HOST login: ` at the start of a line."""

_PASSWORD = re.compile(r"(?i)password: ?")
_SHELL_PROMPT = re.compile(r"[#$%>] \Z")
_REFUSED = re.compile(r"(?i)login incorrect|authentication failure|account (?:is )?(?:locked|expired)|not allowed")
_ANSWER_S = 5.0
"""Seconds after which a line that got no answer is sent again: login(1) and the shell drop what came too early."""

_LONGEST_LINE = 3800
"""Bytes of a line that the kernel's line discipline takes (N_TTY_BUF_SIZE is 4096), with room for the markers."""

# No echo, no line editing, no prompts, wide lines, no colours, no pager, messages in English.
_PREPARE = (
    "set +o emacs +o vi 2>/dev/null; stty -echo cols 1000 2>/dev/null; PS1= PS2= PROMPT_COMMAND=;"
    " export TERM=dumb LC_ALL=C.UTF-8 PAGER=cat SYSTEMD_PAGER= SYSTEMD_COLORS=0"
)
# Keep the kernel's and systemd's own messages out of the output. RTMIN+21: systemd(1), "disables display of status".
_SILENCE = "dmesg -n 1; kill -s RTMIN+21 1"


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in. `password` None: the login asks for none."""

    user: str
    password: str | None = None


@dataclass(frozen=True, slots=True)
class CommandResult:
    """One command. `output` is its standard output and error without the last line end; `seconds` its duration."""

    command: str
    status: int
    output: str
    seconds: float


def check_command(command: str) -> None:
    """Raise UsageError for a command that a serial line cannot carry."""
    if len(_run_line("0" * 8, command).encode()) > _LONGEST_LINE:
        raise UsageError(
            f"the command {command[:40]!r}… has {len(command.encode())} bytes, too many for the serial line",
            hint="put it into the image as a script and call that",
        )
    if any(ord(character) < 32 and character not in "\n\t" for character in command):
        raise UsageError(f"the command {command!r} has control characters, which a terminal would act upon")


class GuestShell:
    """A shell of the guest, after `log_in`."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def run(self, command: str, timeout_s: float) -> CommandResult:
        """Run a command in a shell of its own (so `cd` does not last), its standard input closed.

        Raises SerialTimeout when it takes longer than `timeout_s`, SerialClosed when the guest ends.
        """
        token = secrets.token_hex(4)
        began = time.monotonic()
        self._console.send(_run_line(token, command))
        self._console.expect([_marker(token, "b")], began + timeout_s)
        ended = self._console.expect([_marker(token, r"e (\d+)")], began + timeout_s)
        output = ended.before.removesuffix("\n")
        return CommandResult(command, int(ended.match[1]), output.rstrip("\n"), time.monotonic() - began)

    def power_off(self, timeout_s: float) -> bool:
        """Ask the guest to end; False when this user may not."""
        order = "poweroff 2>/dev/null || systemctl poweroff"
        result = self.run(f'if [ "$(id -u)" = 0 ]; then {order}; else sudo -n sh -c "{order}"; fi', timeout_s)
        return result.status == 0


def _run_line(token: str, command: str) -> str:
    return (
        f"printf '%s%s\\n' {token} b; sh -c {shlex.quote(command)} </dev/null 2>&1;"
        f" printf '\\n%s%s %d\\n' {token} e $?\n"
    )


def _marker(token: str, end: str) -> re.Pattern[str]:
    return re.compile(rf"{token}{end}\n")


def log_in(console: Console, login: Login, deadline: float) -> GuestShell:
    """Answer the login prompt that was just seen and make the shell ready for commands.

    Raises BootError when the guest refuses the user, SerialTimeout, SerialClosed.
    """
    console.send(login.user + "\n")
    if login.password is not None:
        console.expect([_PASSWORD], deadline)
        console.send(login.password + "\n")
    answers = [_REFUSED, re.compile(LOGIN_PROMPT), _SHELL_PROMPT]
    if login.password is None:
        answers.append(_PASSWORD)
    try:
        heard = console.expect(answers, min(deadline, time.monotonic() + 4 * _ANSWER_S))
    except SerialTimeout:
        pass  # a shell with an unusual prompt; whether there is one shows now
    else:
        _refuse(login, heard.index)
    shell = GuestShell(console)
    _synchronise(console, login, deadline)
    # Only root may; without the right, or the programs, the messages of kernel and systemd stay.
    left_s = max(1.0, deadline - time.monotonic())
    shell.run(f'if [ "$(id -u)" = 0 ]; then {_SILENCE}; else sudo -n sh -c "{_SILENCE}"; fi >/dev/null 2>&1', left_s)
    return shell


def _refuse(login: Login, answer: int) -> None:
    if answer in (0, 1):
        raise BootError(
            f"the guest refused the login of {login.user}",
            hint="give the user and password that the image was built with (DIB_DEV_USER_USERNAME,"
            " DIB_DEV_USER_PASSWORD for the element devuser)",
        )
    if answer == 3:
        raise BootError(f"the guest asks for a password for {login.user}", hint="give it with --password")


def _synchronise(console: Console, login: Login, deadline: float) -> None:
    """Send the preparation until the shell has answered it."""
    refused = re.compile(r"(?i)login incorrect")
    while True:
        token = secrets.token_hex(4)
        console.send(f"{_PREPARE}; printf '%s%s\\n' {token} r\n")
        try:
            heard = console.expect([refused, _marker(token, "r")], min(deadline, time.monotonic() + _ANSWER_S))
        except SerialTimeout:
            if time.monotonic() >= deadline:
                raise
            continue
        _refuse(login, 0 if heard.index == 0 else 2)
        return
