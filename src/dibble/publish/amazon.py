"""Clients of Amazon's protocols, and their errors as ours. Credentials are found by boto3 and never seen here."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from dibble.errors import UsageError
from dibble.publish.base import PublishError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ATTEMPTS = 8
_CONNECTIONS = 32


def client(service: str, environ: Mapping[str, str], region: str = "") -> Any:  # boto3 has no types
    """A client of `service`, with boto3's own rules for credentials, region and end points. Raises UsageError."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise UsageError("publishing to Amazon's protocols needs boto3", hint="pip install 'dibble[aws]'") from error
    from botocore.exceptions import BotoCoreError

    attempts = int(environ["AWS_MAX_ATTEMPTS"]) if environ.get("AWS_MAX_ATTEMPTS", "").isdigit() else _ATTEMPTS
    config = Config(retries={"mode": "standard", "max_attempts": attempts}, max_pool_connections=_CONNECTIONS)
    try:
        return boto3.client(service, region_name=region or None, config=config)
    except (BotoCoreError, ValueError) as error:
        raise UsageError(
            f"no client for {service}: {error}", hint="set AWS_REGION, or name one: ec2://REGION"
        ) from error


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Tell what boto3 raises as a PublishError about `where`."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    except ImportError:  # told by `client`
        yield
        return
    try:
        yield
    except NoCredentialsError as error:
        raise PublishError(
            f"{where}: there are no credentials", hint="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except ClientError as error:
        said = error.response.get("Error", {})
        raise PublishError(
            f"{where} does not take the image: {said.get('Message') or said.get('Code')} ({error.operation_name})",
            hint="mend that and publish again: what was sent counts",
        ) from error
    except BotoCoreError as error:
        raise PublishError(f"{where}: {error}", hint="publish again: what was sent counts") from error
