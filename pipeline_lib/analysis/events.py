"""From landed events to those that count: why each of the others does not is said, and counted.

Frames here have the columns of the events table (landing.rows) that COLUMNS names.
"""

from collections.abc import Mapping
from datetime import datetime

from pipeline_lib.io.spark import Column, Frame, Window
from pipeline_lib.io.spark import functions as F

COLUMNS = (
    "event_time", "_timestamp", "event_type", "uuid", "visitor_id", "session_id", "experiment_id", "variation_id", "is_holdback",
    "event_name", "revenue", "value", "quantity", "tags", "attributes", "user_agent", "bot_filtering",
)  # fmt: skip

KEPT = (
    "event_time", "_timestamp", "event_type", "event_name", "uuid", "visitor_id", "experiment_id", "variation_id",
    "is_holdback",
)  # fmt: skip

BOT_AGENTS = (
    r"(?i)(bot|crawl|spider|slurp|archiver|facebookexternalhit|lighthouse|headless|phantomjs|monitor|pingdom|"
    r"python-requests|curl/|wget/|httpclient|okhttp|java/|scrapy|feedfetcher|preview)"
)
"""Words of the user agents that the IAB/ABC list of spiders and bots names. The list itself is sold, so these are the
public words; an agent is a bot only where the project asked for bot filtering (Optimizely's $opt_bot_filtering)."""


def judged(events: Frame, latest: datetime, more: Mapping[str, Column]) -> Frame:
    """The events with KEPT, the columns `more`, and `reason`: null for one that counts, else why it does not.

    Of events with one uuid (and, for decisions, one experiment: the decisions of a snapshot share a uuid) the earliest
    counts, so that a retry with another timestamp changes nothing. One shuffle, by visitor, of these columns only.

    Args:
        latest: an event time from here on is in the future.
        more: columns that are made of the event before it is slimmed.
    """
    reason = (
        F.when(F.coalesce("visitor_id", F.lit("")) == "", "no_visitor")
        .when(F.coalesce("uuid", F.lit("")) == "", "no_uuid")
        .when(F.col("event_time") < F.lit("2000-01-01T00:00:00Z").cast("timestamp"), "time_before_2000")
        .when(F.col("event_time") >= F.lit(latest), "time_in_the_future")
        .when(F.coalesce("bot_filtering", F.lit(False)) & F.col("user_agent").rlike(BOT_AGENTS), "bot")
    )
    # Which of two events with one uuid and time is the first has to be the same in every run.
    settling = F.xxhash64("event_name", "revenue", "value", "quantity", "session_id").alias("_settling")
    made = [column.alias(name) for name, column in more.items()]
    slim = events.select(*KEPT, *made, settling, reason.alias("reason")).repartition("visitor_id")
    same = Window.partitionBy("visitor_id", "uuid", F.coalesce("experiment_id", F.lit("")), F.col("reason").isNull())
    nth = F.row_number().over(same.orderBy("event_time", F.coalesce("variation_id", F.lit("")), "_settling"))
    return slim.withColumn("reason", F.coalesce("reason", F.when(nth > 1, "duplicate"))).drop("_settling")


def is_decision() -> Column:
    return F.col("event_type") == "decision"


def number(field: str) -> Column:
    """A field, or `tags.NAME`, as a finite number; null where it is none.

    SDKs leave revenue and value among the tags as well: the field is taken, and the tag only where there is no field.
    """
    if field.startswith("tags."):
        found = F.col("tags")[field.removeprefix("tags.")].try_cast("double")
    elif field in ("revenue", "value"):
        found = F.coalesce(F.col(field).cast("double"), F.col("tags")[field].try_cast("double"))
    else:
        found = F.col(field).try_cast("double")
    return F.when(~F.isnan(found) & (F.abs(found) < 2.0**63), found)


def given(field: str) -> Column:
    """Whether an event says anything at all for `number`."""
    if field in ("revenue", "value"):
        return F.col(field).isNotNull() | F.col("tags")[field].isNotNull()
    return text(field).isNotNull()


def text(field: str) -> Column:
    """A field, or `tags.NAME`, as it is compared in a metric's `where`."""
    if field.startswith("tags."):
        return F.col("tags")[field.removeprefix("tags.")]
    return F.col(field).cast("string")


def counted_at(zone: str) -> tuple[Column, Column]:
    """When an event counts, and on which day: an impossible time counts for the time of its record."""
    impossible = F.coalesce(F.col("reason").startswith("time_"), F.lit(False))
    time = F.when(impossible, F.col("_timestamp")).otherwise(F.col("event_time"))
    return time, day_of(time, zone)


def day_of(time: Column, zone: str) -> Column:
    """The day of a time in a time zone; the session's own zone is UTC."""
    return F.to_date(F.from_utc_timestamp(time, zone))
