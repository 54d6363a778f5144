"""Traffic: how much comes of each topic and each experiment by the hour, and how much of it is unsound.

Dataset: hdfs://.../traffic/NAME, Delta, snappy Parquet, partitioned by `date`. Grain: one row an hour, visitor, event
name, experiment, variation and quality; every landed event and every quarantined record is in exactly one row, so that
sums of `events` add up however they are grouped. A decision has the experiment that it names; a conversion has none: what
visitors of an experiment did is in the results. Unique visitors are distinct `visitor_id`, exactly or by a sketch, of the
rows whose quality is `ok`.
"""

from collections.abc import Sequence
from datetime import date

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.events import counted_at, day_of, is_decision
from pipeline_lib.io.spark import Column, Frame
from pipeline_lib.io.spark import functions as F
from pipeline_lib.timespan import TimeSpan

DDL = (
    "date DATE, time TIMESTAMP, topic STRING, quality STRING, reason STRING, event_type STRING, event_name STRING, "
    "experiment_id STRING, experiment STRING, variation_id STRING, variation STRING, visitor_id STRING, "
    "events BIGINT, revenue DOUBLE"
)
"""`date`: the day in the analysis' time zone; `time`: the hour, UTC, of the event's time, or of its record's where the
event's is impossible. `quality`: `ok`, `holdback`, `bot`, `duplicate`, `error` (an event without a visitor, an id, a
possible time, or with a value that is no number) or `quarantined` (a record that could not be decoded), and `reason` why.
`experiment` and `variation` are the declared names, or the ids. `revenue`: in the events' own unit (cents)."""

_DIMENSIONS = tuple(part.split()[0] for part in DDL.split(", "))[:-2]
_OWN_QUALITY = ("bot", "duplicate")


def traffic(events: Frame, quarantined: Frame, wanted: Sequence[date], analysis: Analysis) -> Frame:
    """The rows of some days, with the columns of DDL.

    Args:
        events: judged ones, with `revenue` and `not_a_number`. Rows of sources from outside are no traffic.
        quarantined: `_timestamp` and `reason` of each record that could not be decoded.
    """
    held_back = is_decision() & F.coalesce("is_holdback", F.lit(False))
    reason = F.coalesce("reason", F.when(F.col("not_a_number"), "not_a_number"))
    quality = F.when(reason.isin(*_OWN_QUALITY), reason).when(reason.isNotNull(), "error").when(held_back, "holdback")
    names = {e.id: e.name or e.id for e in analysis.experiments}
    variations = {v: each.name for e in analysis.experiments for v, each in e.variations.items()}
    own = events.where(~F.coalesce(F.col("event_name").isin(list(analysis.sources)), F.lit(False)))
    time, day = counted_at(analysis.time_zone)
    found = own.select(
        day.alias("date"), _hour(time), F.coalesce(quality, F.lit("ok")).alias("quality"), reason.alias("reason"),
        "event_type", "event_name", "experiment_id", _named("experiment_id", names).alias("experiment"),
        "variation_id", _named("variation_id", variations).alias("variation"), "visitor_id", "revenue",
    )  # fmt: skip
    time, day = F.col("_timestamp"), day_of(F.col("_timestamp"), analysis.time_zone)
    refused = quarantined.select(day.alias("date"), _hour(time), F.lit("quarantined").alias("quality"), F.col("reason"))
    both = found.unionByName(refused, allowMissingColumns=True).withColumn("topic", F.lit(analysis.topic))
    return _summed(both.where(F.col("date").isin(list(wanted))))


def _summed(each: Frame) -> Frame:
    counted = F.when(F.col("quality") == "ok", F.col("revenue"))
    sums = [F.count("*").alias("events"), F.coalesce(F.sum(counted), F.lit(0.0)).alias("revenue")]
    return each.groupBy(*_DIMENSIONS).agg(*sums)


def _hour(time: Column) -> Column:
    return F.date_trunc("hour", time).alias("time")


def _named(column: str, names: dict[str, str]) -> Column:
    """The declared names of ids; an id that is not declared stands for itself."""
    known = F.create_map(*(F.lit(part) for pair in names.items() for part in pair))
    return F.coalesce(F.try_element_at(known, F.col(column)), F.col(column))


def of_span(rows: Frame, span: TimeSpan) -> Frame:
    """The rows whose hour begins in a span."""
    return rows.where((F.col("time") >= F.lit(span.since)) & (F.col("time") < F.lit(span.until)))


def last_days(rows: Frame, count: int) -> Frame:
    """The rows of the newest day, and of the days before it, `count` in all."""
    newest = rows.agg(F.max("date").alias("newest"))
    return rows.join(F.broadcast(newest)).where(F.col("date") > F.date_sub("newest", count)).drop("newest")


def by_hour(rows: Frame) -> Frame:
    """Events, visitors, and the shares of events that are errors and of records that were quarantined, by hour and topic.

    A quarantined record counts as one event: how many it held is not known.
    """
    bad = {
        "error_share": "error",
        "quarantined_share": "quarantined",
        "bot_share": "bot",
        "duplicate_share": "duplicate",
    }
    shares = [(_events_of(quality) / F.sum("events")).alias(name) for name, quality in bad.items()]
    found = rows.groupBy("time", "topic").agg(F.sum("events").alias("events"), _visitors(), *shares)
    return found.orderBy("time", "topic")


def top_experiments(rows: Frame, count: int) -> Frame:
    """The experiments with the most visitors, and with equally many those with the most decisions, then by id."""
    found = rows.where((F.col("quality") == "ok") & F.col("experiment_id").isNotNull())
    found = found.groupBy("experiment_id", "experiment").agg(_visitors(), F.sum("events").alias("decisions"))
    return found.orderBy(F.desc("visitors"), F.desc("decisions"), "experiment_id").limit(count)


def _visitors() -> Column:
    return F.countDistinct(F.when(F.col("quality") == "ok", F.col("visitor_id"))).alias("visitors")


def _events_of(quality: str) -> Column:
    return F.coalesce(F.sum(F.when(F.col("quality") == quality, F.col("events"))), F.lit(0))
