"""What of a day's events and visitors does not count, and why: rows of day, experiment, reason and count."""

from collections.abc import Sequence
from datetime import date

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.events import counted_at, day_of, is_decision
from pipeline_lib.analysis.visitors import exposes
from pipeline_lib.io.spark import Frame
from pipeline_lib.io.spark import functions as F


def event_quality(events: Frame, wanted: Sequence[date], analysis: Analysis) -> Frame:
    """Events of each wanted day by what became of them; an impossible time counts for the day of its record."""
    known = F.col("experiment_id").isin([each.id for each in analysis.experiments])
    fate = (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(is_decision() & F.coalesce("is_holdback", F.lit(False)), "holdback")
        .when(is_decision() & ~F.coalesce(known, F.lit(False)), "unknown_experiment")
        .when(is_decision() & ~F.coalesce(exposes(analysis), F.lit(False)), "unknown_variation_or_outside_the_span")
        .when(F.col("not_a_number"), "not_a_number")
        .otherwise("counted")
    )
    _, day = counted_at(analysis.time_zone)
    found = events.select(
        day.alias("day"), F.coalesce("experiment_id", F.lit("")).alias("experiment_id"), fate.alias("reason")
    )
    return found.where(F.col("day").isin(list(wanted))).groupBy("day", "experiment_id", "reason").count()


def quarantine_quality(quarantined: Frame, wanted: Sequence[date], analysis: Analysis) -> Frame:
    """Records that could not be decoded, for the day of their timestamp."""
    day = day_of(F.col("_timestamp"), analysis.time_zone).alias("day")
    reason = F.concat(F.lit("quarantined_"), "reason").alias("reason")
    found = quarantined.select(day, F.lit("").alias("experiment_id"), reason).where(F.col("day").isin(list(wanted)))
    return found.groupBy("day", "experiment_id", "reason").count()


def visitor_quality(exposed: Frame, wanted: Sequence[date]) -> Frame:
    """Visitors who were seen in several variations by each wanted day."""
    ends = F.filter(F.array(*map(F.lit, wanted)), lambda end: end >= F.col("several_on"))
    found = exposed.select("experiment_id", F.explode(ends).alias("day"))
    return found.groupBy("day", "experiment_id").agg(
        F.lit("visitor_in_several_variations").alias("reason"), F.count("*").alias("count")
    )
