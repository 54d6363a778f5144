"""Retention: of the visitors who were exposed on a day, their cohort, how many are back on each later day."""

from collections.abc import Sequence
from datetime import date

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.events import day_of
from pipeline_lib.analysis.visitors import exposed_by
from pipeline_lib.io.spark import Frame
from pipeline_lib.io.spark import functions as F


def returned(events: Frame, exposed: Frame, wanted: Sequence[date], analysis: Analysis) -> Frame:
    """By experiment_id, variation_id, cohort (the day of exposure) and day: the cohort's `visitors`, and those of them who
    `returned`: who did on that day, and not before the exposure, what Analysis.retention says.

    Args:
        events: judged ones with `returns`.
    """
    day = day_of(F.col("event_time"), analysis.time_zone).alias("day")
    active = events.where(F.col("reason").isNull() & F.col("returns")).select("visitor_id", "event_time", day)
    active = active.where(F.col("day").isin(list(wanted)))
    last = active.groupBy("visitor_id", "day").agg(F.max("event_time").alias("last_at"))
    cohorts = exposed_by(exposed, wanted, analysis)
    cohorts = cohorts.where(F.date_diff("day", "exposed_on") <= analysis.retention.days)
    found = cohorts.join(last, ["visitor_id", "day"], "left")
    back = F.count(F.when(F.col("last_at") >= F.col("exposed_at"), 1)).alias("returned")
    group = ("experiment_id", "variation_id", F.col("exposed_on").alias("cohort"), "day")
    return found.groupBy(*group).agg(F.count("*").alias("visitors"), back)
