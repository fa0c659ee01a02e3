"""Which servers the programs of a step connect to, heard from seccomp's user notification (seccomp_unotify(2)).

The filter asks us about connect(2) only; we note the address and let the kernel go on, so nothing is changed or slowed
but connecting. Where kernel or architecture do not know this, nothing is heard and `Listener.works` is false.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)

# uname -m → (AUDIT_ARCH of linux/audit.h, numbers of seccomp and connect)
_CALLS = {
    "x86_64": (0xC000003E, 317, 42),
    "aarch64": (0xC00000B7, 277, 203),
    "ppc64le": (0xC0000015, 358, 328),
    "s390x": (0x80000016, 348, 362),
    "riscv64": (0xC00000F3, 277, 203),
}
_SET_MODE_FILTER = 1
_FLAG_NEW_LISTENER = 1 << 3
_RET_ALLOW = 0x7FFF0000
_RET_USER_NOTIF = 0x7FC00000
_NOTIF_CONTINUE = 1
_IOC_RECV, _IOC_SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND for the structures below
_NOTIF = struct.Struct("=QIIiIQ6Q")  # seccomp_notif: id, pid, flags, seccomp_data (nr, arch, ip, args)
_RESPONSE = struct.Struct("=QqiI")  # seccomp_notif_resp: id, val, error, flags
_INSTRUCTION = struct.Struct("=HBBI")  # sock_filter
_LD_ABS, _JEQ, _RET = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_DNS = 53


class _Program(ctypes.Structure):
    """struct sock_fprog, linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _filter(arch: int, connect: int) -> bytes:
    """Ask about `connect` of this architecture, allow all else."""
    return b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in (
            (_LD_ABS, 0, 0, 4),  # seccomp_data.arch
            (_JEQ, 0, 3, arch),
            (_LD_ABS, 0, 0, 0),  # seccomp_data.nr
            (_JEQ, 0, 1, connect),
            (_RET, 0, 0, _RET_USER_NOTIF),
            (_RET, 0, 0, _RET_ALLOW),
        )
    )


class Listener:
    """Hears one program and all that it starts. `before_exec` belongs into the child, `close` to the end."""

    def __init__(self) -> None:
        self._known = _CALLS.get(os.uname().machine)
        self._here, self._there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reached: set[tuple[str, int]] = set()
        self._stop_read, self._stop_write = os.pipe()
        self._thread: threading.Thread | None = None
        self._code: object = None
        self.works = False

    @property
    def before_exec(self) -> Callable[[], None]:
        """Puts the filter on the calling process and hands its listener over; never fails."""
        known, there = self._known, self._there.fileno()
        if known is None:
            return lambda: None
        arch, call, connect = known
        code = ctypes.create_string_buffer(_filter(arch, connect))
        program = _Program(len(code) // _INSTRUCTION.size, ctypes.addressof(code))
        # A filter without no_new_privs needs CAP_SYS_ADMIN, which the root of our namespace has.

        def install() -> None:
            descriptor = _LIBC.syscall(call, _SET_MODE_FILTER, _FLAG_NEW_LISTENER, ctypes.byref(program))
            sender = socket.socket(fileno=os.dup(there))
            with contextlib.suppress(OSError), sender:
                if descriptor >= 0:
                    socket.send_fds(sender, [b"y"], [descriptor])
                    os.close(descriptor)
                else:
                    sender.send(b"n")

        self._code = code  # the program points into it
        return install

    def start(self) -> None:
        """Begin to listen; call it once the child has been started."""
        self._there.close()
        if self._known is None:
            return
        try:
            answer, descriptors, _, _ = socket.recv_fds(self._here, 1, 1)
        except OSError:
            return
        if answer == b"y" and descriptors:
            self.works = True
            self._thread = threading.Thread(target=self._listen, args=(descriptors[0],), daemon=True)
            self._thread.start()

    def close(self) -> tuple[str, ...]:
        """Stop listening; the servers that were reached as `ADDRESS:PORT`, sorted.

        Name servers count only where nothing else was asked for.
        """
        os.close(self._stop_write)
        if self._thread is not None:
            self._thread.join()
        os.close(self._stop_read)
        self._here.close()
        places = {place for place in self._reached if place[1] != _DNS} or self._reached
        return tuple(sorted(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in places))

    def _listen(self, descriptor: int) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._stop_read, select.POLLHUP)
        try:
            while True:
                events = poll.poll()
                for ready, what in events:
                    if ready == descriptor and what & select.POLLIN:
                        self._answer(descriptor)
                    elif ready == descriptor:  # every program with the filter has ended
                        return
                if any(ready == self._stop_read for ready, _ in events):
                    return
        finally:
            # Closing it lets what may still run fail to connect (ENOSYS); by then the step's processes are ended.
            os.close(descriptor)

    def _answer(self, descriptor: int) -> None:
        buffer = bytearray(_NOTIF.size)
        try:
            fcntl.ioctl(descriptor, _IOC_RECV, buffer, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # it was killed meanwhile
                return
            raise
        number, pid, _, _, _, _, _, address, length, *_ = _NOTIF.unpack(buffer)
        with contextlib.suppress(OSError, ValueError, struct.error):
            self._note(pid, address, length)
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, _IOC_SEND, bytearray(_RESPONSE.pack(number, 0, 0, _NOTIF_CONTINUE)), True)

    def _note(self, pid: int, address: int, length: int) -> None:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - a file of the kernel
            memory.seek(address)
            data = memory.read(min(length, 128))
        (family,) = struct.unpack_from("=H", data)
        if family == socket.AF_INET:
            host: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv4Address(data[4:8])
        elif family == socket.AF_INET6:
            host = ipaddress.IPv6Address(data[8:24])
        else:
            return
        (port,) = struct.unpack_from("!H", data, 2)
        if not host.is_loopback and not host.is_unspecified:
            self._reached.add((str(host), port))
