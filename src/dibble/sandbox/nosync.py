"""Lets a program's calls that wait for the disk succeed at once (seccomp(2)).

For tools whose files are thrown away when the build is cut short: waiting for them gains nothing. mke2fs and qemu-img
sync what they wrote, which takes seconds on a busy disk. Where kernel or architecture do not know this, they wait.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)

# uname -m → (AUDIT_ARCH of linux/audit.h, numbers of sync, fsync, fdatasync, sync_file_range, syncfs)
_CALLS = {
    "x86_64": (0xC000003E, (162, 74, 75, 277, 306)),
    "aarch64": (0xC00000B7, (81, 82, 83, 84, 267)),
    "ppc64le": (0xC0000015, (36, 118, 148, 308, 348)),
    "s390x": (0x80000016, (36, 118, 148, 307, 338)),
    "riscv64": (0xC00000F3, (81, 82, 83, 84, 267)),
}
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2  # linux/prctl.h, linux/seccomp.h
_RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000  # with errno 0: the call is not made and returns 0
_INSTRUCTION = struct.Struct("=HBBI")  # sock_filter
_LD_ABS, _JEQ, _RET = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K


class _Program(ctypes.Structure):
    """struct sock_fprog, linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def without_syncs() -> Callable[[], None]:
    """What a child does before exec, so that it and all that it starts never wait for the disk; never fails.

    The filter needs CAP_SYS_ADMIN, which the root of our namespace has.
    """
    known = _CALLS.get(os.uname().machine)
    if known is None:
        return lambda: None
    code = ctypes.create_string_buffer(_filter(*known))
    program = _Program((len(code) - 1) // _INSTRUCTION.size, ctypes.addressof(code))

    def install(_: object = code) -> None:  # the program points into `code`
        _LIBC.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)

    return install


def _filter(arch: int, calls: tuple[int, ...]) -> bytes:
    count = len(calls)
    instructions = [
        (_LD_ABS, 0, 0, 4),  # seccomp_data.arch
        (_JEQ, 0, count + 1, arch),  # of another architecture: allow
        (_LD_ABS, 0, 0, 0),  # seccomp_data.nr
        *((_JEQ, count - number, 0, call) for number, call in enumerate(calls)),
        (_RET, 0, 0, _RET_ALLOW),
        (_RET, 0, 0, _RET_ERRNO),
    ]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)
