"""What the analyses read and write: events as frames, sources from outside, and the table of results on HDFS."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from pipeline_lib.errors import ConfigError, LostRace
from pipeline_lib.io.spark import is_lost_race, transactions, unwrapped
from pipeline_lib.landing.expiry import EXPIRY, expired_before

_PROPERTIES = {"delta.logRetentionDuration": "interval 3650 days"}


def read_events(spark: SparkSession, path: str, version: int, since: datetime, until: datetime) -> DataFrame:
    """Decoded events of one version of an events table with an event time in [since, until), and those of an impossible
    time whose record came in that span."""
    rows = spark.read.format("delta").option("versionAsOf", version).load(path).where("quality = 'ok'")
    near = (F.col("date") >= F.lit(since.date())) & (F.col("date") <= F.lit(until.date()))
    near &= (F.col("event_time") >= F.lit(since)) & (F.col("event_time") < F.lit(until))
    odd = (F.col("date") < F.lit(date(2000, 1, 1))) | (F.col("date") > F.lit(until.date()))
    odd &= (F.col("_timestamp") >= F.lit(since)) & (F.col("_timestamp") < F.lit(until))
    return rows.where(near | odd)


def read_quarantined(spark: SparkSession, path: str, version: int, since: datetime, until: datetime) -> DataFrame:
    """`_timestamp`, in [since, until), and `reason` of quarantined records: the first word of what landing said."""
    rows = spark.read.format("delta").option("versionAsOf", version).load(path).where("quality = 'quarantined'")
    near = (F.col("date") >= F.lit(since.date())) & (F.col("date") <= F.lit(until.date()))
    near &= (F.col("_timestamp") >= F.lit(since)) & (F.col("_timestamp") < F.lit(until))
    return rows.where(near).select("_timestamp", F.regexp_extract("_reason", r"^[A-Za-z0-9_]+", 0).alias("reason"))


def read_export(spark: SparkSession, folder: str) -> DataFrame:
    """Optimizely's Enriched Events Export (E3): Parquet below type=decisions and type=events, as rows of an events table.

    The partition folders are by the day of processing; results are computed on `timestamp`. What is in an event's
    `experiments` is not used: since October 2023 the export leaves it empty, and attribution is the reader's.
    """
    decisions = spark.read.parquet(f"{folder}/type=decisions").withColumn("event_type", F.lit("decision"))
    events = spark.read.parquet(f"{folder}/type=events").withColumn("event_type", F.lit("conversion"))
    both = decisions.unionByName(events.drop("experiments"), allowMissingColumns=True)
    filtering = F.filter("attributes", lambda a: a["name"] == "$opt_bot_filtering")
    return both.select(
        "*",
        F.col("timestamp").alias("event_time"),
        F.col("process_timestamp").alias("_timestamp"),
        (F.try_element_at(filtering, F.lit(1))["value"] == "true").alias("bot_filtering"),
    )


def read_source(
    spark: SparkSession,
    name: str,
    path: str,
    visitor: str,
    time: str,
    time_format: str,
    time_zone: str,
    like: DataFrame,
) -> DataFrame:
    """The rows of a CSV file as conversion events with the source's name; every column is a tag.

    Rows that are the same are as many events: a file has no ids by which one could be a repetition.

    Args:
        like: a frame with the columns to make; those that a source does not have are null.

    Raises:
        ConfigError: the file is not there, or has no such column.
    """
    try:
        rows = spark.read.option("header", True).csv(path)
    except PySparkException as error:
        raise ConfigError(f"source {name}: {path}: {unwrapped(error)}") from None
    if missing := [column for column in (visitor, time) if column not in rows.columns]:
        raise ConfigError(f"source {name}: {path} has no column {missing}; it has {rows.columns}")
    columns = [F.col(f"`{column}`") for column in rows.columns]
    key = F.sha2(F.to_json(F.struct(*columns)), 256)
    nth = F.row_number().over(Window.partitionBy(key).orderBy(F.lit(1)))
    at = F.to_utc_timestamp(F.try_to_timestamp(F.col(time), F.lit(time_format) if time_format else None), time_zone)
    made = {
        "event_time": at,
        "_timestamp": at,
        "event_type": F.lit("conversion"),
        "event_name": F.lit(name),
        "uuid": F.concat_ws("-", key, nth),
        "visitor_id": F.col(visitor),
        "tags": F.map_from_arrays(F.array(*map(F.lit, rows.columns)), F.array(*columns)),
    }
    return rows.select(*(made.get(f.name, F.lit(None)).cast(f.dataType).alias(f.name) for f in like.schema.fields))


class EventsVersion:
    """An events table as it is now, and what its log says of the days that changed and of those that were removed."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        if not DeltaTable.isDeltaTable(spark, path):
            raise ConfigError(f"nothing was landed yet: there is no table {path}; run `lode land` first")
        self._spark, self.path = spark, path
        self.number, progress = transactions(spark, path)
        self.expired_before = expired_before(progress.get(EXPIRY))

    def touched_since(self, version: int) -> set[date] | None:
        """UTC days of event time whose rows were added after a version; compaction touches none. None: the log does not
        go back that far."""
        schema = "add STRUCT<partitionValues: MAP<STRING, STRING>, dataChange: BOOLEAN>"
        log = self._spark.read.schema(schema).json(f"{self.path}/_delta_log/*.json")
        number = F.regexp_extract("_metadata.file_name", r"^(\d{20})\.json$", 1).try_cast("bigint")
        since = log.withColumn("number", number).where((F.col("number") > version) & (F.col("number") <= self.number))
        adds = since.groupBy("number").agg(
            F.collect_set(F.when(F.col("add.dataChange"), _date_of_file())).alias("days")
        )
        found = {row["number"]: row["days"] for row in adds.collect()}
        if len(found) < self.number - version:
            return None
        return {date.fromisoformat(day) for days in found.values() for day in days}


