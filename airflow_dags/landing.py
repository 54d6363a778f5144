"""Kafka -> HDFS, every hour: `lode land TOPIC --until END OF HOUR` for each topic of conf/topics."""

from datetime import timedelta

from airflow_dags.assets import LANDED
from airflow_dags.common import HOURLY, follow_kafka, lode_dag

with lode_dag("landing", str(__doc__), schedule=HOURLY, late_after=timedelta(hours=1)):
    for topic, landed in LANDED.items():
        follow_kafka(topic, "kafka_to_hdfs.py", pool="hdfs", outlets=[landed])
