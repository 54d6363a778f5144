"""S3: objects by boto3, the archive's Delta log by delta-rs. Any store will do that honours If-None-Match."""

import base64
import hashlib
import re
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import boto3
import pyarrow as pa
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from pipeline_lib.config import S3Settings
from pipeline_lib.errors import ConfigError, LodeError, LostRace, ServerUnavailable
from pipeline_lib.segment import SEGMENT, Segment

T = TypeVar("T")

_COLOUR = re.compile("\x1b\\[[0-9;]*m")
METADATA_KEY = "lode"
"""Where a Lode commit keeps its JSON in Delta's commitInfo."""

_CONFIGURATION = {
    # The log is the archive's manifest: its commits are evidence and are never cleaned up.
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "50",
}
_PARTITIONED_BY = ["topic_id", "partition"]
_TABLE_SCHEMA = SEGMENT.insert(0, pa.field("partition", pa.int32())).insert(0, pa.field("topic_id", pa.string()))


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


class ArchiveTable:
    """The Delta table of one topic's segments, as it was when it was opened."""

    def __init__(self, settings: S3Settings, path: str) -> None:
        self.settings = settings
        self.path = path
        self._table = self._open()

    def _open(self) -> DeltaTable | None:
        try:
            return DeltaTable(self._uri, storage_options=self._options)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise self._explained(error) from None

    @property
    def _uri(self) -> str:
        return f"s3://{self.settings.bucket}/{self.settings.prefix}{self.path}"

    @property
    def _options(self) -> dict[str, str]:
        options = {
            "AWS_ACCESS_KEY_ID": self.settings.access_key.get_secret_value(),
            "AWS_SECRET_ACCESS_KEY": self.settings.secret_key.get_secret_value(),
            "AWS_REGION": self.settings.region,
            "aws_conditional_put": "etag",
            "timeout": f"{self.settings.timeout_s}s",
            "max_retries": "3",
            "retry_timeout": f"{self.settings.timeout_s}s",
        }
        if self.settings.endpoint:
            options |= {"AWS_ENDPOINT_URL": self.settings.endpoint, "AWS_ALLOW_HTTP": "true"}
        return options

    @property
    def exists(self) -> bool:
        return self._table is not None

    @property
    def version(self) -> int:
        return self._table.version() if self._table else -1

    def create(self) -> None:
        """Makes the table where there is none; of two that make it at once both end with the same one."""
        if self._table:
            return
        try:
            DeltaTable.create(
                self._uri,
                Schema.from_arrow(_TABLE_SCHEMA),
                mode="ignore",
                partition_by=_PARTITIONED_BY,
                configuration=_CONFIGURATION,
                storage_options=self._options,
            )
        except CommitFailedError:
            pass  # another run made it in this moment
        except (DeltaError, OSError) as error:
            raise self._explained(error) from None
        self._table = self._open()

    def progress(self, app_ids: Mapping[int, str]) -> dict[int, int]:
        """Next offset of each partition that was ever archived, from the application transactions."""
        found = {p: self._table.transaction_version(app) for p, app in app_ids.items()} if self._table else {}
        return {p: int(at) for p, at in found.items() if at is not None}

    def commits(self) -> list[str]:
        """The JSON of each Lode commit, oldest first."""
        try:
            history = self._table.history() if self._table else []
        except (DeltaError, OSError) as error:
            raise self._explained(error) from None
        return [entry[METADATA_KEY] for entry in reversed(history) if METADATA_KEY in entry]

    def files(self) -> set[str]:
        """The paths, relative to the table, of the objects that make up its newest version."""
        if not self._table:
            return set()
        return set(pa.table(self._table.get_add_actions())["path"].to_pylist())

    def live_files(self) -> list[dict[str, Any]]:
        """What Delta knows of those objects: path, size_bytes, num_records, min.COLUMN and max.COLUMN."""
        return pa.table(self._table.get_add_actions(flatten=True)).to_pylist() if self._table else []

    def commit(self, segments: Sequence[Segment], metadata: str, transactions: Mapping[str, int]) -> None:
        """Makes segments visible and moves progress, in one commit on the version that was opened.

        Raises:
            LostRace: another commit moved one of the same application transactions since.
        """
        assert self._table is not None
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(s.path, s.bytes, {"topic_id": s.topic_id, "partition": str(s.partition)}, now, True, s.stats())
            for s in segments
        ]
        properties = CommitProperties(
            custom_metadata={METADATA_KEY: metadata},
            app_transactions=[Transaction(app, version, now) for app, version in transactions.items()],
        )
        try:
            self._table.create_write_transaction(
                actions, "append", Schema.from_arrow(_TABLE_SCHEMA), _PARTITIONED_BY, commit_properties=properties
            )
        except CommitFailedError as error:
            raise LostRace(f"archive {self.path}: a concurrent run committed these offsets first ({error})") from None
        except (DeltaError, OSError) as error:
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> LodeError:
        """delta-rs tells what S3 answered in a tree of coloured lines: as one line, and by the words that only S3 uses."""
        answer = " ".join(_COLOUR.sub("", str(error)).split())
        text = f"S3 at {self.settings.endpoint or 'AWS'}: bucket {self.settings.bucket!r}: table {self.path}: {answer}"
        mistakes = ("NoSuchBucket", "SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "403 Forbidden")
        if any(word in answer for word in mistakes):
            return ConfigError(text)
        return ServerUnavailable(text) if "Generic S3 error" in answer else LodeError(text)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
