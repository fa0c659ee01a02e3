"""One file copied with all that a package says about it: owner, mode, times, extended attributes."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

_NO_RANGE = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def copy_file(source: bytes, target: bytes) -> None:
    """Copy a file, link or special file to a path where nothing is, with its metadata. Raises OSError.

    The data is moved inside the kernel; on a file system with reflinks it is shared.
    """
    status = os.lstat(source)
    if stat.S_ISREG(status.st_mode):
        _copy_regular(source, target)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)  # noqa: PTH115, PTH211 - bytes
    elif stat.S_ISFIFO(status.st_mode):
        os.mkfifo(target)
    else:
        os.mknod(target, status.st_mode, status.st_rdev)
    copy_metadata(source, target, status)


def copy_metadata(source: bytes, target: bytes, status: os.stat_result) -> None:
    """Give `target` the owner, mode, extended attributes and times in `status`, which is that of `source`."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))  # noqa: PTH101 - bytes; after chown, which clears setuid bits
        for name in os.listxattr(source):
            with contextlib.suppress(FileNotFoundError):
                os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _copy_regular(source: bytes, target: bytes) -> None:
    """Copy a file. What comes to life as it should be is not set again: through an overlay, each call is a dear one."""
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        wanted = os.fstat(reading)
        mode = stat.S_IMODE(wanted.st_mode)
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o777)
        try:
            _copy_data(reading, writing, wanted.st_size)
            made = os.fstat(writing)
            if (made.st_uid, made.st_gid) != (wanted.st_uid, wanted.st_gid):
                os.fchown(writing, wanted.st_uid, wanted.st_gid)
            if stat.S_IMODE(os.fstat(writing).st_mode) != mode:  # after chown, which clears setuid bits
                os.fchmod(writing, mode)
            for name in os.listxattr(reading):
                with contextlib.suppress(FileNotFoundError):
                    os.setxattr(writing, name, os.getxattr(reading, name))
            os.utime(writing, ns=(wanted.st_atime_ns, wanted.st_mtime_ns))
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_data(reading: int, writing: int, size: int) -> None:
    left = size
    in_kernel = True
    while left:
        try:
            if in_kernel:
                done = os.copy_file_range(reading, writing, min(left, 1 << 30))
            else:
                done = os.sendfile(writing, reading, None, min(left, 1 << 30))
        except OSError as error:
            if error.errno not in _NO_RANGE or not in_kernel:
                raise
            in_kernel = False  # not between these file systems (copy_file_range(2)); the offsets are kept
            continue
        if not done:
            break
        left -= done
