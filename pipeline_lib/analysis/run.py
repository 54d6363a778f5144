"""Landed events -> results: the analysis of some days, from reading to commit."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

from scipy.stats import norm

from pipeline_lib.analysis import traffic
from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.events import judged
from pipeline_lib.analysis.expired import check_unexpired
from pipeline_lib.analysis.funnels import funnel_counts
from pipeline_lib.analysis.inference.quantiles import Quantile
from pipeline_lib.analysis.moments import GROUP, moments, quantiles, visitors_to_date
from pipeline_lib.analysis.publish import publish
from pipeline_lib.analysis.quality import event_quality, quarantine_quality, visitor_quality
from pipeline_lib.analysis.results import (
    DDL,
    Group,
    Row,
    funnel_rows,
    quality_rows,
    result_rows,
    retention_rows,
    sample_rows,
    session_rows,
)
from pipeline_lib.analysis.retention import returned
from pipeline_lib.analysis.sessions import DDL as SESSIONS_DDL
from pipeline_lib.analysis.sessions import in_sessions, session_figures, sessions
from pipeline_lib.analysis.visitors import event_columns, exposures, visitor_days
from pipeline_lib.config import Config
from pipeline_lib.datasets import analysis_path, events_path, sessions_path, traffic_path
from pipeline_lib.errors import ConfigError
from pipeline_lib.io.analysis_tables import AnalysisTable, EventsVersion, read_events, read_quarantined, read_source
from pipeline_lib.io.spark import DISK_ONLY, Frame, Session
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
        ConfigError: nothing was landed yet, events that are needed have expired, or a source is missing.
        LostRace: another run replaced one of the days.
    """
    path = events_path(config.hdfs, analysis.topic)
    version = EventsVersion(spark, path)
    if not days:
        raise ConfigError("the span holds no whole day: --until is the day after the last one")
    check_unexpired(analysis, days[0], version.expired_before)
    rows: list[Row] = []
    metadata = {"events_version": version.number, "topic": analysis.topic}
    for some in passes(analysis, days):
        (first, _), (_, until) = (day_bounds(day, analysis.time_zone) for day in (some[0], some[-1]))
        events = read_events(spark, path, version.number, analysis.first_needed(first), until)
        refused = read_quarantined(spark, path, version.number, first, until)
        with prepared(with_sources(spark, events, analysis), some, analysis) as frames:
            visits = traffic.traffic(frames.events, refused, some, analysis).repartition("date", "time")
            AnalysisTable(spark, traffic_path(config.hdfs, name), traffic.DDL).replace_with(visits, some, metadata)
            made = sessions(frames.events, some, analysis).repartition("date")
            AnalysisTable(spark, sessions_path(config.hdfs, name), SESSIONS_DDL).replace_with(made, some, metadata)
            rows += rows_of(frames, some, analysis)
            rows += quality_rows(_counted(quarantine_quality(refused, some, analysis)))
    # Last: its commit is what `--changed` goes by, so that a run that ended in between is done again.
    AnalysisTable(spark, analysis_path(config.hdfs, name), DDL).replace(rows, days, metadata)
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


@dataclass(frozen=True)
class Frames:
    """What all figures of some days are made of: judged events in sessions, exposures, and visitors to date."""

    events: Frame
    exposed: Frame
    visitors: Frame


@contextmanager
def prepared(events: Frame, days: Sequence[date], analysis: Analysis) -> Iterator[Frames]:
    """Reads events with events.COLUMNS once, however many figures are made of them."""
    until = day_bounds(days[-1], analysis.time_zone)[1]
    found = in_sessions(judged(events, until, event_columns(analysis)), analysis).persist(DISK_ONLY)
    exposed = exposures(found, analysis).persist(DISK_ONLY)
    visitors = visitors_to_date(visitor_days(found, exposed, analysis), days, analysis).persist(DISK_ONLY)
    try:
        yield Frames(found, exposed, visitors)
    finally:
        for frame in (visitors, exposed, found):
            frame.unpersist()


def analysed_rows(events: Frame, days: Sequence[date], analysis: Analysis) -> list[Row]:
    """All that is said of some days, from events with events.COLUMNS."""
    with prepared(events, days, analysis) as frames:
        return rows_of(frames, days, analysis)


def rows_of(frames: Frames, days: Sequence[date], analysis: Analysis) -> list[Row]:
    """Spark reduces; only counts and moments come to the driver."""
    events, exposed, visitors = frames.events, frames.exposed, frames.visitors
    groups = {_group(row): row for row in _collected(moments(visitors, analysis))}
    z = float(norm.ppf(1 - analysis.alpha / 2))
    order = {
        (metric, scope): {_group(row): Quantile(row["visitors"], row["value"], row["low"], row["high"])
                          for row in _collected(frame)}
        for metric, scope, frame in quantiles(visitors, analysis, z)
    }  # fmt: skip
    joined = {(row["experiment_id"], row["exposed_on"], row["variation_id"]): row["count"]
              for row in exposed.groupBy("experiment_id", "exposed_on", "variation_id").count().collect()}  # fmt: skip
    counted = _counted(event_quality(events, days, analysis)) + _counted(visitor_quality(exposed, days))
    rows = result_rows(groups, order, analysis) + sample_rows(groups, joined, analysis) + quality_rows(counted)
    if analysis.funnels:
        rows += funnel_rows(_collected(funnel_counts(events, exposed, days, analysis)))
    rows += retention_rows(_collected(returned(events, exposed, days, analysis)))
    return rows + session_rows(_collected(session_figures(sessions(events, days, analysis))))


def _collected(frame: Frame) -> list[dict[str, Any]]:
    return [row.asDict() for row in frame.collect()]


def _counted(frame: Frame) -> list[tuple[date, str, str, int]]:
    return [(row["day"], row["experiment_id"], row["reason"], row["count"]) for row in _collected(frame)]


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
        fact("never_analysed", analysis=name, advice="name its first days with --since and --until")
        return []
    touched = version.touched_since(int(last["events_version"]))
    if touched is None:
        return days_of(oldest, today)
    # A UTC day has hours of two days of another zone; the earlier one is recomputed needlessly rather than forgotten.
    margin = timedelta(days=0 if analysis.time_zone == "UTC" else 1)
    recent = [day - margin for day in touched if oldest <= day - margin < today]
    return days_of(min(recent), today) if recent else []
