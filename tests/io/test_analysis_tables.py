"""The table of results, which days landing has touched, and sources from outside."""

import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.analysis.results import DDL
from pipeline_lib.errors import ConfigError, LostRace
from pipeline_lib.io.analysis_tables import AnalysisTable, EventsVersion, read_events, read_quarantined, read_source
from pipeline_lib.io.spark import Session

DAY = date(2026, 11, 1)


def rows(day: date, count: int) -> list[dict[str, Any]]:
    return [{"date": day, "part": "quality", "experiment_id": "", "reason": f"r{n}", "count": n} for n in range(count)]


def land(spark: Session, path: str, *events: tuple[str, datetime, datetime]) -> None:
    """Events (quality, event time, record's time) as landing lays them out."""
    values = [(quality, at.date(), at.hour, at, record, "some_reason: x") for quality, at, record in events]
    ddl = "quality STRING, date DATE, hour INT, event_time TIMESTAMP, _timestamp TIMESTAMP, _reason STRING"
    frame = spark.createDataFrame(values, ddl)
    frame.write.format("delta").mode("append").partitionBy("quality", "date", "hour").save(path)


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def test_a_day_is_replaced_and_the_others_stay(spark: Session, tmp_path: Path) -> None:
    table = AnalysisTable(spark, str(tmp_path / "t"), DDL)
    assert table.read() == []
    assert table.last_metadata() is None
    table.replace([*rows(DAY, 3), *rows(DAY + timedelta(1), 2)], [DAY, DAY + timedelta(1)], {"events_version": 4})
    table.replace(rows(DAY, 1), [DAY], {"events_version": 7})
    found = [(row["date"], row["reason"]) for row in table.read()]
    assert sorted(found) == [(DAY, "r0"), (DAY + timedelta(1), "r0"), (DAY + timedelta(1), "r1")]
    assert table.last_metadata() == {"events_version": 7}
    table.replace([], [DAY], {"events_version": 8})  # a day that has nothing any more
    assert {row["date"] for row in table.read()} == {DAY + timedelta(1)}


def test_of_runs_at_once_each_is_whole_or_lost(spark: Session, tmp_path: Path) -> None:
    table = AnalysisTable(spark, str(tmp_path / "t"), DDL)
    table.replace(rows(DAY, 1), [DAY], {"events_version": 1})
    ends: list[str] = []

    def run(count: int) -> None:
        try:
            table.replace(rows(DAY, count), [DAY], {"events_version": count})
            ends.append("done")
        except LostRace:
            ends.append("lost")

    threads = [threading.Thread(target=run, args=(count,)) for count in (2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(ends) == 3
    assert "done" in ends
    metadata = table.last_metadata()
    assert metadata
    assert len(table.read()) == metadata["events_version"]  # one run's rows, and nothing of another's


def test_touched_days_are_those_of_appends_and_not_of_compaction(spark: Session, tmp_path: Path) -> None:
    path = f"file://{tmp_path}/t"
    with pytest.raises(ConfigError, match="run `lode land` first"):
        EventsVersion(spark, path)
    land(spark, path, ("ok", at(1), at(1)), ("ok", at(2), at(2)))
    first = EventsVersion(spark, path)
    assert first.touched_since(first.number) == set()
    land(spark, path, ("ok", at(1, 3), at(4)), ("ok", at(3), at(4)))
    land(spark, path, ("ok", at(3), at(4)))
    spark.sql(f"OPTIMIZE delta.`{path}`")
    now = EventsVersion(spark, path)
    assert now.number == first.number + 3
    assert now.touched_since(first.number) == {date(2026, 11, 1), date(2026, 11, 3)}
    (tmp_path / "t" / "_delta_log" / f"{first.number + 1:020}.json").unlink()
    assert now.touched_since(first.number) is None  # the log does not go back that far


def test_events_of_a_span_and_impossible_times_of_its_records(spark: Session, tmp_path: Path) -> None:
    path = f"file://{tmp_path}/t"
    old, far = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
    land(
        spark, path, ("ok", at(1), at(1)), ("ok", at(2), at(2)), ("ok", at(3, 0), at(3)), ("ok", old, at(2)),
        ("ok", far, at(1)), ("ok", far, at(9)), ("quarantined", at(2), at(2)),
    )  # fmt: skip
    version = EventsVersion(spark, path).number
    found = read_events(spark, path, version, at(1, 0), at(3, 0)).collect()
    assert sorted(row["event_time"].year for row in found) == [1970, 2026, 2026, 2200]
    land(spark, path, ("ok", at(1), at(1)))
    assert read_events(spark, path, version, at(1, 0), at(3, 0)).count() == 4  # that version's, whatever comes later
    refused = read_quarantined(spark, path, version, at(2, 0), at(3, 0)).collect()
    assert [row["reason"] for row in refused] == ["some_reason"]
    assert read_quarantined(spark, path, version, at(2, 13), at(3, 0)).count() == 0


def test_a_source_without_its_columns_is_an_error_that_names_them(spark: Session, tmp_path: Path) -> None:
    file = tmp_path / "calls.csv"
    file.write_text("who,when\nv1,2026-11-01T10:00:00\nv1,2026-11-01T10:00:00\nv2,not a time\n")
    like = spark.createDataFrame([], "visitor_id STRING, event_time TIMESTAMP, uuid STRING, tags MAP<STRING, STRING>")
    with pytest.raises(ConfigError, match=r"has no column \['visitor'\]; it has \['who', 'when'\]"):
        read_source(spark, "calls", file.as_uri(), "visitor", "when", "", "UTC", like)
    with pytest.raises(ConfigError, match="source calls"):
        read_source(spark, "calls", f"{file.as_uri()}.gone", "who", "when", "", "UTC", like)
    found = read_source(spark, "calls", file.as_uri(), "who", "when", "", "UTC", like).collect()
    assert len({row["uuid"] for row in found}) == 3  # the same row twice is two calls
    assert [row["event_time"] is None for row in found].count(True) == 1
