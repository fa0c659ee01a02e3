"""`dibble publish`: an image to where it will run: a cloud's catalogue, a bucket, a registry."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dibble import registry
from dibble.errors import DibbleError, UsageError
from dibble.recipe.load import cache_dir

if TYPE_CHECKING:
    from dibble.events import Events
    from dibble.publish.base import Properties, Publisher


@click.command(
    name="publish",
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Upload an image to a cloud, a bucket or a registry.",
)
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--to", "target", required=True, metavar="TARGET", help="ec2, openstack://CLOUD, /dev/sdb …")
@click.option("--name", metavar="NAME", help="Of the image in the cloud; default: that of the file.")
@click.option("-a", "--arch", metavar="ARCH", help="Default: what the image or its build tells.")
@click.option(
    "-p", "--property", "more", multiple=True, metavar="KEY=VALUE", help="As the place calls it; several allowed."
)
@click.option("--force", is_flag=True, help="Write over what a disk (/dev/…, iscsi://…) holds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines; the last one is the result.")
def publish(image: Path, **options: Any) -> None:
    """Upload IMAGE to TARGET, with properties that are derived from its build. A broken upload goes on when it is
    called again.

    \b
    dibble publish image.qcow2 --to openstack://mycloud
    dibble publish image.raw --to ec2://eu-north-1 --name web-1
    dibble publish image.qcow2 --to s3://images/web/
    dibble publish image.docker --to docker://registry.example.org/web:1
    dibble publish image.raw --to /dev/sdb
    dibble publish image.raw --to iscsi://192.0.2.1/iqn.2026-01.example:disk/1
    """
    from dibble.cli.display_json import JsonReporter
    from dibble.cli.display_plain import PlainReporter
    from dibble.events import Events

    as_json: bool = options["as_json"]
    events = Events([JsonReporter(sys.stdout) if as_json else PlainReporter(sys.stderr, timestamps=False)])
    try:
        where, ids, known = _publish(image, options, events)
    except DibbleError as error:
        if as_json:
            JsonReporter(sys.stdout).failed(error)
        raise
    if as_json:
        data = {"event": "Published", "image": str(image), "target": options["target"], "where": where, "ids": ids}
        click.echo(json.dumps({**data, "properties": known}))
    else:
        click.echo(where)


def _publish(image: Path, options: dict[str, Any], events: Events) -> tuple[str, dict[str, str], dict[str, Any]]:
    from dataclasses import asdict

    from dibble.publish.base import Publication
    from dibble.publish.progress import progress_of
    from dibble.store.image_fact import image_key

    target, name, more = options["target"], options["name"], options["more"]
    scheme, _, place = target.partition("://") if not target.startswith("/") else ("device", "", target)
    publisher: Publisher = registry.load("publishers", scheme)()
    if options["force"] and not getattr(publisher, "overwrites", False):
        raise UsageError(f"{scheme} overwrites nothing", hint="leave --force out; it is for disks: /dev/…, iscsi://…")
    properties = _properties(image, options["arch"])
    status = image.stat()
    mark = "-".join((*image_key(image), str(status.st_mtime_ns)))
    folder = cache_dir(os.environ) / "facts" / "publish"
    # Another name or property is another image: what a place was told at the beginning of an upload stays.
    asked = "\0".join((target, name or "", *sorted(more)))
    with progress_of(folder, image, target, f"{asked}\0{mark}") as progress:
        publication = Publication(
            image=image.resolve(),
            name=name or image.stem,
            place=place,
            properties=properties,
            progress=progress,
            events=events,
            environ=os.environ,
            cache=cache_dir(os.environ),
            more=_pairs(more),
            force=options["force"],
        )
        publisher.check(publication)
        published = publisher.publish(publication)
    return published.where, dict(published.ids), asdict(properties)


def _properties(image: Path, arch: str | None) -> Properties:
    """What is known of the image. Raises UsageError."""
    from dibble.publish.properties import properties_of
    from dibble.store.facts import Facts
    from dibble.store.image_fact import recall_image
    from dibble.store.places import Store

    try:
        fact = recall_image(Facts(Store(cache_dir(os.environ))), image)
    except OSError as error:
        raise UsageError(
            f"the image {image} cannot be read: {error.strerror}", hint="give the path of a file"
        ) from error
    found = properties_of(image, fact)
    return replace(found, arch=arch) if arch else found


def _pairs(more: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in more:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f'the property "{text}" has no value', hint="say -p KEY=VALUE")
        pairs[key] = value
    return pairs
