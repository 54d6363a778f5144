"""Kafka -> S3, every hour: `lode archive TOPIC --until END OF HOUR`. It does not wait for landing: HDFS may be lost."""

from datetime import timedelta

from airflow_dags.assets import ARCHIVED
from airflow_dags.common import HOURLY, follow_kafka, lode_dag

with lode_dag("archive", str(__doc__), schedule=HOURLY, late_after=timedelta(hours=1)):
    for topic, archived in ARCHIVED.items():
        follow_kafka(topic, "kafka_to_s3.py", pool="s3", outlets=[archived])
