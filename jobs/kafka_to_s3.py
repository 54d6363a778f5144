"""Kafka -> S3: archives a topic's new records, byte for byte.

lode archive events
spark-submit ... jobs/kafka_to_s3.py events --until 2026-11-03
"""

from pipeline_lib.archive_run import archive_topic
from pipeline_lib.batches import Limits
from pipeline_lib.config import load_config
from pipeline_lib.errors import DataMissing
from pipeline_lib.io.spark import map_units, session
from pipeline_lib.job import (
    AsJson,
    ConfigPath,
    MaxBytes,
    MaxRecords,
    Strict,
    TopicName,
    Until,
    gap_text,
    print_result,
    run,
)
from pipeline_lib.timespan import parse_time
from pipeline_lib.topics import load_topic


def main(
    topic: TopicName,
    until: Until = None,
    max_records: MaxRecords = None,
    max_bytes: MaxBytes = None,
    strict: Strict = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Archive a topic's new records on S3, exactly as Kafka holds them."""
    deployment = load_config(config)
    declared = load_topic(deployment.topics, topic)
    limits = Limits(parse_time(until) if until else None, max_records, max_bytes, strict)
    spark = session(f"lode archive {topic}")
    report = archive_topic(deployment, declared, limits, lambda work, units: map_units(spark, work, units))
    values = {name: value for name, value in vars(report).items() if name not in ("events", "quarantined")}
    print_result(values | {"gaps": gap_text(report.gaps)}, as_json)
    if report.gaps:
        raise DataMissing(f"{topic}: Kafka no longer had offsets of {gap_text(report.gaps)}")


if __name__ == "__main__":
    run(main)
