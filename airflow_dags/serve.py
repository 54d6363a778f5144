"""Kafka -> HBase, every hour: `lode serve TOPIC --until END OF HOUR` to Prod and Loki, for topics that have rows."""

from datetime import timedelta

from airflow_dags.assets import SERVED
from airflow_dags.common import HOURLY, follow_kafka, lode_dag

with lode_dag("serve", str(__doc__), schedule=HOURLY, late_after=timedelta(hours=1)):
    for topic in SERVED:
        follow_kafka(topic, "kafka_to_hbase.py", pool="hbase")
