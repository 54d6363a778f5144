"""The events table on HDFS as it is: its progress and its commits, counts of its records, and its clean-up by Delta."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession as SparkSession
from pyspark.sql import functions as F

from pipeline_lib.errors import LodeError, LostRace, ServerUnavailable
from pipeline_lib.io.spark import is_lost_race, transactions, unwrapped
from pipeline_lib.landing.expiry import EXPIRY, expired_before, to_version
from pipeline_lib.timespan import day_bounds, to_ms

_VACUUM_SETTINGS = {
    # Delta's own bound is 168 h; the command has its own.
    "spark.databricks.delta.retentionDurationCheck.enabled": "false",
    # Delta 4.4 takes RETAIN for the table's own retention (168 h) unless it is 0, and says so only in its log.
    "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled": "false",
    # Delta lists the table's folders in as many tasks as this says, by default 10,000: over 100 s for 20 files.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "16",
}

_TXN_APP, _TXN_VERSION = "spark.databricks.delta.write.txnAppId", "spark.databricks.delta.write.txnVersion"


@dataclass(frozen=True)
class UnnamedFile:
    path: str
    bytes: int
    modified: datetime


@dataclass(frozen=True)
class EventsSnapshot:
    """One version of the table. `progress` is by application transaction; `commits` are those of `lode land`."""

    version: int
    progress: Mapping[str, int]
    commits: Sequence[Mapping[str, Any]]

    @property
    def expired_before(self) -> date | None:
        """Landed days before this one were removed, by `lode expire`."""
        return expired_before(self.progress.get(EXPIRY))


@dataclass(frozen=True)
class LandedCount:
    """Landed records of one hour (of the Kafka timestamp) and zone; sum and xor are over their offsets."""

    topic_id: str
    partition: int
    hour: int
    zone: int
    ok: int
    quarantined: int
    offset_sum: int
    offset_xor: int
    duplicates: int
    late: int


class EventsTable:
    """A topic's events table; nothing here makes it or adds to it."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        self._spark = spark
        self._jvm: Any = spark._jvm
        self.path = path

    @property
    def exists(self) -> bool:
        try:
            return bool(DeltaTable.isDeltaTable(self._spark, self.path))
        except (Py4JJavaError, PySparkException) as error:
            raise ServerUnavailable(f"table {self.path}: {unwrapped(error)}") from None

    def snapshot(self) -> EventsSnapshot:
        version, progress = transactions(self._spark, self.path)
        rows = DeltaTable.forPath(self._spark, self.path).history().select("version", "userMetadata").collect()
        texts = [row["userMetadata"] for row in reversed(rows) if row["userMetadata"] and row["version"] <= version]
        commits = [json.loads(text)["lode"] for text in texts if '"lode"' in text]
        return EventsSnapshot(version, progress, commits)

    def count(
        self, version: int, borders: Mapping[tuple[str, int], Sequence[int]], since_ms: int, until_ms: int, late_ms: int
    ) -> Iterator[LandedCount]:
        """Records of a version whose timestamp is in [since, until), by hour and by zone.

        Args:
            borders: of each (topic id, partition): a record's zone is the number of borders at or below its offset.
            late_ms: an event is late if its time is more than this before its record's timestamp.
        """
        rows = self._spark.read.format("delta").option("versionAsOf", version).load(self.path)
        at = F.unix_millis("_timestamp")
        rows = rows.where((at >= since_ms) & (at < until_ms))
        late = (F.col("quality") == "ok") & (F.unix_millis("event_time") < at - late_ms)
        records = rows.groupBy("_topic_id", "_partition", "_offset").agg(
            F.expr("min(unix_millis(_timestamp)) div 3600000").alias("hour"),
            F.max((F.col("quality") == "ok").cast("int")).alias("ok"),
            ((F.count("*") > F.countDistinct("_index")) | (F.min("quality") != F.max("quality"))).alias("twice"),
            F.sum(late.cast("int")).alias("late"),
        )
        zones = F.expr(_zone_sql(borders))
        groups = records.groupBy("_topic_id", "_partition", "hour", zones.alias("zone")).agg(
            F.sum("ok").alias("ok"),
            F.sum(1 - F.col("ok")).alias("quarantined"),
            F.sum(F.col("_offset").cast("decimal(38,0)")).alias("sum"),
            F.bit_xor("_offset").alias("xor"),
            F.sum(F.col("twice").cast("int")).alias("duplicates"),
            F.sum("late").alias("late"),
        )
        try:
            found = groups.collect()
        except (Py4JJavaError, PySparkException) as error:
            raise ServerUnavailable(f"table {self.path}: {unwrapped(error)}") from None
        for row in found:
            yield LandedCount(
                row["_topic_id"], row["_partition"], row["hour"], row["zone"], row["ok"], row["quarantined"],
                int(row["sum"]), row["xor"], row["duplicates"], row["late"] or 0,
            )  # fmt: skip

    def unnamed_files(self, hours: int) -> list[UnnamedFile]:
        """What Delta's VACUUM would remove: files of no version within `hours`, and last changed before that."""
        rows = self._vacuum(f"RETAIN {hours} HOURS DRY RUN")
        return [found for row in rows if (found := self._status(row["path"])) is not None]

    def vacuum(self, hours: int) -> None:
        self._vacuum(f"RETAIN {hours} HOURS")

    def compact(self, since: date, until: date) -> tuple[int, int]:
        """Writes the small files of each partition of some days into few; the numbers of files before and after.

        Raises:
            LostRace: another compaction was faster.
        """
        where = f"date >= DATE'{since.isoformat()}' AND date < DATE'{until.isoformat()}'"
        try:
            rows = DeltaTable.forPath(self._spark, self.path).optimize().where(where).executeCompaction().collect()
        except (Py4JJavaError, PySparkException) as error:
            raise _refused(self.path, error) from None
        return int(rows[0]["metrics"]["numFilesRemoved"]), int(rows[0]["metrics"]["numFilesAdded"])

    def rows_before(self, day: date) -> dict[date, int]:
        """Rows by the days of event time before one, of records that came before it. A record that came later counts
        as fresh, however old its events; days before 2000 are none: those events have an impossible time."""
        rows = self._spark.read.format("delta").load(self.path).where(_before(day))
        return {row["date"]: row["count"] for row in rows.groupBy("date").count().collect()}

    def delete_before(self, day: date) -> None:
        """Removes the rows of `rows_before` in one commit that says so; the files stay until a vacuum.

        Raises:
            LostRace: another run changed one of the days.
        """
        known = expired_before(transactions(self._spark, self.path)[1].get(EXPIRY))
        # Delta leaves out a DELETE whose transaction is not newer than the one that it knows.
        moved = {} if known and known >= day else {_TXN_APP: EXPIRY, _TXN_VERSION: str(to_version(day))}
        try:
            with self._settings(moved):
                DeltaTable.forPath(self._spark, self.path).delete(_before(day))
        except (Py4JJavaError, PySparkException) as error:
            raise _refused(self.path, error) from None

    def _vacuum(self, how: str) -> list[Any]:
        try:
            with self._settings(_VACUUM_SETTINGS):
                return list(self._spark.sql(f"VACUUM delta.`{self.path}` {how}").collect())
        except (Py4JJavaError, PySparkException) as error:
            raise ServerUnavailable(f"table {self.path}: {unwrapped(error)}") from None

    @contextmanager
    def _settings(self, values: Mapping[str, str]) -> Iterator[None]:
        """The session with these settings for as long as the block runs."""
        try:
            for name, value in values.items():
                self._spark.conf.set(name, value)
            yield
        finally:
            for name in values:
                self._spark.conf.unset(name)

    def _status(self, path: str) -> UnnamedFile | None:
        """None for a folder: VACUUM also lists the empty ones."""
        where = self._jvm.org.apache.hadoop.fs.Path(path)
        files = where.getFileSystem(self._spark._jsparkSession.sessionState().newHadoopConf())
        if not files.exists(where) or (status := files.getFileStatus(where)).isDirectory():
            return None
        return UnnamedFile(path, int(status.getLen()), datetime.fromtimestamp(status.getModificationTime() / 1000, UTC))


def _before(day: date) -> str:
    until, _ = day_bounds(day, "UTC")
    return f"date >= DATE'2000-01-01' AND date < DATE'{day}' AND unix_millis(_timestamp) < {to_ms(until)}"


def _refused(path: str, error: Exception) -> LodeError:
    if is_lost_race(error):
        return LostRace(f"table {path}: a concurrent run changed these files first; run this again")
    return ServerUnavailable(f"table {path}: {unwrapped(error)}")


def _zone_sql(borders: Mapping[tuple[str, int], Sequence[int]]) -> str:
    """The number of borders at or below a row's offset."""
    cases = [
        f"WHEN _topic_id = '{topic_id}' AND _partition = {partition} THEN "
        + " + ".join(f"CAST(_offset >= {border} AS INT)" for border in own)
        for (topic_id, partition), own in borders.items()
        if own
    ]
    return f"CASE {' '.join(cases)} ELSE 0 END" if cases else "0"
