"""OpenStack's Glance (Image API v2): an image with its properties, then its data in one piece.

Glance has no uploads in pieces: data that was cut off is thrown away, and the image waits in the state "queued". The
next try sends the data again to that same image, so none is left behind.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, ClassVar

from dibble.errors import UsageError
from dibble.publish.base import Publication, Published, PublishError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dibble.events import RunningActivity

_PIECE = 1 << 20
_FORMATS = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vhd", "vhdx": "vhdx", "vdi": "vdi", "iso": "iso"}
_ARCHITECTURES = {
    "amd64": "x86_64", "i386": "i686", "arm64": "aarch64", "armhf": "armv7l", "ppc64el": "ppc64le",
}  # fmt: skip
"""Debian's name → `architecture` (Glance, "Useful image properties")."""
_BUSES = {"virtio": "virtio", "virtio-scsi": "scsi", "pvscsi": "scsi", "sata": "sata"}
_SCSI = {"virtio-scsi": "virtio-scsi", "pvscsi": "vmpvscsi"}
_CARDS = {"virtio": "virtio", "vmxnet3": "vmxnet3", "e1000e": "e1000e"}
_FIRMWARES = {"bios": "bios", "uefi": "uefi"}  # an image for both has none, and takes what the cloud has
_FIELDS = frozenset({"visibility", "min_disk", "min_ram", "protected", "container_format", "disk_format"})
_FAILED = 400


class OpenStack:
    """`openstack`, or `openstack://CLOUD` of a clouds.yaml; without one the variables OS_* count."""

    summary: ClassVar[str] = "OpenStack's Glance"
    place: ClassVar[str] = "[CLOUD]"

    def check(self, publication: Publication) -> None:
        if publication.properties.format not in _FORMATS:
            raise UsageError(
                f"{publication.image} is {publication.properties.format}, which Glance does not know",
                hint="build it as qcow2 or raw: -t qcow2",
            )

    def publish(self, publication: Publication) -> Published:
        cloud = publication.place or publication.environ.get("OS_CLOUD", "")
        where = f"the cloud {cloud}" if cloud else "the cloud of OS_AUTH_URL"
        try:
            import openstack
            from keystoneauth1.exceptions import ClientException
            from openstack.exceptions import ConfigException, SDKException
        except ImportError as error:
            raise UsageError(
                "publishing to OpenStack needs openstacksdk", hint="pip install 'dibble[openstack]'"
            ) from error
        try:
            image = self._send(openstack.connect(cloud=cloud or None).image, publication, where)
        except ConfigException as error:
            raise UsageError(
                f"{where}: {error}", hint="name a cloud of your clouds.yaml, or set OS_AUTH_URL …"
            ) from error
        except (ClientException, SDKException) as error:
            raise PublishError(f"{where}: {error}", hint="mend that and publish again") from error
        publication.progress.finish()
        return Published(image, {"image": image})

    def _send(self, glance: Any, publication: Publication, where: str) -> str:
        image = _waiting_image(glance, publication)
        if image:
            publication.events.note(f"going on with the image {image}, which waits for its data")
        else:
            image = str(_answer(glance.post("/images", json=description(publication)), where)["id"])
            publication.progress.begin(image=image)
        size = publication.image.stat().st_size
        with publication.image.open("rb") as file, publication.events.activity("upload") as activity:
            sent = glance.put(
                f"/images/{image}/file",
                data=_Counted(file, size, activity),
                headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
                connect_retries=0,  # what was read of the file is gone
            )
        _answer(sent, where)
        state = _answer(glance.get(f"/images/{image}"), where)["status"]
        if state not in ("active", "importing"):
            raise PublishError(f"{where}: the image {image} is {state} after its upload", hint="publish again")
        return image


def description(publication: Publication) -> dict[str, Any]:
    """What POST /v2/images is given."""
    known = publication.properties
    derived: dict[str, Any] = {
        "name": publication.name,
        "disk_format": _FORMATS[known.format],
        "container_format": "bare",
        "visibility": "private",
        "min_disk": known.min_disk_gib,
        "min_ram": known.min_memory_mib,
        "architecture": _ARCHITECTURES.get(known.arch, known.arch),
        "hw_firmware_type": _FIRMWARES.get(known.firmware, ""),
        "hw_disk_bus": _BUSES.get(known.disk_bus, ""),
        "hw_scsi_model": _SCSI.get(known.disk_bus, ""),
        "hw_vif_model": _CARDS.get(known.network, ""),
        "os_distro": known.distro,
        "os_version": known.release,
    }
    more: dict[str, Any] = dict(publication.more)
    for name in ("min_disk", "min_ram"):
        if name in more:
            try:
                more[name] = int(more[name])
            except ValueError:
                raise UsageError(f'"{name}={more[name]}" is not a whole number', hint=f"say -p {name}=2") from None
    if "protected" in more:
        more["protected"] = more["protected"] in ("true", "yes", "1")
    return {key: value for key, value in {**derived, **more}.items() if value != "" or key in _FIELDS}


def _waiting_image(glance: Any, publication: Publication) -> str:
    """The image that an earlier try made and that still waits for data; empty when there is none."""
    known = publication.progress.upload.get("image", "")
    if not known:
        return ""
    found = glance.get(f"/images/{known}")
    if found.status_code < _FAILED and found.json().get("status") == "queued":
        return known
    publication.events.note(f"the image {known} of an earlier try is not waiting any more: another one is made")
    return ""


def _answer(response: Any, where: str) -> dict[str, Any]:
    if response.status_code >= _FAILED:
        raise PublishError(
            f"{where} answers {response.status_code} {response.reason}", hint="may you upload images there?"
        )
    found: dict[str, Any] = response.json() if response.content else {}
    return found


class _Counted:
    """A file that tells how much of it was read; `requests` sends what it iterates over and takes the length."""

    def __init__(self, file: IO[bytes], size: int, activity: RunningActivity) -> None:
        self._file = file
        self._size = size
        self._activity = activity

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(_PIECE):
            yield data

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._activity.progress(self._file.tell(), self._size, "bytes")
        return data
