"""Which days `lode analyze --changed` recomputes, from a real table's log."""

from datetime import date
from pathlib import Path

from pipeline_lib.analysis.declaration import Analysis
from pipeline_lib.analysis.results import DDL
from pipeline_lib.analysis.run import changed_days, days_of
from pipeline_lib.config import Config
from pipeline_lib.datasets import analysis_path, events_path
from pipeline_lib.io.analysis_tables import AnalysisTable
from pipeline_lib.io.spark import Session

TODAY = date(2026, 11, 20)


def deployed(folder: Path) -> Config:
    return Config.model_validate(
        {
            "kafka": {"bootstrap_servers": "127.0.0.1:1"},
            "s3": {"bucket": "none", "access_key": "none", "secret_key": "none"},
            "hdfs": {"url": f"file:{folder}"},
        }
    )


def declared(zone: str = "UTC") -> Analysis:
    variations = {"a": {"name": "a"}, "b": {"name": "b"}}
    experiment = {"id": "e", "since": "2026-11-01", "control": "a", "variations": variations, "metrics": ["buys"]}
    return Analysis.model_validate(
        {"topic": "t", "time_zone": zone, "late_days": 10, "experiments": [experiment],
         "metrics": {"buys": {"kind": "conversion", "event": "purchase"}}}
    )  # fmt: skip


def test_days_from_the_first_touched_one_until_yesterday(spark: Session, tmp_path: Path) -> None:
    config = deployed(tmp_path)
    path = events_path(config.hdfs, "t")

    def land(*days: int) -> None:
        rows = spark.createDataFrame([(date(2026, 11, day), "ok") for day in days], "date DATE, quality STRING")
        rows.write.format("delta").mode("append").partitionBy("date").save(path)

    def changed(zone: str = "UTC") -> list[date]:
        return changed_days(config, "n", declared(zone), TODAY, spark)

    land(12, 13)
    assert changed() == []  # never analysed: its first days have to be named
    table = AnalysisTable(spark, analysis_path(config.hdfs, "n"), DDL)
    row = {"date": date(2026, 11, 12), "part": "quality", "experiment_id": "", "reason": "bot", "count": 1}
    table.replace([row], days_of(date(2026, 11, 12), date(2026, 11, 14)), {"events_version": 0})
    assert changed() == []
    land(20)
    assert changed() == []  # today is not over
    land(5)
    assert changed() == []  # older than late_days
    land(17, 19)
    assert changed() == days_of(date(2026, 11, 17), TODAY)
    assert changed("America/New_York") == days_of(date(2026, 11, 16), TODAY)  # hours of the 17th, UTC, are of the 16th
