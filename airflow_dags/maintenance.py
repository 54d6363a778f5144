"""Every night: a sample of the archive is read again and compared; the small files of the day before yesterday are
written into few; landed days beyond `keep_days` are removed, and then files that no commit names.
"""

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable

from airflow_dags.assets import TOPICS
from airflow_dags.common import lode_dag, spark_job

BEFORE = "{{ macros.ds_add(dag_run.run_after.date().isoformat(), -2) }}"
AFTER = "{{ macros.ds_add(dag_run.run_after.date().isoformat(), -1) }}"

nightly = CronTriggerTimetable("30 3 * * *", timezone="UTC")

with lode_dag("maintenance", str(__doc__), schedule=nightly, late_after=timedelta(hours=6), max_active_runs=1):
    for topic in TOPICS:
        verified = spark_job(f"{topic}.verify", "verify_archive.py", [topic, "--sample", "0.05"], pool="s3")
        compacted = spark_job(
            f"{topic}.compact", "compact.py", [topic, "--since", BEFORE, "--until", AFTER], pool="hdfs"
        )
        expired = spark_job(f"{topic}.expire", "expire.py", [topic, "--execute"], pool="hdfs")
        vacuumed = spark_job(f"{topic}.vacuum", "vacuum.py", [topic, "--older-than", "72", "--execute"], pool="hdfs")
        verified >> compacted >> expired >> vacuumed
