"""Sessions: a visitor's events up to a pause of more than 30 minutes; one without a pause is cut 24 hours after its start,
and again every 24 hours.

Dataset: hdfs://.../sessions/NAME, Delta, partitioned by `date`. Grain: one row a session and day, so that a session over
midnight has two rows with one `session_id`, of which the one that `starts` counts it; a day's row says nothing of what
came after the day's end, so that it stays the same whenever the day is analysed.
"""

from collections.abc import Sequence
from datetime import date

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.events import day_of
from pipeline_lib.analysis.visitors import all_sessions
from pipeline_lib.io.spark import Frame, Window
from pipeline_lib.io.spark import functions as F

DDL = (
    "date DATE, session_id STRING, visitor_id STRING, started_at TIMESTAMP, last_at TIMESTAMP, starts BOOLEAN, "
    "events BIGINT, revenue DOUBLE"
)
"""`events` and `revenue` (in the events' own unit) are those of the day, `last_at` is the day's last event."""

PAUSE_MS, LONGEST_MS = 30 * 60_000, 24 * 3_600_000
"""As Optimizely has them; of its published sample the sessions are those that it exported (tests/analysis/test_e3.py)."""


def in_sessions(events: Frame, analysis: Analysis) -> Frame:
    """Judged events with `session_at`, the time of the first event of their session; null for one that does not count.

    A measure of all sessions takes of each the first event, and decisions: from one of these on it is after an exposure.
    """
    counts = F.col("reason").isNull()
    own = Window.partitionBy("visitor_id", counts).orderBy("event_time")
    so_far = own.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    now, last = F.unix_millis("event_time"), F.unix_millis(F.lag("event_time").over(own))
    begins = last.isNull() | (now - last > PAUSE_MS)
    marked = events.withColumn("_last", last).withColumn("_since", F.max(F.when(begins, now)).over(so_far))
    nth = [F.floor((time - F.col("_since")) / LONGEST_MS) for time in (now, F.col("_last"))]
    cut = (F.col("_since") == now) | (nth[0] > nth[1])
    start = F.max(F.when(cut, F.col("event_time"))).over(so_far)
    found = marked.withColumn("session_at", F.when(counts, start)).drop("_last", "_since")
    first = (F.col("session_at") == F.col("event_time")) | (F.col("event_type") == "decision")
    for n, metric in enumerate(analysis.measures.values()):
        if all_sessions(metric):
            found = found.withColumn(f"adds_{n}", F.when(first, F.col(f"adds_{n}")))
    return found


def sessions(events: Frame, wanted: Sequence[date], analysis: Analysis) -> Frame:
    """The rows of some days, with the columns of DDL, from events in sessions."""
    day = day_of(F.col("event_time"), analysis.time_zone).alias("date")
    found = events.where(F.col("session_at").isNotNull()).select("*", day).where(F.col("date").isin(list(wanted)))
    each = found.groupBy("date", "visitor_id", "session_at").agg(
        F.max("event_time").alias("last_at"),
        F.count("*").alias("events"),
        F.coalesce(F.sum("revenue"), F.lit(0.0)).alias("revenue"),
    )
    start = F.col("session_at")
    return each.select(
        "date", F.concat_ws("-", "visitor_id", F.unix_millis(start)).alias("session_id"), "visitor_id",
        start.alias("started_at"), "last_at",
        (day_of(start, analysis.time_zone) == F.col("date")).alias("starts"), "events", "revenue",
    )  # fmt: skip


def session_figures(rows: Frame) -> Frame:
    """By `date`: the visitors, the sessions that start, and of these the mean and quantiles of their length (seconds)
    and events, and the share of those with one event only."""
    seconds = (F.unix_millis("last_at") - F.unix_millis("started_at")) / 1000
    starting = rows.withColumn("seconds", F.when(F.col("starts"), seconds))
    return starting.groupBy("date").agg(
        F.countDistinct("visitor_id").cast("double").alias("visitors"),
        F.count("seconds").cast("double").alias("sessions"),
        F.avg("seconds").alias("mean_seconds"),
        F.percentile("seconds", F.lit(0.5)).alias("median_seconds"),
        F.percentile("seconds", F.lit(0.95)).alias("p95_seconds"),
        F.avg(F.when(F.col("starts"), F.col("events"))).alias("mean_events"),
        F.avg(F.when(F.col("starts"), (F.col("events") == 1).cast("double"))).alias("share_of_one_event"),
    )
