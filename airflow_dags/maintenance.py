"""Every night: a sample of the archive is read again and compared, and files that no commit names are removed."""

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable

from airflow_dags.assets import TOPICS
from airflow_dags.common import lode_dag, spark_job

nightly = CronTriggerTimetable("30 3 * * *", timezone="UTC")

with lode_dag("maintenance", str(__doc__), schedule=nightly, late_after=timedelta(hours=6), max_active_runs=1):
    for topic in TOPICS:
        verified = spark_job(f"{topic}.verify", "verify_archive.py", [topic, "--sample", "0.05"], pool="s3")
        vacuumed = spark_job(f"{topic}.vacuum", "vacuum.py", [topic, "--older-than", "72", "--execute"], pool="hdfs")
        verified >> vacuumed
