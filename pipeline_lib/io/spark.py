"""Spark: the session, units of work over executors, and Delta tables on HDFS.

A Delta commit here may carry several application transactions, one a Kafka partition. Spark's writer option takes one
only, so `DeltaTarget.commit` goes through Delta's own OptimisticTransaction on the JVM: the interface that the writer
itself uses, pinned with delta-spark's version and tried by tests/faults on every run (docs/decisions/0001).
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pyarrow as pa
from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import Column as Column
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import Window as Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from pipeline_lib import errors, log
from pipeline_lib.errors import LodeError, LostRace, ServerUnavailable

Session = SparkSession
Frame = DataFrame
DISK_ONLY = StorageLevel.DISK_ONLY
"""For frames that are read several times: in memory they would take what sorting needs, however large they are. Twenty
experiments over 10,000,000 events, of which one visitor had a tenth, ended in an OutOfMemoryError with Spark's default."""
functions = F  # for the pure functions from frame to frame in analysis/, which touch no system
T = TypeVar("T")
R = TypeVar("R")

# The commits are the table's manifest: offsets, gaps, counts. Checkpoints keep reading fast all the same.
_PROPERTIES = {"delta.logRetentionDuration": "interval 3650 days"}


def session(name: str) -> SparkSession:
    """The job's session; master, jars and settings are spark-submit's."""
    spark = SparkSession.builder.appName(name).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def map_units(spark: SparkSession, work: Callable[[T], R], units: Sequence[T]) -> list[R]:
    """Runs `work` on every unit, one task each, and returns the results in order."""
    if not units:
        return []

    def run(unit: T) -> R:
        log.configure()  # a task's facts go to its executor's stderr
        return work(unit)

    try:
        return list(spark.sparkContext.parallelize(units, len(units)).map(run).collect())
    except (Py4JJavaError, PySparkException) as error:
        raise unwrapped(error) from None


def spark_runner(name: str) -> Callable[[Callable[[T], R], Sequence[T]], list[R]]:
    """What runs units of work as Spark tasks; its session is started by the first of them."""
    return lambda work, units: map_units(session(name), work, units)


def unwrapped(error: Exception) -> LodeError:
    """The error of a failed task in its own words: Spark wraps it in a Java stack trace."""
    text = str(getattr(error, "java_exception", None) or error)
    for line in reversed(text.splitlines()):
        head, _, message = line.partition(": ")
        name = head.rpartition(".")[2]
        if head.startswith("pipeline_lib.errors."):
            kind = getattr(errors, name, LodeError)
            return kind(message) if issubclass(kind, LodeError) else LodeError(message)
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith(("at ", "..."))]
    return ServerUnavailable("\n".join(lines[:6]))


def is_lost_race(error: Exception) -> bool:
    """Whether Delta refused a commit for what a concurrent one changed."""
    return "Concurrent" in f"{type(error).__name__} {error}"


def transactions(spark: SparkSession, path: str) -> tuple[int, dict[str, int]]:
    """The newest version of a Delta table, and the version of each of its application transactions."""
    jvm = cast(Any, spark._jvm)
    log, none = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path), jvm.scala.Option.empty()
    now = log.update(False, none, none)  # the session may have read the table before
    entries = [now.setTransactions().apply(i) for i in range(now.setTransactions().size())]
    return int(now.version()), {entry.appId(): int(entry.version()) for entry in entries}


@dataclass(frozen=True)
class Committed:
    version: int
    rows_by_quality: Mapping[str, int]
    bytes: int


