"""Results and events -> Druid, once a day: when a day is analysed, its rows are loaded and proved.

After the day itself, what else differs from its table is loaded (`--changed`): days that late events have changed.
"""

from datetime import timedelta

from airflow.sdk import AssetAll, PartitionedAssetTimetable

from airflow_dags.assets import DATASOURCES, RESULTS
from airflow_dags.common import DAY, NEXT_DAY, lode_dag, spark_job

analysed = PartitionedAssetTimetable(assets=AssetAll(*RESULTS.values()))

with lode_dag("druid", str(__doc__), schedule=analysed, late_after=timedelta(hours=3), max_active_runs=1):
    for name in DATASOURCES:
        span = ["--since", DAY, "--until", NEXT_DAY]
        day = spark_job(f"{name}.day", "hdfs_to_druid.py", [name, *span], pool="druid")
        late = spark_job(f"{name}.late", "hdfs_to_druid.py", [name, "--changed"], pool="druid")
        day >> late