def _date_of_file() -> Column:
    return F.col("add.partitionValues")["date"]


class AnalysisTable:
    """A table of an analysis, by its columns' DDL; a day (`date`) is replaced whole, several days in one commit."""

    def __init__(self, spark: SparkSession, path: str, ddl: str) -> None:
        self._spark, self.path, self._ddl = spark, path, ddl

    def replace(self, rows: Iterable[Mapping[str, Any]], days: Sequence[date], metadata: Mapping[str, Any]) -> None:
        """Makes the rows those of these days, and no others.

        Raises:
            LostRace: another run replaced one of the days in the meantime.
        """
        names = [part.split()[0] for part in self._ddl.split(",")]
        values = [tuple(row.get(name) for name in names) for row in rows]
        self.replace_with(self._spark.createDataFrame(values, self._ddl).coalesce(1), days, metadata)

    def replace_with(self, frame: DataFrame, days: Sequence[date], metadata: Mapping[str, Any]) -> None:
        """The same from a frame with the table's columns, whatever its size.

        Raises:
            LostRace: another run replaced one of the days in the meantime.
        """
        frame = self._as_declared(frame)
        builder = DeltaTable.createIfNotExists(self._spark).location(self.path).addColumns(frame.schema)
        for name, value in _PROPERTIES.items():
            builder = builder.property(name, value)
        where = ", ".join(f"DATE'{day.isoformat()}'" for day in days)
        try:
            builder.partitionedBy("date").execute()
            (
                frame.write.format("delta").mode("overwrite").option("replaceWhere", f"date IN ({where})")
                .option("mergeSchema", True).option("userMetadata", json.dumps({"lode": metadata})).save(self.path)
            )  # fmt: skip
        except (Py4JJavaError, PySparkException) as error:
            if is_lost_race(error):
                raise LostRace(f"table {self.path}: a concurrent run replaced one of these days first") from None
            raise unwrapped(error) from None

    def _as_declared(self, frame: DataFrame) -> DataFrame:
        fields = self._spark.createDataFrame([], self._ddl).schema.fields
        return frame.select(*(F.col(field.name).cast(field.dataType) for field in fields))

    def frame(self) -> DataFrame:
        """The table as it is; empty before the first analysis."""
        if not DeltaTable.isDeltaTable(self._spark, self.path):
            return self._spark.createDataFrame([], self._ddl)
        return self._spark.read.format("delta").load(self.path)

    def read(self) -> list[dict[str, Any]]:
        """All rows; none before the first analysis."""
        return [row.asDict(recursive=True) for row in self.frame().collect()]

    def last_metadata(self) -> dict[str, Any] | None:
        """What the last replacement noted."""
        if not DeltaTable.isDeltaTable(self._spark, self.path):
            return None
        rows = DeltaTable.forPath(self._spark, self.path).history().select("userMetadata").collect()
        found = [json.loads(row["userMetadata"])["lode"] for row in rows if row["userMetadata"]]
        return found[0] if found else None