class DeltaTarget:
    """A Delta table at the moment when a batch is planned, to be committed to on that version."""

    def __init__(self, spark: SparkSession, path: str, schema: pa.Schema, partitioned_by: Sequence[str]) -> None:
        self._spark = spark
        self._jvm = cast(Any, spark._jvm)
        self._partitioned_by = list(partitioned_by)
        self.path = path
        try:
            self._create(schema)
            log = self._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path)
            self._transaction = log.startTransaction()
        except (Py4JJavaError, PySparkException) as error:
            raise ServerUnavailable(f"table {path}: {unwrapped(error)}") from None

    def _create(self, schema: pa.Schema) -> None:
        builder = DeltaTable.createIfNotExists(self._spark).location(self.path)
        builder = builder.addColumns(from_arrow_schema(schema)).partitionedBy(*self._partitioned_by)
        for name, value in _PROPERTIES.items():
            builder = builder.property(name, value)
        builder.execute()

    def progress(self, app_ids: Mapping[int, str]) -> dict[int, int]:
        """Next offset of each partition that was ever landed. Reading it also makes the commit refuse to follow
        another commit that moves one of these partitions."""
        found = {p: int(self._transaction.txnVersion(app)) for p, app in app_ids.items()}
        return {p: at for p, at in found.items() if at >= 0}

    def commit(
        self, rows: DataFrame, metadata: str, transactions: Mapping[str, int], spread_by: Sequence[Column] = ()
    ) -> Committed:
        """Writes the rows, makes them visible and moves progress, in one commit.

        Args:
            spread_by: what besides the table's partition decides about which task writes a row. Without it one task
                writes all that is in one partition.

        Raises:
            LostRace: another commit moved one of the same application transactions since this object was made.
        """
        try:
            files = self._transaction.writeFiles(rows.repartition(*self._partitioned_by, *spread_by)._jdf)
        except (Py4JJavaError, PySparkException) as error:
            raise unwrapped(error) from None
        try:
            version = self._transaction.commit(self._actions(files, transactions), self._operation(metadata))
        except (Py4JJavaError, PySparkException) as error:
            if is_lost_race(error):
                raise LostRace(f"table {self.path}: a concurrent run committed these offsets first") from None
            raise unwrapped(error) from None
        return _committed(int(version), [files.apply(i) for i in range(files.size())])

    def _actions(self, files: Any, transactions: Mapping[str, int]) -> Any:
        option, sequence = self._jvm.scala.Option, self._jvm.org.apache.spark.api.python.PythonUtils.toSeq
        now = option.apply(int(time.time() * 1000))
        moves = [
            self._jvm.org.apache.spark.sql.delta.actions.SetTransaction(app, version, now)
            for app, version in transactions.items()
        ]
        return files.toSeq().concat(sequence(moves))

    def _operation(self, metadata: str) -> Any:
        option = self._jvm.scala.Option
        write = getattr(self._jvm.org.apache.spark.sql.delta, "DeltaOperations$Write")
        columns = self._jvm.org.apache.spark.api.python.PythonUtils.toSeq(self._partitioned_by)
        rest = [option.empty() for _ in range(write_arguments(self._jvm) - 4)]
        return write(
            self._jvm.org.apache.spark.sql.SaveMode.Append,
            option.apply(columns),
            option.empty(),
            option.apply(metadata),
            *rest,
        )


def write_arguments(jvm: Any) -> int:
    """How many arguments Delta's description of a write takes: it grows with Delta's releases, by optional ones."""
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    found = jvm.java.lang.Class.forName("org.apache.spark.sql.delta.DeltaOperations$Write", True, loader)
    return int(found.getConstructors()[0].getParameterCount())


def _committed(version: int, files: Sequence[Any]) -> Committed:
    rows: dict[str, int] = {}
    size = 0
    for file in files:
        quality = file.partitionValues().apply("quality")
        rows[quality] = rows.get(quality, 0) + int(json.loads(file.stats())["numRecords"])
        size += int(file.size())
    return Committed(version, rows, size)


def map_in_arrow(
    spark: SparkSession, units: Sequence[T], work: Callable[[T], Iterator[pa.RecordBatch]], schema: pa.Schema
) -> DataFrame:
    """A DataFrame of the Arrow rows that `work` yields for each unit, one task a unit."""
    todo = list(units)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from work(todo[number])

    numbers = spark.range(0, len(todo), 1, max(1, len(todo)))
    return numbers.mapInArrow(run, from_arrow_schema(schema))
