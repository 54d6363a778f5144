"""The archive's Delta table on S3, by delta-rs.

boto3 stores the segments (s3.py); this makes them visible. A commit carries several application transactions and one
JSON value of Lode's, which Spark's writer cannot do.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from pipeline_lib.archive.segment import SEGMENT, Segment
from pipeline_lib.config import S3Settings
from pipeline_lib.errors import ConfigError, LodeError, LostRace, ServerUnavailable

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
