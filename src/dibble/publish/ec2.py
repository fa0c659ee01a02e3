"""EC2: a snapshot written block by block through the EBS direct APIs, and an image (AMI) of it. No bucket is needed.

Only blocks with data are sent. A snapshot that was begun stays open for three days after the last block.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

from dibble.errors import UsageError
from dibble.publish.amazon import client, explained
from dibble.publish.base import Publication, Published, PublishError
from dibble.store.sparse import data_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512 << 10
"""EBS direct APIs, PutSnapshotBlock: the one size of a block."""
_OPEN_MINUTES = 4320  # StartSnapshot, Timeout: the most
_THREADS = 16
_POLL_S = 5.0
_COMPLETE_S = 3600.0
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64", "i386": "i386"}
_BOOT_MODES = {"bios": "legacy-bios", "uefi": "uefi", "both": "uefi-preferred"}


class Ec2:
    """`ec2`, or `ec2://REGION`."""

    summary: ClassVar[str] = "Amazon EC2: an EBS snapshot and an AMI"
    place: ClassVar[str] = "[REGION]"

    def check(self, publication: Publication) -> None:
        known = publication.properties
        if known.format != "raw":
            raise UsageError(
                f"{publication.image} is {known.format}; EBS takes the plain disk", hint="build it as raw: -t raw"
            )
        if known.arch not in _ARCHITECTURES:
            raise UsageError(
                f"EC2 has no machines of the architecture {known.arch}" if known.arch
                else f"nothing tells the architecture of {publication.image}",
                hint="say --arch amd64 or arm64",
            )  # fmt: skip

    def publish(self, publication: Publication) -> Published:
        with explained("EC2"):
            blocks = client("ebs", publication.environ, publication.place)
            machines = client("ec2", publication.environ, publication.place)
            snapshot = publication.progress.upload.get("complete") or self._send(blocks, publication)
            _wait(machines, snapshot, publication)
            image = _register(machines, snapshot, publication)
        publication.progress.finish()
        return Published(image, {"image": image, "snapshot": snapshot})

    def _send(self, blocks: Any, publication: Publication) -> str:
        snapshot = publication.progress.upload.get("snapshot", "")
        if snapshot:
            count = len(publication.progress.done)
            publication.events.note(f"going on with the snapshot {snapshot}: {count} blocks are there")
        else:
            snapshot = _start(blocks, publication)
        try:
            sent = _put_blocks(blocks, snapshot, publication)
        except blocks.exceptions.ResourceNotFoundException:
            publication.events.note(f"the snapshot {snapshot} is gone: it begins anew")
            snapshot = _start(blocks, publication)
            sent = _put_blocks(blocks, snapshot, publication)
        blocks.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=sent)
        publication.progress.begin(complete=snapshot)
        return snapshot


def _start(blocks: Any, publication: Publication) -> str:
    begun = blocks.start_snapshot(
        VolumeSize=publication.properties.min_disk_gib,
        Timeout=_OPEN_MINUTES,
        Description=f"{publication.name} by dibble",
        Tags=[{"Key": "Name", "Value": publication.name}],
    )
    snapshot = str(begun["SnapshotId"])
    publication.progress.begin(snapshot=snapshot)
    return snapshot


def _put_blocks(blocks: Any, snapshot: str, publication: Publication) -> int:
    """Send the blocks with data that are missing, several at once; the number of all that the snapshot then has."""
    done = set(publication.progress.done)
    size = publication.image.stat().st_size
    source = os.open(publication.image, os.O_RDONLY | os.O_CLOEXEC)
    room = threading.Semaphore(4 * _THREADS)  # blocks in memory
    stop = threading.Event()

    def put(index: int, data: bytes) -> None:
        try:
            if stop.is_set():
                return
            blocks.put_snapshot_block(
                SnapshotId=snapshot,
                BlockIndex=index,
                BlockData=data,
                DataLength=BLOCK,
                Checksum=base64.b64encode(hashlib.sha256(data).digest()).decode(),
                ChecksumAlgorithm="SHA256",
            )
            publication.progress.add(str(index))
        except BaseException:
            stop.set()
            raise
        finally:
            room.release()

    count = 0
    try:
        with publication.events.activity("upload") as activity, ThreadPoolExecutor(_THREADS) as pool:
            waiting = []
            for index, data in data_blocks(source, size):
                if stop.is_set():
                    break
                count += 1
                if str(index) not in done:
                    room.acquire()
                    waiting.append(pool.submit(put, index, data))
                activity.progress(min(size, (index + 1) * BLOCK), size, "bytes")
            for future in waiting:
                future.result()
    finally:
        stop.set()
        os.close(source)
    return count


def data_blocks(source: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Index and content of each block that is not all zeros, in order; the last one is filled up with zeros."""
    nothing = bytes(BLOCK)
    seen = -1
    for start, length in data_ranges(source, 0, size):
        for index in range(max(seen + 1, start // BLOCK), -(-(start + length) // BLOCK)):
            seen = index
            data = os.pread(source, BLOCK, index * BLOCK).ljust(BLOCK, b"\0")
            if data != nothing:
                yield index, data


def _wait(machines: Any, snapshot: str, publication: Publication) -> None:
    """Until EBS has put the snapshot together."""
    until = time.monotonic() + _COMPLETE_S
    with publication.events.activity("snapshot"):
        while True:
            state = machines.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"]
            if state == "completed":
                return
            if state == "error":
                publication.progress.forget()
                raise PublishError(f"EBS could not put the snapshot {snapshot} together", hint="publish again")
            if time.monotonic() > until:
                raise PublishError(f"the snapshot {snapshot} is still {state}", hint="publish again to go on waiting")
            time.sleep(_POLL_S)


def _register(machines: Any, snapshot: str, publication: Publication) -> str:
    known = publication.properties
    device = "/dev/xvda"
    asked: dict[str, Any] = {
        "Name": publication.name,
        "Description": f"{known.distro} {known.release}".strip() or publication.name,
        "Architecture": _ARCHITECTURES[known.arch],
        "VirtualizationType": "hvm",
        "EnaSupport": True,
        "RootDeviceName": device,
        "BlockDeviceMappings": [
            {"DeviceName": device, "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": True}}
        ],
        "ImdsSupport": "v2.0",
    }
    if known.arch == "amd64" and known.firmware:
        asked["BootMode"] = _BOOT_MODES[known.firmware]
    elif known.arch == "arm64":
        asked["BootMode"] = "uefi"
    image = str(machines.register_image(**asked, **publication.more)["ImageId"])
    tags = {"Name": publication.name, "os_distro": known.distro, "os_version": known.release}
    machines.create_tags(Resources=[image], Tags=[{"Key": key, "Value": value} for key, value in tags.items() if value])
    return image
