"""`python -m dibble.fleet.facts`: what this machine can build and boot, as JSON.

A program of its own, because it enters a namespace to find out, and a worker has threads that a fork would cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
from pathlib import Path

from dibble import __version__
from dibble.errors import HostError
from dibble.sandbox import binfmt
from dibble.sandbox.memory import available_bytes

_KVM_GET_API_VERSION, _KVM_API_VERSION, _KVM_CREATE_VM = 0xAE00, 12, 0xAE01  # linux/kvm.h


def main() -> None:
    print(
        json.dumps(
            {
                "version": __version__,
                "python": platform.python_version(),
                "native": binfmt.NATIVE.get(os.uname().machine, ()),
                "emulated": [arch for arch in binfmt.MACHINES if binfmt.is_foreign(arch) and _can_run(arch)],
                "kvm": has_kvm(Path("/dev/kvm")),
                "cores": len(os.sched_getaffinity(0)),
                "memory": available_bytes(),
            }
        )
    )


def _can_run(arch: str) -> bool:
    try:
        binfmt.check_can_run(arch)
    except HostError:
        return False
    return True


def has_kvm(device: Path) -> bool:
    """Whether the kernel makes a virtual machine for us. That the device can be opened says less."""
    descriptors = []
    with contextlib.suppress(OSError):
        descriptors.append(os.open(device, os.O_RDWR | os.O_CLOEXEC))
        if fcntl.ioctl(descriptors[0], _KVM_GET_API_VERSION) == _KVM_API_VERSION:
            descriptors.append(fcntl.ioctl(descriptors[0], _KVM_CREATE_VM, 0))
    for descriptor in descriptors:
        os.close(descriptor)
    return len(descriptors) == 2


if __name__ == "__main__":
    main()
