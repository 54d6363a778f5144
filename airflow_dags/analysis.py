"""HDFS -> results, once a day: when the 24 hours of a UTC day have landed, the day is analysed.

First the days that late events have touched are computed again (`lode analyze NAME --changed`), then the day itself, so
that an hour that was landed again counts with the next run at the latest.
"""

from datetime import timedelta

from airflow.sdk import AssetAll, DayWindow, PartitionedAssetTimetable, RollupMapper, StartOfDayMapper

from airflow_dags.assets import ANALYSES, LANDED, RESULTS
from airflow_dags.common import DAY, NEXT_DAY, lode_dag, spark_job

sources = dict.fromkeys(declared["topic"] for declared in ANALYSES.values())
whole_day = PartitionedAssetTimetable(
    assets=AssetAll(*(LANDED[topic] for topic in sources)),
    default_partition_mapper=RollupMapper(upstream_mapper=StartOfDayMapper(), window=DayWindow()),
)

with lode_dag("analysis", str(__doc__), schedule=whole_day, late_after=timedelta(hours=3), max_active_runs=1):
    for name in ANALYSES:
        late = spark_job(f"{name}.late", "analyze.py", [name, "--changed"], pool="hdfs")
        day = spark_job(
            f"{name}.day",
            "analyze.py",
            [name, "--since", DAY, "--until", NEXT_DAY],
            pool="hdfs",
            outlets=[RESULTS[name]],
            trigger_rule="all_done",
        )
        late >> day
