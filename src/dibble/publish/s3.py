"""An S3-compatible store: one object, sent in parts, several at once. The store itself knows which parts it has."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

from dibble.errors import UsageError
from dibble.publish.amazon import client, explained
from dibble.publish.base import Publication, Published

if TYPE_CHECKING:
    from pathlib import Path

_PART = 16 << 20
_MOST_PARTS = 10_000  # Amazon S3, "Multipart upload limits"; at least 5 MiB a part
_THREADS = 4


class S3:
    """`s3://BUCKET/KEY`; a KEY that ends with `/`, or none, gets the image's name."""

    summary: ClassVar[str] = "a bucket of S3, or of a store that speaks its protocol (AWS_ENDPOINT_URL)"
    place: ClassVar[str] = "BUCKET[/KEY]"

    def check(self, publication: Publication) -> None:
        if not publication.place.partition("/")[0]:
            raise UsageError("s3:// names no bucket", hint="say --to s3://BUCKET/KEY")

    def publish(self, publication: Publication) -> Published:
        bucket, _, key = publication.place.partition("/")
        if not key or key.endswith("/"):
            key += publication.image.name
        where = f"s3://{bucket}/{key}"
        with explained(where):
            store = client("s3", publication.environ)
            upload = _upload(store, bucket, key, publication)
            parts = _send(store, bucket, key, upload, publication)
            store.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
        publication.progress.finish()
        return Published(where, {"object": where})


def metadata(publication: Publication) -> dict[str, str]:
    """The properties as headers of the object."""
    known = publication.properties
    derived = {
        "architecture": known.arch, "firmware": known.firmware, "disk-format": known.format,
        "disk-bus": known.disk_bus, "os-distro": known.distro, "os-version": known.release,
        "min-disk": str(known.min_disk_gib), "virtual-size": str(known.virtual_size),
    }  # fmt: skip
    return {key: value for key, value in {**derived, **publication.more}.items() if value}


def part_size(size: int) -> int:
    """Bytes of a part, whole MiB, so that there are not more parts than allowed."""
    return max(_PART, (-(-size // _MOST_PARTS) + (1 << 20) - 1) >> 20 << 20)


def _upload(store: Any, bucket: str, key: str, publication: Publication) -> str:
    """The id of the upload that an earlier try began, if the store still has it, or of a new one."""
    progress = publication.progress
    known = progress.upload.get("upload", "")
    if known:
        try:
            store.list_parts(Bucket=bucket, Key=key, UploadId=known, MaxParts=1)
        except store.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchUpload", "404"):
                raise
            publication.events.note(f"the store has dropped the upload of {publication.image.name}: it begins anew")
        else:
            return known
    begun = store.create_multipart_upload(
        Bucket=bucket, Key=key, ContentType="application/octet-stream", Metadata=metadata(publication)
    )
    progress.begin(upload=begun["UploadId"])
    return str(begun["UploadId"])


def _send(store: Any, bucket: str, key: str, upload: str, publication: Publication) -> list[dict[str, Any]]:
    """Send the parts that are missing; all of them, in order, as S3 wants them listed.

    A part counts as there when the store's ETag is the MD5 of ours. Where the store encrypts with keys of its own that
    does not hold, and the part is sent again.
    """
    size = publication.image.stat().st_size
    step = part_size(size)
    there = _parts_there(store, bucket, key, upload)
    lock = threading.Lock()
    sent = 0

    def send(number: int) -> dict[str, Any]:
        nonlocal sent
        data = _read(publication.image, number * step, step)
        tag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        if there.get(number + 1) != tag:
            answer = store.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number + 1, Body=data)
            tag = str(answer["ETag"])
        with lock:
            sent += len(data)
            activity.progress(sent, size, "bytes")
        return {"PartNumber": number + 1, "ETag": tag}

    if there:
        publication.events.note(f"going on with the upload of {publication.image.name}: {len(there)} parts are there")
    with publication.events.activity("upload") as activity, ThreadPoolExecutor(_THREADS) as pool:
        waiting = [pool.submit(send, number) for number in range(max(1, -(-size // step)))]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _parts_there(store: Any, bucket: str, key: str, upload: str) -> dict[int, str]:
    pages = store.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=upload)
    return {part["PartNumber"]: part["ETag"] for page in pages for part in page.get("Parts", ())}


def _read(image: Path, start: int, size: int) -> bytes:
    descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)
