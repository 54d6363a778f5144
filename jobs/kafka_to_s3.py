"""Kafka -> S3: archives a topic's new records, byte for byte.

lode archive events
spark-submit ... jobs/kafka_to_s3.py events --until 2026-11-03
"""

from pipeline_lib.archive.run import archive_topic
from pipeline_lib.batches.run import Limits
from pipeline_lib.config import load_config
from pipeline_lib.io.spark import spark_runner
from pipeline_lib.job import AsJson, ConfigPath, MaxBytes, MaxRecords, Strict, TopicName, Until, run
from pipeline_lib.output import print_result
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
    report = archive_topic(deployment, declared, limits, spark_runner(f"lode archive {topic}"))
    print_result(report.as_dict(), as_json)
    report.check_gaps()


if __name__ == "__main__":
    run(main)
