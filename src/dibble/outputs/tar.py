"""The finished tree as an archive, plain or compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dibble.outputs.base import OutputInfo
from dibble.outputs.tar_file import TarWriter

if TYPE_CHECKING:
    from pathlib import Path

    from dibble.events import RunningActivity
    from dibble.outputs.base import Writing
    from dibble.outputs.compressed import Put, Stream


class Tar:
    """`N.tar`."""

    info: ClassVar[OutputInfo] = OutputInfo(suffix="tar", reads="tree", summary="the tree as a pax archive")

    def write(self, writing: Writing) -> None:
        with writing.target_file.open("wb") as file, writing.events.activity(self.info.suffix) as activity:
            self._write(writing.root, file.write, writing.epoch, activity)

    def _write(self, root: Path, put: Put, epoch: int, activity: RunningActivity) -> None:
        from dibble.outputs.compressed import behind

        with behind(put) as later:
            TarWriter(later, epoch, activity).write_tree(root)


class _Compressed(Tar):
    def _write(self, root: Path, put: Put, epoch: int, activity: RunningActivity) -> None:
        with self._stream(put) as stream:
            TarWriter(stream.write, epoch, activity).write_tree(root)
            stream.finish()

    def _stream(self, put: Put) -> Stream:
        raise NotImplementedError


class TarGz(_Compressed):
    """`N.tar.gz`."""

    info = OutputInfo(suffix="tar.gz", reads="tree", summary="that archive, compressed with gzip")

    def _stream(self, put: Put) -> Stream:
        from dibble.outputs.compressed import Gzip

        return Gzip(put)


class Tgz(TarGz):
    """`N.tgz`: the same under the name that diskimage-builder gives it."""

    info = OutputInfo(suffix="tgz", reads="tree", summary="the same as tar.gz")


class TarXz(_Compressed):
    """`N.tar.xz`."""

    info = OutputInfo(suffix="tar.xz", reads="tree", summary="that archive, compressed with xz")

    def _stream(self, put: Put) -> Stream:
        from dibble.outputs.compressed import Xz

        return Xz(put)


class TarZst(_Compressed):
    """`N.tar.zst`."""

    info = OutputInfo(suffix="tar.zst", reads="tree", summary="that archive, compressed with zstd")

    def _stream(self, put: Put) -> Stream:
        from dibble.outputs.compressed import Zstd

        return Zstd(put)
