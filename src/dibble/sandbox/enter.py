"""Entering the build's own user, mount, PID, IPC and UTS namespaces.

The calling process forks; the function runs in the innermost process and its result (or exception) comes back pickled.

    caller ── waiter (first process of the user namespace) ── init (pid 1: reaps) ── worker (runs the function)

Each link asks the kernel to be killed when the one before it dies (PR_SET_PDEATHSIG, prctl(2)); the death of pid 1
kills every process of the PID namespace, and with the last process of a mount namespace go its mounts. So `kill -9`
of any of them, at any moment, leaves nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from dibble.errors import DibbleError, HostError, ProcessKilled
from dibble.sandbox import idmap
from dibble.sandbox.process import exit_status, find_helper, host_environment, run
from dibble.sandbox.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    PR_SET_PDEATHSIG,
    mount,
    prctl,
    set_hostname,
    unshare,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

HOST_NAME = "localhost"
"""The host name in every build, so that no machine's name gets into an image; every hosts file resolves it."""


def run_in_namespace(main: Callable[[], Result], *, network: bool = True) -> Result:
    """Run `main` as uid 0 in new namespaces and return what it returns.

    An exception in `main` is raised here, with the traceback of the inside as a note when it is not a DibbleError.
    Raises HostError when the host does not allow the namespaces. Must be called from the main thread of a process
    that has no other threads running.
    """
    maps = idmap.maps_for_current_user()
    sys.stdout.flush()
    sys.stderr.flush()
    result_read, result_write = os.pipe()
    ready_read, ready_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    parent = os.getpid()
    waiter = os.fork()
    if waiter == 0:
        os.close(result_read)
        os.close(ready_read)
        os.close(mapped_write)
        _die_with(parent)
        _waiter(main, result_write, ready_write, mapped_read, network)
    os.close(result_write)
    os.close(ready_write)
    os.close(mapped_read)
    # The worker hears of an interruption and ends in good order; whatever it then fails of, that was the reason.
    interruptions: list[int] = []
    interrupts = signal.signal(signal.SIGINT, lambda number, _: interruptions.append(number))
    try:
        if os.read(ready_read, 1) == b"u":
            _write_maps(waiter, maps)
            os.write(mapped_write, b"m")
        with open(result_read, "rb", closefd=False) as pipe:
            data = pipe.read()
        _, status = os.waitpid(waiter, 0)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(waiter, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(waiter, 0)
        raise
    finally:
        signal.signal(signal.SIGINT, interrupts)
        for descriptor in (result_read, ready_read, mapped_write):
            os.close(descriptor)
    try:
        result: Result = _result_of(data, exit_status(os.waitstatus_to_exitcode(status)))
    except DibbleError as error:
        if interruptions:
            raise KeyboardInterrupt from error
        raise
    return result


def probe() -> None:
    """Try to enter; raises the HostError that a build would meet."""
    run_in_namespace(lambda: None)


def _result_of(data: bytes, status: int) -> Any:  # what main returned, through pickle
    if not data:
        raise ProcessKilled(
            f"the build process was killed (status {status})",
            hint="if nobody killed it, the machine may have run out of memory: see dmesg",
        )
    # The pipe's other end is our own fork; nobody else can write to it.
    kind, value = pickle.loads(data)  # noqa: S301
    if kind == "raise":
        raise value
    return value


def _die_with(parent: int) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _write_maps(pid: int, maps: idmap.IdMaps) -> None:
    for kind, ranges in (("uid", maps.uids), ("gid", maps.gids)):
        if maps.privileged:
            Path(f"/proc/{pid}/{kind}_map").write_text(idmap.map_text(ranges))
            continue
        name = f"new{kind}map"
        helper = find_helper(name)
        if helper is None:
            raise HostError(
                f"the program {name} is missing; it gives an ordinary user the subordinate ids",
                hint="install it: apt-get install uidmap (Debian, Ubuntu), dnf install shadow-utils (Fedora, RHEL),"
                " zypper install shadow (openSUSE)",
            )
        done = run([str(helper), str(pid), *idmap.helper_arguments(ranges)], env=host_environment(), check=False)
        if done.status:
            raise HostError(
                f"{name} refused: {done.output.strip()}",
                hint=f"are the ranges of /etc/sub{kind} right, and is {helper} setuid root or has it the capability"
                f" cap_set{kind}?",
            )


def _waiter(main: Callable[[], Result], result: int, ready: int, mapped: int, network: bool) -> NoReturn:
    """First process of the user namespace: sets up, then only waits, so that the PID namespace has a parent."""
    try:
        parent = os.getppid()
        try:
            unshare(CLONE_NEWUSER)
        except OSError as error:
            raise HostError(
                f"the kernel does not let this user make a user namespace: {error.strerror}",
                hint="run `dibble doctor`; it names the sysctl or profile that forbids it",
            ) from error
        os.write(ready, b"u")
        if os.read(mapped, 1) != b"m":
            os._exit(1)  # the caller failed to map and says why
        os.close(ready)
        os.close(mapped)
        os.setgid(0)
        os.setuid(0)
        os.setgroups([])
        _die_with(parent)  # a change of uid clears the wish
        unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | (0 if network else CLONE_NEWNET))
        me = os.getpid()
        init = os.fork()
        if init == 0:
            _init(main, result, me)
        os.close(result)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _, status = os.waitpid(init, 0)
        os._exit(exit_status(os.waitstatus_to_exitcode(status)) & 255)
    except BaseException as error:  # noqa: BLE001 - goes to the caller as a value
        _send(result, "raise", error)
    os._exit(1)


def _init(main: Callable[[], Result], result: int, waiter: int) -> NoReturn:
    """Process 1: makes the mounts private, starts the worker, reaps orphans, ends with the worker's status."""
    try:
        # getppid() is 0 here: the parent is outside the PID namespace, so only the wish itself can be made.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        del waiter
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        try:
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        except OSError as error:
            raise HostError(
                f"cannot mount /proc in the namespace: {error.strerror}",
                hint="in a container, run it with an unmasked /proc (podman: --security-opt unmask=ALL;"
                " docker: --security-opt systempaths=unconfined)",
            ) from error
        set_hostname(HOST_NAME)
        os.umask(0o022)
        worker = os.fork()
    except BaseException as error:  # noqa: BLE001 - goes to the caller as a value
        _send(result, "raise", error)
        os._exit(1)
    if worker == 0:
        _die_with(1)
        _worker(main, result)
    os.close(result)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == worker:
            os._exit(exit_status(os.waitstatus_to_exitcode(status)) & 255)


def _worker(main: Callable[[], Result], result: int) -> NoReturn:
    try:
        value = main()
        _send(result, "return", value)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - goes to the caller as a value
        if not isinstance(error, (DibbleError, KeyboardInterrupt)):
            error.add_note("inside the namespace:\n" + "".join(traceback.format_exception(error)))
        _send(result, "raise", error)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(1)


def _send(descriptor: int, kind: str, value: object) -> None:
    try:
        data = pickle.dumps((kind, value))
    except (pickle.PicklingError, TypeError, AttributeError):
        data = pickle.dumps((kind, RuntimeError(f"{value!r}")))
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
