"""S3: objects, by boto3. Any store will do that honours If-None-Match."""

import base64
import hashlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
import pyarrow as pa
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError

from pipeline_lib.config import S3Settings
from pipeline_lib.errors import ConfigError, ServerUnavailable


@dataclass(frozen=True)
class StoredObject:
    key: str
    bytes: int
    modified: datetime


class S3:
    """One bucket, below the configured prefix: every key that goes in or comes out is relative to it."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self._client = boto3.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region,
            aws_access_key_id=settings.access_key.get_secret_value(),
            aws_secret_access_key=settings.secret_key.get_secret_value(),
            config=BotoConfig(
                connect_timeout=settings.timeout_s,
                read_timeout=settings.timeout_s,
                retries={"mode": "standard", "max_attempts": 5},
                s3={"addressing_style": "path" if settings.endpoint else "auto"},
            ),
        )
        weakref.finalize(self, self._client.close)

    def put(self, key: str, data: bytes | pa.Buffer) -> None:
        """Stores an object; the server checks the SHA-256 that goes with it."""
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        self._call("put_object", Key=key, Body=pa.BufferReader(data), ChecksumSHA256=digest)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Stores an object unless there is one; False where another was first."""
        try:
            self._call("put_object", Key=key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                return False
            raise
        return True

    def get(self, key: str, span: tuple[int, int] | None = None) -> bytes | None:
        """The object's bytes, or those of [first, end); None where there is no such object."""
        part = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}
        try:
            return bytes(self._call("get_object", Key=key, **part)["Body"].read())
        except ClientError as error:
            if _code(error) in ("NoSuchKey", "404"):
                return None
            raise

    def list(self, folder: str) -> Iterator[StoredObject]:
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=folder, **token)
            for entry in page.get("Contents", ()):
                yield StoredObject(
                    entry["Key"].removeprefix(self.settings.prefix), entry["Size"], entry["LastModified"]
                )
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def folders(self, folder: str) -> Sequence[str]:
        """The names of the folders right below one; `folder` ends with a slash."""
        page = self._call("list_objects_v2", Prefix=folder, Delimiter="/")
        names = [entry["Prefix"].removeprefix(self.settings.prefix) for entry in page.get("CommonPrefixes", ())]
        return [name.removeprefix(folder).rstrip("/") for name in names]

    def delete(self, key: str) -> None:
        self._call("delete_object", Key=key)

    def create_bucket(self) -> None:
        """Makes the bucket where it is not there: for local stacks; a production bucket is its owner's to make."""
        try:
            self._client.create_bucket(Bucket=self.settings.bucket)
        except ClientError as error:
            if _code(error) not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise self._explained(error) from None

    def _call(self, method: str, **arguments: Any) -> Any:
        for name in ("Key", "Prefix"):
            if name in arguments:
                arguments[name] = self.settings.prefix + arguments[name]
        try:
            return getattr(self._client, method)(Bucket=self.settings.bucket, **arguments)
        except ClientError as error:
            raise self._explained(error) from None
        except BotoCoreError as error:
            raise ServerUnavailable(f"S3 at {self.settings.endpoint or 'AWS'}: {error}") from None

    def _explained(self, error: ClientError) -> Exception:
        code, where = _code(error), f"S3 at {self.settings.endpoint or 'AWS'}"
        if code == "NoSuchBucket":
            return ConfigError(f"{where}: bucket {self.settings.bucket!r} does not exist; create it or mend s3.bucket")
        if code in ("SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "403"):
            return ConfigError(f"{where}: {code} for bucket {self.settings.bucket!r}: check the access and secret key")
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            return ServerUnavailable(f"{where}: {error}")
        return error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
