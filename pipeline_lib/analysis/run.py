"""Landed events -> results: the analysis of some days, from reading to commit."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

from scipy.stats import norm

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.events import judged
from pipeline_lib.analysis.inference.quantiles import Quantile
from pipeline_lib.analysis.moments import GROUP, moments, quantiles, visitors_to_date
from pipeline_lib.analysis.publish import publish
from pipeline_lib.analysis.quality import COLUMNS, event_quality, visitor_quality
from pipeline_lib.analysis.results import DDL, Group, Row, quality_rows, result_rows, sample_rows
from pipeline_lib.analysis.visitors import event_columns, exposures, visitor_days
from pipeline_lib.config import Config
from pipeline_lib.datasets import analysis_path, events_path
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.analysis_tables import AnalysisTable, EventsVersion, count_quarantined, read_events, read_source
from pipeline_lib.io.spark import Frame, Session
from pipeline_lib.log import fact
from pipeline_lib.timespan import day_bounds


@dataclass(frozen=True)
class AnalysisReport:
    """What was computed; `reasons`: how many results have a reason instead of numbers; `alarms`: SRM alarms, one a day and
    experiment; `not_published`: clusters that did not take the results."""

    days: int
    results: int
    reasons: int
    alarms: int
    events_version: int
    not_published: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def days_of(since: date, until: date) -> list[date]:
    return [since + timedelta(days=n) for n in range((until - since).days)]


def analyze(config: Config, name: str, analysis: Analysis, days: Sequence[date], spark: Session) -> AnalysisReport:
    """Replaces what is known of these days, all in one commit.

    A day's results are of the events before its end, so that analysing it later, with later days or alone, gives the
    same, unless events came late. Where an experiment counts the last exposure, each day is read by itself.

    Raises:
        ConfigError: nothing was landed yet, or a source is missing.
        LostRace: another run replaced one of the days.
    """
    path = events_path(config.hdfs, analysis.topic)
    version = EventsVersion(spark, path)
    if not days:
        raise ConfigError("the span holds no whole day: --until is the day after the last one")
    rows: list[Row] = []
    for some in passes(analysis, days):
        since, until = (
            analysis.first_needed(day_bounds(some[0], analysis.time_zone)[0]),
            day_bounds(some[-1], analysis.time_zone)[1],
        )
        events = with_sources(spark, read_events(spark, path, version.number, since, until), analysis)
        rows += analysed_rows(events, some, analysis)
    quarantined = [
        (day, "", f"quarantined_{word}", count)
        for day, word, count in count_quarantined(spark, path, version.number, days)
    ]
    rows += quality_rows(quarantined)
    table = AnalysisTable(spark, analysis_path(config.hdfs, name), DDL)
    table.replace(rows, days, {"events_version": version.number, "topic": analysis.topic})
    results = [row for row in rows if row["part"] == "result"]
    alarms = {(row["date"], row["experiment_id"]) for row in rows if row.get("alarm")}
    without = sum(row["difference"] is None and row["reason"] != "control" for row in results)
    fact("analyzed", analysis=name, days=len(days), rows=len(rows), events_version=version.number)
    away = publish(config, rows, analysis)
    return AnalysisReport(len(days), len(results), without, len(alarms), version.number, away)


def passes(analysis: Analysis, days: Sequence[date]) -> list[Sequence[date]]:
    """The days that one reading of the events can serve."""
    if any(each.exposure == "last" for each in analysis.experiments):
        return [[day] for day in days]
    return [days] if days else []


def with_sources(spark: Session, events: Frame, analysis: Analysis) -> Frame:
    for name, source in analysis.sources.items():
        rows = read_source(
            spark, name, source.path, source.visitor, source.time, source.time_format, source.time_zone, events
        )
        events = events.unionByName(rows)
    return events


def analysed_rows(events: Frame, days: Sequence[date], analysis: Analysis) -> list[Row]:
    """All that is said of some days, from events with events.COLUMNS."""
    until = day_bounds(days[-1], analysis.time_zone)[1]
    found = judged(events, until, event_columns(analysis)).persist()
    exposed = exposures(found, analysis).persist()
    visitors = visitors_to_date(visitor_days(found, exposed, analysis), days, analysis).persist()
    try:
        groups = {_group(row): row for row in (r.asDict() for r in moments(visitors, analysis).collect())}
        z = float(norm.ppf(1 - analysis.alpha / 2))
        order = {
            (metric, scope): {_group(row): Quantile(row["visitors"], row["value"], row["low"], row["high"])
                              for row in (r.asDict() for r in frame.collect())}
            for metric, scope, frame in quantiles(visitors, analysis, z)
        }  # fmt: skip
        joined = {(row["experiment_id"], row["exposed_on"], row["variation_id"]): row["count"]
                  for row in exposed.groupBy("experiment_id", "exposed_on", "variation_id").count().collect()}  # fmt: skip
        counted = [tuple(row[name] for name in COLUMNS)
                   for frame in (event_quality(found, days, analysis), visitor_quality(exposed, days))
                   for row in frame.select(*COLUMNS).collect()]  # fmt: skip
        return result_rows(groups, order, analysis) + sample_rows(groups, joined, analysis) + quality_rows(counted)
    finally:
        for frame in (visitors, exposed, found):
            frame.unpersist()


def _group(row: Mapping[str, object]) -> Group:
    experiment, day, segment, variation = (row[name] for name in GROUP)
    return str(experiment), day, str(segment), str(variation)  # type: ignore[return-value]


def changed_days(config: Config, name: str, analysis: Analysis, today: date, spark: Session) -> list[date]:
    """The days from the first one on that landing has touched since the last analysis, until yesterday, and no older
    than `late_days`: what was done to date is of all earlier days as well."""
    version = EventsVersion(spark, events_path(config.hdfs, analysis.topic))
    last = AnalysisTable(spark, analysis_path(config.hdfs, name), DDL).last_metadata()
    oldest = today - timedelta(days=analysis.late_days)
    if last is None:
        raise ConfigError(f"{name} was never analysed: name its first days with --since and --until")
    touched = version.touched_since(int(last["events_version"]))
    if touched is None:
        return days_of(oldest, today)
    # A UTC day has hours of two days of another zone; the earlier one is recomputed needlessly rather than forgotten.
    margin = timedelta(days=0 if analysis.time_zone == "UTC" else 1)
    recent = [day - margin for day in touched if oldest <= day - margin < today]
    return days_of(min(recent), today) if recent else []
